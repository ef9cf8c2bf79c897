//! The published tables, as the catalog describes them and as the stream will.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tracing::debug;

use crate::pgoutput::relation::{Column, Relation, ReplicaIdentity};

use super::PostgresError;
use super::catalog::{field, letter};
use super::session::Session;
use super::sql;

const PUBLISHED_TABLES_SQL: &str = include_str!("../../sql/catalog/published_tables.sql");
const PUBLISHED_COLUMNS_SQL: &str = include_str!("../../sql/catalog/published_columns.sql");
const PUBLISHED_SCHEMAS_SQL: &str = include_str!("../../sql/catalog/published_schemas.sql");

/// A publication can have whole schemas since this version.
const SCHEMAS_SINCE_MAJOR: u32 = 15;

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

/// A partition of a published root, at any level below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// `pg_class.oid`.
    pub oid: u32,
    /// `pg_class.relfilenode`; 0 for one that is partitioned itself.
    pub file: u32,
    /// Whether it was a table before it was a partition.
    pub is_attached: bool,
}

/// A published table as the stream will describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    /// Name and published columns, in the order of the tuples, with identity flags.
    pub relation: Relation,
    /// `pg_attribute.attnum` of each column: another one of the same name is another column.
    pub numbers: Vec<i16>,
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
    /// Another text where the publication may have left out changes of the table for a while.
    pub membership: String,
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
    /// Of a partitioned one.
    pub partitions: Vec<Partition>,
}

impl PublishedTable {
    /// `"schema"."table"`, quoted.
    pub fn sql_name(&self) -> String {
        sql::qualified(&self.relation.schema, &self.relation.name)
    }
}

/// How often the catalog is read while tables are dropped beside that, at most.
const READS_MAX: u32 = 5;

/// The tables of the publication, by schema and name.
///
/// Tables come and go between the query for their columns and the one for themselves, and within each: functions of
/// the catalog look at it as it is, and not as the statement sees it. One that was not there throughout is left out,
/// and the next look meets it whole.
///
/// # Errors
/// The session's.
pub async fn published_tables(
    session: &Session,
    publication: &str,
) -> Result<Vec<PublishedTable>, PostgresError> {
    for _ in 1..READS_MAX {
        match read_tables(session, publication).await {
            Err(error) if error.is_dropped_meanwhile() => {
                debug!(%error, "a table went while the publication was read: reading again");
            }
            read => return read,
        }
    }
    read_tables(session, publication).await.map_err(PostgresError::of_reading)
}

async fn read_tables(
    session: &Session,
    publication: &str,
) -> Result<Vec<PublishedTable>, PostgresError> {
    let mut columns: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
    for row in session.rows(PUBLISHED_COLUMNS_SQL, &[&publication]).await? {
        columns.entry(field(&row, "relation_oid")?).or_default().push(row);
    }
    let schemas = published_schemas(session, publication).await?;
    let mut tables = Vec::new();
    for row in session.rows(PUBLISHED_TABLES_SQL, &[&publication]).await? {
        if is_dropped(&row)? {
            continue;
        }
        let oid = field(&row, "oid")?;
        let columns = columns.get(&oid).map(Vec::as_slice).unwrap_or_default();
        let mut table = published_table(&row, oid, columns)?;
        if table.relation.columns.is_empty() && !table.unpublished_key.is_empty() {
            continue;
        }
        let own: Vec<u32> = field(&row, "schemas")?;
        for (membership, _) in schemas.iter().filter(|(_, schema)| own.contains(schema)) {
            table.membership.push_str(&format!(" in {membership}"));
        }
        tables.push(table);
    }
    Ok(tables)
}

/// Whether the table, or its schema, went while the statement ran: then nothing can be said of the rights on it.
fn is_dropped(row: &Row) -> Result<bool, PostgresError> {
    let (table, schema) = ("may_select", "may_use_schema");
    let rights: [Option<bool>; 2] = [field(row, table)?, field(row, schema)?];
    Ok(rights.contains(&None))
}

/// What puts a schema into the publication, and the schema.
async fn published_schemas(
    session: &Session,
    publication: &str,
) -> Result<Vec<(u32, u32)>, PostgresError> {
    if session.major_version() < SCHEMAS_SINCE_MAJOR {
        return Ok(Vec::new());
    }
    let rows = session.rows(PUBLISHED_SCHEMAS_SQL, &[&publication]).await?;
    rows.iter().map(|row| Ok((field(row, "oid")?, field(row, "schema_oid")?))).collect()
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
    let mut numbers = Vec::with_capacity(columns.len());
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
        numbers.push(field(column, "number")?);
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
        numbers,
        key: key.into_iter().map(|(_, column)| column).collect(),
        unpublished_key,
        key_is_deferrable: field(row, "key_is_deferrable")?,
        kind: if letter(row, "kind")? == 'p' {
            RelationKind::Partitioned
        } else {
            RelationKind::Table
        },
        membership_oid: field(row, "membership_oid")?,
        membership: field(row, "membership")?,
        has_row_security: field(row, "has_row_security")?,
        row_filter: field(row, "row_filter")?,
        has_column_list: field(row, "has_column_list")?,
        may_select: field(row, "may_select")?,
        may_use_schema: field(row, "may_use_schema")?,
        partitions: partitions(row)?,
    })
}

fn partitions(row: &Row) -> Result<Vec<Partition>, PostgresError> {
    let oids: Vec<u32> = field(row, "partition_oids")?;
    let files: Vec<u32> = field(row, "partition_files")?;
    let attached: Vec<bool> = field(row, "partitions_attached")?;
    let all = oids.into_iter().zip(files).zip(attached);
    Ok(all.map(|((oid, file), is_attached)| Partition { oid, file, is_attached }).collect())
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
