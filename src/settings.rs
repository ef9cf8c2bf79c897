//! What the configuration means: validated, defaults applied, nothing left to look up.
//!
//! `config` reads what was written (file, variables, flags) and produces [`Settings`]; the rest of
//! the program sees only this. Sizes are in bytes, times are `Duration`s, limits have names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::admin::AdminSettings;

/// A value that never appears in a log, an error or a `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The secret itself; for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Everything a command needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The source.
    pub postgres: PostgresSettings,
    /// The search cluster.
    pub elasticsearch: ElasticsearchSettings,
    /// Bytes between decode and confirmation, at most (`memory_budget`).
    pub memory_budget_bytes: usize,
    /// How long a stop may take to drain what is in flight (`shutdown_grace`).
    pub shutdown_grace: Duration,
    /// What becomes of a document that the cluster refuses for good (`on_rejected`).
    pub on_rejected: OnRejected,
    /// What becomes of a run whose slot is lost (`on_slot_lost`).
    pub on_slot_lost: OnSlotLost,
    /// Where the admin server listens (`admin.listen`).
    pub admin: AdminSettings,
    /// The configured tables; empty means every table of the publication, under its own name.
    pub tables: Vec<TableSettings>,
}

/// What becomes of a document that the cluster refuses for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRejected {
    /// The run stops; nothing of it is confirmed.
    Halt,
    /// A dead letter takes its place.
    DeadLetter {
        /// Whether the letter holds the document (`dead_letters.keep_document`).
        keep_document: bool,
        /// With more letters than this the run stops after all (`dead_letters.max`).
        max: usize,
    },
}

/// What becomes of a run whose slot is gone, lost, or was moved by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSlotLost {
    /// It stops and says how everything is loaded again.
    Stop,
    /// It loads everything again by itself.
    Rebuild,
}

/// Where one Postgres server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A host name or address.
    Tcp {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A directory that holds the socket `.s.PGSQL.<port>`.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The port that is part of the socket's name.
        port: u16,
    },
}

/// libpq's `sslmode`; `allow` is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS if the server offers it; the certificate is not checked.
    Prefer,
    /// TLS, the certificate is checked only if a root certificate is configured.
    Require,
    /// TLS with a certificate of a known authority.
    VerifyCa,
    /// TLS with a certificate of a known authority that names the host.
    VerifyFull,
}

/// The source: how to reach it, and which slot and publication to read.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// Tried in order at each connect.
    pub hosts: Vec<Host>,
    /// Login role.
    pub user: String,
    /// Its password, if any.
    pub password: Option<Secret>,
    /// The file it was read from, if it was, to be read again at each connect.
    pub password_file: Option<PathBuf>,
    /// Database name.
    pub database: String,
    /// Whether and how TLS is used.
    pub ssl_mode: SslMode,
    /// PEM file with the authorities to trust (`sslrootcert`); none: the system's.
    pub ssl_root_cert: Option<PathBuf>,
    /// Whether a server that asks for an md5 password is answered (`allow_md5`).
    pub allow_md5: bool,
    /// Limit of one attempt to connect.
    pub connect_timeout: Duration,
    /// The logical replication slot.
    pub slot: String,
    /// The one publication.
    pub publication: String,
}

/// How to authenticate to the search cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchCredentials {
    /// No authentication.
    None,
    /// HTTP basic.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: Secret,
    },
    /// An encoded API key (base64 of `id:key`).
    ApiKey(Secret),
}

/// When requests pause because most of them fail (`circuit_breaker`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CircuitBreakerSettings {
    /// Requests of an interval before it is judged.
    pub min_requests: u32,
    /// The part of them that may not fail.
    pub failure_ratio: f64,
    /// How long requests are counted together.
    pub interval: Duration,
    /// How long requests pause.
    pub open_for: Duration,
}

/// The search cluster and the shape of the requests to it.
#[derive(Clone, Debug)]
pub struct ElasticsearchSettings {
    /// One base URL a node, without user info.
    pub addresses: Vec<Url>,
    /// How to authenticate.
    pub credentials: SearchCredentials,
    /// The file that the password or API key was read from; it is read again when they are refused.
    pub secret_file: Option<PathBuf>,
    /// PEM file with the authority to trust; none: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Documents in a request, at most.
    pub bulk_size: usize,
    /// Bytes in a request, at most; one larger document travels alone.
    pub bulk_bytes: usize,
    /// A document waits for company this long at most; an idle lane sends at once.
    pub flush_interval: Duration,
    /// Lanes: requests in flight.
    pub concurrency: usize,
    /// Limit of one request.
    pub request_timeout: Duration,
    /// Connection attempts on one node before the next is tried.
    pub max_retries: u32,
    /// When requests pause because most of them fail.
    pub circuit_breaker: CircuitBreakerSettings,
    /// Whether request bodies are compressed.
    pub compression: bool,
}

/// Which columns of a table go into its documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnChoice {
    /// Every published column.
    All,
    /// These only.
    Only(Vec<String>),
    /// Every published column but these.
    Except(Vec<String>),
}

/// One piece of a computed field's template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// Text as it stands.
    Literal(String),
    /// The text of a column; a NULL adds nothing.
    Column(String),
}

/// One configured table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSettings {
    /// Schema of the table.
    pub schema: String,
    /// Name of the table.
    pub table: String,
    /// The alias readers use; generations are `<index>-000001` and so on.
    pub index: String,
    /// Which columns are projected.
    pub columns: ColumnChoice,
    /// Column name → field name.
    pub rename: BTreeMap<String, String>,
    /// Field name → template; a field whose columns are all NULL is null.
    pub computed: BTreeMap<String, Vec<TemplatePart>>,
    /// The column whose text is the documents' routing.
    pub routing: Option<String>,
    /// Index settings, as given.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Mappings, merged over those derived from the Postgres types.
    pub mappings: serde_json::Map<String, serde_json::Value>,
}

impl TableSettings {
    /// A table indexed under its own name with every column.
    pub fn with_defaults(schema: &str, table: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            table: table.to_owned(),
            index: table.to_owned(),
            columns: ColumnChoice::All,
            rename: BTreeMap::new(),
            computed: BTreeMap::new(),
            routing: None,
            settings: serde_json::Map::new(),
            mappings: serde_json::Map::new(),
        }
    }

    /// Schema-qualified name of the table, as the state and messages have it; not quoted.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}
