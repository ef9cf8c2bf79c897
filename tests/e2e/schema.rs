//! Tables that change while waldex runs, or while it is away: columns, types, keys, names, membership of the
//! publication. Postgres sends no row for any of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::Value;

use crate::support::proxy::http::{Fault, SearchProxy};
use crate::support::refusal::CommandLine;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;

/// Waits until the document is there with this field.
async fn wait_for_field(
    stage: &Stage<'_>,
    index: &str,
    id: &str,
    field: &str,
    value: Value,
) -> Result<()> {
    wait_until(LIMIT, &format!("document {id} with {field} = {value}"), async || {
        let found = stage.search.document(index, id).await;
        matches!(found, Ok(Some(document)) if document.source[field] == value)
    })
    .await
}

async fn mapping_of(stage: &Stage<'_>, index: &str, field: &str) -> Result<Value> {
    let answer = stage.search.expect(Method::Get, &format!("/{index}/_mapping"), None).await?;
    let index = answer.as_object().and_then(|indices| indices.values().next());
    let index = index.context("no index behind the alias")?;
    Ok(index["mappings"]["properties"][field]["type"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_added_is_mapped_and_written() -> Result<()> {
    let mut stage = Stage::new("column_added", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t values (1, 'a')").await?;
    let index = stage.index("t");
    let running = stage.run()?;
    wait_for_field(&stage, &index, "1", "v", "a".into()).await?;
    stage
        .execute("alter table t add column n int default 5; insert into t values (2, 'b')")
        .await?;
    wait_for_field(&stage, &index, "2", "n", 5.into()).await?;
    ensure!(mapping_of(&stage, &index, "n").await? == "integer", "the new column is not mapped");
    running.stop(LIMIT).await?;

    let status = stage.waldex("status")?.arg("--json").run_to_end(LIMIT).await?;
    let status: Value = serde_json::from_str(&status.expect_code(0)?.stdout.join(""))?;
    ensure!(status["tables"]["public.t"]["refresh_recommended"] == true, "{status}");
    let reload = stage.waldex("run")?.arg("--reload").arg("public.t").arg("--until").arg("current");
    reload.run_to_end(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v", "n"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_dropped_or_renamed_leave_the_documents() -> Result<()> {
    let mut stage = Stage::new("column_gone", shared_postgres_14()?, shared_opensearch()?).await?;
    stage.table("t", "id int primary key, a text, b text, c text", "").await?;
    stage.execute("insert into t values (1, 'a', 'b', 'c')").await?;
    let index = stage.index("t");
    let running = stage.run()?;
    wait_for_field(&stage, &index, "1", "b", "b".into()).await?;
    stage.execute("alter table t drop column a; alter table t rename column b to d").await?;
    stage.execute("update t set c = 'C'; insert into t values (2, 'x', 'y')").await?;
    wait_for_field(&stage, &index, "2", "d", "x".into()).await?;
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "c", "d"]).await
}

/// `change` needs a new generation; readers see it when it is complete, and the old one goes.
async fn remade(label: &str, change: &str, columns: &[&str], key: &str) -> Result<()> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, n int not null, v text", "").await?;
    stage
        .execute("insert into t select i, i + 1000, 'v' || i from generate_series(1, 500) i")
        .await?;
    let index = stage.index("t");
    let mut running = stage.run()?;
    wait_for_field(&stage, &index, "500", "v", "v500".into()).await?;
    stage.execute(&format!("update t set v = 'before' where id = 7; {change}")).await?;
    stage.execute("update t set v = 'after' where id = 9").await?;
    running.wait_for_line(LIMIT, "readers see the new generation").await?;
    stage.execute("update t set v = 'later' where id = 11").await?;
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    stage.assert_equal("t", key, columns).await?;
    let (status, _) = stage.search.request(Method::Get, &format!("/{index}-000001"), None).await?;
    ensure!(status == 404, "the old generation is still there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_type_is_another_generation() -> Result<()> {
    let change = "alter table t alter column n type text";
    remade("column_retyped", change, &["id", "n", "v"], "id").await
}

/// Mapped alike, and every value is rewritten without a row in the stream.
#[tokio::test(flavor = "multi_thread")]
async fn another_scale_of_a_type_is_another_generation() -> Result<()> {
    let change = "alter table t alter column v type char(9)";
    remade("column_repadded", change, &["id", "n", "v"], "id").await
}

/// Neither sends a row, and neither shows in names and types.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_dropped_and_added_again_is_another_generation() -> Result<()> {
    let change = "alter table t drop column v; alter table t add column v text default 'again'";
    remade("column_again", change, &["id", "n", "v"], "id").await
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_swap_their_names_are_another_generation() -> Result<()> {
    let change = "alter table t add column w text default 'w'; alter table t rename v to x;
        alter table t rename w to v; alter table t rename x to w";
    remade("columns_swapped", change, &["id", "n", "v", "w"], "id").await
}

/// The index remembers the mapping of a field that its documents have no more, and takes no other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_comes_back_with_another_type_is_another_generation() -> Result<()> {
    for (label, node) in [("back", shared_elasticsearch()?), ("back_os", shared_opensearch()?)] {
        let mut stage = Stage::new(label, shared_postgres()?, node).await?;
        stage.table("t", "id int primary key, note int", "").await?;
        stage.execute("insert into t select i, i from generate_series(1, 50) i").await?;
        let index = stage.index("t");
        let mut running = stage.run()?;
        wait_for_field(&stage, &index, "50", "note", 50.into()).await?;
        stage.execute("alter table t drop column note; insert into t values (51)").await?;
        wait_for_field(&stage, &index, "51", "note", Value::Null).await?;
        stage
            .execute("alter table t add column note text; insert into t values (52, 'text')")
            .await?;
        running.wait_for_line(LIMIT, "readers see the new generation").await?;
        running.stop(LIMIT).await?;
        stage.catch_up().await?;
        stage.assert_equal("t", "id", &["id", "note"]).await?;
        ensure!(mapping_of(&stage, &index, "note").await? == "text", "it is mapped otherwise");
    }
    Ok(())
}

/// No column changes, and every document does.
#[tokio::test(flavor = "multi_thread")]
async fn another_source_of_a_field_is_another_generation() -> Result<()> {
    let mut stage = Stage::new("resourced", shared_postgres()?, shared_elasticsearch()?).await?;
    let settings = "exclude: [a, b, c]\nrename: {d: x}\ncomputed: {full: \"{a} {b}\"}";
    let columns = "id int primary key, a text, b text, c text, d text, e text";
    stage.table("t", columns, settings).await?;
    stage
        .execute("insert into t select i, 'a', 'b', 'c', 'd', 'e' from generate_series(1, 20) i")
        .await?;
    let mut line = CommandLine::of(&stage);
    line.succeed(&["run", "--until", "current"]).await?;
    line.succeed(&["run", "--until", "current"]).await?;
    let index = stage.index("t");
    let generation = async |number: u32| {
        let path = format!("/{index}-00000{number}");
        anyhow::Ok(stage.search.request(Method::Get, &path, None).await?.0 == 200)
    };
    ensure!(generation(1).await?, "another generation without a change");
    for (number, before, now, field, value) in
        [(2, "{a} {b}", "{b}, {a}", "full", "b, a"), (3, "{d: x}", "{e: x, d: e}", "x", "e")]
    {
        line.config = line.config.map(|config| config.replace(before, now));
        line.succeed(&["run", "--until", "current"]).await?;
        let documents = stage.search.documents(&index).await?;
        let stale = documents.values().filter(|document| document.source[field] != value).count();
        ensure!(documents.len() == 20 && stale == 0, "{stale} documents are stale after {now}");
        ensure!(generation(number).await?, "no new generation after {now}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_another_generation_without_the_old_ids() -> Result<()> {
    let change =
        "begin; alter table t drop constraint t_pkey; alter table t add primary key (n); commit";
    remade("key_changed", change, &["id", "n", "v"], "n").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_anew_is_another_generation() -> Result<()> {
    let mut stage = Stage::new("table_remade", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select i, 'old' from generate_series(1, 50) i").await?;
    let index = stage.index("t");
    let mut running = stage.run()?;
    wait_for_field(&stage, &index, "50", "v", "old".into()).await?;
    let publication = stage.name().to_owned();
    stage
        .execute(&format!(
            "begin; drop table t; create table t (id int primary key, v text); \
             alter publication {publication} add table t; \
             insert into t select i, 'new' from generate_series(10, 20) i; commit"
        ))
        .await?;
    stage.execute("insert into t values (99, 'new')").await?;
    running.wait_for_line(LIMIT, "readers see the new generation").await?;
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// What was written before the ALTER is still to be streamed when waldex comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_from_before_an_alter_ends_in_the_columns_of_now() -> Result<()> {
    let mut stage =
        Stage::new("alter_backlog", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, gone text, v text", "").await?;
    stage.table("r", "id int primary key, n int", "").await?;
    stage.execute("insert into r select i, i from generate_series(1, 30) i").await?;
    stage.catch_up().await?;
    stage.execute("insert into t select i, 'g', 'v' from generate_series(1, 30) i").await?;
    stage.execute("update r set n = -n where id < 10").await?;
    stage
        .execute("alter table t add column n int default 5; alter table t drop column gone")
        .await?;
    stage.execute("update t set n = 6 where id < 4; delete from t where id = 30").await?;
    stage.execute("alter table t add column big text; update t set big = 'b' where id = 2").await?;
    stage
        .execute("alter table r alter column n type text; update r set n = 'x' where id = 3")
        .await?;
    stage.execute("delete from r where id = 4").await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v", "n", "big"]).await?;
    stage.assert_equal("r", "id", &["id", "n"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enum_may_get_values() -> Result<()> {
    let mut stage = Stage::new("enum_value", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.execute("create type mood as enum ('sad', 'ok')").await?;
    stage.table("t", "id int primary key, m mood", "").await?;
    let running = stage.run()?;
    stage.execute("insert into t values (1, 'ok')").await?;
    stage.execute("alter type mood add value 'happy'").await?;
    stage.execute("insert into t values (2, 'happy')").await?;
    wait_for_field(&stage, &stage.index("t"), "2", "m", "happy".into()).await?;
    running.stop(LIMIT).await?;
    stage.assert_equal("t", "id", &["id", "m"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_column_that_is_dropped_stops_with_its_name() -> Result<()> {
    let mut stage =
        Stage::new("column_missed", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, a text, b text", "columns: [id, a]").await?;
    stage.execute("insert into t values (1, 'a', 'b')").await?;
    let running = stage.run()?;
    wait_for_field(&stage, &stage.index("t"), "1", "a", "a".into()).await?;
    stage.execute("alter table t drop column a; insert into t values (2, 'b')").await?;
    let finished = running.finish(LIMIT).await?;
    let log = finished.expect_code(64)?.stderr.join("\n");
    ensure!(log.contains("names column \"a\", which is not published"), "{log}");
    Ok(())
}

/// Without a list of tables, the publication is the list.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_added_to_the_publication_is_loaded_with_its_rows() -> Result<()> {
    let stage = Stage::new("table_added", shared_postgres()?, shared_elasticsearch()?).await?;
    let name = stage.name().to_owned();
    let (first, second) = (format!("{name}_a"), format!("{name}_b"));
    stage.execute(&format!("create table {first} (id int primary key)")).await?;
    stage.execute(&format!("create publication {name} for table {first}")).await?;
    let program = || crate::support::waldex::Waldex::new("run");
    let mut running = program()?.between(&stage.database.url, &name, stage.node).spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage.execute(&format!("create table {second} (id int primary key, v text)")).await?;
    stage
        .execute(&format!("insert into {second} select i, 'before' from generate_series(1, 20) i"))
        .await?;
    stage.execute(&format!("alter publication {name} add table {second}")).await?;
    stage.execute(&format!("insert into {second} values (21, 'after')")).await?;
    wait_for_field(&stage, &second, "21", "v", "after".into()).await?;
    running.stop(LIMIT).await?;
    let expectation = crate::support::compare::Expectation::columns(&second, "id", &["id", "v"]);
    stage.assert_index(&expectation, &second).await
}

/// All indices are made before the first table is loaded.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_added_before_the_first_load_of_its_table_is_mapped() -> Result<()> {
    let mut stage = Stage::new("column_early", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("a", "id int primary key", "").await?;
    stage.table("b", "id int primary key", "").await?;
    stage.execute("insert into a values (1); insert into b values (1)").await?;
    let writer = crate::support::sql::connect(&stage.database.url).await?;
    // The slot first, which waits for open transactions, too.
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "\"live\"").await?;
    running.stop(LIMIT).await?;
    crate::support::sql::batch(&writer, "begin; insert into a values (2)").await?;
    let mut held = stage.waldex("run")?.arg("--reload").spawn()?;
    held.wait_for_line(LIMIT, "waiting for transactions that write").await?;
    held.kill()?;
    crate::support::sql::batch(&writer, "commit").await?;
    stage.execute("alter table b add column n int default 7; insert into b values (2)").await?;
    stage.catch_up().await?;
    ensure!(mapping_of(&stage, &stage.index("b"), "n").await? == "integer", "it is not mapped");
    stage.assert_equal("b", "id", &["id", "n"]).await
}

/// The table got a column, and the row was written, after the plan and before the load: the load has the row,
/// so that the stream's copy is skipped, and must have the column, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_added_just_before_a_load_is_in_what_was_written_with_it() -> Result<()> {
    let mut stage = Stage::new("added_early", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select i, 'v' from generate_series(1, 30) i").await?;
    // Loads wait a while for whoever writes to their table.
    stage.execute("begin; lock table t in row exclusive mode").await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "slot created").await?;
    running.wait_for_line(LIMIT, "\"loading\"").await?;
    stage.execute("alter table t add column n int default 5; update t set v = 'w'; commit").await?;
    wait_for_field(&stage, &stage.index("t"), "7", "v", "w".into()).await?;
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v", "n"]).await
}

/// The ALTER waits for the first chunk and goes before the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_renamed_between_two_chunks_of_a_load_is_planned_anew() -> Result<()> {
    let mut stage = Stage::new("chunks_alter", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t select i, 'v' from generate_series(1, 60000) i").await?;
    let proxy = SearchProxy::before(stage.node).await?;
    let (altered, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_altered, has_begun) = (Arc::clone(&altered), Arc::clone(&begun));
    proxy.rule(move |request| {
        if !request.is_bulk() || is_altered.load(Ordering::Relaxed) {
            return Fault::Pass;
        }
        has_begun.store(true, Ordering::Relaxed);
        Fault::Delay(Duration::from_millis(500))
    });
    let mut line = CommandLine::of(&stage);
    line.elasticsearch_url = proxy.node().url_with_credentials();
    let mut running = line.waldex(&["run"])?.spawn()?;
    wait_until(LIMIT, "the first rows", async || begun.load(Ordering::Relaxed)).await?;
    stage.execute("alter table t rename column v to w").await?;
    altered.store(true, Ordering::Relaxed);
    running.wait_for_line(LIMIT, "\"loaded\"").await?;
    ensure!(
        running.lines().iter().any(|line| line.contains("planning again")),
        "the ALTER was not between two chunks"
    );
    running.stop(LIMIT).await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "w"]).await
}
