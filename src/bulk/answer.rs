//! What the server says of each item of a bulk.
//!
//! Items are classified by HTTP status and, where one status means two things, by the error's type;
//! never by a message: names of exceptions changed between versions (8.8 renamed
//! `mapper_parsing_exception`), statuses did not. `error.reason` may quote a column's value, so of it only
//! the name of the field is kept.

use std::fmt;

use serde::Deserialize;

/// Ask for this much of the answer (`filter_path`): what is parsed here and nothing else.
pub const FILTER_PATH: &str = "items.*.status,items.*.error.type,items.*.error.reason,\
    items.*.error.caused_by.type";

/// Whether an item writes or removes its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The whole document is (re)written.
    Index,
    /// The document is removed.
    Delete,
}

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written.
    Applied,
    /// The server holds something newer; the item has nothing left to do.
    Superseded,
    /// A delete found no document, and left a tombstone of its version.
    AlreadyGone,
    /// The server could not do it now (429, 5xx, 401, 403, no answer for the item).
    Retry {
        /// HTTP status of the item.
        status: u16,
        /// The error's type, as the server names it.
        kind: String,
    },
    /// The server will not take it, however often it is sent.
    Rejected(Rejection),
}

/// Why the server refused an item for good. Holds no column value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// HTTP status of the item.
    pub status: u16,
    /// The error's type and, if there is one, its cause's.
    pub kind: String,
    /// The field the error names.
    pub field: Option<String>,
}

impl Rejection {
    /// Whether the index or alias is at fault rather than the document: no other document would fare
    /// better.
    pub fn is_configuration(&self) -> bool {
        self.status == 404
            || [
                "index_closed_exception",
                "invalid_index_name_exception",
                "invalid_alias_name_exception",
            ]
            .iter()
            .any(|kind| self.kind.starts_with(kind))
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}, {}", self.status, self.kind)?;
        match &self.field {
            Some(field) => write!(f, ", field \"{field}\""),
            None => Ok(()),
        }
    }
}

/// The answer cannot be matched with the items sent: any subset of them may have been applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Truncated, or not from Elasticsearch.
    #[error("the answer to a bulk is not the expected JSON (line {line}, column {column})")]
    NotJson {
        /// Line in the answer.
        line: usize,
        /// Column in the answer.
        column: usize,
    },
    /// An answer for another number of items.
    #[error("the answer to a bulk of {sent} items speaks of {answered}")]
    WrongCount {
        /// Items sent.
        sent: usize,
        /// Items answered.
        answered: usize,
    },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(alias = "delete", alias = "create", alias = "update")]
    index: ItemAnswer,
}

#[derive(Deserialize)]
struct ItemAnswer {
    status: u16,
    error: Option<ItemError>,
}

#[derive(Deserialize)]
struct ItemError {
    r#type: Option<String>,
    reason: Option<String>,
    caused_by: Option<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    r#type: Option<String>,
}

/// One outcome for each of the actions sent, in their order.
pub fn outcomes(
    answer: &[u8],
    actions: impl ExactSizeIterator<Item = Action>,
) -> Result<Vec<Outcome>, AnswerError> {
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| AnswerError::NotJson { line: error.line(), column: error.column() })?;
    if answer.items.len() != actions.len() {
        return Err(AnswerError::WrongCount { sent: actions.len(), answered: answer.items.len() });
    }
    Ok(answer
        .items
        .into_iter()
        .zip(actions)
        .map(|(item, action)| classify(item.index, action))
        .collect())
}

fn classify(item: ItemAnswer, action: Action) -> Outcome {
    let status = item.status;
    match (status, action, &item.error) {
        (200..=299, _, _) => Outcome::Applied,
        (409, _, _) => Outcome::Superseded,
        (404, Action::Delete, None) => Outcome::AlreadyGone,
        // 401 and 403 are states of the cluster (rotated credentials, a write block), not of the document.
        (401 | 403 | 408 | 429 | 500.., _, _) => {
            Outcome::Retry { status, kind: kind_of(item.error.as_ref()) }
        }
        (_, Action::Index | Action::Delete, _) => Outcome::Rejected(Rejection {
            status,
            kind: kind_of(item.error.as_ref()),
            field: item.error.and_then(|error| error.reason).and_then(|reason| field_in(&reason)),
        }),
    }
}

fn kind_of(error: Option<&ItemError>) -> String {
    let Some(error) = error else { return "no error given".to_owned() };
    let kind = error.r#type.as_deref().unwrap_or("unnamed error");
    match error.caused_by.as_ref().and_then(|cause| cause.r#type.as_deref()) {
        Some(cause) => format!("{kind} caused by {cause}"),
        None => kind.to_owned(),
    }
}

/// The name in "failed to parse field [name] of type …"; the rest of the reason may quote the value.
fn field_in(reason: &str) -> Option<String> {
    let rest = reason.get(reason.find("field [")? + "field [".len()..)?;
    let name = rest.get(..rest.find("] of type")?)?;
    Some(name.chars().take(FIELD_CHARS_MAX).collect())
}

/// A field's name in an error is cut here.
const FIELD_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(action: Action, item: &str) -> Outcome {
        let verb = if action == Action::Index { "index" } else { "delete" };
        let answer = format!(r#"{{"items":[{{"{verb}":{item}}}]}}"#);
        outcomes(answer.as_bytes(), [action].into_iter()).unwrap().remove(0)
    }

    #[test]
    fn confirmed_is_only_what_the_server_applied_or_had_newer() {
        assert_eq!(outcome(Action::Index, r#"{"status":201}"#), Outcome::Applied);
        assert_eq!(outcome(Action::Delete, r#"{"status":200}"#), Outcome::Applied);
        assert_eq!(outcome(Action::Index, r#"{"status":409}"#), Outcome::Superseded);
        assert_eq!(outcome(Action::Delete, r#"{"status":404}"#), Outcome::AlreadyGone);
    }

    #[test]
    fn a_missing_index_is_not_a_document_already_gone() {
        let missing =
            r#"{"status":404,"error":{"type":"index_not_found_exception","reason":"no"}}"#;
        for action in [Action::Index, Action::Delete] {
            let refused = outcome(action, missing);
            assert!(
                matches!(&refused, Outcome::Rejected(why) if why.is_configuration()),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn overload_and_blocks_are_retried() {
        for status in [401, 403, 408, 429, 500, 502, 503, 504] {
            let item = format!(r#"{{"status":{status},"error":{{"type":"t"}}}}"#);
            let expected = Outcome::Retry { status, kind: "t".to_owned() };
            assert_eq!(outcome(Action::Index, &item), expected);
        }
    }

    #[test]
    fn a_rejection_names_the_field_and_never_the_value() {
        let item = r#"{"status":400,"error":{"type":"document_parsing_exception","reason":
            "[1:8] failed to parse field [age] of type [integer] in document with id '7'. Preview of field's value: 'CANARY'",
            "caused_by":{"type":"number_format_exception"}}}"#;
        let Outcome::Rejected(rejection) = outcome(Action::Index, item) else { panic!() };
        let shown = rejection.to_string();
        assert!(shown.contains("\"age\"") && shown.contains("number_format"), "{shown}");
        assert!(!shown.contains("CANARY") && !rejection.is_configuration());
    }

    #[test]
    fn an_answer_that_does_not_match_is_no_answer() {
        let one = [Action::Index];
        for bad in ["", "{", "[]", r#"{"items":[{}]}"#, "<html>"] {
            assert!(outcomes(bad.as_bytes(), one.into_iter()).is_err(), "{bad}");
        }
        let none = outcomes(br#"{"items":[]}"#, one.into_iter());
        assert_eq!(none, Err(AnswerError::WrongCount { sent: 1, answered: 0 }));
    }
}
