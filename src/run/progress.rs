//! What the log says while waldex runs: one line every ten seconds, and one for each change of state.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::elasticsearch::writer::Waiting;
use crate::lsn::Lsn;
use crate::pipeline::{LaneId, Pipeline};

const INTERVAL: Duration = Duration::from_secs(10);

/// Remembers what was last said.
pub(crate) struct Progress {
    said_at: Instant,
    rows: u64,
    applied: u64,
    waiting_lanes: Vec<LaneId>,
    state: &'static str,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            said_at: Instant::now(),
            rows: 0,
            applied: 0,
            waiting_lanes: Vec::new(),
            state: "starting",
        }
    }

    /// A change of state is a line of its own.
    pub(crate) fn state(&mut self, state: &'static str) {
        if self.state != state {
            info!(state, before = self.state, "state");
            self.state = state;
        }
    }

    /// Counters start again with each pipeline.
    pub(crate) fn new_pipeline(&mut self) {
        self.rows = 0;
        self.applied = 0;
    }

    pub(crate) fn lane_waits(&mut self, lane: LaneId, waiting: &Waiting) {
        warn!(
            lane = lane.0,
            reason = waiting.reason,
            attempts = waiting.attempts,
            pause_ms = u64::try_from(waiting.pause.as_millis()).unwrap_or(u64::MAX),
            "the cluster does not take a bulk, trying on"
        );
        if !self.waiting_lanes.contains(&lane) {
            self.waiting_lanes.push(lane);
        }
        self.state("backpressure");
    }

    pub(crate) fn lane_is_well(&mut self, lane: LaneId) {
        if self.waiting_lanes.is_empty() {
            return;
        }
        self.waiting_lanes.retain(|waiting| *waiting != lane);
        if self.waiting_lanes.is_empty() {
            self.state("streaming");
        }
    }

    /// Says where things stand, if it is time.
    pub(crate) fn tick(&mut self, pipeline: &Pipeline, confirmed: Lsn) {
        let elapsed = self.said_at.elapsed();
        if elapsed < INTERVAL {
            return;
        }
        let counters = pipeline.counters();
        let per_second = (counters.rows.saturating_sub(self.rows)) * 1000
            / u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        info!(
            state = self.state,
            rows = counters.rows,
            rows_per_second = per_second,
            transactions = counters.transactions,
            applied = counters.applied,
            superseded = counters.superseded,
            reselected = counters.reselected,
            bytes_in_flight = pipeline.bytes_in_flight(),
            requests_in_flight = pipeline.requests_in_flight(),
            received = %pipeline.received(),
            confirmed = %confirmed,
            lag_bytes = pipeline.received().bytes_since(confirmed),
            "progress"
        );
        self.said_at = Instant::now();
        self.rows = counters.rows;
        self.applied = counters.applied;
    }
}
