//! `setup --apply` as a role that may do only some of it.

use anyhow::{Result, ensure};

use super::{holds, server};
use crate::e2e::commands::run_script;
use crate::support::refusal::{CommandLine, complaints};
use crate::support::servers::postgres::Version;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::Stage;

async fn stage_and_role(label: &str) -> Result<(Stage<'static>, String)> {
    let stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    stage.execute("create table t (id int primary key, v text)").await?;
    stage.execute("insert into t values (1, 'one')").await?;
    let role = format!("{}_role", stage.name());
    Ok((stage, role))
}

fn line(stage: &Stage<'_>, role: &str) -> Result<CommandLine> {
    let mut line = CommandLine::of(stage).with_role(role, "x")?;
    line.config = Some(format!("tables:\n  - table: t\n    index: {}\n", stage.index("t")));
    Ok(line)
}

/// What it lacks is named with the SQL for whoever may run it; then it finds everything there.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_do_it_names_what_is_missing_and_does_the_rest() -> Result<()> {
    let (stage, role) = stage_and_role("apply_role").await?;
    stage.execute(&format!("create role {role} login replication password 'x'")).await?;
    let line = line(&stage, &role)?;
    let name = stage.name();
    let applied = line.finish(&["setup", "--apply"]).await?;
    let missing = complaints(applied.expect_code(1)?);
    ensure!(missing.iter().any(|it| it.what.contains("no publication")), "{applied:?}");
    ensure!(applied.stdout.iter().any(|it| it.starts_with("note: skipped")), "{applied:?}");
    let slot = format!("select 1 from pg_replication_slots where slot_name = '{name}'");
    ensure!(holds(&stage, &slot).await, "the slot, which it may make, was not made");
    for problem in &missing {
        stage.execute(&problem.fix).await?;
    }
    stage.execute(&format!("grant select on t to {role}")).await?;
    let applied = line.succeed(&["setup", "--apply"]).await?;
    let last = applied.stdout.last();
    ensure!(last.is_some_and(|last| last.starts_with("applied: ")), "{applied:?}");
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    stage.execute(&format!("select pg_drop_replication_slot('{name}')")).await?;
    stage.execute(&format!("drop owned by {role}; drop role {role}")).await
}

/// It would log in as the role that it is to make.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_not_there_cannot_make_itself() -> Result<()> {
    let (stage, role) = stage_and_role("apply_none").await?;
    let refused = line(&stage, &role)?.finish(&["setup", "--apply"]).await?;
    let found = complaints(refused.expect_code(1)?);
    let way = "`waldex setup` prints SQL that makes the role";
    ensure!(found.len() == 1 && found[0].fix.contains(way), "{found:#?}");
    Ok(())
}

/// As on Amazon RDS, where the attribute cannot be set. The server here lets nobody replicate for that, so nothing that
/// replicates is run.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_replicate_may_come_with_a_role() -> Result<()> {
    // Roles are of the whole server.
    let postgres = server(Version::Newest, &[])?;
    let stage = Stage::new("rds", &postgres, shared_elasticsearch()?).await?;
    stage.execute("create table t (id int primary key); create role rds_replication").await?;
    let role = format!("{}_role", stage.name());
    let line = line(&stage, &role)?;
    let printed = line.succeed(&["setup"]).await?;
    for _ in 0..2 {
        run_script(&stage, &printed.stdout).await?;
    }
    stage.execute(&format!("alter role {role} password 'x'")).await?;
    let attribute = format!("select 1 from pg_roles where rolname = '{role}' and rolreplication");
    ensure!(!holds(&stage, &attribute).await, "it got an attribute that cannot be set there");
    // Ends with the preflight.
    line.succeed(&["setup", "--apply"]).await?;

    stage.execute(&format!("revoke rds_replication from {role}")).await?;
    let found = complaints(line.finish(&["setup", "--apply"]).await?.expect_code(1)?);
    ensure!(found.len() == 1 && found[0].what.contains("may not replicate"), "{found:#?}");
    ensure!(found[0].fix.starts_with("GRANT rds_replication TO"), "{found:#?}");
    stage.execute(&found[0].fix).await?;
    line.succeed(&["setup", "--apply"]).await.map(drop)
}
