//! The messages of protocol 1. Tuples and contents borrow from the frame.

use super::reader::Reader;
use super::relation::Relation;
use super::tuple::Tuple;
use crate::lsn::Lsn;

/// One message of a logical replication stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins.
    Begin(Begin),
    /// It ends; the only place from which an LSN may be confirmed.
    Commit(Commit),
    /// Where a transaction came from that was itself replicated.
    Origin {
        /// Its commit LSN there.
        commit_lsn: Lsn,
        /// The origin's name.
        name: &'a str,
    },
    /// A table, before its first change and after each change of it.
    Relation(Relation),
    /// A type that is not built in; informational, the names may be empty.
    Type {
        /// `pg_type.oid`.
        oid: u32,
        /// Its schema.
        schema: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A new row.
    Insert {
        /// OID of the table.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A changed row.
    Update {
        /// OID of the table.
        relation: u32,
        /// The old row, if the identity changed, is toasted, or is full.
        old: Option<OldTuple<'a>>,
        /// The new row.
        new: Tuple<'a>,
    },
    /// A removed row.
    Delete {
        /// OID of the table.
        relation: u32,
        /// What identifies it.
        old: OldTuple<'a>,
    },
    /// Emptied tables.
    Truncate {
        /// Their OIDs.
        relations: Oids<'a>,
        /// `CASCADE` was given.
        cascade: bool,
        /// `RESTART IDENTITY` was given.
        restart_identity: bool,
    },
    /// Written by `pg_logical_emit_message`.
    Logical(LogicalMessage<'a>),
}

/// Begin of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Start of its commit record: the version of all its changes.
    pub final_lsn: Lsn,
    /// Microseconds since 2000-01-01 UTC.
    pub commit_time_micros: i64,
    /// Its transaction id, without epoch.
    pub xid: u32,
}

/// End of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Start of its commit record; to confirm this is to have the transaction sent again.
    pub commit_lsn: Lsn,
    /// End of its commit record: the position to confirm.
    pub end_lsn: Lsn,
    /// Microseconds since 2000-01-01 UTC.
    pub commit_time_micros: i64,
}

/// The old row of an update or delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// Only the identity's columns; the others read as NULL but are absent.
    Key(Tuple<'a>),
    /// The whole row (`REPLICA IDENTITY FULL`).
    Full(Tuple<'a>),
}

/// The OIDs of a Truncate, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oids<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Oids<'a> {
    /// The OIDs in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || reader.u32().ok())
    }
}

/// A message that an application wrote into the WAL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whether it is part of a transaction; otherwise it stands outside Begin and Commit.
    pub transactional: bool,
    /// Where it stands.
    pub lsn: Lsn,
    /// Who it is for.
    pub prefix: &'a str,
    /// What it says.
    pub content: &'a [u8],
}

impl std::fmt::Debug for LogicalMessage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("prefix", &self.prefix)
            .field("lsn", &self.lsn)
            .field("content_bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}
