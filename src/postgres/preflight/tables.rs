//! What tables of the publication, or missing from it, stand in the way of.

use super::facts::{PublishedDetails, ServerFacts};
use crate::findings::Problem;
use crate::pgoutput::relation::ReplicaIdentity;
use crate::postgres::catalog::{PublicationFacts, PublishedTable};
use crate::postgres::sql::{identifier, qualified};
use crate::settings::TableSettings;

/// A configured table that the publication does not have; `kind` and persistence as the catalog has them.
pub(super) fn unpublished(
    table: &TableSettings,
    kind: Option<(char, char)>,
    publication: &str,
    facts: PublicationFacts,
) -> Problem {
    let (name, publication) = (qualified(&table.schema, &table.table), identifier(publication));
    match kind {
        None => Problem::new(
            format!("table {name} does not exist"),
            "correct its name under tables in the configuration",
        ),
        Some(('p', _)) if !facts.via_root => Problem::new(
            format!("publication {publication} names the partitions of {name}, not the table"),
            format!("ALTER PUBLICATION {publication} SET (publish_via_partition_root = true);"),
        ),
        Some(('r' | 'p', 'u')) => Problem::new(
            format!("table {name} is not logged, so it cannot be published"),
            format!("ALTER TABLE {name} SET LOGGED;"),
        ),
        Some(('r' | 'p', 't')) => {
            Problem::new(format!("table {name} is temporary, so it cannot be published"), REMOVE_IT)
        }
        Some(('r' | 'p', _)) => Problem::new(
            format!("table {name} is not in publication {publication}"),
            format!("ALTER PUBLICATION {publication} ADD TABLE {name};"),
        ),
        Some((kind, _)) => Problem::new(
            format!("{name} is not a table but {}: it cannot be published", kind_name(kind)),
            REMOVE_IT,
        ),
    }
}

const REMOVE_IT: &str = "remove it from tables in the configuration";

fn kind_name(kind: char) -> &'static str {
    match kind {
        'v' => "a view",
        'm' => "a materialized view",
        'f' => "a foreign table",
        'S' => "a sequence",
        'i' | 'I' => "an index",
        'c' => "a type",
        _ => "something else",
    }
}

/// What makes the application's own writes fail, whoever reads the publication.
pub(super) fn detail_problems(table: &PublishedDetails) -> Vec<Problem> {
    let name = qualified(&table.schema, &table.name);
    let mut problems = Vec::new();
    if !table.filter_outside.is_empty() {
        let columns: Vec<String> = table.filter_outside.iter().map(|it| identifier(it)).collect();
        problems.push(Problem::new(
            format!(
                "the publication's row filter of table {name} uses {}, which the replica identity \
                 does not cover: updates and deletes of the table fail",
                columns.join(", ")
            ),
            format!("ALTER TABLE {name} REPLICA IDENTITY FULL;"),
        ));
    }
    if table.list_too_short {
        problems.push(Problem::new(
            format!(
                "the publication's column list of table {name} leaves out columns of its replica \
                 identity, which is FULL: updates and deletes of the table fail"
            ),
            format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"),
        ));
    }
    problems
}

pub(super) fn table_problems(
    table: &PublishedTable,
    server: &ServerFacts,
    publication: &str,
) -> Vec<Problem> {
    let (name, role) = (table.sql_name(), identifier(&server.role_name));
    let mut problems: Vec<Problem> = key_problem(table, &name, publication).into_iter().collect();
    if table.relation.identity == ReplicaIdentity::Nothing {
        problems.push(Problem::new(
            format!("table {name} has no replica identity: updates and deletes of it fail"),
            format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"),
        ));
    }
    if !table.may_use_schema {
        problems.push(Problem::new(
            format!("role {role} may not use schema {}", identifier(&table.relation.schema)),
            format!("GRANT USAGE ON SCHEMA {} TO {role};", identifier(&table.relation.schema)),
        ));
    }
    if !table.may_select {
        problems.push(Problem::new(
            format!("role {role} may not read table {name}"),
            format!("GRANT SELECT ON TABLE {name} TO {role};"),
        ));
    }
    if table.has_row_security {
        problems.push(Problem::new(
            format!(
                "row-level security of table {name} binds role {role}: the load would miss rows"
            ),
            format!("ALTER ROLE {role} BYPASSRLS;"),
        ));
    }
    problems
}

fn key_problem(table: &PublishedTable, name: &str, publication: &str) -> Option<Problem> {
    let key = || table.key.iter().map(|it| identifier(&it.name)).collect::<Vec<_>>().join(", ");
    if !table.unpublished_key.is_empty() {
        return Some(unpublished_key(table, name, publication));
    }
    if table.key.is_empty() && table.relation.identity == ReplicaIdentity::Index {
        return Some(Problem::new(
            format!("the index that is the replica identity of table {name} is gone"),
            format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"),
        ));
    }
    if table.key.is_empty() {
        let has_id = table.relation.columns.iter().any(|column| column.name == "id");
        let what = format!("table {name} has no primary key, so its rows have no document id");
        let fix = if has_id {
            format!("ALTER TABLE {name} ADD PRIMARY KEY (\"id\");")
        } else {
            format!(
                "ALTER TABLE {name} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
            )
        };
        return Some(Problem::new(what, fix));
    }
    table.key_is_deferrable.then(|| {
        let index = format!("waldex_key_{}", table.relation.oid);
        Problem::new(
            format!(
                "the key of table {name} is deferrable: two rows may hold the same key \
            for a moment"
            ),
            format!(
                "CREATE UNIQUE INDEX {index} ON {name} ({}); ALTER TABLE {name} REPLICA \
                 IDENTITY USING INDEX \
                 {index};",
                key()
            ),
        )
    })
}

/// A column list or a generated column: the stream carries the key only in part.
fn unpublished_key(table: &PublishedTable, name: &str, publication: &str) -> Problem {
    let missing: Vec<String> =
        table.unpublished_key.iter().map(|column| identifier(column)).collect();
    if !table.has_column_list {
        let publication = identifier(publication);
        return Problem::new(
            format!(
                "column {} of the key of table {name} is generated, and not published",
                missing.join(", ")
            ),
            format!(
                "ALTER PUBLICATION {publication} SET (publish_generated_columns = stored); before \
                 PostgreSQL 18: a key of other columns"
            ),
        );
    }
    let columns = table.relation.columns.iter().map(|column| identifier(&column.name));
    let columns: Vec<String> = missing.into_iter().chain(columns).collect();
    Problem::new(
        format!("the publication's column list of table {name} leaves out columns of its key"),
        republish(table, publication, &format!(" ({})", columns.join(", "))),
    )
}

/// The SQL that gives a table of the publication another column list, or none.
pub(super) fn republish(table: &PublishedTable, publication: &str, columns: &str) -> String {
    let (name, publication) = (table.sql_name(), identifier(publication));
    let filter = table.row_filter.as_ref().map(|it| format!(" WHERE ({it})")).unwrap_or_default();
    // In one transaction: what is committed between the two would not be published.
    format!(
        "BEGIN; ALTER PUBLICATION {publication} DROP TABLE {name}; ALTER PUBLICATION {publication} ADD TABLE \
         {name}{columns}{filter}; COMMIT;"
    )
}
