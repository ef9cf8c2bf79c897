//! `waldex dead-letters`: what it shows, and that a retry neither hides a later change nor brings a row back.

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::waldex::Finished;

const NUMBERS_ONLY: &str = "mappings: {properties: {v: {type: integer}}}";
const CANARY: &str = "c4n4ry";

async fn stage(label: &str) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", NUMBERS_ONLY).await?;
    stage.catch_up().await?;
    Ok(stage)
}

async fn command(stage: &Stage<'_>, words: &[&str]) -> Result<Finished> {
    let mut program = stage.waldex("dead-letters")?;
    for word in words {
        program = program.arg(word);
    }
    program.run_to_end(LIMIT).await
}

async fn listed(stage: &Stage<'_>) -> Result<Vec<Value>> {
    let finished = command(stage, &["list", "--json"]).await?;
    let text = finished.expect_code(0)?.stdout.join("\n");
    serde_json::from_str(&text).with_context(|| format!("no JSON array: {text}"))
}

/// From now on the index takes what it refused.
async fn forgive(stage: &Stage<'_>) -> Result<()> {
    let path = format!("/{}/_mapping", stage.index("t"));
    let mapping = json!({"properties": {"v": {"type": "integer", "ignore_malformed": true}}});
    stage.search.expect(Method::Put, &path, Some(mapping)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_and_retry_writes_the_row_as_it_is_now() -> Result<()> {
    let stage = stage("letters_retry").await?;
    let nothing = command(&stage, &["list"]).await?;
    ensure!(nothing.expect_code(0)?.stdout == ["there are no dead letters"], "{nothing:?}");
    stage.execute(&format!("insert into t values (1, '{CANARY}'), (2, 'x'), (3, '3')")).await?;
    stage.catch_up().await?;

    let letters = listed(&stage).await?;
    ensure!(letters.len() == 2, "{letters:?}");
    let first = letters.first().context("none")?;
    let id = format!("{}-000001,1", stage.index("t"));
    ensure!(first["id"] == id && first["table"] == "public.t" && first["field"] == "v", "{first}");
    ensure!(first["attempts"] == 1 && first["lsn"] != "0/0", "{first}");
    let text = command(&stage, &["list"]).await?.expect_code(0)?.stdout.join("\n");
    ensure!(text.contains(&id) && text.contains("public.t") && text.contains("\"v\""), "{text}");
    ensure!(!text.contains(CANARY), "{text}");
    let status = stage.waldex("status")?.arg("--json").run_to_end(LIMIT).await?;
    let status: Value = serde_json::from_str(&status.expect_code(0)?.stdout.join(""))?;
    ensure!(status["dead_letters"] == 2, "{status}");

    let refused = command(&stage, &["retry", &id]).await?;
    let log = refused.expect_code(1)?.stdout.join("\n");
    ensure!(log.contains("refused again") && !log.contains(CANARY), "{log}");
    ensure!(listed(&stage).await?.iter().any(|letter| letter["attempts"] == 2), "not counted");

    forgive(&stage).await?;
    // Not streamed yet: the letter's row as it is now, and the other one gone.
    stage.execute("update t set v = 'now' where id = 1; delete from t where id = 2").await?;
    command(&stage, &["retry", "--all"]).await?.expect_code(0)?;
    ensure!(listed(&stage).await?.is_empty(), "letters stay");
    let index = stage.index("t");
    let written = stage.search.document(&index, "1").await?.context("1 is not there")?;
    ensure!(written.source["v"] == "now", "{written:?}");
    ensure!(stage.search.document(&index, "2").await?.is_none(), "2 came back");
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// The row was refused, then written well and deleted by the stream; the letter of the first write, brought
/// back by hand, must not undo that.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_never_undoes_what_the_stream_has_written_since() -> Result<()> {
    let stage = stage("letters_newer").await?;
    stage.execute("insert into t values (1, 'x'), (2, 'x')").await?;
    stage.catch_up().await?;
    let letters = stage.search.documents("waldex-dead-letters").await?;
    let letters = letters.into_iter().filter(|(_, letter)| letter.source["slot"] == stage.name());
    let letters: Vec<_> = letters.collect();
    ensure!(letters.len() == 2, "{letters:?}");
    stage.execute("update t set v = '7' where id = 1; delete from t where id = 2").await?;
    stage.catch_up().await?;
    let before = stage.search.document(&stage.index("t"), "1").await?.context("no document")?;
    for (id, letter) in letters {
        let id = id.replace(',', "%2C");
        let path = format!("/waldex-dead-letters/_doc/{id}");
        stage.search.expect(Method::Put, &path, Some(letter.source)).await?;
    }
    let finished = command(&stage, &["retry", "--all"]).await?;
    let told = finished.expect_code(0)?.stdout.join("\n");
    ensure!(told.matches("something newer").count() == 2, "{told}");
    let after = stage.search.document(&stage.index("t"), "1").await?.context("no document")?;
    ensure!(after == before, "{before:?} became {after:?}");
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_takes_letters_by_id_or_all() -> Result<()> {
    let stage = stage("letters_drop").await?;
    stage.execute("insert into t select n, 'x' from generate_series(1, 4) n").await?;
    stage.catch_up().await?;
    let unknown = command(&stage, &["drop", "t-000001,99"]).await?;
    ensure!(unknown.expect_code(64)?.stderr.join("").contains("no dead letter"), "{unknown:?}");
    ensure!(command(&stage, &["drop"]).await?.code == Some(64), "drop needs to know which");
    let id = format!("{}-000001,3", stage.index("t"));
    command(&stage, &["drop", &id]).await?.expect_code(0)?;
    ensure!(listed(&stage).await?.len() == 3, "one was dropped");
    command(&stage, &["drop", "--all"]).await?.expect_code(0)?;
    ensure!(listed(&stage).await?.is_empty(), "all were dropped");
    ensure!(stage.search.count(&stage.index("t")).await? == Some(0), "dropping writes nothing");
    Ok(())
}

/// Keys of several columns, with every odd character, and one that is too long to be read from its id.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_on_opensearch() -> Result<()> {
    let mut stage = Stage::new("letters_keys", shared_postgres()?, shared_opensearch()?).await?;
    stage.table("t", "a text, b int, v text, primary key (b, a)", NUMBERS_ONLY).await?;
    stage
        .execute(
            "insert into t values ('k,~', 1, 'x'), ('', 2, 'x'), (E'tab\\tand \"quote\" é', 3, 'x'),
             (repeat('long', 200), 4, 'x')",
        )
        .await?;
    stage.catch_up().await?;
    ensure!(listed(&stage).await?.len() == 4, "all four are refused");
    let text = command(&stage, &["list"]).await?.expect_code(0)?.stdout.join("\n");
    ensure!(!text.contains('\t'), "control characters reach the terminal: {text}");
    forgive(&stage).await?;
    let finished = command(&stage, &["retry", "--all"]).await?;
    let told = finished.expect_code(1)?.stdout.join("\n");
    ensure!(told.contains("cannot be retried"), "{told}");
    ensure!(listed(&stage).await?.len() == 1, "the long one stays");
    ensure!(stage.search.count(&stage.index("t")).await? == Some(3), "three are written");
    stage.waldex("run")?.arg("--reload").arg("--until").arg("current").run_to_end(LIMIT).await?;
    ensure!(listed(&stage).await?.len() == 4, "letters of the new generation only");
    Ok(())
}

/// More of them than go into one request.
#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_generation_that_is_replaced_go_with_it() -> Result<()> {
    let stage = stage("letters_replaced").await?;
    stage.execute("insert into t select n, 'x' from generate_series(1, 7) n").await?;
    stage.catch_up().await?;
    ensure!(listed(&stage).await?.len() == 7, "all are refused");
    stage.execute("update t set v = id").await?;
    let config = format!("elasticsearch:\n  bulk_size: 2\n{}", stage.config());
    let reload = stage.waldex("run")?.config(&config).arg("--reload").arg("--until").arg("current");
    reload.run_to_end(LIMIT).await?.expect_code(0)?;
    let left = listed(&stage).await?;
    ensure!(left.is_empty(), "letters of an index that is gone: {left:?}");
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// The letters together are larger than any answer that waldex reads.
#[tokio::test(flavor = "multi_thread")]
async fn letters_that_keep_large_documents_are_listed_counted_and_kept() -> Result<()> {
    const LETTERS: usize = 70;
    let stage = stage("letters_large").await?;
    let rows = format!(
        "insert into t select n, repeat('{CANARY}', 170000) from generate_series(1, {LETTERS}) n"
    );
    stage.execute(&rows).await?;
    let catch_up = async || {
        let run = stage.waldex("run")?.arg("--dead-letters-keep-document");
        run.arg("--until").arg("current").run_to_end(LIMIT).await?.expect_code(0).map(drop)
    };
    catch_up().await?;
    ensure!(listed(&stage).await?.len() == LETTERS, "not all of them");
    catch_up().await?;
    let id = format!("{}-000001,1", stage.index("t"));
    command(&stage, &["retry", &id]).await?.expect_code(1)?;
    let letter = stage.search.document("waldex-dead-letters", &id).await?.context("no letter")?;
    let kept = letter.source["document"].as_str().context("no document")?;
    ensure!(kept.contains(CANARY) && letter.source["attempts"] == 2, "not as it was");
    command(&stage, &["drop", "--all"]).await?.expect_code(0)?;
    ensure!(listed(&stage).await?.is_empty(), "not all were dropped");
    Ok(())
}
