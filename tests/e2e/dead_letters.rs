//! Documents that the cluster refuses: passed over with a dead letter, and only with one.

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use crate::support::search::Search;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};

/// A value that must never turn up in a log or, unless it is to be kept, in a letter.
const CANARY: &str = "c4n4ry";
/// `v` is text in the table and a number in the index.
const NUMBERS_ONLY: &str = "mappings: {properties: {v: {type: integer}}}";
const LETTERS: &str = "waldex-dead-letters";

async fn stage<'a>(label: &str, node: &'a SearchNode) -> Result<Stage<'a>> {
    let mut stage = Stage::new(label, shared_postgres()?, node).await?;
    stage.table("t", "id int primary key, v text", NUMBERS_ONLY).await?;
    Ok(stage)
}

/// The letters of the stage's slot, as they lie in the index.
async fn letters(stage: &Stage<'_>) -> Result<Vec<Value>> {
    let all = stage.search.documents(LETTERS).await?;
    let ours = all.into_values().map(|document| document.source);
    Ok(ours.filter(|source| source["slot"] == stage.name()).collect())
}

async fn ids(search: &Search, index: &str) -> Result<Vec<String>> {
    Ok(search.documents(index).await?.into_keys().collect())
}

async fn one_of_many(label: &str, node: &SearchNode) -> Result<()> {
    let stage = stage(label, node).await?;
    let rows = |from: u32, to: u32, bad: u32| {
        format!(
            "insert into t select n, case n when {bad} then '{CANARY}' else n::text end \
             from generate_series({from}, {to}) n"
        )
    };
    stage.execute(&rows(1, 10_000, 5_000)).await?;
    let loaded = stage.catch_up().await?;
    let index = stage.index("t");
    ensure!(stage.search.count(&index).await? == Some(9_999), "one of 10 000 must be missing");
    let mark = stage.execute_and_mark(&rows(10_001, 20_000, 12_345)).await?;
    let streamed = stage.catch_up().await?;
    ensure!(stage.search.count(&index).await? == Some(19_998), "two of 20 000 must be missing");
    ensure!(stage.has_confirmed(&mark).await?, "the rows were not confirmed");

    let letters = letters(&stage).await?;
    ensure!(letters.len() == 2, "{letters:?}");
    for (letter, id) in letters.iter().zip(["12345", "5000"]) {
        ensure!(letter["document_id"] == id && letter["table"] == "public.t", "{letter}");
        ensure!(letter["index"] == format!("{index}-000001"), "{letter}");
        ensure!(letter["status"] == 400 && letter["field"] == "v", "{letter}");
        ensure!((letter["lsn"] == "0/0") == (id == "5000"), "{letter}");
        ensure!(!letter.to_string().contains(CANARY), "{letter}");
    }
    for line in loaded.stderr.iter().chain(&streamed.stderr) {
        ensure!(!line.contains(CANARY), "{line}");
    }
    let told = streamed.stderr.iter().any(|line| line.contains("refuses documents"));
    ensure!(told, "the log does not tell of it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_document_of_ten_thousand_on_elasticsearch() -> Result<()> {
    one_of_many("dead_es", shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_document_of_ten_thousand_on_opensearch() -> Result<()> {
    one_of_many("dead_os", shared_opensearch()?).await
}

/// The letter goes with the next good write of its row, with its delete, and with a truncate.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_when_its_document_is_written_or_removed() -> Result<()> {
    let stage = stage("dead_goes", shared_elasticsearch()?).await?;
    stage.catch_up().await?;
    stage.execute("insert into t values (1, 'x'), (2, 'x'), (3, 'x'), (4, 'x'), (5, '5')").await?;
    stage.catch_up().await?;
    ensure!(letters(&stage).await?.len() == 4, "four are refused");
    stage.execute("update t set v = '1' where id = 1; delete from t where id = 2").await?;
    stage.execute("update t set v = '3' where id = 3").await?;
    stage.catch_up().await?;
    stage.execute("update t set v = 'again' where id = 3").await?;
    stage.catch_up().await?;
    let open = letters(&stage).await?;
    let open: Vec<&Value> = open.iter().map(|letter| &letter["document_id"]).collect();
    ensure!(open == ["3", "4"], "{open:?}");
    ensure!(ids(&stage.search, &stage.index("t")).await? == ["1", "3", "5"], "3 is outdated there");
    stage.execute("truncate t; insert into t values (6, 'x')").await?;
    stage.catch_up().await?;
    let open = letters(&stage).await?;
    ensure!(open.len() == 1 && open[0]["document_id"] == "6", "{open:?}");
    Ok(())
}

/// A row that is written badly and then well, and the other way round, in one transaction of several bulks.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_write_of_a_transaction_decides() -> Result<()> {
    let stage = stage("dead_last", shared_elasticsearch()?).await?;
    stage.catch_up().await?;
    stage
        .execute(
            "begin; insert into t select n, 'bad' from generate_series(1, 40) n;
             update t set v = id::text where id <= 20;
             update t set v = 'worse' where id <= 10; commit",
        )
        .await?;
    let run = stage.waldex("run")?.arg("--until").arg("current").arg("--bulk-size").arg("7");
    run.run_to_end(LIMIT).await?.expect_code(0)?;
    let open = letters(&stage).await?.len();
    ensure!(open == 30, "{open} letters, for 1 to 10 and 21 to 40");
    // Of 1 to 10 an outdated document may be there, where the last write was in a request of its own.
    let written = ids(&stage.search, &stage.index("t")).await?;
    let numbers: Vec<u32> = written.iter().filter_map(|id| id.parse().ok()).collect();
    ensure!((11..=20).all(|id| numbers.contains(&id)), "not all of 11 to 20: {written:?}");
    ensure!(numbers.iter().all(|id| *id <= 20), "some of 21 to 40: {written:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn halt_stops_with_the_reason_and_confirms_nothing() -> Result<()> {
    let stage = stage("dead_halt", shared_elasticsearch()?).await?;
    stage.catch_up().await?;
    let mark = stage.execute_and_mark(&format!("insert into t values (1, '{CANARY}')")).await?;
    let run = stage.waldex("run")?.arg("--on-rejected").arg("halt");
    let finished = run.run_to_end(LIMIT).await?;
    finished.expect_code(1)?;
    let log = finished.stderr.join("\n");
    ensure!(log.contains("field \"v\"") && !log.contains(CANARY), "{log}");
    ensure!(!stage.has_confirmed(&mark).await?, "the row was confirmed");
    ensure!(letters(&stage).await?.is_empty(), "there is a letter");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_letters_halt_after_all() -> Result<()> {
    let stage = stage("dead_many", shared_elasticsearch()?).await?;
    stage.catch_up().await?;
    let limited = |stage: &Stage<'_>| -> Result<_> {
        let run = stage.waldex("run")?.arg("--until").arg("current");
        Ok(run.arg("--dead-letters-max").arg("5"))
    };
    stage.execute("insert into t select n, 'x' from generate_series(1, 5) n").await?;
    limited(&stage)?.run_to_end(LIMIT).await?.expect_code(0)?;
    let mark = stage.execute_and_mark("insert into t values (6, 'x')").await?;
    let finished = limited(&stage)?.run_to_end(LIMIT).await?;
    finished.expect_code(1)?;
    ensure!(finished.stderr.join("\n").contains("dead_letters.max"), "{:?}", finished.stderr);
    ensure!(!stage.has_confirmed(&mark).await?, "the row was confirmed");
    ensure!(letters(&stage).await?.len() == 5, "the limit was passed");
    stage.execute("update t set v = '1' where id = 1").await?;
    // Row 6 comes first and is one too many; with room for it, 1 makes room again.
    let run = stage.waldex("run")?.arg("--until").arg("current").arg("--dead-letters-max").arg("6");
    run.run_to_end(LIMIT).await?.expect_code(0)?;
    ensure!(letters(&stage).await?.len() == 5, "2 to 6");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_kept_only_on_demand() -> Result<()> {
    let stage = stage("dead_keep", shared_elasticsearch()?).await?;
    stage.catch_up().await?;
    stage.execute(&format!("insert into t values (1, '{CANARY}')")).await?;
    let run = stage.waldex("run")?.arg("--until").arg("current");
    run.arg("--dead-letters-keep-document").run_to_end(LIMIT).await?.expect_code(0)?;
    let letters = letters(&stage).await?;
    let kept = letters.first().and_then(|letter| letter["document"].as_str());
    let kept: Value = serde_json::from_str(kept.context("no document")?)?;
    ensure!(kept == json!({"id": 1, "v": CANARY}), "{kept}");
    // It is of no index, so that nobody finds a row by searching its letters.
    let query = json!({"query": {"query_string": {"query": CANARY}}});
    let path = format!("/{LETTERS}/_search");
    let found = stage.search.expect(Method::Post, &path, Some(query)).await?;
    ensure!(found["hits"]["total"]["value"] == 0, "{found}");
    Ok(())
}
