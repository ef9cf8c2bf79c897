//! The source is never harmed, and its moods are waited out: connections that break, hang or cannot be had, slots
//! that are waited for or lost, settings of roles and servers.

mod connections;
mod limits;
mod locks;
mod lost_slot;
mod notes;
mod outputs;
mod publication;
mod settings;
mod setup;
mod slot_creation;
mod wal;

use anyhow::Result;

use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::Running;

/// A server of one's own, with these settings.
fn server(version: Version, conf: &[&str]) -> Result<Postgres> {
    let conf = conf.iter().map(|line| (*line).to_owned()).collect();
    Postgres::start(version, &Options { fsync: false, conf })
}

/// A published table `t` of 50 rows.
async fn filled(stage: &mut Stage<'_>) -> Result<()> {
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select n, 'before' from generate_series(1, 50) n").await
}

/// Stops it in good order, and compares.
async fn ends_equal(stage: &Stage<'_>, running: Running) -> Result<()> {
    let mark = stage.execute_and_mark("insert into t values (100001, 'last')").await?;
    wait_until(LIMIT, "the last change to be confirmed", async || {
        stage.has_confirmed(&mark).await.unwrap_or(false)
    })
    .await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// Whether a query gives a row.
async fn holds(stage: &Stage<'_>, query: &str) -> bool {
    matches!(sql::value(&stage.sql, query).await, Ok(Some(_)))
}
