//! Every reason on Postgres' side why streaming would not work, before anything is started, each
//! with the command that removes it; and what works but should be known.
//!
//! Reads only. What each point protects from: without an immediate key a document has no stable id;
//! a table without replica identity makes the application's own UPDATE fail; a standby name that
//! matches us lets every commit on the primary wait for the search cluster.

mod facts;
mod notes;
mod partitions;
mod routing;
mod server;
mod tables;

use crate::findings::{Findings, Problem};
use crate::settings::{PostgresSettings, TableSettings};

use super::PostgresError;
use super::catalog::{self, PublicationFacts, PublishedTable};
use super::session::Session;
use super::slot;
use super::sql::{identifier, qualified};
use facts::PublishedDetails;
use server::{server_problems, slot_problem};
use tables::{detail_problems, table_problems, unpublished};

/// All problems at once; none means that Postgres is ready. A missing slot is no problem, but then
/// one must be free. Without configured tables, every table of the publication is looked at.
/// Notes are taken only of what is not a problem.
///
/// # Errors
/// The session's.
pub async fn check(
    session: &Session,
    settings: &PostgresSettings,
    tables: &[TableSettings],
) -> Result<Findings, PostgresError> {
    let server = facts::server_facts(session).await?;
    if server.in_recovery {
        let standby =
            Problem::new("this Postgres is a standby", "name the primary in postgres.url");
        return Ok(Findings { problems: vec![standby], notes: Vec::new() });
    }
    let slot = slot::inspect(session, &settings.slot).await?;
    let mut problems = server_problems(&server, slot.as_ref());
    let of_slot = slot.as_ref();
    problems.extend(of_slot.and_then(|it| slot_problem(&settings.slot, it, &server.database)));
    let mut notes = notes::of_server(&server, &settings.slot, slot.as_ref());

    let Some(publication) = catalog::publication(session, &settings.publication).await? else {
        problems.push(missing_publication(&settings.publication, tables));
        return Ok(Findings { problems, notes });
    };
    problems.extend(publication_problem(&settings.publication, publication));
    let published = catalog::published_tables(session, &settings.publication).await?;
    let details = facts::published_details(session, &settings.publication).await?;
    let details = details.iter().filter(|it| is_wanted(tables, &it.schema, &it.name));
    let details: Vec<&PublishedDetails> = details.collect();
    for table in &details {
        let found = detail_problems(table).into_iter();
        problems.extend(found.map(|it| it.of_table(&table.schema, &table.name)));
    }
    notes.extend(notes::of_tables(&details, &settings.publication, server.version_num));
    for table in tables {
        let is_it = |it: &&PublishedTable| {
            it.relation.schema == table.schema && it.relation.name == table.table
        };
        if let Some(found) = published.iter().find(is_it) {
            problems.extend(table_problems(found, &server, &settings.publication));
            let unroutable = routing::problems(session, table, found, &settings.publication);
            problems.extend(unroutable.await?);
        } else {
            let kind = catalog::relation_kind(session, &table.schema, &table.table).await?;
            problems.push(unpublished(table, kind, &settings.publication, publication));
        }
    }
    for table in &published {
        if is_wanted(tables, &table.relation.schema, &table.relation.name) {
            let (schema, name) = (&table.relation.schema, &table.relation.name);
            let found = partitions::problems(session, table, &settings.publication).await?;
            problems.extend(found.map(|it| it.of_table(schema, name)));
        }
    }
    if tables.is_empty() {
        if published.is_empty() {
            problems.push(Problem::new(
                format!("publication {} has no tables", identifier(&settings.publication)),
                format!("ALTER PUBLICATION {} ADD TABLE …;", identifier(&settings.publication)),
            ));
        }
        for table in &published {
            let (schema, name) = (&table.relation.schema, &table.relation.name);
            let found = table_problems(table, &server, &settings.publication).into_iter();
            problems.extend(found.map(|it| it.of_table(schema, name)));
        }
        if publication.all_tables {
            notes.extend(notes::of_unlogged(&facts::unlogged_tables(session).await?));
        }
    }
    Ok(Findings { problems, notes })
}

/// Whether a table of the publication is one of the configured; all are, if none is configured.
fn is_wanted(tables: &[TableSettings], schema: &str, name: &str) -> bool {
    tables.is_empty() || tables.iter().any(|it| it.schema == schema && it.table == name)
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
            password_file: None,
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
