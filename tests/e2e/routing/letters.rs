//! Dead letters of routed documents: they know where the document is.

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::stage;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};

const NUMBERS_ONLY: &str = "routing: zone\nexclude: [zone]\n\
    settings: {number_of_shards: 3, number_of_replicas: 0}\nmappings: {properties: {v: {type: integer}}}";

async fn command(stage: &Stage<'_>, words: &[&str], code: i32) -> Result<String> {
    let mut program = stage.waldex("dead-letters")?;
    for word in words {
        program = program.arg(word);
    }
    Ok(program.run_to_end(LIMIT).await?.expect_code(code)?.stdout.join("\n"))
}

/// The letters as they are stored, by the document's id: the routing of each.
async fn letters(stage: &Stage<'_>) -> Result<Vec<(String, Option<String>)>> {
    let letters = stage.search.documents("waldex-dead-letters").await?;
    let ours = letters.into_values().filter(|letter| letter.source["slot"] == stage.name());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    ours.map(|letter| {
        let id = text(&letter.source["document_id"]).context("no id")?;
        Ok((id, text(&letter.source["routing"])))
    })
    .collect()
}

/// From now on the index takes what it refused.
async fn forgive(stage: &Stage<'_>) -> Result<()> {
    let path = format!("/{}/_mapping", stage.index("t"));
    let mapping = json!({"properties": {"v": {"type": "integer", "ignore_malformed": true}}});
    stage.search.expect(Method::Put, &path, Some(mapping)).await.map(drop)
}

async fn retried(node: &SearchNode) -> Result<()> {
    let stage = stage("rt_letters", shared_postgres()?, node, NUMBERS_ONLY).await?;
    stage.execute("insert into t select n, n::text, 'a' from generate_series(1, 9) n").await?;
    stage.catch_up().await?;
    super::assert_equal(&stage).await?;
    // Refused where they go; what they leave is deleted all the same.
    stage.execute("update t set v = 'no', zone = 'b,' where id <= 5").await?;
    stage.execute("update t set v = 'no' where id = 6").await?;
    stage.catch_up().await?;
    let found = stage.search.documents(&stage.index("t")).await?;
    ensure!(found.keys().map(String::as_str).eq(["6", "7", "8", "9"]), "{:?}", found.keys());
    let mut stored = letters(&stage).await?;
    stored.sort();
    let routing = |id: &str| if id == "6" { "a" } else { "b~1" };
    let expected = ["1", "2", "3", "4", "5", "6"].map(|id| (id.into(), Some(routing(id).into())));
    ensure!(stored == expected, "{stored:?}");
    ensure!(!command(&stage, &["list"], 0).await?.contains("b~1"), "a column's value is listed");

    // 1 is written and refused again elsewhere; 2 written; 3 moves; 4 goes; 5 and 6 stay.
    stage
        .execute("update t set zone = 'c' where id = 1; update t set v = '2' where id = 2")
        .await?;
    stage
        .execute("update t set zone = 'd', v = '3' where id = 3; delete from t where id = 4")
        .await?;
    stage.catch_up().await?;
    let mut stored = letters(&stage).await?;
    stored.sort();
    let expected =
        [("1", "c"), ("5", "b~1"), ("6", "a")].map(|(id, r)| (id.into(), Some(r.into())));
    ensure!(stored == expected, "{stored:?}");

    forgive(&stage).await?;
    // Not streamed yet: gone, and elsewhere with another value; and 6 as it is.
    stage
        .execute("delete from t where id = 1; update t set zone = 'e', v = '5' where id = 5")
        .await?;
    stage.execute("update t set zone = 'f', v = '6' where id = 6").await?;
    let told = command(&stage, &["retry", "--all"], 0).await?;
    ensure!(told.matches("written as the row is now").count() == 2, "{told}");
    ensure!(letters(&stage).await?.is_empty(), "letters stay");
    super::assert_equal(&stage).await?;
    stage.catch_up().await?;
    super::assert_equal(&stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_retried_where_its_row_is_now() -> Result<()> {
    retried(shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_retried_where_its_row_is_now_on_opensearch() -> Result<()> {
    retried(shared_opensearch()?).await
}

/// The document that was given up goes with the next change of its row, wherever that leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_dropped_leaves_no_document_behind() -> Result<()> {
    let stage = stage("rt_drop", shared_postgres()?, shared_elasticsearch()?, NUMBERS_ONLY).await?;
    stage.execute("insert into t values (1, '1', 'a'), (2, '2', 'a'), (3, '3', 'a')").await?;
    stage.catch_up().await?;
    stage.execute("update t set v = 'no'; update t set zone = 'b' where id = 2").await?;
    stage.catch_up().await?;
    command(&stage, &["drop", "--all"], 0).await?;
    stage
        .execute("update t set v = '7', zone = 'c'; truncate t; insert into t values (4, '4', 'a')")
        .await?;
    stage.catch_up().await?;
    super::assert_equal(&stage).await
}
