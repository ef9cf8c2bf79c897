//! What was done, counted by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Counters by name, shared by all who count.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<BTreeMap<String, u64>>>);

impl Tally {
    pub(super) fn add(&self, kind: &str, count: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(kind.to_owned()).or_default() += count;
    }

    pub(super) fn one(&self, kind: &str) {
        self.add(kind, 1);
    }

    pub(super) fn total(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut separator = "";
        for (kind, count) in counts.iter() {
            write!(f, "{separator}{kind} {count}")?;
            separator = ", ";
        }
        Ok(())
    }
}
