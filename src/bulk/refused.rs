//! Items that the server refuses for good, and their dead letters.
//!
//! [`Refused`] gives its batch back only for the receipt of its own dead letters: an item that was refused is
//! confirmed when, and only when, its letter is durable.

use super::batch::{Batch, Item, Receipt};
use super::obstacle::Rejection;
use super::open::OpenBatch;
use super::settle::{Fate, Open, Settled};
use super::write::Write;

/// A batch with refused items, which are neither confirmed nor to be sent again.
pub struct Refused {
    items: Batch,
    /// One for each item.
    reasons: Vec<Rejection>,
    first_reason: Rejection,
    rest: Batch,
}

impl Refused {
    pub(super) fn of(
        batch: &Batch,
        fates: &[Fate],
        reasons: Vec<Rejection>,
        first_reason: Rejection,
    ) -> Self {
        let items = batch.only(Fate::Refused, fates);
        let rest = batch.only(Fate::Open, fates);
        assert_eq!(items.items(), reasons.len(), "each refused item has a reason");
        Self { items, reasons, first_reason, rest }
    }

    /// The refused items, each with its reason.
    pub fn items(&self) -> impl ExactSizeIterator<Item = (Item<'_>, &Rejection)> {
        self.items.each().zip(&self.reasons)
    }

    /// Why the first item was refused, where only one can be told.
    pub fn reason(&self) -> &Rejection {
        &self.first_reason
    }

    /// The index that the first item names.
    pub fn index(&self) -> &str {
        self.items.each().next().map_or("", |item| item.index())
    }

    /// The dead letters as a batch. `render` gives the name (`"_index":…,"_id":…`) and the document of an
    /// item's letter, which has the item's version.
    pub fn letters(&self, render: impl Fn(&Item<'_>, &Rejection) -> (Vec<u8>, Vec<u8>)) -> Batch {
        let mut letters = OpenBatch::new(self.items.first());
        for (item, reason) in self.items() {
            let (name, document) = render(&item, reason);
            letters.push(&Write::index(&name, item.version, &document));
        }
        letters.seal()
    }

    /// Takes the refusals back: everything is to be sent again.
    pub fn again(self) -> Batch {
        let mut batch = self.items.with(self.rest);
        batch.forgive();
        batch
    }

    /// The dead letters are durable; `proof` is the receipt of the batch that [`Refused::letters`] made.
    pub fn buried(self, proof: Receipt) -> Settled {
        let letters = proof.applied() + proof.superseded();
        assert_eq!(proof.first(), self.items.first(), "the receipt is of these items' letters");
        assert_eq!(u64::try_from(self.reasons.len()), Ok(letters), "each item has its letter");
        let mut rest = self.rest;
        rest.dead_lettered += letters;
        if rest.items() == 0 {
            Settled::Done(rest.receipt())
        } else {
            Settled::Again { rest, why: Open::Unsent }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::three;
    use super::super::settle::tests::{ONE_REFUSED, THIRD_REFUSED};
    use super::*;

    fn refused() -> Refused {
        let Ok(Settled::Again { rest, .. }) = three().settle(THIRD_REFUSED) else { panic!() };
        let Ok(Settled::Refused(refused)) = rest.settle(ONE_REFUSED) else { panic!() };
        refused
    }

    fn letters(refused: &Refused) -> Batch {
        refused.letters(|item, reason| {
            assert_eq!(item.document, br#"{"a":3}"#);
            let document = format!("{{\"s\":{}}}", reason.status);
            (br#""_index":"dead","_id":"x""#.to_vec(), document.into_bytes())
        })
    }

    #[test]
    fn a_letter_has_the_version_of_its_item() {
        let body = String::from_utf8(letters(&refused()).body().to_vec()).unwrap();
        assert!(body.contains(r#""_id":"x","version":11,"#) && body.ends_with("{\"s\":400}\n"));
    }

    #[test]
    fn the_receipt_of_the_letters_confirms_their_items() {
        let refused = refused();
        let letters = letters(&refused);
        let Ok(Settled::Done(proof)) = letters.settle(br#"{"items":[{"index":{"status":201}}]}"#)
        else {
            panic!()
        };
        let Settled::Done(receipt) = refused.buried(proof) else { panic!() };
        assert_eq!((receipt.applied(), receipt.dead_lettered()), (2, 1));
    }

    #[test]
    #[should_panic(expected = "each item has its letter")]
    fn the_receipt_of_another_batch_confirms_nothing() {
        let answer = br#"{"items":[{"index":{"status":201}},{"delete":{"status":200}},
            {"index":{"status":200}}]}"#;
        let Ok(Settled::Done(other)) = three().settle(answer) else { panic!() };
        let _ = refused().buried(other);
    }
}
