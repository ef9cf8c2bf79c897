//! The state document: what waldex must remember, kept in the target cluster and nowhere else.
//!
//! It is written before an LSN is confirmed to Postgres, so its LSN is never below the slot's. A slot that
//! is ahead of it therefore proves a gap: someone else consumed the slot, it was made anew, or the cluster
//! was restored. Writes are conditional on the document's sequence number, and each renews the lease that
//! keeps a second waldex on the same slot out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::client::{Answer, CallError};
use super::control;
use super::holder::Lease;
use super::index::detail;
use crate::bulk::obstacle::Cause;
use crate::lsn::Lsn;
use crate::pipeline::DurableLsn;
use crate::run::schema::TableSource;

/// The index that holds one document a slot.
pub const STATE_INDEX: &str = "waldex-state";

pub(super) const FORMAT: u32 = 1;

/// What is remembered of one slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub(super) format: u32,
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
    /// When everything was last built anew because the slot was lost, microseconds since 2000-01-01 UTC.
    #[serde(default)]
    pub rebuilt_at_micros: Option<i64>,
    /// Who wrote this last.
    pub instance: String,
    /// The lease of whoever did; none if it was released, and in a state that is older than this field.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// By schema-qualified name.
    pub tables: BTreeMap<String, TableState>,
    /// Tables of the publication that are not kept, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, String>,
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
    /// What the load was certain to see (`pg_current_snapshot()` before its first chunk). Kept when the stream
    /// has passed `load_end_lsn`, too: a crash of Postgres sends what comes before it once more.
    #[serde(default)]
    pub load_snapshot: Option<String>,
    /// The definition the generation was made for; none in a state that is older than this field.
    #[serde(default)]
    pub source: Option<TableSource>,
    /// Whether columns came or went since the load: documents not written since do not show it.
    #[serde(default)]
    pub refresh_recommended: bool,
    /// Why index and table may differ in whole documents, since rows came or went without a change in the
    /// stream.
    #[serde(default)]
    pub reload_recommended: Option<String>,
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
            rebuilt_at_micros: None,
            instance: String::new(),
            lease: None,
            tables: BTreeMap::new(),
            left_out: BTreeMap::new(),
        }
    }

    /// Whether it only holds the lease for a start that has not come further.
    pub fn is_claim(&self) -> bool {
        self.durable_lsn == Lsn::ZERO && self.tables.is_empty()
    }

    /// Who wrote this last, for an operator.
    pub fn holder(&self) -> String {
        match &self.lease {
            Some(lease) => format!("instance {} ({lease})", self.instance),
            None => format!("instance {}", self.instance),
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
    pub(super) fn new(reached: DurableLsn, in_document: Lsn) -> Self {
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
    #[error(
        "cannot {what} the state document in \"{STATE_INDEX}\": status {status}, {kind}{detail}"
    )]
    Refused {
        /// "read" or "write".
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// The error's type.
        kind: String,
        /// The server's reason, where it is a block.
        detail: String,
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
    #[error("another waldex has the lease on slot \"{slot}\": {other}")]
    Taken {
        /// The slot.
        slot: String,
        /// Who.
        other: String,
    },
    /// It was removed under our hands.
    #[error("the state document of slot \"{slot}\" is gone")]
    Gone {
        /// The slot.
        slot: String,
    },
}

impl StateError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call(_) => true,
            Self::Refused { status, kind, .. } => control::passes(*status, kind),
            Self::Unreadable { .. } | Self::Taken { .. } | Self::Gone { .. } => false,
        }
    }

    pub(super) fn refused(what: &'static str, answer: &Answer) -> Self {
        let (status, kind) = (answer.status, answer.error_kind());
        let detail = if control::is_block(&kind) { detail(answer) } else { String::new() };
        Self::Refused { what, status, kind, detail }
    }

    /// What the operator can do.
    pub fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Call(_) => "check elasticsearch.addresses, and that the cluster runs",
            Self::Refused { status, kind, detail, .. } => {
                return control::remedy(*status, kind, detail);
            }
            Self::Unreadable { .. } => {
                "run the version that wrote it, or remove it with `waldex teardown`"
            }
            Self::Taken { .. } => {
                "only one waldex may run on a slot: stop the other, or give this one a slot of its own"
            }
            Self::Gone { .. } => {
                "`waldex run --reload` begins anew, if the state was not removed for good"
            }
        };
        Some(text.to_owned())
    }

    /// The same as a lane would tell it.
    pub(super) fn obstacle(&self) -> (Cause, String) {
        let cause = match self {
            Self::Refused { status, kind, .. } => {
                Cause::of(*status, kind).unwrap_or(Cause::Misconfigured)
            }
            Self::Call(_) => Cause::Unreachable,
            Self::Unreadable { .. } | Self::Taken { .. } | Self::Gone { .. } => {
                Cause::Misconfigured
            }
        };
        (cause, format!("the lease is not renewed: {self}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{BatchLimits, Epoch, Limits, Pipeline, Plan};

    fn reached(lsn: u64) -> DurableLsn {
        let batch = BatchLimits { documents_max: 1, bytes_max: 1, pace_ms: 0 };
        let limits = Limits { lanes: 1, batch, memory_budget_bytes: 1 };
        let plan = Plan {
            tables: Vec::new(),
            as_of: Lsn::ZERO,
            takes_new_tables: false,
            left_out: std::collections::BTreeSet::new(),
        };
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
