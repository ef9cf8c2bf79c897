//! What a run knows of itself, published by its loop about once a second and read by the admin server.
//!
//! One writer, readers that only look: a `watch` channel, so that a slow reader can hold up nothing.
//! Nothing in here comes from a row.

use std::time::Duration;

use tokio::time::Instant;

use crate::bulk::obstacle::Cause;
use crate::elasticsearch::breaker::Circuit;
use crate::lsn::Lsn;
use crate::pipeline::Counters;

/// Work that is pending and does not move for so long, with nothing known to wait for, is stuck; a loop that
/// says nothing for so long is, too.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Where the run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Connects and checks.
    Starting,
    /// Another waldex has the slot.
    WaitingForSlot,
    /// A table was changed: everything is planned again.
    Planning,
    /// Copies the rows that were there before.
    Backfilling,
    /// Streams, and is not yet where the source was when the stream began.
    CatchingUp,
    /// Streams what is committed now.
    Live,
    /// The cluster does not take what it is sent; the reason stands beside.
    Backpressure,
    /// Postgres is out of reach.
    Reconnecting,
    /// Work is pending and nothing moves.
    Stuck,
}

/// All of them, in the order of a life.
pub const STATES: [State; 9] = [
    State::Starting,
    State::WaitingForSlot,
    State::Planning,
    State::Backfilling,
    State::CatchingUp,
    State::Live,
    State::Backpressure,
    State::Reconnecting,
    State::Stuck,
];

impl State {
    /// As the log, `/status` and the metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::WaitingForSlot => "waiting_for_slot",
            Self::Planning => "planning",
            Self::Backfilling => "backfilling",
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::Backpressure => "backpressure",
            Self::Reconnecting => "reconnecting",
            Self::Stuck => "stuck",
        }
    }

    /// Whether the run waits for something outside, for as long as that takes.
    fn waits_outside(self) -> bool {
        match self {
            Self::Starting
            | Self::WaitingForSlot
            | Self::Planning
            | Self::Backpressure
            | Self::Reconnecting => true,
            Self::Backfilling | Self::CatchingUp | Self::Live | Self::Stuck => false,
        }
    }
}

/// How the source fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceVitals {
    /// Bytes of WAL that the slot keeps.
    pub retained_wal_bytes: Option<i64>,
    /// Bytes that may still be written before the slot is lost; none without a limit.
    pub safe_wal_bytes: Option<i64>,
    /// Before whose end the kept WAL cannot go.
    pub oldest_transaction: Option<OldTransaction>,
}

/// A transaction that has been open for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldTransaction {
    /// `process 4711`, or the prepared transaction's name.
    pub who: String,
    /// Since it began; none where our role may not see that.
    pub seconds: Option<i64>,
}

/// One look at the run.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// Where it stands.
    pub state: State,
    /// What kind of obstacle it is that the cluster does not take what it is sent, while that is so.
    pub cause: Option<Cause>,
    /// Why the cluster does not take what it is sent, while that is so.
    pub reason: Option<String>,
    /// When this was published.
    pub at: Instant,
    /// Counted since the start of the process.
    pub counters: Counters,
    /// Times the stream of changes broke off.
    pub reconnects: u64,
    /// Bytes between decode and confirmation.
    pub bytes_in_flight: usize,
    /// Requests that are not answered.
    pub requests_in_flight: usize,
    /// Up to where the stream was received.
    pub received: Lsn,
    /// Up to where everything is confirmed by the cluster.
    pub durable: Lsn,
    /// Up to where Postgres was told.
    pub confirmed: Lsn,
    /// Refused documents whose dead letter is open.
    pub dead_letters: usize,
    /// Whether requests pause because most of them fail.
    pub circuit: Circuit,
    /// Age of the newest confirmed commit while anything is behind it, in seconds; 0 when nothing is.
    pub lag_seconds: u64,
    /// How the source fares, as of the last look.
    pub source: SourceVitals,
}

impl Vitals {
    /// Of a run that begins.
    pub fn new() -> Self {
        Self {
            state: State::Starting,
            cause: None,
            reason: None,
            at: Instant::now(),
            counters: Counters::default(),
            reconnects: 0,
            bytes_in_flight: 0,
            requests_in_flight: 0,
            received: Lsn::ZERO,
            durable: Lsn::ZERO,
            confirmed: Lsn::ZERO,
            dead_letters: 0,
            circuit: Circuit::Closed,
            lag_seconds: 0,
            source: SourceVitals::default(),
        }
    }

    /// Bytes of WAL received and not confirmed.
    pub fn lag_bytes(&self) -> u64 {
        self.received.bytes_since(self.confirmed)
    }

    /// Why the process is of no use any more, if it is not: its loop says nothing, or nothing moves.
    pub fn trouble(&self, now: Instant) -> Option<&'static str> {
        let is_silent = now.duration_since(self.at) >= STUCK_AFTER;
        match self.state {
            State::Stuck => Some("work is pending and nothing moves"),
            state if is_silent && !state.waits_outside() => Some("the run says nothing any more"),
            State::Starting
            | State::WaitingForSlot
            | State::Planning
            | State::Backfilling
            | State::CatchingUp
            | State::Live
            | State::Backpressure
            | State::Reconnecting => None,
        }
    }
}

impl Default for Vitals {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether pending work moves, by looking at it again and again.
#[derive(Debug)]
pub(crate) struct Movement {
    seen: (u64, u64, Lsn, Lsn),
    moved_at: Instant,
}

impl Movement {
    pub(crate) fn new() -> Self {
        Self { seen: (0, 0, Lsn::ZERO, Lsn::ZERO), moved_at: Instant::now() }
    }

    /// Notes what there is; whether it has stood still for too long.
    pub(crate) fn is_stuck(
        &mut self,
        counters: &Counters,
        received: Lsn,
        durable: Lsn,
        is_idle: bool,
        now: Instant,
        patience: Duration,
    ) -> bool {
        let decided = counters.applied + counters.superseded + counters.dead_lettered;
        let seen = (counters.rows, decided, received, durable);
        if seen != self.seen || is_idle {
            (self.seen, self.moved_at) = (seen, now);
        }
        now.duration_since(self.moved_at) >= STUCK_AFTER.max(patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_work_that_stands_still_is_stuck_and_idleness_is_not() {
        let start = Instant::now();
        let mut movement = Movement::new();
        let counters = Counters { rows: 5, ..Counters::default() };
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (received, durable) = (Lsn::new(9), Lsn::new(5));
        let mut look = |counters: &Counters, is_idle, seconds| {
            movement.is_stuck(counters, received, durable, is_idle, at(seconds), Duration::ZERO)
        };
        assert!(!look(&counters, false, 0));
        assert!(!look(&counters, false, 59));
        assert!(look(&counters, false, 60));
        let moved = Counters { applied: 1, ..counters };
        assert!(!look(&moved, false, 61));
        assert!(!look(&moved, true, 500));
        assert!(!look(&moved, false, 559) && look(&moved, false, 560));
    }

    #[test]
    fn a_loop_that_says_nothing_is_in_trouble_unless_it_waits() {
        let vitals = |state| Vitals { state, ..Vitals::new() };
        let later = Instant::now() + STUCK_AFTER * 2;
        assert!(vitals(State::Live).trouble(later).is_some());
        assert!(vitals(State::Live).trouble(Instant::now()).is_none());
        assert!(vitals(State::Reconnecting).trouble(later).is_none());
        assert!(vitals(State::WaitingForSlot).trouble(later).is_none());
        assert!(vitals(State::Stuck).trouble(Instant::now()).is_some());
    }
}
