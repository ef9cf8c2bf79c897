//! The first line of a run's log: between what it stands, and within which limits. No secret is part of it.

use tracing::info;

use super::tables::Plan;
use crate::settings::{Host, Settings};

/// Says what the run is about to do.
pub(crate) fn say(settings: &Settings, plan: &Plan) {
    let (postgres, search) = (&settings.postgres, &settings.elasticsearch);
    let hosts: Vec<String> = postgres.hosts.iter().map(place).collect();
    let addresses: Vec<&str> = search.addresses.iter().map(url::Url::as_str).collect();
    let tables: Vec<String> = plan
        .tables
        .iter()
        .map(|table| format!("{} → {}", table.name(), table.settings.index))
        .take(TABLES_SHOWN)
        .collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        postgres = hosts.join(","),
        database = postgres.database,
        slot = postgres.slot,
        publication = postgres.publication,
        search = addresses.join(","),
        tables_count = plan.tables.len(),
        tables = tables.join(", "),
        lanes = search.concurrency,
        bulk_size = search.bulk_size,
        bulk_bytes = search.bulk_bytes,
        memory_budget_bytes = settings.memory_budget_bytes,
        "waldex runs"
    );
}

/// A publication may hold thousands.
const TABLES_SHOWN: usize = 20;

fn place(host: &Host) -> String {
    match host {
        Host::Tcp { host, port } => format!("{host}:{port}"),
        Host::Unix { directory, .. } => directory.display().to_string(),
    }
}
