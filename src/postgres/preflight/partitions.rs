//! What the partitions of a table must log for its documents to be found again.
//!
//! `ALTER TABLE … REPLICA IDENTITY` never reaches the partitions, and what an update logs is up to the partition that
//! holds the row: one whose identity lacks a column of the table's key sends no old key when that changes, and the
//! document of the old key would stay.

use std::collections::BTreeSet;

use crate::findings::Problem;

use super::super::PostgresError;
use super::super::catalog::{PublishedTable, field};
use super::super::session::Session;
use super::super::sql::identifier;
use super::routing::{ROUTING_SQL, whole_old_rows};

/// The partitions of `found` that do not log its key.
///
/// # Errors
/// The session's.
pub(super) async fn problems(
    session: &Session,
    found: &PublishedTable,
    publication: &str,
) -> Result<Option<Problem>, PostgresError> {
    if found.partitions.is_empty() {
        return Ok(None);
    }
    let name = found.sql_name();
    let mut lacking: BTreeSet<String> = BTreeSet::new();
    for column in &found.key {
        let row = session.row(ROUTING_SQL, &[&found.relation.oid, &column.name]).await?;
        let parts: Vec<String> = match &row {
            Some(row) => field(row, "lacking")?,
            None => Vec::new(),
        };
        // The table itself is told of elsewhere.
        lacking.extend(parts.into_iter().filter(|part| *part != name));
    }
    Ok((!lacking.is_empty()).then(|| judged(found, &name, &lacking, publication)))
}

fn judged(
    found: &PublishedTable,
    name: &str,
    lacking: &BTreeSet<String>,
    publication: &str,
) -> Problem {
    let key: Vec<String> = found.key.iter().map(|column| identifier(&column.name)).collect();
    let parts: Vec<&str> = lacking.iter().map(String::as_str).collect();
    Problem::new(
        format!(
            "the replica identity of {} lacks columns of the key of {name} ({}): an update of the key would leave \
             the old document behind",
            parts.join(", "),
            key.join(", ")
        ),
        whole_old_rows(found, &parts, publication),
    )
}
