//! A bulk request while writes are added to it.
//!
//! An [`OpenBatch`] holds one body buffer, into which documents are written in place. A later write of
//! the same document takes an earlier one's place: with two of them in one request, a retry of only the
//! first could land after the second, and inside one transaction both carry the same version. What the earlier
//! one has left, or where it stood, the later one deletes first.

use std::hash::Hasher;
use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashTable;

use super::batch::{Batch, Sequence};
use super::pending::Pending;
use super::write::Write;

/// What an entry costs beside its bytes in the body.
pub const ENTRY_OVERHEAD_BYTES: usize = size_of::<Entry>() + size_of::<u32>() * 2;

struct Entry {
    write: Pending,
    /// Where its lines begin in the body.
    start: usize,
    hash: u64,
    version: i64,
    superseded: bool,
}

impl Entry {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.write.bytes
    }

    fn lines<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        body.get(self.range()).unwrap_or_default()
    }
}

/// Writes that wait for company.
pub struct OpenBatch {
    body: Vec<u8>,
    entries: Vec<Entry>,
    /// Entry of each document, found by hash and compared by its name in the body.
    by_name: HashTable<usize>,
    superseded: usize,
    first: Sequence,
}

/// The hash by which documents are told apart and spread over lanes; the same in every run.
pub fn document_hash(name: &[u8]) -> u64 {
    // SipHash with fixed keys: ids come from users.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(name);
    hasher.finish()
}

impl OpenBatch {
    /// An empty batch whose first write will be number `first`.
    pub fn new(first: Sequence) -> Self {
        Self {
            body: Vec::new(),
            entries: Vec::new(),
            by_name: HashTable::new(),
            superseded: 0,
            first,
        }
    }

    /// Adds a write.
    pub fn push(&mut self, write: &Write<'_>) {
        let left = if write.routing.is_empty() { Vec::new() } else { self.left_by(write) };
        let start = self.body.len();
        let (hash, version) = (write.hash, write.version);
        let write = Pending::write(write, &left, &mut self.body);
        self.remember(Entry { write, start, hash, version, superseded: false });
    }

    /// The routings that the document must be deleted under: the one that the row leaves, and those that an
    /// earlier write of this batch has left or has written it to.
    fn left_by(&self, write: &Write<'_>) -> Vec<Vec<u8>> {
        let mut left: Vec<Vec<u8>> = Vec::new();
        let mut leave = |routing: &[u8]| {
            let is_new = left.iter().all(|known| known != routing);
            if !routing.is_empty() && routing != write.routing && is_new {
                left.push(routing.to_vec());
            }
        };
        let name_of = |number: &usize| name_of(&self.body, &self.entries, *number);
        let earlier = self.by_name.find(write.hash, |other| name_of(other) == Some(write.name));
        if let Some(earlier) = earlier.and_then(|&number| self.entries.get(number)) {
            let lines = earlier.lines(&self.body);
            earlier.write.left(lines).for_each(&mut leave);
            leave(earlier.write.routing(lines));
        }
        leave(write.left);
        left
    }

    fn remember(&mut self, mut entry: Entry) {
        let number = self.entries.len();
        let hash = entry.hash;
        let body = &self.body;
        let entries = &self.entries;
        let name = entry.write.name(entry.lines(body));
        let earlier =
            self.by_name.find_mut(hash, |&other| name_of(body, entries, other) == Some(name));
        match earlier {
            Some(slot) => {
                let earlier = std::mem::replace(slot, number);
                if let Some(earlier) = self.entries.get_mut(earlier) {
                    entry.write.rewrites = earlier.version == entry.version;
                    earlier.superseded = true;
                    self.superseded += 1;
                }
            }
            None => {
                self.by_name.insert_unique(hash, number, |&other| {
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

    /// Bytes a write would add to the body, at most, apart from what an earlier one has left.
    pub fn cost(write: &Write<'_>) -> usize {
        Pending::cost(write)
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
        let entries = self.entries.iter().map(|entry| entry.write).collect();
        Batch::new(Bytes::from(self.body), entries, self.first)
    }

    fn cut_superseded(&mut self) {
        let mut end = 0;
        for entry in self.entries.iter_mut().filter(|entry| !entry.superseded) {
            self.body.copy_within(entry.range(), end);
            entry.start = end;
            end += entry.write.bytes;
        }
        self.body.truncate(end);
        self.entries.retain(|entry| !entry.superseded);
    }
}

fn name_of<'a>(body: &'a [u8], entries: &[Entry], number: usize) -> Option<&'a [u8]> {
    let entry = entries.get(number)?;
    Some(entry.write.name(entry.lines(body)))
}

#[cfg(test)]
mod tests {
    use super::super::answer::Action;
    use super::*;

    fn push(batch: &mut OpenBatch, action: Action, id: &str, version: i64, document: &str) {
        let name = format!(r#""_index":"i","_id":"{id}""#);
        batch.push(&match action {
            Action::Index => Write::index(name.as_bytes(), version, document.as_bytes()),
            Action::Delete => Write::delete(name.as_bytes(), version),
        });
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
}
