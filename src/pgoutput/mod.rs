//! The pgoutput protocol, version 1 (PostgreSQL documentation, "Logical Replication Message Formats").
//!
//! Pure: bytes of one CopyData payload in, borrowed messages out. Assumes `streaming`, `two_phase` and
//! `binary` off, as waldex starts every stream: transactions arrive whole, after their commit, in commit
//! order; messages of later protocols are refused by name. Facts that the types here do not show:
//!
//! - XLogData's `wal_start` is `0/0` for Relation and Type and goes backwards between transactions; it is
//!   never a position to confirm.
//! - A Relation message may come again at any time and replaces the earlier one.
//! - In an old tuple of kind key, the columns outside the key are absent although they read as NULL.

pub mod decode;
pub mod envelope;
pub mod message;
mod reader;
pub mod relation;
pub mod tuple;
