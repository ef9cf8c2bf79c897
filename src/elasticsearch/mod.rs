//! The search cluster: Elasticsearch or OpenSearch, through the HTTP interface both share.
//!
//! I/O shell. Nothing here decides what may be acknowledged: a lane's [`writer`] hands back the receipt
//! that the core made from the server's answer.

mod access;
pub mod breaker;
pub mod client;
mod control;
pub mod dead_letter;
pub mod delivery;
mod disk;
pub mod fitness;
pub mod gate;
pub mod holder;
pub mod index;
pub mod lease;
pub mod letter;
pub mod mailbox;
mod refusals;
pub mod renewal;
pub mod retry;
pub mod scan;
pub mod sender;
pub mod state;
pub mod store;
pub mod target;
mod templates;
pub mod truncate;
pub mod unanswered;
pub mod versions;
pub mod writer;

#[cfg(test)]
mod tests;
