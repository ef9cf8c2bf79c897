//! The server's side of the wire: writes every message and frame that the decoder reads, and lines of COPY.
//!
//! Written from the PostgreSQL docs ("Logical Replication Message Formats", "Streaming Replication
//! Protocol", "COPY") and not from the decoder, so that each checks the other.

use std::borrow::Cow;

use waldex::lsn::Lsn;
use waldex::pgoutput::envelope::Frame;
use waldex::pgoutput::message::{Begin, Commit, LogicalMessage, Message, OldTuple};
use waldex::pgoutput::relation::{Relation, ReplicaIdentity};
use waldex::pgoutput::tuple::{Tuple, Value};

/// One column of a row to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    Null,
    UnchangedToast,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// A row to send.
pub type Row = Vec<Sent>;

/// An old row to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldRow {
    Key(Row),
    Full(Row),
}

/// A message to send: [`Message`], owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToSend {
    Begin(Begin),
    Commit(Commit),
    Origin { commit_lsn: Lsn, name: String },
    Relation(Relation),
    Type { oid: u32, schema: String, name: String },
    Insert { relation: u32, new: Row },
    Update { relation: u32, old: Option<OldRow>, new: Row },
    Delete { relation: u32, old: OldRow },
    Truncate { relations: Vec<u32>, cascade: bool, restart_identity: bool },
    Logical { transactional: bool, lsn: Lsn, prefix: String, content: Vec<u8> },
}

impl ToSend {
    /// What was received, to be compared with what was sent.
    pub fn received(message: &Message<'_>) -> Self {
        match message {
            Message::Begin(begin) => Self::Begin(*begin),
            Message::Commit(commit) => Self::Commit(*commit),
            Message::Origin { commit_lsn, name } => {
                Self::Origin { commit_lsn: *commit_lsn, name: (*name).to_owned() }
            }
            Message::Relation(relation) => Self::Relation(relation.clone()),
            Message::Type { oid, schema, name } => {
                Self::Type { oid: *oid, schema: (*schema).to_owned(), name: (*name).to_owned() }
            }
            Message::Insert { relation, new } => {
                Self::Insert { relation: *relation, new: row(new) }
            }
            Message::Update { relation, old, new } => {
                Self::Update { relation: *relation, old: old.as_ref().map(old_row), new: row(new) }
            }
            Message::Delete { relation, old } => {
                Self::Delete { relation: *relation, old: old_row(old) }
            }
            Message::Truncate { relations, cascade, restart_identity } => Self::Truncate {
                relations: relations.iter().collect(),
                cascade: *cascade,
                restart_identity: *restart_identity,
            },
            Message::Logical(LogicalMessage { transactional, lsn, prefix, content }) => {
                Self::Logical {
                    transactional: *transactional,
                    lsn: *lsn,
                    prefix: (*prefix).to_owned(),
                    content: content.to_vec(),
                }
            }
        }
    }

    /// The payload of its XLogData.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Begin(Begin { final_lsn, commit_time_micros, xid }) => {
                Wire::new(b'B').lsn(*final_lsn).i64(*commit_time_micros).u32(*xid)
            }
            Self::Commit(Commit { commit_lsn, end_lsn, commit_time_micros }) => {
                Wire::new(b'C').u8(0).lsn(*commit_lsn).lsn(*end_lsn).i64(*commit_time_micros)
            }
            Self::Origin { commit_lsn, name } => Wire::new(b'O').lsn(*commit_lsn).string(name),
            Self::Relation(relation) => encode_relation(relation),
            Self::Type { oid, schema, name } => {
                Wire::new(b'Y').u32(*oid).string(schema).string(name)
            }
            Self::Insert { relation, new } => Wire::new(b'I').u32(*relation).u8(b'N').row(new),
            Self::Update { relation, old, new } => {
                let wire = Wire::new(b'U').u32(*relation);
                let wire = match old {
                    Some(old) => wire.old_row(old),
                    None => wire,
                };
                wire.u8(b'N').row(new)
            }
            Self::Delete { relation, old } => Wire::new(b'D').u32(*relation).old_row(old),
            Self::Truncate { relations, cascade, restart_identity } => {
                let options = u8::from(*cascade) | u8::from(*restart_identity) << 1;
                let wire = Wire::new(b'T').length(relations.len()).u8(options);
                relations.iter().fold(wire, |wire, oid| wire.u32(*oid))
            }
            Self::Logical { transactional, lsn, prefix, content } => {
                let wire = Wire::new(b'M').u8(u8::from(*transactional)).lsn(*lsn).string(prefix);
                wire.length(content.len()).bytes(content)
            }
        }
        .0
    }
}

fn encode_relation(relation: &Relation) -> Wire {
    let identity = match relation.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    };
    let wire = Wire::new(b'R').u32(relation.oid).string(&relation.schema).string(&relation.name);
    let wire = wire.u8(identity).count(relation.columns.len());
    relation.columns.iter().fold(wire, |wire, column| {
        let wire = wire.u8(u8::from(column.in_identity)).string(&column.name);
        wire.u32(column.type_oid).bytes(&column.type_modifier.to_be_bytes())
    })
}

fn row(tuple: &Tuple<'_>) -> Row {
    let sent = |value| match value {
        Value::Null => Sent::Null,
        Value::UnchangedToast => Sent::UnchangedToast,
        Value::Text(text) => Sent::Text(text.to_vec()),
        Value::Binary(bytes) => Sent::Binary(bytes.to_vec()),
    };
    tuple.iter().map(sent).collect()
}

fn old_row(old: &OldTuple<'_>) -> OldRow {
    match old {
        OldTuple::Key(tuple) => OldRow::Key(row(tuple)),
        OldTuple::Full(tuple) => OldRow::Full(row(tuple)),
    }
}

/// The CopyData content of a frame.
pub fn encode_frame(frame: &Frame<'_>) -> Vec<u8> {
    match *frame {
        Frame::XLogData { wal_start, wal_end, send_time_micros, payload } => {
            Wire::new(b'w').lsn(wal_start).lsn(wal_end).i64(send_time_micros).bytes(payload)
        }
        Frame::Keepalive { wal_end, send_time_micros, reply_requested } => {
            Wire::new(b'k').lsn(wal_end).i64(send_time_micros).u8(u8::from(reply_requested))
        }
    }
    .0
}

/// One row as COPY TO writes it, without the newline.
pub fn encode_copy_line<'a>(fields: impl IntoIterator<Item = Option<Cow<'a, [u8]>>>) -> Vec<u8> {
    let escape = |byte: u8| match byte {
        0x08 => b"\\b".to_vec(),
        0x09 => b"\\t".to_vec(),
        0x0A => b"\\n".to_vec(),
        0x0B => b"\\v".to_vec(),
        0x0C => b"\\f".to_vec(),
        0x0D => b"\\r".to_vec(),
        b'\\' => b"\\\\".to_vec(),
        plain => vec![plain],
    };
    let fields: Vec<Vec<u8>> = fields
        .into_iter()
        .map(|field| match field {
            None => b"\\N".to_vec(),
            Some(text) => text.iter().copied().flat_map(escape).collect(),
        })
        .collect();
    fields.join(&b'\t')
}

struct Wire(Vec<u8>);

impl Wire {
    fn new(tag: u8) -> Self {
        Self(vec![tag])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(self, byte: u8) -> Self {
        self.bytes(&[byte])
    }

    fn u32(self, number: u32) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    fn i64(self, number: i64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    fn lsn(self, lsn: Lsn) -> Self {
        self.bytes(&lsn.get().to_be_bytes())
    }

    fn string(self, text: &str) -> Self {
        self.bytes(text.as_bytes()).u8(0)
    }

    fn count(self, count: usize) -> Self {
        self.bytes(&i16::try_from(count).unwrap_or(i16::MAX).to_be_bytes())
    }

    fn length(self, length: usize) -> Self {
        self.bytes(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes())
    }

    fn row(self, row: &Row) -> Self {
        row.iter().fold(self.count(row.len()), |wire, column| match column {
            Sent::Null => wire.u8(b'n'),
            Sent::UnchangedToast => wire.u8(b'u'),
            Sent::Text(text) => wire.u8(b't').length(text.len()).bytes(text),
            Sent::Binary(bytes) => wire.u8(b'b').length(bytes.len()).bytes(bytes),
        })
    }

    fn old_row(self, old: &OldRow) -> Self {
        match old {
            OldRow::Key(row) => self.u8(b'K').row(row),
            OldRow::Full(row) => self.u8(b'O').row(row),
        }
    }
}
