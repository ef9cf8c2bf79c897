//! A byte stream to one Postgres server: TCP or Unix socket, with or without TLS.
//!
//! Both kinds of connection dial here, so they reach the same server under the same policy. Names
//! are resolved at every connect: after a failover the same name points elsewhere.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::settings::{Host, PostgresSettings, SslMode};

use super::PostgresError;
use super::tls::{self, TlsPolicy};

/// An idle connection is probed after so long, and then at this interval, so many times.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;
/// What was sent may be unconfirmed for so long.
#[cfg(target_os = "linux")]
const UNCONFIRMED_MAX: Duration = Duration::from_secs(30);

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connected stream and what is known of its other end.
pub(super) struct Transport {
    stream: Stream,
    /// Address or socket, for messages.
    pub(super) place: String,
    /// Whether TLS proved who the server is.
    pub(super) verified: bool,
    /// The server's `tls-server-end-point`, if TLS is used and its certificate has one.
    pub(super) end_point: Option<Vec<u8>>,
}

impl Transport {
    fn plain(stream: Stream, place: String) -> Self {
        Self { stream, place, verified: false, end_point: None }
    }

    /// Connects to one host, trying each of its addresses.
    pub(super) async fn dial(
        host: &Host,
        settings: &PostgresSettings,
    ) -> Result<Self, PostgresError> {
        let limit = settings.connect_timeout;
        match host {
            Host::Unix { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                let place = path.display().to_string();
                let connect = async {
                    UnixStream::connect(&path)
                        .await
                        .map_err(|source| PostgresError::Connect { place: place.clone(), source })
                };
                let stream = within(limit, &place, connect).await?;
                Ok(Self::plain(Stream::Unix(stream), place))
            }
            Host::Tcp { host, port } => {
                let policy = tls::policy(settings)?;
                let mut last = None;
                for address in resolve(host, *port, limit).await? {
                    let place = if address.ip().to_string() == *host {
                        address.to_string()
                    } else {
                        format!("{host}:{port} ({})", address.ip())
                    };
                    let dialled =
                        dial_address(address, host, &place, settings.ssl_mode, policy.as_ref());
                    match within(limit, &place, dialled).await {
                        Ok(transport) => return Ok(transport),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(|| PostgresError::Resolve {
                    host: host.clone(),
                    source: io::Error::new(io::ErrorKind::NotFound, "no address"),
                }))
            }
        }
    }
}

#[cfg(test)]
impl Transport {
    /// A transport and its other end, without any network.
    pub(super) fn pair_for_test() -> (Self, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Self::plain(Stream::Unix(near), "a pair".to_owned()), far)
    }
}

/// Bounds one step of connecting.
pub(super) async fn within<T>(
    limit: Duration,
    place: &str,
    step: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    timeout(limit, step)
        .await
        .unwrap_or_else(|_| Err(PostgresError::ConnectTimeout { place: place.to_owned(), limit }))
}

async fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, PostgresError> {
    let lookup = async {
        match tokio::net::lookup_host((host, port)).await {
            Ok(addresses) => Ok(addresses.collect()),
            Err(source) => Err(PostgresError::Resolve { host: host.to_owned(), source }),
        }
    };
    within(limit, host, lookup).await
}

async fn dial_address(
    address: SocketAddr,
    host: &str,
    place: &str,
    mode: SslMode,
    policy: Option<&TlsPolicy>,
) -> Result<Transport, PostgresError> {
    let stream = connect_tcp(address)
        .await
        .map_err(|source| PostgresError::Connect { place: place.to_owned(), source })?;
    let plain = |stream| Transport::plain(Stream::Tcp(stream), place.to_owned());
    let Some(policy) = policy else {
        return Ok(plain(stream));
    };
    let (stream, offered) = ask_for_tls(stream).await?;
    match (offered, mode) {
        (true, _) => handshake(stream, host, place, policy).await,
        (false, SslMode::Prefer) => Ok(plain(stream)),
        (false, SslMode::Disable | SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => {
            Err(PostgresError::TlsRefused { place: place.to_owned() })
        }
    }
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    notice_silence(&SockRef::from(&socket))?;
    socket.connect(address).await
}

/// A host that is gone without a word, or a firewall that has forgotten the connection, is noticed by the system:
/// while we wait for the other end by probes, while it does not confirm what we sent by that. A server that is only
/// busy confirms all the same.
fn notice_silence(socket: &SockRef<'_>) -> io::Result<()> {
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL);
    socket.set_tcp_keepalive(&probes.with_retries(PROBES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNCONFIRMED_MAX))?;
    Ok(())
}

/// Sends SSLRequest. Exactly one byte is read: bytes that were put behind the answer by somebody in
/// between must not be taken for the server's (CVE-2021-23222).
async fn ask_for_tls(mut stream: TcpStream) -> Result<(TcpStream, bool), PostgresError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    match stream.read_u8().await? {
        b'S' => Ok((stream, true)),
        b'N' => Ok((stream, false)),
        other => Err(PostgresError::Protocol(format!(
            "answer '{}' to the request for TLS",
            other.escape_ascii()
        ))),
    }
}

async fn handshake(
    stream: TcpStream,
    host: &str,
    place: &str,
    policy: &TlsPolicy,
) -> Result<Transport, PostgresError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| PostgresError::Certificate {
        place: place.to_owned(),
        reason: format!("\"{host}\" is no name a certificate can carry"),
    })?;
    let stream = TlsConnector::from(Arc::clone(&policy.config))
        .connect(name, stream)
        .await
        .map_err(|source| handshake_error(source, place))?;
    let end_point = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(|certificate| tls::server_end_point(certificate));
    Ok(Transport {
        stream: Stream::Tls(Box::new(stream)),
        place: place.to_owned(),
        verified: policy.verified,
        end_point,
    })
}

fn handshake_error(source: io::Error, place: &str) -> PostgresError {
    let place = place.to_owned();
    let cause = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(reason)) = cause {
        return PostgresError::Certificate { place, reason: reason.to_string() };
    }
    PostgresError::Tls { place, source }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
