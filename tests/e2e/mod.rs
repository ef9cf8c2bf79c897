//! Tests against real servers.

mod changes;
mod faults;
mod refusals;
mod refusals_tables;
mod smoke_servers;
mod visibility;
