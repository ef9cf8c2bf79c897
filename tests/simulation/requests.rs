//! The lanes: requests in flight, every way in which one can end, and the dead letters of what is refused.
//!
//! Mirrors the delivery of a batch: it is sent in parts until each item has a definite answer; what is
//! refused twice is buried; when all is confirmed, letters of documents that are written now go; then the
//! receipt.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use waldex::bulk::batch::{Batch, Receipt};
use waldex::bulk::obstacle::Rejection;
use waldex::bulk::open::OpenBatch;
use waldex::bulk::refused::Refused;
use waldex::bulk::settle::Settled;
use waldex::bulk::write::Write;
use waldex::pipeline::{LaneId, Pipeline, Tick};

use super::cluster::{Cluster, Item, Versioning};
use super::invariants::Violation;
use super::life::{Ended, Stop};
use super::mutants::{self, Mutant};
use super::world::{LETTERS_ALIAS, World, letter_id};

/// Where a batch is on its way to its receipt.
enum Phase {
    /// It waits until no unanswered request of its transaction can overtake it.
    SetOut(Batch),
    Deliver(Batch),
    /// Refused items wait for their letters.
    Bury(Box<Refused>, Batch),
    /// All is confirmed; letters that are outdated wait to be deleted.
    Clean(Receipt, Batch),
}

struct Request {
    lane: LaneId,
    phase: Phase,
    /// Items in the next request, at most.
    items_max: usize,
    /// Letters that the batch's documents had when it set out, by the letters' ids.
    outdated: BTreeMap<String, i64>,
    /// Letters that it wrote itself.
    buried: BTreeSet<String>,
}

/// The requests in flight of one pipeline.
#[derive(Default)]
pub(crate) struct Requests {
    in_flight: Vec<Request>,
    /// Newest write of each document that was sent: version and step.
    newest: BTreeMap<(String, String), (i64, u64)>,
    loads: bool,
}

impl Requests {
    pub(crate) fn of_load() -> Self {
        Self { loads: true, ..Self::default() }
    }

    /// Takes every batch that is due.
    pub(crate) fn take(&mut self, pipeline: &mut Pipeline, world: &World) {
        for lane in pipeline.lanes().collect::<Vec<_>>() {
            if let Some(batch) = pipeline.take_batch(lane, Tick(world.cluster.now)) {
                let written = Cluster::parse(&batch.body()).unwrap_or_default();
                let letters = world.cluster.documents(LETTERS_ALIAS);
                let has_letter = |id: &String| {
                    let letter = letters.and_then(|letters| letters.get(id));
                    letter.is_some_and(|letter| letter.source.is_some())
                };
                let outdated = written.into_iter().filter_map(|item| {
                    let Versioning::ExternalGte(version) = item.versioning else { return None };
                    Some((letter_id(&item.alias, &item.id), version))
                });
                let outdated = outdated.filter(|(id, _)| has_letter(id)).collect();
                let (phase, buried) = (Phase::SetOut(batch), BTreeSet::new());
                self.in_flight.push(Request {
                    lane,
                    phase,
                    items_max: usize::MAX,
                    outdated,
                    buried,
                });
            }
        }
    }

    /// One of the requests reaches the cluster, or does not, and is answered, or is not.
    pub(crate) fn answer_one(
        &mut self,
        pipeline: &mut Pipeline,
        world: &mut World,
    ) -> Result<(), Stop> {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        let which = world.random.random_range(0..self.in_flight.len());
        let mut request = self.in_flight.swap_remove(which);
        let phase = match request.phase {
            Phase::SetOut(batch) if world.must_wait_for_unanswered(&batch) => Phase::SetOut(batch),
            Phase::SetOut(batch) | Phase::Deliver(batch) => {
                let settled = self.deliver(batch, &mut request.items_max, world)?;
                after(settled, &mut request.buried, &request.outdated, world)?
            }
            Phase::Bury(refused, letters) => match bury(letters, world) {
                Settled::Done(proof) => {
                    let settled = refused.buried(proof);
                    after(settled, &mut request.buried, &request.outdated, world)?
                }
                Settled::Again { rest, .. } => Phase::Bury(refused, rest),
                Settled::Refused(_) => {
                    return Err(Violation::new("dead letters", "a letter is refused").into());
                }
            },
            Phase::Clean(receipt, letters) if letters.items() == 0 => {
                pipeline.finish_batch(request.lane, receipt);
                return Ok(());
            }
            Phase::Clean(receipt, letters) => match bury(letters, world) {
                Settled::Again { rest, .. } => Phase::Clean(receipt, rest),
                Settled::Done(_) | Settled::Refused(_) => {
                    pipeline.finish_batch(request.lane, receipt);
                    return Ok(());
                }
            },
        };
        self.in_flight.push(Request { phase, ..request });
        Ok(())
    }

    /// Sends the first items of a batch.
    fn deliver(
        &mut self,
        batch: Batch,
        items_max: &mut usize,
        world: &mut World,
    ) -> Result<Settled, Stop> {
        let few = world.random.random_range(1..=batch.items());
        let head = batch.head(few.min(*items_max), usize::MAX);
        let items = self.sent(&head.body, world)?;
        let reason = |kind: &str| Rejection { status: 400, kind: kind.to_owned(), field: None };
        if world.fault(world.weather.overload, "request answered 429") {
            return Ok(again(batch));
        }
        if world.fault(world.weather.lost, "lost answer") {
            world.is_unanswered(&batch, head.items);
            world.lose(items);
            return Ok(again(batch));
        }
        if world.cluster.refuses_whole(&items) {
            world.count("request refused whole");
            if head.items > 1 {
                *items_max = head.items / 2;
                return Ok(again(batch));
            }
            return Ok(batch.refuse_first(reason("illegal_argument_exception")));
        }
        *items_max = items_max.saturating_mul(2);
        let overload = world.weather.item_overload;
        let mut answered = world.apply(&items, |world| world.fault(overload, "item answered 429"));
        mutants::read_otherwise(world.mutant, &mut answered);
        let answer = Cluster::answer(&items, &answered);
        let is_cut = world.fault(world.weather.cut, "truncated answer");
        let read = if is_cut { answer.len() / 2 } else { answer.len() };
        Ok(match batch.settle_head(head.items, &answer[..read]) {
            Ok(settled) => settled,
            Err((whole, _)) => {
                world.is_unanswered(&whole, head.items);
                again(whole)
            }
        })
    }

    /// Reads a body as the cluster does, and checks I5 where it arrives.
    fn sent(&mut self, body: &[u8], world: &World) -> Result<Vec<Item>, Violation> {
        let mut items = Cluster::parse(body)
            .map_err(|status| Violation::new("bulk", format!("refused whole with {status}")))?;
        for item in &items {
            let Versioning::ExternalGte(version) = item.versioning else {
                return Err(Violation::new("versions", "an item without external_gte"));
            };
            let step = item.source.as_ref().and_then(|source| source["step"].as_u64());
            let document = (item.alias.clone(), item.id.clone());
            let newest = self.newest.entry(document).or_insert((version, 0));
            let write = (version, step.unwrap_or(newest.1));
            if write.0 < newest.0 || write.1 < newest.1 {
                let what = format!("{}: {write:?} is sent after {newest:?}", item.id);
                return Err(Violation::new("I5", what));
            }
            *newest = write;
        }
        mutants::rewrite(world, self.loads, &mut items);
        Ok(items)
    }

    /// The process is gone: nobody waits for the answers.
    pub(crate) fn abandon(&mut self, world: &mut World) {
        for request in std::mem::take(&mut self.in_flight) {
            let batch = match request.phase {
                // It was not sent.
                Phase::SetOut(_) => continue,
                Phase::Deliver(batch) => batch,
                Phase::Bury(_, letters) | Phase::Clean(_, letters) => letters,
            };
            world.lose(Cluster::parse(&batch.body()).unwrap_or_default());
        }
    }
}

fn again(rest: Batch) -> Settled {
    Settled::Again { rest, why: waldex::bulk::settle::Open::Unsent }
}

/// What comes after an answer.
fn after(
    settled: Settled,
    buried: &mut BTreeSet<String>,
    outdated: &BTreeMap<String, i64>,
    world: &mut World,
) -> Result<Phase, Stop> {
    Ok(match settled {
        Settled::Again { rest, .. } => Phase::Deliver(rest),
        Settled::Done(receipt) => {
            let mut deletes = OpenBatch::new(0);
            for (id, version) in outdated.iter().filter(|(id, _)| !buried.contains(*id)) {
                deletes.push(&Write::delete(&letter_key(id), *version));
            }
            Phase::Clean(receipt, deletes.seal())
        }
        Settled::Refused(_) if world.halts_on_rejected => return Err(Stop::Ended(Ended::Halted)),
        Settled::Refused(refused) => {
            world.count("dead letter");
            let letters = refused.letters(|item, _| {
                let meta = format!("{{{}}}", String::from_utf8_lossy(item.name));
                let meta: serde_json::Value = serde_json::from_str(&meta).expect("a key");
                let text = |name: &str| meta[name].as_str().unwrap_or_default().to_owned();
                let id = letter_id(&text("_index"), &text("_id"));
                let step = serde_json::from_slice::<serde_json::Value>(item.document);
                let step = step.expect("a document")["step"].clone();
                (letter_key(&id), serde_json::json!({ "step": step }).to_string().into_bytes())
            });
            let written = Cluster::parse(&letters.body()).unwrap_or_default();
            buried.extend(written.into_iter().map(|letter| letter.id));
            Phase::Bury(Box::new(refused), letters)
        }
    })
}

fn letter_key(id: &str) -> Vec<u8> {
    format!("\"_index\":{:?},\"_id\":{}", LETTERS_ALIAS, serde_json::Value::from(id)).into_bytes()
}

/// Writes or deletes dead letters: a request like any other, but never late.
fn bury(letters: Batch, world: &mut World) -> Settled {
    let items = Cluster::parse(&letters.body()).expect("a body");
    if world.mutant == Some(Mutant::LetterUnwritten) {
        let done = super::cluster::Answered { status: 200, error: None, index: None };
        let answer = Cluster::answer(&items, &vec![done; items.len()]);
        return letters.settle(&answer).unwrap_or_else(|(whole, _)| again(whole));
    }
    if world.fault(world.weather.overload, "request answered 429") {
        return again(letters);
    }
    let overload = world.weather.item_overload;
    let answered = world.apply(&items, |world| world.fault(overload, "item answered 429"));
    if world.fault(world.weather.lost, "lost answer") {
        return again(letters);
    }
    let answer = Cluster::answer(&items, &answered);
    letters.settle(&answer).unwrap_or_else(|(whole, _)| again(whole))
}
