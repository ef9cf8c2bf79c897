//! A lane's way to the cluster: one batch in, its receipt out, however often that takes.
//!
//! "No answer" means that any subset of the items may have been applied, so the same items are sent again
//! until each has a definite answer; versions make that harmless. An outage of any length is waited out.

use std::time::Duration;

use super::client::{Answer, CallError, Client};
use super::retry::Backoff;
use crate::bulk::answer::{FILTER_PATH, Rejection};
use crate::bulk::batch::{Batch, Receipt, Settled};

/// Why a batch will never be confirmed as things stand. Nothing of it is acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// One item.
    #[error("the cluster refused a document: {0}")]
    Rejected(Rejection),
    /// The index or its alias.
    #[error("the cluster cannot write to the index: {0}")]
    Misconfigured(Rejection),
    /// The request as a whole.
    #[error("the cluster refused a bulk request: status {status}, {kind}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The error's type.
        kind: String,
    },
}

impl WriteError {
    /// What the operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Rejected(_) => {
                "correct the mapping or the row, then start again: nothing was acknowledged; \
                 `waldex run --reload` builds a new index with a changed mapping"
            }
            Self::Misconfigured(_) => {
                "restore the index and its alias, or build it anew with `waldex run --reload`"
            }
            Self::Refused { status: 413, .. } => {
                "lower elasticsearch.bulk_bytes, or raise the server's http.max_content_length"
            }
            Self::Refused { .. } => "see the cluster's log for the request it refused",
        }
    }
}

/// What a lane tells while it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Why the last attempt failed.
    pub reason: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Until the next one.
    pub pause: Duration,
}

/// Sends batches, one at a time.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    /// Attempts that follow at once when a node cannot be reached, so that another node is tried.
    quick_retries: u32,
}

enum Attempt {
    Done(Receipt),
    Again { rest: Batch, reason: String, retry_after_seconds: Option<u64>, slow: bool },
}

impl Writer {
    /// A writer over a client.
    pub fn new(client: Client, quick_retries: u32) -> Self {
        Self { client, quick_retries }
    }

    /// Sends `batch` until every item is confirmed or one is refused for good. `waiting` is told before
    /// each pause.
    pub async fn write(
        &self,
        mut batch: Batch,
        mut waiting: impl FnMut(Waiting),
    ) -> Result<Receipt, WriteError> {
        let mut backoff = Backoff::default();
        loop {
            let items = batch.items();
            match self.attempt(batch).await? {
                Attempt::Done(receipt) => return Ok(receipt),
                Attempt::Again { rest, reason, retry_after_seconds, slow } => {
                    if rest.items() < items {
                        backoff = Backoff::default();
                    }
                    let pause =
                        if slow { backoff.next_slow() } else { backoff.next(retry_after_seconds) };
                    if backoff.attempts() > self.quick_retries {
                        waiting(Waiting { reason, attempts: backoff.attempts(), pause });
                    }
                    tokio::time::sleep(pause).await;
                    batch = rest;
                }
            }
        }
    }

    async fn attempt(&self, batch: Batch) -> Result<Attempt, WriteError> {
        let query = [("require_alias", "true"), ("filter_path", FILTER_PATH)];
        let answer = match self.client.bulk(&query, batch.body()).await {
            Ok(answer) => answer,
            Err(error) => return Ok(unanswered(batch, &error)),
        };
        if !answer.is_success() {
            return refused(batch, &answer);
        }
        match batch.settle(&answer.body) {
            Ok(Settled::Done(receipt)) => Ok(Attempt::Done(receipt)),
            Ok(Settled::Again { rest, status, kind }) => Ok(Attempt::Again {
                rest,
                reason: format!("status {status}, {kind}"),
                retry_after_seconds: answer.retry_after_seconds,
                slow: matches!(status, 401 | 403),
            }),
            Ok(Settled::Refused { rejection, .. }) => Err(if rejection.is_configuration() {
                WriteError::Misconfigured(rejection)
            } else {
                WriteError::Rejected(rejection)
            }),
            Err((rest, error)) => Ok(Attempt::Again {
                rest,
                reason: error.to_string(),
                retry_after_seconds: None,
                slow: false,
            }),
        }
    }
}

fn unanswered(rest: Batch, error: &CallError) -> Attempt {
    Attempt::Again { rest, reason: error.to_string(), retry_after_seconds: None, slow: false }
}

/// A whole request that was not carried out: overload and outage pass, anything else does not.
fn refused(rest: Batch, answer: &Answer) -> Result<Attempt, WriteError> {
    let reason = format!("status {}, {}", answer.status, answer.error_kind());
    let retry_after_seconds = answer.retry_after_seconds;
    match answer.status {
        401 | 403 => Ok(Attempt::Again { rest, reason, retry_after_seconds, slow: true }),
        408 | 429 | 500.. => Ok(Attempt::Again { rest, reason, retry_after_seconds, slow: false }),
        status => Err(WriteError::Refused { status, kind: answer.error_kind() }),
    }
}
