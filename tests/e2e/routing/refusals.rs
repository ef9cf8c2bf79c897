//! What a routed table must be like, before the start and while it runs.

use anyhow::{Result, ensure};

use super::{BY_ZONE, COLUMNS, catch_up, stage};
use crate::support::refusal::CommandLine;
use crate::support::servers::{
    shared_elasticsearch, shared_postgres, shared_postgres_14, shared_postgres_since,
};
use crate::support::stage::{LIMIT, Stage};

/// Each complaint's SQL, run as it is printed, is followed by the next complaint, or by none.
async fn repaired(stage: &Stage<'_>, complaints: &[&str]) -> Result<()> {
    let line = CommandLine::of(stage);
    for what in complaints {
        let complaint = line.refused(what, 1).await?;
        stage.execute(&complaint.fix).await?;
    }
    line.succeed(&["check"]).await?;
    catch_up(stage, "1000").await?;
    stage.execute("update t set zone = zone || 'x' where id % 2 = 1").await?;
    stage.execute("delete from t where id = 2").await?;
    catch_up(stage, "1000").await
}

const ROWS: &str = "insert into t select n, 'v', 'z' || n % 3 from generate_series(1, 20) n";

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_outside_of_the_identity_is_repaired_by_the_printed_sql() -> Result<()> {
    let mut stage = Stage::new("rt_identity", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", COLUMNS, BY_ZONE).await?;
    stage.execute(ROWS).await?;
    repaired(&stage, &["is not in the replica identity: a delete would not find"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_index_without_the_routing_is_repaired_by_the_printed_sql() -> Result<()> {
    let mut stage = Stage::new("rt_index", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", COLUMNS, BY_ZONE).await?;
    stage
        .execute("create unique index u on t (id); alter table t replica identity using index u")
        .await?;
    stage.execute(ROWS).await?;
    repaired(&stage, &["is not in the replica identity: a delete would not find"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_that_may_be_null_is_repaired_by_the_printed_sql() -> Result<()> {
    let stage = stage("rt_null", shared_postgres_14()?, shared_elasticsearch()?, BY_ZONE).await?;
    stage.execute("alter table t alter zone drop not null").await?;
    stage.execute(ROWS).await?;
    repaired(&stage, &["may be NULL"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_that_is_not_published_is_repaired_by_the_printed_sql() -> Result<()> {
    let mut stage =
        Stage::new("rt_list", shared_postgres_since(15)?, shared_elasticsearch()?).await?;
    stage.table("t", COLUMNS, "routing: zone\ncolumns: [id, v]").await?;
    stage.execute(&format!("alter publication {} set table t (id, v)", stage.name())).await?;
    stage.execute(ROWS).await?;
    repaired(
        &stage,
        &["does not exist or is not published", "is not in the replica identity: a delete"],
    )
    .await?;
    // Published, but in a list, and not in the identity: the list goes, too.
    stage
        .execute(&format!(
            "alter table t replica identity default; alter publication {} set table t (id, v, zone)",
            stage.name()
        ))
        .await?;
    let complaint =
        CommandLine::of(&stage).refused("is not in the replica identity: a delete", 1).await?;
    stage.execute(&complaint.fix).await?;
    repaired(&stage, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_that_does_not_exist_is_refused() -> Result<()> {
    let stage =
        stage("rt_none", shared_postgres()?, shared_elasticsearch()?, "routing: zonk").await?;
    let complaint = CommandLine::of(&stage).refused("\"zonk\" of table", 1).await?;
    ensure!(complaint.fix.contains("tables[].routing"), "{complaint:?}");
    Ok(())
}

async fn partitioned(label: &str) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    let columns = "id int primary key, v text, zone text not null) partition by range (id";
    stage.table("t", columns, BY_ZONE).await?;
    stage
        .execute(&format!(
            "create table \"t \"\"a\" partition of t for values from (0) to (10);
             create table t_b partition of t for values from (10) to (100);
             alter publication {} set (publish_via_partition_root = true); {ROWS}",
            stage.name()
        ))
        .await?;
    Ok(stage)
}

/// What is logged of a row is up to its partition.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_without_the_routing_are_repaired_by_the_printed_sql() -> Result<()> {
    let stage = partitioned("rt_parts").await?;
    let complaint = CommandLine::of(&stage).refused("is not in the replica identity of", 1).await?;
    for part in ["\"public\".\"t \"\"a\"", "\"public\".\"t_b\""] {
        ensure!(complaint.what.contains(part), "{part} is not in {complaint:?}");
    }
    repaired(&stage, &["is not in the replica identity of"]).await?;
    stage.execute("update t set id = id + 50, zone = 'moved' where id in (3, 15)").await?;
    catch_up(&stage, "1000").await
}

/// Nobody is asked before a partition is attached; its first change stops the run, and nothing is wrong by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_attached_later_without_the_routing_stops_the_run() -> Result<()> {
    let stage = partitioned("rt_attached").await?;
    let complaint = CommandLine::of(&stage).refused("is not in the replica identity of", 1).await?;
    stage.execute(&complaint.fix).await?;
    catch_up(&stage, "1000").await?;
    stage.execute("create table t_c partition of t for values from (100) to (200)").await?;
    stage.execute("insert into t values (101, 'v', 'a')").await?;
    stage.execute("update t set zone = 'b' where id = 101").await?;
    let line = CommandLine::of(&stage);
    let complaint = line.refused("is not in the replica identity of \"public\".\"t_c\"", 1).await?;
    stage.execute(&complaint.fix).await?;
    let stopped = line.finish(&["run", "--until", "current"]).await?;
    let told = stopped.expect_code(1)?.stderr.join("\n");
    ensure!(
        told.contains("came without a value of \"zone\"") && told.contains("--reload"),
        "{told}"
    );
    line.succeed(&["run", "--reload", "--until", "current"]).await?;
    super::assert_equal(&stage).await?;
    stage.execute("update t set zone = 'c' where id = 101").await?;
    catch_up(&stage, "1000").await
}

/// The identity is taken back in the middle of a run.
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_loses_the_routing_stops_the_run_with_the_sql() -> Result<()> {
    let stage = stage("rt_lost", shared_postgres()?, shared_elasticsearch()?, BY_ZONE).await?;
    stage.execute(ROWS).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "\"loaded\"").await?;
    stage.execute("alter table t replica identity default").await?;
    stage.execute("update t set zone = 'lost' where id = 1").await?;
    let told = running.finish(LIMIT).await?.expect_code(1)?.stderr.join("\n");
    ensure!(told.contains("ALTER TABLE \"public\".\"t\" REPLICA IDENTITY FULL;"), "{told}");
    stage.execute("alter table t replica identity full").await?;
    let line = CommandLine::of(&stage);
    let told = line.finish(&["run", "--until", "current"]).await?;
    let told = told.expect_code(1)?.stderr.join("\n");
    ensure!(told.contains("came without a value of \"zone\""), "{told}");
    line.succeed(&["run", "--reload", "--until", "current"]).await?;
    super::assert_equal(&stage).await
}
