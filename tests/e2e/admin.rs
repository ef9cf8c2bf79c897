//! The admin server of a running waldex: what it says through a load, a stream and an outage.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::support::admin::{get, metric, wait_for_state};
use crate::support::servers::elasticsearch;
use crate::support::servers::ports;
use crate::support::servers::search_node::NodeOptions;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_for;

#[tokio::test(flavor = "multi_thread")]
async fn ready_once_live_and_the_numbers_are_those_of_the_stream() -> Result<()> {
    let mut stage = Stage::new("admin", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select i, 'CANARY' from generate_series(1, 100) i").await?;
    let port = ports::free()?;
    let listen = format!("127.0.0.1:{port}");
    let mut running = stage.waldex("run")?.arg("--admin-listen").arg(&listen).spawn()?;
    let summary = running.wait_for_line(LIMIT, "waldex runs").await?;
    ensure!(summary.contains(stage.name()) && summary.contains("public.t"), "{summary}");
    ensure!(!summary.contains("throwaway"), "a password in {summary}");
    wait_for_state(port, "/ready", 200, "live").await?;
    ensure!(get(port, "/live").await? == (200, "live\n".to_owned()));
    stage.execute("update t set v = 'CANARY 2'").await?;
    let applied = wait_for(LIMIT, "200 items to be applied", async || {
        let (_, text) = get(port, "/metrics").await.ok()?;
        (metric(&text, "waldex_items_applied_total").ok()? >= 200).then_some(text)
    });
    let text = applied.await?;
    ensure!(metric(&text, "waldex_rows_total")? == 200, "{text}");
    ensure!(text.contains("waldex_state{state=\"live\"} 1"), "{text}");
    let (_, status) = get(port, "/status").await?;
    let json: serde_json::Value = serde_json::from_str(&status)?;
    ensure!(json["state"] == "live" && json["rows"] == 200, "{status}");
    ensure!(!text.contains("CANARY") && !status.contains("CANARY"), "a value leaks");
    ensure!(get(port, "/").await?.0 == 404);

    // An address that was asked for and is taken is an error, not a run that nobody can watch.
    let second = stage.waldex("run")?.arg("--admin-listen").arg(&listen).run_to_end(LIMIT).await?;
    let log = second.expect_code(64)?.stderr.join("\n");
    ensure!(log.contains("admin.listen"), "{log}");
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_cluster_is_backpressure_alive_and_not_ready() -> Result<()> {
    let node = elasticsearch::start(&NodeOptions::default())?;
    let mut stage = Stage::new("admin_outage", shared_postgres()?, &node).await?;
    stage.table("t", "id int primary key", "").await?;
    let port = ports::free()?;
    let listen = format!("127.0.0.1:{port}");
    let running = stage.waldex("run")?.arg("--admin-listen").arg(&listen).spawn()?;
    wait_for_state(port, "/ready", 200, "live").await?;
    node.kill()?;
    stage.execute("insert into t values (1)").await?;
    wait_for_state(port, "/ready", 503, "backpressure").await?;
    wait_for_state(port, "/live", 200, "backpressure").await?;
    let (_, status) = get(port, "/status").await?;
    let json: serde_json::Value = serde_json::from_str(&status)?;
    ensure!(json["reason"].as_str().is_some_and(|reason| reason.contains("connect")), "{status}");
    node.start_again()?;
    wait_for_state(port, "/ready", 200, "live").await?;
    running.terminate();
    running.finish(LIMIT + Duration::from_secs(10)).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id"]).await
}
