//! waldex at work between a real PostgreSQL and a real Elasticsearch.
//!
//! `cargo run --release --example quickstart` finds or fetches both, fills a users table, runs waldex
//! (the library, as `waldex run` does) and changes rows under it until Ctrl-C. Servers and data are
//! gone afterwards, however it ends.

mod changes;
mod people;
mod scene;
mod screen;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;
use waldex::cli::Reload;
use waldex::config::{LogFormat, LogLevel, LogSettings};
use waldex::error::Error;
use waldex::run::shutdown::Shutdown;
use waldex::run::{Options, run};

use changes::{Changes, until_seen};
use scene::{PEOPLE, Scene};
use screen::Times;
use support::servers::Servers;
use support::wait::wait_until;

/// From one change to the next, slow enough to read along.
const RHYTHM: Duration = Duration::from_secs(1);
/// The same for `--once`; no multiple of the refresh interval, lest every commit meets it at the same
/// moment.
const RHYTHM_ONCE: Duration = Duration::from_millis(170);
/// How many changes `--once` makes.
const CHANGES_ONCE: usize = 18;
/// How many changes are between two summaries.
const SUMMARY_EVERY: usize = 30;
/// How long the initial load may take.
const LOAD_LIMIT: Duration = Duration::from_secs(120);
/// Differences that are printed.
const SHOWN: usize = 10;

/// Watch waldex keep an Elasticsearch index equal to a PostgreSQL table.
#[derive(Parser)]
struct Arguments {
    /// End by itself after a few changes; exit code 0 only if table and index are equal
    #[arg(long)]
    once: bool,
    /// Show waldex's own log on standard error
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = if arguments.log { LogLevel::Info } else { LogLevel::Warn };
    waldex::logging::start(LogSettings { format: LogFormat::Human, level });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.context("cannot start the runtime").and_then(|runtime| {
        let ended = runtime.block_on(quickstart(&arguments));
        // Servers may still be starting when Ctrl-C comes; they end with this process.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// From the start of the servers to their end.
async fn quickstart(arguments: &Arguments) -> Result<()> {
    let mut stop = Shutdown::on_signals()?;
    println!("Starting PostgreSQL and Elasticsearch; what is not here yet is fetched first.");
    let began = Instant::now();
    let servers = tokio::select! {
        servers = spawn_blocking(Servers::for_quickstart) => servers??,
        () = stop.requested() => bail!("stopped before the servers were there"),
    };
    let scene = Scene::set(servers).await?;
    let versions = scene.versions().await?;
    println!("{versions} are ready after {:.1} s.\n", began.elapsed().as_secs_f64());
    let played = play(&scene, arguments, stop).await;
    let struck = scene.strike().await;
    played?;
    println!("{}", struck?);
    Ok(())
}

/// Runs waldex, changes rows under it, stops it and compares.
async fn play(scene: &Scene, arguments: &Arguments, mut stop: Shutdown) -> Result<()> {
    let (handle, shutdown) = Shutdown::by_hand();
    let settings = scene.settings.clone();
    let options = Options { until: None, reload: Reload::Nothing };
    // A thread of its own, as the binary is a process of its own.
    let runtime = Handle::current();
    let mut waldex =
        spawn_blocking(move || runtime.block_on(Box::pin(run(&settings, options, shutdown))));
    let watched = tokio::select! {
        ended = &mut waldex => {
            explained(ended?)?;
            bail!("waldex ended without being asked to");
        }
        watched = watch(scene, arguments, &mut stop) => watched,
    };
    handle.ask();
    let ended = waldex.await?;
    watched?;
    explained(ended)?;
    let differences = scene.differences().await?;
    if !differences.is_empty() {
        let shown: Vec<&str> = differences.iter().take(SHOWN).map(String::as_str).collect();
        let (count, shown) = (differences.len(), shown.join("\n  "));
        bail!("table and index differ in {count} documents:\n  {shown}");
    }
    let rows = scene.rows().await?;
    println!("Table and index are equal: {rows} rows, each compared with its document.");
    Ok(())
}

/// An error of waldex, with what to do about it.
fn explained(ended: Result<(), Error>) -> Result<()> {
    let Err(error) = ended else { return Ok(()) };
    let mut text = format!("waldex: {error}");
    if let Error::Preflight(problems) = &error {
        for problem in problems {
            text = format!("{text}\n  {}; fix: {}", problem.what, problem.fix);
        }
    }
    match error.remedy() {
        Some(remedy) => Err(anyhow!("{text}\n  {remedy}")),
        None => Err(anyhow!(text)),
    }
}

/// The initial load, then one change after the other, until it is enough and all is confirmed.
async fn watch(scene: &Scene, arguments: &Arguments, stop: &mut Shutdown) -> Result<()> {
    let began = Instant::now();
    wait_until(LOAD_LIMIT, "the initial load", async || {
        matches!(scene.search.count(&scene.index).await, Ok(Some(count)) if count == PEOPLE as u64)
    })
    .await?;
    screen::introduction(scene, began.elapsed())?;
    let mut changes = Changes::new();
    let mut times = Times::default();
    let mut rhythm = tokio::time::interval(if arguments.once { RHYTHM_ONCE } else { RHYTHM });
    rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !(arguments.once && times.count >= CHANGES_ONCE) {
        tokio::select! {
            biased;
            () = stop.requested() => break,
            _ = rhythm.tick() => {}
        }
        let Some(change) = changes.commit_next(scene).await? else { continue };
        let elapsed = until_seen(scene, &change).await?;
        screen::change(&change, elapsed);
        times.add(elapsed);
        if !arguments.once && times.count.is_multiple_of(SUMMARY_EVERY) {
            println!("{}.", times.summary());
        }
    }
    println!("\n{}.", times.summary());
    scene.confirmed().await
}
