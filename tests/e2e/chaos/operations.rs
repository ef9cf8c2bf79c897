//! Statements on the tables of `shapes.rs`.
//!
//! They meet each other's rows on purpose: keys are few. So a statement may fail (two make the same key, two
//! wait for each other), and then its transaction never happened.

use super::dice::{Dice, Weights};
use super::shapes::{Kind, SHAPES, Shape, value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Upsert,
    InsertNew,
    UpdateSome,
    UpdateOne,
    UpdateAlone,
    SetNull,
    Delete,
    DeleteSome,
    DeleteAndInsert,
    MoveKey,
    MoveKeyAndSet,
    MoveOver,
    Chain,
    Swap,
    Truncate,
    TruncateSeveral,
    TruncateAndInsert,
}

use Operation::{
    Chain, Delete, DeleteAndInsert, DeleteSome, InsertNew, MoveKey, MoveKeyAndSet, MoveOver,
    SetNull, Swap, Truncate, TruncateAndInsert, TruncateSeveral, UpdateAlone, UpdateOne,
    UpdateSome, Upsert,
};

pub(super) const OPERATIONS: &[Operation] = &[
    Upsert,
    InsertNew,
    UpdateSome,
    UpdateOne,
    UpdateAlone,
    SetNull,
    Delete,
    DeleteSome,
    DeleteAndInsert,
    MoveKey,
    MoveKeyAndSet,
    MoveOver,
    Chain,
    Swap,
    Truncate,
    TruncateSeveral,
    TruncateAndInsert,
];

/// Of so many truncates chosen, one is done: each empties a table that must fill again.
const TRUNCATES: u32 = 30;

/// One operation: its name, and its statements with a semicolon after each.
pub(super) struct Made {
    pub(super) kind: String,
    pub(super) sql: String,
}

/// A random operation on a random table.
pub(super) fn operation(
    dice: &mut Dice,
    operations: &Weights<Operation>,
    shapes: &Weights<usize>,
) -> Made {
    let shape = &SHAPES[shapes.choose(dice)];
    let mut operation = operations.choose(dice);
    if matches!(operation, Truncate | TruncateSeveral | TruncateAndInsert)
        && dice.below(TRUNCATES) > 0
    {
        operation = Upsert;
    }
    let sql = statements(dice, shape, operation);
    Made { kind: format!("{operation:?}"), sql }
}

/// So many rows of each table, before anything else.
pub(super) fn first_rows(dice: &mut Dice, shape: &Shape) -> String {
    (0..shape.keys / 2).map(|_| upsert(dice, shape)).collect()
}

fn statements(dice: &mut Dice, shape: &Shape, operation: Operation) -> String {
    let name = shape.name;
    let key = dice.below(shape.keys);
    let other = dice.below(shape.keys);
    let spare = shape.keys + dice.below(9);
    let this = shape.is(key);
    let rename = |from: u32, to: u32| {
        format!("update {name} set {} where {};", shape.becomes(to), shape.is(from))
    };
    let free = |number: u32| format!("delete from {name} where {};", shape.is(number));
    match operation {
        Upsert => upsert(dice, shape),
        InsertNew => insert(dice, shape, key, "on conflict do nothing"),
        UpdateOne => format!("update {name} set {} where {this};", some_columns(dice, shape)),
        UpdateAlone => format!("update {name} set n = coalesce(n, 0) + 1 where {this};"),
        UpdateSome => {
            let (by, rest) = (dice.between(2, 20), dice.below(20));
            format!(
                "update {name} set n = coalesce(n, 0) + 1 where coalesce(n, 0) % {by} = {rest} % {by};"
            )
        }
        SetNull => format!("update {name} set {} = null where {this};", one_column(dice, shape).0),
        Delete => free(key),
        DeleteSome => {
            let rest = dice.below(10);
            format!("delete from {name} where coalesce(n, 0) % 10 = {rest};")
        }
        DeleteAndInsert => free(key) + &insert(dice, shape, key, "on conflict do nothing"),
        MoveKey => format!(
            "update {name} set {} where {this} and not exists (select from {name} where {});",
            shape.becomes(other),
            shape.is(other)
        ),
        MoveKeyAndSet => format!(
            "{} update {name} set {}, {} where {this};",
            if key == other { String::new() } else { free(other) },
            shape.becomes(other),
            some_columns(dice, shape)
        ),
        MoveOver if key == other => rename(key, spare),
        MoveOver => free(other) + &rename(key, other),
        Chain => {
            let last = (other + 1) % shape.keys;
            let change = format!("update {name} set n = -1 where {};", shape.is(spare));
            let steps = [free(spare), rename(key, spare), change, free(last), rename(spare, last)];
            steps.concat() + &rename(last, key)
        }
        Swap => {
            [free(spare), rename(key, spare), rename(other, key), rename(spare, other)].concat()
        }
        Truncate => format!("truncate {name};"),
        TruncateSeveral => {
            let second = dice.one_of(SHAPES).name;
            let list = if second == name { name.to_owned() } else { format!("{name}, {second}") };
            format!("truncate {list} restart identity;")
        }
        TruncateAndInsert => {
            let inserts: String = (0..3).map(|_| upsert(dice, shape)).collect();
            let before = upsert(dice, shape);
            format!("{before} truncate {name}; {inserts}")
        }
    }
}

fn insert(dice: &mut Dice, shape: &Shape, key: u32, conflict: &str) -> String {
    let names: Vec<&str> = shape.columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<String> = shape.columns.iter().map(|(_, kind)| value(*kind, dice)).collect();
    format!(
        "insert into {} ({}, n, {}) values ({}, {}, {}) {conflict};",
        shape.name,
        shape.key.join(", "),
        names.join(", "),
        (shape.key_of)(key).join(", "),
        dice.below(1000),
        values.join(", ")
    )
}

fn upsert(dice: &mut Dice, shape: &Shape) -> String {
    let key = dice.below(shape.keys);
    let set: Vec<String> = shape
        .columns
        .iter()
        .filter(|_| dice.chance(50))
        .map(|(name, _)| format!("{name} = excluded.{name}"))
        .chain(["n = excluded.n".to_owned()])
        .collect();
    let conflict =
        format!("on conflict ({}) do update set {}", shape.key.join(", "), set.join(", "));
    insert(dice, shape, key, &conflict)
}

fn one_column(dice: &mut Dice, shape: &Shape) -> (&'static str, Kind) {
    *dice.one_of(shape.columns)
}

fn some_columns(dice: &mut Dice, shape: &Shape) -> String {
    let mut set: Vec<String> = Vec::new();
    for (name, kind) in shape.columns {
        if dice.chance(40) {
            set.push(format!("{name} = {}", value(*kind, dice)));
        }
    }
    set.push(format!("n = {}", dice.below(1000)));
    set.join(", ")
}
