//! What the server says of each item of a bulk.
//!
//! Items are classified by HTTP status and, where one status means two things, by the error's type;
//! not by a message: names of exceptions changed between versions (8.8 renamed
//! `mapper_parsing_exception`), statuses did not. `error.reason` may quote a column's value, so of it only
//! the name of the field is kept, and, where nothing else tells it from a document's fault, that of a missing
//! ingest pipeline.

use serde::Deserialize;

use super::obstacle::{Cause, Obstacle, Rejection};

/// Ask for this much of the answer (`filter_path`): what is parsed here and nothing else.
///
/// The index too: an alias that was moved leads elsewhere. And a bulk's `require_alias` does not hold for deletes
/// (seen on Elasticsearch 9.5 and OpenSearch 3.3), so where the alias is gone a delete makes an index of its name and
/// answers 404 as if all were well.
pub const FILTER_PATH: &str = "items.*.status,items.*.error.type,items.*.error.reason,\
    items.*.error.caused_by.type,items.*._index";

/// What a write alias of ours has behind the name of its physical index.
pub const WRITE_SUFFIX: &str = "-write";

/// Whether an item writes or removes its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The whole document is (re)written.
    Index,
    /// The document is removed.
    Delete,
}

impl Action {
    /// How the item's action line begins.
    pub(super) fn line_start(self) -> &'static [u8] {
        match self {
            Self::Index => b"{\"index\":{",
            Self::Delete => b"{\"delete\":{",
        }
    }
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
    /// The server could not do it now.
    Retry(Obstacle),
    /// The server will not take it.
    Rejected(Rejection),
}

impl Outcome {
    /// What became of a write of several lines, of which `later` is the next: it is done when all are.
    #[must_use]
    pub(super) fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::Retry(first), Self::Retry(other)) => Self::Retry(first.or_worse(other)),
            (open @ Self::Retry(_), _) | (_, open @ Self::Retry(_)) => open,
            (refused @ Self::Rejected(_), _) => refused,
            (Self::Applied | Self::Superseded | Self::AlreadyGone, later) => later,
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
    _index: Option<String>,
}

#[derive(Deserialize)]
struct ItemError {
    r#type: Option<String>,
    reason: Option<String>,
    caused_by: Option<CausedBy>,
}

#[derive(Deserialize)]
struct CausedBy {
    r#type: Option<String>,
}

/// One outcome for each of the lines sent (action and index it named), in their order.
pub fn outcomes(answer: &[u8], sent: &[(Action, &str)]) -> Result<Vec<Outcome>, AnswerError> {
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| AnswerError::NotJson { line: error.line(), column: error.column() })?;
    if answer.items.len() != sent.len() {
        return Err(AnswerError::WrongCount { sent: sent.len(), answered: answer.items.len() });
    }
    let items = answer.items.into_iter().zip(sent);
    Ok(items.map(|(item, &(action, index))| classify(item.index, action, index)).collect())
}

fn classify(item: ItemAnswer, action: Action, index: &str) -> Outcome {
    let status = item.status;
    let Some(error) = item.error else {
        return without_error(status, action, index, item._index.as_deref());
    };
    let kind = error.r#type.as_deref().and_then(error_name).unwrap_or("unnamed error");
    if status == 409 && kind == "version_conflict_engine_exception" {
        return Outcome::Superseded;
    }
    let pipeline = error.reason.as_deref().and_then(missing_pipeline).filter(|_| status == 400);
    if let Some(pipeline) = pipeline.filter(|_| kind == "illegal_argument_exception") {
        let kind = format!(
            "the index names the ingest pipeline \"{pipeline}\", which does not exist: make it, or set \
             index.default_pipeline and index.final_pipeline of the index to \"_none\""
        );
        let index = Some(index.to_owned());
        return Outcome::Retry(Obstacle { cause: Cause::Misconfigured, status, kind, index });
    }
    let cause = Cause::of(status, kind);
    let cause_named = error.caused_by.as_ref().and_then(|cause| cause.r#type.as_deref());
    let kind = match cause_named.and_then(error_name) {
        Some(cause) => format!("{kind} caused by {cause}"),
        None => kind.to_owned(),
    };
    match cause {
        Some(cause) => {
            Outcome::Retry(Obstacle { cause, status, kind, index: Some(index.to_owned()) })
        }
        None => {
            let field = error.reason.as_deref().and_then(field_in);
            Outcome::Rejected(Rejection { status, kind, field })
        }
    }
}

fn without_error(status: u16, action: Action, named: &str, written: Option<&str>) -> Outcome {
    let obstacle = |cause, kind: &str| {
        let (kind, index) = (kind.to_owned(), Some(named.to_owned()));
        Outcome::Retry(Obstacle { cause, status, kind, index })
    };
    match (status, action) {
        (200..=299 | 404, Action::Delete) if written == Some(named) => {
            obstacle(Cause::Misconfigured, "an index stands in the place of the write alias")
        }
        (200..=299 | 404, Action::Index | Action::Delete) if leads_elsewhere(named, written) => {
            obstacle(Cause::Misconfigured, "the write alias leads to another index")
        }
        (200..=299, Action::Index | Action::Delete) => Outcome::Applied,
        (404, Action::Delete) => Outcome::AlreadyGone,
        (409, Action::Index | Action::Delete) => Outcome::Superseded,
        (_, Action::Index | Action::Delete) => {
            let kind = "no error given";
            obstacle(Cause::of(status, kind).unwrap_or(Cause::Misconfigured), kind)
        }
    }
}

/// Whether what was written through an alias of ours is in another index than that of its name.
fn leads_elsewhere(named: &str, written: Option<&str>) -> bool {
    let physical = named.strip_suffix(WRITE_SUFFIX);
    physical.zip(written).is_some_and(|(physical, written)| physical != written)
}

/// The text if it is the name of an error; anything else that stands in its place, as where a gateway answers,
/// may quote what was sent.
pub fn error_name(text: &str) -> Option<&str> {
    let is_name = (text.ends_with("exception") || text.ends_with("error"))
        && text.len() <= ERROR_NAME_BYTES_MAX
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    is_name.then_some(text)
}

const ERROR_NAME_BYTES_MAX: usize = 80;

/// The name in the reason that a missing pipeline is given (seen: Elasticsearch 9.5, OpenSearch 2.19). It is that of
/// a setting of the index, since we name none.
fn missing_pipeline(reason: &str) -> Option<String> {
    let name = reason.strip_prefix("pipeline with id [")?.strip_suffix("] does not exist")?;
    Some(name.chars().take(FIELD_CHARS_MAX).collect())
}

/// The name of the field in one of the reasons that name it, as far as that is ours: below it, in a JSON column,
/// come the keys of the value. The rest of a reason may quote the value, words of these reasons included.
fn field_in(reason: &str) -> Option<String> {
    const NAMED: [(&str, &str); 3] = [
        ("failed to parse field [", "] of type"),
        ("Document contains at least one immense term in field=\"", "\" ("),
        ("object mapping for [", "] tried to parse field"),
    ];
    let reason = without_place(reason);
    NAMED.iter().find_map(|(before, after)| {
        let rest = reason.strip_prefix(before)?;
        let name = rest.get(..rest.find(after)?)?;
        let ours = name.split('.').next().filter(|ours| !ours.is_empty())?;
        Some(ours.chars().take(FIELD_CHARS_MAX).collect())
    })
}

/// Since 8.8 reasons begin with line and column, `[1:8] `.
fn without_place(reason: &str) -> &str {
    let place = reason.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match place {
        Some((place, rest)) if place.bytes().all(|b| b.is_ascii_digit() || b == b':') => rest,
        Some(_) | None => reason,
    }
}

/// A field's name in an error is cut here.
const FIELD_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(action: Action, item: &str) -> Outcome {
        let verb = if action == Action::Index { "index" } else { "delete" };
        let answer = format!(r#"{{"items":[{{"{verb}":{item}}}]}}"#);
        outcomes(answer.as_bytes(), &[(action, "t-000001-write")]).unwrap().remove(0)
    }

    fn cause(action: Action, item: &str) -> Option<Cause> {
        match outcome(action, item) {
            Outcome::Retry(obstacle) => Some(obstacle.cause),
            Outcome::Applied
            | Outcome::Superseded
            | Outcome::AlreadyGone
            | Outcome::Rejected(_) => None,
        }
    }

    #[test]
    fn confirmed_is_only_what_the_server_applied_or_had_newer() {
        assert_eq!(outcome(Action::Index, r#"{"status":201}"#), Outcome::Applied);
        let gone = r#"{"status":404,"_index":"t-000001"}"#;
        assert_eq!(outcome(Action::Delete, r#"{"status":200}"#), Outcome::Applied);
        assert_eq!(outcome(Action::Delete, gone), Outcome::AlreadyGone);
        let newer = r#"{"status":409,"error":{"type":"version_conflict_engine_exception"}}"#;
        assert_eq!(outcome(Action::Index, newer), Outcome::Superseded);
        let other = r#"{"status":409,"error":{"type":"resource_in_use_exception"}}"#;
        assert!(cause(Action::Index, other).is_some());
    }

    #[test]
    fn a_delete_that_made_an_index_of_the_aliases_name_is_not_confirmed() {
        for status in [200, 404] {
            let item = format!(r#"{{"status":{status},"_index":"t-000001-write"}}"#);
            assert_eq!(cause(Action::Delete, &item), Some(Cause::Misconfigured));
        }
    }

    #[test]
    fn what_went_into_another_index_is_not_confirmed() {
        for (action, status) in [
            (Action::Index, 201),
            (Action::Index, 200),
            (Action::Delete, 200),
            (Action::Delete, 404),
        ] {
            let item = format!(r#"{{"status":{status},"_index":"t-000002"}}"#);
            assert_eq!(cause(action, &item), Some(Cause::Misconfigured));
            let item = format!(r#"{{"status":{status},"_index":"t-000001"}}"#);
            assert_eq!(cause(action, &item), None);
        }
    }

    #[test]
    fn a_missing_index_is_not_a_document_already_gone() {
        let missing =
            r#"{"status":404,"error":{"type":"index_not_found_exception","reason":"no"}}"#;
        for action in [Action::Index, Action::Delete] {
            assert_eq!(cause(action, missing), Some(Cause::Misconfigured));
        }
    }

    #[test]
    fn a_rejection_names_the_field_and_never_the_value() {
        let item = r#"{"status":400,"error":{"type":"document_parsing_exception","reason":
            "[1:8] failed to parse field [age] of type [integer] in document with id '7'. Value: 'CANARY'",
            "caused_by":{"type":"number_format_exception"}}}"#;
        let Outcome::Rejected(rejection) = outcome(Action::Index, item) else { panic!() };
        let shown = rejection.to_string();
        assert!(shown.contains("\"age\"") && shown.contains("number_format"), "{shown}");
        assert!(!shown.contains("CANARY"), "{shown}");
        let immense = "Document contains at least one immense term in field=\"k\" (whose UTF8";
        assert_eq!(field_in(immense).as_deref(), Some("k"));
        assert_eq!(field_in("failed to parse"), None);
    }

    #[test]
    fn a_missing_pipeline_is_the_indexs_fault_and_named() {
        let item = r#"{"status":400,"_index":"t-000001-write","error":{"type":"illegal_argument_exception",
            "reason":"pipeline with id [enrich] does not exist"}}"#;
        let Outcome::Retry(obstacle) = outcome(Action::Index, item) else { panic!() };
        assert_eq!(obstacle.cause, Cause::Misconfigured);
        assert_eq!(obstacle.only_of(), Some("t-000001-write"));
        assert!(obstacle.to_string().contains("\"enrich\""), "{obstacle}");
        for other in ["pipeline with id", "no pipeline with id [CANARY] does not exist"] {
            let item = format!(
                r#"{{"status":400,"error":{{"type":"illegal_argument_exception","reason":"{other}"}}}}"#
            );
            assert!(matches!(outcome(Action::Index, &item), Outcome::Rejected(_)), "{other}");
        }
    }

    #[test]
    fn a_key_within_a_json_column_is_part_of_the_value() {
        let reason =
            "[1:8] failed to parse field [doc.CANARY.x] of type [long] in document with id";
        assert_eq!(field_in(reason).as_deref(), Some("doc"));
        let object = "object mapping for [doc.CANARY] tried to parse field [CANARY] as object";
        assert_eq!(field_in(object).as_deref(), Some("doc"));
        // A value that looks like a reason.
        let quoted = "cannot read 'failed to parse field [CANARY] of type'";
        assert_eq!(field_in(quoted), None);
    }

    #[test]
    fn what_stands_in_the_place_of_an_errors_name_is_not_told() {
        let item = r#"{"status":400,"error":{"type":"no: CANARY","caused_by":{"type":"CANARY"}}}"#;
        let Outcome::Rejected(rejection) = outcome(Action::Index, item) else { panic!() };
        assert!(!format!("{rejection} {rejection:?}").contains("CANARY"));
    }

    #[test]
    fn an_answer_that_does_not_match_is_no_answer() {
        let one = [(Action::Index, "t")];
        for bad in ["", "{", "[]", r#"{"items":[{}]}"#, "<html>"] {
            assert!(outcomes(bad.as_bytes(), &one).is_err(), "{bad}");
        }
        let none = outcomes(br#"{"items":[]}"#, &one);
        assert_eq!(none, Err(AnswerError::WrongCount { sent: 1, answered: 0 }));
    }
}
