//! JSON columns mapped as fields of any name: what such a field takes is found, what it refuses is a dead letter of
//! its own document, and the rest of the request goes on.

use anyhow::{Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::assert_index;
use crate::support::servers::search_node::{Flavour, SearchNode};
use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};

async fn any_json(label: &str, node: &SearchNode) -> Result<()> {
    let mut stage = Stage::new(label, shared_postgres()?, node).await?;
    let kind = match node.flavour {
        Flavour::Elasticsearch => "{type: flattened, ignore_above: 8191}",
        Flavour::OpenSearch => "{type: flat_object}",
    };
    let columns = "id int primary key, mapped jsonb, plain jsonb, old json";
    stage.table("t", columns, &format!("mappings: {{properties: {{mapped: {kind}}}}}")).await?;
    let odd = r#"
        insert into t (id, mapped) values (1, '{"plan": "gold", "": 1, "a.b": {"c": [1, "x", null]}, "_id": 2}'),
            (2, null), (3, 'null'), (4, '{}');
        insert into t (id, mapped) values (5, jsonb_build_object('long', repeat('x', 40000)));
        insert into t (id, mapped) values (6, (repeat('{"a":', 30) || '1' || repeat('}', 30))::jsonb);
        insert into t (id, mapped) values (7, '42'), (8, '"text"'), (9, '[1, {"a": 2}]'), (10, 'true');"#;
    stage.execute(odd).await?;
    // One hundred rows of a request: line breaks, equal keys, and one nested deeper than any cluster reads.
    stage
        .execute(
            r#"insert into t (id, plain, old) select i, '[1, "a", null]', E'{"k": 1,\r\n "k": 2,\n\n"b": [ ]}'
                 from generate_series(101, 199) i;
               insert into t (id, old) values (200, (repeat('{"a":', 2000) || '1' || repeat('}', 2000))::json)"#,
        )
        .await?;
    stage.catch_up().await?;
    stage.execute(r#"update t set mapped = '{"plan": "silver"}' where id = 2"#).await?;
    stage.catch_up().await?;
    let index = stage.index("t");
    let found = stage.search.sources(&index, json!({"term": {"mapped.plan": "gold"}})).await?;
    ensure!(found.keys().eq(["1"]), "{found:?}");
    let listed = stage.waldex("dead-letters")?.arg("list").arg("--json");
    let listed = listed.run_to_end(LIMIT).await?;
    let letters: Vec<Value> = serde_json::from_str(&listed.expect_code(0)?.stdout.join(""))?;
    let mut refused: Vec<String> = Vec::new();
    for id in 1..=10 {
        if stage.search.document(&index, &id.to_string()).await?.is_none() {
            refused.push(id.to_string());
        }
    }
    ensure!(letters.len() == refused.len(), "{letters:?}");
    // Neither takes anything but objects; one takes none that is deep, the other no text that is long.
    let more = if node.flavour == Flavour::Elasticsearch { "6" } else { "5" };
    ensure!(refused == [more, "7", "8", "9", "10"], "{refused:?}");
    let mapping = stage.search.expect(Method::Get, &format!("/{index}/_mapping"), None).await?;
    ensure!(!mapping.to_string().contains("\"plan\""), "fields were added: {mapping}");
    stage.execute("update t set mapped = null where id in (5, 6, 7, 8, 9, 10)").await?;
    stage.catch_up().await?;
    // The one that is too deep is its text.
    let old = "case when id = 200 then to_jsonb(old::text) else old::jsonb end";
    let json = format!(
        "jsonb_build_object('id', id, 'mapped', mapped, 'plain', plain, 'old', {old})::text"
    );
    assert_index(&stage, "t", format!("select id::text, {json} from t")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn flattened_on_elasticsearch() -> Result<()> {
    any_json("json_es", shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn flat_object_on_opensearch() -> Result<()> {
    any_json("json_os", shared_opensearch()?).await
}
