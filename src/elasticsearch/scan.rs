//! Every document behind a name, page by page, as the last refresh shows them.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::client::{Answer, CallError, Client, path_segment};
use super::control;

/// Documents in a page.
const PAGE_DOCUMENTS: usize = 1000;
/// How long the server keeps the scan's place between two pages.
const SCROLL_KEPT: &str = "5m";
const FILTER_PATH: &str = "_scroll_id,timed_out,_shards.total,_shards.successful,_shards.failed,\
    hits.hits._id,hits.hits._routing,hits.hits._version,hits.hits._source";

/// Replicas of OpenSearch with segment replication lag behind, whatever is refreshed. Elasticsearch, whose replicas
/// do not, no longer knows this preference.
const PRIMARIES: &str = "_primary";
const PREFERENCE_UNKNOWN: u16 = 400;

/// What a server says when a shard is missing, if it says it at all.
const SHARD_MISSING: u16 = 503;

/// A scan that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The name is that of nothing.
    #[error("there is no \"{name}\"")]
    Missing {
        /// It.
        name: String,
    },
    /// Anything else; a scan that lost its place can start again.
    #[error("cannot read \"{name}\": status {status}, {kind}")]
    Refused {
        /// What was scanned.
        name: String,
        /// HTTP status.
        status: u16,
        /// The error's type.
        kind: String,
    },
}

impl ScanError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call(_) => true,
            // 404: the server has forgotten the scan's place.
            Self::Refused { status, kind, .. } => *status == 404 || control::passes(*status, kind),
            Self::Missing { .. } => false,
        }
    }
}

/// A document. Not `Debug`: it is made of column values.
#[derive(Clone)]
pub struct Hit {
    /// Its id.
    pub id: String,
    /// Its routing, where it has one.
    pub routing: Option<String>,
    /// Its version.
    pub version: i64,
    /// Its content, if that was asked for.
    pub source: Value,
}

/// A scan under way.
pub struct Scan<'a> {
    client: &'a Client,
    name: String,
    /// The page that was fetched and not given yet.
    page: Value,
}

impl<'a> Scan<'a> {
    /// Refreshes `name` and starts to read what matches `query`; `source` says what of the documents, as
    /// `_source` does.
    ///
    /// # Errors
    /// The server's.
    pub async fn start(
        client: &'a Client,
        name: &str,
        query: &Value,
        source: &Value,
    ) -> Result<Self, ScanError> {
        let path = format!("/{}", path_segment(name));
        let refresh = client.call(Method::Post, &format!("{path}/_refresh"), &[], None).await?;
        whole(name, decided(name, &refresh)?, false)?;
        let body = json!({
            "size": PAGE_DOCUMENTS, "_source": source, "version": true, "sort": ["_doc"],
            "query": query,
        });
        let path = format!("{path}/_search");
        let mut asked = vec![("scroll", SCROLL_KEPT), ("filter_path", FILTER_PATH)];
        asked.push(("preference", PRIMARIES));
        let mut page = client.call(Method::Post, &path, &asked, Some(&body)).await?;
        if page.status == PREFERENCE_UNKNOWN {
            asked.pop();
            page = client.call(Method::Post, &path, &asked, Some(&body)).await?;
        }
        let page = whole(name, decided(name, &page)?, true)?;
        Ok(Self { client, name: name.to_owned(), page })
    }

    /// The next documents; none when all were given.
    ///
    /// # Errors
    /// The server's.
    pub async fn next_page(&mut self) -> Result<Vec<Hit>, ScanError> {
        let page = std::mem::take(&mut self.page);
        let hits = hits_of(&page);
        let Some(scroll_id) = page.get("_scroll_id").cloned() else { return Ok(hits) };
        if hits.is_empty() {
            let body = json!({"scroll_id": scroll_id});
            // The server forgets the scan by itself if this fails.
            let _ = self.client.call(Method::Delete, "/_search/scroll", &[], Some(&body)).await;
            return Ok(hits);
        }
        let body = json!({"scroll": SCROLL_KEPT, "scroll_id": scroll_id});
        let asked = [("filter_path", FILTER_PATH)];
        let next = self.client.call(Method::Post, "/_search/scroll", &asked, Some(&body)).await?;
        self.page = whole(&self.name, decided(&self.name, &next)?, true)?;
        Ok(hits)
    }
}

fn hits_of(page: &Value) -> Vec<Hit> {
    let hits = page.pointer("/hits/hits").and_then(Value::as_array);
    let hit = |hit: &Value| {
        Some(Hit {
            id: hit.get("_id")?.as_str()?.to_owned(),
            routing: hit.get("_routing").and_then(Value::as_str).map(str::to_owned),
            version: hit.get("_version").and_then(Value::as_i64).unwrap_or_default(),
            source: hit.get("_source").cloned().unwrap_or_default(),
        })
    };
    hits.into_iter().flatten().filter_map(hit).collect()
}

fn decided(name: &str, answer: &Answer) -> Result<Value, ScanError> {
    let (status, kind) = (answer.status, answer.error_kind());
    match status {
        200..=299 => Ok(answer.json()),
        404 if kind == "index_not_found_exception" => {
            Err(ScanError::Missing { name: name.to_owned() })
        }
        _ => Err(ScanError::Refused { name: name.to_owned(), status, kind }),
    }
}

/// An answer that speaks for every shard. One that lacks a shard has status 200 and the documents of the others
/// (seen: Elasticsearch counts the missing one as failed, OpenSearch only as not successful). A refresh counts
/// copies, of which some may be nowhere.
fn whole(name: &str, answer: Value, counts_shards: bool) -> Result<Value, ScanError> {
    let shards = |what: &str| answer.pointer(&format!("/_shards/{what}")).and_then(Value::as_u64);
    let is_failed = shards("failed").is_none_or(|failed| failed > 0);
    let is_missing = counts_shards && shards("successful") < shards("total");
    let is_cut = answer.get("timed_out") == Some(&Value::Bool(true));
    if is_failed || is_missing || is_cut {
        let (name, kind) = (name.to_owned(), "not every shard answers".to_owned());
        return Err(ScanError::Refused { name, status: SHARD_MISSING, kind });
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_some_shards_is_none() {
        let page = |shards: &str| {
            let text = format!("{{\"timed_out\":false,\"_shards\":{{{shards}}}}}");
            whole("i", serde_json::from_str(&text).unwrap(), true).is_ok()
        };
        assert!(page(r#""total":2,"successful":2,"failed":0"#));
        assert!(page(r#""total":0,"successful":0,"failed":0"#));
        assert!(!page(r#""total":2,"successful":1,"failed":1"#), "as Elasticsearch says it");
        assert!(!page(r#""total":2,"successful":1,"failed":0"#), "as OpenSearch says it");
        let cut = json!({"timed_out": true, "_shards": {"total": 1, "successful": 1, "failed": 0}});
        assert!(whole("i", cut, true).is_err());
        assert!(whole("i", Value::Null, true).is_err(), "not what a search answers");
        let copies = json!({"_shards": {"total": 2, "successful": 1, "failed": 0}});
        assert!(whole("i", copies, false).is_ok());
    }
}
