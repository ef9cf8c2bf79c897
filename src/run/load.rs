//! The initial load of a table: COPY in chunks by key, through the same projection and lanes as the stream.
//!
//! Correct under concurrent writes because the slot is older than the first chunk: whatever a chunk
//! misses or shows too old is in the stream, with a higher version. Each chunk is one short read-only
//! transaction, so the source's old rows are held for seconds. An interrupted load starts over.

use std::borrow::Cow;
use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Duration, Instant, Interval, interval, interval_at, sleep_until};
use tracing::info;

use super::lanes::{Lanes, Report};
use super::locks::{LOOK_INTERVAL, names_holders};
use super::progress::Progress;
use super::shutdown::Shutdown;
use super::source_watch::{Finding, Watch};
use super::stream::Clock;
use super::writers::wait_for_writers;
use crate::document::Field;
use crate::error::{Class, Error};
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
/// A chunk is one transaction, and while it is open the source keeps dead rows of every table: when the cluster
/// takes its rows slowly, it ends early, and the next one begins behind the last row that was taken.
const CHUNK_DURATION_MAX: Duration = Duration::from_secs(10);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What a load works with.
pub(crate) struct Loading<'a> {
    pub(crate) session: &'a Session,
    /// Sees whom it waits for.
    pub(crate) control: &'a Session,
    pub(crate) watch: &'a mut Watch,
    pub(crate) publication: &'a str,
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
    /// The table is no longer as it was planned; what was copied is of no use.
    Outplanned,
}

impl Loading<'_> {
    /// Copies `table` and waits until every row is confirmed.
    pub(crate) async fn run(mut self, table: &PublishedTable) -> Result<Loaded, Error> {
        match self.copy(table).await {
            // Dropped or altered between two chunks. Where the table is as it was, the error would come again.
            Err(error @ Error::Postgres(_)) if error.class() == Class::Definite => {
                let is_as_planned = is_as_planned(self.session, self.publication, table);
                match self.patiently(is_as_planned).await? {
                    None => Ok(Loaded::Stopped),
                    Some(false) => Ok(Loaded::Outplanned),
                    Some(true) => Err(error),
                }
            }
            copied => copied,
        }
    }

    async fn copy(&mut self, table: &PublishedTable) -> Result<Loaded, Error> {
        self.pipeline.load(&table.relation)?;
        let session = self.session;
        if self.patiently(wait_for_writers(session, table.relation.oid)).await?.is_none() {
            return Ok(Loaded::Stopped);
        }
        let snapshot = catalog::current_snapshot(session).await?;
        match self.patiently(is_as_planned(session, self.publication, table)).await? {
            None => return Ok(Loaded::Stopped),
            Some(false) => return Ok(Loaded::Outplanned),
            Some(true) => {}
        }
        let mut place: Option<Vec<Vec<u8>>> = None;
        let mut rows = 0;
        loop {
            // No chunk is opened that could not be read.
            if !self.wait_until(Pipeline::wants_frame).await? {
                return Ok(Loaded::Stopped);
            }
            let lines = copy_chunk(session, table, place.as_deref(), CHUNK_ROWS);
            let Some(lines) = self.patiently(lines).await? else {
                return Ok(Loaded::Stopped);
            };
            let Some(chunk) = self.take_chunk(table, lines).await? else {
                return Ok(Loaded::Stopped);
            };
            rows += chunk.rows;
            if !chunk.is_cut && chunk.rows < CHUNK_ROWS {
                break;
            }
            if let Some(last) = chunk.last {
                place = Some(key_of(table, &last)?);
            }
        }
        self.pipeline.drain();
        if !self.wait_until(Pipeline::is_drained).await? {
            return Ok(Loaded::Stopped);
        }
        Ok(Loaded::Whole { rows, snapshot })
    }

    /// Waits for what Postgres may take long for, while the lanes work; `None` if a stop was asked for.
    async fn patiently<T>(
        &mut self,
        asked: impl Future<Output = Result<T, PostgresError>>,
    ) -> Result<Option<T>, Error> {
        let mut asked = pin!(asked);
        let mut ticks = interval(PROGRESS_INTERVAL);
        let mut looks = interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
        loop {
            tokio::select! {
                biased;
                answer = &mut asked => return Ok(Some(answer?)),
                _ = looks.tick() => {
                    names_holders(self.control, self.session.process_id()).await;
                }
                goes_on = self.step(&mut ticks) => if !goes_on? {
                    return Ok(None);
                },
            }
        }
    }

    /// Lets the lanes work until that is so; `false` if a stop was asked for.
    async fn wait_until(&mut self, is_so: impl Fn(&Pipeline) -> bool) -> Result<bool, Error> {
        let mut ticks = interval(PROGRESS_INTERVAL);
        while !is_so(self.pipeline) {
            if !self.step(&mut ticks).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next thing that happens beside the rows; `false` if a stop was asked for. Cancel-safe.
    async fn step(&mut self, ticks: &mut Interval) -> Result<bool, Error> {
        self.lanes.feed(self.pipeline, self.clock.now());
        let deadline = self.pipeline.deadline().map(|tick| self.clock.instant(tick));
        tokio::select! {
            biased;
            () = self.shutdown.requested() => return Ok(false),
            _ = ticks.tick() => self.progress.tick(self.pipeline, Lsn::ZERO),
            finding = self.watch.finding() => self.take_finding(finding)?,
            report = self.lanes.report() => self.take_report(report)?,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
        }
        Ok(true)
    }

    /// Takes the rows of one chunk; `None` if a stop was asked for.
    async fn take_chunk(
        &mut self,
        table: &PublishedTable,
        mut lines: CopyLines,
    ) -> Result<Option<Chunk>, Error> {
        let mut chunk = Chunk { rows: 0, last: None, is_cut: false };
        let over = Instant::now() + CHUNK_DURATION_MAX;
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
                _ = ticks.tick() => {
                    self.progress.tick(self.pipeline, Lsn::ZERO);
                    if Instant::now() >= over && !self.pipeline.wants_frame() && chunk.rows > 0 {
                        chunk.is_cut = true;
                        return Ok(Some(chunk));
                    }
                }
                finding = self.watch.finding() => self.take_finding(finding)?,
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

    /// A load may take hours, and the slot keeps all WAL meanwhile.
    fn take_finding(&mut self, finding: Finding) -> Result<(), Error> {
        match finding {
            Finding::Source(source) => self.progress.source(source),
            // Found again when the stream begins.
            Finding::Outplanned(_) => {}
            Finding::Definite(error) => return Err(error),
        }
        Ok(())
    }

    fn take_report(&mut self, report: Report) -> Result<(), Error> {
        Ok(report.give_to(self.pipeline, self.progress)?)
    }
}

/// Whether the snapshot, which is older than this question, shows the table with the columns that are copied.
/// Rows that it shows with further ones would lack them for good: the stream's copy of them is skipped.
async fn is_as_planned(
    session: &Session,
    publication: &str,
    table: &PublishedTable,
) -> Result<bool, PostgresError> {
    let tables = catalog::published_tables(session, publication).await?;
    Ok(tables.iter().any(|now| now.relation == table.relation))
}

/// What a chunk held.
struct Chunk {
    rows: u64,
    /// The last row, after whose key the next chunk begins.
    last: Option<Bytes>,
    /// Whether there were more.
    is_cut: bool,
}

/// The texts of the key's columns in a row.
fn key_of(table: &PublishedTable, line: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let texts: Vec<Option<Cow<'_, [u8]>>> = fields(line).collect();
    let columns = &table.relation.columns;
    let text = |name: &str| {
        let column = columns.iter().position(|column| column.name == name)?;
        Some(texts.get(column)?.as_deref()?.to_vec())
    };
    let key: Option<Vec<Vec<u8>>> = table.key.iter().map(|key| text(&key.name)).collect();
    let odd = || PostgresError::Protocol("a copied row lacks a column of its key".to_owned());
    Ok(key.ok_or_else(odd)?)
}

/// Says that a load begins.
pub(crate) fn announce(table: &PublishedTable, index: &str, generation: u32) {
    let name = table.relation.full_name();
    info!(table = name, index, generation, "loading");
}
