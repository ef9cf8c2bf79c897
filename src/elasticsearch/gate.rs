//! What all senders of bulks share: who may send now, and how much.
//!
//! The lease, the circuit breaker and the throttle decide; the lock is held for a few instructions and never
//! over an await. The lease is renewed past all of this, so whoever waits for it here is never waited for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::breaker::{Admission, Breaker, Change, Circuit};
use super::lease::{Failure, Right};
use super::sender::bulk_timeout;
use super::unanswered::Unanswered;
use crate::bulk::batch::Batch;
use crate::bulk::obstacle::Cause;
use crate::bulk::throttle::Throttle;
use crate::settings::ElasticsearchSettings;

/// Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
    right: Right,
}

/// Why nobody enters.
#[derive(Clone, Debug)]
pub enum Hold {
    /// The breaker, for so long.
    Breaker(Duration),
    /// The server asked for a pause of so long.
    Asked(Duration),
    /// The lease is not renewed.
    Lease(Failure),
}

struct Shared {
    state: Mutex<State>,
    /// A request ended, or the breaker changed.
    changed: Notify,
}

struct State {
    breaker: Breaker,
    throttle: Throttle,
    in_flight: usize,
    /// The server asked for a pause (`Retry-After`).
    paused_until: Option<Instant>,
    unanswered: Unanswered,
    /// How long the server may usually go on with a request.
    bulk_timeout: Duration,
}

impl Hold {
    /// What stands in the way, the same in words, and for how long if that is known.
    pub fn told(self) -> (Cause, String, Duration) {
        match self {
            Self::Breaker(pause) => {
                (Cause::Unreachable, "the circuit breaker is open".to_owned(), pause)
            }
            Self::Asked(pause) => (Cause::Overload, "it asked for a pause".to_owned(), pause),
            Self::Lease((cause, reason)) => (cause, reason, Duration::ZERO),
        }
    }
}

/// The right to send one request. Whoever drops it without a report may have sent something.
pub struct Pass {
    gate: Gate,
    is_probe: bool,
    is_reported: bool,
    /// Documents in the request, at most.
    pub items_max: usize,
    /// Bytes in the request, at most.
    pub bytes_max: usize,
}

enum Entry {
    Go(Pass),
    /// Not before, and why.
    At(Instant, fn(Duration) -> Hold),
    Later,
}

impl Gate {
    /// An open gate with the configured limits, for whoever has the `right` to write.
    pub fn new(settings: &ElasticsearchSettings, right: Right) -> Self {
        let state = State {
            breaker: Breaker::new(settings.circuit_breaker, Instant::now()),
            throttle: Throttle::new(settings.bulk_size, settings.concurrency),
            in_flight: 0,
            paused_until: None,
            unanswered: Unanswered::default(),
            bulk_timeout: bulk_timeout(settings.request_timeout),
        };
        let shared = Shared { state: Mutex::new(state), changed: Notify::new() };
        Self { shared: Arc::new(shared), right }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request may be sent; for ever if another has the lease. `waits` is told of each pause of
    /// the breaker, and why the lease is not renewed.
    pub async fn enter(&self, mut waits: impl FnMut(Hold)) -> Pass {
        loop {
            let held = self.right.held(|failure| waits(Hold::Lease(failure.clone()))).await;
            if held.is_err() {
                return std::future::pending().await;
            }
            let mut pass = self.pass(&mut waits).await;
            // It may have taken long.
            if self.right.holds() {
                return pass;
            }
            pass.is_reported = true;
            pass.leave_untold(false);
        }
    }

    /// Waits for the breaker and the throttle.
    async fn pass(&self, mut waits: impl FnMut(Hold)) -> Pass {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            match self.try_enter() {
                Entry::Go(pass) => return pass,
                Entry::Later => changed.await,
                Entry::At(at, hold) => {
                    waits(hold(at.saturating_duration_since(Instant::now())));
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at.into()) => {}
                    }
                }
            }
        }
    }

    fn try_enter(&self) -> Entry {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(until) = state.paused_until.filter(|until| *until > now) {
            return Entry::At(until, Hold::Asked);
        }
        if state.in_flight >= state.throttle.requests() {
            return Entry::Later;
        }
        let is_probe = match state.breaker.admit(now) {
            Admission::Go => false,
            Admission::Probe => true,
            Admission::At(until) => return Entry::At(until, Hold::Breaker),
            Admission::AfterProbe => return Entry::Later,
        };
        state.in_flight += 1;
        let (items_max, bytes_max) = (state.throttle.items(), state.throttle.bytes());
        drop(state);
        if is_probe {
            info!("circuit breaker half-open: one request probes");
        }
        Entry::Go(Pass { gate: self.clone(), is_probe, is_reported: false, items_max, bytes_max })
    }

    /// Where the breaker stands.
    pub fn circuit(&self) -> Circuit {
        self.state().breaker.circuit()
    }

    /// Whether every request was answered, or is surely over.
    pub fn is_quiet(&self) -> bool {
        let mut state = self.state();
        state.in_flight == 0 && state.unanswered.is_over(Instant::now())
    }

    /// No request before this time has passed.
    pub fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.state();
        state.paused_until = state.paused_until.max(Some(until));
    }

    /// The server takes no request of so many bytes.
    pub fn too_large(&self, bytes: usize) {
        let mut state = self.state();
        state.throttle.too_large(bytes);
        let bytes_max = state.throttle.bytes();
        drop(state);
        warn!(bytes, bytes_max, "the cluster takes no bulk of this size: sending smaller ones");
    }

    /// The first `items` of `batch` were not answered; the server gives up on them within `timeout`.
    pub fn was_unanswered(&self, batch: &Batch, items: usize, timeout: Duration) {
        let now = Instant::now();
        self.state().unanswered.add(batch, items, now, now + timeout);
    }

    /// A process before this one did not end in good order. What it sent, of no higher version than this, the
    /// server may carry out for so long.
    pub fn inherit(&self, version_max: i64, timeout: Duration) {
        self.state().unanswered.inherit(version_max, Instant::now() + timeout);
    }

    /// Until when `batch` must not be sent, see [`Unanswered`].
    pub fn holds(&self, batch: &Batch) -> Option<Instant> {
        self.state().unanswered.holds(batch, Instant::now())
    }

    /// Until when nothing of this version must be sent that may touch any document.
    pub fn holds_version(&self, version: i64) -> Option<Instant> {
        self.state().unanswered.holds_version(version, Instant::now())
    }

    fn leave(&self, report: impl FnOnce(&mut State, Instant) -> Change) {
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        let change = report(&mut state, Instant::now());
        drop(state);
        match change {
            Change::None => {}
            Change::Opened => {
                warn!("circuit breaker open: the cluster does not answer, requests pause")
            }
            Change::Closed => info!("circuit breaker closed: the cluster answers"),
        }
        self.shared.changed.notify_waiters();
    }
}

impl Pass {
    fn leave_untold(&self, may_be_sent: bool) {
        self.gate.leave(|state, now| {
            if self.is_probe {
                state.breaker.probe_given_up(now);
            }
            if may_be_sent {
                state.unanswered.add_anything(now + state.bulk_timeout);
            }
            Change::None
        });
    }

    /// The cluster took all that was sent.
    pub fn accepted(mut self, items: usize) {
        self.is_reported = true;
        let is_probe = self.is_probe;
        self.gate.leave(|state, now| {
            state.throttle.accepted(items);
            state.breaker.succeeded(now, is_probe)
        });
    }

    /// The cluster works, and has too much to do for some of what was sent.
    pub fn throttled(mut self, items: usize) {
        self.is_reported = true;
        let is_probe = self.is_probe;
        self.gate.leave(|state, now| {
            state.throttle.overloaded(items);
            state.breaker.succeeded(now, is_probe)
        });
    }

    /// The cluster works, and says nothing of its load.
    pub fn answered(mut self) {
        self.is_reported = true;
        let is_probe = self.is_probe;
        self.gate.leave(|state, now| state.breaker.succeeded(now, is_probe));
    }

    /// The cluster turned the whole request away for its load.
    pub fn turned_away(mut self, items: usize) {
        self.is_reported = true;
        let is_probe = self.is_probe;
        self.gate.leave(|state, now| {
            state.throttle.overloaded(items);
            state.breaker.failed(now, is_probe)
        });
    }

    /// No useful answer. One that does not `count` only decides a probe: another node may do better.
    pub fn failed(mut self, counts: bool) {
        self.is_reported = true;
        let is_probe = self.is_probe;
        self.gate.leave(|state, now| {
            if counts || is_probe { state.breaker.failed(now, is_probe) } else { Change::None }
        });
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.is_reported {
            self.leave_untold(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elasticsearch::lease::{Moment, Term};
    use crate::settings::CircuitBreakerSettings;

    fn gate(concurrency: usize) -> Gate {
        let breaker = CircuitBreakerSettings {
            min_requests: 3,
            failure_ratio: 0.6,
            interval: Duration::from_secs(60),
            open_for: Duration::from_secs(3600),
        };
        let state = State {
            breaker: Breaker::new(breaker, Instant::now()),
            throttle: Throttle::new(16, concurrency),
            in_flight: 0,
            paused_until: None,
            unanswered: Unanswered::default(),
            bulk_timeout: Duration::from_secs(15),
        };
        let shared = Shared { state: Mutex::new(state), changed: Notify::new() };
        Gate { shared: Arc::new(shared), right: Right::unfenced() }
    }

    fn now_or_never(gate: &Gate) -> Option<Pass> {
        use futures_util::FutureExt;
        gate.enter(|_| ()).now_or_never()
    }

    #[tokio::test]
    async fn an_overloaded_cluster_gets_fewer_requests_at_a_time() {
        let gate = gate(2);
        let (first, second) = (now_or_never(&gate).unwrap(), now_or_never(&gate).unwrap());
        assert!(now_or_never(&gate).is_none(), "two are in flight");
        first.throttled(16);
        assert!(now_or_never(&gate).is_none(), "one is in flight, and one is the most now");
        drop(second);
        let third = now_or_never(&gate).unwrap();
        third.accepted(16);
        let _fourth = now_or_never(&gate).unwrap();
        assert!(now_or_never(&gate).is_some(), "two are allowed again");
    }

    #[tokio::test]
    async fn an_open_circuit_lets_nothing_pass() {
        let gate = gate(2);
        for _ in 0..3 {
            assert_eq!(gate.circuit(), Circuit::Closed);
            now_or_never(&gate).unwrap().failed(true);
        }
        assert!(gate.circuit() == Circuit::Open && now_or_never(&gate).is_none());
    }

    #[tokio::test]
    async fn nobody_enters_without_the_lease() {
        let right = Right::new(Term::of(Duration::from_secs(1)));
        let gate = Gate { right: right.clone(), ..gate(1) };
        assert!(now_or_never(&gate).is_none(), "not had yet");
        right.renewed(Moment::now());
        let pass = now_or_never(&gate).unwrap();
        assert!(!gate.is_quiet());
        pass.answered();
        assert!(gate.is_quiet());
        right.renewed(Moment::default());
        assert!(now_or_never(&gate).is_none(), "run out");
        right.lose(None);
        right.renewed(Moment::now());
        assert!(now_or_never(&gate).is_none(), "lost");
    }

    /// The probe that a lapsed lease held back is given to whoever comes next.
    #[tokio::test]
    async fn a_probe_is_not_lost_with_the_lease() {
        let right = Right::new(Term::of(Duration::from_secs(1)));
        let gate = Gate { right: right.clone(), ..gate(1) };
        right.renewed(Moment::now());
        for _ in 0..3 {
            now_or_never(&gate).unwrap().failed(true);
        }
        gate.state().breaker.probe_at(Instant::now());
        right.renewed(Moment::default());
        assert!(now_or_never(&gate).is_none());
        right.renewed(Moment::now());
        now_or_never(&gate).unwrap().accepted(1);
        assert_eq!(gate.circuit(), Circuit::Closed);
    }

    #[tokio::test]
    async fn a_request_given_up_may_have_been_sent() {
        let gate = gate(1);
        for _ in 0..10 {
            drop(now_or_never(&gate).unwrap());
        }
        assert_eq!(gate.circuit(), Circuit::Closed);
        assert!(!gate.is_quiet() && gate.holds_version(1).is_some());
    }
}
