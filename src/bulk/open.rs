//! A bulk request while writes are added to it.
//!
//! An [`OpenBatch`] holds one body buffer, into which documents are written in place. A later write of
//! the same document takes an earlier one's place: with two of them in one request, a retry of only the
//! first could land after the second, and inside one transaction both carry the same version.

use std::hash::Hasher;
use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashTable;

use super::answer::Action;
use super::batch::{Batch, Pending, Sequence};

/// What an entry costs beside its bytes in the body.
pub const ENTRY_OVERHEAD_BYTES: usize = size_of::<Entry>() + size_of::<u32>() * 2;

/// Between key and version in the action line.
pub(super) const VERSION_NAME: &[u8] = b",\"version\":";

/// The action line around its key, with the longest version.
const ACTION_LINE_BYTES_MAX: usize = 80;

struct Entry {
    action: Action,
    /// Where the entry's lines stand in the body.
    lines: Range<usize>,
    /// Where the rendered `"_index":…,"_id":…` stands in the body: names the document.
    key: Range<usize>,
    hash: u64,
    superseded: bool,
}

/// Writes that wait for company.
pub struct OpenBatch {
    body: Vec<u8>,
    entries: Vec<Entry>,
    /// Entry of each document, found by hash and compared by its key in the body.
    by_key: HashTable<usize>,
    superseded: usize,
    first: Sequence,
}

/// The hash by which documents are told apart and spread over lanes; the same in every run.
pub fn document_hash(key: &[u8]) -> u64 {
    // SipHash with fixed keys: ids come from users.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

impl OpenBatch {
    /// An empty batch whose first write will be number `first`.
    pub fn new(first: Sequence) -> Self {
        Self {
            body: Vec::new(),
            entries: Vec::new(),
            by_key: HashTable::new(),
            superseded: 0,
            first,
        }
    }

    /// Adds a write of the document named by `key` (the rendered `"_index":…,"_id":…`, with its
    /// [`document_hash`]). `document` is one line of JSON, empty for a delete.
    pub fn push(&mut self, action: Action, key: &[u8], hash: u64, version: i64, document: &[u8]) {
        let start = self.body.len();
        self.body.extend_from_slice(action.line_start());
        let key_start = self.body.len();
        self.body.extend_from_slice(key);
        let key_range = key_start..self.body.len();
        self.body.extend_from_slice(VERSION_NAME);
        push_decimal(&mut self.body, version);
        self.body.extend_from_slice(b",\"version_type\":\"external_gte\"}}\n");
        if action == Action::Index {
            self.body.extend_from_slice(document);
            self.body.push(b'\n');
        }
        let lines = start..self.body.len();
        self.remember(Entry { action, lines, key: key_range, hash, superseded: false });
    }

    fn remember(&mut self, entry: Entry) {
        let number = self.entries.len();
        let hash = entry.hash;
        let body = &self.body;
        let entries = &self.entries;
        let earlier = self
            .by_key
            .find_mut(hash, |&other| key_of(body, entries, other) == body.get(entry.key.clone()));
        match earlier {
            Some(slot) => {
                let earlier = std::mem::replace(slot, number);
                if let Some(earlier) = self.entries.get_mut(earlier) {
                    earlier.superseded = true;
                    self.superseded += 1;
                }
            }
            None => {
                self.by_key.insert_unique(hash, number, |&other| {
                    entries.get(other).map_or(0, |entry| entry.hash)
                });
            }
        }
        self.entries.push(entry);
    }

    /// Documents the request would carry.
    pub fn documents(&self) -> usize {
        self.entries.len() - self.superseded
    }

    /// Bytes a write would add to the body, at most.
    pub fn cost(key: &[u8], document: &[u8]) -> usize {
        ACTION_LINE_BYTES_MAX + key.len() + document.len()
    }

    /// Bytes held: the body and what the entries cost.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.entries.len() * ENTRY_OVERHEAD_BYTES
    }

    /// Bytes of the body so far.
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Number of the first write in it.
    pub fn first(&self) -> Sequence {
        self.first
    }

    /// Closes the batch; superseded writes are cut out of the body.
    pub fn seal(mut self) -> Batch {
        if self.superseded > 0 {
            self.cut_superseded();
        }
        let entries = self
            .entries
            .iter()
            .map(|entry| Pending::new(entry.action, entry.lines.len(), entry.key.len()))
            .collect();
        Batch::new(Bytes::from(self.body), entries, self.first)
    }

    fn cut_superseded(&mut self) {
        let mut end = 0;
        for entry in self.entries.iter_mut().filter(|entry| !entry.superseded) {
            let length = entry.lines.len();
            self.body.copy_within(entry.lines.clone(), end);
            entry.lines = end..end + length;
            end += length;
        }
        self.body.truncate(end);
        self.entries.retain(|entry| !entry.superseded);
    }
}

fn key_of<'a>(body: &'a [u8], entries: &[Entry], number: usize) -> Option<&'a [u8]> {
    body.get(entries.get(number)?.key.clone())
}

fn push_decimal(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0_u8; 20];
    let mut rest = number.unsigned_abs();
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[digits.len() - used..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batch: &mut OpenBatch, action: Action, id: &str, version: i64, document: &str) {
        let key = format!(r#""_index":"i","_id":"{id}""#);
        let hash = document_hash(key.as_bytes());
        batch.push(action, key.as_bytes(), hash, version, document.as_bytes());
    }

    #[test]
    fn the_body_is_the_documented_ndjson() {
        let mut batch = OpenBatch::new(0);
        push(&mut batch, Action::Index, "1", 10, r#"{"a":1}"#);
        push(&mut batch, Action::Delete, "2", 10, "");
        push(&mut batch, Action::Index, "3", 11, r#"{"a":3}"#);
        let expected = concat!(
            r#"{"index":{"_index":"i","_id":"1","version":10,"version_type":"external_gte"}}"#,
            "\n{\"a\":1}\n",
            r#"{"delete":{"_index":"i","_id":"2","version":10,"version_type":"external_gte"}}"#,
            "\n",
            r#"{"index":{"_index":"i","_id":"3","version":11,"version_type":"external_gte"}}"#,
            "\n{\"a\":3}\n",
        );
        assert_eq!(batch.seal().body(), expected.as_bytes());
    }

    #[test]
    fn a_later_write_of_a_document_takes_the_place_of_the_earlier() {
        let mut batch = OpenBatch::new(0);
        for version in 0..5 {
            push(&mut batch, Action::Index, "1", version, &format!(r#"{{"v":{version}}}"#));
            push(&mut batch, Action::Index, &format!("x{version}"), version, "{}");
        }
        push(&mut batch, Action::Delete, "1", 5, "");
        assert_eq!(batch.documents(), 6);
        let body = String::from_utf8(batch.seal().body().to_vec()).unwrap();
        assert_eq!(body.matches(r#""_id":"1""#).count(), 1);
        assert!(body.contains(r#"{"delete":{"_index":"i","_id":"1","version":5"#));
        assert!(!body.contains(r#"{"v":"#));
    }

    #[test]
    fn versions_are_written_as_decimals() {
        for number in [0, 7, 10, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
