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
fn our_own_error_survives_the_way_through_an_io_error() {
    let carried = io::Error::other(PostgresError::Md5Refused);
    assert!(matches!(PostgresError::from(carried), PostgresError::Md5Refused));
}
