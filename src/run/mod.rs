//! `waldex run`: preflight, load what is missing, stream for ever.
//!
//! I/O shell: connects the core to Postgres and the search cluster, and decides what a failure means: a
//! passing one is waited out with back-off, anything else ends the run with its reason.

pub(crate) mod continuity;
pub mod dry_run;
mod lanes;
mod letters;
mod load;
mod pace;
mod progress;
mod recorder;
pub mod schema;
pub mod shutdown;
mod source_watch;
pub mod start;
mod stream;
mod summary;
pub mod tables;
pub mod vitals;
mod work;
pub(crate) mod writers;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::admin::{self, AdminSettings};
use crate::cli::{Reload, Until};
use crate::elasticsearch::client::Client;
use crate::elasticsearch::gate::Gate;
use crate::elasticsearch::retry::Backoff;
use crate::elasticsearch::sender::Sender;
use crate::elasticsearch::state::{State, StateStore};
use crate::elasticsearch::writer::Writer;
use crate::error::{Class, Error};
use crate::lsn::Lsn;
use crate::pipeline::{self, BatchLimits, Epoch, Limits, Pipeline};
use crate::postgres::replication::{Replication, ReplicationStream};
use crate::postgres::session::{Purpose, Session};
use crate::postgres::{catalog, preflight};
use crate::settings::Settings;
use crate::visibility::Snapshot;
use lanes::Lanes;
use load::{Loaded, Loading};
use progress::Progress;
use recorder::Recorder;
use shutdown::Shutdown;
use source_watch::Watch;
use stream::{Clock, Ended, Streaming};
use tables::Plan;
use vitals::{State as RunState, Vitals};
use work::Working;

/// How long the servers may take to be there at the start: they may be starting, too. Later outages
/// are waited out however long they last.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Requests of a lane that is not full are at least this far apart, so that single-row commits share one.
const PACE: Duration = Duration::from_millis(20);
/// For the last write of the state, when all that matters is confirmed.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait between two attempts to reach Postgres.
const RECONNECT_MAX: Duration = Duration::from_secs(10);

/// What `run` was asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to end, if at all.
    pub until: Option<Until>,
    /// What to load again.
    pub reload: Reload,
}

/// The limits that the settings mean.
pub(crate) fn limits(settings: &Settings) -> Limits {
    let search = &settings.elasticsearch;
    let pace = PACE.min(search.flush_interval);
    Limits {
        lanes: search.concurrency,
        batch: BatchLimits {
            documents_max: search.bulk_size,
            bytes_max: search.bulk_bytes,
            pace_ms: u64::try_from(pace.as_millis()).unwrap_or(u64::MAX),
        },
        memory_budget_bytes: settings.memory_budget_bytes,
    }
}

/// Runs until `--until` is reached or a stop is asked for.
///
/// # Errors
/// What ends the run for good, with its remedy.
pub async fn run(settings: &Settings, options: Options, shutdown: Shutdown) -> Result<(), Error> {
    let (mut progress, vitals) = Progress::new();
    serve_admin(settings, vitals).await?;
    let client = Client::new(&settings.elasticsearch)?;
    let instance = format!("{:016x}", rand::random::<u64>());
    let store = StateStore::new(client.clone(), &settings.postgres.slot, instance);
    let attempt = || begin(settings, &client, &store, &options);
    let Some(started) = patiently(&shutdown, Some(START_PATIENCE), attempt).await? else {
        return Ok(());
    };
    summary::say(settings, &started.plan);
    let (sender, gate) = (Sender::new(client.clone()), Gate::new(&settings.elasticsearch));
    let attempt = || letters::open(settings, &client, &sender, &gate);
    let Some(letters) = patiently(&shutdown, Some(START_PATIENCE), attempt).await? else {
        return Ok(());
    };
    let writer = Writer::new(sender, gate, settings.elasticsearch.max_retries);
    let writer = writer.with_letters(letters);
    progress.watch(&writer);
    let lanes = Lanes::start(&writer, settings.elasticsearch.concurrency);
    let (clock, written) = (Clock::start(), Lsn::ZERO);
    let mut run = Run { settings, client, store, writer, lanes, clock, shutdown, written };
    run.live(started, &mut progress).await
}

/// An address nobody asked for may be taken, as by another waldex on this machine.
async fn serve_admin(settings: &Settings, vitals: watch::Receiver<Vitals>) -> Result<(), Error> {
    let AdminSettings { listen, is_given } = settings.admin;
    match admin::start(listen, vitals).await {
        Ok(_) => Ok(()),
        Err(error) if is_given => Err(Error::Configuration {
            what: format!("the admin server cannot listen on {listen}: {error}"),
            fix: "set admin.listen to an address of this machine that is free".to_owned(),
        }),
        Err(error) => {
            info!(%listen, %error, "no admin server: set admin.listen to have one");
            Ok(())
        }
    }
}

struct Started {
    session: Session,
    plan: Plan,
    state: State,
    store: StateStore,
    until: Option<Lsn>,
}

/// Preflight and state, up to the first load.
async fn begin(
    settings: &Settings,
    client: &Client,
    store: &StateStore,
    options: &Options,
) -> Result<Started, Error> {
    let session = Session::connect(&settings.postgres, Purpose::Control).await?;
    let mut problems = preflight::check(&session, &settings.postgres, &settings.tables).await?;
    if options.reload == Reload::All {
        problems.retain(|problem| !problem.is_reloaded);
    }
    let passing = problems.extract_if(.., |problem| problem.may_pass).next();
    if !problems.is_empty() {
        return Err(Error::Preflight(problems));
    }
    // The slot is read by another process: a waldex that was killed a moment ago, or one that lives, whose
    // state must not be touched.
    if let Some(problem) = passing {
        return Err(Error::Busy(problem.what));
    }
    let plan = tables::plan(&session, settings).await?;
    let mut store = store.clone();
    let state =
        start::establish(settings, &session, client, &mut store, &plan, &options.reload).await?;
    let until = match options.until {
        None => None,
        Some(Until::Current) => Some(catalog::flush_lsn(&session).await?),
        Some(Until::Lsn(lsn)) => Some(lsn),
    };
    Ok(Started { session, plan, state, store, until })
}

/// Tries the start again while only passing errors stand in its way and `patience` lasts (none: for ever);
/// `None` if a stop was asked for meanwhile.
async fn patiently<T, F: Future<Output = Result<T, Error>>>(
    shutdown: &Shutdown,
    patience: Option<Duration>,
    mut attempt: impl FnMut() -> F,
) -> Result<Option<T>, Error> {
    let began = tokio::time::Instant::now();
    let mut backoff = Backoff::default();
    let mut stop = shutdown.clone();
    loop {
        let error = tokio::select! {
            biased;
            () = stop.requested() => return Ok(None),
            attempted = Box::pin(attempt()) => match attempted {
                Ok(done) => return Ok(Some(done)),
                Err(error) => error,
            },
        };
        let is_patient = patience.is_none_or(|patience| began.elapsed() <= patience)
            || matches!(error, Error::Busy(_));
        if error.class() == Class::Definite || !is_patient {
            return Err(error);
        }
        warn!(%error, remedy = error.remedy(), "not ready yet, trying on");
        tokio::select! {
            () = stop.requested() => return Ok(None),
            () = tokio::time::sleep(backoff.next(None)) => {}
        }
    }
}

struct Run<'a> {
    settings: &'a Settings,
    client: Client,
    /// Of our slot, with nothing read yet.
    store: StateStore,
    writer: Writer,
    lanes: Lanes,
    clock: Clock,
    shutdown: Shutdown,
    /// Up to where anything may have been written, by this run or, if that crashed, by the one before.
    written: Lsn,
}

impl Run<'_> {
    /// Loads and streams over as many connections as it takes.
    async fn live(&mut self, started: Started, progress: &mut Progress) -> Result<(), Error> {
        let Started { session, mut plan, mut state, mut store, until } = started;
        let mut session = Some(session);
        let mut backoff = Backoff::default();
        loop {
            let began = tokio::time::Instant::now();
            let life =
                self.connection(session.take(), &plan, store, state, until, progress).await?;
            let error = match life {
                Life::Over => return Ok(()),
                Life::Broken(kept, error) => {
                    (store, state) = *kept;
                    error
                }
                Life::Outplanned(what) => {
                    progress.state(RunState::Planning);
                    info!(what, "the source is not as it was planned: planning again");
                    let Some(started) = self.plan_again().await? else { return Ok(()) };
                    (plan, state, store) = (started.plan, started.state, started.store);
                    session = Some(started.session);
                    continue;
                }
            };
            if began.elapsed() > RECONNECT_MAX {
                backoff = Backoff::default();
            }
            let pause = backoff.next(None).min(RECONNECT_MAX);
            progress.state(RunState::Reconnecting);
            warn!(%error, remedy = error.remedy(), ?pause, "Postgres is out of reach, trying on");
            tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// What a start does, however long the servers are away.
    async fn plan_again(&self) -> Result<Option<Started>, Error> {
        let options = Options { until: None, reload: Reload::Nothing };
        let attempt = || begin(self.settings, &self.client, &self.store, &options);
        patiently(&self.shutdown, None, attempt).await
    }

    /// One connection's life. Definite errors are returned.
    async fn connection(
        &mut self,
        session: Option<Session>,
        plan: &Plan,
        mut store: StateStore,
        mut state: State,
        until: Option<Lsn>,
        progress: &mut Progress,
    ) -> Result<Life, Error> {
        if let Some(letters) = self.writer.letters() {
            letters::know(letters, plan, &state).await;
        }
        let opened = self.open(session, plan, &mut store, &mut state, progress).await;
        let Opened { session, stream, live_from } = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(Life::Over),
            Err(error) if error.class() == Class::Transient => {
                return Ok(Life::Broken(Box::new((store, state)), error));
            }
            Err(error) => return Err(error),
        };
        progress.streams(live_from);
        let mut pipeline = self.pipeline(plan, &state)?;
        let search = Some((self.client.clone(), self.writer.clone()));
        let rows_session = Session::connect(&self.settings.postgres, Purpose::Snapshot).await;
        let rows_session = match rows_session {
            Ok(rows_session) => rows_session,
            Err(error) if error.class() == Class::Transient => {
                return Ok(Life::Broken(Box::new((store, state)), error.into()));
            }
            Err(error) => return Err(error.into()),
        };
        let tables = plan.tables.iter().map(|table| table.published.clone()).collect();
        let mut working = Working::new(session, Arc::new(rows_session), tables, search);
        let letters = self.writer.letters().cloned();
        let mut watch = Watch::start(&self.settings.postgres, plan);
        let mut recorder = Recorder::new(self.client.clone(), store, state, letters);
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
        };
        let ended = Box::pin(streaming.run()).await?;
        progress.pipeline_ends(&pipeline);
        self.written = self.written.max(pipeline.written());
        match ended {
            Ended::Reached => {
                info!(confirmed = %recorder.recorded().lsn(), "reached the position asked for");
                self.end_in_good_order(&pipeline, recorder).await;
                Ok(Life::Over)
            }
            Ended::Stopped => {
                info!(confirmed = %recorder.recorded().lsn(), "stopped");
                self.end_in_good_order(&pipeline, recorder).await;
                Ok(Life::Over)
            }
            Ended::Outplanned(table) => {
                self.settle(&mut pipeline, progress).await?;
                let mut stop = self.shutdown.clone();
                tokio::select! {
                    () = stop.requested() => Ok(Life::Over),
                    kept = recorder.into_state() => kept.map(|_| Life::Outplanned(table)).map_err(Error::from),
                }
            }
            Ended::Disconnected(error) => {
                progress.reconnects();
                warn!(%error, remedy = error.remedy(), "the stream of changes broke off");
                let mut stop = self.shutdown.clone();
                // While the cluster is away, too, a lost slot is told as soon as it is seen.
                tokio::select! {
                    settled = self.settle(&mut pipeline, progress) => settled?,
                    definite = watch.definite() => return Err(definite),
                }
                tokio::select! {
                    () = stop.requested() => Ok(Life::Over),
                    definite = watch.definite() => Err(definite),
                    kept = recorder.into_state() => {
                        let (store, mut state) = kept?;
                        state.written_lsn = Some(self.written);
                        Ok(Life::Broken(Box::new((store, state)), error))
                    }
                }
            }
        }
    }

    /// Writes down that nothing beyond `written` is in the indices, if every request was answered. A state
    /// that does not say so costs a resync only if a failover comes before the next start.
    async fn end_in_good_order(&self, pipeline: &Pipeline, recorder: Recorder) {
        if pipeline.requests_in_flight() > 0 {
            return;
        }
        let written = async {
            let (mut store, mut state) = recorder.into_state().await?;
            state.written_lsn = Some(self.written.max(state.durable_lsn));
            store.write(&state).await
        };
        match tokio::time::timeout(LAST_WRITE_TIMEOUT, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                debug!(%error, "the state does not say that the run ended in good order")
            }
            Err(_) => debug!("the state does not say in time that the run ended in good order"),
        }
    }

    /// Connects, proves continuity, loads what is missing, starts the stream.
    async fn open(
        &mut self,
        session: Option<Session>,
        plan: &Plan,
        store: &mut StateStore,
        state: &mut State,
        progress: &mut Progress,
    ) -> Result<Option<Opened>, Error> {
        let postgres = &self.settings.postgres;
        let session = match session {
            Some(session) => session,
            None => Session::connect(postgres, Purpose::Control).await?,
        };
        let mut replication = Replication::connect(postgres, session.encoding()).await?;
        let source = start::ask(&mut replication, &session, &postgres.slot).await?;
        start::go_on(state, &source, &postgres.slot)?;
        if self.load_missing(&session, plan, store, state, progress).await? == Loads::Stopped {
            return Ok(None);
        }
        // A run that crashed may have written anything that the server has by now.
        self.written = self.written.max(state.written_lsn.unwrap_or(source.system.flush_lsn));
        if state.written_lsn.is_some() {
            let mut next = state.clone();
            next.written_lsn = None;
            store.write(&next).await?;
            *state = next;
        }
        // From the slot's own position: ours could lie beyond a failed-over server's, which then skips.
        let stream = replication.start(&postgres.slot, &postgres.publication, Lsn::ZERO).await?;
        Ok(Some(Opened { session, stream, live_from: source.system.flush_lsn }))
    }

    async fn load_missing(
        &mut self,
        session: &Session,
        plan: &Plan,
        store: &mut StateStore,
        state: &mut State,
        progress: &mut Progress,
    ) -> Result<Loads, Error> {
        for table in &plan.tables {
            let name = table.name();
            if state.tables.get(&name).is_none_or(|entry| entry.loaded) {
                continue;
            }
            progress.state(RunState::Backfilling);
            start::begin_load(&self.client, table, store, state).await?;
            if let Some(entry) = state.tables.get(&name) {
                load::announce(&table.published, &entry.index, entry.generation);
            }
            let began = tokio::time::Instant::now();
            let mut pipeline = self.pipeline(plan, state)?;
            let rows_session = Session::connect(&self.settings.postgres, Purpose::Snapshot).await?;
            let loading = Loading {
                session: &rows_session,
                pipeline: &mut pipeline,
                lanes: &mut self.lanes,
                shutdown: &mut self.shutdown,
                progress,
                clock: self.clock,
            };
            let loaded = Box::pin(loading.run(&table.published)).await;
            let loaded = self.settled(loaded, &mut pipeline, progress).await;
            progress.pipeline_ends(&pipeline);
            let Loaded::Whole { rows, snapshot } = loaded? else {
                return Ok(Loads::Stopped);
            };
            let end = catalog::flush_lsn(session).await?;
            if let Some(entry) = state.tables.get_mut(&name) {
                entry.loaded = true;
                entry.load_end_lsn = Some(end);
                entry.load_snapshot = Some(snapshot.to_string());
            }
            store.write(state).await?;
            info!(table = name, rows, seconds = began.elapsed().as_secs_f64(), "loaded");
        }
        Ok(Loads::Whole)
    }

    /// A load that failed leaves requests in flight, which must not meet those of the next attempt.
    async fn settled(
        &mut self,
        loaded: Result<Loaded, Error>,
        pipeline: &mut Pipeline,
        progress: &mut Progress,
    ) -> Result<Loaded, Error> {
        if matches!(&loaded, Err(error) if error.class() == Class::Transient) {
            self.settle(pipeline, progress).await?;
        }
        loaded
    }

    /// Waits for the requests in flight: sent again by the next connection, their writes could otherwise
    /// be overtaken by later ones of the same transaction, which carry the same version.
    async fn settle(
        &mut self,
        pipeline: &mut Pipeline,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let mut stop = self.shutdown.clone();
        while pipeline.requests_in_flight() > 0 {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                report = self.lanes.report() => report.give_to(pipeline, progress)?,
            }
        }
        Ok(())
    }

    fn pipeline(&self, plan: &Plan, state: &State) -> Result<Pipeline, Error> {
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
        };
        Ok(Pipeline::new(planned, Epoch(state.epoch), limits(self.settings)))
    }
}

/// A stream that has begun.
struct Opened {
    session: Session,
    stream: ReplicationStream,
    /// Where the source was then.
    live_from: Lsn,
}

/// How one connection's life ended.
enum Life {
    /// The run is over: the position was reached, or a stop was asked for.
    Over,
    /// To be followed by another.
    Broken(Box<(StateStore, State)>, Error),
    /// To be followed by another with a new plan, because of this table.
    Outplanned(String),
}

#[derive(PartialEq, Eq)]
enum Loads {
    Whole,
    Stopped,
}

/// From 1970 to 2000, from which Postgres counts.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// Microseconds since 2000-01-01 UTC, as the protocol wants them and as commits are dated.
fn postgres_now_micros() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.saturating_sub(POSTGRES_EPOCH).as_micros()).unwrap_or(0)
}

/// Seconds since a time of Postgres, in microseconds since 2000-01-01 UTC; 0 if it is still to come.
pub(crate) fn seconds_since(micros: i64) -> u64 {
    let micros = postgres_now_micros().saturating_sub(micros);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs()
}
