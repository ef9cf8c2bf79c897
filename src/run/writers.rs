//! Before a table is read, the transactions that were writing to it are waited for.
//!
//! A commit is in the WAL, and may have been streamed and confirmed, before any snapshot shows it: for moments
//! always, and for long when it waits for a synchronous standby. Such a commit would be in neither the load nor
//! the stream. Its transaction holds its locks until it is visible, so once the holders of a writer's lock are
//! gone, everything the stream has passed can be read.
//!
//! One that has not committed yet is waited for as well, however long it takes: what it wrote before the table was
//! published, or while the publication published less, is never streamed (pgoutput judges each change by the catalog
//! as of that change), and no snapshot shows it before it commits. Where that is not in question, only those that
//! may have committed are waited for: without a synchronous standby a commit becomes visible within moments.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::postgres::PostgresError;
use crate::postgres::catalog;
use crate::postgres::session::Session;

/// What still holds its lock then, without a synchronous standby, has not committed.
const UNSYNCHRONISED_WAIT_MAX: Duration = Duration::from_secs(3);
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(250);
/// A long wait names whom it waits for after this time, and then this often.
const SAY_FIRST: Duration = Duration::from_secs(1);
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// Waits until every transaction that writes to the table now has ended.
///
/// # Errors
/// The session's.
pub(crate) async fn wait_for_writers(
    session: &Session,
    table_oid: u32,
) -> Result<(), PostgresError> {
    let awaited = catalog::writers(session, table_oid).await?;
    wait(session, table_oid, awaited, Duration::MAX).await
}

/// Waits until every transaction that writes to the table now has ended, or cannot have committed.
///
/// # Errors
/// The session's.
pub(crate) async fn wait_for_commits(
    session: &Session,
    table_oid: u32,
) -> Result<(), PostgresError> {
    let awaited = catalog::writers(session, table_oid).await?;
    if awaited.is_empty() {
        return Ok(());
    }
    let is_synchronous = !catalog::synchronous_standby_names(session).await?.is_empty();
    let at_most = if is_synchronous { Duration::MAX } else { UNSYNCHRONISED_WAIT_MAX };
    wait(session, table_oid, awaited, at_most).await
}

async fn wait(
    session: &Session,
    table_oid: u32,
    mut awaited: BTreeMap<String, i32>,
    at_most: Duration,
) -> Result<(), PostgresError> {
    let began = Instant::now();
    let (mut say_at, mut pause) = (began + SAY_FIRST, POLL_MIN);
    while !awaited.is_empty() && began.elapsed() < at_most {
        if Instant::now() >= say_at {
            warn!(
                pids = ?pids(&awaited),
                "waiting for transactions that write to the table: they are open, or wait for a synchronous \
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
