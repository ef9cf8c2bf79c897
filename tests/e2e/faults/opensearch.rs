//! An OpenSearch of its own: segment replication, a small limit for bodies, and `kill -9` under load.

use std::sync::OnceLock;

use anyhow::{Result, anyhow, ensure};
use tokio::task::block_in_place;

use super::arena::Hurt;
use super::load::{self, Amount, Load};
use super::scene::Scene;
use crate::support::servers::search_node::{NodeOptions, SearchNode};
use crate::support::servers::{opensearch, shared_postgres};
use crate::support::stage::Stage;

const SEGMENTS: &str = "settings: {index.replication.type: SEGMENT}";

fn node() -> Result<&'static SearchNode> {
    static NODE: OnceLock<Result<SearchNode, String>> = OnceLock::new();
    let settings = vec!["http.max_content_length: 1mb".to_owned()];
    let options = NodeOptions { settings, ..NodeOptions::default() };
    let started = block_in_place(|| {
        NODE.get_or_init(|| opensearch::start(&options).map_err(|error| format!("{error:#}")))
    });
    started.as_ref().map_err(|error| anyhow!("{error}"))
}

/// Bodies over the limit first, a document over it among them; then the load, large values that an update leaves
/// alone included, and the kills.
#[tokio::test(flavor = "multi_thread")]
async fn segment_replication_small_bodies_and_kills() -> Result<()> {
    let node = node()?;
    let mut stage = Stage::new("segments", shared_postgres()?, node).await?;
    load::create_tables_with(&mut stage, SEGMENTS).await?;
    stage.table("large", "id int primary key, n int, v text", SEGMENTS).await?;
    stage.execute("alter table large alter v set storage external").await?;
    stage
        .execute(
            "insert into large select n, 0, repeat(md5(n::text), 4000) from generate_series(1, 40) n;
             insert into large values (41, 0, repeat('x', 1500000))",
        )
        .await?;
    stage.catch_up().await?;
    stage.execute("update large set n = 1 where id > 35").await?;
    stage.execute("update large set n = n + 1, id = id + 100 where id < 5").await?;
    stage.catch_up().await?;
    let letters = stage.search.documents("waldex-dead-letters").await?;
    let letters: Vec<_> = letters.values().map(|letter| letter.source.clone()).collect();
    ensure!(letters.len() == 1, "{letters:?}");
    ensure!(letters[0]["document_id"] == "41" && letters[0]["status"] == 413, "{letters:?}");
    stage.execute("delete from large where id = 41").await?;
    stage.catch_up().await?;
    stage.assert_equal("large", "id", &["id", "n", "v"]).await?;

    let mut scene = Scene::on(stage);
    let amount = Amount { changes: 30_000, per_second: 3_000 };
    let load = Load::start(&scene.stage.database.url, amount, crate::support::seed::seed()?);
    scene.supervise("elasticsearch:\n  bulk_bytes: 512KiB\n")?;
    scene.watch(&load);
    for at in [4_000, 12_000] {
        scene.until(load.wait_for_changes(at)).await?;
        node.crash()?;
    }
    load.finish().await?;
    let seen = scene.end().await?;
    ensure!(seen.positions > 20 && seen.marks > 5, "hardly anything was watched: {seen:?}");
    load::assert_tables_equal(&scene.stage).await?;
    scene.stage.assert_equal("large", "id", &["id", "n", "v"]).await
}
