//! Faults: whatever breaks, nothing is lost, and what was confirmed to Postgres was in the index before.

pub(in crate::e2e) mod arena;
mod freeze;
mod kill;
pub(in crate::e2e) mod load;
mod opensearch;
pub(in crate::e2e) mod scene;
mod search_wire;
pub(in crate::e2e) mod supervised;
pub(in crate::e2e) mod watcher;
