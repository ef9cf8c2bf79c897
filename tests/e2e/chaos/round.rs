//! One round: a database of its own, a load on it, faults; then everything is healed and compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use super::canary::{self, Hurts};
use super::ddl::{self, CHANGES, Changes};
use super::dice::Dice;
use super::faults::{Means, Mischief};
use super::ledger::Ledger;
use super::operations::OPERATIONS;
use super::shapes::SHAPES;
use super::special;
use super::tables::{Tables, dead_letters};
use super::tally::Tally;
use super::wire::{self, Sky};
use super::writer::{self, FORMS, Likely, Shared};
use crate::e2e::faults::arena::Turn;
use crate::e2e::faults::load::{MARKS, Marks};
use crate::e2e::faults::scene::Scene;
use crate::support::proxy::http::SearchProxy;
use crate::support::proxy::tcp::Link;
use crate::support::sql;
use crate::support::wait::wait_until;
use crate::support::waldex::Waldex;

const WRITERS: u64 = 4;
/// Beside `memory_budget`.
const RSS_BYTES_MORE: u64 = 32 << 20;
/// For a backlog that small requests carry, on a machine with other things to do.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(240);
/// For loads that the last changes made necessary.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);
/// For late duplicates to arrive once everything else is over.
const LATE_LIMIT: Duration = Duration::from_secs(40);

/// What all rounds did.
#[derive(Clone, Default)]
pub(super) struct Totals {
    pub(super) operations: Tally,
    pub(super) faults: Tally,
    pub(super) compared: Tally,
}

/// The limits of waldex in a round.
struct Limits {
    memory_budget_bytes: u64,
    bulk_size: u32,
    yaml: String,
}

impl Limits {
    fn of(dice: &mut Dice) -> Self {
        let memory_budget_bytes = *dice.one_of(&[64_u64, 256, 1024, 4096, 16_384]) << 10;
        let bulk_bytes = (*dice.one_of(&[8_u64, 64, 512, 5120]) << 10).min(memory_budget_bytes);
        let bulk_size = *dice.one_of(&[10, 50, 200, 1000]);
        let yaml = format!(
            "memory_budget: {memory_budget_bytes}\nshutdown_grace: {}ms\nelasticsearch:\n  \
             bulk_size: {bulk_size}\n  bulk_bytes: {bulk_bytes}\n  concurrency: {}\n  \
             flush_interval: {}ms\n  request_timeout: {}ms\n  max_retries: {}\n  \
             circuit_breaker: {{open_for: {}ms, interval: 5s}}\n",
            dice.between(500, 6000),
            dice.between(1, 5),
            dice.one_of(&[1, 50, 1000]),
            dice.between(1000, 6000),
            dice.below(4),
            dice.between(100, 3000),
        );
        Self { memory_budget_bytes, bulk_size, yaml }
    }
}

/// Runs one; what it did is added to `totals` whatever comes out.
pub(super) async fn run(turn: &Turn, seed: u64, time: Duration, totals: &Totals) -> Result<()> {
    let mut scene = Scene::new("chaos", turn).await?;
    let ran = Box::pin(act(turn, &mut scene, seed, time, totals)).await;
    if ran.is_err()
        && let Some(waldex) = &scene.waldex
    {
        let file = waldex.keep_log(scene.stage.name())?;
        eprintln!("  the log of waldex is kept in {}", file.display());
        eprintln!("  the last lines of Postgres:\n{}", turn.postgres.log_tail());
    }
    ran
}

async fn act(
    turn: &Turn,
    scene: &mut Scene,
    seed: u64,
    time: Duration,
    totals: &Totals,
) -> Result<()> {
    let mut dice = Dice::of(seed, 0);
    let limits = Limits::of(&mut dice);
    println!("  {}", limits.yaml.trim_end().replace('\n', "; "));
    let began = Instant::now();
    let tables = Tables::create(&mut scene.stage, &mut dice).await?;
    println!("  tables after {:?}", began.elapsed());
    println!("  {}", if tables.is_listed { "tables listed" } else { "tables as published" });
    let link = Link::to(turn.postgres.port()).await?;
    let (proxy, ledger, sky) = before_search(turn, seed, totals).await?;
    let hurts = Hurts::default();
    let load = Load::start(scene, &tables, seed, &limits, totals, &hurts);
    start_waldex(scene, &tables, &limits, &link, &proxy)?;
    scene.watch_marks(Arc::clone(&load.marks), tables.index(&scene.stage, MARKS));
    let means = Means {
        arena: turn.arena(),
        scene,
        link: &link,
        proxy: &proxy,
        sky,
        hurts: Arc::clone(&hurts),
        done: totals.faults.clone(),
        dice: Dice::of(seed, 2),
    };
    Mischief::new(means).run(time).await?;
    proxy.clear();
    println!("  faults over after {:?}", began.elapsed());
    load.finish(scene).await?;
    scene.until(bring_back(turn)).await?;
    println!("  all is back after {:?}", began.elapsed());
    scene.stage.sql = sql::connect(&scene.stage.database.url).await?;
    settle(scene).await?;
    wait_until(LATE_LIMIT, "late requests", async || proxy.waiting() == 0).await?;
    println!("  settled after {:?}", began.elapsed());
    judge(scene, &tables, &ledger, &limits, totals).await?;
    end(scene, &tables, totals).await?;
    println!("  over after {:?}", began.elapsed());
    Ok(())
}

async fn before_search(
    turn: &Turn,
    seed: u64,
    totals: &Totals,
) -> Result<(Arc<SearchProxy>, Ledger, Sky)> {
    let proxy = Arc::new(SearchProxy::before(&turn.elasticsearch).await?);
    let (ledger, sky) = (Ledger::default(), Sky::default());
    let noted = ledger.clone();
    proxy.observe(move |step| noted.note(&step));
    proxy.rule(wire::rule(Dice::of(seed, 1), sky.clone(), totals.faults.clone()));
    Ok((proxy, ledger, sky))
}

fn start_waldex(
    scene: &mut Scene,
    tables: &Tables,
    limits: &Limits,
    link: &Link,
    proxy: &Arc<SearchProxy>,
) -> Result<()> {
    let stage = &scene.stage;
    let listed = if tables.is_listed { stage.config() } else { String::new() };
    let config = format!("{}{listed}", limits.yaml);
    let (url, slot) = (link.url(&stage.database.url)?, stage.name().to_owned());
    let proxy = Arc::clone(proxy);
    scene.supervise_this(move || {
        Ok(Waldex::new("run")?.between(&url, &slot, proxy.node()).config(&config))
    })
}

/// Everything that writes.
struct Load {
    shared: Shared,
    marks: Arc<Marks>,
    writers: Vec<JoinHandle<()>>,
    canary: JoinHandle<canary::Latencies>,
}

impl Load {
    fn start(
        scene: &Scene,
        tables: &Tables,
        seed: u64,
        limits: &Limits,
        totals: &Totals,
        hurts: &Hurts,
    ) -> Self {
        let mut dice = Dice::of(seed, 3);
        let shared = Shared {
            url: scene.stage.database.url.clone(),
            stop: Arc::new(AtomicBool::new(false)),
            done: totals.operations.clone(),
            rows_per_second: *dice.one_of(&[80, 200, 500]),
            // A transaction starts over after each fault, and must come to its end between two.
            rows_max: (limits.bulk_size * 100).min(30_000),
        };
        let shapes: Vec<usize> = (0..SHAPES.len()).collect();
        let likely = Likely {
            forms: dice.weights(FORMS),
            operations: dice.weights(OPERATIONS),
            shapes: dice.weights(&shapes),
        };
        println!("  {likely:?}");
        let changes = Changes {
            likely: dice.weights(CHANGES),
            percent: *dice.one_of(&[0, 3, 10, 25]),
            takes_tables: !tables.is_listed,
            publication: scene.stage.name().to_owned(),
        };
        let part = |number: u64| Dice::of(seed, 10 + number);
        let marks = Arc::default();
        // First, so that it is open when the slot is made.
        let mut writers = vec![special::start_long(&shared, &likely, part(0))];
        writers.push(special::start_marks(&shared, &marks));
        writers.push(special::start_bulky(&shared, part(1)));
        writers.push(special::start_wide(&shared, tables.wide.statements(), part(2)));
        writers.push(ddl::start(&shared, changes, part(3)));
        writers.extend((0..WRITERS).map(|n| writer::start(&shared, &likely, part(4 + n))));
        let canary = canary::start(&shared, hurts);
        Self { shared, marks, writers, canary }
    }

    /// Lets all end what they are at; an error if the source was held up.
    async fn finish(self, scene: &mut Scene) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Self { writers, canary, .. } = self;
        let ended = async {
            for writer in writers {
                writer.await?;
            }
            Ok(canary.await?)
        };
        scene.until(ended).await?.judge()
    }
}

/// Waits until what was committed is confirmed, and every table is loaded.
async fn settle(scene: &mut Scene) -> Result<()> {
    scene.caught_up_within(CATCH_UP_LIMIT).await?;
    let client = sql::connect(&scene.stage.database.url).await?;
    let (search, slot) = (scene.stage.search.clone(), scene.stage.name().to_owned());
    let settled = async || Tables::are_settled(&client, &search, &slot).await.unwrap_or(false);
    scene.until(wait_until(SETTLE_LIMIT, "every table to be loaded", settled)).await
}

/// Waits until both servers are ready.
async fn bring_back(turn: &Turn) -> Result<()> {
    let arena = turn.arena();
    tokio::task::spawn_blocking(move || arena.restore()).await?
}

/// Everything is as it must be.
async fn judge(
    scene: &mut Scene,
    tables: &Tables,
    ledger: &Ledger,
    limits: &Limits,
    totals: &Totals,
) -> Result<()> {
    let compared = tables.compare(&scene.stage, ledger).await?;
    let starts = scene.waldex.as_ref().map_or(0, |waldex| waldex.starts());
    println!(
        "  equal: {} documents; {} differ within P2's limit, of {} that might; {starts} starts",
        compared.documents,
        compared.excluded,
        ledger.doubtful()
    );
    let count = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
    totals.compared.add("documents", count(compared.documents));
    totals.compared.add("excluded", count(compared.excluded));
    totals.compared.add("that might be excluded", count(ledger.doubtful()));
    totals.compared.add("starts of waldex", u64::from(starts));
    let letters = dead_letters(&scene.stage).await?;
    ensure!(letters.is_empty(), "dead letters: {letters:?}");
    let query = "select string_agg(slot_name, ', ') from pg_replication_slots \
                 where database = current_database()";
    let slots = sql::value(&scene.stage.sql, query).await?;
    ensure!(slots.as_deref() == Some(scene.stage.name()), "slots: {slots:?}");
    let peak = scene.waldex.as_mut().context("no waldex")?.peak_rss_bytes();
    let peak_max = limits.memory_budget_bytes + RSS_BYTES_MORE;
    println!("  peak RSS {} KiB of {} KiB", peak >> 10, peak_max >> 10);
    ensure!(peak <= peak_max, "peak RSS {peak} bytes, above {peak_max}");
    Ok(())
}

async fn end(scene: &mut Scene, tables: &Tables, totals: &Totals) -> Result<()> {
    let seen = scene.finish().await?;
    totals.compared.add("positions of the slot", seen.positions);
    totals.compared.add("marks", seen.marks);
    tables.forget(&scene.stage).await?;
    scene.stage.postgres.drop_database(&scene.stage.database).await
}
