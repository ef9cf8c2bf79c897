//! Reads and writes the state document of one slot, and with it keeps the lease.
//!
//! Every write is conditional on the document being as it was known, so of two that want the lease one gets it,
//! and whoever lost it learns that at the next write. One write at a time: the recorder's and those that only
//! renew the lease take turns.

mod removal;

use std::sync::Arc;
use std::time::Duration;

use elasticsearch::http::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use super::client::{Answer, CallError, Client, path_segment};
use super::holder::Lease;
use super::lease::{Lost, Moment, Right, Term, Version};
use super::state::{FORMAT, RecordedLsn, STATE_INDEX, State, StateError};
use crate::pipeline::DurableLsn;

/// A write of ours whose answer was lost is found in the way; that cannot happen often in a row.
const ATTEMPTS_MAX: u32 = 8;
/// For a moment, an index that was only just made has no shard that answers: looks, and the time between.
const YOUNG: (u32, Duration) = (10, Duration::from_millis(200));

/// The document as it was read.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it says.
    pub state: State,
    /// Which of its states that is.
    pub version: Version,
    /// When the answer was there.
    pub at: Moment,
}

/// The document as it is stored.
struct Stored {
    source: Value,
    version: Version,
    at: Moment,
}

/// What is known of the document.
#[derive(Default)]
struct Known {
    /// As it was last read or written; none if it was not there.
    version: Option<Version>,
    /// What we wrote last, and so what a renewal writes again; none before, and once the lease is released.
    written: Option<State>,
}

struct Shared {
    client: Client,
    slot: String,
    /// Tells our writes from those of another waldex.
    instance: String,
    lease: Lease,
    right: Right,
    known: Mutex<Known>,
    /// The lease is not renewed for its own sake.
    rests: watch::Sender<bool>,
}

/// The state document of one slot. Clones share what is known of it.
#[derive(Clone)]
pub struct StateStore {
    shared: Arc<Shared>,
}

impl StateStore {
    /// The store of a slot; `instance` is unlike that of any other process.
    pub fn new(client: Client, slot: &str, instance: String) -> Self {
        let term = Term::of(client.request_timeout());
        let shared = Shared {
            client,
            slot: slot.to_owned(),
            instance,
            lease: Lease::ours(term.duration()),
            right: Right::new(term),
            known: Mutex::default(),
            rests: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The right to write to the cluster that the document gives.
    pub fn right(&self) -> &Right {
        &self.shared.right
    }

    /// Waits until a request may be sent.
    ///
    /// # Errors
    /// It never may again.
    pub async fn held(&self) -> Result<(), StateError> {
        self.shared.right.held(|_| ()).await.map_err(|lost| self.error_of(lost))
    }

    /// Returns once another has the lease, or the document is gone.
    pub async fn lost(&self) -> StateError {
        self.error_of(self.shared.right.lost().await)
    }

    /// Another wrote the document, as a look at it shows.
    ///
    /// # Errors
    /// The lease was ours.
    pub fn refuse_lost(&self, found: &State) -> Result<(), StateError> {
        if !self.shared.right.is_kept() {
            return Ok(());
        }
        self.shared.right.lose(Some(found.holder()));
        let slot = self.shared.slot.clone();
        Err(StateError::Taken { slot, other: found.holder() })
    }

    fn error_of(&self, lost: Lost) -> StateError {
        let slot = self.shared.slot.clone();
        match lost.to {
            Some(other) => StateError::Taken { slot, other },
            None => StateError::Gone { slot },
        }
    }

    /// Our name.
    pub fn instance(&self) -> &str {
        &self.shared.instance
    }

    fn path(&self) -> String {
        format!("/{STATE_INDEX}/_doc/{}", path_segment(&self.shared.slot))
    }

    /// The state, if there is one.
    pub async fn read(&self) -> Result<Option<State>, StateError> {
        Ok(self.find().await?.map(|found| found.state))
    }

    /// The document, if there is one. The next write is conditional on it.
    pub async fn find(&self) -> Result<Option<Found>, StateError> {
        let mut known = self.shared.known.lock().await;
        self.find_known(&mut known).await
    }

    async fn find_known(&self, known: &mut Known) -> Result<Option<Found>, StateError> {
        let Some(Stored { source, version, at }) = self.look().await? else {
            known.version = None;
            return Ok(None);
        };
        let slot = || self.shared.slot.clone();
        let unreadable = |reason: String| StateError::Unreadable { slot: slot(), reason };
        let state: State =
            serde_json::from_value(source).map_err(|error| unreadable(error.to_string()))?;
        if state.format != FORMAT {
            return Err(unreadable(format!("format {}, not {FORMAT}", state.format)));
        }
        known.version = Some(version);
        Ok(Some(Found { state, version, at }))
    }

    /// The document, whatever it says. That there is one, or none, counts only as the cluster's own word.
    async fn look(&self) -> Result<Option<Stored>, StateError> {
        let (client, path) = (&self.shared.client, self.path());
        let mut answer = client.call(Method::Get, &path, &[], None).await?;
        let mut tries = 1..YOUNG.0;
        while answer.error_kind() == "no_shard_available_action_exception" && tries.next().is_some()
        {
            tokio::time::sleep(YOUNG.1).await;
            answer = client.call(Method::Get, &path, &[], None).await?;
        }
        let at = Moment::now();
        if answer.is_missing() {
            return Ok(None);
        }
        if !answer.is_success() {
            return Err(StateError::refused("read", &answer));
        }
        let mut json = answer.json();
        let Some(version) = version_of(&json) else {
            return Err(client.not_of_the_cluster(&answer).into());
        };
        let source = json.get_mut("_source").map(Value::take).unwrap_or_default();
        Ok(Some(Stored { source, version, at }))
    }

    /// Creates the index if it is not there.
    pub async fn prepare(&self) -> Result<(), StateError> {
        let body = json!({
            "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": true},
            "mappings": {"dynamic": false},
        });
        let path = format!("/{STATE_INDEX}");
        let answer = self.shared.client.call(Method::Put, &path, &[], Some(&body)).await?;
        let exists = answer.error_kind() == "resource_already_exists_exception";
        if answer.is_acknowledged() || (answer.status == 400 && exists) {
            return Ok(());
        }
        Err(self.not_written(&answer))
    }

    /// Any success that does not say so is as good as no answer.
    fn not_written(&self, answer: &Answer) -> StateError {
        match answer.is_success() {
            true => self.shared.client.not_of_the_cluster(answer).into(),
            false => StateError::refused("write", answer),
        }
    }

    /// Writes the state, if the document is still as we know it, and has the lease from here on.
    pub async fn write(&self, state: &State) -> Result<(), StateError> {
        let mut known = self.shared.known.lock().await;
        let lease = Some(self.shared.lease.clone());
        let next = State { instance: self.shared.instance.clone(), lease, ..state.clone() };
        self.put(&mut known, Content::Given(next)).await
    }

    /// The last write of the state: it gives the lease back.
    pub async fn release(&self, state: &State) -> Result<(), StateError> {
        let mut known = self.shared.known.lock().await;
        self.release_known(&mut known, state.clone()).await
    }

    /// Gives the lease back, if it was not already; the state stays as it was written last.
    pub async fn release_as_it_is(&self) -> Result<(), StateError> {
        let mut known = self.shared.known.lock().await;
        match known.written.clone() {
            Some(state) => self.release_known(&mut known, state).await,
            None => Ok(()),
        }
    }

    async fn release_known(&self, known: &mut Known, state: State) -> Result<(), StateError> {
        // From here on nothing is sent: another may have it as soon as the document says so.
        self.shared.right.give_up();
        known.written = None;
        let instance = self.shared.instance.clone();
        self.put(known, Content::Given(State { instance, lease: None, ..state })).await
    }

    /// Writes the same state once more, for the lease.
    ///
    /// # Errors
    /// Another has the lease; the server's.
    pub async fn renew(&self) -> Result<(), StateError> {
        let mut known = self.shared.known.lock().await;
        match known.written.clone() {
            Some(state) => self.put(&mut known, Content::Again(state)).await,
            None => Ok(()),
        }
    }

    async fn put(&self, known: &mut Known, mut content: Content) -> Result<(), StateError> {
        let written = self.try_put(known, &mut content).await;
        match &written {
            Ok(()) => {}
            Err(StateError::Taken { other, .. }) => self.shared.right.lose(Some(other.clone())),
            Err(StateError::Gone { .. }) => self.shared.right.lose(None),
            Err(error) => self.shared.right.not_renewed(error.obstacle()),
        }
        written
    }

    async fn try_put(&self, known: &mut Known, content: &mut Content) -> Result<(), StateError> {
        let mut attempts = 0;
        loop {
            let asked_at = Moment::now();
            let answer = match self.put_once(known.version, content.state()).await {
                // Only the answer may be lost; the next attempt tells. A start makes several writes, and each that
                // failed would make it begin again.
                Err(CallError::Broken { .. }) if attempts == 0 => {
                    attempts += 1;
                    continue;
                }
                answer => answer?,
            };
            if let Some(version) = version_written(&answer) {
                known.version = Some(version);
                if content.state().lease.is_some() {
                    known.written = Some(content.state().clone());
                    self.shared.right.renewed(asked_at);
                }
                return Ok(());
            }
            attempts += 1;
            if answer.status != 409 || attempts >= ATTEMPTS_MAX {
                return Err(self.not_written(&answer));
            }
            if self.resolve_conflict(known, content).await? {
                known.written = Some(content.state().clone());
                return Ok(());
            }
        }
    }

    async fn put_once(&self, known: Option<Version>, state: &State) -> Result<Answer, CallError> {
        let condition = match known {
            Some(Version { seq_no, primary_term }) => vec![
                ("if_seq_no", seq_no.to_string()),
                ("if_primary_term", primary_term.to_string()),
            ],
            None => vec![("op_type", "create".to_owned())],
        };
        let query: Vec<(&str, &str)> =
            condition.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = serde_json::to_value(state).unwrap_or_default();
        self.shared.client.call(Method::Put, &self.path(), &query, Some(&body)).await
    }

    /// A conflict is our own write whose answer was lost, or another waldex. Ours is written over, unless it says
    /// the same and the lease is not asked for: it is no renewal, for when it was made is not known.
    async fn resolve_conflict(
        &self,
        known: &mut Known,
        content: &mut Content,
    ) -> Result<bool, StateError> {
        let before = known.version;
        let slot = || self.shared.slot.clone();
        match self.find_known(known).await {
            Ok(Some(found)) if found.state.instance == self.shared.instance => match content {
                Content::Again(state) => {
                    *state = found.state;
                    Ok(false)
                }
                Content::Given(state) => Ok(*state == found.state && self.shared.right.is_kept()),
            },
            Ok(Some(found)) => Err(StateError::Taken { slot: slot(), other: found.state.holder() }),
            Ok(None) => Err(StateError::Gone { slot: slot() }),
            Err(error) => {
                known.version = before;
                Err(error)
            }
        }
    }

    /// Writes the state with a new durable position; the answer may be confirmed to Postgres. The
    /// document's position never goes back while changes below it are sent again.
    pub async fn record(
        &self,
        state: &mut State,
        durable: DurableLsn,
    ) -> Result<RecordedLsn, StateError> {
        let mut next = state.clone();
        if durable.lsn() >= state.durable_lsn {
            next.durable_lsn = durable.lsn();
            next.durable_as_of_micros = durable.as_of_micros();
        }
        self.write(&next).await?;
        *state = next;
        Ok(RecordedLsn::new(durable, state.durable_lsn))
    }

    /// The lease is not renewed until [`Self::resume`]: whoever cannot reach Postgres should not keep the slot
    /// from another that can. Nothing may wait for the lease meanwhile.
    pub fn rest(&self) {
        self.shared.rests.send_replace(true);
    }

    /// The lease is renewed again.
    pub fn resume(&self) {
        self.shared.rests.send_replace(false);
    }

    /// Waits until the lease is to be renewed for its own sake.
    pub(super) async fn resumed(&self) {
        // The sender lives as long as this.
        let _ = self.shared.rests.subscribe().wait_for(|rests| !*rests).await;
    }
}

/// What is written.
enum Content {
    /// This.
    Given(State),
    /// What stands there, if that is ours.
    Again(State),
}

impl Content {
    fn state(&self) -> &State {
        match self {
            Self::Given(state) | Self::Again(state) => state,
        }
    }
}

/// The version that a write has made: without one it was not the cluster that answered.
fn version_written(answer: &Answer) -> Option<Version> {
    answer.is_success().then(|| version_of(&answer.json())).flatten()
}

fn version_of(answer: &Value) -> Option<Version> {
    let number = |name: &str| answer.get(name).and_then(Value::as_u64);
    let (seq_no, primary_term) = number("_seq_no").zip(number("_primary_term"))?;
    Some(Version { seq_no, primary_term })
}

#[cfg(test)]
mod tests;
