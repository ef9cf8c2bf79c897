//! Connections that break for long, and connections that hang.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{ends_equal, filled, holds, server};
use crate::support::proxy::tcp::Link;
use crate::support::servers::postgres::{Postgres, Version};
use crate::support::servers::process::signal;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Running, Waldex};

/// Everything that waldex says to Postgres goes over the link.
fn over(stage: &Stage<'_>, link: &Link) -> Result<Waldex> {
    let url = format!("{}?connect_timeout=2&sslmode=disable", link.url(&stage.database.url)?);
    let waldex = Waldex::new("run")?.between(&url, stage.name(), stage.node);
    Ok(waldex.config(&stage.config()))
}

async fn streaming<'a>(label: &str, postgres: &'a Postgres) -> Result<(Stage<'a>, Link, Running)> {
    let mut stage = Stage::new(label, postgres, shared_elasticsearch()?).await?;
    filled(&mut stage).await?;
    let link = Link::to(postgres.port()).await?;
    let mut running = over(&stage, &link)?.arg("--log-level").arg("debug").spawn()?;
    running.wait_for_line(LIMIT, "\"live\"").await?;
    Ok((stage, link, running))
}

/// The whole five minutes are counted by a unit test of the back-off.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_asked_about_ever_more_rarely_and_a_short_one_is_soon_over() -> Result<()> {
    let (stage, link, mut running) = streaming("outage", shared_postgres()?).await?;
    link.set(|weather| weather.refuses = true);
    let before = link.connections();
    link.cut();
    let began = Instant::now();
    running.wait_for_line(LIMIT, "trying on").await?;
    wait_until(LIMIT, "six attempts", async || link.connections() >= before + 6).await?;
    let took = began.elapsed();
    // 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 6.4 s, less a fifth; a session's connection each.
    ensure!(took > Duration::from_secs(9), "six attempts within {took:?}");
    link.clear();
    ends_equal(&stage, running).await?;

    let (stage, link, running) = streaming("blip", shared_postgres()?).await?;
    link.cut();
    let began = Instant::now();
    ends_equal(&stage, running).await?;
    ensure!(began.elapsed() < Duration::from_secs(5), "a blip took {:?}", began.elapsed());
    Ok(())
}

/// Nothing moves and nothing is closed, as behind a firewall that has forgotten the connections. The server keeps
/// its walsender for as long as it likes: here for ever.
async fn black_hole(label: &str, version: Version) -> Result<()> {
    let postgres = server(version, &["wal_sender_timeout = 0"])?;
    let (stage, link, mut running) = streaming(label, &postgres).await?;
    link.set(|weather| weather.stalled = true);
    stage.execute("update t set v = 'meanwhile' where id = 7").await?;
    let began = Instant::now();
    running.wait_for_line(LIMIT, "is silent").await?;
    ensure!(began.elapsed() < Duration::from_secs(40), "noticed after {:?}", began.elapsed());
    // New connections come through, and the server has not noticed the end of the old ones.
    let before = link.connections();
    link.set(|weather| (weather.stalled, weather.stalled_up_to) = (false, before));
    running.wait_for_line(LIMIT, "which was still there").await?;
    ends_equal(&stage, running).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_hangs_is_given_up_on_18() -> Result<()> {
    black_hole("hole_18", Version::Newest).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_hangs_is_given_up_on_14() -> Result<()> {
    black_hole("hole_14", Version::Major(14)).await
}

/// Only what stands already hangs, new connections come through: the server is asked what its walsender does.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_hangs_beside_others_that_do_not_is_given_up() -> Result<()> {
    let (stage, link, mut running) = streaming("hole", shared_postgres()?).await?;
    let before = link.connections();
    link.set(|weather| weather.stalled_up_to = before);
    stage.execute("update t set v = 'meanwhile' where id = 7").await?;
    running.wait_for_line(LIMIT, "is silent").await?;
    ends_equal(&stage, running).await
}

/// Decoding what nobody has published may take minutes without a word: that is no reason to begin again. Here the
/// walsender is frozen while it decodes, so that it looks like one that takes so long.
#[tokio::test(flavor = "multi_thread")]
async fn a_walsender_that_works_in_silence_is_left_alone() -> Result<()> {
    let postgres = server(Version::Newest, &["wal_sender_timeout = 0", "max_wal_size = 4GB"])?;
    let (stage, _link, mut running) = streaming("works", &postgres).await?;
    let walsender = "select pid from pg_stat_replication";
    let pid = sql::value(&stage.sql, walsender).await?.context("no walsender")?;
    let number: u32 = pid.parse()?;
    stage.execute("create table unheard (id int, v text)").await?;
    stage.execute("insert into unheard select n, 'x' from generate_series(1, 1500000) n").await?;
    let works = format!(
        "select 1 from pg_stat_activity where pid = {pid} and wait_event_type is distinct from 'Client'
         and wait_event_type is distinct from 'Activity'"
    );
    wait_until(LIMIT, "the walsender to be at work", async || {
        signal(number, Signal::STOP);
        let is_at_work = holds(&stage, &works).await;
        if !is_at_work {
            signal(number, Signal::CONT);
        }
        is_at_work
    })
    .await?;
    running.wait_for_line(LIMIT, "the walsender is silent and works").await?;
    signal(number, Signal::CONT);
    let mark = stage.execute_and_mark("insert into t values (100000, 'behind')").await?;
    wait_until(LIMIT, "the rest to be passed", async || {
        stage.has_confirmed(&mark).await.unwrap_or(false)
    })
    .await?;
    ensure!(sql::value(&stage.sql, walsender).await? == Some(pid), "it began again");
    ends_equal(&stage, running).await
}
