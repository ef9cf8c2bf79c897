//! Throwaway PostgreSQL servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::os::unix::process::CommandExt;
use url::Url;

use super::artefacts::{self, Artefact};
use super::backend::{Backend, scratch_directory};
use super::docker::Container;
use super::locate::{self, InstalledPostgres};
use super::ports;
use super::process::{Launch, Process, wait_ready};
use super::releases::{self, POSTGRES, Release};
use super::watchdog::Watchdog;

/// Superuser of every throwaway server.
pub const USER: &str = "postgres";
/// Its password.
pub const PASSWORD: &str = "waldex-throwaway";

const START_DEADLINE: Duration = Duration::from_secs(90);

/// Which PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// What is at hand, from 14 on.
    Any,
    /// The one that is chosen for the tests, else the newest that is supported.
    Newest,
    /// The one that is chosen if it is at least this major version, else the newest: for what older ones lack.
    AtLeast(u32),
    /// This major version, whatever is chosen.
    Major(u32),
}

/// How a private server differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether `fsync` is on.
    pub fsync: bool,
    /// More lines for `postgresql.conf`.
    pub conf: Vec<String>,
}

/// A running (or killed) PostgreSQL server.
pub struct Postgres {
    url: Url,
    backend: Backend,
}

impl Postgres {
    /// A server that tests may share: the one `WALDEX_TEST_POSTGRES_URL` points at unless an exact
    /// version is wanted, else a new one.
    pub fn obtain(version: Version) -> Result<Self> {
        let chosen = releases::chosen()?.postgres.is_some();
        let is_exact = matches!(version, Version::Major(_)) || chosen;
        let pointed = std::env::var("WALDEX_TEST_POSTGRES_URL").ok();
        if let Some(url) = pointed.filter(|_| !is_exact) {
            let url = Url::parse(&url).context("WALDEX_TEST_POSTGRES_URL is not a URL")?;
            return Ok(Self { url, backend: Backend::Given });
        }
        Self::start(version, &Options::default())
    }

    /// Starts a server of one's own and waits until it is ready.
    pub fn start(version: Version, options: &Options) -> Result<Self> {
        match binaries(version) {
            Ok(bin) => Self::start_local(&bin, options),
            Err(trouble) if locate::has_docker() => {
                Self::start_docker(version, options).context(trouble)
            }
            Err(trouble) => Err(trouble),
        }
    }

    fn start_local(bin: &Path, options: &Options) -> Result<Self> {
        let (directory, watchdog) = scratch_directory("pg", "QUIT", None)?;
        let user = locate::server_user();
        let port = ports::free()?;
        fs::create_dir(directory.join("socket"))?;
        fs::write(directory.join("password"), PASSWORD)?;
        locate::give(&directory, user)?;
        let data = directory.join("data");
        let mut initdb = Command::new(bin.join("initdb"));
        initdb
            .arg("-D")
            .arg(&data)
            .args(["-U", USER, "-E", "UTF8", "--locale=C", "--no-sync"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .arg(format!("--pwfile={}", directory.join("password").display()))
            .env("LC_ALL", "C")
            .current_dir(&directory);
        if let Some(user) = user {
            initdb.uid(user.uid).gid(user.gid);
        }
        locate::run(&mut initdb)?;
        configure(&data, &directory.join("socket"), port, &settings(options))?;
        Self::launch(&bin.join("postgres"), directory, watchdog, port)
    }

    /// Starts a server on data that is there already, in `data` below `directory`, at a new port.
    pub(super) fn start_on(
        program: &Path,
        directory: PathBuf,
        watchdog: Watchdog,
        conf: &[String],
    ) -> Result<Self> {
        let port = ports::free()?;
        configure(&directory.join("data"), &directory.join("socket"), port, conf)?;
        Self::launch(program, directory, watchdog, port)
    }

    fn launch(program: &Path, directory: PathBuf, watchdog: Watchdog, port: u16) -> Result<Self> {
        let launch = Launch {
            program: program.to_owned(),
            args: vec!["-D".into(), directory.join("data").display().to_string()],
            env: vec![("LC_ALL".into(), "C".into())],
            directory,
            user: locate::server_user(),
            graceful: Signal::INT,
        };
        let process = Process::start(launch, watchdog)?;
        Self::ready(port, Backend::Local(process))
    }

    fn start_docker(version: Version, options: &Options) -> Result<Self> {
        let port = ports::free()?;
        let image = format!("postgres:{}", version.release()?.line);
        let mut args = vec![
            "-e".to_owned(),
            format!("POSTGRES_PASSWORD={PASSWORD}"),
            "-p".to_owned(),
            format!("127.0.0.1:{port}:5432"),
            image,
        ];
        for line in settings(options) {
            args.extend(["-c".to_owned(), line.replace('\'', "")]);
        }
        Self::ready(port, Backend::Docker(Container::start(&args)?))
    }

    fn ready(port: u16, backend: Backend) -> Result<Self> {
        let url = Url::parse(&format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"))?;
        let server = Self { url, backend };
        server.wait_ready(START_DEADLINE)?;
        Ok(server)
    }

    /// The URL of the maintenance database.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The URL of database `name`, over TCP with SCRAM.
    pub fn database_url(&self, name: &str) -> String {
        let mut url = self.url.clone();
        url.set_path(name);
        url.to_string()
    }

    /// The URL of database `name` over the Unix socket; only a server of this machine has it.
    pub fn socket_url(&self, name: &str) -> Result<String> {
        let Backend::Local(process) = &self.backend else {
            bail!("this server has no Unix socket that we know");
        };
        let port = self.url.port().context("no port")?;
        let socket = process.directory().join("socket");
        Ok(format!("postgres:///{name}?host={}&port={port}&user={USER}", socket.display()))
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.url.port().unwrap_or(5432)
    }

    /// Creates a database for one test; its name starts with `label`.
    pub async fn create_database(&self, label: &str) -> Result<Database> {
        self.create_database_in(label, "UTF8").await
    }

    /// The same in another encoding.
    pub async fn create_database_in(&self, label: &str, encoding: &str) -> Result<Database> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{label}_{}_{number}", std::process::id());
        let client = crate::support::sql::connect(self.url()).await?;
        let create = format!(
            "create database \"{name}\" encoding '{encoding}' locale 'C' template template0"
        );
        client.batch_execute(&create).await?;
        Ok(Database { url: self.database_url(&name), name })
    }

    /// Drops a database and the slots in it; for tests on a server that outlives them.
    pub async fn drop_database(&self, database: &Database) -> Result<()> {
        let client = crate::support::sql::connect(self.url()).await?;
        let name = &database.name;
        client
            .batch_execute(&format!(
                "select pg_terminate_backend(active_pid) from pg_replication_slots \
                 where database = '{name}' and active"
            ))
            .await?;
        client
            .batch_execute(&format!(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
                 where database = '{name}'"
            ))
            .await?;
        client.batch_execute(&format!("drop database \"{name}\" with (force)")).await?;
        Ok(())
    }

    /// Waits until connections are accepted.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        match &self.backend {
            Backend::Given => Ok(()),
            Backend::Docker(container) => {
                container.wait_until(limit, &["pg_isready", "-h", "127.0.0.1", "-U", USER])
            }
            Backend::Local(process) => wait_ready(process, limit, || is_ready(process)),
        }
    }

    /// The last lines of its log; none of a server that is not a process of ours.
    pub fn log_tail(&self) -> String {
        match &self.backend {
            Backend::Local(process) => process.log_tail(),
            Backend::Given | Backend::Docker(_) => String::new(),
        }
    }

    /// Kill, stop, freeze, start again.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// `kill -9` of the postmaster and every backend.
    pub fn kill(&self) -> Result<()> {
        self.backend.kill()
    }

    /// A fast shutdown.
    pub fn stop(&self) -> Result<()> {
        self.backend.stop()
    }

    /// Starts it again on its old port and data, and waits until it is ready.
    pub fn start_again(&self) -> Result<()> {
        self.backend.start_again()?;
        self.wait_ready(START_DEADLINE)
    }
}

/// A database of one test.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Its URL, with user and password.
    pub url: String,
}

/// The postmaster writes `ready`, or `standby`, into the eighth line of its pid file; a file from before
/// a crash names another process.
fn is_ready(process: &Process) -> bool {
    let file = process.directory().join("data/postmaster.pid");
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first().and_then(|pid| pid.parse().ok()) == process.pid()
        && process.pid().is_some()
        && matches!(lines.get(7), Some(&("ready" | "standby")))
}

impl Version {
    fn release(self) -> Result<&'static Release> {
        let newest = || releases::newest(&POSTGRES);
        let chosen = releases::chosen()?.postgres.unwrap_or_else(newest);
        match self {
            Self::Major(major) => releases::postgres(major),
            Self::Any | Self::Newest => Ok(chosen),
            Self::AtLeast(major) if chosen.major()? >= major => Ok(chosen),
            Self::AtLeast(_) => Ok(newest()),
        }
    }
}

fn binaries(version: Version) -> Result<PathBuf> {
    let installed = || {
        let found = locate::installed_postgres(|major| major >= 14);
        found.map(|InstalledPostgres { bin, .. }| bin)
    };
    let is_open = version == Version::Any && releases::chosen()?.postgres.is_none();
    if let Some(bin) = installed().filter(|_| is_open) {
        return Ok(bin);
    }
    match artefacts::fetch(Artefact::Postgres(version.release()?.version)) {
        Ok(home) => Ok(home.join("bin")),
        Err(trouble) if is_open && !locate::has_docker() => {
            locate::install(&["postgresql"]).context(trouble).context(MISSING)?;
            installed().context(MISSING)
        }
        Err(trouble) => Err(trouble.context(MISSING)),
    }
}

const MISSING: &str = "no PostgreSQL can be had: install PostgreSQL 14 or newer, or Maven, or set \
                       WALDEX_TEST_POSTGRES_URL";

fn settings(options: &Options) -> Vec<String> {
    let fsync = if options.fsync { "on" } else { "off" };
    let mut lines: Vec<String> = [
        "wal_level=logical",
        // Every test of a shared server leaves its slot behind.
        "max_replication_slots=500",
        "max_wal_senders=50",
        "max_connections=150",
        "shared_buffers=64MB",
        // With the default, a killed server would leave files in /dev/shm.
        "dynamic_shared_memory_type=mmap",
    ]
    .map(str::to_owned)
    .into();
    lines.push(format!("fsync={fsync}"));
    lines.extend(options.conf.iter().cloned());
    lines
}

fn configure(data: &Path, socket: &Path, port: u16, conf: &[String]) -> Result<()> {
    let file = data.join("postgresql.conf");
    let mut text = fs::read_to_string(&file)?;
    text.push_str(&format!(
        "\nlisten_addresses='127.0.0.1'\nport={port}\nunix_socket_directories='{}'\n{}\n",
        socket.display(),
        conf.join("\n")
    ));
    fs::write(&file, text).with_context(|| format!("cannot write \"{}\"", file.display()))
}
