//! Everything outside of waldex: the servers, the network between them, the operator, the weather.

use std::collections::BTreeMap;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use waldex::elasticsearch::unanswered::Unanswered;

use super::cluster::{Answered, Cluster, Item};
use super::invariants::Violation;
use super::late::{LATE_MAX, Late};
use super::mutants::{self, Mutant};
use super::shape::{SHAPES, Shape};
use super::source::Source;
use super::weather::Weather;
use super::workload::Workload;

/// `index.gc_deletes`: longer than anything can be late.
const TOMBSTONES_KEPT: u64 = 2 * LATE_MAX;
/// Steps within which everything must be confirmed once all faults have ended.
const CALM_STEPS_MAX: u32 = 30_000;

/// Where dead letters are written.
pub(crate) const LETTERS_ALIAS: &str = "dead-letters-write";

/// The letter's id: one for each document.
pub(crate) fn letter_id(alias: &str, id: &str) -> String {
    format!("{alias} {id}")
}

/// What waldex remembers in the cluster.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) timeline: u32,
    pub(crate) durable: u64,
    /// Up to where anything was written, beyond `durable` too; none while a process lives, or after one that
    /// did not end in good order.
    pub(crate) written: Option<u64>,
    pub(crate) tables: BTreeMap<Shape, TableState>,
}

#[derive(Clone, Debug)]
pub(crate) struct TableState {
    pub(crate) generation: u32,
    /// What a complete load has seen for certain, and the position at its end.
    pub(crate) loaded: Option<(String, u64)>,
}

/// When the invariants are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// At each step.
    Always,
    /// Only what an application could see in the end.
    AtRest,
}

/// A backup of the cluster, state document and all.
#[derive(Clone)]
struct Backup {
    cluster: Cluster,
    state: State,
}

/// All of it.
pub(crate) struct World {
    pub(crate) random: StdRng,
    pub(crate) source: Source,
    pub(crate) cluster: Cluster,
    pub(crate) state: Option<State>,
    pub(crate) weather: Weather,
    pub(crate) mutant: Option<Mutant>,
    /// What is looked at: everything at every step, or only the documents at rest.
    pub(crate) watch: Watch,
    /// Whether somebody gave the slot and the state a reason to differ.
    pub(crate) was_tampered_with: bool,
    /// A refused document stops the run; else it becomes a dead letter.
    pub(crate) halts_on_rejected: bool,
    /// The same, as this process knows it.
    pub(crate) written: Option<u64>,
    /// What this life of the process knows of its unanswered requests.
    pub(super) unanswered: Unanswered,
    pub(super) clock_origin: Instant,
    /// Write aliases that are gone, and until when.
    aliases_gone: Vec<(Shape, u32, u64)>,
    workload: Workload,
    work_left: u32,
    storm_left: u32,
    calm_steps: u32,
    pub(super) late: Vec<Late>,
    backup: Option<Backup>,
    happened: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>, watch: Watch) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let workload = Workload::random(&mut random);
        let mut source = Source::new();
        // Rows from before the slot, some in transactions that are still open when it is made.
        for _ in 0..random.random_range(0..40) {
            workload.advance(&mut source, &mut random);
        }
        let halts_on_rejected = random.random_bool(0.3);
        let mut cluster = Cluster::default();
        cluster.create(LETTERS_ALIAS, "dead-letters");
        Self {
            random,
            source,
            cluster,
            state: None,
            weather: Weather::default(),
            mutant,
            watch,
            was_tampered_with: false,
            halts_on_rejected,
            written: None,
            unanswered: Unanswered::default(),
            clock_origin: Instant::now(),
            aliases_gone: Vec::new(),
            workload,
            work_left: 0,
            storm_left: 0,
            calm_steps: 0,
            late: Vec::new(),
            backup: None,
            happened: BTreeMap::new(),
        }
    }

    /// Work and faults begin, for a while.
    pub(crate) fn storm(&mut self) {
        self.weather = Weather::random(&mut self.random);
        mutants::provoke(self.mutant, &mut self.weather);
        self.work_left = self.random.random_range(20..150);
        self.storm_left = self.random.random_range(0..100);
        self.cluster.takes_poison = false;
    }

    /// Whether neither work nor faults are left.
    pub(crate) fn is_calm(&self) -> bool {
        self.work_left == 0 && self.storm_left == 0
    }

    /// Counts what happened: a simulation without a fault shows nothing of it.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    pub(crate) fn happened(&self) -> &BTreeMap<&'static str, u64> {
        &self.happened
    }

    /// Whether a fault of this likelihood happens now.
    pub(crate) fn fault(&mut self, likelihood: f64, what: &'static str) -> bool {
        let happens = likelihood > 0.0 && !self.is_calm() && self.random.random_bool(likelihood);
        if happens {
            self.count(what);
        }
        happens
    }

    /// Lets time pass: work at the source, late requests, restarts, expiry.
    pub(crate) fn tick(&mut self) -> Result<(), Violation> {
        self.cluster.now += self.random.random_range(0..3);
        if self.work_left > 0 {
            self.work_left -= 1;
            self.workload.advance(&mut self.source, &mut self.random);
            if self.work_left == 0 {
                Workload::finish(&mut self.source);
            }
        } else if self.storm_left > 0 {
            self.storm_left -= 1;
        } else {
            self.calm_steps += 1;
            if self.calm_steps > CALM_STEPS_MAX {
                return Err(Violation::new("liveness", "all is calm, and not all is confirmed"));
            }
        }
        self.tamper_with_aliases();
        self.land_late(false)?;
        self.cluster.expire_tombstones(TOMBSTONES_KEPT);
        if self.fault(self.weather.checkpoint, "checkpoint") {
            self.source.checkpoint();
        }
        if self.fault(self.weather.restart, "cluster restart") {
            self.late.clear();
            let keeps_some = self.random.random_bool(0.3);
            self.cluster.restart(|| keeps_some && self.random.random_bool(0.5));
        }
        Ok(())
    }

    /// Aliases that were removed are put back when it is time; others are removed.
    fn tamper_with_aliases(&mut self) {
        let (now, all) = (self.cluster.now, self.is_calm());
        for (table, generation, until) in std::mem::take(&mut self.aliases_gone) {
            if all || until <= now {
                self.cluster.restore_alias(&table.alias(generation), &table.index(generation));
            } else {
                self.aliases_gone.push((table, generation, until));
            }
        }
        if self.aliases_gone.is_empty()
            && let Some(state) = self.state.clone()
            && self.fault(self.weather.alias_gone, "alias removed")
        {
            let which = self.random.random_range(0..state.tables.len());
            if let Some((&table, entry)) = state.tables.iter().nth(which)
                && self.cluster.index(&table.index(entry.generation)).is_some()
            {
                self.cluster.remove_alias(&table.alias(entry.generation));
                let until = now + self.random.random_range(1..100);
                self.aliases_gone.push((table, entry.generation, until));
            }
        }
    }

    /// A snapshot of the source, and what it sees.
    pub(crate) fn snapshot(&mut self) -> u64 {
        let lag = self.weather.lag && !self.is_calm();
        if lag {
            self.count("snapshot that lags");
        }
        self.source.snapshot(&mut self.random, lag)
    }

    /// Applies items; `refuses` says which are answered 429.
    pub(crate) fn apply(
        &mut self,
        items: &[Item],
        mut refuses: impl FnMut(&mut Self) -> bool,
    ) -> Vec<Answered> {
        let mut apply = |item| match refuses(self) {
            true => Answered::failed(429, "es_rejected_execution_exception"),
            false => self.cluster.apply(item),
        };
        items.iter().map(&mut apply).collect()
    }

    /// Between two lives of the process the operator takes a backup, or restores the last one; or somebody
    /// moves the slot, or drops it.
    pub(crate) fn between_lives(&mut self) {
        if self.fault(self.weather.tampering, "slot moved or dropped by hand") {
            self.was_tampered_with = true;
            let end = self.source.wal_end;
            let is_moved = self.random.random_bool(0.7);
            self.source.slot = self.source.slot.filter(|_| is_moved);
            self.source.confirm(end);
        }
        if self.fault(self.weather.restore, "backup or restore") {
            match self.backup.take() {
                Some(backup) if self.random.random_bool(0.7) => {
                    self.late.clear();
                    self.count("restore");
                    let now = self.cluster.now;
                    self.cluster = backup.cluster;
                    self.cluster.now = now;
                    for (table, entry) in &backup.state.tables {
                        let (alias, index) =
                            (table.alias(entry.generation), table.index(entry.generation));
                        if self.cluster.index(&index).is_some() {
                            self.cluster.restore_alias(&alias, &index);
                        }
                    }
                    self.aliases_gone.clear();
                    self.state = Some(backup.state);
                    self.was_tampered_with = true;
                }
                // Within a replay that goes back further than deletes are remembered, rows that are gone are
                // back for a while, and the state stands beyond that: no such backup is any good.
                _ if self.is_replaying() => {}
                _ => {
                    let cluster = self.cluster.clone();
                    self.backup = self.state.clone().map(|state| Backup { cluster, state });
                }
            }
        }
    }

    fn is_replaying(&self) -> bool {
        let confirmed = self.source.slot.map(|slot| slot.confirmed);
        confirmed.zip(self.state.as_ref()).is_some_and(|(at, state)| at < state.durable)
    }

    /// A standby without the end of the log takes over, with the slot as it was synced, or without it.
    pub(crate) fn fail_over(&mut self) {
        // Between transactions, or just before a commit.
        let newest = self.source.transactions.iter().rev().take(4);
        let places = newest.flat_map(|it| [it.commit_lsn, it.end_lsn]);
        let end = self.source.wal_end;
        let mut candidates: Vec<u64> = places.chain([end, end, end]).collect();
        candidates.retain(|&switch| switch >= self.source.begun_at());
        let switch = candidates[self.random.random_range(0..candidates.len())];
        self.fail_over_at(switch);
    }

    /// A standby that has the log up to `switch`.
    pub(crate) fn fail_over_at(&mut self, switch: u64) {
        let confirmed = self.source.slot.map_or(0, |slot| slot.confirmed).min(switch);
        let synced = self.random.random_bool(0.8).then_some(confirmed);
        self.source.fail_over(switch, synced);
        self.count("failover");
    }

    /// The configured tables.
    pub(crate) fn tables() -> impl Iterator<Item = Shape> {
        SHAPES.into_iter().filter(|table| table.is_configured())
    }
}
