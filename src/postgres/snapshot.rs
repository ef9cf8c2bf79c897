//! Reading a table in chunks, each one statement of its own.
//!
//! A chunk is one COPY in key order on a session for [`super::session::Purpose::Snapshot`]: every
//! statement of such a session is a read-only transaction of its own, so nothing is held between
//! chunks, and giving one up in the middle leaves nothing open. What the publication filters is
//! filtered here too.

use bytes::Bytes;
use futures_util::StreamExt;
use std::pin::Pin;
use tokio_postgres::CopyOutStream;

use super::PostgresError;
use super::catalog::{KeyColumn, PublishedTable, RelationKind};
use super::copy_text::LineSplitter;
use super::session::Session;
use super::sql::{bytes_literal, identifier};

/// The rows of one chunk, as lines of COPY text; see [`super::copy_text::fields`].
pub struct CopyLines {
    stream: Pin<Box<CopyOutStream>>,
    splitter: LineSplitter,
}

impl CopyLines {
    /// The next row without its newline; `None` at the end of the chunk.
    ///
    /// # Errors
    /// The session's, or a chunk that ends within a row.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PostgresError> {
        loop {
            if let Some(line) = self.splitter.next_line() {
                return Ok(Some(line));
            }
            match self.stream.next().await {
                Some(chunk) => self.splitter.push(chunk?),
                None if self.splitter.is_drained() => return Ok(None),
                None => return Err(PostgresError::Protocol("a copy ends within a row".to_owned())),
            }
        }
    }
}

/// Starts reading at most `rows_max` rows in key order, those after the key `after` (its texts, in
/// the order of the table's key), or from the first. The fields of a line are the table's published
/// columns in the order of its relation.
///
/// The table must have a key. `session` should be for `Purpose::Snapshot`.
///
/// # Errors
/// The session's; 42501 if row-level security would hide rows from our role.
pub async fn copy_chunk(
    session: &Session,
    table: &PublishedTable,
    after: Option<&[Vec<u8>]>,
    rows_max: u64,
) -> Result<CopyLines, PostgresError> {
    check_key(table, after.map_or(table.key.len(), <[Vec<u8>]>::len))?;
    copy(session, &chunk_sql(table, after, rows_max)).await
}

pub(super) async fn copy(session: &Session, sql: &str) -> Result<CopyLines, PostgresError> {
    let stream = session.client.copy_out(sql).await?;
    Ok(CopyLines { stream: Box::pin(stream), splitter: LineSplitter::default() })
}

/// Where the rows of the table itself stand: a child that inherits from it is published under its
/// own name, the partitions of a root under the root's.
pub(super) fn source(table: &PublishedTable) -> String {
    match table.kind {
        RelationKind::Table => format!("ONLY {}", table.sql_name()),
        RelationKind::Partitioned => table.sql_name(),
    }
}

/// A key's text as a value of the column's type.
pub(super) fn key_value(column: &KeyColumn, text: &[u8]) -> String {
    format!("{}::{}", bytes_literal(text), column.type_name)
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn chunk_sql(table: &PublishedTable, after: Option<&[Vec<u8>]>, rows_max: u64) -> String {
    let columns = list(table.relation.columns.iter().map(|column| identifier(&column.name)));
    let order =
        list(table.key.iter().map(|key| format!("{} USING {}", identifier(&key.name), key.less)));
    let conditions: Vec<String> = (table.row_filter.iter().map(|filter| format!("({filter})")))
        .chain(after.map(|after| after_key(&table.key, after)))
        .collect();
    let filter = if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    };
    format!(
        "COPY (SELECT {columns} FROM {}{filter} ORDER BY {order} LIMIT {rows_max}) TO STDOUT",
        source(table)
    )
}

/// The condition "the key is greater than `after`". One comparison of rows where all columns share
/// an operator, which an index scan can start from; else the same written out, column by column.
fn after_key(key: &[KeyColumn], after: &[Vec<u8>]) -> String {
    let compare = |operator: &str, column: &KeyColumn, text: &[u8]| {
        format!("{} {operator} {}", identifier(&column.name), key_value(column, text))
    };
    match key {
        [only] => after.iter().map(|text| compare(&only.greater, only, text)).collect(),
        [first, rest @ ..] if rest.iter().all(|column| column.greater == first.greater) => {
            let names = list(key.iter().map(|column| identifier(&column.name)));
            let values = list(key.iter().zip(after).map(|(column, text)| key_value(column, text)));
            format!("ROW({names}) {} ROW({values})", first.greater)
        }
        _ => {
            let alternatives = (0..key.len()).map(|place| {
                let columns = key.iter().zip(after).take(place + 1).enumerate();
                let terms: Vec<String> = columns
                    .map(|(at, (column, text))| {
                        let operator = if at < place { &column.equal } else { &column.greater };
                        compare(operator, column, text)
                    })
                    .collect();
                terms.join(" AND ")
            });
            format!("({})", alternatives.collect::<Vec<_>>().join(" OR "))
        }
    }
}

/// Refuses a key that is not the table's: SQL built from it would select other rows.
pub(super) fn check_key(table: &PublishedTable, parts: usize) -> Result<(), PostgresError> {
    if !table.key.is_empty() && table.key.len() == parts {
        return Ok(());
    }
    Err(PostgresError::Protocol(format!(
        "the key of {} has {} columns, and {parts} values are given",
        table.sql_name(),
        table.key.len()
    )))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pgoutput::relation::{Column, Relation, ReplicaIdentity};

    pub(in crate::postgres) fn table() -> PublishedTable {
        let column = |name: &str| Column {
            name: name.to_owned(),
            type_oid: 25,
            type_modifier: -1,
            in_identity: false,
        };
        let key = |name: &str, type_name: &str| KeyColumn {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            less: "OPERATOR(pg_catalog.<)".to_owned(),
            equal: "OPERATOR(pg_catalog.=)".to_owned(),
            greater: "OPERATOR(pg_catalog.>)".to_owned(),
        };
        PublishedTable {
            relation: Relation {
                oid: 1,
                schema: "pub\"lic".to_owned(),
                name: "t.1".to_owned(),
                identity: ReplicaIdentity::Default,
                columns: vec![column("a"), column("B c"), column("v")],
            },
            numbers: vec![2, 1, 3],
            key: vec![key("B c", "character varying(9)"), key("a", "integer")],
            unpublished_key: Vec::new(),
            key_is_deferrable: false,
            kind: RelationKind::Table,
            membership_oid: 1,
            membership: String::new(),
            has_row_security: false,
            row_filter: None,
            has_column_list: false,
            may_select: true,
            may_use_schema: true,
            partitions: Vec::new(),
        }
    }

    #[test]
    fn the_first_chunk_has_no_lower_bound() {
        assert_eq!(
            chunk_sql(&table(), None, 10),
            "COPY (SELECT \"a\", \"B c\", \"v\" FROM ONLY \"pub\"\"lic\".\"t.1\" \
             ORDER BY \"B c\" USING OPERATOR(pg_catalog.<), \"a\" USING OPERATOR(pg_catalog.<) \
             LIMIT 10) TO STDOUT"
        );
    }

    #[test]
    fn a_later_chunk_starts_after_the_key_and_keeps_the_filter() {
        let filtered = PublishedTable {
            row_filter: Some("(v > 1) OR (v < 0)".to_owned()),
            kind: RelationKind::Partitioned,
            ..table()
        };
        assert_eq!(
            chunk_sql(&filtered, Some(&[b"it's \\".to_vec(), b"7".to_vec()]), 2),
            "COPY (SELECT \"a\", \"B c\", \"v\" FROM \"pub\"\"lic\".\"t.1\" \
             WHERE ((v > 1) OR (v < 0)) AND ROW(\"B c\", \"a\") OPERATOR(pg_catalog.>) \
             ROW(E'it''s \\\\'::character varying(9), '7'::integer) \
             ORDER BY \"B c\" USING OPERATOR(pg_catalog.<), \"a\" USING OPERATOR(pg_catalog.<) \
             LIMIT 2) TO STDOUT"
        );
    }

    #[test]
    fn a_key_of_several_kinds_is_compared_column_by_column() {
        let mut mixed = table();
        mixed.key[0].greater = "OPERATOR(public.>)".to_owned();
        assert_eq!(
            after_key(&mixed.key, &[b"x".to_vec(), b"7".to_vec()]),
            "(\"B c\" OPERATOR(public.>) 'x'::character varying(9) OR \
             \"B c\" OPERATOR(pg_catalog.=) 'x'::character varying(9) AND \
             \"a\" OPERATOR(pg_catalog.>) '7'::integer)"
        );
        assert_eq!(
            after_key(&mixed.key[..1], &[b"x".to_vec()]),
            "\"B c\" OPERATOR(public.>) 'x'::character varying(9)"
        );
        assert!(check_key(&mixed, 1).is_err() && check_key(&mixed, 2).is_ok());
    }
}
