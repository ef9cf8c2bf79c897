//! Chaos: a random load over every kind of table and operation, random faults of every part, and then each
//! document compared with its row, both ways.
//!
//! In rounds, each with its own seed, database, slot, indices, settings of waldex, and likelihoods: some things
//! never happen in a round, some all the time. `CHAOS_SECONDS` says for how long; `SEED` is the seed of the
//! first round, and a failed round prints its own. A seed decides what is chosen, not when it meets what.
//!
//! The only documents that may differ are those of P2's stated limit, which `ledger.rs` keeps count of.

mod canary;
mod ddl;
mod dice;
mod faults;
mod ledger;
mod operations;
mod round;
mod shapes;
mod special;
mod tables;
mod tally;
mod wide;
mod wire;
mod writer;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::faults::arena::arena;
use crate::support::seed::seed;
use dice::Dice;
use round::Totals;

/// In `cargo test`; as long as you like with `CHAOS_SECONDS`.
const SECONDS: u64 = 150;
/// Of the load of one round.
const ROUND_SECONDS_MIN: u64 = 30;
const ROUND_SECONDS_MAX: u64 = 75;
/// What a round takes beside its load, about.
const ROUND_SECONDS_MORE: u64 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once_and_every_document_is_its_row() -> Result<()> {
    let seconds = match std::env::var("CHAOS_SECONDS") {
        Ok(text) => text.parse().context("CHAOS_SECONDS")?,
        Err(_) => SECONDS,
    };
    let turn = arena().await?;
    let began = Instant::now();
    let (mut seed, totals) = (seed()?, Totals::default());
    let mut rounds = 0;
    let mut outcome = Ok(());
    while outcome.is_ok() {
        let left = seconds.saturating_sub(began.elapsed().as_secs());
        if rounds > 0 && left < ROUND_SECONDS_MIN + ROUND_SECONDS_MORE {
            break;
        }
        // Two short rounds show more than a long one.
        let is_last = left < 2 * (ROUND_SECONDS_MIN + ROUND_SECONDS_MORE);
        let share = if is_last { left } else { left / 2 };
        let longest = share.saturating_sub(ROUND_SECONDS_MORE).min(ROUND_SECONDS_MAX);
        let time = Duration::from_secs(longest.max(ROUND_SECONDS_MIN));
        rounds += 1;
        println!("round {rounds} after {:?}: SEED={seed}, {time:?}", began.elapsed());
        outcome = Box::pin(round::run(&turn, seed, time, &totals))
            .await
            .with_context(|| format!("round {rounds}, SEED={seed}"));
        seed = Dice::of(seed, u64::MAX - 1).number();
    }
    println!("{rounds} rounds in {:?}", began.elapsed());
    println!("operations, {} in all: {}", totals.operations.total(), totals.operations);
    println!("faults, {} in all: {}", totals.faults.total(), totals.faults);
    println!("compared: {}", totals.compared);
    outcome
}
