//! Indices that templates, settings or aliases have made unfit are refused before anything is written, with the
//! request that puts them right; what works and is risky is noted.

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};

use crate::support::proxy::http::{Fault, SearchProxy};
use crate::support::refusal::{CommandLine, complaints};
use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres};
use crate::support::stage::Stage;

async fn stage(label: &str, node: &'static SearchNode, settings: &str) -> Result<Stage<'static>> {
    let postgres: &'static Postgres = shared_postgres()?;
    let mut stage = Stage::new(label, postgres, node).await?;
    stage.table("t", "id int primary key, v text, o int", settings).await?;
    stage.execute("insert into t values (1, 'one', 1), (2, 'two', 2)").await?;
    Ok(stage)
}

/// An index template for the indices of this test alone; gone with it.
struct Template<'a> {
    stage: &'a Stage<'a>,
    path: String,
}

impl<'a> Template<'a> {
    async fn put(stage: &'a Stage<'a>, mut body: Value) -> Result<Self> {
        body["index_patterns"] = json!([format!("{}*", stage.index("t"))]);
        body["priority"] = json!(700);
        let path = format!("/_index_template/{}", stage.name());
        stage.search.expect(Method::Put, &path, Some(body)).await?;
        Ok(Self { stage, path })
    }

    async fn remove(self) -> Result<()> {
        self.stage.search.expect(Method::Delete, &self.path, None).await.map(drop)
    }
}

/// Refused by `check` and `run` alike before a slot is made; without the template everything goes.
async fn refused(label: &str, node: &'static SearchNode, body: Value, what: &str) -> Result<()> {
    let stage = stage(label, node, "").await?;
    let line = CommandLine::of(&stage);
    let template = Template::put(&stage, body).await?;
    let outcome = line.refused(what, 1).await;
    template.remove().await?;
    let complaint = outcome?;
    ensure!(complaint.fix.contains("template"), "{complaint:?}");
    ensure!(stage.confirmed().await?.is_none(), "a slot was made before the refusal");
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v", "o"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_cuts_documents_on_elasticsearch() -> Result<()> {
    let body = json!({"template": {"mappings": {"_source": {"excludes": ["v"]}}}});
    refused("excludes", shared_elasticsearch()?, body, "_source excludes").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_cuts_documents_on_opensearch() -> Result<()> {
    let body = json!({"template": {"mappings": {"_source": {"enabled": false}}}});
    refused("disabled", shared_opensearch()?, body, "_source is disabled").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_makes_data_streams() -> Result<()> {
    for (label, node) in
        [("streams", shared_elasticsearch()?), ("streams_os", shared_opensearch()?)]
    {
        refused(label, node, json!({"data_stream": {}}), "makes a data stream").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_maps_a_field_as_an_object() -> Result<()> {
    let object = json!({"properties": {"x": {"type": "long"}}});
    let body = json!({"template": {"mappings": {"properties": {"o": object}}}});
    refused("object", shared_opensearch()?, body, "maps the field \"o\" as object").await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_fields_than_an_index_may_have() -> Result<()> {
    let mut stage = Stage::new("fields", shared_postgres()?, shared_elasticsearch()?).await?;
    let columns: Vec<String> = (0..20).map(|n| format!("c{n} text")).collect();
    let settings = "settings: {index.mapping.total_fields.limit: 40}";
    stage.table("t", &format!("id int primary key, {}", columns.join(", ")), settings).await?;
    stage.execute("insert into t (id, c0) values (1, 'one')").await?;
    let mut line = CommandLine::of(&stage);
    let complaint = line.refused("41 fields, more than the 40", 1).await?;
    let (enough, _) = complaint.fix.split_once(" for the table").context("no settings")?;
    line.config = Some(stage.config().replace(settings, enough));
    line.succeed(&["run", "--until", "current"]).await?;
    ensure!(stage.search.count(&stage.index("t")).await? == Some(1), "it was not loaded");
    Ok(())
}

/// The index is in the way of its own replacement only as long as it is gone on with.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_found_unfit_is_replaced_as_printed() -> Result<()> {
    let stage = stage("unfit_made", shared_opensearch()?, "").await?;
    let line = CommandLine::of(&stage);
    // Of the old kind, which is not looked at before an index is made.
    let path = format!("/_template/{}", stage.name());
    let template = json!({
        "index_patterns": [format!("{}*", stage.index("t"))],
        "mappings": {"_source": {"excludes": ["v"]}},
    });
    stage.search.expect(Method::Put, &path, Some(template)).await?;
    let refused = line.finish(&["run", "--until", "current"]).await;
    stage.search.expect(Method::Delete, &path, None).await?;
    let found = complaints(refused?.expect_code(1)?);
    ensure!(found.len() == 1 && found[0].fix.contains("run --reload public.t"), "{found:#?}");
    line.succeed(&["run", "--reload", "public.t", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v", "o"]).await
}

/// A setting of the table would be one of the next index only.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_fields_is_raised_on_the_index_as_printed() -> Result<()> {
    let stage = stage("limit_kept", shared_elasticsearch()?, "").await?;
    stage.catch_up().await?;
    let line = CommandLine::of(&stage);
    let path = format!("/{}-000001/_settings", stage.index("t"));
    let limit = |limit: u32| Some(json!({"index.mapping.total_fields.limit": limit}));
    stage.search.expect(Method::Put, &path, limit(3)).await?;
    let complaint = line.refused("4 fields, more than the 3", 1).await?;
    let (request, _) = complaint.fix.split_once("; ").context("no request")?;
    let body = request.strip_prefix(&format!("PUT {path} ")).context("another request")?;
    stage.search.expect(Method::Put, &path, Some(serde_json::from_str(body)?)).await?;
    stage.catch_up().await?;
    stage.search.expect(Method::Put, &path, limit(3)).await?;
    line.succeed(&["run", "--reload", "public.t", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v", "o"]).await
}

/// Everybody's name for it is a data stream: it cannot be one of waldex's aliases.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_stream_of_that_name() -> Result<()> {
    let stage = stage("stream_name", shared_opensearch()?, "").await?;
    let name = stage.index("t");
    let template = json!({"index_patterns": [name], "priority": 701, "data_stream": {}});
    let template_path = format!("/_index_template/{}", stage.name());
    stage.search.expect(Method::Put, &template_path, Some(template)).await?;
    let stream = format!("/_data_stream/{name}");
    stage.search.expect(Method::Put, &stream, None).await?;
    let complaint = CommandLine::of(&stage).refused("is a data stream", 64).await;
    stage.search.expect(Method::Delete, &stream, None).await?;
    stage.search.expect(Method::Delete, &template_path, None).await?;
    let complaint = complaint?;
    ensure!(complaint.fix.contains(&format!("DELETE /_data_stream/{name}")), "{complaint:?}");
    Ok(())
}

const RISKY: &str =
    "settings: {number_of_replicas: 0, translog.durability: async, gc_deletes: 120s}";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_risky_is_noted_before_and_after_it_is_made() -> Result<()> {
    let stage = stage("risky", shared_elasticsearch()?, RISKY).await?;
    let mut line = CommandLine::of(&stage);
    for _ in 0..2 {
        let checked = line.succeed(&["check"]).await?.stdout.join("\n");
        for part in
            ["has no replicas", "translog.durability async", "remembers deletes for 120s only"]
        {
            ensure!(checked.contains(part), "no \"{part}\" in:\n{checked}");
        }
        line.succeed(&["run", "--until", "current"]).await?;
    }
    // Another mapping than the index has.
    line.config =
        Some(format!("{}    mappings: {{properties: {{v: {{type: keyword}}}}}}\n", stage.config()));
    let checked = line.succeed(&["check"]).await?.stdout.join("\n");
    ensure!(checked.contains("\"v\" as text, not keyword"), "{checked}");
    line.succeed(&["run", "--reload", "public.t", "--until", "current"]).await?;
    let checked = line.succeed(&["check"]).await?.stdout.join("\n");
    ensure!(!checked.contains("maps fields otherwise"), "{checked}");
    Ok(())
}

/// A run waits for these; `check` says how they are put right, and the request works.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_and_aliases_of_an_index_are_put_right_as_printed() -> Result<()> {
    let stage = stage("blocked", shared_elasticsearch()?, "").await?;
    stage.catch_up().await?;
    let line = CommandLine::of(&stage);
    let index = format!("{}-000001", stage.index("t"));
    let settings = format!("/{index}/_settings");
    stage.search.expect(Method::Put, &settings, Some(json!({"index.blocks.write": true}))).await?;
    let other = format!("{}-other", stage.index("t"));
    stage.search.expect(Method::Put, &format!("/{other}"), None).await?;
    let alias = json!({"add": {"index": other, "alias": format!("{index}-write")}});
    stage.search.expect(Method::Post, "/_aliases", Some(json!({"actions": [alias]}))).await?;
    let checked = line.finish(&["check"]).await?;
    let found = complaints(checked.expect_code(1)?);
    ensure!(found.len() == 2, "{found:#?}");
    for complaint in &found {
        let (method, rest) = complaint.fix.split_once(' ').context("no request")?;
        let (path, body) = rest.split_once(' ').context("no body")?;
        let method = if method == "PUT" { Method::Put } else { Method::Post };
        stage.search.expect(method, path, Some(serde_json::from_str(body)?)).await?;
    }
    line.succeed(&["check"]).await?;
    stage.execute("insert into t values (3, 'three', 3)").await?;
    stage.catch_up().await?;
    stage.assert_equal("t", "id", &["id", "v", "o"]).await
}

/// Without external versions a late request would win over a newer one.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_ignores_versions_is_refused_before_anything_is_made() -> Result<()> {
    let stage = stage("versions", shared_elasticsearch()?, "").await?;
    let proxy = SearchProxy::before(stage.node).await?;
    proxy.rule(|request| match request.path.contains("version=1&") {
        true => Fault::Answer(200, r#"{"result":"updated"}"#),
        false => Fault::Pass,
    });
    let mut line = CommandLine::of(&stage);
    line.elasticsearch_url = proxy.node().url_with_credentials();
    let refused = line.finish(&["run", "--until", "current"]).await?;
    let found = complaints(refused.expect_code(1)?);
    ensure!(found.len() == 1 && found[0].what.contains("older version"), "{found:#?}");
    ensure!(stage.confirmed().await?.is_none(), "a slot was made before the refusal");
    proxy.clear();
    line.succeed(&["run", "--until", "current"]).await?;
    stage.assert_equal("t", "id", &["id", "v", "o"]).await
}
