//! What a table must be like for its documents to be routed by one of its columns.
//!
//! A document is found by its id and its routing, so each change must tell the routing that the row had: a delete
//! without it finds nothing, and is answered like one of a document that is gone already.

use crate::findings::Problem;
use crate::settings::TableSettings;

use super::super::PostgresError;
use super::super::catalog::{PublishedTable, field};
use super::super::session::Session;
use super::super::sql::identifier;
use super::tables::republish;

pub(super) const ROUTING_SQL: &str = include_str!("../../../sql/catalog/routing.sql");

/// What the catalog says of a table and the column that it is routed by.
struct Facts {
    is_not_null: bool,
    /// Table or partitions, as SQL, whose old rows lack the column.
    lacking: Vec<String>,
}

/// Why the documents of `found` cannot be routed as configured.
///
/// # Errors
/// The session's.
pub(super) async fn problems(
    session: &Session,
    table: &TableSettings,
    found: &PublishedTable,
    publication: &str,
) -> Result<Vec<Problem>, PostgresError> {
    let Some(column) = &table.routing else { return Ok(Vec::new()) };
    if !found.relation.columns.iter().any(|published| published.name == *column) {
        return Ok(vec![unpublished(found, column, publication)]);
    }
    let Some(row) = session.row(ROUTING_SQL, &[&found.relation.oid, &column]).await? else {
        return Ok(Vec::new());
    };
    let facts =
        Facts { is_not_null: field(&row, "is_not_null")?, lacking: field(&row, "lacking")? };
    Ok(judged(found, column, &facts, publication))
}

fn judged(found: &PublishedTable, column: &str, facts: &Facts, publication: &str) -> Vec<Problem> {
    let (name, quoted) = (found.sql_name(), identifier(column));
    let mut problems = Vec::new();
    if !facts.is_not_null {
        problems.push(Problem::new(
            format!(
                "column {quoted} of table {name}, which its documents are routed by, may be NULL"
            ),
            format!("ALTER TABLE {name} ALTER COLUMN {quoted} SET NOT NULL;"),
        ));
    }
    if !facts.lacking.is_empty() {
        let which = match facts.lacking.as_slice() {
            [only] if *only == name => String::new(),
            parts => format!(" of {}", parts.join(", ")),
        };
        let parts: Vec<&str> = facts.lacking.iter().map(String::as_str).collect();
        problems.push(Problem::new(
            format!(
                "column {quoted} of table {name}, which its documents are routed by, is not in the replica \
                 identity{which}: a delete would not find its document"
            ),
            whole_old_rows(found, &parts, publication),
        ));
    }
    problems
}

/// The SQL by which these parts of `found`, or itself, log old rows whole.
pub(super) fn whole_old_rows(found: &PublishedTable, parts: &[&str], publication: &str) -> String {
    let alter = |part: &&str| format!("ALTER TABLE {part} REPLICA IDENTITY FULL;");
    let mut sql: Vec<String> = parts.iter().map(alter).collect();
    if found.has_column_list {
        // Of a table with a whole old row no part can be published: its updates would fail.
        sql.insert(0, republish(found, publication, ""));
    }
    sql.join(" ")
}

fn unpublished(found: &PublishedTable, column: &str, publication: &str) -> Problem {
    let (name, quoted) = (found.sql_name(), identifier(column));
    let what = format!(
        "column {quoted} of table {name}, which its documents are routed by, does not exist or is not published"
    );
    if !found.has_column_list {
        return Problem::new(what, "correct tables[].routing in the configuration");
    }
    Problem::new(what, republish(found, publication, ""))
}
