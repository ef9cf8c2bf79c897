//! The pgoutput protocol, version 1 (PostgreSQL docs, "Logical Replication Message Formats" and
//! "Streaming Replication Protocol"): bytes in, borrowed values out.
//!
//! # What arrives
//!
//! ```text
//! CopyData ─▶ [`envelope::Frame`] ─┬─ Keepalive: how far the server is
//!                                  └─ XLogData ─▶ [`decode::decode`] ─▶ [`message::Message`]
//!
//! a transaction: Begin (Relation | Type | Insert | Update | Delete | Truncate | Logical | Origin)* Commit
//! ```
//!
//! waldex asks for `proto_version '1'` and neither `streaming`, `two_phase` nor `binary`. Hence whole
//! transactions arrive in commit order, and no message carries the transaction id that version 2 puts
//! before the OID inside a streamed chunk.
//!
//! # What to know of it
//!
//! - Integers are big endian, strings end with a zero byte and are UTF-8 (`client_encoding` is pinned),
//!   times are microseconds since 2000-01-01 UTC.
//! - Relation comes before the first change of a table on a connection, and again after anything about the
//!   table changed. Its XLogData carries the position `0/0`: positions of the envelope prove nothing.
//! - In a key tuple the columns outside the replica identity are sent as NULL and mean "not sent".
//! - A Logical message that is not transactional stands outside of any transaction.
//!
//! # What is assumed
//!
//! Nothing: every length, count, tag and flag is checked against the frame before it is used, and what is
//! unknown is an error, because a message that is half understood would become a wrong document. The frame
//! is the only thing borrowed; only a Relation allocates, and less than a fixed multiple of its frame.

pub mod decode;
pub mod envelope;
pub mod message;
mod reader;
pub mod relation;
pub mod tuple;
