//! Every scalar setting once: its key in the file, its flag, its variable, its limits.
//!
//! The walk of the file, the flags, the help, the did-you-mean and the limits all read this table, so
//! that a setting cannot exist in one of them only. Names are part of the stable interface.

/// What a setting's text must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// Any text, never shown in an error.
    Secret,
    /// A whole number.
    Count,
    /// A number of bytes: `5MiB`, `1000`.
    Size,
    /// A time: `250ms`, `30s`.
    Time,
    /// A part of a whole: `0.6`.
    Ratio,
    /// `true` or `false`.
    Switch,
}

/// The accepted range of a quantity, and what holds if nothing is given.
///
/// In the kind's unit: a count, bytes, milliseconds, or thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) default: u64,
}

/// One scalar setting and its names.
#[derive(Debug)]
pub(super) struct Key {
    /// Where it stands in the file, with its section: `postgres.slot`.
    pub(super) path: &'static str,
    /// Its flag; secrets have none, since a command line is visible to every user of the machine.
    pub(super) flag: Option<&'static str>,
    /// Its environment variable.
    pub(super) variable: &'static str,
    pub(super) kind: Kind,
    /// Only for counts, sizes and times.
    pub(super) limits: Option<Limits>,
}

impl Key {
    /// The last part of the path, as it is written in the file.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The three ways to give it, for "is not set" errors.
    pub(super) fn ways(&self) -> String {
        match self.flag {
            Some(flag) => {
                format!("{flag}, {} or \"{}\" in the file", self.variable, self.path)
            }
            None => format!("{} or \"{}\" in the file", self.variable, self.path),
        }
    }
}

const fn text(path: &'static str, flag: &'static str, variable: &'static str) -> Key {
    Key { path, flag: Some(flag), variable, kind: Kind::Text, limits: None }
}

const fn secret(path: &'static str, flag: Option<&'static str>, variable: &'static str) -> Key {
    Key { path, flag, variable, kind: Kind::Secret, limits: None }
}

const fn switch(path: &'static str, flag: &'static str, variable: &'static str) -> Key {
    Key { path, flag: Some(flag), variable, kind: Kind::Switch, limits: None }
}

const fn quantity(
    kind: Kind,
    path: &'static str,
    flag: &'static str,
    variable: &'static str,
    limits: Limits,
) -> Key {
    Key { path, flag: Some(flag), variable, kind, limits: Some(limits) }
}

const fn limits(min: u64, max: u64, default: u64) -> Limits {
    Limits { min, max, default }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;

/// A secret as a whole, because it may carry a password.
pub(super) static POSTGRES_URL: Key =
    secret("postgres.url", Some("--postgres-url"), "WALDEX_POSTGRES_URL");
pub(super) static POSTGRES_PASSWORD: Key =
    secret("postgres.password", None, "WALDEX_POSTGRES_PASSWORD");
pub(super) static POSTGRES_PASSWORD_FILE: Key =
    text("postgres.password_file", "--postgres-password-file", "WALDEX_POSTGRES_PASSWORD_FILE");
pub(super) static SLOT: Key = text("postgres.slot", "--slot", "WALDEX_SLOT");
pub(super) static PUBLICATION: Key =
    text("postgres.publication", "--publication", "WALDEX_PUBLICATION");
pub(super) static ALLOW_MD5: Key = switch("postgres.allow_md5", "--allow-md5", "WALDEX_ALLOW_MD5");

/// A list: comma separated as a variable, repeatable as a flag. Secret, because of user info.
pub(super) static ADDRESSES: Key =
    secret("elasticsearch.addresses", Some("--elasticsearch-url"), "WALDEX_ELASTICSEARCH_URL");
pub(super) static USERNAME: Key =
    text("elasticsearch.username", "--elasticsearch-username", "WALDEX_ELASTICSEARCH_USERNAME");
pub(super) static PASSWORD: Key =
    secret("elasticsearch.password", None, "WALDEX_ELASTICSEARCH_PASSWORD");
pub(super) static PASSWORD_FILE: Key = text(
    "elasticsearch.password_file",
    "--elasticsearch-password-file",
    "WALDEX_ELASTICSEARCH_PASSWORD_FILE",
);
pub(super) static API_KEY: Key =
    secret("elasticsearch.api_key", None, "WALDEX_ELASTICSEARCH_API_KEY");
pub(super) static API_KEY_FILE: Key = text(
    "elasticsearch.api_key_file",
    "--elasticsearch-api-key-file",
    "WALDEX_ELASTICSEARCH_API_KEY_FILE",
);
pub(super) static CA_FILE: Key = text("elasticsearch.ca_file", "--ca-file", "WALDEX_CA_FILE");
pub(super) static BULK_SIZE: Key = quantity(
    Kind::Count,
    "elasticsearch.bulk_size",
    "--bulk-size",
    "WALDEX_BULK_SIZE",
    limits(1, 100_000, 1000),
);
/// Elasticsearch refuses requests over `http.max_content_length`, 100 MiB unless changed.
pub(super) static BULK_BYTES: Key = quantity(
    Kind::Size,
    "elasticsearch.bulk_bytes",
    "--bulk-bytes",
    "WALDEX_BULK_BYTES",
    limits(KIB, 95 * MIB, 5 * MIB),
);
pub(super) static FLUSH_INTERVAL: Key = quantity(
    Kind::Time,
    "elasticsearch.flush_interval",
    "--flush-interval",
    "WALDEX_FLUSH_INTERVAL",
    limits(1, MINUTE, SECOND),
);
pub(super) static CONCURRENCY: Key = quantity(
    Kind::Count,
    "elasticsearch.concurrency",
    "--concurrency",
    "WALDEX_CONCURRENCY",
    limits(1, 64, 2),
);
pub(super) static REQUEST_TIMEOUT: Key = quantity(
    Kind::Time,
    "elasticsearch.request_timeout",
    "--request-timeout",
    "WALDEX_REQUEST_TIMEOUT",
    limits(100, 10 * MINUTE, 30 * SECOND),
);
pub(super) static MAX_RETRIES: Key = quantity(
    Kind::Count,
    "elasticsearch.max_retries",
    "--max-retries",
    "WALDEX_MAX_RETRIES",
    limits(0, 20, 3),
);
pub(super) static BREAKER_MIN_REQUESTS: Key = quantity(
    Kind::Count,
    "elasticsearch.circuit_breaker.min_requests",
    "--circuit-breaker-min-requests",
    "WALDEX_CIRCUIT_BREAKER_MIN_REQUESTS",
    limits(1, 1000, 3),
);
pub(super) static BREAKER_FAILURE_RATIO: Key = quantity(
    Kind::Ratio,
    "elasticsearch.circuit_breaker.failure_ratio",
    "--circuit-breaker-failure-ratio",
    "WALDEX_CIRCUIT_BREAKER_FAILURE_RATIO",
    limits(10, 1000, 600),
);
pub(super) static BREAKER_INTERVAL: Key = quantity(
    Kind::Time,
    "elasticsearch.circuit_breaker.interval",
    "--circuit-breaker-interval",
    "WALDEX_CIRCUIT_BREAKER_INTERVAL",
    limits(SECOND, 60 * MINUTE, MINUTE),
);
pub(super) static BREAKER_OPEN_FOR: Key = quantity(
    Kind::Time,
    "elasticsearch.circuit_breaker.open_for",
    "--circuit-breaker-open-for",
    "WALDEX_CIRCUIT_BREAKER_OPEN_FOR",
    limits(100, 10 * MINUTE, 30 * SECOND),
);
pub(super) static COMPRESSION: Key =
    switch("elasticsearch.compression", "--compression", "WALDEX_COMPRESSION");

/// Must also hold one whole request: at least `bulk_bytes`.
pub(super) static MEMORY_BUDGET: Key = quantity(
    Kind::Size,
    "memory_budget",
    "--memory-budget",
    "WALDEX_MEMORY_BUDGET",
    limits(64 * KIB, 2048 * MIB, 16 * MIB),
);
pub(super) static SHUTDOWN_GRACE: Key = quantity(
    Kind::Time,
    "shutdown_grace",
    "--shutdown-grace",
    "WALDEX_SHUTDOWN_GRACE",
    limits(100, 10 * MINUTE, 10 * SECOND),
);
pub(super) static ON_REJECTED: Key = text("on_rejected", "--on-rejected", "WALDEX_ON_REJECTED");
/// What is still open of them is held in memory by 8 bytes each.
pub(super) static DEAD_LETTERS_MAX: Key = quantity(
    Kind::Count,
    "dead_letters.max",
    "--dead-letters-max",
    "WALDEX_DEAD_LETTERS_MAX",
    limits(0, 100_000, 10_000),
);
pub(super) static DEAD_LETTERS_KEEP_DOCUMENT: Key = switch(
    "dead_letters.keep_document",
    "--dead-letters-keep-document",
    "WALDEX_DEAD_LETTERS_KEEP_DOCUMENT",
);
pub(super) static ON_SLOT_LOST: Key = text("on_slot_lost", "--on-slot-lost", "WALDEX_ON_SLOT_LOST");

pub(super) static ADMIN_LISTEN: Key = text("admin.listen", "--admin-listen", "WALDEX_ADMIN_LISTEN");

/// All of them, in the order of the documentation.
pub(super) static ALL: [&Key; 31] = [
    &POSTGRES_URL,
    &POSTGRES_PASSWORD,
    &POSTGRES_PASSWORD_FILE,
    &SLOT,
    &PUBLICATION,
    &ALLOW_MD5,
    &ADDRESSES,
    &USERNAME,
    &PASSWORD,
    &PASSWORD_FILE,
    &API_KEY,
    &API_KEY_FILE,
    &CA_FILE,
    &BULK_SIZE,
    &BULK_BYTES,
    &FLUSH_INTERVAL,
    &CONCURRENCY,
    &REQUEST_TIMEOUT,
    &MAX_RETRIES,
    &BREAKER_MIN_REQUESTS,
    &BREAKER_FAILURE_RATIO,
    &BREAKER_INTERVAL,
    &BREAKER_OPEN_FOR,
    &COMPRESSION,
    &MEMORY_BUDGET,
    &SHUTDOWN_GRACE,
    &ON_REJECTED,
    &DEAD_LETTERS_MAX,
    &DEAD_LETTERS_KEEP_DOCUMENT,
    &ON_SLOT_LOST,
    &ADMIN_LISTEN,
];

/// Keys that are no scalars, by path.
pub(super) const SECTIONS: [&str; 6] = [
    "dead_letters",
    "postgres",
    "elasticsearch",
    "elasticsearch.circuit_breaker",
    "admin",
    "tables",
];

/// Keys of one entry of `tables`.
pub(super) const TABLE_KEYS: [&str; 9] = [
    "table", "index", "columns", "exclude", "rename", "computed", "routing", "settings", "mappings",
];

/// Keys that the product knows and this version has not, by path without list positions.
pub(super) const NOT_YET: [&str; 6] = [
    "elasticsearch.cloud_id",
    "elasticsearch.client_cert",
    "elasticsearch.client_key",
    "tables[].where",
    "tables[].lifecycle",
    "tables[].id_prefix",
];
