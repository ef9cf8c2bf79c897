//! Failovers, lost tails, slots that did not come along, and backups that were restored: the stream goes on only
//! where nothing can be missing.

use anyhow::{Result, ensure};

use crate::support::refusal::CommandLine;
use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::shared_elasticsearch;
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::{wait_for, wait_until};
use crate::support::waldex::Running;

const STANDBY_SLOT: &str = "standby";
/// A standby with these may copy the primary's failover slots when it is asked to.
const KEEPS_SLOTS: [&str; 1] = ["wal_level=logical"];

/// A primary and its standby.
async fn pair(version: Version) -> Result<(Postgres, Postgres)> {
    let primary = Postgres::start(version, &Options::default())?;
    let client = sql::connect(primary.url()).await?;
    let create = format!("select pg_create_physical_replication_slot('{STANDBY_SLOT}')");
    sql::batch(&client, &create).await?;
    drop(client);
    primary.stop()?;
    let copy = primary.copy_data()?;
    primary.start_again()?;
    let standby = copy.start_standby(&primary, STANDBY_SLOT, &KEEPS_SLOTS)?;
    Ok((primary, standby))
}

/// `stage` reaches whichever of the two is the primary.
async fn stage_on<'a>(label: &str, primary: &'a Postgres, standby: &Postgres) -> Result<Stage<'a>> {
    let mut stage = Stage::new(label, primary, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select n, 'before' from generate_series(1, 50) n").await?;
    let both = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    stage.database.url =
        stage.database.url.replace(&format!("127.0.0.1:{}", primary.port()), &both);
    Ok(stage)
}

async fn wait_for_value(stage: &Stage<'_>, id: &str, value: &str) -> Result<()> {
    let index = stage.index("t");
    wait_until(LIMIT, &format!("document {id} with \"{value}\""), async || {
        let found = stage.search.document(&index, id).await;
        found.is_ok_and(|found| found.is_some_and(|it| it.source["v"] == value))
    })
    .await
}

/// Whatever was written so far is confirmed to the primary.
async fn wait_confirmed(stage: &Stage<'_>) -> Result<()> {
    let name = stage.name();
    let target = sql::value(&stage.sql, "select pg_current_wal_flush_lsn()::text").await?;
    let target = target.unwrap_or_default();
    let query = format!(
        "select 1 from pg_replication_slots where slot_name = '{name}' \
         and confirmed_flush_lsn >= '{target}'"
    );
    wait_until(LIMIT, "the position to be confirmed", async || {
        matches!(sql::value(&stage.sql, &query).await, Ok(Some(_)))
    })
    .await
}

/// The standby has all that the primary has.
async fn wait_replayed(stage: &Stage<'_>, standby: &Postgres) -> Result<()> {
    let target = sql::value(&stage.sql, "select pg_current_wal_flush_lsn()::text").await?;
    let target = target.unwrap_or_default();
    let client = sql::connect(standby.url()).await?;
    let query = format!("select 1 where pg_last_wal_replay_lsn() >= '{target}'");
    wait_until(LIMIT, "the standby to follow", async || {
        matches!(sql::value(&client, &query).await, Ok(Some(_)))
    })
    .await
}

/// The slot has a copy on the standby that outlives a promotion.
async fn wait_slot_kept(stage: &Stage<'_>, standby: &Postgres) -> Result<()> {
    let client = sql::connect(standby.url()).await?;
    let query = format!(
        "select 1 from pg_replication_slots where slot_name = '{}' and failover and synced \
         and not temporary",
        stage.name()
    );
    wait_until(LIMIT, "the standby to keep the slot", async || {
        // The position moves over a record of this kind only.
        let moved = stage.execute("select pg_log_standby_snapshot()").await;
        let copied = sql::batch(&client, "select pg_sync_replication_slots()").await;
        moved.is_ok() && copied.is_ok() && matches!(sql::value(&client, &query).await, Ok(Some(_)))
    })
    .await
}

/// Promotes the standby; from here on `stage` speaks to it.
async fn promote(stage: &mut Stage<'_>, standby: &Postgres) -> Result<()> {
    let client = sql::connect(standby.url()).await?;
    sql::batch(&client, "select pg_promote()").await?;
    let url = standby.database_url(stage.name());
    stage.sql = wait_for(LIMIT, "the promoted server", async || {
        let client = sql::connect(&url).await.ok()?;
        let is_primary = sql::value(&client, "select 1 where not pg_is_in_recovery()").await;
        is_primary.ok().flatten().map(|_| client)
    })
    .await?;
    Ok(())
}

async fn needs_resync(running: Running, reason: &str) -> Result<()> {
    let finished = running.finish(LIMIT).await?;
    finished.expect_code(1)?;
    let last = finished.stderr.iter().find(|line| line.starts_with("waldex: needs_resync: "));
    ensure!(last.is_some_and(|line| line.contains(reason)), "no \"{reason}\": {last:?}");
    Ok(())
}

/// The stream goes on at the new primary, without a restart, and also with one.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_nothing_is_followed() -> Result<()> {
    let (primary, standby) = pair(Version::AtLeast(17)).await?;
    let mut stage = stage_on("followed", &primary, &standby).await?;
    let mut running = stage.run()?;
    wait_for_value(&stage, "50", "before").await?;
    stage.execute("update t set v = 'old primary' where id <= 25").await?;
    wait_for_value(&stage, "25", "old primary").await?;
    wait_slot_kept(&stage, &standby).await?;
    stage.execute("delete from t where id = 7").await?;
    wait_confirmed(&stage).await?;
    wait_replayed(&stage, &standby).await?;
    primary.kill()?;
    running.wait_for_line(LIMIT, "is a standby").await?;
    promote(&mut stage, &standby).await?;
    running.wait_for_line(LIMIT, "the new primary has all that the indices hold").await?;
    stage
        .execute("update t set v = 'new primary' where id <= 10; insert into t values (7, 'again')")
        .await?;
    wait_for_value(&stage, "7", "again").await?;
    stage.execute("delete from t where id = 7").await?;
    running.stop(LIMIT).await?;
    stage.execute("update t set v = 'later' where id > 45").await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// Delivered and confirmed, and then gone with the old primary: the index holds what no table does.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_changes_ends_in_needs_resync() -> Result<()> {
    let (primary, standby) = pair(Version::AtLeast(17)).await?;
    let mut stage = stage_on("diverged", &primary, &standby).await?;
    let running = stage.run()?;
    wait_for_value(&stage, "50", "before").await?;
    wait_slot_kept(&stage, &standby).await?;
    standby.stop()?;
    stage.execute("insert into t select n, 'lost' from generate_series(51, 99) n").await?;
    stage.execute("update t set v = 'lost' where id <= 3").await?;
    wait_for_value(&stage, "3", "lost").await?;
    wait_confirmed(&stage).await?;
    primary.kill()?;
    standby.start_again()?;
    promote(&mut stage, &standby).await?;
    needs_resync(running, "a failover lost changes: timeline 2 goes on from ").await?;
    stage.execute("insert into t select n, 'new' from generate_series(60, 70) n").await?;
    let line = CommandLine::of(&stage);
    let complaint = line.refused("needs_resync: a failover lost changes", 1).await?;
    ensure!(complaint.fix.contains("`waldex run --reload`"), "{complaint:?}");
    line.succeed(&["run", "--reload", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// Before 17 no slot survives: the new primary has none, and to make one would skip what came in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_without_the_slot_ends_in_needs_resync() -> Result<()> {
    let (primary, standby) = pair(Version::Major(14)).await?;
    let mut stage = stage_on("slotless", &primary, &standby).await?;
    let running = stage.run()?;
    wait_for_value(&stage, "50", "before").await?;
    wait_confirmed(&stage).await?;
    wait_replayed(&stage, &standby).await?;
    primary.kill()?;
    promote(&mut stage, &standby).await?;
    stage.execute("update t set v = 'in between' where id <= 20").await?;
    needs_resync(running, "no longer exists").await?;
    let slot = format!("select 1 from pg_replication_slots where slot_name = '{}'", stage.name());
    ensure!(sql::value(&stage.sql, &slot).await?.is_none(), "a slot was made");
    let line = CommandLine::of(&stage);
    line.refused("needs_resync: the replication slot", 1).await?;
    line.succeed(&["run", "--reload", "--until", "current"]).await?;
    stage.execute("update t set v = 'after' where id > 45").await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// The same system, the same timeline, and less of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_restored_from_a_backup_ends_in_needs_resync() -> Result<()> {
    let original = Postgres::start(Version::Newest, &Options::default())?;
    let mut stage = Stage::new("restored", &original, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select n, 'before' from generate_series(1, 50) n").await?;
    stage.catch_up().await?;
    original.stop()?;
    let backup = original.copy_data()?;
    original.start_again()?;
    stage.sql = sql::connect(&stage.database.url).await?;
    stage.execute("insert into t select n, 'gone' from generate_series(51, 20000) n").await?;
    stage.catch_up().await?;
    original.stop()?;
    let restored = backup.start()?;
    stage.database.url = restored.database_url(stage.name());
    stage.sql = sql::connect(&stage.database.url).await?;
    let line = CommandLine::of(&stage);
    let complaint = line.refused("needs_resync: the server's WAL ends at ", 1).await?;
    ensure!(complaint.fix.contains("postgres.url"), "{complaint:?}");
    stage.execute("update t set v = 'restored' where id <= 10").await?;
    line.succeed(&["run", "--reload", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}
