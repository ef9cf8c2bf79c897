//! The way of dead letters into their index. It never gives up: without the letter nothing may be passed over,
//! so where letters cannot be written, the lane waits.

use tracing::warn;

use super::dead_letter::{letters_write_alias, prepare};
use super::gate::Gate;
use super::retry::Backoff;
use super::sender::{Sender, Sent};
use super::target::{self, Target};
use super::writer::{Event, Waiting};
use crate::bulk::batch::{Batch, Receipt};
use crate::bulk::obstacle::Cause;
use crate::bulk::settle::{Open, Settled};

/// Writes letters, and removes them.
#[derive(Clone)]
pub struct Mailbox {
    sender: Sender,
    gate: Gate,
}

enum Step {
    Done(Receipt),
    /// Sent in parts: the next one.
    Next(Batch),
    Wait(Batch, String),
}

impl Mailbox {
    /// A mailbox over a sender.
    pub(super) fn new(sender: Sender, gate: Gate) -> Self {
        Self { sender, gate }
    }

    /// Sends `batch` until all of it is confirmed.
    pub(super) async fn deliver(&self, mut batch: Batch, tell: &mut impl FnMut(Event)) -> Receipt {
        let mut backoff = Backoff::default();
        let mut items_max = usize::MAX;
        if let Some(until) = self.gate.holds(&batch) {
            tokio::time::sleep_until(until.into()).await;
        }
        loop {
            batch = match self.step(batch, &mut items_max).await {
                Step::Done(receipt) => return receipt,
                Step::Next(rest) => rest,
                Step::Wait(rest, reason) => {
                    let pause = backoff.next(None);
                    let reason = format!("dead letters cannot be written: {reason}");
                    let (cause, attempts) = (Cause::DeadLetters, backoff.attempts());
                    tell(Event::Waiting(Waiting { cause, reason, attempts, pause }));
                    tokio::time::sleep(pause).await;
                    rest
                }
            };
        }
    }

    /// Sends each part of `batch` once; its receipt if all of it is confirmed by that.
    pub(super) async fn try_once(&self, mut batch: Batch) -> Option<Receipt> {
        let mut items_max = usize::MAX;
        loop {
            batch = match self.step(batch, &mut items_max).await {
                Step::Done(receipt) => return Some(receipt),
                Step::Next(rest) => rest,
                Step::Wait(..) => return None,
            };
        }
    }

    async fn step(&self, batch: Batch, items_max: &mut usize) -> Step {
        let pass = self.gate.enter(|_| ()).await;
        let head = batch.head(pass.items_max.min(*items_max), pass.bytes_max);
        let items = head.items;
        match self.sender.send(batch, head, self.sender.bulk_timeout()).await {
            Sent::Settled(settled, _) => {
                pass.answered();
                self.settled(settled).await
            }
            Sent::TurnedAway(rest, obstacle, _) => {
                pass.answered();
                Step::Wait(rest, obstacle.to_string())
            }
            Sent::Refused(rest, reason) => {
                pass.answered();
                Step::Wait(rest, reason.to_string())
            }
            Sent::TooLarge(rest) => {
                pass.answered();
                *items_max = (items / 2).max(1);
                Step::Wait(rest, format!("a request of {items} is too large"))
            }
            Sent::NotSent(rest, reason) => {
                pass.failed(true);
                Step::Wait(rest, reason)
            }
            Sent::Unanswered(rest, why) => {
                self.gate.was_unanswered(&rest, items, self.sender.bulk_timeout());
                pass.failed(true);
                Step::Wait(rest, why.reason)
            }
        }
    }

    async fn settled(&self, settled: Settled) -> Step {
        let (mut rest, reason) = match settled {
            Settled::Done(receipt) => return Step::Done(receipt),
            Settled::Again { rest, why: Open::Unsent } => return Step::Next(rest),
            Settled::Again { rest, why: Open::Obstacle(obstacle) } => {
                if obstacle.cause == Cause::Misconfigured {
                    // Deleted by hand, perhaps: what was in it is known to whoever did it.
                    self.make_again().await;
                }
                (rest, obstacle.to_string())
            }
            Settled::Again { rest, why: Open::Doubtful(reason) } => (rest, reason.to_string()),
            Settled::Refused(refused) => {
                let reason = refused.reason().to_string();
                (refused.again(), reason)
            }
        };
        rest.forgive();
        Step::Wait(rest, reason)
    }

    async fn make_again(&self) {
        let client = self.sender.client();
        // Also takes away what stands in the alias's place.
        let looked = target::look(client, &letters_write_alias()).await;
        if !matches!(looked, Ok(Target::Gone { .. })) {
            return;
        }
        if let Err(error) = prepare(client).await {
            warn!(%error, "cannot make the index of the dead letters");
        }
    }
}
