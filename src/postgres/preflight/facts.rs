//! What preflight asks the catalog for, beyond what a run needs.

use tokio_postgres::Row;

use crate::lsn::Lsn;
use crate::postgres::PostgresError;
use crate::postgres::catalog::{field, lsn};
use crate::postgres::session::Session;

const SERVER_SQL: &str = include_str!("../../../sql/catalog/server.sql");
const PUBLISHED_DETAILS_SQL: &str = include_str!("../../../sql/catalog/published_details.sql");
const UNLOGGED_SQL: &str = include_str!("../../../sql/catalog/unlogged.sql");

/// What the server is, how it is set up, and what our role may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerFacts {
    /// As 180003.
    pub(super) version_num: i32,
    /// As `UTF8`.
    pub(super) server_encoding: String,
    /// `minimal`, `replica` or `logical`.
    pub(super) wal_level: String,
    /// `max_replication_slots`.
    pub(super) slots_max: i32,
    /// Slots that exist.
    pub(super) slots_used: i32,
    /// `max_wal_senders`.
    pub(super) senders_max: i32,
    /// Walsenders that run.
    pub(super) senders_used: i32,
    /// Whether this is a standby.
    pub(super) in_recovery: bool,
    /// How far WAL is flushed (on a standby: replayed).
    pub(super) flush_lsn: Lsn,
    /// As configured.
    pub(super) synchronous_standby_names: String,
    /// Application names of the walsenders that run; `…` for one that our role may not see.
    pub(super) connected_standbys: Vec<String>,
    /// `max_slot_wal_keep_size`, with unit; `-1` for no limit.
    pub(super) slot_wal_keep: String,
    /// `idle_replication_slot_timeout`, with unit; `0` where there is none.
    pub(super) idle_slot_timeout: String,
    /// Physical slots, by name.
    pub(super) physical_slots: Vec<String>,
    /// `synchronized_standby_slots`, as configured.
    pub(super) synchronized_slots: String,
    /// Walsenders that read no logical slot: standbys, mostly.
    pub(super) standbys_count: i32,
    /// The database of this session.
    pub(super) database: String,
    /// Our role.
    pub(super) role_name: String,
    /// Whether it has REPLICATION.
    pub(super) may_replicate: bool,
    /// Whether it is a member of `rds_replication`, which grants the same; none where there is no such role.
    pub(super) is_granted_replication: Option<bool>,
    /// Whether it is a superuser.
    pub(super) is_superuser: bool,
    /// Whether row-level security does not bind it.
    pub(super) bypasses_row_security: bool,
}

/// What else is to be known of a published table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublishedDetails {
    /// Its schema.
    pub(super) schema: String,
    /// Its name.
    pub(super) name: String,
    /// Columns of the publication's row filter that the replica identity does not cover: the
    /// application's own updates and deletes fail.
    pub(super) filter_outside: Vec<String>,
    /// Whether the identity is FULL and the column list leaves columns out: they fail likewise.
    pub(super) list_too_short: bool,
    /// Generated columns that are not in the stream.
    pub(super) generated: Vec<String>,
    /// Whether it has values that an update which leaves them alone does not carry.
    pub(super) large: bool,
}

/// What the server is and what our role may do.
///
/// # Errors
/// The session's.
pub(super) async fn server_facts(session: &Session) -> Result<ServerFacts, PostgresError> {
    let row = session
        .row(SERVER_SQL, &[])
        .await?
        .ok_or_else(|| PostgresError::Protocol("the catalog does not know our role".to_owned()))?;
    Ok(ServerFacts {
        version_num: field(&row, "version_num")?,
        server_encoding: field(&row, "server_encoding")?,
        wal_level: field(&row, "wal_level")?,
        slots_max: field(&row, "slots_max")?,
        slots_used: field(&row, "slots_used")?,
        senders_max: field(&row, "senders_max")?,
        senders_used: field(&row, "senders_used")?,
        in_recovery: field(&row, "in_recovery")?,
        flush_lsn: lsn(field(&row, "flush_lsn")?)?,
        synchronous_standby_names: field(&row, "synchronous_standby_names")?,
        connected_standbys: field(&row, "connected_standbys")?,
        slot_wal_keep: field(&row, "slot_wal_keep")?,
        idle_slot_timeout: field(&row, "idle_slot_timeout")?,
        physical_slots: field(&row, "physical_slots")?,
        synchronized_slots: field(&row, "synchronized_slots")?,
        standbys_count: field(&row, "standbys_count")?,
        database: field(&row, "database")?,
        role_name: field(&row, "role_name")?,
        may_replicate: field(&row, "may_replicate")?,
        is_granted_replication: field(&row, "is_granted_replication")?,
        is_superuser: field(&row, "is_superuser")?,
        bypasses_row_security: field(&row, "bypasses_row_security")?,
    })
}

/// What is not told of a table that is kept, but should be known before a start.
///
/// # Errors
/// The session's.
pub(super) async fn published_details(
    session: &Session,
    publication: &str,
) -> Result<Vec<PublishedDetails>, PostgresError> {
    let rows = session.rows(PUBLISHED_DETAILS_SQL, &[&publication]).await;
    let rows = rows.map_err(PostgresError::of_reading)?;
    let details = |row: &Row| {
        Ok(PublishedDetails {
            schema: field(row, "schema")?,
            name: field(row, "name")?,
            filter_outside: field(row, "filter_outside")?,
            list_too_short: field(row, "list_too_short")?,
            generated: field(row, "generated")?,
            large: field(row, "large")?,
        })
    };
    rows.iter().map(details).collect()
}

/// Schema and name of each table that `FOR ALL TABLES` leaves out.
///
/// # Errors
/// The session's.
pub(super) async fn unlogged_tables(
    session: &Session,
) -> Result<Vec<(String, String)>, PostgresError> {
    let rows = session.rows(UNLOGGED_SQL, &[]).await?;
    rows.iter().map(|row| Ok((field(row, "schema")?, field(row, "name")?))).collect()
}
