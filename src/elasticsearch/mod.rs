//! The search cluster: Elasticsearch or OpenSearch, through the HTTP interface both share.
//!
//! I/O shell. Nothing here decides what may be acknowledged: a lane's [`writer`] hands back the receipt
//! that the core made from the server's answer.

pub mod breaker;
pub mod client;
pub mod dead_letter;
pub mod delivery;
pub mod gate;
pub mod index;
pub mod letter;
mod mailbox;
pub mod retry;
pub mod scan;
pub mod sender;
pub mod state;
pub mod target;
pub mod truncate;
pub mod unanswered;
pub mod writer;
