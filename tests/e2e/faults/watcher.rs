//! Watches, while anything else happens, that Postgres was never told more than the search cluster has.
//!
//! Two ways. The slot's `confirmed_flush_lsn` is read first and the state document's `durable_lsn` after
//! it: the slot must not be ahead. And of marks, rows whose commit is known to lie between two positions:
//! once the slot has passed the later one, the document must be there, as new as the row and with a version
//! that is not below the earlier one. Marks older than the slot come with the initial load, and are looked
//! up once that is complete.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_postgres::Client;
use waldex::lsn::Lsn;

use super::load::{MARKS, Mark, Marks};
use crate::support::search::Search;
use crate::support::sql;

const PERIOD: Duration = Duration::from_millis(50);
/// A server that does not answer for so long is down for this once.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Marks looked up in one period.
const LOOKED_UP_MAX: usize = 5;
/// Versions carry the epoch above these bits.
const VERSION_LSN_MASK: u64 = (1 << 56) - 1;

/// What the watcher needs to know.
pub(crate) struct Watched {
    pub(crate) database_url: String,
    pub(crate) slot: String,
    pub(crate) search: Search,
    /// Readers' alias of the table of marks.
    pub(crate) marks_index: String,
    pub(crate) marks: Arc<Marks>,
}

/// What the watcher saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Times that the slot was compared with the state document.
    pub(crate) positions: u64,
    /// Marks that were found in the index.
    pub(crate) marks: u64,
}

/// A running watcher.
pub(crate) struct Watcher {
    task: JoinHandle<Result<Seen>>,
    stop: watch::Sender<bool>,
}

impl Watcher {
    /// Starts to watch.
    pub(crate) fn start(watched: Watched) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { task: tokio::spawn(watch_over(watched, stopped)), stop }
    }

    /// Fails at once if the watcher has seen what must not be.
    pub(crate) async fn check(&mut self) -> Result<()> {
        if self.task.is_finished() {
            let seen = (&mut self.task).await??;
            anyhow::bail!("the watcher ended by itself after {seen:?}");
        }
        Ok(())
    }

    /// Ends it; an error if it ever saw the slot ahead.
    pub(crate) async fn stop(self) -> Result<Seen> {
        self.stop.send_replace(true);
        self.task.await?
    }
}

async fn watch_over(watched: Watched, stopped: watch::Receiver<bool>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut client = None;
    // The highest position of the slot that was not yet compared with the state document.
    let mut slot = Lsn::ZERO;
    let mut due: Vec<Mark> = Vec::new();
    let mut ticks = interval(PERIOD);
    while !*stopped.borrow() {
        ticks.tick().await;
        match slot_position(&watched, &mut client).await {
            Some(position) => slot = slot.max(position),
            None => client = None,
        }
        if slot == Lsn::ZERO {
            continue;
        }
        let Some(state) = state(&watched).await? else { continue };
        let at = state.durable;
        ensure!(slot <= at, "the slot stands at {slot}, ahead of the state's {at}");
        seen.positions += 1;
        if !state.marks_are_loaded {
            continue;
        }
        due.extend(watched.marks.take_until(slot));
        for _ in 0..LOOKED_UP_MAX {
            let Some(mark) = due.pop() else { break };
            match look_up(&watched, &mark).await? {
                true => seen.marks += 1,
                false => due.push(mark),
            }
        }
    }
    Ok(seen)
}

async fn slot_position(watched: &Watched, client: &mut Option<Client>) -> Option<Lsn> {
    if client.is_none() {
        *client = timeout(ANSWER_LIMIT, sql::connect(&watched.database_url)).await.ok()?.ok();
    }
    let query = format!(
        "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = '{}'",
        watched.slot
    );
    let asked = sql::value(client.as_ref()?, &query);
    let text = timeout(ANSWER_LIMIT, asked).await.ok()?.ok()??;
    text.parse().ok()
}

struct State {
    durable: Lsn,
    marks_are_loaded: bool,
}

/// None while the cluster does not answer.
async fn state(watched: &Watched) -> Result<Option<State>> {
    let path = format!("/waldex-state/_doc/{}", watched.slot);
    let asked = timeout(ANSWER_LIMIT, watched.search.request(Method::Get, &path, None)).await;
    let Ok(Ok((200, answer))) = asked else { return Ok(None) };
    let source = &answer["_source"];
    let text = source["durable_lsn"].as_str().context("a state without durable_lsn")?;
    let durable = text.parse().context("durable_lsn is no LSN")?;
    // It only claims the slot, which is being made: there is nothing yet to go on from.
    if durable == Lsn::ZERO {
        return Ok(None);
    }
    let loaded = source["tables"][format!("public.{MARKS}")]["loaded"].as_bool();
    Ok(Some(State { durable, marks_are_loaded: loaded.context("a state without the marks")? }))
}

/// False while the cluster does not answer.
async fn look_up(watched: &Watched, mark: &Mark) -> Result<bool> {
    let id = mark.id.to_string();
    let asked = timeout(ANSWER_LIMIT, watched.search.document(&watched.marks_index, &id)).await;
    let Ok(Ok(found)) = asked else { return Ok(false) };
    let document = found
        .with_context(|| format!("{mark:?} is confirmed, and {MARKS} has no such document"))?;
    let n = document.source["n"].as_u64().context("a mark without n")?;
    let version = Lsn::new(document.version & VERSION_LSN_MASK);
    // Rows that the initial load copied, of whichever age, have the lowest version there is.
    let is_copy = version == Lsn::ZERO;
    ensure!(
        n >= mark.n && (version >= mark.after || is_copy),
        "{mark:?} is confirmed, and its document has n {n} and version {version}"
    );
    Ok(true)
}
