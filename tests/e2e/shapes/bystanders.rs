//! What cannot be published stands beside what is, and disturbs nothing.

use anyhow::{Result, ensure};

use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::Waldex;

async fn one_of_each_kind(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    let stage = Stage::new(label, postgres, node).await?;
    // All tables of the publication, under their own names: those must be ours alone.
    let name = stage.name().to_owned();
    let (t, fleeting) = (format!("{name}_t"), format!("{name}_u"));
    stage
        .execute(&format!(
            "create table {t} (id int primary key, v text);
             create unlogged table {fleeting} (id int primary key, v text);
             create view seen as select * from {t}; create materialized view kept as select * from {t};
             create sequence numbers; create foreign data wrapper far; create server away foreign data wrapper far;
             create foreign table elsewhere (id int) server away; create temp table {t}_temp (id int primary key);
             create type shape as (a int); select lo_create(0);
             create publication {name} for all tables; insert into {t} values (1, 'loaded');
             insert into {fleeting} values (1, 'unlogged')"
        ))
        .await?;
    let waldex = |command: &str| -> Result<Waldex> {
        Ok(Waldex::new(command)?.between(&stage.database.url, &name, stage.node))
    };
    waldex("check")?.run_to_end(LIMIT).await?.expect_code(0)?;
    let mut running = waldex("run")?.spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage
        .execute(&format!(
            "begin; insert into {t} values (2, 'streamed'); insert into {fleeting} values (2, 'unlogged');
             insert into {t}_temp values (1); select nextval('numbers'); select lo_create(0); commit;
             refresh materialized view kept; truncate {t}_temp, {fleeting};
             insert into {fleeting} values (3, 'before it is logged'); analyze"
        ))
        .await?;
    for maintenance in [format!("vacuum full {t}"), format!("cluster {t} using {t}_pkey")] {
        stage.execute(&maintenance).await?;
    }
    stage.execute(&format!("update {t} set v = 'behind it' where id = 1")).await?;
    // A table that becomes a logged one is one more of the publication, with the rows that it has.
    stage.execute(&format!("alter table {fleeting} set logged")).await?;
    wait_until(LIMIT, "the table that is logged now", async || {
        stage.search.refresh(&fleeting).await.is_ok()
            && matches!(stage.search.document(&fleeting, "3").await, Ok(Some(_)))
    })
    .await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    waldex("run")?.arg("--until").arg("current").run_to_end(LIMIT).await?.expect_code(0)?;
    for table in [&t, &fleeting] {
        let expectation = crate::support::compare::Expectation::columns(table, "id", &["id", "v"]);
        stage.assert_index(&expectation, table).await?;
    }
    ensure!(sql::value(&stage.sql, "select count(*) from kept").await?.is_some());
    for other in ["seen", "kept", "elsewhere"] {
        ensure!(stage.search.count(other).await?.is_none(), "\"{other}\" is indexed");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_each_kind_from_the_newest_postgres_to_elasticsearch() -> Result<()> {
    one_of_each_kind("bystand_es", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_each_kind_from_postgres_14_to_opensearch() -> Result<()> {
    one_of_each_kind("bystand_os", shared_postgres_14()?, shared_opensearch()?).await
}
