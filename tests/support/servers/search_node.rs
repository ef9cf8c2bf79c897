//! What throwaway Elasticsearch and OpenSearch nodes have in common.
//!
//! One node, no replicas expected, disk watermarks off (a developer's disk is often nearly full,
//! and a node over the flood stage refuses writes), everything it writes in one directory.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use url::Url;

use super::backend::{Backend, scratch_directory};
use super::java::Java;
use super::locate;
use super::ports;
use super::process::{Launch, Process, wait_ready};

/// A cold JVM on two busy cores takes its time.
pub const START_DEADLINE: Duration = Duration::from_secs(180);
/// How long one probe of readiness may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// Elasticsearch or OpenSearch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Elasticsearch, with security on and HTTP without TLS.
    Elasticsearch,
    /// OpenSearch, without security.
    OpenSearch,
}

/// How a node differs from the usual one.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Java heap in MiB.
    pub heap_mib: u32,
    /// Whether the JVM optimises fully: slower to start, faster under load.
    pub full_speed: bool,
    /// More lines for the node's YAML settings.
    pub settings: Vec<String>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { heap_mib: 512, full_speed: false, settings: Vec::new() }
    }
}

/// A running (or killed) node.
pub struct SearchNode {
    /// Which of the two.
    pub flavour: Flavour,
    /// Base URL without user info.
    pub url: Url,
    /// User and password, where security is on.
    pub credentials: Option<(String, String)>,
    backend: Backend,
}

/// What a local node is started from.
pub struct Installation {
    /// Which of the two.
    pub flavour: Flavour,
    /// Its home.
    pub home: PathBuf,
    /// The Java to run on; none: the one that came with it.
    pub java: Option<Java>,
    /// Lines for its YAML settings.
    pub settings: Vec<String>,
    /// Further files of its configuration directory, by name.
    pub files: Vec<(&'static str, String)>,
    /// User and password, where security is on.
    pub credentials: Option<(String, String)>,
}

impl SearchNode {
    /// A node we are pointed at; user and password come from the URL.
    pub fn given(flavour: Flavour, url: &str) -> Result<Self> {
        let mut url = Url::parse(url).context("the search server's URL is not a URL")?;
        let user = percent_decoded(url.username());
        let password = percent_decoded(url.password().unwrap_or_default());
        let credentials = (!user.is_empty()).then_some((user, password));
        // Neither can fail for a URL with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { flavour, url, credentials, backend: Backend::Given })
    }

    /// A node on a port of this machine.
    pub fn on_port(
        flavour: Flavour,
        port: u16,
        credentials: Option<(String, String)>,
        backend: Backend,
    ) -> Result<Self> {
        let url = Url::parse(&format!("http://127.0.0.1:{port}"))?;
        let node = Self { flavour, url, credentials, backend };
        node.wait_ready(START_DEADLINE)?;
        Ok(node)
    }

    /// Starts a node and waits until it is ready.
    pub fn start(installation: &Installation, options: &NodeOptions) -> Result<Self> {
        let flavour = installation.flavour;
        let (name, prefix) = match flavour {
            Flavour::Elasticsearch => ("elasticsearch", "ES"),
            Flavour::OpenSearch => ("opensearch", "OPENSEARCH"),
        };
        let kind = if prefix == "ES" { "es" } else { "os" };
        let (directory, watchdog) = scratch_directory(kind, "KILL", None)?;
        let port = ports::free()?;
        write_configuration(installation, options, &directory, name, port)?;
        let user = locate::server_user();
        locate::give(&directory, user)?;
        let tier = if options.full_speed { "" } else { " -XX:TieredStopAtLevel=1" };
        let heap = options.heap_mib;
        let java_options = format!("-Xms{heap}m -Xmx{heap}m -XX:-AlwaysPreTouch{tier}");
        let path = |part: &str| directory.join(part).display().to_string();
        let mut env = vec![
            (format!("{prefix}_PATH_CONF"), path("config")),
            (format!("{prefix}_TMPDIR"), path("tmp")),
            (format!("{prefix}_JAVA_OPTS"), java_options),
        ];
        if let Some(java) = &installation.java {
            env.push((format!("{prefix}_JAVA_HOME"), java.home.display().to_string()));
        }
        let launch = Launch {
            program: installation.home.join("bin").join(name),
            args: Vec::new(),
            env,
            directory,
            user,
            graceful: Signal::TERM,
        };
        let process = Process::start(launch, watchdog)?;
        Self::on_port(flavour, port, installation.credentials.clone(), Backend::Local(process))
    }

    /// The base URL with user and password in it, for a tool that takes them there.
    pub fn url_with_credentials(&self) -> String {
        let mut url = self.url.clone();
        if let Some((user, password)) = &self.credentials {
            let _ = url.set_username(user);
            let _ = url.set_password(Some(password));
        }
        url.to_string()
    }

    /// Waits until the node answers and its shards are there.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        match &self.backend {
            Backend::Given => Ok(()),
            Backend::Local(process) => wait_ready(process, limit, || self.is_ready()),
            Backend::Docker(container) => {
                let credentials = self
                    .credentials
                    .as_ref()
                    .map_or(String::new(), |(user, password)| format!("-u {user}:{password}"));
                let probe = format!("curl -sf {credentials} http://127.0.0.1:9200/_cluster/health");
                container.wait_until(limit, &["sh", "-c", &probe])
            }
        }
    }

    /// Kill, stop, freeze, start again.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// `kill -9` of the node and its launcher.
    pub fn kill(&self) -> Result<()> {
        self.backend.kill()
    }

    /// A stop in good order.
    pub fn stop(&self) -> Result<()> {
        self.backend.stop()
    }

    /// Starts it again on its old port and data, and waits until it is ready.
    pub fn start_again(&self) -> Result<()> {
        self.backend.start_again()?;
        self.wait_ready(START_DEADLINE)
    }

    fn is_ready(&self) -> bool {
        self.probe().unwrap_or(false)
    }

    /// One request by hand: the HTTP client needs a runtime, and this runs before and without one.
    fn probe(&self) -> Result<bool> {
        let port = self.url.port_or_known_default().context("no port")?;
        let host = self.url.host_str().context("no host")?;
        let mut stream = TcpStream::connect((host, port))?;
        stream.set_read_timeout(Some(PROBE_DEADLINE))?;
        let authorization = self.credentials.as_ref().map_or(String::new(), |(user, password)| {
            format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
        });
        let path = "/_cluster/health?wait_for_status=yellow&timeout=2s";
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\n{authorization}connection: close\r\n\r\n"
        )?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b" 200"))
    }
}

/// A configuration directory of the node's own, from the one of the installation.
fn write_configuration(
    installation: &Installation,
    options: &NodeOptions,
    directory: &Path,
    name: &str,
    port: u16,
) -> Result<()> {
    let config = directory.join("config");
    for part in ["config", "data", "logs", "tmp"] {
        fs::create_dir(directory.join(part))?;
    }
    let packaged = Path::new("/etc").join(name);
    let sources = [installation.home.join("config"), packaged];
    let source = sources
        .iter()
        .find(|source| source.join("jvm.options").is_file())
        .with_context(|| format!("no jvm.options below \"{}\"", installation.home.display()))?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), config.join(entry.file_name()))?;
        }
    }
    // OpenSearch writes its logs below its home unless it is told otherwise; a packaged one below
    // /var. Either may be closed to the node's user.
    let jvm = fs::read_to_string(config.join("jvm.options"))?;
    let jvm: Vec<&str> = jvm
        .lines()
        .filter(|line| !line.contains("-Xlog") && !line.contains("loggc"))
        .filter(|line| !line.contains("ErrorFile") && !line.contains("HeapDump"))
        .collect();
    let errors = directory.join("logs/hs_err_pid%p.log");
    let jvm = format!("{}\n-XX:ErrorFile={}\n", jvm.join("\n"), errors.display());
    fs::write(config.join("jvm.options"), jvm)?;
    let mut lines = vec![
        "cluster.name: waldex-test".to_owned(),
        "node.name: waldex-test".to_owned(),
        format!("path.data: {}", directory.join("data").display()),
        format!("path.logs: {}", directory.join("logs").display()),
        "network.host: 127.0.0.1".to_owned(),
        format!("http.port: {port}"),
        format!("transport.port: {}", ports::free()?),
        "discovery.type: single-node".to_owned(),
        "cluster.routing.allocation.disk.threshold_enabled: false".to_owned(),
        // Every test of a shared node leaves its indices behind.
        "cluster.max_shards_per_node: 5000".to_owned(),
    ];
    lines.extend(installation.settings.iter().chain(&options.settings).cloned());
    fs::write(config.join(format!("{name}.yml")), lines.join("\n") + "\n")?;
    for (file, text) in &installation.files {
        fs::write(config.join(file), text)?;
    }
    Ok(())
}

fn percent_decoded(text: &str) -> String {
    let pair = format!("v={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map_or_else(String::new, |(_, value)| value.into_owned())
}
