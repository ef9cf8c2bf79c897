//! The initial load of a table: COPY in chunks by key, through the same projection and lanes as the stream.
//!
//! Correct under concurrent writes because the slot is older than the first chunk: whatever a chunk
//! misses or shows too old is in the stream, with a higher version. Each chunk is one short read-only
//! transaction, so the source's old rows are held for seconds. An interrupted load starts over.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Duration, Instant, interval, sleep_until};
use tracing::info;

use super::lanes::{Lanes, Report};
use super::progress::Progress;
use super::shutdown::Shutdown;
use super::stream::Clock;
use super::writers::wait_for_writers;
use crate::document::Field;
use crate::error::Error;
use crate::lsn::Lsn;
use crate::pipeline::Pipeline;
use crate::postgres::PostgresError;
use crate::postgres::catalog::{self, PublishedTable};
use crate::postgres::copy_text::fields;
use crate::postgres::session::Session;
use crate::postgres::snapshot::{CopyLines, copy_chunk};
use crate::visibility::Snapshot;

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
        /// What every chunk has seen.
        snapshot: Snapshot,
    },
    /// A stop was asked for.
    Stopped,
}

impl Loading<'_> {
    /// Copies `table` and waits until every row is confirmed.
    pub(crate) async fn run(mut self, table: &PublishedTable) -> Result<Loaded, Error> {
        self.pipeline.load(&table.relation)?;
        tokio::select! {
            biased;
            () = self.shutdown.requested() => return Ok(Loaded::Stopped),
            waited = wait_for_writers(self.session, table.relation.oid) => waited?,
        }
        let snapshot = catalog::current_snapshot(self.session).await?;
        let mut place: Option<Vec<String>> = None;
        let mut rows = 0;
        loop {
            let lines = copy_chunk(self.session, table, place.as_deref(), CHUNK_ROWS).await?;
            let Some(chunk) = self.take_chunk(table, lines).await? else {
                return Ok(Loaded::Stopped);
            };
            rows += chunk.rows;
            let Some(last) = chunk.last.filter(|_| chunk.rows >= CHUNK_ROWS) else { break };
            place = Some(key_of(table, &last)?);
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
        Ok(Loaded::Whole { rows, snapshot })
    }

    /// Takes the rows of one chunk; `None` if a stop was asked for.
    async fn take_chunk(
        &mut self,
        table: &PublishedTable,
        mut lines: CopyLines,
    ) -> Result<Option<Chunk>, Error> {
        let mut chunk = Chunk { rows: 0, last: None };
        let mut ticks = interval(PROGRESS_INTERVAL);
        loop {
            // Everything that has arrived, without going through the timers for each row.
            while self.pipeline.wants_frame() {
                match lines.next().now_or_never() {
                    Some(line) => match line? {
                        Some(line) => self.take_row(table, line, &mut chunk)?,
                        None => return Ok(Some(chunk)),
                    },
                    None => break,
                }
            }
            self.lanes.feed(self.pipeline, self.clock.now());
            let has_room = self.pipeline.wants_frame();
            let deadline = self.pipeline.deadline().map(|tick| self.clock.instant(tick));
            tokio::select! {
                biased;
                () = self.shutdown.requested() => return Ok(None),
                _ = ticks.tick() => self.progress.tick(self.pipeline, Lsn::ZERO),
                report = self.lanes.report() => self.take_report(report)?,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
                line = lines.next(), if has_room => match line? {
                    Some(line) => self.take_row(table, line, &mut chunk)?,
                    None => return Ok(Some(chunk)),
                },
            }
        }
    }

    fn take_row(
        &mut self,
        table: &PublishedTable,
        line: Bytes,
        chunk: &mut Chunk,
    ) -> Result<(), Error> {
        let texts: Vec<Option<Cow<'_, [u8]>>> = fields(&line).collect();
        let row: Vec<Field<'_>> =
            texts.iter().map(|text| text.as_deref().map_or(Field::Null, Field::Text)).collect();
        self.pipeline.push_row(table.relation.oid, &row)?;
        drop(texts);
        chunk.rows += 1;
        chunk.last = Some(line);
        Ok(())
    }

    fn take_report(&mut self, report: Report) -> Result<(), Error> {
        Ok(report.give_to(self.pipeline, self.progress)?)
    }
}

/// What a chunk held.
struct Chunk {
    rows: u64,
    /// The last row, after whose key the next chunk begins.
    last: Option<Bytes>,
}

/// The texts of the key's columns in a row.
fn key_of(table: &PublishedTable, line: &[u8]) -> Result<Vec<String>, Error> {
    let texts: Vec<Option<Cow<'_, [u8]>>> = fields(line).collect();
    let columns = &table.relation.columns;
    let text = |name: &str| {
        let column = columns.iter().position(|column| column.name == name)?;
        String::from_utf8(texts.get(column)?.as_deref()?.to_vec()).ok()
    };
    let key: Option<Vec<String>> = table.key.iter().map(|key| text(&key.name)).collect();
    let odd =
        || PostgresError::Protocol("a key that is not UTF-8 text cannot be compared".to_owned());
    Ok(key.ok_or_else(odd)?)
}

/// Says that a load begins.
pub(crate) fn announce(table: &PublishedTable, index: &str, generation: u32) {
    let name = format!("{}.{}", table.relation.schema, table.relation.name);
    info!(table = name, index, generation, "loading");
}
