//! `waldex check`: everything that would keep `run` from working, each on one line with its fix. Reads only.

use crate::elasticsearch::client::Client;
use crate::elasticsearch::state::{State, StateStore};
use crate::error::Error;
use crate::postgres::preflight::{self, Problem};
use crate::postgres::session::{Purpose, Session};
use crate::run::{continuity, start, tables};
use crate::settings::Settings;

/// Prints every problem, or that there is none.
///
/// # Errors
/// The problems found.
pub(super) async fn check(settings: &Settings) -> Result<(), Error> {
    let mut problems = Vec::new();
    let session = note(source(settings, &mut problems).await, &mut problems);
    let search = note(search_state(settings).await, &mut problems);
    // What follows would fail for the reasons that are known already.
    if let (Some(session), Some((client, state)), true) = (session, search, problems.is_empty()) {
        continuity(settings, &session, &client, state.as_ref(), &mut problems).await;
    }
    if problems.is_empty() {
        println!("ok: nothing stands in the way of `waldex run`");
        return Ok(());
    }
    Err(Error::Preflight(problems))
}

async fn source(settings: &Settings, problems: &mut Vec<Problem>) -> Result<Session, Error> {
    let session = Session::connect(&settings.postgres, Purpose::Control).await?;
    problems.extend(preflight::check(&session, &settings.postgres, &settings.tables).await?);
    Ok(session)
}

async fn search_state(settings: &Settings) -> Result<(Client, Option<State>), Error> {
    let client = Client::new(&settings.elasticsearch)?;
    let mut store = StateStore::new(client.clone(), &settings.postgres.slot, "check".to_owned());
    let state = store.read().await?;
    Ok((client, state))
}

/// Whether state, slot and indices fit together, and the names of the indices are free.
async fn continuity(
    settings: &Settings,
    session: &Session,
    client: &Client,
    state: Option<&State>,
    problems: &mut Vec<Problem>,
) {
    if let Some(plan) = note(tables::plan(session, settings).await, problems) {
        for table in &plan.tables {
            let refused = start::refuse_foreign_index(client, &table.settings.index).await;
            note(refused, problems);
        }
        note(start::account_for_indices(client, &plan, state).await, problems);
    }
    let source = note(start::look_at_source(session, &settings.postgres).await, problems);
    if let (Some(source), Some(state)) = (source, state) {
        let proof = continuity::prove(state, &source, &settings.postgres.slot);
        note(proof.map_err(Error::NeedsResync), problems);
    }
}

/// What went well; an error becomes a problem.
fn note<T>(outcome: Result<T, Error>, problems: &mut Vec<Problem>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error) => {
            let fix = error.remedy().unwrap_or_else(|| "see the message".to_owned());
            problems.push(Problem {
                what: error.to_string(),
                fix,
                may_pass: false,
                is_reloaded: false,
            });
            None
        }
    }
}
