//! A sealed bulk request, and the receipt that it becomes.
//!
//! A batch may be sent in parts, since no two of its items write the same document; but for a write and the
//! deletes before it where these were parted, of which the latter come first. What the server answers is applied
//! in [`super::settle`].

use std::ops::Range;

use bytes::Bytes;

use super::answer::Action;
use super::open::ENTRY_OVERHEAD_BYTES;
use super::pending::Pending;
use super::settle::Fate;

/// Position of a write among all writes of a run, ascending in change order.
pub type Sequence = u64;

/// One write as it stands in the body.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// What it does.
    pub action: Action,
    /// `"_index":…,"_id":…`, which names its document.
    pub name: &'a [u8],
    /// The rendered routing behind it, or nothing.
    pub routing: &'a [u8],
    /// Its version.
    pub version: i64,
    /// The document, one line of JSON; empty for a delete.
    pub document: &'a [u8],
    /// Whether it took the place of a write of the same transaction: another request may carry that one.
    pub rewrites: bool,
}

impl<'a> Item<'a> {
    fn read(pending: Pending, lines: &'a [u8]) -> Self {
        let (version, document) = pending.content(lines);
        let (name, routing) = (pending.name(lines), pending.routing(lines));
        let (action, rewrites) = (pending.action, pending.rewrites);
        Self { action, name, routing, version, document, rewrites }
    }

    /// The index or alias the item names.
    pub fn index(&self) -> &'a str {
        index_in(self.name)
    }
}

/// The index in a rendered `"_index":"…","_id":"…"`; names of indices need no escapes in JSON.
fn index_in(name: &[u8]) -> &str {
    let name = name.strip_prefix(b"\"_index\":\"").unwrap_or_default();
    let end = name.iter().position(|&byte| byte == b'"').unwrap_or(name.len());
    name.get(..end).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
}

/// A sealed request, or what is left of one: every item is still to be confirmed.
pub struct Batch {
    pub(super) body: Bytes,
    pub(super) entries: Vec<Pending>,
    pub(super) first: Sequence,
    pub(super) applied: u64,
    pub(super) superseded: u64,
    pub(super) dead_lettered: u64,
}

/// Proof that every item of a batch was confirmed.
#[derive(Debug)]
#[must_use = "the lane stays busy until its receipt is handed back"]
pub struct Receipt {
    first: Sequence,
    applied: u64,
    superseded: u64,
    dead_lettered: u64,
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

    /// Items whose dead letter is durable in their place.
    pub fn dead_lettered(&self) -> u64 {
        self.dead_lettered
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

/// What is left of a batch and waits apart, so that its lane can go on with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    first: Sequence,
    bytes: usize,
}

impl Parked {
    /// Number of the batch's first write.
    pub fn first(&self) -> Sequence {
        self.first
    }

    /// Bytes it still holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The first items of a batch, as one request. Not `Debug`: its body is made of column values.
#[derive(Clone)]
pub struct Head {
    /// How many.
    pub items: usize,
    /// The request's body.
    pub body: Bytes,
}

impl Batch {
    pub(super) fn new(body: Bytes, entries: Vec<Pending>, first: Sequence) -> Self {
        Self { body, entries, first, applied: 0, superseded: 0, dead_lettered: 0 }
    }

    /// The request's body, all items in one.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// Its first items: not more than so many, and one at least, whatever its size.
    pub fn head(&self, items_max: usize, bytes_max: usize) -> Head {
        let mut bytes = 0;
        let mut items = 0;
        for entry in self.entries.iter().take(items_max.max(1)) {
            if items > 0 && (entry.is_parted || bytes + entry.bytes > bytes_max) {
                break;
            }
            bytes += entry.bytes;
            items += 1;
        }
        Head { items, body: self.body.slice(..bytes.min(self.body.len())) }
    }

    /// Moves the items of indices that are `held` behind the others; how many others there are.
    pub fn hold_back(&mut self, held: impl Fn(&str) -> bool) -> usize {
        let fate = |index| if held(index) { Fate::Refused } else { Fate::Open };
        let fates: Vec<Fate> = self.indices().map(fate).collect();
        let others = fates.iter().filter(|&&fate| fate == Fate::Open).count();
        if !fates.is_sorted_by_key(|&fate| fate == Fate::Refused) {
            *self = self.only(Fate::Open, &fates).with(self.only(Fate::Refused, &fates));
        }
        others
    }

    /// With a body of its own: what is left after an answer is a part of the whole request's, and would hold
    /// all of it in memory while it waits.
    pub fn compacted(self) -> Self {
        Self { body: Bytes::copy_from_slice(&self.body), ..self }
    }

    /// Notes that it waits apart; it should be [`Batch::compacted`].
    pub fn parked(&self) -> Parked {
        let bytes = self.body.len() + self.entries.len() * ENTRY_OVERHEAD_BYTES;
        Parked { first: self.first, bytes }
    }

    /// How many items are still to be confirmed.
    pub fn items(&self) -> usize {
        self.entries.len()
    }

    /// Each item that is still to be confirmed.
    pub fn each(&self) -> impl ExactSizeIterator<Item = Item<'_>> {
        self.lines().map(|(entry, lines)| Item::read(entry, lines))
    }

    /// The index that each names, which is less to read.
    fn indices(&self) -> impl Iterator<Item = &str> {
        self.lines().map(|(entry, lines)| index_in(entry.name(lines)))
    }

    /// Each entry with its lines.
    pub(super) fn lines(&self) -> impl ExactSizeIterator<Item = (Pending, &[u8])> {
        let lines = |range| self.body.get(range).unwrap_or_default();
        self.entries.iter().zip(self.ranges()).map(move |(entry, range)| (*entry, lines(range)))
    }

    /// Action and index of each line of the first `items`.
    pub(super) fn sent(&self, items: usize) -> Vec<(Action, &str)> {
        let mut sent = Vec::with_capacity(items);
        for (entry, lines) in self.lines().take(items) {
            let index = index_in(entry.name(lines));
            sent.extend((0..entry.leads(lines)).map(|_| (Action::Delete, index)));
            sent.push((entry.action, index));
        }
        sent
    }

    /// Whether any of the first `items` is of several lines.
    pub(super) fn has_leads(&self, items: usize) -> bool {
        self.entries.iter().take(items).any(Pending::has_leads)
    }

    /// Parts the first item, if it can be.
    pub(super) fn part_first(&mut self) -> bool {
        let parted = self.lines().next().and_then(|(first, lines)| first.parted(lines));
        let Some((leads, write)) = parted else { return false };
        self.entries.splice(..1, [leads, write]);
        true
    }

    fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> {
        let mut end = 0;
        self.entries.iter().map(move |entry| {
            let start = end;
            end += entry.bytes;
            start..end
        })
    }

    /// Number of its first write.
    pub fn first(&self) -> Sequence {
        self.first
    }

    /// Gives up on confirmation: for a dry run, which writes nowhere and acknowledges nothing.
    pub fn printed(self) -> Printed {
        Printed { first: self.first }
    }

    /// These items and those of `rest`, which is of the same batch.
    pub(super) fn with(self, rest: Self) -> Self {
        let body = Bytes::from([self.body, rest.body].concat());
        let entries = [self.entries, rest.entries].concat();
        Self { body, entries, ..rest }
    }

    /// The items of one fate.
    pub(super) fn only(&self, wanted: Fate, fates: &[Fate]) -> Self {
        let (body, entries) = if fates.iter().all(|&fate| fate != wanted) {
            // What was not sent yet is a tail of the body, and need not be copied.
            self.tail(if wanted == Fate::Open { fates.len() } else { self.entries.len() })
        } else if wanted == Fate::Open && fates.iter().all(|&fate| fate == wanted) {
            (self.body.clone(), self.entries.clone())
        } else {
            self.copied(wanted, fates)
        };
        let Self { first, applied, superseded, dead_lettered, .. } = *self;
        Self { body, entries, first, applied, superseded, dead_lettered }
    }

    fn tail(&self, from: usize) -> (Bytes, Vec<Pending>) {
        let (before, after) = self.entries.split_at(from.min(self.entries.len()));
        let start: usize = before.iter().map(|entry| entry.bytes).sum();
        (self.body.slice(start.min(self.body.len())..), after.to_vec())
    }

    fn copied(&self, wanted: Fate, fates: &[Fate]) -> (Bytes, Vec<Pending>) {
        let fates = fates.iter().copied().chain(std::iter::repeat(Fate::Open));
        let mut body = Vec::new();
        let mut entries = Vec::new();
        for ((entry, range), fate) in self.entries.iter().zip(self.ranges()).zip(fates) {
            if fate == wanted {
                body.extend_from_slice(self.body.get(range).unwrap_or_default());
                entries.push(*entry);
            }
        }
        (Bytes::from(body), entries)
    }

    pub(super) fn receipt(self) -> Receipt {
        assert!(self.entries.is_empty(), "a receipt is for a batch whose every item is confirmed");
        Receipt {
            first: self.first,
            applied: self.applied,
            superseded: self.superseded,
            dead_lettered: self.dead_lettered,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::open::OpenBatch;
    use super::super::settle::Settled;
    use super::super::write::Write;
    use super::*;

    pub(in crate::bulk) fn batch(items: &[(Action, &str, i64, &str)]) -> Batch {
        let mut batch = OpenBatch::new(0);
        for (action, id, version, document) in items {
            let name = format!(r#""_index":"i-write","_id":"{id}""#);
            batch.push(&match action {
                Action::Index => Write::index(name.as_bytes(), *version, document.as_bytes()),
                Action::Delete => Write::delete(name.as_bytes(), *version),
            });
        }
        batch.seal()
    }

    pub(in crate::bulk) fn three() -> Batch {
        batch(&[
            (Action::Index, "1", 10, r#"{"a":1}"#),
            (Action::Delete, "2", 10, ""),
            (Action::Index, "3", 11, r#"{"a":3}"#),
        ])
    }

    #[test]
    fn items_are_read_back_from_the_body() {
        let batch = three();
        let items: Vec<Item<'_>> = batch.each().collect();
        assert_eq!(items[0].document, br#"{"a":1}"#);
        assert_eq!((items[1].action, items[1].version), (Action::Delete, 10));
        assert_eq!(items[1].document, b"");
        assert_eq!(items[2].name, br#""_index":"i-write","_id":"3""#);
        assert_eq!((items[2].index(), items[2].version), ("i-write", 11));
    }

    #[test]
    fn items_of_an_index_that_is_held_come_last_in_their_order() {
        let mut open = OpenBatch::new(9);
        for (index, id) in [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)] {
            let name = format!(r#""_index":"{index}","_id":"{id}""#);
            open.push(&Write::delete(name.as_bytes(), 1));
        }
        let mut batch = open.seal();
        let body = batch.body();
        assert_eq!((batch.hold_back(|_| false), batch.hold_back(|_| true)), (5, 0));
        assert_eq!(batch.body(), body);
        assert_eq!(batch.hold_back(|index| index == "a"), 2);
        let order: Vec<String> = batch.each().map(|item| key_id(item.name)).collect();
        assert_eq!(order, ["2", "4", "1", "3", "5"]);
        assert_eq!((batch.parked().first(), batch.items()), (9, 5));
    }

    #[test]
    fn what_waits_does_not_hold_the_body_of_what_is_confirmed() {
        let batch = three();
        let whole = batch.body();
        let answer = br#"{"items":[{"index":{"status":201}},{"delete":{"status":200}}]}"#;
        let Ok(Settled::Again { rest, .. }) = batch.settle_head(2, answer) else { panic!() };
        let (left, rest) = (rest.body(), rest.compacted());
        assert_eq!(rest.body(), left);
        assert!(whole.as_ptr_range().contains(&left.as_ptr()), "a part of the whole");
        assert!(!whole.as_ptr_range().contains(&rest.body().as_ptr()));
        assert!(rest.parked().bytes() < whole.len());
    }

    fn key_id(name: &[u8]) -> String {
        String::from_utf8(name.to_vec()).unwrap().chars().filter(char::is_ascii_digit).collect()
    }

    #[test]
    fn one_item_is_sent_however_large_it_is() {
        let batch = three();
        assert_eq!(batch.head(10, 1).items, 1);
        assert_eq!(batch.head(0, usize::MAX).items, 1);
        assert_eq!(batch.head(10, usize::MAX).body, batch.body());
        let two = batch.head(10, batch.body().len() - 1);
        assert_eq!(two.items, 2);
        assert!(two.body.ends_with(b"\"external_gte\"}}\n"));
    }
}
