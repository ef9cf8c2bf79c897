//! What the other commands do beside a waldex that runs, and which configurations the lease cannot work with.

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::scene::{change_state, confirmed, equal, live, stage, state, waldex};
use crate::support::refusal::{CommandLine, complaints};
use crate::support::servers::{shared_postgres, shared_postgres_14};
use crate::support::sql;
use crate::support::stage::LIMIT;

#[tokio::test(flavor = "multi_thread")]
async fn teardown_refuses_while_one_runs_and_says_who() -> Result<()> {
    let stage = stage("lease_teardown", shared_postgres()?).await?;
    let running = live(&stage).await?;
    let (document, _) = state(&stage).await?;
    let instance = document["instance"].as_str().context("no instance")?;
    let torn = waldex(&stage, "teardown")?.arg("--yes").run_to_end(LIMIT).await?;
    torn.expect_code(1)?;
    let said = torn.stderr.join("\n");
    ensure!(said.contains("nothing was dropped") && said.contains(instance), "{said}");
    confirmed(&stage, "update t set v = 'still here'").await?;
    equal(&stage).await?;
    let status = waldex(&stage, "status")?.arg("--json").run_to_end(LIMIT).await?;
    let status: Value = serde_json::from_str(&status.expect_code(0)?.stdout.join(""))?;
    let lease = &status["lease"];
    ensure!(lease["instance"] == instance && lease["pid"] == running.pid(), "{status}");

    // A holder that is dead, or elsewhere and not heard of, does not stand in the way.
    running.kill()?;
    change_state(&stage, |state| {
        state["instance"] = json!("another");
        state["lease"] = json!({"duration_ms": 2000, "host": "h", "pid": 1, "process": null});
    })
    .await?;
    let torn = waldex(&stage, "teardown")?.arg("--yes").run_to_end(LIMIT).await?;
    let said = torn.expect_code(0)?.stdout.join("\n");
    ensure!(said.contains("watching instance another") && said.contains("dropped"), "{said}");
    Ok(())
}

/// A reload waits for the one that runs, as any other start does.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_waits_for_its_turn() -> Result<()> {
    let stage = stage("lease_reload", shared_postgres()?).await?;
    let running = live(&stage).await?;
    let line = CommandLine::of(&stage);
    let mut reload = line.waldex(&["run", "--reload", "--until", "current"])?.spawn()?;
    reload.wait_for_line(LIMIT, "waiting for the slot").await?;
    confirmed(&stage, "update t set v = 'before the reload'").await?;
    ensure!(state(&stage).await?.0["tables"]["public.t"]["generation"] == 1, "reloaded");
    running.stop(LIMIT).await?;
    reload.finish(LIMIT).await?.expect_code(0)?;
    ensure!(state(&stage).await?.0["tables"]["public.t"]["generation"] == 2, "not reloaded");
    equal(&stage).await
}

/// Whoever writes without the lease is the one that retries letters: its versions do no harm.
#[tokio::test(flavor = "multi_thread")]
async fn letters_are_retried_beside_one_that_runs() -> Result<()> {
    let mut stage = stage("lease_letters", shared_postgres()?).await?;
    let numbers = "mappings: {properties: {v: {type: integer}}}";
    stage.table("n", "id int primary key, v text", numbers).await?;
    let running = live(&stage).await?;
    confirmed(&stage, "insert into n values (1, 'no number'), (2, '2')").await?;
    let path = format!("/{}/_mapping", stage.index("n"));
    let mapping = json!({"properties": {"v": {"type": "integer", "ignore_malformed": true}}});
    stage.search.expect(Method::Put, &path, Some(mapping)).await?;
    let retry = waldex(&stage, "dead-letters")?.arg("retry").arg("--all");
    retry.run_to_end(LIMIT).await?.expect_code(0)?;
    confirmed(&stage, "update n set v = '3' where id = 2").await?;
    running.stop(LIMIT).await?;
    stage.assert_equal("n", "id", &["id", "v"]).await
}

/// One slot name, two sources, one cluster: told at once, and by the one that comes second.
#[tokio::test(flavor = "multi_thread")]
async fn another_source_with_the_same_slot_name_is_refused() -> Result<()> {
    let stage = stage("lease_shared", shared_postgres()?).await?;
    let running = live(&stage).await?;
    let other = shared_postgres_14()?;
    let name = stage.name();
    let admin = sql::connect(other.url()).await?;
    sql::batch(&admin, &format!("create database {name}")).await?;
    let there = sql::connect(&other.database_url(name)).await?;
    let made = format!(
        "create table t (id int primary key, v text); create publication {name} for table t"
    );
    sql::batch(&there, &made).await?;
    drop(there);
    for words in [&["run"][..], &["run", "--reload"]] {
        let mut line = CommandLine::of(&stage);
        line.postgres_url = other.database_url(name);
        let refused = line.finish(words).await?;
        refused.expect_code(64)?;
        let found = complaints(&refused);
        let [only] = found.as_slice() else { anyhow::bail!("{found:?}") };
        ensure!(only.what.contains("of another database system"), "{only:?}");
        ensure!(only.fix.contains("postgres.slot"), "{only:?}");
    }
    sql::batch(&admin, &format!("drop database {name} with (force)")).await?;
    confirmed(&stage, "update t set v = 'undisturbed'").await?;
    running.stop(LIMIT).await?;
    equal(&stage).await
}

/// Deletes must be remembered for longer than a request of a lost lease can be late.
#[tokio::test(flavor = "multi_thread")]
async fn deletes_that_are_forgotten_too_soon_are_refused_or_corrected() -> Result<()> {
    let stage = stage("lease_tombstones", shared_postgres()?).await?;
    stage.catch_up().await?;
    let path = format!("/{}-000001/_settings", stage.index("t"));
    let forgetful = json!({"index.gc_deletes": "10s"});
    stage.search.expect(Method::Put, &path, Some(forgetful)).await?;
    stage.catch_up().await?;
    let settings = stage.search.expect(Method::Get, &format!("{path}?flat_settings"), None).await?;
    let index = format!("{}-000001", stage.index("t"));
    ensure!(settings[&index]["settings"]["index.gc_deletes"] == "15m", "{settings}");

    let mut line = CommandLine::of(&stage);
    let given = "    settings: {index.gc_deletes: 89s}\n";
    line.config = line.config.map(|config| format!("{config}{given}"));
    for words in [&["check"][..], &["run"]] {
        let refused = line.finish(words).await?;
        let said = refused.stderr.join("\n");
        ensure!(refused.code != Some(0) && said.contains("gc_deletes"), "{refused:?}");
        ensure!(said.contains("90s"), "{said}");
    }
    Ok(())
}
