//! Finds the Java that Elasticsearch and OpenSearch run on.
//!
//! Elasticsearch 9 and OpenSearch 3 need Java 21; the lines before them are content with 17. The best
//! one is taken, unless `WALDEX_TEST_JAVA` names the home of another.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::locate;

/// The Java that is asked for where there is none: the newest servers run on it.
pub const CURRENT: u32 = 21;
/// The newest Java on which both servers were seen to run.
const NEWEST_KNOWN: u32 = 25;

/// A Java runtime.
#[derive(Clone, Debug)]
pub struct Java {
    /// What `JAVA_HOME` would name.
    pub home: PathBuf,
    /// 17, 21, 25 …
    pub major: u32,
}

/// The variable that names the Java to use, whatever else is here.
const CHOICE: &str = "WALDEX_TEST_JAVA";

/// The best Java of `accepted` versions; installed from the system's packages if there is none and that is
/// allowed.
pub fn find(accepted: &RangeInclusive<u32>) -> Result<Java> {
    if let Some(java) = present(accepted)? {
        return Ok(java);
    }
    if locate::can_install() {
        for package in ["openjdk-21-jre-headless", "openjdk-17-jre-headless"] {
            if locate::install(&[package]).is_ok()
                && let Some(java) = present(accepted)?
            {
                return Ok(java);
            }
        }
    }
    let (oldest, newest) = accepted.clone().into_inner();
    let versions = if newest == u32::MAX {
        format!("{oldest} or newer")
    } else {
        format!("{oldest} to {newest}")
    };
    bail!("no Java {versions} was found: install such a runtime or set JAVA_HOME")
}

/// The best Java of `accepted` versions that is here.
pub fn present(accepted: &RangeInclusive<u32>) -> Result<Option<Java>> {
    if let Some(home) = std::env::var_os(CHOICE).map(PathBuf::from) {
        let java = usable(home)
            .with_context(|| format!("{CHOICE} names no Java that the servers' user can reach"))?;
        return Ok(accepted.contains(&java.major).then_some(java));
    }
    let mut homes: Vec<PathBuf> =
        std::env::var_os("JAVA_HOME").map(PathBuf::from).into_iter().collect();
    homes.extend(locate::entries("/usr/lib/jvm"));
    homes.extend(locate::entries("/opt/java"));
    if let Some(real) = locate::which("java").and_then(|file| file.canonicalize().ok()) {
        homes.extend(real.parent().and_then(Path::parent).map(Path::to_path_buf));
    }
    let fitting =
        homes.into_iter().filter_map(usable).filter(|java| accepted.contains(&java.major));
    // One that is too new to be known comes after all that are known.
    Ok(fitting.max_by_key(|java| (java.major <= NEWEST_KNOWN, java.major)))
}

fn usable(home: PathBuf) -> Option<Java> {
    let is_here = home.join("bin/java").is_file() && locate::is_reachable(&home);
    Some(Java { major: is_here.then(|| major(&home))??, home })
}

/// Reads the `release` file that every runtime carries, else asks `java -version`.
fn major(home: &Path) -> Option<u32> {
    let release = fs::read_to_string(home.join("release")).unwrap_or_default();
    let version = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=")).map_or_else(
        || {
            let mut command = std::process::Command::new(home.join("bin/java"));
            let output = command.arg("-version").output().ok()?;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            text.split('"').nth(1).map(str::to_owned)
        },
        |quoted| Some(quoted.trim_matches('"').to_owned()),
    )?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
