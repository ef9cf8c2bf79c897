//! Definitions that change in the midst of something: an open transaction, a large one, a value that is selected
//! again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::support::proxy::http::{Fault, SearchProxy};
use crate::support::servers::{shared_elasticsearch, shared_postgres, shared_postgres_14};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Running, Waldex};

/// A run of every table of the publication.
fn follow(stage: &Stage<'_>) -> Result<Running> {
    Waldex::new("run")?.between(&stage.database.url, stage.name(), stage.node).spawn()
}

async fn is_there(stage: &Stage<'_>, index: &str, id: &str) -> bool {
    stage.search.document(index, id).await.is_ok_and(|found| found.is_some())
}

/// What a transaction wrote before its table was published is not in the stream, and in no snapshot before it
/// commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_published_while_a_transaction_that_wrote_to_it_is_open() -> Result<()> {
    let stage = Stage::new("joined", shared_postgres()?, shared_elasticsearch()?).await?;
    let name = stage.name().to_owned();
    let table = format!("{name}_later");
    stage.execute(&format!("create table {name}_t (id int primary key)")).await?;
    stage.execute(&format!("create table {table} (id int primary key, v text)")).await?;
    stage.execute(&format!("insert into {table} values (1, 'goes'), (2, 'changes')")).await?;
    stage.execute(&format!("create publication {name} for table {name}_t")).await?;
    let mut running = follow(&stage)?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let writer = sql::connect(&stage.database.url).await?;
    let written = format!(
        "begin; insert into {table} values (3, 'comes'); delete from {table} where id = 1;
         update {table} set v = 'changed' where id = 2"
    );
    sql::batch(&writer, &written).await?;
    stage.execute(&format!("alter publication {name} add table {table}")).await?;
    // Said again only if it still waits after ten seconds more.
    wait_until(LIMIT, "the load to wait on", async || {
        let lines = running.lines();
        lines.iter().filter(|line| line.contains("waiting for transactions that write")).count()
            == 2
    })
    .await?;
    sql::batch(&writer, "commit").await?;
    wait_until(LIMIT, "the row", async || is_there(&stage, &table, "3").await).await?;
    running.stop(LIMIT).await?;
    let expectation = crate::support::compare::Expectation::columns(&table, "id", &["id", "v"]);
    stage.assert_index(&expectation, &table).await
}

/// With REPLICA IDENTITY FULL the stream describes the table as before.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_moves_to_another_column_under_replica_identity_full() -> Result<()> {
    let mut stage = Stage::new("key_moves", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int not null primary key, code int not null unique", "").await?;
    stage.execute("alter table t replica identity full; insert into t values (1, 10)").await?;
    let running = stage.run()?;
    let index = stage.index("t");
    wait_until(LIMIT, "the row", async || is_there(&stage, &index, "1").await).await?;
    stage
        .execute(
            "alter table t drop constraint t_pkey, add primary key (code);
             insert into t values (1, 11), (2, 12)",
        )
        .await?;
    wait_until(LIMIT, "ids of the new key", async || is_there(&stage, &index, "11").await).await?;
    stage.execute("delete from t where code = 11").await?;
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "code", &["id", "code"]).await
}

/// The value is to be selected again, and its column is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_is_dropped_before_its_value_is_selected_again() -> Result<()> {
    for (label, postgres) in
        [("dropped_18", shared_postgres()?), ("dropped_14", shared_postgres_14()?)]
    {
        let mut stage = Stage::new(label, postgres, shared_elasticsearch()?).await?;
        stage.table("t", "id int primary key, n int, big text, other text", "").await?;
        stage.execute("alter table t alter big set storage external").await?;
        stage.execute("insert into t values (1, 0, repeat('x', 9000)), (2, 0, 'small')").await?;
        let running = stage.run()?;
        let index = stage.index("t");
        wait_until(LIMIT, "the rows", async || is_there(&stage, &index, "2").await).await?;
        stage
            .execute(
                "begin; update t set n = 1; alter table t drop column big; commit;
                 begin; update t set n = 2; alter table t rename other to another; commit;
                 insert into t values (3, 3)",
            )
            .await?;
        wait_until(LIMIT, "the last row", async || is_there(&stage, &index, "3").await).await?;
        running.stop(LIMIT).await?;
        stage.catch_up().await?;
        let reload = stage.waldex("run")?.arg("--reload").arg("--until").arg("current");
        reload.run_to_end(LIMIT).await?.expect_code(0)?;
        stage.assert_equal("t", "id", &["id", "n", "another"]).await?;
    }
    Ok(())
}

/// One that takes longer than tables are made is not begun again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_within_a_transaction_that_takes_long() -> Result<()> {
    const ROWS: u64 = 3000;
    let stage = Stage::new("made", shared_postgres()?, shared_elasticsearch()?).await?;
    let name = stage.name().to_owned();
    let table = format!("{name}_t");
    stage.execute(&format!("create table {table} (id int primary key, v text)")).await?;
    stage.execute(&format!("create publication {name} for all tables")).await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    let config = "memory_budget: 65536\nelasticsearch:\n  bulk_size: 20\n  bulk_bytes: 16384\n";
    let program = Waldex::new("run")?.between(&stage.database.url, &name, proxy.node());
    let mut running = program.config(config).spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    proxy.rule(|request| match request.is_bulk() {
        true => Fault::Delay(Duration::from_millis(150)),
        false => Fault::Pass,
    });
    stage
        .execute(&format!(
            "insert into {table} select i, repeat('x', 500) from generate_series(1, {ROWS}) i"
        ))
        .await?;
    wait_until(LIMIT, "the first rows", async || is_there(&stage, &table, "1").await).await?;
    stage.execute(&format!("create table {name}_new (id int primary key)")).await?;
    running.wait_for_line(LIMIT, "planning again").await?;
    stage.search.refresh(&table).await?;
    let count = stage.search.count(&table).await?.context("no index")?;
    ensure!(count == ROWS, "{count} of {ROWS} rows were there");
    running.stop(LIMIT).await
}
