//! What works on Postgres' side and should be known all the same. None of it keeps a run from starting.

use super::facts::{PublishedDetails, ServerFacts};
use crate::findings::Note;
use crate::postgres::slot::SlotFacts;
use crate::postgres::sql::{identifier, literal, qualified};

/// Since this version a slot can be copied to standbys.
const FAILOVER_SINCE: i32 = 170_000;
/// Since this version stored generated columns can be published.
const GENERATED_SINCE: i32 = 180_000;
/// Of each major version the minor one since which a transaction that was decoded does not leave a description of its
/// tables behind that says they are not published (May 2025). Later major versions never did.
const FORGETS_SINCE: [(i32, i32); 4] = [(14, 18), (15, 13), (16, 9), (17, 5)];
/// Names in one line, at most.
const NAMES_MAX: usize = 5;

/// Of the server's settings, and of the slot if it is there.
pub(super) fn of_server(
    server: &ServerFacts,
    slot_name: &str,
    slot: Option<&SlotFacts>,
) -> Vec<Note> {
    let mut notes = Vec::new();
    if server.slot_wal_keep == "-1" {
        notes.push(Note::new(
            "max_slot_wal_keep_size is unlimited: a slot that nobody reads fills the disk of Postgres",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(); with what the disk \
             can spare; beyond it the slot is lost and everything is loaded again",
        ));
    }
    if server.idle_slot_timeout != "0" {
        notes.push(Note::new(
            format!(
                "idle_replication_slot_timeout is {}: when waldex is stopped for longer, the slot is lost",
                server.idle_slot_timeout
            ),
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();",
        ));
    }
    if server.server_encoding == "SQL_ASCII" {
        notes.push(Note::new(
            "the database's encoding is SQL_ASCII: each byte that is not UTF-8 is U+FFFD in the documents",
            "a database of encoding UTF8 has no such bytes",
        ));
    }
    notes.extend(of_version(server.version_num));
    notes.extend(slot.and_then(|slot| of_failover(server, slot_name, slot)));
    notes
}

/// A server that loses changes itself.
fn of_version(version_num: i32) -> Option<Note> {
    let (major, minor) = (version_num / 10_000, version_num % 10_000);
    let since = FORGETS_SINCE.iter().find(|(it, _)| *it == major).map(|(_, since)| *since);
    since.filter(|since| minor < *since).map(|since| {
        Note::new(
            format!(
                "PostgreSQL {major}.{minor} may leave out changes of a table that is added to the publication \
                 while a transaction that wrote to it is open"
            ),
            format!(
                "upgrade to {major}.{since} or newer; until then load such a table again when the transaction has \
                 ended and is confirmed: `waldex run --reload TABLE`"
            ),
        )
    })
}

/// What keeps the slot, or what it has confirmed, from outliving a failover.
fn of_failover(server: &ServerFacts, slot_name: &str, slot: &SlotFacts) -> Option<Note> {
    let has_standbys = server.standbys_count > 0 || !server.physical_slots.is_empty();
    if server.version_num < FAILOVER_SINCE || !has_standbys {
        return None;
    }
    if slot.failover == Some(false) {
        return Some(Note::new(
            format!(
                "there are standbys, and slot {} is not copied to them: after a failover everything is \
                 loaded again",
                literal(slot_name)
            ),
            format!(
                "stop waldex, then over a connection with replication=database: ALTER_REPLICATION_SLOT {} \
                 ( FAILOVER true ); and sync_replication_slots = on at the standby",
                identifier(slot_name)
            ),
        ));
    }
    let slots = || server.physical_slots.join(", ");
    (server.synchronized_slots.is_empty() && !server.physical_slots.is_empty()).then(|| {
        Note::new(
            "synchronized_standby_slots is empty: a standby that is promoted may lack changes that the \
             indices hold, and then everything is loaded again",
            format!(
                "ALTER SYSTEM SET synchronized_standby_slots = {}; SELECT pg_reload_conf(); with the slots \
                 of the standbys that may be promoted",
                literal(&slots())
            ),
        )
    })
}

/// Of the tables that are kept.
pub(super) fn of_tables(
    tables: &[&PublishedDetails],
    publication: &str,
    version_num: i32,
) -> Vec<Note> {
    let mut notes = Vec::new();
    let large = tables.iter().filter(|it| it.large).map(|it| qualified(&it.schema, &it.name));
    let large: Vec<String> = large.collect();
    if !large.is_empty() {
        notes.push(Note::new(
            format!(
                "large values that an update leaves alone are not in the stream, but read from the index or \
                 the table again: {}",
                listed(&large)
            ),
            "ALTER TABLE … REPLICA IDENTITY FULL; spares that where it is frequent, for more WAL",
        ));
    }
    let generated = tables.iter().flat_map(|it| {
        let table = qualified(&it.schema, &it.name);
        it.generated.iter().map(move |column| format!("{table}.{}", identifier(column)))
    });
    let generated: Vec<String> = generated.collect();
    if !generated.is_empty() {
        let advice = if version_num >= GENERATED_SINCE {
            format!(
                "stored ones are after ALTER PUBLICATION {} SET (publish_generated_columns = stored); \
                 virtual ones never",
                identifier(publication)
            )
        } else {
            "PostgreSQL 18 can publish stored ones; a computed field may do the same".to_owned()
        };
        notes.push(Note::new(
            format!("generated columns are in no document: {}", listed(&generated)),
            advice,
        ));
    }
    notes
}

/// Of tables that `FOR ALL TABLES` does not have.
pub(super) fn of_unlogged(tables: &[(String, String)]) -> Option<Note> {
    let names: Vec<String> = tables.iter().map(|(schema, name)| qualified(schema, name)).collect();
    (!names.is_empty()).then(|| {
        Note::new(
            format!("tables that are not logged are never published: {}", listed(&names)),
            "ALTER TABLE … SET LOGGED; for those to be indexed",
        )
    })
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions_that_lose_changes_are_told_with_the_one_that_does_not() {
        for (version_num, since) in
            [(140_017, "14.18"), (150_000, "15.13"), (160_008, "16.9"), (170_004, "17.5")]
        {
            let note = of_version(version_num).unwrap();
            assert!(note.advice.contains(&format!("upgrade to {since} or newer")), "{note:?}");
        }
        for version_num in [140_018, 150_013, 160_009, 170_005, 170_010, 180_000, 190_000] {
            assert_eq!(of_version(version_num), None);
        }
    }
}
