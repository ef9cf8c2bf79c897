//! The core against a model: a seeded source, a cluster and a network that fail in every way known, and the
//! shell's life in between. No socket, no clock, no sleep: a run takes milliseconds.
//!
//! Checked by the names of `src/lib.rs`: I1 the documents are the rows at rest; I2 no position is
//! confirmed before everything up to it is in the cluster, and only ends of transactions and idle
//! positions are; I3 neither goes back; I4 bytes in flight stay in the budget plus one frame; I5 a
//! document's writes arrive in change order; I7 after any crash, I1 again. And liveness: once the faults
//! end, everything is confirmed. I6 and I8 are of the shell: `tests/e2e`.
//!
//! `SEED=n` replays one run; `SEEDS=n` runs so many.

#![allow(clippy::expect_used, reason = "a test: what cannot be is a failure")]

mod cluster;
mod invariants;
mod late;
mod life;
mod mutants;
mod requests;
mod shape;
mod source;
mod stream;
mod vectors;
mod weather;
mod wire;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::RngExt;

use invariants::Violation;
use life::Ended;
use mutants::Mutant;
use world::{Watch, World};

const SEEDS: u64 = 1_000;
/// Storms of one seed, at most; after each, everything must be as it should be.
const STORMS_MAX: u32 = 3;

/// Whatever these count must have happened: faults that never come show nothing.
const MUST_HAPPEN: [&str; 28] = [
    "alias removed",
    "backup or restore",
    "batch that waits for an unanswered one",
    "checkpoint",
    "cluster restart",
    "dead letter",
    "disconnect",
    "failover",
    "failover that is followed",
    "halt on a rejected document",
    "item answered 429",
    "keepalive inside a transaction",
    "late request",
    "late write",
    "lost answer",
    "process crash",
    "reload of a table",
    "request answered 429",
    "request refused whole",
    "reselect",
    "reselect of a row that is gone",
    "restore",
    "resync: gap",
    "resync: slot gone",
    "resync: timeline",
    "snapshot that lags",
    "source crash",
    "stop",
];

/// What happened, how often.
type Happened = BTreeMap<&'static str, u64>;

/// One seed; a panic of the core is a violation, too.
fn simulate(seed: u64, mutant: Option<Mutant>, watch: Watch) -> Result<Happened, Violation> {
    let outcome = catch_unwind(AssertUnwindSafe(|| storms(seed, mutant, watch)));
    outcome.unwrap_or_else(|_| Err(Violation::new("no panic", "an assertion failed")))
}

fn storms(seed: u64, mutant: Option<Mutant>, watch: Watch) -> Result<Happened, Violation> {
    let mut world = World::new(seed, mutant, watch);
    let storms = world.random.random_range(1..=STORMS_MAX);
    let mut crashed = false;
    for _ in 0..storms {
        world.storm();
        loop {
            match life::live(&mut world)? {
                Ended::AtRest => break,
                Ended::Crashed => crashed = true,
                Ended::Stopped | Ended::Disconnected => {}
                // The operator corrects the mapping.
                Ended::Halted => {
                    world.count("halt on a rejected document");
                    world.cluster.takes_poison = true;
                }
                Ended::NeedsResync(reason) => {
                    world.count(match reason {
                        "gap" => "resync: gap",
                        "timeline" => "resync: timeline",
                        _ => "resync: slot gone",
                    });
                    life::resync(&mut world);
                }
            }
            world.between_lives();
        }
        world.land_late(true)?;
        invariants::at_rest(&world, crashed)?;
    }
    Ok(world.happened().clone())
}

#[test]
fn every_seed_ends_with_documents_equal_to_rows() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let is_whole = seeds.end >= SEEDS && seeds.start == 0;
    let mut happened = Happened::new();
    for seed in seeds {
        match simulate(seed, None, Watch::Always) {
            Ok(of_seed) => {
                for (what, times) in of_seed {
                    *happened.entry(what).or_default() += times;
                }
            }
            Err(violation) => {
                panic!("SEED={seed} violates {}: {}", violation.invariant, violation.what)
            }
        }
    }
    println!("{happened:#?}");
    for what in MUST_HAPPEN.into_iter().filter(|_| is_whole) {
        assert!(happened.contains_key(what), "in no seed: {what}");
    }
}
