//! Connections that write, each with transactions of its own kind of chance, through every fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::dice::{Dice, Weights};
use super::operations::{Operation, operation};
use super::tally::Tally;
use crate::support::sql;

/// A server that does not answer for so long is down.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const RECONNECT: Duration = Duration::from_millis(50);
/// Operations of a transaction, at most.
const OPERATIONS_MAX: u32 = 9;
/// Nobody waits for anybody's lock for longer.
const SESSION: &str = "set lock_timeout = '1500ms'; set deadlock_timeout = '100ms'";

/// What all who write in a round share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) url: String,
    pub(super) stop: Arc<AtomicBool>,
    /// Operations that were committed.
    pub(super) done: Tally,
    /// Rows changed a second by one writer, about.
    pub(super) rows_per_second: u32,
    /// Of a transaction of many rows, at most.
    pub(super) rows_max: u32,
}

impl Shared {
    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How a writer's transactions are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One operation; of several statements, in a transaction.
    Single,
    Several,
    Savepoints,
    RolledBack,
}

pub(super) const FORMS: &[Form] =
    &[Form::Single, Form::Several, Form::Savepoints, Form::RolledBack];

/// What is likely in a round.
#[derive(Clone, Debug)]
pub(super) struct Likely {
    pub(super) forms: Weights<Form>,
    pub(super) operations: Weights<Operation>,
    pub(super) shapes: Weights<usize>,
}

/// A connection that is made again when it broke.
pub(super) struct Connection {
    pub(super) shared: Shared,
    client: Option<Client>,
}

impl Connection {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { shared: shared.clone(), client: None }
    }

    /// None once the round is over.
    pub(super) async fn client(&mut self) -> Option<&Client> {
        while self.client.as_ref().is_none_or(Client::is_closed) {
            if self.shared.is_over() {
                return None;
            }
            match timeout(ANSWER_LIMIT, connect(&self.shared.url)).await {
                Ok(Ok(client)) => self.client = Some(client),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(RECONNECT).await,
            }
        }
        self.client.as_ref()
    }

    /// Runs statements; how many rows they changed, or none if they failed and were rolled back.
    pub(super) async fn run(&mut self, sql: &str) -> Option<u64> {
        let client = self.client().await?;
        match timeout(ANSWER_LIMIT, changed_by(client, sql)).await {
            Ok(Ok(rows)) => Some(rows),
            Ok(Err(_)) => {
                let _ = timeout(ANSWER_LIMIT, client.batch_execute("rollback")).await;
                None
            }
            // Whatever it still does, it does without us.
            Err(_) => {
                self.client = None;
                None
            }
        }
    }

    /// Runs a transaction and counts what it did if it was committed.
    pub(super) async fn transact(&mut self, kinds: &[String], sql: &str) -> u64 {
        let Some(rows) = self.run(sql).await else {
            self.shared.done.one("failed");
            return 0;
        };
        for kind in kinds {
            self.shared.done.one(kind);
        }
        rows
    }
}

async fn connect(url: &str) -> Result<Client> {
    let client = sql::connect(url).await?;
    client.batch_execute(SESSION).await?;
    Ok(client)
}

async fn changed_by(client: &Client, sql: &str) -> Result<u64> {
    let messages = client.simple_query(sql).await?;
    let changed = messages.iter().map(|message| {
        if let SimpleQueryMessage::CommandComplete(rows) = message { *rows } else { 0 }
    });
    Ok(changed.sum())
}

/// Starts a writer.
pub(super) fn start(shared: &Shared, likely: &Likely, dice: Dice) -> JoinHandle<()> {
    tokio::spawn(write(Connection::new(shared), likely.clone(), dice))
}

async fn write(mut connection: Connection, likely: Likely, mut dice: Dice) {
    while !connection.shared.is_over() {
        let began = Instant::now();
        let (kinds, sql) = transaction(&mut dice, &likely);
        let rows = connection.transact(&kinds, &sql).await;
        rest(&connection.shared, rows, began).await;
    }
}

/// Keeps to the pace.
pub(super) async fn rest(shared: &Shared, rows: u64, began: Instant) {
    let due = Duration::from_millis((rows + 1) * 1000 / u64::from(shared.rows_per_second.max(1)));
    let mut left = due.saturating_sub(began.elapsed());
    while !left.is_zero() && !shared.is_over() {
        let step = left.min(Duration::from_millis(200));
        tokio::time::sleep(step).await;
        left -= step;
    }
}

fn transaction(dice: &mut Dice, likely: &Likely) -> (Vec<String>, String) {
    let mut kinds = Vec::new();
    let mut made = |dice: &mut Dice, is_kept: bool| {
        let made = operation(dice, &likely.operations, &likely.shapes);
        if is_kept {
            kinds.push(made.kind);
        }
        made.sql
    };
    let count = dice.between(1, OPERATIONS_MAX);
    let sql = match likely.forms.choose(dice) {
        Form::Single => format!("begin; {} commit", made(dice, true)),
        Form::Several => {
            let all: String = (0..count).map(|_| made(dice, true)).collect();
            format!("begin; {all} commit")
        }
        Form::Savepoints => {
            let mut all = String::new();
            for number in 0..count {
                let is_kept = dice.chance(50);
                let end = if is_kept { "release" } else { "rollback to" };
                all.push_str(&format!("savepoint s{number}; {}", made(dice, is_kept)));
                if dice.chance(30) {
                    all.push_str(&format!("savepoint i; {} rollback to i;", made(dice, false)));
                }
                all.push_str(&format!("{end} s{number}; {}", made(dice, true)));
            }
            kinds.push("with savepoints".to_owned());
            format!("begin; {all} commit")
        }
        Form::RolledBack => {
            let all: String = (0..count).map(|_| made(dice, false)).collect();
            kinds.push("rolled back".to_owned());
            format!("begin; {all} rollback")
        }
    };
    (kinds, sql)
}
