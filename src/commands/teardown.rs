//! `waldex teardown`: drops the slot, so that it keeps no more WAL, and the state. Indices stay.
//!
//! Never under the hands of a waldex that runs: where the lease was not given back, and its holder cannot be
//! shown to be dead, it is watched for as long as it may hold.

use std::io::BufRead;
use std::time::Duration;

use super::output;
use crate::elasticsearch::client::Client;
use crate::elasticsearch::dead_letter;
use crate::elasticsearch::lease::{Version, Vigil};
use crate::elasticsearch::state::StateError;
use crate::elasticsearch::store::{Found, StateStore};
use crate::error::Error;
use crate::postgres::session::{Purpose, Session};
use crate::postgres::slot;
use crate::settings::Settings;

/// Between two looks at a lease.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Drops slot and state, after a question on the terminal unless `is_sure`.
///
/// # Errors
/// The answer is not yes, a waldex runs, the slot is in use, or a server cannot be reached.
pub(super) async fn teardown(settings: &Settings, is_sure: bool) -> Result<(), Error> {
    let name = &settings.postgres.slot;
    if !is_sure && !is_confirmed(name) {
        return Err(Error::NotConfirmed);
    }
    let client = Client::new(&settings.elasticsearch)?;
    let store = StateStore::new(client.clone(), name, "teardown".to_owned());
    refuse_live_holder(&store).await?;
    let session = Session::connect(&settings.postgres, Purpose::Control).await?;
    let had_slot = slot::inspect(&session, name).await?.is_some();
    if had_slot {
        slot::drop(&session, name).await?;
    }
    // They may hold what rows held, and nothing will put them right any more.
    for letter in dead_letter::list(&client, name).await? {
        dead_letter::discard(&client, &letter).await?;
    }
    store.remove().await?;
    let slot = if had_slot { "dropped" } else { "was not there" };
    output::line(format_args!(
        "slot \"{name}\" {slot}, state and dead letters removed; indices and publication are left as they are"
    ))
}

/// A holder that lives renews its lease before the eyes of whoever watches it. Of a state that cannot be read the
/// holder is not known; if it lives, the slot is in use, and is not dropped.
async fn refuse_live_holder(store: &StateStore) -> Result<(), Error> {
    let mut vigil = Vigil::default();
    let mut first: Option<Version> = None;
    loop {
        let found = match store.find().await {
            Err(error @ StateError::Unreadable { .. }) => {
                return output::line(format_args!("{error}; it is removed as it is"));
            }
            found => found?,
        };
        let Some(Found { state, version, at }) = found else { return Ok(()) };
        let lease = state.lease.as_ref().filter(|lease| !lease.is_orphaned());
        let Some(lease) = lease else { return Ok(()) };
        let (holder, duration) = (state.holder(), Duration::from_millis(lease.duration_ms));
        let is_first_look = first.is_none();
        if *first.get_or_insert(version) != version {
            return Err(Error::Alive { holder });
        }
        let Some(at_most) = vigil.remaining(version, duration, at) else { return Ok(()) };
        if is_first_look {
            output::line(format_args!("watching {holder}, for {duration:?} at most"))?;
        }
        tokio::time::sleep(LOOK_INTERVAL.min(at_most)).await;
    }
}

fn is_confirmed(slot: &str) -> bool {
    let question = format_args!(
        "drop slot \"{slot}\" and its state? The indices cannot be continued afterwards. [y/N] "
    );
    let mut answer = String::new();
    let answered =
        output::print(question).is_ok() && std::io::stdin().lock().read_line(&mut answer).is_ok();
    answered && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
