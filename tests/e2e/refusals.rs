//! What is wrong with connections, slot, publication or server is named in one line with its fix, by `check`
//! and by `run` alike; where the fix is SQL, it is run as printed and works.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::support::refusal::{CommandLine, Complaint};
use crate::support::servers::ports;
use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

async fn stage(label: &str) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t values (1, 'one')").await?;
    Ok(stage)
}

fn on_port(url: &str, port: u16) -> Result<String> {
    let mut url = url::Url::parse(url)?;
    url.set_port(Some(port)).ok().context("a URL without a host")?;
    Ok(url.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_a_wrong_database_end_at_once() -> Result<()> {
    let stage = stage("login").await?;
    let good = CommandLine::of(&stage);
    let began = Instant::now();
    let bad = good.clone().with_role("postgres", "c4n4ry")?;
    let complaint = bad.refused("28P01", 1).await?;
    ensure!(complaint.fix.contains("password"), "{complaint:?}");
    let said = format!("{:?}", bad.finish(&["run"]).await?);
    ensure!(!said.contains("c4n4ry"), "the password is in the log: {said}");
    let complaint = good.clone().with_role("nobody_of_that_name", "x")?.refused("28P01", 1).await?;
    ensure!(complaint.what.contains("nobody_of_that_name"), "{complaint:?}");

    let mut elsewhere = good;
    elsewhere.postgres_url = stage.postgres.database_url("no_such_database");
    let complaint = elsewhere.refused("no_such_database", 1).await?;
    ensure!(complaint.fix.contains("database name in postgres.url"), "{complaint:?}");
    ensure!(began.elapsed().as_secs() < 10, "what waiting does not mend was waited for");
    Ok(())
}

/// A server may be starting, so `run` waits a while for it; `check` says at once what it sees.
#[tokio::test(flavor = "multi_thread")]
async fn closed_ports_are_named() -> Result<()> {
    let stage = stage("closed").await?;
    let mut no_postgres = CommandLine::of(&stage);
    let port = ports::free()?;
    no_postgres.postgres_url = on_port(&no_postgres.postgres_url, port)?;
    let mut no_search = CommandLine::of(&stage);
    no_search.elasticsearch_url = on_port(&no_search.elasticsearch_url, port)?;
    let place = format!("127.0.0.1:{port}");
    let (postgres, search) =
        tokio::join!(no_postgres.refused(&place, 1), no_search.refused(&place, 1));
    ensure!(postgres?.fix.contains("Postgres runs"));
    let search = search?;
    ensure!(search.what.contains("cannot connect"), "{search:?}");
    ensure!(search.fix.contains("elasticsearch.addresses"), "{search:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_publication_is_made_by_the_printed_sql() -> Result<()> {
    let stage = stage("nopub").await?;
    let mut line = CommandLine::of(&stage);
    line.publication = "Odd \"name".to_owned();
    let complaint = line.refused("there is no publication \"Odd \"\"name\"", 1).await?;
    stage.execute(&complaint.fix).await?;
    line.succeed(&["check"]).await?;
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_leaves_operations_out_is_completed_by_the_printed_sql() -> Result<()> {
    let stage = stage("halfpub").await?;
    let line = CommandLine::of(&stage);
    let name = stage.name();
    stage.execute(&format!("alter publication {name} set (publish = 'insert, update')")).await?;
    let complaint = line.refused("does not publish delete, truncate", 1).await?;
    stage.execute(&complaint.fix).await?;
    line.succeed(&["check"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_not_ours_is_refused() -> Result<()> {
    let stage = stage("slots").await?;
    let name = stage.name();
    let other = stage.postgres.create_database("slots_other").await?;
    let in_other = sql::connect(&other.url).await?;
    stage
        .execute(&format!(
            "select pg_create_physical_replication_slot('{name}_p');
             select pg_create_logical_replication_slot('{name}_d', 'test_decoding')"
        ))
        .await?;
    sql::batch(
        &in_other,
        &format!("select pg_create_logical_replication_slot('{name}_o', 'pgoutput')"),
    )
    .await?;
    for (suffix, what) in [
        ("p", "it is a physical slot"),
        ("d", "has output plugin test_decoding, not pgoutput"),
        ("o", &format!("belongs to database \"{}\"", other.name)),
    ] {
        let mut line = CommandLine::of(&stage);
        line.slot = format!("{name}_{suffix}");
        let complaint = line.refused(what, 1).await?;
        ensure!(complaint.what.contains(&line.slot), "{complaint:?}");
        ensure!(complaint.fix.contains("postgres.slot"), "{complaint:?}");
        let kept = format!("select 1 from pg_replication_slots where slot_name = '{}'", line.slot);
        ensure!(sql::value(&stage.sql, &kept).await?.is_some(), "a foreign slot was dropped");
    }
    stage
        .execute(&format!(
            "select pg_drop_replication_slot('{name}_p'), pg_drop_replication_slot('{name}_d')"
        ))
        .await?;
    drop(in_other);
    stage.postgres.drop_database(&other).await
}

/// A role that may do nothing: all that it lacks is named at once, and granted by the printed SQL.
#[tokio::test(flavor = "multi_thread")]
async fn every_missing_right_is_named_and_granted_by_the_printed_sql() -> Result<()> {
    let mut stage = Stage::new("rights", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    let role = format!("Poor {}", stage.name());
    stage
        .execute(&format!(
            "create schema hidden; create table hidden.h (id int primary key);
             alter publication {} add table hidden.h;
             insert into t values (1, 'one'), (2, 'two'); insert into hidden.h values (7);
             alter table t enable row level security;
             create role \"{role}\" login password 'poor'",
            stage.name()
        ))
        .await?;
    let mut line = CommandLine::of(&stage).with_role(&role, "poor")?;
    let index = stage.index("h");
    line.config = Some(format!("{}  - table: hidden.h\n    index: {index}\n", stage.config()));
    let complaints = line.complaints(1).await?;
    for part in [
        "may not replicate",
        "may not read table \"public\".\"t\"",
        "row-level security of table \"public\".\"t\"",
        "may not use schema \"hidden\"",
        "may not read table \"hidden\".\"h\"",
    ] {
        let found = complaints.iter().filter(|complaint| complaint.what.contains(part)).count();
        ensure!(found == 1, "\"{part}\" is named {found} times in {complaints:#?}");
    }
    ensure!(complaints.len() == 5, "{complaints:#?}");
    for complaint in &complaints {
        stage.execute(&complaint.fix).await?;
    }
    line.succeed(&["check"]).await?;
    line.succeed(&["run", "--until", "current"]).await?;
    stage.execute("update t set v = 'new'; delete from hidden.h").await?;
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    ensure!(stage.search.count(&index).await? == Some(0), "the delete did not arrive");
    stage.execute(&format!("drop owned by \"{role}\"; drop role \"{role}\"")).await
}

/// A server that is set up for nothing of this: wal_level, slots, WAL senders, synchronous standbys.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_set_up_for_it_is_repaired_as_printed() -> Result<()> {
    let conf = ["wal_level=replica", "max_replication_slots=1", "max_wal_senders=1"];
    let conf = conf.map(str::to_owned).into();
    let server = Postgres::start(Version::Newest, &Options { fsync: false, conf })?;
    let mut stage = Stage::new("plain", &server, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    let line = CommandLine::of(&stage);
    // One by one: ALTER SYSTEM refuses to run with others.
    for statement in [
        "insert into t values (1, 'one')",
        "select pg_create_physical_replication_slot('standby')",
        "set synchronous_commit = local",
        "alter system set synchronous_standby_names = 'FIRST 1 (waldex, \"real one\")'",
        "select pg_reload_conf()",
    ] {
        stage.execute(statement).await?;
    }
    let complaints = line.complaints(1).await?;
    for part in ["wal_level is replica", "all 1 replication slots", "synchronous_standby_names"] {
        ensure!(complaints.iter().any(|it| it.what.contains(part)), "{part}: {complaints:#?}");
    }
    ensure!(complaints.len() == 3, "{complaints:#?}");
    for complaint in &complaints {
        let statements = complaint.fix.split("; then restart Postgres").next().unwrap_or_default();
        for statement in statements.split("; ") {
            stage.execute(statement).await?;
        }
    }
    let setting = "select setting from pg_file_settings where name = 'synchronous_standby_names' \
                   order by seqno desc limit 1";
    let names = sql::value(&stage.sql, setting).await?;
    ensure!(names.as_deref() == Some("FIRST 1 (\"real one\")"), "{names:?}");
    stage.execute("alter system reset synchronous_standby_names").await?;
    server.stop()?;
    server.start_again()?;
    stage.sql = sql::connect(&stage.database.url).await?;
    line.succeed(&["check"]).await?;

    // The only WAL sender is in use by another waldex.
    let first = stage.run()?;
    wait_until(LIMIT, "the stream", async || {
        let query = "select 1 from pg_stat_replication where state = 'streaming'";
        sql::value(&stage.sql, query).await.is_ok_and(|found| found.is_some())
    })
    .await?;
    let mut second = line.clone();
    second.slot = format!("{}_2", line.slot);
    let complaints = second.complaints(1).await?;
    for (what, fix) in [
        ("all 2 replication slots are taken", "ALTER SYSTEM SET max_replication_slots = 3"),
        ("all 1 WAL senders are in use", "ALTER SYSTEM SET max_wal_senders = 2"),
    ] {
        let is_it = |it: &Complaint| it.what == what && it.fix.starts_with(fix);
        ensure!(complaints.iter().any(is_it), "{what}: {complaints:#?}");
    }
    first.terminate();
    first.finish(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}
