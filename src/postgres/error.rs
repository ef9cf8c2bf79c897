//! What can go wrong between this program and Postgres, and how each case is to be met.
//!
//! Every case is classified in [`PostgresError::class`] without a wildcard, so a new one cannot be
//! forgotten. No text here carries a column value: of a server's error the `DETAIL` field, which
//! may quote a row, is kept out of `Display` and `Debug`.

mod sqlstate;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Class;
use crate::settings::PostgresSettings;

use super::server_error::ServerError;

/// Everything that can end or refuse a connection, a statement or a stream.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The configuration names no host.
    #[error("no host of Postgres is configured")]
    NoHost,
    /// No address could be found for a host.
    #[error("cannot find an address of Postgres host \"{host}\": {source}")]
    Resolve {
        /// The host as configured.
        host: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// Nobody listens, or the network is in between.
    #[error("cannot connect to Postgres at {place}: {source}")]
    Connect {
        /// Address or socket.
        place: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The attempt took longer than `connect_timeout`.
    #[error("Postgres at {place} did not answer within {limit:?}")]
    ConnectTimeout {
        /// Address or socket.
        place: String,
        /// `connect_timeout`.
        limit: Duration,
    },
    /// A standby answered while several hosts are configured: the primary is wanted.
    #[error("Postgres at {place} is a standby")]
    Standby {
        /// Address or socket.
        place: String,
    },
    /// `sslmode` asks for TLS and the server has none.
    #[error("Postgres at {place} does not offer TLS, which sslmode requires")]
    TlsRefused {
        /// Address or socket.
        place: String,
    },
    /// The file of trusted authorities cannot be used.
    #[error("cannot use the root certificates in \"{}\": {reason}", path.display())]
    RootCertificates {
        /// `sslrootcert`, or where the system keeps its own.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The server's certificate is not acceptable.
    #[error("the certificate of Postgres at {place} is not accepted: {reason}")]
    Certificate {
        /// Address or socket.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS handshake failed for another reason than the certificate.
    #[error("TLS with Postgres at {place} failed: {source}")]
    Tls {
        /// Address or socket.
        place: String,
        /// The TLS layer's or the system's answer.
        source: io::Error,
    },
    /// The server asks for a password and none is configured.
    #[error("Postgres asks for a password and none is configured")]
    PasswordMissing,
    /// The server asks for an md5 password.
    #[error("Postgres asks for an md5 password, which is refused")]
    Md5Refused,
    /// The server asks for the password itself over a connection that anybody could read or
    /// imitate.
    #[error(
        "Postgres asks for the password in clear text over a connection that is not verified TLS"
    )]
    CleartextRefused,
    /// Kerberos, GSSAPI and the like.
    #[error("Postgres asks for authentication method {code}, which is not supported")]
    MethodUnsupported {
        /// The code of the authentication request.
        code: u32,
    },
    /// The SCRAM exchange failed on our side: the server could not prove that it knows the
    /// password.
    #[error("SCRAM authentication failed: {reason}")]
    Scram {
        /// Which step.
        reason: String,
    },
    /// The server reported an error.
    #[error("Postgres: {0}")]
    Server(Box<ServerError>),
    /// The server refuses a password that stands in a file: whoever rotates it changes one before the other.
    #[error("Postgres: {0}")]
    PasswordRefused(Box<ServerError>),
    /// Tables are dropped while the catalog is read.
    #[error("Postgres, while tables are dropped: {0}")]
    Restless(Box<ServerError>),
    /// PostgreSQL 18 goes on without a publication that does not exist, and confirms what it skips.
    #[error("Postgres skipped the publication: {0}")]
    PublicationSkipped(Box<ServerError>),
    /// The connection ended without a reason being given.
    #[error("Postgres closed the connection")]
    Closed,
    /// The server ended the replication stream in good order.
    #[error("Postgres ended the replication stream")]
    StreamEnded,
    /// Nothing comes any more, and nobody says why.
    #[error("the connection to Postgres is silent: it does not answer any more")]
    Silent,
    /// The connection broke.
    #[error("the connection to Postgres broke: {0}")]
    Io(io::Error),
    /// A message announces a length beyond what Postgres can send.
    #[error(
        "message '{}' from Postgres announces {bytes} bytes, which is not a valid length",
        tag.escape_ascii()
    )]
    FrameLength {
        /// The message's type.
        tag: u8,
        /// The announced length.
        bytes: u64,
    },
    /// The server sent something that the protocol does not have at this place.
    #[error("Postgres broke the protocol: {0}")]
    Protocol(String),
    /// The ordinary connection's driver failed in another way.
    #[error("Postgres driver: {0}")]
    Driver(tokio_postgres::Error),
}

impl PostgresError {
    /// The SQLSTATE, if the server reported the error.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(|error| error.sqlstate.as_str())
    }

    /// Whether the server says that the slot can be read no more.
    pub fn is_lost_slot(&self) -> bool {
        self.server().is_some_and(sqlstate::is_lost_slot)
    }

    /// Whether the server does not know what a statement names: it was dropped or renamed since.
    pub fn is_undefined(&self) -> bool {
        let of_names = ["42703", "42P01", "42704", "3F000"];
        self.server().is_some_and(|error| of_names.contains(&error.sqlstate.as_str()))
    }

    /// Whether a statement that names nothing met something in the catalog that was dropped beside it.
    pub fn is_dropped_meanwhile(&self) -> bool {
        self.server().is_some_and(sqlstate::is_dropped_meanwhile)
    }

    /// What the server reported, if it did.
    pub fn server(&self) -> Option<&ServerError> {
        if let Self::Server(error)
        | Self::PasswordRefused(error)
        | Self::Restless(error)
        | Self::PublicationSkipped(error) = self
        {
            Some(error)
        } else {
            None
        }
    }

    /// The same, met while the publication was read, which names no table.
    pub(super) fn of_reading(self) -> Self {
        if let Self::Server(error) = self {
            let is_restless = sqlstate::is_dropped_meanwhile(&error);
            return if is_restless { Self::Restless(error) } else { Self::Server(error) };
        }
        self
    }

    /// The same, knowing where the password came from.
    pub(super) fn with(self, settings: &PostgresSettings) -> Self {
        let is_rotated = settings.password_file.is_some();
        if let Self::Server(error) = self {
            let is_refused = is_rotated && error.sqlstate == sqlstate::PASSWORD_REFUSED;
            return if is_refused { Self::PasswordRefused(error) } else { Self::Server(error) };
        }
        self
    }

    /// Whether to try again or to stop.
    pub fn class(&self) -> Class {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Standby { .. }
            | Self::Tls { .. }
            | Self::PasswordRefused(_)
            | Self::Restless(_)
            | Self::Closed
            | Self::StreamEnded
            | Self::Silent
            | Self::Io(_) => Class::Transient,
            Self::NoHost
            | Self::TlsRefused { .. }
            | Self::RootCertificates { .. }
            | Self::Certificate { .. }
            | Self::PasswordMissing
            | Self::Md5Refused
            | Self::CleartextRefused
            | Self::MethodUnsupported { .. }
            | Self::Scram { .. }
            | Self::PublicationSkipped(_)
            | Self::FrameLength { .. }
            | Self::Protocol(_)
            | Self::Driver(_) => Class::Definite,
            Self::Server(error) => sqlstate::class_of(error),
        }
    }

    /// What an operator can do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::NoHost => "set postgres.url",
            Self::Resolve { .. } => "check the host in postgres.url",
            Self::Connect { .. } | Self::ConnectTimeout { .. } => {
                "check that Postgres runs, that listen_addresses covers this host, and the port"
            }
            Self::Standby { .. } => "add the primary to the hosts of postgres.url",
            Self::TlsRefused { .. } => {
                "set ssl = on in postgresql.conf, or sslmode=disable in postgres.url on a \
                 trusted network"
            }
            Self::RootCertificates { .. } => {
                "set sslrootcert to a PEM file with the authority's certificate"
            }
            Self::Certificate { .. } => {
                "set sslrootcert to the authority that signed it and use the host name the \
                 certificate carries"
            }
            Self::PasswordMissing => "set postgres.password_file or WALDEX_POSTGRES_PASSWORD",
            Self::Md5Refused => {
                "set password_encryption = 'scram-sha-256', set the role's password again, and use \
                 scram-sha-256 in pg_hba.conf; or set postgres.allow_md5: true (--allow-md5)"
            }
            Self::CleartextRefused => {
                "use scram-sha-256 in pg_hba.conf, or sslmode=verify-full in postgres.url"
            }
            Self::MethodUnsupported { .. } => "use scram-sha-256 in pg_hba.conf for this role",
            Self::Scram { .. } => {
                "check the password, and that nobody stands between here and Postgres"
            }
            Self::PasswordRefused(_) => {
                "check the password of the role and postgres.password_file, which is read again at each attempt"
            }
            Self::PublicationSkipped(_) => {
                "the publication is gone: create it again with `waldex setup`, then load \
                 the tables again \
                 with `waldex run --reload`; changes made meanwhile were not sent"
            }
            Self::Server(error) => return sqlstate::remedy_of(error),
            Self::Tls { .. }
            | Self::Restless(_)
            | Self::Closed
            | Self::StreamEnded
            | Self::Silent
            | Self::Io(_)
            | Self::FrameLength { .. }
            | Self::Protocol(_)
            | Self::Driver(_) => return None,
        };
        Some(text.to_owned())
    }
}

impl From<io::Error> for PostgresError {
    /// Layers that can only speak `io::Error` carry our own errors inside; they come out here.
    fn from(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            if let Some(Ok(own)) = error.into_inner().map(|inner| inner.downcast::<Self>()) {
                return *own;
            }
            return Self::Closed;
        }
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Closed } else { Self::Io(error) }
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            return Self::Server(Box::new(ServerError::from_driver(server)));
        }
        if error.is_closed() {
            return Self::Closed;
        }
        let is_io =
            std::error::Error::source(&error).is_some_and(|source| source.is::<io::Error>());
        if !is_io {
            return Self::Driver(error);
        }
        match error.into_source().map(|source| source.downcast::<io::Error>()) {
            Some(Ok(io)) => Self::from(*io),
            Some(Err(_)) | None => Self::Closed,
        }
    }
}

#[cfg(test)]
mod tests;
