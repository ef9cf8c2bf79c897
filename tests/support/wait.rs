//! Waiting for a condition, with a deadline; nothing in the tests waits for time alone.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(250);

/// Asks `probe` until it gives something; `what` completes "waited in vain for …".
pub async fn wait_for<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut pause = POLL_MIN;
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// Asks `probe` until it says yes.
pub async fn wait_until(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> bool,
) -> Result<()> {
    wait_for(limit, what, async || probe().await.then_some(())).await
}
