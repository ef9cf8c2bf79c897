//! The commands beside `run`: what they print, what they do, and what they leave alone.

use anyhow::{Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use crate::support::refusal::{CommandLine, complaints};
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::Waldex;

async fn stage(label: &str) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t values (1, 'one'), (2, 'two')").await?;
    Ok(stage)
}

async fn has_state(stage: &Stage<'_>) -> Result<bool> {
    let path = format!("/waldex-state/_doc/{}", stage.name());
    Ok(stage.search.request(Method::Get, &path, None).await?.0 == 200)
}

async fn has_slot(stage: &Stage<'_>) -> Result<bool> {
    let query = format!("select 1 from pg_replication_slots where slot_name = '{}'", stage.name());
    Ok(sql::value(&stage.sql, &query).await?.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_ok_and_touches_nothing() -> Result<()> {
    let stage = stage("check").await?;
    let line = CommandLine::of(&stage);
    let checked = line.succeed(&["check"]).await?;
    let ok = "ok: nothing stands in the way of `waldex run`";
    ensure!(checked.stdout.last().is_some_and(|last| last == ok), "{checked:?}");
    let noted = |line: &String| line.starts_with("note: ");
    ensure!(checked.stdout.iter().rev().skip(1).all(noted), "{checked:?}");
    ensure!(!has_slot(&stage).await? && !has_state(&stage).await?, "check made something");
    ensure!(stage.search.count(&stage.index("t")).await?.is_none(), "check made an index");
    stage.catch_up().await?;
    line.succeed(&["check"]).await?;
    // A waldex at work is as it should be, under load, too.
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    for round in 0..5 {
        stage
            .execute(&format!(
                "insert into t select {round} * 100 + n, 'x' from generate_series(10, 99) n"
            ))
            .await?;
        let checked = line.succeed(&["check"]).await?;
        let ours =
            |line: &String| line.starts_with("note: slot ") && line.contains("is read by process");
        ensure!(checked.stdout.iter().any(ours), "{checked:?}");
    }
    drop(running);
    // Another program that has the slot is in the way, and is named: here one that waits until it may create it.
    let name = format!("{}_other", stage.name());
    let (open, creating) = (sql::connect(&stage.database.url).await?, stage.database.url.clone());
    sql::batch(&open, "begin; insert into t values (-1, 'open')").await?;
    let create = format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')");
    let creating =
        tokio::spawn(async move { sql::batch(&sql::connect(&creating).await?, &create).await });
    wait_until(LIMIT, "the slot to be had", async || {
        let busy =
            format!("select 1 from pg_replication_slots where slot_name = '{name}' and active");
        sql::value(&stage.sql, &busy).await.is_ok_and(|found| found.is_some())
    })
    .await?;
    let mut line = line;
    line.slot.clone_from(&name);
    let checked = line.finish(&["check"]).await?;
    sql::batch(&open, "rollback").await?;
    creating.await??;
    checked.expect_code(1)?;
    let found = complaints(&checked);
    ensure!(found.len() == 1 && found[0].what.contains("is read by process"), "{found:?}");
    Ok(())
}

/// With both servers out of reach, both are named.
#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_troubles_of_both_sides_at_once() -> Result<()> {
    let checked = Waldex::new("check")?
        .arg("--postgres-url=postgres://u:p@127.0.0.1:1/d")
        .arg("--elasticsearch-url=http://127.0.0.1:2")
        .arg("--slot=s")
        .arg("--publication=p")
        .run_to_end(LIMIT)
        .await?;
    checked.expect_code(1)?;
    let found = complaints(&checked);
    ensure!(found.len() == 2, "{found:?}");
    ensure!(
        found[0].what.contains("127.0.0.1:1") && found[1].what.contains("127.0.0.1:2"),
        "{found:?}"
    );
    Ok(())
}

/// Statement by statement, as psql sends them.
pub(crate) async fn run_script(stage: &Stage<'_>, script: &[String]) -> Result<()> {
    for statement in script.join("\n").split(";\n\n") {
        stage.execute(statement).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_setup_makes_all_that_run_needs_and_can_be_repeated() -> Result<()> {
    let stage = Stage::new("setup", shared_postgres()?, shared_elasticsearch()?).await?;
    let (name, role) = (stage.name(), format!("{}'s \"role\"", stage.name()));
    stage
        .execute(
            "create schema \"Odd; one\"; create table \"Odd; one\".\"T'1\" (id int primary key, v text);
             create table t (id int primary key, v text); insert into t values (1, 'one');
             insert into \"Odd; one\".\"T'1\" values (1, 'odd')",
        )
        .await?;
    let mut line = CommandLine::of(&stage).with_role(&role, "secret")?;
    let odd = format!("{}-odd", stage.index("t"));
    line.config = Some(format!(
        "tables:\n  - table: t\n    index: {}\n  - table: '\"Odd; one\".\"T''1\"'\n    index: {odd}\n",
        stage.index("t")
    ));
    let printed = line.succeed(&["setup"]).await?;
    ensure!(!has_slot(&stage).await?, "printing made the slot");
    ensure!(!printed.stdout.join("\n").contains("secret"), "the password is printed");
    for _ in 0..2 {
        run_script(&stage, &printed.stdout).await?;
    }
    let quoted = role.replace('"', "\"\"");
    stage.execute(&format!("alter role \"{quoted}\" password 'secret'")).await?;
    line.succeed(&["check"]).await?;
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    ensure!(stage.search.count(&odd).await? == Some(1), "the odd table was not loaded");
    let attributes = format!(
        "select rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolcanlogin, rolreplication \
         from pg_roles where rolname = '{}'",
        role.replace('\'', "''")
    );
    let least = ["f", "f", "f", "f", "t", "t"].map(|it| Some(it.to_owned()));
    ensure!(sql::rows(&stage.sql, &attributes).await? == [least], "more rights than needed");
    stage.execute(&format!("select pg_drop_replication_slot('{name}')")).await?;
    stage.execute(&format!("drop owned by \"{quoted}\"; drop role \"{quoted}\"")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_applies_what_it_prints_and_adds_what_was_configured_later() -> Result<()> {
    let stage = Stage::new("apply", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.execute("create table t (id int primary key, v text)").await?;
    let mut line = CommandLine::of(&stage);
    line.config = Some(format!("tables:\n  - table: t\n    index: {}\n", stage.index("t")));
    for _ in 0..2 {
        let applied = line.succeed(&["setup", "--apply"]).await?;
        ensure!(applied.stdout.iter().any(|it| it.starts_with("applied: ")), "{applied:?}");
    }
    line.succeed(&["check"]).await?;
    stage.execute("create table later (id int primary key)").await?;
    let index = stage.index("later");
    line.config =
        Some(format!("{}  - table: later\n    index: {index}\n", line.config.unwrap_or_default()));
    line.refused("\"public\".\"later\" is not in publication", 1).await?;
    line.succeed(&["setup", "--apply"]).await?;
    line.succeed(&["check"]).await?;

    line.config = None;
    let refused = line.finish(&["setup"]).await?;
    refused.expect_code(64)?;
    ensure!(refused.stderr.iter().any(|it| it.contains("tables")), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn teardown_asks_and_drops_slot_and_state_and_nothing_else() -> Result<()> {
    let stage = stage("teardown").await?;
    stage.catch_up().await?;
    let line = CommandLine::of(&stage);
    for answer in ["", "n\n", "\n", "nyes\n"] {
        let asked = line.waldex(&["teardown"])?.input(answer).run_to_end(LIMIT).await?;
        asked.expect_code(1)?;
        let text = asked.stdout.join("\n");
        ensure!(text.contains(stage.name()) && text.contains("[y/N]"), "{asked:?}");
        ensure!(has_slot(&stage).await? && has_state(&stage).await?, "\"{answer}\" dropped it");
    }
    // A slot in use stays, and so does its state.
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let refused = line.finish(&["teardown", "--yes"]).await?;
    refused.expect_code(1)?;
    ensure!(
        complaints(&refused).iter().any(|it| it.what.contains("runs on this slot")),
        "{refused:?}"
    );
    ensure!(has_state(&stage).await?, "the state was removed below a running waldex");
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;

    let dropped = line.waldex(&["teardown"])?.input("Yes\n").run_to_end(LIMIT).await?;
    dropped.expect_code(0)?;
    ensure!(!has_slot(&stage).await? && !has_state(&stage).await?, "something is left");
    let publication = format!("select 1 from pg_publication where pubname = '{}'", stage.name());
    ensure!(sql::value(&stage.sql, &publication).await?.is_some(), "the publication is gone");
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    // Nothing to drop is as good.
    line.succeed(&["teardown", "--yes"]).await?;
    line.refused("needs_resync", 1).await?;

    // A state that this version does not understand is no reason to keep anything.
    let path = format!("/waldex-state/_doc/{}", stage.name());
    stage.search.expect(Method::Put, &path, Some(json!({"format": 99}))).await?;
    let make = format!("select pg_create_logical_replication_slot('{}', 'pgoutput')", stage.name());
    stage.execute(&make).await?;
    let complaint = line.refused("not one this version understands", 1).await?;
    ensure!(complaint.fix.contains("`waldex teardown`"), "{complaint:?}");
    line.succeed(&["teardown", "--yes"]).await?;
    ensure!(!has_slot(&stage).await? && !has_state(&stage).await?, "something is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_where_things_stand_as_text_and_as_json() -> Result<()> {
    let stage = stage("status").await?;
    let line = CommandLine::of(&stage);
    let json = async || -> Result<Value> {
        let status = line.succeed(&["status", "--json"]).await?;
        ensure!(status.stdout.len() == 1, "{status:?}");
        Ok(serde_json::from_str(&status.stdout[0])?)
    };
    let status = json().await?;
    ensure!(status["state"] == "not_started" && status["slot"] == stage.name(), "{status}");
    stage.catch_up().await?;
    let status = json().await?;
    ensure!(status["state"] == "stopped" && status["active_pid"].is_null(), "{status}");
    ensure!(status["confirmed_flush_lsn"] == status["durable_lsn"], "{status}");
    ensure!(status["retained_wal_bytes"].as_u64().is_some(), "{status}");
    let table = &status["tables"]["public.t"];
    ensure!(table["index"] == stage.index("t") && table["generation"] == 1, "{status}");
    ensure!(table["loaded"] == true && table["readable"] == true, "{status}");

    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let status = json().await?;
    ensure!(status["state"] == "live" && status["active_pid"].is_number(), "{status}");
    let text = line.succeed(&["status"]).await?.stdout;
    for expected in ["state: live", "slot: ", "lag_bytes: ", "  public.t:", "    generation: 1"] {
        ensure!(text.iter().any(|it| it.starts_with(expected)), "no \"{expected}\": {text:#?}");
    }
    // Killed before it has recorded anything, it would leave nothing to be behind of.
    let before = status["durable_lsn"].clone();
    stage.execute("insert into t values (9, 'x')").await?;
    wait_until(LIMIT, "a position to be recorded", async || {
        json().await.is_ok_and(|status| status["durable_lsn"] != before)
    })
    .await?;
    drop(running);
    stage.execute("insert into t select n, 'x' from generate_series(10, 900) n").await?;
    let status = json().await?;
    ensure!(status["lag_bytes"].as_u64().is_some_and(|bytes| bytes > 10_000), "{status}");
    ensure!(status["lag_seconds"].is_number(), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_later_versions_and_bad_usage_end_with_64() -> Result<()> {
    for words in [&["plan"][..], &["reindex", "users"], &["verify", "--sample", "10"]] {
        let mut waldex = Waldex::new(words[0])?;
        for word in &words[1..] {
            waldex = waldex.arg(word);
        }
        let refused = waldex.run_to_end(LIMIT).await?;
        refused.expect_code(64)?;
        let sentence = format!("waldex {} is not in this version", words[0]);
        ensure!(refused.stderr == [sentence], "{refused:?}");
    }
    let yaml = "postgres: {slot: 'Bad Slot', url: 'mysql://x'}\nelasticsearch: {bulk_size: many}\nfoo: 1\n";
    for subcommand in ["run", "check", "setup", "status", "teardown"] {
        let refused = Waldex::new(subcommand)?.config(yaml).run_to_end(LIMIT).await?;
        refused.expect_code(64)?;
        ensure!(refused.stdout.is_empty(), "{refused:?}");
        for place in [":1:18: ", ":1:35: ", ":2:28: ", ":3:1: "] {
            let found = refused.stderr.iter().any(|it| it.contains(place));
            ensure!(found, "{subcommand}: nothing at {place}: {:#?}", refused.stderr);
        }
        ensure!(refused.stderr.iter().any(|it| it.contains("publication")), "{refused:?}");
    }
    let refused = Waldex::new("run")?.arg("--until").arg("tomorrow").run_to_end(LIMIT).await?;
    refused.expect_code(64)?;
    for words in ["--version", "--help"] {
        Waldex::new(words)?.run_to_end(LIMIT).await?.expect_code(0)?;
    }
    Ok(())
}
