//! Partitioned tables, published as their root and as their leaves: rows move between partitions under load,
//! partitions come and go, and what Postgres never says of them is told.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::assert_index;
use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};

/// By region, and one of the regions once more by number. Columns of one leaf are in another order.
const PARTITIONED: &str = "
    create table p (region text, id int, v text, big text, primary key (region, id)) partition by list (region);
    create table p_north partition of p for values in ('north');
    create table p_south (big text, v text, id int not null, region text not null, primary key (region, id));
    alter table p attach partition p_south for values in ('south');
    create table p_west partition of p for values in ('west') partition by range (id);
    create table p_west_1 partition of p_west for values from (minvalue) to (50);
    create table p_west_2 partition of p_west for values from (50) to (maxvalue);
    create table p_rest partition of p default;
    insert into p select r, i, 'loaded', repeat(i::text, 1500)
        from generate_series(1, 100) i, unnest(array['north', 'south', 'west', 'east']) r;";

/// From partition to partition and back, with rows of each that come and go meanwhile.
const MOVES: &str = "
    do $$ begin
        for n in 1..40 loop
            update p set id = id + 1000 where region = 'west' and id = n;
            update p set region = 'west', v = 'moved ' || n where region = 'east' and id = n;
            update p set region = 'east' where region = 'north' and id = n;
            update p set v = v || '.' where id % 10 = n % 10;
            delete from p where region = 'south' and id = n;
            insert into p values ('south', n + 200, 'new', null), ('elsewhere', n, 'new', null);
            if n % 8 = 0 then
                update p set region = case region when 'south' then 'north' else 'south' end
                    where id > 200 and region in ('north', 'south');
            end if;
            commit;
        end loop;
    end $$;";

async fn stage<'a>(label: &str, postgres: &'a Postgres, node: &'a SearchNode) -> Result<Stage<'a>> {
    let stage = Stage::new(label, postgres, node).await?;
    stage.execute(PARTITIONED).await?;
    stage.execute("alter table p alter column big set storage external").await?;
    Ok(stage)
}

async fn publish(stage: &Stage<'_>, via_root: bool) -> Result<()> {
    let name = stage.name();
    let create = format!(
        "create publication {name} for table p with (publish_via_partition_root = {via_root})"
    );
    stage.execute(&create).await
}

async fn assert_equal(stage: &Stage<'_>, table: &str) -> Result<()> {
    let json = "json_build_object('region', region, 'id', id, 'v', v, 'big', big)";
    assert_index(stage, table, format!("select region || ',' || id, {json}::text from {table}"))
        .await
}

/// What `waldex status` says of the root, if it recommends to load it again.
async fn reload_recommended(stage: &Stage<'_>) -> Result<Option<String>> {
    let status = stage.waldex("status")?.arg("--json").run_to_end(LIMIT).await?;
    let status: Value = serde_json::from_str(&status.expect_code(0)?.stdout.join(""))?;
    Ok(status["tables"]["public.p"]["reload_recommended"].as_str().map(str::to_owned))
}

async fn as_its_root(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    let mut stage = stage(label, postgres, node).await?;
    publish(&stage, true).await?;
    stage.keep("p", "public.p", "");
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    // Beside the load's last requests and then beside the stream.
    stage.execute(MOVES).await?;
    stage
        .execute(
            "create table p_late partition of p for values in ('late'); \
             insert into p select 'late', i, 'late', null from generate_series(1, 10) i",
        )
        .await?;
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    assert_equal(&stage, "p").await?;
    ensure!(reload_recommended(&stage).await?.is_none(), "nothing went by unseen");
    stage
        .execute(
            "begin; delete from p where region = 'late'; truncate p; \
             insert into p select r, i, 'again', repeat(i::text, 1500) \
             from generate_series(1, 20) i, unnest(array['north', 'south', 'west', 'late']) r; commit; \
             update p set region = 'north', id = id + 500 where region = 'late'",
        )
        .await?;
    stage.catch_up().await?;
    assert_equal(&stage, "p").await?;
    ensure!(reload_recommended(&stage).await?.is_none(), "a truncate of the root is streamed");
    // As tools prepare partitions: it is empty when it is attached.
    stage
        .execute(
            "create table p_soon (like p including all); alter table p attach partition p_soon for values in ('soon')",
        )
        .await?;
    stage.catch_up().await?;
    stage.execute("insert into p values ('soon', 1, 'streamed', null)").await?;
    stage.catch_up().await?;
    assert_equal(&stage, "p").await?;
    ensure!(reload_recommended(&stage).await?.is_none(), "an empty one brings no rows");
    rows_go_unseen(&stage).await
}

/// Detached, dropped, truncated, attached: each is told, and a reload makes the index equal.
async fn rows_go_unseen(stage: &Stage<'_>) -> Result<()> {
    let steps = [
        ("alter table p detach partition p_south", "detached or dropped: orphans possible"),
        ("drop table p_west", "detached or dropped: orphans possible"),
        ("truncate p_north", "truncated or rewritten: orphans possible"),
        ("alter table p attach partition p_south for values in ('south')", "may be missing"),
        (
            "begin; create table p_new (like p including all); insert into p_new values ('new', 1, 'n', null); \
             alter table p attach partition p_new for values in ('new'); commit",
            "may be missing",
        ),
    ];
    for (number, (step, told)) in steps.into_iter().enumerate() {
        // While it runs, and while it is away.
        if number % 2 == 0 {
            let mut running = stage.run()?;
            running.wait_for_line(LIMIT, "catching_up").await?;
            stage.execute(step).await?;
            running.wait_for_line(LIMIT, told).await?;
            running.stop(LIMIT).await?;
            // The state that says so may not have been written before the stop.
            stage.catch_up().await?;
        } else {
            stage.execute(step).await?;
            stage.catch_up().await?;
        }
        let said = reload_recommended(stage)
            .await?
            .with_context(|| format!("silence after \"{step}\""))?;
        ensure!(said.contains(told), "after \"{step}\": {said}");
        let reload = stage.waldex("run")?.arg("--reload").arg("p").arg("--until").arg("current");
        reload.run_to_end(LIMIT).await?.expect_code(0)?;
        assert_equal(stage, "p").await?;
        ensure!(reload_recommended(stage).await?.is_none(), "still recommended");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn as_its_root_from_the_newest_postgres_to_elasticsearch() -> Result<()> {
    as_its_root("root_es", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn as_its_root_from_postgres_14_to_opensearch() -> Result<()> {
    as_its_root("root_os", shared_postgres_14()?, shared_opensearch()?).await
}

/// Each leaf is a table of its own: a row that moves is deleted here and inserted there.
#[tokio::test(flavor = "multi_thread")]
async fn as_its_leaves() -> Result<()> {
    const LEAVES: [&str; 5] = ["p_north", "p_south", "p_west_1", "p_west_2", "p_rest"];
    let mut stage = stage("leaves", shared_postgres()?, shared_elasticsearch()?).await?;
    publish(&stage, false).await?;
    for leaf in LEAVES {
        stage.keep(leaf, &format!("public.{leaf}"), "");
    }
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage.execute(MOVES).await?;
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    for leaf in LEAVES {
        assert_equal(&stage, leaf).await?;
    }
    stage
        .execute("begin; truncate p_west; insert into p values ('west', 7, 'after', null); commit; truncate p_rest")
        .await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let mark = stage.execute_and_mark("update p set v = 'last' where id = 7").await?;
    crate::support::wait::wait_until(LIMIT, "the mark to be confirmed", async || {
        stage.has_confirmed(&mark).await.unwrap_or(false)
    })
    .await?;
    for leaf in LEAVES {
        assert_equal(&stage, leaf).await?;
    }
    // A leaf that leaves the root leaves its publication.
    stage.execute("alter table p detach partition p_rest").await?;
    let finished = running.finish(LIMIT).await?;
    let log = finished.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("table \"public\".\"p_rest\" is not in publication"), "{log}");
    Ok(())
}

/// The publication names the root one day and the leaves another.
#[tokio::test(flavor = "multi_thread")]
async fn another_way_of_publishing_ends_the_run_and_back_is_loaded_again() -> Result<()> {
    let mut stage = stage("root_off", shared_postgres()?, shared_elasticsearch()?).await?;
    publish(&stage, true).await?;
    stage.keep("p", "public.p", "");
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let name = stage.name().to_owned();
    let set = |on| format!("alter publication {name} set (publish_via_partition_root = {on})");
    stage.execute(&set(false)).await?;
    stage.execute("update p set v = 'nobody hears of it'; delete from p where id = 3").await?;
    let log = running.finish(LIMIT).await?.expect_code(1)?.stderr.join("\n");
    ensure!(log.contains("names the partitions of \"public\".\"p\", not the table"), "{log}");
    stage.execute(&set(true)).await?;
    stage.execute("update p set v = 'heard' where id = 5").await?;
    let line = crate::support::refusal::CommandLine::of(&stage);
    line.succeed(&["run", "--until", "current"]).await?;
    assert_equal(&stage, "p").await
}

/// Inheritance is no partitioning: each table is published under its own name, and read by itself.
#[tokio::test(flavor = "multi_thread")]
async fn children_by_inheritance_are_tables_of_their_own() -> Result<()> {
    let mut stage = Stage::new("inherit", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("parent", "id int primary key, v text", "").await?;
    stage.execute("create table child (primary key (id)) inherits (parent)").await?;
    stage
        .execute(&format!("alter publication {} set table only parent, only child", stage.name()))
        .await?;
    stage.keep("child", "public.child", "");
    stage
        .execute("insert into parent values (1, 'p'); insert into child values (1, 'c'), (2, 'c')")
        .await?;
    stage.catch_up().await?;
    stage
        .execute("update parent set v = v || '.'; insert into child values (3, 'c'); delete from only parent")
        .await?;
    stage.catch_up().await?;
    let query = |table: &str| {
        format!("select id::text, json_build_object('id', id, 'v', v)::text from only {table}")
    };
    assert_index(&stage, "parent", query("parent")).await?;
    assert_index(&stage, "child", query("child")).await?;
    ensure!(sql::value(&stage.sql, "select count(*) from child").await?.as_deref() == Some("3"));
    Ok(())
}
