//! What the catalog says of publication, tables, types and server. The queries are the files under
//! `sql/catalog`; each tells who runs it and with which rights.
//!
//! Names are compared exactly and travel as parameters.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::document::types::TypeFacts;
use crate::lsn::Lsn;
use crate::pgoutput::relation::{Column, Relation, ReplicaIdentity};
use crate::run::vitals::OldTransaction;
use crate::visibility::Snapshot;

use super::PostgresError;
use super::session::Session;
use super::sql;

const PUBLICATION_SQL: &str = include_str!("../../sql/catalog/publication.sql");
const PUBLISHED_TABLES_SQL: &str = include_str!("../../sql/catalog/published_tables.sql");
const PUBLISHED_COLUMNS_SQL: &str = include_str!("../../sql/catalog/published_columns.sql");
const TYPES_SQL: &str = include_str!("../../sql/catalog/types.sql");
const SERVER_SQL: &str = include_str!("../../sql/catalog/server.sql");
const TABLE_EXISTS_SQL: &str = include_str!("../../sql/catalog/table_exists.sql");
const OLDEST_TRANSACTION_SQL: &str = include_str!("../../sql/catalog/oldest_transaction.sql");
const SYNC_STATE_SQL: &str = include_str!("../../sql/catalog/sync_state.sql");
const WRITERS_SQL: &str = include_str!("../../sql/catalog/writers.sql");

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

/// What a relation is, of the kinds that can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    /// An ordinary table or a single partition.
    Table,
    /// The root of partitions.
    Partitioned,
}

/// One column of a table's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// The column's name.
    pub name: String,
    /// Its type as SQL, with modifier: `character varying(20)`, `"my schema"."My Type"`.
    pub type_name: String,
    /// How the key's index orders it, as SQL: `OPERATOR(pg_catalog.<)`.
    pub less: String,
    /// Its equality, likewise.
    pub equal: String,
    /// The reverse of `less`, likewise.
    pub greater: String,
}

/// A published table as the stream will describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    /// Name and published columns, in the order of the tuples, with identity flags.
    pub relation: Relation,
    /// The columns of the identity index if one is set, else of the primary key, in index order;
    /// empty if there is none, or if not all of them are published.
    pub key: Vec<KeyColumn>,
    /// The columns of that key that are not published.
    pub unpublished_key: Vec<String>,
    /// Whether that key is checked at commit only, so that two rows may hold it for a moment.
    pub key_is_deferrable: bool,
    /// Ordinary or partitioned.
    pub kind: RelationKind,
    /// The row that puts it into the publication: another one after it was taken out and put back.
    pub membership_oid: u32,
    /// Whether row-level security hides rows from our role.
    pub has_row_security: bool,
    /// The publication's row filter, as SQL over the table's columns.
    pub row_filter: Option<String>,
    /// Whether the publication names columns.
    pub has_column_list: bool,
    /// Whether our role may read the published columns.
    pub may_select: bool,
    /// Whether our role may use the table's schema.
    pub may_use_schema: bool,
}

impl PublishedTable {
    /// `"schema"."table"`, quoted.
    pub fn sql_name(&self) -> String {
        sql::qualified(&self.relation.schema, &self.relation.name)
    }
}

/// What the server is, how it is set up, and what our role may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// As 180003.
    pub version_num: i32,
    /// As `UTF8`.
    pub server_encoding: String,
    /// `minimal`, `replica` or `logical`.
    pub wal_level: String,
    /// `max_replication_slots`.
    pub slots_max: i32,
    /// Slots that exist.
    pub slots_used: i32,
    /// `max_wal_senders`.
    pub senders_max: i32,
    /// Walsenders that run.
    pub senders_used: i32,
    /// Whether this is a standby.
    pub in_recovery: bool,
    /// How far WAL is flushed (on a standby: replayed).
    pub flush_lsn: Lsn,
    /// As configured.
    pub synchronous_standby_names: String,
    /// Application names of the walsenders that run; `…` for one that our role may not see.
    pub connected_standbys: Vec<String>,
    /// `max_slot_wal_keep_size`, with unit; `-1` for no limit.
    pub slot_wal_keep: String,
    /// The database of this session.
    pub database: String,
    /// Our role.
    pub role_name: String,
    /// Whether it has REPLICATION.
    pub may_replicate: bool,
    /// Whether it is a superuser.
    pub is_superuser: bool,
    /// Whether row-level security does not bind it.
    pub bypasses_row_security: bool,
}

/// One column of a row, with a typed error instead of a panic.
pub(super) fn field<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, PostgresError> {
    Ok(row.try_get(name)?)
}

fn letter(row: &Row, name: &str) -> Result<char, PostgresError> {
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

/// The tables of the publication, by schema and name.
///
/// # Errors
/// The session's.
pub async fn published_tables(
    session: &Session,
    publication: &str,
) -> Result<Vec<PublishedTable>, PostgresError> {
    let mut columns: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
    for row in session.rows(PUBLISHED_COLUMNS_SQL, &[&publication]).await? {
        columns.entry(field(&row, "relation_oid")?).or_default().push(row);
    }
    let tables = session.rows(PUBLISHED_TABLES_SQL, &[&publication]).await?;
    tables
        .iter()
        .map(|row| {
            let oid = field(row, "oid")?;
            published_table(row, oid, columns.get(&oid).map_or(&[], Vec::as_slice))
        })
        .collect()
}

fn published_table(row: &Row, oid: u32, columns: &[Row]) -> Result<PublishedTable, PostgresError> {
    let mut key: Vec<(i32, KeyColumn)> = Vec::new();
    let mut relation = Relation {
        oid,
        schema: field(row, "schema")?,
        name: field(row, "name")?,
        identity: replica_identity(letter(row, "identity")?)?,
        columns: Vec::with_capacity(columns.len()),
    };
    for column in columns {
        let name: String = field(column, "name")?;
        if let Some(place) = field::<Option<i32>>(column, "key_place")? {
            let key_column = KeyColumn {
                name: name.clone(),
                type_name: field(column, "type_name")?,
                less: field(column, "less")?,
                equal: field(column, "equal")?,
                greater: field(column, "greater")?,
            };
            key.push((place, key_column));
        }
        relation.columns.push(Column {
            name,
            type_oid: field(column, "type_oid")?,
            type_modifier: field(column, "type_modifier")?,
            in_identity: field(column, "in_identity")?,
        });
    }
    key.sort_by_key(|(place, _)| *place);
    let mut unpublished_key: Vec<String> = field(row, "key_names")?;
    unpublished_key.retain(|name| !key.iter().any(|(_, column)| column.name == *name));
    if !unpublished_key.is_empty() {
        key.clear();
    }
    Ok(PublishedTable {
        relation,
        key: key.into_iter().map(|(_, column)| column).collect(),
        unpublished_key,
        key_is_deferrable: field(row, "key_is_deferrable")?,
        kind: if letter(row, "kind")? == 'p' {
            RelationKind::Partitioned
        } else {
            RelationKind::Table
        },
        membership_oid: field(row, "membership_oid")?,
        has_row_security: field(row, "has_row_security")?,
        row_filter: field(row, "row_filter")?,
        has_column_list: field(row, "has_column_list")?,
        may_select: field(row, "may_select")?,
        may_use_schema: field(row, "may_use_schema")?,
    })
}

fn replica_identity(code: char) -> Result<ReplicaIdentity, PostgresError> {
    match code {
        'd' => Ok(ReplicaIdentity::Default),
        'n' => Ok(ReplicaIdentity::Nothing),
        'f' => Ok(ReplicaIdentity::Full),
        'i' => Ok(ReplicaIdentity::Index),
        other => Err(PostgresError::Protocol(format!("replica identity '{other}' in the catalog"))),
    }
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

/// What the server is and what our role may do.
///
/// # Errors
/// The session's.
pub async fn server_facts(session: &Session) -> Result<ServerFacts, PostgresError> {
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
        database: field(&row, "database")?,
        role_name: field(&row, "role_name")?,
        may_replicate: field(&row, "may_replicate")?,
        is_superuser: field(&row, "is_superuser")?,
        bypasses_row_security: field(&row, "bypasses_row_security")?,
    })
}

/// How far WAL is flushed: what was committed before this question is at or before the answer.
///
/// # Errors
/// The session's; 55000 on a standby.
pub async fn flush_lsn(session: &Session) -> Result<Lsn, PostgresError> {
    let row =
        session.client.query_one("SELECT pg_catalog.pg_current_wal_flush_lsn()::text", &[]).await?;
    lsn(row.try_get(0)?)
}

/// The kind (`pg_class.relkind`) of the relation of exactly that name, and whether its changes are
/// in the WAL; `None` if there is no such relation.
///
/// # Errors
/// The session's.
pub async fn relation_kind(
    session: &Session,
    schema: &str,
    name: &str,
) -> Result<Option<(char, bool)>, PostgresError> {
    let row = session.row(TABLE_EXISTS_SQL, &[&schema, &name]).await?;
    row.map(|row| Ok((letter(&row, "kind")?, field(&row, "is_logged")?))).transpose()
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

/// `async`, `sync`, `quorum` or `potential`; none where our role may not see it, or there is no such walsender.
///
/// # Errors
/// The session's.
pub async fn sync_state(session: &Session, pid: i32) -> Result<Option<String>, PostgresError> {
    let row = session.row(SYNC_STATE_SQL, &[&pid]).await?;
    Ok(row.map(|row| field(&row, "sync_state")).transpose()?.flatten())
}
