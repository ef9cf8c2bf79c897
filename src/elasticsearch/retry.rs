//! How long to wait before a request is sent again: exponential, with full jitter, capped.

use std::time::Duration;

use rand::RngExt;

const FIRST_MS: u64 = 50;
const LONGEST_MS: u64 = 10_000;
/// For what only an operator ends (credentials, a write block): no need to ask often.
const SLOW_MS: u64 = 5_000;

/// A server that asks for a longer pause (`Retry-After`) is asked again after this time.
const ASKED_SECONDS_MAX: u64 = 300;

/// Counts the attempts of one request.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Attempts that failed so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The wait before the next attempt; never shorter than what the server asked for.
    pub fn next(&mut self, retry_after_seconds: Option<u64>) -> Duration {
        let ceiling = FIRST_MS.saturating_mul(1 << self.attempts.min(16)).min(LONGEST_MS);
        self.attempts = self.attempts.saturating_add(1);
        let jittered = rand::rng().random_range(ceiling / 2..=ceiling);
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
}
