//! From nothing, or from whatever a crash left, to a state that the stream can go on from.
//!
//! Continuity is proven (`continuity`), and every index that was complete is there, or waldex stops in
//! `needs_resync` (spec P5).

use serde_json::{Map, Value};
use tracing::{info, warn};

use super::continuity::{self, Source};
use super::schema::{Difference, TableSource, difference};
use super::tables::{Plan, PlannedTable};
use crate::cli::Reload;
use crate::elasticsearch::client::Client;
use crate::elasticsearch::index::{self, ReaderName, generation_index};
use crate::elasticsearch::state::{State, StateStore, TableState};
use crate::error::{Discontinuity, Error};
use crate::postgres::PostgresError;
use crate::postgres::pinned::Encoding;
use crate::postgres::replication::Replication;
use crate::postgres::session::Session;
use crate::postgres::slot::{self, SlotFacts};
use crate::settings::{PostgresSettings, Settings};

/// A single table may be named with or without its schema.
fn wants(reload: &Reload, table: &PlannedTable) -> bool {
    match reload {
        Reload::Nothing => false,
        Reload::All => true,
        Reload::Table(wanted) => *wanted == table.name() || *wanted == table.settings.table,
    }
}

/// Asks the server who it is and where the slot stands.
pub(crate) async fn look_at_source(
    session: &Session,
    settings: &PostgresSettings,
) -> Result<Source, Error> {
    let mut replication = Replication::connect(settings, session.encoding()).await?;
    Ok(ask(&mut replication, session, &settings.slot).await?)
}

/// The same over a connection that stands. A standby is no answer: it may be about to be promoted.
pub(crate) async fn ask(
    replication: &mut Replication,
    session: &Session,
    slot: &str,
) -> Result<Source, PostgresError> {
    session.refuse_standby()?;
    let system = replication.identify_system().await?;
    let history = match system.timeline {
        1 => None,
        timeline => replication.timeline_history(timeline).await?,
    };
    let slot = slot::inspect(session, slot).await?;
    Ok(Source { system, history, slot })
}

/// Notes the timeline that the stream goes on with. It need not be written at once: the position that makes
/// it matter is written in the same document.
pub(crate) fn go_on(state: &mut State, source: &Source, slot: &str) -> Result<(), Error> {
    let timeline = continuity::prove(state, source, slot).map_err(Error::NeedsResync)?;
    if timeline.number != state.timeline {
        info!(
            before = state.timeline,
            now = timeline.number,
            left_at = timeline.begun_at.map(|lsn| lsn.to_string()),
            durable = %state.durable_lsn,
            "failover: the new primary has all that the indices hold, going on there"
        );
    }
    state.timeline = timeline.number;
    state.timeline_begun_at = timeline.begun_at.or(state.timeline_begun_at);
    Ok(())
}

/// Finds or makes the state, the slot and the indices. Afterwards every planned table has a generation that
/// exists and that the state names; those not loaded are to be.
pub(crate) async fn establish(
    settings: &Settings,
    session: &Session,
    client: &Client,
    store: &mut StateStore,
    plan: &Plan,
    reload: &Reload,
) -> Result<State, Error> {
    let found = store.read().await?;
    let source = look_at_source(session, &settings.postgres).await?;
    for table in &plan.tables {
        refuse_foreign_index(client, &table.settings.index).await?;
    }
    if let Reload::Table(name) = reload
        && !plan.tables.iter().any(|table| wants(reload, table))
    {
        return Err(Error::Configuration {
            what: format!("--reload names \"{name}\", which is no table of this configuration"),
            fix: "name a configured table, or give --reload alone for all".to_owned(),
        });
    }
    // Before a slot is made: one that nobody may read on from, for want of rights here, would only keep WAL.
    store.prepare().await?;
    let mut state = match found {
        Some(mut state) if *reload != Reload::All => {
            go_on(&mut state, &source, &settings.postgres.slot)?;
            state
        }
        found => {
            let known = found.map(|state| state.tables).unwrap_or_default();
            if *reload != Reload::All {
                refuse_unaccounted(client, plan).await?;
            }
            let mut state = fresh_state(settings, session, source).await?;
            state.tables = known;
            state
        }
    };
    // A table that was left out for a while has missed changes: it is loaded again when it comes back.
    state.tables.retain(|name, _| plan.tables.iter().any(|table| table.name() == *name));
    for table in &plan.tables {
        let name = table.name();
        let wanted = wants(reload, table);
        let known = state.tables.remove(&name);
        let entry = choose_generation(client, table, known, wanted).await?;
        state.tables.insert(name, entry);
    }
    // The state first: an index without a state that names it could not be accounted for.
    store.write(&state).await?;
    create_missing(client, plan, &state).await?;
    Ok(state)
}

/// A state for the slot as it stands; the slot is made if it is missing.
async fn fresh_state(
    settings: &Settings,
    session: &Session,
    source: Source,
) -> Result<State, Error> {
    let name = &settings.postgres.slot;
    let start = match source.slot {
        Some(ref facts @ SlotFacts { confirmed_flush: Some(lsn), .. }) if !facts.is_lost() => lsn,
        Some(_) => {
            warn!(slot = name, "the slot is lost: dropping it and making it anew");
            slot::drop(session, name).await?;
            create_slot(&settings.postgres, session.encoding()).await?
        }
        None => create_slot(&settings.postgres, session.encoding()).await?,
    };
    let timeline = source.timeline();
    let mut state = State::new(
        source.system.system_id,
        timeline.number,
        settings.postgres.database.clone(),
        name,
        &settings.postgres.publication,
        start,
    );
    state.timeline_begun_at = timeline.begun_at;
    Ok(state)
}

async fn create_slot(
    settings: &PostgresSettings,
    encoding: Encoding,
) -> Result<crate::lsn::Lsn, PostgresError> {
    info!(
        slot = settings.slot,
        "creating the slot; this waits for every transaction that runs now to end"
    );
    let mut replication = Replication::connect(settings, encoding).await?;
    let consistent_point = replication.create_slot(&settings.slot, false).await?;
    info!(slot = settings.slot, %consistent_point, "slot created");
    Ok(consistent_point)
}

/// Everyone who migrates meets this on day one: the name readers use is taken.
pub(crate) async fn refuse_foreign_index(client: &Client, index: &str) -> Result<(), Error> {
    match index::reader_name(client, index).await? {
        ReaderName::Free | ReaderName::Generation(_) => Ok(()),
        ReaderName::Foreign { indices, is_concrete } => Err(foreign(index, &indices, is_concrete)),
    }
}

/// The refusal of a name that is taken, with the way over.
fn foreign(index: &str, indices: &[String], is_concrete: bool) -> Error {
    let what = if is_concrete {
        format!("\"{index}\" is a concrete index, not made by waldex")
    } else {
        format!("\"{index}\" is an alias of {}, not made by waldex", indices.join(", "))
    };
    let remove = if is_concrete {
        format!(r#"{{"remove_index":{{"index":"{index}"}}}}"#)
    } else {
        let names = indices.join("\",\"");
        format!(r#"{{"remove":{{"indices":["{names}"],"alias":"{index}"}}}}"#)
    };
    let first = generation_index(&format!("{index}-waldex"), 1);
    let fix = format!(
        "load side by side: set index: {index}-waldex for this table and run waldex; when it streams, cut \
         over in one step with POST /_aliases {{\"actions\":[{remove},{{\"add\":{{\"index\":\"{first}\",\
         \"alias\":\"{index}\"}}}}]}}"
    );
    Error::Configuration { what, fix }
}

/// Without a state, an empty target is loaded; anything else cannot be accounted for.
async fn refuse_unaccounted(client: &Client, plan: &Plan) -> Result<(), Error> {
    for table in &plan.tables {
        let index = &table.settings.index;
        for generation in index::generations(client, index).await? {
            if index::document_count(client, index, generation).await? > 0 {
                let index = generation_index(index, generation);
                return Err(Error::NeedsResync(Discontinuity::Unaccounted { index }));
            }
        }
    }
    Ok(())
}

/// An index that was complete must be there.
fn refuse_gone(known: &TableState, existing: &[u32]) -> Result<(), Error> {
    if known.loaded && !existing.contains(&known.generation) {
        let index = generation_index(&known.index, known.generation);
        return Err(Error::NeedsResync(Discontinuity::IndexGone { index }));
    }
    Ok(())
}

/// Whether the indices are as the state says, as [`establish`] will find them.
pub(crate) async fn account_for_indices(
    client: &Client,
    plan: &Plan,
    state: Option<&State>,
) -> Result<(), Error> {
    let Some(state) = state else { return refuse_unaccounted(client, plan).await };
    for table in &plan.tables {
        let index = &table.settings.index;
        if let Some(known) = state.tables.get(&table.name()).filter(|it| it.index == *index) {
            refuse_gone(known, &index::generations(client, index).await?)?;
        }
    }
    Ok(())
}

/// The generation a table is written to: the one the state names, or a new one.
async fn choose_generation(
    client: &Client,
    table: &PlannedTable,
    known: Option<TableState>,
    reload: bool,
) -> Result<TableState, Error> {
    let index = &table.settings.index;
    let existing = index::generations(client, index).await?;
    let source = TableSource::of(table);
    if let Some(known) = known.as_ref().filter(|known| !reload && known.index == *index) {
        refuse_gone(known, &existing)?;
        if let Some(kept) = keep_generation(client, table, known, source.clone()).await? {
            return Ok(kept);
        }
    }
    let previous = match index::reader_name(client, index).await? {
        ReaderName::Generation(previous) => Some(previous),
        ReaderName::Free | ReaderName::Foreign { .. } => None,
    };
    let unfinished = known.filter(|known| !known.loaded && known.index == *index);
    if let Some(unfinished) = unfinished.filter(|known| Some(known.generation) != previous) {
        index::delete(client, index, unfinished.generation).await?;
    }
    Ok(TableState {
        index: index.clone(),
        generation: existing.last().map_or(1, |last| last + 1),
        loaded: false,
        load_begun: false,
        load_end_lsn: None,
        previous_generation: previous,
        readable: previous.is_none(),
        load_snapshot: None,
        source: Some(source),
        refresh_recommended: false,
    })
}

/// Readies the generation that the next attempt at a load writes: one of its own. What an earlier attempt has
/// written may have been deleted since; this one does not see it, and a change that a load has seen is skipped
/// when the stream brings it. A request of the earlier attempt may even be on its way still.
pub(crate) async fn begin_load(
    client: &Client,
    table: &PlannedTable,
    store: &mut StateStore,
    state: &mut State,
) -> Result<(), Error> {
    let Some(entry) = state.tables.get_mut(&table.name()) else { return Ok(()) };
    if entry.load_begun {
        index::delete(client, &entry.index, entry.generation).await?;
        entry.generation += 1;
    }
    entry.load_begun = true;
    let (index, generation, for_readers) = (entry.index.clone(), entry.generation, entry.readable);
    store.write(state).await?;
    index::create(client, &index, generation, &table.index_body, for_readers).await?;
    Ok(())
}

/// The generation as it goes on with the table's definition of now; `None` if it cannot.
async fn keep_generation(
    client: &Client,
    table: &PlannedTable,
    known: &TableState,
    source: TableSource,
) -> Result<Option<TableState>, Error> {
    let name = table.name();
    let change = known.source.as_ref().map(|before| difference(before, &source));
    let mut kept = TableState { source: Some(source), ..known.clone() };
    match change {
        None | Some(Difference::None) => {}
        Some(Difference::Remade(reason)) => {
            warn!(table = name, reason, "loading a new generation");
            return Ok(None);
        }
        Some(Difference::Fields { added, removed }) => {
            if known.loaded && !added.is_empty() {
                let fields = mappings_of(&table.index_body, &added);
                index::extend_mappings(client, &kept.index, kept.generation, fields).await?;
            }
            kept.refresh_recommended |= known.loaded;
            warn!(
                table = name,
                ?added,
                ?removed,
                "the table has other columns: documents that were not written since do not show it; \
                 `waldex run --reload {name}` brings it into all of them"
            );
        }
    }
    Ok(Some(kept))
}

/// The mappings of these fields at the top of the index's body; of a dotted name, those of its object.
fn mappings_of(index_body: &Value, fields: &[String]) -> Map<String, Value> {
    let properties = index_body.pointer("/mappings/properties");
    let top = |field: &String| {
        let name = field.split('.').next()?;
        Some((name.to_owned(), properties?.get(name)?.clone()))
    };
    fields.iter().filter_map(top).collect()
}

/// Creates the generations that the state names and that are not there.
async fn create_missing(client: &Client, plan: &Plan, state: &State) -> Result<(), Error> {
    for table in &plan.tables {
        let Some(entry) = state.tables.get(&table.name()).filter(|entry| !entry.loaded) else {
            continue;
        };
        let existing = index::generations(client, &entry.index).await?;
        if existing.contains(&entry.generation) {
            continue;
        }
        let for_readers = entry.readable;
        let (index, generation) = (&entry.index, entry.generation);
        index::create(client, index, generation, &table.index_body, for_readers).await?;
        let physical = generation_index(index, generation);
        info!(table = table.name(), index = physical, for_readers, "index created");
    }
    Ok(())
}
