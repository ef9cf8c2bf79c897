//! A run over as many connections to Postgres as it takes: what ended one decides what comes next.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::Options;
use super::begin::{Beginning, Started, patiently};
use super::lanes::Lanes;
use super::opening::{Opened, Opening};
use super::progress::Progress;
use super::recorder::Recorder;
use super::settle::settle;
use super::shutdown::Shutdown;
use super::slot_creation::Making;
use super::source_watch::Watch;
use super::stream::{Clock, Ended, Streaming};
use super::tables::Plan;
use super::turn::{LAST_WRITE_TIMEOUT, Turn};
use super::vitals::State as RunState;
use super::work::Working;
use super::{continuity, letters, rebuild};
use crate::cli::Reload;
use crate::elasticsearch::client::Client;
use crate::elasticsearch::retry::Backoff;
use crate::elasticsearch::state::{State, StateError};
use crate::elasticsearch::store::StateStore;
use crate::elasticsearch::writer::Writer;
use crate::error::{Class, Error};
use crate::lsn::Lsn;
use crate::pipeline::Pipeline;
use crate::postgres::session::Session;
use crate::settings::{OnSlotLost, Settings};

/// A stream that lasted so long ends a series of attempts: the next wait is short again.
const STEADY: Duration = Duration::from_secs(10);

pub(super) struct Run<'a> {
    pub(super) settings: &'a Settings,
    pub(super) client: Client,
    pub(super) store: StateStore,
    pub(super) writer: Writer,
    pub(super) lanes: Lanes,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
    /// Up to where anything may have been written, by this run or, if that crashed, by the one before.
    pub(super) written: Lsn,
    /// Up to where loads may have seen commits.
    pub(super) loads_saw: Lsn,
    /// When the present stream began.
    streams_since: Option<tokio::time::Instant>,
    /// The walsender of the last stream: if it has not noticed that we are gone, it stands in our way.
    pub(super) walsender: Option<i32>,
}

impl<'a> Run<'a> {
    pub(super) fn new(turn: &Turn<'a>, store: &StateStore, writer: Writer) -> Self {
        let lanes = Lanes::start(&writer, turn.settings.elasticsearch.concurrency);
        Self {
            settings: turn.settings,
            client: turn.client.clone(),
            store: store.clone(),
            writer,
            lanes,
            clock: Clock::start(),
            shutdown: turn.shutdown.clone(),
            written: Lsn::ZERO,
            loads_saw: Lsn::ZERO,
            streams_since: None,
            walsender: None,
        }
    }

    /// Loads and streams over as many connections as it takes.
    pub(super) async fn live(
        &mut self,
        started: Started,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let Started { session, mut plan, mut state, until, .. } = started;
        let mut session = Some(session);
        let mut backoff = Backoff::of_source();
        loop {
            let life = self.connection(session.take(), &plan, state, until, progress).await?;
            let error = match life {
                Life::Over => return Ok(()),
                Life::Broken(kept, error) => {
                    state = *kept;
                    error
                }
                Life::Outplanned(what, ended) => {
                    progress.state(RunState::Planning);
                    info!(what, "the source is not as it was planned: planning again");
                    let again = self.plan_again(ended, progress).await?;
                    let Some(started) = again else { return Ok(()) };
                    (plan, state) = (started.plan, started.state);
                    session = Some(started.session);
                    continue;
                }
            };
            if self.streams_since.take().is_some_and(|since| since.elapsed() >= STEADY) {
                backoff = Backoff::of_source();
            }
            let pause = backoff.next(None);
            progress.state(RunState::Reconnecting);
            let is_source = matches!(error, Error::Postgres(_));
            let what = if is_source { "Postgres is out of reach" } else { "cannot go on yet" };
            warn!(%error, remedy = error.remedy(), ?pause, "{what}, trying on");
            self.store.rest();
            tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// What a start does, however long the servers are away; all from anew if the slot is lost.
    async fn plan_again(
        &self,
        ended: Option<Error>,
        progress: &mut Progress,
    ) -> Result<Option<Started>, Error> {
        let options = Options { until: None, reload: Reload::Nothing };
        let making = Making::default();
        let (settings, client, store) = (self.settings, &self.client, &self.store);
        let mut beginning = Beginning::new(settings, client, store, &options, &making).after(ended);
        let attempt = async || beginning.attempt().await;
        let started = patiently(&self.shutdown, None, progress, attempt).await?;
        if started.is_none() {
            making.abandon(&self.settings.postgres).await;
        }
        Ok(started)
    }

    /// One connection's life. Definite errors are returned.
    async fn connection(
        &mut self,
        session: Option<Session>,
        plan: &Plan,
        mut state: State,
        until: Option<Lsn>,
        progress: &mut Progress,
    ) -> Result<Life, Error> {
        letters::know_tables(self.writer.letters(), plan);
        let mut watch = Watch::start(&self.settings.postgres, plan);
        let mut stop = self.shutdown.clone();
        let opened = tokio::select! {
            // A load ends by itself, in its own way.
            biased;
            opened = self.open(session, plan, &mut state, &mut watch, progress) => opened,
            () = stop.requested() => return Ok(Life::Over),
        };
        match opened.map_err(|error| self.told(error)) {
            Ok(Opening::Whole(opened)) => {
                Box::pin(self.stream(*opened, watch, (plan, state), until, progress)).await
            }
            Ok(Opening::Stopped) => Ok(Life::Over),
            Ok(Opening::Outplanned(table)) => Ok(Life::Outplanned(table, None)),
            Err(error) if error.class() == Class::Transient => {
                Ok(Life::Broken(Box::new(state), error))
            }
            Err(error) if rebuild::is_wanted(self.settings, &error) => {
                Ok(Life::Outplanned(error.to_string(), Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    fn told(&self, error: Error) -> Error {
        continuity::told(error, &self.settings.postgres.slot)
    }

    /// From the beginning of the stream to its end.
    async fn stream(
        &mut self,
        opened: Opened,
        mut watch: Watch,
        (plan, state): (&Plan, State),
        until: Option<Lsn>,
        progress: &mut Progress,
    ) -> Result<Life, Error> {
        let Opened { session, rows_session, stream, live_from } = opened;
        self.streams_since = Some(tokio::time::Instant::now());
        self.walsender = Some(stream.process_id());
        progress.streams(live_from);
        let mut pipeline = self.pipeline(plan, &state)?;
        let search = Some((self.client.clone(), self.writer.clone()));
        let tables = plan.tables.iter().map(|table| table.published.clone()).collect();
        let mut working = Working::new(session, Arc::new(rows_session), tables, search);
        let letters = self.writer.letters().cloned();
        let mut recorder = Recorder::new(self.client.clone(), self.store.clone(), state, letters);
        // What was loaded again is only of use once its readers have it.
        let until = until.map(|until| until.max(recorder.last_handover().unwrap_or(until)));
        let streaming = Streaming {
            stream,
            pipeline: &mut pipeline,
            lanes: &mut self.lanes,
            recorder: &mut recorder,
            working: &mut working,
            watch: &mut watch,
            shutdown: &mut self.shutdown,
            progress,
            clock: self.clock,
            until,
            grace: self.settings.shutdown_grace,
            postgres: &self.settings.postgres,
            outplanned: None,
        };
        let mut lost = None;
        let ended = match Box::pin(streaming.run()).await.map_err(|error| self.told(error)) {
            Err(error) if rebuild::is_wanted(self.settings, &error) => {
                Ended::Outplanned(lost.insert(error).to_string())
            }
            ended => ended?,
        };
        progress.pipeline_ends(&pipeline);
        self.written = self.written.max(pipeline.written());
        match ended {
            Ended::Reached | Ended::Stopped => {
                let is_stop = matches!(ended, Ended::Stopped);
                let how = if is_stop { "stopped" } else { "reached the position asked for" };
                info!(confirmed = %recorder.recorded().lsn(), "{how}");
                self.end_in_good_order(&pipeline, recorder).await;
                Ok(Life::Over)
            }
            Ended::Outplanned(table) => {
                let mut stop = self.shutdown.clone();
                let (lanes, working) = (&mut self.lanes, Some(&mut working));
                settle(lanes, working, &mut pipeline, progress, stop.clone()).await?;
                tokio::select! {
                    () = stop.requested() => Ok(Life::Over),
                    kept = recorder.into_state() => {
                        self.leave_written(kept?).await;
                        Ok(Life::Outplanned(table, lost))
                    }
                }
            }
            Ended::Disconnected(error) => {
                let parts = (&mut pipeline, recorder, &mut working, &mut watch);
                self.disconnected(error, parts, progress).await
            }
        }
    }

    /// Lets the next plan know what was written, if every request was answered. A state that does not say so costs
    /// a resync only if a failover comes before the next stream.
    async fn leave_written(&self, mut state: State) {
        if !self.writer.is_quiet() {
            return;
        }
        self.note_written(&mut state);
        in_time(self.store.write(&state)).await;
    }

    /// Waits for what is in flight, and takes the state along.
    async fn disconnected(
        &mut self,
        error: Error,
        parts: (&mut Pipeline, Recorder, &mut Working, &mut Watch),
        progress: &mut Progress,
    ) -> Result<Life, Error> {
        let (pipeline, recorder, working, watch) = parts;
        progress.reconnects();
        warn!(%error, remedy = error.remedy(), "the stream of changes broke off");
        let mut stop = self.shutdown.clone();
        // While the cluster is away, too, a lost slot is told as soon as it is seen. One that is to be made anew
        // is found so by the next connection.
        let stops = self.settings.on_slot_lost == OnSlotLost::Stop;
        let (lanes, working) = (&mut self.lanes, Some(working));
        tokio::select! {
            settled = settle(lanes, working, pipeline, progress, stop.clone()) => settled?,
            definite = watch.definite(), if stops => return Err(definite),
        }
        tokio::select! {
            () = stop.requested() => Ok(Life::Over),
            definite = watch.definite(), if stops => Err(definite),
            kept = recorder.into_state() => {
                let mut state = kept?;
                state.written_lsn = Some(self.written);
                Ok(Life::Broken(Box::new(state), error))
            }
        }
    }

    /// Writes down that nothing beyond `written` is in the indices, if every request was answered: one that was
    /// given up, too, may still be carried out, and the next run must know of it. A state that does not say so
    /// costs a resync only if a failover comes before the next start.
    async fn end_in_good_order(&self, pipeline: &Pipeline, recorder: Recorder) {
        if pipeline.requests_in_flight() > 0 || !self.writer.is_quiet() {
            return;
        }
        let written = async {
            let mut state = recorder.into_state().await?;
            self.note_written(&mut state);
            self.store.release(&state).await
        };
        in_time(written).await;
    }

    fn note_written(&self, state: &mut State) {
        state.written_lsn = Some(self.written.max(state.durable_lsn));
    }
}

/// Waits for a last write of the state, and not for long: without it the next run only knows less.
async fn in_time(written: impl Future<Output = Result<(), StateError>>) {
    match tokio::time::timeout(LAST_WRITE_TIMEOUT, written).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the state does not say what was written last"),
        Err(_) => debug!("the state does not say in time what was written last"),
    }
}

/// How one connection's life ended.
enum Life {
    /// The run is over: the position was reached, or a stop was asked for.
    Over,
    /// To be followed by another.
    Broken(Box<State>, Error),
    /// To be followed by another with a new plan, because of this table, or with a new slot, because of the error.
    Outplanned(String, Option<Error>),
}
