//! waldex keeps Elasticsearch and OpenSearch equal to chosen PostgreSQL tables, by logical replication, and
//! never acknowledges a change before the search cluster has confirmed it.
//!
//! # The data's path
//!
//! ```text
//!  PostgreSQL                                                          Elasticsearch / OpenSearch
//!     │ CopyData                                                                    ▲ POST /_bulk
//!     ▼                                                                             │
//!  postgres::replication ──frame──▶ pgoutput ──message──▶ pipeline ──batch──▶ elasticsearch::writer
//!     ▲                                                 ▲    │   ▲                  │  (one a lane)
//!     │      postgres::snapshot ──row───────────────────┘    │   └──── receipt ─────┘
//!     │                                document (JSON, _id) ─┤
//!     │                                bulk (body, answer) ──┘
//!     └─ status ◀─ RecordedLsn ◀─ elasticsearch::state ◀─ DurableLsn ◀─ pipeline::frontier
//!
//!     I/O shell    │        pure core: no await, no clock, no socket        │        I/O shell
//! ```
//!
//! In words: frame → message → row → document bytes → batch → bulk request → outcome of every item → receipt
//! → durable LSN → recorded LSN → `confirmed_flush`. Rows flow one way; backwards go only numbers.
//!
//! # What always holds
//!
//! - **I1** At rest, the indices equal the projection of the published tables.
//! - **I2** `confirmed_flush` never passes a commit with a write that is not confirmed, superseded or in a dead
//!   letter:
//!   [`pipeline::DurableLsn`] is made from receipts, a [`bulk::batch::Receipt`] only from a batch whose every
//!   item the server confirmed, and Postgres is told only an [`elasticsearch::state::RecordedLsn`].
//! - **I3** `confirmed_flush` never goes back.
//! - **I4** Bytes in flight never exceed the budget by more than one frame.
//! - **I5** Two writes of one document reach the server in change order (one lane a document).
//! - **I6** A status goes out on time, also when every lane is stuck.
//! - **I7** After a crash at any point, replay from `confirmed_flush` restores I1 (versions are commit LSNs).
//! - **I8** No log line, error or `Debug` contains a column value or a secret.
//!
//! # Where to look
//!
//! Shell: [`cli`], [`config`] → [`settings`], [`run`] (life of the process), [`postgres`], [`elasticsearch`].
//! Core: [`pgoutput`], [`document`], [`bulk`], [`pipeline`], with [`lsn`] and [`visibility`]. [`error`] joins and
//! classifies every error. Whoever watches reads [`admin`], which shows [`run::vitals`].

pub mod admin;
pub mod bulk;
pub mod cli;
pub mod commands;
pub mod config;
pub mod document;
pub mod elasticsearch;
pub mod error;
pub mod findings;
pub mod logging;
pub mod lsn;
mod metrics;
pub mod pgoutput;
pub mod pipeline;
pub mod postgres;
pub mod run;
pub mod settings;
pub mod visibility;
