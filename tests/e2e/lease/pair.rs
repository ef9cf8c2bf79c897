//! A hot standby: it waits, it is seen to wait, and it goes on when the first dies, is paused, or stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::scene::{
    LEASE, by_way_of, change_state, confirmed, empty_stage, equal, impatient_postgres, live,
    never_said, stage, state, waldex,
};
use crate::support::admin::{get, wait_for_state};
use crate::support::proxy::http::{Fault, SearchProxy};
use crate::support::servers::{ports, shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::Running;

const WAITS: &str = "waiting for the slot";
const RAN_OUT: &str = "the lease on the slot has run out";
const IS_GONE: &str = "the process that held the lease on the slot is gone";
const STANDS_BY: &str = "standing by";

/// Starts a second one and waits until it waits.
async fn second(stage: &Stage<'_>) -> Result<Running> {
    let mut second = waldex(stage, "run")?.spawn()?;
    second.wait_for_line(LIMIT, WAITS).await?;
    Ok(second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_waits_in_sight_and_goes_on_when_the_first_is_killed() -> Result<()> {
    let stage = stage("lease_kill", shared_postgres()?).await?;
    let first = live(&stage).await?;
    let port = ports::free()?;
    let listen = format!("127.0.0.1:{port}");
    let mut second = waldex(&stage, "run")?.arg("--admin-listen").arg(&listen).spawn()?;
    let line = second.wait_for_line(LIMIT, WAITS).await?;
    let (document, _) = state(&stage).await?;
    let instance = document["instance"].as_str().context("no instance")?;
    ensure!(line.contains(instance), "{line}");
    ensure!(line.contains(&format!("process {}", first.pid())) && line.contains("5s"), "{line}");
    wait_for_state(port, "/ready", 503, "waiting_for_slot").await?;
    wait_for_state(port, "/live", 200, "waiting_for_slot").await?;
    let status: Value = serde_json::from_str(&get(port, "/status").await?.1)?;
    ensure!(status["reason"].as_str().is_some_and(|it| it.contains(instance)), "{status}");

    // The first goes on all the while, and nobody but it is connected.
    confirmed(&stage, "update t set v = 'of the first'").await?;
    let query = format!(
        "select count(*)::text from pg_stat_activity where datname = '{}' \
         and application_name = 'waldex' and backend_type = 'walsender'",
        stage.name()
    );
    ensure!(sql::value(&stage.sql, &query).await?.as_deref() == Some("1"), "two are connected");

    let began = Instant::now();
    first.kill()?;
    confirmed(
        &stage,
        "update t set v = 'of the second' where id <= 50; delete from t where id > 90",
    )
    .await?;
    println!("the second has confirmed after {:?}", began.elapsed());
    second.wait_for_line(LIMIT, IS_GONE).await?;
    never_said(&second, RAN_OUT)?;
    wait_for_state(port, "/ready", 200, "live").await?;
    let lines = second.lines();
    let said = lines.iter().filter(|line| line.contains(WAITS) && line.contains(instance));
    ensure!(said.count() == 1, "waiting is not told once: {lines:#?}");
    second.stop(LIMIT).await?;
    equal(&stage).await
}

/// Requests of the paused one are on their way when it is paused, and are carried out long after the second has
/// written the same documents, and deleted some of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_one_changes_nothing_any_more_and_stands_by() -> Result<()> {
    let postgres = impatient_postgres()?;
    let stage = stage("lease_pause", &postgres).await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    let bulks = Arc::new(AtomicU64::new(0));
    let mut first = by_way_of(&stage, proxy.node(), "run")?.spawn()?;
    first.wait_for_line(LIMIT, "\"live\"").await?;
    let mut second = second(&stage).await?;

    // Two lanes are held up with a request each, and there is more behind them.
    let seen = Arc::clone(&bulks);
    proxy.rule(move |request| match request.is_bulk() {
        true => {
            seen.fetch_add(1, Ordering::Relaxed);
            Fault::Delay(LEASE * 3)
        }
        false => Fault::Pass,
    });
    stage.execute("update t set v = 'of the first'").await?;
    stage.execute("insert into t select n, 'backlog' from generate_series(101, 5000) n").await?;
    wait_until(LIMIT, "two requests on their way", async || bulks.load(Ordering::Relaxed) >= 2)
        .await?;
    first.signal(Signal::STOP);

    second.wait_for_line(LIMIT, RAN_OUT).await?;
    confirmed(
        &stage,
        "update t set v = 'of the second' where id % 3 = 0; delete from t where id % 3 = 1",
    )
    .await?;
    equal(&stage).await?;
    wait_until(LIMIT, "the late requests to be carried out", async || proxy.waiting() == 0).await?;
    equal(&stage).await?;

    let before = bulks.load(Ordering::Relaxed);
    first.signal(Signal::CONT);
    let line = first.wait_for_line(LIMIT, STANDS_BY).await?;
    let (document, _) = state(&stage).await?;
    ensure!(line.contains(document["instance"].as_str().context("no instance")?), "{line}");
    first.wait_for_line(LIMIT, WAITS).await?;
    ensure!(bulks.load(Ordering::Relaxed) == before, "the first has sent a bulk");
    equal(&stage).await?;

    // Now it is the other's turn to wait for this one.
    proxy.clear();
    second.kill()?;
    confirmed(&stage, "update t set v = 'of the first again' where id % 2 = 0").await?;
    ensure!(first.is_running(), "the first has ended");
    first.stop(LIMIT).await?;
    equal(&stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_good_order_hands_over_at_once() -> Result<()> {
    let stage = stage("lease_stop", shared_postgres()?).await?;
    let first = live(&stage).await?;
    let mut second = second(&stage).await?;
    confirmed(&stage, "update t set v = 'of the first'").await?;
    let began = Instant::now();
    first.stop(LIMIT).await?;
    confirmed(&stage, "update t set v = 'of the second'").await?;
    println!("the second has confirmed after {:?}", began.elapsed());
    never_said(&second, RAN_OUT)?;
    second.wait_for_line(LIMIT, "\"live\"").await?;
    second.stop(LIMIT).await?;
    ensure!(state(&stage).await?.0["lease"].is_null(), "the lease is not given back");
    equal(&stage).await
}

/// A stop of one that waits is at once, and leaves the first alone.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_ends_at_once_when_it_is_told_to() -> Result<()> {
    let stage = stage("lease_waits", shared_postgres()?).await?;
    let first = live(&stage).await?;
    let second = second(&stage).await?;
    let before = state(&stage).await?.0["instance"].clone();
    second.stop(LIMIT).await?;
    ensure!(state(&stage).await?.0["instance"] == before, "another has written the state");
    confirmed(&stage, "delete from t where id = 1").await?;
    first.stop(LIMIT).await?;
    equal(&stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_one_that_was_killed_does_not_wait_for_itself() -> Result<()> {
    let stage = stage("lease_alone", shared_postgres()?).await?;
    for round in 1..=3 {
        let running = live(&stage).await?;
        confirmed(&stage, &format!("update t set v = 'round {round}'")).await?;
        never_said(&running, RAN_OUT)?;
        running.kill()?;
        ensure!(!state(&stage).await?.0["lease"].is_null(), "a killed one gave its lease back");
    }
    let began = Instant::now();
    let running = waldex(&stage, "run")?.spawn()?;
    confirmed(&stage, "update t set v = 'after all'").await?;
    println!("started and confirmed after {:?}", began.elapsed());
    never_said(&running, "the lease on slot")?;
    running.stop(LIMIT).await?;
    equal(&stage).await
}

/// Nothing can be known of a holder on another machine: its lease is waited for, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_another_machine_is_waited_for() -> Result<()> {
    let stage = stage("lease_elsewhere", shared_postgres()?).await?;
    stage.catch_up().await?;
    let lease = |process: Value| json!({"duration_ms": 3000, "host": "elsewhere", "pid": 4711, "process": process});
    let unlike = json!({"scope": "elsewhere", "pid": 4711, "started": 1});
    for process in [Value::Null, unlike] {
        change_state(&stage, |state| {
            state["instance"] = json!("another");
            state["lease"] = lease(process);
        })
        .await?;
        let began = Instant::now();
        let mut running = waldex(&stage, "run")?.spawn()?;
        let line = running.wait_for_line(LIMIT, WAITS).await?;
        ensure!(line.contains("another (process 4711 on") && line.contains("3s"), "{line}");
        running.wait_for_line(LIMIT, RAN_OUT).await?;
        ensure!(began.elapsed() >= Duration::from_secs(3), "after {:?}", began.elapsed());
        confirmed(&stage, "update t set v = v || '.'").await?;
        running.stop(LIMIT).await?;
    }
    equal(&stage).await
}

/// A state of before there were leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_without_a_lease_is_free() -> Result<()> {
    let stage = stage("lease_old", shared_postgres()?).await?;
    stage.catch_up().await?;
    change_state(&stage, |state| drop(state.as_object_mut().map(|it| it.remove("lease")))).await?;
    let running = waldex(&stage, "run")?.spawn()?;
    confirmed(&stage, "update t set v = 'new'").await?;
    never_said(&running, "the lease on slot")?;
    running.stop(LIMIT).await?;
    equal(&stage).await
}

/// Started together with nothing there yet, one makes slot and state, and none gives up.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_that_start_at_once_one_begins() -> Result<()> {
    let stage = empty_stage("lease_together", shared_postgres()?).await?;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(stage.run()?);
    }
    confirmed(&stage, "update t set v = 'by whoever has it'").await?;
    for running in &mut all {
        ensure!(running.is_running(), "one has ended: {:#?}", running.lines());
    }
    // One after the other, whoever it is.
    while let Some(running) = all.pop() {
        running.stop(LIMIT).await?;
        if !all.is_empty() {
            confirmed(&stage, "update t set v = v || '.'").await?;
        }
    }
    equal(&stage).await
}
