//! Initial loads that do not go through at the first attempt.

use anyhow::{Result, ensure};

use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};

/// The next attempt does not see the row, and the stream does not bring its delete: what the load has seen is
/// not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_deleted_after_an_interrupted_load_leaves_no_document() -> Result<()> {
    let mut stage =
        Stage::new("load_interrupted", shared_postgres()?, shared_elasticsearch()?).await?;
    let numbers = "mappings: {properties: {v: {type: integer}}}";
    stage.table("t", "id int primary key, v text", numbers).await?;
    stage.execute("insert into t select i, i::text from generate_series(1, 5000) i").await?;
    stage.execute("update t set v = 'no number' where id = 5000").await?;
    let halted = stage.waldex("run")?.arg("--on-rejected").arg("halt").run_to_end(LIMIT).await?;
    halted.expect_code(1)?;
    let written = stage.search.count(&stage.index("t")).await?.unwrap_or(0);
    ensure!(written > 0, "the first attempt must have written something");

    let ids: Vec<String> = stage.search.documents(&stage.index("t")).await?.into_keys().collect();
    let ids = ids.join(", ");
    stage.execute(&format!("delete from t where id in ({ids}) and id % 2 = 0")).await?;
    stage.execute("update t set v = '5000' where id = 5000").await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}
