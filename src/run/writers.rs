//! Before a table is read, the transactions that were writing to it are waited for.
//!
//! A commit is in the WAL, and may have been streamed and confirmed, before any snapshot shows it: for moments
//! always, and for long when it waits for a synchronous standby. Such a commit would be in neither the load nor
//! the stream. Its transaction holds its locks until it is visible, so once the holders of a writer's lock are
//! gone, everything the stream has passed can be read. One that has not committed yet need not be waited for:
//! its commit is still to come in the stream. From outside the two look alike, so without synchronous standbys
//! the wait is short.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::postgres::PostgresError;
use crate::postgres::catalog;
use crate::postgres::session::Session;

/// Without a synchronous standby a commit becomes visible within moments; what still holds its lock then has
/// not committed.
const UNSYNCHRONISED_WAIT_MAX: Duration = Duration::from_secs(3);
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(250);
/// A long wait names whom it waits for after this time, and then this often.
const SAY_FIRST: Duration = Duration::from_secs(1);
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// Waits until every transaction that writes to the table now has ended, or cannot have committed.
///
/// # Errors
/// The session's.
pub(crate) async fn wait_for_writers(
    session: &Session,
    table_oid: u32,
) -> Result<(), PostgresError> {
    let mut awaited = catalog::writers(session, table_oid).await?;
    if awaited.is_empty() {
        return Ok(());
    }
    let is_bounded = catalog::synchronous_standby_names(session).await?.is_empty();
    let began = Instant::now();
    let (mut say_at, mut pause) = (began + SAY_FIRST, POLL_MIN);
    while !awaited.is_empty() {
        if is_bounded && began.elapsed() >= UNSYNCHRONISED_WAIT_MAX {
            debug!(pids = ?pids(&awaited), "open transactions write to the table: their commits will be streamed");
            return Ok(());
        }
        if Instant::now() >= say_at {
            warn!(
                pids = ?pids(&awaited),
                "the load waits for transactions that write to the table: one may be waiting for a synchronous \
                 standby"
            );
            say_at = Instant::now() + SAY_INTERVAL;
        }
        sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
        let now = catalog::writers(session, table_oid).await?;
        awaited.retain(|writer, _| now.contains_key(writer));
    }
    Ok(())
}

fn pids(writers: &BTreeMap<String, i32>) -> Vec<i32> {
    writers.values().copied().collect()
}
