//! What a change of a table's definition means for the documents made so far.
//!
//! Postgres sends no row for an ALTER: not for a column's default, not for a new type, not for a table that
//! left the publication and came back. So the definition that a generation was made for is remembered in the
//! state, and compared each time the tables are planned.

pub(crate) mod partitions;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tables::PlannedTable;
use crate::pgoutput::relation::Column;
use crate::postgres::catalog::PublishedTable;

/// The definition that a generation was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSource {
    /// `pg_class.oid`: another one is another table of the same name.
    pub relation_oid: u32,
    /// What puts the table into the publication; another one has left and come back.
    pub membership_oid: u32,
    /// Another one where the publication may have left out changes for a while; none in a state that is older
    /// than this field.
    #[serde(default)]
    pub membership: Option<String>,
    /// Columns of the document id, in key order.
    pub key: Vec<String>,
    /// The column that documents are routed by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<String>,
    /// The derived mapping of each field, as JSON.
    pub fields: BTreeMap<String, String>,
    /// Where each field comes from; none in a state that is older than this field.
    #[serde(default)]
    pub sources: BTreeMap<String, FieldSource>,
    /// Type OID and modifier of each column; none in a state that is older than this field.
    #[serde(default)]
    pub types: BTreeMap<String, (u32, i32)>,
    /// `pg_attribute.attnum` of each column; none in a state that is older than this field.
    #[serde(default)]
    pub numbers: BTreeMap<String, i16>,
    /// Each partition of a root with its file; none in a state that is older than this field.
    #[serde(default)]
    pub partitions: Option<BTreeMap<u32, u32>>,
}

/// Where a field of the documents comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldSource {
    /// The column of this name.
    Column(String),
    /// This template.
    Computed(String),
}

/// `text` and `varchar`: a change between them leaves every value's text as it was, unless it cuts them short.
const PLAIN_TEXT_OIDS: [u32; 2] = [25, 1043];

impl TableSource {
    /// Of a table as it is planned now.
    pub(crate) fn of(table: &PlannedTable) -> Self {
        Self {
            relation_oid: table.published.relation.oid,
            membership_oid: table.published.membership_oid,
            membership: Some(table.published.membership.clone()),
            key: table.key(),
            routing: table.settings.routing.clone(),
            fields: table.fields.clone(),
            sources: table.sources.clone(),
            types: table.published.relation.columns.iter().map(typed).collect(),
            numbers: numbered(&table.published),
            partitions: Some(partitions::files(&table.published.partitions)),
        }
    }
}

fn typed(column: &Column) -> (String, (u32, i32)) {
    (column.name.clone(), (column.type_oid, column.type_modifier))
}

fn numbered(table: &PublishedTable) -> BTreeMap<String, i16> {
    let columns = table.relation.columns.iter().zip(&table.numbers);
    columns.map(|(column, &number)| (column.name.clone(), number)).collect()
}

/// Whether every value of the one type is one of the other, with the same text.
fn is_wider((oid, modifier): (u32, i32), (oid_now, modifier_now): (u32, i32)) -> bool {
    let is_plain = [oid, oid_now].iter().all(|oid| PLAIN_TEXT_OIDS.contains(oid));
    is_plain && (modifier_now < 0 || (0..=modifier_now).contains(&modifier))
}

/// What has become of a definition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Nothing that documents show.
    None,
    /// Documents written from now on have other fields; those before lack or keep them.
    Fields {
        /// New fields, to be mapped.
        added: Vec<String>,
        /// Fields that documents have no more.
        removed: Vec<String>,
    },
    /// The documents made so far cannot be gone on with: a new generation is loaded.
    Remade(&'static str),
}

/// What lies between the definition a generation was made for and the one of now.
pub(crate) fn difference(before: &TableSource, now: &TableSource) -> Difference {
    if before.relation_oid != now.relation_oid {
        return Difference::Remade("the table was made anew");
    }
    if before.membership_oid != now.membership_oid {
        return Difference::Remade("the table left the publication for a while");
    }
    let is_other = |(before, now): (&String, &String)| before != now;
    if before.membership.as_ref().zip(now.membership.as_ref()).is_some_and(is_other) {
        return Difference::Remade("the publication was altered, and may have left out changes");
    }
    if before.key != now.key {
        return Difference::Remade("its key has other columns, so its rows have other ids");
    }
    if before.routing != now.routing {
        return Difference::Remade("its documents are routed otherwise");
    }
    let is_retyped = |(name, mapping): (&String, &String)| {
        now.fields.get(name).is_some_and(|mapping_now| mapping_now != mapping)
    };
    if before.fields.iter().any(is_retyped) {
        return Difference::Remade("a column has another type, which is mapped otherwise");
    }
    // The configuration says so, and Postgres sends no row for that either. A field that is only new or gone is
    // told below.
    let is_fed_otherwise = |(name, source): (&String, &FieldSource)| {
        now.sources.get(name).is_some_and(|source_now| source_now != source)
    };
    if before.sources.iter().any(is_fed_otherwise) {
        return Difference::Remade("a field is made of another column or by another template");
    }
    let is_another = |(name, number): (&String, &i16)| {
        now.numbers.get(name).is_some_and(|number_now| number_now != number)
    };
    if before.numbers.iter().any(is_another) {
        return Difference::Remade("a name stands for another column");
    }
    let is_rewritten = |(name, &kind): (&String, &(u32, i32))| {
        let now = now.types.get(name);
        now.is_some_and(|&kind_now| kind != kind_now && !is_wider(kind, kind_now))
    };
    if before.types.iter().any(is_rewritten) {
        return Difference::Remade(
            "a column has another type, and its values may be written otherwise",
        );
    }
    let lacking = |from: &TableSource, of: &TableSource| -> Vec<String> {
        from.fields.keys().filter(|name| !of.fields.contains_key(*name)).cloned().collect()
    };
    let (added, removed) = (lacking(now, before), lacking(before, now));
    if added.is_empty() && removed.is_empty() {
        Difference::None
    } else {
        Difference::Fields { added, removed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(key: &[&str], fields: &[(&str, &str)]) -> TableSource {
        let text = |name: &&str| (*name).to_owned();
        TableSource {
            relation_oid: 7,
            membership_oid: 8,
            membership: None,
            key: key.iter().map(text).collect(),
            routing: None,
            fields: fields.iter().map(|(name, kind)| (text(name), text(kind))).collect(),
            sources: BTreeMap::new(),
            types: BTreeMap::new(),
            numbers: BTreeMap::new(),
            partitions: None,
        }
    }

    #[test]
    fn a_name_that_stands_for_another_column_is_another_generation() {
        let with = |numbers: &[(&str, i16)]| TableSource {
            numbers: numbers.iter().map(|&(name, number)| (name.to_owned(), number)).collect(),
            ..source(&["id"], &[("id", "long"), ("a", "text"), ("b", "text")])
        };
        let before = with(&[("id", 1), ("a", 2), ("b", 3)]);
        for now in [with(&[("id", 1), ("a", 3), ("b", 2)]), with(&[("id", 1), ("a", 2), ("b", 4)])]
        {
            assert!(matches!(difference(&before, &now), Difference::Remade(_)), "{now:?}");
        }
        assert_eq!(difference(&with(&[]), &before), Difference::None, "an older state");
    }

    #[test]
    fn a_field_from_elsewhere_is_another_generation() {
        let column = |name: &str| FieldSource::Column(name.to_owned());
        let computed = |template: &str| FieldSource::Computed(template.to_owned());
        let with = |sources: &[(&str, FieldSource)]| TableSource {
            sources: sources.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect(),
            fields: sources.iter().map(|(name, _)| ((*name).to_owned(), "t".to_owned())).collect(),
            ..source(&["id"], &[])
        };
        let before = with(&[("a", column("a")), ("full", computed("{a} {b}"))]);
        assert_eq!(difference(&before, &before), Difference::None);
        for now in [
            with(&[("a", column("b")), ("full", computed("{a} {b}"))]),
            with(&[("a", column("a")), ("full", computed("{b} {a}"))]),
            with(&[("a", computed("a")), ("full", computed("{a} {b}"))]),
        ] {
            assert!(matches!(difference(&before, &now), Difference::Remade(_)), "{now:?}");
        }
        let renamed = with(&[("x", column("a")), ("full", computed("{a} {b}"))]);
        assert!(matches!(difference(&before, &renamed), Difference::Fields { .. }));
    }

    #[test]
    fn a_state_that_does_not_know_where_fields_come_from_is_read_and_no_reason() {
        let known = source(&["id"], &[("id", "long")]);
        let now = TableSource {
            sources: BTreeMap::from([("id".to_owned(), FieldSource::Column("n".to_owned()))]),
            ..known.clone()
        };
        let mut document = serde_json::to_value(&now).unwrap();
        assert_eq!(document["sources"], serde_json::json!({"id": {"column": "n"}}));
        assert!(document.as_object_mut().unwrap().remove("sources").is_some());
        let before: TableSource = serde_json::from_value(document).unwrap();
        assert_eq!(before, known);
        assert_eq!(difference(&before, &now), Difference::None);
    }

    #[test]
    fn fields_come_and_go_within_a_generation() {
        let before = source(&["id"], &[("id", "long"), ("old", "text")]);
        assert_eq!(difference(&before, &before), Difference::None);
        let now = source(&["id"], &[("id", "long"), ("new", "text")]);
        let (added, removed) = (vec!["new".to_owned()], vec!["old".to_owned()]);
        assert_eq!(difference(&before, &now), Difference::Fields { added, removed });
    }

    #[test]
    fn a_type_that_prints_otherwise_is_another_generation_and_a_longer_text_is_not() {
        let with = |oid, modifier| TableSource {
            types: BTreeMap::from([("v".to_owned(), (oid, modifier))]),
            ..source(&["id"], &[("v", "same")])
        };
        let [numeric, bpchar, varchar, text] = [1700, 1042, 1043, 25];
        assert_eq!(difference(&with(varchar, 14), &with(varchar, 24)), Difference::None);
        assert_eq!(difference(&with(varchar, 14), &with(text, -1)), Difference::None);
        let none_known = source(&["id"], &[("v", "same")]);
        assert_eq!(difference(&none_known, &with(numeric, 7)), Difference::None);
        for (before, now) in [
            (with(numeric, 655_366), with(numeric, 786_440)),
            (with(bpchar, 7), with(bpchar, 9)),
            (with(varchar, 14), with(bpchar, 14)),
            (with(varchar, 14), with(varchar, 9)),
            (with(text, -1), with(varchar, 14)),
        ] {
            assert!(matches!(difference(&before, &now), Difference::Remade(_)));
        }
    }

    #[test]
    fn another_table_membership_key_routing_or_type_is_another_generation() {
        let before = TableSource {
            membership: Some("8 700".to_owned()),
            ..source(&["id"], &[("id", "long"), ("v", "text")])
        };
        let now = [
            TableSource { relation_oid: 9, ..before.clone() },
            TableSource { membership_oid: 9, ..before.clone() },
            TableSource { membership: Some("8 701".to_owned()), ..before.clone() },
            source(&["v"], &[("id", "long"), ("v", "text")]),
            TableSource { routing: Some("v".to_owned()), ..before.clone() },
            source(&["id"], &[("id", "long"), ("v", "keyword")]),
        ];
        for now in now {
            assert!(matches!(difference(&before, &now), Difference::Remade(_)), "{now:?}");
        }
    }
}
