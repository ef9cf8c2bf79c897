//! Requests to the search servers, by the same client library and without the code under test.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use elasticsearch::auth::Credentials;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::servers::search_node::SearchNode;

/// Documents in one page of a scroll.
const PAGE: u32 = 5000;
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);

/// A document as the index holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The concrete index it is in.
    pub index: String,
    /// Its `_version`.
    pub version: u64,
    /// Its `_routing`, if it has one.
    pub routing: Option<String>,
    /// Its `_source`.
    pub source: Value,
}

/// A client of one search server.
#[derive(Clone)]
pub struct Search {
    transport: Transport,
}

impl Search {
    /// A client; sends nothing yet.
    pub fn of(node: &SearchNode) -> Result<Self> {
        let pool = SingleNodeConnectionPool::new(node.url.clone());
        let mut builder = TransportBuilder::new(pool).disable_proxy().timeout(REQUEST_DEADLINE);
        if let Some((user, password)) = &node.credentials {
            builder = builder.auth(Credentials::Basic(user.clone(), password.clone()));
        }
        Ok(Self { transport: builder.build()? })
    }

    /// Sends a request; the answer's status and its JSON body, or null for another body.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, Value)> {
        let body = body.map(|body| body.to_string());
        self.send(method, path, body, "application/json").await
    }

    /// Sends a bulk request, as waldex does; the answer's status and its body.
    pub async fn bulk(&self, lines: String) -> Result<(u16, Value)> {
        let path = "/_bulk?require_alias=true";
        self.send(Method::Post, path, Some(lines), "application/x-ndjson").await
    }

    /// The `_source` of what a search finds, to the letter, by id: what `serde_json` reads is not always
    /// what was written. At most one page.
    pub async fn sources(&self, index: &str, query: Value) -> Result<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        struct Answer {
            hits: Hits,
        }
        #[derive(Deserialize)]
        struct Hits {
            hits: Vec<Hit>,
        }
        #[derive(Deserialize)]
        struct Hit {
            _id: String,
            _source: Box<RawValue>,
        }
        self.refresh(index).await?;
        let path = format!("/{index}/_search");
        let body = json!({"size": PAGE, "query": query}).to_string();
        let (status, text) =
            self.send_for_text(Method::Post, &path, Some(body), "application/json").await?;
        ensure!(status == 200, "\"{path}\" answered {status}: {text}");
        let hits = serde_json::from_str::<Answer>(&text)?.hits.hits;
        ensure!(hits.len() < PAGE as usize, "more than a page");
        Ok(hits.into_iter().map(|hit| (hit._id, hit._source.get().to_owned())).collect())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        content_type: &'static str,
    ) -> Result<(u16, Value)> {
        let (status, text) = self.send_for_text(method, path, body, content_type).await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    async fn send_for_text(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        content_type: &'static str,
    ) -> Result<(u16, String)> {
        let mut headers = HeaderMap::new();
        // The client's own media types name a version of Elasticsearch, which OpenSearch refuses.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = self
            .transport
            .send(method, path, headers, None::<&()>, body, None)
            .await
            .with_context(|| format!("no answer to \"{path}\""))?;
        let status = response.status_code().as_u16();
        Ok((status, response.text().await?))
    }

    /// Sends a request that must succeed.
    pub async fn expect(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, answer) = self.request(method, path, body).await?;
        ensure!((200..300).contains(&status), "\"{path}\" answered {status}: {answer}");
        Ok(answer)
    }

    /// Makes all that was written visible to searches.
    pub async fn refresh(&self, index: &str) -> Result<()> {
        self.expect(Method::Post, &format!("/{index}/_refresh"), None).await.map(drop)
    }

    /// Number of documents, after a refresh; none if there is no such index or alias.
    pub async fn count(&self, index: &str) -> Result<Option<u64>> {
        let (status, _) = self.request(Method::Post, &format!("/{index}/_refresh"), None).await?;
        if status == 404 {
            return Ok(None);
        }
        let answer = self.expect(Method::Get, &format!("/{index}/_count"), None).await?;
        Ok(answer["count"].as_u64())
    }

    /// One document by id, without waiting for a refresh; none if it is not there.
    pub async fn document(&self, index: &str, id: &str) -> Result<Option<Document>> {
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let path = format!("/{index}/_doc/{}", id.replace('+', "%20"));
        let (status, answer) = self.request(Method::Get, &path, None).await?;
        match status {
            200 => document(&answer).map(Some),
            404 => Ok(None),
            _ => bail!("\"{path}\" answered {status}: {answer}"),
        }
    }

    /// Every document of an index or alias, by id, after a refresh.
    pub async fn documents(&self, index: &str) -> Result<BTreeMap<String, Document>> {
        self.refresh(index).await?;
        let mut found = BTreeMap::new();
        let query = json!({"size": PAGE, "version": true, "sort": ["_doc"]});
        let path = format!("/{index}/_search?scroll=1m");
        let mut page = self.expect(Method::Post, &path, Some(query)).await?;
        loop {
            ensure!(page["_shards"]["failed"] == 0, "shards failed: {}", page["_shards"]);
            let hits = page["hits"]["hits"].as_array().context("a search without hits")?;
            for hit in hits {
                let id = hit["_id"].as_str().context("a hit without _id")?.to_owned();
                if found.insert(id.clone(), document(hit)?).is_some() {
                    bail!("two documents of \"{index}\" have the id \"{id}\"");
                }
            }
            let scroll_id = page["_scroll_id"].clone();
            if hits.is_empty() {
                let clear = json!({"scroll_id": scroll_id});
                self.expect(Method::Delete, "/_search/scroll", Some(clear)).await?;
                return Ok(found);
            }
            let next = json!({"scroll": "1m", "scroll_id": scroll_id});
            page = self.expect(Method::Post, "/_search/scroll", Some(next)).await?;
        }
    }

    /// Deletes an index; one that is not there is fine.
    pub async fn delete_index(&self, index: &str) -> Result<()> {
        let path = format!("/{index}?ignore_unavailable=true");
        self.expect(Method::Delete, &path, None).await.map(drop)
    }
}

fn document(hit: &Value) -> Result<Document> {
    Ok(Document {
        index: hit["_index"].as_str().context("a document without _index")?.to_owned(),
        version: hit["_version"].as_u64().context("a document without _version")?,
        routing: hit["_routing"].as_str().map(str::to_owned),
        source: hit["_source"].clone(),
    })
}
