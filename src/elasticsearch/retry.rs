//! How long to wait before a request is sent again, or Postgres is asked again: exponential, with jitter, capped.

use std::time::Duration;

use rand::RngExt;

const FIRST_MS: u64 = 50;
const LONGEST_MS: u64 = 10_000;
/// Of the source, which takes longer to come back, and where each attempt costs a process: within five minutes no
/// more than twenty, and still soon after a short outage.
const SOURCE_FIRST_MS: u64 = 200;
const SOURCE_LONGEST_MS: u64 = 30_000;
/// For what only an operator ends (credentials, a write block): no need to ask often.
const SLOW_MS: u64 = 5_000;

/// A server that asks for a longer pause (`Retry-After`) is asked again after this time.
const ASKED_SECONDS_MAX: u64 = 300;

/// Counts the attempts of one request.
#[derive(Debug)]
pub struct Backoff {
    attempts: u32,
    first_ms: u64,
    longest_ms: u64,
    /// The part of a wait that jitter may take away: one half, or one fifth.
    jitter_divisor: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { attempts: 0, first_ms: FIRST_MS, longest_ms: LONGEST_MS, jitter_divisor: 2 }
    }
}

impl Backoff {
    /// Between attempts to reach Postgres.
    pub fn of_source() -> Self {
        let (first_ms, longest_ms) = (SOURCE_FIRST_MS, SOURCE_LONGEST_MS);
        Self { attempts: 0, first_ms, longest_ms, jitter_divisor: 5 }
    }

    /// Attempts that failed so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The wait before the next attempt; never shorter than what the server asked for.
    pub fn next(&mut self, retry_after_seconds: Option<u64>) -> Duration {
        let ceiling = self.first_ms.saturating_mul(1 << self.attempts.min(16)).min(self.longest_ms);
        self.attempts = self.attempts.saturating_add(1);
        let floor = ceiling - ceiling / self.jitter_divisor;
        let jittered = rand::rng().random_range(floor..=ceiling);
        Duration::from_millis(jittered).max(Self::asked(retry_after_seconds.unwrap_or(0)))
    }

    /// The pause that the server asked for.
    pub fn asked(seconds: u64) -> Duration {
        Duration::from_secs(seconds.min(ASKED_SECONDS_MAX))
    }

    /// The wait before the next attempt at something an operator has to end.
    pub fn next_slow(&mut self) -> Duration {
        self.next(None).max(Duration::from_millis(SLOW_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_is_capped_and_honours_the_server() {
        let mut backoff = Backoff::default();
        assert!(backoff.next(None) <= Duration::from_millis(FIRST_MS));
        for _ in 0..40 {
            assert!(backoff.next(None) <= Duration::from_millis(LONGEST_MS));
        }
        assert!(backoff.next(None) >= Duration::from_millis(LONGEST_MS / 2));
        assert!(backoff.next(Some(20)) >= Duration::from_secs(20));
        assert_eq!(backoff.attempts(), 43);
    }

    /// Whatever the jitter: also if every wait is as short as it can be.
    #[test]
    fn five_minutes_without_postgres_are_twenty_attempts_at_most() {
        let mut backoff = Backoff::of_source();
        let (mut waited_ms, mut attempts) = (0, 0);
        loop {
            let ceiling = (SOURCE_FIRST_MS << backoff.attempts().min(16)).min(SOURCE_LONGEST_MS);
            let shortest = ceiling - ceiling / 5;
            let wait = backoff.next(None);
            assert!(wait >= Duration::from_millis(shortest));
            assert!(wait <= Duration::from_millis(SOURCE_LONGEST_MS));
            waited_ms += shortest;
            if waited_ms > 300_000 {
                break;
            }
            attempts += 1;
        }
        assert!(attempts <= 20, "{attempts}");
        assert!(Backoff::of_source().next(None) <= Duration::from_millis(200), "soon at first");
    }
}
