//! A stage with a Postgres of its own that gives up a silent walsender soon, and with short requests, so that a
//! lease lasts five seconds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::Value;

use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::shared_elasticsearch;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Running, Waldex};

/// Twice this is the shortest lease.
const SHORT_REQUESTS: &str = "elasticsearch:\n  request_timeout: 2500ms\n";
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// Starts a Postgres whose walsenders end soon after their client stops answering.
pub(super) fn impatient_postgres() -> Result<Postgres> {
    let conf = vec!["wal_sender_timeout=3s".to_owned()];
    Postgres::start(Version::Newest, &Options { fsync: false, conf })
}

/// A table `t` with a few rows, and its index: to make one can take a busy cluster longer than a short request.
pub(super) async fn stage<'a>(label: &str, postgres: &'a Postgres) -> Result<Stage<'a>> {
    let stage = empty_stage(label, postgres).await?;
    stage.catch_up().await?;
    Ok(stage)
}

/// The same, and waldex was never there.
pub(super) async fn empty_stage<'a>(label: &str, postgres: &'a Postgres) -> Result<Stage<'a>> {
    let mut stage = Stage::new(label, postgres, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select n, 'first' from generate_series(1, 100) n").await?;
    Ok(stage)
}

/// A command with short requests, by way of `node`.
pub(super) fn by_way_of(stage: &Stage<'_>, node: &SearchNode, subcommand: &str) -> Result<Waldex> {
    let program = Waldex::new(subcommand)?;
    let config = format!("{SHORT_REQUESTS}{}", stage.config());
    // A closed circuit keeps the tests short.
    let program = program.arg("--circuit-breaker-open-for").arg("200ms");
    Ok(program.between(&stage.database.url, stage.name(), node).config(&config))
}

/// The same, straight to the cluster.
pub(super) fn waldex(stage: &Stage<'_>, subcommand: &str) -> Result<Waldex> {
    by_way_of(stage, stage.node, subcommand)
}

/// Starts a run and waits until it is live.
pub(super) async fn live(stage: &Stage<'_>) -> Result<Running> {
    let mut running = waldex(stage, "run")?.spawn()?;
    running.wait_for_line(LIMIT, "\"live\"").await?;
    Ok(running)
}

/// Runs SQL, and waits until it is confirmed.
pub(super) async fn confirmed(stage: &Stage<'_>, statements: &str) -> Result<()> {
    let mark = stage.execute_and_mark(statements).await?;
    let seen = async || stage.has_confirmed(&mark).await.unwrap_or(false);
    wait_until(LIMIT, &format!("\"{statements}\" to be confirmed"), seen).await
}

/// The state document, and its sequence number.
pub(super) async fn state(stage: &Stage<'_>) -> Result<(Value, u64)> {
    let path = format!("/waldex-state/_doc/{}", stage.name());
    let answer = stage.search.expect(Method::Get, &path, None).await?;
    let seq_no = answer["_seq_no"].as_u64().context("no sequence number")?;
    Ok((answer["_source"].clone(), seq_no))
}

/// Changes the state document behind everybody's back.
pub(super) async fn change_state(stage: &Stage<'_>, change: impl FnOnce(&mut Value)) -> Result<()> {
    let (mut state, _) = state(stage).await?;
    change(&mut state);
    let path = format!("/waldex-state/_doc/{}", stage.name());
    stage.search.expect(Method::Put, &path, Some(state)).await.map(drop)
}

/// Fails if a line was logged.
pub(super) fn never_said(running: &Running, text: &str) -> Result<()> {
    let found = running.lines().into_iter().find(|line| line.contains(text));
    ensure!(found.is_none(), "said \"{text}\": {found:?}");
    Ok(())
}

/// Every row has its document, and no document is without one.
pub(super) async fn equal(stage: &Stage<'_>) -> Result<()> {
    stage.assert_equal("t", "id", &["id", "v"]).await
}
