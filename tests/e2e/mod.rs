//! Tests against real servers.

mod admin;
mod changes;
mod commands;
mod continuity;
mod dead_letters;
mod dead_letters_command;
mod faults;
mod held;
mod load;
mod nodes;
mod obstacles;
mod quickstart;
mod refusals;
mod refusals_search;
mod refusals_tables;
mod resync;
mod schema;
mod smoke_servers;
mod values;
mod vectors;
mod visibility;
mod watch;
