//! Tests against real servers.

mod smoke_servers;
