//! Faults: whatever breaks, nothing is lost, and what was confirmed to Postgres was in the index before.

mod arena;
mod freeze;
mod kill;
mod load;
mod scene;
mod search_wire;
mod supervised;
mod watcher;
