//! Every document behind a name, page by page, as the last refresh shows them.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::client::{Answer, CallError, Client, path_segment};

/// Documents in a page.
const PAGE_DOCUMENTS: usize = 1000;
/// How long the server keeps the scan's place between two pages.
const SCROLL_KEPT: &str = "5m";
const FILTER_PATH: &str = "_scroll_id,hits.hits._id,hits.hits._version,hits.hits._source";

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

/// A document.
#[derive(Clone, Debug)]
pub struct Hit {
    /// Its id.
    pub id: String,
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
    /// Refreshes `name` and starts to read what matches `query`, with or without the documents themselves.
    ///
    /// # Errors
    /// The server's.
    pub async fn start(
        client: &'a Client,
        name: &str,
        query: &Value,
        with_source: bool,
    ) -> Result<Self, ScanError> {
        let path = format!("/{}", path_segment(name));
        let refresh = client.call(Method::Post, &format!("{path}/_refresh"), &[], None).await?;
        decided(name, &refresh)?;
        let body = json!({
            "size": PAGE_DOCUMENTS, "_source": with_source, "version": true, "sort": ["_doc"],
            "query": query,
        });
        let asked = [("scroll", SCROLL_KEPT), ("filter_path", FILTER_PATH)];
        let path = format!("{path}/_search");
        let page = client.call(Method::Post, &path, &asked, Some(&body)).await?;
        let page = decided(name, &page)?;
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
        self.page = decided(&self.name, &next)?;
        Ok(hits)
    }
}

fn hits_of(page: &Value) -> Vec<Hit> {
    let hits = page.pointer("/hits/hits").and_then(Value::as_array);
    let hit = |hit: &Value| {
        Some(Hit {
            id: hit.get("_id")?.as_str()?.to_owned(),
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
