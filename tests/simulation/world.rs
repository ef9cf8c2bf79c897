//! Everything outside of waldex: the servers, the network between them, the operator, the weather.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::cluster::{Answered, Cluster, Item, Versioning};
use super::invariants::Violation;
use super::mutants::Mutant;
use super::shape::{SHAPES, Shape};
use super::source::Source;
use super::workload::Workload;

/// A request that got no answer lands within this time, or never: the proxy's and the server's limits.
const LATE_MAX: u64 = 60;
/// `index.gc_deletes`: longer than anything can be late.
const TOMBSTONES_KEPT: u64 = 2 * LATE_MAX;
/// Steps within which everything must be confirmed once all faults have ended.
const CALM_STEPS_MAX: u32 = 30_000;

/// What waldex remembers in the cluster.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) timeline: u32,
    pub(crate) durable: u64,
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

/// How likely each fault is at each step; a swarm: each seed leaves many out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    // Of the process and its connection.
    pub(crate) crash: f64,
    pub(crate) stop: f64,
    pub(crate) disconnect: f64,
    // Of Postgres.
    pub(crate) source_crash: f64,
    pub(crate) failover: f64,
    pub(crate) checkpoint: f64,
    pub(crate) lag: bool,
    // Of the cluster.
    pub(crate) restart: f64,
    pub(crate) restore: f64,
    // Of requests and answers.
    pub(crate) overload: f64,
    pub(crate) item_overload: f64,
    pub(crate) lost: f64,
    pub(crate) late: f64,
    pub(crate) cut: f64,
    // Of the operator.
    pub(crate) reload: f64,
    pub(crate) tampering: f64,
}

impl Weather {
    pub(crate) fn random(random: &mut StdRng) -> Self {
        let mut up_to = |most: f64| {
            if random.random_bool(0.5) { 0.0 } else { random.random_range(0.0..most) }
        };
        Self {
            crash: up_to(0.01),
            stop: up_to(0.005),
            disconnect: up_to(0.01),
            source_crash: up_to(0.01),
            failover: up_to(0.004),
            checkpoint: up_to(0.05),
            restart: up_to(0.02),
            restore: up_to(0.3),
            overload: up_to(0.4),
            item_overload: up_to(0.3),
            lost: up_to(0.2),
            late: up_to(0.7),
            cut: up_to(0.1),
            reload: up_to(0.3),
            tampering: up_to(0.1),
            lag: up_to(1.0) > 0.0,
        }
    }
}

/// A request on its way that nobody waits for any more.
struct Late {
    items: Vec<Item>,
    due: u64,
    /// Writes that had arrived when it was sent.
    arrivals_before: u64,
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
    workload: Workload,
    work_left: u32,
    storm_left: u32,
    calm_steps: u32,
    late: Vec<Late>,
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
        Self {
            random,
            source,
            cluster: Cluster::default(),
            state: None,
            weather: Weather::default(),
            mutant,
            watch,
            was_tampered_with: false,
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
        self.land_late(false);
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
        let refused = Some("es_rejected_execution_exception");
        let mut apply =
            |item| if refuses(self) { (429, refused) } else { self.cluster.apply(item) };
        items.iter().map(&mut apply).collect()
    }

    /// A request that nobody waits for any more: not at all, in part, whole, or later.
    pub(crate) fn lose(&mut self, items: Vec<Item>) {
        if self.fault(self.weather.late, "late request") {
            let due = self.cluster.now + self.random.random_range(1..LATE_MAX);
            let arrivals_before = self.cluster.arrivals();
            self.late.push(Late { items, due, arrivals_before });
            return;
        }
        let applied = [0.0, 0.5, 1.0][self.random.random_range(0..3)];
        self.apply(&items, |world| !world.random.random_bool(applied));
    }

    /// Requests that are late by now arrive; at rest, all of them.
    pub(crate) fn land_late(&mut self, all: bool) {
        let now = self.cluster.now;
        for late in self.late.extract_if(.., |late| all || late.due <= now).collect::<Vec<_>>() {
            for item in late.items {
                if self.is_beyond_promise(&item, late.arrivals_before) {
                    self.count("late duplicate within its own transaction, beyond the promise");
                } else {
                    self.cluster.apply(&item);
                    self.count("late write");
                }
            }
        }
    }

    /// P2's stated limit: a late duplicate after another write of the same transaction.
    fn is_beyond_promise(&self, item: &Item, arrivals_before: u64) -> bool {
        let stored = self.cluster.documents(&item.alias).and_then(|index| index.get(&item.id));
        stored.is_some_and(|stored| {
            item.versioning == Versioning::ExternalGte(stored.version)
                && stored.arrival > arrivals_before
                && item.source != stored.source
        })
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
                    self.state = Some(backup.state);
                    self.was_tampered_with = true;
                }
                _ => {
                    let cluster = self.cluster.clone();
                    self.backup = self.state.clone().map(|state| Backup { cluster, state });
                }
            }
        }
    }

    /// A standby without the end of the log takes over, with the slot as it was synced, or without it.
    pub(crate) fn fail_over(&mut self) {
        let ends = self.source.transactions.iter().map(|transaction| transaction.end_lsn);
        let candidates: Vec<u64> = ends.rev().take(4).chain([self.source.wal_end]).collect();
        let switch = candidates[self.random.random_range(0..candidates.len())];
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
