//! The index's settings and mappings, derived from the Postgres types and overlaid with the user's.

use serde_json::{Map, Value, json};

use super::projection::{FieldKind, Projection};
use super::types::Kind;
use crate::settings::TableSettings;

/// A keyword longer than this is kept in `_source` and not indexed: Lucene refuses terms above 32,766
/// bytes, which is 8,191 characters of four bytes.
const KEYWORD_CHARACTERS_MAX: u32 = 8191;
/// How long deletes are remembered, so that a late duplicate does not bring a row back.
const TOMBSTONES_KEPT: &str = "15m";

/// A setting or mapping that waldex cannot work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Documents could not be compared with their rows, nor repaired.
    #[error("\"{0}\" would not keep documents whole; waldex needs the full _source")]
    Source(String),
    /// `properties` that is no object, and the like.
    #[error("\"{0}\" must be a mapping of names")]
    NotAnObject(&'static str),
}

/// `{"settings": …, "mappings": …}` for the table's index.
///
/// # Errors
/// The user's part contradicts what waldex needs.
pub fn index_body(projection: &Projection, table: &TableSettings) -> Result<Value, MappingError> {
    Ok(json!({"settings": settings(table)?, "mappings": mappings(projection, table)?}))
}

fn settings(table: &TableSettings) -> Result<Value, MappingError> {
    let text = Value::Object(table.settings.clone()).to_string();
    if text.contains("mapping.source") || text.contains("synthetic") {
        return Err(MappingError::Source("settings: index.mapping.source".to_owned()));
    }
    let mut settings = table.settings.clone();
    let in_index = settings.get("index").is_some_and(|index| index.get("gc_deletes").is_some());
    let given = in_index
        || ["gc_deletes", "index.gc_deletes"].iter().any(|key| settings.contains_key(*key));
    if !given {
        settings.insert("index.gc_deletes".to_owned(), json!(TOMBSTONES_KEPT));
    }
    Ok(Value::Object(settings))
}

fn mappings(projection: &Projection, table: &TableSettings) -> Result<Value, MappingError> {
    if table.mappings.get("_source").is_some_and(|source| *source != json!({"enabled": true})) {
        return Err(MappingError::Source("mappings._source".to_owned()));
    }
    let mut properties = Map::new();
    for (name, kind) in projection.fields() {
        insert_at(&mut properties, name, field_mapping(kind));
    }
    let mut mappings = Map::new();
    mappings.insert("dynamic".to_owned(), json!(false));
    for (key, value) in &table.mappings {
        if key == "properties" {
            let given =
                value.as_object().ok_or(MappingError::NotAnObject("mappings.properties"))?;
            overlay(&mut properties, given);
        } else {
            mappings.insert(key.clone(), value.clone());
        }
    }
    mappings.insert("properties".to_owned(), Value::Object(properties));
    Ok(Value::Object(mappings))
}

/// A dot in a name means a field of an object.
fn insert_at(properties: &mut Map<String, Value>, name: &str, mapping: Value) {
    match name.split_once('.') {
        None => {
            properties.insert(name.to_owned(), mapping);
        }
        Some((outer, inner)) => {
            let object = properties.entry(outer).or_insert_with(|| json!({"properties": {}}));
            if let Some(inside) = object.get_mut("properties").and_then(Value::as_object_mut) {
                insert_at(inside, inner, mapping);
            }
        }
    }
}

/// The user's field replaces the derived one if it names a type, else it adds to it.
fn overlay(derived: &mut Map<String, Value>, given: &Map<String, Value>) {
    for (name, given) in given {
        match (derived.get_mut(name).and_then(Value::as_object_mut), given.as_object()) {
            (Some(field), Some(given)) if !given.contains_key("type") => {
                for (key, value) in given {
                    field.insert(key.clone(), value.clone());
                }
            }
            (_, _) => {
                derived.insert(name.clone(), given.clone());
            }
        }
    }
}

/// The mapping that follows from where a field comes from, before the user's part, as JSON.
pub fn derived_mapping(field: FieldKind<'_>) -> String {
    field_mapping(field).to_string()
}

fn field_mapping(field: FieldKind<'_>) -> Value {
    match field {
        FieldKind::Computed => text(),
        FieldKind::Column(kind) => kind_mapping(kind),
    }
}

fn kind_mapping(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Integer(16) => json!({"type": "short"}),
        Kind::Integer(32) => json!({"type": "integer"}),
        Kind::Integer(_) => json!({"type": "long"}),
        // NaN and infinities stay in _source and are not indexed.
        Kind::Float(32) => json!({"type": "float", "ignore_malformed": true}),
        Kind::Float(_) | Kind::Numeric => json!({"type": "double", "ignore_malformed": true}),
        Kind::Text => text(),
        Kind::Date | Kind::Timestamp => json!({
            "type": "date", "format": "strict_date_optional_time_nanos", "ignore_malformed": true,
        }),
        // Takes any JSON, scalars too; whoever wants to search it maps it in the configuration.
        Kind::Json | Kind::Jsonb | Kind::Hstore => json!({"type": "object", "enabled": false}),
        Kind::Bytea => json!({"type": "binary"}),
        // With a mask it is no address, and found by its text.
        Kind::Inet => json!({
            "type": "ip", "ignore_malformed": true, "fields": {"keyword": keyword()},
        }),
        Kind::Array(element, _) => kind_mapping(element),
        Kind::Range(subtype) | Kind::Multirange(subtype) => range(kind_mapping(subtype)),
        Kind::Uuid | Kind::Enum | Kind::Other => keyword(),
    }
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": KEYWORD_CHARACTERS_MAX})
}

fn range(bound: Value) -> Value {
    let empty = json!({"type": "boolean"});
    json!({"properties": {"gte": bound, "gt": bound, "lte": bound, "lt": bound, "empty": empty}})
}

fn text() -> Value {
    json!({"type": "text", "fields": {"keyword": keyword()}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::template::parse_template;
    use crate::document::types::TypeRegistry;
    use crate::pgoutput::relation::Relation;

    fn body(table: &TableSettings) -> Result<Value, MappingError> {
        let columns =
            [("id", 20), ("name", 25), ("price", 1700), ("at", 1184), ("tags", 1009), ("j", 3802)];
        let relation = Relation::for_test("t", &columns);
        let key = ["id".to_owned()];
        let types = TypeRegistry::builtin();
        index_body(&Projection::compile(&relation, &key, table, &types).unwrap(), table)
    }

    #[test]
    fn derived_from_the_types() {
        let mut table = TableSettings::with_defaults("public", "t");
        table.computed.insert("both".to_owned(), parse_template("{name}").unwrap());
        table.computed.insert("a.b".to_owned(), parse_template("{name}").unwrap());
        let body = body(&table).unwrap();
        assert_eq!(body["mappings"]["dynamic"], false);
        let fields = &body["mappings"]["properties"];
        assert_eq!(fields["id"]["type"], "long");
        assert_eq!(fields["name"]["fields"]["keyword"]["type"], "keyword");
        assert_eq!(fields["price"], json!({"type": "double", "ignore_malformed": true}));
        assert_eq!(fields["at"]["type"], "date");
        assert_eq!(fields["tags"]["type"], "text");
        assert_eq!(fields["j"], json!({"type": "object", "enabled": false}));
        assert_eq!(fields["both"]["type"], "text");
        assert_eq!(fields["a"]["properties"]["b"]["type"], "text");
        assert_eq!(body["settings"]["index.gc_deletes"], "15m");
    }

    #[test]
    fn the_users_part_lies_over_it() {
        let mut table = TableSettings::with_defaults("public", "t");
        let given = json!({"dynamic": "strict", "properties": {
            "name": {"type": "keyword"}, "at": {"doc_values": false}, "j": {"type": "flattened"}}});
        table.mappings = given.as_object().unwrap().clone();
        table.settings = json!({"index": {"gc_deletes": "1h"}}).as_object().unwrap().clone();
        let body = body(&table).unwrap();
        assert_eq!(body["mappings"]["dynamic"], "strict");
        let fields = &body["mappings"]["properties"];
        assert_eq!(fields["name"], json!({"type": "keyword"}));
        assert_eq!(fields["at"]["type"], "date");
        assert_eq!(fields["at"]["doc_values"], false);
        assert_eq!(fields["j"], json!({"type": "flattened"}));
        assert!(body["settings"].get("index.gc_deletes").is_none());
    }

    #[test]
    fn a_source_that_is_not_whole_is_refused() {
        let mut table = TableSettings::with_defaults("public", "t");
        table.mappings.insert("_source".to_owned(), json!({"excludes": ["name"]}));
        assert!(matches!(body(&table), Err(MappingError::Source(_))));
        let mut table = TableSettings::with_defaults("public", "t");
        table.settings.insert("index.mapping.source.mode".to_owned(), json!("synthetic"));
        assert!(matches!(body(&table), Err(MappingError::Source(_))));
    }
}
