//! Ordinary connections: catalog, control, copies. The driver is `tokio-postgres`; dialling, TLS
//! and the password policy are the same as for the replication connection.
//!
//! The driver would answer any request for a password. [`Guarded`] stands between it and the socket
//! and breaks the connection off when the server asks for one in a form that is not allowed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use std::future::{Ready, poll_fn, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Row};

use crate::settings::{Host, PostgresSettings, Secret};

use super::auth::{PasswordPolicy, current_password};
use super::error::PostgresError;
use super::pinned::{self, Encoding};
use super::server_error::ServerError;
use super::transport::{Transport, within};
use super::wire::surface_notice;

/// What a session is for; decides how it is pinned beyond the common settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Catalog queries, set-up, and the connection whose end announces a shutdown: Postgres ends
    /// ordinary sessions first (57P01) and then waits for walsenders, for ever if need be.
    Control,
    /// Reading rows: every statement is read-only, and a row-security policy raises an error
    /// instead of hiding rows.
    Snapshot,
}

/// How a session ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// The server said why, as 57P01 at a shutdown.
    Server(ServerError),
    /// The connection broke or was closed; the text names no value.
    Broken(String),
}

/// A logged-in connection. Ends when dropped.
pub struct Session {
    /// The driver's client, for whatever has no function here.
    pub client: Client,
    encoding: Encoding,
    major_version: u32,
    process_id: i32,
    /// Where it leads, if the server there is a standby.
    standby_at: Option<String>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Session {
    /// Connects to the first configured host that is a primary and logs in.
    ///
    /// # Errors
    /// Whatever keeps the connection from standing; see [`PostgresError::class`].
    pub async fn connect(
        settings: &PostgresSettings,
        purpose: Purpose,
    ) -> Result<Self, PostgresError> {
        let mut last = PostgresError::NoHost;
        for host in &settings.hosts {
            let connected = Box::pin(Self::connect_host(host, settings, purpose)).await;
            match connected.map_err(|error| error.with(settings)) {
                Err(error) if error.class() == crate::error::Class::Transient => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    async fn connect_host(
        host: &Host,
        settings: &PostgresSettings,
        purpose: Purpose,
    ) -> Result<Self, PostgresError> {
        let transport = Transport::dial(host, settings).await?;
        let place = transport.place.clone();
        let session = within(settings.connect_timeout, &place, async {
            let policy = PasswordPolicy {
                allows_md5: settings.allow_md5,
                allows_cleartext: transport.verified,
                has_password: settings.password.is_some(),
            };
            let connector = Established { end_point: transport.end_point.clone() };
            let guarded = Guarded { transport, policy, seen: Vec::new(), end_point: None };
            let config = driver_config(settings, current_password(settings).await, purpose);
            let (client, connection) = config.connect_raw(guarded, connector).await?;
            Self::begin(client, connection, settings, &place).await
        });
        Box::pin(session).await
    }

    async fn begin(
        client: Client,
        connection: Connection<Guarded, Guarded>,
        settings: &PostgresSettings,
        place: &str,
    ) -> Result<Self, PostgresError> {
        let is_standby = connection.parameter("in_hot_standby") == Some("on");
        let encoding =
            Encoding::for_server(connection.parameter("server_encoding").unwrap_or_default());
        let version = connection.parameter("server_version").unwrap_or_default();
        let major_version = pinned::major_version(version).unwrap_or_default();
        if is_standby && settings.hosts.len() > 1 {
            return Err(PostgresError::Standby { place: place.to_owned() });
        }
        let (announce, ended) = watch::channel(None);
        tokio::spawn(drive(connection, announce));
        if encoding == Encoding::SqlAscii {
            client.batch_execute("SET client_encoding = 'SQL_ASCII'").await?;
        }
        if major_version >= pinned::TRANSACTION_TIMEOUT_SINCE_MAJOR {
            client.batch_execute(pinned::TRANSACTION_TIMEOUT_OFF).await?;
        }
        let process_id =
            client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)?;
        let standby_at = is_standby.then(|| place.to_owned());
        Ok(Self { client, encoding, major_version, process_id, standby_at, ended })
    }

    /// The encoding that suits this database; the replication connection needs the same.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The server's major version, as 14 or 18.
    pub fn major_version(&self) -> u32 {
        self.major_version
    }

    /// The server's process, as `pg_stat_activity` has it.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Refuses a server that is a standby: it is not the source, though it may become that.
    ///
    /// # Errors
    /// [`PostgresError::Standby`].
    pub fn refuse_standby(&self) -> Result<(), PostgresError> {
        match &self.standby_at {
            Some(place) => Err(PostgresError::Standby { place: place.clone() }),
            None => Ok(()),
        }
    }

    /// Resolves when the connection has ended, with the reason. May be called any number of times
    /// and dropped at any time.
    pub fn closed(&self) -> impl Future<Output = Ended> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            let outcome = ended.wait_for(Option::is_some).await.ok().and_then(|seen| seen.clone());
            outcome.unwrap_or_else(|| Ended::Broken("the session is gone".to_owned()))
        }
    }

    /// Rows of one statement with parameters.
    pub(super) async fn rows(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        Ok(self.client.query(sql, parameters).await?)
    }

    /// The only row of one statement, if there is one.
    pub(super) async fn row(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, PostgresError> {
        Ok(self.client.query_opt(sql, parameters).await?)
    }
}

fn driver_config(
    settings: &PostgresSettings,
    password: Option<Secret>,
    purpose: Purpose,
) -> Config {
    let mut pins = pinned::SETTINGS.to_vec();
    if purpose == Purpose::Snapshot {
        pins.extend([("row_security", "off"), ("default_transaction_read_only", "on")]);
    }
    let mut config = Config::new();
    config
        .user(&settings.user)
        .dbname(&settings.database)
        .application_name(pinned::APPLICATION_NAME)
        .options(pinned::as_options(&pins))
        // TLS stands already where it is to be used; "direct" makes the driver ask for nothing.
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    if let Some(password) = password {
        config.password(password.reveal());
    }
    config
}

/// Moves the connection's bytes until it ends, then tells why.
async fn drive(
    mut connection: Connection<Guarded, Guarded>,
    announce: watch::Sender<Option<Ended>>,
) {
    let reason = loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                surface_notice(&ServerError::from_driver(&notice));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let error = PostgresError::from(error);
                break match error.server() {
                    Some(server) => Ended::Server(server.clone()),
                    None => Ended::Broken(error.to_string()),
                };
            }
            None => break Ended::Broken(PostgresError::Closed.to_string()),
        }
    };
    announce.send_replace(Some(reason));
}

/// Hands the driver a stream whose TLS, if any, stands already, with its channel binding.
struct Established {
    end_point: Option<Vec<u8>>,
}

impl TlsConnect<Guarded> for Established {
    type Stream = Guarded;
    type Error = io::Error;
    type Future = Ready<Result<Guarded, io::Error>>;

    fn connect(self, mut stream: Guarded) -> Self::Future {
        stream.end_point = self.end_point;
        ready(Ok(stream))
    }
}

/// Type, length and code of an authentication request.
const REQUEST_BYTES: usize = 9;

/// A transport that looks at the server's first message.
struct Guarded {
    transport: Transport,
    policy: PasswordPolicy,
    /// The first bytes of the stream, up to [`REQUEST_BYTES`].
    seen: Vec<u8>,
    end_point: Option<Vec<u8>>,
}

impl Guarded {
    fn inspect(&mut self, fresh: &[u8]) -> Result<(), PostgresError> {
        if self.seen.len() >= REQUEST_BYTES {
            return Ok(());
        }
        self.seen.extend(fresh.iter().take(REQUEST_BYTES - self.seen.len()));
        match self.seen.as_slice() {
            [b'R', _, _, _, _, a, b, c, d] => {
                self.policy.check(u32::from_be_bytes([*a, *b, *c, *d]))
            }
            _ => Ok(()),
        }
    }
}

impl TlsStream for Guarded {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point
            .clone()
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.transport).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            let fresh = buf.filled().get(before..).unwrap_or_default();
            if let Err(refused) = self.inspect(fresh) {
                return Poll::Ready(Err(io::Error::other(refused)));
            }
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
