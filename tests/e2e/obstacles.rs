//! What is the index's fault, the cluster's or an operator's is waited out: no dead letter, nothing confirmed, a
//! reason in the log, and it goes on by itself once that is put right.

use std::time::Duration;

use anyhow::{Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use crate::support::admin::get;
use crate::support::servers::ports;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::Running;

/// Rows in the end.
const AFTER: u64 = 30;

/// A run that streams, with ten rows.
struct Scene<'a> {
    stage: Stage<'a>,
    running: Running,
}

impl<'a> Scene<'a> {
    async fn new(label: &str, node: &'a SearchNode) -> Result<Self> {
        let mut stage = Stage::new(label, shared_postgres()?, node).await?;
        stage.table("t", "id int primary key, v text", "").await?;
        stage.execute("insert into t select n, n::text from generate_series(1, 10) n").await?;
        stage.catch_up().await?;
        let mut running = stage.run()?;
        running.wait_for_line(LIMIT, "catching_up").await?;
        Ok(Self { stage, running })
    }

    fn physical(&self) -> String {
        format!("{}-000001", self.stage.index("t"))
    }

    fn write_alias(&self) -> String {
        format!("{}-write", self.physical())
    }

    async fn put(&self, path: &str, body: Value) -> Result<()> {
        self.stage.search.expect(Method::Put, path, Some(body)).await.map(drop)
    }

    async fn post(&self, path: &str, body: Option<Value>) -> Result<()> {
        self.stage.search.expect(Method::Post, path, body).await.map(drop)
    }

    async fn alias(&self, verb: &str, index: &str) -> Result<()> {
        let action = json!({"actions": [{verb: {"index": index, "alias": self.write_alias()}}]});
        self.post("/_aliases", Some(action)).await
    }

    /// Changes rows while the obstacle is there, sees it named, and that nothing is confirmed.
    async fn is_held(&mut self, cause: &str) -> Result<()> {
        let rows = "insert into t select n, n::text from generate_series(11, 30) n";
        let mark = self.stage.execute_and_mark(rows).await?;
        self.running.wait_for_line(LIMIT, cause).await?;
        // Seen at a second attempt too.
        let count = || self.running.lines().iter().filter(|line| line.contains(cause)).count();
        wait_until(LIMIT, "a second attempt", async || count() > 2).await?;
        ensure!(!self.stage.has_confirmed(&mark).await?, "the rows were confirmed");
        ensure!(self.letters().await?.is_empty(), "{:?}", self.letters().await?);
        Ok(())
    }

    /// Sees that all arrives after the obstacle is gone.
    async fn goes_on(mut self) -> Result<()> {
        let (search, index) = (&self.stage.search, self.stage.index("t"));
        wait_until(
            LIMIT,
            "the documents",
            async || matches!(search.count(&index).await, Ok(Some(count)) if count == AFTER),
        )
        .await?;
        ensure!(self.running.is_running(), "it ended");
        ensure!(self.letters().await?.is_empty(), "{:?}", self.letters().await?);
        self.running.terminate();
        self.running.finish(LIMIT).await?.expect_code(0)?;
        self.stage.assert_equal("t", "id", &["id", "v"]).await
    }

    async fn letters(&self) -> Result<Vec<Value>> {
        let all = self.stage.search.documents("waldex-dead-letters").await?;
        let ours = all.into_values().map(|document| document.source);
        Ok(ours.filter(|source| source["slot"] == self.stage.name()).collect())
    }
}

async fn alias_without_write_index(label: &str, node: &SearchNode) -> Result<()> {
    let mut scene = Scene::new(label, node).await?;
    let other = format!("{}-other", scene.stage.index("t"));
    scene.put(&format!("/{other}"), json!({"settings": {"number_of_replicas": 0}})).await?;
    scene.alias("add", &other).await?;
    scene.is_held("es_misconfigured").await?;
    scene.alias("remove", &other).await?;
    ensure!(scene.stage.search.count(&other).await? == Some(0), "something was written there");
    scene.goes_on().await
}

#[tokio::test(flavor = "multi_thread")]
async fn alias_without_write_index_on_elasticsearch() -> Result<()> {
    alias_without_write_index("no_write_es", shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn alias_without_write_index_on_opensearch() -> Result<()> {
    alias_without_write_index("no_write_os", shared_opensearch()?).await
}

/// The server answers as if all were well.
#[tokio::test(flavor = "multi_thread")]
async fn alias_that_leads_to_another_index() -> Result<()> {
    let mut scene = Scene::new("moved_alias", shared_elasticsearch()?).await?;
    let other = format!("{}-other", scene.stage.index("t"));
    scene.put(&format!("/{other}"), json!({"settings": {"number_of_replicas": 0}})).await?;
    scene.alias("remove", &scene.physical()).await?;
    scene.alias("add", &other).await?;
    scene.is_held("instead of").await?;
    scene.alias("remove", &other).await?;
    scene.alias("add", &scene.physical()).await?;
    scene.goes_on().await
}

/// A bulk delete makes an index of the missing alias's name and answers as if all were well.
async fn alias_missing_when_a_row_is_deleted(label: &str, node: &SearchNode) -> Result<()> {
    let mut scene = Scene::new(label, node).await?;
    scene.alias("remove", &scene.physical()).await?;
    scene.stage.execute("delete from t where id = 1").await?;
    let line = scene.running.wait_for_line(LIMIT, "es_misconfigured").await?;
    ensure!(line.contains("POST /_aliases"), "no remedy in {line}");
    let (search, stray) = (&scene.stage.search, scene.write_alias());
    wait_until(LIMIT, "the stray index to go", async || {
        matches!(search.request(Method::Head, &format!("/{stray}"), None).await, Ok((404, _)))
    })
    .await?;
    scene.is_held("es_misconfigured").await?;
    // The delete is sent again and again, and an index stands there for moments.
    wait_until(LIMIT, "the alias to be added", async || {
        scene.alias("add", &scene.physical()).await.is_ok()
    })
    .await?;
    scene.stage.execute("insert into t values (1, 'back')").await?;
    scene.goes_on().await
}

#[tokio::test(flavor = "multi_thread")]
async fn alias_missing_when_a_row_is_deleted_on_elasticsearch() -> Result<()> {
    alias_missing_when_a_row_is_deleted("no_alias_es", shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn alias_missing_when_a_row_is_deleted_on_opensearch() -> Result<()> {
    alias_missing_when_a_row_is_deleted("no_alias_os", shared_opensearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_index() -> Result<()> {
    let mut scene = Scene::new("closed", shared_elasticsearch()?).await?;
    let index = scene.physical();
    scene.post(&format!("/{index}/_close"), None).await?;
    scene.is_held("es_misconfigured").await?;
    scene.post(&format!("/{index}/_open"), None).await?;
    scene.goes_on().await
}

async fn block(label: &str, node: &SearchNode, block: &str, cause: &str) -> Result<()> {
    let mut scene = Scene::new(label, node).await?;
    let path = format!("/{}/_settings", scene.physical());
    let setting = format!("index.blocks.{block}");
    scene.put(&path, json!({&setting: true})).await?;
    scene.is_held(cause).await?;
    scene.put(&path, json!({&setting: null})).await?;
    scene.goes_on().await
}

#[tokio::test(flavor = "multi_thread")]
async fn write_block() -> Result<()> {
    block("block_es", shared_elasticsearch()?, "write", "es_blocked").await
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_stage_on_elasticsearch() -> Result<()> {
    block("flood_es", shared_elasticsearch()?, "read_only_allow_delete", "es_disk_full").await
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_stage_on_opensearch() -> Result<()> {
    block("flood_os", shared_opensearch()?, "read_only_allow_delete", "es_disk_full").await
}

/// A column is added while the index is read-only: its mapping waits, and the way out is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_waited_out_while_planning() -> Result<()> {
    let mut scene = Scene::new("block_plan", shared_elasticsearch()?).await?;
    let path = format!("/{}/_settings", scene.physical());
    scene.put(&path, json!({"index.blocks.read_only": true})).await?;
    scene.stage.execute("alter table t add column w text").await?;
    let rows = "insert into t (id, v) select n, n::text from generate_series(11, 30) n";
    scene.stage.execute(rows).await?;
    let line = scene.running.wait_for_line(LIMIT, "cannot map further fields").await?;
    ensure!(line.contains(&format!("PUT {path}")) && !line.contains("password"), "{line}");
    scene.put(&path, json!({"index.blocks.read_only": null})).await?;
    let Scene { stage, running } = scene;
    let mark = stage.execute_and_mark("update t set w = v").await?;
    stage.confirms(&mark, LIMIT).await?;
    running.stop(LIMIT).await?;
    stage.assert_equal("t", "id", &["id", "v", "w"]).await
}

/// Somebody names an ingest pipeline that does not exist: every row is refused as if it were at fault itself.
async fn missing_pipeline(label: &str, node: &SearchNode, setting: &str) -> Result<()> {
    let mut scene = Scene::new(label, node).await?;
    let path = format!("/{}/_settings", scene.physical());
    scene.put(&path, json!({setting: "enrich-by-nobody"})).await?;
    scene.is_held("enrich-by-nobody").await?;
    scene.put(&path, json!({setting: "_none"})).await?;
    scene.goes_on().await
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_pipeline_on_elasticsearch() -> Result<()> {
    missing_pipeline("pipeline_es", shared_elasticsearch()?, "index.default_pipeline").await
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_pipeline_on_opensearch() -> Result<()> {
    missing_pipeline("pipeline_os", shared_opensearch()?, "index.final_pipeline").await
}

async fn missing_index(label: &str, node: &SearchNode, change: &str) -> Result<()> {
    let scene = Scene::new(label, node).await?;
    scene.stage.search.delete_index(&scene.physical()).await?;
    let mark = scene.stage.execute_and_mark(change).await?;
    let (stage, stray) = (&scene.stage, scene.write_alias());
    let finished = scene.running.finish(LIMIT).await?;
    finished.expect_code(1)?;
    let log = finished.stderr.join("\n");
    ensure!(log.contains("needs_resync") && log.contains("--reload"), "{log}");
    ensure!(!stage.has_confirmed(&mark).await?, "the change was confirmed");
    ensure!(stage.search.count(&stray).await?.is_none(), "an index was made by accident");
    stage.waldex("run")?.arg("--reload").arg("--until").arg("current").run_to_end(LIMIT).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_index_stops_at_an_insert() -> Result<()> {
    missing_index("gone_es", shared_elasticsearch()?, "insert into t values (11, 'x')").await
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_index_stops_at_a_delete() -> Result<()> {
    missing_index("gone_del", shared_elasticsearch()?, "delete from t where id = 1").await?;
    missing_index("gone_del_os", shared_opensearch()?, "delete from t where id = 1").await
}

/// One index of three has no shard to write to: the others go on, and it is named.
#[tokio::test(flavor = "multi_thread")]
async fn red_index_holds_the_slot_and_not_its_neighbours() -> Result<()> {
    let mut stage = Stage::new("red", shared_postgres()?, shared_elasticsearch()?).await?;
    let nowhere = "settings: {index.routing.allocation.require._name: nowhere, \
                   index.write.wait_for_active_shards: '0'}";
    for (table, settings) in [("a", ""), ("b", nowhere), ("c", "")] {
        stage.table(table, "id int primary key, v text", settings).await?;
    }
    let port = ports::free()?;
    let run = stage.waldex("run")?.arg("--request-timeout").arg("4s");
    let mut running = run.arg("--admin-listen").arg(&format!("127.0.0.1:{port}")).spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let mark = stage
        .execute_and_mark(
            "begin; insert into b values (1, 'x'); insert into a values (1, 'x'), (2, 'y');
             insert into c values (1, 'x'); insert into b values (2, 'x'); commit",
        )
        .await?;
    let line = running.wait_for_line(LIMIT, "es_red").await?;
    ensure!(line.contains(&stage.index("b")), "the index is not named: {line}");
    let (_, status) = get(port, "/status").await?;
    let status: Value = serde_json::from_str(&status)?;
    let names_it = status["reason"].as_str().is_some_and(|it| it.contains(&stage.index("b")));
    ensure!(status["cause"] == "es_red" && names_it, "the index is not named: {status}");
    let search = &stage.search;
    for (table, count) in [("a", 2), ("c", 1)] {
        let index = stage.index(table);
        wait_until(
            LIMIT,
            "the neighbours",
            async || matches!(search.count(&index).await, Ok(Some(found)) if found == count),
        )
        .await?;
    }
    ensure!(!stage.has_confirmed(&mark).await?, "the rows were confirmed");
    let path = format!("/{}-000001/_settings", stage.index("b"));
    let anywhere = json!({"index.routing.allocation.require._name": null});
    search.expect(Method::Put, &path, Some(anywhere)).await?;
    wait_until(LIMIT, "the rows to be confirmed", async || {
        stage.has_confirmed(&mark).await.unwrap_or(false)
    })
    .await?;
    running.terminate();
    running.finish(LIMIT + Duration::from_secs(10)).await?.expect_code(0)?;
    for table in ["a", "b", "c"] {
        stage.assert_equal(table, "id", &["id", "v"]).await?;
    }
    Ok(())
}
