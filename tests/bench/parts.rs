//! What is measured: each part prints its lines of the table.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;

use crate::meter::{self, Usage};
use crate::sink::{Seen, Sink};
use crate::source::{PUBLICATION, Source};
use crate::support::sql;
use crate::support::wait::wait_until;
use crate::support::waldex::{Running, Waldex};
use crate::{Sizes, line};

/// No single measurement takes longer, or it has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// One of the two ways to the server.
struct Way {
    name: &'static str,
    url: String,
    slot: &'static str,
    baseline_slot: &'static str,
}

fn ways(source: &Source) -> Result<[Way; 2]> {
    let (tcp, socket) = (source.database.url.clone(), source.socket_url()?);
    Ok([
        Way { name: "TCP", url: tcp, slot: "tcp", baseline_slot: "tcp_baseline" },
        Way { name: "Unix socket", url: socket, slot: "unix", baseline_slot: "unix_baseline" },
    ])
}

fn waldex(url: &str, (slot, publication): (&str, &str), sink: &Sink) -> Result<Waldex> {
    let run = match std::env::var_os("PROGRAM") {
        Some(program) => Waldex::at(program.into(), "run"),
        None => Waldex::new("run")?,
    };
    let run = run.arg("--postgres-url").arg(url);
    let run = run.arg("--slot").arg(slot).arg("--publication").arg(publication);
    Ok(run.arg("--elasticsearch-url").arg(&sink.url()))
}

/// Runs until what is committed now is confirmed, on this slot and publication.
pub(crate) async fn catch_up(url: &str, names: (&str, &str), sink: &Sink) -> Result<Usage> {
    let child = waldex(url, names, sink)?.arg("--until").arg("current").spawn()?;
    let usage = meter::until_end(&child).await?;
    child.finish(LIMIT).await?.expect_code(0)?;
    Ok(usage)
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

pub(crate) fn show(what: &str, rows: u64, seen: Seen, usage: Usage) -> Result<()> {
    ensure!(seen.documents == rows, "the sink got {} documents, not {rows}", seen.documents);
    let per_second = seen.per_second().context("no documents")?;
    line(
        what,
        &format!(
            "{per_second:>9.0} rows/s  {:>5.2} µs CPU/row  {:>3} MiB peak RSS  {:>6.1} rows/bulk",
            usage.cpu_micros_per(rows),
            mib(usage.peak_rss_bytes),
            per(rows, seen.bulks),
        ),
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn per(count: u64, of: u64) -> f64 {
    count as f64 / of as f64
}

/// A backlog of `rows` rows, streamed over each way; the same with a reader that throws it away.
pub(crate) async fn stream(source: &Source, sizes: &Sizes) -> Result<()> {
    let mut ready = Vec::new();
    for way in ways(source)? {
        source.create_slot(way.baseline_slot).await?;
        let sink = Sink::start()?;
        catch_up(&way.url, (way.slot, PUBLICATION), &sink).await?;
        ready.push((way, sink));
    }
    let took = source.fill(1, sizes.rows, sizes.batch).await?;
    let filled = format!("{} in transactions of {}, {took:.1?}", sizes.rows, sizes.batch);
    line("rows inserted", &filled);
    let end = source.flush_lsn().await?;
    for (way, sink) in ready {
        let baseline = read_and_discard(&way, &end).await?;
        source.drop_slot(way.baseline_slot).await?;
        let what = format!("pg_recvlogical, {}", way.name);
        line(
            &what,
            &baseline.map_or("not installed, skipped".to_owned(), |took| {
                format!("{:>9.0} rows/s", per(sizes.rows, 1) / took.as_secs_f64())
            }),
        );
        let usage = catch_up(&way.url, (way.slot, PUBLICATION), &sink).await?;
        source.drop_slot(way.slot).await?;
        show(&format!("stream, {}", way.name), sizes.rows, sink.seen(), usage)?;
    }
    Ok(())
}

/// How long `pg_recvlogical` takes to receive everything up to `end`; none where there is none.
async fn read_and_discard(way: &Way, end: &str) -> Result<Option<Duration>> {
    let reader = Waldex::at("pg_recvlogical".into(), "--start")
        .arg("--no-loop")
        .arg("--file=/dev/null")
        .arg(&format!("--dbname={}", way.url))
        .arg(&format!("--slot={}", way.baseline_slot))
        .arg(&format!("--endpos={end}"))
        .arg("--option=proto_version=1")
        .arg(&format!("--option=publication_names={PUBLICATION}"));
    let began = Instant::now();
    let child = match reader.spawn() {
        Ok(child) => child,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    meter::until_end(&child).await?;
    let took = began.elapsed();
    child.finish(LIMIT).await?.expect_code(0)?;
    Ok(Some(took))
}

fn is_missing(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::NotFound)
}

/// The initial load of the rows that are there; the same with a COPY that is thrown away.
pub(crate) async fn load(source: &Source, sizes: &Sizes) -> Result<()> {
    let began = Instant::now();
    let mut copy = Box::pin(source.sql.copy_out("copy users to stdout").await?);
    while copy.try_next().await?.is_some() {}
    let took = began.elapsed();
    line("COPY, discarded", &format!("{:>9.0} rows/s", per(sizes.rows, 1) / took.as_secs_f64()));
    for way in ways(source)? {
        let sink = Sink::start()?;
        let usage = catch_up(&way.url, (way.slot, PUBLICATION), &sink).await?;
        source.drop_slot(way.slot).await?;
        show(&format!("initial load, {}", way.name), sizes.rows, sink.seen(), usage)?;
    }
    Ok(())
}

/// From COMMIT's answer to the confirmation of the document, at a steady rate of single-row commits.
pub(crate) async fn latency(source: &Source, sizes: &Sizes) -> Result<()> {
    for cluster_ms in [0, 10] {
        let url = &source.database.url;
        let sink = Sink::with_clock(Duration::from_millis(cluster_ms))?;
        let empty = "truncate users";
        sql::batch(&source.sql, empty).await?;
        let mut child = waldex(url, ("latency", PUBLICATION), &sink)?.spawn()?;
        child.wait_for_line(LIMIT, "catching_up").await?;
        let before = meter::so_far(&child)?;
        let began = Instant::now();
        let committed = commit_steadily(source, sizes.commits_per_second, sizes.seconds).await?;
        let all = u64::try_from(committed.len())?;
        let arrived = async || sink.documents() >= all;
        wait_until(LIMIT, "the last document", arrived).await?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = meter::so_far(&child)?.cpu.saturating_sub(before.cpu);
        end(source, child, "latency").await?;
        let mut waits: Vec<f64> = Vec::new();
        for (id, confirmed) in sink.confirmed() {
            let at = committed.get(usize::try_from(id)? - 1).context("an unknown document")?;
            waits.push(confirmed.saturating_duration_since(*at).as_secs_f64() * 1e3);
        }
        waits.sort_unstable_by(f64::total_cmp);
        let percentile = |of: usize| waits.get(waits.len() * of / 100).copied().unwrap_or(f64::NAN);
        line(
            &format!("latency, {cluster_ms} ms a bulk"),
            &format!(
                "p50 {:.1} ms  p99 {:.1} ms  {:.0} commits/s  {:.0} bulks/s  {:.0} ms CPU/s",
                percentile(50),
                percentile(99),
                per(all, 1) / seconds,
                per(sink.seen().bulks, 1) / seconds,
                cpu.as_secs_f64() * 1e3 / seconds,
            ),
        );
    }
    Ok(())
}

/// Inserts single rows on a schedule; when each was committed.
async fn commit_steadily(source: &Source, per_second: u32, seconds: u32) -> Result<Vec<Instant>> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut committed = Vec::new();
    for id in 1..=u64::from(per_second * seconds) {
        ticks.tick().await;
        source.fill(id, id, 1).await?;
        committed.push(Instant::now());
    }
    Ok(committed)
}

/// The cluster is gone for a while in the middle of a backlog: memory stays where it was.
pub(crate) async fn outage(source: &Source, sizes: &Sizes) -> Result<()> {
    sql::batch(&source.sql, "truncate users").await?;
    let sink = Sink::start()?;
    let url = source.socket_url()?;
    catch_up(&url, ("outage", PUBLICATION), &sink).await?;
    source.fill(1, sizes.rows, sizes.batch).await?;
    let child =
        waldex(&url, ("outage", PUBLICATION), &sink)?.arg("--until").arg("current").spawn()?;
    let some = async || sink.documents() > sizes.rows / 10;
    wait_until(LIMIT, "the first documents", some).await?;
    sink.refuse(true);
    let before = meter::so_far(&child)?;
    tokio::time::sleep(Duration::from_secs(sizes.seconds.into())).await;
    let after = meter::so_far(&child)?;
    sink.refuse(false);
    let usage = meter::until_end(&child).await?;
    child.finish(LIMIT).await?.expect_code(0)?;
    source.drop_slot("outage").await?;
    ensure!(sink.documents() >= sizes.rows, "documents are missing");
    line(
        &format!("outage of {} s", sizes.seconds),
        &format!(
            "peak RSS {} MiB before, {} MiB in it, {} MiB at the end; {:.0} ms CPU in it",
            mib(before.peak_rss_bytes),
            mib(after.peak_rss_bytes),
            mib(usage.peak_rss_bytes),
            (after.cpu.saturating_sub(before.cpu)).as_secs_f64() * 1e3,
        ),
    );
    Ok(())
}

async fn end(source: &Source, child: Running, slot: &str) -> Result<()> {
    child.terminate();
    child.finish(LIMIT).await?.expect_code(0)?;
    source.drop_slot(slot).await
}
