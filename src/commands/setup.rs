//! `waldex setup`: the SQL that makes role, grants, publication and slot; printed, or applied.

use crate::error::Error;
use crate::postgres::session::{Purpose, Session};
use crate::postgres::setup::{apply, script, setup_statements};
use crate::settings::Settings;

/// Prints the script, or runs it over the configured connection.
///
/// # Errors
/// The server's, when applying.
pub(super) async fn setup(settings: &Settings, applies: bool) -> Result<(), Error> {
    if settings.tables.is_empty() {
        return Err(Error::Configuration {
            what: "setup makes a publication of the configured tables, and none is configured"
                .to_owned(),
            fix: "list them under tables in the configuration file".to_owned(),
        });
    }
    let statements = setup_statements(&settings.postgres, &settings.tables);
    if !applies {
        print!("{}", script(&statements));
        return Ok(());
    }
    let session = Session::connect(&settings.postgres, Purpose::Control).await?;
    apply(&session, &statements).await?;
    println!("applied: role, grants, publication and slot are there");
    Ok(())
}
