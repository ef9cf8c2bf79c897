//! Every metric, in the text format of Prometheus: its name, what it means, where its number comes from.
//!
//! Names end in their unit. There are no labels but the state's name; none comes from a row.

use std::fmt::Write;

use crate::elasticsearch::breaker::Circuit;
use crate::run::vitals::{STATES, Vitals};

/// One metric.
struct Metric {
    name: &'static str,
    /// `counter` or `gauge`.
    kind: &'static str,
    help: &'static str,
    value: fn(&Vitals) -> u64,
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Vitals) -> u64) -> Metric {
    Metric { name, kind: "counter", help, value }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Vitals) -> u64) -> Metric {
    Metric { name, kind: "gauge", help, value }
}

const METRICS: [Metric; 19] = [
    counter("waldex_rows_total", "Rows received, by stream or load.", |v| v.counters.rows),
    counter("waldex_transactions_total", "Transactions received whole.", |v| {
        v.counters.transactions
    }),
    counter("waldex_items_applied_total", "Writes that the cluster applied.", |v| {
        v.counters.applied
    }),
    counter(
        "waldex_items_superseded_total",
        "Writes for which the cluster held something newer: usual after a restart, an alarm in between.",
        |v| v.counters.superseded,
    ),
    counter("waldex_items_dead_lettered_total", "Writes that the cluster refused.", |v| {
        v.counters.dead_lettered
    }),
    gauge("waldex_dead_letters_open", "Refused documents that were not written since.", |v| {
        u64::try_from(v.dead_letters).unwrap_or(u64::MAX)
    }),
    gauge("waldex_circuit_open", "1 while requests pause because most of them fail.", |v| {
        u64::from(v.circuit != Circuit::Closed)
    }),
    counter("waldex_rows_reselected_total", "Rows with values read again (TOAST).", |v| {
        v.counters.reselected
    }),
    counter("waldex_reconnects_total", "Times the stream of changes broke off.", |v| v.reconnects),
    gauge("waldex_in_flight_bytes", "Bytes between decode and confirmation.", |v| {
        u64::try_from(v.bytes_in_flight).unwrap_or(u64::MAX)
    }),
    gauge("waldex_requests_in_flight", "Requests that are not answered.", |v| {
        u64::try_from(v.requests_in_flight).unwrap_or(u64::MAX)
    }),
    gauge("waldex_received_lsn", "Position up to where the stream was received, in bytes.", |v| {
        v.received.get()
    }),
    gauge("waldex_durable_lsn", "Position up to where the cluster confirmed, in bytes.", |v| {
        v.durable.get()
    }),
    gauge("waldex_confirmed_lsn", "Position that Postgres was told, in bytes.", |v| {
        v.confirmed.get()
    }),
    gauge("waldex_lag_bytes", "WAL received and not confirmed.", Vitals::lag_bytes),
    gauge(
        "waldex_lag_seconds",
        "Age of the newest confirmed commit while anything is behind it.",
        |v| v.lag_seconds,
    ),
    gauge("waldex_retained_wal_bytes", "WAL that the slot keeps on the source.", |v| {
        bytes(v.source.retained_wal_bytes)
    }),
    gauge(
        "waldex_safe_wal_bytes",
        "WAL that may still be written before the slot is lost; 0 without max_slot_wal_keep_size.",
        |v| bytes(v.source.safe_wal_bytes),
    ),
    gauge("waldex_silent_seconds", "Since the run last said anything of itself.", |v| {
        v.at.elapsed().as_secs()
    }),
];

fn bytes(found: Option<i64>) -> u64 {
    found.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)
}

/// All metrics as Prometheus reads them.
pub(crate) fn render(vitals: &Vitals) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    for Metric { name, kind, help, value } in METRICS {
        let _ =
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", value(vitals));
    }
    out.push_str("# HELP waldex_state 1 for the state the run is in.\n# TYPE waldex_state gauge\n");
    for state in STATES {
        let is = u8::from(state == vitals.state);
        let _ = writeln!(out, "waldex_state{{state=\"{}\"}} {is}", state.name());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::vitals::State;

    #[test]
    fn every_metric_has_a_unit_or_counts_and_the_state_is_one() {
        let vitals = Vitals { state: State::Live, ..Vitals::new() };
        let text = render(&vitals);
        assert_eq!(text.matches("# HELP").count(), METRICS.len() + 1);
        assert!(text.contains("waldex_state{state=\"live\"} 1\n"));
        assert_eq!(text.matches("} 1\n").count(), 1);
        for metric in METRICS {
            let units = ["_total", "_bytes", "_seconds", "_lsn", "_in_flight", "_open"];
            assert!(units.iter().any(|unit| metric.name.ends_with(unit)), "{}", metric.name);
        }
    }
}
