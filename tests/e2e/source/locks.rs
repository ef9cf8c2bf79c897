//! A table that somebody has locked, as a rewrite of it does, is waited for, and whoever has it is named.

use anyhow::Result;
use rustix::process::Signal;

use super::holds;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

const NAMED: &str = "reading a table waits for a lock";

#[tokio::test(flavor = "multi_thread")]
async fn a_load_and_a_reselect_wait_for_a_lock_and_name_who_has_it() -> Result<()> {
    let mut stage = Stage::new("locked", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text, n int", "").await?;
    stage.execute("alter table t alter v set storage external").await?;
    stage
        .execute("insert into t select i, repeat('v', 5000), 0 from generate_series(1, 9) i")
        .await?;
    let first = sql::connect(&stage.database.url).await?;
    let second = sql::connect(&stage.database.url).await?;
    // The load waits for whoever writes; the lock comes between that and its first row.
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "slot created").await?;
    running.stop(LIMIT).await?;
    sql::batch(&first, "begin; update t set n = 1 where id = 1").await?;
    let mut running = stage.waldex("run")?.arg("--reload").spawn()?;
    running.wait_for_line(LIMIT, "waiting for transactions that write").await?;
    let lock = "begin; lock table t in access exclusive mode";
    let locking = tokio::spawn(async move { sql::batch(&second, lock).await.map(|()| second) });
    let queued = "select 1 from pg_locks where relation = 't'::regclass and not granted";
    wait_until(LIMIT, "the lock to be next", async || holds(&stage, queued).await).await?;
    sql::batch(&first, "commit").await?;
    let second = locking.await??;
    running.wait_for_line(LIMIT, NAMED).await?;
    sql::batch(&second, "rollback").await?;
    running.wait_for_line(LIMIT, "\"state\":\"live\"").await?;

    running.signal(Signal::STOP);
    stage.execute("update t set n = 2").await?;
    sql::batch(&second, lock).await?;
    running.signal(Signal::CONT);
    running.wait_for_line(LIMIT, NAMED).await?;
    sql::batch(&second, "rollback").await?;
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v", "n"]).await
}
