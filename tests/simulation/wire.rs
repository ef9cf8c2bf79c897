//! The walsender: a connection's frames, from where the slot stands.

use std::collections::{BTreeSet, VecDeque};

use rand::RngExt;
use rand::rngs::StdRng;
use waldex::lsn::Lsn;
use waldex::pgoutput::envelope::Frame;
use waldex::pgoutput::message::{Begin, Commit};

use super::mutants::Mutant;
use super::shape::Shape;
use super::source::{Change, Source, Transaction};
use crate::support::encode::{ToSend, encode_frame};

/// What the next read gives.
pub(crate) struct Read {
    pub(crate) frame: Vec<u8>,
    /// The position of a keepalive inside a transaction.
    pub(crate) keepalive_inside: Option<u64>,
}

/// One replication connection.
pub(crate) struct Sender {
    next: usize,
    queue: VecDeque<Vec<u8>>,
    announced: BTreeSet<Shape>,
    /// Positions of keepalives outside of transactions: these may be confirmed.
    idle: BTreeSet<u64>,
    /// Nothing at or below this can be confirmed anew.
    floor: u64,
    transaction_commit: u64,
    transaction_end: u64,
    /// Whether the queue holds the rest of a transaction whose beginning was sent.
    has_begun: bool,
}

impl Sender {
    /// START_REPLICATION at `0/0`: from the slot's position.
    pub(crate) fn start(source: &Source) -> Self {
        let confirmed = source.slot.map_or(0, |slot| slot.confirmed);
        let is_before = |transaction: &Transaction| transaction.commit_lsn < confirmed;
        Self {
            next: source.transactions.partition_point(is_before),
            queue: VecDeque::new(),
            announced: BTreeSet::new(),
            idle: BTreeSet::from([confirmed]),
            floor: confirmed,
            transaction_commit: 0,
            transaction_end: 0,
            has_begun: false,
        }
    }

    /// Whether a standby may report this position as flushed, apart from what it has written.
    pub(crate) fn may_confirm(&self, source: &Source, lsn: u64) -> bool {
        let sent = source.transactions.iter().take(self.next);
        self.idle.contains(&lsn) || sent.rev().any(|transaction| transaction.end_lsn == lsn)
    }

    /// Whether everything committed was sent.
    pub(crate) fn is_idle(&self, source: &Source) -> bool {
        self.queue.is_empty() && self.next == source.transactions.len()
    }

    /// The next frame, if there is one.
    pub(crate) fn read(
        &mut self,
        source: &Source,
        random: &mut StdRng,
        mutant: Option<Mutant>,
    ) -> Option<Read> {
        if !self.queue.is_empty() && random.random_bool(0.05) {
            return Some(self.keepalive_amid(random, mutant));
        }
        if let Some(frame) = self.queue.pop_front() {
            self.has_begun = !self.queue.is_empty();
            if self.queue.is_empty() {
                self.floor = self.transaction_end;
            }
            return Some(Read { frame, keepalive_inside: None });
        }
        if let Some(transaction) = source.transactions.get(self.next) {
            self.next += 1;
            self.transaction_commit = transaction.commit_lsn;
            self.transaction_end = transaction.end_lsn;
            self.send(transaction, random, mutant);
            return self.read(source, random, mutant);
        }
        random.random_bool(0.3).then(|| {
            self.idle.insert(source.wal_end);
            self.floor = source.wal_end;
            Read { frame: keepalive(source.wal_end, false), keepalive_inside: None }
        })
    }

    /// Up to where the server has decoded: before a transaction's commit, or anywhere inside it.
    fn keepalive_amid(&mut self, random: &mut StdRng, mutant: Option<Mutant>) -> Read {
        let end = match (self.has_begun, mutant) {
            // Its made-up commits were written with this position.
            (_, Some(Mutant::ChangeLsnVersions)) => self.floor,
            (true, _) => self.transaction_end,
            (false, _) => self.transaction_commit,
        };
        let wal_end = random.random_range(self.floor..=end);
        if !self.has_begun {
            self.idle.insert(wal_end);
            self.floor = wal_end;
        }
        let frame = keepalive(wal_end, random.random_bool(0.5));
        Read { frame, keepalive_inside: self.has_begun.then_some(wal_end) }
    }

    fn send(&mut self, transaction: &Transaction, random: &mut StdRng, mutant: Option<Mutant>) {
        let commit_lsn = Lsn::new(transaction.commit_lsn);
        let begin = |lsn| {
            ToSend::Begin(Begin { final_lsn: lsn, commit_time_micros: 0, xid: transaction.xid })
        };
        let commit = |end| {
            let end_lsn = Lsn::new(end);
            ToSend::Commit(Commit { commit_lsn, end_lsn, commit_time_micros: 0 })
        };
        if transaction.changes.is_empty() && random.random_bool(0.5) {
            // From PostgreSQL 15 on, empty transactions are skipped.
            self.floor = transaction.end_lsn;
            self.transaction_commit = transaction.end_lsn;
            self.idle.insert(transaction.end_lsn);
            self.queue.push_back(keepalive(transaction.end_lsn, false));
            return;
        }
        self.push(Lsn::ZERO, &begin(commit_lsn));
        for logged in &transaction.changes {
            let lsn = Lsn::new(logged.lsn);
            if mutant == Some(Mutant::ChangeLsnVersions) {
                // To the core, each change is a transaction of its own that commits where it stands.
                self.push(Lsn::ZERO, &commit(self.floor));
                self.push(Lsn::ZERO, &begin(lsn));
            }
            for table in tables_of(&logged.change) {
                if self.announced.insert(table) || random.random_bool(0.1) {
                    if random.random_bool(0.2) {
                        let (schema, name) = (String::new(), "odd".to_owned());
                        self.push(Lsn::ZERO, &ToSend::Type { oid: 60_001, schema, name });
                    }
                    self.push(Lsn::ZERO, &ToSend::Relation(table.relation()));
                }
            }
            self.push(lsn, &message(&logged.change, lsn, mutant));
        }
        self.push(Lsn::new(transaction.end_lsn), &commit(transaction.end_lsn));
    }

    fn push(&mut self, wal_start: Lsn, message: &ToSend) {
        let payload = message.encode();
        let (wal_end, send_time_micros) = (wal_start, 0);
        let frame = Frame::XLogData { wal_start, wal_end, send_time_micros, payload: &payload };
        self.queue.push_back(encode_frame(&frame));
    }
}

fn keepalive(wal_end: u64, reply_requested: bool) -> Vec<u8> {
    let wal_end = Lsn::new(wal_end);
    encode_frame(&Frame::Keepalive { wal_end, send_time_micros: 0, reply_requested })
}

fn tables_of(change: &Change) -> Vec<Shape> {
    match change {
        Change::Insert { table, .. }
        | Change::Update { table, .. }
        | Change::Delete { table, .. } => vec![*table],
        Change::Truncate(tables) => tables.clone(),
        Change::Message => Vec::new(),
    }
}

fn message(change: &Change, lsn: Lsn, mutant: Option<Mutant>) -> ToSend {
    match change {
        Change::Insert { table, key, new } => {
            ToSend::Insert { relation: table.oid(), new: table.new_row(*key, new, None) }
        }
        Change::Update { table, from, old, to, new } => {
            let is_sent = *table == Shape::Full || from != to;
            let forgets = mutant == Some(Mutant::NoDeleteOnKeyChange) && from != to;
            // The wrong design looks at the new row only.
            let old_row = (is_sent && !forgets).then(|| table.old_row(*from, old));
            ToSend::Update {
                relation: table.oid(),
                old: old_row,
                new: table.new_row(*to, new, Some(old)),
            }
        }
        Change::Delete { table, key, old } => {
            ToSend::Delete { relation: table.oid(), old: table.old_row(*key, old) }
        }
        Change::Truncate(tables) => ToSend::Truncate {
            relations: tables.iter().map(|table| table.oid()).collect(),
            cascade: false,
            restart_identity: false,
        },
        Change::Message => ToSend::Logical {
            transactional: true,
            lsn,
            prefix: "p".to_owned(),
            content: b"content".to_vec(),
        },
    }
}
