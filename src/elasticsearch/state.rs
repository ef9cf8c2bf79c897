//! The state document: what waldex must remember, kept in the target cluster and nowhere else.
//!
//! It is written before an LSN is confirmed to Postgres, so its LSN is never below the slot's. A slot that
//! is ahead of it therefore proves a gap: someone else consumed the slot, it was made anew, or the cluster
//! was restored. Writes are conditional on the document's sequence number: a second waldex on the same
//! slot is noticed at its first write.

use std::collections::BTreeMap;

use elasticsearch::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{CallError, Client, path_segment};
use crate::lsn::Lsn;
use crate::pipeline::DurableLsn;
use crate::run::schema::TableSource;

/// The index that holds one document a slot.
pub const STATE_INDEX: &str = "waldex-state";

const FORMAT: u32 = 1;

/// What is remembered of one slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: u32,
    /// `IDENTIFY_SYSTEM`: the cluster the LSNs belong to.
    pub system_id: String,
    /// `IDENTIFY_SYSTEM`: the timeline they were last read on.
    pub timeline: u32,
    /// Where that timeline left the one before, if that is known.
    #[serde(default, with = "lsn_text_option")]
    pub timeline_begun_at: Option<Lsn>,
    /// Database of the slot.
    pub database: String,
    /// The slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// High bits of the versions.
    pub epoch: u8,
    /// Everything before is in the indices.
    #[serde(with = "lsn_text")]
    pub durable_lsn: Lsn,
    /// When the source stood at `durable_lsn`, microseconds since 2000-01-01 UTC.
    pub durable_as_of_micros: Option<i64>,
    /// A position in the commit of the newest transaction of which anything may be in the indices, beyond
    /// `durable_lsn` too.
    /// None while a stream runs, and after one that did not end in good order.
    #[serde(default, with = "lsn_text_option")]
    pub written_lsn: Option<Lsn>,
    /// Who wrote this last.
    pub instance: String,
    /// By schema-qualified name.
    pub tables: BTreeMap<String, TableState>,
}

/// What is remembered of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableState {
    /// Alias of its readers.
    pub index: String,
    /// The generation that is written.
    pub generation: u32,
    /// Whether every row was copied.
    pub loaded: bool,
    /// Whether a load has begun to write `generation`.
    #[serde(default)]
    pub load_begun: bool,
    /// WAL flush position after the last copied chunk: once the stream has passed it, the generation is
    /// complete.
    #[serde(with = "lsn_text_option")]
    pub load_end_lsn: Option<Lsn>,
    /// The generation readers still see, until this one is complete.
    pub previous_generation: Option<u32>,
    /// Whether readers see `generation`.
    pub readable: bool,
    /// What the load was certain to see (`pg_current_snapshot()` before its first chunk), until the stream
    /// has passed `load_end_lsn`.
    #[serde(default)]
    pub load_snapshot: Option<String>,
    /// The definition the generation was made for; none in a state that is older than this field.
    #[serde(default)]
    pub source: Option<TableSource>,
    /// Whether columns came or went since the load: documents not written since do not show it.
    #[serde(default)]
    pub refresh_recommended: bool,
}

impl State {
    /// A state for a slot whose stream starts at `start`, with no table loaded.
    pub fn new(
        system_id: String,
        timeline: u32,
        database: String,
        slot: &str,
        publication: &str,
        start: Lsn,
    ) -> Self {
        Self {
            format: FORMAT,
            system_id,
            timeline,
            timeline_begun_at: None,
            database,
            slot: slot.to_owned(),
            publication: publication.to_owned(),
            epoch: 0,
            durable_lsn: start,
            durable_as_of_micros: None,
            written_lsn: Some(start),
            instance: String::new(),
            tables: BTreeMap::new(),
        }
    }
}

mod lsn_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::lsn::Lsn;

    pub(super) fn serialize<S: Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(lsn)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Lsn, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

mod lsn_text_option {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::lsn::Lsn;

    pub(super) fn serialize<S: Serializer>(lsn: &Option<Lsn>, to: S) -> Result<S::Ok, S::Error> {
        match lsn {
            Some(lsn) => to.collect_str(lsn),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Lsn>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

/// A position that the state document covers and that the present stream has reached: it may be confirmed to
/// Postgres.
///
/// After a restart the document's own position can be ahead of the stream, which sends changes below it once
/// more. To confirm that position at once was seen to bring deleted documents back: a cluster that was
/// restarted meanwhile has forgotten its tombstones, so a change that is sent again applies, and the delete
/// behind it, being confirmed, is not sent after another crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordedLsn(Lsn);

impl RecordedLsn {
    fn new(reached: DurableLsn, in_document: Lsn) -> Self {
        Self(reached.lsn().min(in_document))
    }

    /// The position.
    pub fn lsn(self) -> Lsn {
        self.0
    }
}

/// The state document cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An unexpected status.
    #[error("cannot {what} the state document in \"{STATE_INDEX}\": status {status}, {kind}")]
    Refused {
        /// "read" or "write".
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// The error's type.
        kind: String,
    },
    /// Not what this version writes.
    #[error("the state document of slot \"{slot}\" is not one this version understands: {reason}")]
    Unreadable {
        /// The slot.
        slot: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else wrote it.
    #[error("another waldex (instance {other}) wrote the state document of slot \"{slot}\"")]
    Taken {
        /// The slot.
        slot: String,
        /// Its instance name.
        other: String,
    },
}

impl StateError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call(_) => true,
            Self::Refused { status, .. } => matches!(status, 401 | 403 | 408 | 429 | 500..),
            Self::Unreadable { .. } | Self::Taken { .. } => false,
        }
    }
}

/// Reads and writes the state document of one slot.
#[derive(Clone)]
pub struct StateStore {
    client: Client,
    slot: String,
    /// Tells our writes from those of another waldex.
    instance: String,
    /// `_seq_no` and `_primary_term` of the document as we know it.
    seen: Option<(u64, u64)>,
}

impl StateStore {
    /// The store of a slot; `instance` is unlike that of any other process.
    pub fn new(client: Client, slot: &str, instance: String) -> Self {
        Self { client, slot: slot.to_owned(), instance, seen: None }
    }

    fn path(&self) -> String {
        format!("/{STATE_INDEX}/_doc/{}", path_segment(&self.slot))
    }

    /// The state, if there is one. Also the first call that proves address and credentials.
    pub async fn read(&mut self) -> Result<Option<State>, StateError> {
        let answer = self.client.call(Method::Get, &self.path(), &[], None).await?;
        self.seen = None;
        if answer.status == 404 {
            return Ok(None);
        }
        if !answer.is_success() {
            let (status, kind) = (answer.status, answer.error_kind());
            return Err(StateError::Refused { what: "read", status, kind });
        }
        let unreadable =
            |reason: String| StateError::Unreadable { slot: self.slot.clone(), reason };
        let mut json = answer.json();
        let number = |name: &str| json.get(name).and_then(Value::as_u64);
        let seen = number("_seq_no").zip(number("_primary_term"));
        let source = json.get_mut("_source").map(Value::take).unwrap_or_default();
        let state: State =
            serde_json::from_value(source).map_err(|error| unreadable(error.to_string()))?;
        if state.format != FORMAT {
            return Err(unreadable(format!("format {}, not {FORMAT}", state.format)));
        }
        self.seen = seen;
        Ok(Some(state))
    }

    /// Creates the index if it is not there.
    pub async fn prepare(&self) -> Result<(), StateError> {
        let body = json!({
            "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": true},
            "mappings": {"dynamic": false},
        });
        let path = format!("/{STATE_INDEX}");
        let answer = self.client.call(Method::Put, &path, &[], Some(&body)).await?;
        let exists = answer.error_kind() == "resource_already_exists_exception";
        if answer.is_success() || (answer.status == 400 && exists) {
            return Ok(());
        }
        let (status, kind) = (answer.status, answer.error_kind());
        Err(StateError::Refused { what: "write", status, kind })
    }

    /// Writes the state, if the document is still as we know it.
    pub async fn write(&mut self, state: &State) -> Result<(), StateError> {
        let mut state = state.clone();
        state.instance.clone_from(&self.instance);
        let body = serde_json::to_value(&state).unwrap_or_default();
        let condition = match self.seen {
            Some((seq_no, term)) => {
                vec![("if_seq_no", seq_no.to_string()), ("if_primary_term", term.to_string())]
            }
            None => vec![("op_type", "create".to_owned())],
        };
        let query: Vec<(&str, &str)> =
            condition.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = self.client.call(Method::Put, &self.path(), &query, Some(&body)).await?;
        if answer.status == 409 {
            return self.resolve_conflict(&state).await;
        }
        if !answer.is_success() {
            let (status, kind) = (answer.status, answer.error_kind());
            return Err(StateError::Refused { what: "write", status, kind });
        }
        let json = answer.json();
        let number = |name: &str| json.get(name).and_then(Value::as_u64);
        self.seen = number("_seq_no").zip(number("_primary_term"));
        Ok(())
    }

    /// A conflict is our own write whose answer was lost, or another waldex.
    async fn resolve_conflict(&mut self, state: &State) -> Result<(), StateError> {
        let before = self.seen;
        match self.read().await {
            Ok(Some(found)) if found == *state => Ok(()),
            Ok(Some(found)) if found.instance == self.instance => {
                // An earlier write of ours: it holds less than this one, which goes on top of it.
                Box::pin(self.write(state)).await
            }
            Ok(found) => Err(StateError::Taken {
                slot: self.slot.clone(),
                other: found.map_or_else(String::new, |found| found.instance),
            }),
            Err(error) => {
                self.seen = before;
                Err(error)
            }
        }
    }

    /// Writes the state with a new durable position; the answer may be confirmed to Postgres. The
    /// document's position never goes back while changes below it are sent again.
    pub async fn record(
        &mut self,
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

    /// Removes the document.
    pub async fn remove(&self) -> Result<(), StateError> {
        let answer = self.client.call(Method::Delete, &self.path(), &[], None).await?;
        if answer.is_success() || answer.status == 404 {
            return Ok(());
        }
        let (status, kind) = (answer.status, answer.error_kind());
        Err(StateError::Refused { what: "write", status, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{BatchLimits, Epoch, Limits, Pipeline, Plan};

    fn reached(lsn: u64) -> DurableLsn {
        let batch = BatchLimits { documents_max: 1, bytes_max: 1, pace_ms: 0 };
        let limits = Limits { lanes: 1, batch, memory_budget_bytes: 1 };
        let plan = Plan { tables: Vec::new(), as_of: Lsn::ZERO, takes_new_tables: false };
        let mut pipeline = Pipeline::new(plan, Epoch(0), limits);
        let keepalive = [b"k".as_slice(), &lsn.to_be_bytes(), &[0; 9]].concat();
        assert!(pipeline.push_frame(&keepalive).unwrap().is_none());
        pipeline.durable()
    }

    #[test]
    fn the_slot_is_not_told_what_only_an_earlier_stream_reached() {
        let in_document = Lsn::new(500);
        assert_eq!(RecordedLsn::new(reached(100), in_document).lsn(), Lsn::new(100));
        assert_eq!(RecordedLsn::new(reached(500), in_document).lsn(), Lsn::new(500));
        assert_eq!(RecordedLsn::new(reached(900), in_document).lsn(), Lsn::new(500));
    }
}
