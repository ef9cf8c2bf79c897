//! A slot that is lost: stop and say so, or build everything anew, once.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{ends_equal, filled, holds, server};
use crate::support::servers::postgres::{Postgres, Version};
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Running, Waldex};

const KEEPS_LITTLE: [&str; 3] =
    ["max_slot_wal_keep_size = 1MB", "min_wal_size = 32MB", "max_wal_size = 64MB"];

fn rebuilding(stage: &Stage<'_>) -> Result<Waldex> {
    Ok(stage.waldex("run")?.arg("--on-slot-lost").arg("rebuild"))
}

/// While it is frozen, the server gives its slot up.
async fn lose(stage: &Stage<'_>, running: &Running) -> Result<()> {
    let name = stage.name();
    running.signal(Signal::STOP);
    let lost = format!(
        "select 1 from pg_replication_slots where slot_name = '{name}' and wal_status = 'lost' and not active"
    );
    wait_until(LIMIT, "the slot to be lost", async || {
        let fill = "select pg_logical_emit_message(false, '', repeat('x', 1000000))";
        let _ = stage.execute(fill).await;
        let _ = stage.execute("select pg_switch_wal()").await;
        let _ = stage.execute("checkpoint").await;
        holds(stage, &lost).await
    })
    .await?;
    stage.execute("update t set v = 'missed' where id <= 20").await?;
    running.signal(Signal::CONT);
    Ok(())
}

async fn stage_of<'a>(label: &str, postgres: &'a Postgres) -> Result<Stage<'a>> {
    let mut stage = Stage::new(label, postgres, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    Ok(stage)
}

/// On 14 the server says it in other words than on 18.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_on_14_needs_a_resync() -> Result<()> {
    let postgres = server(Version::Major(14), &KEEPS_LITTLE)?;
    let stage = stage_of("lost_14", &postgres).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    lose(&stage, &running).await?;
    let log = running.finish(LIMIT).await?.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("needs_resync") && log.contains("--reload"), "{log}");
    // Nothing was tried again and again.
    ensure!(log.matches("trying on").count() <= 3, "{log}");
    let again = stage.waldex("run")?.run_to_end(LIMIT).await?;
    ensure!(again.expect_code(1)?.stderr.join("\n").contains("is lost"), "{again:?}");
    let reload = stage.waldex("run")?.arg("--reload").arg("--until").arg("current");
    reload.run_to_end(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

async fn built_anew(label: &str, version: Version) -> Result<()> {
    let postgres = server(version, &KEEPS_LITTLE)?;
    let stage = stage_of(label, &postgres).await?;
    let mut running = rebuilding(&stage)?.spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    lose(&stage, &running).await?;
    running.wait_for_line(LIMIT, "building every index anew").await?;
    running.wait_for_line(LIMIT, "readers see the new generation").await?;
    let first = format!("{}-000001", stage.index("t"));
    wait_until(LIMIT, "the old generation to go", async || {
        matches!(stage.search.count(&first).await, Ok(None))
    })
    .await?;
    ends_equal(&stage, running).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_while_running_is_built_anew_if_wanted_on_18() -> Result<()> {
    built_anew("anew_18", Version::Newest).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_while_running_is_built_anew_if_wanted_on_14() -> Result<()> {
    built_anew("anew_14", Version::Major(14)).await
}

/// Gone, or moved by somebody else, while waldex was down; and not twice in a row.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone_at_the_start_is_built_anew_once_and_not_in_a_loop() -> Result<()> {
    let stage = stage_of("once", shared_postgres()?).await?;
    stage.catch_up().await?;
    let name = stage.name();
    stage.execute(&format!("select pg_drop_replication_slot('{name}')")).await?;
    stage.execute("delete from t where id > 40").await?;
    let run = rebuilding(&stage)?.arg("--until").arg("current").run_to_end(LIMIT).await?;
    ensure!(run.expect_code(0)?.stderr.join("\n").contains("building every index anew"), "{run:?}");
    stage.assert_equal("t", "id", &["id", "v"]).await?;

    let advance =
        format!("select pg_replication_slot_advance('{name}', pg_current_wal_flush_lsn())");
    stage.execute("update t set v = 'missed'").await?;
    stage.execute(&advance).await?;
    let refused = rebuilding(&stage)?.run_to_end(LIMIT).await?;
    let log = refused.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("less than an hour ago") && log.contains("needs_resync"), "{log}");
    // By hand it always goes.
    let reload = rebuilding(&stage)?.arg("--reload").arg("--until").arg("current");
    reload.run_to_end(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// A load may take hours; whatever comes after it would be in vain.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_while_a_table_is_loaded_is_told_at_once() -> Result<()> {
    let stage = stage_of("lost_loading", shared_postgres()?).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "\"state\":\"live\"").await?;
    running.stop(LIMIT).await?;
    let writer = sql::connect(&stage.database.url).await?;
    sql::batch(&writer, "begin; update t set v = 'open' where id = 1").await?;
    let mut running = stage.waldex("run")?.arg("--reload").spawn()?;
    running.wait_for_line(LIMIT, "waiting for transactions that write").await?;
    stage.execute(&format!("select pg_drop_replication_slot('{}')", stage.name())).await?;
    let log = running.finish(LIMIT).await?.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("needs_resync") && !log.contains("\"message\":\"loaded\""), "{log}");
    sql::batch(&writer, "rollback").await
}

/// Somebody has removed files of `pg_wal`: the server shows the slot as sound, and cannot read what it needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_wal_was_removed_is_lost_though_the_server_shows_it_as_sound() -> Result<()> {
    let postgres = server(Version::Newest, &[])?;
    let stage = stage_of("removed", &postgres).await?;
    stage.catch_up().await?;
    let name = stage.name();
    let of_slot = format!("from pg_replication_slots where slot_name = '{name}'");
    let segment = format!(
        "select current_setting('data_directory') || '/pg_wal/' || pg_walfile_name(restart_lsn) {of_slot}"
    );
    let segment = sql::value(&stage.sql, &segment).await?.context("no slot")?;
    for statement in ["update t set v = 'missed'", "select pg_switch_wal()", "checkpoint"] {
        stage.execute(statement).await?;
    }
    std::fs::remove_file(&segment).context(segment)?;

    let run = stage.waldex("run")?.run_to_end(LIMIT).await?;
    let log = run.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("needs_resync") && log.contains("--reload"), "{log}");
    ensure!(!log.contains("trying on"), "it was tried again: {log}");
    let lost = format!("select 1 {of_slot} and wal_status = 'lost'");
    ensure!(!holds(&stage, &lost).await, "the server has noticed, and nothing is shown here");

    let run = rebuilding(&stage)?.arg("--until").arg("current").run_to_end(LIMIT).await?;
    ensure!(run.expect_code(0)?.stderr.join("\n").contains("building every index anew"), "{run:?}");
    stage.assert_equal("t", "id", &["id", "v"]).await
}
