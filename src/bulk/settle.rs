//! What an answer makes of a batch.
//!
//! A batch is consumed by [`Batch::settle`], which gives a receipt, a smaller batch of what is still to be
//! confirmed, or one with [`Refused`] items. Nothing else makes a receipt: each item was applied, superseded by
//! something newer, or its dead letter was confirmed in its place.

use super::answer::{self, AnswerError, Outcome};
use super::batch::{Batch, Receipt};
use super::obstacle::{Obstacle, Rejection};
use super::pending::Pending;
use super::refused::Refused;

/// A refusal counts when it was given so often. Between the first and the second the index is looked at: where
/// that is at fault, the server's answers are often the same (400, `illegal_argument_exception`).
const REFUSALS_TO_BELIEVE: u8 = 2;

/// What an answer made of a batch.
pub enum Settled {
    /// Every item is confirmed.
    Done(Receipt),
    /// Something is still to be confirmed.
    Again {
        /// It.
        rest: Batch,
        /// Why.
        why: Open,
    },
    /// Items were refused for good.
    Refused(Refused),
}

/// Why items of a batch are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// They were not sent yet.
    Unsent,
    /// The server could not write them now.
    Obstacle(Obstacle),
    /// One was refused, which counts only when it is refused again.
    Doubtful(Rejection),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Confirmed,
    Open,
    Refused,
}

impl Batch {
    /// Applies the answer to all of its items. An answer that does not match gives the batch back whole: any
    /// subset of its items may have been applied, and sending all of them again is harmless.
    pub fn settle(self, answer: &[u8]) -> Result<Settled, (Self, AnswerError)> {
        let items = self.entries.len();
        self.settle_head(items, answer)
    }

    /// Applies the answer to a request of its first `items`.
    pub fn settle_head(
        mut self,
        items: usize,
        answer: &[u8],
    ) -> Result<Settled, (Self, AnswerError)> {
        let outcomes = match self.outcomes(items, answer) {
            Ok(outcomes) => outcomes,
            Err(error) => return Err((self, error)),
        };
        let mut why = Open::Unsent;
        let mut reasons = Vec::new();
        let mut fates = Vec::with_capacity(outcomes.len());
        for (entry, outcome) in self.entries.iter_mut().zip(outcomes) {
            fates.push(match outcome {
                Outcome::Applied | Outcome::AlreadyGone => {
                    self.applied += 1;
                    Fate::Confirmed
                }
                Outcome::Superseded => {
                    self.superseded += 1;
                    Fate::Confirmed
                }
                Outcome::Retry(obstacle) => {
                    why = why.or_worse(obstacle);
                    Fate::Open
                }
                Outcome::Rejected(reason) => refuse(entry, reason, &mut reasons, &mut why),
            });
        }
        Ok(self.part(&fates, reasons, why))
    }

    /// What became of each of the first `items`.
    fn outcomes(&self, items: usize, answer: &[u8]) -> Result<Vec<Outcome>, AnswerError> {
        let mut outcomes = answer::outcomes(answer, &self.sent(items))?;
        if self.has_leads(items) {
            let mut of_lines = outcomes.into_iter();
            outcomes = Vec::with_capacity(items);
            for (entry, lines) in self.lines().take(items) {
                let lines = of_lines.by_ref().take(entry.leads(lines) + 1);
                outcomes.extend(lines.reduce(Outcome::and));
            }
        }
        Ok(outcomes)
    }

    /// The server turned away a request of the first item alone. If that was more than its write, the deletes
    /// that come first are sent without it: the document must go from where it was, whatever becomes of the new.
    pub fn refuse_first(mut self, reason: Rejection) -> Settled {
        let mut why = Open::Unsent;
        if self.part_first() {
            return Settled::Again { rest: self, why };
        }
        let mut reasons = Vec::new();
        let first = self.entries.first_mut();
        let fate = first.map(|entry| refuse(entry, reason, &mut reasons, &mut why));
        self.part(fate.as_slice(), reasons, why)
    }

    /// The index or alias of the first item that was refused once.
    pub fn doubtful_index(&self) -> Option<&str> {
        let items = self.entries.iter().zip(self.each());
        let mut doubtful = items.filter(|(entry, _)| entry.refusals > 0);
        doubtful.next().map(|(_, item)| item.index())
    }

    /// Takes every refusal back: the index was at fault.
    pub fn forgive(&mut self) {
        for entry in &mut self.entries {
            entry.refusals = 0;
        }
    }

    /// Parts the items by their fates; those beyond `fates` are open.
    fn part(self, fates: &[Fate], reasons: Vec<Rejection>, why: Open) -> Settled {
        if let Some(first) = reasons.first().cloned() {
            return Settled::Refused(Refused::of(&self, fates, reasons, first));
        }
        let rest = self.only(Fate::Open, fates);
        if rest.entries.is_empty() {
            Settled::Done(rest.receipt())
        } else {
            Settled::Again { rest, why }
        }
    }
}

fn refuse(
    entry: &mut Pending,
    reason: Rejection,
    reasons: &mut Vec<Rejection>,
    why: &mut Open,
) -> Fate {
    entry.refusals = entry.refusals.saturating_add(1);
    if entry.refusals >= REFUSALS_TO_BELIEVE {
        reasons.push(reason);
        return Fate::Refused;
    }
    *why = Open::Doubtful(reason);
    Fate::Open
}

impl Open {
    /// A doubt is looked into before anything else; of obstacles the more important is told.
    fn or_worse(self, other: Obstacle) -> Self {
        match self {
            Self::Unsent => Self::Obstacle(other),
            Self::Obstacle(known) => Self::Obstacle(known.or_worse(other)),
            Self::Doubtful(_) => self,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::answer::Action;
    use super::super::batch::tests::{batch, three};
    use super::super::obstacle::Cause;
    use super::super::open::OpenBatch;
    use super::super::write::{Write, write_routing};
    use super::*;

    pub(in crate::bulk) const THIRD_REFUSED: &[u8] = br#"{"items":[{"index":{"status":201}},
        {"delete":{"status":200}},{"index":{"status":400,"error":{"type":"document_parsing_exception"}}}]}"#;
    pub(in crate::bulk) const ONE_REFUSED: &[u8] =
        br#"{"items":[{"index":{"status":400,"error":{"type":"document_parsing_exception"}}}]}"#;

    #[test]
    fn only_what_the_server_could_not_do_is_sent_again() {
        let answer = br#"{"items":[{"index":{"status":201}},{"delete":{"status":429,
            "error":{"type":"es_rejected_execution_exception"}}},{"index":{"status":409}}]}"#;
        let Ok(Settled::Again { rest, why: Open::Obstacle(obstacle) }) = three().settle(answer)
        else {
            panic!()
        };
        assert_eq!((rest.items(), obstacle.cause), (1, Cause::Overload));
        assert_eq!(obstacle.index.as_deref(), Some("i-write"));
        assert!(rest.body().starts_with(br#"{"delete":{"_index":"i-write","_id":"2""#));
        let Ok(Settled::Done(receipt)) = rest.settle(br#"{"items":[{"delete":{"status":404}}]}"#)
        else {
            panic!()
        };
        assert_eq!((receipt.applied(), receipt.superseded()), (2, 1));
    }

    #[test]
    fn a_refusal_counts_only_when_it_is_repeated() {
        let Ok(Settled::Again { rest, why: Open::Doubtful(reason) }) =
            three().settle(THIRD_REFUSED)
        else {
            panic!()
        };
        assert_eq!((rest.items(), reason.status), (1, 400));
        let Ok(Settled::Refused(refused)) = rest.settle(ONE_REFUSED) else { panic!() };
        assert_eq!(refused.items().len(), 1);
    }

    fn moved() -> Batch {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        write_routing(b"from", &mut from);
        write_routing(b"to", &mut to);
        let mut batch = OpenBatch::new(0);
        let name = br#""_index":"i-write","_id":"1""#;
        batch.push(&Write::index(name, 7, b"{}").routed(&to).leaving(&from));
        batch.seal()
    }

    #[test]
    fn a_write_is_done_when_the_deletes_before_it_are() {
        let answer = |first: &str, then: &str| {
            format!(r#"{{"items":[{{"delete":{first}}},{{"index":{then}}}]}}"#)
        };
        let (done, busy) = (r#"{"status":200}"#, r#"{"status":429,"error":{"type":"t"}}"#);
        let no = r#"{"status":400,"error":{"type":"t"}}"#;
        let newer = r#"{"status":409}"#;
        for (first, then) in [(busy, done), (done, busy), (busy, no), (no, busy)] {
            let settled = moved().settle(answer(first, then).as_bytes());
            let Ok(Settled::Again { rest, why: Open::Obstacle(_) }) = settled else { panic!() };
            assert_eq!(rest.body(), moved().body(), "both are sent again");
        }
        let Ok(Settled::Done(receipt)) = moved().settle(answer(newer, done).as_bytes()) else {
            panic!()
        };
        assert_eq!((receipt.applied(), receipt.superseded()), (1, 0));
        assert!(moved().settle(br#"{"items":[{"index":{"status":200}}]}"#).is_err());
    }

    #[test]
    fn refused_as_a_whole_the_deletes_go_first_and_the_write_after_them() {
        let reason = Rejection { status: 413, kind: "t".to_owned(), field: None };
        let Settled::Again { rest, why: Open::Unsent } = moved().refuse_first(reason) else {
            panic!()
        };
        let head = rest.head(10, usize::MAX);
        assert_eq!((rest.items(), head.items), (2, 1));
        assert!(head.body.starts_with(b"{\"delete\"") && !head.body.ends_with(b"{}\n"));
        let answer = br#"{"items":[{"delete":{"status":404}}]}"#;
        let Ok(Settled::Again { rest, .. }) = rest.settle_head(head.items, answer) else {
            panic!()
        };
        let head = rest.head(10, usize::MAX);
        assert!(head.items == 1 && head.body.starts_with(b"{\"index\""));
    }

    #[test]
    fn forgiven_items_start_again() {
        let Ok(Settled::Again { mut rest, .. }) = three().settle(THIRD_REFUSED) else { panic!() };
        rest.forgive();
        assert!(matches!(rest.settle(ONE_REFUSED), Ok(Settled::Again { .. })));
    }

    #[test]
    fn an_unmatched_answer_gives_the_batch_back_whole() {
        let answer = br#"{"items":[{"index":{"status":201}}]}"#;
        match three().settle(answer) {
            Err((batch, AnswerError::WrongCount { sent: 3, answered: 1 })) => {
                assert_eq!(batch.items(), 3);
            }
            _ => panic!("must be unknown"),
        }
    }

    /// What the server says of one item: answer's status, and what it makes of the item.
    #[derive(Clone, Copy, Debug)]
    enum Says {
        Applied,
        Newer,
        Busy,
        No,
    }

    fn answer(says: &[Says]) -> String {
        let item = |says: &Says| match says {
            Says::Applied => r#"{"index":{"status":200}}"#,
            Says::Newer => r#"{"index":{"status":409}}"#,
            Says::Busy => r#"{"index":{"status":429,"error":{"type":"t"}}}"#,
            Says::No => r#"{"index":{"status":400,"error":{"type":"t"}}}"#,
        };
        format!("{{\"items\":[{}]}}", says.iter().map(item).collect::<Vec<_>>().join(","))
    }

    proptest! {
        /// Whatever the parts, the answers and their order: each document is confirmed exactly once, by the
        /// server or by its dead letter, and the receipt counts them all.
        #[test]
        fn every_item_is_confirmed_once(
            count in 1usize..20,
            rounds in prop::collection::vec(
                (1usize..8, prop::collection::vec(
                    prop_oneof![Just(Says::Applied), Just(Says::Newer), Just(Says::Busy), Just(Says::No)], 20)),
                0..30),
        ) {
            let ids: Vec<String> = (0..count).map(|id| id.to_string()).collect();
            let items: Vec<_> =
                ids.iter().map(|id| (Action::Index, id.as_str(), 7, r#"{"x":1}"#)).collect();
            let mut rest = Some(batch(&items));
            let mut confirmed = Vec::new();
            let mut receipt = None;
            let all = (20, vec![Says::Applied; 20]);
            for (part, says) in rounds.into_iter().chain([all]) {
                let Some(batch) = rest.take() else { break };
                let head = batch.head(part, usize::MAX);
                let before: Vec<Vec<u8>> = batch.each().map(|item| item.name.to_vec()).collect();
                let settled = batch.settle_head(head.items, answer(&says[..head.items]).as_bytes());
                let settled = match settled.map_err(|(_, error)| error).unwrap() {
                    Settled::Refused(refused) => {
                        let letters =
                            refused.letters(|item, _| (item.name.to_vec(), b"{}".to_vec()));
                        let written = answer(&vec![Says::Applied; letters.items()]);
                        let Ok(Settled::Done(proof)) = letters.settle(written.as_bytes()) else {
                            panic!("the letters are applied")
                        };
                        refused.buried(proof)
                    }
                    settled @ (Settled::Done(_) | Settled::Again { .. }) => settled,
                };
                let after = match settled {
                    Settled::Done(done) => {
                        receipt = Some(done);
                        Vec::new()
                    }
                    Settled::Again { rest: open, .. } => {
                        let keys = open.each().map(|item| item.name.to_vec()).collect();
                        rest = Some(open);
                        keys
                    }
                    Settled::Refused(_) => panic!("buried"),
                };
                confirmed.extend(before.into_iter().filter(|key| !after.contains(key)));
            }
            let receipt = receipt.unwrap();
            let total = receipt.applied() + receipt.superseded() + receipt.dead_lettered();
            prop_assert_eq!(usize::try_from(total).unwrap(), count);
            confirmed.sort();
            confirmed.dedup();
            prop_assert_eq!(confirmed.len(), count);
        }
    }
}
