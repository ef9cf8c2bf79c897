//! What a CopyData message of the replication stream carries, and the status that goes back.

use std::fmt;

use super::decode::DecodeError;
use super::reader::Reader;
use crate::lsn::Lsn;

/// Length of a standby status update.
pub const STATUS_BYTES: usize = 34;

/// One CopyData payload from the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `w`: a message of the output plugin.
    XLogData {
        /// Start of the change's WAL record; `0/0` for Relation and Type. Never to be confirmed.
        wal_start: Lsn,
        /// End of WAL on the server when it was sent.
        wal_end: Lsn,
        /// Microseconds since 2000-01-01 UTC.
        send_time_micros: i64,
        /// The pgoutput message.
        payload: &'a [u8],
    },
    /// `k`: a sign of life.
    Keepalive {
        /// Everything before was sent.
        wal_end: Lsn,
        /// Microseconds since 2000-01-01 UTC.
        send_time_micros: i64,
        /// The server waits for a status.
        reply_requested: bool,
    },
}

/// Neither of the two.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Another kind.
    #[error("unknown kind '{}' of CopyData", .0.escape_ascii())]
    Kind(u8),
    /// Too short, too long, or with an unknown flag.
    #[error("CopyData: {0}")]
    Length(#[from] DecodeError),
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::XLogData { wal_start, payload, .. } => {
                write!(f, "XLogData({wal_start}, {} bytes)", payload.len())
            }
            Self::Keepalive { wal_end, reply_requested, .. } => {
                write!(f, "Keepalive({wal_end}, reply_requested: {reply_requested})")
            }
        }
    }
}

impl<'a> Frame<'a> {
    /// Decodes one payload.
    ///
    /// # Errors
    /// It is neither XLogData nor a keepalive.
    pub fn decode(copy_data: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut reader = Reader::new(copy_data);
        match reader.u8()? {
            b'w' => Ok(Self::XLogData {
                wal_start: Lsn::new(reader.u64()?),
                wal_end: Lsn::new(reader.u64()?),
                send_time_micros: reader.i64()?,
                payload: reader.rest(),
            }),
            b'k' => {
                let frame = Self::Keepalive {
                    wal_end: Lsn::new(reader.u64()?),
                    send_time_micros: reader.i64()?,
                    reply_requested: reader.flags(1)? == 1,
                };
                match reader.rest().len() {
                    0 => Ok(frame),
                    bytes => Err(DecodeError::Trailing(bytes).into()),
                }
            }
            kind => Err(EnvelopeError::Kind(kind)),
        }
    }
}

/// A standby status update. `written` is what was received; only `flushed` moves a logical slot.
pub fn encode_standby_status(
    written: Lsn,
    flushed: Lsn,
    applied: Lsn,
    client_time_micros: i64,
    reply: bool,
) -> [u8; STATUS_BYTES] {
    let mut status = [0; STATUS_BYTES];
    let fields = [
        &[b'r'][..],
        &written.get().to_be_bytes(),
        &flushed.get().to_be_bytes(),
        &applied.get().to_be_bytes(),
        &client_time_micros.to_be_bytes(),
        &[u8::from(reply)],
    ];
    for (byte, value) in status.iter_mut().zip(fields.into_iter().flatten()) {
        *byte = *value;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_and_nothing_else() {
        let mut keepalive = b"k".to_vec();
        keepalive.extend(7_u64.to_be_bytes());
        keepalive.extend([0; 8]);
        assert!(Frame::decode(&keepalive).is_err());
        keepalive.push(1);
        let Ok(Frame::Keepalive { wal_end, reply_requested: true, .. }) = Frame::decode(&keepalive)
        else {
            panic!()
        };
        assert_eq!(wal_end, Lsn::new(7));
        keepalive.push(0);
        assert!(Frame::decode(&keepalive).is_err());
        assert_eq!(Frame::decode(b"x"), Err(EnvelopeError::Kind(b'x')));
        assert!(Frame::decode(b"").is_err());
    }

    #[test]
    fn a_status_has_the_fields_in_the_protocols_order() {
        let status = encode_standby_status(Lsn::new(1), Lsn::new(2), Lsn::new(3), 4, true);
        assert_eq!(status[0], b'r');
        assert_eq!(status[8], 1);
        assert_eq!(status[16], 2);
        assert_eq!(status[24], 3);
        assert_eq!(status[32], 4);
        assert_eq!(status[33], 1);
    }
}
