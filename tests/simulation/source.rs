//! A fake Postgres: a write-ahead log of transactions, what each snapshot sees of it, and a slot.
//!
//! Positions are as in the real one: a record begins where the one before ends, so a commit's `end_lsn` is
//! the start of whatever comes next; a transaction's changes lie anywhere before its commit. A transaction
//! is sent if its commit record does not lie before the slot's position. A commit can be decoded before
//! new snapshots see it. A crash takes the slot back to what was last written to disk, a failover takes
//! away the end of the log, and the next timeline uses its positions again.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::StdRng;

use super::shape::{KEYS, Key, Row, Shape};

/// Where the log begins.
const FIRST_LSN: u64 = 1_000;

/// One change of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Insert { table: Shape, key: Key, new: Row },
    Update { table: Shape, from: Key, old: Row, to: Key, new: Row },
    Delete { table: Shape, key: Key, old: Row },
    Truncate(Vec<Shape>),
    Message,
}

/// A change and where its record begins.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) lsn: u64,
    pub(crate) change: Change,
}

/// A committed transaction.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) xid: u32,
    pub(crate) commit_lsn: u64,
    pub(crate) end_lsn: u64,
    pub(crate) changes: Vec<Logged>,
}

/// What a committed transaction made of a row.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) commit_lsn: u64,
    pub(crate) end_lsn: u64,
    pub(crate) made: Made,
}

/// What the changes of one transaction made of a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    /// The last of them.
    pub(crate) step: u64,
    /// None if the last of them removed it.
    pub(crate) row: Option<Row>,
    /// Whether any of them removed it.
    pub(crate) removes: bool,
}

/// A transaction that runs: its changes, and the rows it holds locked.
#[derive(Default)]
pub(crate) struct Open {
    xid: u32,
    changes: Vec<Logged>,
    rows: BTreeMap<(Shape, Key), Made>,
    tables: BTreeSet<Shape>,
}

impl Open {
    fn make(&mut self, table: Shape, key: Key, step: u64, row: Option<Row>) {
        let made = self.rows.entry((table, key)).or_default();
        made.removes |= row.is_none();
        (made.step, made.row) = (step, row);
    }
}

/// The slot's position, and what of it is on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) confirmed: u64,
    persisted: u64,
}

/// The server.
pub(crate) struct Source {
    pub(crate) timeline: u32,
    /// Where each timeline left the one before: TIMELINE_HISTORY.
    forks: Vec<u64>,
    /// Where the next record begins.
    pub(crate) wal_end: u64,
    /// In the order of their commits.
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) open: Vec<Open>,
    pub(crate) slot: Option<Slot>,
    history: BTreeMap<(Shape, Key), Vec<Written>>,
    /// New snapshots see the commits before this.
    visible: u64,
    next_xid: u32,
    next_step: u64,
}

impl Source {
    pub(crate) fn new() -> Self {
        Self {
            timeline: 1,
            forks: Vec::new(),
            wal_end: FIRST_LSN,
            transactions: Vec::new(),
            open: Vec::new(),
            slot: None,
            history: BTreeMap::new(),
            visible: FIRST_LSN,
            next_xid: 700,
            next_step: 0,
        }
    }

    fn write_record(&mut self, bytes: u64) -> u64 {
        let lsn = self.wal_end;
        self.wal_end += bytes;
        lsn
    }

    /// WAL that has nothing to do with the publication.
    pub(crate) fn write_elsewhere(&mut self, bytes: u64) {
        self.write_record(bytes);
    }

    pub(crate) fn begin(&mut self) {
        self.next_xid += 1;
        self.open.push(Open { xid: self.next_xid, ..Open::default() });
    }

    /// The row as transaction `at` sees it.
    pub(crate) fn row(&self, at: usize, table: Shape, key: Key) -> Option<Row> {
        match self.open[at].rows.get(&(table, key)) {
            Some(made) => made.row.clone(),
            None => self.row_at(table, key, self.wal_end),
        }
    }

    /// Whether transaction `at` can lock the row: no other holds it or its table.
    pub(crate) fn can_lock(&self, at: usize, table: Shape, key: Key) -> bool {
        self.others(at)
            .all(|open| !open.tables.contains(&table) && !open.rows.contains_key(&(table, key)))
    }

    fn others(&self, at: usize) -> impl Iterator<Item = &Open> {
        self.open.iter().enumerate().filter(move |(place, _)| *place != at).map(|(_, open)| open)
    }

    fn log(&mut self, at: usize, change: Change) -> u64 {
        let lsn = self.write_record(40);
        self.open[at].changes.push(Logged { lsn, change });
        self.next_step += 1;
        self.next_step
    }

    /// Inserts or updates; a key change if `to` is another key. The locks are held.
    pub(crate) fn put(&mut self, at: usize, table: Shape, from: Key, to: Key, mut new: Row) {
        new.step = self.next_step + 1;
        let old = self.row(at, table, from);
        let change = match old {
            Some(old) => Change::Update { table, from, old, to, new: new.clone() },
            None => Change::Insert { table, key: to, new: new.clone() },
        };
        let step = self.log(at, change);
        if from != to {
            self.open[at].make(table, from, step, None);
        }
        self.open[at].make(table, to, step, Some(new));
    }

    pub(crate) fn delete(&mut self, at: usize, table: Shape, key: Key) {
        if let Some(old) = self.row(at, table, key) {
            let step = self.log(at, Change::Delete { table, key, old });
            self.open[at].make(table, key, step, None);
        }
    }

    /// Empties tables, if no other transaction holds anything of them.
    pub(crate) fn truncate(&mut self, at: usize, tables: &[Shape]) {
        let holds = |open: &Open| {
            tables.iter().any(|table| {
                open.tables.contains(table) || open.rows.keys().any(|(held, _)| held == table)
            })
        };
        if self.others(at).any(holds) {
            return;
        }
        let step = self.log(at, Change::Truncate(tables.to_vec()));
        for &table in tables {
            let live: Vec<Key> =
                (0..KEYS).filter(|&key| self.row(at, table, key).is_some()).collect();
            self.open[at].tables.insert(table);
            live.into_iter().for_each(|key| self.open[at].make(table, key, step, None));
        }
    }

    pub(crate) fn message(&mut self, at: usize) {
        self.log(at, Change::Message);
    }

    pub(crate) fn roll_back(&mut self, at: usize) {
        self.open.swap_remove(at);
    }

    pub(crate) fn commit(&mut self, at: usize) {
        let open = self.open.swap_remove(at);
        let commit_lsn = self.write_record(48);
        let end_lsn = self.wal_end;
        for (place, made) in open.rows {
            let written = Written { commit_lsn, end_lsn, made };
            self.history.entry(place).or_default().push(written);
        }
        let Open { xid, changes, .. } = open;
        self.transactions.push(Transaction { xid, commit_lsn, end_lsn, changes });
    }

    /// Everything that was committed of each row, oldest first.
    pub(crate) fn history(&self) -> impl Iterator<Item = (Shape, Key, &[Written])> {
        self.history.iter().map(|((table, key), written)| (*table, *key, written.as_slice()))
    }

    /// The row as a snapshot shows it that sees the commits before `visible`.
    pub(crate) fn row_at(&self, table: Shape, key: Key, visible: u64) -> Option<Row> {
        let written = self.history.get(&(table, key))?;
        written.iter().rev().find(|written| written.commit_lsn < visible)?.made.row.clone()
    }

    /// Where the next transaction committed that wrote the row again, after this one.
    pub(crate) fn rewritten_at(&self, table: Shape, key: Key, xid: u32) -> Option<u64> {
        let of = self.transactions.iter().rev().find(|transaction| transaction.xid == xid)?;
        let written = self.history.get(&(table, key))?.iter();
        written.map(|written| written.commit_lsn).find(|lsn| *lsn > of.commit_lsn)
    }

    /// Takes a snapshot: which commits it sees. With `lag`, it may miss some that were already decoded.
    pub(crate) fn snapshot(&mut self, random: &mut StdRng, lag: bool) -> u64 {
        if !lag {
            self.visible = self.wal_end;
        } else if random.random_bool(0.5) {
            self.visible = random.random_range(self.visible..=self.wal_end);
        }
        self.visible
    }

    /// Waits until snapshots see every commit before `lsn`.
    pub(crate) fn make_visible(&mut self, lsn: u64) {
        self.visible = self.visible.max(lsn);
    }

    /// The text of `pg_current_snapshot()` of a snapshot that sees the commits before `visible`.
    pub(crate) fn snapshot_text(&self, visible: u64) -> String {
        let unseen =
            self.transactions.iter().filter(|it| it.commit_lsn >= visible).map(|it| it.xid);
        let running = self.open.iter().map(|open| open.xid);
        let mut running: Vec<u32> = unseen.chain(running).collect();
        running.sort_unstable();
        let xmax = self.next_xid + 1;
        let xmin = running.first().copied().unwrap_or(xmax);
        let running: Vec<String> = running.iter().map(u32::to_string).collect();
        format!("{xmin}:{xmax}:{}", running.join(","))
    }

    pub(crate) fn sees(&self, xid: u32, visible: u64) -> bool {
        let of = self.transactions.iter().rev().find(|transaction| transaction.xid == xid);
        of.is_some_and(|transaction| transaction.commit_lsn < visible)
    }

    /// Makes the slot; its consistent point is here, while transactions run.
    pub(crate) fn create_slot(&mut self) -> u64 {
        self.slot = Some(Slot { confirmed: self.wal_end, persisted: self.wal_end });
        self.wal_end
    }

    /// Takes a standby's status; the slot never goes back.
    pub(crate) fn confirm(&mut self, flushed: u64) {
        if let Some(slot) = &mut self.slot {
            slot.confirmed = slot.confirmed.max(flushed);
        }
    }

    pub(crate) fn checkpoint(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.persisted = slot.confirmed;
        }
    }

    /// Crashes and recovers: what ran is rolled back, the slot stands where it was last written to disk.
    pub(crate) fn crash(&mut self) {
        self.open.clear();
        self.visible = self.wal_end;
        if let Some(slot) = &mut self.slot {
            slot.confirmed = slot.persisted;
        }
    }

    /// A standby takes over that had the log up to `switch`, and a slot that was last synced at `slot`.
    pub(crate) fn fail_over(&mut self, switch: u64, slot: Option<u64>) {
        self.open.clear();
        self.transactions.retain(|transaction| transaction.end_lsn <= switch);
        for written in self.history.values_mut() {
            written.retain(|written| written.end_lsn <= switch);
        }
        self.wal_end = switch;
        self.visible = switch;
        self.timeline += 1;
        self.forks.push(switch);
        self.slot = slot.map(|lsn| Slot { confirmed: lsn, persisted: lsn });
    }

    /// Where this timeline begins.
    pub(crate) fn begun_at(&self) -> u64 {
        self.forks.last().copied().unwrap_or(FIRST_LSN)
    }

    /// Where an earlier timeline was left: up to there the log is the same.
    pub(crate) fn left_at(&self, timeline: u32) -> Option<u64> {
        self.forks.get(usize::try_from(timeline).ok()?.checked_sub(1)?).copied()
    }

    /// End of the newest commit, which must be confirmed at rest.
    pub(crate) fn newest_end(&self) -> u64 {
        self.transactions.last().map_or(0, |transaction| transaction.end_lsn)
    }
}
