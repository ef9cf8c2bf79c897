//! What Postgres says in an error or a notice (PostgreSQL docs, "Error and Notice Message Fields").
//!
//! Read from frames of unknown origin: a message that is cut off or not UTF-8 still yields an
//! error.

use std::borrow::Cow;
use std::fmt;

/// An `ErrorResponse` or `NoticeResponse`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `WARNING` …, in English whatever the server's language.
    pub severity: String,
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// The primary message, in the server's language. May quote a value: see [`Self::shown`].
    pub message: String,
    /// May quote rows; never printed by `Display` or `Debug`.
    pub detail: Option<String>,
    /// What the server suggests.
    pub hint: Option<String>,
    /// The function in the server's source that reported it; never translated.
    pub routine: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.sqlstate, self.shown())?;
        match &self.hint {
            Some(hint) if !self.may_quote() => write!(f, " (hint: {hint})"),
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `object_not_in_prerequisite_state`.
const NOT_IN_PREREQUISITE_STATE: &str = "55000";

/// Classes of SQLSTATE whose messages quote values: data exceptions, violated constraints, and whatever
/// functions and foreign servers raise.
const QUOTING_CLASSES: [&str; 7] = ["22", "23", "38", "39", "44", "HV", "P0"];

impl ServerError {
    fn may_quote(&self) -> bool {
        self.sqlstate.get(..2).is_none_or(|class| QUOTING_CLASSES.contains(&class))
    }

    /// The primary message, unless it may quote a column value.
    pub fn shown(&self) -> Cow<'_, str> {
        if !self.may_quote() {
            return Cow::Borrowed(&self.message);
        }
        let place = self.routine.as_deref().map(|routine| format!(" in {routine}"));
        let place = place.unwrap_or_default();
        format!("not shown here{place}, since it may quote a value; the log of Postgres has it")
            .into()
    }

    /// Reads the body of an error or notice message. Fields we do not know are passed over, as the
    /// protocol asks; a body that is cut off gives what was there.
    pub(super) fn parse(mut body: &[u8]) -> Self {
        let mut error = Self::default();
        while let Some((&field, rest)) = body.split_first() {
            if field == 0 {
                break;
            }
            let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
            let (value, rest) = rest.split_at(end);
            body = rest.get(1..).unwrap_or_default();
            let value = String::from_utf8_lossy(value).into_owned();
            match field {
                b'S' if error.severity.is_empty() => error.severity = value,
                b'V' => error.severity = value,
                b'C' => error.sqlstate = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'R' => error.routine = Some(value),
                _ => {}
            }
        }
        error
    }

    /// The same from the ordinary connection's driver.
    pub(super) fn from_driver(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            severity: error.severity().to_owned(),
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            routine: error.routine().map(str::to_owned),
        }
    }

    /// Whether this notice is how PostgreSQL 18 says that it goes on without the publication. The
    /// text may be translated; the name of the reporting function is not.
    pub(super) fn is_skipped_publication(&self) -> bool {
        self.sqlstate == NOT_IN_PREREQUISITE_STATE
            && (self.routine.as_deref() == Some("LoadPublications")
                || self.message.contains("skipped loading publication"))
    }

    #[cfg(test)]
    pub(super) fn for_test(sqlstate: &str, message: &str) -> Self {
        Self { sqlstate: sqlstate.to_owned(), message: message.to_owned(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_fields_and_prefers_the_untranslated_severity() {
        let error =
            ServerError::parse(b"SFEHLER\0VERROR\0C23505\0Mno\0DKey (id)=(7)\0Htry\0Rfn\0Xnew\0\0");
        assert_eq!(error.severity, "ERROR");
        assert_eq!(error.sqlstate, "23505");
        assert_eq!(error.routine.as_deref(), Some("fn"));
        assert_eq!(format!("{error} {error:?}").matches("(7)").count(), 0, "detail is not printed");
        let error = ServerError::parse(b"VERROR\0C55006\0Mno\0Htry\0\0");
        assert_eq!(error.to_string(), "ERROR 55006: no (hint: try)");
    }

    #[test]
    fn a_message_that_may_quote_a_value_is_not_shown() {
        for sqlstate in ["22P02", "22008", "23505", "P0001", ""] {
            let mut error = ServerError::for_test(sqlstate, "invalid input: \"c4n4ry\"");
            error.hint = Some("not c4n4ry".to_owned());
            error.routine = Some("pg_strtoint32".to_owned());
            let shown = format!("{error} {error:?} {}", error.shown());
            assert!(!shown.contains("c4n4ry") && shown.contains("pg_strtoint32"), "{shown}");
        }
    }

    #[test]
    fn a_translated_notice_of_a_skipped_publication_is_recognised() {
        let notice = ServerError::parse(b"VWARNING\0C55000\0Mausgelassen\0RLoadPublications\0\0");
        assert!(notice.is_skipped_publication());
        assert!(!ServerError::for_test("55000", "something else").is_skipped_publication());
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_error_and_no_panic(
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let error = ServerError::parse(&body);
            prop_assert!(error.message.len() <= body.len() * 3);
        }
    }
}
