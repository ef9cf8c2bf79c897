//! What only now and then happens: COPY, transactions of many rows, transactions that stay open for long,
//! marks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use futures_util::SinkExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::dice::Dice;
use super::operations::{Made, operation};
use super::wide::Statements;
use super::writer::{Connection, Likely, Shared, rest};
use crate::e2e::faults::load::{MARKS, Mark, Marks, position};

const LIMIT: Duration = Duration::from_secs(30);
const MARK_IDS: u64 = 40;
/// Ids of rows that only these make.
const COPIED_FROM: u32 = 1_000_000;

/// COPY, and transactions of many rows.
pub(super) fn start_bulky(shared: &Shared, dice: Dice) -> JoinHandle<()> {
    tokio::spawn(bulky(Connection::new(shared), dice))
}

async fn bulky(mut connection: Connection, mut dice: Dice) {
    let mut next = COPIED_FROM;
    while !connection.shared.is_over() {
        let rows_max = connection.shared.rows_max;
        if dice.chance(40) {
            let rows = dice.between(1, rows_max / 4 + 2);
            next += rows;
            copy(&mut connection, next - rows, rows).await;
        } else {
            let rows = dice.between(rows_max / 10, rows_max + 1);
            next += rows;
            let sql = many(&mut dice, next - rows, rows);
            connection.transact(&["many rows".to_owned()], &sql).await;
        }
        pause(&connection.shared, dice.millis(500, 15_000)).await;
    }
}

/// The table of every type.
pub(super) fn start_wide(shared: &Shared, wide: Statements, dice: Dice) -> JoinHandle<()> {
    tokio::spawn(write_wide(Connection::new(shared), wide, dice))
}

async fn write_wide(mut connection: Connection, wide: Statements, mut dice: Dice) {
    while !connection.shared.is_over() {
        let began = Instant::now();
        let made: Vec<Made> = (0..dice.between(1, 4)).map(|_| wide.operation(&mut dice)).collect();
        let sql: String = made.iter().map(|made| made.sql.as_str()).collect();
        let kinds: Vec<String> = made.into_iter().map(|made| made.kind).collect();
        let rows = connection.transact(&kinds, &format!("begin; {sql} commit")).await;
        rest(&connection.shared, rows * 10, began).await;
    }
}

/// Many rows at once, some of them changed again and again within the transaction.
fn many(dice: &mut Dice, from: u32, rows: u32) -> String {
    let to = from + rows - 1;
    let insert = format!(
        "insert into plain select i, 0, 'many ' || i from generate_series({from}, {to}) i;"
    );
    let update = format!("update plain set n = n + 1 where id >= {from} and id % 3 = 0;");
    let moved =
        format!("update plain set id = -id where id between {from} and {to} and id % 7 = 0;");
    let end = format!("delete from plain where id >= {from} and id % 5 = 0;");
    let clear =
        format!("delete from plain where id < 0 or id between {COPIED_FROM} and {};", from - 1);
    let parts = [(insert, 90), (update, 80), (moved, 60), (end, 60), (clear, 30)];
    let parts: String = parts
        .into_iter()
        .filter(|(_, percent)| dice.chance(*percent))
        .map(|(part, _)| part)
        .collect();
    format!("begin; {parts} commit")
}

async fn copy(connection: &mut Connection, from: u32, rows: u32) {
    let done = connection.shared.done.clone();
    let Some(client) = connection.client().await else { return };
    let copied = timeout(LIMIT, copy_in(client, from, rows)).await;
    done.one(if matches!(copied, Ok(Ok(_))) { "COPY" } else { "failed" });
}

async fn copy_in(client: &Client, from: u32, rows: u32) -> Result<u64> {
    let mut sink = Box::pin(client.copy_in::<_, Bytes>("copy plain (id, n, v) from stdin").await?);
    for id in from..from + rows {
        sink.send(Bytes::from(format!("{id}\t{}\tcopied {id}\\t\n", id % 17))).await?;
    }
    Ok(sink.as_mut().finish().await?)
}

/// A transaction that stays open, and another after it, and so on. The first is open before the slot is made.
pub(super) fn start_long(shared: &Shared, likely: &Likely, dice: Dice) -> JoinHandle<()> {
    tokio::spawn(long(Connection::new(shared), likely.clone(), dice))
}

async fn long(mut connection: Connection, likely: Likely, mut dice: Dice) {
    while !connection.shared.is_over() {
        let steps = dice.between(1, 5);
        let mut is_open = connection.run("begin").await.is_some();
        for _ in 0..steps {
            let made = operation(&mut dice, &likely.operations, &likely.shapes);
            // A truncate would keep everybody else from its table.
            if !is_open || made.kind.starts_with("Truncate") {
                continue;
            }
            is_open = connection.run(&made.sql).await.is_some();
            pause(&connection.shared, dice.millis(0, 5000)).await;
        }
        let end = if dice.chance(70) { "commit" } else { "rollback" };
        let ended = connection.run(end).await;
        if is_open && ended.is_some() {
            connection.shared.done.one(&format!("long transaction: {end}"));
        }
        pause(&connection.shared, dice.millis(0, 4000)).await;
    }
}

async fn pause(shared: &Shared, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end && !shared.is_over() {
        tokio::time::sleep(Duration::from_millis(100).min(end - Instant::now().min(end))).await;
    }
}

/// Sets marks for the watcher.
pub(super) fn start_marks(shared: &Shared, marks: &Arc<Marks>) -> JoinHandle<()> {
    tokio::spawn(set_marks(Connection::new(shared), Arc::clone(marks)))
}

async fn set_marks(mut connection: Connection, marks: Arc<Marks>) {
    let mut n = 0;
    while !connection.shared.is_over() {
        n += 1;
        let id = n % MARK_IDS;
        let done = connection.shared.done.clone();
        let Some(client) = connection.client().await else { return };
        if let Ok(Ok(mark)) = timeout(LIMIT, set_mark(client, id, n)).await {
            marks.add(mark);
            done.one("mark");
        }
        pause(&connection.shared, Duration::from_millis(150)).await;
    }
}

async fn set_mark(client: &Client, id: u64, n: u64) -> Result<Mark> {
    let after = position(client).await?;
    let set = format!(
        "insert into {MARKS} values ({id}, {n}) on conflict (id) do update set n = excluded.n"
    );
    client.batch_execute(&set).await?;
    Ok(Mark { id, n, after, before: position(client).await? })
}
