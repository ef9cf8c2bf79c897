//! Commits of a table that nobody replicates: how long they take says whether the source is held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;

use super::writer::{Connection, Shared};

const EVERY: Duration = Duration::from_millis(50);
/// A commit takes no longer, on however busy a machine, unless something holds it up.
const LIMIT: Duration = Duration::from_secs(5);

/// Counts the faults of Postgres itself: a commit during which this changed, or that is odd, says nothing.
pub(super) type Hurts = Arc<AtomicU64>;

/// How long commits took, in order.
pub(super) struct Latencies(Vec<Duration>);

pub(super) fn start(shared: &Shared, hurts: &Hurts) -> JoinHandle<Latencies> {
    tokio::spawn(sing(Connection::new(shared), Arc::clone(hurts)))
}

async fn sing(mut connection: Connection, hurts: Hurts) -> Latencies {
    let mut all = Vec::new();
    while !connection.shared.is_over() {
        tokio::time::sleep(EVERY).await;
        if connection.client().await.is_none() {
            break;
        }
        let before = hurts.load(Ordering::Relaxed);
        let began = Instant::now();
        let committed = connection.run("insert into canary default values").await;
        let took = began.elapsed();
        let is_fair = before.is_multiple_of(2) && hurts.load(Ordering::Relaxed) == before;
        // One that fails by itself took too long: see the limit of an answer.
        if is_fair && (committed.is_some() || took > LIMIT) {
            all.push(took);
        }
    }
    all.sort_unstable();
    Latencies(all)
}

impl Latencies {
    fn at(&self, percent: usize) -> Duration {
        self.0.get(self.0.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    }

    /// Prints them; an error if one was too long.
    pub(super) fn judge(&self) -> Result<()> {
        let longest = self.at(100);
        println!(
            "  canary: {} commits, median {:?}, 99 % {:?}, longest {longest:?}",
            self.0.len(),
            self.at(50),
            self.at(99)
        );
        ensure!(longest < LIMIT, "a commit on the source took {longest:?}");
        Ok(())
    }
}
