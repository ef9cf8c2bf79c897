//! The beginning of a connection's life: proves continuity, loads what is missing, starts the stream.

use tracing::info;

use super::connection::Run;
use super::load::{self, Loaded, Loading};
use super::progress::Progress;
use super::settle::settle;
use super::source_watch::Watch;
use super::tables::Plan;
use super::vitals::State as RunState;
use super::{continuity, generations, letters, limits, rebuild, start};
use crate::elasticsearch::state::State;
use crate::error::{Class, Error};
use crate::lsn::Lsn;
use crate::pipeline::{self, Epoch, Pipeline};
use crate::postgres::replication::{Replication, ReplicationStream};
use crate::postgres::session::{Purpose, Session};
use crate::postgres::{catalog, slot};
use crate::visibility::Snapshot;

impl Run<'_> {
    /// Connects, proves continuity, loads what is missing, starts the stream.
    pub(super) async fn open(
        &mut self,
        session: Option<Session>,
        plan: &Plan,
        state: &mut State,
        watch: &mut Watch,
        progress: &mut Progress,
    ) -> Result<Opening, Error> {
        let postgres = &self.settings.postgres;
        let session = match session {
            Some(session) => session,
            None => Session::connect(postgres, Purpose::Control).await?,
        };
        self.free_slot(&session).await?;
        let mut replication = Replication::connect(postgres, session.encoding()).await?;
        let source = start::ask(&mut replication, &session, &postgres.slot).await?;
        self.store.resume();
        if let Err(gap) = start::go_on(state, &source, &postgres.slot) {
            // It counts only if nobody else has moved the slot, and the state with it. A slot that is no more
            // is lost whoever has the lease: no cluster need be there to say so.
            if !continuity::is_without_slot(&gap) {
                self.store.renew().await?;
            }
            return Err(gap);
        }
        match self.load_missing(&session, plan, state, watch, progress).await? {
            Loads::Whole => {}
            Loads::Stopped => return Ok(Opening::Stopped),
            Loads::Outplanned(table) => return Ok(Opening::Outplanned(table)),
        }
        // Before the stream begins: from then on it must be served, whatever the cluster does.
        letters::discard_outdated(self.writer.letters(), state).await;
        // A run that crashed may have written anything that the server has by now.
        if self.written == Lsn::ZERO && state.written_lsn.is_none() {
            self.writer.inherit(Epoch(state.epoch).version(source.system.flush_lsn)?);
        }
        let before = state.written_lsn.unwrap_or(source.system.flush_lsn);
        self.written = self.written.max(before).max(self.loads_saw);
        if state.written_lsn.is_some() {
            let mut next = state.clone();
            next.written_lsn = None;
            self.store.write(&next).await?;
            *state = next;
        }
        let live_from = source.system.flush_lsn;
        match self.begin_stream(replication, live_from, session).await {
            Ok(opened) => Ok(Opening::Whole(Box::new(opened))),
            Err(error) => {
                // Nothing was sent since.
                state.written_lsn = Some(self.written);
                Err(error)
            }
        }
    }

    async fn begin_stream(
        &self,
        replication: Replication,
        live_from: Lsn,
        session: Session,
    ) -> Result<Opened, Error> {
        let postgres = &self.settings.postgres;
        let rows_session = Session::connect(postgres, Purpose::Snapshot).await?;
        // From the slot's own position: ours could lie beyond a failed-over server's, which then skips.
        let stream = replication.start(&postgres.slot, &postgres.publication, Lsn::ZERO).await?;
        Ok(Opened { session, rows_session, stream, live_from })
    }

    /// Ends the walsender of a connection that we have given up, if the server has not noticed: it would do so
    /// after `wal_sender_timeout` only, or never.
    async fn free_slot(&mut self, session: &Session) -> Result<(), Error> {
        if let Some(pid) = self.walsender.take()
            && slot::free(session, &self.settings.postgres.slot, pid).await?
        {
            info!(pid, "ended the walsender of the connection before, which was still there");
        }
        Ok(())
    }

    async fn load_missing(
        &mut self,
        session: &Session,
        plan: &Plan,
        state: &mut State,
        watch: &mut Watch,
        progress: &mut Progress,
    ) -> Result<Loads, Error> {
        for table in &plan.tables {
            let name = table.name();
            if state.tables.get(&name).is_none_or(|entry| entry.loaded) {
                continue;
            }
            progress.state(RunState::Backfilling);
            generations::begin_load(&self.client, table, &self.store, state).await?;
            if let Some(entry) = state.tables.get(&name) {
                load::announce(&table.published, &entry.index, entry.generation);
            }
            let began = tokio::time::Instant::now();
            let mut pipeline = self.pipeline(plan, state)?;
            let rows_session = Session::connect(&self.settings.postgres, Purpose::Snapshot).await?;
            let loading = Loading {
                session: &rows_session,
                control: session,
                watch: &mut *watch,
                publication: &self.settings.postgres.publication,
                pipeline: &mut pipeline,
                lanes: &mut self.lanes,
                shutdown: &mut self.shutdown,
                progress,
                clock: self.clock,
            };
            let loaded = Box::pin(loading.run(&table.published)).await;
            let loaded = self.settled(loaded, &mut pipeline, progress).await;
            progress.pipeline_ends(&pipeline);
            let (rows, snapshot) = match loaded? {
                Loaded::Whole { rows, snapshot } => (rows, snapshot),
                Loaded::Stopped => return Ok(Loads::Stopped),
                Loaded::Outplanned => return Ok(Loads::Outplanned(name)),
            };
            self.loads_saw = self.loads_saw.max(catalog::insert_lsn(session).await?);
            let end = catalog::flush_lsn(session).await?;
            if let Some(entry) = state.tables.get_mut(&name) {
                entry.loaded = true;
                entry.load_end_lsn = Some(end);
                entry.load_snapshot = Some(snapshot.to_string());
            }
            self.store.write(state).await?;
            info!(table = name, rows, seconds = began.elapsed().as_secs_f64(), "loaded");
        }
        Ok(Loads::Whole)
    }

    /// A load that did not come to its end leaves requests in flight, which must not meet those of the next attempt.
    async fn settled(
        &mut self,
        loaded: Result<Loaded, Error>,
        pipeline: &mut Pipeline,
        progress: &mut Progress,
    ) -> Result<Loaded, Error> {
        let goes_on = match &loaded {
            Ok(Loaded::Outplanned) => true,
            Ok(Loaded::Whole { .. } | Loaded::Stopped) => false,
            Err(error) => {
                error.class() == Class::Transient || rebuild::is_wanted(self.settings, error)
            }
        };
        if goes_on {
            let stop = self.shutdown.clone();
            settle(&mut self.lanes, None, pipeline, progress, stop).await?;
        }
        loaded
    }

    pub(super) fn pipeline(&self, plan: &Plan, state: &State) -> Result<Pipeline, Error> {
        let tables = plan.tables.iter().map(|table| {
            let Some(entry) = state.tables.get(&table.name()) else {
                return table.plan(1, &plan.types);
            };
            let planned = table.plan(entry.generation, &plan.types)?;
            let snapshot = entry.load_snapshot.as_deref().and_then(Snapshot::parse);
            Ok(match snapshot.zip(entry.load_end_lsn) {
                Some((snapshot, end)) => planned.loaded_since(snapshot, end),
                None => planned,
            })
        });
        let planned = pipeline::Plan {
            tables: tables.collect::<Result<_, _>>()?,
            as_of: plan.as_of,
            takes_new_tables: plan.takes_new_tables,
            left_out: plan.left_out.iter().map(|it| it.published.relation.oid).collect(),
        };
        Ok(Pipeline::new(planned, Epoch(state.epoch), limits(self.settings)))
    }
}

/// A stream that has begun.
pub(super) struct Opened {
    pub(super) session: Session,
    /// Reads rows.
    pub(super) rows_session: Session,
    pub(super) stream: ReplicationStream,
    /// Where the source was then.
    pub(super) live_from: Lsn,
}

/// How far the beginning of a stream came.
pub(super) enum Opening {
    Whole(Box<Opened>),
    /// A stop was asked for.
    Stopped,
    /// This table is not as it was planned.
    Outplanned(String),
}

#[derive(PartialEq, Eq)]
enum Loads {
    Whole,
    Stopped,
    /// This table is not as it was planned.
    Outplanned(String),
}
