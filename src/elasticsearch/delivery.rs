//! The delivery of one batch: what to do about each kind of answer, until every item is confirmed, or all that
//! is left is of indices that cannot be written to now.

use std::collections::HashSet;
use std::time::Duration;

use super::gate::{Hold, Pass};
use super::retry::Backoff;
use super::sender::{Sent, Unanswered};
use super::target::{self, Target};
use super::writer::{Event, Hindered, Hindrance, Waiting, WriteError, Writer};
use crate::bulk::batch::{Batch, Receipt};
use crate::bulk::obstacle::{Cause, Obstacle, Rejection};
use crate::bulk::settle::{Open, Settled};

/// A connection that breaks under a smaller body than this says nothing about a limit of size.
const SUSPECT_BYTES_MIN: usize = 256 * 1024;
/// So often must the connection break under one document alone, while small writes succeed, before it counts
/// as too large. By then the pauses add up to a quarter of a minute.
const BREAKS_TO_BELIEVE: u32 = 8;
/// A single operation over a tenth of the server's heap is answered 429 for ever. A document from this size on
/// that is turned away alone, while small writes succeed, ...
const OVERSIZE_BYTES_MIN: usize = 1024 * 1024;
/// ... so often, with pauses of a minute in all, counts as too large.
const LONE_OVERLOADS_TO_BELIEVE: u32 = 12;
/// A pause so long is told whatever it is for: nothing may move meanwhile, and that is no reason for a restart.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// How far a delivery came.
pub enum Delivered {
    /// Every item is confirmed.
    Done(Receipt),
    /// What is left is of hindered indices only.
    Stuck(Batch),
}

/// One batch on its way.
pub(super) struct Delivery<'a, F> {
    pub(super) writer: &'a Writer,
    pub(super) tell: F,
    backoff: Backoff,
    /// The server gives up on each request after this time.
    timeout: Duration,
    /// What cannot be written to.
    pub(super) hindered: Hindered,
    /// Items in the next request, at most: halved to find the one at fault.
    pub(super) items_max: usize,
    /// Connections that broke since the last progress.
    breaks: u32,
    /// Requests of one large document that were turned away since the last progress.
    lone_overloads: u32,
    /// Indices that were looked at after a first refusal of one of their documents, and are as they must be.
    pub(super) sound: HashSet<String>,
    /// Hashes of the documents that were buried.
    pub(super) buried: HashSet<u64>,
}

/// What comes of an answer.
pub(super) enum Next {
    Done(Receipt),
    Send(Batch),
}

/// The request that was sent.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) items: usize,
    pub(super) bytes: usize,
    /// Items of the batch that were open before.
    open: usize,
}

impl<'a, F: FnMut(Event)> Delivery<'a, F> {
    pub(super) fn new(writer: &'a Writer, hindered: Hindered, timeout: Duration, tell: F) -> Self {
        Self {
            writer,
            tell,
            backoff: Backoff::default(),
            timeout,
            hindered,
            items_max: usize::MAX,
            breaks: 0,
            lone_overloads: 0,
            sound: HashSet::new(),
            buried: HashSet::new(),
        }
    }

    /// What cannot be written to, and the documents that were refused and have a dead letter now.
    pub(super) fn into_parts(self) -> (Hindered, HashSet<u64>) {
        (self.hindered, self.buried)
    }

    pub(super) async fn run(&mut self, mut batch: Batch) -> Result<Delivered, WriteError> {
        loop {
            let free = match self.hindered.is_empty() {
                true => batch.items(),
                false => batch.hold_back(|index| self.hindered.contains_key(index)),
            };
            if free == 0 {
                return Ok(Delivered::Stuck(batch));
            }
            let pass = self.enter().await;
            let items_max = free.min(pass.items_max).min(self.items_max);
            let head = batch.head(items_max, pass.bytes_max);
            let size = Size { items: head.items, bytes: head.body.len(), open: batch.items() };
            let next = match self.writer.sender.send(batch, head, self.timeout).await {
                Sent::Settled(settled, retry_after) => {
                    self.settled(settled, pass, size, retry_after).await?
                }
                Sent::TurnedAway(batch, obstacle, retry_after) => {
                    self.turned_away(batch, obstacle, pass, size, retry_after).await?
                }
                Sent::Refused(batch, reason) => {
                    pass.answered();
                    self.refused_whole(batch, reason, size).await?
                }
                Sent::TooLarge(batch) => {
                    pass.answered();
                    if size.items > 1 {
                        self.writer.gate.too_large(size.bytes);
                    }
                    self.refused_whole(batch, too_large("the server takes no such request"), size)
                        .await?
                }
                Sent::NotSent(batch, reason) => {
                    pass.failed(self.counts());
                    self.pause(Cause::Unreachable, reason, None).await;
                    Next::Send(batch)
                }
                Sent::Unanswered(batch, why) => self.unanswered(batch, why, pass, size).await?,
            };
            match next {
                Next::Done(receipt) => return Ok(Delivered::Done(receipt)),
                Next::Send(rest) => batch = rest,
            }
        }
    }

    async fn enter(&mut self) -> Pass {
        let (tell, attempts) = (&mut self.tell, self.backoff.attempts());
        let waits = |hold: Hold| {
            if matches!(hold, Hold::Asked(pause) if pause < LONG_PAUSE) {
                return;
            }
            let (cause, reason, pause) = hold.told();
            tell(Event::Waiting(Waiting { cause, reason, attempts, pause }));
        };
        self.writer.gate.enter(waits).await
    }

    /// The first attempts may each have met the same dead node of several: they do not open the circuit.
    fn counts(&self) -> bool {
        self.backoff.attempts() >= self.writer.quick_retries
    }

    /// Something was confirmed.
    pub(super) fn progressed(&mut self) {
        self.backoff = Backoff::default();
        self.breaks = 0;
        self.lone_overloads = 0;
        self.items_max = self.items_max.saturating_mul(2);
    }

    async fn settled(
        &mut self,
        settled: Settled,
        pass: Pass,
        size: Size,
        retry_after: Option<u64>,
    ) -> Result<Next, WriteError> {
        let (rest, why) = match settled {
            Settled::Done(receipt) => {
                pass.accepted(size.items);
                return Ok(Next::Done(receipt));
            }
            Settled::Again { rest, why } => (rest, why),
            Settled::Refused(refused) => {
                pass.answered();
                self.progressed();
                return self.bury(refused).await;
            }
        };
        match why {
            Open::Unsent => {
                pass.accepted(size.items);
                self.progressed();
                Ok(Next::Send(rest))
            }
            Open::Doubtful(reason) => {
                pass.answered();
                self.doubt(rest, &reason).await.map(Next::Send)
            }
            Open::Obstacle(obstacle) if obstacle.cause == Cause::Overload => {
                pass.throttled(size.items);
                self.overloaded(rest, obstacle, size, retry_after).await
            }
            Open::Obstacle(obstacle) => {
                pass.answered();
                self.hindered(rest, &obstacle, retry_after).await
            }
        }
    }

    async fn turned_away(
        &mut self,
        batch: Batch,
        obstacle: Obstacle,
        pass: Pass,
        size: Size,
        retry_after: Option<u64>,
    ) -> Result<Next, WriteError> {
        if obstacle.cause == Cause::Overload {
            pass.turned_away(size.items);
            if let Some(seconds) = retry_after {
                self.writer.gate.pause(Backoff::asked(seconds));
            }
            return self.overloaded(batch, obstacle, size, retry_after).await;
        }
        pass.answered();
        self.hindered(batch, &obstacle, retry_after).await
    }

    /// Only what was turned away is sent again. If something was taken, the throttle makes the next request smaller,
    /// and it may come soon. If nothing was, one item may be at fault: one document that stays alone with that may
    /// be one that the server never takes.
    async fn overloaded(
        &mut self,
        rest: Batch,
        obstacle: Obstacle,
        size: Size,
        retry_after: Option<u64>,
    ) -> Result<Next, WriteError> {
        if rest.items() < size.open {
            (self.backoff, self.lone_overloads) = (Backoff::default(), 0);
        } else if size.items > 1 {
            self.items_max = self.items_max.min(size.items).div_ceil(2);
        } else if size.bytes >= OVERSIZE_BYTES_MIN {
            // A server that takes nothing at all says nothing about this one.
            let takes_others = self.takes_small_writes(&rest).await;
            self.lone_overloads = if takes_others { self.lone_overloads + 1 } else { 0 };
            if self.lone_overloads >= LONE_OVERLOADS_TO_BELIEVE {
                let Obstacle { status, kind, .. } = obstacle;
                return self.refused_first(rest, Rejection { status, kind, field: None }).await;
            }
        }
        self.pause(obstacle.cause, obstacle.to_string(), retry_after).await;
        Ok(Next::Send(rest))
    }

    /// Anything that is neither load nor a refusal: of one index, or of the whole request.
    async fn hindered(
        &mut self,
        rest: Batch,
        obstacle: &Obstacle,
        retry_after: Option<u64>,
    ) -> Result<Next, WriteError> {
        let is_brief =
            obstacle.cause == Cause::Auth && self.writer.sender.client().reread_secret().await;
        let Some(index) = obstacle.only_of() else {
            if is_brief {
                self.pause_briefly(obstacle).await;
            } else {
                self.pause(obstacle.cause, obstacle.to_string(), retry_after).await;
            }
            return Ok(Next::Send(rest));
        };
        let mut reason = obstacle.to_string();
        if obstacle.cause == Cause::Misconfigured {
            match target::look(self.writer.sender.client(), index).await {
                Ok(Target::Gone { index }) => return Err(WriteError::IndexGone { index }),
                Ok(Target::Unsound(what)) => reason = what,
                // Put right a moment ago, or closed, which only the server's own error says.
                Ok(Target::Sound) | Err(_) => {}
            }
        }
        let hindrance = Hindrance { cause: obstacle.cause, reason, is_brief };
        self.hindered.insert(index.to_owned(), hindrance);
        Ok(Next::Send(rest))
    }

    /// The same items are sent again until each has a definite answer. A connection that breaks under a large
    /// body may be how a server, or a proxy before it, says that it is too large.
    async fn unanswered(
        &mut self,
        batch: Batch,
        why: Unanswered,
        pass: Pass,
        size: Size,
    ) -> Result<Next, WriteError> {
        let Unanswered { reason, is_broken, retry_after_seconds } = why;
        self.writer.gate.was_unanswered(&batch, size.items, self.timeout);
        let is_suspect = is_broken && size.bytes >= SUSPECT_BYTES_MIN;
        if !is_suspect || !self.takes_small_writes(&batch).await {
            self.breaks = 0;
            pass.failed(self.counts());
            if let Some(seconds) = retry_after_seconds {
                self.writer.gate.pause(Backoff::asked(seconds));
            }
            self.pause(Cause::Unreachable, reason, retry_after_seconds).await;
            return Ok(Next::Send(batch));
        }
        pass.answered();
        if size.items > 1 {
            self.items_max = size.items / 2;
        } else {
            self.breaks += 1;
            if self.breaks >= BREAKS_TO_BELIEVE {
                let reason = too_large("the connection breaks whenever it is sent");
                return self.refused_first(batch, reason).await;
            }
        }
        self.pause(Cause::Unreachable, reason, None).await;
        Ok(Next::Send(batch))
    }

    async fn takes_small_writes(&self, batch: &Batch) -> bool {
        match batch.each().next() {
            Some(item) => {
                target::takes_small_writes(self.writer.sender.client(), item.index()).await
            }
            None => false,
        }
    }

    async fn pause_briefly(&mut self, obstacle: &Obstacle) {
        let pause = self.backoff.next(None);
        self.say(obstacle.cause, obstacle.to_string(), pause);
        tokio::time::sleep(pause).await;
    }

    pub(super) async fn pause(&mut self, cause: Cause, reason: String, retry_after: Option<u64>) {
        let pause = if cause.needs_operator() {
            self.backoff.next_slow()
        } else {
            self.backoff.next(retry_after)
        };
        self.say(cause, reason, pause);
        tokio::time::sleep(pause).await;
    }

    fn say(&mut self, cause: Cause, reason: String, pause: Duration) {
        let attempts = self.backoff.attempts();
        if attempts > self.writer.quick_retries || cause.needs_operator() || pause >= LONG_PAUSE {
            (self.tell)(Event::Waiting(Waiting { cause, reason, attempts, pause }));
        }
    }
}

fn too_large(how: &str) -> Rejection {
    Rejection { status: 413, kind: format!("too large: {how}"), field: None }
}
