//! TRUNCATE: of several tables, with all that refers to them, beside other changes in one transaction, and with a
//! waldex that is killed in the middle of it.

use anyhow::{Result, ensure};
use elasticsearch::http::Method;

use crate::support::search::Search;
use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

const TABLES: [&str; 4] = ["a", "b", "c", "other"];

async fn stage<'a>(label: &str, postgres: &'a Postgres, node: &'a SearchNode) -> Result<Stage<'a>> {
    let mut stage = Stage::new(label, postgres, node).await?;
    stage.table("a", "id int primary key, v text", "").await?;
    stage.table("b", "id int primary key references a, v text", "").await?;
    stage.table("c", "id int primary key references b, v text", "").await?;
    stage.table("other", "id int primary key, v text", "").await?;
    stage.execute("create table unpublished (id int primary key references a)").await?;
    for table in TABLES {
        let fill = "select i, 'loaded' from generate_series(1, 3000) i";
        stage.execute(&format!("insert into {table} {fill}")).await?;
    }
    stage.execute("insert into unpublished values (1)").await?;
    Ok(stage)
}

async fn assert_equal(stage: &Stage<'_>) -> Result<()> {
    for table in TABLES {
        stage.assert_equal(table, "id", &["id", "v"]).await?;
    }
    Ok(())
}

async fn of_every_kind(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    let stage = stage(label, postgres, node).await?;
    stage.catch_up().await?;
    // The cascade takes b, c and a table that is not published.
    stage
        .execute(
            "update other set v = 'kept'; truncate a restart identity cascade; \
             insert into a values (1, 'after')",
        )
        .await?;
    stage.catch_up().await?;
    assert_equal(&stage).await?;
    ensure!(stage.search.count(&stage.index("c")).await? == Some(0), "c must be empty");
    // What is undone leaves no trace, and of two the later counts.
    stage
        .execute(
            "begin; insert into a values (2, 'x'), (3, 'x'); savepoint s; truncate a, b, c, other, unpublished; \
             insert into a values (4, 'undone'); rollback to s; update a set v = 'y' where id = 3; commit; \
             begin; truncate other; insert into other values (1, 'one'), (2, 'two'); truncate other, c; \
             insert into other select i, 'last' from generate_series(2, 5) i; update other set id = 9 where id = 5; \
             delete from other where id = 4; commit; truncate c; truncate c;",
        )
        .await?;
    stage.catch_up().await?;
    assert_equal(&stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_tables_from_the_newest_postgres_to_elasticsearch() -> Result<()> {
    of_every_kind("truncates_es", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_tables_from_postgres_14_to_opensearch() -> Result<()> {
    of_every_kind("truncates_os", shared_postgres_14()?, shared_opensearch()?).await
}

/// What is seen, in which index, at how many documents.
type Place = (&'static str, &'static str, fn(u64) -> bool);

/// Before the truncate, between truncate and insert, behind both: whatever was written when it was killed, the next
/// one begins the transaction again.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_truncate_and_insert_of_one_transaction() -> Result<()> {
    let stage = stage("truncate_kill", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.catch_up().await?;
    stage
        .execute(
            "begin; update other set v = 'within'; \
             insert into a select i, 'gone' from generate_series(5000, 25000) i; \
             truncate a, b, c, unpublished; insert into a select i, 'after' from generate_series(2000, 22000) i; \
             insert into b select i, 'after' from generate_series(3000, 9000) i; \
             delete from b where id % 2 = 0; commit",
        )
        .await?;
    let count = async |table: &str| {
        let index = stage.index(table);
        stage.search.refresh(&index).await.ok()?;
        stage.search.count(&index).await.ok()?
    };
    // Each is seen while the transaction is written, in this order.
    let places: [Place; 4] = [
        ("the rows before the truncate", "a", |count| count > 9_000),
        ("the truncate", "b", |count| count == 0),
        ("the rows behind it", "a", |count| (1_000..20_001).contains(&count)),
        ("the last table", "b", |count| (100..6_001).contains(&count)),
    ];
    for (what, table, is_there) in places {
        let running = stage.run()?;
        wait_until(LIMIT, what, async || count(table).await.is_some_and(is_there)).await?;
        running.kill()?;
    }
    stage.catch_up().await?;
    assert_equal(&stage).await
}

/// What a scan stands on: where replicas may lag, primaries can be asked for.
#[tokio::test(flavor = "multi_thread")]
async fn only_opensearch_knows_the_preference_for_primaries() -> Result<()> {
    for (node, status) in [(shared_elasticsearch()?, 400), (shared_opensearch()?, 200)] {
        let path = "/_search?preference=_primary";
        let (found, answer) = Search::of(node)?.request(Method::Get, path, None).await?;
        ensure!(found == status, "{found}: {answer}");
    }
    Ok(())
}
