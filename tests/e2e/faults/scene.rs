//! A stage in the arena, with a supervised waldex and a watcher.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, interval};

use super::arena::{Arena, Turn};
use super::load::{Load, MARKS, Marks};
use super::supervised::Supervised;
use super::watcher::{Seen, Watched, Watcher};
use crate::support::sql;
use crate::support::stage::Stage;
use crate::support::wait::wait_until;
use crate::support::waldex::Waldex;

/// How often the supervised waldex is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long everything may take to be confirmed once the faults are over.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Scene {
    pub(crate) stage: Stage<'static>,
    pub(crate) waldex: Option<Supervised>,
    /// waldex was killed, and stays down for now.
    pub(crate) is_down: bool,
    watcher: Option<Watcher>,
}

impl Scene {
    /// A database of its own in the arena.
    pub(crate) async fn new(label: &str, turn: &Turn) -> Result<Self> {
        let arena: &'static Arena = turn.arena();
        let stage = Stage::new(label, &arena.postgres, &arena.elasticsearch).await?;
        Ok(Self::on(stage))
    }

    /// The same elsewhere.
    pub(crate) fn on(stage: Stage<'static>) -> Self {
        Self { stage, waldex: None, is_down: false, watcher: None }
    }

    /// Starts `waldex run` under supervision, with these lines before those of the tables.
    pub(crate) fn supervise(&mut self, settings: &str) -> Result<()> {
        let stage = &self.stage;
        let config = format!("{settings}{}", stage.config());
        let (url, slot) = (stage.database.url.clone(), stage.name().to_owned());
        let node = stage.node;
        self.supervise_this(move || {
            Ok(Waldex::new("run")?.between(&url, &slot, node).config(&config))
        })
    }

    /// The same for a command line of one's own.
    pub(crate) fn supervise_this(
        &mut self,
        command: impl Fn() -> Result<Waldex> + Send + 'static,
    ) -> Result<()> {
        self.waldex = Some(Supervised::start(command)?);
        Ok(())
    }

    /// Starts to watch the slot, and the marks of `load`.
    pub(crate) fn watch(&mut self, load: &Load) {
        self.watch_marks(load.marks(), self.stage.index(MARKS));
    }

    /// The same for marks of one's own.
    pub(crate) fn watch_marks(&mut self, marks: Arc<Marks>, marks_index: String) {
        self.watcher = Some(Watcher::start(Watched {
            database_url: self.stage.database.url.clone(),
            slot: self.stage.name().to_owned(),
            search: self.stage.search.clone(),
            marks_index,
            marks,
        }));
    }

    /// Waits for something while waldex is kept up and the watcher is listened to.
    pub(crate) async fn until<T>(&mut self, done: impl Future<Output = Result<T>>) -> Result<T> {
        let mut done = std::pin::pin!(done);
        let mut looks = interval(LOOK);
        loop {
            tokio::select! {
                done = &mut done => return done,
                _ = looks.tick() => self.look().await?,
            }
        }
    }

    /// Keeps waldex up; an error if it gave up or the watcher saw what must not be.
    pub(crate) async fn look(&mut self) -> Result<()> {
        let name = self.stage.name().to_owned();
        let mut looked = Ok(());
        if let Some(waldex) = self.waldex.as_mut().filter(|_| !self.is_down) {
            looked = waldex.keep_up();
        }
        if let (Ok(()), Some(watcher)) = (&looked, &mut self.watcher) {
            looked = watcher.check().await;
        }
        if looked.is_err()
            && let Some(waldex) = &self.waldex
        {
            eprintln!("the log of waldex is kept in {}", waldex.keep_log(&name)?.display());
        }
        looked
    }

    /// `kill -9`, and a start.
    pub(crate) fn kill_waldex(&mut self) -> Result<()> {
        let waldex = self.waldex.as_mut().context("no waldex runs")?;
        waldex.kill()?;
        waldex.keep_up()
    }

    /// After the faults: everything is confirmed, waldex drains and ends well, the watcher saw nothing.
    pub(crate) async fn end(&mut self) -> Result<Seen> {
        self.stage.sql = sql::connect(&self.stage.database.url).await?;
        let caught_up = self.caught_up().await;
        if let Some(waldex) = &self.waldex {
            let file = waldex.keep_log(self.stage.name())?;
            if caught_up.is_err() {
                eprintln!("the log of waldex is kept in {}", file.display());
            }
        }
        caught_up?;
        self.finish().await
    }

    /// waldex drains and ends well, the watcher saw nothing.
    pub(crate) async fn finish(&mut self) -> Result<Seen> {
        if let Some(waldex) = &mut self.waldex {
            waldex.stop(STOP_LIMIT).await?;
        }
        match self.watcher.take() {
            Some(watcher) => watcher.stop().await,
            None => Ok(Seen::default()),
        }
    }

    /// Waits until what is committed now is confirmed.
    pub(crate) async fn caught_up(&mut self) -> Result<()> {
        self.caught_up_within(CATCH_UP_LIMIT).await
    }

    /// The same with another limit.
    pub(crate) async fn caught_up_within(&mut self, limit: Duration) -> Result<()> {
        let end = sql::value(&self.stage.sql, "select pg_current_wal_flush_lsn()").await?;
        let end = end.context("no position")?;
        let query = format!(
            "select 1 from pg_replication_slots where slot_name = '{}' \
             and confirmed_flush_lsn >= '{end}'",
            self.stage.name()
        );
        let url = self.stage.database.url.clone();
        let began = Instant::now();
        let confirmed = async {
            let client = sql::connect(&url).await?;
            let reached = async || matches!(sql::value(&client, &query).await, Ok(Some(_)));
            wait_until(limit, &format!("{end} to be confirmed"), reached).await
        };
        self.until(confirmed).await?;
        println!("caught up with {end} in {:?}", began.elapsed());
        Ok(())
    }
}
