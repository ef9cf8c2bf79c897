//! Every reason to stop, its class and its remedy.
//!
//! Each part has its own error; this module joins them and decides, in one place and without a wildcard,
//! what is waited out and what ends the program. A document that the cluster refuses is an error here
//! only because this version stops at it.

use std::time::Duration;

use crate::elasticsearch::client::{CallError, ClientError};
use crate::elasticsearch::dead_letter::LetterError;
use crate::elasticsearch::index::IndexError;
use crate::elasticsearch::scan::ScanError;
use crate::elasticsearch::state::StateError;
use crate::elasticsearch::writer::WriteError;
use crate::findings::Problem;
use crate::lsn::Lsn;
use crate::pipeline::PipelineError;
use crate::postgres::PostgresError;

/// Whether to try again or to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Passes by itself: network, overload, a restart. Waited out with back-off.
    Transient,
    /// Stays until somebody acts: stop, and say what to do.
    Definite,
}

/// Why continuity cannot be proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Discontinuity {
    /// The slot is gone.
    #[error("the replication slot \"{slot}\" no longer exists")]
    SlotGone {
        /// The slot.
        slot: String,
    },
    /// The server gave up the slot's WAL.
    #[error("the replication slot \"{slot}\" is lost: {reason}")]
    SlotLost {
        /// The slot.
        slot: String,
        /// As the server names it.
        reason: String,
    },
    /// Somebody else moved the slot, or the state is older than it.
    #[error(
        "the slot stands at {slot_lsn}, beyond {state_lsn} up to which the indices are known to be complete"
    )]
    Gap {
        /// `confirmed_flush_lsn`.
        slot_lsn: Lsn,
        /// Of the state document.
        state_lsn: Lsn,
    },
    /// Another database cluster than before.
    #[error("the state belongs to database system {state}, and this is {found}")]
    OtherSystem {
        /// Of the state document.
        state: String,
        /// `IDENTIFY_SYSTEM`.
        found: String,
    },
    /// A timeline that the state's is no part of, or cannot be shown to be.
    #[error(
        "the server is on timeline {found}, which does not go on from the timeline {state} of the indices"
    )]
    OtherTimeline {
        /// Of the state document.
        state: u32,
        /// `IDENTIFY_SYSTEM`.
        found: u32,
    },
    /// A failover that lost changes which the indices hold.
    #[error(
        "a failover lost changes: timeline {timeline} goes on from {left_at}, and the indices hold changes up to \
         {state_lsn}"
    )]
    Diverged {
        /// Of the state document.
        state_lsn: Lsn,
        /// The server's timeline.
        timeline: u32,
        /// Where it left the state's timeline.
        left_at: Lsn,
    },
    /// A server that was restored from a backup, or a copy.
    #[error(
        "the server's WAL ends at {flush_lsn}, and the indices hold changes up to {state_lsn}: it was restored \
         from a backup, or is a copy"
    )]
    Ahead {
        /// Of the state document.
        state_lsn: Lsn,
        /// `IDENTIFY_SYSTEM`.
        flush_lsn: Lsn,
    },
    /// A failover after a run that did not end in good order.
    #[error(
        "the server is on timeline {timeline} since {left_at}, and the last run did not end in good order: what \
         it had written beyond that cannot be told"
    )]
    Unproven {
        /// Of the server now.
        timeline: u32,
        /// Where it left ours.
        left_at: Lsn,
    },
    /// Documents that no state accounts for.
    #[error("the index \"{index}\" holds documents, and there is no state that says up to where")]
    Unaccounted {
        /// The physical index.
        index: String,
    },
    /// An index that was complete is not there any more.
    #[error("the index \"{index}\" is gone")]
    IndexGone {
        /// The physical index.
        index: String,
    },
}

/// Why a command ended without having done what it is for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Between here and Postgres.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The stream's content.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The search client's settings.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A call to the cluster.
    #[error(transparent)]
    Search(#[from] CallError),
    /// An index or an alias.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The state document.
    #[error(transparent)]
    State(#[from] StateError),
    /// A batch that will never be confirmed.
    #[error(transparent)]
    Write(WriteError),
    /// The index of the dead letters.
    #[error(transparent)]
    Letters(#[from] LetterError),
    /// The configuration does not fit what is there.
    #[error("{what}")]
    Configuration {
        /// What does not fit.
        what: String,
        /// The key to set.
        fix: String,
    },
    /// What preflight found.
    #[error("{} problem(s) found before the start", .0.len())]
    Preflight(Vec<Problem>),
    /// The slot that a start needs; it is not tried again by itself.
    #[error("cannot create the replication slot: {0}")]
    SlotNotMade(PostgresError),
    /// `setup --apply` over a connection that the role it is to make cannot have.
    #[error("{0}")]
    SetupLogin(PostgresError),
    /// Something that another process has to end first.
    #[error("waiting: {0}")]
    Busy(String),
    /// Another waldex has the lease.
    #[error("the lease on slot \"{slot}\" is held by {holder}")]
    Held {
        /// The slot.
        slot: String,
        /// Who.
        holder: String,
        /// How long it holds from each renewal on.
        duration: Duration,
        /// How much longer it holds, if it is not renewed.
        at_most: Duration,
    },
    /// Something that cannot be done while a waldex runs.
    #[error("nothing was dropped: {holder} runs on this slot")]
    Alive {
        /// Who.
        holder: String,
    },
    /// The primary's commits wait for this program, and with it for the search cluster.
    #[error(
        "Postgres has made waldex a synchronous standby: every commit would wait for the search cluster"
    )]
    SynchronousStandby,
    /// The system refuses the signal handlers.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// The question was not answered with yes.
    #[error("nothing was dropped: the question was not answered with \"y\"")]
    NotConfirmed,
    /// What a retry could not put right.
    #[error("{0} dead letters stay")]
    LettersStay(usize),
    /// What is printed cannot be printed.
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
    /// `needs_resync`.
    #[error("needs_resync: {0}")]
    NeedsResync(Discontinuity),
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::IndexGone { index } => {
                Self::NeedsResync(Discontinuity::IndexGone { index })
            }
            error @ (WriteError::Rejected { .. } | WriteError::TooManyRejected { .. }) => {
                Self::Write(error)
            }
        }
    }
}

impl From<ScanError> for Error {
    fn from(error: ScanError) -> Self {
        Self::Letters(error.into())
    }
}

impl Error {
    /// Whether to try again or to stop.
    pub fn class(&self) -> Class {
        let transient = |yes: bool| if yes { Class::Transient } else { Class::Definite };
        match self {
            Self::Postgres(error) => error.class(),
            Self::Search(_) | Self::Busy(_) | Self::Held { .. } => Class::Transient,
            Self::Index(error) => transient(error.is_transient()),
            Self::State(error) => transient(error.is_transient()),
            Self::Letters(error) => transient(error.is_transient()),
            Self::Pipeline(_)
            | Self::Client(_)
            | Self::Write(_)
            | Self::Configuration { .. }
            | Self::SlotNotMade(_)
            | Self::SetupLogin(_)
            | Self::Preflight(_)
            | Self::SynchronousStandby
            | Self::Signals(_)
            | Self::Alive { .. }
            | Self::NotConfirmed
            | Self::LettersStay(_)
            | Self::Output(_)
            | Self::NeedsResync(_) => Class::Definite,
        }
    }

    /// What the operator can do.
    pub fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Postgres(error) | Self::SlotNotMade(error) => return error.remedy(),
            Self::SetupLogin(_) => {
                "`waldex setup` prints SQL that makes the role: run that with psql as a superuser, and set its \
                 password"
            }
            Self::Write(error) => error.remedy(),
            Self::Configuration { fix, .. } => fix,
            Self::NeedsResync(
                Discontinuity::OtherSystem { .. }
                | Discontinuity::OtherTimeline { .. }
                | Discontinuity::Ahead { .. },
            ) => {
                "check postgres.url: a clone or another database must not write into these indices; if it is \
                 meant, `waldex run --reload` builds every index anew"
            }
            Self::NeedsResync(_) => {
                "`waldex run --reload` builds every index anew, and readers change over when it is complete"
            }
            Self::State(error) => return error.remedy(),
            Self::Index(error) | Self::Letters(LetterError::Index(error)) => return error.remedy(),
            Self::Search(_) => "check elasticsearch.addresses, and that the cluster runs",
            Self::Pipeline(PipelineError::Projection { .. }) => {
                "make the table's configuration fit its columns, then `waldex run --reload`"
            }
            Self::Alive { .. } => "stop it first",
            Self::NotConfirmed => "`waldex teardown --yes` does not ask",
            Self::LettersStay(_) => {
                "correct the mapping (`waldex run --reload` applies a changed one) or the rows, or give the \
                 letters up with `waldex dead-letters drop`"
            }
            Self::SynchronousStandby => {
                "name the real standbys only in synchronous_standby_names, then SELECT pg_reload_conf()"
            }
            Self::Busy(_) | Self::Held { .. } => {
                "a second waldex waits here until the first is gone; any other reader needs a slot of its own"
            }
            Self::Pipeline(_)
            | Self::Client(_)
            | Self::Letters(_)
            | Self::Signals(_)
            | Self::Output(_)
            | Self::Preflight(_) => return None,
        };
        Some(text.to_owned())
    }

    /// The process's exit code: 64 where the configuration is at fault, else 1.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Configuration { .. } | Self::Client(ClientError::CaFile { .. })) {
            64
        } else {
            1
        }
    }
}
