//! Requests that were sent and never answered: the server may still carry them out.
//!
//! A late one is harmless where versions decide. It is not where an equal version wins: a later batch of the
//! same transaction that wrote the same document. So such a batch waits until the server has given up on the
//! earlier request, which it does after the `timeout` that every bulk carries (reliability, 2.3).
//!
//! Pure: time is handed in.

use std::collections::HashMap;
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
}

impl Unanswered {
    /// The first `items` of `batch` were sent, and until `until` the server may carry them out.
    pub fn add(&mut self, batch: &Batch, items: usize, now: Instant, until: Instant) {
        self.forget(now);
        if self.writes.len() + items > WRITES_MAX {
            self.writes.clear();
            self.anything_until = Some(until);
            return;
        }
        for item in batch.each().take(items) {
            self.writes.insert((document_hash(item.key), item.version), until);
        }
    }

    /// Until when `batch` must wait: it writes what an unanswered request wrote, with the same version.
    pub fn holds(&mut self, batch: &Batch, now: Instant) -> Option<Instant> {
        self.forget(now);
        if self.writes.is_empty() {
            return self.anything_until;
        }
        let until = |key: &[u8], version| self.writes.get(&(document_hash(key), version)).copied();
        let latest = batch.each().filter_map(|item| until(item.key, item.version)).max();
        latest.max(self.anything_until)
    }

    /// Until when writes of this version must wait that may touch any document.
    pub fn holds_version(&mut self, version: i64, now: Instant) -> Option<Instant> {
        self.forget(now);
        let same = self.writes.iter().filter(|((_, other), _)| *other == version);
        same.map(|(_, until)| *until).max().max(self.anything_until)
    }

    fn forget(&mut self, now: Instant) {
        if !self.writes.is_empty() {
            self.writes.retain(|_, until| *until > now);
        }
        self.anything_until = self.anything_until.filter(|until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bulk::answer::Action;
    use crate::bulk::open::OpenBatch;

    const TIMEOUT: Duration = Duration::from_secs(15);

    fn batch(ids: &[&str], version: i64) -> Batch {
        let mut batch = OpenBatch::new(0);
        for id in ids {
            let key = format!(r#""_index":"i","_id":"{id}""#);
            batch.push(
                Action::Index,
                key.as_bytes(),
                document_hash(key.as_bytes()),
                version,
                b"{}",
            );
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
        assert_eq!(unanswered.holds(&batch(&["b"], 5), now + TIMEOUT), None);
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
