//! The replication connection: slot commands, and the stream of changes with its status messages
//! (PostgreSQL docs, "Streaming Replication Protocol").
//!
//! The stream is one state machine over one socket: reading and writing never wait for each other,
//! so a status goes out even while the server is blocked on us, and answering keeps
//! `wal_sender_timeout` away while reading is held back (seen: 4 s without a word ends the
//! session).

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BufMut};
use postgres_protocol::message::{backend, frontend};

use crate::lsn::Lsn;
use crate::settings::PostgresSettings;

use super::pinned::Encoding;
use super::sql::{identifier, replication_literal};
use super::timeline::History;
use super::wire::{FRAME_BYTES_MAX, Wire, frame_end, surface_notice, unexpected};
use super::{PostgresError, ServerError};

/// `CopyBothResponse`; the driver's protocol library does not know it.
const COPY_BOTH_RESPONSE_TAG: u8 = b'W';

/// Length of a standby status update, without its CopyData frame.
pub const STATUS_BYTES: usize = 34;

/// Since this version a slot can be copied to standbys, and outlive a failover.
const FAILOVER_SINCE_MAJOR: u32 = 17;

/// The file of a timeline's history is not there.
const UNDEFINED_FILE: &str = "58P01";

/// How long the end of a stream may take, so that the server has seen our last status.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Identifies the cluster; the same on its physical standbys.
    pub system_id: String,
    /// The current timeline.
    pub timeline: u32,
    /// How far WAL is flushed.
    pub flush_lsn: Lsn,
    /// The database of this connection.
    pub database: Option<String>,
}

/// A replication connection that takes commands.
pub struct Replication {
    wire: Wire,
}

impl Replication {
    /// Connects and logs in with `replication=database` and the pinned settings.
    ///
    /// # Errors
    /// Whatever keeps the connection from standing; see [`PostgresError::class`].
    pub async fn connect(
        settings: &PostgresSettings,
        encoding: Encoding,
    ) -> Result<Self, PostgresError> {
        Ok(Self { wire: Box::pin(Wire::connect(settings, encoding)).await? })
    }

    /// The walsender's process.
    pub fn process_id(&self) -> i32 {
        self.wire.process_id()
    }

    /// Who the server is and where its WAL ends.
    ///
    /// # Errors
    /// The connection's, or an answer of another shape than the protocol's.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PostgresError> {
        let odd =
            || PostgresError::Protocol("an answer to IDENTIFY_SYSTEM of another shape".to_owned());
        let rows = self.wire.simple_query("IDENTIFY_SYSTEM").await?;
        match rows.first().map(Vec::as_slice) {
            Some([Some(system_id), Some(timeline), Some(flush_lsn), database, ..]) => {
                Ok(SystemIdentity {
                    system_id: system_id.clone(),
                    timeline: timeline.parse().map_err(|_| odd())?,
                    flush_lsn: flush_lsn.parse().map_err(|_| odd())?,
                    database: database.clone(),
                })
            }
            Some(_) | None => Err(odd()),
        }
    }

    /// The ancestors of a timeline; `None` if the server has lost the file.
    ///
    /// # Errors
    /// The connection's, or an answer of another shape than the protocol's.
    pub async fn timeline_history(
        &mut self,
        timeline: u32,
    ) -> Result<Option<History>, PostgresError> {
        let rows = match self.wire.simple_query(&format!("TIMELINE_HISTORY {timeline}")).await {
            Ok(rows) => rows,
            Err(error) if error.sqlstate() == Some(UNDEFINED_FILE) => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = rows.first().and_then(|row| row.get(1)).and_then(Option::as_deref);
        match text.and_then(History::parse) {
            Some(history) => Ok(Some(history)),
            None => Err(PostgresError::Protocol(
                "an answer to TIMELINE_HISTORY of another shape".to_owned(),
            )),
        }
    }

    /// Creates a logical slot for pgoutput and returns its consistent point: every transaction that
    /// commits after it will be in the stream. Waits for every transaction that runs anywhere in
    /// the server, however long; a temporary slot is gone with this connection. If the wait is
    /// given up, the server may still finish creating the slot. One that stays is made so that standbys
    /// may keep a copy of it, where the server can.
    ///
    /// # Errors
    /// 42710 if the slot exists, 53400 if none is free, 55000 if `wal_level` is not `logical`.
    pub async fn create_slot(&mut self, slot: &str, temporary: bool) -> Result<Lsn, PostgresError> {
        let options = if !temporary && self.wire.major_version() >= FAILOVER_SINCE_MAJOR {
            "(SNAPSHOT 'nothing', FAILOVER true)"
        } else {
            "NOEXPORT_SNAPSHOT"
        };
        let command = format!(
            "CREATE_REPLICATION_SLOT {}{} LOGICAL pgoutput {options}",
            identifier(slot),
            if temporary { " TEMPORARY" } else { "" },
        );
        let rows = self.wire.simple_query(&command).await?;
        let point = rows.first().and_then(|row| row.get(1)).and_then(Option::as_deref);
        point.and_then(|text| text.parse().ok()).ok_or_else(|| {
            PostgresError::Protocol(
                "an answer to CREATE_REPLICATION_SLOT of another shape".to_owned(),
            )
        })
    }

    /// Starts the stream at the later of `at` and the slot's confirmed position; `0/0` leaves it to
    /// the slot. A position ahead of the server's is not refused by Postgres: it skips silently.
    ///
    /// # Errors
    /// 55006 if the slot is in use, 42704 if it is missing, 55000 if it is lost or of another
    /// database. Up to version 17 a missing publication shows only once the stream runs.
    pub async fn start(
        mut self,
        slot: &str,
        publication: &str,
        at: Lsn,
    ) -> Result<ReplicationStream, PostgresError> {
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {at} (\"proto_version\" '1', \
             \"publication_names\" {})",
            identifier(slot),
            replication_literal(&identifier(publication)),
        );
        frontend::query(&command, &mut self.wire.outbox)?;
        self.wire.flush().await?;
        let frame = self.wire.receive().await?;
        if frame.tag != COPY_BOTH_RESPONSE_TAG {
            return Err(unexpected(frame.tag, "in the answer to START_REPLICATION"));
        }
        Ok(ReplicationStream { wire: self.wire, taken: 0 })
    }
}

/// The stream of changes. Nothing in it waits but [`ReplicationStream::progress`].
pub struct ReplicationStream {
    wire: Wire,
    /// Bytes at the start of the inbox that were handed out already.
    taken: usize,
}

impl ReplicationStream {
    /// Writes what is queued and, if `read`, reads once. Resolves with the number of bytes that were
    /// read; without `read` it only writes and stays pending. It may be dropped at any time: nothing is lost.
    ///
    /// # Errors
    /// The connection broke or the server closed it. Frames that arrived before are still there.
    pub async fn progress(&mut self, read: bool) -> Result<usize, PostgresError> {
        self.wire.inbox.advance(self.taken);
        self.taken = 0;
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.wire.poll_flush(cx) {
                // What the server said before it closed explains more than a broken pipe does.
                return if read { self.wire.poll_fill(cx) } else { Poll::Ready(Err(error)) };
            }
            if read { self.wire.poll_fill(cx) } else { Poll::Pending }
        })
        .await
    }

    /// The payload of the next complete CopyData message that has been read; `None` when more must
    /// be read first. The previous payload is given up.
    ///
    /// # Errors
    /// What the server reports; [`PostgresError::PublicationSkipped`]; a frame that is no such
    /// message or of impossible length.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, PostgresError> {
        loop {
            let unread = self.wire.inbox.get(self.taken..).unwrap_or_default();
            let Some((tag, end)) = frame_end(unread, FRAME_BYTES_MAX)? else {
                return Ok(None);
            };
            let body = self.taken + super::wire::HEADER_BYTES..self.taken + end;
            self.taken += end;
            if tag == backend::COPY_DATA_TAG {
                return Ok(self.wire.inbox.get(body));
            }
            interlude(tag, self.wire.inbox.get(body).unwrap_or_default())?;
        }
    }

    /// The walsender's process.
    pub fn process_id(&self) -> i32 {
        self.wire.process_id()
    }

    /// Bytes that have been read and not yet handed out.
    pub fn buffered_bytes(&self) -> usize {
        self.wire.inbox.len().saturating_sub(self.taken)
    }

    /// Queues a standby status update; it goes out with the next [`ReplicationStream::progress`].
    pub fn queue_status(&mut self, status: &[u8; STATUS_BYTES]) {
        const FRAME_LENGTH: u32 = 4 + 34;
        self.wire.outbox.put_u8(backend::COPY_DATA_TAG);
        self.wire.outbox.put_u32(FRAME_LENGTH);
        self.wire.outbox.put_slice(status);
    }

    /// Whether a queued status has not been written yet: the socket is full, so another would only
    /// repeat it.
    pub fn has_queued_output(&self) -> bool {
        self.wire.outbox.has_remaining()
    }

    /// Ends the stream: writes what is queued, says that we are done, and reads until the server
    /// has said so too. Closing with unread bytes would reset the connection, and the server could
    /// lose our last status with it. Bounded: within a large transaction the server takes its time.
    ///
    /// # Errors
    /// The end could not be agreed on; the connection is closed all the same.
    pub async fn finish(mut self) -> Result<(), PostgresError> {
        frontend::copy_done(&mut self.wire.outbox);
        let place = self.wire.transport().place.clone();
        super::transport::within(FINISH_TIMEOUT, &place, async {
            loop {
                match self.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => drop(self.progress(true).await?),
                    Err(PostgresError::StreamEnded) => break,
                    Err(error) => return Err(error),
                }
            }
            self.wire.inbox.advance(self.taken);
            // The slot is free for the next reader only once the command is complete.
            while self.wire.receive().await?.tag != backend::READY_FOR_QUERY_TAG {}
            frontend::terminate(&mut self.wire.outbox);
            self.wire.flush().await
        })
        .await
    }
}

/// Deals with a message that is no data: only notices and parameters may stand between.
fn interlude(tag: u8, body: &[u8]) -> Result<(), PostgresError> {
    match tag {
        backend::NOTICE_RESPONSE_TAG => {
            let notice = ServerError::parse(body);
            if notice.is_skipped_publication() {
                return Err(PostgresError::PublicationSkipped(notice.into()));
            }
            surface_notice(&notice);
            Ok(())
        }
        backend::PARAMETER_STATUS_TAG => Ok(()),
        backend::ERROR_RESPONSE_TAG => Err(PostgresError::Server(ServerError::parse(body).into())),
        backend::COPY_DONE_TAG => Err(PostgresError::StreamEnded),
        tag => Err(unexpected(tag, "in the replication stream")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::transport::Transport;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    fn stream() -> (ReplicationStream, UnixStream) {
        let (transport, far) = Transport::pair_for_test();
        (ReplicationStream { wire: Wire::for_test(transport), taken: 0 }, far)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], length.to_be_bytes().as_slice(), body].concat()
    }

    #[tokio::test]
    async fn payloads_come_out_whole_however_the_bytes_arrive() {
        let (mut stream, mut far) = stream();
        let sent = [
            message(b'd', b"one"),
            message(b'N', b"VNOTICE\0C00000\0Mx\0\0"),
            message(b'd', b""),
            message(b'S', b"TimeZone\0UTC\0"),
            message(b'd', &[7; 300_000]),
        ]
        .concat();
        let writer = tokio::spawn(async move {
            let (first, rest) = sent.split_at(12);
            for part in first.chunks(1).chain(rest.chunks(7_001)) {
                far.write_all(part).await.unwrap();
            }
            far
        });
        let mut lengths = Vec::new();
        while lengths.len() < 3 {
            stream.progress(true).await.unwrap();
            while let Some(payload) = stream.next_frame().unwrap() {
                lengths.push(payload.len());
            }
        }
        assert_eq!(lengths, [3, 0, 300_000]);
        drop(writer.await.unwrap());
        assert!(matches!(stream.progress(true).await, Err(PostgresError::Closed)));
    }

    #[tokio::test]
    async fn a_status_is_written_while_nothing_is_read() {
        let (mut stream, mut far) = stream();
        stream.queue_status(&[b'r'; STATUS_BYTES]);
        let mut seen = [0; 5 + STATUS_BYTES];
        tokio::select! {
            outcome = stream.progress(false) => panic!("resolved without reading: {outcome:?}"),
            read = far.read_exact(&mut seen) => assert_eq!(read.unwrap(), seen.len()),
        }
        assert_eq!(seen.as_slice(), message(b'd', &[b'r'; STATUS_BYTES]));
        assert!(!stream.has_queued_output());
    }

    #[tokio::test]
    async fn what_the_server_says_at_the_end_is_told_apart() {
        let skipped = message(b'N', b"VWARNING\0C55000\0RLoadPublications\0\0");
        let down = message(b'E', b"VFATAL\0C57P01\0\0");
        let lengthless = b"d\xff\xff\xff\xff".to_vec();
        for (sent, sqlstate) in
            [(skipped, Some("55000")), (down, Some("57P01")), (lengthless, None)]
        {
            let (mut stream, mut far) = stream();
            far.write_all(&sent).await.unwrap();
            stream.progress(true).await.unwrap();
            assert_eq!(stream.next_frame().unwrap_err().sqlstate(), sqlstate);
        }
    }

    #[tokio::test]
    async fn the_end_is_agreed_on() {
        let (mut stream, mut far) = stream();
        stream.queue_status(&[b'r'; STATUS_BYTES]);
        let server = tokio::spawn(async move {
            let mut seen = vec![0; 5 + STATUS_BYTES + 5];
            far.read_exact(&mut seen).await.unwrap();
            let answer = [
                message(b'd', b"late"),
                message(b'c', b""),
                message(b'C', b"COPY 0\0"),
                message(b'Z', b"I"),
            ];
            far.write_all(&answer.concat()).await.unwrap();
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            (seen, rest)
        });
        stream.finish().await.unwrap();
        let (seen, rest) = server.await.unwrap();
        assert_eq!(seen.last_chunk::<5>(), Some(b"c\0\0\0\x04"), "CopyDone after the status");
        assert_eq!(rest, message(b'X', b""));
    }
}
