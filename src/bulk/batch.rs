//! A bulk request from its first document to its receipt.
//!
//! An [`OpenBatch`] holds one body buffer, into which documents are written in place. A later write of
//! the same document takes an earlier one's place: with two of them in one request, a retry of only the
//! first could land after the second, and inside one transaction both carry the same version.
//! A sealed [`Batch`] is consumed by [`Batch::settle`], which gives either a [`Receipt`] or a smaller
//! batch of what is still to be confirmed. Nothing else makes a receipt.

use std::hash::Hasher;
use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashTable;

use super::answer::{self, Action, AnswerError, Outcome, Rejection};

/// What an entry costs beside its bytes in the body.
pub const ENTRY_OVERHEAD_BYTES: usize = size_of::<Entry>() + size_of::<u32>() * 2;

/// The action line around its key, with the longest version.
const ACTION_LINE_BYTES_MAX: usize = 80;

/// Position of a write among all writes of a run, ascending in change order.
pub type Sequence = u64;

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
        self.body.extend_from_slice(match action {
            Action::Index => b"{\"index\":{",
            Action::Delete => b"{\"delete\":{",
        });
        let key_start = self.body.len();
        self.body.extend_from_slice(key);
        let key_range = key_start..self.body.len();
        self.body.extend_from_slice(b",\"version\":");
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
            .map(|entry| Pending { action: entry.action, bytes: entry.lines.len() })
            .collect();
        Batch {
            body: Bytes::from(self.body),
            entries,
            first: self.first,
            applied: 0,
            superseded: 0,
        }
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

#[derive(Clone, Copy)]
struct Pending {
    action: Action,
    /// Length of its lines in the body.
    bytes: usize,
}

/// A sealed request, or what is left of one: every item is still to be confirmed.
pub struct Batch {
    body: Bytes,
    entries: Vec<Pending>,
    first: Sequence,
    applied: u64,
    superseded: u64,
}

/// Proof that every item of a batch was confirmed.
#[derive(Debug)]
#[must_use = "the lane stays busy until its receipt is handed back"]
pub struct Receipt {
    first: Sequence,
    applied: u64,
    superseded: u64,
}

impl Receipt {
    /// Number of the batch's first write.
    pub fn first(&self) -> Sequence {
        self.first
    }

    /// Items the server wrote or removed.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Items for which the server held something newer.
    pub fn superseded(&self) -> u64 {
        self.superseded
    }
}

/// A batch that was printed instead of sent: frees its lane, proves nothing.
#[derive(Debug)]
pub struct Printed {
    first: Sequence,
}

impl Printed {
    /// Number of the batch's first write.
    pub fn first(&self) -> Sequence {
        self.first
    }
}

/// What an answer made of a batch.
pub enum Settled {
    /// Every item is confirmed.
    Done(Receipt),
    /// The items in `rest` are to be sent again.
    Again {
        /// What is still to be confirmed.
        rest: Batch,
        /// HTTP status of the first item to retry.
        status: u16,
        /// Its error's type.
        kind: String,
    },
    /// An item was refused for good; it is still part of `rest`.
    Refused {
        /// What is still to be confirmed, the refused item included.
        rest: Batch,
        /// Why.
        rejection: Rejection,
    },
}

impl Batch {
    /// The request's body.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// Items in it.
    pub fn items(&self) -> usize {
        self.entries.len()
    }

    /// Number of its first write.
    pub fn first(&self) -> Sequence {
        self.first
    }

    /// Gives up on confirmation: for a dry run, which writes nowhere and acknowledges nothing.
    pub fn printed(self) -> Printed {
        Printed { first: self.first }
    }

    /// Applies an answer. An answer that does not match gives the batch back whole: any subset of its
    /// items may have been applied, and sending all of them again is harmless.
    pub fn settle(mut self, answer: &[u8]) -> Result<Settled, (Self, AnswerError)> {
        let actions = self.entries.iter().map(|entry| entry.action);
        let outcomes = match answer::outcomes(answer, actions) {
            Ok(outcomes) => outcomes,
            Err(error) => return Err((self, error)),
        };
        let mut rejection = None;
        let mut retry = None;
        let mut keep = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let open = match outcome {
                Outcome::Applied | Outcome::AlreadyGone => {
                    self.applied += 1;
                    false
                }
                Outcome::Superseded => {
                    self.superseded += 1;
                    false
                }
                Outcome::Retry { status, kind } => {
                    retry.get_or_insert((status, kind));
                    true
                }
                Outcome::Rejected(reason) => {
                    rejection.get_or_insert(reason);
                    true
                }
            };
            keep.push(open);
        }
        Ok(match (rejection, retry) {
            (None, None) => Settled::Done(Receipt {
                first: self.first,
                applied: self.applied,
                superseded: self.superseded,
            }),
            (Some(rejection), _) => Settled::Refused { rest: self.only(&keep), rejection },
            (None, Some((status, kind))) => Settled::Again { rest: self.only(&keep), status, kind },
        })
    }

    fn only(self, keep: &[bool]) -> Self {
        if keep.iter().all(|&keep| keep) {
            return self;
        }
        let mut body = Vec::new();
        let mut entries = Vec::new();
        let mut rest = self.body;
        for (entry, &keep) in self.entries.iter().zip(keep) {
            let lines = rest.split_to(entry.bytes);
            if keep {
                body.extend_from_slice(&lines);
                entries.push(*entry);
            }
        }
        Self { body: Bytes::from(body), entries, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batch: &mut OpenBatch, action: Action, id: &str, version: i64, document: &str) {
        let key = format!(r#""_index":"i","_id":"{id}""#);
        let hash = document_hash(key.as_bytes());
        batch.push(action, key.as_bytes(), hash, version, document.as_bytes());
    }

    fn three() -> Batch {
        let mut batch = OpenBatch::new(0);
        push(&mut batch, Action::Index, "1", 10, r#"{"a":1}"#);
        push(&mut batch, Action::Delete, "2", 10, "");
        push(&mut batch, Action::Index, "3", 11, r#"{"a":3}"#);
        batch.seal()
    }

    #[test]
    fn the_body_is_the_documented_ndjson() {
        let expected = concat!(
            r#"{"index":{"_index":"i","_id":"1","version":10,"version_type":"external_gte"}}"#,
            "\n{\"a\":1}\n",
            r#"{"delete":{"_index":"i","_id":"2","version":10,"version_type":"external_gte"}}"#,
            "\n",
            r#"{"index":{"_index":"i","_id":"3","version":11,"version_type":"external_gte"}}"#,
            "\n{\"a\":3}\n",
        );
        assert_eq!(three().body(), expected.as_bytes());
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
    fn only_what_the_server_could_not_do_is_sent_again() {
        let answer = br#"{"items":[{"index":{"status":201}},{"delete":{"status":429,
            "error":{"type":"es_rejected_execution_exception"}}},{"index":{"status":409}}]}"#;
        let Ok(Settled::Again { rest, status, .. }) = three().settle(answer) else { panic!() };
        assert_eq!((rest.items(), status), (1, 429));
        assert!(rest.body().starts_with(br#"{"delete":{"_index":"i","_id":"2""#));
        let Ok(Settled::Done(receipt)) = rest.settle(br#"{"items":[{"delete":{"status":404}}]}"#)
        else {
            panic!()
        };
        assert_eq!((receipt.applied(), receipt.superseded()), (2, 1));
    }

    #[test]
    fn a_refused_item_gives_no_receipt() {
        let answer = br#"{"items":[{"index":{"status":201}},{"delete":{"status":200}},
            {"index":{"status":400,"error":{"type":"document_parsing_exception"}}}]}"#;
        match three().settle(answer) {
            Ok(Settled::Refused { rest, rejection }) => {
                assert_eq!((rest.items(), rejection.status), (1, 400));
            }
            _ => panic!("must be refused"),
        }
    }

    #[test]
    fn an_unmatched_answer_gives_the_batch_back_whole() {
        let answer = br#"{"items":[{"index":{"status":201}}]}"#;
        match three().settle(answer) {
            Err((batch, AnswerError::WrongCount { sent: 3, answered: 1 })) => {
                assert_eq!(batch.items(), 3);
            }
            _ => panic!("must be unknown"),
        }
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
