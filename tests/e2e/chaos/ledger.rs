//! P2's stated limit, kept count of: two requests that write the same document with the same version (that
//! is, within one transaction) and are both on their way. The server may carry them out in either order.
//!
//! waldex waits out what it sent itself and got no answer to, so this needs a duplicate that somebody else
//! makes of an answered request, or a kill of waldex between the two. Only a document that is in here, with
//! the very version it has, may differ from its row.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::support::proxy::http::{Kept, Step};

#[derive(Clone, Copy)]
struct Write {
    request: u64,
    version: u64,
    content: u64,
}

#[derive(Default)]
struct Books {
    /// By document, what may still be carried out.
    on_their_way: HashMap<u64, Vec<Write>>,
    /// Documents of each request on its way.
    requests: HashMap<u64, Vec<u64>>,
    /// Documents and versions that two such requests wrote differently.
    doubtful: HashSet<(u64, u64)>,
}

#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Books>>);

impl Ledger {
    /// Takes note of a request's step.
    pub(super) fn note(&self, step: &Step<'_>) {
        match step {
            Step::Begins(kept) if kept.request.is_bulk() => self.begins(kept),
            Step::Begins(_) => {}
            Step::Ends(request) => self.ends(*request),
        }
    }

    fn begins(&self, kept: &Kept) {
        let request = kept.request.number;
        let writes = writes(&kept.body);
        let mut books = self.books();
        for (document, version, content) in writes {
            let others = books.on_their_way.entry(document).or_default();
            let is_doubtful = others.iter().any(|other| {
                other.request != request && other.version == version && other.content != content
            });
            others.push(Write { request, version, content });
            if is_doubtful {
                books.doubtful.insert((document, version));
            }
            books.requests.entry(request).or_default().push(document);
        }
    }

    fn ends(&self, request: u64) {
        let mut books = self.books();
        for document in books.requests.remove(&request).unwrap_or_default() {
            if let Some(writes) = books.on_their_way.get_mut(&document) {
                writes.retain(|write| write.request != request);
                if writes.is_empty() {
                    books.on_their_way.remove(&document);
                }
            }
        }
    }

    /// Whether the server may have carried out the writes of this document with this version in another order;
    /// for a document that is not there, of any version.
    pub(super) fn is_doubtful(&self, index: &str, id: &str, version: Option<u64>) -> bool {
        let document = document(&format!("{index}-write"), id);
        let books = self.books();
        match version {
            Some(version) => books.doubtful.contains(&(document, version)),
            None => books.doubtful.iter().any(|(other, _)| *other == document),
        }
    }

    /// Documents, once for each version, that may differ.
    pub(super) fn doubtful(&self) -> usize {
        self.books().doubtful.len()
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn document(alias: &str, id: &str) -> u64 {
    hash((alias, id))
}

/// Document, version and content of each item of a bulk.
fn writes(body: &[u8]) -> Vec<(u64, u64, u64)> {
    let mut lines = body.split(|byte| *byte == b'\n');
    let mut writes = Vec::new();
    while let Some(action) = lines.next() {
        let Ok(action) = serde_json::from_slice::<Value>(action) else { continue };
        let content = action.get("index").and_then(|_| lines.next());
        let item = action.get("index").or_else(|| action.get("delete"));
        let text = |name: &str| item.and_then(|item| item[name].as_str()).unwrap_or_default();
        let version = item.and_then(|item| item["version"].as_u64());
        if let Some(version) = version {
            writes.push((document(text("_index"), text("_id")), version, hash(content)));
        }
    }
    writes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_writes_of_one_version_that_are_on_their_way_together_are_doubtful() {
        let bulk = |number, version: u64, content: &str| {
            let action =
                json!({"index": {"_index": "t-000001-write", "_id": "7", "version": version}});
            Kept::of(number, format!("{action}\n{content}\n"))
        };
        let ledger = Ledger::default();
        for (number, version, content) in [(1, 5, "{}"), (2, 6, "{\"n\":1}"), (3, 6, "{\"n\":1}")] {
            ledger.note(&Step::Begins(&bulk(number, version, content)));
        }
        assert_eq!(ledger.doubtful(), 0);
        ledger.note(&Step::Ends(2));
        ledger.note(&Step::Ends(3));
        ledger.note(&Step::Begins(&bulk(4, 6, "{}")));
        assert_eq!(ledger.doubtful(), 0);
        ledger.note(&Step::Begins(&bulk(5, 5, "{\"n\":2}")));
        assert!(ledger.is_doubtful("t-000001", "7", Some(5)));
        assert!(!ledger.is_doubtful("t-000001", "7", Some(6)));
        assert!(ledger.is_doubtful("t-000001", "7", None));
        assert!(!ledger.is_doubtful("t-000001", "8", None));
    }
}
