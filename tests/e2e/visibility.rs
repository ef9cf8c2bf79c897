//! A commit that waits for a synchronous standby is in the WAL, and in the stream, before any snapshot shows it.
//! Neither a load nor a re-select may then take the table as it was before.

use anyhow::Result;

use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::shared_elasticsearch;
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

fn server() -> Result<Postgres> {
    Postgres::start(Version::Newest, &Options::default())
}

/// From here on commits wait for a standby that does not exist, but those of the stage's own session.
async fn hold_commits(stage: &Stage<'_>) -> Result<()> {
    stage.execute("set synchronous_commit = local").await?;
    stage.execute("alter system set synchronous_standby_names = 'nobody'").await?;
    stage.execute("select pg_reload_conf()").await?;
    let shown = "show synchronous_standby_names";
    wait_until(LIMIT, "the setting to be in force", async || {
        matches!(sql::value(&stage.sql, shown).await, Ok(Some(names)) if names == "nobody")
    })
    .await
}

/// Runs `statements` in a session of their own, and returns once their commit waits for the standby.
async fn commit_that_waits(stage: &Stage<'_>, statements: &str) -> Result<()> {
    let client = sql::connect(&stage.database.url).await?;
    let statements = format!("set synchronous_commit = on; {statements}");
    tokio::spawn(async move { sql::batch(&client, &statements).await });
    let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    wait_until(
        LIMIT,
        "the commit to wait for its standby",
        async || matches!(sql::value(&stage.sql, waiting).await, Ok(Some(count)) if count == "1"),
    )
    .await
}

async fn let_commits_through(stage: &Stage<'_>) -> Result<()> {
    stage.execute("alter system set synchronous_standby_names = ''").await?;
    stage.execute("select pg_reload_conf()").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_does_not_miss_a_commit_that_no_snapshot_shows_yet() -> Result<()> {
    let postgres = server()?;
    let mut stage = Stage::new("unseen_load", &postgres, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t values (1, 'before')").await?;
    stage.catch_up().await?;
    hold_commits(&stage).await?;
    commit_that_waits(&stage, "insert into t values (2, 'committed, not shown')").await?;
    // The stream passes the commit, and the slot with it: only the load of the next run can bring the row.
    stage.catch_up().await?;

    let reload = stage.waldex("run")?.arg("--reload").arg("--until").arg("current");
    let mut running = reload.spawn()?;
    running.wait_for_line(LIMIT, "waiting for transactions").await?;
    let_commits_through(&stage).await?;
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_selected_again_is_not_the_one_before_an_unseen_commit() -> Result<()> {
    let postgres = server()?;
    let mut stage = Stage::new("unseen_toast", &postgres, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, big text, n int", "").await?;
    stage.execute("alter table t alter big set storage external").await?;
    stage.execute("insert into t values (1, repeat('old', 5000), 0)").await?;
    stage.catch_up().await?;
    hold_commits(&stage).await?;
    commit_that_waits(
        &stage,
        "begin; update t set big = repeat('new', 5000) where id = 1; \
         update t set n = 1 where id = 1; commit",
    )
    .await?;

    let running = stage.run()?;
    let asked = "select count(*) from pg_stat_activity where application_name = 'waldex' \
                 and query like 'COPY (SELECT pg_catalog.pg_current_snapshot()%'";
    wait_until(
        LIMIT,
        "the value to be selected again",
        async || matches!(sql::value(&stage.sql, asked).await, Ok(Some(count)) if count == "1"),
    )
    .await?;
    let_commits_through(&stage).await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "big", "n"]).await
}
