//! What works and should be known: `check` succeeds and says it, `run` logs it once.

use anyhow::{Context, Result, ensure};

use super::{filled, server};
use crate::support::refusal::CommandLine;
use crate::support::servers::postgres::Version;
use crate::support::servers::{shared_elasticsearch, shared_postgres_14};
use crate::support::sql;
use crate::support::stage::Stage;
use crate::support::wait::wait_until;

async fn notes(line: &CommandLine) -> Result<Vec<String>> {
    let checked = line.succeed(&["check"]).await?;
    let notes = checked.stdout.iter().filter(|line| line.starts_with("note: "));
    Ok(notes.cloned().collect())
}

fn note<'a>(notes: &'a [String], part: &str) -> Result<&'a str> {
    let found = notes.iter().find(|note| note.contains(part));
    found.map(String::as_str).with_context(|| format!("no \"{part}\" in {notes:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_server_that_may_lose_the_slot() -> Result<()> {
    let postgres = server(Version::Major(18), &["idle_replication_slot_timeout = 10min"])?;
    let mut stage = Stage::new("notes", &postgres, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    let line = CommandLine::of(&stage);
    let name = stage.name();
    stage.execute("select pg_create_physical_replication_slot('standby')").await?;
    let create = format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')");
    stage.execute(&create).await?;
    let before = notes(&line).await?;
    note(&before, &format!("slot '{name}' is not copied to them"))?;
    for part in ["max_slot_wal_keep_size is unlimited", "idle_replication_slot_timeout is 10min"] {
        // As printed, up to what is said about it.
        let (_, advice) = note(&before, part)?.split_once("; ALTER").context("no SQL")?;
        let sql = format!("ALTER{}", advice.split(" with what").next().unwrap_or_default());
        for statement in sql.split("; ") {
            stage.execute(statement).await?;
        }
    }
    // A slot that waldex makes is one that standbys may copy.
    stage.execute(&format!("select pg_drop_replication_slot('{name}')")).await?;
    line.succeed(&["run", "--until", "current"]).await?;
    let after = notes(&line).await?;
    note(&after, "synchronized_standby_slots is empty")?;
    ensure!(after.len() < before.len(), "{after:#?}");
    ensure!(
        !after.iter().any(|it| it.contains("max_slot_wal") || it.contains("idle_repl")),
        "{after:#?}"
    );
    Ok(())
}

/// Large values, generated columns, which only 18 can publish, tables that are not logged.
#[tokio::test(flavor = "multi_thread")]
async fn what_of_the_tables_is_not_in_the_stream() -> Result<()> {
    let postgres = server(Version::Major(18), &[])?;
    let stage = Stage::new("unheard", &postgres, shared_elasticsearch()?).await?;
    let name = stage.name().to_owned();
    stage
        .execute(&format!(
            "create table t (id int primary key, v text, twice int generated always as (id * 2) stored);
             create unlogged table fleeting (id int primary key);
             create publication {name} for all tables;
             insert into t select 1, string_agg(md5(n::text), '') from generate_series(1, 2000) n"
        ))
        .await?;
    let mut line = CommandLine::of(&stage);
    line.config = None;
    wait_until(crate::support::stage::LIMIT, "the note of large values", async || {
        notes(&line).await.is_ok_and(|notes| notes.iter().any(|it| it.contains("large values")))
    })
    .await?;
    let found = notes(&line).await?;
    note(&found, "generated columns are in no document: \"public\".\"t\".\"twice\"")?;
    note(&found, "not logged are never published: \"public\".\"fleeting\"")?;
    let ran = line.succeed(&["run", "--until", "current"]).await?;
    let logged = ran.stderr.iter().filter(|it| it.contains("note: generated columns")).count();
    ensure!(logged == 1, "logged {logged} times: {:?}", ran.stderr);
    stage
        .execute(&format!(
            "alter table t replica identity full; alter table fleeting set logged;
             alter publication {name} set (publish_generated_columns = stored)"
        ))
        .await?;
    let found = notes(&line).await?;
    let parts = ["large values", "generated", "not logged"];
    ensure!(!found.iter().any(|it| parts.iter().any(|part| it.contains(part))), "{found:#?}");
    Ok(())
}

/// What the server does not have yet, it is not warned of.
#[tokio::test(flavor = "multi_thread")]
async fn on_14_nothing_is_said_of_what_came_later() -> Result<()> {
    let mut stage = Stage::new("notes_14", shared_postgres_14()?, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    stage.execute("alter table t add column twice int generated always as (id * 2) stored").await?;
    let found = notes(&CommandLine::of(&stage)).await?;
    note(&found, "max_slot_wal_keep_size is unlimited")?;
    let generated = note(&found, "generated columns")?;
    ensure!(generated.contains("PostgreSQL 18 can"), "{generated}");
    ensure!(
        !found.iter().any(|it| it.contains("failover") || it.contains("idle_repl")),
        "{found:#?}"
    );
    sql::value(&stage.sql, "select 1").await.map(drop)
}
