//! Where continuity cannot be proven, waldex stops in `needs_resync`, by the same words in `check`, `run` and
//! `status`; `run --reload` is the way out, and readers keep what they have until the new index is complete.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use crate::support::refusal::CommandLine;
use crate::support::servers::{shared_elasticsearch, shared_postgres, shared_postgres_14};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

/// A table that was loaded and streamed to the end.
async fn settled(label: &str) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select n, 'before' from generate_series(1, 50) n").await?;
    stage.catch_up().await?;
    Ok(stage)
}

async fn status(line: &CommandLine) -> Result<Value> {
    let status = line.succeed(&["status", "--json"]).await?;
    ensure!(status.stdout.len() == 1, "{status:?}");
    Ok(serde_json::from_str(&status.stdout[0])?)
}

/// Stopped with `reason`; then the advice is followed.
async fn resynced(stage: &Stage<'_>, line: &CommandLine, reason: &str) -> Result<()> {
    let before = stage.confirmed().await?;
    let complaint = line.refused("needs_resync: ", 1).await?;
    ensure!(complaint.what.contains(reason), "\"{reason}\" is not in {complaint:?}");
    ensure!(complaint.fix.contains("`waldex run --reload`"), "{complaint:?}");
    let status = status(line).await?;
    ensure!(status["state"] == "needs_resync", "{status}");
    ensure!(status["reason"].as_str().is_some_and(|it| it.contains(reason)), "{status}");
    ensure!(stage.confirmed().await? == before, "something was confirmed");

    line.succeed(&["run", "--reload", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    stage.execute("update t set v = v || '!' where id % 2 = 0").await?;
    line.succeed(&["check"]).await?;
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_gone_after_its_load() -> Result<()> {
    let stage = settled("gone").await?;
    let index = format!("{}-000001", stage.index("t"));
    stage.search.delete_index(&index).await?;
    resynced(&stage, &CommandLine::of(&stage), &format!("the index \"{index}\" is gone")).await?;
    // What is left of the old one, as its dead letters, must not meet a new one of its name.
    let physical =
        stage.search.expect(Method::Get, &format!("/{}", stage.index("t")), None).await?;
    let name = physical.as_object().and_then(|indices| indices.keys().next().cloned());
    ensure!(name == Some(format!("{}-000002", stage.index("t"))), "{name:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_lost_beside_a_filled_index() -> Result<()> {
    let stage = settled("stateless").await?;
    let path = format!("/waldex-state/_doc/{}", stage.name());
    stage.search.expect(Method::Delete, &path, None).await?;
    stage.execute("delete from t where id < 10").await?;
    resynced(&stage, &CommandLine::of(&stage), "there is no state that says up to where").await
}

/// As when the cluster is restored from a snapshot: what was confirmed since is missing in the indices.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_restored_from_an_older_day() -> Result<()> {
    let stage = settled("restored").await?;
    let path = format!("/waldex-state/_doc/{}", stage.name());
    let old = stage.search.expect(Method::Get, &path, None).await?["_source"].clone();
    stage.execute("update t set v = 'since then'; delete from t where id < 10").await?;
    stage.catch_up().await?;
    stage.search.expect(Method::Put, &path, Some(old)).await?;
    resynced(&stage, &CommandLine::of(&stage), "the slot stands at ").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_moved_while_waldex_was_down() -> Result<()> {
    let stage = settled("moved").await?;
    stage.execute("update t set v = 'missed'").await?;
    let advance = format!(
        "select pg_replication_slot_advance('{}', pg_current_wal_flush_lsn())",
        stage.name()
    );
    stage.execute(&advance).await?;
    resynced(&stage, &CommandLine::of(&stage), "the slot stands at ").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_while_waldex_was_down() -> Result<()> {
    let stage = settled("dropped").await?;
    stage.execute(&format!("select pg_drop_replication_slot('{}')", stage.name())).await?;
    stage.execute("update t set v = 'missed'").await?;
    resynced(&stage, &CommandLine::of(&stage), "no longer exists").await
}

/// Made anew by hand, it stands where nobody has read.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_made_anew_while_waldex_was_down() -> Result<()> {
    let stage = settled("anew").await?;
    let name = stage.name();
    stage.execute(&format!("select pg_drop_replication_slot('{name}')")).await?;
    stage.execute("update t set v = 'missed'").await?;
    let create = format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')");
    stage.execute(&create).await?;
    resynced(&stage, &CommandLine::of(&stage), "the slot stands at ").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_system_that_is_another_one() -> Result<()> {
    let stage = settled("system").await?;
    let other = Stage::new("system", shared_postgres_14()?, stage.node).await?;
    let name = stage.name();
    other
        .execute(&format!(
            "create table t (id int primary key, v text); insert into t values (7, 'clone');
             create publication {name} for table t"
        ))
        .await?;
    let mut line = CommandLine::of(&stage);
    line.postgres_url.clone_from(&other.database.url);
    let complaint = line.refused("needs_resync: the state belongs to database system", 1).await?;
    ensure!(complaint.fix.contains("postgres.url"), "{complaint:?}");
    let status = status(&line).await?;
    ensure!(status["state"] == "needs_resync", "{status}");
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    // It is meant: the index follows the other server.
    line.succeed(&["run", "--reload", "--until", "current"]).await?;
    let documents = stage.search.documents(&stage.index("t")).await?;
    ensure!(documents.keys().eq(["7"]), "{documents:?}");
    let drop_slot = format!("select pg_drop_replication_slot('{name}')");
    other.execute(&drop_slot).await?;
    Ok(())
}

/// While the new generation is filled, readers find every document of the old one, and no part of the new.
#[tokio::test(flavor = "multi_thread")]
async fn readers_keep_the_old_generation_until_the_new_one_is_complete() -> Result<()> {
    const ROWS: usize = 20_000;
    let mut stage = Stage::new("readers", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "settings: {refresh_interval: 10ms}").await?;
    stage
        .execute(&format!("insert into t select n, 'before' from generate_series(1, {ROWS}) n"))
        .await?;
    stage.catch_up().await?;
    let index = stage.index("t");
    stage.search.refresh(&index).await?;
    stage.execute("update t set v = 'after'").await?;
    let mut reload = stage.waldex("run")?.arg("--reload").arg("--until").arg("current").spawn()?;
    let mut seen = BTreeSet::new();
    let query = json!({"size": 1, "track_total_hits": true});
    while reload.is_running() {
        let path = format!("/{index}/_search");
        let found = stage.search.expect(Method::Post, &path, Some(query.clone())).await?;
        let total = found["hits"]["total"]["value"].as_u64().context("no total")?;
        let physical = found["hits"]["hits"][0]["_index"].as_str().context("no hit")?.to_owned();
        seen.insert((physical, total));
    }
    reload.finish(LIMIT).await?.expect_code(0)?;
    let complete = |(_, total): &(String, u64)| *total == ROWS as u64;
    ensure!(seen.iter().all(complete), "readers saw a part: {seen:?}");
    ensure!(seen.contains(&(format!("{index}-000001"), ROWS as u64)), "never seen: {seen:?}");
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    let old = format!("{index}-000001");
    wait_until(LIMIT, "the old generation to go", async || {
        matches!(stage.search.count(&old).await, Ok(None))
    })
    .await
}

/// One table of two: the other one's index is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn reloading_one_table_leaves_the_others_alone() -> Result<()> {
    let mut stage = settled("onetable").await?;
    stage.table("u", "id int primary key, v text", "").await?;
    stage.execute("insert into u values (1, 'one')").await?;
    stage.catch_up().await?;
    let line = CommandLine::of(&stage);
    for (word, generation) in [("u", 2), ("public.u", 3)] {
        stage.execute("update u set v = v || '!'; update t set v = v || '?'").await?;
        line.succeed(&["run", "--reload", word, "--until", "current"]).await?;
        let reloaded = format!("{}-{generation:06}", stage.index("u"));
        for (table, physical) in [("t", format!("{}-000001", stage.index("t"))), ("u", reloaded)] {
            stage.assert_equal(table, "id", &["id", "v"]).await?;
            let documents = stage.search.documents(&stage.index(table)).await?;
            ensure!(documents.values().all(|it| it.index == physical), "{physical}: {documents:?}");
        }
    }
    let refused = line.finish(&["run", "--reload", "nowhere", "--until", "current"]).await?;
    refused.expect_code(64)?;
    ensure!(refused.stderr.iter().any(|it| it.contains("\"nowhere\"")), "{refused:?}");
    let slot = format!("select 1 from pg_replication_slots where slot_name = '{}'", stage.name());
    ensure!(sql::value(&stage.sql, &slot).await?.is_some(), "the slot is gone");
    Ok(())
}

/// Not even a resync: the index is complete, and whoever searches by its name finds nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_readers_alias_that_somebody_removed_is_given_back_at_the_start() -> Result<()> {
    let stage = settled("readers").await?;
    let index = stage.index("t");
    let physical = format!("{index}-000001");
    let remove = json!({"actions": [{"remove": {"index": physical, "alias": index}}]});
    stage.search.expect(Method::Post, "/_aliases", Some(remove)).await?;
    ensure!(stage.search.count(&index).await?.is_none(), "the alias is still there");
    stage.execute("update t set v = 'after' where id = 1").await?;
    let finished = stage.catch_up().await?;
    let said = finished.stderr.iter().any(|line| line.contains("readers had lost their alias"));
    ensure!(said, "{finished:?}");
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    // An empty generation that has it, too, as one whose creation came late had once.
    let other = json!({"aliases": {index.as_str(): {}}});
    stage.search.expect(Method::Put, &format!("/{index}-000007"), Some(other)).await?;
    stage.catch_up().await?;
    let behind = stage.search.expect(Method::Get, &format!("/_alias/{index}"), None).await?;
    let behind: Vec<&String> = behind.as_object().into_iter().flat_map(|it| it.keys()).collect();
    ensure!(behind == [&physical], "{behind:?}");
    stage.assert_equal("t", "id", &["id", "v"]).await
}
