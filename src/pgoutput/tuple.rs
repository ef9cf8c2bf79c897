//! One row inside a message: checked once when it is decoded, then walked without allocation.
//!
//! TupleData is a count of columns, then for each a kind: `n` NULL, `u` unchanged and not sent, `t` text,
//! `b` binary; the last two with a length of 32 bits and as many bytes. What is inside a value is not
//! looked at here: text is in the column's type's own form.

use std::fmt;

use super::decode::{DecodeError, Fault};
use super::reader::Reader;

/// The most columns a row can have (`MaxTupleAttributeNumber` of Postgres).
pub const COLUMNS_MAX: usize = 1664;

/// The columns of one row, in the order of its relation's columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: usize,
    /// Exactly `columns` well-formed columns.
    bytes: &'a [u8],
}

/// One column of a [`Tuple`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL; in a key tuple also every column that was not sent.
    Null,
    /// A value stored out of line that the update left alone: it is not NULL, and it was not sent.
    UnchangedToast,
    /// The output of the type's output function.
    Text(&'a [u8]),
    /// The output of the type's send function.
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// Checks a row and steps over it.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let columns = reader.columns("column count")?;
        let start = reader.rest();
        for _ in 0..columns {
            read_value(reader)?;
        }
        let length = start.len() - reader.rest().len();
        let bytes = start.get(..length).unwrap_or(start);
        Ok(Self { columns, bytes })
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.columns
    }

    /// Whether it is the row of a table without (published) columns.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The columns, in order; as many as [`Tuple::len`] says.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value<'a>> + Clone + use<'a> {
        Values { left: self.len(), reader: Reader::new("tuple", self.bytes) }
    }
}

fn read_value<'a>(reader: &mut Reader<'a>) -> Result<Value<'a>, DecodeError> {
    match reader.u8("column kind")? {
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::UnchangedToast),
        b't' => reader.counted("text column").map(Value::Text),
        b'b' => reader.counted("binary column").map(Value::Binary),
        kind => Err(reader.damaged("column kind", Fault::Unknown(kind))),
    }
}

#[derive(Clone)]
struct Values<'a> {
    left: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        read_value(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Values<'_> {}

impl fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Kind and length only: column values are nobody's business but the index's.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::UnchangedToast => f.write_str("UnchangedToast"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Tuple<'_>, DecodeError> {
        Tuple::read(&mut Reader::new("tuple", bytes))
    }

    #[test]
    fn walks_every_kind() {
        let tuple = read(b"\0\x05nut\0\0\0\x02hib\0\0\0\x01\xfft\0\0\0\0").unwrap();
        let values: Vec<_> = tuple.iter().collect();
        assert_eq!(tuple.len(), 5);
        assert_eq!(
            values,
            [
                Value::Null,
                Value::UnchangedToast,
                Value::Text(b"hi"),
                Value::Binary(b"\xff"),
                Value::Text(b"")
            ]
        );
    }

    #[test]
    fn stops_where_the_row_stops() {
        let mut reader = Reader::new("tuple", b"\0\x01nrest");
        assert_eq!(Tuple::read(&mut reader).unwrap().iter().len(), 1);
        assert_eq!(reader.rest(), b"rest");
    }

    #[test]
    fn no_debug_shows_a_value() {
        let shown = format!("{:?}", read(b"\0\x02t\0\0\0\x06secretb\0\0\0\x06secret").unwrap());
        assert_eq!(shown, "[Text(6 bytes), Binary(6 bytes)]");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let faults = [
            (&b"\0"[..], Fault::Short),
            (b"\0\x02n", Fault::Short),
            (b"\xff\xff", Fault::Columns(-1)),
            (b"\x06\x81", Fault::Columns(1665)),
            (b"\0\x01x", Fault::Unknown(b'x')),
            (b"\0\x01t\0\0", Fault::Short),
            (b"\0\x01t\0\0\0\x02a", Fault::Length(2)),
            (b"\0\x01b\xff\xff\xff\xff", Fault::Length(-1)),
            (b"\0\x01t\x7f\xff\xff\xff", Fault::Length(i32::MAX)),
        ];
        for (bytes, expected) in faults {
            let Err(DecodeError::Damaged { fault, .. }) = read(bytes) else {
                panic!("{bytes:?} was accepted")
            };
            assert_eq!(fault, expected, "{bytes:?}");
        }
        let widest = [&b"\x06\x80"[..], &[b'n'; 1664]].concat();
        assert_eq!(read(&widest).unwrap().len(), 1664);
    }
}
