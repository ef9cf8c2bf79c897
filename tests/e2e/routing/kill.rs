//! `kill -9` in the middle of a transaction that moves every row from one routing to another, and to a third.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::json;

use super::{BY_ZONE, stage};
use crate::support::search::Search;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres};
use crate::support::wait::wait_until;

const ROWS: u64 = 20_000;

async fn killed(label: &str, node: &SearchNode) -> Result<()> {
    let stage = stage(label, shared_postgres()?, node, BY_ZONE).await?;
    stage
        .execute(&format!(
            "insert into t select n, '1', 'z' || n % 11 from generate_series(1, {ROWS}) n"
        ))
        .await?;
    stage.catch_up().await?;
    super::assert_equal(&stage).await?;
    let end = stage
        .execute_and_mark(
            "begin; update t set v = '2', zone = 'y' || id % 7;
             update t set v = '3', zone = 'z' || id % 11 where id % 2 = 0;
             update t set v = '4', zone = 'x' || id % 5 where id % 3 = 0;
             delete from t where id % 10 = 0; commit",
        )
        .await?;
    let index = stage.index("t");
    for depth in [1, ROWS / 4, ROWS / 2, ROWS * 9 / 10] {
        let mut running = stage.run()?;
        let written = async || {
            let written = written(&stage.search, &index).await.unwrap_or(0);
            written >= depth || !running.is_running()
        };
        wait_until(Duration::from_secs(60), "documents of the transaction", written).await?;
        running.kill()?;
        ensure!(!stage.has_confirmed(&end).await?, "the transaction was over, {depth} deep");
    }
    stage.catch_up().await?;
    super::assert_equal(&stage).await?;
    ensure!(stage.search.count(&index).await? == Some(ROWS * 9 / 10), "another number");
    Ok(())
}

/// Documents that are not as they were loaded.
async fn written(search: &Search, index: &str) -> Result<u64> {
    search.refresh(index).await?;
    let query = json!({"query": {"bool": {"must_not": {"term": {"v.keyword": "1"}}}}});
    let answer = search.expect(Method::Post, &format!("/{index}/_count"), Some(query)).await?;
    answer["count"].as_u64().context("no count")
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_a_transaction_that_moves_every_row() -> Result<()> {
    killed("rt_kill_es", shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_a_transaction_that_moves_every_row_on_opensearch() -> Result<()> {
    killed("rt_kill_os", shared_opensearch()?).await
}
