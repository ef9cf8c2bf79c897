//! A publication that is younger than the slot, or came back: what was committed before it cannot be read, and the
//! printed way out leads past it.

use anyhow::{Result, ensure};

use crate::support::refusal::CommandLine;
use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::stage::{LIMIT, Stage};

/// The slot was made first, by hand; then changes; then the publication.
async fn younger(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    let mut stage = Stage::new(label, postgres, node).await?;
    let name = stage.name().to_owned();
    let create = format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')");
    stage.execute(&create).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute(&format!("drop publication {name}")).await?;
    stage.execute("insert into t select n, 'before' from generate_series(1, 50) n").await?;
    stage.execute(&format!("create publication {name} for table t")).await?;
    stage.execute("update t set v = 'after' where id > 40").await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn younger_than_the_slot_on_18() -> Result<()> {
    younger("younger_18", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn younger_than_the_slot_on_14() -> Result<()> {
    younger("younger_14", shared_postgres_14()?, shared_opensearch()?).await
}

/// Dropped under a waldex that runs, and made again: the advice it ends with is followed.
async fn came_back(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    let mut stage = Stage::new(label, postgres, node).await?;
    super::filled(&mut stage).await?;
    let name = stage.name().to_owned();
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage.execute(&format!("drop publication {name}")).await?;
    stage.execute("update t set v = 'nobody hears of it'").await?;
    running.finish(LIMIT).await?.expect_code(1)?;
    let line = CommandLine::of(&stage);
    line.succeed(&["setup", "--apply"]).await?;
    // What was committed without it is behind the slot: this cannot go on, and says what can.
    let refused = line.finish(&["run"]).await?;
    let log = refused.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("`waldex run --reload`"), "{log}");
    line.succeed(&["run", "--reload", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    stage.execute("update t set v = 'heard'").await?;
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_and_made_again_on_18() -> Result<()> {
    came_back("back_18", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_and_made_again_on_14() -> Result<()> {
    came_back("back_14", shared_postgres_14()?, shared_opensearch()?).await
}
