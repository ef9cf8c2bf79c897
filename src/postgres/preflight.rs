//! Every reason on Postgres' side why streaming would not work, before anything is started, each
//! with the command that removes it.
//!
//! Reads only. What each point protects from: without an immediate key a document has no stable id;
//! a table without replica identity makes the application's own UPDATE fail; a standby name that
//! matches us lets every commit on the primary wait for the search cluster.

use crate::pgoutput::relation::ReplicaIdentity;
use crate::settings::{PostgresSettings, TableSettings};

use super::PostgresError;
use super::catalog::{self, PublicationFacts, PublishedTable, ServerFacts};
use super::pinned::APPLICATION_NAME;
use super::session::Session;
use super::slot::{self, SlotFacts};
use super::sql::{identifier, literal, qualified};
use super::standbys::StandbyNames;

/// One thing that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one sentence.
    pub what: String,
    /// The SQL or command that puts it right.
    pub fix: String,
    /// Whether it may pass by itself, as a slot that another process reads.
    pub may_pass: bool,
    /// Whether `run --reload` puts it right.
    pub is_reloaded: bool,
}

impl Problem {
    fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into(), may_pass: false, is_reloaded: false }
    }
}

const PLUGIN: &str = "pgoutput";

/// All problems at once; none means that Postgres is ready. A missing slot is no problem, but then
/// one must be free. Without configured tables, every table of the publication is looked at.
///
/// # Errors
/// The session's.
pub async fn check(
    session: &Session,
    settings: &PostgresSettings,
    tables: &[TableSettings],
) -> Result<Vec<Problem>, PostgresError> {
    let server = catalog::server_facts(session).await?;
    if server.in_recovery {
        return Ok(vec![Problem::new(
            "this Postgres is a standby",
            "name the primary in postgres.url",
        )]);
    }
    let slot = slot::inspect(session, &settings.slot).await?;
    let mut problems = server_problems(&server, slot.as_ref());
    problems.extend(slot.and_then(|slot| slot_problem(&settings.slot, &slot, &server.database)));

    let Some(publication) = catalog::publication(session, &settings.publication).await? else {
        problems.push(missing_publication(&settings.publication, tables));
        return Ok(problems);
    };
    problems.extend(publication_problem(&settings.publication, publication));
    let published = catalog::published_tables(session, &settings.publication).await?;
    for table in tables {
        let is_it = |it: &&PublishedTable| {
            it.relation.schema == table.schema && it.relation.name == table.table
        };
        if let Some(found) = published.iter().find(is_it) {
            problems.extend(table_problems(found, &server, &settings.publication));
        } else {
            let kind = catalog::relation_kind(session, &table.schema, &table.table).await?;
            problems.push(unpublished(table, kind, &settings.publication, publication));
        }
    }
    if tables.is_empty() {
        if published.is_empty() {
            problems.push(Problem::new(
                format!("publication {} has no tables", identifier(&settings.publication)),
                format!("ALTER PUBLICATION {} ADD TABLE …;", identifier(&settings.publication)),
            ));
        }
        let of = |table| table_problems(table, &server, &settings.publication);
        problems.extend(published.iter().flat_map(of));
    }
    Ok(problems)
}

fn server_problems(server: &ServerFacts, slot: Option<&SlotFacts>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if server.wal_level != "logical" {
        problems.push(Problem::new(
            format!("wal_level is {}, not logical", server.wal_level),
            "ALTER SYSTEM SET wal_level = 'logical'; then restart Postgres",
        ));
    }
    if slot.is_none() && server.slots_used >= server.slots_max {
        problems.push(Problem::new(
            format!("all {} replication slots are taken", server.slots_max),
            format!(
                "ALTER SYSTEM SET max_replication_slots = {}; then restart Postgres; or \
                 drop a slot nobody reads",
                server.slots_max.saturating_add(1)
            ),
        ));
    }
    if slot.is_none_or(|slot| slot.active_pid.is_none())
        && server.senders_used >= server.senders_max
    {
        problems.push(Problem::new(
            format!("all {} WAL senders are in use", server.senders_max),
            format!(
                "ALTER SYSTEM SET max_wal_senders = {}; then restart Postgres",
                server.senders_max.saturating_add(1)
            ),
        ));
    }
    if !server.may_replicate && !server.is_superuser {
        let role = identifier(&server.role_name);
        problems.push(Problem::new(
            format!("role {role} may not replicate"),
            format!("ALTER ROLE {role} REPLICATION;"),
        ));
    }
    let standbys = StandbyNames::parse(&server.synchronous_standby_names);
    if standbys.covers_us() {
        problems.push(Problem::new(
            format!(
                "synchronous_standby_names {} covers {APPLICATION_NAME}: every commit on \
                 Postgres would wait for the search cluster",
                literal(&server.synchronous_standby_names)
            ),
            format!(
                "ALTER SYSTEM SET synchronous_standby_names = {}; SELECT pg_reload_conf();",
                literal(&standbys.without_us(&server.connected_standbys))
            ),
        ));
    }
    problems
}

fn slot_problem(name: &str, slot: &SlotFacts, database: &str) -> Option<Problem> {
    let quoted = literal(name);
    let drop = format!("SELECT pg_drop_replication_slot({quoted});");
    if slot.plugin.as_deref() != Some(PLUGIN) {
        let plugin = slot.plugin.as_deref().unwrap_or("none: it is a physical slot");
        return Some(Problem::new(
            format!("slot {quoted} has output plugin {plugin}, not {PLUGIN}"),
            format!("set postgres.slot to another name; or {drop}"),
        ));
    }
    if slot.database.as_deref() != Some(database) {
        let other = slot.database.as_deref().unwrap_or_default();
        return Some(Problem::new(
            format!("slot {quoted} belongs to database {}", identifier(other)),
            "set postgres.slot to another name, or the database in postgres.url",
        ));
    }
    if slot.is_lost() {
        let reason = slot.invalidation_reason.as_deref().unwrap_or("its WAL was removed");
        return Some(Problem {
            is_reloaded: true,
            ..Problem::new(
                format!("slot {quoted} is lost ({reason})"),
                "`waldex run --reload` makes it anew and builds every index anew",
            )
        });
    }
    slot.active_pid.map(|pid| Problem {
        what: format!("slot {quoted} is read by process {pid}"),
        fix: format!("stop the other reader; or SELECT pg_terminate_backend({pid});"),
        may_pass: true,
        is_reloaded: false,
    })
}

fn missing_publication(name: &str, tables: &[TableSettings]) -> Problem {
    let names: Vec<String> = tables.iter().map(|it| qualified(&it.schema, &it.table)).collect();
    let names = if names.is_empty() { "…".to_owned() } else { names.join(", ") };
    let quoted = identifier(name);
    Problem::new(
        format!("there is no publication {quoted}"),
        format!(
            "CREATE PUBLICATION {quoted} FOR TABLE {names} WITH (publish_via_partition_root \
             = true);"
        ),
    )
}

fn publication_problem(name: &str, facts: PublicationFacts) -> Option<Problem> {
    let missing = facts.left_out();
    let quoted = identifier(name);
    (!missing.is_empty()).then(|| {
        Problem::new(
            format!("publication {quoted} does not publish {}", missing.join(", ")),
            format!(
                "ALTER PUBLICATION {quoted} SET (publish = 'insert, update, delete, truncate');"
            ),
        )
    })
}

fn unpublished(
    table: &TableSettings,
    kind: Option<(char, bool)>,
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
        Some(('r', false)) => Problem::new(
            format!("table {name} is not logged, so it cannot be published"),
            format!("ALTER TABLE {name} SET LOGGED;"),
        ),
        Some(('r' | 'p', _)) => Problem::new(
            format!("table {name} is not in publication {publication}"),
            format!("ALTER PUBLICATION {publication} ADD TABLE {name};"),
        ),
        Some(_) => Problem::new(
            format!(
                "{name} is not a table: views, foreign tables and the like cannot be published"
            ),
            "remove it from tables in the configuration",
        ),
    }
}

fn table_problems(table: &PublishedTable, server: &ServerFacts, publication: &str) -> Vec<Problem> {
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
    let publication = identifier(publication);
    let missing = || table.unpublished_key.iter().map(|column| identifier(column));
    if !table.has_column_list {
        let columns: Vec<String> = missing().collect();
        return Problem::new(
            format!(
                "column {} of the key of table {name} is generated, and not published",
                columns.join(", ")
            ),
            format!(
                "ALTER PUBLICATION {publication} SET (publish_generated_columns = stored); before \
                 PostgreSQL 18: a key of other columns"
            ),
        );
    }
    let published = table.relation.columns.iter().map(|column| identifier(&column.name));
    let columns: Vec<String> = missing().chain(published).collect();
    let filter = table.row_filter.as_ref().map(|it| format!(" WHERE ({it})")).unwrap_or_default();
    Problem::new(
        format!("the publication's column list of table {name} leaves out columns of its key"),
        // In one transaction: what is committed between the two would not be published.
        format!(
            "BEGIN; ALTER PUBLICATION {publication} DROP TABLE {name}; ALTER PUBLICATION \
             {publication} ADD TABLE {name} ({}){filter}; COMMIT;",
            columns.join(", ")
        ),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::settings::SslMode;
    use std::time::Duration;

    pub(in crate::postgres) fn settings(user: &str) -> PostgresSettings {
        PostgresSettings {
            hosts: Vec::new(),
            user: user.to_owned(),
            password: None,
            database: "app".to_owned(),
            ssl_mode: SslMode::Disable,
            ssl_root_cert: None,
            allow_md5: false,
            connect_timeout: Duration::from_secs(1),
            slot: "s".to_owned(),
            publication: "p".to_owned(),
        }
    }

    #[test]
    fn a_slot_is_refused_for_the_reason_that_matters_most() {
        let good = SlotFacts::for_test();
        assert_eq!(slot_problem("s", &good, "app"), None);
        let of = |slot: SlotFacts| slot_problem("s", &slot, "app").unwrap();
        assert!(of(SlotFacts { plugin: None, ..good.clone() }).what.contains("physical"));
        assert!(
            of(SlotFacts { database: Some("x".to_owned()), ..good.clone() }).what.contains("\"x\"")
        );
        assert!(
            of(SlotFacts { wal_status: Some("lost".to_owned()), ..good.clone() })
                .what
                .contains("lost")
        );
        let active = of(SlotFacts { active_pid: Some(7), ..good });
        assert!(active.may_pass && active.fix.contains("pg_terminate_backend(7)"));
    }

    #[test]
    fn a_publication_must_publish_everything() {
        let facts = PublicationFacts {
            insert: true,
            update: true,
            delete: false,
            truncate: false,
            via_root: false,
            all_tables: false,
        };
        let problem = publication_problem("p", facts).unwrap();
        assert!(problem.what.ends_with("does not publish delete, truncate"));
        assert_eq!(
            publication_problem("p", PublicationFacts { delete: true, truncate: true, ..facts }),
            None
        );
    }
}
