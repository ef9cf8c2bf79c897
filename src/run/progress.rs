//! What the log says while waldex runs: one line every ten seconds, and one for each change of state. The same
//! goes to the admin server as [`Vitals`].

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::seconds_since;
use super::source_watch::warn_of;
use super::vitals::{Movement, SourceVitals, State, Vitals};
use crate::bulk::obstacle::Cause;
use crate::elasticsearch::dead_letter::DeadLetters;
use crate::elasticsearch::writer::{Buried, Event, Waiting, Writer};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::pipeline::{Counters, LaneId, Pipeline};

const INTERVAL: Duration = Duration::from_secs(10);
/// Until an answer that did not come in time is told.
const ANSWER_MARGIN: Duration = Duration::from_secs(10);
/// Between two warnings of the source.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Remembers what was last said.
pub(crate) struct Progress {
    said_at: Instant,
    rows_said: u64,
    /// Of the pipelines before the present one.
    before: Counters,
    waiting: Vec<(LaneId, Cause, String)>,
    /// Documents that were passed over since that was told last.
    buried: usize,
    buried_told_at: Option<Instant>,
    /// Knows the open dead letters and the circuit.
    writer: Option<Writer>,
    state: State,
    said_state: State,
    /// Where the source was when the stream began: reached, it is live.
    live_from: Lsn,
    movement: Movement,
    /// When the source was last warned of.
    warned_at: Option<Instant>,
    vitals: Vitals,
    publish: watch::Sender<Vitals>,
}

impl Progress {
    /// With the channel that the admin server reads.
    pub(crate) fn new() -> (Self, watch::Receiver<Vitals>) {
        let (publish, published) = watch::channel(Vitals::new());
        let progress = Self {
            said_at: Instant::now(),
            rows_said: 0,
            before: Counters::default(),
            waiting: Vec::new(),
            buried: 0,
            buried_told_at: None,
            writer: None,
            state: State::Starting,
            said_state: State::Starting,
            live_from: Lsn::ZERO,
            movement: Movement::new(),
            warned_at: None,
            vitals: Vitals::new(),
            publish,
        };
        (progress, published)
    }

    /// Another has the slot; told when that changes, and not with each look.
    pub(crate) fn waits_for_slot(&mut self, why: &Error) {
        let reason = why.to_string();
        if self.said_state == State::WaitingForSlot && self.vitals.reason.as_ref() == Some(&reason)
        {
            return;
        }
        let held = if let Error::Held { duration, .. } = why { Some(*duration) } else { None };
        let lease = held.map(tracing::field::debug);
        info!(reason, lease, remedy = why.remedy(), "waiting for the slot");
        self.state(State::WaitingForSlot);
        self.vitals.reason = Some(reason);
        self.publish();
    }

    /// The slot went to another.
    pub(crate) fn turn_ends(&mut self) {
        self.waiting.clear();
        self.before = self.vitals.counters;
        self.writer = None;
        self.vitals.requests_in_flight = 0;
        self.vitals.bytes_in_flight = 0;
    }

    /// What the lanes write with.
    pub(crate) fn watch(&mut self, writer: &Writer) {
        self.writer = Some(writer.clone());
    }

    /// A change of state is a line of its own.
    pub(crate) fn state(&mut self, state: State) {
        self.state = state;
        self.say_state(state);
    }

    /// A stream begins that will be live once it has come to `live_from`.
    pub(crate) fn streams(&mut self, live_from: Lsn) {
        self.live_from = live_from;
        self.state(State::CatchingUp);
    }

    /// The stream broke off.
    pub(crate) fn reconnects(&mut self) {
        self.vitals.reconnects += 1;
        self.state(State::Reconnecting);
    }

    fn say_state(&mut self, stuck_or_state: State) {
        let waits = stuck_or_state != State::Stuck && !self.waiting.is_empty();
        let shown = if waits { State::Backpressure } else { stuck_or_state };
        let worst = self.waiting.iter().max_by_key(|(_, cause, _)| *cause);
        let cause = worst.map(|(_, cause, _)| *cause);
        let reason = worst.map(|(_, _, reason)| reason.clone());
        if (shown, cause) != (self.said_state, self.vitals.cause) {
            let cause = cause.map(Cause::name);
            info!(state = shown.name(), before = self.said_state.name(), cause, reason, "state");
            self.said_state = shown;
        }
        self.vitals.state = shown;
        self.vitals.cause = cause;
        self.vitals.reason = reason;
        self.publish();
    }

    fn publish(&mut self) {
        self.vitals.at = Instant::now();
        if let Some(writer) = &self.writer {
            self.vitals.dead_letters = writer.letters().map_or(0, DeadLetters::count);
            self.vitals.circuit = writer.circuit();
        }
        self.publish.send_replace(self.vitals.clone());
    }

    /// Counters start again with each pipeline; what this one counted is kept.
    pub(crate) fn pipeline_ends(&mut self, pipeline: &Pipeline) {
        self.before = self.before.plus(pipeline.counters());
        self.vitals.counters = self.before;
    }

    pub(crate) fn lane_tells(&mut self, lane: LaneId, event: &Event) {
        match event {
            Event::Waiting(waiting) => self.lane_waits(lane, waiting),
            Event::Buried(buried) => self.buried(buried),
            Event::Removed => {}
        }
    }

    fn lane_waits(&mut self, lane: LaneId, waiting: &Waiting) {
        warn!(
            lane = lane.0,
            cause = waiting.cause.name(),
            reason = waiting.reason,
            attempts = waiting.attempts,
            pause_ms = u64::try_from(waiting.pause.as_millis()).unwrap_or(u64::MAX),
            "the cluster does not take a bulk, trying on"
        );
        self.waiting.retain(|(other, ..)| *other != lane);
        self.waiting.push((lane, waiting.cause, waiting.reason.clone()));
        self.say_state(self.state);
    }

    /// The first is told at once, those that follow at intervals: there may be thousands.
    fn buried(&mut self, buried: &Buried) {
        self.buried += buried.documents;
        if self.buried_told_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        warn!(
            documents = self.buried,
            open = buried.open,
            index = buried.index,
            reason = %buried.reason,
            "the cluster refuses documents: see `waldex dead-letters list`"
        );
        self.buried_told_at = Some(Instant::now());
        self.buried = 0;
    }

    pub(crate) fn lane_is_well(&mut self, lane: LaneId) {
        if self.waiting.is_empty() {
            return;
        }
        self.waiting.retain(|(waiting, ..)| *waiting != lane);
        self.say_state(self.state);
    }

    /// How the source fares; a source that comes to harm is warned of, once in a while.
    pub(crate) fn source(&mut self, source: SourceVitals) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) && warn_of(&source) {
            self.warned_at = Some(Instant::now());
        }
        self.vitals.source = source;
    }

    /// Something was done that no counter shows.
    pub(crate) fn moves(&mut self) {
        self.movement = Movement::new();
    }

    /// Takes the measure of the run, and says where things stand if it is time. Call it about once a second.
    pub(crate) fn tick(&mut self, pipeline: &Pipeline, confirmed: Lsn) {
        self.measure(pipeline, confirmed);
        let now = Instant::now();
        if self.state == State::CatchingUp && pipeline.durable().lsn() >= self.live_from {
            self.state = State::Live;
        }
        let vitals = &self.vitals;
        let is_idle = pipeline.is_drained() && pipeline.wants_frame();
        let (received, durable) = (vitals.received, vitals.durable);
        let patience = self.patience();
        let stands =
            self.movement.is_stuck(&vitals.counters, received, durable, is_idle, now, patience);
        let is_stuck = stands && self.waiting.is_empty();
        self.say_state(if is_stuck { State::Stuck } else { self.state });
        let elapsed = self.said_at.elapsed();
        if elapsed >= INTERVAL {
            self.say(elapsed);
        }
    }

    /// How long nothing may move because a request that is on its way may take so long.
    fn patience(&self) -> Duration {
        let writer = self.writer.as_ref().filter(|_| self.vitals.requests_in_flight > 0);
        writer.map_or(Duration::ZERO, |writer| writer.request_timeout() + ANSWER_MARGIN)
    }

    fn measure(&mut self, pipeline: &Pipeline, confirmed: Lsn) {
        let durable = pipeline.durable();
        let vitals = &mut self.vitals;
        vitals.counters = self.before.plus(pipeline.counters());
        vitals.bytes_in_flight = pipeline.bytes_in_flight();
        vitals.requests_in_flight = pipeline.requests_in_flight();
        vitals.received = pipeline.received();
        vitals.durable = durable.lsn();
        vitals.confirmed = confirmed;
        let is_behind = !pipeline.is_drained() || pipeline.in_transaction();
        let age = durable.commit_time_micros().filter(|_| is_behind).map(seconds_since);
        vitals.lag_seconds = age.unwrap_or(0);
    }

    fn say(&mut self, elapsed: Duration) {
        let Vitals { counters, .. } = self.vitals;
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        info!(
            state = self.said_state.name(),
            rows = counters.rows,
            rows_per_second = counters.rows.saturating_sub(self.rows_said) * 1000 / milliseconds,
            transactions = counters.transactions,
            applied = counters.applied,
            superseded = counters.superseded,
            dead_letters = self.vitals.dead_letters,
            reselected = counters.reselected,
            bytes_in_flight = self.vitals.bytes_in_flight,
            requests_in_flight = self.vitals.requests_in_flight,
            received = %self.vitals.received,
            confirmed = %self.vitals.confirmed,
            lag_bytes = self.vitals.lag_bytes(),
            lag_seconds = self.vitals.lag_seconds,
            "progress"
        );
        self.said_at = Instant::now();
        self.rows_said = counters.rows;
    }
}
