//! A TRUNCATE of the source: every document of the table goes, by versioned deletes.
//!
//! Not `_delete_by_query`: it works on what the last refresh showed, takes no external version, and is not
//! there everywhere. The lanes are drained before, so a refresh shows every document; the deletes carry
//! the version of the truncating transaction, so that of a replay only older documents go.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::client::{Answer, CallError, Client, path_segment};
use super::retry::Backoff;
use super::writer::{Waiting, WriteError, Writer};
use crate::bulk::answer::Action;
use crate::bulk::batch::{OpenBatch, document_hash};
use crate::document::json::write_string;

/// Documents in a page of the scan and in a request of deletes.
const PAGE_DOCUMENTS: usize = 1000;
/// How long the server keeps the scan's place between two pages.
const SCROLL_KEPT: &str = "5m";

/// Removes every document behind `write_alias` that is not newer than `version`, waiting out outages.
pub async fn remove_all(
    client: &Client,
    writer: &Writer,
    write_alias: &str,
    version: i64,
    mut waiting: impl FnMut(Waiting),
) -> Result<u64, WriteError> {
    let mut backoff = Backoff::default();
    let mut removed = 0;
    loop {
        match scan(client, writer, write_alias, version, &mut removed, &mut waiting).await {
            Ok(()) => return Ok(removed),
            Err(ScanError::Write(error)) => return Err(error),
            Err(ScanError::Passing(reason)) => {
                // From the start: what is gone already will not be found again.
                let pause = backoff.next(None);
                waiting(Waiting { reason, attempts: backoff.attempts(), pause });
                tokio::time::sleep(pause).await;
            }
        }
    }
}

enum ScanError {
    Passing(String),
    Write(WriteError),
}

impl From<CallError> for ScanError {
    fn from(error: CallError) -> Self {
        Self::Passing(error.to_string())
    }
}

async fn scan(
    client: &Client,
    writer: &Writer,
    write_alias: &str,
    version: i64,
    removed: &mut u64,
    waiting: &mut impl FnMut(Waiting),
) -> Result<(), ScanError> {
    let alias = path_segment(write_alias);
    decided(client.call(Method::Post, &format!("/{alias}/_refresh"), &[], None).await?)?;
    let body = json!({"size": PAGE_DOCUMENTS, "_source": false, "sort": ["_doc"]});
    let query = [("scroll", SCROLL_KEPT), ("filter_path", "_scroll_id,hits.hits._id")];
    let path = format!("/{alias}/_search");
    let mut page = decided(client.call(Method::Post, &path, &query, Some(&body)).await?)?;
    loop {
        let scroll_id = page.get("_scroll_id").and_then(Value::as_str).unwrap_or("").to_owned();
        let ids = ids_of(&page);
        if ids.is_empty() {
            let body = json!({"scroll_id": scroll_id});
            // The server forgets the scan by itself if this fails.
            let _ = client.call(Method::Delete, "/_search/scroll", &[], Some(&body)).await;
            return Ok(());
        }
        let mut batch = OpenBatch::new(0);
        for id in &ids {
            let mut key = b"\"_index\":".to_vec();
            write_string(write_alias.as_bytes(), &mut key);
            key.extend_from_slice(b",\"_id\":");
            write_string(id.as_bytes(), &mut key);
            batch.push(Action::Delete, &key, document_hash(&key), version, &[]);
        }
        let receipt = writer.write(batch.seal(), &mut *waiting).await.map_err(ScanError::Write)?;
        *removed += receipt.applied();
        let body = json!({"scroll": SCROLL_KEPT, "scroll_id": scroll_id});
        let query = [("filter_path", "_scroll_id,hits.hits._id")];
        page = decided(client.call(Method::Post, "/_search/scroll", &query, Some(&body)).await?)?;
    }
}

fn ids_of(page: &Value) -> Vec<String> {
    let hits = page.pointer("/hits/hits").and_then(Value::as_array);
    let ids = hits.into_iter().flatten().filter_map(|hit| hit.get("_id")?.as_str());
    ids.map(str::to_owned).collect()
}

/// A lost scroll (a node restarted) and overload pass; a missing alias does not.
fn decided(answer: Answer) -> Result<Value, ScanError> {
    let (status, kind) = (answer.status, answer.error_kind());
    match status {
        200..=299 => Ok(answer.json()),
        404 if kind != "search_phase_execution_exception" && !kind.contains("search_context") => {
            Err(ScanError::Write(WriteError::Refused { status, kind }))
        }
        400 | 405..=407 | 409..=428 => Err(ScanError::Write(WriteError::Refused { status, kind })),
        _ => Err(ScanError::Passing(format!("status {status}, {kind}"))),
    }
}
