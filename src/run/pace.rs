//! When to let the socket fill before it is read again.
//!
//! A walsender with backlog writes each message by itself, so a reader that wakes for each spends more in the
//! kernel than on the rows: it gets 950 bytes a read. After a rest of 200 µs it gets tens of kilobytes. Much
//! longer, and the socket is full before the reader is back. A stream that is not behind never rests.

use std::time::{Duration, Instant};

/// How long the socket is left alone while there is backlog.
const REST: Duration = Duration::from_micros(200);
/// Reads in a row, none of them idle, that make a backlog: a few rows of one commit are none.
const BUSY_READS_MIN: u32 = 16;
/// A read that brings so much was not idle, however long it took to come.
const BUSY_READ_BYTES: usize = 8 << 10;

/// Watches how reads follow each other.
#[derive(Debug, Default)]
pub(super) struct Pace {
    busy_reads: u32,
    read_at: Option<Instant>,
}

impl Pace {
    /// How long to rest after a read that brought `bytes`, if there is a backlog.
    pub(super) fn rest_after(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let follows = self.read_at.is_some_and(|at| now.saturating_duration_since(at) < REST);
        self.read_at = Some(now);
        let is_busy = follows || bytes >= BUSY_READ_BYTES;
        self.busy_reads = if is_busy { self.busy_reads.saturating_add(1) } else { 0 };
        (self.busy_reads >= BUSY_READS_MIN).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rests among `reads` reads of `bytes` each, `gap` apart.
    fn rests(pace: &mut Pace, start: Instant, reads: u32, bytes: usize, gap: Duration) -> usize {
        let read = |number| pace.rest_after(bytes, start + gap * number);
        (0..reads).filter_map(read).count()
    }

    const GAP: Duration = Duration::from_micros(5);

    #[test]
    fn a_backlog_rests_and_its_end_is_noticed() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(rests(&mut pace, start, 40, 950, GAP), 24);
        let later = start + Duration::from_millis(1);
        assert_eq!(rests(&mut pace, later, 40, 60_000, REST * 2), 40);
        let end = later + Duration::from_secs(1);
        assert_eq!(rests(&mut pace, end, 40, 950, REST * 2), 0);
    }

    #[test]
    fn single_commits_never_rest() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for commit in 0..1000 {
            let at = start + Duration::from_millis(1) * commit;
            assert_eq!(rests(&mut pace, at, 4, 200, GAP), 0);
        }
    }
}
