//! `waldex run --dry-run`: prints the bulk lines that the stream would send. Writes nothing to the cluster,
//! confirms nothing to Postgres: the slot stays where it is.
//!
//! Reads the named slot if it is there and idle, else a temporary one that ends with the connection and
//! shows what changes from now on.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use super::newcomers::Newcomers;
use super::shutdown::Shutdown;
use super::slot_creation::{Making, create_over};
use super::stream::Clock;
use super::tables;
use super::work::Working;
use super::{limits, postgres_now_micros};
use crate::cli::Until;
use crate::error::Error;
use crate::findings::Cure;
use crate::lsn::Lsn;
use crate::pgoutput::envelope::encode_standby_status;
use crate::pipeline::{self, Epoch, Pipeline};
use crate::postgres::replication::{Replication, ReplicationStream};
use crate::postgres::session::{Purpose, Session};
use crate::postgres::{catalog, preflight, slot};
use crate::settings::Settings;

/// Says that we live, without confirming anything.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Prints until `until` is reached or a stop is asked for.
///
/// # Errors
/// Whatever would stop `run` on Postgres' side.
pub async fn dry_run(
    settings: &Settings,
    until: Option<Until>,
    mut shutdown: Shutdown,
) -> Result<(), Error> {
    let postgres = &settings.postgres;
    let session = Session::connect(postgres, Purpose::Control).await?;
    let mut problems = preflight::check(&session, postgres, &settings.tables).await?.problems;
    problems.retain(|problem| !matches!(problem.cure, Cure::ByWaiting { .. }));
    if !problems.is_empty() {
        return Err(Error::Preflight(problems));
    }
    let plan = tables::plan(&session, settings, &Newcomers::default()).await?;
    let making = Making::default();
    let mut stream = tokio::select! {
        () = shutdown.requested() => {
            making.abandon(postgres).await;
            return Ok(());
        }
        opened = Box::pin(open(settings, &session, &making)) => opened?,
    };
    let until = match until {
        None => None,
        Some(Until::Current) => Some(catalog::flush_lsn(&session).await?),
        Some(Until::Lsn(lsn)) => Some(lsn),
    };
    let tables = plan.tables.iter().map(|table| table.plan(1, &plan.types));
    let tables = tables.collect::<Result<_, _>>()?;
    // Shows the tables as they are planned now, for as long as it runs.
    let planned = pipeline::Plan {
        tables,
        as_of: Lsn::new(u64::MAX),
        takes_new_tables: false,
        left_out: BTreeSet::new(),
    };
    let mut pipeline = Pipeline::new(planned, Epoch(0), limits(settings));
    pipeline.freeze();
    let rows_session = Arc::new(Session::connect(postgres, Purpose::Snapshot).await?);
    let published = plan.tables.iter().map(|table| table.published.clone()).collect();
    let mut working = Working::new(session, rows_session, published, None);
    let mut ticks = interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let clock = Clock::start();
    loop {
        while pipeline.wants_frame() {
            let Some(frame) = stream.next_frame()? else { break };
            if let Some(work) = pipeline.push_frame(frame)? {
                working.add(work);
            }
        }
        pipeline.drain();
        print_batches(&mut pipeline, clock)?;
        working.start_if_ready(&pipeline);
        let is_between = !pipeline.in_transaction() && pipeline.is_drained();
        if is_between && until.is_some_and(|until| pipeline.received() >= until) {
            return Ok(());
        }
        let reads = pipeline.wants_frame();
        tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(()),
            _ = ticks.tick() => stream.queue_status(&encode_standby_status(
                pipeline.received(), Lsn::ZERO, Lsn::ZERO, postgres_now_micros(), until.is_some(),
            )),
            worked = working.finished() => worked?.give_to(&mut pipeline)?,
            moved = stream.progress(reads) => drop(moved?),
        }
    }
}

async fn open(
    settings: &Settings,
    session: &Session,
    making: &Making,
) -> Result<ReplicationStream, Error> {
    let postgres = &settings.postgres;
    let mut replication = Replication::connect(postgres, session.encoding()).await?;
    let found = slot::inspect(session, &postgres.slot).await?;
    let is_idle = found.is_some_and(|slot| slot.active_pid.is_none() && !slot.is_lost());
    let slot = if is_idle {
        postgres.slot.clone()
    } else {
        let temporary = format!("waldex_dry_run_{:08x}", rand::random::<u32>());
        info!(
            slot = temporary,
            "the slot is not idle: reading changes from now on, over a temporary one"
        );
        create_over(&mut replication, session, &temporary, true, making).await?;
        temporary
    };
    Ok(replication.start(&slot, &postgres.publication, Lsn::ZERO).await?)
}

/// Prints what is due. A closed pipe ends the run like any other reader's leaving.
fn print_batches(pipeline: &mut Pipeline, clock: Clock) -> Result<(), Error> {
    let lanes: Vec<_> = pipeline.lanes().collect();
    for lane in lanes {
        while let Some(batch) = pipeline.take_batch(lane, clock.now()) {
            std::io::stdout().lock().write_all(&batch.body()).map_err(Error::Output)?;
            pipeline.discard_batch(lane, &batch.printed());
        }
    }
    Ok(())
}
