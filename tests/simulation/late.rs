//! Requests that nobody was answered: what may still be carried out, when it is, and who has to wait for it.

use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::Value;
use waldex::bulk::batch::Batch;
use waldex::elasticsearch::unanswered::Unanswered;

use super::cluster::{Item, Stored, Versioning};
use super::invariants::Violation;
use super::mutants::Mutant;
use super::world::{Watch, World};

/// A request that got no answer lands within this time, or never: the proxy's and the server's limits.
pub(super) const LATE_MAX: u64 = 60;

/// A request on its way that nobody waits for any more.
pub(super) struct Late {
    items: Vec<Item>,
    due: u64,
    /// Writes that had arrived when it was sent.
    arrivals_before: u64,
}

impl World {
    /// Another life of the process begins, which knows nothing of the requests of the last.
    pub(crate) fn begin_life(&mut self) {
        self.unanswered = Unanswered::default();
    }

    /// The life before did not end in good order: it may have sent anything up to here.
    pub(crate) fn inherit(&mut self, lsn: u64) {
        if self.mutant != Some(Mutant::NothingInherited) {
            let until = self.time() + Duration::from_millis(LATE_MAX);
            self.unanswered.inherit(super::life::version(lsn), until);
        }
    }

    fn time(&self) -> Instant {
        self.clock_origin + Duration::from_millis(self.cluster.now)
    }

    /// Any part of a request may still be carried out, for a while.
    pub(crate) fn is_unanswered(&mut self, batch: &Batch, items: usize) {
        let now = self.time();
        self.unanswered.add(batch, items, now, now + Duration::from_millis(LATE_MAX));
    }

    /// Whether nothing that was sent may still be carried out.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let now = self.time();
        self.unanswered.is_over(now)
    }

    /// Whether a batch has to wait for an unanswered request of its own transaction.
    pub(crate) fn must_wait_for_unanswered(&mut self, batch: &Batch) -> bool {
        let now = self.time();
        let waits = self.unanswered.holds(batch, now).is_some_and(|until| until > now);
        if waits {
            self.count("batch that waits for an unanswered one");
        }
        waits && self.mutant != Some(Mutant::NoWaitForUnanswered)
    }

    /// The same for writes of a version to any document.
    pub(crate) fn must_wait_for_version(&mut self, version: i64) -> bool {
        let now = self.time();
        self.unanswered.holds_version(version, now).is_some_and(|until| until > now)
            && self.mutant != Some(Mutant::NoWaitForUnanswered)
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
    pub(crate) fn land_late(&mut self, all: bool) -> Result<(), Violation> {
        let now = self.cluster.now;
        for late in self.late.extract_if(.., |late| all || late.due <= now).collect::<Vec<_>>() {
            for item in late.items {
                let is_duplicate = self.is_late_duplicate(&item, late.arrivals_before);
                if is_duplicate && self.watch == Watch::Always {
                    let what = format!("{}: a late request overtakes its own transaction", item.id);
                    return Err(Violation::new("P2", what));
                } else {
                    self.cluster.apply_late(&item, late.arrivals_before);
                    self.count("late write");
                }
            }
        }
        Ok(())
    }

    /// Whether something else was written since, of the same transaction: versions do not tell the two apart.
    /// Such a write waits until the other is over, also when a life before has sent that. One that comes later in
    /// the transaction overtakes nothing: it is sent again, too.
    fn is_late_duplicate(&self, item: &Item, arrivals_before: u64) -> bool {
        let stored = self.cluster.documents(&item.alias).and_then(|index| index.get(&item.id));
        let step = |source: &Option<Value>| source.as_ref().and_then(|it| it["step"].as_u64());
        stored.is_some_and(|stored| {
            let steps = step(&item.source).zip(step(&stored.source));
            item.versioning == Versioning::ExternalGte(stored.version)
                && stored.arrival > arrivals_before
                && item.source != stored.source
                && match steps {
                    Some((late, stored)) => late < stored,
                    // A delete has no step. That it comes after the transaction's last word is certain; of a
                    // document that comes after a delete, only the end can tell.
                    None => item.source.is_none() && self.is_last_word(item, stored),
                }
        })
    }

    /// Whether this is the row as its transaction leaves it.
    fn is_last_word(&self, item: &Item, stored: &Stored) -> bool {
        let step = stored.source.as_ref().and_then(|source| source["step"].as_u64());
        self.source.history().any(|(table, key, written)| {
            table.id(key) == item.id
                && written.iter().any(|it| {
                    super::life::version(it.commit_lsn) == stored.version
                        && it.made.row.is_some()
                        && Some(it.made.step) == step
                })
        })
    }
}
