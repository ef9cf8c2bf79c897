//! A life of the process, as the shell leads it: prove continuity, load what is missing, stream.
//!
//! Mirrors `run` step by step, with dice where the shell has timers and sockets. Each step may be the
//! last.

use std::collections::VecDeque;

use rand::RngExt;
use waldex::document::Field;
use waldex::lsn::Lsn;
use waldex::pipeline::{BatchLimits, Epoch, Limits, Pipeline, Plan};
use waldex::visibility::Snapshot;

use super::invariants::Violation;
use super::mutants::Mutant;
use super::requests::Requests;
use super::shape::{KEYS, Key, Row, Shape};
use super::stream::Stream;
use super::world::{State, TableState, World};

/// Bytes between decode and confirmation.
pub(crate) const BUDGET_BYTES: usize = 3_000;
/// What one frame can add to them: two writes of one row.
pub(crate) const FRAME_BYTES_MAX: usize = 1_000;
/// Rows of a chunk of the load.
const CHUNK_ROWS: usize = 4;

/// How a life, or one connection of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing is left to do.
    AtRest,
    /// `kill -9`.
    Crashed,
    /// SIGTERM.
    Stopped,
    /// The connection to Postgres broke.
    Disconnected,
    /// A document was refused for good.
    Halted,
    /// Continuity cannot be proven.
    NeedsResync(&'static str),
}

/// Why a life goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    Ended(Ended),
    Violated(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violated(violation)
    }
}

impl From<waldex::pipeline::PipelineError> for Stop {
    fn from(error: waldex::pipeline::PipelineError) -> Self {
        Self::Violated(Violation::new("no error", error.to_string()))
    }
}

/// Runs from start to end.
pub(crate) fn live(world: &mut World) -> Result<Ended, Violation> {
    world.begin_life();
    establish(world);
    world.written = state(world).written.take();
    if world.written.is_none() {
        world.inherit(world.source.wal_end);
    }
    loop {
        let ended = match connection(world) {
            Ok(ended) | Err(Stop::Ended(ended)) => ended,
            Err(Stop::Violated(violation)) => return Err(violation),
        };
        if ended != Ended::Disconnected {
            return Ok(ended);
        }
    }
}

/// The state as it was left, or a new one with everything to be loaded.
fn establish(world: &mut World) {
    let Some(state) = &mut world.state else {
        resync(world);
        return;
    };
    let tables: Vec<Shape> = state.tables.keys().copied().collect();
    if world.fault(world.weather.reload, "reload of a table") {
        let table = tables[world.random.random_range(0..tables.len())];
        if let Some(entry) = world.state.as_mut().and_then(|state| state.tables.get_mut(&table)) {
            *entry = TableState { generation: entry.generation + 1, loaded: None };
        }
    }
    create_indices(world);
}

/// `run --reload`, or the first run: a state for the slot as it stands, all tables into new indices.
pub(crate) fn resync(world: &mut World) {
    let durable = match world.source.slot {
        Some(slot) => slot.confirmed,
        None => world.source.create_slot(),
    };
    let generation = |table| {
        let known = world.state.as_ref().and_then(|state| state.tables.get(&table));
        known.map_or(1, |known| known.generation + 1)
    };
    let entry = |table| (table, TableState { generation: generation(table), loaded: None });
    let tables = World::tables().map(entry).collect();
    world.state =
        Some(State { timeline: world.source.timeline, durable, written: Some(durable), tables });
    world.was_tampered_with = false;
    create_indices(world);
}

/// Each attempt at a load has an index of its own: the rows of another one could be older, or gone, and the
/// changes that its snapshot has seen are not sent again.
fn new_generation(world: &mut World, table: Shape) {
    if let Some(entry) = state(world).tables.get_mut(&table) {
        entry.generation += 1;
    }
    create_indices(world);
}

fn create_indices(world: &mut World) {
    for (table, entry) in world.state.iter().flat_map(|state| &state.tables) {
        let index = table.index(entry.generation);
        world.cluster.create(&table.alias(entry.generation), &index);
    }
}

fn state(world: &mut World) -> &mut State {
    world.state.as_mut().expect("established")
}

/// One connection: the gap test, what is missing, the stream.
fn connection(world: &mut World) -> Result<Ended, Stop> {
    if let Some(reason) = discontinuity(world) {
        if reason == "gap" && !world.was_tampered_with {
            let what = "the slot is ahead of the state, and nobody moved either";
            return Err(Violation::new("P5", what).into());
        }
        return Ok(Ended::NeedsResync(reason));
    }
    for table in World::tables() {
        if state(world).tables.get(&table).is_some_and(|entry| entry.loaded.is_none()) {
            if world.mutant != Some(Mutant::LoadIntoUsedIndex) {
                new_generation(world, table);
            }
            let snapshot = match Loading::new(world).run(table)? {
                Loaded::Whole(snapshot) => snapshot,
                Loaded::Ended(ended) => return Ok(ended),
            };
            let end = world.source.wal_end;
            world.written = world.written.map(|written| written.max(end));
            if let Some(entry) = state(world).tables.get_mut(&table) {
                entry.loaded = Some((snapshot, end));
            }
        }
    }
    Stream::start(world).run()
}

fn discontinuity(world: &mut World) -> Option<&'static str> {
    let (timeline, durable) = (state(world).timeline, state(world).durable);
    if timeline != world.source.timeline && world.mutant != Some(Mutant::NoTimelineTest) {
        // What the indices hold must be on the new timeline, too: not only what was recorded.
        let written = match world.mutant {
            Some(Mutant::FailoverByRecorded) => Some(durable),
            Some(_) | None => world.written.map(|written| written.max(durable)),
        };
        let left_at = world.source.left_at(timeline)?;
        if written.is_none_or(|written| written > left_at) {
            return Some("timeline");
        }
        world.count("failover that is followed");
        state(world).timeline = world.source.timeline;
    } else if world.written.is_none() {
        // Whatever was written came from this very log.
        world.written = Some(world.source.wal_end);
    }
    let Some(slot) = world.source.slot else { return Some("slot gone") };
    (slot.confirmed > durable && world.mutant != Some(Mutant::NoGapTest)).then_some("gap")
}

/// A pipeline for the tables' present generations.
pub(crate) fn pipeline(world: &World) -> Pipeline {
    let tables = world.state.iter().flat_map(|state| &state.tables);
    let plan = |(table, entry): (&Shape, &TableState)| {
        let plan = table.plan(entry.generation);
        match &entry.loaded {
            Some((snapshot, end)) => {
                let snapshot = Snapshot::parse(snapshot).expect("a snapshot");
                plan.loaded_since(snapshot, Lsn::new(*end))
            }
            None => plan,
        }
    };
    let plan = Plan {
        tables: tables.map(plan).collect(),
        as_of: Lsn::ZERO,
        takes_new_tables: false,
        left_out: std::collections::BTreeSet::new(),
    };
    let limits = Limits {
        lanes: 3,
        batch: BatchLimits { documents_max: 4, bytes_max: 1_000, pace_ms: 1 },
        memory_budget_bytes: BUDGET_BYTES,
    };
    Pipeline::new(plan, epoch(), limits)
}

/// LSNs stay comparable within one generation of an index.
pub(crate) fn epoch() -> Epoch {
    Epoch(1)
}

/// The version of everything that commits at `lsn`.
pub(crate) fn version(lsn: u64) -> i64 {
    epoch().version(Lsn::new(lsn)).expect("a small LSN")
}

/// I4, after each thing that adds to what is in flight.
pub(crate) fn check_budget(pipeline: &Pipeline) -> Result<(), Violation> {
    let bytes = pipeline.bytes_in_flight();
    if bytes > BUDGET_BYTES + FRAME_BYTES_MAX {
        return Err(Violation::new("I4", format!("{bytes} bytes are in flight")));
    }
    Ok(())
}

/// What can happen to the process and to its connection, at any step.
pub(crate) fn trouble(world: &mut World) -> Option<Ended> {
    let weather = world.weather.clone();
    if world.fault(weather.crash, "process crash") {
        return Some(Ended::Crashed);
    }
    if world.fault(weather.stop, "stop") {
        return Some(Ended::Stopped);
    }
    if world.fault(weather.disconnect, "disconnect") {
        return Some(Ended::Disconnected);
    }
    if world.fault(weather.source_crash, "source crash") {
        world.source.crash();
        return Some(Ended::Disconnected);
    }
    if world.fault(weather.failover, "failover") {
        world.fail_over();
        return Some(Ended::Disconnected);
    }
    None
}

/// Waits for what is in flight before the next connection; the process may end meanwhile.
pub(crate) fn settle(
    world: &mut World,
    pipeline: &mut Pipeline,
    requests: &mut Requests,
) -> Result<Ended, Stop> {
    while pipeline.requests_in_flight() > 0 {
        world.tick()?;
        if matches!(trouble(world), Some(Ended::Crashed | Ended::Stopped)) {
            requests.abandon(world);
            return Ok(Ended::Crashed);
        }
        requests.answer_one(pipeline, world)?;
    }
    Ok(Ended::Disconnected)
}

/// How a load ended.
enum Loaded {
    /// Every row is confirmed; this is what every chunk has seen.
    Whole(String),
    Ended(Ended),
}

/// The load of one table: chunks by key, each as of its own time.
struct Loading<'w> {
    world: &'w mut World,
    pipeline: Pipeline,
    requests: Requests,
}

impl<'w> Loading<'w> {
    fn new(world: &'w mut World) -> Self {
        let pipeline = pipeline(world);
        Self { world, pipeline, requests: Requests::of_load() }
    }

    fn run(mut self, table: Shape) -> Result<Loaded, Stop> {
        self.pipeline.load(&table.relation())?;
        // What the stream will not bring must be seen: commits from before the slot.
        if self.world.mutant != Some(Mutant::LoadUnseen) {
            let confirmed = self.world.source.slot.map_or(0, |slot| slot.confirmed);
            self.world.source.make_visible(confirmed);
        }
        let first = self.world.snapshot();
        let snapshot = self.world.source.snapshot_text(first);
        let mut keys: VecDeque<Key> = (0..KEYS).collect();
        while !keys.is_empty() {
            let visible = self.world.snapshot();
            let chunk: Vec<Key> = keys.drain(..CHUNK_ROWS.min(keys.len())).collect();
            for key in chunk {
                let Some(row) = self.world.source.row_at(table, key, visible) else { continue };
                if let Some(ended) = self.take_row(table, key, &row)? {
                    return Ok(Loaded::Ended(ended));
                }
            }
        }
        self.pipeline.drain();
        while !self.pipeline.is_drained() {
            if let Some(ended) = self.step()? {
                return Ok(Loaded::Ended(ended));
            }
        }
        Ok(Loaded::Whole(snapshot))
    }

    fn take_row(&mut self, table: Shape, key: Key, row: &Row) -> Result<Option<Ended>, Stop> {
        while !self.pipeline.wants_frame() {
            if let Some(ended) = self.step()? {
                return Ok(Some(ended));
            }
        }
        let texts = table.copied(key, row);
        let texts = texts.iter().map(|text| text.as_ref().map(String::as_bytes));
        let fields: Vec<_> = texts.map(|text| text.map_or(Field::Null, Field::Text)).collect();
        self.pipeline.push_row(table.oid(), &fields)?;
        check_budget(&self.pipeline)?;
        self.step()
    }

    fn step(&mut self) -> Result<Option<Ended>, Stop> {
        self.world.tick()?;
        match trouble(self.world) {
            Some(ended @ (Ended::Crashed | Ended::Stopped)) => {
                self.requests.abandon(self.world);
                return Ok(Some(ended));
            }
            Some(Ended::Disconnected) => {
                return settle(self.world, &mut self.pipeline, &mut self.requests).map(Some);
            }
            Some(Ended::AtRest | Ended::Halted | Ended::NeedsResync(_)) | None => {}
        }
        self.requests.take(&mut self.pipeline, self.world);
        self.requests.answer_one(&mut self.pipeline, self.world)?;
        Ok(None)
    }
}
