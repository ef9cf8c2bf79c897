//! The replication slot, seen from an ordinary session.

use crate::lsn::Lsn;

use super::PostgresError;
use super::catalog::{field, lsn};
use super::session::Session;

const SLOT_SQL: &str = include_str!("../../sql/catalog/slot.sql");
const SLOT_DROP_SQL: &str = include_str!("../../sql/catalog/slot_drop.sql");

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
    /// Whether standbys may keep a copy of it (17 and newer).
    pub failover: Option<bool>,
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
            failover: None,
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
        failover: field(&row, "failover")?,
    }))
}

/// Drops the slot, and with it the promise that its changes can still be had.
///
/// # Errors
/// 55006 if it is in use, 42704 if there is none.
pub async fn drop(session: &Session, slot: &str) -> Result<(), PostgresError> {
    session.rows(SLOT_DROP_SQL, &[&slot]).await.map(|_| ())
}
