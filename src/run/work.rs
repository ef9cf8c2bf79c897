//! What the pipeline needs from the outside world while it is stalled: columns selected again, tables
//! emptied. One piece of work at a time, in a task of its own.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use super::locks::{LOOK_INTERVAL, names_holders};
use crate::elasticsearch::client::Client;
use crate::elasticsearch::truncate::remove_all;
use crate::elasticsearch::writer::{Event, Writer};
use crate::error::Error;
use crate::pipeline::{Pipeline, PipelineError, Reselect, Truncate, Work};
use crate::postgres::PostgresError;
use crate::postgres::catalog::PublishedTable;
use crate::postgres::reselect::{Reselected, reselect};
use crate::postgres::session::Session;

/// A commit can be decoded before new snapshots see it; it becomes visible within moments, unless it waits
/// for a synchronous standby: then the row is asked for less and less often.
const VISIBILITY_POLL_MIN: Duration = Duration::from_millis(5);
const VISIBILITY_POLL_MAX: Duration = Duration::from_secs(1);

/// The answer to a piece of work.
pub(crate) enum Done {
    Reselected(Reselected),
    Truncated,
}

impl Done {
    /// Lets the pipeline go on.
    pub(crate) fn give_to(self, pipeline: &mut Pipeline) -> Result<(), PipelineError> {
        match self {
            Self::Reselected(found) => pipeline.reselected(found.row, found.seen),
            Self::Truncated => pipeline.truncated(),
        }
    }
}

/// The connections that work is done over.
pub(crate) struct Working {
    /// Its end announces a shutdown of Postgres.
    control: Arc<Session>,
    /// Reads rows.
    session: Arc<Session>,
    tables: Arc<Vec<PublishedTable>>,
    /// None in a dry run, which removes nothing.
    search: Option<(Client, Writer)>,
    waiting: Option<Work>,
    running: Option<JoinHandle<Result<Done, Error>>>,
    /// Whether what runs writes to the cluster.
    writes: bool,
    signs: Signs,
}

/// Signs of life of what runs: each attempt, whatever becomes of it.
#[derive(Clone, Default)]
struct Signs(Arc<AtomicBool>);

impl Signs {
    fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Working {
    pub(crate) fn new(
        control: Session,
        session: Arc<Session>,
        tables: Vec<PublishedTable>,
        search: Option<(Client, Writer)>,
    ) -> Self {
        let tables = Arc::new(tables);
        Self {
            control: Arc::new(control),
            session,
            tables,
            search,
            waiting: None,
            running: None,
            writes: false,
            signs: Signs::default(),
        }
    }

    /// Takes on what the pipeline asked for; it asks for one thing at a time.
    pub(crate) fn add(&mut self, work: Work) {
        assert!(self.waiting.is_none() && self.running.is_none(), "one piece of work at a time");
        self.waiting = Some(work);
    }

    /// Starts what was taken on, if it may start: a truncate waits until every earlier write is confirmed.
    pub(crate) fn start_if_ready(&mut self, pipeline: &Pipeline) {
        let must_wait = |work: &mut Work| match work {
            Work::Truncate(_) => !pipeline.is_drained(),
            Work::Reselect(_) | Work::Replan(_) => false,
        };
        let Some(work) = self.waiting.take_if(|work| !must_wait(work)) else { return };
        let session = Arc::clone(&self.session);
        self.writes = matches!(work, Work::Truncate(_));
        self.running = Some(match work {
            Work::Reselect(row) => tokio::spawn(select_again(
                Arc::clone(&self.control),
                session,
                Arc::clone(&self.tables),
                row,
                self.signs.clone(),
            )),
            // Ends the stream before it could be taken on.
            Work::Replan(_) => return,
            Work::Truncate(truncate) => {
                tokio::spawn(empty(self.search.clone(), truncate, self.signs.clone()))
            }
        });
    }

    /// The answer, once there is one; for ever if nothing runs. Cancel-safe.
    pub(crate) async fn finished(&mut self) -> Result<Done, Error> {
        let Some(running) = &mut self.running else { return pending().await };
        let joined = running.await;
        self.running = None;
        match joined {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Whether something was attempted since the last call: a wait for the cluster or for a commit to be seen may
    /// take long, and is none that a new start would end.
    pub(crate) fn gave_sign(&self) -> bool {
        self.signs.0.swap(false, Ordering::Relaxed)
    }

    /// Whether requests may be on their way to the cluster.
    pub(crate) fn is_writing(&self) -> bool {
        self.writes && self.running.is_some()
    }

    /// Waits for a truncate under way, whose answer nobody wants any more. Its deletes have the version of
    /// whatever else its transaction writes: given up on their way, they could arrive after that. Cancel-safe.
    pub(crate) async fn settled(&mut self) {
        if self.is_writing() {
            // What it says of the index, the next attempt at the same truncate says again.
            drop(self.finished().await);
        }
    }

    /// Returns when the ordinary connection is gone: Postgres ends it first when it shuts down.
    pub(crate) fn session_closed(&self) -> impl Future<Output = ()> + use<> {
        let (control, session) = (self.control.closed(), self.session.closed());
        async move {
            tokio::select! {
                _ = control => {}
                _ = session => {}
            }
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn select_again(
    control: Arc<Session>,
    session: Arc<Session>,
    tables: Arc<Vec<PublishedTable>>,
    row: Reselect,
    signs: Signs,
) -> Result<Done, Error> {
    let odd = |what: &str| Error::Postgres(PostgresError::Protocol(what.to_owned()));
    let table = tables.iter().find(|table| table.relation.oid == row.relation.oid);
    let table =
        table.ok_or_else(|| odd("a change of a table that was made anew; load it again"))?;
    let columns: Vec<&str> = row.columns.iter().map(String::as_str).collect();
    let key: Vec<&[u8]> = row.key.iter().map(Vec::as_slice).collect();
    let mut pause = VISIBILITY_POLL_MIN;
    loop {
        let mut asked = pin!(reselect(&session, table, &columns, &key));
        let found = loop {
            tokio::select! {
                found = &mut asked => break found?,
                () = sleep(LOOK_INTERVAL) => {
                    if names_holders(&control, session.process_id()).await {
                        signs.give();
                    }
                }
            }
        };
        signs.give();
        // Until then the row is shown as it was before the transaction, which may have changed the very
        // column in an earlier statement; or it is not there under its new key.
        if found.snapshot.sees(row.xid) {
            return Ok(Done::Reselected(found));
        }
        sleep(pause).await;
        pause = (pause * 2).min(VISIBILITY_POLL_MAX);
    }
}

async fn empty(
    search: Option<(Client, Writer)>,
    truncate: Truncate,
    signs: Signs,
) -> Result<Done, Error> {
    let Some((client, writer)) = search else { return Ok(Done::Truncated) };
    for alias in &truncate.write_aliases {
        let tell = |event| {
            signs.give();
            if let Event::Waiting(waiting) = event {
                let (cause, reason) = (waiting.cause.name(), waiting.reason);
                warn!(cause, reason, attempts = waiting.attempts, "cannot empty the index yet");
            }
        };
        let removed = remove_all(&client, &writer, alias, truncate.version, tell).await?;
        info!(index = alias, documents = removed, "truncate: documents removed");
    }
    Ok(Done::Truncated)
}
