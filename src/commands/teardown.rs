//! `waldex teardown`: drops the slot, so that it keeps no more WAL, and the state. Indices stay.

use std::io::{BufRead, Write};

use crate::elasticsearch::client::Client;
use crate::elasticsearch::dead_letter;
use crate::elasticsearch::state::StateStore;
use crate::error::Error;
use crate::postgres::session::{Purpose, Session};
use crate::postgres::slot;
use crate::settings::Settings;

/// Drops slot and state, after a question on the terminal unless `is_sure`.
///
/// # Errors
/// The answer is not yes, the slot is in use, or a server cannot be reached.
pub(super) async fn teardown(settings: &Settings, is_sure: bool) -> Result<(), Error> {
    let name = &settings.postgres.slot;
    if !is_sure && !is_confirmed(name) {
        return Err(Error::NotConfirmed);
    }
    let session = Session::connect(&settings.postgres, Purpose::Control).await?;
    let had_slot = slot::inspect(&session, name).await?.is_some();
    if had_slot {
        slot::drop(&session, name).await?;
    }
    let client = Client::new(&settings.elasticsearch)?;
    // They may hold what rows held, and nothing will put them right any more.
    for letter in dead_letter::list(&client, name).await? {
        dead_letter::discard(&client, &letter).await?;
    }
    StateStore::new(client, name, "teardown".to_owned()).remove().await?;
    let slot = if had_slot { "dropped" } else { "was not there" };
    println!(
        "slot \"{name}\" {slot}, state and dead letters removed; indices and publication are left as they are"
    );
    Ok(())
}

fn is_confirmed(slot: &str) -> bool {
    print!(
        "drop slot \"{slot}\" and its state? The indices cannot be continued afterwards. [y/N] "
    );
    let mut answer = String::new();
    let asked = std::io::stdout().flush().is_ok();
    let answered = asked && std::io::stdin().lock().read_line(&mut answer).is_ok();
    answered && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
