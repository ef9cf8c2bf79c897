//! One bulk request and what became of it. Decides nothing: that is the [`super::writer`]'s.

use std::time::Duration;

use super::client::{Answer, CallError, Client};
use crate::bulk::answer::FILTER_PATH;
use crate::bulk::batch::{Batch, Head};
use crate::bulk::obstacle::{Cause, Obstacle, Rejection};
use crate::bulk::settle::Settled;

/// The server gives up on a bulk after this part of the time that we wait for its answer: a request that was
/// not answered is over soon after, and shards that are missing are named before the whole is given up.
const BULK_TIMEOUT_DIVISOR: u32 = 2;

/// How long the server may go on with a bulk whose answer is waited for so long.
pub(super) fn bulk_timeout(request_timeout: Duration) -> Duration {
    request_timeout / BULK_TIMEOUT_DIVISOR
}

/// Sends requests; clones share the client's connections.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    /// The bulk's own `timeout`.
    bulk_timeout: Duration,
}

/// What became of a request.
pub enum Sent {
    /// Every item was answered.
    Settled(Settled, Option<u64>),
    /// The whole request was turned away for a reason that passes.
    TurnedAway(Batch, Obstacle, Option<u64>),
    /// The whole request was refused as malformed: at least one of its items is at fault.
    Refused(Batch, Rejection),
    /// The request is larger than the server, or something before it, takes.
    TooLarge(Batch),
    /// It was not sent.
    NotSent(Batch, String),
    /// Any part of it may have been carried out, or still be.
    Unanswered(Batch, Unanswered),
}

/// A request without a useful answer.
pub struct Unanswered {
    /// What happened.
    pub reason: String,
    /// Whether the connection broke, perhaps before all was sent.
    pub is_broken: bool,
    /// When the server wants to be asked again.
    pub retry_after_seconds: Option<u64>,
}

impl Unanswered {
    fn because(reason: String) -> Self {
        Self { reason, is_broken: false, retry_after_seconds: None }
    }
}

impl Sender {
    /// A sender over a client.
    pub fn new(client: Client) -> Self {
        let bulk_timeout = bulk_timeout(client.request_timeout());
        Self { client, bulk_timeout }
    }

    /// The client it sends over.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How long the server may usually go on with a request.
    pub fn bulk_timeout(&self) -> Duration {
        self.bulk_timeout
    }

    /// Sends `head`, the first items of `batch`; the server gives up on it after `timeout`.
    pub async fn send(&self, batch: Batch, head: Head, timeout: Duration) -> Sent {
        let timeout = format!("{}ms", timeout.as_millis());
        let query =
            [("require_alias", "true"), ("timeout", &timeout), ("filter_path", FILTER_PATH)];
        let answer = match self.client.bulk(&query, head.body).await {
            Ok(answer) => answer,
            Err(error) => return without_answer(batch, &error),
        };
        if !answer.is_success() {
            return as_a_whole(batch, &answer);
        }
        match batch.settle_head(head.items, &answer.body) {
            Ok(settled) => Sent::Settled(settled, answer.retry_after_seconds),
            Err((batch, error)) => Sent::Unanswered(batch, Unanswered::because(error.to_string())),
        }
    }
}

fn without_answer(batch: Batch, error: &CallError) -> Sent {
    let reason = error.to_string();
    match error {
        CallError::NotConnected { .. } => Sent::NotSent(batch, reason),
        CallError::Broken { .. } => {
            Sent::Unanswered(batch, Unanswered { is_broken: true, ..Unanswered::because(reason) })
        }
        CallError::NoAnswer { .. } | CallError::AnswerTooLarge { .. } => {
            Sent::Unanswered(batch, Unanswered::because(reason))
        }
    }
}

/// A request of which no item was answered.
fn as_a_whole(batch: Batch, answer: &Answer) -> Sent {
    let (status, kind) = (answer.status, answer.error_kind());
    match Cause::of(status, &kind) {
        None if status == 413 => Sent::TooLarge(batch),
        None => Sent::Refused(batch, Rejection { status, kind, field: None }),
        // A gateway that gave up waiting, or lost its node: the node may still be at it.
        Some(Cause::Unreachable | Cause::Red) => {
            let because = Unanswered::because(format!("status {status}, {kind}"));
            let retry_after_seconds = answer.retry_after_seconds;
            Sent::Unanswered(batch, Unanswered { retry_after_seconds, ..because })
        }
        Some(cause) => {
            let obstacle = Obstacle { cause, status, kind, index: None };
            Sent::TurnedAway(batch, obstacle, answer.retry_after_seconds)
        }
    }
}
