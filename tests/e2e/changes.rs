//! Every kind of change arrives, on each server: inserts, updates, deletes, key changes, truncates,
//! transactions of several tables, rollbacks.

use anyhow::{Context, Result, ensure};

use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::stage::Stage;

async fn every_kind_of_change(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    let mut stage = Stage::new(label, postgres, node).await?;
    stage.table("a", "id int primary key, v text", "").await?;
    stage.table("b", "x text, y int, v text, primary key (y, x)", "").await?;
    stage.execute("insert into a select n, 'before ' || n from generate_series(1, 100) n").await?;
    stage.catch_up().await?;
    stage.assert_equal("a", "id", &["id", "v"]).await?;

    stage.execute("insert into a values (101, 'new'); update a set v = null where id = 7").await?;
    stage.execute("delete from a where id between 20 and 29").await?;
    stage
        .execute(
            "begin; insert into a values (200, 'both'); insert into b values ('k,~', 1, 'both'); \
             update a set v = 'changed in it' where id = 200; savepoint s; \
             insert into a values (201, 'undone'); rollback to s; \
             delete from a where id = 30; insert into a values (30, 'again'); commit",
        )
        .await?;
    stage.execute("begin; delete from a; insert into b values ('no', 2, ''); rollback").await?;
    stage.execute("update a set id = 1000 where id = 1; update b set x = 'k2' where y = 1").await?;
    // A swap through a third key, and a chain, in one transaction each.
    stage
        .execute(
            "begin; update a set id = -1 where id = 2; update a set id = 2 where id = 3; \
             update a set id = 3 where id = -1; commit",
        )
        .await?;
    stage.catch_up().await?;
    stage.assert_equal("a", "id", &["id", "v"]).await?;
    let key = "(y || ',' || replace(replace(x, '~', '~0'), ',', '~1'))";
    let query = format!("select {key}, json_build_object('x', x, 'y', y, 'v', v)::text from b");
    let expectation = crate::support::compare::Expectation::query(query);
    let index = stage.index("b");
    stage.assert_index(&expectation, &index).await?;

    let truncated = "begin; insert into a values (500, 'gone'); truncate a, b; \
                     insert into a values (1, 'after'); commit";
    stage.execute(truncated).await?;
    stage.catch_up().await?;
    stage.assert_equal("a", "id", &["id", "v"]).await?;
    ensure!(stage.search.count(&stage.index("b")).await? == Some(0), "b must be empty");
    let confirmed = stage.confirmed().await?.context("no slot")?;
    ensure!(confirmed != "0/0", "nothing was confirmed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_from_the_newest_postgres_to_elasticsearch() -> Result<()> {
    every_kind_of_change("changes_es", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_from_postgres_14_to_opensearch() -> Result<()> {
    every_kind_of_change("changes_os", shared_postgres_14()?, shared_opensearch()?).await
}

/// A large value that an update leaves alone is not sent again; it must never become null or go missing.
#[tokio::test(flavor = "multi_thread")]
async fn unchanged_toast_stays_in_the_document() -> Result<()> {
    let mut stage = Stage::new("toast", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, big text, n int", "").await?;
    stage.table("f", "id int primary key, big text, n int", "").await?;
    stage
        .execute(
            "alter table t alter big set storage external; alter table f alter big set storage external; \
             alter table f replica identity full;",
        )
        .await?;
    stage.catch_up().await?;
    for table in ["t", "f"] {
        stage
            .execute(&format!(
                "insert into {table} select n, repeat(n::text, 20000), 0 from generate_series(1, 20) n;
                 update {table} set n = 1;
                 update {table} set id = id + 100 where id <= 10;
                 begin; update {table} set n = 2 where id = 15; update {table} set id = 16000 where id = 15;
                 update {table} set n = 3 where id = 16000; commit;
                 begin; update {table} set n = 4 where id = 20; delete from {table} where id = 20; commit;"
            ))
            .await?;
    }
    stage.catch_up().await?;
    for table in ["t", "f"] {
        stage.assert_equal(table, "id", &["id", "big", "n"]).await?;
    }
    Ok(())
}
