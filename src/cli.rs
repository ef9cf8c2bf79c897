//! The command line: what can be typed, and its help.
//!
//! Values are kept as text and judged in `config`, together with variables and the file, so that all
//! mistakes are reported at once. clap's own environment support is not used for the same reason, and
//! because its help would print what the variables hold.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::lsn::Lsn;

/// Exit code: done.
pub const EXIT_DONE: u8 = 0;
/// Exit code: stopped with a reason.
pub const EXIT_STOPPED: u8 = 1;
/// Exit code: bad usage or configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Keeps Elasticsearch and OpenSearch equal to PostgreSQL tables, by logical replication.
///
/// A change is acknowledged to PostgreSQL only after the search cluster has confirmed it, so that nothing
/// is lost when either side, or waldex, is stopped or killed.
#[derive(Clone, Debug, Parser)]
#[command(name = "waldex", version, propagate_version = true, after_long_help = AFTER_HELP)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub common: SharedArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
A flag wins over its WALDEX_… variable, which wins over the file. Passwords and API keys have no flag, \
since a command line is visible to every user of the machine: WALDEX_POSTGRES_PASSWORD, \
WALDEX_ELASTICSEARCH_PASSWORD, WALDEX_ELASTICSEARCH_API_KEY, or the …-file flags.

Exit codes: 0 done, 1 stopped with a reason, 64 bad usage or configuration.

Example, with no file at all: every table of the publication, each under its own name
  waldex run --postgres-url postgres://waldex@db/app --slot waldex --publication waldex \\
             --elasticsearch-url https://es1:9200";

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check everything, load what is missing, then stream for ever
    Run(RunArgs),
    /// Check only: each problem one line, with its exact fix; exit code 0 or 1
    Check,
    /// Print, or apply, the SQL: publication, slot, role, grants
    Setup(SetupArgs),
    /// State, lag in bytes and seconds, WAL kept by the source
    Status(StatusArgs),
    /// Documents that the cluster refused: list, retry, drop
    DeadLetters(DeadLettersArgs),
    /// Drop the slot and the state, after asking
    Teardown(TeardownArgs),
    /// Of a later version.
    #[command(hide = true, disable_help_flag = true)]
    Plan(Rest),
    /// Of a later version.
    #[command(hide = true, disable_help_flag = true)]
    Reindex(Rest),
    /// Of a later version.
    #[command(hide = true, disable_help_flag = true)]
    Verify(Rest),
}

impl Command {
    /// For a command that this version knows and has not: the sentence to print before exiting with
    /// [`EXIT_USAGE`].
    pub fn not_in_this_version(&self) -> Option<String> {
        let name = match self {
            Self::Run(_)
            | Self::Check
            | Self::Setup(_)
            | Self::Status(_)
            | Self::DeadLetters(_)
            | Self::Teardown(_) => return None,
            Self::Plan(_) => "plan",
            Self::Reindex(_) => "reindex",
            Self::Verify(_) => "verify",
        };
        Some(format!("waldex {name} is not in this version"))
    }
}

/// What `--reload` alone names. A variable that is empty names nothing, and is refused.
const EVERY_TABLE: &str = "*";

/// Arguments of `run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Stop, with exit code 0, once everything up to this position is confirmed
    ///
    /// `current` is the end of the source's WAL at the start; else a position like 16/B374D848.
    #[arg(long, value_name = "current|LSN", value_parser = parse_until)]
    pub until: Option<Until>,
    /// Load again from the start: this table, or all of them
    #[arg(long, value_name = "TABLE", num_args = 0..=1, default_missing_value = EVERY_TABLE,
        value_parser = NonEmptyStringValueParser::new())]
    reload: Option<String>,
    /// Print the bulk lines to stdout; write and confirm nothing anywhere
    #[arg(long)]
    pub dry_run: bool,
}

impl RunArgs {
    /// Which tables `--reload` names.
    pub fn reload(&self) -> Reload {
        match self.reload.as_deref() {
            None => Reload::Nothing,
            Some(EVERY_TABLE) => Reload::All,
            Some(table) => Reload::Table(table.to_owned()),
        }
    }
}

/// What `run` loads again although its load is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Only what is missing.
    Nothing,
    /// Every table.
    All,
    /// One table, as it was typed: `users` or `public.users`.
    Table(String),
}

/// Where `run --until` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// `pg_current_wal_flush_lsn()` at the start.
    Current,
    /// A given position.
    Lsn(Lsn),
}

fn parse_until(text: &str) -> Result<Until, String> {
    if text == "current" {
        return Ok(Until::Current);
    }
    text.parse().map(Until::Lsn).map_err(|_| {
        "must be \"current\" or an LSN: two hexadecimal numbers and a slash, 16/B374D848".to_owned()
    })
}

/// Arguments of `setup`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupArgs {
    /// Run the SQL instead of printing it
    #[arg(long)]
    pub apply: bool,
}

/// Arguments of `status`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dead-letters`.
#[derive(Clone, Debug, Args)]
pub struct DeadLettersArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub action: DeadLettersAction,
}

/// What to do with dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum DeadLettersAction {
    /// Each open letter: its id, table, position, time and reason
    List {
        /// One JSON array instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write the row as it is now; the letter goes if the cluster takes it. Exit code 1 if one stays
    Retry(Letters),
    /// Give the letter up; the document stays as it is, missing or outdated
    Drop(Letters),
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(required = true)]
pub struct Letters {
    /// As `list` shows them
    #[arg(value_name = "ID", conflicts_with = "all")]
    pub ids: Vec<String>,
    /// Every open letter
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `teardown`.
#[derive(Clone, Debug, Default, Args)]
pub struct TeardownArgs {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Whatever follows a command of a later version; not looked at.
#[derive(Clone, Debug, Args)]
pub struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// Flags of every command: the settings of the file that are single values.
///
/// Not `Debug`-printed anywhere with values: URLs may hold passwords, see the hand-written `Debug`.
#[derive(Clone, Default, Args)]
pub struct SharedArgs {
    /// YAML file with the configuration; without it, flags and variables alone [env: WALDEX_CONFIG]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Source database: postgres://user@host:5432/database?sslmode=verify-full
    ///
    /// Several hosts are separated by commas; a socket is postgres:///database?host=/var/run/postgresql.
    /// Without sslmode a server over the network is verified (verify-full).
    /// [env: WALDEX_POSTGRES_URL, password: WALDEX_POSTGRES_PASSWORD]
    #[arg(long, global = true, value_name = "URL", help_heading = POSTGRES)]
    pub postgres_url: Option<String>,
    /// File that holds the password [env: WALDEX_POSTGRES_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = POSTGRES)]
    pub postgres_password_file: Option<String>,
    /// Logical replication slot [env: WALDEX_SLOT]
    #[arg(long, global = true, value_name = "NAME", help_heading = POSTGRES)]
    pub slot: Option<String>,
    /// Publication to read [env: WALDEX_PUBLICATION]
    #[arg(long, global = true, value_name = "NAME", help_heading = POSTGRES)]
    pub publication: Option<String>,
    /// Answer a server that asks for an md5 password [env: WALDEX_ALLOW_MD5]
    #[arg(long, global = true, value_name = "true|false", help_heading = POSTGRES,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_md5: Option<String>,
    /// A node of the search cluster; comma separated or repeated for more [env: WALDEX_ELASTICSEARCH_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = SEARCH)]
    pub elasticsearch_url: Vec<String>,
    /// User name; password: WALDEX_ELASTICSEARCH_PASSWORD [env: WALDEX_ELASTICSEARCH_USERNAME]
    #[arg(long, global = true, value_name = "NAME", help_heading = SEARCH)]
    pub elasticsearch_username: Option<String>,
    /// File that holds the password [env: WALDEX_ELASTICSEARCH_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = SEARCH)]
    pub elasticsearch_password_file: Option<String>,
    /// File that holds an encoded API key [env: WALDEX_ELASTICSEARCH_API_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = SEARCH)]
    pub elasticsearch_api_key_file: Option<String>,
    /// PEM file with the authority that signed the cluster's certificates [env: WALDEX_CA_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = SEARCH)]
    pub ca_file: Option<String>,
    /// Documents in a request, at most; default 1000 [env: WALDEX_BULK_SIZE]
    #[arg(long, global = true, value_name = "COUNT", help_heading = FLOW)]
    pub bulk_size: Option<String>,
    /// Bytes in a request, at most; default 5MiB [env: WALDEX_BULK_BYTES]
    #[arg(long, global = true, value_name = "SIZE", help_heading = FLOW)]
    pub bulk_bytes: Option<String>,
    /// A document waits for company this long at most; default 1s [env: WALDEX_FLUSH_INTERVAL]
    #[arg(long, global = true, value_name = "TIME", help_heading = FLOW)]
    pub flush_interval: Option<String>,
    /// Requests in flight; default 2 [env: WALDEX_CONCURRENCY]
    #[arg(long, global = true, value_name = "COUNT", help_heading = FLOW)]
    pub concurrency: Option<String>,
    /// Limit of one request; default 30s [env: WALDEX_REQUEST_TIMEOUT]
    #[arg(long, global = true, value_name = "TIME", help_heading = FLOW)]
    pub request_timeout: Option<String>,
    /// Failures in a row that the circuit breaker leaves uncounted; default 3 [env: WALDEX_MAX_RETRIES]
    #[arg(long, global = true, value_name = "COUNT", help_heading = FLOW)]
    pub max_retries: Option<String>,
    /// Requests of an interval before the circuit breaker judges it; default 3
    /// [env: WALDEX_CIRCUIT_BREAKER_MIN_REQUESTS]
    #[arg(long, global = true, value_name = "COUNT", help_heading = FLOW)]
    pub circuit_breaker_min_requests: Option<String>,
    /// Requests pause when this part of an interval's fails; default 0.6
    /// [env: WALDEX_CIRCUIT_BREAKER_FAILURE_RATIO]
    #[arg(long, global = true, value_name = "RATIO", help_heading = FLOW)]
    pub circuit_breaker_failure_ratio: Option<String>,
    /// How long requests are counted together; default 1m [env: WALDEX_CIRCUIT_BREAKER_INTERVAL]
    #[arg(long, global = true, value_name = "TIME", help_heading = FLOW)]
    pub circuit_breaker_interval: Option<String>,
    /// How long requests pause before one probes; default 30s [env: WALDEX_CIRCUIT_BREAKER_OPEN_FOR]
    #[arg(long, global = true, value_name = "TIME", help_heading = FLOW)]
    pub circuit_breaker_open_for: Option<String>,
    /// Compress request bodies [env: WALDEX_COMPRESSION]
    #[arg(long, global = true, value_name = "true|false", help_heading = FLOW,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub compression: Option<String>,
    /// Bytes between decode and confirmation, at most; default 16MiB [env: WALDEX_MEMORY_BUDGET]
    #[arg(long, global = true, value_name = "SIZE", help_heading = FLOW)]
    pub memory_budget: Option<String>,
    /// How long a stop may take to finish what is in flight; default 10s [env: WALDEX_SHUTDOWN_GRACE]
    #[arg(long, global = true, value_name = "TIME", help_heading = FLOW)]
    pub shutdown_grace: Option<String>,
    /// What a document that the cluster refuses does; default dead_letter [env: WALDEX_ON_REJECTED]
    #[arg(long, global = true, value_name = "dead_letter|halt", help_heading = FLOW)]
    pub on_rejected: Option<String>,
    /// Halt after all with more dead letters than this; default 10000 [env: WALDEX_DEAD_LETTERS_MAX]
    #[arg(long, global = true, value_name = "COUNT", help_heading = FLOW)]
    pub dead_letters_max: Option<String>,
    /// Keep the refused document in its dead letter [env: WALDEX_DEAD_LETTERS_KEEP_DOCUMENT]
    #[arg(long, global = true, value_name = "true|false", help_heading = FLOW,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dead_letters_keep_document: Option<String>,
    /// What a lost slot does: stop or rebuild [env: WALDEX_ON_SLOT_LOST]
    #[arg(long, global = true, value_name = "stop|rebuild", help_heading = FLOW)]
    pub on_slot_lost: Option<String>,
    /// Where /live, /ready, /status and /metrics are served; default 127.0.0.1:9187, none if that is taken
    /// [env: WALDEX_ADMIN_LISTEN]
    #[arg(long, global = true, value_name = "ADDRESS:PORT", help_heading = FLOW)]
    pub admin_listen: Option<String>,
    /// human or json; default: human on a terminal, else json [env: WALDEX_LOG_FORMAT]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// error, warn, info, debug or trace; default info [env: WALDEX_LOG_LEVEL]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

const POSTGRES: &str = "PostgreSQL";
const SEARCH: &str = "Search cluster";
const FLOW: &str = "Flow and limits";

impl std::fmt::Debug for SharedArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags: Vec<&str> = self.given().into_iter().map(|(flag, _)| flag).collect();
        f.debug_struct("SharedArgs")
            .field("config", &self.config)
            .field("flags", &flags)
            .finish_non_exhaustive()
    }
}

impl SharedArgs {
    /// The settings that were given as flags, with the flag's name.
    pub(crate) fn given(&self) -> Vec<(&'static str, Vec<String>)> {
        let single = [
            ("--postgres-url", &self.postgres_url),
            ("--postgres-password-file", &self.postgres_password_file),
            ("--slot", &self.slot),
            ("--publication", &self.publication),
            ("--allow-md5", &self.allow_md5),
            ("--elasticsearch-username", &self.elasticsearch_username),
            ("--elasticsearch-password-file", &self.elasticsearch_password_file),
            ("--elasticsearch-api-key-file", &self.elasticsearch_api_key_file),
            ("--ca-file", &self.ca_file),
            ("--bulk-size", &self.bulk_size),
            ("--bulk-bytes", &self.bulk_bytes),
            ("--flush-interval", &self.flush_interval),
            ("--concurrency", &self.concurrency),
            ("--request-timeout", &self.request_timeout),
            ("--max-retries", &self.max_retries),
            ("--circuit-breaker-min-requests", &self.circuit_breaker_min_requests),
            ("--circuit-breaker-failure-ratio", &self.circuit_breaker_failure_ratio),
            ("--circuit-breaker-interval", &self.circuit_breaker_interval),
            ("--circuit-breaker-open-for", &self.circuit_breaker_open_for),
            ("--compression", &self.compression),
            ("--memory-budget", &self.memory_budget),
            ("--shutdown-grace", &self.shutdown_grace),
            ("--on-rejected", &self.on_rejected),
            ("--dead-letters-max", &self.dead_letters_max),
            ("--dead-letters-keep-document", &self.dead_letters_keep_document),
            ("--on-slot-lost", &self.on_slot_lost),
            ("--admin-listen", &self.admin_listen),
        ];
        let mut out: Vec<(&'static str, Vec<String>)> = single
            .into_iter()
            .filter_map(|(flag, value)| value.clone().map(|value| (flag, vec![value])))
            .collect();
        if !self.elasticsearch_url.is_empty() {
            out.push(("--elasticsearch-url", self.elasticsearch_url.clone()));
        }
        out
    }
}

/// The exit code for what clap returns as an error, which includes help and version.
pub fn exit_code_for(error: &clap::Error) -> u8 {
    // clap's kinds may grow; everything but help that was asked for is bad usage.
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        EXIT_DONE
    } else {
        EXIT_USAGE
    }
}

/// clap's text for an error, with the user name and password of every URL in it taken out: clap quotes
/// arguments it does not understand, and a URL in the wrong place is such an argument.
pub fn usage_text(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        // Up to the last "@" of the word: an unencoded password may hold any other character.
        let word_end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (word, tail) = after.split_at(word_end);
        match word.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str("***@");
                out.push_str(host);
            }
            None => out.push_str(word),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
