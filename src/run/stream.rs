//! One life of the replication stream: from START_REPLICATION to a stop, a break or an error.
//!
//! A single task owns the socket and the pipeline. Nothing in its loop waits for anything but the one
//! `select!`: lanes, state document, re-selects and truncates work in tasks of their own, so a status goes
//! out on time whatever the cluster does.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info, warn};

use super::lanes::{Lanes, Report};
use super::pace::Pace;
use super::postgres_now_micros;
use super::progress::Progress;
use super::recorder::Recorder;
use super::shutdown::Shutdown;
use super::silence::Silence;
use super::source_watch::{Finding, Watch};
use super::work::{Done, Working};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::pgoutput::envelope::encode_standby_status;
use crate::pipeline::{Pipeline, Tick, Work};
use crate::postgres::PostgresError;
use crate::postgres::replication::ReplicationStream;
use crate::settings::PostgresSettings;

/// A status goes out this often at least; far below half of any sensible `wal_sender_timeout`.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Replies to keepalives are no closer together: a server that shuts down asks without end (seen: 27 000
/// a second).
const STATUS_GAP: Duration = Duration::from_millis(100);
/// How often a position that `--until` waits for is asked for.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// How a life of the stream ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// `--until` was reached, everything is confirmed.
    Reached,
    /// A signal; what was in flight is confirmed, or the grace is over.
    Stopped,
    /// This (a table, or the publication) is not as it was planned; what was not confirmed is to be read again
    /// with a new plan.
    Outplanned(String),
    /// The connection broke or the server ends; the slot keeps what was not confirmed.
    Disconnected(Error),
}

/// What a life of the stream works with.
pub(crate) struct Streaming<'a> {
    pub(crate) stream: ReplicationStream,
    pub(crate) pipeline: &'a mut Pipeline,
    pub(crate) lanes: &'a mut Lanes,
    pub(crate) recorder: &'a mut Recorder,
    pub(crate) working: &'a mut Working,
    pub(crate) watch: &'a mut Watch,
    pub(crate) shutdown: &'a mut Shutdown,
    pub(crate) progress: &'a mut Progress,
    pub(crate) clock: Clock,
    pub(crate) until: Option<Lsn>,
    pub(crate) grace: Duration,
    pub(crate) postgres: &'a PostgresSettings,
    /// What is not as it was planned. It waits until the present transaction is confirmed: one that takes longer
    /// than tables are changed would be read from its beginning for ever.
    pub(crate) outplanned: Option<String>,
}

/// Monotonic time as the core wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn instant(self, tick: Tick) -> tokio::time::Instant {
        (self.start + Duration::from_millis(tick.0)).into()
    }
}

/// A wrong design, which tests put in place of the right one to see that they notice. No release has it.
fn status_waits_for_room() -> bool {
    cfg!(debug_assertions)
        && std::env::var("WALDEX_TEST_MUTANT").is_ok_and(|wrong| wrong == "status_waits_for_room")
}

struct Status {
    sent_at: Option<Instant>,
    sent: Option<Lsn>,
    wanted: bool,
}

impl Streaming<'_> {
    /// Runs until it ends. An error is definite: the cluster or the stream refuses for good.
    pub(crate) async fn run(mut self) -> Result<Ended, Error> {
        let mut ticks = interval(STATUS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asks = interval(ASK_INTERVAL);
        asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut status = Status { sent_at: None, sent: None, wanted: true };
        let mut pace = Pace::default();
        let mut silence = Silence::new(Instant::now());
        let writes_always = !status_waits_for_room();
        loop {
            match self.take_frames() {
                Ok(None) => {}
                Ok(Some(table)) => return Ok(Ended::Outplanned(table)),
                Err(error) if is_passing(&error) => return Ok(Ended::Disconnected(error)),
                Err(error) => return Err(error),
            }
            self.working.start_if_ready(self.pipeline);
            self.lanes.feed(self.pipeline, self.clock.now());
            let is_last = self.until_is_durable() && !self.until_is_recorded() || self.rests();
            self.recorder.offer(self.pipeline.durable(), is_last);
            self.queue_status(&mut status);
            if self.until_is_recorded() && !self.recorder.owes_handover() {
                return self.finish(Ended::Reached).await;
            }
            if let Some(what) = self.outplanned_and_over(&status) {
                return Ok(Ended::Outplanned(what));
            }
            let deadline = self.pipeline.deadline().map(|tick| self.clock.instant(tick));
            let reads = self.pipeline.wants_frame() && !self.rests();
            let session_closed = self.working.session_closed();
            tokio::select! {
                biased;
                // 1. A stop comes before everything else.
                () = self.shutdown.requested() => return self.drain().await,
                // 2. The status timer, which nothing below can hold up.
                _ = ticks.tick() => {
                    status.wanted = true;
                    self.tick();
                    self.listen(&mut silence, reads);
                }
                // 3. What the outside world answers.
                report = self.lanes.report() => self.take_report(report)?,
                recorded = self.recorder.written() => recorded?,
                worked = self.working.finished() => {
                    if let Some(ended) = self.take_work(worked)? {
                        return Ok(ended);
                    }
                }
                finding = self.watch.finding() => self.take_finding(finding)?,
                // 4. The server ends this connection first when it shuts down.
                () = session_closed => {
                    return Ok(Ended::Disconnected(Error::Postgres(PostgresError::Closed)));
                }
                () = silence.is_the_end() => {
                    return Ok(Ended::Disconnected(Error::Postgres(PostgresError::Silent)));
                }
                // 5. Writes that have waited for company long enough.
                () = sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)), if deadline.is_some() => {}
                // 6. A position to ask for.
                _ = asks.tick(), if self.until.is_some() && self.pipeline.is_drained() => self.ask(),
                // 7. The socket: writes always, reads while there is room.
                moved = self.stream.progress(reads), if writes_always || reads => match moved {
                    Ok(bytes) => rest(bytes, &mut pace, &mut silence),
                    Err(error) => return self.explain(error.into()),
                },
            }
        }
    }

    /// Takes the frames that were read, while there is room; names a table that has to be planned again.
    fn take_frames(&mut self) -> Result<Option<String>, Error> {
        while self.pipeline.wants_frame() && !self.rests() {
            let Some(frame) = self.stream.next_frame()? else { break };
            match self.pipeline.push_frame(frame)? {
                Some(Work::Replan(table)) => return Ok(Some(table)),
                Some(work) => self.working.add(work),
                None => {}
            }
        }
        Ok(None)
    }

    /// Whether no further transaction is taken with this plan.
    fn rests(&self) -> bool {
        self.outplanned.is_some() && !self.pipeline.in_transaction()
    }

    /// What is not as it was planned, once all before is confirmed and the server knows.
    fn outplanned_and_over(&mut self, status: &Status) -> Option<String> {
        let recorded = self.recorder.recorded().lsn();
        let is_over = self.rests()
            && self.pipeline.is_drained()
            && recorded >= self.pipeline.durable().lsn()
            && status.sent == Some(recorded)
            && !self.stream.has_queued_output();
        self.outplanned.take_if(|_| is_over)
    }

    fn tick(&mut self) {
        if self.working.gave_sign() {
            self.progress.moves();
        }
        self.progress.tick(self.pipeline, self.recorder.recorded().lsn());
    }

    fn take_finding(&mut self, finding: Finding) -> Result<(), Error> {
        match finding {
            Finding::Source(source) => self.progress.source(source),
            Finding::Outplanned(what) => self.outplanned = Some(what),
            // Closes the connection at once: whoever waits for us, waits no longer.
            Finding::Definite(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes what the outside world has done; how the stream ends, if with that.
    fn take_work(&mut self, worked: Result<Done, Error>) -> Result<Option<Ended>, Error> {
        match worked {
            Ok(done) => done.give_to(self.pipeline)?,
            Err(error) if is_passing(&error) => return Ok(Some(Ended::Disconnected(error))),
            Err(Error::Postgres(error)) if error.is_undefined() => {
                return Ok(Some(Ended::Outplanned(error.to_string())));
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    /// The connection is gone; what the server said last, if anything, says why.
    fn explain(&mut self, broken: Error) -> Result<Ended, Error> {
        let error = loop {
            match self.stream.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => break broken,
                Err(last) => break last.into(),
            }
        };
        if is_passing(&error) { Ok(Ended::Disconnected(error)) } else { Err(error) }
    }

    fn take_report(&mut self, report: Report) -> Result<(), Error> {
        Ok(report.give_to(self.pipeline, self.progress)?)
    }

    fn until_is_durable(&self) -> bool {
        self.until.is_some_and(|until| self.pipeline.durable().lsn() >= until)
    }

    fn until_is_recorded(&self) -> bool {
        self.until.is_some_and(|until| self.recorder.recorded().lsn() >= until)
    }

    /// Asks the server for a keepalive: an idle stream may stand before `until` for ever.
    fn ask(&mut self) {
        self.send_status(true);
    }

    /// Asks a server that has been silent for long. What is not read cannot be heard.
    fn listen(&mut self, silence: &mut Silence, reads: bool) {
        let now = Instant::now();
        if !reads {
            silence.heard(now);
        } else if silence.tick(now, self.postgres, self.stream.process_id()) {
            self.send_status(true);
        }
    }

    fn queue_status(&mut self, status: &mut Status) {
        let flushed = self.recorder.recorded().lsn();
        let advanced = status.sent != Some(flushed);
        let asked = self.pipeline.take_reply_requested();
        status.wanted |= asked || advanced;
        let gap_over = status.sent_at.is_none_or(|at| at.elapsed() >= STATUS_GAP);
        if !status.wanted || !gap_over || self.stream.has_queued_output() {
            return;
        }
        *status = Status { sent_at: Some(Instant::now()), sent: Some(flushed), wanted: false };
        self.send_status(false);
    }

    fn send_status(&mut self, reply: bool) {
        let flushed = self.recorder.recorded().lsn();
        let written = self.pipeline.received().max(flushed);
        let status = encode_standby_status(written, flushed, flushed, postgres_now_micros(), reply);
        self.stream.queue_status(&status);
    }

    /// Stops reading, waits for what is in flight, confirms it.
    async fn drain(mut self) -> Result<Ended, Error> {
        let requests = self.pipeline.requests_in_flight();
        info!(grace = ?self.grace, requests, "stopping: draining what is in flight");
        self.pipeline.drain();
        let over = tokio::time::Instant::now() + self.grace;
        let mut ticks = interval(STATUS_INTERVAL);
        loop {
            self.lanes.feed(self.pipeline, self.clock.now());
            self.recorder.offer(self.pipeline.durable(), true);
            if self.pipeline.is_drained()
                && !self.working.is_writing()
                && !self.recorder.is_writing()
                && self.recorder.recorded().lsn() >= self.pipeline.durable().lsn()
            {
                break;
            }
            tokio::select! {
                biased;
                () = sleep_until(over) => {
                    warn!("the grace is over: what was not confirmed will be sent again");
                    break;
                }
                _ = ticks.tick() => self.send_status(false),
                report = self.lanes.report() => self.take_report(report)?,
                recorded = self.recorder.written() => recorded?,
                () = self.working.settled(), if self.working.is_writing() => {}
                moved = self.stream.progress(false) => if let Err(error) = moved {
                    debug!(%error, "the connection ended while draining");
                    return Ok(Ended::Stopped);
                },
            }
        }
        self.finish(Ended::Stopped).await
    }

    async fn finish(mut self, ended: Ended) -> Result<Ended, Error> {
        self.send_status(false);
        match (self.stream.finish().await, ended) {
            (Ok(()), ended) => Ok(ended),
            // Whether the server has seen the last status is not known: once more.
            (Err(error), Ended::Reached) => Ok(Ended::Disconnected(error.into())),
            (Err(error), ended) => {
                warn!(%error, "the stream did not end in good order: its end may be sent again");
                Ok(ended)
            }
        }
    }
}

/// Notes what was read, and lets the socket fill while there is backlog.
fn rest(bytes: usize, pace: &mut Pace, silence: &mut Silence) {
    let now = Instant::now();
    silence.heard(now);
    if let Some(rest) = pace.rest_after(bytes, now) {
        // The thread itself: a timer has 1 ms, and would wake for each message meanwhile.
        std::thread::sleep(rest);
    }
}

fn is_passing(error: &Error) -> bool {
    error.class() == crate::error::Class::Transient
}
