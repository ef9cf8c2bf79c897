//! The rules for versions that the simulation's fake cluster has are those of the real servers.

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::json;

use crate::support::search::Search;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{shared_elasticsearch, shared_opensearch};
use crate::support::stage::LIMIT;
use crate::support::vectors::{Answer, FIELD, LEFT, STALE, STEPS, Step};
use crate::support::wait::wait_until;

async fn answered(search: &Search, step: &Step, index: &str) -> Result<Answer> {
    let (status, answer) = search.bulk(step.body(index)).await?;
    if status != 200 {
        return Ok(Answer::Refused(status));
    }
    let item = answer["items"][0].as_object().and_then(|item| item.values().next());
    let item = item.context("an answer without an item")?;
    let status = u16::try_from(item["status"].as_u64().context("an item without a status")?)?;
    Ok(if item["error"].is_null() { Answer::Done(status) } else { Answer::Failed(status) })
}

async fn follows_the_vectors(node: &SearchNode) -> Result<()> {
    let search = Search::of(node)?;
    let index = format!("vectors-{}", std::process::id());
    let alias = format!("{index}-write");
    let body = json!({
        "settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"properties": {FIELD: {"type": "integer"}}},
        "aliases": {&alias: {}},
    });
    search.expect(Method::Put, &format!("/{index}"), Some(body)).await?;
    for step in STEPS {
        let found = answered(&search, &step, &index).await?;
        ensure!(found == step.answer, "{}: {found:?}, not {:?}", step.what, step.answer);
    }
    let documents = search.documents(&alias).await?;
    let left = documents.iter().map(|(id, document)| {
        (id.as_str(), document.version, document.source[FIELD].as_str().unwrap_or_default())
    });
    let left: Vec<_> = left.collect();
    ensure!(left == LEFT, "{left:?} is left, not {LEFT:?}");

    let forgetful = json!({"index": {"gc_deletes": "1ms"}});
    search.expect(Method::Put, &format!("/{index}/_settings"), Some(forgetful)).await?;
    wait_until(LIMIT, "a tombstone to expire", async || {
        // The server looks for expired tombstones when it refreshes.
        search.refresh(&index).await.is_ok()
            && matches!(answered(&search, &STALE, &index).await, Ok(found) if found == STALE.answer)
    })
    .await?;
    search.delete_index(&format!("{index},{index}-nowhere")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_follows_the_vectors() -> Result<()> {
    follows_the_vectors(shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn opensearch_follows_the_vectors() -> Result<()> {
    follows_the_vectors(shared_opensearch()?).await
}
