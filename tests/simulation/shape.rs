//! The tables of the simulation: how their rows are sent, and which documents they must become.
//!
//! Ids and documents are written from the specification and not by the code under test.

use serde_json::{Value, json};
use waldex::document::types::TypeRegistry;
use waldex::pgoutput::relation::{Column, Relation, ReplicaIdentity};
use waldex::pipeline::TablePlan;
use waldex::settings::TableSettings;

use crate::support::encode::{OldRow, Sent};

/// Names a row of a table; how that becomes key columns is the shape's.
pub(crate) type Key = usize;

/// Keys of a table: few, so that they meet often.
pub(crate) const KEYS: usize = 12;

/// Longer texts are stored out of line, and not sent when an update leaves them alone.
const TOASTED_FROM: usize = 40;

/// A type that no server has built in, so that the catalog must be asked.
const ENUM_OID: u32 = 60_001;

/// A row's columns beside its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) text: String,
    pub(crate) large: Option<String>,
    /// Number of the change that wrote it: tells one write of a row from another.
    pub(crate) step: u64,
}

/// What kind of table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// `REPLICA IDENTITY DEFAULT`: one key column.
    Default,
    /// `REPLICA IDENTITY FULL`, and a column of an enum type.
    Full,
    /// `REPLICA IDENTITY USING INDEX` of two columns, not in the table's order.
    Index,
    /// Published, but not configured.
    Unconfigured,
}

/// The tables there are.
pub(crate) const SHAPES: [Shape; 4] =
    [Shape::Default, Shape::Full, Shape::Index, Shape::Unconfigured];

impl Shape {
    pub(crate) fn oid(self) -> u32 {
        match self {
            Self::Default => 16_400,
            Self::Full => 16_410,
            Self::Index => 16_420,
            Self::Unconfigured => 16_430,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "plain",
            Self::Full => "full",
            Self::Index => "composite",
            Self::Unconfigured => "elsewhere",
        }
    }

    pub(crate) fn is_configured(self) -> bool {
        self != Self::Unconfigured
    }

    pub(crate) fn of(name: &str) -> Self {
        SHAPES.into_iter().find(|shape| shape.name() == name).expect("a table of the simulation")
    }

    /// Columns with their types, in the order of tuples.
    fn columns(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::Default | Self::Unconfigured => {
                &[("id", 20), ("text", 25), ("large", 25), ("step", 20)]
            }
            Self::Full => {
                &[("text", 25), ("id", 20), ("large", 25), ("step", 20), ("kind", ENUM_OID)]
            }
            Self::Index => &[("b", 23), ("text", 25), ("large", 25), ("a", 25), ("step", 20)],
        }
    }

    /// Columns of the key, in the order of the index.
    fn key_columns(self) -> &'static [&'static str] {
        match self {
            Self::Default | Self::Full | Self::Unconfigured => &["id"],
            Self::Index => &["a", "b"],
        }
    }

    pub(crate) fn relation(self) -> Relation {
        let identity = match self {
            Self::Default | Self::Unconfigured => ReplicaIdentity::Default,
            Self::Full => ReplicaIdentity::Full,
            Self::Index => ReplicaIdentity::Index,
        };
        let in_identity = |name| self == Self::Full || self.key_columns().contains(&name);
        let columns = self.columns().iter().map(|&(name, type_oid)| Column {
            name: name.to_owned(),
            type_oid,
            type_modifier: -1,
            in_identity: in_identity(name),
        });
        Relation {
            oid: self.oid(),
            schema: "public".to_owned(),
            name: self.name().to_owned(),
            identity,
            columns: columns.collect(),
        }
    }

    pub(crate) fn index(self, generation: u32) -> String {
        format!("{}-{generation:06}", self.name())
    }

    pub(crate) fn alias(self, generation: u32) -> String {
        format!("{}-write", self.index(generation))
    }

    pub(crate) fn plan(self, generation: u32) -> TablePlan {
        let relation = self.relation();
        let key: Vec<String> = self.key_columns().iter().map(|&name| name.to_owned()).collect();
        let settings = TableSettings::with_defaults("public", self.name());
        let mut types = TypeRegistry::builtin();
        types.learn(&[], &relation.columns.iter().map(|it| it.type_oid).collect::<Vec<_>>());
        TablePlan::new(relation, &key, &settings, &types, self.alias(generation))
            .expect("a table that can be planned")
    }

    /// Texts of the key columns, in the order of the index; some need to be escaped in an id.
    pub(crate) fn key_texts(self, key: Key) -> Vec<String> {
        match self {
            Self::Default | Self::Full | Self::Unconfigured => vec![key.to_string()],
            Self::Index => {
                vec![["x", "y,~", ""][key % 3].to_owned(), (key / 3).to_string()]
            }
        }
    }

    pub(crate) fn key_of(self, texts: &[Vec<u8>]) -> Key {
        let same = |&key: &Key| {
            let expected = self.key_texts(key);
            expected.iter().map(String::as_bytes).eq(texts.iter().map(Vec::as_slice))
        };
        (0..KEYS).find(same).expect("a key of the simulation")
    }

    /// The document id, as documented.
    pub(crate) fn id(self, key: Key) -> String {
        let texts = self.key_texts(key);
        match self {
            Self::Default | Self::Full | Self::Unconfigured => texts.concat(),
            Self::Index => {
                let escape = |text: &String| text.replace('~', "~0").replace(',', "~1");
                texts.iter().map(escape).collect::<Vec<_>>().join(",")
            }
        }
    }

    /// The document a row must become.
    pub(crate) fn document(self, key: Key, row: &Row) -> Value {
        let Row { text, large, step } = row;
        match self {
            Self::Default | Self::Unconfigured => {
                json!({"id": key, "text": text, "large": large, "step": step})
            }
            Self::Full => {
                json!({"id": key, "text": text, "large": large, "step": step, "kind": "odd"})
            }
            Self::Index => {
                let key = self.key_texts(key);
                let b: u64 = key[1].parse().expect("a number");
                json!({"a": key[0], "b": b, "text": text, "large": large, "step": step})
            }
        }
    }

    fn text_of(self, column: &str, key: Key, row: &Row) -> Option<String> {
        let of_key = self.key_columns().iter().zip(self.key_texts(key));
        match column {
            "text" => Some(row.text.clone()),
            "large" => row.large.clone(),
            "step" => Some(row.step.to_string()),
            "kind" => Some("odd".to_owned()),
            other => of_key.into_iter().find(|(name, _)| **name == other).map(|(_, text)| text),
        }
    }

    /// The row as COPY reads it.
    pub(crate) fn copied(self, key: Key, row: &Row) -> Vec<Option<String>> {
        self.columns().iter().map(|(column, _)| self.text_of(column, key, row)).collect()
    }

    fn sent(self, key: Key, row: &Row) -> Vec<Sent> {
        let send = |text: Option<String>| text.map_or(Sent::Null, |t| Sent::Text(t.into_bytes()));
        self.copied(key, row).into_iter().map(send).collect()
    }

    /// The new row of a change, whose large value is unlike that of `before`, if there was a row before.
    pub(crate) fn new_row(self, key: Key, row: &Row, before: Option<&Row>) -> Vec<Sent> {
        let unchanged = before.is_some_and(|before| before.large == row.large)
            && row.large.as_ref().is_some_and(|large| large.len() >= TOASTED_FROM);
        let mut sent = self.sent(key, row);
        if unchanged {
            let at = self.columns().iter().position(|(name, _)| *name == "large");
            sent[at.expect("every table has it")] = Sent::UnchangedToast;
        }
        sent
    }

    /// The old row of a delete or key change. With FULL the old row always has its large value.
    pub(crate) fn old_row(self, key: Key, row: &Row) -> OldRow {
        let mut sent = self.sent(key, row);
        if self == Self::Full {
            return OldRow::Full(sent);
        }
        for (place, (name, _)) in self.columns().iter().enumerate() {
            if !self.key_columns().contains(name) {
                sent[place] = Sent::Null;
            }
        }
        OldRow::Key(sent)
    }
}
