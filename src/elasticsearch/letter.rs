//! What a dead letter says, and under which id.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::index::{physical_of, readers_name_of};
use crate::bulk::answer::Action;
use crate::bulk::batch::Item;
use crate::bulk::obstacle::Rejection;
use crate::bulk::write::write_routing;
use crate::document::id;
use crate::document::json::write_string;
use crate::lsn::Lsn;
use crate::pipeline::Epoch;

/// A document above this size is left out of its letter.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// One refused write. Beside the document's id, which is the row's key, and its routing it holds no column value
/// unless the document itself is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The slot whose stream brought it.
    pub slot: String,
    /// Schema-qualified name of the table, if it is still configured.
    pub table: Option<String>,
    /// The physical index it was meant for.
    pub index: String,
    /// Id of the document.
    pub document_id: String,
    /// Its routing, where it has one: without it the document cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<String>,
    /// `index` or `delete`.
    pub action: String,
    /// Version of the refused write, and of the letter.
    pub version: i64,
    /// Commit LSN of the transaction; `0/0` for a row that was copied by the initial load.
    pub lsn: String,
    /// HTTP status.
    pub status: u16,
    /// The error's type, as the server names it.
    pub error: String,
    /// The field the error names.
    pub field: Option<String>,
    /// Size of the document.
    pub document_bytes: u64,
    /// How often it was refused: once, and once more for each `retry`.
    pub attempts: u32,
    /// When it was refused last, ISO 8601 in UTC.
    pub time: String,
    /// The document as text, if it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// Without the document and its id.
impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter")
            .field("table", &self.table)
            .field("index", &self.index)
            .field("lsn", &self.lsn)
            .field("reason", &self.reason())
            .finish_non_exhaustive()
    }
}

impl Letter {
    /// The letter of a refused item.
    pub fn of(item: &Item<'_>, reason: &Rejection, slot: &str, time: &str, keeps: bool) -> Self {
        let (alias, document_id) = names_in(item.name);
        let size = item.document.len();
        let document = || String::from_utf8_lossy(item.document).into_owned();
        Self {
            slot: slot.to_owned(),
            table: None,
            index: physical_of(&alias).to_owned(),
            document_id,
            routing: routing_in(item.routing),
            action: match item.action {
                Action::Index => "index".to_owned(),
                Action::Delete => "delete".to_owned(),
            },
            version: item.version,
            lsn: lsn_of(item.version).to_string(),
            status: reason.status,
            error: reason.kind.clone(),
            field: reason.field.clone(),
            document_bytes: u64::try_from(size).unwrap_or(u64::MAX),
            attempts: 1,
            time: time.to_owned(),
            document: (keeps && size <= DOCUMENT_BYTES_MAX).then(document),
        }
    }

    /// A retry was refused.
    pub fn refused_again(&mut self, reason: &Rejection) {
        self.status = reason.status;
        self.error.clone_from(&reason.kind);
        self.field.clone_from(&reason.field);
        self.attempts = self.attempts.saturating_add(1);
        self.time = now();
    }

    /// The name readers use for its index.
    pub fn readers_name(&self) -> &str {
        readers_name_of(&self.index)
    }

    /// Id of the letter: one for each document of an index, so that a newer refusal takes an older one's place.
    pub fn id(&self) -> String {
        letter_id(&self.index, &self.document_id)
    }

    /// What it says of the reason.
    pub fn reason(&self) -> Rejection {
        let (status, kind, field) = (self.status, self.error.clone(), self.field.clone());
        Rejection { status, kind, field }
    }
}

/// Id of the letter for a document.
pub fn letter_id(index: &str, document_id: &str) -> String {
    let mut out = Vec::new();
    id::write_id([index.as_bytes(), document_id.as_bytes()].into_iter(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// `"_index":"…","_id":"…"` as it stands in an action line.
pub fn document_name(index: &str, document_id: &str) -> Vec<u8> {
    let mut name = b"\"_index\":".to_vec();
    write_string(index.as_bytes(), &mut name);
    name.extend_from_slice(b",\"_id\":");
    write_string(document_id.as_bytes(), &mut name);
    name
}

/// The index and the id in such a name.
pub fn names_in(name: &[u8]) -> (String, String) {
    let object = [b"{", name, b"}"].concat();
    let names: Value = serde_json::from_slice(&object).unwrap_or_default();
    let name = |name: &str| names.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    (name("_index"), name("_id"))
}

/// A routing as it stands behind such a name; nothing where there is none.
pub fn rendered_routing(routing: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(routing) = routing {
        write_routing(routing.as_bytes(), &mut out);
    }
    out
}

fn routing_in(rendered: &[u8]) -> Option<String> {
    let object = [b"{", rendered.strip_prefix(b",")?, b"}"].concat();
    let object: Value = serde_json::from_slice(&object).ok()?;
    object.get("routing").and_then(Value::as_str).map(str::to_owned)
}

fn lsn_of(version: i64) -> Lsn {
    let load = Epoch(u8::try_from(version >> 56).unwrap_or(0)).load_version();
    Lsn::new(u64::try_from(version - load).unwrap_or(0))
}

/// The present, as letters have it.
pub fn now() -> String {
    iso_time(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

/// A moment as ISO 8601 in UTC, to the second.
fn iso_time(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day counted from 1970-01-01. Counted in eras of 400 years that begin on 1 March, so that the
/// leap day comes last (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let since_0000_03_01 = days + 719_468;
    let (era, day_of_era) = (since_0000_03_01 / 146_097, since_0000_03_01 % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Settings and mappings of the letters' index.
pub fn index_body() -> Value {
    let keyword = || json!({"type": "keyword", "ignore_above": 8191});
    json!({
        "settings": {
            "number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": true, "gc_deletes": "15m",
        },
        "mappings": {"dynamic": false, "properties": {
            "slot": keyword(), "table": keyword(), "index": keyword(), "document_id": keyword(),
            "action": keyword(), "version": {"type": "long"}, "lsn": keyword(),
            "status": {"type": "short"}, "error": keyword(), "field": keyword(),
            "document_bytes": {"type": "long"}, "attempts": {"type": "integer"},
            "time": {"type": "date"},
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::open::OpenBatch;
    use crate::bulk::write::Write;

    fn letter(document: &str, keeps: bool) -> Letter {
        letter_routed(None, document, keeps)
    }

    fn letter_routed(routing: Option<&str>, document: &str, keeps: bool) -> Letter {
        let (name, routing) =
            (document_name("users-000003-write", "a\"b,~0"), rendered_routing(routing));
        let mut open = OpenBatch::new(0);
        let version = Epoch(2).version(Lsn::new(0x16_B374_D848)).unwrap();
        open.push(&Write::index(&name, version, document.as_bytes()).routed(&routing));
        let batch = open.seal();
        let reason = Rejection { status: 400, kind: "t".to_owned(), field: Some("age".to_owned()) };
        let item = batch.each().next().unwrap();
        Letter::of(&item, &reason, "s", "2026-01-02T03:04:05Z", keeps)
    }

    #[test]
    fn says_which_document_of_which_index_at_which_lsn() {
        let letter = letter(r#"{"age":"CANARY"}"#, false);
        assert_eq!(letter.index, "users-000003");
        assert_eq!((letter.readers_name(), letter.document_id.as_str()), ("users", "a\"b,~0"));
        assert_eq!((letter.lsn.as_str(), letter.document_bytes), ("16/B374D848", 16));
        assert_eq!(letter.id(), "users-000003,a\"b~1~00");
        let stored = serde_json::to_string(&letter).unwrap();
        assert!(!stored.contains("CANARY"), "{stored}");
        assert_eq!(serde_json::from_str::<Letter>(&stored).unwrap(), letter);
    }

    #[test]
    fn a_letter_keeps_the_routing_and_an_older_one_has_none() {
        let letter = letter_routed(Some("D\"E"), "{}", false);
        assert_eq!(letter.routing.as_deref(), Some("D\"E"));
        let mut stored = serde_json::to_value(&letter).unwrap();
        assert_eq!(serde_json::from_value::<Letter>(stored.clone()).unwrap(), letter);
        stored.as_object_mut().unwrap().remove("routing");
        assert_eq!(serde_json::from_value::<Letter>(stored).unwrap().routing, None);
    }

    #[test]
    fn holds_the_document_only_if_it_is_to_be_kept_and_not_too_large() {
        assert_eq!(letter("{}", true).document.as_deref(), Some("{}"));
        assert_eq!(letter("{}", false).document, None);
        let shown = format!("{:?}", letter("CANARY", true));
        assert!(
            shown.contains("age") && !shown.contains("CANARY") && !shown.contains("a\"b"),
            "{shown}"
        );
        assert_eq!(letter(&"x".repeat(DOCUMENT_BYTES_MAX + 1), true).document, None);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_772_323_199, "2026-02-28T23:59:59Z"),
            (1_772_323_200, "2026-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso_time(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn every_mapped_field_is_one_of_the_letter() {
        let body = index_body();
        let mapped = body["mappings"]["properties"].as_object().unwrap();
        let stored = serde_json::to_value(letter("{}", false)).unwrap();
        let fields: Vec<&String> = stored.as_object().unwrap().keys().collect();
        assert_eq!(mapped.keys().collect::<Vec<_>>(), fields);
    }
}
