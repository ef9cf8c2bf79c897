//! The harness is tested too: each wrong design of the list is put in place of the right one, around the
//! core or beside it, and some invariant must notice within the seeds it is given.

use serde_json::Value;

use super::cluster::{Answered, Item, Versioning};
use super::invariants::Violation;
use super::life::{epoch, version};
use super::shape::{Key, Shape};
use super::simulate;
use super::stream::Stream;
use super::weather::Weather;
use super::world::{Watch, World};

/// Seeds that each wrong design is given; most need a handful.
const SEEDS: u64 = 4_000;
/// In the end these show in one of ten thousand seeds, because rows are written again.
const RARE_IN_THE_END: [Mutant; 1] = [Mutant::GoodOrderUnanswered];

/// A wrong design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Confirms what was received.
    ConfirmOnReceipt,
    /// Takes a keepalive's position inside a transaction.
    ConfirmInsideTransaction,
    /// Confirms `commit_lsn` and not `end_lsn`.
    ConfirmCommitLsn,
    /// After a restart, confirms the position that the state document holds from before.
    ConfirmStatePosition,
    /// Confirms first and writes the state document second.
    ConfirmThenRecord,
    /// Unchanged TOAST becomes null.
    ToastAsNull,
    /// Unchanged TOAST is left out of the document.
    ToastMissing,
    /// Unchanged TOAST is taken from the stored document.
    ToastFromDocument,
    /// A row that is selected again counts although the change is not visible yet.
    ReselectUnseen,
    /// A key change writes the new document and leaves the old one.
    NoDeleteOnKeyChange,
    /// Documents carry no version.
    NoVersions,
    /// The change's own LSN is the version, the slot's position that of loaded rows.
    ChangeLsnVersions,
    /// `external` and not `external_gte`.
    StrictExternal,
    /// The same, with loaded rows at the slot's position.
    LoadAtSlotVersion,
    /// Loaded rows carry the position at which they were read.
    LoadAtReadVersion,
    /// A load starts before commits that the stream will not bring are visible.
    LoadUnseen,
    /// Another attempt at a load goes on in the index of the one before.
    LoadIntoUsedIndex,
    /// An item that failed is skipped.
    SkipFailed,
    /// A refused document is passed over before its dead letter is written.
    LetterUnwritten,
    /// A later batch of a transaction does not wait for an unanswered one of the same document.
    NoWaitForUnanswered,
    /// The same for what a process before this one has sent.
    NothingInherited,
    /// A stop while something may still be carried out counts as one in good order.
    GoodOrderUnanswered,
    /// A delete counts wherever it was carried out.
    DeleteAnywhere,
    /// A truncate does not wait for the writes before it.
    TruncateUndrained,
    /// The slot's position is not compared with the state's.
    NoGapTest,
    /// A failover goes unnoticed.
    NoTimelineTest,
    /// A failover is judged by what was recorded, not by what may have been written.
    FailoverByRecorded,
    /// What a re-select saw of transactions to come is forgotten at a failover.
    ReselectSeesNothing,
}

const ALL: [Mutant; 28] = [
    Mutant::ConfirmOnReceipt,
    Mutant::ConfirmInsideTransaction,
    Mutant::ConfirmCommitLsn,
    Mutant::ConfirmStatePosition,
    Mutant::ConfirmThenRecord,
    Mutant::ToastAsNull,
    Mutant::ToastMissing,
    Mutant::ToastFromDocument,
    Mutant::ReselectUnseen,
    Mutant::NoDeleteOnKeyChange,
    Mutant::NoVersions,
    Mutant::ChangeLsnVersions,
    Mutant::StrictExternal,
    Mutant::LoadAtSlotVersion,
    Mutant::LoadAtReadVersion,
    Mutant::LoadUnseen,
    Mutant::LoadIntoUsedIndex,
    Mutant::SkipFailed,
    Mutant::LetterUnwritten,
    Mutant::NoWaitForUnanswered,
    Mutant::NothingInherited,
    Mutant::GoodOrderUnanswered,
    Mutant::DeleteAnywhere,
    Mutant::TruncateUndrained,
    Mutant::NoGapTest,
    Mutant::NoTimelineTest,
    Mutant::FailoverByRecorded,
    Mutant::ReselectSeesNothing,
];

/// Makes the faults likely under which a wrong design that needs several of them goes wrong.
pub(crate) fn provoke(mutant: Option<Mutant>, weather: &mut Weather) {
    match mutant {
        Some(Mutant::NoWaitForUnanswered) => {
            *weather = Weather { lost: 0.4, late: 0.9, ..Weather::default() };
        }
        Some(Mutant::NothingInherited) => {
            *weather = Weather { crash: 0.05, late: 1.0, overload: 0.8, ..Weather::default() };
        }
        Some(Mutant::ConfirmStatePosition) => {
            (weather.crash, weather.source_crash, weather.restart) = (0.01, 0.01, 0.05);
        }
        Some(Mutant::DeleteAnywhere) => weather.alias_gone = 0.02,
        Some(_) | None => {}
    }
}

/// What the stream may record and confirm.
pub(crate) fn durable(stream: &Stream<'_>) -> u64 {
    let durable = stream.pipeline.durable().lsn().get();
    match stream.world.mutant {
        Some(Mutant::ConfirmOnReceipt) => stream.pipeline.received().get(),
        Some(Mutant::ConfirmInsideTransaction) => durable.max(stream.believed),
        Some(Mutant::ConfirmCommitLsn) => {
            let transactions = stream.world.source.transactions.iter();
            let mut of = transactions.filter(|transaction| transaction.end_lsn == durable);
            of.next().map_or(durable, |transaction| transaction.commit_lsn)
        }
        Some(Mutant::ConfirmStatePosition) if durable > 0 => {
            durable.max(stream.world.state.as_ref().map_or(0, |state| state.durable))
        }
        Some(_) | None => durable,
    }
}

/// What the items are made of, as the wrong design sends them.
pub(crate) fn rewrite(world: &World, loads: bool, items: &mut [Item]) {
    let confirmed = world.source.slot.map_or(0, |slot| slot.confirmed);
    let load_at = |items: &mut [Item], lsn| {
        for item in items.iter_mut().filter(|_| loads) {
            item.versioning = Versioning::ExternalGte(version(lsn));
        }
    };
    let strict = |items: &mut [Item]| {
        for item in items {
            if let Versioning::ExternalGte(version) = item.versioning {
                item.versioning = Versioning::External(version);
            }
        }
    };
    match world.mutant {
        Some(Mutant::NoVersions) => {
            items.iter_mut().for_each(|item| item.versioning = Versioning::Internal);
        }
        Some(Mutant::StrictExternal) => strict(items),
        Some(Mutant::LoadAtSlotVersion) => {
            load_at(items, confirmed);
            strict(items);
        }
        Some(Mutant::ChangeLsnVersions) => load_at(items, confirmed),
        Some(Mutant::LoadAtReadVersion) => load_at(items, world.source.wal_end),
        Some(_) | None => {}
    }
}

/// What the cluster answered, as the wrong design reads it.
pub(crate) fn read_otherwise(mutant: Option<Mutant>, answered: &mut [Answered]) {
    match mutant {
        Some(Mutant::SkipFailed) => {
            for item in answered.iter_mut().filter(|item| matches!(item.status, 400 | 429)) {
                (item.status, item.error) = (200, None);
            }
        }
        Some(Mutant::DeleteAnywhere) => {
            answered.iter_mut().for_each(|item| item.index = None);
        }
        Some(_) | None => {}
    }
}

/// What a re-select gives.
pub(crate) fn reselected(
    world: &World,
    table: Shape,
    key: Key,
    selected: Option<Vec<Option<Vec<u8>>>>,
    columns: usize,
) -> Option<Vec<Option<Vec<u8>>>> {
    match world.mutant {
        Some(Mutant::ToastAsNull) => Some(vec![None; columns]),
        Some(Mutant::ToastMissing) => None,
        Some(Mutant::ToastFromDocument) => {
            let generation = world.state.as_ref()?.tables.get(&table)?.generation;
            let index = world.cluster.documents(&table.alias(generation))?;
            let stored = index.get(&table.id(key)).and_then(|stored| stored.source.as_ref());
            match stored.and_then(|source| source.get("large")).and_then(Value::as_str) {
                Some(large) => Some(vec![Some(large.as_bytes().to_vec()); columns]),
                None => selected,
            }
        }
        Some(_) | None => selected,
    }
}

/// The first seed that catches a wrong design, and how.
fn caught(mutant: Mutant, watch: Watch) -> Option<(u64, Violation)> {
    (0..SEEDS).find_map(|seed| Some((seed, simulate(seed, Some(mutant), watch).err()?)))
}

#[test]
fn every_wrong_design_is_caught_by_an_invariant() {
    every_wrong_design_is_caught(Watch::Always);
}

/// Not by what the simulation knows of the inside, but by what is left in the end.
#[test]
fn every_wrong_design_shows_in_the_end() {
    every_wrong_design_is_caught(Watch::AtRest);
}

fn every_wrong_design_is_caught(watch: Watch) {
    assert_eq!(epoch().load_version(), version(0), "loaded rows lie below every change");
    let mut survivors = Vec::new();
    println!("{:<26} {:>4}  caught by", "wrong design", "seed");
    let is_rare = |mutant: &Mutant| watch == Watch::AtRest && RARE_IN_THE_END.contains(mutant);
    for mutant in ALL.into_iter().filter(|mutant| !is_rare(mutant)) {
        match caught(mutant, watch) {
            Some((seed, Violation { invariant, what })) => {
                let what: String =
                    what.chars().map(|c| if c == '\n' { ' ' } else { c }).take(100).collect();
                println!("{:<26} {seed:>4}  {invariant}: {what}", format!("{mutant:?}"));
            }
            None => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "not caught within {SEEDS} seeds: {survivors:?}");
}
