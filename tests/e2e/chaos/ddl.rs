//! A table whose definition changes while rows are written: columns come, go, get other names and types; an
//! enum gets values; tables come into the publication.
//!
//! Postgres sends no rows for an ALTER. waldex says so (`refresh_recommended`), and rows written since have
//! what the table has; so every change of columns here touches every row, in the same transaction.
//!
//! Nothing is changed before the slot is made. PostgreSQL 18.3 was seen to make slots that cannot be decoded
//! ("invalid internal value for enum") in 2 of 36 attempts while definitions changed and transactions were
//! open; with `pg_create_logical_replication_slot` and no waldex.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::dice::{Dice, Weights};
use super::writer::{Connection, Shared};
use crate::support::sql;

const ANSWER_LIMIT: Duration = Duration::from_secs(10);

pub(super) const NAME: &str = "shifting";
pub(super) const TABLE: &str = "create type temper as enum ('calm', 'odd');
     create table shifting (id int primary key, n int, m temper, c0 text);
     insert into shifting select i, i, 'calm', 'c' || i from generate_series(1, 50) i";
const KEYS: u32 = 80;
const COLUMNS_MAX: usize = 25;
const TOUCH: &str = "update shifting set n = coalesce(n, 0) + 1;";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    AddColumn,
    AddToasted,
    DropColumn,
    RenameColumn,
    Retype,
    AddEnumValue,
    AddTable,
    ReaddTable,
    Rows,
}

pub(super) const CHANGES: &[Change] = &[
    Change::AddColumn,
    Change::AddToasted,
    Change::DropColumn,
    Change::RenameColumn,
    Change::Retype,
    Change::AddEnumValue,
    Change::AddTable,
    Change::ReaddTable,
];

/// What the definition is now, as far as it was committed.
#[derive(Clone)]
struct Definition {
    columns: Vec<String>,
    next: u32,
    enum_values: u32,
    tables: u32,
}

pub(super) struct Changes {
    pub(super) likely: Weights<Change>,
    /// Of a hundred steps so many change the definition; the others change rows.
    pub(super) percent: u32,
    /// Whether tables may come into the publication.
    pub(super) takes_tables: bool,
    pub(super) publication: String,
}

pub(super) fn start(shared: &Shared, changes: Changes, dice: Dice) -> JoinHandle<()> {
    tokio::spawn(shift(Connection::new(shared), changes, dice))
}

async fn shift(mut connection: Connection, changes: Changes, mut dice: Dice) {
    wait_for_the_slot(&mut connection).await;
    let mut now = Definition { columns: vec!["c0".to_owned()], next: 1, enum_values: 0, tables: 0 };
    while !connection.shared.is_over() {
        let began = Instant::now();
        let change = match dice.chance(changes.percent) {
            true => changes.likely.choose(&mut dice),
            false => Change::Rows,
        };
        let mut next = now.clone();
        let sql = statements(&mut dice, change, &mut next, &changes);
        let Some(sql) = sql else {
            super::writer::rest(&connection.shared, 0, began).await;
            continue;
        };
        let kind = format!("table change: {change:?}");
        if let Some(rows) = connection.run(&sql).await {
            connection.shared.done.one(&kind);
            now = next;
            super::writer::rest(&connection.shared, rows + 20, began).await;
        } else {
            // It may have been committed all the same.
            connection.shared.done.one("failed");
            if let Some(known) = recover(&mut connection, &now).await {
                now = known;
            }
        }
    }
}

async fn wait_for_the_slot(connection: &mut Connection) {
    let query = "select 1 from pg_replication_slots where database = current_database() \
                 and confirmed_flush_lsn is not null";
    while !connection.shared.is_over() {
        let Some(client) = connection.client().await else { return };
        let asked = tokio::time::timeout(ANSWER_LIMIT, sql::value(client, query)).await;
        if matches!(asked, Ok(Ok(Some(_)))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks for the definition as it is.
async fn recover(connection: &mut Connection, before: &Definition) -> Option<Definition> {
    let client = connection.client().await?;
    let query = "select attname from pg_attribute where attrelid = 'shifting'::regclass \
                 and attnum > 0 and not attisdropped and attname like 'c%'";
    let asked = tokio::time::timeout(ANSWER_LIMIT, sql::rows(client, query)).await;
    let rows = asked.ok()?.ok()?;
    let columns = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    let Definition { next, enum_values, tables, .. } = *before;
    // Names that may be taken are not used again.
    Some(Definition { columns, next: next + 1, enum_values: enum_values + 1, tables: tables + 1 })
}

fn statements(
    dice: &mut Dice,
    change: Change,
    now: &mut Definition,
    changes: &Changes,
) -> Option<String> {
    let column = (!now.columns.is_empty())
        .then(|| usize::try_from(dice.number()).unwrap_or(0) % now.columns.len());
    let alter = |what: String| format!("begin; alter table shifting {what}; {TOUCH} commit");
    Some(match change {
        Change::Rows => rows(dice, now),
        Change::AddColumn | Change::AddToasted if now.columns.len() < COLUMNS_MAX => {
            let name = format!("c{}", now.next);
            now.next += 1;
            now.columns.push(name.clone());
            let kind = if change == Change::AddToasted {
                "text default noise(7, 3)"
            } else {
                dice.one_of(&["int default 5", "text", "text default 'new'", "bigint"])
            };
            alter(format!("add column {name} {kind}"))
        }
        Change::DropColumn => alter(format!("drop column {}", now.columns.remove(column?))),
        Change::RenameColumn => {
            let new = format!("c{}", now.next);
            now.next += 1;
            let old = std::mem::replace(now.columns.get_mut(column?)?, new.clone());
            alter(format!("rename column {old} to {new}"))
        }
        Change::Retype => {
            let name = now.columns.get(column?)?;
            let kind = dice.one_of(&["text", "varchar(9000)", "char(9)"]);
            alter(format!("alter column {name} type {kind} using left({name}::text, 8)"))
        }
        Change::AddEnumValue => {
            now.enum_values += 1;
            let value = format!("value {}", now.enum_values);
            format!(
                "begin; alter type temper add value if not exists '{value}'; commit; \
                 update shifting set m = '{value}' where id % 3 = 0"
            )
        }
        Change::AddTable if changes.takes_tables => {
            now.tables += 1;
            let name = format!("late_{}", now.tables);
            format!(
                "begin; create table if not exists {name} (id int primary key, v text); \
                 insert into {name} select i, 'before' from generate_series(1, 30) i; commit; \
                 alter publication {} add table {name}; \
                 insert into {name} values (31, 'after'); update {name} set v = 'after' where id < 5; \
                 delete from {name} where id = 7; update {name} set id = 100 where id = 8",
                changes.publication
            )
        }
        Change::ReaddTable if changes.takes_tables && now.tables > 0 => {
            let name = format!("late_{}", now.tables);
            format!(
                "begin; alter publication {0} drop table {name}; \
                 update {name} set v = 'unseen' where id between 10 and 12; commit; \
                 alter publication {0} add table {name}; update {name} set v = 'again' where id = 15",
                changes.publication
            )
        }
        Change::AddColumn | Change::AddToasted | Change::AddTable | Change::ReaddTable => {
            return None;
        }
    })
}

fn rows(dice: &mut Dice, now: &Definition) -> String {
    let key = dice.below(KEYS);
    let mut set = format!("n = {}", dice.below(1000));
    if let Some(name) = now.columns.first().filter(|_| dice.chance(30)) {
        set.push_str(&format!(", {name} = null"));
    }
    match dice.below(5) {
        0 => format!("insert into shifting (id, n) values ({key}, 0) on conflict do nothing"),
        1 => format!("delete from shifting where id = {key}"),
        2 => format!("update shifting set id = id + {KEYS} where id = {key}"),
        3 => format!("delete from shifting where id > {KEYS}"),
        _ => format!("update shifting set {set} where id = {key}"),
    }
}
