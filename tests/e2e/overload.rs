//! A cluster with too much to do: what it turns away is sent again, less at a time, until it is taken, however long
//! that lasts; what it took is not sent again, nothing is confirmed too early, and nothing becomes a dead letter.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::support::admin::{get, metric};
use crate::support::proxy::http::{Fault, Request, SearchProxy};
use crate::support::proxy::items::Item;
use crate::support::servers::ports;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::{wait_for, wait_until};
use crate::support::waldex::{Running, Waldex};

const REJECTED: &str = r#"{"type":"es_rejected_execution_exception","reason":"r"}"#;
const REJECTED_WHOLE: &str =
    r#"{"error":{"type":"es_rejected_execution_exception","reason":"r"},"status":429}"#;
/// Each its own transaction, in which no document is written twice.
const CHANGES: [&str; 6] = [
    "insert into t select n, 0, 'a' from generate_series(1, 600) n",
    "update t set n = 1 where id % 2 = 0",
    "update t set n = 2 where id % 3 = 0",
    "delete from t where id % 10 = 0",
    "update t set id = id + 1000 where id % 25 = 1",
    "insert into t select n, 9, 'b' from generate_series(1, 600) n where n % 20 = 0",
];

struct Scene {
    stage: Stage<'static>,
    proxy: SearchProxy,
    port: u16,
}

impl Scene {
    /// An empty table, loaded.
    async fn new(label: &str) -> Result<Self> {
        let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
        stage.table("t", "id int primary key, n int, v text", "").await?;
        stage.catch_up().await?;
        let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
        Ok(Self { stage, proxy, port: ports::free()? })
    }

    fn run(&self, flags: &[(&str, &str)]) -> Result<Running> {
        let (url, node) = (&self.stage.database.url, self.proxy.node());
        let mut program = Waldex::new("run")?.between(url, self.stage.name(), node);
        let listen = format!("127.0.0.1:{}", self.port);
        for (name, value) in [("--admin-listen", listen.as_str())].iter().chain(flags) {
            program = program.arg(name).arg(value);
        }
        program.config(&self.stage.config()).spawn()
    }

    /// Makes all changes; a position behind them.
    async fn changes(&self) -> Result<String> {
        let [all @ .., last] = &CHANGES;
        for statement in all {
            self.stage.execute(statement).await?;
        }
        self.stage.execute_and_mark(last).await
    }

    async fn counts(&self, documents: u64) -> Result<()> {
        self.stage.counts("t", documents, 2 * LIMIT).await
    }

    async fn confirms(&self, mark: &str) -> Result<()> {
        self.stage.confirms(mark, 2 * LIMIT).await
    }

    async fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&get(self.port, "/status").await?.1)?)
    }

    async fn wait_for_circuit(&self, circuit: &str) -> Result<()> {
        let what = format!("the circuit to be {circuit}");
        wait_until(
            LIMIT,
            &what,
            async || matches!(self.status().await, Ok(status) if status["circuit"] == circuit),
        )
        .await
    }

    /// Everything is there, nothing is a letter, and the run is well.
    async fn ends_well(&self, running: Running) -> Result<()> {
        let letters = self.stage.search.documents("waldex-dead-letters").await?;
        let ours = letters.values().filter(|letter| letter.source["slot"] == self.stage.name());
        ensure!(ours.count() == 0, "there are dead letters");
        running.terminate();
        running.finish(LIMIT).await?.expect_code(0)?;
        self.stage.assert_equal("t", "id", &["id", "n", "v"]).await
    }
}

/// What the proxy saw of items.
#[derive(Default)]
struct Seen {
    refused: u32,
    /// Version of the last write of each document that was passed on.
    taken: HashMap<String, u64>,
    /// Documents of which something was passed on again, or after something newer.
    taken_wrongly: Vec<String>,
    /// Items of each request, in the order of the requests.
    sizes: BTreeMap<u64, usize>,
    in_flight_max: u64,
}

impl Seen {
    fn take(&mut self, item: &Item<'_>) {
        let before = self.taken.insert(item.id.to_owned(), item.version);
        if before.is_some_and(|before| before >= item.version) {
            self.taken_wrongly.push(item.id.to_owned());
        }
    }

    /// Sizes of the requests from here on.
    fn forget_requests(&mut self) {
        (self.sizes, self.in_flight_max) = (BTreeMap::new(), 0);
    }
}

type Shared<T> = Arc<Mutex<T>>;

fn with<T, R>(shared: &Shared<T>, look: impl FnOnce(&mut T) -> R) -> R {
    look(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Every item is looked at, and `refuses` some; none of the others may come again.
fn refuse_items(
    proxy: &SearchProxy,
    mut refuses: impl FnMut(&Item<'_>, u32) -> bool + Send + 'static,
) -> Shared<Seen> {
    let seen: Shared<Seen> = Arc::default();
    let (of_items, of_requests) = (Arc::clone(&seen), Arc::clone(&seen));
    proxy.item_rule(move |item| {
        with(&of_items, |seen| {
            *seen.sizes.entry(item.request).or_default() += 1;
            if refuses(item, seen.refused) {
                seen.refused += 1;
                return Some((429, REJECTED));
            }
            seen.take(item);
            None
        })
    });
    proxy.rule(move |request: &Request| {
        if !request.is_bulk() {
            return Fault::Pass;
        }
        with(&of_requests, |seen| seen.in_flight_max = seen.in_flight_max.max(request.in_flight));
        Fault::Items
    });
    seen
}

/// Any item may be refused, and most are, for a while.
#[tokio::test(flavor = "multi_thread")]
async fn items_that_are_turned_away_are_sent_again_alone_and_in_order() -> Result<()> {
    const REFUSALS: u32 = 800;
    let scene = Scene::new("busy_items").await?;
    let mut random = StdRng::seed_from_u64(crate::support::seed::seed()?);
    let seen =
        refuse_items(&scene.proxy, move |_, refused| refused < REFUSALS && random.random_bool(0.6));
    let mark = scene.changes().await?;
    let running = scene.run(&[("--concurrency", "4")])?;
    let refused = || with(&seen, |seen| seen.refused);
    wait_until(LIMIT, "refusals", async || refused() > 300).await?;
    // An idle lane sends what it has at once: how large the first requests are is a matter of luck.
    with(&seen, Seen::forget_requests);
    wait_until(LIMIT, "refusals", async || refused() > 600).await?;
    let (size, at_once) =
        with(&seen, |seen| (seen.sizes.values().copied().max().unwrap_or(0), seen.in_flight_max));
    ensure!((1..=40).contains(&size), "requests of {size} items after 300 refusals");
    ensure!(at_once <= 3, "{at_once} requests at once after 300 refusals");
    ensure!(!scene.stage.has_confirmed(&mark).await?, "confirmed while items are turned away");
    scene.confirms(&mark).await?;
    with(&seen, |seen| {
        ensure!(seen.refused == REFUSALS, "only {} items were refused", seen.refused);
        ensure!(seen.taken_wrongly.is_empty(), "sent again: {:?}", seen.taken_wrongly);
        Ok(())
    })?;
    scene.ends_well(running).await
}

/// One document is turned away for long: the other lane goes on, and the position waits.
#[tokio::test(flavor = "multi_thread")]
async fn one_document_that_is_turned_away_for_long_holds_the_position_and_not_the_other_lane()
-> Result<()> {
    let scene = Scene::new("busy_one").await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let seen =
        refuse_items(&scene.proxy, move |item, _| item.id == "7" && !over.load(Ordering::Relaxed));
    let running = scene.run(&[])?;
    let insert = "insert into t select n, 0, 'a' from generate_series(1, 100) n";
    let mark = scene.stage.execute_and_mark(insert).await?;
    let index = scene.stage.index("t");
    let reaches = async |least: u64| {
        wait_until(LIMIT, "rows of the other lane", async || {
            matches!(scene.stage.search.count(&index).await, Ok(Some(count)) if count > least)
        })
        .await
    };
    reaches(30).await?;
    scene.stage.execute("insert into t select n, 0, 'b' from generate_series(101, 400) n").await?;
    // More than the whole first transaction.
    reaches(110).await?;
    wait_until(LIMIT, "refusals", async || with(&seen, |seen| seen.refused) >= 6).await?;
    ensure!(!scene.stage.has_confirmed(&mark).await?, "confirmed without document 7");
    is_over.store(true, Ordering::Relaxed);
    scene.confirms(&mark).await?;
    with(&seen, |seen| {
        ensure!(seen.taken_wrongly.is_empty(), "sent again: {:?}", seen.taken_wrongly);
        Ok(())
    })?;
    scene.counts(400).await?;
    scene.ends_well(running).await
}

/// 429 on the first of two writes of one document, again and again: the second waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_does_not_pass_one_of_its_document_that_is_turned_away() -> Result<()> {
    let scene = Scene::new("busy_first").await?;
    let seen = refuse_items(&scene.proxy, |_, refused| refused < 6);
    let running = scene.run(&[("--bulk-size", "1"), ("--concurrency", "4")])?;
    scene.stage.execute("insert into t values (1, 0, 'first')").await?;
    for statement in [
        "update t set v = 'second'",
        "delete from t",
        "insert into t values (1, 1, 'third')",
        "update t set id = 2",
        "insert into t values (1, 2, 'last')",
    ] {
        scene.stage.execute(statement).await?;
    }
    let mark = scene.stage.execute_and_mark("update t set n = n + 1").await?;
    scene.confirms(&mark).await?;
    with(&seen, |seen| {
        ensure!(seen.refused == 6, "only {} items were refused", seen.refused);
        ensure!(seen.taken_wrongly.is_empty(), "overtaken: {:?}", seen.taken_wrongly);
        Ok(())
    })?;
    scene.ends_well(running).await
}

/// When bulks came, and how large they were.
fn record_bulks(
    proxy: &SearchProxy,
    mut answers: impl FnMut(usize) -> Fault + Send + 'static,
) -> Shared<Vec<(Instant, usize)>> {
    let seen: Shared<Vec<(Instant, usize)>> = Arc::default();
    let bulks = Arc::clone(&seen);
    proxy.rule(move |request: &Request| {
        if !request.is_bulk() {
            return Fault::Pass;
        }
        let number = with(&bulks, |bulks| {
            bulks.push((Instant::now(), request.body_bytes));
            bulks.len()
        });
        answers(number)
    });
    seen
}

/// Of all lanes none sends anything before the time that the server asks for is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_the_cluster_asks_for_is_kept_by_all() -> Result<()> {
    let scene = Scene::new("busy_after").await?;
    let bulks = record_bulks(&scene.proxy, |number| match number {
        1 | 2 => Fault::AnswerLater(429, 2, REJECTED_WHOLE),
        _ => Fault::Pass,
    });
    let running = scene.run(&[("--concurrency", "4"), ("--bulk-size", "50")])?;
    let mark = scene.changes().await?;
    scene.confirms(&mark).await?;
    let bulks = with(&bulks, |bulks| bulks.clone());
    let (first, _) = bulks.first().context("no bulk")?;
    // Those that were on their way when the first was answered.
    let early =
        bulks.iter().filter(|(at, _)| at.duration_since(*first) < Duration::from_millis(500));
    let early = early.count();
    ensure!(early <= 4, "{early} requests before the pause");
    let waited = bulks.iter().map(|(at, _)| at.duration_since(*first)).nth(early);
    let waited = waited.context("no request after the pause")?;
    ensure!(waited >= Duration::from_millis(1_900), "the pause was {waited:?}");
    scene.ends_well(running).await
}

/// Whole requests are turned away, without a word of when to come again.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_turned_away_become_smaller() -> Result<()> {
    let scene = Scene::new("busy_whole").await?;
    let bulks = record_bulks(&scene.proxy, |number| match number {
        1..=12 => Fault::Answer(429, REJECTED_WHOLE),
        _ => Fault::Pass,
    });
    let running = scene.run(&[("--circuit-breaker-min-requests", "1000")])?;
    let mark = scene.changes().await?;
    wait_until(LIMIT, "the requests", async || with(&bulks, |bulks| bulks.len()) >= 10).await?;
    ensure!(!scene.stage.has_confirmed(&mark).await?, "confirmed while requests are turned away");
    scene.confirms(&mark).await?;
    let sizes = with(&bulks, |bulks| bulks.iter().map(|(_, size)| *size).collect::<Vec<_>>());
    let (largest, later) = (sizes.iter().max().context("no bulk")?, sizes.get(10..12));
    let small = |size: &usize| *size < largest / 4;
    ensure!(later.is_some_and(|sizes| sizes.iter().all(small)), "bytes of requests: {sizes:?}");
    scene.ends_well(running).await
}

/// Closed, open, half-open, open again, closed: few requests meanwhile, and each told in log, status and metrics.
#[tokio::test(flavor = "multi_thread")]
async fn the_circuit_opens_probes_and_closes() -> Result<()> {
    let scene = Scene::new("circuit").await?;
    let bulks = record_bulks(&scene.proxy, |_| Fault::Answer(500, "{}"));
    let mut running = scene.run(&[
        ("--circuit-breaker-open-for", "1s"),
        ("--request-timeout", "2s"),
        ("--max-retries", "0"),
    ])?;
    scene.wait_for_circuit("closed").await?;
    let mark = scene.changes().await?;
    running.wait_for_line(LIMIT, "circuit breaker open").await?;
    scene.wait_for_circuit("open").await?;
    let status = scene.status().await?;
    ensure!(status["circuit_open"] == true && status["state"] == "backpressure", "{status}");
    let (_, metrics) = get(scene.port, "/metrics").await?;
    ensure!(metric(&metrics, "waldex_circuit_open")? == 1, "{metrics}");
    let before = with(&bulks, |bulks| bulks.len());
    let open_since = Instant::now();
    wait_until(LIMIT, "a probe", async || with(&bulks, |bulks| bulks.len()) > before).await?;
    let probes = wait_for(LIMIT, "more probes", async || {
        let probes = with(&bulks, |bulks| bulks.len()) - before;
        (probes >= 3).then_some(probes)
    });
    probes.await?;
    ensure!(open_since.elapsed() > Duration::from_millis(1_900), "three probes in too little time");
    // A probe that is not answered for a while can be seen.
    scene.proxy.rule(|request| if request.is_bulk() { Fault::Silence } else { Fault::Pass });
    scene.wait_for_circuit("half_open").await?;
    ensure!(!scene.stage.has_confirmed(&mark).await?, "confirmed while the circuit is open");
    scene.proxy.clear();
    scene.wait_for_circuit("closed").await?;
    for told in ["circuit breaker half-open", "circuit breaker closed"] {
        running.wait_for_line(LIMIT, told).await?;
    }
    scene.confirms(&mark).await?;
    scene.ends_well(running).await
}
