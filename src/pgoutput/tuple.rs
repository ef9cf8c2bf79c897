//! TupleData: the columns of one row, as they stand in the message.
//!
//! A tuple is validated once, when its message is decoded, and then read in place: no allocation, however
//! many columns it has.

use std::fmt;

use super::decode::DecodeError;
use super::reader::Reader;

/// A table has at most this many columns (`MaxHeapAttributeNumber` is 1,600; 1,664 in a target list).
pub const COLUMNS_MAX: usize = 1664;

/// One column of a tuple.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL; in a key tuple also "not part of the key".
    Null,
    /// A large value that the update left alone and the server did not send.
    UnchangedToast,
    /// The type's text form.
    Text(&'a [u8]),
    /// The type's binary form, sent only if `binary` was asked for.
    Binary(&'a [u8]),
}

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

/// The columns of a row, in the order of its relation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: usize,
    /// Exactly the columns' encoding, validated.
    bytes: &'a [u8],
}

impl fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Tuple<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let columns = Reader::count(i32::from(reader.i16()?), COLUMNS_MAX)?;
        let start = reader.rest();
        for _ in 0..columns {
            read_value(reader)?;
        }
        let length = start.len() - reader.rest().len();
        Ok(Self { columns, bytes: start.get(..length).unwrap_or_default() })
    }

    /// How many columns it has.
    pub fn len(&self) -> usize {
        self.columns
    }

    /// Whether it has none: a table may.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The columns in order.
    pub fn iter(&self) -> Values<'a> {
        Values { reader: Reader::new(self.bytes), left: self.columns }
    }
}

fn read_value<'a>(reader: &mut Reader<'a>) -> Result<Value<'a>, DecodeError> {
    let sized = |reader: &mut Reader<'a>| {
        let length = reader.i32()?;
        reader.bytes(Reader::count(length, usize::MAX)?)
    };
    match reader.u8()? {
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::UnchangedToast),
        b't' => sized(reader).map(Value::Text),
        b'b' => sized(reader).map(Value::Binary),
        kind => Err(DecodeError::ColumnKind(kind)),
    }
}

/// Iterates over the columns of a [`Tuple`].
#[derive(Clone)]
pub struct Values<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Cannot fail: the same bytes were read through when the tuple was made.
        read_value(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Values<'_> {}
