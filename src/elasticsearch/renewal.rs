//! The renewal of the lease whenever nothing else writes the state: past the gate and the breaker, so that whatever
//! waits there for the lease is never waited for.

use std::time::Duration;

use tracing::{info, warn};

use super::retry::Backoff;
use super::store::StateStore;

/// Between two attempts: a cluster that is back is noticed so soon, and until then nothing else may be sent.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Renews the lease when it is due, for as long as it is ours.
pub async fn keep(store: StateStore) {
    let right = store.right();
    let mut backoff = Backoff::default();
    let mut is_told = false;
    loop {
        right.had().await;
        store.resumed().await;
        match right.rest() {
            None => continue,
            Some(Duration::ZERO) => {}
            Some(rest) => {
                tokio::time::sleep(rest).await;
                continue;
            }
        }
        let Err(error) = store.renew().await else {
            if std::mem::take(&mut is_told) {
                info!("the lease is renewed: going on");
            }
            backoff = Backoff::default();
            continue;
        };
        if !right.holds() && right.is_kept() && !is_told {
            is_told = true;
            warn!(%error, "the lease is not renewed in time: nothing is sent until it is");
        }
        tokio::time::sleep(backoff.next(None).min(PAUSE_MAX)).await;
    }
}
