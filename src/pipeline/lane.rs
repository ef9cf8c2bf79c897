//! Lanes: requests in flight. A document always travels on the same lane, a lane has at most one request
//! in flight, and its batches leave in order; so one document's writes never overtake each other.

use std::collections::VecDeque;

use super::Tick;
use crate::bulk::batch::{Batch, Parked, Printed, Receipt, Sequence};
use crate::bulk::open::OpenBatch;
use crate::bulk::write::Write;

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

struct InFlight {
    first: Sequence,
    bytes: usize,
}

pub(super) struct Lane {
    open: Option<OpenBatch>,
    /// Batches that are full and wait for the one in flight; the pipeline's budget bounds them.
    full: VecDeque<(Batch, usize)>,
    in_flight: Option<InFlight>,
    /// What waits for its index and lets the lane go on; the budget bounds it.
    parked: Vec<InFlight>,
    sent_at: Option<Tick>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            open: None,
            full: VecDeque::new(),
            in_flight: None,
            parked: Vec::new(),
            sent_at: None,
        }
    }

    pub(super) fn push(&mut self, sequence: Sequence, write: &Write<'_>, limits: BatchLimits) {
        let cost = OpenBatch::cost(write);
        let is_full = self.open.as_ref().is_some_and(|open| {
            open.documents() >= limits.documents_max || open.body_bytes() + cost > limits.bytes_max
        });
        if is_full {
            self.seal_open();
        }
        let open = self.open.get_or_insert_with(|| OpenBatch::new(sequence));
        open.push(write);
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

    /// What is left of a batch waits apart: the lane is free.
    pub(super) fn park(&mut self, parked: Parked) {
        let (first, bytes) = (parked.first(), parked.bytes());
        if let Some(known) = self.parked.iter_mut().find(|known| known.first == first) {
            known.bytes = bytes;
            return;
        }
        self.in_flight.take_if(|batch| batch.first == first);
        self.parked.push(InFlight { first, bytes });
    }

    fn release(&mut self, first: Sequence) {
        let parked = self.parked.iter().position(|batch| batch.first == first);
        let found = match parked {
            Some(parked) => Some(self.parked.swap_remove(parked)),
            None => self.in_flight.take_if(|batch| batch.first == first),
        };
        assert!(found.is_some(), "the receipt is of this lane's batch");
    }

    /// Number of the oldest write that is not confirmed.
    pub(super) fn unconfirmed(&self) -> Option<Sequence> {
        let in_flight = self.in_flight.as_ref().map(|batch| batch.first);
        let full = || self.full.front().map(|(batch, _)| batch.first());
        let open = || self.open.as_ref().map(OpenBatch::first);
        let unparked = in_flight.or_else(full).or_else(open);
        let parked = self.parked.iter().map(|batch| batch.first).min();
        parked.into_iter().chain(unparked).min()
    }

    pub(super) fn bytes(&self) -> usize {
        let full: usize = self.full.iter().map(|(_, bytes)| bytes).sum();
        full + self.open.as_ref().map_or(0, OpenBatch::bytes)
            + self.in_flight.iter().chain(&self.parked).map(|batch| batch.bytes).sum::<usize>()
    }

    pub(super) fn requests(&self) -> usize {
        usize::from(self.in_flight.is_some()) + self.parked.len()
    }

    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::settle::Settled;

    const LIMITS: BatchLimits = BatchLimits { documents_max: 10, bytes_max: 10_000, pace_ms: 0 };
    const GONE: &[u8] = br#"{"items":[{"delete":{"status":404}}]}"#;

    fn push(lane: &mut Lane, sequence: Sequence, index: &str) {
        let name = format!(r#""_index":"{index}","_id":"{sequence}""#);
        lane.push(sequence, &Write::delete(name.as_bytes(), 1), LIMITS);
    }

    fn done(batch: Batch) -> Receipt {
        let Ok(Settled::Done(receipt)) = batch.settle(GONE) else { panic!() };
        receipt
    }

    #[test]
    fn what_is_parked_frees_the_lane_and_holds_the_frontier() {
        let mut lane = Lane::new();
        push(&mut lane, 3, "red");
        let red = lane.take(Tick(0), LIMITS, false).unwrap();
        let held = lane.bytes();
        lane.park(red.parked());
        assert!(lane.bytes() <= held && lane.has_parked());
        push(&mut lane, 4, "green");
        let green = lane.take(Tick(1), LIMITS, false).unwrap();
        assert_eq!((lane.requests(), lane.unconfirmed()), (2, Some(3)));
        lane.finish(&done(green));
        assert_eq!((lane.requests(), lane.unconfirmed()), (1, Some(3)));
        lane.park(red.parked());
        assert_eq!(lane.requests(), 1, "parked again, it is still one");
        lane.finish(&done(red));
        assert_eq!((lane.unconfirmed(), lane.bytes()), (None, 0));
    }

    #[test]
    #[should_panic(expected = "of this lane's batch")]
    fn a_receipt_of_another_batch_is_refused() {
        let mut lane = Lane::new();
        push(&mut lane, 3, "a");
        let batch = lane.take(Tick(0), LIMITS, false).unwrap();
        lane.finish(&done(batch));
        push(&mut lane, 4, "a");
        push(&mut lane, 5, "a");
        let mut other = Lane::new();
        push(&mut other, 9, "a");
        let _in_flight = lane.take(Tick(1), LIMITS, false).unwrap();
        lane.finish(&done(other.take(Tick(0), LIMITS, false).unwrap()));
    }
}
