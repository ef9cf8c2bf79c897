//! What the stream never says, noticed while it runs: tables and publications that leave and come back, a
//! synchronous standby that nobody meant, a slot that is lost, WAL that is kept.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::support::servers::elasticsearch;
use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::search_node::NodeOptions;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::Running;

async fn running_stage<'a>(stage: &mut Stage<'a>) -> Result<Running> {
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select i, 'v' from generate_series(1, 50) i").await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    Ok(running)
}

/// What was changed while the table was away is in no stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_left_the_publication_and_came_back_is_loaded_again() -> Result<()> {
    let mut stage = Stage::new("left", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("kept", "id int primary key", "").await?;
    let mut running = running_stage(&mut stage).await?;
    let name = stage.name().to_owned();
    stage
        .execute(&format!(
            "alter publication {name} drop table t; delete from t where id < 10; \
             update t set v = 'missed' where id < 20; alter publication {name} add table t; \
             update t set v = 'seen' where id = 40"
        ))
        .await?;
    running.wait_for_line(LIMIT, "readers see the new generation").await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

async fn dropped_publication(stage: &mut Stage<'_>) -> Result<()> {
    let running = running_stage(stage).await?;
    stage.execute(&format!("drop publication {}", stage.name())).await?;
    stage.execute("update t set v = 'nobody hears of it'").await?;
    let finished = running.finish(LIMIT).await?;
    let log = finished.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("publication") && log.contains("waldex:"), "no reason in:\n{log}");
    let state = stage.waldex("status")?.arg("--json").run_to_end(LIMIT).await?;
    ensure!(state.code == Some(0), "status fails");
    // The way back that it tells; the time without a publication is still in the slot's WAL.
    stage.execute(&format!("create publication {} for table t", stage.name())).await?;
    stage.execute("update t set v = 'heard again' where id < 9").await?;
    let reload = stage.waldex("run")?.arg("--reload").arg("--until").arg("current");
    reload.run_to_end(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// PostgreSQL 18 goes on in silence without the publication.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_dropped_ends_the_run_on_18() -> Result<()> {
    let mut stage = Stage::new("dropped_18", shared_postgres()?, shared_elasticsearch()?).await?;
    dropped_publication(&mut stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_dropped_ends_the_run_on_14() -> Result<()> {
    let mut stage = Stage::new("dropped_14", shared_postgres_14()?, shared_opensearch()?).await?;
    dropped_publication(&mut stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_publishes_less_ends_the_run() -> Result<()> {
    let mut stage = Stage::new("less", shared_postgres()?, shared_elasticsearch()?).await?;
    let running = running_stage(&mut stage).await?;
    let less = format!("alter publication {} set (publish = 'insert, update')", stage.name());
    stage.execute(&less).await?;
    let log = running.finish(LIMIT).await?.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("does not publish delete, truncate"), "{log}");
    Ok(())
}

/// Every commit would wait for the search cluster; the run ends, and those that wait go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_standby_that_nobody_meant_ends_by_itself() -> Result<()> {
    let postgres = Postgres::start(Version::Newest, &Options::default())?;
    let mut stage = Stage::new("synchronous", &postgres, shared_elasticsearch()?).await?;
    let running = running_stage(&mut stage).await?;
    stage.execute("alter system set synchronous_standby_names = '*'").await?;
    stage.execute("select pg_reload_conf()").await?;
    let finished = running.finish(LIMIT).await?;
    let log = finished.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("synchronous standby"), "{log}");
    ensure!(log.contains("synchronous_standby_names"), "no remedy in {log}");
    let check = stage.waldex("check")?.run_to_end(LIMIT).await?;
    check.expect_code(1).map(drop)
}

/// While the cluster is down the slot keeps WAL, until the server gives it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_while_running_needs_a_resync() -> Result<()> {
    // More than the memory budget, so that reading stops.
    loses_its_slot(60_000).await
}

/// With nothing to wait for, the reconnect finds it out, which needs no cluster for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_with_nothing_in_flight_is_told_while_the_cluster_is_down() -> Result<()>
{
    loses_its_slot(0).await
}

async fn loses_its_slot(rows_in_flight: u32) -> Result<()> {
    let conf = ["max_slot_wal_keep_size = 1MB", "min_wal_size = 32MB", "max_wal_size = 64MB"];
    let conf = conf.map(str::to_owned).into();
    let postgres = Postgres::start(Version::Newest, &Options { fsync: false, conf })?;
    let node = elasticsearch::start(&NodeOptions::default())?;
    let mut stage = Stage::new("lost", &postgres, &node).await?;
    let mut running = running_stage(&mut stage).await?;
    node.backend().suspend()?;
    stage
        .execute(&format!(
            "insert into t select 1000 + i, repeat('x', 1000) from generate_series(1, {rows_in_flight}) i"
        ))
        .await?;
    // More WAL than the slot may keep.
    wait_until(LIMIT, "the slot to be lost", async || {
        let _ =
            stage.execute("select pg_logical_emit_message(false, '', repeat('x', 1000000))").await;
        let _ = stage.execute("select pg_switch_wal(); checkpoint").await;
        !running.is_running()
    })
    .await?;
    node.backend().resume()?;
    let finished = running.finish(LIMIT).await?;
    let log = finished.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("needs_resync") && log.contains("--reload"), "{log}");
    let reload = stage.waldex("run")?.arg("--reload").arg("--until").arg("current");
    reload.run_to_end(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// A walsender that is behind would block it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_of_postgres_ends_while_the_cluster_is_down() -> Result<()> {
    let postgres = Postgres::start(Version::Newest, &Options::default())?;
    let node = elasticsearch::start(&NodeOptions::default())?;
    let mut stage = Stage::new("shutdown", &postgres, &node).await?;
    let running = running_stage(&mut stage).await?;
    node.kill()?;
    stage.execute("update t set v = repeat('waits', 1000)").await?;
    let began = Instant::now();
    postgres.stop()?;
    ensure!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    postgres.start_again()?;
    node.start_again()?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    let stage_sql = sql::connect(&stage.database.url).await?;
    let rows = sql::value(&stage_sql, "select count(*) from t").await?;
    ensure!(rows.as_deref() == Some("50"), "{rows:?}");
    stage.sql = stage_sql;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transaction_that_keeps_wal_is_named_by_status() -> Result<()> {
    let postgres = Postgres::start(Version::Newest, &Options::default())?;
    let mut stage = Stage::new("oldest", &postgres, shared_elasticsearch()?).await?;
    let running = running_stage(&mut stage).await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    let guilty = sql::connect(&stage.database.url).await?;
    sql::batch(&guilty, "begin; insert into t values (1000, 'open')").await?;
    let pid = sql::value(&guilty, "select pg_backend_pid()").await?.unwrap_or_default();
    let status = stage.waldex("status")?.arg("--json").run_to_end(LIMIT).await?;
    let status: Value = serde_json::from_str(&status.expect_code(0)?.stdout.join(""))?;
    ensure!(status["oldest_transaction"]["who"] == format!("process {pid}"), "{status}");
    ensure!(status["retained_wal_bytes"].as_i64().is_some(), "{status}");
    Ok(())
}
