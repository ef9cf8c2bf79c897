//! One task a lane: it takes a batch, writes it until it is confirmed, and reports.

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::bulk::batch::{Batch, Receipt};
use crate::elasticsearch::writer::{Event, WriteError, Writer};
use crate::pipeline::{LaneId, Pipeline, Tick};

/// Reports that may wait to be read; a lane gives up what it tells meanwhile rather than wait itself.
const REPORTS_MAX: usize = 64;

/// What a lane says.
pub(crate) enum Report {
    /// Its batch is decided.
    Decided(LaneId, Result<Receipt, WriteError>),
    /// What it tells before that.
    Meanwhile(LaneId, Event),
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
                tasks.spawn(run_lane(LaneId(lane), writer.clone(), batches, report.clone()));
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

async fn run_lane(
    lane: LaneId,
    writer: Writer,
    mut batches: mpsc::Receiver<Batch>,
    reports: mpsc::Sender<Report>,
) {
    while let Some(batch) = batches.recv().await {
        let tell = |event| drop(reports.try_send(Report::Meanwhile(lane, event)));
        let decided = writer.write(batch, tell).await;
        if reports.send(Report::Decided(lane, decided)).await.is_err() {
            return;
        }
    }
}
