//! What server, role and slot stand in the way of.

use super::facts::ServerFacts;
use crate::findings::{Cure, Problem};
use crate::postgres::pinned::APPLICATION_NAME;
use crate::postgres::slot::SlotFacts;
use crate::postgres::sql::{identifier, literal};
use crate::postgres::standbys::StandbyNames;

const PLUGIN: &str = "pgoutput";

pub(super) fn server_problems(server: &ServerFacts, slot: Option<&SlotFacts>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if server.wal_level != "logical" {
        problems.push(Problem::new(
            format!("wal_level is {}, not logical", server.wal_level),
            "ALTER SYSTEM SET wal_level = 'logical'; then restart Postgres",
        ));
    }
    if slot.is_none() && server.slots_used >= server.slots_max {
        problems.push(Problem::new(
            format!("all {} replication slots are taken", server.slots_max),
            format!(
                "ALTER SYSTEM SET max_replication_slots = {}; then restart Postgres; or \
                 drop a slot nobody reads",
                server.slots_max.saturating_add(1)
            ),
        ));
    }
    if slot.is_none_or(|slot| slot.active_pid.is_none())
        && server.senders_used >= server.senders_max
    {
        problems.push(Problem::new(
            format!("all {} WAL senders are in use", server.senders_max),
            format!(
                "ALTER SYSTEM SET max_wal_senders = {}; then restart Postgres",
                server.senders_max.saturating_add(1)
            ),
        ));
    }
    if !server.may_replicate && !server.is_superuser {
        problems.extend(replication_problem(&server.role_name, server.is_granted_replication));
    }
    let standbys = StandbyNames::parse(&server.synchronous_standby_names);
    if standbys.covers_us() {
        problems.push(Problem::new(
            format!(
                "synchronous_standby_names {} covers {APPLICATION_NAME}: every commit on \
                 Postgres would wait for the search cluster",
                literal(&server.synchronous_standby_names)
            ),
            format!(
                "ALTER SYSTEM SET synchronous_standby_names = {}; SELECT pg_reload_conf();",
                literal(&standbys.without_us(&server.connected_standbys))
            ),
        ));
    }
    problems
}

/// Of a role without the attribute: managed services may grant a role instead, to whose members they allow the same.
fn replication_problem(role: &str, is_granted: Option<bool>) -> Option<Problem> {
    let role = identifier(role);
    let fix = match is_granted {
        Some(true) => return None,
        Some(false) => format!("GRANT rds_replication TO {role};"),
        None => format!("ALTER ROLE {role} REPLICATION;"),
    };
    Some(Problem::new(format!("role {role} may not replicate"), fix))
}

pub(super) fn slot_problem(name: &str, slot: &SlotFacts, database: &str) -> Option<Problem> {
    let quoted = literal(name);
    let drop = format!("SELECT pg_drop_replication_slot({quoted});");
    if slot.plugin.as_deref() != Some(PLUGIN) {
        let plugin = slot.plugin.as_deref().unwrap_or("none: it is a physical slot");
        return Some(Problem::new(
            format!("slot {quoted} has output plugin {plugin}, not {PLUGIN}"),
            format!("set postgres.slot to another name; or {drop}"),
        ));
    }
    if slot.database.as_deref() != Some(database) {
        let other = slot.database.as_deref().unwrap_or_default();
        return Some(Problem::new(
            format!("slot {quoted} belongs to database {}", identifier(other)),
            "set postgres.slot to another name, or the database in postgres.url",
        ));
    }
    if slot.is_lost() {
        let reason = slot.invalidation_reason.as_deref().unwrap_or("its WAL was removed");
        return Some(Problem {
            cure: Cure::ByReload,
            ..Problem::new(
                format!("slot {quoted} is lost ({reason})"),
                "`waldex run --reload` makes it anew and builds every index anew",
            )
        });
    }
    if slot.two_phase {
        return Some(Problem::new(
            format!("slot {quoted} sends prepared transactions before they are committed"),
            format!("set postgres.slot to another name; or {drop}"),
        ));
    }
    let is_waldex = slot.reader.as_deref() == Some(APPLICATION_NAME);
    slot.active_pid.map(|pid| Problem {
        what: format!("slot {quoted} is read by process {pid}"),
        fix: format!("stop the other reader; or SELECT pg_terminate_backend({pid});"),
        cure: Cure::ByWaiting { is_waldex },
        table: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_refused_for_the_reason_that_matters_most() {
        let good = SlotFacts::for_test();
        assert_eq!(slot_problem("s", &good, "app"), None);
        let of = |slot: SlotFacts| slot_problem("s", &slot, "app").unwrap();
        assert!(of(SlotFacts { plugin: None, ..good.clone() }).what.contains("physical"));
        assert!(
            of(SlotFacts { database: Some("x".to_owned()), ..good.clone() }).what.contains("\"x\"")
        );
        assert!(
            of(SlotFacts { wal_status: Some("lost".to_owned()), ..good.clone() })
                .what
                .contains("lost")
        );
        assert!(of(SlotFacts { two_phase: true, ..good.clone() }).what.contains("prepared"));
        let active = of(SlotFacts { active_pid: Some(7), ..good.clone() });
        assert_eq!(active.cure, Cure::ByWaiting { is_waldex: false });
        let reader = Some("waldex".to_owned());
        let ours = of(SlotFacts { active_pid: Some(7), reader, ..good });
        assert_eq!(ours.cure, Cure::ByWaiting { is_waldex: true });
        assert!(active.fix.contains("pg_terminate_backend(7)"));
    }
}
