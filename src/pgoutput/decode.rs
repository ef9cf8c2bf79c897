//! Bytes to [`Message`]: bounds-checked, without a panic for any input, and without an allocation but for the
//! names of a Relation, which the frame bounds.

use super::message::{Begin, Commit, LogicalMessage, Message, Oids, OldTuple};
use super::reader::Reader;
use super::relation::{Column, Relation, ReplicaIdentity};
use super::tuple::{COLUMNS_MAX, Tuple};
use crate::lsn::Lsn;

/// Not a message of protocol 1. The stream cannot be trusted from here on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before its content does.
    #[error("a message ends too early")]
    Truncated,
    /// The content ends before the message does.
    #[error("a message has {0} bytes too many")]
    Trailing(usize),
    /// A count or length that cannot be.
    #[error("a message holds the impossible count or length {0}")]
    Count(i32),
    /// A name that is not UTF-8.
    #[error("a message holds a name that is not UTF-8")]
    Name,
    /// A column that is neither null, unchanged, text nor binary.
    #[error("a tuple holds a column of unknown kind '{}'", .0.escape_ascii())]
    ColumnKind(u8),
    /// A tuple that is neither key, old nor new.
    #[error("a change holds a tuple of unknown kind '{}'", .0.escape_ascii())]
    TupleKind(u8),
    /// A replica identity that does not exist.
    #[error("a relation has the unknown replica identity '{}'", .0.escape_ascii())]
    Identity(u8),
    /// Flags that protocol 1 does not define: they would change what the message means.
    #[error("a message has the unknown flags {0:#04x}")]
    Flags(u8),
    /// A message that only a later protocol has.
    #[error(
        "message \"{0}\" belongs to a later protocol than 1, which was asked for; a proxy between may have changed \
         the options: connect to Postgres directly"
    )]
    LaterProtocol(&'static str),
    /// No message at all.
    #[error("unknown message '{}'", .0.escape_ascii())]
    Unknown(u8),
}

/// Decodes one message. It borrows from `payload`.
///
/// # Errors
/// Anything that is not exactly one message of protocol 1.
pub fn decode(payload: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader::new(payload);
    let message = match reader.u8()? {
        b'B' => begin(&mut reader)?,
        b'C' => commit(&mut reader)?,
        b'O' => Message::Origin { commit_lsn: lsn(&mut reader)?, name: reader.name()? },
        b'R' => Message::Relation(relation(&mut reader)?),
        b'Y' => Message::Type { oid: reader.u32()?, schema: reader.name()?, name: reader.name()? },
        b'I' => insert(&mut reader)?,
        b'U' => update(&mut reader)?,
        b'D' => delete(&mut reader)?,
        b'T' => truncate(&mut reader)?,
        b'M' => logical(&mut reader)?,
        tag => return Err(refused(tag)),
    };
    match reader.rest().len() {
        0 => Ok(message),
        bytes => Err(DecodeError::Trailing(bytes)),
    }
}

fn refused(tag: u8) -> DecodeError {
    DecodeError::LaterProtocol(match tag {
        b'S' => "Stream Start",
        b'E' => "Stream Stop",
        b'c' => "Stream Commit",
        b'A' => "Stream Abort",
        b'b' => "Begin Prepare",
        b'P' => "Prepare",
        b'K' => "Commit Prepared",
        b'r' => "Rollback Prepared",
        b'p' => "Stream Prepare",
        tag => return DecodeError::Unknown(tag),
    })
}

fn lsn(reader: &mut Reader<'_>) -> Result<Lsn, DecodeError> {
    reader.u64().map(Lsn::new)
}

fn begin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Begin(Begin {
        final_lsn: lsn(reader)?,
        commit_time_micros: reader.i64()?,
        xid: reader.u32()?,
    }))
}

fn commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    reader.flags(0)?;
    Ok(Message::Commit(Commit {
        commit_lsn: lsn(reader)?,
        end_lsn: lsn(reader)?,
        commit_time_micros: reader.i64()?,
    }))
}

fn relation(reader: &mut Reader<'_>) -> Result<Relation, DecodeError> {
    let oid = reader.u32()?;
    let schema = reader.name()?.to_owned();
    let name = reader.name()?.to_owned();
    let identity = match reader.u8()? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        kind => return Err(DecodeError::Identity(kind)),
    };
    let count = Reader::count(i32::from(reader.i16()?), COLUMNS_MAX)?;
    // Not reserved beforehand: the count is the sender's word, the frame's length is a fact.
    let mut columns = Vec::new();
    for _ in 0..count {
        let in_identity = reader.flags(1)? == 1;
        let name = reader.name()?.to_owned();
        let (type_oid, type_modifier) = (reader.u32()?, reader.i32()?);
        columns.push(Column { name, type_oid, type_modifier, in_identity });
    }
    Ok(Relation { oid, schema, name, identity, columns })
}

fn insert<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32()?;
    match reader.u8()? {
        b'N' => Ok(Message::Insert { relation, new: Tuple::read(reader)? }),
        kind => Err(DecodeError::TupleKind(kind)),
    }
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32()?;
    let (old, kind) = match reader.u8()? {
        kind @ (b'K' | b'O') => (Some(old_tuple(kind, reader)?), reader.u8()?),
        kind => (None, kind),
    };
    match kind {
        b'N' => Ok(Message::Update { relation, old, new: Tuple::read(reader)? }),
        kind => Err(DecodeError::TupleKind(kind)),
    }
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32()?;
    let kind = reader.u8()?;
    Ok(Message::Delete { relation, old: old_tuple(kind, reader)? })
}

fn old_tuple<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<OldTuple<'a>, DecodeError> {
    match kind {
        b'K' => Tuple::read(reader).map(OldTuple::Key),
        b'O' => Tuple::read(reader).map(OldTuple::Full),
        kind => Err(DecodeError::TupleKind(kind)),
    }
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let count = Reader::count(reader.i32()?, usize::MAX / size_of::<u32>())?;
    let options = reader.flags(1 | 2)?;
    let relations = Oids { bytes: reader.bytes(count * size_of::<u32>())? };
    Ok(Message::Truncate {
        relations,
        cascade: options & 1 == 1,
        restart_identity: options & 2 == 2,
    })
}

fn logical<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let transactional = reader.flags(1)? == 1;
    let lsn = lsn(reader)?;
    let prefix = reader.name()?;
    let length = Reader::count(reader.i32()?, usize::MAX)?;
    let content = reader.bytes(length)?;
    Ok(Message::Logical(LogicalMessage { transactional, lsn, prefix, content }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::tuple::Value;

    #[test]
    fn every_kind_of_column() {
        let payload = b"I\0\0\0\x07N\0\x04nut\0\0\0\x02hib\0\0\0\x01\xff";
        let Ok(Message::Insert { relation: 7, new }) = decode(payload) else { panic!() };
        let expected =
            [Value::Null, Value::UnchangedToast, Value::Text(b"hi"), Value::Binary(b"\xff")];
        assert_eq!(new.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn counts_and_lengths_that_cannot_be_are_refused() {
        let negative_columns = b"I\0\0\0\x07N\xff\xff";
        assert_eq!(decode(negative_columns), Err(DecodeError::Count(-1)));
        let too_many_columns = b"I\0\0\0\x07N\x7f\xff";
        assert_eq!(decode(too_many_columns), Err(DecodeError::Count(32767)));
        let negative_length = b"I\0\0\0\x07N\0\x01t\xff\xff\xff\xff";
        assert_eq!(decode(negative_length), Err(DecodeError::Count(-1)));
        let beyond_the_frame = b"I\0\0\0\x07N\0\x01t\x7f\xff\xff\xff";
        assert_eq!(decode(beyond_the_frame), Err(DecodeError::Truncated));
        let many_oids = b"T\x7f\xff\xff\xff\0";
        assert_eq!(decode(many_oids), Err(DecodeError::Truncated));
    }

    #[test]
    fn later_protocols_are_refused_by_name() {
        for (tag, name) in [(b'S', "Stream Start"), (b'b', "Begin Prepare"), (b'A', "Stream Abort")]
        {
            assert_eq!(decode(&[tag, 0, 0]), Err(DecodeError::LaterProtocol(name)));
        }
        assert_eq!(decode(b"?"), Err(DecodeError::Unknown(b'?')));
        assert_eq!(decode(b""), Err(DecodeError::Truncated));
    }

    #[test]
    fn flags_without_a_meaning_are_refused() {
        let relation = b"R\0\0\0\x01\0t\0d\0\x01\x02id\0\0\0\0\x17\xff\xff\xff\xff";
        assert_eq!(decode(relation), Err(DecodeError::Flags(2)));
        assert_eq!(decode(b"C\x01"), Err(DecodeError::Flags(1)));
        assert_eq!(decode(b"T\0\0\0\0\x04"), Err(DecodeError::Flags(4)));
        assert_eq!(decode(b"M\x03"), Err(DecodeError::Flags(3)));
    }

    #[test]
    fn bytes_behind_a_message_are_refused() {
        let mut payload = b"B".to_vec();
        payload.extend([0; 20]);
        assert!(decode(&payload).is_ok());
        payload.push(0);
        assert_eq!(decode(&payload), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn debug_output_holds_no_column_value() {
        let payload = b"I\0\0\0\x07N\0\x01t\0\0\0\x06CANARY";
        assert!(!format!("{:?}", decode(payload)).contains("CANARY"));
    }
}
