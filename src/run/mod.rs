//! `waldex run`: preflight, load what is missing, stream for ever.
//!
//! I/O shell: connects the core to Postgres and the search cluster, and decides what a failure means: a
//! passing one is waited out with back-off, anything else ends the run with its reason.

mod begin;
mod connection;
pub(crate) mod continuity;
pub mod dry_run;
pub(crate) mod fitness;
pub(crate) mod foreign;
mod generations;
mod lanes;
mod letters;
mod load;
mod locks;
pub mod newcomers;
mod opening;
mod pace;
mod progress;
mod rebuild;
mod recorder;
pub mod schema;
mod settle;
pub mod shutdown;
mod silence;
mod slot_creation;
mod source_watch;
pub mod start;
mod stream;
mod summary;
pub mod tables;
mod turn;
pub mod vitals;
mod work;
pub(crate) mod writers;

use std::time::Duration;

use crate::cli::{Reload, Until};
use crate::pipeline::{BatchLimits, Limits};
use crate::settings::Settings;
pub use turn::run;

/// Requests of a lane that is not full are at least this far apart, so that single-row commits share one.
const PACE: Duration = Duration::from_millis(20);
/// What `run` was asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to end, if at all.
    pub until: Option<Until>,
    /// What to load again.
    pub reload: Reload,
}

impl Options {
    /// Whether this is a service, and not something to be done once.
    fn are_of_a_service(&self) -> bool {
        self.until.is_none() && self.reload == Reload::Nothing
    }
}

/// The limits that the settings mean.
pub(crate) fn limits(settings: &Settings) -> Limits {
    let search = &settings.elasticsearch;
    let pace = PACE.min(search.flush_interval);
    Limits {
        lanes: search.concurrency,
        batch: BatchLimits {
            documents_max: search.bulk_size,
            bytes_max: search.bulk_bytes,
            pace_ms: u64::try_from(pace.as_millis()).unwrap_or(u64::MAX),
        },
        memory_budget_bytes: settings.memory_budget_bytes,
    }
}

/// From 1970 to 2000, from which Postgres counts.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// Microseconds since 2000-01-01 UTC, as the protocol wants them and as commits are dated.
fn postgres_now_micros() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.saturating_sub(POSTGRES_EPOCH).as_micros()).unwrap_or(0)
}

/// Seconds since a time of Postgres, in microseconds since 2000-01-01 UTC; 0 if it is still to come.
pub(crate) fn seconds_since(micros: i64) -> u64 {
    let micros = postgres_now_micros().saturating_sub(micros);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs()
}
