//! Refusals that a proxy makes: of letters, of whole requests, of large bodies. Nothing is confirmed that is
//! neither written nor in a letter, and an outage is never taken for a document's own fault.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::proxy::http::{Fault, Request, SearchProxy};
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Running, Waldex};

const NUMBERS_ONLY: &str = "mappings: {properties: {v: {type: integer}}}";
const BLOCK: &str = r#"{"error":{"type":"cluster_block_exception","reason":"r"},"status":403}"#;
const MALFORMED: &str =
    r#"{"error":{"type":"x_content_parse_exception","reason":"r"},"status":400}"#;

struct Scene {
    stage: Stage<'static>,
    proxy: SearchProxy,
}

impl Scene {
    async fn new(label: &str, settings: &str) -> Result<Self> {
        let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
        stage.table("t", "id int primary key, v text", settings).await?;
        let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
        stage.catch_up().await?;
        Ok(Self { stage, proxy })
    }

    fn waldex(&self) -> Result<Waldex> {
        let program = Waldex::new("run")?;
        let (url, node) = (&self.stage.database.url, self.proxy.node());
        // Each refusal is one more failed request; a closed circuit keeps the tests short.
        let program = program.arg("--circuit-breaker-open-for").arg("200ms");
        Ok(program.between(url, self.stage.name(), node).config(&self.stage.config()))
    }

    fn run(&self) -> Result<Running> {
        self.waldex()?.spawn()
    }

    async fn letters(&self) -> Result<Vec<Value>> {
        let all = self.stage.search.documents("waldex-dead-letters").await?;
        let ours = all.into_values().map(|document| document.source);
        Ok(ours.filter(|source| source["slot"] == self.stage.name()).collect())
    }

    async fn confirms(&self, mark: &str) -> Result<()> {
        self.stage.confirms(mark, 2 * LIMIT).await
    }

    async fn counts(&self, documents: u64) -> Result<()> {
        self.stage.counts("t", documents, 2 * LIMIT).await
    }
}

/// The letter cannot be written: the slot is held, over a `kill -9` too, and goes on afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_cannot_be_written_holds_the_slot() -> Result<()> {
    let scene = Scene::new("held", NUMBERS_ONLY).await?;
    let refuse_letters = |request: &Request| match request.is_bulk() {
        true => Fault::AnswerIf("waldex-dead-letters", 403, BLOCK),
        false => Fault::Pass,
    };
    scene.proxy.rule(refuse_letters);
    let mark =
        scene.stage.execute_and_mark("insert into t values (1, '1'), (2, 'x'), (3, '3')").await?;
    for _ in 0..2 {
        let mut running = scene.run()?;
        running.wait_for_line(LIMIT, "dead letters cannot be written").await?;
        scene.counts(2).await?;
        ensure!(!scene.stage.has_confirmed(&mark).await?, "the rows were confirmed");
        ensure!(scene.letters().await?.is_empty(), "there is a letter");
        running.kill()?;
    }
    let mut running = scene.run()?;
    running.wait_for_line(LIMIT, "dead letters cannot be written").await?;
    scene.proxy.clear();
    scene.confirms(&mark).await?;
    ensure!(scene.letters().await?.len() == 1, "{:?}", scene.letters().await?);
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0).map(drop)
}

/// One document makes the server refuse every request that it is part of.
#[tokio::test(flavor = "multi_thread")]
async fn one_item_that_spoils_its_whole_request_is_found() -> Result<()> {
    let scene = Scene::new("spoils", "").await?;
    scene.proxy.rule(|request| match request.is_bulk() {
        true => Fault::AnswerIf("P0ISON", 400, MALFORMED),
        false => Fault::Pass,
    });
    scene
        .stage
        .execute(
            "insert into t select n, case when n in (7, 1500) then 'P0ISON' else 'good' end
             from generate_series(1, 2500) n",
        )
        .await?;
    scene.waldex()?.arg("--until").arg("current").run_to_end(LIMIT).await?.expect_code(0)?;
    scene.counts(2498).await?;
    let mut letters = scene.letters().await?;
    letters.sort_by_key(|letter| letter["document_id"].to_string());
    let ids: Vec<&Value> = letters.iter().map(|letter| &letter["document_id"]).collect();
    ensure!(ids == ["1500", "7"], "{letters:?}");
    ensure!(letters.iter().all(|letter| letter["status"] == 400), "{letters:?}");
    Ok(())
}

/// Something answers 400 to every bulk, whatever is in it: no document is at fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_everything_gets_no_letters() -> Result<()> {
    let scene = Scene::new("refuses_all", "").await?;
    scene.proxy.rule(|request| match request.is_bulk() {
        true => Fault::Answer(400, MALFORMED),
        false => Fault::Pass,
    });
    let mark = scene
        .stage
        .execute_and_mark("insert into t select n, 'x' from generate_series(1, 50) n")
        .await?;
    let mut running = scene.run()?;
    running.wait_for_line(LIMIT, "dead letters cannot be written").await?;
    ensure!(scene.letters().await?.is_empty(), "there is a letter");
    ensure!(!scene.stage.has_confirmed(&mark).await?, "the rows were confirmed");
    scene.proxy.clear();
    scene.confirms(&mark).await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    // Those that were refused alone before may have letters now; each is in one place or the other.
    let written = scene.stage.search.count(&scene.stage.index("t")).await?.context("no index")?;
    let letters = scene.letters().await?.len();
    ensure!(written + u64::try_from(letters)? == 50, "{written} documents, {letters} letters");
    ensure!(letters <= 2, "{letters} letters, of two lanes");
    Ok(())
}

/// Every connection breaks under a body above a limit, as some servers and proxies say 413.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_under_which_the_connection_breaks_is_halved_to_the_document() -> Result<()> {
    let scene = Scene::new("breaks", "").await?;
    scene.proxy.rule(|request| match request.body_bytes > 600_000 {
        true => Fault::CutRequest(100_000),
        false => Fault::Pass,
    });
    scene
        .stage
        .execute(
            "insert into t select n, repeat('x', 200000) from generate_series(1, 20) n;
             insert into t values (21, repeat('y', 700000))",
        )
        .await?;
    scene.waldex()?.arg("--until").arg("current").run_to_end(2 * LIMIT).await?.expect_code(0)?;
    scene.counts(20).await?;
    let letters = scene.letters().await?;
    let [letter] = letters.as_slice() else { anyhow::bail!("{letters:?}") };
    ensure!(letter["document_id"] == "21" && letter["status"] == 413, "{letter}");
    ensure!(letter["document_bytes"].as_u64().is_some_and(|bytes| bytes > 700_000), "{letter}");
    Ok(())
}

/// The same for every request, large or small: an outage, however long.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_cuts_every_body_makes_no_letters() -> Result<()> {
    let scene = Scene::new("cut_all", "").await?;
    scene.proxy.rule(|request| match request.is_bulk() {
        true => Fault::CutRequest(request.body_bytes / 2),
        false => Fault::Pass,
    });
    let mark =
        scene.stage.execute_and_mark("insert into t values (1, repeat('y', 700000))").await?;
    let running = scene.run()?;
    wait_until(2 * LIMIT, "twenty broken requests", async || scene.proxy.faults() > 20).await?;
    ensure!(scene.letters().await?.is_empty(), "there is a letter");
    ensure!(!scene.stage.has_confirmed(&mark).await?, "the rows were confirmed");
    scene.proxy.clear();
    scene.counts(1).await?;
    ensure!(scene.letters().await?.is_empty(), "there is a letter");
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    scene.stage.assert_equal("t", "id", &["id", "v"]).await
}
