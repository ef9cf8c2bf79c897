//! `waldex check`: everything that would keep `run` from working, each on one line with its fix; and what works but
//! should be known. Reads only. Beside a waldex that runs, too.

use super::output;
use crate::cli::Reload;
use crate::elasticsearch::client::Client;
use crate::elasticsearch::state::State;
use crate::elasticsearch::store::StateStore;
use crate::error::Error;
use crate::findings::{Cure, Findings, Note, Problem};
use crate::postgres::session::{Purpose, Session};
use crate::postgres::{catalog, preflight};
use crate::run::continuity::Source;
use crate::run::newcomers::Newcomers;
use crate::run::{continuity, fitness, foreign, start, tables};
use crate::settings::Settings;

/// Prints every problem, or that there is none.
///
/// # Errors
/// The problems found.
pub(super) async fn check(settings: &Settings) -> Result<(), Error> {
    let mut found = Findings::default();
    let session = note(postgres(settings, &mut found).await, &mut found);
    // The state is read after the slot and before the end of the WAL, because all three move while it runs.
    let source = match &session {
        Some(session) if found.problems.is_empty() => {
            note(start::look_at_source(session, &settings.postgres).await, &mut found)
        }
        Some(_) | None => None,
    };
    let search = note(search_state(settings).await, &mut found);
    // What follows would fail for the reasons that are known already.
    if let (Some(session), Some((client, state)), true) =
        (session, search, found.problems.is_empty())
    {
        continuity(settings, &session, &client, state.as_ref(), source, &mut found).await;
    }
    for note in &found.notes {
        output::line(note)?;
    }
    if found.problems.is_empty() {
        return output::line("ok: nothing stands in the way of `waldex run`");
    }
    Err(Error::Preflight(found.problems))
}

async fn postgres(settings: &Settings, found: &mut Findings) -> Result<Session, Error> {
    let session = Session::connect(&settings.postgres, Purpose::Control).await?;
    let mut seen = preflight::check(&session, &settings.postgres, &settings.tables).await?;
    let is_ours = |problem: &mut Problem| problem.cure == Cure::ByWaiting { is_waldex: true };
    let ours: Vec<Problem> = seen.problems.extract_if(.., is_ours).collect();
    found.extend(seen);
    let note = |problem: Problem| {
        Note::new(problem.what, "a waldex is at work on it; a second one would wait for it")
    };
    found.notes.extend(ours.into_iter().map(note));
    Ok(session)
}

async fn search_state(settings: &Settings) -> Result<(Client, Option<State>), Error> {
    let client = Client::new(&settings.elasticsearch)?;
    let store = StateStore::new(client.clone(), &settings.postgres.slot, "check".to_owned());
    let state = store.read().await?.filter(|state| !state.is_claim());
    Ok((client, state))
}

/// Whether state, slot and indices fit together, and the names of the indices are free.
async fn continuity(
    settings: &Settings,
    session: &Session,
    client: &Client,
    state: Option<&State>,
    source: Option<Source>,
    found: &mut Findings,
) {
    if let Some(plan) =
        note(tables::plan(session, settings, &Newcomers::of(settings, state)).await, found)
    {
        for table in &plan.tables {
            let refused = foreign::refuse_foreign_index(client, &table.settings.index).await;
            note(refused, found);
        }
        note(start::account_for_indices(client, &plan, state).await, found);
        let seen = fitness::look(client, &plan, state, &Reload::Nothing).await;
        if let Some(seen) = note(seen, found) {
            found.extend(seen);
        }
    }
    let end = note(catalog::flush_lsn(session).await.map_err(Error::Postgres), found);
    if let (Some(mut source), Some(state), Some(end)) = (source, state, end) {
        source.system.flush_lsn = source.system.flush_lsn.max(end);
        let proof = continuity::prove(state, &source, &settings.postgres.slot);
        note(proof.map_err(Error::NeedsResync), found);
    }
}

/// What went well; an error becomes a problem.
fn note<T>(outcome: Result<T, Error>, found: &mut Findings) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(Error::Preflight(problems)) => {
            found.problems.extend(problems);
            None
        }
        Err(error) => {
            let fix = error.remedy().unwrap_or_else(|| "see the message".to_owned());
            found.problems.push(Problem::new(error.to_string(), fix));
            None
        }
    }
}
