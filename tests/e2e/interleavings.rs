//! What goes wrong only when two things happen at once, each of which is harmless by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use elasticsearch::http::Method;
use serde_json::json;

use crate::support::proxy::http::{Fault, SearchProxy};
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Running, Waldex};

/// A table `t` with so many rows, loaded and streamed to the end.
async fn settled(label: &str, settings: &str, rows: u32) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text", settings).await?;
    stage
        .execute(&format!("insert into t select n, 'old' from generate_series(1, {rows}) n"))
        .await?;
    stage.catch_up().await?;
    Ok(stage)
}

/// A run that streams, with the proxy before the cluster.
async fn running_behind(stage: &Stage<'_>, proxy: &SearchProxy) -> Result<Running> {
    let program = Waldex::new("run")?;
    let program = program.between(&stage.database.url, stage.name(), proxy.node());
    let mut running = program.config(&stage.config()).spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    Ok(running)
}

/// A search that lacks a shard answers 200 with the documents of the others. As OpenSearch 3.3 says it, which
/// does not even count a failure.
const OF_ONE_SHARD: &str = r#"{"_scroll_id":"s","timed_out":false,
    "_shards":{"total":2,"successful":1,"skipped":0,"failed":0},"hits":{"hits":[]}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_while_a_shard_is_away_leaves_no_document_behind() -> Result<()> {
    let stage = settled("shard_away", "", 3).await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    let mut running = running_behind(&stage, &proxy).await?;
    proxy.rule(|request| match request.path.contains("/_search") {
        true => Fault::Answer(200, OF_ONE_SHARD),
        false => Fault::Pass,
    });
    let mark = stage.execute_and_mark("truncate t").await?;
    running.wait_for_line(LIMIT, "cannot empty the index yet").await?;
    ensure!(!stage.has_confirmed(&mark).await?, "the truncate was confirmed");
    proxy.clear();
    stage.confirms(&mark, LIMIT).await?;
    running.stop(LIMIT).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// The deletes of a TRUNCATE are on their way when the stream breaks off. They have the version of the inserts
/// that follow in the same transaction, so they must be over before it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn deletes_of_a_truncate_that_arrive_after_a_reconnect_take_no_later_row_away() -> Result<()>
{
    let stage = settled("late_truncate", "", 3).await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    let running = running_behind(&stage, &proxy).await?;
    let mut held = false;
    proxy.rule(move |request| match request.is_bulk() && !std::mem::replace(&mut held, true) {
        true => Fault::Delay(Duration::from_secs(4)),
        false => Fault::Pass,
    });
    let mark = stage
        .execute_and_mark("begin; truncate t; insert into t values (1, 'new'), (2, 'new'); commit")
        .await?;
    wait_until(LIMIT, "the deletes to be sent", async || proxy.waiting() > 0).await?;
    stage
        .execute(&format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots \
             where slot_name = '{}'",
            stage.name()
        ))
        .await?;
    stage.confirms(&mark, LIMIT).await?;
    wait_until(LIMIT, "the deletes to arrive", async || proxy.waiting() == 0).await?;
    running.stop(LIMIT).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// What a load has seen is skipped when the stream brings it: also when Postgres has forgotten, in a crash or
/// because it was not told in time, that all of it was confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_table_that_is_gone_and_sent_again_after_the_load_of_its_successor()
-> Result<()> {
    let stage = settled("sent_again", "", 3).await?;
    let name = stage.name();
    stage.execute("insert into t values (7, 'of the table that is gone')").await?;
    let copy =
        |from: &str, to: &str| format!("select pg_copy_logical_replication_slot('{from}', '{to}')");
    let drop = |slot: &str| format!("select pg_drop_replication_slot('{slot}')");
    let before = format!("{name}_before");
    stage.execute(&copy(name, &before)).await?;
    stage
        .execute(&format!(
            "begin; drop table t; create table t (id int primary key, v text); \
             alter publication {name} add table t; insert into t values (1, 'new'); commit"
        ))
        .await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    for statement in [drop(name), copy(&before, name), drop(&before)] {
        stage.execute(&statement).await?;
    }
    stage.execute("insert into t values (2, 'new')").await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// Two writes of one row in one transaction, parked one behind the other. The first is sent again, not answered,
/// and carried out only after it was sent once more: the second, of the same version, must wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_write_waits_for_an_unanswered_one_of_its_row() -> Result<()> {
    const RED: &str = r#"{"type":"unavailable_shards_exception","reason":"r"}"#;
    let stage = settled("parked_late", "", 1).await?;
    let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
    let config = format!("elasticsearch: {{bulk_size: 1, concurrency: 1}}\n{}", stage.config());
    let program = Waldex::new("run")?.config(&config);
    let program = program.between(&stage.database.url, stage.name(), proxy.node());
    let mut running = program.spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    proxy.item_rule(|_| Some((503, RED)));
    let mut bulks = 0;
    proxy.rule(move |request| {
        bulks += u32::from(request.is_bulk());
        match (request.is_bulk(), bulks) {
            (true, 1) => Fault::Items,
            (true, 2) => Fault::Late(Duration::from_millis(700)),
            _ => Fault::Pass,
        }
    });
    let mark = stage
        .execute_and_mark(
            "begin; insert into t values (2, 'first'); update t set v = 'second' where id = 2; commit",
        )
        .await?;
    stage.confirms(&mark, LIMIT).await?;
    wait_until(LIMIT, "the late request", async || proxy.late() == 1).await?;
    running.stop(LIMIT).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// In one request, a document that its own index refuses, and others whose index is at fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_document_takes_none_with_it_whose_index_is_at_fault() -> Result<()> {
    let mut stage = Stage::new("bad_beside", shared_postgres()?, shared_elasticsearch()?).await?;
    let numbers = "mappings: {properties: {v: {type: integer}}}";
    stage.table("a", "id int primary key, v text", numbers).await?;
    stage.table("b", "id int primary key, v text", "").await?;
    stage.catch_up().await?;
    let (alias, other) = (format!("{}-000001-write", stage.index("b")), stage.index("other"));
    stage.search.expect(Method::Put, &format!("/{other}"), None).await?;
    let second = async |verb: &str| {
        let action = json!({"actions": [{verb: {"index": other, "alias": alias}}]});
        stage.search.expect(Method::Post, "/_aliases", Some(action)).await
    };
    second("add").await?;
    let config = format!("elasticsearch: {{concurrency: 1}}\n{}", stage.config());
    let program = Waldex::new("run")?.config(&config);
    let program = program.between(&stage.database.url, stage.name(), stage.node);
    let mut running = program.spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let mark = stage
        .execute_and_mark(
            "begin; insert into a values (1, 'x');
             insert into b select n, n::text from generate_series(1, 10) n; commit",
        )
        .await?;
    running.wait_for_line(LIMIT, "es_misconfigured").await?;
    ensure!(!stage.has_confirmed(&mark).await?, "the rows were confirmed");
    second("remove").await?;
    stage.confirms(&mark, LIMIT).await?;
    running.stop(LIMIT).await?;
    stage.assert_equal("b", "id", &["id", "v"]).await
}
