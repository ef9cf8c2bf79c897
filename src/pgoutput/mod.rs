//! The pgoutput protocol, version 1 (PostgreSQL docs, "Logical Replication Message Formats").

pub mod relation;
