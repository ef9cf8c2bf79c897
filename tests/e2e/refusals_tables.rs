//! A table that cannot be kept is refused, by `check` and by `run` alike, with the SQL that makes it fit; the SQL
//! is run as printed and works.

use anyhow::{Result, ensure};

use crate::support::refusal::CommandLine;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::Stage;

async fn stage(label: &str, columns: &str) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", columns, "").await?;
    Ok(stage)
}

/// Refused with `what`; after the printed SQL both commands go through, and changes arrive.
async fn repaired(stage: &Stage<'_>, what: &str, key: &str, columns: &[&str]) -> Result<()> {
    let line = CommandLine::of(stage);
    let complaint = line.refused(what, 1).await?;
    stage.execute(&complaint.fix).await?;
    line.succeed(&["check"]).await?;
    stage.catch_up().await?;
    stage.assert_equal("t", key, columns).await?;
    stage.execute("update t set v = v || '!'").await?;
    stage.catch_up().await?;
    stage.assert_equal("t", key, columns).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_primary_key_gets_one_by_the_printed_sql() -> Result<()> {
    let with_id = stage("nopk", "id int, v text").await?;
    with_id.execute("insert into t values (1, 'one'), (2, 'two')").await?;
    repaired(&with_id, "table \"public\".\"t\" has no primary key", "id", &["id", "v"]).await?;
    let without_id = stage("noid", "v text").await?;
    without_id.execute("insert into t values ('one'), ('two')").await?;
    repaired(&without_id, "table \"public\".\"t\" has no primary key", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_identity_of_nothing_is_repaired_by_the_printed_sql() -> Result<()> {
    let stage = stage("nothing", "id int primary key, v text").await?;
    stage
        .execute("insert into t values (1, 'one'); alter table t replica identity nothing")
        .await?;
    repaired(&stage, "has no replica identity", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_identity_index_is_repaired_by_the_printed_sql() -> Result<()> {
    let stage = stage("lostindex", "id int primary key, v text, u int not null").await?;
    stage
        .execute(
            "insert into t values (1, 'one', 1); create unique index ui on t (u);
             alter table t replica identity using index ui; drop index ui",
        )
        .await?;
    repaired(&stage, "the index that is the replica identity", "id", &["id", "v", "u"]).await
}

/// With a deferrable key two rows can swap their keys in one statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_deferrable_key_is_repaired_by_the_printed_sql() -> Result<()> {
    let stage = stage("deferrable", "id int primary key deferrable, v text").await?;
    stage.execute("insert into t values (1, 'one'), (2, 'two')").await?;
    repaired(&stage, "is deferrable", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_list_without_the_key_is_repaired_by_the_printed_sql() -> Result<()> {
    let stage = stage("nokeycol", "id int primary key, v text, \"Other one\" text").await?;
    let name = stage.name();
    stage
        .execute(&format!(
            "insert into t values (1, 'one', 'x'); alter publication {name} set table t (\"Other one\", v)"
        ))
        .await?;
    repaired(&stage, "leaves out columns of its key", "id", &["id", "v", "Other one"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_is_published_as_its_root_by_the_printed_sql() -> Result<()> {
    let mut stage = Stage::new("root", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text) partition by range (id", "").await?;
    stage
        .execute(
            "create table t_a partition of t for values from (0) to (10);
             create table t_b partition of t for values from (10) to (20);
             insert into t values (1, 'one'), (11, 'eleven')",
        )
        .await?;
    repaired(&stage, "names the partitions of \"public\".\"t\"", "id", &["id", "v"]).await
}

/// Named in the configuration and not in the publication, for each reason there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_published_is_refused_with_the_reason() -> Result<()> {
    let stage = stage("unpublished", "id int primary key, v text").await?;
    stage
        .execute(
            "create table \"not In\" (id int primary key, v text); insert into \"not In\" values (5, 'five');
             create unlogged table fleeting (id int primary key, v text);
             create view seen as select * from t",
        )
        .await?;
    let with = |table: &str, index: &str| {
        let mut line = CommandLine::of(&stage);
        let index = stage.index(index);
        line.config = Some(format!("{}  - table: '{table}'\n    index: {index}\n", stage.config()));
        line
    };
    let complaint =
        with("nowhere", "nowhere").refused("\"public\".\"nowhere\" does not exist", 1).await?;
    ensure!(complaint.fix.contains("tables in the configuration"), "{complaint:?}");
    let complaint = with("seen", "seen").refused("\"public\".\"seen\" is not a table", 1).await?;
    ensure!(complaint.fix.contains("remove it from tables"), "{complaint:?}");

    let missing = with("public.\"not In\"", "missing");
    let what = "table \"public\".\"not In\" is not in publication";
    let complaint = missing.refused(what, 1).await?;
    stage.execute(&complaint.fix).await?;
    missing.succeed(&["check"]).await?;
    missing.succeed(&["run", "--until", "current"]).await?;
    ensure!(stage.search.count(&stage.index("missing")).await? == Some(1), "not loaded");

    let fleeting = with("fleeting", "fleeting");
    let complaint = fleeting.refused("table \"public\".\"fleeting\" is not logged", 1).await?;
    stage.execute(&complaint.fix).await?;
    let complaint = fleeting.refused("is not in publication", 1).await?;
    stage.execute(&complaint.fix).await?;
    fleeting.succeed(&["check"]).await?;
    Ok(())
}

/// With no table configured, all of the publication's are looked at.
#[tokio::test(flavor = "multi_thread")]
async fn all_tables_of_the_publication_are_looked_at_when_none_is_configured() -> Result<()> {
    let stage = stage("all", "id int primary key, v text").await?;
    let name = stage.name();
    let mut line = CommandLine::of(&stage);
    line.config = None;
    stage
        .execute(&format!(
            "create table keyless (v text); alter publication {name} add table keyless"
        ))
        .await?;
    line.refused("table \"public\".\"keyless\" has no primary key", 1).await?;
    stage.execute(&format!("alter publication {name} drop table t, keyless")).await?;
    let complaint = line.refused(&format!("publication \"{name}\" has no tables"), 1).await?;
    let fix = complaint.fix.replace('…', "public.keyless");
    stage.execute(&fix).await
}
