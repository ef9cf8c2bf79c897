//! The seed of a random test: new each time, printed, and given back by `SEED`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// `SEED` if it is set, else the time. Printed in any case.
pub fn seed() -> Result<u64> {
    let seed = match std::env::var("SEED") {
        Ok(text) => text.parse().with_context(|| format!("SEED: \"{text}\" is no number"))?,
        Err(_) => u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?,
    };
    println!("SEED={seed}");
    Ok(seed)
}
