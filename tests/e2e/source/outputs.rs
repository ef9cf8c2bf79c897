//! Whoever reads what a command prints may leave early.

use anyhow::Result;

use super::{ends_equal, filled};
use crate::support::refusal::CommandLine;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

/// A panic would end with 101, or with a signal.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_is_no_error_and_no_panic() -> Result<()> {
    let mut stage = Stage::new("unread", shared_postgres()?, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    stage.catch_up().await?;
    let line = CommandLine::of(&stage);
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["check"],
        &["setup"],
        &["setup", "--apply"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "drop", "--all"],
        &["--help"],
    ] {
        line.waldex(words)?.unread().run_to_end(LIMIT).await?.expect_code(0)?;
    }
    line.waldex(&["teardown"])?.unread().run_to_end(LIMIT).await?.expect_code(1)?;
    let mut wrong = line.clone();
    wrong.publication = "nowhere".to_owned();
    wrong.waldex(&["check"])?.unread().run_to_end(LIMIT).await?.expect_code(1)?;
    wrong.waldex(&["check", "--colour"])?.unread().run_to_end(LIMIT).await?.expect_code(64)?;
    Ok(())
}

/// A log that nobody reads any more is no reason to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_log_is_unread_goes_on() -> Result<()> {
    let mut stage = Stage::new("unread_log", shared_postgres()?, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    let running = stage.waldex("run")?.arg("--log-level").arg("debug").unread().spawn()?;
    let index = stage.index("t");
    wait_until(LIMIT, "the load", async || {
        matches!(stage.search.count(&index).await, Ok(Some(50)))
    })
    .await?;
    ends_equal(&stage, running).await
}
