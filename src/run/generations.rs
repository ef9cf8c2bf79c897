//! The generations of the planned tables: chosen, made, kept in step with the tables' definitions. Each change is
//! made only while the lease lasts.

use serde_json::{Map, Value};
use tracing::{info, warn};

use super::fitness::refuse_unfit;
use super::schema::{Difference, TableSource, difference};
use super::start::refuse_gone;
use super::tables::{Plan, PlannedTable};
use crate::elasticsearch::client::Client;
use crate::elasticsearch::index::{self, IndexError, ReaderName, generation_index};
use crate::elasticsearch::lease::Term;
use crate::elasticsearch::state::{State, TableState};
use crate::elasticsearch::store::StateStore;
use crate::error::Error;

/// The generation a table is written to: the one the state names, or a new one.
pub(super) async fn choose_generation(
    client: &Client,
    store: &StateStore,
    table: &PlannedTable,
    known: Option<TableState>,
    reload: bool,
) -> Result<TableState, Error> {
    let index = &table.settings.index;
    let existing = index::generations(client, index).await?;
    let source = TableSource::of(table);
    if let Some(known) = known.as_ref().filter(|known| !reload && known.index == *index) {
        refuse_gone(known, &existing)?;
        let kept = keep_generation(client, store, table, known, source.clone()).await?;
        if let Some(kept) = kept {
            return Ok(kept);
        }
    }
    let previous = match index::reader_name(client, index).await? {
        ReaderName::Generations(seen) => seen.last().copied(),
        ReaderName::Free | ReaderName::Foreign { .. } => None,
    };
    // Never a number again: what is left of a generation that is gone (dead letters, late requests) would meet a
    // new one of its name.
    let known = known.filter(|known| known.index == *index);
    let numbers = existing.last().copied().into_iter();
    let last = numbers.chain(known.as_ref().map(|known| known.generation)).max();
    let unfinished = known.filter(|known| !known.loaded);
    if let Some(unfinished) = unfinished.filter(|known| Some(known.generation) != previous) {
        store.held().await?;
        index::delete(client, index, unfinished.generation).await?;
    }
    Ok(TableState {
        index: index.clone(),
        generation: last.map_or(1, |last| last + 1),
        loaded: false,
        load_begun: false,
        load_end_lsn: None,
        previous_generation: previous,
        readable: previous.is_none(),
        load_snapshot: None,
        source: Some(source),
        refresh_recommended: false,
        reload_recommended: None,
    })
}

/// Readies the generation that the next attempt at a load writes: one of its own. What an earlier attempt has
/// written may have been deleted since; this one does not see it, and a change that a load has seen is skipped
/// when the stream brings it. A request of the earlier attempt may even be on its way still.
pub(crate) async fn begin_load(
    client: &Client,
    table: &PlannedTable,
    store: &StateStore,
    state: &mut State,
) -> Result<(), Error> {
    let Some(entry) = state.tables.get_mut(&table.name()) else { return Ok(()) };
    if entry.load_begun {
        store.held().await?;
        index::delete(client, &entry.index, entry.generation).await?;
        entry.generation += 1;
    }
    entry.load_begun = true;
    let (index, generation, for_readers) = (entry.index.clone(), entry.generation, entry.readable);
    store.write(state).await?;
    index::create(client, &index, generation, &table.index_body, for_readers).await?;
    refuse_unfit(client, table, generation).await
}

/// The generation as it goes on with the table's definition of now; `None` if it cannot.
async fn keep_generation(
    client: &Client,
    store: &StateStore,
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
        // Its index may have been made already, without the new fields.
        Some(Difference::Fields { .. }) if !known.loaded => return Ok(None),
        Some(Difference::Fields { added, removed }) => {
            if !added.is_empty() {
                let fields = mappings_of(&table.index_body, &added);
                store.held().await?;
                let (index, generation) = (&kept.index, kept.generation);
                match index::extend_mappings(client, index, generation, fields).await {
                    // Its mappings cannot be what they are to be: it maps a field of that name otherwise, for a
                    // column that is gone, or lacks an analyzer that came with the field.
                    Err(refused @ IndexError::Refused { status: 400, .. })
                        if !refused.is_transient() =>
                    {
                        warn!(table = name, reason = %refused, "loading a new generation");
                        return Ok(None);
                    }
                    extended => extended?,
                }
            }
            kept.refresh_recommended = true;
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

/// Creates the generations that the state names and that are not there; those that are remember deletes for long
/// enough.
pub(super) async fn create_missing(
    client: &Client,
    store: &StateStore,
    plan: &Plan,
    state: &State,
) -> Result<(), Error> {
    for table in &plan.tables {
        let Some(entry) = state.tables.get(&table.name()) else { continue };
        if entry.loaded {
            let (index, generation) = (&entry.index, entry.generation);
            let min = Term::of(client.request_timeout()).tombstones_min();
            index::keep_tombstones(client, index, generation, &table.index_body, min).await?;
            continue;
        }
        let existing = index::generations(client, &entry.index).await?;
        if existing.contains(&entry.generation) {
            continue;
        }
        store.held().await?;
        let for_readers = entry.readable;
        let (index, generation) = (&entry.index, entry.generation);
        index::create(client, index, generation, &table.index_body, for_readers).await?;
        let physical = generation_index(index, generation);
        info!(table = table.name(), index = physical, for_readers, "index created");
    }
    Ok(())
}
