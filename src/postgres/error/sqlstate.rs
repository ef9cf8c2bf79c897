//! What the SQLSTATE of a server's error means: whether it passes, whether it is the slot that is lost, and what can
//! be done.

use crate::error::Class;
use crate::postgres::server_error::ServerError;

/// SQLSTATEs that pass by themselves, of errors whose class (first two characters) does not say so.
const TRANSIENT_STATES: [&str; 7] = [
    "40001", // serialization failure
    "40P01", // deadlock
    "55006", // object in use: the slot is active for another PID, which may be our own old one
    "55P03", // lock not available
    "57014", // cancelled, as by a standby's conflict or an administrator
    "25006", // read-only transaction: a standby, for instance during a failover
    "72000", // snapshot too old
];

/// Classes of SQLSTATE that pass by themselves: connection exceptions, insufficient resources
/// (53300 too many connections, 53100 disk full), operator intervention (57P01 shutdown, 57P03
/// starting up), system errors.
const TRANSIENT_CLASSES: [&str; 4] = ["08", "53", "57", "58"];

/// `invalid_password`; also of a role that does not exist.
pub(super) const PASSWORD_REFUSED: &str = "28P01";

/// 57P04, database dropped: of class 57, and will not come back by waiting.
const DATABASE_DROPPED: &str = "57P04";

/// `undefined_object`: a slot, a publication or a role.
const UNDEFINED_OBJECT: &str = "42704";
/// `undefined_file`, of the class of system errors.
const UNDEFINED_FILE: &str = "58P01";

/// Whether to try again or to stop.
pub(super) fn class_of(error: &ServerError) -> Class {
    let state = error.sqlstate.as_str();
    let by_class = state.get(..2).is_some_and(|class| TRANSIENT_CLASSES.contains(&class));
    let passes = TRANSIENT_STATES.contains(&state) || by_class;
    if passes && state != DATABASE_DROPPED && !is_lost_slot(error) {
        Class::Transient
    } else {
        Class::Definite
    }
}

/// Texts of 55000 differ by major version; these words are in all that mean a lost slot.
const SLOT_LOST_WORDS: [&str; 4] = [
    "can no longer access",
    "cannot read from logical",
    "invalidated",
    "can no longer get changes",
];

/// Where the server finds that WAL is gone which a slot needs, though it has not given the slot up: somebody removed
/// the files. The functions' names are never translated; the last has whatever SQLSTATE there was before.
const WAL_OPENED_IN: [&str; 2] = ["WalSndSegmentOpen", "wal_segment_open"];
const WAL_CHECKED_IN: &str = "CheckXLogRemoved";

/// Where the server looks for a slot to be read.
const SLOT_ACQUIRED_IN: &str = "ReplicationSlotAcquire";

/// Whether the server says that the slot can be read no more, or is not there any more.
pub(super) fn is_lost_slot(error: &ServerError) -> bool {
    let message = error.message.as_str();
    is_slot_unknown(error)
        || is_wal_removed(error)
        || error.sqlstate == "55000" && SLOT_LOST_WORDS.iter().any(|words| message.contains(words))
}

fn is_slot_unknown(error: &ServerError) -> bool {
    error.sqlstate == UNDEFINED_OBJECT
        && (error.routine.as_deref() == Some(SLOT_ACQUIRED_IN)
            || error.message.starts_with("replication slot "))
}

fn is_wal_removed(error: &ServerError) -> bool {
    let routine = error.routine.as_deref().unwrap_or_default();
    error.sqlstate == UNDEFINED_FILE
        && (WAL_OPENED_IN.contains(&routine) || error.message.starts_with("requested WAL segment "))
        || routine == WAL_CHECKED_IN
}

/// Of XX000, internal errors, whose texts are never translated: how those of functions begin that look at the catalog
/// as it is now.
const DROPPED_MEANWHILE_WORDS: [&str; 2] =
    ["could not open relation with OID ", "cache lookup failed for "];

/// Whether something that a statement found in the catalog was dropped before it was through.
pub(super) fn is_dropped_meanwhile(error: &ServerError) -> bool {
    error.sqlstate == "XX000"
        && DROPPED_MEANWHILE_WORDS.iter().any(|words| error.message.starts_with(words))
}

/// What an operator can do about it, where that is known.
pub(super) fn remedy_of(error: &ServerError) -> Option<String> {
    let text = match error.sqlstate.as_str() {
        PASSWORD_REFUSED => "check the password of the role",
        "28000" => "check that the role exists, may LOGIN and has REPLICATION, and pg_hba.conf",
        "3D000" => "check the database name in postgres.url",
        "42501" => "run `waldex check`: it names the missing right and the GRANT",
        UNDEFINED_OBJECT if error.message.starts_with("publication ") => {
            "make the publication with `waldex setup`; changes from before it was there cannot be read any more, \
             so load the tables again with `waldex run --reload`"
        }
        UNDEFINED_OBJECT => {
            "run `waldex check`: the slot or the publication is missing; `waldex setup` \
             prints the SQL; a publication that is there now was not when what the slot has to \
             tell was written: load the tables again with `waldex run --reload`"
        }
        "53200" if names_locks(error) => {
            "raise max_locks_per_transaction and restart Postgres: its table of locks is full"
        }
        "53300" => "raise max_connections or max_wal_senders, or close other connections",
        "53400" => "raise max_replication_slots, or drop a slot that nobody uses",
        "55006" => {
            "another process reads this slot: stop it, or wait until Postgres notices that \
             it is gone"
        }
        _ if is_lost_slot(error) => {
            "the slot is lost: `waldex run --reload` makes it anew and loads the tables again; raise \
             max_slot_wal_keep_size, and let nobody remove files of pg_wal"
        }
        "55000" => {
            "run `waldex check`: wal_level must be logical and the slot must belong to this \
             database"
        }
        "57P03" => "wait until Postgres has started",
        "22021" => {
            "the database holds bytes that are not valid in its encoding; repair the rows it names"
        }
        "08P01" => {
            "connect to Postgres itself: a pooler such as PgBouncer does not pass on what replication needs"
        }
        "0A000" => {
            "this server does not support what is asked of it: PostgreSQL 14 or newer is needed"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// Shared memory is out for locks; the setting's name is never translated.
fn names_locks(error: &ServerError) -> bool {
    let hint = error.hint.as_deref().unwrap_or_default();
    hint.contains("max_locks_per_transaction") || error.message.contains("shared memory")
}
