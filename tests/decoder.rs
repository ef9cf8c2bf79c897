//! Properties of the decoder: what the server writes is read back, and what is read back is exactly what was
//! written. Damaged bytes are refused or are another valid message, never a panic.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use waldex::lsn::Lsn;
use waldex::pgoutput::decode::decode;
use waldex::pgoutput::envelope::{Frame, encode_standby_status};
use waldex::pgoutput::message::{Begin, Commit, Message};
use waldex::pgoutput::relation::{Column, Relation, ReplicaIdentity};
use waldex::pgoutput::tuple::COLUMNS_MAX;
use waldex::postgres::copy_text::fields;

use crate::support::encode::{OldRow, Row, Sent, ToSend, encode_copy_line, encode_frame};

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn::new)
}

/// Any UTF-8 that a C string can hold, the empty one too.
fn name() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn row() -> impl Strategy<Value = Row> {
    let column = prop_oneof![
        Just(Sent::Null),
        Just(Sent::UnchangedToast),
        content().prop_map(Sent::Text),
        content().prop_map(Sent::Binary),
    ];
    vec(column, 0..9)
}

fn old_row() -> impl Strategy<Value = OldRow> {
    prop_oneof![row().prop_map(OldRow::Key), row().prop_map(OldRow::Full)]
}

fn relation() -> impl Strategy<Value = Relation> {
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index),
    ];
    let column = (name(), any::<u32>(), any::<i32>(), any::<bool>()).prop_map(
        |(name, type_oid, type_modifier, in_identity)| Column {
            name,
            type_oid,
            type_modifier,
            in_identity,
        },
    );
    (any::<u32>(), name(), name(), identity, vec(column, 0..9)).prop_map(
        |(oid, schema, name, identity, columns)| Relation { oid, schema, name, identity, columns },
    )
}

/// Every message, every tuple kind, every replica identity.
pub(crate) fn message() -> impl Strategy<Value = ToSend> {
    let begin = (lsn(), any::<i64>(), any::<u32>()).prop_map(|(final_lsn, time, xid)| {
        ToSend::Begin(Begin { final_lsn, commit_time_micros: time, xid })
    });
    let commit = (lsn(), lsn(), any::<i64>()).prop_map(|(commit_lsn, end_lsn, time)| {
        ToSend::Commit(Commit { commit_lsn, end_lsn, commit_time_micros: time })
    });
    let truncate = (vec(any::<u32>(), 0..9), any::<bool>(), any::<bool>()).prop_map(
        |(relations, cascade, restart_identity)| ToSend::Truncate {
            relations,
            cascade,
            restart_identity,
        },
    );
    let logical = (any::<bool>(), lsn(), name(), content()).prop_map(
        |(transactional, lsn, prefix, content)| ToSend::Logical {
            transactional,
            lsn,
            prefix,
            content,
        },
    );
    prop_oneof![
        begin,
        commit,
        (lsn(), name()).prop_map(|(commit_lsn, name)| ToSend::Origin { commit_lsn, name }),
        relation().prop_map(ToSend::Relation),
        (any::<u32>(), name(), name()).prop_map(|(oid, schema, name)| ToSend::Type {
            oid,
            schema,
            name
        }),
        (any::<u32>(), row()).prop_map(|(relation, new)| ToSend::Insert { relation, new }),
        (any::<u32>(), option::of(old_row()), row())
            .prop_map(|(relation, old, new)| ToSend::Update { relation, old, new }),
        (any::<u32>(), old_row()).prop_map(|(relation, old)| ToSend::Delete { relation, old }),
        truncate,
        logical,
    ]
}

/// Whatever the decoder accepts, it accepts as exactly one message: written again it is the same bytes.
pub(crate) fn check_payload(payload: &[u8]) {
    let Ok(message) = decode(payload) else { return };
    let received = ToSend::received(&message);
    assert_eq!(received.encode(), payload, "accepted, but not understood whole: {received:?}");
    if let Message::Insert { new, .. } | Message::Update { new, .. } = &message {
        assert_eq!(new.iter().count(), new.len());
        assert!(new.len() <= COLUMNS_MAX);
    }
    if let Message::Relation(relation) = &message {
        check_owned_bytes(relation, payload.len());
    }
}

/// A column is at least 10 bytes of the frame, and the list's capacity at most twice its length, but for
/// the smallest list.
fn check_owned_bytes(relation: &Relation, frame_bytes: usize) {
    let names = relation.columns.iter().map(|column| column.name.capacity()).sum::<usize>();
    let names = names + relation.schema.capacity() + relation.name.capacity();
    assert!(names <= frame_bytes, "{names} bytes of names from {frame_bytes}");
    let columns = relation.columns.capacity();
    assert!(columns <= 4 + 2 * frame_bytes / 10, "room for {columns} columns from {frame_bytes}");
}

/// As [`check_payload`], for frames.
pub(crate) fn check_frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(encode_frame(&frame), bytes);
    }
}

/// A line has a field more than tabs, none longer than what stood there, and none is lost when it is written
/// as COPY writes and read again.
pub(crate) fn check_copy_line(line: &[u8]) {
    let read: Vec<Option<Cow<'_, [u8]>>> = fields(line).collect();
    let tabs = line.iter().filter(|&&byte| byte == b'\t').count();
    assert_eq!(read.len(), tabs + 1);
    let bytes: usize = read.iter().flatten().map(|text| text.len()).sum();
    assert!(bytes + tabs <= line.len());
    let written = encode_copy_line(read.iter().cloned());
    assert_eq!(fields(&written).collect::<Vec<_>>(), read);
}

proptest! {
    #[test]
    fn every_message_is_read_back(sent in message()) {
        let payload = sent.encode();
        let received = decode(&payload).map(|message| ToSend::received(&message));
        prop_assert_eq!(received, Ok(sent));
        check_payload(&payload);
    }

    #[test]
    fn every_cut_and_every_surplus_is_refused(sent in message(), surplus in any::<u8>()) {
        let mut payload = sent.encode();
        for end in 0..payload.len() {
            prop_assert!(decode(&payload[..end]).is_err(), "cut at {} of {:?}", end, payload);
        }
        payload.push(surplus);
        prop_assert!(decode(&payload).is_err());
    }

    #[test]
    fn one_damaged_byte_is_refused_or_another_message(sent in message(), damage in 1..=255u8) {
        let payload = sent.encode();
        for at in 0..payload.len() {
            let mut damaged = payload.clone();
            damaged[at] ^= damage;
            check_payload(&damaged);
            let same = decode(&damaged).is_ok_and(|message| ToSend::received(&message) == sent);
            prop_assert!(!same, "byte {} does not count", at);
        }
    }

    #[test]
    fn any_bytes_are_harmless(
        tag in prop_oneof![Just(None), "[BCORYIUDTMwk]".prop_map(|tag| tag.bytes().next())],
        bytes in vec(any::<u8>(), 0..200),
    ) {
        let bytes: Vec<u8> = tag.into_iter().chain(bytes).collect();
        check_payload(&bytes);
        check_frame(&bytes);
        check_copy_line(&bytes);
    }

    #[test]
    fn debug_shows_no_value(before in row(), relation in any::<u32>()) {
        let canary = Sent::Text(b"CANARY".to_vec());
        let new: Row = before.into_iter().chain([canary]).collect();
        let old = Some(OldRow::Full(new.clone()));
        let payload = ToSend::Update { relation, old, new }.encode();
        let shown = format!("{:?}", decode(&payload));
        prop_assert!(shown.contains("Text(6 bytes)"), "{}", shown);
        prop_assert!(!shown.contains("CANARY") && !shown.contains("67, 65, 78"), "{}", shown);
    }

    #[test]
    fn every_frame_is_read_back(
        start in lsn(), end in lsn(), time in any::<i64>(), reply in any::<bool>(), payload in content(),
    ) {
        let data = Frame::XLogData {
            wal_start: start, wal_end: end, send_time_micros: time, payload: &payload,
        };
        let bytes = encode_frame(&data);
        prop_assert_eq!(Frame::decode(&bytes), Ok(data));
        let keepalive =
            Frame::Keepalive { wal_end: end, send_time_micros: time, reply_requested: reply };
        let bytes = encode_frame(&keepalive);
        prop_assert_eq!(Frame::decode(&bytes), Ok(keepalive));
        for cut in 0..bytes.len() {
            prop_assert!(Frame::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_status_says_what_was_given(
        positions in [lsn(), lsn(), lsn()], time in any::<i64>(), reply in any::<bool>(),
    ) {
        let [written, flushed, applied] = positions;
        let status = encode_standby_status(written, flushed, applied, time, reply);
        let mut expected = vec![b'r'];
        expected.extend(positions.iter().flat_map(|lsn| lsn.get().to_be_bytes()));
        expected.extend(time.to_be_bytes());
        expected.push(u8::from(reply));
        prop_assert_eq!(status.as_slice(), expected);
    }

    #[test]
    fn every_copied_row_is_read_back(row in vec(option::of(content()), 1..9)) {
        let sent: Vec<_> = row.iter().map(|field| field.as_deref().map(Cow::Borrowed)).collect();
        let line = encode_copy_line(sent.clone());
        prop_assert!(!line.contains(&b'\n'));
        prop_assert_eq!(fields(&line).collect::<Vec<_>>(), sent);
        check_copy_line(&line);
    }
}

#[test]
fn the_widest_row_is_read_and_a_wider_one_refused() {
    let insert = |columns| ToSend::Insert { relation: 1, new: vec![Sent::Null; columns] }.encode();
    assert!(decode(&insert(COLUMNS_MAX)).is_ok());
    assert!(decode(&insert(COLUMNS_MAX + 1)).is_err());
}
