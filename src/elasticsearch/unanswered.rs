//! Requests that were sent and never answered: the server may still carry them out.
//!
//! A late one is harmless where versions decide. It is not where an equal version wins: a later batch of the
//! same transaction that wrote the same document. So such a batch waits until the server has given up on the
//! earlier request, which it does after the `timeout` that every bulk carries (reliability, 2.3).
//!
//! A process that was killed leaves such requests to the next, which does not know what was in them. But it
//! gets the same transactions again: a document that one of them writes once was written like that before, and
//! only one that it writes again must wait.
//!
//! Pure: time is handed in.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::bulk::batch::Batch;
use crate::bulk::open::document_hash;

/// Writes that are remembered, at most; beyond, everything waits for the youngest of them.
const WRITES_MAX: usize = 100_000;

/// What may still be carried out.
#[derive(Debug, Default)]
pub struct Unanswered {
    /// Document (by hash) and version, and when the server has given up on it.
    writes: HashMap<(u64, i64), Instant>,
    /// Until then anything may be carried out.
    anything_until: Option<Instant>,
    inherited: Option<Inherited>,
}

/// What a process before this one may have sent.
#[derive(Debug)]
struct Inherited {
    /// Nothing of a higher version.
    version_max: i64,
    until: Instant,
    /// Documents (by hash) and versions that this process has sent, up to that version.
    sent: HashSet<(u64, i64)>,
}

impl Inherited {
    /// Notes what `batch` sends; whether it must wait.
    fn holds(&mut self, batch: &Batch) -> bool {
        let mut holds = false;
        for item in batch.each().filter(|item| item.version <= self.version_max) {
            // One that cannot be remembered may be one of those that were sent.
            let is_new = self.sent.len() < WRITES_MAX
                && self.sent.insert((document_hash(item.name), item.version));
            holds |= !is_new || item.rewrites;
        }
        holds
    }
}

impl Unanswered {
    /// The first `items` of `batch` were sent, and until `until` the server may carry them out.
    pub fn add(&mut self, batch: &Batch, items: usize, now: Instant, until: Instant) {
        self.forget(now);
        if self.writes.len() + items > WRITES_MAX {
            let latest = self.writes.drain().map(|(_, until)| until).max();
            self.anything_until = self.anything_until.max(latest).max(Some(until));
            return;
        }
        for item in batch.each().take(items) {
            let write = (document_hash(item.name), item.version);
            let known = self.writes.entry(write).or_insert(until);
            // An earlier request of the same may have been given longer.
            *known = until.max(*known);
        }
    }

    /// Something was sent, and nobody knows what.
    pub fn add_anything(&mut self, until: Instant) {
        self.anything_until = self.anything_until.max(Some(until));
    }

    /// A process before this one did not end in good order: up to this version, the server may carry out until
    /// `until` what that one sent.
    pub fn inherit(&mut self, version_max: i64, until: Instant) {
        self.inherited = Some(Inherited { version_max, until, sent: HashSet::new() });
    }

    /// Until when `batch`, which is about to be sent for the first time, must wait: it writes what an
    /// unanswered request wrote, with the same version.
    pub fn holds(&mut self, batch: &Batch, now: Instant) -> Option<Instant> {
        self.forget(now);
        let inherited = self.inherited.as_mut();
        let inherited = inherited.and_then(|from| from.holds(batch).then_some(from.until));
        if self.writes.is_empty() {
            return inherited.max(self.anything_until);
        }
        let until =
            |name: &[u8], version| self.writes.get(&(document_hash(name), version)).copied();
        let latest = batch.each().filter_map(|item| until(item.name, item.version)).max();
        latest.max(self.anything_until).max(inherited)
    }

    /// Until when writes of this version must wait that may touch any document.
    pub fn holds_version(&mut self, version: i64, now: Instant) -> Option<Instant> {
        self.forget(now);
        let same = self.writes.iter().filter(|((_, other), _)| *other == version);
        let inherited = self.inherited.as_ref().filter(|from| version <= from.version_max);
        let inherited = inherited.map(|from| from.until);
        same.map(|(_, until)| *until).max().max(self.anything_until).max(inherited)
    }

    /// Whether nothing may still be carried out.
    pub fn is_over(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.writes.is_empty() && self.anything_until.is_none() && self.inherited.is_none()
    }

    fn forget(&mut self, now: Instant) {
        if !self.writes.is_empty() {
            self.writes.retain(|_, until| *until > now);
        }
        self.anything_until = self.anything_until.filter(|until| *until > now);
        self.inherited.take_if(|from| from.until <= now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bulk::open::OpenBatch;
    use crate::bulk::write::Write;

    const TIMEOUT: Duration = Duration::from_secs(15);

    fn batch(ids: &[&str], version: i64) -> Batch {
        let mut batch = OpenBatch::new(0);
        for id in ids {
            let name = format!(r#""_index":"i","_id":"{id}""#);
            batch.push(&Write::index(name.as_bytes(), version, b"{}"));
        }
        batch.seal()
    }

    #[test]
    fn only_the_same_document_of_the_same_transaction_waits() {
        let now = Instant::now();
        let mut unanswered = Unanswered::default();
        assert_eq!(unanswered.holds(&batch(&["a"], 5), now), None);
        unanswered.add(&batch(&["a", "b"], 5), 2, now, now + TIMEOUT);
        assert_eq!(unanswered.holds(&batch(&["c", "b"], 5), now), Some(now + TIMEOUT));
        assert_eq!(unanswered.holds(&batch(&["c"], 5), now), None);
        assert_eq!(unanswered.holds(&batch(&["b"], 6), now), None);
        assert!(!unanswered.is_over(now));
        assert_eq!(unanswered.holds(&batch(&["b"], 5), now + TIMEOUT), None);
        assert!(unanswered.is_over(now + TIMEOUT));
    }

    #[test]
    fn a_part_that_was_not_sent_is_not_waited_for() {
        let now = Instant::now();
        let mut unanswered = Unanswered::default();
        unanswered.add(&batch(&["a", "b"], 5), 1, now, now + TIMEOUT);
        assert_eq!(unanswered.holds(&batch(&["b"], 5), now), None);
        assert_eq!(unanswered.holds_version(5, now), Some(now + TIMEOUT));
        assert_eq!(unanswered.holds_version(4, now), None);
        assert_eq!(unanswered.holds_version(5, now + TIMEOUT), None);
    }

    #[test]
    fn what_a_killed_process_sent_is_waited_for_by_what_is_written_again() {
        let now = Instant::now();
        let mut unanswered = Unanswered::default();
        unanswered.inherit(5, now + TIMEOUT);
        assert_eq!(unanswered.holds(&batch(&["a", "b"], 5), now), None, "the same as before");
        assert_eq!(unanswered.holds(&batch(&["b"], 5), now), Some(now + TIMEOUT), "written again");
        assert_eq!(unanswered.holds(&batch(&["b"], 4), now), None, "of another transaction");
        assert_eq!(
            unanswered.holds(&batch(&["c", "c"], 5), now),
            Some(now + TIMEOUT),
            "in one batch"
        );
        assert_eq!(unanswered.holds(&batch(&["d"], 6), now), None, "nobody has sent it");
        assert_eq!(unanswered.holds(&batch(&["d", "d"], 6), now), None, "nobody has sent it");
        assert_eq!(unanswered.holds_version(5, now), Some(now + TIMEOUT));
        assert_eq!(unanswered.holds_version(6, now), None);
        assert_eq!(unanswered.holds(&batch(&["b"], 5), now + TIMEOUT), None);
        assert!(unanswered.inherited.is_none());
    }

    #[test]
    fn what_cannot_be_remembered_waits_for_what_a_killed_process_sent() {
        let now = Instant::now();
        let mut unanswered = Unanswered::default();
        unanswered.inherit(i64::MAX, now + TIMEOUT);
        let ids: Vec<String> = (0..1000).map(|id| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let held = |unanswered: &mut Unanswered, version| {
            unanswered.holds(&batch(&ids, version), now).is_some()
        };
        let first = (0..1000).find(|version| held(&mut unanswered, *version));
        assert_eq!(first, i64::try_from(WRITES_MAX / 1000).ok());
    }

    #[test]
    fn a_request_that_may_take_longer_is_not_forgotten_for_a_later_shorter_one() {
        let (now, brief) = (Instant::now(), Duration::from_secs(1));
        let mut unanswered = Unanswered::default();
        unanswered.add(&batch(&["a"], 5), 1, now, now + TIMEOUT);
        unanswered.add(&batch(&["a"], 5), 1, now, now + brief);
        assert_eq!(unanswered.holds(&batch(&["a"], 5), now), Some(now + TIMEOUT));
        let ids: Vec<String> = (0..WRITES_MAX).map(|id| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        unanswered.add(&batch(&ids, 6), ids.len(), now, now + brief);
        assert_eq!(unanswered.holds(&batch(&["a"], 5), now), Some(now + TIMEOUT), "cleared");
        unanswered.add(&batch(&ids, 7), ids.len(), now, now + brief);
        unanswered.add(&batch(&ids, 8), ids.len(), now, now + brief);
        assert_eq!(unanswered.holds(&batch(&["a"], 5), now), Some(now + TIMEOUT), "and again");
    }

    #[test]
    fn beyond_its_limit_everything_waits() {
        let now = Instant::now();
        let mut unanswered = Unanswered::default();
        let ids: Vec<String> = (0..1000).map(|id| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        for version in 0..=100 {
            unanswered.add(&batch(&ids, version), 1000, now, now + TIMEOUT);
        }
        assert!(unanswered.writes.len() <= WRITES_MAX);
        assert_eq!(unanswered.holds(&batch(&["never sent"], 999), now), Some(now + TIMEOUT));
        assert_eq!(unanswered.holds(&batch(&["never sent"], 999), now + TIMEOUT), None);
    }
}
