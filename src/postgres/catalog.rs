//! What the catalog says of publication, tables, types and server. The queries are the files under
//! `sql/catalog`; each tells who runs it and with which rights.
//!
//! Names are compared exactly and travel as parameters.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::document::types::TypeFacts;
use crate::lsn::Lsn;
use crate::run::vitals::OldTransaction;
use crate::visibility::Snapshot;

use super::PostgresError;
pub use super::published::{KeyColumn, Partition, PublishedTable, RelationKind, published_tables};
use super::session::Session;

const PUBLICATION_SQL: &str = include_str!("../../sql/catalog/publication.sql");
const TYPES_SQL: &str = include_str!("../../sql/catalog/types.sql");
const TABLE_EXISTS_SQL: &str = include_str!("../../sql/catalog/table_exists.sql");
const OLDEST_TRANSACTION_SQL: &str = include_str!("../../sql/catalog/oldest_transaction.sql");
const BLOCKERS_SQL: &str = include_str!("../../sql/catalog/blockers.sql");
const WAITS_FOR_CLIENT_SQL: &str = include_str!("../../sql/catalog/waits_for_client.sql");
const FILLED_SQL: &str = include_str!("../../sql/catalog/filled.sql");
const SYNC_STATE_SQL: &str = include_str!("../../sql/catalog/sync_state.sql");
const WRITERS_SQL: &str = include_str!("../../sql/catalog/writers.sql");

const WAIT_BRIEFLY: &str = "SET lock_timeout = '1s'";
/// As it is pinned.
const WAIT_FOR_EVER: &str = "SET lock_timeout = 0";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What a publication publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicationFacts {
    /// Inserts.
    pub insert: bool,
    /// Updates.
    pub update: bool,
    /// Deletes.
    pub delete: bool,
    /// Truncates.
    pub truncate: bool,
    /// Partitions appear as their root.
    pub via_root: bool,
    /// `FOR ALL TABLES`.
    pub all_tables: bool,
}

impl PublicationFacts {
    /// The operations it does not publish, by their names in SQL.
    pub fn left_out(self) -> Vec<&'static str> {
        let operations = [
            (self.insert, "insert"),
            (self.update, "update"),
            (self.delete, "delete"),
            (self.truncate, "truncate"),
        ];
        operations.iter().filter(|(is, _)| !is).map(|(_, operation)| *operation).collect()
    }
}

/// One column of a row, with a typed error instead of a panic.
pub(super) fn field<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, PostgresError> {
    Ok(row.try_get(name)?)
}

pub(super) fn letter(row: &Row, name: &str) -> Result<char, PostgresError> {
    let text: &str = field(row, name)?;
    text.chars()
        .next()
        .ok_or_else(|| PostgresError::Protocol(format!("catalog field \"{name}\" is empty")))
}

/// What the publication publishes; `None` if there is none of that name.
///
/// # Errors
/// The session's.
pub async fn publication(
    session: &Session,
    name: &str,
) -> Result<Option<PublicationFacts>, PostgresError> {
    let Some(row) = session.row(PUBLICATION_SQL, &[&name]).await? else {
        return Ok(None);
    };
    Ok(Some(PublicationFacts {
        insert: field(&row, "pubinsert")?,
        update: field(&row, "pubupdate")?,
        delete: field(&row, "pubdelete")?,
        truncate: field(&row, "pubtruncate")?,
        via_root: field(&row, "pubviaroot")?,
        all_tables: field(&row, "puballtables")?,
    }))
}

/// A catalog column of type `"char"`: all that is looked at here are ASCII.
fn ascii(row: &Row, name: &str) -> Result<u8, PostgresError> {
    let letter = letter(row, name)?;
    u8::try_from(letter)
        .map_err(|_| PostgresError::Protocol(format!("'{letter}' as {name} in the catalog")))
}

/// The types with these OIDs and all they are made of. An OID that does not exist is left out.
///
/// # Errors
/// The session's.
pub async fn type_facts(session: &Session, oids: &[u32]) -> Result<Vec<TypeFacts>, PostgresError> {
    let rows = session.rows(TYPES_SQL, &[&oids]).await?;
    rows.iter()
        .map(|row| {
            Ok(TypeFacts {
                oid: field(row, "oid")?,
                typtype: ascii(row, "kind")?,
                category: ascii(row, "category")?,
                base_oid: field(row, "base")?,
                element_oid: field(row, "element")?,
                delimiter: ascii(row, "delimiter")?,
                subtype_oid: field(row, "subtype")?,
                is_hstore: field(row, "is_hstore")?,
            })
        })
        .collect()
}

/// An LSN that the catalog printed.
pub(super) fn lsn(text: &str) -> Result<Lsn, PostgresError> {
    text.parse().map_err(|_| PostgresError::Protocol("an LSN in another form".to_owned()))
}

/// How far WAL is flushed: what was committed before this question is at or before the answer.
///
/// # Errors
/// The session's; 55000 on a standby.
pub async fn flush_lsn(session: &Session) -> Result<Lsn, PostgresError> {
    position(session, "SELECT pg_catalog.pg_current_wal_flush_lsn()::text").await
}

/// Where WAL ends, flushed or not: whatever a snapshot has seen that was taken before this question is at or before
/// the answer. With `synchronous_commit = off` commits are seen before they are flushed.
///
/// # Errors
/// The session's; 55000 on a standby.
pub async fn insert_lsn(session: &Session) -> Result<Lsn, PostgresError> {
    position(session, "SELECT pg_catalog.pg_current_wal_insert_lsn()::text").await
}

async fn position(session: &Session, sql: &str) -> Result<Lsn, PostgresError> {
    lsn(session.client.query_one(sql, &[]).await?.try_get(0)?)
}

/// The kind (`pg_class.relkind`) of the relation of exactly that name, and its persistence: `p`, `u`
/// (not logged) or `t` (temporary); `None` if there is no such relation.
///
/// # Errors
/// The session's.
pub async fn relation_kind(
    session: &Session,
    schema: &str,
    name: &str,
) -> Result<Option<(char, char)>, PostgresError> {
    let row = session.row(TABLE_EXISTS_SQL, &[&schema, &name]).await?;
    row.map(|row| Ok((letter(&row, "kind")?, letter(&row, "persistence")?))).transpose()
}

/// The transactions that hold a writer's lock on the table now, with their process (0 for a prepared one).
///
/// # Errors
/// The session's.
pub async fn writers(
    session: &Session,
    table_oid: u32,
) -> Result<BTreeMap<String, i32>, PostgresError> {
    let rows = session.rows(WRITERS_SQL, &[&table_oid]).await?;
    rows.iter().map(|row| Ok((field(row, "writer")?, field(row, "pid")?))).collect()
}

/// `synchronous_standby_names` as it is now; empty where commits wait for nobody.
///
/// # Errors
/// The session's.
pub async fn synchronous_standby_names(session: &Session) -> Result<String, PostgresError> {
    let sql = "SELECT pg_catalog.current_setting('synchronous_standby_names')";
    Ok(session.client.query_one(sql, &[]).await?.try_get(0)?)
}

/// Whether any of these tables has rows, or may have: one that is locked is not waited for.
///
/// # Errors
/// The session's.
pub async fn has_rows(session: &Session, tables: &[u32]) -> Result<bool, PostgresError> {
    session.client.batch_execute(WAIT_BRIEFLY).await?;
    let row = session.row(FILLED_SQL, &[&tables]).await;
    session.client.batch_execute(WAIT_FOR_EVER).await?;
    match row {
        Ok(row) => row.map_or(Ok(true), |row| field(&row, "is_filled")),
        Err(PostgresError::Server(error)) if error.sqlstate == LOCK_NOT_AVAILABLE => Ok(true),
        Err(error) => Err(error),
    }
}

/// What a statement sees now.
///
/// # Errors
/// The session's.
pub async fn current_snapshot(session: &Session) -> Result<Snapshot, PostgresError> {
    let sql = "SELECT pg_catalog.pg_current_snapshot()::text";
    let row = session.client.query_one(sql, &[]).await?;
    Snapshot::parse(row.try_get(0)?)
        .ok_or_else(|| PostgresError::Protocol("a snapshot in another form".to_owned()))
}

/// The transaction before whose end the WAL kept by a slot cannot go, if any is open.
///
/// # Errors
/// The session's.
pub async fn oldest_transaction(
    session: &Session,
) -> Result<Option<OldTransaction>, PostgresError> {
    let row = session.row(OLDEST_TRANSACTION_SQL, &[]).await?;
    row.map(|row| Ok(OldTransaction { who: field(&row, "who")?, seconds: field(&row, "seconds")? }))
        .transpose()
}

/// The transactions that a process waits for.
///
/// # Errors
/// The session's.
pub async fn blockers(session: &Session, pid: i32) -> Result<Vec<OldTransaction>, PostgresError> {
    let rows = session.rows(BLOCKERS_SQL, &[&pid]).await?;
    let blocker =
        |row| Ok(OldTransaction { who: field(row, "who")?, seconds: field(row, "seconds")? });
    rows.iter().map(blocker).collect()
}

/// Whether a walsender waits, and would answer; none if there is no such process.
///
/// # Errors
/// The session's.
pub async fn waits_for_client(session: &Session, pid: i32) -> Result<Option<bool>, PostgresError> {
    let row = session.row(WAITS_FOR_CLIENT_SQL, &[&pid]).await?;
    row.map(|row| field(&row, "waits")).transpose()
}

/// `async`, `sync`, `quorum` or `potential`; none where our role may not see it, or there is no such walsender.
///
/// # Errors
/// The session's.
pub async fn sync_state(session: &Session, pid: i32) -> Result<Option<String>, PostgresError> {
    let row = session.row(SYNC_STATE_SQL, &[&pid]).await?;
    Ok(row.map(|row| field(&row, "sync_state")).transpose()?.flatten())
}
