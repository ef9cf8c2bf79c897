//! `postgres://user:password@host:port,host2/database?sslmode=…`: libpq's connection URI, as far as it
//! makes sense for a replication connection (PostgreSQL docs, "Connection URIs").
//!
//! The URI may carry a password, so that no error quotes any part of it but parameter names. A password
//! with an unencoded `/` or `?` would turn up as a path or a parameter: that is recognised first.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::did_you_mean;
use crate::settings::{Host, Secret, SslMode};

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT_SECONDS_MAX: u64 = 600;

/// Where distributions put the server's socket.
const DEFAULT_SOCKET_DIRECTORY: &str = "/var/run/postgresql";

const PARAMETERS: [&str; 8] =
    ["host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "connect_timeout"];

/// What a connection URI says.
#[derive(Debug)]
pub(super) struct PostgresUrl {
    /// At least one.
    pub(super) hosts: Vec<Host>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: Option<String>,
    /// Stated, or what [`default_ssl_mode`] says.
    pub(super) ssl_mode: SslMode,
    pub(super) ssl_root_cert: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
}

/// The parts as written, percent-decoded, before they mean anything.
#[derive(Default)]
struct Parts {
    hosts: Vec<String>,
    ports: Vec<String>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    ssl_mode: Option<String>,
    ssl_root_cert: Option<String>,
    connect_timeout: Option<String>,
    problems: Vec<String>,
}

/// Reads a URI; the problems are whole messages that quote no value.
pub(super) fn parse(text: &str) -> Result<PostgresUrl, Vec<String>> {
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    let Some(rest) = rest else {
        return Err(vec!["a PostgreSQL URL begins with postgres:// or postgresql://".to_owned()]);
    };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    if !authority.contains('@') && tail.contains('@') {
        return Err(vec![
            "the user name or password holds a character that must be percent-encoded in a URL \
             (\"/\" is %2F, \"?\" is %3F, \"@\" is %40)"
                .to_owned(),
        ]);
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let mut parts = Parts::default();
    parts.authority(authority);
    parts.set(path.strip_prefix('/').unwrap_or(path), "dbname");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        parts.parameter(pair);
    }
    parts.finish()
}

impl Parts {
    fn authority(&mut self, authority: &str) {
        let hosts = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => {
                let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
                self.set(user, "user");
                self.set(password, "password");
                hosts
            }
            None => authority,
        };
        for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
            let (name, port) = split_port(host);
            if let Some(name) = self.decoded(name, "host") {
                self.hosts.push(name);
                self.ports.push(port.to_owned());
            }
        }
    }

    fn parameter(&mut self, pair: &str) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if PARAMETERS.contains(&name) {
            self.set(value, name);
            return;
        }
        let plain = name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        self.problems.push(match did_you_mean(name, PARAMETERS) {
            Some(meant) if plain => {
                format!("unknown parameter \"{name}\" in the URL; did you mean \"{meant}\"?")
            }
            _ if plain => format!(
                "parameter \"{name}\" in the URL is not supported (supported: {})",
                PARAMETERS.join(", ")
            ),
            _ => "the part of the URL after \"?\" holds something that is no parameter".to_owned(),
        });
    }

    /// Sets one part; an empty text says nothing, a part given twice is a problem.
    fn set(&mut self, raw: &str, name: &str) {
        if raw.is_empty() {
            return;
        }
        let Some(value) = self.decoded(raw, name) else { return };
        if name == "host" || name == "port" {
            let target = if name == "host" { &mut self.hosts } else { &mut self.ports };
            if target.iter().any(|given| !given.is_empty()) {
                self.problems.push(format!("\"{name}\" is given twice in the URL"));
            }
            *target = value.split(',').map(str::to_owned).collect();
            return;
        }
        let slot = match name {
            "user" => &mut self.user,
            "password" => &mut self.password,
            "dbname" => &mut self.database,
            "sslmode" => &mut self.ssl_mode,
            "sslrootcert" => &mut self.ssl_root_cert,
            _ => &mut self.connect_timeout,
        };
        if slot.replace(value).is_some() {
            self.problems.push(format!("\"{name}\" is given twice in the URL"));
        }
    }

    fn decoded(&mut self, raw: &str, name: &str) -> Option<String> {
        let decoded = percent_decode(raw);
        if decoded.is_none() {
            self.problems.push(format!("the {name} in the URL is not well percent-encoded"));
        }
        decoded
    }

    fn finish(mut self) -> Result<PostgresUrl, Vec<String>> {
        let hosts = self.hosts();
        let ssl_mode = match self.ssl_mode.as_deref() {
            None => default_ssl_mode(&hosts),
            Some(written) => parse_ssl_mode(written).unwrap_or_else(|message| {
                self.problems.push(message.to_owned());
                SslMode::VerifyFull
            }),
        };
        let connect_timeout = match self.connect_timeout.as_deref().map(str::parse) {
            None => DEFAULT_CONNECT_TIMEOUT,
            Some(Ok(seconds @ 1..=CONNECT_TIMEOUT_SECONDS_MAX)) => Duration::from_secs(seconds),
            Some(_) => {
                self.problems.push("connect_timeout in the URL must be 1 to 600 (seconds)".into());
                DEFAULT_CONNECT_TIMEOUT
            }
        };
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let system = |path: &String| path == "system";
        Ok(PostgresUrl {
            hosts,
            user: self.user,
            password: self.password.map(Secret::new),
            database: self.database,
            ssl_mode,
            ssl_root_cert: self.ssl_root_cert.filter(|p| !system(p)).map(PathBuf::from),
            connect_timeout,
        })
    }

    /// Pairs hosts with ports: one port for all, or one each.
    fn hosts(&mut self) -> Vec<Host> {
        let names = if self.hosts.is_empty() {
            vec![DEFAULT_SOCKET_DIRECTORY.to_owned()]
        } else {
            std::mem::take(&mut self.hosts)
        };
        if self.ports.len() > 1 && self.ports.len() != names.len() {
            self.problems.push("the URL has another number of ports than of hosts".to_owned());
        }
        let shared = if self.ports.len() == 1 { self.ports.first().cloned() } else { None };
        let mut out = Vec::new();
        for (position, name) in names.into_iter().enumerate() {
            let written = self.ports.get(position).or(shared.as_ref());
            let port = match written.map(String::as_str).unwrap_or_default() {
                "" => DEFAULT_PORT,
                digits => digits.parse().ok().filter(|port| *port != 0).unwrap_or_else(|| {
                    self.problems.push("a port in the URL is no number from 1 to 65535".into());
                    DEFAULT_PORT
                }),
            };
            out.push(if name.starts_with('/') {
                Host::Unix { directory: PathBuf::from(name), port }
            } else if name.is_empty() {
                Host::Unix { directory: PathBuf::from(DEFAULT_SOCKET_DIRECTORY), port }
            } else {
                Host::Tcp { host: name, port }
            });
        }
        out
    }
}

/// `host:port`, `[::1]:port`; without a port the second is empty.
fn split_port(host: &str) -> (&str, &str) {
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        return (address, rest.strip_prefix(':').unwrap_or(rest));
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

fn parse_ssl_mode(written: &str) -> Result<SslMode, &'static str> {
    match written {
        "disable" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => Err("sslmode in the URL must be disable, prefer, require, verify-ca or verify-full"),
    }
}

/// Without a stated mode: a server over a network is verified, one on this machine may do without TLS.
fn default_ssl_mode(hosts: &[Host]) -> SslMode {
    let mode = |host: &Host| match host {
        Host::Unix { .. } => SslMode::Disable,
        Host::Tcp { host, .. } if is_loopback(host) => SslMode::Prefer,
        Host::Tcp { .. } => SslMode::VerifyFull,
    };
    let modes: Vec<SslMode> = hosts.iter().map(mode).collect();
    [SslMode::VerifyFull, SslMode::Prefer]
        .into_iter()
        .find(|mode| modes.contains(mode))
        .unwrap_or(SslMode::Disable)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `%41` → `A`; `None` for a broken escape, NUL or invalid UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok().filter(|byte| *byte != 0)?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Host {
        Host::Tcp { host: host.to_owned(), port }
    }

    fn unix(directory: &str, port: u16) -> Host {
        Host::Unix { directory: PathBuf::from(directory), port }
    }

    #[test]
    fn a_full_url() {
        let url = parse(
            "postgresql://wal%40dex:p%2Fw%3A@h1:5433,h2/my%20db?sslmode=require\
             &sslrootcert=/ca.pem&connect_timeout=3",
        )
        .unwrap();
        assert_eq!(url.hosts, [tcp("h1", 5433), tcp("h2", 5432)]);
        assert_eq!(url.user.as_deref(), Some("wal@dex"));
        assert_eq!(url.password, Some(Secret::new("p/w:".to_owned())));
        assert_eq!(url.database.as_deref(), Some("my db"));
        assert_eq!(url.ssl_mode, SslMode::Require);
        assert_eq!(url.ssl_root_cert, Some(PathBuf::from("/ca.pem")));
        assert_eq!(url.connect_timeout, Duration::from_secs(3));
    }

    #[test]
    fn hosts_ports_and_default_modes() {
        for (text, hosts, mode) in [
            ("postgres://u@db/a", vec![tcp("db", 5432)], SslMode::VerifyFull),
            ("postgres://u@10.0.0.1/a", vec![tcp("10.0.0.1", 5432)], SslMode::VerifyFull),
            ("postgres://u@localhost:1/a", vec![tcp("localhost", 1)], SslMode::Prefer),
            ("postgres://u@127.0.0.2/a", vec![tcp("127.0.0.2", 5432)], SslMode::Prefer),
            ("postgres://u@[::1]:6/a", vec![tcp("::1", 6)], SslMode::Prefer),
            ("postgres://u@[fe80::1]/a", vec![tcp("fe80::1", 5432)], SslMode::VerifyFull),
            ("postgres:///a?host=/run/pg", vec![unix("/run/pg", 5432)], SslMode::Disable),
            ("postgres:///a?host=/run/pg&port=7", vec![unix("/run/pg", 7)], SslMode::Disable),
            ("postgres://%2Frun%2Fpg:7/a", vec![unix("/run/pg", 7)], SslMode::Disable),
            ("postgres:///a", vec![unix("/var/run/postgresql", 5432)], SslMode::Disable),
            (
                "postgres:///a?host=x,y&port=1,2",
                vec![tcp("x", 1), tcp("y", 2)],
                SslMode::VerifyFull,
            ),
            ("postgres:///a?host=x,y&port=9", vec![tcp("x", 9), tcp("y", 9)], SslMode::VerifyFull),
            (
                "postgres:///a?host=localhost,db",
                vec![tcp("localhost", 5432), tcp("db", 5432)],
                SslMode::VerifyFull,
            ),
            ("postgres://u@db/a?sslmode=disable", vec![tcp("db", 5432)], SslMode::Disable),
        ] {
            let url = parse(text).unwrap();
            assert_eq!((url.hosts, url.ssl_mode), (hosts, mode), "{text}");
        }
    }

    #[test]
    fn problems_name_no_value() {
        for (text, expected) in [
            ("mysql://canary@h/a", "begins with postgres://"),
            ("host=h password=canary", "begins with postgres://"),
            ("postgres://u:can/ary@h/a", "percent-encoded"),
            ("postgres://u:can?ary=canary@h/a", "percent-encoded"),
            ("postgres://u:canary%zz@h/a", "the password in the URL is not well percent-encoded"),
            ("postgres://u:canary@h:x/a", "port"),
            ("postgres://u:canary@h:0/a", "port"),
            ("postgres://u:canary@h:70000/a", "port"),
            ("postgres://u:canary@h/a?sslmod=require", "did you mean \"sslmode\"?"),
            ("postgres://u:canary@h/a?channel_binding=require", "\"channel_binding\""),
            ("postgres://u:canary@h/a?sslmode=allow", "sslmode"),
            ("postgres://u:canary@h/a?sslmode=prefer&sslmode=require", "twice"),
            ("postgres://u:canary@h/a?host=g", "\"host\" is given twice"),
            ("postgres://u:canary@h/a?password=canary", "\"password\" is given twice"),
            ("postgres://u:canary@h/a?connect_timeout=0", "connect_timeout"),
            ("postgres:///a?host=a,b&port=1,2,3", "number of ports"),
        ] {
            let problems = parse(text).unwrap_err().join("\n");
            assert!(problems.contains(expected), "{text}: {problems}");
            assert!(!problems.contains("canary"), "{text}: {problems}");
        }
    }

    #[test]
    fn problems_are_collected() {
        let problems = parse("postgres://u@h:x/a?sslmode=y&nope=1").unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
