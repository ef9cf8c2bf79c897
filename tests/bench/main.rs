//! How fast waldex is and what it needs, against a real PostgreSQL and a sink that accepts everything.
//!
//! ```console
//! $ cargo bench --bench stream                       # everything, about two minutes
//! $ ROWS=5000000 BATCH=5000000 cargo bench --bench stream -- stream
//! ```
//!
//! Arguments choose parts: `stream`, `load`, `latency`, `outage`, `reselect`. Variables: `ROWS`, `BATCH` (rows of one
//! transaction), `RATE` (single-row commits a second), `SECONDS` (of the latency part and of the outage),
//! `RESELECTS` (rows whose large value is selected again), `PROGRAM` (another build of waldex, to compare).
//! waldex is a process of its own, and only its CPU time is counted; sink and source share the machine
//! with it, so compare figures of one run with each other.

mod meter;
mod parts;
mod reselect;
mod sink;
mod source;
#[path = "../support/mod.rs"]
mod support;

use anyhow::{Context, Result, bail};
use source::Source;

const PARTS: [&str; 5] = ["stream", "load", "latency", "outage", "reselect"];

/// How much is measured.
pub(crate) struct Sizes {
    rows: u64,
    batch: u64,
    commits_per_second: u32,
    seconds: u32,
    reselects: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let sizes = Sizes {
        rows: variable("ROWS", 1_000_000)?,
        batch: variable("BATCH", 1_000)?,
        commits_per_second: variable("RATE", 200)?,
        seconds: variable("SECONDS", 10)?,
        reselects: variable("RESELECTS", 50_000)?,
    };
    // Cargo itself adds `--bench`.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let Some(unknown) = chosen.iter().find(|arg| !PARTS.contains(&arg.as_str())) {
        bail!("there is no part \"{unknown}\"; choose among {}", PARTS.join(", "));
    }
    let wants = |part: &str| chosen.is_empty() || chosen.iter().any(|arg| arg == part);
    let source = Source::start().await?;
    if wants("stream") {
        parts::stream(&source, &sizes).await?;
    } else if wants("load") {
        source.fill(1, sizes.rows, sizes.batch).await?;
    }
    if wants("load") {
        parts::load(&source, &sizes).await?;
    }
    if wants("latency") {
        parts::latency(&source, &sizes).await?;
    }
    if wants("outage") {
        parts::outage(&source, &sizes).await?;
    }
    if wants("reselect") {
        reselect::reselect(&source, &sizes).await?;
    }
    Ok(())
}

fn variable<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &str,
    default: T,
) -> Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// Prints one line of the table.
pub(crate) fn line(what: &str, measured: &str) {
    println!("{what:<28} {measured}");
}
