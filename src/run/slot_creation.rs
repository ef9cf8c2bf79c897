//! The slot is made once for each start that needs one, and never in a loop.
//!
//! The server waits for every transaction that is open then, in whatever database: those are named. Whoever gives
//! up meanwhile cancels it there, because a walsender does not notice that its client has gone, and would leave
//! a slot behind that keeps WAL for nobody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, interval_at, sleep, timeout};
use tracing::{info, warn};

use super::locks;
use crate::error::Error;
use crate::lsn::Lsn;
use crate::postgres::PostgresError;
use crate::postgres::replication::Replication;
use crate::postgres::session::{Purpose, Session};
use crate::postgres::slot;
use crate::settings::PostgresSettings;

/// A wait so long is worth a line.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How long giving up may take.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(3);
const ABANDON_POLL: Duration = Duration::from_millis(50);

/// The slot that is being made, if one is; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Making(Arc<Mutex<Option<(String, i32)>>>);

impl Making {
    fn note(&self, making: Option<(String, i32)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = making;
    }

    /// Cancels what was not finished; call it once the future that made the slot has been dropped.
    pub(crate) async fn abandon(&self, settings: &PostgresSettings) {
        let under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((name, pid)) = under_way else { return };
        match timeout(ABANDON_TIMEOUT, cancel(settings, &name, pid)).await {
            Ok(Ok(())) => info!(slot = name, "stopped: the slot was not made"),
            Ok(Err(error)) => warn!(%error, slot = name, "the server may still make the slot"),
            Err(_) => warn!(slot = name, "the server may still make the slot"),
        }
    }
}

async fn cancel(settings: &PostgresSettings, name: &str, pid: i32) -> Result<(), PostgresError> {
    let session = Session::connect(settings, Purpose::Control).await?;
    while slot::inspect(&session, name).await?.is_some_and(|slot| slot.active_pid == Some(pid)) {
        slot::cancel(&session, name, pid).await?;
        sleep(ABANDON_POLL).await;
    }
    Ok(())
}

/// Creates the slot over a connection that is then done.
pub(crate) async fn create_slot(
    settings: &PostgresSettings,
    session: &Session,
    making: &Making,
) -> Result<Lsn, Error> {
    let mut replication = Replication::connect(settings, session.encoding()).await?;
    create_over(&mut replication, session, &settings.slot, false, making).await
}

/// Creates a slot over this connection; a temporary one ends with it.
pub(crate) async fn create_over(
    replication: &mut Replication,
    session: &Session,
    name: &str,
    temporary: bool,
    making: &Making,
) -> Result<Lsn, Error> {
    let pid = replication.process_id();
    info!(slot = name, "creating the slot; this waits for every transaction that runs now to end");
    making.note(Some((name.to_owned(), pid)));
    let creating = replication.create_slot(name, temporary);
    tokio::pin!(creating);
    let mut looks = interval_at(Instant::now() + FIRST_LOOK, LOOK_INTERVAL);
    let made = loop {
        tokio::select! {
            made = &mut creating => break made,
            _ = looks.tick() => name_blockers(session, name, pid).await,
        }
    };
    making.note(None);
    let consistent_point = made.map_err(Error::SlotNotMade)?;
    info!(slot = name, %consistent_point, "slot created");
    Ok(consistent_point)
}

async fn name_blockers(session: &Session, name: &str, pid: i32) {
    for blocker in locks::blockers(session, pid).await {
        warn!(
            slot = name,
            transaction = blocker.who,
            transaction_seconds = blocker.seconds,
            "the slot waits for a transaction that was open before: it is made once that has ended"
        );
    }
}
