//! `waldex setup`: the SQL that makes role, grants, publication and slot; printed, or applied.

use super::output;
use crate::error::Error;
use crate::findings::{Cure, Note};
use crate::postgres::preflight;
use crate::postgres::session::{Purpose, Session};
use crate::postgres::setup::{apply, script, setup_statements};
use crate::settings::Settings;

/// As a server says it that trusts whoever comes, and one that asks for a password.
const ROLE_UNKNOWN: &str = "28000";
const PASSWORD_WRONG: &str = "28P01";

/// Prints the script, or runs it over the configured connection.
///
/// # Errors
/// When applying, the server's, and what is still missing.
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
        return output::print(script(&statements));
    }
    let session = Session::connect(&settings.postgres, Purpose::Control).await;
    let session = session.map_err(|error| match error.sqlstate() {
        Some(ROLE_UNKNOWN | PASSWORD_WRONG) => Error::SetupLogin(error),
        _ => Error::Postgres(error),
    })?;
    let refused = apply(&session, &statements).await?;
    // What a role may not do may have been done by one that may.
    let mut missing =
        preflight::check(&session, &settings.postgres, &settings.tables).await?.problems;
    missing.retain(|problem| !matches!(problem.cure, Cure::ByWaiting { .. }));
    for what in refused {
        let advice = if missing.is_empty() { "and it is there already" } else { "see below" };
        output::line(Note::new(format!("skipped ({what})"), advice))?;
    }
    if !missing.is_empty() {
        return Err(Error::Preflight(missing));
    }
    output::line("applied: role, grants, publication and slot are there")
}
