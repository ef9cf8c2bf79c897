//! Generated columns: documents have those that the stream carries, also those of rows that were loaded.

use anyhow::{Result, ensure};

use super::assert_index;
use crate::support::servers::postgres::{Postgres, Version};
use crate::support::servers::shared_elasticsearch;
use crate::support::servers::shared_postgres_since;
use crate::support::stage::{LIMIT, Stage};

const CHANGES: &str = "
    update g set a = a + 1 where id < 5;
    update g set id = id + 100 where id in (6, 7);
    update g set note = 'left alone' where id = 8;
    delete from g where id = 9;
    insert into g (id, a, big) values (50, 50, repeat('n', 9000));";

async fn stage<'a>(label: &str, postgres: &'a Postgres, columns: &str) -> Result<Stage<'a>> {
    let mut stage = Stage::new(label, postgres, shared_elasticsearch()?).await?;
    stage
        .execute(&format!(
            "create table g (id int primary key, a int, note text, big text, {columns}); \
             alter table g alter big set storage external, alter large set storage external; \
             insert into g (id, a, big) select i, i, repeat('b' || i, 3000) from generate_series(1, 20) i"
        ))
        .await?;
    stage.keep("g", "public.g", "");
    Ok(stage)
}

async fn the_same_every_way(stage: &Stage<'_>, generated: &[&str]) -> Result<()> {
    let fields: String = generated.iter().map(|name| format!(", '{name}', {name}")).collect();
    let json =
        format!("json_build_object('id', id, 'a', a, 'note', note, 'big', big{fields})::text");
    let query = format!("select id::text, {json} from g");
    stage.catch_up().await?;
    assert_index(stage, "g", query.clone()).await?;
    stage.execute(CHANGES).await?;
    stage.catch_up().await?;
    assert_index(stage, "g", query).await
}

/// Before 18 no generated column is published.
#[tokio::test(flavor = "multi_thread")]
async fn none_before_18() -> Result<()> {
    let postgres = Postgres::obtain(Version::Major(17))?;
    let columns = "twice int generated always as (a * 2) stored, \
                   large text generated always as (big || a::text) stored";
    let stage = stage("generated_17", &postgres, columns).await?;
    stage.execute(&format!("create publication {} for table g", stage.name())).await?;
    the_same_every_way(&stage, &[]).await
}

/// From 18 on the stored ones are, if the publication says so; the virtual ones never.
#[tokio::test(flavor = "multi_thread")]
async fn the_stored_ones_from_18_on_if_they_are_published() -> Result<()> {
    let postgres = shared_postgres_since(18)?;
    let columns = "twice int generated always as (a * 2) stored, \
                   large text generated always as (big || a::text) stored, \
                   thrice int generated always as (a * 3) virtual";
    let without = stage("generated_none", postgres, columns).await?;
    let name = without.name().to_owned();
    without.execute(&format!("create publication {name} for table g")).await?;
    the_same_every_way(&without, &[]).await?;

    let with = stage("generated_some", postgres, columns).await?;
    let name = with.name().to_owned();
    let create =
        format!("create publication {name} for table g with (publish_generated_columns = stored)");
    with.execute(&create).await?;
    the_same_every_way(&with, &["twice", "large"]).await?;

    // By name in a column list, whatever the publication says of the others.
    let listed = stage("generated_list", postgres, columns).await?;
    let name = listed.name().to_owned();
    listed
        .execute(&format!("create publication {name} for table g (id, a, note, big, twice)"))
        .await?;
    the_same_every_way(&listed, &["twice"]).await
}

/// Switched on while waldex runs.
#[tokio::test(flavor = "multi_thread")]
async fn published_from_some_day_on() -> Result<()> {
    let columns =
        "twice int generated always as (a * 2) stored, large text generated always as (big) stored";
    let stage = stage("generated_later", shared_postgres_since(18)?, columns).await?;
    let name = stage.name().to_owned();
    stage.execute(&format!("create publication {name} for table g")).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage
        .execute(&format!("alter publication {name} set (publish_generated_columns = stored)"))
        .await?;
    running.wait_for_line(LIMIT, "readers see the new generation").await?;
    running.terminate();
    let finished = running.finish(LIMIT).await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    the_same_every_way(&stage, &["twice", "large"]).await
}
