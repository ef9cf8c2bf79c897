//! Frames of the frontend/backend protocol over one transport, and the start of a session.
//!
//! The other end is not trusted: a frame's length is checked before anything is allocated for it,
//! and the buffer grows only with the bytes that arrive (PostgreSQL docs, "Message Formats").

use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use postgres_protocol::message::{backend, frontend};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::settings::PostgresSettings;

use super::pinned::{self, Encoding};
use super::transport::{Transport, within};
use super::{PostgresError, ServerError, auth};

/// The longest message Postgres can build: its allocations end at 1 GiB.
pub(super) const FRAME_BYTES_MAX: u64 = 1 << 30;

/// Before the login is through, nothing long is expected from whoever is at the other end.
const STARTUP_FRAME_BYTES_MAX: u64 = 64 << 10;

/// Room made for each read. A walsender with backlog fills it; less costs more system calls.
const READ_BYTES: usize = 128 << 10;

/// A buffer that one large row has grown beyond this is given back when it is empty.
const IDLE_BUFFER_BYTES_MAX: usize = 1 << 20;

pub(super) const HEADER_BYTES: usize = 5;

/// A message of the server: its type and its body.
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: BytesMut,
}

/// One connection that speaks the protocol.
pub(super) struct Wire {
    transport: Transport,
    /// What was read and not yet taken.
    pub(super) inbox: BytesMut,
    /// What is to be written.
    pub(super) outbox: BytesMut,
    frame_bytes_max: u64,
    server_version: String,
    is_standby: bool,
    /// Of the server's process at the other end.
    process_id: i32,
}

/// Where the frame at the start of `input` ends, if it is there as a whole.
pub(super) fn frame_end(
    input: &[u8],
    bytes_max: u64,
) -> Result<Option<(u8, usize)>, PostgresError> {
    let Some((&[tag, a, b, c, d], _)) = input.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    // The announced length counts itself and the body, not the tag.
    let bytes = u64::from(u32::from_be_bytes([a, b, c, d]));
    if !(4..=bytes_max).contains(&bytes) {
        return Err(PostgresError::FrameLength { tag, bytes });
    }
    let end = usize::try_from(bytes + 1).map_err(|_| PostgresError::FrameLength { tag, bytes })?;
    Ok((input.len() >= end).then_some((tag, end)))
}

impl Wire {
    /// Connects to the first of the configured hosts that is a primary, and logs in with
    /// `replication=database`. What only this host says (nobody listens, still starting) sends us
    /// to the next; what an operator must repair (a wrong password) ends the search.
    pub(super) async fn connect(
        settings: &PostgresSettings,
        encoding: Encoding,
    ) -> Result<Self, PostgresError> {
        let mut last = PostgresError::NoHost;
        for host in &settings.hosts {
            let attempt = async {
                let transport = Transport::dial(host, settings).await?;
                let place = transport.place.clone();
                let login = Box::pin(Self::log_in(transport, settings, encoding));
                let wire = within(settings.connect_timeout, &place, login).await?;
                if wire.is_standby && settings.hosts.len() > 1 {
                    return Err(PostgresError::Standby { place });
                }
                Ok(wire)
            };
            match attempt.await.map_err(|error: PostgresError| error.with(settings)) {
                Err(error) if error.class() == crate::error::Class::Transient => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    async fn log_in(
        transport: Transport,
        settings: &PostgresSettings,
        encoding: Encoding,
    ) -> Result<Self, PostgresError> {
        let mut wire = Self {
            transport,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            frame_bytes_max: STARTUP_FRAME_BYTES_MAX,
            server_version: String::new(),
            is_standby: false,
            process_id: 0,
        };
        let parameters = [
            ("user", settings.user.as_str()),
            ("database", settings.database.as_str()),
            ("replication", "database"),
            ("application_name", pinned::APPLICATION_NAME),
            ("client_encoding", encoding.name()),
        ];
        frontend::startup_message(
            parameters.into_iter().chain(pinned::SETTINGS),
            &mut wire.outbox,
        )?;
        wire.flush().await?;
        auth::authenticate(&mut wire, settings).await?;
        wire.await_ready().await?;
        wire.frame_bytes_max = FRAME_BYTES_MAX;
        if wire.major_version() >= pinned::TRANSACTION_TIMEOUT_SINCE_MAJOR {
            wire.simple_query(pinned::TRANSACTION_TIMEOUT_OFF).await?;
        }
        Ok(wire)
    }

    /// The server's major version; 0 if it did not say.
    pub(super) fn major_version(&self) -> u32 {
        pinned::major_version(&self.server_version).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn for_test(transport: Transport) -> Self {
        Self {
            transport,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            frame_bytes_max: FRAME_BYTES_MAX,
            server_version: String::new(),
            is_standby: false,
            process_id: 0,
        }
    }

    /// Reads what the server says of itself after the login, up to `ReadyForQuery`.
    async fn await_ready(&mut self) -> Result<(), PostgresError> {
        loop {
            let frame = self.receive().await?;
            match frame.tag {
                backend::READY_FOR_QUERY_TAG => return Ok(()),
                backend::BACKEND_KEY_DATA_TAG => {
                    let pid = frame.body.first_chunk().copied().unwrap_or_default();
                    self.process_id = i32::from_be_bytes(pid);
                }
                tag => return Err(unexpected(tag, "after the login")),
            }
        }
    }

    /// Of the server's process at the other end.
    pub(super) fn process_id(&self) -> i32 {
        self.process_id
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Sends what is in the outbox.
    pub(super) async fn flush(&mut self) -> Result<(), PostgresError> {
        while self.outbox.has_remaining() {
            self.transport.write_buf(&mut self.outbox).await?;
        }
        Ok(self.transport.flush().await?)
    }

    /// The next message that belongs to the conversation: notices and parameters are dealt with
    /// here, and an error is returned as one.
    pub(super) async fn receive(&mut self) -> Result<Frame, PostgresError> {
        loop {
            let Some((tag, end)) = frame_end(&self.inbox, self.frame_bytes_max)? else {
                self.inbox.reserve(READ_BYTES);
                if self.transport.read_buf(&mut self.inbox).await? == 0 {
                    return Err(PostgresError::Closed);
                }
                continue;
            };
            let mut body = self.inbox.split_to(end);
            body.advance(HEADER_BYTES);
            match tag {
                backend::ERROR_RESPONSE_TAG => {
                    return Err(PostgresError::Server(ServerError::parse(&body).into()));
                }
                backend::NOTICE_RESPONSE_TAG => surface_notice(&ServerError::parse(&body)),
                backend::PARAMETER_STATUS_TAG => self.note_parameter(&body),
                _ => return Ok(Frame { tag, body }),
            }
        }
    }

    fn note_parameter(&mut self, body: &[u8]) {
        let mut texts = body.split(|&byte| byte == 0);
        match (texts.next(), texts.next()) {
            (Some(b"server_version"), Some(value)) => {
                self.server_version = String::from_utf8_lossy(value).into_owned();
            }
            (Some(b"in_hot_standby"), Some(value)) => self.is_standby = value == b"on",
            (Some(_) | None, Some(_) | None) => {}
        }
    }

    /// Writes as much of the outbox as the socket takes. Ready when all of it is written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PostgresError>> {
        while self.outbox.has_remaining() {
            let transport = std::pin::Pin::new(&mut self.transport);
            match transport.poll_write(cx, &self.outbox) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(PostgresError::Closed)),
                Poll::Ready(Ok(written)) => self.outbox.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        std::pin::Pin::new(&mut self.transport).poll_flush(cx).map_err(PostgresError::from)
    }

    /// Reads once into the inbox. Ready with the bytes that arrived; the end of the stream is an error.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, PostgresError>> {
        if self.inbox.is_empty() && self.inbox.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.inbox = BytesMut::new();
        }
        self.inbox.reserve(READ_BYTES);
        let read = std::pin::pin!(self.transport.read_buf(&mut self.inbox));
        match read.poll(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(PostgresError::Closed)),
            Poll::Ready(Ok(bytes)) => Poll::Ready(Ok(bytes)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The error for a message that has no place here.
pub(super) fn unexpected(tag: u8, place: &str) -> PostgresError {
    PostgresError::Protocol(format!("message '{}' {place}", tag.escape_ascii()))
}

/// Logs a notice under the level its severity deserves.
pub(super) fn surface_notice(notice: &ServerError) {
    if notice.severity == "WARNING" {
        tracing::warn!(sqlstate = notice.sqlstate, "Postgres: {}", notice.shown());
    } else {
        tracing::debug!(sqlstate = notice.sqlstate, "Postgres: {}", notice.shown());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_ends_where_its_length_says() {
        assert!(matches!(frame_end(b"Z\0\0\0\x05I...", 1000), Ok(Some((b'Z', 6)))));
        assert!(matches!(frame_end(b"Z\0\0\0\x05", 1000), Ok(None)));
        assert!(matches!(frame_end(b"Z\0\0", 1000), Ok(None)));
    }

    #[test]
    fn an_impossible_length_is_refused_from_the_header_alone() {
        for header in [b"d\0\0\0\x03", b"d\xff\xff\xff\xff", b"d\x40\0\0\x01"] {
            let refused = frame_end(header, FRAME_BYTES_MAX);
            assert!(matches!(refused, Err(PostgresError::FrameLength { tag: b'd', .. })));
        }
    }

    proptest! {
        #[test]
        fn a_frame_never_ends_beyond_the_input(
            input in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            if let Ok(Some((_, end))) = frame_end(&input, FRAME_BYTES_MAX) {
                prop_assert!((HEADER_BYTES..=input.len()).contains(&end));
            }
        }
    }
}
