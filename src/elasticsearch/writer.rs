//! A lane's way to the cluster: one batch in, its receipt out, however often that takes.
//!
//! "No answer" means that any subset of the items may have been applied, so the same items are sent again
//! until each has a definite answer; versions make that harmless. An outage of any length is waited out, and
//! so is whatever an operator can put right.

use std::collections::BTreeMap;
use std::time::Duration;

use super::breaker::Circuit;
use super::dead_letter::DeadLetters;
use super::delivery::{Delivered, Delivery};
use super::gate::Gate;
use super::mailbox::Mailbox;
use super::retry::Backoff;
use super::sender::Sender;
use crate::bulk::batch::{Batch, Receipt};
use crate::bulk::obstacle::{Cause, Rejection};
use crate::bulk::open::document_hash;

/// Why a batch will never be confirmed as things stand. Nothing of it is acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A document, while rejected ones halt the run.
    #[error("the cluster refused a document of the index \"{index}\": {reason}")]
    Rejected {
        /// The index.
        index: String,
        /// Why.
        reason: Rejection,
    },
    /// More documents than may be passed over.
    #[error(
        "the cluster refuses too many documents: {open} dead letters, {max} allowed; the last one: {reason}"
    )]
    TooManyRejected {
        /// Letters that would be open.
        open: usize,
        /// `dead_letters.max`.
        max: usize,
        /// The last refusal.
        reason: Rejection,
    },
    /// The index is not there any more.
    #[error("the index \"{index}\" is gone")]
    IndexGone {
        /// The physical index.
        index: String,
    },
}

impl WriteError {
    /// What the operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Rejected { .. } => {
                "correct the mapping or the row, then start again: nothing was acknowledged; \
                 `waldex run --reload` builds a new index with a changed mapping"
            }
            Self::TooManyRejected { .. } => {
                "see `waldex dead-letters list`; correct the mapping and `waldex run --reload`, or raise \
                 dead_letters.max; nothing beyond the letters was acknowledged"
            }
            Self::IndexGone { .. } => {
                "`waldex run --reload` builds every index anew, and readers change over when it is complete"
            }
        }
    }
}

/// What a sender tells meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It waits.
    Waiting(Waiting),
    /// Documents were refused, and their dead letters are durable.
    Buried(Buried),
    /// Some documents of a truncated table are gone.
    Removed,
}

/// Why it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What stands in the way.
    pub cause: Cause,
    /// The same in words.
    pub reason: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Until the next one.
    pub pause: Duration,
}

/// Documents that were passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    /// How many.
    pub documents: usize,
    /// Letters that are open now.
    pub open: usize,
    /// Index of the first.
    pub index: String,
    /// Reason of the first.
    pub reason: Rejection,
}

/// Why writes to an index wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// What stands in the way.
    pub cause: Cause,
    /// The same in words.
    pub reason: String,
    /// Whether trying again at once may help.
    pub is_brief: bool,
}

/// Indices that cannot be written to, by the name that bulks give them.
pub type Hindered = BTreeMap<String, Hindrance>;

/// Sends batches, one at a time.
#[derive(Clone)]
pub struct Writer {
    pub(super) sender: Sender,
    pub(super) gate: Gate,
    /// Where refused documents go; without it they halt the run.
    pub(super) letters: Option<DeadLetters>,
    /// Attempts that follow at once when a node cannot be reached, so that another node is tried.
    pub(super) quick_retries: u32,
}

impl Writer {
    /// A writer that stops at a refused document.
    pub fn new(sender: Sender, gate: Gate, quick_retries: u32) -> Self {
        Self { sender, gate, letters: None, quick_retries }
    }

    /// The same with a place for refused documents.
    pub fn with_letters(self, letters: Option<DeadLetters>) -> Self {
        Self { letters, ..self }
    }

    /// Where refused documents go.
    pub fn letters(&self) -> Option<&DeadLetters> {
        self.letters.as_ref()
    }

    /// The way of dead letters, past the same gate.
    pub fn mailbox(&self) -> Mailbox {
        Mailbox::new(self.sender.clone(), self.gate.clone())
    }

    /// How long the server may go on with a request.
    pub fn bulk_timeout(&self) -> Duration {
        self.sender.bulk_timeout()
    }

    /// How long a request may stay without an answer.
    pub fn request_timeout(&self) -> Duration {
        self.sender.client().request_timeout()
    }

    /// Whether requests pause because most of them fail.
    pub fn circuit(&self) -> Circuit {
        self.gate.circuit()
    }

    /// Whether every request was answered, or is surely over.
    pub fn is_quiet(&self) -> bool {
        self.gate.is_quiet()
    }

    /// Sends `batch` until every item is confirmed: applied, superseded, or buried. `tell` hears of everything
    /// that takes long.
    ///
    /// # Errors
    /// An item will never be confirmed.
    pub async fn write(
        &self,
        mut batch: Batch,
        mut tell: impl FnMut(Event),
    ) -> Result<Receipt, WriteError> {
        self.wait_for_unanswered(&batch, &mut tell).await;
        let mut backoff = Backoff::default();
        loop {
            let mut hindered = Hindered::new();
            let timeout = self.sender.bulk_timeout();
            match self.deliver(batch, &mut hindered, timeout, &mut tell).await? {
                Delivered::Done(receipt) => return Ok(receipt),
                Delivered::Stuck(rest) => batch = rest,
            }
            let pause = wait_for(&hindered, &mut backoff, &mut tell);
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends what of `batch` is of indices that are not `hindered`, and adds those that turn out to be.
    ///
    /// # Errors
    /// An item will never be confirmed.
    pub async fn deliver(
        &self,
        batch: Batch,
        hindered: &mut Hindered,
        timeout: Duration,
        tell: &mut impl FnMut(Event),
    ) -> Result<Delivered, WriteError> {
        let outdated = self.letters.as_ref().map(|letters| letters.of(&batch)).unwrap_or_default();
        let mut delivery = Delivery::new(self, std::mem::take(hindered), timeout, &mut *tell);
        let delivered = delivery.run(batch).await?;
        let (now_hindered, mut kept) = delivery.into_parts();
        *hindered = now_hindered;
        if let Some(letters) = self.letters.as_ref().filter(|_| !outdated.is_empty()) {
            if let Delivered::Stuck(rest) = &delivered {
                kept.extend(rest.each().map(|item| document_hash(item.name)));
            }
            // What was refused once and is written now has no letter any more; before the receipt is given
            // away, or a crash would leave the letter for ever.
            let outdated = outdated.into_iter().filter(|letter| !kept.contains(&letter.hash));
            letters.remove(outdated.collect(), tell).await;
        }
        Ok(delivered)
    }

    /// An unanswered request that carries the same documents with the same version must be over first.
    pub async fn wait_for_unanswered(&self, batch: &Batch, tell: &mut impl FnMut(Event)) {
        if let Some(until) = self.gate.holds(batch) {
            wait_until(until.into(), tell).await;
        }
    }

    /// A process before this one did not end in good order and may have sent anything up to this version.
    pub fn inherit(&self, version_max: i64) {
        self.gate.inherit(version_max, self.bulk_timeout());
    }

    /// Waits until no unanswered request can write anything of this version any more.
    pub async fn wait_for_version(&self, version: i64, tell: &mut impl FnMut(Event)) {
        if let Some(until) = self.gate.holds_version(version) {
            wait_until(until.into(), tell).await;
        }
    }
}

/// Tells of hindered indices; how long to wait before they are tried again.
pub fn wait_for(
    hindered: &Hindered,
    backoff: &mut Backoff,
    tell: &mut impl FnMut(Event),
) -> Duration {
    let worst = hindered.values().max_by_key(|hindrance| hindrance.cause);
    let is_slow = worst.is_some_and(|worst| worst.cause.needs_operator() && !worst.is_brief);
    let pause = if is_slow { backoff.next_slow() } else { backoff.next(None) };
    let attempts = backoff.attempts();
    for Hindrance { cause, reason, .. } in hindered.values() {
        let (cause, reason) = (*cause, reason.clone());
        tell(Event::Waiting(Waiting { cause, reason, attempts, pause }));
    }
    pause
}

async fn wait_until(until: tokio::time::Instant, tell: &mut impl FnMut(Event)) {
    tell(Event::Waiting(Waiting {
        cause: Cause::Unanswered,
        reason: "an earlier request of the same transaction, perhaps of a process that was killed, was not \
                 answered and may still be carried out"
            .to_owned(),
        attempts: 0,
        pause: until.saturating_duration_since(tokio::time::Instant::now()),
    }));
    tokio::time::sleep_until(until).await;
}
