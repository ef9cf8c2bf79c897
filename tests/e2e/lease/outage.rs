//! A lease that cannot be renewed: nothing is sent without it, and it comes back by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};

use super::scene::{by_way_of, confirmed, equal, impatient_postgres, never_said, stage};
use crate::support::proxy::http::{Fault, Request, SearchProxy};
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

const LAPSED: &str = "the lease is not renewed in time";
const RENEWED: &str = "the lease is renewed";
const DOWN: &str = r#"{"error":{"type":"unavailable_shards_exception"},"status":503}"#;
const SORRY: &str = "<html><body>We are under maintenance.</body></html>";
const NO_ROUTE: &str = "404 page not found";
const BUSY: &str = r#"{"error":{"type":"es_rejected_execution_exception"},"status":429}"#;

fn is_state_write(request: &Request) -> bool {
    request.method == "PUT" && request.path.starts_with("/waldex-state/_doc/")
}

async fn walsender(stage: &Stage<'_>) -> Result<Option<String>> {
    let slot = stage.name();
    let query =
        format!("select active_pid::text from pg_replication_slots where slot_name = '{slot}'");
    sql::value(&stage.sql, &query).await
}

/// The cluster is away for longer than the lease, whichever way; the walsender stays.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_lease_is_waited_out() -> Result<()> {
    let postgres = impatient_postgres()?;
    let stage = stage("lease_outage", &postgres).await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    let mut running = by_way_of(&stage, proxy.node(), "run")?.spawn()?;
    running.wait_for_line(LIMIT, "\"live\"").await?;
    let before = walsender(&stage).await?;
    let faults = [
        Fault::Answer(503, DOWN),
        Fault::Silence,
        // Of something in between, which says nothing of state and indices.
        Fault::Answer(200, SORRY),
        Fault::Answer(404, NO_ROUTE),
    ];
    for (round, fault) in faults.into_iter().enumerate() {
        let lapses = |lines: Vec<String>| lines.iter().filter(|it| it.contains(LAPSED)).count();
        proxy.rule(move |_| fault.clone());
        let mark = stage.execute_and_mark(&format!("update t set v = 'round {round}'")).await?;
        wait_until(LIMIT, "the lease to run out", async || lapses(running.lines()) > round).await?;
        ensure!(!stage.has_confirmed(&mark).await?, "confirmed without the cluster");
        ensure!(walsender(&stage).await? == before, "the walsender changed");
        proxy.clear();
        confirmed(&stage, "insert into t select max(id) + 1, 'after' from t").await?;
        equal(&stage).await?;
    }
    running.wait_for_line(LIMIT, RENEWED).await?;
    ensure!(before.is_some() && walsender(&stage).await? == before, "the walsender changed");
    running.stop(LIMIT).await
}

/// Only the state cannot be written, and a request is tried again and again: without the lease it is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_not_tried_again_without_the_lease() -> Result<()> {
    let stage = stage("lease_retry", shared_postgres()?).await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    let mut running = by_way_of(&stage, proxy.node(), "run")?.spawn()?;
    running.wait_for_line(LIMIT, "\"live\"").await?;
    let (bulks, renewals) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let seen = (Arc::clone(&bulks), Arc::clone(&renewals));
    proxy.rule(move |request| {
        if is_state_write(request) {
            seen.1.fetch_add(1, Ordering::Relaxed);
            Fault::Answer(503, DOWN)
        } else if request.is_bulk() {
            seen.0.fetch_add(1, Ordering::Relaxed);
            Fault::Answer(429, BUSY)
        } else {
            Fault::Pass
        }
    });
    let mark = stage.execute_and_mark("update t set v = 'tried again'").await?;
    wait_until(LIMIT, "a request to be tried", async || bulks.load(Ordering::Relaxed) > 1).await?;
    running.wait_for_line(LIMIT, LAPSED).await?;
    // Those that began with the lease are over before it is.
    let (sent, asked) = (bulks.load(Ordering::Relaxed), renewals.load(Ordering::Relaxed));
    wait_until(LIMIT, "five attempts at a renewal", async || {
        renewals.load(Ordering::Relaxed) >= asked + 5
    })
    .await?;
    ensure!(bulks.load(Ordering::Relaxed) == sent, "a request was sent without the lease");
    ensure!(!stage.has_confirmed(&mark).await?, "confirmed without a record");
    running.wait_for_line(LIMIT, "the lease is not renewed: cannot write the state").await?;
    proxy.clear();
    confirmed(&stage, "delete from t where id = 1").await?;
    never_said(&running, "standing by")?;
    running.stop(LIMIT).await?;
    equal(&stage).await
}

/// Answers to writes of the state are lost: what stands there is ours, and is written over.
#[tokio::test(flavor = "multi_thread")]
async fn renewals_whose_answers_are_lost_are_no_other_holder() -> Result<()> {
    let stage = stage("lease_lost", shared_postgres()?).await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    let mut running = by_way_of(&stage, proxy.node(), "run")?.spawn()?;
    running.wait_for_line(LIMIT, "\"live\"").await?;
    let mut writes = 0;
    proxy.rule(move |request| {
        writes += u64::from(is_state_write(request));
        match is_state_write(request) && writes % 3 == 1 {
            true => Fault::LoseAnswer,
            false => Fault::Pass,
        }
    });
    for round in 0..5 {
        let before = proxy.faults();
        confirmed(&stage, &format!("update t set v = 'round {round}'")).await?;
        wait_until(LIMIT, "a lost answer", async || proxy.faults() > before).await?;
    }
    never_said(&running, "standing by")?;
    running.stop(LIMIT).await?;
    equal(&stage).await
}
