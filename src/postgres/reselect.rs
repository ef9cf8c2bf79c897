//! Reading single columns of one row again, for values that an update left unchanged out of line
//! and the stream therefore does not carry (TOAST).
//!
//! The answer comes with the statement's own snapshot. Decoding can hand us a commit before new
//! snapshots on the primary see it, so "there is no such row" counts only if the change's
//! transaction is visible in that snapshot.
//!
//! The row may owe something to transactions that the stream has not brought yet, and that a failover could still
//! undo: the position up to which it may is asked for in the same statement, after its snapshot.

use super::PostgresError;
use super::catalog::PublishedTable;
use super::copy_text::fields;
use super::session::Session;
use super::snapshot::{check_key, copy, key_value, source};
use super::sql::identifier;
use crate::lsn::Lsn;
use crate::visibility::Snapshot;

/// What the statement saw.
pub struct Reselected {
    /// When it looked.
    pub snapshot: Snapshot,
    /// Where the newest commit that it may have seen ends, flushed or not.
    pub seen: Lsn,
    /// The asked columns in the asked order, as their types print them, `None` for NULL; no row if
    /// there is none of that key.
    pub row: Option<Vec<Option<Vec<u8>>>>,
}

/// Reads `columns` of the row whose key has these texts, in the order of the table's key. The
/// publication's row filter does not apply: the row was published.
///
/// `session` should be for `Purpose::Snapshot`.
///
/// # Errors
/// The session's, or an answer of another shape.
pub async fn reselect(
    session: &Session,
    table: &PublishedTable,
    columns: &[&str],
    key: &[&[u8]],
) -> Result<Reselected, PostgresError> {
    check_key(table, key.len())?;
    let odd = |what: &str| PostgresError::Protocol(format!("a re-select answered {what}"));
    let mut lines = copy(session, &reselect_sql(table, columns, key)).await?;
    let line = lines.next().await?.ok_or_else(|| odd("nothing"))?;
    if lines.next().await?.is_some() {
        return Err(odd("with several rows for one key"));
    }
    let mut values = fields(&line);
    let snapshot = values
        .next()
        .flatten()
        .and_then(|text| Snapshot::parse(std::str::from_utf8(&text).ok()?))
        .ok_or_else(|| odd("without a snapshot"))?;
    let seen = values
        .next()
        .flatten()
        .and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok())
        .ok_or_else(|| odd("without a position"))?;
    let found = values.next().flatten().is_some();
    let row: Vec<_> = values.map(|value| value.map(std::borrow::Cow::into_owned)).collect();
    if row.len() != columns.len() {
        return Err(odd("with another number of columns"));
    }
    Ok(Reselected { snapshot, seen, row: found.then_some(row) })
}

/// One line in any case: snapshot and position, then a mark that is NULL where there is no row.
fn reselect_sql(table: &PublishedTable, columns: &[&str], key: &[&[u8]]) -> String {
    let outer: String = (0..columns.len()).map(|place| format!(", found.c{place}")).collect();
    let inner: String = columns
        .iter()
        .enumerate()
        .map(|(place, column)| format!(", {} AS c{place}", identifier(column)))
        .collect();
    let conditions: Vec<String> = table
        .key
        .iter()
        .zip(key)
        .map(|(column, text)| {
            format!("{} {} {}", identifier(&column.name), column.equal, key_value(column, text))
        })
        .collect();
    format!(
        "COPY (SELECT pg_catalog.pg_current_snapshot(), pg_catalog.pg_current_wal_insert_lsn(), \
         found.mark{outer} FROM (SELECT 1) AS one \
         LEFT JOIN (SELECT 1 AS mark{inner} FROM {} WHERE {}) AS found ON true) TO STDOUT",
        source(table),
        conditions.join(" AND ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::table;
    use super::*;

    #[test]
    fn asks_for_snapshot_and_row_in_one_statement() {
        assert_eq!(
            reselect_sql(&table(), &["v", "a"], &[b"x'", b"7"]),
            "COPY (SELECT pg_catalog.pg_current_snapshot(), pg_catalog.pg_current_wal_insert_lsn(), \
             found.mark, found.c0, found.c1 FROM (SELECT 1) AS one \
             LEFT JOIN (SELECT 1 AS mark, \"v\" AS c0, \"a\" AS c1 \
             FROM ONLY \"pub\"\"lic\".\"t.1\" WHERE \
             \"B c\" OPERATOR(pg_catalog.=) 'x'''::character varying(9) \
             AND \"a\" OPERATOR(pg_catalog.=) '7'::integer) AS found ON true) TO STDOUT"
        );
    }
}
