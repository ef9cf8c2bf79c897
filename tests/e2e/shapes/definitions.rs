//! Tables that are renamed, dropped or unpublished, and types made anew, while waldex runs or is away.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::assert_index;
use crate::support::refusal::CommandLine;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Running, Waldex};

async fn stage(label: &str) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    for table in ["t", "other"] {
        stage.table(table, "id int primary key, v text", "").await?;
        let fill = format!("insert into {table} select i, '{table}' from generate_series(1, 30) i");
        stage.execute(&fill).await?;
    }
    Ok(stage)
}

async fn assert_equal(stage: &Stage<'_>) -> Result<()> {
    for table in ["t", "other"] {
        stage.assert_equal(table, "id", &["id", "v"]).await?;
    }
    Ok(())
}

async fn streaming(stage: &Stage<'_>) -> Result<Running> {
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "\"state\":\"live\"").await?;
    Ok(running)
}

/// What was changed under the other name, and by the other table under this one, is in the backlog.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_had_another_name_for_a_while() -> Result<()> {
    let stage = stage("renamed").await?;
    stage.catch_up().await?;
    stage
        .execute(
            "alter table t rename to away; update away set v = 'away' where id < 4; \
             delete from away where id = 5; insert into away values (40, 'away'); alter table away rename to t;",
        )
        .await?;
    let swap = "begin; alter table t rename to x; alter table other rename to t; \
                alter table x rename to other; commit;";
    stage.execute(swap).await?;
    stage
        .execute(
            "update t set v = 'of the other' where id in (7, 8); delete from t where id = 9; \
             update other set v = 'of this one' where id in (10, 11); insert into other values (50, 'of this one'); \
             begin; truncate t; insert into t values (3, 'of the other'); commit",
        )
        .await?;
    stage.execute(swap).await?;
    stage.execute("update t set v = 'back' where id = 12").await?;
    stage.catch_up().await?;
    assert_equal(&stage).await
}

/// While it runs, that ends the run; back under its name the table is gone on with.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_renamed_ends_the_run_with_its_name() -> Result<()> {
    let stage = stage("renaming").await?;
    let running = streaming(&stage).await?;
    stage.execute("alter table t rename to away; update away set v = 'away' where id < 4").await?;
    let log = running.finish(LIMIT).await?.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("table \"public\".\"t\" does not exist"), "{log}");
    stage.execute("alter table away rename to t; delete from t where id = 20").await?;
    stage.catch_up().await?;
    assert_equal(&stage).await
}

/// Its documents stay until somebody decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_ends_the_run_with_its_name() -> Result<()> {
    let stage = stage("dropped_table").await?;
    let running = streaming(&stage).await?;
    stage.execute("drop table other; update t set v = 'goes on' where id < 4").await?;
    let log = running.finish(LIMIT).await?.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("table \"public\".\"other\" does not exist"), "{log}");
    ensure!(stage.search.count(&stage.index("other")).await? == Some(30), "documents are gone");
    let mut line = CommandLine::of(&stage);
    let index = stage.index("t");
    line.config = Some(format!("tables:\n  - table: t\n    index: {index}\n"));
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// Without a list of tables it is one less of the publication; the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_is_one_less_where_none_is_named() -> Result<()> {
    let stage = Stage::new("dropped_any", shared_postgres_14()?, shared_opensearch()?).await?;
    let name = stage.name().to_owned();
    let (kept, gone) = (format!("{name}_kept"), format!("{name}_gone"));
    for table in [&kept, &gone] {
        stage.execute(&format!("create table {table} (id int primary key, v text)")).await?;
        stage.execute(&format!("insert into {table} values (1, 'one')")).await?;
    }
    stage.execute(&format!("create publication {name} for table {kept}, {gone}")).await?;
    let mut running =
        Waldex::new("run")?.between(&stage.database.url, &name, stage.node).spawn()?;
    running.wait_for_line(LIMIT, "\"state\":\"live\"").await?;
    stage.execute(&format!("drop table {gone}; insert into {kept} values (2, 'two')")).await?;
    running.wait_for_line(LIMIT, &format!("{gone} left the publication")).await?;
    stage.execute(&format!("insert into {kept} values (3, 'three')")).await?;
    wait_until(LIMIT, "the third row", async || {
        stage.search.document(&kept, "3").await.is_ok_and(|found| found.is_some())
    })
    .await?;
    ensure!(stage.search.count(&gone).await? == Some(1), "documents are gone");
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0).map(drop)
}

/// A table that is not published any more gets old in silence, unless that ends the run.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_left_the_publication_ends_the_run_with_the_way_back() -> Result<()> {
    let stage = stage("unpublished_now").await?;
    let running = streaming(&stage).await?;
    let name = stage.name();
    stage.execute(&format!("alter publication {name} drop table other")).await?;
    stage.execute("update other set v = 'nobody hears of it' where id < 4").await?;
    let log = running.finish(LIMIT).await?.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("table \"public\".\"other\" is not in publication"), "{log}");
    let line = CommandLine::of(&stage);
    let complaint = line.refused("is not in publication", 1).await?;
    stage.execute(&complaint.fix).await?;
    line.succeed(&["run", "--until", "current"]).await?;
    assert_equal(&stage).await
}

/// The same labels under another OID, and one label under another name: neither sends a row.
#[tokio::test(flavor = "multi_thread")]
async fn an_enum_that_is_made_anew() -> Result<()> {
    let mut stage = Stage::new("enum_anew", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.execute("create type mood as enum ('sad', 'ok')").await?;
    stage.table("t", "id int primary key, m mood, ms mood[]", "").await?;
    stage.execute("insert into t select i, 'ok', '{sad,ok}' from generate_series(1, 20) i").await?;
    let mut running = streaming(&stage).await?;
    stage
        .execute(
            "alter type mood rename to mood_before; create type mood as enum ('sad', 'ok', 'new, \"odd\"'); \
             alter table t alter m type mood using m::text::mood, alter ms type mood[] using ms::text[]::mood[]; \
             drop type mood_before; update t set m = 'new, \"odd\"', ms = array['new, \"odd\"'::mood] where id < 4",
        )
        .await?;
    running.wait_for_line(LIMIT, "readers see the new generation").await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.catch_up().await?;
    let json = "json_build_object('id', id, 'm', m, 'ms', to_json(ms))::text";
    assert_index(&stage, "t", format!("select id::text, {json} from t")).await
}

/// A column that is dropped or renamed stays in the documents that were not written since: the status says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_recommended_to_be_brought_out() -> Result<()> {
    let mut stage = Stage::new("column_left", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, gone text, v text", "").await?;
    stage.execute("insert into t values (1, 'g', 'v'), (2, 'g', 'v')").await?;
    stage.catch_up().await?;
    stage.execute("alter table t drop column gone; update t set v = 'w' where id = 1").await?;
    stage.catch_up().await?;
    let status = stage.waldex("status")?.arg("--json").run_to_end(LIMIT).await?;
    let status: Value = serde_json::from_str(&status.expect_code(0)?.stdout.join(""))?;
    ensure!(status["tables"]["public.t"]["refresh_recommended"] == true, "{status}");
    let reload = stage.waldex("run")?.arg("--reload").arg("t").arg("--until").arg("current");
    reload.run_to_end(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// Two lists of columns, two filters: there is one publication, and a list of them is no name.
#[tokio::test(flavor = "multi_thread")]
async fn two_publications_are_refused() -> Result<()> {
    let stage = stage("two_publications").await?;
    let name = stage.name();
    stage.execute(&format!("create publication {name}_b for table t")).await?;
    let run = |yaml: &str| -> Result<Waldex> {
        let run = Waldex::new("run")?
            .arg("--postgres-url")
            .arg(&stage.database.url)
            .arg("--slot")
            .arg(name)
            .arg("--elasticsearch-url")
            .arg(&stage.node.url_with_credentials());
        Ok(run.config(&format!("{yaml}\n{}", stage.config())))
    };
    let listed = run(&format!("postgres: {{publication: [{name}, {name}_b]}}"))?;
    let log = listed.run_to_end(LIMIT).await?.expect_code(64)?.stderr.join("\n");
    ensure!(log.contains("publication"), "{log}");
    let joined = run(&format!("postgres: {{publication: '{name},{name}_b'}}"))?;
    let log = joined.run_to_end(LIMIT).await?.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains(&format!("there is no publication \"{name},{name}_b\"")), "{log}");
    Ok(())
}
