//! The SQL of `waldex setup` and `waldex teardown`: the templates under `sql/`, filled in.
//!
//! Every name goes through [`super::sql`]. A statement is run by itself: a slot cannot be created
//! in a transaction that has written.

use std::collections::BTreeSet;

use crate::settings::{PostgresSettings, TableSettings};

use super::PostgresError;
use super::session::Session;
use super::sql::{dollar_quoted, identifier, literal, qualified};

const SETUP_TEMPLATE: &str = include_str!("../../sql/setup.sql");
const TEARDOWN_TEMPLATE: &str = include_str!("../../sql/teardown.sql");

/// The statements, each with its comment and without semicolon, that make what is missing: role,
/// rights, publication, slot. Without tables there is nothing to grant or to publish, and those
/// statements are left out.
pub fn setup_statements(settings: &PostgresSettings, tables: &[TableSettings]) -> Vec<String> {
    let names: Vec<String> = tables.iter().map(sql_name).collect();
    let schemas: BTreeSet<String> = tables.iter().map(|table| identifier(&table.schema)).collect();
    let values = [
        ("{role_block}", dollar_quoted(&role_block(&settings.user))),
        ("{publication_block}", dollar_quoted(&publication_block(&settings.publication, tables))),
        ("{role}", identifier(&settings.user)),
        ("{schemas}", schemas.into_iter().collect::<Vec<_>>().join(", ")),
        ("{tables}", names.join(", ")),
        ("{slot_block}", dollar_quoted(&slot_block(&settings.slot))),
    ];
    statements(SETUP_TEMPLATE)
        .filter(|statement| {
            let needs_tables = ["{tables}", "{schemas}", "{publication_block}"]
                .iter()
                .any(|it| statement.contains(it));
            !(tables.is_empty() && needs_tables)
        })
        .map(|statement| fill(statement, &values))
        .collect()
}

/// The statements that drop slot and publication.
pub fn teardown_statements(settings: &PostgresSettings) -> Vec<String> {
    let values = [
        ("{role}", identifier(&settings.user)),
        ("{slot_literal}", literal(&settings.slot)),
        ("{publication}", identifier(&settings.publication)),
    ];
    statements(TEARDOWN_TEMPLATE).map(|statement| fill(statement, &values)).collect()
}

/// The statements as a script for psql.
pub fn script(statements: &[String]) -> String {
    statements.iter().map(|statement| format!("{statement};\n")).collect::<Vec<_>>().join("\n")
}

/// The right to do it is missing.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Runs the statements one after the other, and goes on where a right is missing: whoever may, has done some of it
/// already, maybe. The messages of those that were refused. What was done before an error stays done.
///
/// # Errors
/// The session's.
pub async fn apply(session: &Session, statements: &[String]) -> Result<Vec<String>, PostgresError> {
    let mut refused = Vec::new();
    for statement in statements {
        let done = session.client.batch_execute(statement).await.map_err(PostgresError::from);
        match done {
            Ok(()) => {}
            Err(error) if error.sqlstate() == Some(INSUFFICIENT_PRIVILEGE) => {
                refused.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// The parts of a template that are statements, before anything is filled in.
fn statements(template: &'static str) -> impl Iterator<Item = &'static str> {
    let is_statement =
        |part: &&str| part.lines().any(|line| !line.trim().is_empty() && !line.starts_with("--"));
    template.split("\n\n").map(str::trim).filter(is_statement)
}

/// Puts the values in for the placeholders, in one pass: a value that looks like a placeholder
/// stays as it is.
fn fill(statement: &str, values: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(statement.len());
    let mut rest = statement;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some((name, value)) = values.iter().find(|(name, _)| from.starts_with(name)) {
            // A name may hold a line break, which would end a comment.
            let in_comment = out.rsplit('\n').next().is_some_and(|line| line.starts_with("--"));
            out.push_str(&if in_comment {
                value.replace(['\n', '\r'], " ")
            } else {
                value.clone()
            });
            rest = from.get(name.len()..).unwrap_or_default();
        } else {
            out.push('{');
            rest = from.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

/// On Amazon RDS and Aurora the attribute cannot be set, and a role grants the same.
fn role_block(role: &str) -> String {
    let (name, text) = (identifier(role), literal(role));
    format!(
        "BEGIN\n  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {text}) THEN\n    \
         CREATE ROLE {name} LOGIN;\n  END IF;\n  \
         IF NOT (SELECT rolreplication OR rolsuper \
         FROM pg_catalog.pg_roles WHERE rolname = {text}) THEN\n    \
         IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication') THEN\n      \
         ALTER ROLE {name} REPLICATION;\n    \
         ELSIF NOT pg_catalog.pg_has_role({text}, 'rds_replication', 'MEMBER') THEN\n      \
         GRANT rds_replication TO {name};\n    END IF;\n  END IF;\nEND"
    )
}

/// Makes the publication, or adds the tables that it lacks. A root whose partitions are published in its
/// place is in `pg_publication_rel` only, a table of a published schema in `pg_publication_tables` only.
fn publication_block(publication: &str, tables: &[TableSettings]) -> String {
    let (name, text) = (identifier(publication), literal(publication));
    let names: Vec<String> = tables.iter().map(sql_name).collect();
    let additions: String = tables
        .iter()
        .map(|table| {
            let table_name = sql_name(table);
            format!(
                "    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r \
                 JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE p.pubname = {text} \
                 AND r.prrelid = {}::regclass)\n      \
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_tables WHERE pubname = {text} \
                 AND schemaname = {} AND tablename = {}) THEN\n      \
                 ALTER PUBLICATION {name} ADD TABLE {table_name};\n    END IF;\n",
                literal(&table_name),
                literal(&table.schema),
                literal(&table.table),
            )
        })
        .collect();
    format!(
        "BEGIN\n  IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = {text}) THEN\n    \
         CREATE PUBLICATION {name} FOR TABLE {} WITH (publish_via_partition_root = true);\n  \
         ELSE\n{additions}  END IF;\nEND",
        names.join(", ")
    )
}

/// A call that a branch does not come to is not looked up: before 17 there is no fifth parameter.
fn slot_block(slot: &str) -> String {
    let text = literal(slot);
    format!(
        "BEGIN\n  IF EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = {text}) THEN\n    \
         NULL;\n  ELSIF pg_catalog.current_setting('server_version_num')::int >= 170000 THEN\n    \
         PERFORM pg_catalog.pg_create_logical_replication_slot({text}, 'pgoutput', false, false, true);\n  \
         ELSE\n    PERFORM pg_catalog.pg_create_logical_replication_slot({text}, 'pgoutput');\n  \
         END IF;\nEND"
    )
}

fn sql_name(table: &TableSettings) -> String {
    qualified(&table.schema, &table.table)
}

#[cfg(test)]
mod tests {
    use super::super::preflight::tests::settings;
    use super::*;

    #[test]
    fn every_placeholder_is_filled_and_every_name_quoted() {
        let tables = [
            TableSettings::with_defaults("we\"ird", "t;x"),
            TableSettings::with_defaults("b", "c"),
        ];
        let script = script(&setup_statements(&settings("r'\"{slot_literal}"), &tables));
        assert!(script.contains(
            "GRANT SELECT ON TABLE \"we\"\"ird\".\"t;x\", \"b\".\"c\" TO \"r'\"\"{slot_literal}\";"
        ));
        assert!(script.contains("rolname = 'r''\"{slot_literal}'"));
        assert_eq!(
            script.matches("{slot_literal}").count(),
            script.matches("\"{slot_literal}").count()
        );
        assert_eq!(setup_statements(&settings("r"), &tables).len(), 5);
        assert_eq!(teardown_statements(&settings("r")).len(), 2);
    }

    #[test]
    fn without_tables_nothing_is_granted_or_published() {
        let statements = setup_statements(&settings("r"), &[]);
        assert_eq!(statements.len(), 2);
        assert!(!script(&statements).contains("PUBLICATION \""));
    }

    #[test]
    fn a_line_break_in_a_name_does_not_end_a_comment() {
        let filled = fill("-- for {role}\nX {role}", &[("{role}", "\"a\nDROP\"".to_owned())]);
        assert_eq!(filled, "-- for \"a DROP\"\nX \"a\nDROP\"");
    }
}
