//! The replication slot, seen from an ordinary session.

use crate::lsn::Lsn;

use super::PostgresError;
use super::catalog::{field, lsn};
use super::session::Session;

const SLOT_SQL: &str = include_str!("../../sql/catalog/slot.sql");
const SLOT_CANCEL_SQL: &str = include_str!("../../sql/catalog/slot_cancel.sql");
const SLOT_FREE_SQL: &str = include_str!("../../sql/catalog/slot_free.sql");
const SLOT_DROP_SQL: &str = include_str!("../../sql/catalog/slot_drop.sql");

const SLOT_ADVANCE_SQL: &str = include_str!("../../sql/catalog/slot_advance.sql");

/// One slot, as `pg_replication_slots` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFacts {
    /// The output plugin; none for a physical slot.
    pub plugin: Option<String>,
    /// The database; none for a physical slot.
    pub database: Option<String>,
    /// The process that reads it now.
    pub active_pid: Option<i32>,
    /// The oldest WAL it keeps.
    pub restart_lsn: Option<Lsn>,
    /// What we have confirmed.
    pub confirmed_flush: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes that may still be written before the slot is lost; none without a limit.
    pub safe_wal_bytes: Option<i64>,
    /// Why it was invalidated, where the server tells (16 and newer).
    pub invalidation_reason: Option<String>,
    /// Bytes of WAL it keeps.
    pub retained_bytes: Option<i64>,
    /// Whether it ends with its connection.
    pub temporary: bool,
    /// Whether prepared transactions are sent before they are committed.
    pub two_phase: bool,
    /// Whether standbys may keep a copy of it (17 and newer).
    pub failover: Option<bool>,
    /// Whether it is such a copy (17 and newer).
    pub synced: Option<bool>,
    /// What the process that reads it calls itself; none where our role may not see it.
    pub reader: Option<String>,
}

impl SlotFacts {
    /// A sound slot of pgoutput that nobody reads.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self {
            plugin: Some("pgoutput".to_owned()),
            database: Some("app".to_owned()),
            active_pid: None,
            restart_lsn: None,
            confirmed_flush: None,
            wal_status: Some("reserved".to_owned()),
            safe_wal_bytes: None,
            invalidation_reason: None,
            retained_bytes: None,
            temporary: false,
            two_phase: false,
            failover: None,
            synced: None,
            reader: None,
        }
    }

    /// Whether the WAL it needs is gone, or the server gave it up for another reason.
    pub fn is_lost(&self) -> bool {
        self.lost_because().is_some()
    }

    /// Why the slot is of no use any more, as the server names it; `None` while it is.
    pub fn lost_because(&self) -> Option<String> {
        let lost = || self.wal_status.clone().filter(|status| status == "lost");
        self.invalidation_reason.clone().or_else(lost)
    }
}

/// The slot of that name, if there is one.
///
/// # Errors
/// The session's.
pub async fn inspect(session: &Session, slot: &str) -> Result<Option<SlotFacts>, PostgresError> {
    let Some(row) = session.row(SLOT_SQL, &[&slot]).await? else {
        return Ok(None);
    };
    let position = |name: &str| field::<Option<&str>>(&row, name)?.map(lsn).transpose();
    Ok(Some(SlotFacts {
        plugin: field(&row, "plugin")?,
        database: field(&row, "database")?,
        active_pid: field(&row, "active_pid")?,
        restart_lsn: position("restart_lsn")?,
        confirmed_flush: position("confirmed_flush_lsn")?,
        wal_status: field(&row, "wal_status")?,
        safe_wal_bytes: field(&row, "safe_wal_size")?,
        invalidation_reason: field(&row, "invalidation_reason")?,
        retained_bytes: field(&row, "retained_bytes")?,
        temporary: field(&row, "temporary")?,
        two_phase: field(&row, "two_phase")?,
        failover: field(&row, "failover")?,
        synced: field(&row, "synced")?,
        reader: field(&row, "reader")?,
    }))
}

/// Moves the slot to `position`, and with it past WAL that may not even be decodable any more, as from a time
/// when there was no publication. Gives where it stands then.
///
/// # Errors
/// 55006 if it is in use, 22023 if it stands further on, 42704 if there is none.
pub async fn advance(session: &Session, slot: &str, position: Lsn) -> Result<Lsn, PostgresError> {
    let missing = || PostgresError::Protocol("a slot was advanced to nowhere".to_owned());
    let row = session.row(SLOT_ADVANCE_SQL, &[&slot, &position.to_string()]).await?;
    lsn(field(&row.ok_or_else(missing)?, "end_lsn")?)
}

/// Drops the slot, and with it the promise that its changes can still be had.
///
/// # Errors
/// 55006 if it is in use, 42704 if there is none.
pub async fn drop(session: &Session, slot: &str) -> Result<(), PostgresError> {
    session.rows(SLOT_DROP_SQL, &[&slot]).await.map(|_| ())
}

/// Cancels the command of the process `pid`, if that is the one that has the slot.
///
/// # Errors
/// 42501 if it is another role's.
pub async fn cancel(session: &Session, slot: &str, pid: i32) -> Result<(), PostgresError> {
    session.rows(SLOT_CANCEL_SQL, &[&slot, &pid]).await.map(|_| ())
}

/// Ends the process `pid`, if that is the one that reads the slot; whether it was.
///
/// # Errors
/// 42501 if it is another role's.
pub async fn free(session: &Session, slot: &str, pid: i32) -> Result<bool, PostgresError> {
    Ok(!session.rows(SLOT_FREE_SQL, &[&slot, &pid]).await?.is_empty())
}
