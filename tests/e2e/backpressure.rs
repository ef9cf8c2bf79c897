//! The stream is not read while the cluster takes nothing, and the walsender hears of us all the same: a wrong
//! design, in which the status waits until there is room again, is noticed by the same test.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::support::admin::{get, metric};
use crate::support::proxy::http::{Fault, SearchProxy};
use crate::support::servers::ports;
use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::shared_elasticsearch;
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::{wait_for, wait_until};
use crate::support::waldex::Waldex;

const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(2);

async fn walsender(stage: &Stage<'_>) -> Result<Option<String>> {
    let slot = stage.name();
    let query = format!("select active_pid from pg_replication_slots where slot_name = '{slot}'");
    sql::value(&stage.sql, &query).await
}

fn impatient() -> Result<Postgres> {
    let timeout = format!("wal_sender_timeout={}s", WAL_SENDER_TIMEOUT.as_secs());
    let options = Options { fsync: false, conf: vec![timeout] };
    tokio::task::block_in_place(|| Postgres::start(Version::Newest, &options))
}

async fn wait_for_walsender(stage: &Stage<'_>) -> Result<String> {
    wait_for(LIMIT, "a walsender", async || walsender(stage).await.ok().flatten()).await
}

/// Whether the walsender that was there before still is, after the cluster took nothing for three times its
/// timeout. Either way everything arrives in the end.
async fn walsender_lives(label: &str, mutant: Option<&str>) -> Result<bool> {
    let server = impatient()?;
    let mut stage = Stage::new(label, &server, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.catch_up().await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    let mut run = Waldex::new("run")?.between(&stage.database.url, stage.name(), proxy.node());
    for (flag, value) in [
        ("--memory-budget", "64KiB"),
        ("--bulk-bytes", "16KiB"),
        ("--circuit-breaker-open-for", "200ms"),
    ] {
        run = run.arg(flag).arg(value);
    }
    if let Some(mutant) = mutant {
        run = run.env("WALDEX_TEST_MUTANT", mutant);
    }
    let running = run.config(&stage.config()).spawn()?;
    let before = wait_for_walsender(&stage).await?;
    proxy.rule(|request| match request.is_bulk() {
        true => Fault::Answer(503, "{}"),
        false => Fault::Pass,
    });
    let rows = "insert into t select n, repeat('x', 1000) from generate_series(1, 5000) n";
    let mark = stage.execute_and_mark(rows).await?;
    let (began, mut lives) = (Instant::now(), true);
    while began.elapsed() < WAL_SENDER_TIMEOUT * 3 {
        lives &= walsender(&stage).await?.as_ref() == Some(&before);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(proxy.faults() > 2, "nothing was sent");
    ensure!(!stage.has_confirmed(&mark).await?, "confirmed while the cluster takes nothing");
    proxy.clear();
    wait_until(LIMIT, "the rows to be confirmed", async || {
        stage.has_confirmed(&mark).await.unwrap_or(false)
    })
    .await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await.context("after the backpressure")?;
    Ok(lives)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walsender_lives_while_the_cluster_takes_nothing() -> Result<()> {
    ensure!(walsender_lives("presses", None).await?, "the walsender gave us up");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_blocked_by_backpressure_is_noticed() -> Result<()> {
    let lives = walsender_lives("presses_no", Some("status_waits_for_room")).await?;
    ensure!(!lives, "the wrong design went unnoticed");
    Ok(())
}

/// A transaction that takes the slow cluster many times as long as the walsender is ready to wait: every row of it
/// is sent once.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_for_a_slow_cluster_does_not_start_again() -> Result<()> {
    const ROWS: u64 = 8_000;
    let server = impatient()?;
    let mut stage = Stage::new("slow", &server, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.catch_up().await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    proxy.rule(|request| match request.is_bulk() {
        true => Fault::Delay(Duration::from_millis(100)),
        false => Fault::Pass,
    });
    let port = ports::free()?;
    let listen = format!("127.0.0.1:{port}");
    let mut run = Waldex::new("run")?.between(&stage.database.url, stage.name(), proxy.node());
    for (flag, value) in [
        ("--memory-budget", "128KiB"),
        ("--bulk-bytes", "32KiB"),
        ("--admin-listen", listen.as_str()),
    ] {
        run = run.arg(flag).arg(value);
    }
    let running = run.config(&stage.config()).spawn()?;
    let before = wait_for_walsender(&stage).await?;
    let began = Instant::now();
    let rows =
        format!("insert into t select n, repeat('x', 700) from generate_series(1, {ROWS}) n");
    let mark = stage.execute_and_mark(&rows).await?;
    wait_until(2 * LIMIT, "the transaction to be confirmed", async || {
        stage.has_confirmed(&mark).await.unwrap_or(false)
    })
    .await?;
    ensure!(began.elapsed() > WAL_SENDER_TIMEOUT * 3, "too fast: {:?}", began.elapsed());
    ensure!(walsender(&stage).await?.as_ref() == Some(&before), "the walsender changed");
    // What is shown is as of a moment ago.
    let all = async || {
        let (_, metrics) = get(port, "/metrics").await.ok()?;
        let rows = metric(&metrics, "waldex_rows_total").ok()?;
        (rows >= ROWS).then_some((rows, metrics))
    };
    let (rows, metrics) = wait_for(LIMIT, "the rows to be counted", all).await?;
    ensure!(rows == ROWS, "{metrics}");
    ensure!(metric(&metrics, "waldex_reconnects_total")? == 0, "{metrics}");
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}
