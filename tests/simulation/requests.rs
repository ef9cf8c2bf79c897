//! The lanes: requests in flight, and every way in which one can end.

use std::collections::BTreeMap;

use rand::RngExt;
use waldex::bulk::batch::Batch;
use waldex::bulk::settle::Settled;
use waldex::pipeline::{LaneId, Pipeline, Tick};

use super::cluster::{Cluster, Item, Versioning};
use super::invariants::Violation;
use super::life::{Ended, Stop};
use super::mutants;
use super::world::World;

struct Request {
    lane: LaneId,
    batch: Batch,
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
                self.in_flight.push(Request { lane, batch });
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
        let Request { lane, batch } = self.in_flight.swap_remove(which);
        let items = self.sent(&batch, world)?;
        if world.fault(world.weather.overload, "request answered 429") {
            self.in_flight.push(Request { lane, batch });
            return Ok(());
        }
        if world.fault(world.weather.lost, "lost answer") {
            world.lose(items);
            self.in_flight.push(Request { lane, batch });
            return Ok(());
        }
        let overload = world.weather.item_overload;
        let mut answered = world.apply(&items, |world| world.fault(overload, "item answered 429"));
        mutants::skip_failed(world.mutant, &mut answered);
        let answer = Cluster::answer(&items, &answered);
        let is_cut = world.fault(world.weather.cut, "truncated answer");
        let read = if is_cut { answer.len() / 2 } else { answer.len() };
        match batch.settle(&answer[..read]) {
            Ok(Settled::Done(receipt)) => pipeline.finish_batch(lane, receipt),
            Ok(Settled::Again { rest, .. }) => self.in_flight.push(Request { lane, batch: rest }),
            Err((whole, _)) => self.in_flight.push(Request { lane, batch: whole }),
            Ok(Settled::Refused { .. }) => return Err(Stop::Ended(Ended::Halted)),
        }
        Ok(())
    }

    /// Reads a body as the cluster does, and checks I5 where it arrives.
    fn sent(&mut self, batch: &Batch, world: &World) -> Result<Vec<Item>, Violation> {
        let mut items = Cluster::parse(&batch.body())
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
        for Request { batch, .. } in std::mem::take(&mut self.in_flight) {
            if let Ok(items) = self.sent(&batch, world) {
                world.lose(items);
            }
        }
    }
}
