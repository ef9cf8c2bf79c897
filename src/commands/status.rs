//! `waldex status`: where slot, state and indices stand, from the outside.

use serde_json::{Value, json};

use super::output;
use crate::elasticsearch::client::Client;
use crate::elasticsearch::dead_letter;
use crate::elasticsearch::state::State;
use crate::elasticsearch::store::StateStore;
use crate::error::{Discontinuity, Error};
use crate::lsn::Lsn;
use crate::postgres::catalog;
use crate::postgres::session::{Purpose, Session};
use crate::postgres::slot::SlotFacts;
use crate::run::continuity::{self, Source};
use crate::run::newcomers::Newcomers;
use crate::run::{seconds_since, start, tables};
use crate::settings::Settings;

/// Prints the status as text or as one JSON object.
///
/// # Errors
/// A server cannot be reached.
pub(super) async fn status(settings: &Settings, as_json: bool) -> Result<(), Error> {
    let session = Session::connect(&settings.postgres, Purpose::Control).await?;
    let client = Client::new(&settings.elasticsearch)?;
    let store = StateStore::new(client.clone(), &settings.postgres.slot, "status".to_owned());
    // The state is read after the slot and before the end of the WAL, because all three move while it runs.
    let mut source = start::look_at_source(&session, &settings.postgres).await?;
    let state = store.read().await?.filter(|state| !state.is_claim());
    let flush_lsn = catalog::flush_lsn(&session).await?;
    source.system.flush_lsn = source.system.flush_lsn.max(flush_lsn);
    let slot = source.slot.as_ref();
    let proof = proof(settings, &session, &client, state.as_ref(), &source).await?;
    let (word, reason) = match (&proof, &state) {
        (Some(gap), _) => ("needs_resync", Some(gap.to_string())),
        (None, None) => ("not_started", None),
        (None, Some(state)) => (running_word(state, slot), None),
    };
    let oldest = catalog::oldest_transaction(&session).await?;
    let mut report = report(settings, word, reason, flush_lsn, state.as_ref(), slot);
    if let Some(report) = report.as_object_mut() {
        let letters = dead_letter::list(&client, &settings.postgres.slot).await?;
        let oldest = oldest.map(|oldest| json!({"who": oldest.who, "seconds": oldest.seconds}));
        report.insert("oldest_transaction".to_owned(), json!(oldest));
        report.insert("dead_letters".to_owned(), letters.len().into());
    }
    output::print(if as_json { format!("{report}\n") } else { as_text(&report, 0) })
}

/// Why the stream could not go on, if so.
async fn proof(
    settings: &Settings,
    session: &Session,
    client: &Client,
    state: Option<&State>,
    source: &Source,
) -> Result<Option<Discontinuity>, Error> {
    if let Some(state) = state
        && let Err(gap) = continuity::prove(state, source, &settings.postgres.slot)
    {
        return Ok(Some(gap));
    }
    // What keeps the tables from being planned is told by `check`.
    let newcomers = Newcomers::of(settings, state);
    let Ok(plan) = tables::plan(session, settings, &newcomers).await else { return Ok(None) };
    match start::account_for_indices(client, &plan, state).await {
        Ok(()) => Ok(None),
        Err(Error::NeedsResync(gap)) => Ok(Some(gap)),
        Err(error) => Err(error),
    }
}

fn running_word(state: &State, slot: Option<&SlotFacts>) -> &'static str {
    let is_active = slot.is_some_and(|slot| slot.active_pid.is_some());
    match (is_active, state.tables.values().all(|table| table.loaded)) {
        (_, false) => "backfilling",
        (true, true) => "live",
        (false, true) => "stopped",
    }
}

fn report(
    settings: &Settings,
    word: &str,
    reason: Option<String>,
    flush_lsn: Lsn,
    state: Option<&State>,
    slot: Option<&SlotFacts>,
) -> Value {
    let lag_bytes = state.map(|state| flush_lsn.bytes_since(state.durable_lsn));
    let tables = state.map(|state| {
        let table = |(name, table): (&String, &crate::elasticsearch::state::TableState)| {
            let value = json!({
                "index": table.index, "generation": table.generation, "loaded": table.loaded,
                "readable": table.readable, "refresh_recommended": table.refresh_recommended,
                "reload_recommended": table.reload_recommended,
            });
            (name.clone(), value)
        };
        state.tables.iter().map(table).collect::<serde_json::Map<_, _>>()
    });
    json!({
        "state": word,
        "reason": reason,
        "slot": settings.postgres.slot,
        "publication": settings.postgres.publication,
        "server_flush_lsn": flush_lsn.to_string(),
        "durable_lsn": state.map(|state| state.durable_lsn.to_string()),
        "confirmed_flush_lsn": slot.and_then(|slot| slot.confirmed_flush).map(|lsn| lsn.to_string()),
        "lag_bytes": lag_bytes,
        "lag_seconds": state.map(|state| lag_seconds(state, lag_bytes)),
        "retained_wal_bytes": slot.and_then(|slot| slot.retained_bytes),
        "safe_wal_bytes": slot.and_then(|slot| slot.safe_wal_bytes),
        "failover": slot.and_then(|slot| slot.failover),
        "synced": slot.and_then(|slot| slot.synced),
        "wal_status": slot.and_then(|slot| slot.wal_status.clone()),
        "active_pid": slot.and_then(|slot| slot.active_pid),
        "lease": state.and_then(|state| state.lease.as_ref().map(|lease| json!({
            "instance": state.instance, "host": lease.host, "pid": lease.pid,
            "seconds": lease.duration_ms / 1000, "orphaned": lease.is_orphaned(),
        }))),
        "tables": tables,
        "left_out": state.map(|state| &state.left_out).filter(|it| !it.is_empty()),
    })
}

/// Seconds since the source stood where the indices stand; 0 when it stands there still. WAL of others
/// counts until the server says that there was nothing for us in it.
fn lag_seconds(state: &State, lag_bytes: Option<u64>) -> Option<u64> {
    if lag_bytes == Some(0) {
        return Some(0);
    }
    state.durable_as_of_micros.map(seconds_since)
}

fn as_text(report: &Value, indent: usize) -> String {
    let line = |(name, value): (&String, &Value)| match value {
        Value::Null => String::new(),
        Value::Object(_) => format!("{:indent$}{name}:\n{}", "", as_text(value, indent + 2)),
        Value::String(text) => format!("{:indent$}{name}: {text}\n", ""),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            format!("{:indent$}{name}: {other}\n", "")
        }
    };
    report.as_object().into_iter().flatten().map(line).collect()
}
