//! Preflight and state, up to the first load; again and again while only passing errors stand in the way, the slot
//! is in use, or another has its lease.
//!
//! Whoever finds another in possession waits as a hot standby. It has passed the preflight before, so that what
//! is wrong with it is told at once and not when it is needed; it holds no connection to Postgres meanwhile, and
//! looks at the state document from time to time. The lease is taken by a conditional write ([`start`]), so of
//! several that wait one gets it.

use std::time::Duration;

use tracing::{info, warn};

use super::newcomers::{self, Newcomers};
use super::progress::Progress;
use super::rebuild;
use super::shutdown::Shutdown;
use super::slot_creation::Making;
use super::start::{self, Target};
use super::tables::{self, Plan};
use super::{Options, fitness};
use crate::cli::{Reload, Until};
use crate::elasticsearch::client::Client;
use crate::elasticsearch::lease::Vigil;
use crate::elasticsearch::retry::Backoff;
use crate::elasticsearch::state::{State, StateError};
use crate::elasticsearch::store::{Found, StateStore};
use crate::error::{Class, Discontinuity, Error};
use crate::findings::{Cure, Findings, Note, Problem};
use crate::lsn::Lsn;
use crate::postgres::session::{Purpose, Session};
use crate::postgres::{catalog, preflight};
use crate::settings::Settings;

/// Between two looks at the lease of another.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two attempts to get a slot that is in use, at most: it may be free at any moment.
const SLOT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Everything a run goes on from.
pub(super) struct Started {
    pub(super) session: Session,
    pub(super) plan: Plan,
    pub(super) state: State,
    pub(super) until: Option<Lsn>,
    /// What works and should be known.
    pub(super) notes: Vec<Note>,
}

/// Attempts at a start, and what they work with.
pub(super) struct Beginning<'a> {
    settings: &'a Settings,
    client: &'a Client,
    store: &'a StateStore,
    options: &'a Options,
    making: &'a Making,
    /// Of a lease in the way.
    vigil: Vigil,
    /// Whether only the lease stood in the way last.
    waits_for_lease: bool,
    /// That the slot is lost, if the stream has said so: the server shows it as sound where only its WAL is gone.
    lost: Option<Error>,
    /// Whether a stream came before: its server was a primary, and whatever is there now may become one.
    is_again: bool,
}

impl<'a> Beginning<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        client: &'a Client,
        store: &'a StateStore,
        options: &'a Options,
        making: &'a Making,
    ) -> Self {
        let vigil = Vigil::default();
        Self {
            settings,
            client,
            store,
            options,
            making,
            vigil,
            waits_for_lease: false,
            lost: None,
            is_again: false,
        }
    }

    /// The same after a stream that ended so.
    pub(super) fn after(self, ended: Option<Error>) -> Self {
        let is_lost =
            |error: &Error| matches!(error, Error::NeedsResync(Discontinuity::SlotLost { .. }));
        Self { lost: ended.filter(is_lost), is_again: true, ..self }
    }

    /// One attempt. A slot that is lost is made anew, and everything with it, if that is wanted.
    pub(super) async fn attempt(&mut self) -> Result<Started, Error> {
        self.store.rest();
        if self.waits_for_lease {
            let found = self.store.find().await?;
            self.refuse_held(found.as_ref())?;
            self.waits_for_lease = false;
        }
        let error = match Box::pin(self.start(&self.options.reload)).await {
            Err(error) if rebuild::is_wanted(self.settings, &error) => error,
            Ok(started) => match self.lost.take() {
                Some(lost) => lost,
                None => return Ok(started),
            },
            failed => return failed,
        };
        let known = self.store.read().await?;
        if let Err(why) = rebuild::may_begin(known.as_ref(), super::postgres_now_micros()) {
            warn!(why, "not building everything anew by itself");
            return Err(error);
        }
        warn!(reason = %error, "the slot is lost: building every index anew, as on_slot_lost says");
        let mut started = Box::pin(self.start(&Reload::All)).await?;
        started.state.rebuilt_at_micros = Some(super::postgres_now_micros());
        self.store.write(&started.state).await?;
        Ok(started)
    }

    async fn start(&mut self, reload: &Reload) -> Result<Started, Error> {
        let Self { settings, client, store, making, .. } = *self;
        let session = Session::connect(&settings.postgres, Purpose::Control).await?;
        if self.is_again {
            session.refuse_standby()?;
        }
        let mut found = preflight::check(&session, &settings.postgres, &settings.tables).await?;
        let mut newcomers = self.newcomers(&mut found, reload).await?;
        let Passed { busy, mut notes } = refuse(found, reload)?;
        let mut plan = tables::plan(&session, settings, &newcomers).await?;
        let found = store.find().await?;
        if let Err(held) = self.refuse_held(found.as_ref()) {
            // Another source's lease would be waited for in vain.
            refuse_other_system(settings, &session, found.as_ref()).await?;
            self.waits_for_lease = true;
            return Err(held);
        }
        if let Some(busy) = busy {
            return Err(busy);
        }
        newcomers::leave_out_foreign(client, &mut plan, &newcomers).await?;
        let known = found.as_ref().map(|found| &found.state);
        let mut found_unfit = fitness::look(client, &plan, known, reload).await?;
        newcomers.take_from(&mut found_unfit.problems);
        newcomers::leave_out_unfit(&mut plan, &newcomers);
        newcomers::say(&plan.left_out);
        notes.extend(refuse(found_unfit, reload)?.notes);
        store.resume();
        let target = Target { settings, session: &session, client, store, making };
        let state = target.establish(&plan, reload, found).await?;
        let until = match self.options.until {
            None => None,
            Some(Until::Current) => Some(catalog::flush_lsn(&session).await?),
            Some(Until::Lsn(lsn)) => Some(lsn),
        };
        Ok(Started { session, plan, state, until, notes })
    }

    /// What may be left out; what is in the way of that alone is taken from `found`.
    async fn newcomers(&self, found: &mut Findings, reload: &Reload) -> Result<Newcomers, Error> {
        let is_general = |problem: &&Problem| problem.table.is_none();
        if !self.settings.tables.is_empty() {
            return Ok(Newcomers::default());
        }
        let state = match self.store.find().await {
            Ok(state) => state,
            Err(error) => {
                // What is in the way for certain need not wait for the cluster.
                let problems = found.problems.iter().filter(is_general).cloned().collect();
                refuse(Findings { problems, notes: Vec::new() }, reload)?;
                return Err(error.into());
            }
        };
        let mut newcomers = Newcomers::of(self.settings, state.as_ref().map(|found| &found.state));
        newcomers.take_from(&mut found.problems);
        Ok(newcomers)
    }

    /// The lease of another, unless that is gone or has let it run out before our eyes.
    fn refuse_held(&mut self, found: Option<&Found>) -> Result<(), Error> {
        let Some(Found { state, version, at }) =
            found.filter(|found| found.state.instance != self.store.instance())
        else {
            return Ok(());
        };
        // Had it been ours, what is known from then is not so any more.
        self.store.refuse_lost(state)?;
        let Some(lease) = &state.lease else { return Ok(()) };
        let duration = Duration::from_millis(lease.duration_ms);
        let (holder, remaining) = (state.holder(), self.vigil.remaining(*version, duration, *at));
        if lease.is_orphaned() {
            info!(holder, "the process that held the lease on the slot is gone");
            return Ok(());
        }
        let Some(at_most) = remaining else {
            warn!(holder, "the lease on the slot has run out: taking over");
            return Ok(());
        };
        let slot = self.settings.postgres.slot.clone();
        Err(Error::Held { slot, holder, duration, at_most })
    }
}

/// Two sources with one slot name share one state document.
async fn refuse_other_system(
    settings: &Settings,
    session: &Session,
    found: Option<&Found>,
) -> Result<(), Error> {
    let Some(Found { state, .. }) = found else { return Ok(()) };
    let source = start::look_at_source(session, &settings.postgres).await?;
    if state.system_id == source.system.system_id {
        return Ok(());
    }
    let slot = &settings.postgres.slot;
    Err(Error::Configuration {
        what: format!(
            "slot \"{slot}\" of another database system ({}; this is {}) has its state in this cluster: {}",
            state.system_id,
            source.system.system_id,
            state.holder()
        ),
        fix: "sources that share a cluster need slots of different names: set postgres.slot"
            .to_owned(),
    })
}

/// What preflight lets pass.
struct Passed {
    /// The slot is read by another process: a waldex that was killed a moment ago, or one that lives, whose
    /// state must not be touched.
    busy: Option<Error>,
    notes: Vec<Note>,
}

/// Refuses what is in the way of a run that loads what `reload` says.
fn refuse(found: Findings, reload: &Reload) -> Result<Passed, Error> {
    let Findings { mut problems, notes } = found;
    let is_dealt_with = |cure| match cure {
        Cure::ByReload => *reload == Reload::All,
        // The lanes wait for it, and say so.
        Cure::WhileRunning => true,
        Cure::ByHand | Cure::ByWaiting { .. } => false,
    };
    problems.retain(|problem| !is_dealt_with(problem.cure));
    let passes = |cure| matches!(cure, Cure::ByWaiting { .. });
    let passing = problems.extract_if(.., |problem| passes(problem.cure)).next();
    if !problems.is_empty() {
        return Err(Error::Preflight(problems));
    }
    Ok(Passed { busy: passing.map(|problem| Error::Busy(problem.what)), notes })
}

/// Whether another is in possession.
fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Busy(_) | Error::Held { .. } | Error::State(StateError::Taken { .. }))
}

fn pause_after(error: &Error, backoff: &mut Backoff) -> Duration {
    if let Error::Held { at_most, .. } = error {
        // Once it is free, the slot may not be at the first moment.
        *backoff = Backoff::default();
        return LOOK_INTERVAL.min(*at_most);
    }
    let pause = backoff.next(None);
    if is_taken(error) { pause.min(SLOT_PAUSE_MAX) } else { pause }
}

/// Tries again while only passing errors stand in the way and `patience` lasts (none: for ever); `None` if a
/// stop was asked for meanwhile. Whoever had to wait for another in possession waits for everything else, too.
pub(super) async fn patiently<T>(
    shutdown: &Shutdown,
    mut patience: Option<Duration>,
    progress: &mut Progress,
    mut attempt: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let began = tokio::time::Instant::now();
    let mut backoff = if patience.is_some() { Backoff::default() } else { Backoff::of_source() };
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
        if is_taken(&error) {
            patience = None;
            progress.waits_for_slot(&error);
        } else if error.class() == Class::Definite
            || patience.is_some_and(|patience| began.elapsed() > patience)
        {
            return Err(error);
        } else {
            warn!(%error, remedy = error.remedy(), "not ready yet, trying on");
        }
        tokio::select! {
            () = stop.requested() => return Ok(None),
            () = tokio::time::sleep(pause_after(&error, &mut backoff)) => {}
        }
    }
}

/// Says what should be known, once a run.
pub(super) fn say(notes: &[Note]) {
    for note in notes {
        info!(advice = note.advice, "note: {}", note.what);
    }
}
