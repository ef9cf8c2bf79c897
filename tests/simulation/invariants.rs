//! What always holds, by the names that `src/lib.rs` gives it.
//!
//! The oracle is the step that each change stamps into its row: it tells which write of a row a document
//! comes from, without any use of versions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cluster::{Index, POISON, SPOILS};
use super::shape::{KEYS, Key, Row, Shape};
use super::source::Written;
use super::world::{LETTERS_ALIAS, State, Watch, World, letter_id};

/// What did not hold.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

/// I2: everything committed up to `lsn` is in the cluster, as of then or later.
pub(crate) fn durable_up_to(world: &World, state: &State, lsn: u64) -> Result<(), Violation> {
    if world.watch == Watch::AtRest {
        return Ok(());
    }
    for (table, key, history) in world.source.history() {
        let Some(index) = index_of(world, state, table) else { continue };
        let end = history.partition_point(|written| written.end_lsn <= lsn);
        let Some(written) = end.checked_sub(1).map(|last| &history[last].made) else { continue };
        let step = step_of(index, &table.id(key)).max(letter_step(world, state, table, key));
        let is_removed_later = || history[end..].iter().any(|later| later.made.removes);
        let holds = match (step, &written.row) {
            (Some(step), Some(_)) => step >= written.step,
            (Some(step), None) => step > written.step,
            (None, Some(_)) => is_removed_later(),
            (None, None) => true,
        };
        if !holds {
            let name = table.name();
            let what = format!(
                "{lsn} is confirmed, but {name} {key} is not as of then: step {step:?} in the cluster, {} \
                 in the table ({})",
                written.step,
                if written.row.is_some() { "a row" } else { "removed" },
            );
            return Err(Violation::new("I2", what));
        }
    }
    Ok(())
}

/// I1, and after a crash I7: the documents are the rows.
pub(crate) fn at_rest(world: &World, crashed: bool) -> Result<(), Violation> {
    let invariant = if crashed { "I7" } else { "I1" };
    let Some(state) = &world.state else {
        return Err(Violation::new("liveness", "there is no state document"));
    };
    let mut rows: BTreeMap<Shape, BTreeMap<Key, &Written>> = BTreeMap::new();
    for (table, key, history) in world.source.history() {
        if let Some(newest) = history.last().filter(|newest| newest.made.row.is_some()) {
            rows.entry(table).or_default().insert(key, newest);
        }
    }
    for table in World::tables() {
        let Some(index) = index_of(world, state, table) else {
            return Err(Violation::new(invariant, format!("{} has no index", table.name())));
        };
        let mut expected = BTreeMap::new();
        let mut excused = BTreeSet::new();
        let mut rows = rows.remove(&table).unwrap_or_default();
        for key in 0..KEYS {
            let row = rows.remove(&key).and_then(|written| written.made.row.as_ref());
            let letter = letter_step(world, state, table, key);
            let is_refused = |row: &Row| row.text == POISON || row.text == SPOILS;
            match row {
                // In its document's place there is a letter of this very write.
                Some(row) if letter == Some(row.step) && is_refused(row) => {
                    excused.insert(table.id(key));
                }
                Some(row) => {
                    expected.insert(table.id(key), table.document(key, row));
                }
                None => {}
            }
            if letter.is_some() && !excused.contains(&table.id(key)) {
                let what = format!("{} {key}: a letter of what is no more", table.name());
                return Err(Violation::new("dead letters", what));
            }
        }
        let live = index.iter().filter_map(|(id, stored)| Some((id, stored.source.as_ref()?)));
        let live = live.filter(|(id, _)| !excused.contains(*id));
        let found: BTreeMap<String, Value> =
            live.map(|(id, source)| (id.clone(), source.clone())).collect();
        if expected != found {
            return Err(Violation::new(invariant, differences(table, &expected, &found)));
        }
    }
    Ok(())
}

fn step_of(index: &Index, id: &str) -> Option<u64> {
    index.get(id)?.source.as_ref()?["step"].as_u64()
}

/// Which write of a row its dead letter is of, if it has one.
fn letter_step(world: &World, state: &State, table: Shape, key: Key) -> Option<u64> {
    let alias = table.alias(state.tables.get(&table)?.generation);
    step_of(world.cluster.documents(LETTERS_ALIAS)?, &letter_id(&alias, &table.id(key)))
}

fn index_of<'w>(world: &'w World, state: &State, table: Shape) -> Option<&'w Index> {
    let generation = state.tables.get(&table)?.generation;
    world.cluster.index(&table.index(generation))
}

fn differences(
    table: Shape,
    rows: &BTreeMap<String, Value>,
    documents: &BTreeMap<String, Value>,
) -> String {
    let ids = rows.keys().chain(documents.keys().filter(|id| !rows.contains_key(*id)));
    let different = ids.filter(|id| rows.get(*id) != documents.get(*id));
    let lines = different.map(|id| {
        let show = |value: Option<&Value>| value.map_or("none".to_owned(), Value::to_string);
        format!("{id:?}: row {}, document {}", show(rows.get(id)), show(documents.get(id)))
    });
    format!("{} differs:\n  {}", table.name(), lines.collect::<Vec<_>>().join("\n  "))
}
