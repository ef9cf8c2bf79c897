//! The text form of COPY (PostgreSQL docs, "COPY", File Formats): a line a row, fields between
//! tabs, `\N` for NULL, backslash escapes. A raw newline never stands inside a row.
//!
//! Pure. What is given back are the bytes that the type's output function printed, the same as the
//! replication stream carries.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};

/// Cuts chunks of COPY data into lines. Postgres sends one line a message, but the protocol does
/// not promise it. Not `Debug`: it holds column values.
#[derive(Default)]
pub struct LineSplitter {
    ready: Bytes,
    /// The start of a line whose end has not come.
    partial: BytesMut,
}

impl LineSplitter {
    /// Adds what was received; call it when [`LineSplitter::next_line`] has nothing more.
    pub fn push(&mut self, chunk: Bytes) {
        if self.ready.is_empty() {
            self.ready = chunk;
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut self.ready));
            joined.extend_from_slice(&chunk);
            self.ready = joined.freeze();
        }
    }

    /// The next complete line without its newline.
    pub fn next_line(&mut self) -> Option<Bytes> {
        let Some(end) = self.ready.iter().position(|&byte| byte == b'\n') else {
            self.partial.extend_from_slice(&self.ready);
            self.ready.clear();
            return None;
        };
        let line = self.ready.split_to(end);
        self.ready.advance(1);
        if self.partial.is_empty() {
            return Some(line);
        }
        self.partial.extend_from_slice(&line);
        Some(self.partial.split().freeze())
    }

    /// Whether everything received has been given out as lines; anything else at the end of the
    /// data means that it was cut off.
    pub fn is_drained(&self) -> bool {
        self.ready.is_empty() && self.partial.is_empty()
    }
}

/// The fields of one line, in order; `None` is NULL. A field without escapes is borrowed.
pub fn fields(line: &[u8]) -> impl Iterator<Item = Option<Cow<'_, [u8]>>> {
    line.split(|&byte| byte == b'\t').map(field)
}

fn field(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    if raw == b"\\N" {
        None
    } else if raw.contains(&b'\\') {
        Some(Cow::Owned(unescape(raw)))
    } else {
        Some(Cow::Borrowed(raw))
    }
}

/// Undoes the escapes that COPY TO writes. It writes no octal and no hexadecimal ones.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 0x0b,
            Some(other) => other,
            None => b'\\',
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `CopyAttributeOutText` of Postgres does.
    fn escape(value: Option<&[u8]>) -> Vec<u8> {
        let Some(value) = value else { return b"\\N".to_vec() };
        let mut out = Vec::new();
        for &byte in value {
            match byte {
                0x08 => out.extend(b"\\b"),
                0x0c => out.extend(b"\\f"),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\t' => out.extend(b"\\t"),
                0x0b => out.extend(b"\\v"),
                b'\\' => out.extend(b"\\\\"),
                other => out.push(other),
            }
        }
        out
    }

    #[test]
    fn null_is_neither_empty_nor_the_text_of_null() {
        let read: Vec<_> =
            fields(b"\\N\t\t\\\\N").map(|field| field.map(Cow::into_owned)).collect();
        assert_eq!(read, [None, Some(Vec::new()), Some(b"\\N".to_vec())]);
    }

    proptest! {
        #[test]
        fn rows_survive_copy_and_any_chunking(
            rows in proptest::collection::vec(
                proptest::collection::vec(
                    proptest::option::of("[a\\\\N\t\n\r\u{8}é]{0,6}"), 1..4),
                1..6),
            cut in 1usize..9,
        ) {
            let mut data = Vec::new();
            for row in &rows {
                let values = row.iter().map(|value| value.as_ref().map(String::as_bytes));
                let line: Vec<_> = values.map(escape).collect();
                data.extend(line.join(&b'\t'));
                data.push(b'\n');
            }
            let mut splitter = LineSplitter::default();
            let mut read = Vec::new();
            for chunk in data.chunks(cut) {
                splitter.push(Bytes::copy_from_slice(chunk));
                while let Some(line) = splitter.next_line() {
                    read.push(fields(&line).map(|field| {
                        field.map(|bytes| String::from_utf8(bytes.into_owned()).unwrap())
                    }).collect::<Vec<_>>());
                }
            }
            prop_assert!(splitter.is_drained());
            prop_assert_eq!(read, rows);
        }
    }
}
