//! Configuration: flags over `WALDEX_…` variables over the file, merged into [`Settings`].
//!
//! Everything that is wrong is reported at once, each problem with its place, before anything is
//! touched. The path is: `yaml` notes what the file says and where, `layers` picks the strongest layer
//! for each setting of the table in `keys`, and `postgres_url`, `search` and `tables` judge what the
//! values mean. The process environment and the file system come in as functions.
//!
//! Unknown variables that begin with `WALDEX_` are no error: Kubernetes itself sets
//! `WALDEX_SERVICE_HOST` and its like beside a Service named `waldex`.

pub mod index_name;
mod keys;
mod layers;
mod logging;
mod postgres_url;
mod problem;
mod search;
mod table_name;
mod tables;
#[cfg(test)]
mod tests;
mod value;
mod yaml;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use layers::{Given, Layer, Layers, Noted};
use yaml::FileText;

pub(crate) use layers::reread_secret;
pub use logging::{LogFormat, LogLevel, LogSettings, load_logging};
pub use problem::{ConfigErrors, Place, Problem};

use crate::admin::AdminSettings;
use crate::cli::SharedArgs;
use crate::settings::{Host, OnRejected, OnSlotLost, PostgresSettings, Secret, Settings, SslMode};

/// The variable that names the configuration file.
const CONFIG_VARIABLE: &str = "WALDEX_CONFIG";

/// Where the admin server listens if nothing is stated.
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9187);

/// PostgreSQL's limit for names, in bytes (`NAMEDATALEN - 1`).
const NAME_BYTES_MAX: usize = 63;

/// Merges what was given, checks it as a whole and applies the defaults.
///
/// `env` looks up an environment variable; `read_file` reads the configuration file and the files that
/// it names (passwords, certificates). A file is read only if `--config` or `WALDEX_CONFIG` names it.
pub fn load(
    args: &SharedArgs,
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Settings, ConfigErrors> {
    let mut problems = Vec::new();
    let file = read_config(args, env, read_file, &mut problems);
    let mut layers = Layers { flags: args.given(), env, read_file, file, problems };
    match resolve(&mut layers) {
        Ok(settings) if layers.problems.is_empty() => Ok(settings),
        Ok(_) | Err(Noted) => Err(ConfigErrors::new(layers.problems)),
    }
}

/// [`load`] with the environment and the file system of this process.
pub fn load_from_process(args: &SharedArgs) -> Result<Settings, ConfigErrors> {
    load(args, &process_variable, &|path| std::fs::read_to_string(path))
}

/// An environment variable of this process; what is not UTF-8 is replaced, and refused where it matters.
pub fn process_variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn read_config(
    args: &SharedArgs,
    env: &dyn Fn(&str) -> Option<String>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
    problems: &mut Vec<Problem>,
) -> FileText {
    let in_variable = || env(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(path) = args.config.clone().or_else(in_variable) else {
        return FileText::default();
    };
    let shown = path.display().to_string();
    match read_file(&path) {
        Ok(source) => yaml::read(&shown, &source, env, problems),
        Err(error) => {
            let message = format!("cannot be read: {}", layers::io_reason(&error));
            problems.push(Problem { place: Place::WholeFile { path: shown }, message });
            FileText { is_unreadable: true, ..FileText::default() }
        }
    }
}

/// Every part is resolved before the first failure is returned, so that all problems are noted.
fn resolve(layers: &mut Layers<'_>) -> Result<Settings, Noted> {
    let postgres = postgres(layers);
    let elasticsearch = search::resolve(layers);
    let memory_budget = memory_budget(layers);
    let shutdown_grace = layers.quantity(&keys::SHUTDOWN_GRACE);
    let on_rejected = on_rejected(layers);
    let on_slot_lost = on_slot_lost(layers);
    let admin = admin(layers);
    let entries = std::mem::take(&mut layers.file.tables);
    let tables = tables::resolve(entries, &mut layers.problems);
    Ok(Settings {
        postgres: postgres?,
        elasticsearch: elasticsearch?,
        memory_budget_bytes: memory_budget?,
        shutdown_grace: Duration::from_millis(shutdown_grace?),
        on_rejected: on_rejected?,
        on_slot_lost: on_slot_lost?,
        admin: admin?,
        tables,
    })
}

fn postgres(layers: &mut Layers<'_>) -> Result<PostgresSettings, Noted> {
    let url = connection(layers);
    let slot = slot(layers);
    let publication = publication(layers);
    let allow_md5 = layers.switch(&keys::ALLOW_MD5);
    let url = url?;
    Ok(PostgresSettings {
        hosts: url.hosts,
        user: url.user,
        password: url.password,
        password_file: url.password_file,
        database: url.database,
        ssl_mode: url.ssl_mode,
        ssl_root_cert: url.ssl_root_cert,
        allow_md5: allow_md5?,
        connect_timeout: url.connect_timeout,
        slot: slot?,
        publication: publication?,
    })
}

/// How to reach the server and as whom, defaults applied.
struct Connection {
    hosts: Vec<Host>,
    user: String,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    database: String,
    ssl_mode: SslMode,
    ssl_root_cert: Option<PathBuf>,
    connect_timeout: Duration,
}

fn connection(layers: &mut Layers<'_>) -> Result<Connection, Noted> {
    let password = layers.secret(&keys::POSTGRES_PASSWORD, &keys::POSTGRES_PASSWORD_FILE);
    let given = layers.required(&keys::POSTGRES_URL)?;
    let url = match postgres_url::parse(&given.text) {
        Ok(url) => url,
        Err(messages) => {
            for message in messages {
                layers.note(&given.place, message);
            }
            return Err(Noted);
        }
    };
    if let Some(path) = &url.ssl_root_cert
        && let Err(complaint) = layers.check_certificates(path)
    {
        layers.note(&given.place, format!("sslrootcert in the URL {complaint}"));
    }
    let (password, password_file) = match (url.password, password?) {
        (Some(_), Some((_, other, _))) if other.layer == given.layer => {
            let message = "a password is given here and in the URL; keep one".to_owned();
            return Err(layers.note(&other.place, message));
        }
        (Some(in_url), Some((_, other, _))) if other.layer < given.layer => (Some(in_url), None),
        (_, Some((secret, _, file))) => (Some(secret), file),
        (in_url, None) => (in_url, None),
    };
    // libpq's default: the name of the system's user.
    let system_user = || layers.variable("USER").or_else(|| layers.variable("LOGNAME"));
    let Some(user) = url.user.or_else(system_user) else {
        let message = "the URL names no user; write postgres://user@host/database".to_owned();
        return Err(layers.note(&given.place, message));
    };
    Ok(Connection {
        hosts: url.hosts,
        database: url.database.unwrap_or_else(|| user.clone()),
        user,
        password,
        password_file,
        ssl_mode: url.ssl_mode,
        ssl_root_cert: url.ssl_root_cert,
        connect_timeout: url.connect_timeout,
    })
}

/// The server accepts lower-case letters, digits and `_` in a slot's name, at most 63.
fn slot(layers: &mut Layers<'_>) -> Result<String, Noted> {
    let given = layers.required(&keys::SLOT)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !(1..=NAME_BYTES_MAX).contains(&given.text.len()) || !given.text.chars().all(allowed) {
        let complaint = "is no slot name: 1 to 63 of the characters a-z, 0-9 and _";
        return Err(layers.refuse(&keys::SLOT, &given, complaint));
    }
    Ok(given.text)
}

fn publication(layers: &mut Layers<'_>) -> Result<String, Noted> {
    let given = layers.required(&keys::PUBLICATION)?;
    if !(1..=NAME_BYTES_MAX).contains(&given.text.len()) || given.text.contains('\0') {
        let complaint = "is no publication's name: 1 to 63 bytes";
        return Err(layers.refuse(&keys::PUBLICATION, &given, complaint));
    }
    Ok(given.text)
}

/// On loopback unless it is stated: what it shows is for those who operate the machine.
fn admin(layers: &mut Layers<'_>) -> Result<AdminSettings, Noted> {
    let Some(given) = layers.find(&keys::ADMIN_LISTEN)? else {
        return Ok(AdminSettings { listen: ADMIN_DEFAULT, is_given: false });
    };
    match given.text.parse() {
        Ok(listen) => Ok(AdminSettings { listen, is_given: listen != ADMIN_DEFAULT }),
        Err(_) => {
            let complaint = "is no address and port, as in 127.0.0.1:9187 or [::1]:9187";
            Err(layers.refuse(&keys::ADMIN_LISTEN, &given, complaint))
        }
    }
}

/// The budget must hold one whole request, or a full one could never be built.
fn memory_budget(layers: &mut Layers<'_>) -> Result<usize, Noted> {
    // Resolved a second time here; a problem is noted twice and shown once.
    let (budget, bulk) =
        (layers.quantity(&keys::MEMORY_BUDGET)?, layers.quantity(&keys::BULK_BYTES)?);
    if budget >= bulk {
        return Ok(to_usize(budget));
    }
    let culprit = match layers.find(&keys::MEMORY_BUDGET)? {
        Some(given) => Some(given),
        None => layers.find(&keys::BULK_BYTES)?,
    };
    let place = culprit.map_or(Place::Nowhere, |given| given.place);
    let message = format!(
        "memory_budget ({}) is less than elasticsearch.bulk_bytes ({}); raise memory_budget or \
         lower bulk_bytes",
        value::show_quantity(keys::Kind::Size, budget),
        value::show_quantity(keys::Kind::Size, bulk),
    );
    Err(layers.note(&place, message))
}

fn on_rejected(layers: &mut Layers<'_>) -> Result<OnRejected, Noted> {
    let max = layers.quantity(&keys::DEAD_LETTERS_MAX);
    let keep_document = layers.switch(&keys::DEAD_LETTERS_KEEP_DOCUMENT);
    let given = layers.find(&keys::ON_REJECTED)?;
    let dead_letter = OnRejected::DeadLetter { keep_document: keep_document?, max: to_usize(max?) };
    match given {
        None => Ok(dead_letter),
        Some(given) if given.text == "dead_letter" => Ok(dead_letter),
        Some(given) if given.text == "halt" => Ok(OnRejected::Halt),
        Some(given) => {
            let complaint = "must be \"dead_letter\" or \"halt\"";
            Err(layers.refuse(&keys::ON_REJECTED, &given, complaint))
        }
    }
}

fn on_slot_lost(layers: &mut Layers<'_>) -> Result<OnSlotLost, Noted> {
    match layers.find(&keys::ON_SLOT_LOST)? {
        None => Ok(OnSlotLost::Stop),
        Some(given) if given.text == "stop" => Ok(OnSlotLost::Stop),
        Some(given) if given.text == "rebuild" => Ok(OnSlotLost::Rebuild),
        Some(given) => {
            let complaint = "must be \"stop\" or \"rebuild\"";
            Err(layers.refuse(&keys::ON_SLOT_LOST, &given, complaint))
        }
    }
}

/// Quantities are limited far below what a 32-bit machine can address.
fn to_usize(quantity: u64) -> usize {
    usize::try_from(quantity).unwrap_or(usize::MAX)
}

/// Every flag and variable, to compare documentation with.
#[cfg(test)]
pub(crate) fn setting_names() -> impl Iterator<Item = &'static str> {
    keys::ALL.into_iter().flat_map(|key| key.flag.into_iter().chain([key.variable]))
}
