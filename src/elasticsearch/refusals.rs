//! What a delivery does about refused documents: it makes sure that it is them and not their index, then buries
//! them.

use super::delivery::{Delivery, Next, Size};
use super::target::{self, Target};
use super::writer::{Event, Hindrance, WriteError};
use crate::bulk::batch::Batch;
use crate::bulk::obstacle::{Cause, Rejection};
use crate::bulk::refused::Refused;
use crate::bulk::settle::{Open, Settled};

impl<F: FnMut(Event)> Delivery<'_, F> {
    /// A request that is refused as a whole is halved until the item at fault stands alone.
    pub(super) async fn refused_whole(
        &mut self,
        batch: Batch,
        reason: Rejection,
        size: Size,
    ) -> Result<Next, WriteError> {
        if size.items > 1 {
            self.items_max = size.items / 2;
            return Ok(Next::Send(batch));
        }
        self.refused_first(batch, reason).await
    }

    pub(super) async fn refused_first(
        &mut self,
        batch: Batch,
        reason: Rejection,
    ) -> Result<Next, WriteError> {
        match batch.refuse_first(reason) {
            Settled::Done(receipt) => Ok(Next::Done(receipt)),
            Settled::Again { rest, why: Open::Doubtful(reason) } => {
                self.doubt(rest, &reason).await.map(Next::Send)
            }
            Settled::Again { rest, why: Open::Unsent | Open::Obstacle(_) } => Ok(Next::Send(rest)),
            Settled::Refused(refused) => {
                self.progressed();
                self.bury(refused).await
            }
        }
    }

    /// A first refusal: the index may be at fault. It counts only if the index is as it must be, and the same
    /// documents are refused once more.
    pub(super) async fn doubt(
        &mut self,
        rest: Batch,
        reason: &Rejection,
    ) -> Result<Batch, WriteError> {
        match rest.doubtful_index().map(str::to_owned) {
            Some(index) => self.look_at(index, rest, reason).await,
            None => Ok(rest),
        }
    }

    async fn look_at(
        &mut self,
        index: String,
        mut rest: Batch,
        reason: &Rejection,
    ) -> Result<Batch, WriteError> {
        match target::look(self.writer.sender.client(), &index).await {
            Ok(Target::Sound) => drop(self.sound.insert(index)),
            Ok(Target::Gone { index }) => return Err(WriteError::IndexGone { index }),
            Ok(Target::Unsound(what)) => {
                rest.forgive();
                let (cause, reason) = (Cause::Misconfigured, format!("{what} ({reason})"));
                self.hindered.insert(index, Hindrance { cause, reason, is_brief: false });
            }
            Err(error) => {
                rest.forgive();
                self.pause(Cause::Unreachable, error.to_string(), None).await;
            }
        }
        Ok(rest)
    }

    pub(super) async fn bury(&mut self, refused: Refused) -> Result<Next, WriteError> {
        // Of several indices in one request, one alone is looked at for each doubt.
        let is_unseen = |index: &&str| !self.sound.contains(*index);
        let unseen = refused.items().map(|(item, _)| item.index()).find(is_unseen);
        if let Some(index) = unseen.map(str::to_owned) {
            let reason = refused.reason().clone();
            return self.look_at(index, refused.again(), &reason).await.map(Next::Send);
        }
        let Some(letters) = &self.writer.letters else {
            let (index, reason) = (refused.index().to_owned(), refused.reason().clone());
            return Err(WriteError::Rejected { index, reason });
        };
        let buried = letters.bury(refused, &mut self.tell).await?;
        self.buried.extend(buried.hashes);
        self.sound.clear();
        Ok(match buried.settled {
            Settled::Done(receipt) => Next::Done(receipt),
            Settled::Again { rest, .. } => Next::Send(rest),
            Settled::Refused(refused) => return Box::pin(self.bury(refused)).await,
        })
    }
}
