//! Every kind of change, on each server, with requests that cut a row's changes apart and with ones that do not.

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;

use super::{BY_ZONE, catch_up, stage};
use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::stage::{LIMIT, Stage};

/// Routings that a server takes as another, refuses or reads as several, if they are sent as they are.
const ODD: &str =
    "insert into t values (901, 'a', ''), (902, 'b', 'x,y'), (903, 'c', '~'), (904, 'd', '~0'),
    (905, 'e', repeat('long', 200)),
    (906, 'f', repeat('ü', 30000)), (907, 'g', E'\"\\\\ \\n\\x01 '), (908, 'h', '*')";

async fn every_kind_of_change(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    for bulk_size in ["1000", "2", "1"] {
        let stage = stage(&format!("{label}_{bulk_size}"), postgres, node, BY_ZONE).await?;
        stage
            .execute(
                "insert into t select n, 'row ' || n, 'z' || n % 7 from generate_series(1, 200) n",
            )
            .await?;
        stage.execute(ODD).await?;
        catch_up(&stage, "1000").await?;
        changes(&stage, bulk_size).await?;
    }
    Ok(())
}

async fn changes(stage: &Stage<'_>, bulk_size: &str) -> Result<()> {
    stage.execute("update t set zone = 'z' || (id + 1) % 7 where id <= 40").await?;
    stage.execute("update t set v = v || '!' where id > 150").await?;
    catch_up(stage, bulk_size).await?;
    // There and back, further and further, and away, in one transaction each.
    let to = |zone: &str, which: &str| format!("update t set zone = '{zone}' where {which};");
    let walk =
        |zones: &str, which: &str| zones.chars().map(|z| to(&z.to_string(), which)).collect();
    let walks: Vec<String> = vec![
        walk("aba", "id = 1"),
        walk("abcdefgh", "id between 2 and 30"),
        walk("abcabcabc", "id between 31 and 60"),
        format!("{} delete from t where id = 61;", walk("ab", "id = 61")),
        "delete from t where id = 62; insert into t values (62, 'again', 'elsewhere');".to_owned(),
        format!(
            "insert into t values (300, 'new', 'a'); {} delete from t where id = 300; \
             insert into t values (300, 'newer', 'c');",
            walk("ba", "id = 300")
        ),
        "savepoint s; update t set zone = 'undone' where id = 63; rollback to s;".to_owned(),
    ];
    for walk in walks {
        stage.execute(&format!("begin; {walk} commit")).await?;
    }
    catch_up(stage, bulk_size).await?;
    // The odd ones move among themselves, and away and back again.
    stage
        .execute(
            "begin; update t set zone = (select zone from t o where o.id = 901 + (t.id - 900) % 8)
                    where id > 900; update t set zone = 'plain' where id in (901, 906); commit",
        )
        .await?;
    catch_up(stage, bulk_size).await?;
    keys_move(stage, bulk_size).await?;
    stage
        .execute(
            "begin; update t set zone = 'before' where id < 100; truncate t; \
             insert into t select n, 'after', 'y' || n % 3 from generate_series(50, 60) n; \
             update t set zone = 'moved' where id = 55; commit",
        )
        .await?;
    catch_up(stage, bulk_size).await?;
    stage.execute("truncate t").await?;
    catch_up(stage, bulk_size).await
}

async fn keys_move(stage: &Stage<'_>, bulk_size: &str) -> Result<()> {
    stage.execute("update t set id = 1000 + id, zone = 'far' where id between 100 and 120").await?;
    stage.execute("update t set id = 2000 + id where id between 130 and 140").await?;
    // A swap of keys and zones, and a key that another row takes over under another routing.
    stage
        .execute(
            "begin; update t set id = -1, zone = 's1' where id = 71; \
             update t set id = 71, zone = 's2' where id = 72; \
             update t set id = 72, zone = 's1' where id = -1; commit; \
             begin; update t set id = 3000 where id = 73; update t set id = 73, zone = 'k' where id = 74; commit",
        )
        .await?;
    catch_up(stage, bulk_size).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_to_elasticsearch() -> Result<()> {
    every_kind_of_change("routed_es", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_to_opensearch() -> Result<()> {
    every_kind_of_change("routed_os", shared_postgres_14()?, shared_opensearch()?).await
}

/// The large value is in no update of the stream, but in its old row.
#[tokio::test(flavor = "multi_thread")]
async fn unchanged_large_values_go_along_and_may_be_the_routing_themselves() -> Result<()> {
    let mut stage = Stage::new("routed_toast", shared_postgres()?, shared_elasticsearch()?).await?;
    let settings = "routing: zone\nsettings: {number_of_shards: 3, number_of_replicas: 0, routing_partition_size: 2}";
    let columns = "id int primary key, v text, zone text not null, n int";
    stage.table("t", columns, settings).await?;
    stage
        .execute(
            "alter table t replica identity full; alter table t alter zone set storage external;
             alter table t alter v set storage external;
             insert into t select n, repeat('v' || n, 2000), repeat('z' || n % 5, 2000), 0
             from generate_series(1, 50) n",
        )
        .await?;
    let arrived = async || {
        stage.catch_up().await?;
        stage.assert_routed("t", "id", &["id", "v", "zone", "n"], "zone").await
    };
    arrived().await?;
    stage.execute("update t set n = 1; update t set zone = 'short' where id <= 10").await?;
    arrived().await?;
    stage
        .execute(
            "begin; update t set zone = repeat(v, 2) where id <= 20; update t set n = 2; \
             update t set id = id + 100 where id > 40; commit",
        )
        .await?;
    arrived().await?;
    stage.execute("delete from t where id % 2 = 0").await?;
    arrived().await
}

/// Then the column is in every key tuple, and part of every id.
#[tokio::test(flavor = "multi_thread")]
async fn a_routing_in_the_key_needs_no_full_identity() -> Result<()> {
    let mut stage = Stage::new("routed_key", shared_postgres()?, shared_opensearch()?).await?;
    let columns = "zone text, id int, v text, primary key (id, zone)";
    stage
        .table(
            "t",
            columns,
            "routing: zone\nsettings: {number_of_shards: 3, number_of_replicas: 0}",
        )
        .await?;
    stage
        .execute("insert into t select 'z' || n % 4, n, 'v' from generate_series(1, 100) n")
        .await?;
    let id = "id || ',' || zone";
    stage.execute(&format!("create view seen as select *, {id} as key from t")).await?;
    let arrived = async || {
        stage.catch_up().await?;
        let columns = ["id", "v", "zone"];
        let expectation =
            crate::support::compare::Expectation::routed("seen", "key", &columns, "zone");
        let index = stage.index("t");
        stage.assert_index(&expectation, &index).await
    };
    arrived().await?;
    stage
        .execute("update t set v = 'w' where id <= 50; update t set zone = 'moved' where id <= 20")
        .await?;
    stage.execute("delete from t where id between 30 and 60").await?;
    arrived().await
}

/// A generation is routed in one way; another is another generation.
#[tokio::test(flavor = "multi_thread")]
async fn another_routing_is_another_generation() -> Result<()> {
    let mut stage = Stage::new("rerouted", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.table("t", "id int primary key, v text not null, zone text not null", "").await?;
    stage
        .execute(
            "alter table t replica identity full;
             insert into t select n, 'v' || n % 3, 'z' || n % 7 from generate_series(1, 100) n",
        )
        .await?;
    stage.catch_up().await?;
    let (columns, index) = (["id", "v", "zone"], stage.index("t"));
    stage.assert_equal("t", "id", &columns).await?;
    let plain = stage.config();
    for (number, (routing, before)) in
        [("zone", ""), ("v", "zone"), ("", "v")].into_iter().enumerate()
    {
        // What an old generation has not seen when the other begins.
        stage.execute("update t set zone = zone || 'x', v = v || 'y' where id % 5 = 0").await?;
        let line =
            if routing.is_empty() { String::new() } else { format!("    routing: {routing}\n") };
        let run =
            stage.waldex("run")?.config(&format!("{plain}{line}")).arg("--until").arg("current");
        let finished = run.run_to_end(LIMIT).await?;
        let told = finished.expect_code(0)?.stderr.join("\n");
        ensure!(told.contains("routed otherwise"), "from {before} to {routing}: {told}");
        match routing {
            "" => stage.assert_equal("t", "id", &columns).await?,
            routing => stage.assert_routed("t", "id", &columns, routing).await?,
        }
        let (status, _) = stage
            .search
            .request(Method::Head, &format!("/{index}-{:06}", number + 2), None)
            .await?;
        ensure!(status == 200, "no generation {}", number + 2);
    }
    Ok(())
}

/// The bulk lines are shown as they would be sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_routings_and_what_is_left() -> Result<()> {
    let stage = stage("routed_dry", shared_postgres()?, shared_elasticsearch()?, BY_ZONE).await?;
    stage.execute("insert into t values (1, 'v', 'a,b')").await?;
    stage.catch_up().await?;
    stage.execute("update t set zone = 'c'").await?;
    let run = stage.waldex("run")?.arg("--dry-run").arg("--until").arg("current");
    let printed = run.run_to_end(LIMIT).await?.expect_code(0)?.stdout.clone();
    let [delete, index, document] = printed.as_slice() else { anyhow::bail!("{printed:?}") };
    ensure!(
        delete.starts_with("{\"delete\"") && delete.contains("\"routing\":\"a~1b\""),
        "{delete}"
    );
    ensure!(index.starts_with("{\"index\"") && index.contains("\"routing\":\"c\""), "{index}");
    ensure!(document == "{\"id\":1,\"v\":\"v\"}", "{document}");
    Ok(())
}

/// A write that lacked its routing would be refused, not lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_index_requires_a_routing() -> Result<()> {
    for node in [shared_elasticsearch()?, shared_opensearch()?] {
        let stage = stage("routed_required", shared_postgres()?, node, BY_ZONE).await?;
        stage.execute("insert into t values (1, 'v', 'a')").await?;
        stage.catch_up().await?;
        let alias = format!("{}-000001-write", stage.index("t"));
        let delete = format!("{{\"delete\":{{\"_index\":\"{alias}\",\"_id\":\"1\"}}}}\n");
        let (_, answer) = stage.search.bulk(delete).await?;
        let item = answer["items"][0]["delete"].clone();
        ensure!(item["status"] == 400, "{answer}");
        let kind = item["error"]["type"].as_str().context("no type")?;
        ensure!(kind == "routing_missing_exception", "{answer}");
        super::assert_equal(&stage).await?;
    }
    Ok(())
}
