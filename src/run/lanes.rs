//! One task a lane: it takes a batch, writes it until it is confirmed, and reports.
//!
//! What is left of a batch when only an index stands in the way (no shard, blocked, closed) is parked, so that
//! writes to other indices go on. Later writes to that index are parked behind it: their order stays.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::progress::Progress;
use crate::bulk::batch::{Batch, Parked, Receipt};
use crate::elasticsearch::delivery::Delivered;
use crate::elasticsearch::retry::Backoff;
use crate::elasticsearch::writer::{Event, Hindered, WriteError, Writer, wait_for};
use crate::pipeline::{LaneId, Pipeline, Tick};

/// Reports that may wait to be read; a lane gives up what it tells meanwhile rather than wait itself.
const REPORTS_MAX: usize = 64;
/// A server that has no shard to write to is asked again whether it has one, and not waited for.
const PARKED_TIMEOUT: Duration = Duration::from_secs(1);

/// What a lane says.
pub(crate) enum Report {
    /// Its batch is decided.
    Decided(LaneId, Result<Receipt, WriteError>),
    /// What is left of its batch waits for an index; the lane is free.
    Parked(LaneId, Parked),
    /// What it tells before that.
    Meanwhile(LaneId, Event),
}

impl Report {
    /// Applies it.
    ///
    /// # Errors
    /// A batch that will never be confirmed.
    pub(crate) fn give_to(
        self,
        pipeline: &mut Pipeline,
        progress: &mut Progress,
    ) -> Result<(), WriteError> {
        match self {
            Self::Decided(lane, decided) => {
                pipeline.finish_batch(lane, decided?);
                if !pipeline.has_parked(lane) {
                    progress.lane_is_well(lane);
                }
            }
            Self::Parked(lane, parked) => pipeline.park_batch(lane, parked),
            Self::Meanwhile(lane, event) => progress.lane_tells(lane, &event),
        }
        Ok(())
    }
}

/// The lanes' tasks; they end with this.
pub(crate) struct Lanes {
    batches: Vec<mpsc::Sender<Batch>>,
    reports: mpsc::Receiver<Report>,
    _tasks: JoinSet<()>,
}

impl Lanes {
    /// Starts `count` lanes.
    pub(crate) fn start(writer: &Writer, count: usize) -> Self {
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let mut tasks = JoinSet::new();
        if let Some(letters) = writer.letters() {
            tasks.spawn(letters.clone().watch());
        }
        let batches = (0..count)
            .map(|lane| {
                // The pipeline gives a lane one batch at a time.
                let (batch, batches) = mpsc::channel(1);
                let lane = Lane::new(LaneId(lane), writer.clone(), report.clone());
                tasks.spawn(lane.run(batches));
                batch
            })
            .collect();
        Self { batches, reports, _tasks: tasks }
    }

    /// Hands every batch that is due to its lane.
    pub(crate) fn feed(&self, pipeline: &mut Pipeline, now: Tick) {
        for lane in pipeline.lanes() {
            if let Some((batch, channel)) =
                pipeline.take_batch(lane, now).zip(self.batches.get(lane.0))
            {
                let sent = channel.try_send(batch);
                assert!(sent.is_ok(), "a lane has at most one batch");
            }
        }
    }

    /// The next report.
    pub(crate) async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            // The senders live as long as the tasks, and those as long as this.
            None => std::future::pending().await,
        }
    }
}

struct Lane {
    id: LaneId,
    writer: Writer,
    reports: mpsc::Sender<Report>,
    /// In the order of their writes.
    parked: VecDeque<Batch>,
    /// The indices they wait for.
    hindered: Hindered,
    backoff: Backoff,
    retry_at: Instant,
}

/// Nobody reads the reports any more.
struct Over;

impl Lane {
    fn new(id: LaneId, writer: Writer, reports: mpsc::Sender<Report>) -> Self {
        let (parked, hindered, backoff) = (VecDeque::new(), Hindered::new(), Backoff::default());
        Self { id, writer, reports, parked, hindered, backoff, retry_at: Instant::now() }
    }

    async fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        loop {
            let stepped = tokio::select! {
                biased;
                () = sleep_until(self.retry_at), if !self.parked.is_empty() => self.retry().await,
                batch = batches.recv() => match batch {
                    Some(batch) => self.take(batch).await,
                    None => return,
                },
            };
            if let Err(Over) = stepped {
                return;
            }
        }
    }

    async fn take(&mut self, batch: Batch) -> Result<(), Over> {
        let (writer, id, reports) = (&self.writer, self.id, &self.reports);
        let mut tell = |event| drop(reports.try_send(Report::Meanwhile(id, event)));
        writer.wait_for_unanswered(&batch, &mut tell).await;
        let (timeout, known) = (writer.bulk_timeout(), self.hindered.len());
        match writer.deliver(batch, &mut self.hindered, timeout, &mut tell).await {
            Ok(Delivered::Done(receipt)) => self.report(Report::Decided(id, Ok(receipt))).await,
            Ok(Delivered::Stuck(rest)) => {
                if self.hindered.len() > known {
                    let pause = wait_for(&self.hindered, &mut self.backoff, &mut tell);
                    self.retry_at = Instant::now() + pause;
                }
                let rest = rest.compacted();
                let parked = rest.parked();
                self.parked.push_back(rest);
                self.report(Report::Parked(id, parked)).await
            }
            Err(error) => self.report(Report::Decided(id, Err(error))).await,
        }
    }

    /// Tries everything that is parked again, oldest first.
    async fn retry(&mut self) -> Result<(), Over> {
        let (writer, id) = (self.writer.clone(), self.id);
        let timeout = PARKED_TIMEOUT.min(writer.bulk_timeout());
        let reports = self.reports.clone();
        let mut tell = |event| drop(reports.try_send(Report::Meanwhile(id, event)));
        self.hindered.clear();
        for (number, batch) in std::mem::take(&mut self.parked).into_iter().enumerate() {
            let items = batch.items();
            // The first has waited for what went before it; those behind it come after what it leaves now.
            if number > 0 {
                writer.wait_for_unanswered(&batch, &mut tell).await;
            }
            match writer.deliver(batch, &mut self.hindered, timeout, &mut tell).await {
                Ok(Delivered::Done(receipt)) => {
                    self.backoff = Backoff::default();
                    self.report(Report::Decided(id, Ok(receipt))).await?;
                }
                Ok(Delivered::Stuck(mut rest)) => {
                    if rest.items() < items {
                        rest = rest.compacted();
                        self.report(Report::Parked(id, rest.parked())).await?;
                    }
                    self.parked.push_back(rest);
                }
                Err(error) => self.report(Report::Decided(id, Err(error))).await?,
            }
        }
        if !self.parked.is_empty() {
            let pause = wait_for(&self.hindered, &mut self.backoff, &mut tell);
            self.retry_at = Instant::now() + pause;
        }
        Ok(())
    }

    async fn report(&self, report: Report) -> Result<(), Over> {
        self.reports.send(report).await.map_err(|_| Over)
    }
}
