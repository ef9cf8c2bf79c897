//! The payload of one XLogData becomes one [`Message`].
//!
//! Assumes nothing of the payload. Layouts are those of "Logical Replication Message Formats" in the
//! PostgreSQL docs, version 1; flags that are not defined there are refused, as Postgres' own subscriber
//! refuses those of Commit.

use std::fmt;

use super::message::{Begin, Commit, LogicalMessage, Message, Oids, OldTuple};
use super::reader::Reader;
use super::relation::{Column, Relation, ReplicaIdentity};
use super::tuple::Tuple;

/// The shortest column of a Relation message: flags, an empty name's zero byte, type, modifier.
const RELATION_COLUMN_BYTES_MIN: usize = 10;

/// Why a payload is not a message that waldex understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A payload of no bytes.
    #[error("an empty message")]
    Empty,
    /// A tag that no protocol version known today uses.
    #[error("unknown message '{}' (pgoutput, protocol version 1)", .0.escape_ascii())]
    UnknownTag(u8),
    /// A message that version 1 without `two_phase` does not have.
    #[error(
        "message '{name}' ('{tag}') belongs to a later protocol than 1, which was asked for; a proxy between \
         may have changed the options: connect to Postgres directly"
    )]
    LaterProtocol {
        /// Its first byte.
        tag: char,
        /// Its name in the protocol.
        name: &'static str,
    },
    /// A known message whose bytes do not fit its layout.
    #[error("damaged message '{message}': its {part} {fault}")]
    Damaged {
        /// The message's name in the protocol.
        message: &'static str,
        /// The part of the message.
        part: &'static str,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The message ends inside the part.
    Short,
    /// No zero byte follows.
    Unterminated,
    /// Not UTF-8, though `client_encoding` is pinned to it.
    NotUtf8,
    /// A byte with no meaning there.
    Unknown(u8),
    /// A length below zero, or more than is left of the message.
    Length(i32),
    /// A count of OIDs that is not what follows.
    Count(i32),
    /// A count of columns below zero, or above [`super::tuple::COLUMNS_MAX`].
    Columns(i16),
    /// This many bytes follow where nothing should.
    Trailing(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("is cut short"),
            Self::Unterminated => f.write_str("has no terminating zero byte"),
            Self::NotUtf8 => f.write_str("is not UTF-8"),
            Self::Unknown(byte) => write!(f, "has the unknown value {byte:#04x}"),
            Self::Length(bytes) => write!(f, "has an impossible length of {bytes} bytes"),
            Self::Count(count) => write!(f, "are not the {count} that were announced"),
            Self::Columns(columns) => write!(f, "has the impossible value {columns}"),
            Self::Trailing(bytes) => write!(f, "is followed by {bytes} bytes"),
        }
    }
}

/// Decodes one message. It borrows from `payload`; only a Relation allocates, less than a fixed multiple
/// of the payload's length.
pub fn decode(payload: &[u8]) -> Result<Message<'_>, DecodeError> {
    let (&tag, rest) = payload.split_first().ok_or(DecodeError::Empty)?;
    match tag {
        b'B' => whole("Begin", rest, begin),
        b'C' => whole("Commit", rest, commit),
        b'O' => whole("Origin", rest, origin),
        b'R' => whole("Relation", rest, |reader| relation(reader).map(Message::Relation)),
        b'Y' => whole("Type", rest, type_name),
        b'I' => whole("Insert", rest, insert),
        b'U' => whole("Update", rest, update),
        b'D' => whole("Delete", rest, delete),
        b'T' => whole("Truncate", rest, truncate),
        b'M' => whole("Message", rest, logical),
        b'S' => Err(later(tag, "Stream Start")),
        b'E' => Err(later(tag, "Stream Stop")),
        b'c' => Err(later(tag, "Stream Commit")),
        b'A' => Err(later(tag, "Stream Abort")),
        b'b' => Err(later(tag, "Begin Prepare")),
        b'P' => Err(later(tag, "Prepare")),
        b'K' => Err(later(tag, "Commit Prepared")),
        b'r' => Err(later(tag, "Rollback Prepared")),
        b'p' => Err(later(tag, "Stream Prepare")),
        unknown => Err(DecodeError::UnknownTag(unknown)),
    }
}

fn later(tag: u8, name: &'static str) -> DecodeError {
    DecodeError::LaterProtocol { tag: char::from(tag), name }
}

fn whole<'a>(
    name: &'static str,
    rest: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<Message<'a>, DecodeError>,
) -> Result<Message<'a>, DecodeError> {
    let mut reader = Reader::new(name, rest);
    let message = read(&mut reader)?;
    reader.finish()?;
    Ok(message)
}

fn begin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Begin(Begin {
        final_lsn: reader.lsn("final LSN")?,
        commit_time_micros: reader.i64("commit time")?,
        xid: reader.u32("transaction id")?,
    }))
}

fn commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    reader.flags("flags", 0)?;
    Ok(Message::Commit(Commit {
        commit_lsn: reader.lsn("commit LSN")?,
        end_lsn: reader.lsn("end LSN")?,
        commit_time_micros: reader.i64("commit time")?,
    }))
}

fn origin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Origin { commit_lsn: reader.lsn("commit LSN")?, name: reader.text("name")? })
}

fn relation(reader: &mut Reader<'_>) -> Result<Relation, DecodeError> {
    let oid = reader.u32("OID")?;
    let schema = reader.text("schema")?;
    let name = reader.text("name")?;
    let identity = match reader.u8("replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        unknown => return Err(reader.damaged("replica identity", Fault::Unknown(unknown))),
    };
    let count = reader.columns("column count")?;
    if count * RELATION_COLUMN_BYTES_MIN > reader.rest().len() {
        return Err(reader.damaged("list of columns", Fault::Short));
    }
    let mut columns = Vec::with_capacity(count);
    for _ in 0..count {
        columns.push(Column {
            in_identity: reader.flags("column flags", 1)? == 1,
            name: reader.text("column name")?.to_owned(),
            type_oid: reader.u32("column type")?,
            type_modifier: reader.i32("column type modifier")?,
        });
    }
    Ok(Relation { oid, schema: schema.to_owned(), name: name.to_owned(), identity, columns })
}

fn type_name<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Type {
        oid: reader.u32("OID")?,
        schema: reader.text("schema")?,
        name: reader.text("name")?,
    })
}

fn insert<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation")?;
    match reader.u8("tuple kind")? {
        b'N' => Ok(Message::Insert { relation, new: Tuple::read(reader)? }),
        unknown => Err(reader.damaged("tuple kind", Fault::Unknown(unknown))),
    }
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation")?;
    let old = match reader.u8("tuple kind")? {
        b'N' => return Ok(Message::Update { relation, old: None, new: Tuple::read(reader)? }),
        kind => old_tuple(reader, kind)?,
    };
    match reader.u8("new tuple's kind")? {
        b'N' => Ok(Message::Update { relation, old: Some(old), new: Tuple::read(reader)? }),
        unknown => Err(reader.damaged("new tuple's kind", Fault::Unknown(unknown))),
    }
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation")?;
    let kind = reader.u8("tuple kind")?;
    Ok(Message::Delete { relation, old: old_tuple(reader, kind)? })
}

fn old_tuple<'a>(reader: &mut Reader<'a>, kind: u8) -> Result<OldTuple<'a>, DecodeError> {
    match kind {
        b'K' => Tuple::read(reader).map(OldTuple::Key),
        b'O' => Tuple::read(reader).map(OldTuple::Full),
        unknown => Err(reader.damaged("tuple kind", Fault::Unknown(unknown))),
    }
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let count = reader.i32("relation count")?;
    let options = reader.flags("options", 1 | 2)?;
    Ok(Message::Truncate {
        relations: Oids::new(reader.oids("relations", count)?),
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
    })
}

fn logical<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Logical(LogicalMessage {
        transactional: reader.flags("flags", 1)? == 1,
        lsn: reader.lsn("LSN")?,
        prefix: reader.text("prefix")?,
        content: reader.counted("content")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    /// By the documented layout: `CREATE TABLE t (id int PRIMARY KEY, note text)`, with the OID 0x4001.
    const RELATION: &[u8] = b"R\0\0\x40\x01public\0t\0d\0\x02\
        \x01id\0\0\0\0\x17\xff\xff\xff\xff\x00note\0\0\0\0\x19\xff\xff\xff\xff";

    fn fault(payload: &[u8]) -> (&'static str, Fault) {
        match decode(payload) {
            Err(DecodeError::Damaged { part, fault, .. }) => (part, fault),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_a_transaction() {
        let begin = b"B\0\0\0\0\x01\x52\x4a\x80\0\x02\xf5\x1e\x3c\0\0\0\0\0\x02\xf1";
        let Ok(Message::Begin(begin)) = decode(begin) else { panic!("no Begin") };
        assert_eq!(begin.final_lsn, Lsn::new(0x0152_4A80));
        assert_eq!((begin.commit_time_micros, begin.xid), (0x0002_F51E_3C00_0000, 0x2F1));

        let Ok(Message::Relation(relation)) = decode(RELATION) else { panic!("no Relation") };
        assert_eq!((relation.oid, relation.identity), (0x4001, ReplicaIdentity::Default));
        assert_eq!((relation.schema.as_str(), relation.name.as_str()), ("public", "t"));
        let columns: Vec<_> =
            relation.columns.iter().map(|c| (c.name.as_str(), c.type_oid, c.in_identity)).collect();
        assert_eq!(columns, [("id", 23, true), ("note", 25, false)]);

        let insert = decode(b"I\0\0\x40\x01N\0\x02t\0\0\0\x011n").unwrap();
        let Message::Insert { relation: 0x4001, new } = insert else { panic!("{insert:?}") };
        assert_eq!(new.len(), 2);

        let commit = b"C\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x39\xff\xff\xff\xff\xff\xff\xff\xff";
        let commit = decode(commit).unwrap();
        let expected =
            Commit { commit_lsn: Lsn::new(9), end_lsn: Lsn::new(0x39), commit_time_micros: -1 };
        assert_eq!(commit, Message::Commit(expected));
    }

    #[test]
    fn tells_key_from_full_and_absent_old_tuples() {
        let none = decode(b"U\0\0\0\x01N\0\x01n").unwrap();
        assert!(matches!(none, Message::Update { old: None, .. }));
        let key = decode(b"U\0\0\0\x01K\0\x01nN\0\x01n").unwrap();
        assert!(matches!(key, Message::Update { old: Some(OldTuple::Key(_)), .. }));
        let full = decode(b"D\0\0\0\x01O\0\x01n").unwrap();
        assert!(matches!(full, Message::Delete { old: OldTuple::Full(_), .. }));
        assert_eq!(fault(b"D\0\0\0\x01N\0\x01n"), ("tuple kind", Fault::Unknown(b'N')));
        assert_eq!(fault(b"U\0\0\0\x01K\0\x01nO\0\x01n").1, Fault::Unknown(b'O'));
        assert_eq!(fault(b"I\0\0\0\x01K\0\x01n").1, Fault::Unknown(b'K'));
    }

    #[test]
    fn reads_truncate_of_several_tables() {
        let truncate = decode(b"T\0\0\0\x02\x03\0\0\0\x07\0\0\0\x08").unwrap();
        let Message::Truncate { relations, cascade: true, restart_identity: true } = truncate
        else {
            panic!("{truncate:?}")
        };
        assert_eq!(relations.iter().collect::<Vec<_>>(), [7, 8]);
        assert_eq!(fault(b"T\0\0\0\x02\0\0\0\0\x07"), ("relations", Fault::Count(2)));
        assert_eq!(fault(b"T\xff\xff\xff\xff\0"), ("relations", Fault::Count(-1)));
        assert_eq!(fault(b"T\0\0\0\0\x04"), ("options", Fault::Unknown(4)));
    }

    #[test]
    fn hides_the_content_of_a_logical_message() {
        let message = decode(b"M\x01\0\0\0\0\0\0\0\x05app\0\0\0\0\x06secret").unwrap();
        let shown = format!("{message:?}");
        assert!(shown.contains("content_bytes: 6") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn keeps_names_as_sent() {
        let message = decode(b"Y\0\0\0\x10\0\0").unwrap();
        assert_eq!(message, Message::Type { oid: 16, schema: "", name: "" });
        assert_eq!(fault(b"Y\0\0\0\x10a\xff\0b\0"), ("schema", Fault::NotUtf8));
        assert_eq!(fault(b"Y\0\0\0\x10a\0b"), ("name", Fault::Unterminated));
    }

    #[test]
    fn refuses_every_cut_and_every_surplus() {
        for end in 1..RELATION.len() {
            assert!(decode(&RELATION[..end]).is_err(), "cut at {end}");
        }
        let surplus = [RELATION, &[0]].concat();
        assert_eq!(fault(&surplus), ("end", Fault::Trailing(1)));
        assert_eq!(fault(b"R\0\0\0\x01\0t\0x"), ("replica identity", Fault::Unknown(b'x')));
        assert_eq!(fault(b"R\0\0\0\x01\0t\0d\x06\x80"), ("list of columns", Fault::Short));
        assert_eq!(fault(b"R\0\0\0\x01\0t\0d\x7f\xff").1, Fault::Columns(i16::MAX));
        assert_eq!(fault(b"C\x01").1, Fault::Unknown(1));
    }

    #[test]
    fn names_later_messages_and_the_way_out() {
        for (tag, name) in
            [(b'S', "Stream Start"), (b'p', "Stream Prepare"), (b'b', "Begin Prepare")]
        {
            let error = decode(&[tag, 0, 0]).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("connect to Postgres directly"),
                "{error}"
            );
        }
        assert_eq!(decode(b"Z"), Err(DecodeError::UnknownTag(b'Z')));
        assert_eq!(decode(b""), Err(DecodeError::Empty));
        let cut = decode(b"I\0\0").unwrap_err().to_string();
        assert_eq!(cut, "damaged message 'Insert': its relation is cut short");
    }
}
