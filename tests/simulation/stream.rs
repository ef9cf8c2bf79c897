//! One connection's stream: frames in, requests out, positions recorded and confirmed.

use std::collections::VecDeque;

use rand::RngExt;
use waldex::lsn::Lsn;
use waldex::pipeline::{Pipeline, Reselect, Truncate, Work};

use super::cluster::{Item, Versioning};
use super::invariants::{Violation, durable_up_to};
use super::life::{Ended, Stop, check_budget, pipeline, settle, trouble};
use super::mutants::{self, Mutant};
use super::requests::Requests;
use super::shape::Shape;
use super::wire::Sender;
use super::world::{LETTERS_ALIAS, Watch, World, letter_id};

/// Steps that a stop may take to drain.
const GRACE_STEPS: u32 = 60;

/// Work that the pipeline waits for.
enum Waiting {
    Reselect(Reselect),
    Truncate(Truncate),
    /// The documents found by the scan, each still to be deleted.
    Removing(VecDeque<Item>),
}

/// From START_REPLICATION to the connection's end.
pub(crate) struct Stream<'w> {
    pub(crate) world: &'w mut World,
    pub(crate) pipeline: Pipeline,
    pub(crate) sender: Sender,
    requests: Requests,
    waiting: Option<Waiting>,
    durable: u64,
    /// The position that this stream has written to the state document.
    recorded: u64,
    told: u64,
    /// What a wrong design takes for durable.
    pub(crate) believed: u64,
    /// Steps until a failover, and where; nothing more comes from the source meanwhile.
    fails_over: Option<(u32, u64)>,
}

impl<'w> Stream<'w> {
    pub(crate) fn start(world: &'w mut World) -> Self {
        let pipeline = pipeline(world);
        let sender = Sender::start(&world.source);
        Self {
            world,
            pipeline,
            sender,
            requests: Requests::default(),
            waiting: None,
            durable: 0,
            recorded: 0,
            told: 0,
            believed: 0,
            fails_over: None,
        }
    }

    pub(crate) fn run(mut self) -> Result<Ended, Stop> {
        loop {
            self.world.tick()?;
            // Sooner where it matters most: something that was sent may still be carried out.
            let is_delicate = self.pipeline.in_transaction() && !self.world.is_quiet();
            let likely = if is_delicate { self.world.weather.stop * 40.0 } else { 0.0 };
            if self.world.fault(likely, "stop") {
                return self.drain();
            }
            match trouble(self.world) {
                Some(Ended::Crashed) => {
                    self.requests.abandon(self.world);
                    return Ok(Ended::Crashed);
                }
                Some(Ended::Stopped) => return self.drain(),
                Some(Ended::Disconnected) => {
                    return settle(self.world, &mut self.pipeline, &mut self.requests);
                }
                Some(Ended::AtRest | Ended::Halted | Ended::NeedsResync(_)) | None => {}
            }
            if let Some((0, switch)) = self.fails_over {
                self.world.fail_over_at(switch);
                return settle(self.world, &mut self.pipeline, &mut self.requests);
            }
            self.fails_over = self.fails_over.map(|(steps, switch)| (steps - 1, switch));
            match self.world.random.random_range(0..8) {
                0..=3 if self.fails_over.is_some() => {}
                0..=3 => self.read()?,
                4 => self.work()?,
                5 => self.record()?,
                _ => {
                    self.requests.take(&mut self.pipeline, self.world);
                    self.answer_one()?;
                }
            }
            if self.world.is_calm() && self.is_at_rest() {
                return Ok(Ended::AtRest);
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        let confirmed = self.world.source.slot.map_or(0, |slot| slot.confirmed);
        self.sender.is_idle(&self.world.source)
            && self.pipeline.is_drained()
            && !self.pipeline.in_transaction()
            && confirmed >= self.world.source.newest_end()
    }

    fn read(&mut self) -> Result<(), Stop> {
        if !self.pipeline.wants_frame() {
            return Ok(());
        }
        let World { source, random, mutant, .. } = self.world;
        let Some(read) = self.sender.read(source, random, *mutant) else { return Ok(()) };
        let was_drained = self.pipeline.is_drained();
        let work = self.pipeline.push_frame(&read.frame)?;
        if let Some(wal_end) = read.keepalive_inside.filter(|_| was_drained) {
            self.world.count("keepalive inside a transaction");
            self.believed = self.believed.max(wal_end);
        }
        self.note_written();
        check_budget(&self.pipeline)?;
        self.waiting = match work {
            None => None,
            Some(Work::Reselect(row)) => Some(Waiting::Reselect(row)),
            Some(Work::Replan(table)) => {
                return Err(Violation::new("no error", format!("{table} never changes")).into());
            }
            Some(Work::Truncate(truncate)) => Some(Waiting::Truncate(truncate)),
        };
        self.check_durable()
    }

    /// Up to where the indices may hold something.
    fn note_written(&mut self) {
        let up_to = self.pipeline.written().get();
        self.world.written = self.world.written.map(|written| written.max(up_to));
    }

    fn answer_one(&mut self) -> Result<(), Stop> {
        self.requests.answer_one(&mut self.pipeline, self.world)?;
        self.check_durable()
    }

    /// I3 of the frontier, and I2 of what it says.
    fn check_durable(&mut self) -> Result<(), Stop> {
        let durable = self.pipeline.durable().lsn().get();
        if durable < self.durable {
            return Err(Violation::new("I3", "the durable position went back").into());
        }
        if durable > self.durable {
            let state = self.world.state.as_ref().expect("established");
            durable_up_to(self.world, state, durable)?;
        }
        self.durable = durable;
        Ok(())
    }

    fn work(&mut self) -> Result<(), Stop> {
        match self.waiting.take() {
            None => {}
            Some(Waiting::Reselect(row)) => self.reselect(row)?,
            Some(Waiting::Truncate(truncate)) => self.scan(truncate),
            Some(Waiting::Removing(mut items)) => {
                match items.pop_front() {
                    // A delete that makes an index of the alias's name is not confirmed.
                    Some(item) if self.world.cluster.documents(&item.alias).is_none() => {
                        items.push_front(item);
                    }
                    Some(item) => {
                        self.world.cluster.apply(&item);
                    }
                    None => return Ok(self.pipeline.truncated()?),
                }
                self.waiting = Some(Waiting::Removing(items));
            }
        }
        Ok(())
    }

    /// The row counts as it is, or is gone, once the change itself is visible; later changes may be too.
    fn reselect(&mut self, row: Reselect) -> Result<(), Stop> {
        let table = Shape::of(&row.relation.name);
        let key = table.key_of(&row.key);
        let visible = self.world.snapshot();
        let found = self.world.source.row_at(table, key, visible);
        let is_seen = self.world.source.sees(row.xid, visible);
        let unseen_is_fine = self.world.mutant == Some(Mutant::ReselectUnseen) && found.is_some();
        if !is_seen && !unseen_is_fine {
            self.waiting = Some(Waiting::Reselect(row));
            return Ok(());
        }
        self.world.count(if found.is_some() {
            "reselect"
        } else {
            "reselect of a row that is gone"
        });
        let columns = row.columns.len();
        let selected = found.map(|row| vec![row.large.map(String::into_bytes); columns]);
        let answer = mutants::reselected(self.world, table, key, selected, columns);
        let seen = match self.world.mutant {
            Some(Mutant::ReselectSeesNothing) => 0,
            Some(_) | None => self.world.source.wal_end,
        };
        self.pipeline.reselected(answer, Lsn::new(seen))?;
        self.note_written();
        check_budget(&self.pipeline)?;
        // What was selected may be the work of a transaction that never comes.
        let likely = (self.world.weather.failover * 250.0).min(0.5);
        if let Some(switch) = self.world.source.rewritten_at(table, key, row.xid)
            && self.world.fault(likely, "failover after a reselect")
        {
            self.fails_over = Some((self.world.random.random_range(0..20), switch));
        }
        Ok(())
    }

    /// Every document is found, once all earlier writes are confirmed.
    fn scan(&mut self, truncate: Truncate) {
        let aliases = truncate.write_aliases.iter();
        let cluster = &self.world.cluster;
        let is_ready = self.pipeline.is_drained()
            && aliases.clone().all(|alias| cluster.documents(alias).is_some())
            && !self.world.must_wait_for_version(truncate.version);
        if !is_ready && self.world.mutant != Some(Mutant::TruncateUndrained) {
            self.requests.take(&mut self.pipeline, self.world);
            self.waiting = Some(Waiting::Truncate(truncate));
            return;
        }
        self.world.count("truncate");
        let mut items = VecDeque::new();
        for alias in truncate.write_aliases {
            let versioning = Versioning::ExternalGte(truncate.version);
            let delete = |alias: &str, id: &String| {
                let (alias, id) = (alias.to_owned(), id.clone());
                Item { alias, id, versioning, source: None }
            };
            let live = self.world.cluster.documents(&alias).into_iter().flatten();
            let live = live.filter(|(_, stored)| stored.source.is_some());
            items.extend(live.map(|(id, _)| delete(&alias, id)));
            // And the dead letters of what was refused until now.
            let letters = self.world.cluster.documents(LETTERS_ALIAS).into_iter().flatten();
            let letters = letters.filter(|(id, letter)| {
                id.starts_with(&letter_id(&alias, ""))
                    && letter.source.is_some()
                    && letter.version <= truncate.version
            });
            items.extend(letters.map(|(id, _)| delete(LETTERS_ALIAS, id)));
        }
        self.waiting = Some(Waiting::Removing(items));
    }

    /// Writes the state document, then confirms to Postgres; the process may end in between.
    fn record(&mut self) -> Result<(), Stop> {
        let durable = mutants::durable(self);
        let is_told_first = self.world.mutant == Some(Mutant::ConfirmThenRecord);
        if is_told_first {
            self.confirm(durable)?;
        } else {
            // Only what this stream has reached: the document may hold a later position, but after a
            // crash of both servers the cluster may have forgotten tombstones from before it.
            self.confirm(self.recorded)?;
        }
        if self.world.random.random_bool(0.5) {
            self.write_state(durable);
        }
        Ok(())
    }

    fn write_state(&mut self, durable: u64) {
        if durable > self.recorded {
            let state = self.world.state.as_mut().expect("established");
            state.durable = state.durable.max(durable);
            self.recorded = durable;
        }
    }

    /// Sends a status: I2 and I3 of what Postgres is told.
    fn confirm(&mut self, flushed: u64) -> Result<(), Stop> {
        if flushed < self.told {
            return Err(Violation::new("I3", "a lower position is confirmed").into());
        }
        if flushed == self.told {
            return Ok(());
        }
        self.told = flushed;
        let state = self.world.state.as_ref().expect("established");
        if self.world.watch == Watch::Always
            && !self.sender.may_confirm(&self.world.source, flushed)
            && flushed != state.durable
        {
            let what =
                format!("{flushed} is neither the end of a transaction nor an idle position");
            return Err(Violation::new("I2", what).into());
        }
        self.world.source.confirm(flushed);
        let confirmed = self.world.source.slot.map_or(0, |slot| slot.confirmed);
        durable_up_to(self.world, state, confirmed)?;
        Ok(())
    }

    /// A stop: nothing more is read, what is in flight is waited for, within the grace.
    fn drain(&mut self) -> Result<Ended, Stop> {
        self.pipeline.drain();
        for _ in 0..GRACE_STEPS {
            if self.pipeline.is_drained() {
                break;
            }
            self.world.tick()?;
            self.requests.take(&mut self.pipeline, self.world);
            self.answer_one()?;
        }
        let ignores_unanswered = self.world.mutant == Some(Mutant::GoodOrderUnanswered);
        let is_over = self.pipeline.requests_in_flight() == 0
            && (self.world.is_quiet() || ignores_unanswered);
        self.requests.abandon(self.world);
        // The document, then the status.
        let durable = mutants::durable(self);
        self.write_state(durable);
        let state = self.world.state.as_mut().expect("established");
        if is_over {
            state.written = self.world.written.map(|written| written.max(state.durable));
        }
        self.confirm(self.recorded)?;
        Ok(Ended::Stopped)
    }
}
