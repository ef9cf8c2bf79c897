//! Faults: whatever breaks, nothing is lost, and what was confirmed to Postgres was in the index before.

mod search_wire;
