//! What a role or a database is set to does no harm: the sessions pin what they rely on.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{ends_equal, holds};
use crate::support::refusal::CommandLine;
use crate::support::servers::{shared_elasticsearch, shared_postgres, shared_postgres_since};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

const SETTINGS: [&str; 16] = [
    "datestyle = 'German, DMY'",
    "timezone = 'Asia/Kathmandu'",
    "intervalstyle = 'sql_standard'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "lc_monetary = 'C'",
    "search_path = 'trap'",
    "statement_timeout = '50ms'",
    "lock_timeout = '1ms'",
    "idle_session_timeout = '500ms'",
    "idle_in_transaction_session_timeout = '100ms'",
    "transaction_timeout = '200ms'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "client_min_messages = 'error'",
    "quote_all_identifiers = on",
];
const COLUMNS: [&str; 6] = ["id", "v", "at", "took", "f", "b"];

/// Shadows what a search path would find first.
const TRAP: &str = "
    create schema trap;
    create function trap.pg_current_wal_flush_lsn() returns pg_lsn language sql as 'select ''FF/0''::pg_lsn';
    create view trap.pg_publication_tables as select 'x'::name as pubname, 'x'::name as schemaname;
    create view trap.pg_replication_slots as select 'x'::name as slot_name";

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_role_change_no_document_and_cut_nothing() -> Result<()> {
    // `transaction_timeout` is of 17.
    let postgres = shared_postgres_since(17)?;
    let mut stage = Stage::new("role", postgres, shared_elasticsearch()?).await?;
    stage.execute(TRAP).await?;
    let columns = "id int primary key, v text, at timestamptz, took interval, f float8, b bytea";
    stage.table("t", columns, "").await?;
    let role = format!("{}_role", stage.name());
    stage.execute(&format!("create role {role} login replication password 'x'")).await?;
    stage.execute(&format!("grant usage on schema trap to {role}")).await?;
    stage.execute(&format!("grant select on all tables in schema public, trap to {role}")).await?;
    for setting in SETTINGS {
        stage.execute(&format!("alter role {role} set {setting}")).await?;
    }
    let rows = |from: i32, to: i32| {
        format!(
            "insert into t select n, 'v', '2024-05-06 07:08:09.123456+02', '1 year 2 days 03:04:05',
             0.1::float8 + 0.2::float8, '\\x00ff41' from generate_series({from}, {to}) n"
        )
    };
    stage.execute(&rows(1, 2000)).await?;
    let line = CommandLine::of(&stage).with_role(&role, "x")?;
    line.succeed(&["check"]).await?;
    let mut running = line.waldex(&["run"])?.spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    // Idle for longer than any session or transaction of this role may be.
    let begun = "select 1 from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid
                 where r.backend_start < clock_timestamp() - interval '2 seconds' and s.slot_name = ";
    let begun = format!("{begun}'{}'", stage.name());
    wait_until(LIMIT, "the stream to be older", async || holds(&stage, &begun).await).await?;
    stage.execute(&rows(90001, 90001)).await?;
    let lines = running.lines().join("\n");
    ensure!(!lines.contains("broke off"), "it was cut: {lines}");
    let mark =
        sql::value(&stage.sql, "select pg_current_wal_flush_lsn()").await?.unwrap_or_default();
    wait_until(LIMIT, "the change to be confirmed", async || {
        stage.has_confirmed(&mark).await.unwrap_or(false)
    })
    .await?;
    // As a session without any of these settings would have it.
    let documents = stage.search.documents(&stage.index("t")).await?;
    ensure!(documents.len() == 2001, "{} documents", documents.len());
    let plain = documents.get("1").zip(documents.get("90001"));
    let Some((loaded, streamed)) = plain else { anyhow::bail!("rows are missing") };
    let shown = &loaded.source;
    ensure!(shown["at"] == "2024-05-06T05:08:09.123456Z", "{shown}");
    ensure!(shown["f"].as_f64() == Some(0.1 + 0.2), "{shown}");
    ensure!(shown["b"] == "AP9B", "{shown}");
    for column in &COLUMNS[1..] {
        ensure!(shown[column] == streamed.source[column], "{shown} and {}", streamed.source);
    }
    running.terminate();
    running.finish(Duration::from_secs(20)).await?.expect_code(0)?;
    stage.execute(&format!("select pg_drop_replication_slot('{}')", stage.name())).await?;
    stage.execute(&format!("drop owned by {role}; drop role {role}")).await
}

/// The same of a whole database, set while the stream runs.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_database_that_come_later_cut_nothing() -> Result<()> {
    let mut stage = Stage::new("database", shared_postgres()?, shared_elasticsearch()?).await?;
    super::filled(&mut stage).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let name = stage.name().to_owned();
    for setting in ["statement_timeout = '20ms'", "idle_session_timeout = '200ms'"] {
        stage.execute(&format!("alter database {name} set {setting}")).await?;
    }
    // Sessions made from here on have them.
    stage
        .execute(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = 'waldex' and datname = '{name}'"
        ))
        .await?;
    running.wait_for_line(LIMIT, "trying on").await?;
    ends_equal(&stage, running).await
}
