//! Tests against real servers.

mod changes;
mod faults;
mod smoke_servers;
mod visibility;
