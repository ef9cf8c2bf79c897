//! The search cluster: Elasticsearch or OpenSearch, through the HTTP interface both share.
//!
//! I/O shell. Nothing here decides what may be acknowledged: a lane's [`writer`] hands back the receipt
//! that the core made from the server's answer.

pub mod client;
pub mod index;
pub mod retry;
pub mod state;
pub mod truncate;
pub mod writer;
