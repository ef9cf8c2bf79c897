//! Tests against real servers.

mod changes;
mod smoke_servers;
