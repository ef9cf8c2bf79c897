//! What the network between waldex and the search cluster does to requests and answers. These need no
//! server of their own: a proxy stands before the shared one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::proxy::http::{Fault, Request, SearchProxy};
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Finished, Running, Waldex};

/// A table `t`, small bulks, and a proxy before Elasticsearch.
struct Scene {
    stage: Stage<'static>,
    proxy: SearchProxy,
    settings: &'static str,
}

const SMALL_BULKS: &str = "elasticsearch:\n  bulk_size: 50\n";
const COLUMNS: [&str; 3] = ["id", "n", "v"];

impl Scene {
    async fn new(label: &str, settings: &'static str) -> Result<Self> {
        let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
        stage.table("t", "id int primary key, n int, v text", "").await?;
        let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
        Ok(Self { stage, proxy, settings })
    }

    fn waldex(&self) -> Result<Waldex> {
        let program = Waldex::new("run")?;
        let config = format!("{}{}", self.settings, self.stage.config());
        Ok(program
            .between(&self.stage.database.url, self.stage.name(), self.proxy.node())
            .config(&config))
    }

    async fn catch_up(&self) -> Result<Finished> {
        let finished = self.waldex()?.arg("--until").arg("current").run_to_end(2 * LIMIT).await?;
        finished.expect_code(0)?;
        Ok(finished)
    }

    async fn assert_equal(&self) -> Result<()> {
        self.stage.assert_equal("t", "id", &COLUMNS).await
    }

    /// A run whose first bulk arrives so much later, and is not answered.
    async fn until_first_bulk(&self, late: Duration) -> Result<Running> {
        let mut is_first = true;
        self.proxy.rule(move |request| {
            let is_hit = request.is_bulk() && std::mem::take(&mut is_first);
            if is_hit { Fault::Late(late) } else { Fault::Pass }
        });
        let first = self.waldex()?.spawn()?;
        wait_until(LIMIT, "the first bulk", async || self.proxy.faults() == 1).await?;
        Ok(first)
    }

    /// The next run does all, and then the late bulk comes.
    async fn is_overtaken_by_nothing(&self) -> Result<()> {
        ensure!(self.proxy.late() == 0, "the request was not late");
        self.catch_up().await?;
        wait_until(LIMIT, "the late request", async || self.proxy.late() == 1).await?;
        self.assert_equal().await
    }
}

/// A few hundred changes of every kind, in transactions of one row and of many.
const CHANGES: &str = "
    insert into t select n, 0, 'a' || n from generate_series(1, 700) n;
    update t set n = n + 1 where id <= 300;
    begin; update t set n = n + 1 where id <= 200; update t set n = n + 1 where id <= 150; commit;
    delete from t where id between 100 and 250;
    update t set id = id + 1000 where id between 1 and 60;
    begin; insert into t select n, 9, null from generate_series(100, 170) n;
        delete from t where id between 120 and 130; insert into t values (125, 1, 'back'); commit;
    update t set v = v || '!' where id % 7 = 0;";

/// Hits a share of the bulks and of the writes of the state document, the same ones in each run.
fn some(fault: Fault) -> impl FnMut(&Request) -> Fault + Send {
    let mut seen = 0_u32;
    move |request| {
        let is_state_write = request.method == "PUT" && request.path.starts_with("/waldex-state/");
        if !request.is_bulk() && !is_state_write {
            return Fault::Pass;
        }
        seen += 1;
        if seen % 3 == 1 { fault.clone() } else { Fault::Pass }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_lost_after_the_request_was_carried_out() -> Result<()> {
    let scene = Scene::new("lost_answer", SMALL_BULKS).await?;
    scene.proxy.rule(some(Fault::LoseAnswer));
    scene.catch_up().await?;
    scene.stage.execute(CHANGES).await?;
    scene.catch_up().await?;
    ensure!(scene.proxy.faults() > 5, "only {} answers were lost", scene.proxy.faults());
    scene.assert_equal().await
}

/// Every request that was ever sent arrives once more, after everything, oldest first and newest first:
/// nothing old overwrites anything new, and nothing deleted comes back.
#[tokio::test(flavor = "multi_thread")]
async fn zombie_bulks_arrive_after_newer_changes_and_after_deletes() -> Result<()> {
    let scene = Scene::new("zombie", SMALL_BULKS).await?;
    scene.proxy.keep(Request::is_bulk);
    scene
        .stage
        .execute("insert into t select n, 0, 'before' from generate_series(1, 120) n")
        .await?;
    scene.catch_up().await?;
    scene.stage.execute("delete from t where id <= 40; update t set n = 5 where id > 80").await?;
    scene.catch_up().await?;
    scene
        .stage
        .execute("update t set id = id + 500 where id > 110; insert into t values (7, 7, 'again')")
        .await?;
    scene.catch_up().await?;
    scene.assert_equal().await?;
    let kept = scene.proxy.kept();
    ensure!(kept.len() > 5, "only {} bulks were kept", kept.len());
    for bulk in kept.iter().chain(kept.iter().rev()) {
        let (status, answer) = scene.proxy.replay(bulk).await?;
        ensure!(status == 200, "a replayed bulk was answered with {status}");
        let answer: Value = serde_json::from_slice(&answer)?;
        let items = answer["items"].as_array().context("no items")?.len();
        let deletes = count(&bulk.body, b"{\"delete\":");
        ensure!(items == count(&bulk.body, b"{\"index\":") + deletes, "items were not carried out");
    }
    scene.assert_equal().await?;
    scene
        .stage
        .execute("insert into t values (8, 8, 'new'); update t set n = 6 where id > 80")
        .await?;
    scene.catch_up().await?;
    scene.assert_equal().await
}

fn count(body: &[u8], start: &[u8]) -> usize {
    body.split(|byte| *byte == b'\n').filter(|line| line.starts_with(start)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_truncated_or_no_answers() -> Result<()> {
    let scene = Scene::new("odd_answer", SMALL_BULKS).await?;
    scene.catch_up().await?;
    scene.stage.execute(CHANGES).await?;
    let mut odd = [
        Fault::CutAnswer(40),
        Fault::CutAnswer(0),
        Fault::ShortenAnswer(60),
        Fault::ShortenAnswer(0),
        Fault::Answer(200, "{}"),
        Fault::Answer(200, r#"{"items":[]}"#),
        Fault::Answer(200, "<html>of some gateway</html>"),
        Fault::Answer(502, "<html>of some gateway</html>"),
        Fault::Answer(503, r#"{"error":{"type":"unavailable_shards_exception"},"status":503}"#),
        Fault::Answer(429, r#"{"error":{"type":"es_rejected_execution_exception"},"status":429}"#),
    ]
    .into_iter();
    let mut seen = 0;
    scene.proxy.rule(move |request| {
        if !request.is_bulk() {
            return Fault::Pass;
        }
        seen += 1;
        if seen % 2 == 0 { odd.next().unwrap_or(Fault::Pass) } else { Fault::Pass }
    });
    scene.catch_up().await?;
    ensure!(scene.proxy.faults() == 10, "only {} answers were odd", scene.proxy.faults());
    scene.assert_equal().await
}

/// Slower than `request_timeout` at first, then slow.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_trickle() -> Result<()> {
    let settings = "elasticsearch:\n  bulk_size: 50\n  request_timeout: 1s\n";
    let scene = Scene::new("trickle", settings).await?;
    scene.catch_up().await?;
    scene.stage.execute(CHANGES).await?;
    let mut seen = 0;
    scene.proxy.rule(move |request| {
        seen += i32::from(request.is_bulk());
        let pause = if request.is_bulk() && seen <= 2 { 500 } else { 1 };
        Fault::Trickle(97, Duration::from_millis(pause))
    });
    scene.catch_up().await?;
    scene.assert_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_within_a_large_body() -> Result<()> {
    let scene = Scene::new("cut_body", "").await?;
    scene.catch_up().await?;
    scene
        .stage
        .execute(
            "insert into t select n, n, repeat(md5(n::text), 30000) from generate_series(1, 8) n",
        )
        .await?;
    scene.stage.execute("update t set n = 0 where id <= 4; delete from t where id = 8").await?;
    let mut cuts = [10, 70_000, 900_000, 2_000_000].into_iter();
    scene.proxy.rule(move |request| {
        let cut = if request.body_bytes > 500_000 { cuts.next() } else { None };
        cut.map_or(Fault::Pass, Fault::CutRequest)
    });
    scene.catch_up().await?;
    ensure!(scene.proxy.faults() == 4, "only {} bodies were cut", scene.proxy.faults());
    scene.assert_equal().await
}

/// What a killed process has sent is carried out when the next one is at work. The versions of one transaction
/// are equal, so the next one must not write a document of it again before that is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_killed_process_arrives_late_within_its_transaction() -> Result<()> {
    let settings = "elasticsearch:\n  bulk_size: 50\n  request_timeout: 8s\n";
    let scene = Scene::new("left_behind", settings).await?;
    scene.catch_up().await?;
    scene
        .stage
        .execute(
            "begin; insert into t values (1, 1, 'first');
             insert into t select n, 0, 'between' from generate_series(2, 120) n;
             update t set n = 2, v = 'last' where id = 1; commit",
        )
        .await?;
    let first = scene.until_first_bulk(Duration::from_secs(2)).await?;
    first.kill()?;
    scene.is_overtaken_by_nothing().await
}

/// The same of one that was stopped in good order, but gave the request up before.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_stopped_process_gave_up_arrives_late_within_its_transaction() -> Result<()>
{
    let settings = "memory_budget: 65536\nelasticsearch:\n  bulk_size: 50\n  bulk_bytes: 32768\n  \
                    request_timeout: 24s\n";
    let scene = Scene::new("given_up", settings).await?;
    scene.catch_up().await?;
    scene
        .stage
        .execute(
            "begin; insert into t values (1, 1, 'first');
             insert into t select n, 0, repeat('between', 150) from generate_series(2, 3000) n;
             update t set n = 2, v = 'last' where id = 1; commit",
        )
        .await?;
    let first = scene.until_first_bulk(Duration::from_secs(8)).await?;
    first.stop(LIMIT).await?;
    scene.is_overtaken_by_nothing().await
}
