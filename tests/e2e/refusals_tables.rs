//! A table that cannot be kept is refused, by `check` and by `run` alike, with the SQL that makes it fit; the SQL
//! is run as printed and works.

use anyhow::{Result, ensure};

use crate::support::refusal::CommandLine;
use crate::support::servers::postgres::Postgres;
use crate::support::servers::{shared_elasticsearch, shared_postgres, shared_postgres_since};
use crate::support::sql;
use crate::support::stage::Stage;

/// The oldest that has row filters and column lists.
const LISTS_SINCE: u32 = 15;
const FILTERED: &str = "id int primary key, v text, n int";

async fn stage(label: &str, columns: &str) -> Result<Stage<'static>> {
    stage_on(shared_postgres()?, label, columns).await
}

async fn stage_on(
    postgres: &'static Postgres,
    label: &str,
    columns: &str,
) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, postgres, shared_elasticsearch()?).await?;
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
    let postgres = shared_postgres_since(LISTS_SINCE)?;
    let mut stage = Stage::new("nokeycol", postgres, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text, \"Other one\" text", "").await?;
    let name = stage.name();
    stage
        .execute(&format!(
            "insert into t values (1, 'one', 'x'); alter publication {name} set table t (\"Other one\", v)"
        ))
        .await?;
    repaired(&stage, "leaves out columns of its key", "id", &["id", "v", "Other one"]).await
}

/// The application's own UPDATE fails meanwhile, whether anybody reads the publication or not.
async fn fails_to_update(stage: &Stage<'_>) -> Result<()> {
    ensure!(stage.execute("update t set v = 'x'").await.is_err(), "the update goes through");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_outside_the_identity_is_repaired_by_the_printed_sql() -> Result<()> {
    let stage = stage_on(shared_postgres_since(LISTS_SINCE)?, "filter", FILTERED).await?;
    let name = stage.name();
    stage
        .execute(&format!(
            "insert into t values (1, 'one', 1), (2, 'two', 2);
             alter publication {name} set table t where (id > 0 and n < 100)"
        ))
        .await?;
    fails_to_update(&stage).await?;
    repaired(&stage, "row filter of table \"public\".\"t\" uses \"n\"", "id", &["id", "v", "n"])
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_list_shorter_than_a_full_identity_is_repaired_by_the_printed_sql() -> Result<()> {
    let stage = stage_on(shared_postgres_since(LISTS_SINCE)?, "fulllist", FILTERED).await?;
    let name = stage.name();
    stage
        .execute(&format!(
            "insert into t values (1, 'one', 1); alter publication {name} set table t (id, v);
             alter table t replica identity full"
        ))
        .await?;
    fails_to_update(&stage).await?;
    let what = "column list of table \"public\".\"t\" leaves out columns of its replica identity";
    let line = CommandLine::of(&stage);
    let complaint = line.refused(what, 1).await?;
    stage.execute(&complaint.fix).await?;
    stage.execute("update t set v = 'new'").await?;
    line.succeed(&["run", "--until", "current"]).await?;
    ensure!(stage.search.count(&stage.index("t")).await? == Some(1), "it was not loaded");
    Ok(())
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

/// A replica identity reaches no partition: one that logs another key sends no old one.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_do_not_log_the_key_are_repaired_by_the_printed_sql() -> Result<()> {
    let mut stage = Stage::new("part_key", shared_postgres()?, shared_elasticsearch()?).await?;
    let columns = "region text not null, id int, code int not null, primary key (region, id)";
    stage.table("t", &format!("{columns}) partition by list (region"), "").await?;
    stage
        .execute(&format!(
            "create table t_eu partition of t for values in ('eu');
             create table t_us partition of t for values in ('us');
             create unique index t_code on t (region, code);
             alter table t replica identity using index t_code;
             alter table t_us replica identity full;
             alter publication {} set (publish_via_partition_root = true);
             insert into t values ('eu', 1, 10), ('eu', 2, 20), ('us', 1, 30)",
            stage.name()
        ))
        .await?;
    let line = CommandLine::of(&stage);
    let what = "the replica identity of \"public\".\"t_eu\" lacks columns of the key";
    let complaint = line.refused(what, 1).await?;
    stage.execute(&complaint.fix).await?;
    line.succeed(&["check"]).await?;
    stage.catch_up().await?;
    stage.execute("update t set code = code + 1; delete from t where code = 21").await?;
    stage.catch_up().await?;
    let documents = stage.search.documents(&stage.index("t")).await?;
    ensure!(documents.keys().collect::<Vec<_>>() == ["eu,11", "us,31"], "{documents:?}");
    Ok(())
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

/// Tables come and go while the catalog is read: none is seen without the columns of its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_comes_or_goes_meanwhile_is_not_refused() -> Result<()> {
    let (postgres, node) = (shared_postgres()?, shared_elasticsearch()?);
    let stage = Stage::new("comes_and_goes", postgres, node).await?;
    let name = stage.name().to_owned();
    // The tables are not listed, so their names are those of indices.
    stage
        .execute(&format!(
            "create table {name}_t (id int primary key); create table {name}_u (id int primary key); \
             create publication {name} for table {name}_t"
        ))
        .await?;
    let other = sql::connect(&stage.database.url).await?;
    let restless = tokio::spawn(async move {
        for verb in ["add", "drop"].iter().cycle() {
            let sql = format!("alter publication {name} {verb} table {name}_u");
            sql::batch(&other, &sql).await?;
        }
        anyhow::Ok(())
    });
    let line = CommandLine { config: None, ..CommandLine::of(&stage) };
    for _ in 0..30 {
        line.succeed(&["check"]).await?;
    }
    ensure!(!restless.is_finished(), "nothing came or went: {:?}", restless.await?);
    restless.abort();
    Ok(())
}

/// One of each kind of relation that is no table, named in the configuration.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_no_table_is_called_what_it_is() -> Result<()> {
    let stage = stage("kinds", "id int primary key, v text").await?;
    stage
        .execute(
            "create view kind_v as select * from t; create materialized view kind_m as select * from t;
             create sequence kind_s; create type kind_c as (a int); create index kind_i on t (v);
             create foreign data wrapper nothing; create server nowhere foreign data wrapper nothing;
             create foreign table kind_f (id int) server nowhere",
        )
        .await?;
    let mut line = CommandLine::of(&stage);
    let kinds = [
        ("kind_v", "a view"),
        ("kind_m", "a materialized view"),
        ("kind_s", "a sequence"),
        ("kind_c", "a type"),
        ("kind_i", "an index"),
        ("kind_f", "a foreign table"),
    ];
    let entry = |(name, _): &(&str, &str)| {
        format!("  - table: {name}\n    index: {}\n", stage.index(&name.replace('_', "-")))
    };
    line.config =
        Some(format!("{}{}", stage.config(), kinds.iter().map(entry).collect::<String>()));
    let complaints = line.complaints(1).await?;
    ensure!(complaints.len() == kinds.len(), "{complaints:#?}");
    for (name, kind) in kinds {
        let what = format!("\"public\".\"{name}\" is not a table but {kind}:");
        let found = complaints.iter().find(|complaint| complaint.what.starts_with(&what));
        ensure!(
            found.is_some_and(|it| it.fix.contains("remove it from tables")),
            "{complaints:#?}"
        );
    }
    Ok(())
}
