//! Several search nodes, of which some are away.

use anyhow::Result;

use crate::support::servers::ports;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::waldex::Waldex;

/// Calls go to the nodes in turn: a start that needs several of them in a row would never come through.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_of_several_keeps_neither_a_start_nor_the_stream() -> Result<()> {
    let node = shared_elasticsearch()?;
    let mut stage = Stage::new("dead_node", shared_postgres()?, node).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select i, 'loaded' from generate_series(1, 500) i").await?;
    let mut dead = url::Url::parse(&node.url_with_credentials())?;
    for alive_is_first in [true, false] {
        let port = ports::free()?;
        let set = dead.set_port(Some(port));
        anyhow::ensure!(set.is_ok(), "no port in the node's address");
        let alive = node.url_with_credentials();
        let addresses =
            if alive_is_first { format!("{alive},{dead}") } else { format!("{dead},{alive}") };
        stage.execute("update t set v = v || '.'").await?;
        let run = Waldex::new("run")?
            .over(&stage.database.url, stage.name(), &addresses)
            .arg("--until")
            .arg("current")
            .config(&stage.config());
        run.run_to_end(LIMIT).await?.expect_code(0)?;
        stage.assert_equal("t", "id", &["id", "v"]).await?;
    }
    Ok(())
}
