//! Servers to be hurt: a Postgres with `fsync` and an Elasticsearch of this test binary's own. One test
//! has them at a time, and finds both up and running whatever the one before did.

use std::ops::Deref;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::block_in_place;

use crate::support::servers::backend::Backend;
use crate::support::servers::elasticsearch;
use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::search_node::{NodeOptions, SearchNode};

/// Short, so that a walsender that hears nothing is seen to end.
pub(crate) const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Arena {
    pub(crate) postgres: Postgres,
    pub(crate) elasticsearch: SearchNode,
}

/// The arena, for as long as this lives.
pub(crate) struct Turn {
    arena: &'static Arena,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Arena;

    fn deref(&self) -> &Arena {
        self.arena
    }
}

impl Turn {
    /// The arena itself, for what outlives a borrow of the turn.
    pub(crate) fn arena(&self) -> &'static Arena {
        self.arena
    }
}

/// Waits for the other tests to be through with it.
pub(crate) async fn arena() -> Result<Turn> {
    static TURN: Mutex<()> = Mutex::const_new(());
    static ARENA: OnceLock<Result<Arena, String>> = OnceLock::new();
    let turn = TURN.lock().await;
    let arena = block_in_place(|| {
        let started = ARENA.get_or_init(|| start().map_err(|error| format!("{error:#}")));
        let arena = started.as_ref().map_err(|error| anyhow!("{error}"))?;
        arena.restore()?;
        anyhow::Ok(arena)
    })?;
    Ok(Turn { arena, _turn: turn })
}

fn start() -> Result<Arena> {
    let timeout = format!("wal_sender_timeout={}s", WAL_SENDER_TIMEOUT.as_secs());
    std::thread::scope(|scope| {
        let node = scope.spawn(|| elasticsearch::start(&NodeOptions::default()));
        let options = Options { fsync: true, conf: vec![timeout] };
        let postgres = Postgres::start(Version::Newest, &options)?;
        let elasticsearch = node.join().map_err(|_| anyhow!("starting a node panicked"))??;
        Ok(Arena { postgres, elasticsearch })
    })
}

impl Arena {
    /// Brings back whatever is down or frozen.
    pub(crate) fn restore(&self) -> Result<()> {
        for backend in [self.postgres.backend(), self.elasticsearch.backend()] {
            match backend.pid() {
                Some(_) => backend.resume()?,
                None => backend.start_again()?,
            }
        }
        self.postgres.wait_ready(Duration::from_secs(90))?;
        self.elasticsearch.wait_ready(Duration::from_secs(180))
    }
}

/// What can be done to a server, without holding up this runtime's other tasks.
pub(crate) trait Hurt {
    fn backend(&self) -> &Backend;
    fn start_again(&self) -> Result<()>;

    /// `kill -9`.
    fn kill_it(&self) -> Result<()> {
        block_in_place(|| self.backend().kill())
    }

    /// `kill -9`, and a start on the same data.
    fn crash(&self) -> Result<()> {
        block_in_place(|| {
            self.backend().kill()?;
            self.start_again()
        })
    }

    /// A stop in good order, and a start on the same data.
    fn restart(&self) -> Result<()> {
        block_in_place(|| {
            self.backend().stop()?;
            self.start_again()
        })
    }

    /// Starts it after a kill or a stop.
    fn bring_back(&self) -> Result<()> {
        block_in_place(|| self.start_again())
    }
}

impl Hurt for Postgres {
    fn backend(&self) -> &Backend {
        Postgres::backend(self)
    }

    fn start_again(&self) -> Result<()> {
        Postgres::start_again(self)
    }
}

impl Hurt for SearchNode {
    fn backend(&self) -> &Backend {
        SearchNode::backend(self)
    }

    fn start_again(&self) -> Result<()> {
        SearchNode::start_again(self)
    }
}
