//! Tables whose documents are routed by a column: `routing`.
//!
//! Every index here has several shards, so that a document is in two places, or in one, as its routings happen to
//! fall. A document left behind under an old routing is found by [`crate::support::search`]: two of one id.

mod changes;
mod kill;
mod letters;
mod refusals;

use anyhow::Result;

use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::stage::{LIMIT, Stage};

/// By `zone`, which is not a field of the document.
const BY_ZONE: &str =
    "routing: zone\nexclude: [zone]\nsettings: {number_of_shards: 3, number_of_replicas: 0}";
const COLUMNS: &str = "id int primary key, v text, zone text not null";

/// A table `t` with the whole old row in the log.
async fn stage<'a>(
    label: &str,
    postgres: &'a Postgres,
    node: &'a SearchNode,
    settings: &str,
) -> Result<Stage<'a>> {
    let mut stage = Stage::new(label, postgres, node).await?;
    stage.table("t", COLUMNS, settings).await?;
    stage.execute("alter table t replica identity full").await?;
    Ok(stage)
}

/// Everything committed so far arrives, in requests of few documents or in large ones.
async fn catch_up(stage: &Stage<'_>, bulk_size: &str) -> Result<()> {
    let run = stage.waldex("run")?.arg("--until").arg("current").arg("--bulk-size").arg(bulk_size);
    run.run_to_end(LIMIT).await?.expect_code(0)?;
    assert_equal(stage).await
}

async fn assert_equal(stage: &Stage<'_>) -> Result<()> {
    stage.assert_routed("t", "id", &["id", "v"], "zone").await
}
