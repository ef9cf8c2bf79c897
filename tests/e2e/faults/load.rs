//! A load of mixed changes over several tables, by a task that goes on through every fault.
//!
//! Inserts, updates, deletes and key moves, in transactions of one row and of hundreds, some rolled back. A
//! commit whose answer is lost may or may not have happened: the table is the truth. Now and then a
//! transaction sets a mark, of which the positions before and after its commit are known.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};
use waldex::lsn::Lsn;

use crate::support::compare::{Expectation, assert_table_equals_index};
use crate::support::sql;
use crate::support::stage::Stage;
use crate::support::wait::wait_until;

/// The table of marks.
pub(crate) const MARKS: &str = "marks";
const MARK_IDS: u64 = 40;
const MARK_EVERY: u64 = 20;
/// Marks that wait for the slot to pass them; older ones are given up.
const MARKS_MAX: usize = 2000;
/// A server that does not answer for so long is down.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const RECONNECT: Duration = Duration::from_millis(50);
/// How long a server may be away before the load gives up.
const OUTAGE_MAX: Duration = Duration::from_secs(120);
/// Changes a second once the goal is reached and the faults go on.
const SLOW: u64 = 500;

/// A row `id` with `n`, committed between two positions.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) id: u64,
    pub(crate) n: u64,
    pub(crate) after: Lsn,
    pub(crate) before: Lsn,
}

/// Marks that the slot has yet to pass.
#[derive(Default)]
pub(crate) struct Marks(Mutex<VecDeque<Mark>>);

impl Marks {
    pub(crate) fn add(&self, mark: Mark) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() == MARKS_MAX {
            marks.pop_front();
        }
        marks.push_back(mark);
    }

    /// Takes those that were committed before `position`.
    pub(crate) fn take_until(&self, position: Lsn) -> Vec<Mark> {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (passed, waiting) =
            std::mem::take(&mut *marks).into_iter().partition(|mark| mark.before <= position);
        *marks = waiting;
        passed.into()
    }
}

/// How much, and how fast.
#[derive(Clone, Copy)]
pub(crate) struct Amount {
    /// Changes to make at least.
    pub(crate) changes: u64,
    /// Changes a second, at most.
    pub(crate) per_second: u64,
}

/// A running load.
pub(crate) struct Load {
    shared: Arc<Shared>,
    task: JoinHandle<Result<()>>,
}

struct Shared {
    url: String,
    amount: Amount,
    marks: Arc<Marks>,
    changes: AtomicU64,
    stop: AtomicBool,
}

/// Creates the tables.
pub(crate) async fn create_tables(stage: &mut Stage<'_>) -> Result<()> {
    create_tables_with(stage, "").await
}

/// The same, with these settings of each table.
pub(crate) async fn create_tables_with(stage: &mut Stage<'_>, settings: &str) -> Result<()> {
    stage.table("accounts", "id bigint primary key, n int, v text", settings).await?;
    stage.table("items", "a int, b text, v jsonb, primary key (a, b)", settings).await?;
    stage.table("notes", "id text primary key, body text", settings).await?;
    stage.table(MARKS, "id int primary key, n bigint", settings).await
}

/// Compares all of them.
pub(crate) async fn assert_tables_equal(stage: &Stage<'_>) -> Result<()> {
    stage.assert_equal("accounts", "id", &["id", "n", "v"]).await?;
    stage.assert_equal(MARKS, "id", &["id", "n"]).await?;
    let items = "select a || ',' || b, json_build_object('a', a, 'b', b, 'v', v)::text from items";
    let notes = "select replace(id, '~', '~0'), json_build_object('id', id, 'body', body)::text \
                 from notes";
    for (table, query) in [("items", items), ("notes", notes)] {
        let expectation = Expectation::query(query.to_owned());
        let index = stage.index(table);
        assert_table_equals_index(&stage.sql, &expectation, &stage.search, &index).await?;
    }
    Ok(())
}

impl Load {
    /// Starts to write into the tables of the database at `url`.
    pub(crate) fn start(url: &str, amount: Amount, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            amount,
            marks: Arc::default(),
            changes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            random: StdRng::seed_from_u64(seed),
            next: 1,
            mark: 0,
        };
        Self { shared, task: tokio::spawn(writer.run()) }
    }

    /// The marks it sets.
    pub(crate) fn marks(&self) -> Arc<Marks> {
        Arc::clone(&self.shared.marks)
    }

    /// Rows changed so far.
    pub(crate) fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Relaxed)
    }

    /// Waits until so many were changed.
    pub(crate) async fn wait_for_changes(&self, changes: u64) -> Result<()> {
        let reached = async || self.changes() >= changes || self.task.is_finished();
        wait_until(OUTAGE_MAX, &format!("{changes} changes"), reached).await
    }

    /// Lets it end once its goal is reached; the number of changes.
    pub(crate) async fn finish(self) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.shared.changes.load(Ordering::Relaxed))
    }
}

struct Writer {
    shared: Arc<Shared>,
    random: StdRng,
    /// The next key that was never used.
    next: u64,
    mark: u64,
}

impl Writer {
    async fn run(mut self) -> Result<()> {
        let start = Instant::now();
        let mut client = None;
        loop {
            let changes = self.shared.changes.load(Ordering::Relaxed);
            let goal = self.shared.amount.changes;
            if changes >= goal && self.shared.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let slow = changes.saturating_sub(goal) * 1000 / SLOW;
            let pace = changes.min(goal) * 1000 / self.shared.amount.per_second + slow;
            let ahead = Duration::from_millis(pace).saturating_sub(start.elapsed());
            tokio::time::sleep(ahead.min(Duration::from_millis(100))).await;
            if client.as_ref().is_none_or(Client::is_closed) {
                client = Some(self.connect().await?);
            }
            let (sql, mark) = self.transaction();
            let Some(client) = &client else { continue };
            // An error is the server's end, of which the next connection will tell more.
            if let Ok(changed) = self.execute(client, &sql, mark).await {
                self.shared.changes.fetch_add(changed, Ordering::Relaxed);
            } else {
                let _ = tokio::time::timeout(ANSWER_LIMIT, client.batch_execute("rollback")).await;
            }
        }
    }

    async fn connect(&self) -> Result<Client> {
        let deadline = Instant::now() + OUTAGE_MAX;
        loop {
            let connected =
                tokio::time::timeout(ANSWER_LIMIT, sql::connect(&self.shared.url)).await;
            match connected {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) if Instant::now() > deadline => return Err(error),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(RECONNECT).await,
            }
        }
    }

    async fn execute(&self, client: &Client, sql: &str, mark: Option<(u64, u64)>) -> Result<u64> {
        let run = async {
            let Some((id, n)) = mark else { return changed_by(client, sql).await };
            let after = position(client).await?;
            let set = format!(
                "begin; insert into {MARKS} values ({id}, {n}) on conflict (id) do update \
                 set n = excluded.n; {sql} commit"
            );
            let changed = changed_by(client, &set).await?;
            self.shared.marks.add(Mark { id, n, after, before: position(client).await? });
            Ok(changed)
        };
        tokio::time::timeout(ANSWER_LIMIT, run).await?
    }

    /// One transaction's statements; with a mark, without its begin and commit.
    fn transaction(&mut self) -> (String, Option<(u64, u64)>) {
        let number = self.random.random_range(0..MARK_EVERY);
        if number == 0 {
            self.mark += 1;
            let statement = self.statement();
            return (statement, Some((self.mark % MARK_IDS, self.mark)));
        }
        let statements: String =
            (0..self.random.random_range(1..4)).map(|_| self.statement()).collect();
        let end = if number == 1 { "rollback" } else { "commit" };
        (format!("begin; {statements} {end}"), None)
    }

    fn statement(&mut self) -> String {
        let rows = match self.random.random_range(0..4) {
            0..=1 => self.random.random_range(1..4),
            2 => self.random.random_range(5..60),
            _ => self.random.random_range(60..400),
        };
        let from = self.random.random_range(0..self.next);
        let to = from + rows;
        let first = self.next;
        let some = "n % 3 = 0";
        match self.random.random_range(0..14) {
            0..=3 => {
                let last = self.take(rows);
                format!(
                    "insert into accounts select n, 0, 'account ' || n \
                     from generate_series({first}, {last}) n;"
                )
            }
            4 => format!(
                "insert into items select n % 500, 'b' || n, jsonb_build_object('n', n) \
                 from generate_series({from}, {to}) n on conflict (a, b) do update set v = excluded.v;"
            ),
            5 => format!(
                "insert into notes select 'note ' || n, repeat('text ', 20) \
                 from generate_series({from}, {to}) n on conflict do nothing;"
            ),
            6..=8 => format!(
                "update accounts set n = n + 1, v = v || '.' where id between {from} and {to};"
            ),
            9 => {
                format!("update items set v = v || '{{\"u\": {first}}}' where a = {};", from % 500)
            }
            10 => {
                format!("delete from accounts n where id between {from} and {to} and id % 3 = 0;")
            }
            11 => format!("delete from items where a = {} and length(b) % 2 = 0;", to % 500),
            12 => {
                let moved = self.take(rows + 1);
                let by = moved - rows - from;
                format!("update accounts set id = id + {by} where id between {from} and {to};")
            }
            _ => format!(
                "update notes set id = id || '~,', body = 'moved' where id in \
                 (select 'note ' || n from generate_series({from}, {to}) n where {some});"
            ),
        }
    }

    /// Keys from `self.next` on that are used from now on; the last of them.
    fn take(&mut self, count: u64) -> u64 {
        self.next += count;
        self.next - 1
    }
}

pub(crate) async fn position(client: &Client) -> Result<Lsn> {
    let text = sql::value(client, "select pg_current_wal_insert_lsn()").await?;
    Ok(text.context("no position")?.parse()?)
}

pub(crate) async fn changed_by(client: &Client, sql: &str) -> Result<u64> {
    let messages = client.simple_query(sql).await?;
    let changed = messages.iter().map(|message| {
        if let SimpleQueryMessage::CommandComplete(rows) = message { *rows } else { 0 }
    });
    Ok(changed.sum())
}
