//! Tables that join a publication of which every table is wanted, and cannot be kept: the others go on.

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

/// The tables that `waldex status` says are left out.
async fn left_out(stage: &Stage<'_>) -> Result<Vec<String>> {
    let status = stage.waldex("status")?.arg("--json").run_to_end(LIMIT).await?;
    status.expect_code(0)?;
    let status: Value = serde_json::from_str(&status.stdout.concat())?;
    ensure!(status.get("tables").is_some(), "{status}");
    let tables = status.get("left_out").and_then(Value::as_object);
    Ok(tables.into_iter().flat_map(|tables| tables.keys().cloned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfit_table_that_joins_is_left_out_until_it_is_mended() -> Result<()> {
    let stage = Stage::new("newcomers", shared_postgres()?, shared_elasticsearch()?).await?;
    let name = stage.name().to_owned();
    let (kept, keyless) = (format!("{name}_kept"), format!("{name}_keyless"));
    stage.execute(&format!("create table {kept} (id int primary key, v text)")).await?;
    stage.execute(&format!("create publication {name} for all tables")).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "\"state\":\"live\"").await?;
    // No key; the index of another; one that a template would cut short.
    let cut = format!("{name}_cut");
    let template = json!({
        "index_patterns": [format!("{cut}-*")],
        "template": {"mappings": {"_source": {"excludes": ["v"]}}}
    });
    let templates = format!("/_index_template/{name}");
    stage.search.expect(Method::Put, &templates, Some(template)).await?;
    stage
        .execute(&format!(
            "create table {keyless} (v text); create schema s; create table s.{kept} (id int primary key); \
             create table {cut} (id int primary key, v text); insert into {cut} values (1, 'row')"
        ))
        .await?;
    for id in 1..=3 {
        stage
            .execute(&format!(
                "insert into {keyless} values ('row'); insert into s.{kept} values ({id}); \
                 insert into {kept} values ({id}, 'row')"
            ))
            .await?;
        wait_until(LIMIT, "a row of the table that is kept", async || {
            stage.search.document(&kept, &id.to_string()).await.is_ok_and(|it| it.is_some())
        })
        .await?;
    }
    running.wait_for_line(LIMIT, "is left out").await?;
    wait_until(LIMIT, "all to be left out", async || {
        let expected = [format!("public.{cut}"), format!("public.{keyless}"), format!("s.{kept}")];
        left_out(&stage).await.is_ok_and(|tables| tables == expected)
    })
    .await?;
    ensure!(stage.search.count(&kept).await? == Some(3), "rows of another table");
    running.stop(LIMIT).await?;
    // So does the next start, but for what was put right.
    stage.search.expect(Method::Delete, &templates, None).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "\"state\":\"live\"").await?;
    let row = stage.search.document(&cut, "1").await?.context("no document")?;
    ensure!(row.source["v"] == "row", "{row:?}");
    let mend = format!(
        "drop table s.{kept}; alter table {keyless} add column id int generated always as identity primary key"
    );
    stage.execute(&mend).await?;
    wait_until(LIMIT, "the rows of the table that was mended", async || {
        stage.search.count(&keyless).await.is_ok_and(|count| count == Some(3))
    })
    .await?;
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    ensure!(left_out(&stage).await?.is_empty(), "it is left out still");
    let row = stage.search.document(&keyless, "2").await?.context("no document")?;
    ensure!(row.source["v"] == "row", "{row:?}");
    Ok(())
}
