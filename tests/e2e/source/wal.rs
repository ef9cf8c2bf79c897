//! WAL that is kept, and whose fault that is; a shutdown with a backlog; rows that are not held for long.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{ends_equal, filled, holds, server};
use crate::support::proxy::tcp::Link;
use crate::support::servers::postgres::Version;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::Waldex;

/// A command line whose way to the cluster leads over the link.
fn over(stage: &Stage<'_>, link: &Link) -> Result<Waldex> {
    let url = link.url(&stage.node.url_with_credentials())?;
    Ok(Waldex::new("run")?
        .over(&stage.database.url, stage.name(), &url)
        // What was under way when the link hung is given up soon.
        .arg("--request-timeout")
        .arg("5s")
        .arg("--circuit-breaker-open-for")
        .arg("500ms")
        .config(&stage.config()))
}

async fn link_to(stage: &Stage<'_>) -> Result<Link> {
    Link::to(stage.node.url.port_or_known_default().unwrap_or(9200)).await
}

/// Nothing is published, much is written: in this database and in another one.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_table_beside_busy_others_keeps_no_wal() -> Result<()> {
    let postgres = server(Version::Newest, &[])?;
    let mut stage = Stage::new("idle", &postgres, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    stage.execute("create table busy (v text)").await?;
    let other = sql::connect(postgres.url()).await?;
    sql::batch(&other, "create table busy (v text)").await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "\"live\"").await?;
    let fill = "insert into busy select repeat('x', 1000) from generate_series(1, 5000)";
    sql::batch(&other, fill).await?;
    let mark = stage.execute_and_mark(fill).await?;
    let follows = format!(
        "select 1 from pg_replication_slots where slot_name = '{}' and restart_lsn >= '{mark}'",
        stage.name()
    );
    wait_until(LIMIT, "restart_lsn to follow", async || {
        // The position moves over a record of this kind only; by itself it comes every 15 seconds.
        let _ = stage.execute("checkpoint").await;
        holds(&stage, &follows).await
    })
    .await?;
    ends_equal(&stage, running).await
}

/// Far more than memory holds, and the cluster does not answer: the walsender waits for us to read.
async fn shutdown_with_a_backlog(label: &str, version: Version) -> Result<()> {
    let postgres = server(version, &[])?;
    let mut stage = Stage::new(label, &postgres, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    let link = link_to(&stage).await?;
    let mut running = over(&stage, &link)?.arg("--memory-budget").arg("5MiB").spawn()?;
    running.wait_for_line(LIMIT, "\"live\"").await?;
    link.set(|weather| weather.stalled = true);
    stage
        .execute("insert into t select n, repeat('x', 2000) from generate_series(1000, 9000) n")
        .await?;
    running.wait_for_line(LIMIT, "progress").await?;
    let began = Instant::now();
    postgres.stop()?;
    ensure!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    postgres.start_again()?;
    link.clear();
    stage.sql = sql::connect(&stage.database.url).await?;
    ends_equal(&stage, running).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_with_a_backlog_ends_on_18() -> Result<()> {
    shutdown_with_a_backlog("backlog_18", Version::Newest).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_with_a_backlog_ends_on_14() -> Result<()> {
    shutdown_with_a_backlog("backlog_14", Version::Major(14)).await
}

/// What is kept, how much more may be, and who holds it: in the log and in `status`, as text and as JSON.
#[tokio::test(flavor = "multi_thread")]
async fn kept_wal_and_whoever_holds_it_are_told_everywhere() -> Result<()> {
    let postgres = server(Version::Major(18), &["max_slot_wal_keep_size = 512MB"])?;
    let mut stage = Stage::new("kept", &postgres, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "\"live\"").await?;
    let guilty = sql::connect(&stage.database.url).await?;
    sql::batch(&guilty, "begin; insert into t values (-1, 'open')").await?;
    let pid = sql::value(&guilty, "select pg_backend_pid()").await?.unwrap_or_default();
    let who = format!("process {pid}");
    let told = running.wait_for_line(LIMIT, "the source keeps WAL").await?;
    ensure!(told.contains("retained_wal_bytes") && told.contains("safe_wal_bytes"), "{told}");
    ensure!(told.contains(&who), "{who} is not named: {told}");
    let json = stage.waldex("status")?.arg("--json").run_to_end(LIMIT).await?;
    let status: Value = serde_json::from_str(&json.expect_code(0)?.stdout.join(""))?;
    ensure!(status["oldest_transaction"]["who"] == who, "{status}");
    ensure!(status["oldest_transaction"]["seconds"].as_i64().is_some(), "{status}");
    for name in ["retained_wal_bytes", "safe_wal_bytes"] {
        ensure!(status[name].as_i64().is_some_and(|bytes| bytes > 0), "{name}: {status}");
    }
    ensure!(status["failover"] == true && status["synced"] == false, "{status}");
    let text = stage.waldex("status")?.run_to_end(LIMIT).await?.stdout.join("\n");
    for part in ["retained_wal_bytes: ", "safe_wal_bytes: ", &format!("who: {who}"), "seconds: "] {
        ensure!(text.contains(part), "no \"{part}\" in:\n{text}");
    }
    sql::batch(&guilty, "rollback").await?;
    ends_equal(&stage, running).await
}

/// While the cluster takes nothing, a load holds no snapshot: dead rows of every table could not be removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_stands_still_holds_no_snapshot() -> Result<()> {
    let mut stage = Stage::new("xmin", shared_postgres()?, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    stage
        .execute("insert into t select n, repeat('x', 1000) from generate_series(1000, 50000) n")
        .await?;
    let link = link_to(&stage).await?;
    // The start goes through; the load's rows go nowhere.
    let mut running = over(&stage, &link)?.spawn()?;
    running.wait_for_line(LIMIT, "loading").await?;
    link.set(|weather| weather.stalled = true);
    let name = stage.name();
    let reading = |what: &str| {
        format!(
            "select 1 from pg_stat_activity where application_name = 'waldex' and datname = '{name}'
             and backend_type = 'client backend' and {what}"
        )
    };
    let held = reading("backend_xmin is not null and query like 'COPY%'");
    wait_until(LIMIT, "a chunk to be open", async || holds(&stage, &held).await).await?;
    let any = reading("backend_xmin is not null");
    wait_until(LIMIT, "the chunk to be given up", async || !holds(&stage, &any).await).await?;
    link.clear();
    running.wait_for_line(LIMIT, "\"loaded\"").await?;
    ends_equal(&stage, running).await
}
