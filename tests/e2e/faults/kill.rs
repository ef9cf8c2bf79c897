//! `kill -9` of each part, under load and inside a large transaction.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::arena::{Hurt, arena};
use super::load::{self, Amount, Load};
use super::scene::Scene;
use crate::support::wait::wait_until;

const LARGE: u64 = 100_000;

/// Killed at several depths of the same transaction, which starts over each time.
#[tokio::test(flavor = "multi_thread")]
async fn waldex_in_the_middle_of_a_100_000_row_transaction() -> Result<()> {
    let turn = arena().await?;
    let mut scene = Scene::new("kill_large", &turn).await?;
    scene.stage.table("t", "id int primary key, n int, v text", "").await?;
    scene.stage.catch_up().await?;
    let insert = "insert into t select n, n, 'row ' || n from generate_series(1, 100000) n";
    let more = "update t set n = -n where id % 10 = 0; delete from t where id % 10 = 1";
    scene.stage.execute(&format!("begin; {insert}; {more}; commit")).await?;
    let confirmed = scene.stage.confirmed().await?.context("no slot")?;
    let index = scene.stage.index("t");
    for depth in [1, LARGE / 8, LARGE / 2] {
        let mut running = scene.stage.run()?;
        let search = &scene.stage.search;
        let deep = async || {
            let count = search.count(&index).await.ok().flatten().unwrap_or(0);
            count >= depth || !running.is_running()
        };
        wait_until(Duration::from_secs(60), "documents of the transaction", deep).await?;
        running.kill()?;
        let now = scene.stage.confirmed().await?.context("no slot")?;
        ensure!(now == confirmed, "{now} was confirmed inside the transaction, after {confirmed}");
    }
    ensure!(
        search_count(&scene, &index).await? < LARGE,
        "the last kill came after the transaction"
    );
    scene.stage.catch_up().await?;
    scene.stage.assert_equal("t", "id", &["id", "n", "v"]).await
}

async fn search_count(scene: &Scene, index: &str) -> Result<u64> {
    scene.stage.search.count(index).await?.context("no index")
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Waldex,
    Postgres,
    /// A stop in good order.
    PostgresPolitely,
    Elasticsearch,
    /// A node that is restarted, as for an upgrade.
    ElasticsearchPolitely,
}

/// 200 000 changes, and every part is killed several times in the middle of them.
#[tokio::test(flavor = "multi_thread")]
async fn each_part_during_200_000_mixed_changes() -> Result<()> {
    let turn = arena().await?;
    let seed = crate::support::seed::seed()?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut scene = Scene::new("kill_any", &turn).await?;
    load::create_tables(&mut scene.stage).await?;
    let amount = Amount { changes: 200_000, per_second: 5_000 };
    let load = Load::start(&scene.stage.database.url, amount, seed);
    scene.supervise("")?;
    scene.watch(&load);
    use Victim::{Elasticsearch, ElasticsearchPolitely, Postgres, PostgresPolitely, Waldex};
    let mut victims = [Waldex; 3].to_vec();
    victims.extend([Postgres, Postgres, PostgresPolitely]);
    victims.extend([Elasticsearch, ElasticsearchPolitely]);
    victims.shuffle(&mut random);
    let step = amount.changes / u64::try_from(victims.len())?;
    for (number, victim) in victims.iter().enumerate() {
        // An outage of one part lets many changes pass; the next one comes some changes later all the same.
        let soonest = load.changes() + random.random_range(step / 20..step / 4);
        let at = u64::try_from(number)? * step + random.random_range(step / 10..step);
        let at = at.max(soonest);
        scene.until(load.wait_for_changes(at)).await?;
        println!("killing {victim:?} after {} changes", load.changes());
        match victim {
            Waldex => scene.kill_waldex()?,
            Postgres => turn.postgres.crash()?,
            PostgresPolitely => turn.postgres.restart()?,
            Elasticsearch => turn.elasticsearch.crash()?,
            ElasticsearchPolitely => turn.elasticsearch.restart()?,
        }
    }
    let changes = load.finish().await?;
    let seen = scene.end().await?;
    println!("{changes} changes; watched: {seen:?}; seed {seed}");
    ensure!(seen.positions > 100 && seen.marks > 50, "hardly anything was watched: {seen:?}");
    load::assert_tables_equal(&scene.stage).await
}
