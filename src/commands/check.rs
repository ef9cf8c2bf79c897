//! `waldex check`: everything that would keep `run` from working, each on one line with its fix. Reads only.

use crate::elasticsearch::client::Client;
use crate::elasticsearch::index::{self, ReaderName};
use crate::elasticsearch::state::{State, StateStore};
use crate::error::Error;
use crate::postgres::preflight::{self, Problem};
use crate::postgres::session::{Purpose, Session};
use crate::run::{start, tables};
use crate::settings::Settings;

/// Prints every problem, or that there is none.
///
/// # Errors
/// The problems found, or what kept us from looking.
pub(super) async fn check(settings: &Settings) -> Result<(), Error> {
    let session = Session::connect(&settings.postgres, Purpose::Control).await?;
    let mut problems = preflight::check(&session, &settings.postgres, &settings.tables).await?;
    let state = search_state(settings, &mut problems).await;
    if problems.is_empty() {
        match tables::plan(&session, settings).await {
            Ok(plan) => {
                for table in &plan.tables {
                    check_index(settings, &table.settings.index, &mut problems).await?;
                }
            }
            Err(error @ Error::Configuration { .. }) => problems.push(problem(&error)),
            Err(error) => return Err(error),
        }
    }
    if let Some(state) = state {
        let source = start::look_at_source(&session, &settings.postgres).await?;
        if let Err(gap) = start::prove_continuity(&state, &source, &settings.postgres.slot) {
            problems.push(problem(&Error::NeedsResync(gap)));
        }
    }
    if problems.is_empty() {
        println!("ok: nothing stands in the way of `waldex run`");
        return Ok(());
    }
    Err(Error::Preflight(problems))
}

/// The state, if the cluster can be asked for it; a cluster that cannot be is a problem of its own.
async fn search_state(settings: &Settings, problems: &mut Vec<Problem>) -> Option<State> {
    let client = match Client::new(&settings.elasticsearch) {
        Ok(client) => client,
        Err(error) => {
            problems.push(problem(&error.into()));
            return None;
        }
    };
    let mut store = StateStore::new(client, &settings.postgres.slot, "check".to_owned());
    match store.read().await {
        Ok(state) => state,
        Err(error) => {
            problems.push(problem(&error.into()));
            None
        }
    }
}

async fn check_index(
    settings: &Settings,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Result<(), Error> {
    let client = Client::new(&settings.elasticsearch)?;
    match index::reader_name(&client, name).await? {
        ReaderName::Free | ReaderName::Generation(_) => {}
        ReaderName::Foreign { indices, is_concrete } => {
            problems.push(problem(&start::foreign(name, &indices, is_concrete)));
        }
    }
    Ok(())
}

fn problem(error: &Error) -> Problem {
    let fix = error.remedy().unwrap_or_else(|| "see the message".to_owned());
    Problem { what: error.to_string(), fix, may_pass: false }
}
