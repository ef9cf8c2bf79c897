//! Parts that stop answering without going away (`SIGSTOP`), outages, and stops in good order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::arena::{Hurt, WAL_SENDER_TIMEOUT, arena};
use super::load::{self, Amount, Load};
use super::scene::Scene;
use crate::support::sql;
use crate::support::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than `wal_sender_timeout`, with room for a slow machine.
const LONG: Duration = WAL_SENDER_TIMEOUT.saturating_add(Duration::from_secs(2));
/// `memory_budget`, 16 MiB, and the 32 MiB that everything else may take.
const RSS_BYTES_MAX: u64 = 48 << 20;

/// Lets `time` pass: where the fault is its length, there is nothing else to wait for.
async fn outlast(time: Duration) -> Result<()> {
    tokio::time::sleep(time).await;
    Ok(())
}

/// The process that feeds the slot; none if nobody reads it.
async fn walsender(scene: &Scene) -> Result<Option<String>> {
    let slot = scene.stage.name();
    let query = format!("select active_pid from pg_replication_slots where slot_name = '{slot}'");
    sql::value(&scene.stage.sql, &query).await
}

async fn wait_for_walsender(scene: &Scene, is_there: bool) -> Result<()> {
    let what = if is_there { "a walsender" } else { "the walsender to end" };
    let seen = async || walsender(scene).await.is_ok_and(|pid| pid.is_some() == is_there);
    wait_until(LIMIT, what, seen).await
}

/// Each part in turn, for longer than `wal_sender_timeout` and than `request_timeout`.
#[tokio::test(flavor = "multi_thread")]
async fn each_part_stops_answering_under_load() -> Result<()> {
    let turn = arena().await?;
    let mut scene = Scene::new("freeze", &turn).await?;
    load::create_tables(&mut scene.stage).await?;
    let amount = Amount { changes: 20_000, per_second: 1_000 };
    let load = Load::start(&scene.stage.database.url, amount, crate::support::seed::seed()?);
    scene.supervise("elasticsearch:\n  request_timeout: 2s\n")?;
    scene.watch(&load);
    wait_for_walsender(&scene, true).await?;

    // Postgres gives the walsender up; afterwards waldex must come back by itself.
    scene.waldex.as_ref().context("no waldex")?.signal(Signal::STOP);
    wait_for_walsender(&scene, false).await?;
    scene.waldex.as_ref().context("no waldex")?.signal(Signal::CONT);
    wait_for_walsender(&scene, true).await?;

    // Requests run into their timeout and may all be carried out afterwards; the walsender stays.
    let before = walsender(&scene).await?;
    turn.elasticsearch.backend().suspend()?;
    scene.until(outlast(LONG)).await?;
    let during = walsender(&scene).await?;
    turn.elasticsearch.backend().resume()?;
    ensure!(before.is_some() && during == before, "the walsender changed: {before:?}, {during:?}");

    turn.postgres.backend().suspend()?;
    scene.until(outlast(LONG)).await?;
    turn.postgres.backend().resume()?;
    wait_for_walsender(&scene, true).await?;

    load.finish().await?;
    let seen = scene.end().await?;
    ensure!(seen.positions > 50 && seen.marks > 5, "hardly anything was watched: {seen:?}");
    let starts = scene.waldex.as_ref().map(|waldex| waldex.starts());
    ensure!(starts == Some(1), "waldex ended: {starts:?} starts");
    load::assert_tables_equal(&scene.stage).await
}

/// Elasticsearch is gone for half a minute: the walsender stays, memory stays flat, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_is_gone_for_half_a_minute_under_load() -> Result<()> {
    let turn = arena().await?;
    let mut scene = Scene::new("outage", &turn).await?;
    load::create_tables(&mut scene.stage).await?;
    let amount = Amount { changes: 100_000, per_second: 6_000 };
    let load = Load::start(&scene.stage.database.url, amount, crate::support::seed::seed()?);
    scene.supervise("")?;
    scene.watch(&load);
    scene.until(load.wait_for_changes(5_000)).await?;
    wait_for_walsender(&scene, true).await?;
    let before = walsender(&scene).await?;
    turn.elasticsearch.kill_it()?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        scene.until(outlast(Duration::from_millis(500))).await?;
        let now = walsender(&scene).await?;
        ensure!(now == before, "the walsender changed: {before:?}, {now:?}");
    }
    turn.elasticsearch.bring_back()?;
    let after = walsender(&scene).await?;
    ensure!(after == before, "the walsender changed: {before:?}, {after:?}");
    println!("back after {:?} and {} changes", began.elapsed(), load.changes());
    load.finish().await?;
    let peak = scene.waldex.as_mut().context("no waldex")?.peak_rss_bytes();
    println!("peak RSS {} KiB", peak >> 10);
    ensure!(peak < RSS_BYTES_MAX, "peak RSS {peak} bytes");
    let seen = scene.end().await?;
    ensure!(seen.marks > 5, "hardly anything was watched: {seen:?}");
    load::assert_tables_equal(&scene.stage).await
}

/// Stopped and started again and again while rows come in: each stop ends well, with everything that it
/// says is confirmed in the slot.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_under_load() -> Result<()> {
    let turn = arena().await?;
    let mut scene = Scene::new("drain", &turn).await?;
    load::create_tables(&mut scene.stage).await?;
    let amount = Amount { changes: 30_000, per_second: 3_000 };
    let load = Load::start(&scene.stage.database.url, amount, crate::support::seed::seed()?);
    scene.watch(&load);
    let mut drained = 0;
    for round in 1..=6 {
        scene.supervise("")?;
        wait_for_walsender(&scene, true).await?;
        scene.until(load.wait_for_changes(load.changes() + 700 * round)).await?;
        let waldex = scene.waldex.as_mut().context("no waldex")?;
        let finished = waldex.stop(Duration::from_secs(15)).await?;
        scene.waldex = None;
        let Some(stopped) = finished.stderr.iter().rfind(|line| line.contains("\"stopped\""))
        else {
            // It had not come to streaming yet.
            continue;
        };
        drained += 1;
        let confirmed = scene.stage.confirmed().await?.context("no slot")?;
        ensure!(stopped.contains(&format!("\"{confirmed}\"")), "slot at {confirmed}: {stopped}");
    }
    ensure!(drained > 2, "waldex was stopped while it streamed only {drained} times");
    scene.supervise("")?;
    load.finish().await?;
    scene.end().await?;
    load::assert_tables_equal(&scene.stage).await
}
