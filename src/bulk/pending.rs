//! How the lines of one write lie in a body, and what is read back from them.
//!
//! First a delete for each routing that the row has left, then the write itself: `{"index":{` or `{"delete":{`,
//! the document's name, its routing if it has one, its version, and of an index the document on a line of its
//! own. All are of one document and one version, and go together: sent alone, a delete that got no answer could
//! still be carried out after the write, on the same shard.

use super::answer::Action;
use super::write::Write;

/// Between key and version in the action line.
const VERSION_NAME: &[u8] = b",\"version\":";
const LINE_END: &[u8] = b",\"version_type\":\"external_gte\"}}\n";

/// The action line around its key, with the longest version.
const ACTION_LINE_BYTES_MAX: usize = 80;

/// A write in a body that is not confirmed.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) action: Action,
    /// Length of all its lines.
    pub(super) bytes: usize,
    /// Length of those deletes that come first.
    lead_bytes: usize,
    /// Length of its rendered `"_index":…,"_id":…`.
    name_bytes: usize,
    /// Length of the rendered routing behind it.
    routing_bytes: usize,
    /// Whether it took the place of a write of the same transaction.
    pub(super) rewrites: bool,
    /// How often the server refused it.
    pub(super) refusals: u8,
    /// What had to come first must be confirmed before: it is never sent behind something else.
    pub(super) is_parted: bool,
}

impl Pending {
    /// Appends the lines of `write`, which leaves these routings.
    pub(super) fn write(write: &Write<'_>, left: &[Vec<u8>], body: &mut Vec<u8>) -> Self {
        let start = body.len();
        for routing in left {
            write_line(Action::Delete, write.name, routing, write.version, body);
        }
        let lead_bytes = body.len() - start;
        write_line(write.action, write.name, write.routing, write.version, body);
        if write.action == Action::Index {
            body.extend_from_slice(write.document);
            body.push(b'\n');
        }
        Self {
            action: write.action,
            bytes: body.len() - start,
            lead_bytes,
            name_bytes: write.name.len(),
            routing_bytes: write.routing.len(),
            rewrites: false,
            refusals: 0,
            is_parted: false,
        }
    }

    /// Bytes that a write adds to a body, at most, apart from what an earlier one of its document has left.
    pub(super) fn cost(write: &Write<'_>) -> usize {
        let line = ACTION_LINE_BYTES_MAX + write.name.len();
        let lead = if write.left.is_empty() { 0 } else { line + write.left.len() };
        lead + line + write.routing.len() + write.document.len()
    }

    /// Its rendered `"_index":…,"_id":…`, in its lines.
    pub(super) fn name(self, lines: &[u8]) -> &[u8] {
        let start = self.lead_bytes + self.action.line_start().len();
        lines.get(start..start + self.name_bytes).unwrap_or_default()
    }

    /// What follows the name up to the version.
    pub(super) fn routing(self, lines: &[u8]) -> &[u8] {
        let start = self.lead_bytes + self.action.line_start().len() + self.name_bytes;
        lines.get(start..start + self.routing_bytes).unwrap_or_default()
    }

    /// Whether deletes come first.
    pub(super) fn has_leads(&self) -> bool {
        self.lead_bytes > 0
    }

    /// How many deletes come first.
    pub(super) fn leads(self, lines: &[u8]) -> usize {
        self.lead_lines(lines).count()
    }

    /// The routings of these deletes.
    pub(super) fn left(self, lines: &[u8]) -> impl Iterator<Item = &[u8]> {
        let start = Action::Delete.line_start().len() + self.name_bytes;
        self.lead_lines(lines).map(move |line| {
            let rest = line.get(start..).unwrap_or_default();
            // Inside a routing a quote has a backslash before it, so this is its end.
            let end = rest.windows(VERSION_NAME.len()).position(|found| found == VERSION_NAME);
            rest.get(..end.unwrap_or(0)).unwrap_or_default()
        })
    }

    fn lead_lines(self, lines: &[u8]) -> impl Iterator<Item = &[u8]> {
        let leads = lines.get(..self.lead_bytes).unwrap_or_default();
        leads.split_inclusive(|&byte| byte == b'\n')
    }

    /// The version, and the document or nothing.
    pub(super) fn content(self, lines: &[u8]) -> (i64, &[u8]) {
        let key_end = self.lead_bytes + self.action.line_start().len() + self.name_bytes;
        let start = key_end + self.routing_bytes + VERSION_NAME.len();
        let rest = lines.get(start..).unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = rest.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
        let version = digits.and_then(|digits| digits.parse().ok()).unwrap_or_default();
        let line_end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let document = rest.get(line_end + 1..).and_then(|line| line.strip_suffix(b"\n"));
        (version, document.unwrap_or_default())
    }

    /// Parts the deletes that come first from the write, which goes alone from then on; none if there are none.
    pub(super) fn parted(self, lines: &[u8]) -> Option<(Self, Self)> {
        let last = self.lead_lines(lines).last()?;
        let routing_bytes = self.left(lines).last().map_or(0, <[u8]>::len);
        let leads = Self {
            action: Action::Delete,
            bytes: self.lead_bytes,
            lead_bytes: self.lead_bytes - last.len(),
            routing_bytes,
            refusals: 0,
            ..self
        };
        let bytes = self.bytes - self.lead_bytes;
        Some((leads, Self { bytes, lead_bytes: 0, is_parted: true, ..self }))
    }
}

fn write_line(action: Action, name: &[u8], routing: &[u8], version: i64, body: &mut Vec<u8>) {
    body.extend_from_slice(action.line_start());
    body.extend_from_slice(name);
    body.extend_from_slice(routing);
    body.extend_from_slice(VERSION_NAME);
    push_decimal(body, version);
    body.extend_from_slice(LINE_END);
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

    const NAME: &[u8] = br#""_index":"i","_id":"1""#;

    fn routing(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        super::super::write::write_routing(text.as_bytes(), &mut out);
        out
    }

    #[test]
    fn everything_is_read_back() {
        let (a, b, c) = (routing("a\",\"version\":1"), routing("b"), routing(""));
        let write = Write::index(NAME, 7, br#"{"v":1}"#).routed(&c);
        let mut body = Vec::new();
        let pending = Pending::write(&write, &[a.clone(), b.clone()], &mut body);
        assert_eq!(pending.left(&body).collect::<Vec<_>>(), [a.as_slice(), &b]);
        assert_eq!((pending.leads(&body), pending.bytes), (2, body.len()));
        assert_eq!((pending.name(&body), pending.routing(&body)), (NAME, c.as_slice()));
        assert_eq!(pending.content(&body), (7, br#"{"v":1}"#.as_slice()));
    }

    #[test]
    fn parted_each_is_a_write_of_its_own() {
        let (a, b, c) = (routing("a"), routing("bb"), routing("ccc"));
        let write = Write::index(NAME, 7, b"{}").routed(&c);
        let mut body = Vec::new();
        let pending = Pending::write(&write, &[a.clone(), b.clone()], &mut body);
        let (leads, write) = pending.parted(&body).unwrap();
        let (of_leads, of_write) = body.split_at(leads.bytes);
        assert_eq!((leads.action, leads.routing(of_leads)), (Action::Delete, b.as_slice()));
        assert_eq!(leads.left(of_leads).collect::<Vec<_>>(), [a]);
        assert_eq!(leads.content(of_leads), (7, b"".as_slice()));
        assert_eq!((write.action, write.routing(of_write)), (Action::Index, c.as_slice()));
        assert_eq!(write.content(of_write), (7, b"{}".as_slice()));
        assert_eq!((write.bytes, write.name(of_write)), (of_write.len(), NAME));
        assert!(write.is_parted && write.parted(of_write).is_none());
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
