//! What stands in a CopyData of a replication connection, both ways.
//!
//! From "Streaming Replication Protocol" in the PostgreSQL docs: XLogData (`w`) and keepalive (`k`) from
//! the server, standby status (`r`) to it. Assumes nothing of the bytes. The positions of an XLogData are
//! not those of a transaction (`0/0` for a Relation) and must never be acknowledged.

use std::fmt;

use crate::lsn::Lsn;

/// One CopyData of the server. Times are microseconds since 2000-01-01 UTC, by the server's clock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `w`: one message of the output plugin.
    XLogData {
        /// Where the record begins that the message comes from; `0/0` for some messages.
        wal_start: Lsn,
        /// The server's end of WAL; with logical replication the same as `wal_start`.
        wal_end: Lsn,
        /// When it was sent.
        send_time_micros: i64,
        /// The message, for [`super::decode::decode`].
        payload: &'a [u8],
    },
    /// `k`: sent when the server has been idle, or is waiting for an answer.
    Keepalive {
        /// Up to where the server has decoded and sent.
        wal_end: Lsn,
        /// When it was sent.
        send_time_micros: i64,
        /// Whether the server asks for a status at once, or it will cut the connection.
        reply_requested: bool,
    },
}

/// Why a CopyData is not a frame of a replication connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// No bytes at all.
    #[error("an empty frame")]
    Empty,
    /// Neither `w` nor `k`.
    #[error("unknown frame '{}', expected 'w' (XLogData) or 'k' (keepalive)", .0.escape_ascii())]
    UnknownTag(u8),
    /// Not the bytes that a frame of its kind has.
    #[error("damaged frame '{frame}': {bytes} bytes where {expected} were expected")]
    Length {
        /// The frame's name in the protocol.
        frame: &'static str,
        /// Bytes after the tag.
        bytes: usize,
        /// What it must be.
        expected: &'static str,
    },
    /// A keepalive's last byte is neither 0 nor 1.
    #[error("damaged frame 'keepalive': its reply request has the unknown value {0:#04x}")]
    Reply(u8),
}

impl<'a> Frame<'a> {
    /// Decodes the content of one CopyData.
    pub fn decode(frame: &'a [u8]) -> Result<Self, EnvelopeError> {
        match frame.split_first().ok_or(EnvelopeError::Empty)? {
            (b'w', rest) => xlog_data(rest).ok_or(EnvelopeError::Length {
                frame: "XLogData",
                bytes: rest.len(),
                expected: "at least 24",
            }),
            (b'k', rest) => keepalive(rest),
            (&unknown, _) => Err(EnvelopeError::UnknownTag(unknown)),
        }
    }
}

fn xlog_data(rest: &[u8]) -> Option<Frame<'_>> {
    let (wal_start, rest) = rest.split_first_chunk()?;
    let (wal_end, rest) = rest.split_first_chunk()?;
    let (send_time, payload) = rest.split_first_chunk()?;
    Some(Frame::XLogData {
        wal_start: Lsn::new(u64::from_be_bytes(*wal_start)),
        wal_end: Lsn::new(u64::from_be_bytes(*wal_end)),
        send_time_micros: i64::from_be_bytes(*send_time),
        payload,
    })
}

fn keepalive(rest: &[u8]) -> Result<Frame<'_>, EnvelopeError> {
    let parts = || {
        let (wal_end, rest) = rest.split_first_chunk()?;
        let (send_time, rest) = rest.split_first_chunk()?;
        let [reply] = rest else { return None };
        Some((Lsn::new(u64::from_be_bytes(*wal_end)), i64::from_be_bytes(*send_time), *reply))
    };
    let length =
        EnvelopeError::Length { frame: "keepalive", bytes: rest.len(), expected: "exactly 17" };
    let (wal_end, send_time_micros, reply) = parts().ok_or(length)?;
    let reply_requested = match reply {
        0 => false,
        1 => true,
        unknown => return Err(EnvelopeError::Reply(unknown)),
    };
    Ok(Frame::Keepalive { wal_end, send_time_micros, reply_requested })
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::XLogData { wal_start, wal_end, send_time_micros, payload } => f
                .debug_struct("XLogData")
                .field("wal_start", wal_start)
                .field("wal_end", wal_end)
                .field("send_time_micros", send_time_micros)
                .field("payload_bytes", &payload.len())
                .finish(),
            Self::Keepalive { wal_end, send_time_micros, reply_requested } => f
                .debug_struct("Keepalive")
                .field("wal_end", wal_end)
                .field("send_time_micros", send_time_micros)
                .field("reply_requested", reply_requested)
                .finish(),
        }
    }
}

/// The content of a CopyData that reports the client's progress. Only `flushed` moves a logical slot;
/// `written` and `applied` are shown in `pg_stat_replication`. The time is in microseconds since
/// 2000-01-01 UTC; with `reply` the server answers at once.
pub fn encode_standby_status(
    written: Lsn,
    flushed: Lsn,
    applied: Lsn,
    client_time_micros: i64,
    reply: bool,
) -> [u8; 34] {
    let mut status = [0; 34];
    let parts = [
        written.get().to_be_bytes(),
        flushed.get().to_be_bytes(),
        applied.get().to_be_bytes(),
        client_time_micros.to_be_bytes(),
    ];
    let bytes = std::iter::once(b'r')
        .chain(parts.into_iter().flatten())
        .chain(std::iter::once(u8::from(reply)));
    for (to, byte) in status.iter_mut().zip(bytes) {
        *to = byte;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_payload_whole() {
        let frame = b"w\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xffB...";
        let expected = Frame::XLogData {
            wal_start: Lsn::new(1),
            wal_end: Lsn::new(2),
            send_time_micros: -1,
            payload: b"B...",
        };
        assert_eq!(Frame::decode(frame), Ok(expected));
        assert!(!format!("{expected:?}").contains("66, 46"));
        for end in 1..25 {
            let error = Frame::decode(&frame[..end]).unwrap_err();
            assert!(matches!(error, EnvelopeError::Length { frame: "XLogData", .. }), "{error}");
        }
    }

    #[test]
    fn reads_a_keepalive_of_exactly_its_length() {
        let frame = b"k\0\0\0\x16\xb3\x74\xd8\x48\0\0\0\0\0\0\0\x07\x01";
        let expected = Frame::Keepalive {
            wal_end: Lsn::new(0x16_B374_D848),
            send_time_micros: 7,
            reply_requested: true,
        };
        assert_eq!(Frame::decode(frame), Ok(expected));
        for bytes in [&frame[..17], &[&frame[..], &[0]].concat()] {
            let error = Frame::decode(bytes).unwrap_err();
            assert!(error.to_string().contains("exactly 17"), "{error}");
        }
        let mut odd = *frame;
        odd[17] = 2;
        assert_eq!(Frame::decode(&odd), Err(EnvelopeError::Reply(2)));
    }

    #[test]
    fn refuses_other_frames() {
        assert_eq!(Frame::decode(b""), Err(EnvelopeError::Empty));
        assert_eq!(Frame::decode(b"r"), Err(EnvelopeError::UnknownTag(b'r')));
    }

    #[test]
    fn writes_a_status_in_the_order_of_the_protocol() {
        let status = encode_standby_status(Lsn::new(1), Lsn::new(2), Lsn::new(u64::MAX), -2, true);
        let expected = b"r\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\
            \xff\xff\xff\xff\xff\xff\xff\xfe\x01";
        assert_eq!(&status, expected);
    }
}
