//! Lanes: requests in flight. A document always travels on the same lane, a lane has at most one request
//! in flight, and its batches leave in order; so one document's writes never overtake each other.

use std::collections::VecDeque;

use super::Tick;
use crate::bulk::answer::Action;
use crate::bulk::batch::{Batch, Printed, Receipt, Sequence};
use crate::bulk::open::OpenBatch;

/// Which lane; `0..concurrency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(pub usize);

/// The limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Documents, at most.
    pub documents_max: usize,
    /// Bytes of body, at most; one larger document travels alone.
    pub bytes_max: usize,
    /// Time between two requests of a lane that is not full, in milliseconds, so that single-row commits
    /// share a request. A lane that was idle for so long sends at once.
    pub pace_ms: u64,
}

/// One write, ready for the body.
pub(super) struct Write<'a> {
    pub(super) action: Action,
    pub(super) key: &'a [u8],
    pub(super) hash: u64,
    pub(super) version: i64,
    pub(super) document: &'a [u8],
}

struct InFlight {
    first: Sequence,
    bytes: usize,
}

pub(super) struct Lane {
    open: Option<OpenBatch>,
    /// Batches that are full and wait for the one in flight; the pipeline's budget bounds them.
    full: VecDeque<(Batch, usize)>,
    in_flight: Option<InFlight>,
    sent_at: Option<Tick>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self { open: None, full: VecDeque::new(), in_flight: None, sent_at: None }
    }

    pub(super) fn push(&mut self, sequence: Sequence, write: &Write<'_>, limits: BatchLimits) {
        let cost = OpenBatch::cost(write.key, write.document);
        let is_full = self.open.as_ref().is_some_and(|open| {
            open.documents() >= limits.documents_max || open.body_bytes() + cost > limits.bytes_max
        });
        if is_full {
            self.seal_open();
        }
        let open = self.open.get_or_insert_with(|| OpenBatch::new(sequence));
        open.push(write.action, write.key, write.hash, write.version, write.document);
    }

    fn seal_open(&mut self) {
        if let Some(open) = self.open.take() {
            let bytes = open.bytes();
            self.full.push_back((open.seal(), bytes));
        }
    }

    /// The next batch to send, if the lane is free and it is time. `drain` ends all waiting.
    pub(super) fn take(&mut self, now: Tick, limits: BatchLimits, drain: bool) -> Option<Batch> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.full.is_empty() {
            let open = self.open.as_ref()?;
            let is_full = open.documents() >= limits.documents_max;
            if !is_full && !drain && self.due(limits).is_some_and(|due| now < due) {
                return None;
            }
            self.seal_open();
        }
        let (batch, bytes) = self.full.pop_front()?;
        self.in_flight = Some(InFlight { first: batch.first(), bytes });
        self.sent_at = Some(now);
        Some(batch)
    }

    fn due(&self, limits: BatchLimits) -> Option<Tick> {
        self.sent_at.map(|sent_at| sent_at.plus_ms(limits.pace_ms))
    }

    /// When to call [`Lane::take`] again if nothing else happens.
    pub(super) fn deadline(&self, limits: BatchLimits) -> Option<Tick> {
        if self.in_flight.is_none() && self.open.is_some() { self.due(limits) } else { None }
    }

    pub(super) fn finish(&mut self, receipt: &Receipt) {
        self.release(receipt.first());
    }

    pub(super) fn discard(&mut self, printed: &Printed) {
        self.release(printed.first());
    }

    fn release(&mut self, first: Sequence) {
        let in_flight = self.in_flight.take();
        assert_eq!(
            in_flight.map(|batch| batch.first),
            Some(first),
            "the receipt is of this lane's batch"
        );
    }

    /// Number of the oldest write that is not confirmed.
    pub(super) fn unconfirmed(&self) -> Option<Sequence> {
        let in_flight = self.in_flight.as_ref().map(|batch| batch.first);
        let full = || self.full.front().map(|(batch, _)| batch.first());
        let open = || self.open.as_ref().map(OpenBatch::first);
        in_flight.or_else(full).or_else(open)
    }

    pub(super) fn bytes(&self) -> usize {
        let full: usize = self.full.iter().map(|(_, bytes)| bytes).sum();
        full + self.open.as_ref().map_or(0, OpenBatch::bytes)
            + self.in_flight.as_ref().map_or(0, |batch| batch.bytes)
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }
}
