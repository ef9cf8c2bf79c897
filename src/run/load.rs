//! The initial load of a table: COPY in chunks by key, through the same projection and lanes as the stream.
//!
//! Correct under concurrent writes because the slot is older than the first chunk: whatever a chunk
//! misses or shows too old is in the stream, with a higher version. Each chunk is one short read-only
//! transaction, so the source's old rows are held for seconds. An interrupted load starts over.

use tokio::time::{Duration, interval};
use tracing::info;

use super::lanes::{Lanes, Report};
use super::progress::Progress;
use super::shutdown::Shutdown;
use super::stream::Clock;
use crate::error::Error;
use crate::lsn::Lsn;
use crate::pgoutput::copy_text::decode_copy_line;
use crate::document::Field;
use crate::pipeline::Pipeline;
use crate::postgres::catalog::PublishedTable;
use crate::postgres::session::Session;
use crate::postgres::snapshot::{CopyLines, copy_chunk};

/// Rows of one chunk.
const CHUNK_ROWS: u64 = 50_000;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What a load works with.
pub(crate) struct Loading<'a> {
    pub(crate) session: &'a Session,
    pub(crate) pipeline: &'a mut Pipeline,
    pub(crate) lanes: &'a mut Lanes,
    pub(crate) shutdown: &'a mut Shutdown,
    pub(crate) progress: &'a mut Progress,
    pub(crate) clock: Clock,
}

/// How a load ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Loaded {
    /// Every row is confirmed.
    Whole {
        /// Rows copied.
        rows: u64,
    },
    /// A stop was asked for.
    Stopped,
}

/// Key of the last row of a chunk, reused from row to row.
#[derive(Default)]
struct Place {
    key: Vec<Vec<u8>>,
    is_set: bool,
}

impl Loading<'_> {
    /// Copies `table` and waits until every row is confirmed.
    pub(crate) async fn run(mut self, table: &PublishedTable) -> Result<Loaded, Error> {
        self.pipeline.load(table.relation.clone())?;
        let mut place = Place::default();
        let mut rows = 0;
        loop {
            let after = place.is_set.then_some(place.key.as_slice());
            let lines = copy_chunk(self.session, table, after, CHUNK_ROWS).await?;
            let Some(copied) = self.take_chunk(table, lines, &mut place).await? else {
                return Ok(Loaded::Stopped);
            };
            rows += copied;
            if copied < CHUNK_ROWS {
                break;
            }
        }
        self.pipeline.drain();
        while !self.pipeline.is_drained() {
            self.lanes.feed(self.pipeline, self.clock.now());
            tokio::select! {
                biased;
                () = self.shutdown.requested() => return Ok(Loaded::Stopped),
                report = self.lanes.report() => self.take_report(report)?,
            }
        }
        Ok(Loaded::Whole { rows })
    }

    /// Takes the rows of one chunk; `None` if a stop was asked for.
    async fn take_chunk(
        &mut self,
        table: &PublishedTable,
        mut lines: CopyLines,
        place: &mut Place,
    ) -> Result<Option<u64>, Error> {
        let mut rows = 0;
        let mut scratch = Vec::new();
        let mut ticks = interval(PROGRESS_INTERVAL);
        loop {
            self.lanes.feed(self.pipeline, self.clock.now());
            let has_room = self.pipeline.wants_frame();
            tokio::select! {
                biased;
                () = self.shutdown.requested() => return Ok(None),
                _ = ticks.tick() => self.progress.tick(self.pipeline, Lsn::ZERO),
                report = self.lanes.report() => self.take_report(report)?,
                more = lines.fill(), if has_room => if !more? {
                    return Ok(Some(rows));
                },
            }
            while self.pipeline.wants_frame() {
                let Some(line) = lines.next_line() else { break };
                self.take_row(table, &line, &mut scratch, place)?;
                rows += 1;
            }
        }
    }

    fn take_row(
        &mut self,
        table: &PublishedTable,
        line: &[u8],
        scratch: &mut Vec<u8>,
        place: &mut Place,
    ) -> Result<(), Error> {
        let columns = &table.relation.columns;
        let row = decode_copy_line(line, scratch, columns.len()).map_err(|source| Error::Copy {
            table: format!("{}.{}", table.relation.schema, table.relation.name),
            source,
        })?;
        self.pipeline.push_row(table.relation.oid, &row)?;
        place.is_set = true;
        place.key.resize_with(table.key.len(), Vec::new);
        for (key, kept) in table.key.iter().zip(&mut place.key) {
            let column = columns.iter().position(|column| column.name == key.name);
            if let Some(Field::Text(text)) = column.and_then(|column| row.get(column)) {
                kept.clear();
                kept.extend_from_slice(text);
            }
        }
        Ok(())
    }

    fn take_report(&mut self, report: Report) -> Result<(), Error> {
        match report {
            Report::Decided(lane, decided) => {
                self.progress.lane_is_well(lane);
                self.pipeline.finish_batch(lane, decided?);
            }
            Report::Waiting(lane, waiting) => self.progress.lane_waits(lane, &waiting),
        }
        Ok(())
    }
}

/// Says that a load begins.
pub(crate) fn announce(table: &PublishedTable, index: &str, generation: u32) {
    let name = format!("{}.{}", table.relation.schema, table.relation.name);
    info!(table = name, index, generation, "loading");
}
