//! Writes the state document beside the stream, and gives a reloaded table to its readers.
//!
//! A position is recorded here before it is confirmed to Postgres ([`RecordedLsn`] comes from nowhere
//! else), at most once a second. An outage of the cluster is waited out; the stream's own loop never waits
//! for any of it. What readers see is changed only while the lease outlives the change.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::elasticsearch::client::Client;
use crate::elasticsearch::dead_letter::DeadLetters;
use crate::elasticsearch::index::{self, IndexError, ReaderName};
use crate::elasticsearch::lease::Right;
use crate::elasticsearch::retry::Backoff;
use crate::elasticsearch::state::{RecordedLsn, State, StateError};
use crate::elasticsearch::store::StateStore;
use crate::lsn::Lsn;
use crate::pipeline::DurableLsn;

/// Between two writes of the state document.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same, when only keepalives moved the position: an idle source should not cause writes.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

struct Owned {
    client: Client,
    store: StateStore,
    state: State,
    letters: Option<DeadLetters>,
}

type Written = (Box<Owned>, Result<RecordedLsn, StateError>);

/// Holds the state while the stream runs.
pub(crate) struct Recorder {
    /// Not there while it is being written.
    owned: Option<Box<Owned>>,
    writing: Option<JoinHandle<Written>>,
    recorded: RecordedLsn,
    recorded_commit_time_micros: Option<i64>,
    written_at: Option<Instant>,
    /// Lowest `load_end_lsn` of a table whose readers still wait for it.
    handover_at: Option<Lsn>,
}

impl Recorder {
    pub(crate) fn new(
        client: Client,
        store: StateStore,
        state: State,
        letters: Option<DeadLetters>,
    ) -> Self {
        let handover_at = handovers(&state).min();
        let owned = Some(Box::new(Owned { client, store, state, letters }));
        let recorded = RecordedLsn::default();
        Self {
            owned,
            writing: None,
            recorded,
            recorded_commit_time_micros: None,
            written_at: None,
            handover_at,
        }
    }

    /// The position that may be confirmed to Postgres.
    pub(crate) fn recorded(&self) -> RecordedLsn {
        self.recorded
    }

    /// The position at which every reloaded table is given to its readers; none if all have theirs.
    pub(crate) fn last_handover(&self) -> Option<Lsn> {
        let owned = self.owned.as_ref()?;
        handovers(&owned.state).max()
    }

    /// Whether readers still wait for a table that is complete.
    pub(crate) fn owes_handover(&self) -> bool {
        self.handover_at.is_some_and(|at| at <= self.recorded.lsn())
    }

    /// Starts to record `durable` if that is due (`at_once`: if it is news at all).
    pub(crate) fn offer(&mut self, durable: DurableLsn, at_once: bool) {
        let news = durable.lsn() > self.recorded.lsn();
        let handover = self.handover_at.is_some_and(|at| durable.lsn() >= at);
        let moved_by_commit = durable.commit_time_micros() != self.recorded_commit_time_micros;
        let interval = if moved_by_commit { INTERVAL } else { IDLE_INTERVAL };
        let due = at_once || self.written_at.is_none_or(|at| at.elapsed() >= interval);
        if !due || !(news || handover) {
            return;
        }
        if let Some(owned) = self.owned.take() {
            self.recorded_commit_time_micros = durable.commit_time_micros();
            self.written_at = Some(Instant::now());
            self.writing = Some(tokio::spawn(record(owned, durable)));
        }
    }

    /// Whether a write is under way.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Waits for the write under way; for ever if there is none. Cancel-safe.
    pub(crate) async fn written(&mut self) -> Result<(), StateError> {
        let Some(writing) = &mut self.writing else { return pending().await };
        let joined = writing.await;
        self.writing = None;
        match joined {
            Ok((owned, result)) => {
                self.handover_at = handovers(&owned.state).min();
                self.owned = Some(owned);
                self.recorded = self.recorded.max(result?);
                Ok(())
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// The state, once no write is under way.
    pub(crate) async fn into_state(mut self) -> Result<State, StateError> {
        if self.is_writing() {
            self.written().await?;
        }
        match self.owned.take() {
            Some(owned) => Ok(owned.state),
            None => pending().await,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(writing) = &self.writing {
            writing.abort();
        }
    }
}

/// Where the tables that were loaded again are complete.
fn handovers(state: &State) -> impl Iterator<Item = Lsn> {
    let waiting = state.tables.values().filter(|table| table.loaded && !table.readable);
    waiting.filter_map(|table| table.load_end_lsn)
}

async fn record(mut owned: Box<Owned>, durable: DurableLsn) -> Written {
    let mut backoff = Backoff::default();
    loop {
        let attempt = record_once(&mut owned, durable).await;
        match attempt {
            Err(error) if error.is_transient() => {
                let pause = backoff.next(None);
                if backoff.attempts() > 2 {
                    warn!(%error, attempts = backoff.attempts(), "cannot record the position, trying on");
                }
                tokio::time::sleep(pause).await;
            }
            Ok(_) | Err(_) => return (owned, attempt),
        }
    }
}

async fn record_once(owned: &mut Owned, durable: DurableLsn) -> Result<RecordedLsn, StateError> {
    let Owned { client, store, state, letters } = owned;
    let mut next = state.clone();
    for (name, table) in &mut next.tables {
        let complete = table.load_end_lsn.is_some_and(|end| durable.lsn() >= end);
        if table.readable || !complete {
            continue;
        }
        store.held().await?;
        let (generation, previous) = (table.generation, table.previous_generation);
        let handed = hand_over(client, &table.index, generation, previous);
        match timeout(client.request_timeout(), handed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%error, table = name, "cannot give the new generation to its readers yet");
                continue;
            }
            Err(_) => {
                warn!(table = name, "cannot give the new generation to its readers in time");
                continue;
            }
        }
        table.readable = true;
        info!(
            table = name,
            index = table.index,
            generation = table.generation,
            "readers see the new generation"
        );
    }
    let recorded = store.record(&mut next, durable).await?;
    *state = next;
    remove_previous(client, store.right(), state, letters.as_ref()).await;
    Ok(recorded)
}

/// Gives the readers' alias to this generation, whichever of ours has it.
async fn hand_over(
    client: &Client,
    index: &str,
    generation: u32,
    previous: Option<u32>,
) -> Result<(), IndexError> {
    let mut others = match index::reader_name(client, index).await? {
        ReaderName::Generations(seen) => seen,
        ReaderName::Free | ReaderName::Foreign { .. } => Vec::new(),
    };
    others.retain(|&other| other != generation);
    if let Some(previous) = previous.filter(|previous| !others.contains(previous)) {
        others.push(previous);
    }
    index::give_to_readers(client, index, generation, &others).await
}

/// Superseded generations go once the state says that readers have the new one.
async fn remove_previous(
    client: &Client,
    right: &Right,
    state: &mut State,
    letters: Option<&DeadLetters>,
) {
    for (name, table) in &mut state.tables {
        let Some(previous) = table.previous_generation.filter(|_| table.readable) else { continue };
        if !right.holds() {
            return;
        }
        match index::delete(client, &table.index, previous).await {
            Ok(()) => table.previous_generation = None,
            Err(error) => {
                warn!(%error, table = name, "cannot delete the superseded generation yet");
                continue;
            }
        }
        let physical = index::generation_index(&table.index, previous);
        if let Some(letters) = letters {
            letters.discard_where(|letter| letter.index == physical).await;
        }
    }
}
