//! What passes and what does not.

use super::*;

fn server(sqlstate: &str, message: &str) -> PostgresError {
    PostgresError::Server(Box::new(ServerError::for_test(sqlstate, message)))
}

#[test]
fn outages_are_waited_out_and_the_rest_stops() {
    for sqlstate in ["57P01", "57P03", "53300", "53100", "55006", "08006", "40001", "58030"] {
        assert_eq!(server(sqlstate, "").class(), Class::Transient, "{sqlstate}");
    }
    for sqlstate in
        ["28P01", "28000", "3D000", "42501", "42704", "55000", "22021", "0A000", "57P04", "", "é"]
    {
        assert_eq!(server(sqlstate, "").class(), Class::Definite, "{sqlstate}");
    }
}

#[test]
fn a_lost_slot_is_told_from_other_wrong_states() {
    let lost = server("55000", "can no longer access replication slot \"s\"").remedy();
    let other = server("55000", "replication slot \"s\" was not created in this database").remedy();
    assert!(lost.is_some_and(|text| text.contains("--reload")));
    assert!(other.is_some_and(|text| text.contains("waldex check")));
}

#[test]
fn a_slot_whose_wal_was_removed_or_that_is_gone_is_lost_in_any_language() {
    let removed = "requested WAL segment 000000010000000000000003 has already been removed";
    let of = |sqlstate: &str, message: &str, routine: Option<&str>| {
        let mut error = ServerError::for_test(sqlstate, message);
        error.routine = routine.map(str::to_owned);
        PostgresError::Server(Box::new(error))
    };
    for error in [
        of("58P01", removed, None),
        of("58P01", "das angeforderte WAL-Segment wurde schon entfernt", Some("WalSndSegmentOpen")),
        of("58P01", removed, Some("wal_segment_open")),
        of("58030", removed, Some("CheckXLogRemoved")),
        of("42704", "replication slot \"s\" does not exist", None),
        of("42704", "Replikations-Slot \"s\" existiert nicht", Some("ReplicationSlotAcquire")),
    ] {
        assert!(error.is_lost_slot() && error.class() == Class::Definite, "{error}");
        assert!(error.remedy().is_some_and(|text| text.contains("--reload")), "{error}");
    }
    for error in [
        of("58P01", "could not open file \"base/5/2601\"", Some("mdopenfork")),
        of("58030", "could not read file", Some("WalSndSegmentOpen")),
    ] {
        assert!(!error.is_lost_slot() && error.class() == Class::Transient, "{error}");
    }
    assert!(!of("42704", "publication \"p\" does not exist", None).is_lost_slot());
}

#[test]
fn a_full_table_of_locks_is_waited_out_with_the_setting_named() {
    let full = server("53200", "out of shared memory");
    assert_eq!(full.class(), Class::Transient);
    assert!(full.remedy().is_some_and(|text| text.contains("max_locks_per_transaction")));
    assert_eq!(server("53200", "out of memory").remedy(), None);
}

#[test]
fn what_was_dropped_while_the_catalog_was_read_is_told_from_other_internal_errors() {
    assert!(server("XX000", "could not open relation with OID 16385").is_dropped_meanwhile());
    assert!(server("XX000", "cache lookup failed for relation 16385").is_dropped_meanwhile());
    assert!(!server("XX000", "unexpected data").is_dropped_meanwhile());
    assert!(!server("42P01", "could not open relation with OID 16385").is_dropped_meanwhile());
}

#[test]
fn our_own_error_survives_the_way_through_an_io_error() {
    let carried = io::Error::other(PostgresError::Md5Refused);
    assert!(matches!(PostgresError::from(carried), PostgresError::Md5Refused));
}
