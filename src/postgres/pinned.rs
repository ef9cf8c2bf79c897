//! The session settings that decide how Postgres prints values, pinned for every connection.
//!
//! They travel in the startup packet, where they override what `ALTER ROLE … SET` and
//! `ALTER DATABASE … SET` say: such a setting was seen to change the text of intervals, bytea and
//! timestamps, and with it the documents.

/// The encoding in which Postgres sends text to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Converted by the server.
    #[default]
    Utf8,
    /// As stored, for a database whose `server_encoding` is `SQL_ASCII`: asked for UTF-8, the
    /// server would refuse any invalid byte and end the stream (SQLSTATE 22021).
    SqlAscii,
}

impl Encoding {
    /// What to ask for, given the database's `server_encoding`.
    pub fn for_server(server_encoding: &str) -> Self {
        if server_encoding == "SQL_ASCII" { Self::SqlAscii } else { Self::Utf8 }
    }

    /// The value of `client_encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF8",
            Self::SqlAscii => "SQL_ASCII",
        }
    }
}

/// How we appear in `pg_stat_activity` and `pg_stat_replication`.
pub const APPLICATION_NAME: &str = "waldex";

/// Name and value, known to every version since 14.
pub(super) const SETTINGS: [(&str, &str); 15] = [
    ("DateStyle", "ISO"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "iso_8601"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("search_path", ""),
    ("standard_conforming_strings", "on"),
    ("default_transaction_isolation", "read committed"),
    // A role that only wants errors would hide the notice that the publication was skipped.
    ("client_min_messages", "notice"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("quote_all_identifiers", "off"),
];

/// `transaction_timeout` came with this version; an older one would refuse the startup packet for
/// it, so it is set by a statement. It would cut a long transaction in the middle of its decoding.
pub(super) const TRANSACTION_TIMEOUT_SINCE_MAJOR: u32 = 17;

/// Turns it off for the session.
pub(super) const TRANSACTION_TIMEOUT_OFF: &str = "SET transaction_timeout = 0";

/// The major version in a `server_version` such as `18.3 (Debian 18.3-1)` or `19beta1`.
pub(super) fn major_version(server_version: &str) -> Option<u32> {
    let end = server_version.find(|c: char| !c.is_ascii_digit()).unwrap_or(server_version.len());
    server_version.get(..end)?.parse().ok()
}

/// The settings as the `options` startup parameter, for a driver that can send no others. Spaces
/// and backslashes are escaped as `postgres -c` splits them.
pub(super) fn as_options(settings: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(' ', "\\ ");
    let words: Vec<String> =
        settings.iter().map(|(name, value)| format!("-c {name}={}", escape(value))).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_escape_what_the_server_would_split() {
        assert_eq!(
            as_options(&[("search_path", ""), ("default_transaction_isolation", "read committed")]),
            "-c search_path= -c default_transaction_isolation=read\\ committed"
        );
    }

    #[test]
    fn the_major_version_is_read_from_every_form() {
        for (text, major) in [("18.3", 18), ("14.15 (Debian 14.15-1)", 14), ("19beta1", 19)] {
            assert_eq!(major_version(text), Some(major), "{text}");
        }
        assert_eq!(major_version(""), None);
    }
}
