//! Which releases the tests run against: the newest of each server, unless `WALDEX_TEST_SERVERS` chooses.

use std::ops::RangeInclusive;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use super::java::{self, Java};
use super::locate::say;

/// The variable that chooses, as in `postgres=14,elasticsearch=8.19,opensearch=2.19`.
const CHOICE: &str = "WALDEX_TEST_SERVERS";

/// One release of a server, of one line.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// What a choice calls it.
    pub line: &'static str,
    /// The version of its artefact.
    pub version: &'static str,
    /// The Java versions that it runs on; of no meaning for Postgres.
    java: RangeInclusive<u32>,
}

const fn release(line: &'static str, version: &'static str, java: RangeInclusive<u32>) -> Release {
    Release { line, version, java }
}

impl Release {
    /// The number that its line begins with.
    pub fn major(&self) -> Result<u32> {
        let digits = self.line.split('.').next().unwrap_or_default();
        digits.parse().with_context(|| format!("\"{}\" begins with no number", self.line))
    }
}

/// PostgreSQL by its major version, oldest first.
pub static POSTGRES: [Release; 5] = [
    release("14", "14.15.0", 0..=0),
    release("15", "15.10.0", 0..=0),
    release("16", "16.6.0", 0..=0),
    release("17", "17.6.0", 0..=0),
    release("18", "18.3.0", 0..=0),
];

/// Elasticsearch, oldest first.
pub static ELASTICSEARCH: [Release; 2] =
    [release("8.19", "8.19.8", 17..=u32::MAX), release("9.5", "9.5.0", 21..=u32::MAX)];

/// OpenSearch, oldest first. 2.19 wants the security manager, which Java 24 no longer has.
pub static OPENSEARCH: [Release; 2] =
    [release("2.19", "2.19.0", 17..=23), release("3.3", "3.3.0", 21..=u32::MAX)];

/// What was chosen; none: the newest that can be had.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Of [`POSTGRES`].
    pub postgres: Option<&'static Release>,
    /// Of [`ELASTICSEARCH`].
    pub elasticsearch: Option<&'static Release>,
    /// Of [`OPENSEARCH`].
    pub opensearch: Option<&'static Release>,
}

/// What `WALDEX_TEST_SERVERS` says; read once.
pub fn chosen() -> Result<&'static Choice> {
    static CHOSEN: OnceLock<Result<Choice, String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var_os(CHOICE).unwrap_or_default();
        parse(&text.to_string_lossy()).map_err(|error| format!("{CHOICE}: {error:#}"))
    });
    chosen.as_ref().map_err(|error| anyhow!("{error}"))
}

/// Reads a choice.
pub fn parse(text: &str) -> Result<Choice> {
    let mut choice = Choice::default();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((server, line)) = part.split_once('=') else {
            bail!("\"{part}\" is not of the form server=version");
        };
        let (of, releases): (_, &'static [Release]) = match server.trim() {
            "postgres" => (&mut choice.postgres, &POSTGRES),
            "elasticsearch" => (&mut choice.elasticsearch, &ELASTICSEARCH),
            "opensearch" => (&mut choice.opensearch, &OPENSEARCH),
            other => bail!("no server \"{other}\": there are postgres, elasticsearch, opensearch"),
        };
        if of.is_some() {
            bail!("\"{server}\" is chosen twice");
        }
        *of = Some(of_line(server, releases, line.trim())?);
    }
    Ok(choice)
}

fn of_line(server: &str, releases: &'static [Release], line: &str) -> Result<&'static Release> {
    releases.iter().find(|release| release.line == line).ok_or_else(|| {
        let lines: Vec<&str> = releases.iter().map(|release| release.line).collect();
        anyhow!("no {server} \"{line}\" among the test servers: there are {}", lines.join(", "))
    })
}

/// The release of PostgreSQL of this major version.
pub fn postgres(major: u32) -> Result<&'static Release> {
    of_line("postgres", &POSTGRES, &major.to_string())
}

/// The newest release.
pub fn newest(releases: &'static [Release]) -> &'static Release {
    // Each of the lists above has one.
    &releases[releases.len() - 1]
}

/// The newest major version of PostgreSQL.
pub fn newest_postgres() -> Result<u32> {
    newest(&POSTGRES).major()
}

/// The release of a search server to use, and the Java to run it on: the chosen one, else the newest that
/// the Java of this machine can run.
pub fn with_java(
    name: &str,
    releases: &'static [Release],
    chosen: Option<&'static Release>,
) -> Result<(&'static Release, Java)> {
    if let Some(release) = chosen {
        return Ok((release, java::find(&release.java)?));
    }
    let runnable = releases.iter().rev().find_map(|release| {
        let java = java::present(&release.java).ok()??;
        Some((release, java))
    });
    let newest = newest(releases);
    let Some((release, java)) = runnable else {
        return Ok((newest, java::find(&newest.java)?));
    };
    if release != newest {
        say(&format!("Java is {}: {name} {}, not {}", java.major, release.version, newest.version));
    }
    Ok((release, java))
}
