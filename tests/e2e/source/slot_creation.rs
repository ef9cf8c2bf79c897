//! A slot waits for every transaction that was open before it: they are named, and whoever gives up leaves nothing.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{filled, holds, server};
use crate::support::servers::postgres::Version;
use crate::support::servers::shared_elasticsearch;
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

async fn blocked_and_given_up(label: &str, version: Version) -> Result<()> {
    let postgres = server(version, &[])?;
    let mut stage = Stage::new(label, &postgres, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    let open = sql::connect(postgres.url()).await?;
    sql::batch(&open, "begin; create table elsewhere (id int)").await?;
    let pid = sql::value(&open, "select pg_backend_pid()").await?.unwrap_or_default();
    let any = "select 1 from pg_replication_slots";
    for words in [&["run"][..], &["run", "--dry-run"]] {
        let mut waldex = stage.waldex(words[0])?;
        for word in &words[1..] {
            waldex = waldex.arg(word);
        }
        let mut running = waldex.spawn()?;
        let named = running.wait_for_line(LIMIT, "the slot waits for a transaction").await?;
        ensure!(named.contains(&format!("process {pid}")), "{pid} is not named: {named}");
        ensure!(named.contains("transaction_seconds"), "no age: {named}");
        ensure!(holds(&stage, any).await, "no slot is being made");
        running.terminate();
        let finished = running.finish(Duration::from_secs(5)).await?;
        finished.expect_code(0)?;
        ensure!(!holds(&stage, any).await, "a slot was left behind: {:?}", finished.stderr);
        let left = "select 1 from pg_stat_replication";
        wait_until(LIMIT, "the walsender to go", async || !holds(&stage, left).await).await?;
    }
    // One that waits long enough gets its slot.
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "the slot waits for a transaction").await?;
    sql::batch(&open, "rollback").await?;
    running.wait_for_line(LIMIT, "slot created").await?;
    super::ends_equal(&stage, running).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_waited_for_is_named_and_giving_up_leaves_no_slot() -> Result<()> {
    blocked_and_given_up("creation", Version::Newest).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_waited_for_is_named_on_14_too() -> Result<()> {
    blocked_and_given_up("creation_14", Version::Major(14)).await
}
