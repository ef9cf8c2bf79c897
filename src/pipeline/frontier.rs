//! Which LSN may be acknowledged.
//!
//! The rule (reliability, from the protocol): the `end_lsn` of the newest transaction such that it and
//! all earlier ones have every write confirmed; or, with nothing open and nothing pending, a keepalive's
//! position. Never a change's LSN, never `commit_lsn` (that transaction would be sent again), never
//! anything inside a transaction. [`DurableLsn`] has no other source than this module.

use std::collections::VecDeque;

use crate::bulk::batch::Sequence;
use crate::lsn::Lsn;

/// A position up to which everything is confirmed by the search cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurableLsn {
    lsn: Lsn,
    commit_time_micros: Option<i64>,
    as_of_micros: Option<i64>,
}

impl DurableLsn {
    /// The position.
    pub fn lsn(self) -> Lsn {
        self.lsn
    }

    /// When the newest confirmed transaction was committed, in microseconds since 2000-01-01 UTC.
    pub fn commit_time_micros(self) -> Option<i64> {
        self.commit_time_micros
    }

    /// When the source stood there: the newest transaction's commit, or the keepalive that moved beyond it.
    /// In microseconds since 2000-01-01 UTC.
    pub fn as_of_micros(self) -> Option<i64> {
        self.as_of_micros
    }
}

struct Commit {
    /// Number of writes that precede the commit: all of them belong to it or to earlier transactions.
    after: Sequence,
    end_lsn: Lsn,
    time_micros: i64,
}

/// The commits that still wait for confirmations, oldest first.
pub(super) struct Frontier {
    commits: VecDeque<Commit>,
    durable: DurableLsn,
    /// A dry run confirms nothing.
    frozen: bool,
}

impl Frontier {
    pub(super) fn new() -> Self {
        Self { commits: VecDeque::new(), durable: DurableLsn::default(), frozen: false }
    }

    pub(super) fn durable(&self) -> DurableLsn {
        self.durable
    }

    pub(super) fn freeze(&mut self) {
        self.frozen = true;
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// A whole transaction was received; `after` writes were made up to its end.
    pub(super) fn commit(&mut self, after: Sequence, end_lsn: Lsn, time_micros: i64) {
        let commit = Commit { after, end_lsn, time_micros };
        match self.commits.back_mut() {
            // Transactions without a write for us are carried by the one before: the queue never holds
            // more commits than there are writes in flight.
            Some(last) if last.after == after => *last = commit,
            Some(_) | None => self.commits.push_back(commit),
        }
    }

    /// Whether a transaction may end here: not before what was received already.
    pub(super) fn is_next(&self, end_lsn: Lsn) -> bool {
        end_lsn >= self.commits.back().map_or(self.durable.lsn, |last| last.end_lsn)
    }

    /// Moves over every commit all of whose writes are numbered below `unconfirmed`, the lowest write
    /// that is not confirmed.
    pub(super) fn advance(&mut self, unconfirmed: Sequence) {
        if self.frozen {
            return;
        }
        while let Some(commit) = self.commits.front() {
            if commit.after > unconfirmed {
                break;
            }
            assert!(commit.end_lsn >= self.durable.lsn, "the durable LSN never goes back");
            let time = Some(commit.time_micros);
            self.durable =
                DurableLsn { lsn: commit.end_lsn, commit_time_micros: time, as_of_micros: time };
            self.commits.pop_front();
        }
    }

    /// The server had sent everything up to `wal_end` at that time, and nothing of it is open or pending.
    pub(super) fn idle_at(&mut self, wal_end: Lsn, time_micros: i64) {
        if !self.frozen && self.commits.is_empty() && wal_end > self.durable.lsn {
            self.durable.lsn = wal_end;
            self.durable.as_of_micros = Some(time_micros);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(frontier: &Frontier) -> u64 {
        frontier.durable().lsn().get()
    }

    #[test]
    fn a_commit_waits_for_its_own_and_all_earlier_writes() {
        let mut frontier = Frontier::new();
        frontier.commit(2, Lsn::new(100), 0);
        frontier.commit(5, Lsn::new(200), 0);
        frontier.advance(1);
        assert_eq!(durable(&frontier), 0);
        frontier.advance(4);
        assert_eq!(durable(&frontier), 100);
        frontier.advance(5);
        assert_eq!(durable(&frontier), 200);
    }

    #[test]
    fn a_transaction_without_writes_waits_for_the_one_before() {
        let mut frontier = Frontier::new();
        frontier.commit(2, Lsn::new(100), 0);
        frontier.commit(2, Lsn::new(150), 0);
        assert_eq!(frontier.commits.len(), 1);
        frontier.advance(1);
        assert_eq!(durable(&frontier), 0);
        frontier.advance(2);
        assert_eq!(durable(&frontier), 150);
    }

    /// A server that says it stands beyond what it sends next is broken: an error, not an end by assertion.
    #[test]
    fn a_commit_before_what_was_received_is_not_the_next() {
        let mut frontier = Frontier::new();
        frontier.idle_at(Lsn::new(300), 0);
        assert!(!frontier.is_next(Lsn::new(299)) && frontier.is_next(Lsn::new(300)));
        frontier.commit(1, Lsn::new(400), 0);
        assert!(!frontier.is_next(Lsn::new(399)) && frontier.is_next(Lsn::new(401)));
    }

    #[test]
    fn a_keepalive_counts_only_when_no_commit_waits() {
        let mut frontier = Frontier::new();
        frontier.commit(1, Lsn::new(100), 7);
        frontier.idle_at(Lsn::new(500), 8);
        assert_eq!(durable(&frontier), 0);
        frontier.advance(1);
        assert_eq!(frontier.durable().as_of_micros(), Some(7));
        frontier.idle_at(Lsn::new(500), 9);
        frontier.idle_at(Lsn::new(400), 10);
        assert_eq!(durable(&frontier), 500);
        assert_eq!(frontier.durable().as_of_micros(), Some(9));
        assert_eq!(frontier.durable().commit_time_micros(), Some(7));
    }

    #[test]
    fn a_dry_run_confirms_nothing() {
        let mut frontier = Frontier::new();
        frontier.freeze();
        frontier.commit(0, Lsn::new(100), 0);
        frontier.advance(9);
        frontier.idle_at(Lsn::new(500), 0);
        assert_eq!(durable(&frontier), 0);
    }
}
