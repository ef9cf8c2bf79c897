//! The circuit breaker: when most requests fail, they pause, and one at a time probes.
//!
//! Pure: time is handed in. A failure is a request without a useful answer: no connection, no answer, 5xx,
//! or 429 as a whole. Errors of single items, refused credentials and the like come from a cluster that
//! works, and do not count.

use std::time::Instant;

use crate::settings::CircuitBreakerSettings;

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Go,
    /// Yes, and it decides for all.
    Probe,
    /// Not before this moment.
    At(Instant),
    /// Not before the probe under way is decided.
    AfterProbe,
}

/// Where the breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Requests pass.
    Closed,
    /// None does, for some time.
    Open,
    /// One is under way, and decides.
    HalfOpen,
}

impl Circuit {
    /// As `/status` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What a request's end changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Too many failed: no request for some time.
    Opened,
    /// The probe succeeded.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Counting, since the start of the interval.
    Closed {
        since: Instant,
        requests: u32,
        failures: u32,
    },
    Open {
        until: Instant,
    },
    Probing,
}

/// One for all lanes.
#[derive(Debug)]
pub struct Breaker {
    settings: CircuitBreakerSettings,
    state: State,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: CircuitBreakerSettings, now: Instant) -> Self {
        Self { settings, state: closed(now) }
    }

    /// Where it stands.
    pub fn circuit(&self) -> Circuit {
        match self.state {
            State::Closed { .. } => Circuit::Closed,
            State::Open { .. } => Circuit::Open,
            State::Probing => Circuit::HalfOpen,
        }
    }

    /// Asks to send one request. Whoever gets [`Admission::Probe`] must report how it ended.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Go,
            State::Open { until } if now < until => Admission::At(until),
            State::Open { .. } => {
                self.state = State::Probing;
                Admission::Probe
            }
            State::Probing => Admission::AfterProbe,
        }
    }

    /// A request was answered.
    pub fn succeeded(&mut self, now: Instant, was_probe: bool) -> Change {
        match self.state {
            State::Closed { .. } => {
                self.count(now, 0);
                Change::None
            }
            State::Open { .. } | State::Probing if was_probe => {
                self.state = closed(now);
                Change::Closed
            }
            // Sent before it opened; the probe decides.
            State::Open { .. } | State::Probing => Change::None,
        }
    }

    /// A request failed.
    pub fn failed(&mut self, now: Instant, was_probe: bool) -> Change {
        let opens = match self.state {
            State::Closed { .. } => self.count(now, 1),
            State::Open { .. } | State::Probing => was_probe,
        };
        if !opens {
            return Change::None;
        }
        self.state = State::Open { until: now + self.settings.open_for };
        Change::Opened
    }

    /// Open, with the next probe from `until` on.
    #[cfg(test)]
    pub(super) fn probe_at(&mut self, until: Instant) {
        self.state = State::Open { until };
    }

    /// A probe ended without telling anything.
    pub fn probe_given_up(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.state = State::Open { until: now };
        }
    }

    /// Counts a request; whether too many of the interval's have failed.
    fn count(&mut self, now: Instant, failed: u32) -> bool {
        let State::Closed { since, requests, failures } = self.state else { return false };
        let is_over = now.saturating_duration_since(since) >= self.settings.interval;
        let (since, requests, failures) =
            if is_over { (now, 1, failed) } else { (since, requests + 1, failures + failed) };
        self.state = State::Closed { since, requests, failures };
        failed > 0
            && requests >= self.settings.min_requests
            && f64::from(failures) >= self.settings.failure_ratio * f64::from(requests)
    }
}

fn closed(now: Instant) -> State {
    State::Closed { since: now, requests: 0, failures: 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> (Breaker, Instant) {
        let settings = CircuitBreakerSettings {
            min_requests: 3,
            failure_ratio: 0.6,
            interval: 60 * SECOND,
            open_for: 30 * SECOND,
        };
        let now = Instant::now();
        (Breaker::new(settings, now), now)
    }

    #[test]
    fn opens_when_most_requests_of_an_interval_fail() {
        let (mut breaker, now) = breaker();
        assert_eq!(breaker.failed(now, false), Change::None);
        assert_eq!(breaker.failed(now, false), Change::None);
        assert_eq!(breaker.admit(now), Admission::Go);
        assert_eq!(breaker.failed(now, false), Change::Opened);
        assert_eq!(breaker.admit(now), Admission::At(now + 30 * SECOND));
    }

    #[test]
    fn stays_closed_while_enough_succeed() {
        let (mut breaker, now) = breaker();
        for _ in 0..50 {
            assert_eq!(breaker.succeeded(now, false), Change::None);
            assert_eq!(breaker.failed(now, false), Change::None);
        }
    }

    #[test]
    fn failures_of_an_earlier_interval_are_forgotten() {
        let (mut breaker, now) = breaker();
        breaker.failed(now, false);
        breaker.failed(now, false);
        let later = now + 60 * SECOND;
        assert_eq!(breaker.failed(later, false), Change::None);
        assert_eq!(breaker.failed(later, false), Change::None);
        assert_eq!(breaker.failed(later, false), Change::Opened);
    }

    #[test]
    fn one_probe_decides() {
        let (mut breaker, now) = breaker();
        for _ in 0..3 {
            breaker.failed(now, false);
        }
        let later = now + 30 * SECOND;
        assert_eq!(breaker.circuit(), Circuit::Open);
        assert_eq!(breaker.admit(later), Admission::Probe);
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        assert_eq!(breaker.admit(later), Admission::AfterProbe);
        // A request from before it opened says nothing.
        assert_eq!(breaker.succeeded(later, false), Change::None);
        assert_eq!(breaker.failed(later, true), Change::Opened);
        assert_eq!(breaker.admit(later), Admission::At(later + 30 * SECOND));
        assert_eq!(breaker.admit(later + 30 * SECOND), Admission::Probe);
        assert_eq!(breaker.succeeded(later + 31 * SECOND, true), Change::Closed);
        assert_eq!(breaker.admit(later + 31 * SECOND), Admission::Go);
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }

    #[test]
    fn a_probe_that_tells_nothing_makes_room_for_another() {
        let (mut breaker, now) = breaker();
        for _ in 0..3 {
            breaker.failed(now, false);
        }
        let later = now + 30 * SECOND;
        assert_eq!(breaker.admit(later), Admission::Probe);
        breaker.probe_given_up(later);
        assert_eq!(breaker.admit(later), Admission::Probe);
    }
}
