//! Everything that talks to Postgres.
//!
//! Two kinds of connection: the replication connection is our own over `postgres-protocol`
//! (`wire`, `replication`), because the ordinary driver knows no CopyBoth; every other
//! statement goes through `tokio-postgres` (`session`). Both use one way of dialling
//! (`transport`), one TLS policy (`tls`) and the same pinned session settings (`pinned`), so
//! a value prints the same in the stream and in a copy.

mod auth;
pub mod catalog;
pub mod copy_text;
pub mod error;
pub mod pinned;
pub mod preflight;
mod published;
mod query;
pub mod replication;
pub mod reselect;
pub mod server_error;
pub mod session;
pub mod setup;
pub mod slot;
pub mod snapshot;
pub mod sql;
pub(crate) mod standbys;
pub mod timeline;
mod tls;
mod transport;
mod wire;

pub use error::PostgresError;
pub use server_error::ServerError;
