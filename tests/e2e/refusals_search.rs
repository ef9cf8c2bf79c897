//! What stands in the way on the search cluster's side: credentials, rights, and a name that is taken, which
//! everybody who migrates meets on day one. The printed way over is taken, word for word.

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use crate::support::refusal::{CommandLine, Complaint};
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres};
use crate::support::stage::Stage;

async fn stage(label: &str, node: &'static SearchNode) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, node).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t values (1, 'one'), (2, 'two')").await?;
    Ok(stage)
}

/// The request that the advice ends with.
fn printed_actions(complaint: &Complaint) -> Result<Value> {
    let (_, body) = complaint.fix.split_once("POST /_aliases ").context("no request is printed")?;
    serde_json::from_str(body).with_context(|| format!("not JSON: {body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_search_credentials_are_named_and_not_printed() -> Result<()> {
    let node = shared_elasticsearch()?;
    let stage = stage("es_login", node).await?;
    if node.credentials.is_none() {
        return Ok(());
    }
    let mut line = CommandLine::of(&stage);
    let mut url = node.url.clone();
    url.set_username("waldex")
        .and_then(|()| url.set_password(Some("c4n4ry")))
        .ok()
        .context("url")?;
    line.elasticsearch_url = url.to_string();
    let complaint = line.refused("status 401", 1).await?;
    ensure!(complaint.fix.contains("password or API key"), "{complaint:?}");
    let checked = line.finish(&["check", "--log-level", "trace"]).await?;
    ensure!(!format!("{checked:?}").contains("c4n4ry"), "the password is in the log: {checked:?}");
    Ok(())
}

async fn way_over(label: &str, node: &'static SearchNode, foreign: &[&str]) -> Result<()> {
    let stage = stage(label, node).await?;
    let name = stage.index("t");
    let mut line = CommandLine::of(&stage);
    // The index of before: named so itself, or below an alias of that name.
    for suffix in foreign {
        let path = format!("/{name}{suffix}/_doc/old{suffix}?refresh=true");
        stage.search.expect(Method::Put, &path, Some(json!({"v": "old"}))).await?;
    }
    if foreign != [""] {
        let add =
            |suffix: &&str| json!({"add": {"index": format!("{name}{suffix}"), "alias": name}});
        let actions: Vec<Value> = foreign.iter().map(add).collect();
        let body = json!({ "actions": actions });
        stage.search.expect(Method::Post, "/_aliases", Some(body)).await?;
    }
    let before = stage.search.documents(&name).await?;
    let complaint = line.refused(&format!("\"{name}\" is a"), 64).await?;
    ensure!(complaint.what.contains("not made by waldex"), "{complaint:?}");
    ensure!(stage.confirmed().await?.is_none(), "a slot was made before the refusal");
    ensure!(stage.search.documents(&name).await? == before, "the foreign documents changed");

    // Side by side, as printed.
    let aside = format!("{name}-waldex");
    ensure!(complaint.fix.contains(&format!("set index: {aside} ")), "{complaint:?}");
    let config = line.config.unwrap_or_default();
    line.config = Some(config.replace(&format!("index: {name}\n"), &format!("index: {aside}\n")));
    line.succeed(&["check"]).await?;
    line.succeed(&["run", "--until", "current"]).await?;
    ensure!(stage.search.documents(&name).await? == before, "readers saw something change");
    // Cut over, as printed.
    let actions = printed_actions(&complaint)?;
    stage.search.expect(Method::Post, "/_aliases", Some(actions)).await?;
    stage.execute("insert into t values (3, 'three')").await?;
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v"]).await?;
    // Readers keep their name when the index is built anew later.
    stage.execute("update t set v = 'changed'").await?;
    line.succeed(&["run", "--reload", "--until", "current"]).await?;
    let documents = stage.search.documents(&name).await.context("readers lost their name")?;
    ensure!(documents.values().all(|it| it.index == format!("{aside}-000002")), "{documents:?}");
    stage.assert_equal("t", "id", &["id", "v"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concrete_index_of_that_name_is_left_by_the_printed_way_over() -> Result<()> {
    way_over("concrete", shared_elasticsearch()?, &[""]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concrete_index_of_that_name_on_opensearch_likewise() -> Result<()> {
    way_over("concrete_os", shared_opensearch()?, &[""]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_of_something_foreign_is_left_by_the_printed_way_over() -> Result<()> {
    way_over("alias", shared_elasticsearch()?, &["_v1"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_of_several_foreign_indices_likewise() -> Result<()> {
    way_over("aliases", shared_elasticsearch()?, &["_v1", "_v2"]).await
}
