//! The pipeline: one plain state machine between the replication stream and the lanes.
//!
//! Frames go in, batches come out; receipts go in, a [`DurableLsn`] comes out. It never awaits, never
//! reads a clock (a [`Tick`] is handed in), never opens a socket. Some changes need the outside world
//! before they can be written; then the pipeline is stalled with a [`Work`] until the shell answers.
//!
//! Assumes that frames arrive in the order of one replication connection, protocol 1, `streaming` off:
//! whole transactions in commit order.

mod announced;
mod counters;
mod error;
mod frontier;
mod lane;
mod layout;
mod row;
mod target;
mod work;

pub use counters::Counters;
pub use error::PipelineError;
pub use frontier::DurableLsn;
pub use lane::{BatchLimits, LaneId};
pub use row::BinaryColumn;
pub use target::TablePlan;
pub use work::{Reselect, Truncate, Work};

use std::collections::BTreeSet;

use crate::bulk::batch::{Batch, Parked, Printed, Receipt, Sequence};
use crate::bulk::write::Write;
use crate::document::Field;
use crate::lsn::Lsn;
use crate::pgoutput::decode::decode;
use crate::pgoutput::envelope::Frame;
use crate::pgoutput::message::{Message, OldTuple};
use crate::pgoutput::relation::Relation;
use crate::pgoutput::tuple::Tuple;
use announced::Relations;
use frontier::Frontier;
use lane::Lane;
use row::Before;

/// Monotonic time in milliseconds since an arbitrary start, handed in by the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// `ms` milliseconds later.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// Versions are `epoch << 56 | commit LSN`; LSNs from here on (64 PiB of WAL) have no room.
const VERSION_LSN_END: u64 = 1 << 56;

/// Raised whenever LSNs stop being comparable with those already used as versions; 7 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(pub u8);

impl Epoch {
    /// The version of rows that were copied: below every change of the epoch.
    pub fn load_version(self) -> i64 {
        i64::from(self.0 & 0x7F) << 56
    }

    /// The version of everything in the transaction that committed at `commit_lsn`. Never a change's own
    /// LSN: a transaction open while the slot was made has changes below the snapshot it is absent from.
    pub fn version(self, commit_lsn: Lsn) -> Result<i64, PipelineError> {
        match i64::try_from(commit_lsn.get()) {
            Ok(lsn) if commit_lsn.get() < VERSION_LSN_END => Ok(self.load_version() | lsn),
            Ok(_) | Err(_) => Err(PipelineError::LsnTooLarge(commit_lsn)),
        }
    }
}

/// The limits the pipeline keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Lanes, at least one.
    pub lanes: usize,
    /// Of one request.
    pub batch: BatchLimits,
    /// Bytes between decode and confirmation; reading stops above it, so one frame may exceed it.
    pub memory_budget_bytes: usize,
}

enum Stalled {
    /// The change's payload, to be looked at again when the columns are there.
    Reselect {
        payload: Vec<u8>,
        missing: Vec<usize>,
    },
    Truncate,
    /// For good.
    Replan,
}

/// The transaction that is being received.
#[derive(Clone, Copy)]
struct OpenTransaction {
    commit_lsn: Lsn,
    version: i64,
    xid: u32,
}

impl OpenTransaction {
    fn inside_commit(self) -> Lsn {
        Lsn::new(self.commit_lsn.get().saturating_add(1))
    }
}

/// What a pipeline is made for.
#[derive(Debug)]
pub struct Plan {
    /// The tables whose rows are wanted.
    pub tables: Vec<TablePlan>,
    /// Up to where the catalog was as new as the stream when the plan was made. A table that a later
    /// transaction describes otherwise must be planned again.
    pub as_of: Lsn,
    /// Whether a table that is not planned, changed in a later transaction, must be, too.
    pub takes_new_tables: bool,
    /// But not these, by OID.
    pub left_out: BTreeSet<u32>,
}

/// The state machine.
pub struct Pipeline {
    relations: Relations,
    epoch: Epoch,
    limits: Limits,
    lanes: Vec<Lane>,
    frontier: Frontier,
    transaction: Option<OpenTransaction>,
    stalled: Option<Stalled>,
    draining: bool,
    next: Sequence,
    received: Lsn,
    written: Lsn,
    reply_requested: bool,
    counters: Counters,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    id: Vec<u8>,
    name: Vec<u8>,
    routing: Vec<u8>,
    document: Vec<u8>,
}

impl Pipeline {
    /// A pipeline for these tables, with nothing in flight.
    pub fn new(plan: Plan, epoch: Epoch, limits: Limits) -> Self {
        Self {
            relations: Relations::new(plan),
            epoch,
            limits,
            lanes: (0..limits.lanes.max(1)).map(|_| Lane::new()).collect(),
            frontier: Frontier::new(),
            transaction: None,
            stalled: None,
            draining: false,
            next: 0,
            received: Lsn::ZERO,
            written: Lsn::ZERO,
            reply_requested: false,
            counters: Counters::default(),
            scratch: Scratch::default(),
        }
    }

    /// Never acknowledges anything from here on, for a dry run.
    pub fn freeze(&mut self) {
        self.frontier.freeze();
    }

    /// Whether there is room for another frame; the shell reads the socket only then.
    pub fn wants_frame(&self) -> bool {
        self.stalled.is_none() && self.bytes_in_flight() < self.limits.memory_budget_bytes
    }

    /// Bytes between decode and confirmation.
    pub fn bytes_in_flight(&self) -> usize {
        self.lanes.iter().map(Lane::bytes).sum()
    }

    /// Whether every write was confirmed.
    pub fn is_drained(&self) -> bool {
        self.unconfirmed() == self.next
    }

    /// Whether a transaction was received in part.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Up to where the stream was received.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// A position in the commit record of the newest transaction of which anything may have been written, whole
    /// or not: a log that ends before it lacks the transaction, also one that ends where the record begins.
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// Whether the server asked for a status since the last call.
    pub fn take_reply_requested(&mut self) -> bool {
        std::mem::take(&mut self.reply_requested)
    }

    /// Up to where everything is confirmed.
    pub fn durable(&self) -> DurableLsn {
        self.frontier.durable()
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Ends all waiting for company: whatever is open is sent as soon as its lane is free.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes one frame. Call it only while [`Pipeline::wants_frame`]; some work means: no further frame
    /// before its answer.
    pub fn push_frame(&mut self, frame: &[u8]) -> Result<Option<Work>, PipelineError> {
        match Frame::decode(frame)? {
            Frame::Keepalive { wal_end, send_time_micros, reply_requested } => {
                self.reply_requested |= reply_requested;
                self.received = self.received.max(wal_end);
                if self.transaction.is_none() && self.is_drained() {
                    self.frontier.idle_at(wal_end, send_time_micros);
                }
                Ok(None)
            }
            Frame::XLogData { wal_start, payload, .. } => {
                self.received = self.received.max(wal_start);
                self.push_message(payload, None)
            }
        }
    }

    fn push_message(
        &mut self,
        payload: &[u8],
        reselected: Option<&[Option<Vec<u8>>]>,
    ) -> Result<Option<Work>, PipelineError> {
        match decode(payload)? {
            Message::Begin(begin) => {
                if self.transaction.is_some() {
                    return Err(PipelineError::Order("a transaction begins inside another"));
                }
                let (commit_lsn, xid) = (begin.final_lsn, begin.xid);
                let version = self.epoch.version(commit_lsn)?;
                self.transaction = Some(OpenTransaction { commit_lsn, version, xid });
                Ok(None)
            }
            Message::Commit(commit) => {
                self.transaction.take().ok_or(PipelineError::Order("a commit without a begin"))?;
                if !self.frontier.is_next(commit.end_lsn) {
                    return Err(PipelineError::Order(
                        "a transaction ends before one that came first",
                    ));
                }
                self.counters.transactions += 1;
                self.frontier.commit(self.next, commit.end_lsn, commit.commit_time_micros);
                self.received = self.received.max(commit.end_lsn);
                self.advance();
                Ok(None)
            }
            Message::Relation(relation) => self.announce(&relation),
            Message::Insert { relation, new } => {
                self.upsert(payload, relation, Before::Nothing, &new, reselected)
            }
            Message::Update { relation, old, new } => {
                let before = old.as_ref().map_or(Before::Unsent, Before::Row);
                self.upsert(payload, relation, before, &new, reselected)
            }
            Message::Delete { relation, old } => self.delete(relation, &old),
            Message::Truncate { relations, .. } => self.truncate(relations.iter()),
            Message::Origin { .. } | Message::Type { .. } | Message::Logical(_) => Ok(None),
        }
    }

    fn open_transaction(&self) -> Result<OpenTransaction, PipelineError> {
        self.transaction.ok_or(PipelineError::Order("a change outside a transaction"))
    }

    fn announce(&mut self, relation: &Relation) -> Result<Option<Work>, PipelineError> {
        let commit_lsn = self.open_transaction()?.commit_lsn;
        let outplanned = self.relations.announce(relation, commit_lsn);
        Ok(outplanned.map(|table| self.replan(table)))
    }

    fn replan(&mut self, table: String) -> Work {
        self.stalled = Some(Stalled::Replan);
        Work::Replan(table)
    }

    /// A change of a table without a target.
    fn pass_over(&mut self, relation: u32, transaction: OpenTransaction) -> Option<Work> {
        let unplanned = self.relations.unplanned(relation, transaction.commit_lsn);
        unplanned.map(|table| self.replan(table))
    }

    fn upsert(
        &mut self,
        payload: &[u8],
        relation: u32,
        before: Before<'_>,
        new: &Tuple<'_>,
        reselected: Option<&[Option<Vec<u8>>]>,
    ) -> Result<Option<Work>, PipelineError> {
        let transaction = self.open_transaction()?;
        let Some(target) = self.relations.target(relation)? else {
            return Ok(self.pass_over(relation, transaction));
        };
        target.check_width(new)?;
        if target.holds(transaction) {
            self.counters.rows += 1;
            return Ok(None);
        }
        let row = row::resolve(new, before.row(), |column| target.uses(column))?;
        let (mut fields, missing) = target.arrange(row.fields, row.missing);
        match (missing.is_empty(), reselected) {
            (true, _) => {}
            (false, Some(values)) => {
                for (&column, value) in missing.iter().zip(values) {
                    if let Some(field) = fields.get_mut(column) {
                        *field = value.as_deref().map_or(Field::Null, Field::Text);
                    }
                }
            }
            (false, None) => {
                let reselect = target.reselect(&fields, &missing, transaction.xid)?;
                self.stalled = Some(Stalled::Reselect { payload: payload.to_vec(), missing });
                return Ok(Some(Work::Reselect(reselect)));
            }
        }
        self.counters.rows += 1;
        self.written = self.written.max(transaction.inside_commit());
        let scratch = &mut self.scratch;
        target.write_name(&fields, scratch)?;
        let mut left = Vec::new();
        match before {
            Before::Nothing => {}
            Before::Unsent => target.check_routing_is_kept()?,
            Before::Row(old) => {
                let mut from = Scratch::default();
                target.write_old_name(old, &mut from)?;
                if from.name != scratch.name {
                    let write = Write::delete(&from.name, transaction.version);
                    let write = write.routed(&from.routing);
                    push(&mut self.lanes, &mut self.next, &write, self.limits.batch);
                } else if from.routing != scratch.routing {
                    left = from.routing;
                }
            }
        }
        target.write_document(&fields, scratch)?;
        let write = Write::index(&scratch.name, transaction.version, &scratch.document);
        let write = write.routed(&scratch.routing).leaving(&left);
        push(&mut self.lanes, &mut self.next, &write, self.limits.batch);
        Ok(None)
    }

    /// The answer to [`Work::Reselect`]: the columns' texts in the order asked for, or `None` when the row
    /// is gone (and the change's transaction is visible): its delete or move is still to come, and the
    /// document is written without those fields. `seen` is where the newest commit ends that the row may owe
    /// something to: from now on the indices may hold a part of that.
    pub fn reselected(
        &mut self,
        row: Option<Vec<Option<Vec<u8>>>>,
        seen: Lsn,
    ) -> Result<(), PipelineError> {
        let Some(Stalled::Reselect { payload, missing }) = self.stalled.take() else {
            return Err(PipelineError::Order("columns that were not asked for"));
        };
        self.counters.reselected += 1;
        self.written = self.written.max(seen);
        if row.as_ref().is_some_and(|row| row.len() != missing.len()) {
            return Err(PipelineError::Order("other columns than were asked for"));
        }
        let gone = Vec::new();
        match self.push_message(&payload, Some(row.as_deref().unwrap_or(&gone)))? {
            None => Ok(()),
            Some(_) => Err(PipelineError::Order("columns that are still missing")),
        }
    }

    fn delete(&mut self, relation: u32, old: &OldTuple<'_>) -> Result<Option<Work>, PipelineError> {
        let transaction = self.open_transaction()?;
        let Some(target) = self.relations.target(relation)? else {
            return Ok(self.pass_over(relation, transaction));
        };
        self.counters.rows += 1;
        if target.holds(transaction) {
            return Ok(None);
        }
        self.written = self.written.max(transaction.inside_commit());
        target.write_old_name(old, &mut self.scratch)?;
        let write = Write::delete(&self.scratch.name, transaction.version);
        let write = write.routed(&self.scratch.routing);
        push(&mut self.lanes, &mut self.next, &write, self.limits.batch);
        Ok(None)
    }

    fn truncate(
        &mut self,
        relations: impl Iterator<Item = u32>,
    ) -> Result<Option<Work>, PipelineError> {
        let transaction = self.open_transaction()?;
        let mut write_aliases = Vec::new();
        for oid in relations {
            let target = self.relations.target(oid)?;
            if let Some(table) = self.relations.unplanned(oid, transaction.commit_lsn) {
                return Ok(Some(self.replan(table)));
            }
            let emptied = target.filter(|target| !target.holds(transaction));
            write_aliases.extend(emptied.map(|target| target.write_alias().to_owned()));
        }
        if write_aliases.is_empty() {
            return Ok(None);
        }
        self.written = self.written.max(transaction.inside_commit());
        self.stalled = Some(Stalled::Truncate);
        Ok(Some(Work::Truncate(Truncate { write_aliases, version: transaction.version })))
    }

    /// Every document of the truncated tables was removed, and the removal confirmed.
    pub fn truncated(&mut self) -> Result<(), PipelineError> {
        match self.stalled.take() {
            Some(Stalled::Truncate) => Ok(()),
            Some(Stalled::Reselect { .. } | Stalled::Replan) | None => {
                Err(PipelineError::Order("a truncate that was not asked for"))
            }
        }
    }

    /// Takes one row of an initial load; its relation was given to [`Pipeline::load`].
    pub fn push_row(&mut self, relation: u32, row: &[Field<'_>]) -> Result<(), PipelineError> {
        let target = self.relations.target(relation)?;
        let target = target.ok_or(PipelineError::UnknownRelation(relation))?;
        self.counters.rows += 1;
        target.write_name(row, &mut self.scratch)?;
        target.write_document(row, &mut self.scratch)?;
        let version = self.epoch.load_version();
        let write = Write::index(&self.scratch.name, version, &self.scratch.document);
        let write = write.routed(&self.scratch.routing);
        push(&mut self.lanes, &mut self.next, &write, self.limits.batch);
        Ok(())
    }

    /// Prepares for the rows of a planned table, which come in its planned columns.
    pub fn load(&mut self, relation: &Relation) -> Result<(), PipelineError> {
        self.relations.load(relation)
    }

    /// The next batch for a lane, if it is free and it is time.
    pub fn take_batch(&mut self, lane: LaneId, now: Tick) -> Option<Batch> {
        let drain = self.draining || matches!(self.stalled, Some(Stalled::Truncate));
        self.lanes.get_mut(lane.0)?.take(now, self.limits.batch, drain)
    }

    /// When to ask for batches again if nothing else happens.
    pub fn deadline(&self) -> Option<Tick> {
        self.lanes.iter().filter_map(|lane| lane.deadline(self.limits.batch)).min()
    }

    /// The lanes, in order.
    pub fn lanes(&self) -> impl Iterator<Item = LaneId> + use<> {
        (0..self.lanes.len()).map(LaneId)
    }

    /// Batches that were handed out and are not confirmed whole, those included that wait for their index.
    pub fn requests_in_flight(&self) -> usize {
        self.lanes.iter().map(Lane::requests).sum()
    }

    /// What is left of a lane's batch waits for its index, and the lane goes on.
    pub fn park_batch(&mut self, lane: LaneId, parked: Parked) {
        if let Some(lane) = self.lanes.get_mut(lane.0) {
            lane.park(parked);
        }
    }

    /// Whether something of this lane waits for its index.
    pub fn has_parked(&self, lane: LaneId) -> bool {
        self.lanes.get(lane.0).is_some_and(Lane::has_parked)
    }

    /// A lane's batch was confirmed whole.
    pub fn finish_batch(&mut self, lane: LaneId, receipt: Receipt) {
        self.counters.applied += receipt.applied();
        self.counters.superseded += receipt.superseded();
        self.counters.dead_lettered += receipt.dead_lettered();
        if let Some(lane) = self.lanes.get_mut(lane.0) {
            lane.finish(&receipt);
        }
        self.advance();
    }

    /// A lane's batch was printed in a dry run.
    pub fn discard_batch(&mut self, lane: LaneId, printed: &Printed) {
        assert!(self.frontier.is_frozen(), "only a dry run discards");
        if let Some(lane) = self.lanes.get_mut(lane.0) {
            lane.discard(printed);
        }
    }

    fn unconfirmed(&self) -> Sequence {
        self.lanes.iter().filter_map(Lane::unconfirmed).min().unwrap_or(self.next)
    }

    fn advance(&mut self) {
        self.frontier.advance(self.unconfirmed());
    }
}

/// Sends a write to the lane of its document.
fn push(lanes: &mut [Lane], next: &mut Sequence, write: &Write<'_>, limits: BatchLimits) {
    let lane = write.hash % u64::try_from(lanes.len()).unwrap_or(1);
    if let Some(lane) = lanes.get_mut(usize::try_from(lane).unwrap_or(0)) {
        lane.push(*next, write, limits);
        *next += 1;
    }
}
