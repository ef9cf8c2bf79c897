//! The messages of pgoutput, protocol version 1, as the decoder gives them out.
//!
//! All borrow from the frame but [`Relation`], which outlives it. Times are microseconds since
//! 2000-01-01 UTC. `Debug` shows no column value and no content of a logical message.

use std::fmt;

use super::relation::Relation;
use super::tuple::Tuple;
use crate::lsn::Lsn;

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// `B`: a transaction starts.
    Begin(Begin),
    /// `C`: the open transaction is complete.
    Commit(Commit),
    /// `O`: the open transaction came to the source by replication.
    Origin {
        /// Its commit on the server it came from.
        commit_lsn: Lsn,
        /// The origin's name.
        name: &'a str,
    },
    /// `R`: what a table looks like from here on.
    Relation(Relation),
    /// `Y`: the name of a type that is not built in. Both names may be empty: look the OID up instead.
    Type {
        /// `pg_type.oid`.
        oid: u32,
        /// The schema's name.
        schema: &'a str,
        /// The type's name.
        name: &'a str,
    },
    /// `I`: a new row.
    Insert {
        /// OID of a table that was described before.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// `U`: a changed row.
    Update {
        /// OID of a table that was described before.
        relation: u32,
        /// Sent with `FULL`, else only if an identity column changed or is stored out of line.
        old: Option<OldTuple<'a>>,
        /// The row as it is now.
        new: Tuple<'a>,
    },
    /// `D`: a row that is gone.
    Delete {
        /// OID of a table that was described before.
        relation: u32,
        /// What identifies it.
        old: OldTuple<'a>,
    },
    /// `T`: tables emptied by one command.
    Truncate {
        /// OIDs of tables that were described before.
        relations: Oids<'a>,
        /// `TRUNCATE … CASCADE`; the tables it reached are listed as well, if they are published.
        cascade: bool,
        /// `TRUNCATE … RESTART IDENTITY`.
        restart_identity: bool,
    },
    /// `M`: written by `pg_logical_emit_message`.
    Logical(LogicalMessage<'a>),
}

/// The start of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where the commit record starts; equal to [`Commit::commit_lsn`], known before the first change.
    pub final_lsn: Lsn,
    /// When it was committed.
    pub commit_time_micros: i64,
    /// The transaction's id.
    pub xid: u32,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where the commit record ends: the only position of a transaction that may be acknowledged.
    pub end_lsn: Lsn,
    /// When it was committed.
    pub commit_time_micros: i64,
}

/// The old row, as far as the replica identity makes the source send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// `K`: only the identity's columns; the others are sent as NULL and are not known.
    Key(Tuple<'a>),
    /// `O`: the whole row (`REPLICA IDENTITY FULL`), large values included.
    Full(Tuple<'a>),
}

impl<'a> OldTuple<'a> {
    /// The columns, whatever the kind.
    pub fn tuple(&self) -> &Tuple<'a> {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

/// The OIDs of a [`Message::Truncate`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Oids<'a> {
    oids: &'a [[u8; 4]],
}

impl<'a> Oids<'a> {
    pub(super) fn new(oids: &'a [[u8; 4]]) -> Self {
        Self { oids }
    }

    /// In the order of the message.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.oids.iter().map(|&oid| u32::from_be_bytes(oid))
    }
}

impl fmt::Debug for Oids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What an application wrote into the log beside its tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whether it belongs to the open transaction; else it stands alone and was sent at once.
    pub transactional: bool,
    /// Where it is in the log.
    pub lsn: Lsn,
    /// Says whose message it is.
    pub prefix: &'a str,
    /// Any bytes.
    pub content: &'a [u8],
}

impl fmt::Debug for LogicalMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content_bytes", &self.content.len())
            .finish()
    }
}
