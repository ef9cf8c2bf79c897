//! The index's settings and mappings, derived from the Postgres types and overlaid with the user's.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::index_settings::{self, FIELDS_LIMIT};
use super::projection::{FieldKind, Projection};
use super::tombstones::{self, TooShort};
use super::types::Kind;
use crate::settings::TableSettings;

/// A keyword longer than this is kept in `_source` and not indexed: Lucene refuses terms above 32,766
/// bytes, which is 8,191 characters of four bytes.
const KEYWORD_CHARACTERS_MAX: u32 = 8191;
/// So many fields are well below the 1,000 that an index may have unless it is told otherwise.
const FIELDS_AT_EASE: usize = 500;
/// Beyond it, room is left for as many more.
const FIELDS_TO_COME: usize = 1000;

/// A setting or mapping that waldex cannot work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Documents could not be compared with their rows, nor repaired.
    #[error("\"{0}\" would not keep documents whole; waldex needs the full _source")]
    Source(String),
    /// Documents would be refused, or not be found again.
    #[error("mappings._routing follows from the routing of the table; leave it out")]
    Routing,
    /// `properties` that is no object, and the like.
    #[error("\"{0}\" must be a mapping of names")]
    NotAnObject(&'static str),
    /// Deletes would be forgotten too soon.
    #[error(transparent)]
    Tombstones(#[from] TooShort),
}

/// `{"settings": …, "mappings": …}` for the table's index, which remembers deletes for `tombstones_min` at least.
///
/// # Errors
/// The user's part contradicts what waldex needs.
pub fn index_body(
    projection: &Projection,
    table: &TableSettings,
    tombstones_min: Duration,
) -> Result<Value, MappingError> {
    let mappings = mappings(projection, table)?;
    let settings = settings(table, count_fields(&mappings), tombstones_min)?;
    Ok(json!({"settings": settings, "mappings": mappings}))
}

/// The fields of a mapping as the cluster counts them: those inside of objects and other ways to index one, too.
fn count_fields(mapping: &Value) -> usize {
    let inside = ["properties", "fields"].iter().filter_map(|part| mapping.get(part)?.as_object());
    inside.flat_map(Map::values).map(|field| 1 + count_fields(field)).sum()
}

fn settings(
    table: &TableSettings,
    fields: usize,
    tombstones_min: Duration,
) -> Result<Value, MappingError> {
    let mut settings = table.settings.clone();
    let given = index_settings::flat(Some(&Value::Object(settings.clone())));
    if let Some((name, mode)) = index_settings::incomplete_source(&given) {
        return Err(MappingError::Source(format!("settings: {name}: {mode}")));
    }
    tombstones::set(&mut settings, tombstones_min)?;
    if fields > FIELDS_AT_EASE && !given.contains_key(FIELDS_LIMIT) {
        settings.insert(FIELDS_LIMIT.to_owned(), json!(fields + FIELDS_TO_COME));
    }
    Ok(Value::Object(settings))
}

fn mappings(projection: &Projection, table: &TableSettings) -> Result<Value, MappingError> {
    if table.mappings.get("_source").is_some_and(|source| *source != json!({"enabled": true})) {
        return Err(MappingError::Source("mappings._source".to_owned()));
    }
    if table.mappings.contains_key("_routing") {
        return Err(MappingError::Routing);
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
    if projection.routing_column().is_some() {
        // A write without its routing is refused then, instead of finding nothing somewhere else.
        mappings.insert("_routing".to_owned(), json!({"required": true}));
    }
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

/// The user's field replaces the derived one if it names a type, else it adds to it; so does each field inside.
fn overlay(derived: &mut Map<String, Value>, given: &Map<String, Value>) {
    for (name, given) in given {
        match (derived.get_mut(name).and_then(Value::as_object_mut), given.as_object()) {
            (Some(field), Some(given)) if !given.contains_key("type") => add_to(field, given),
            (_, _) => {
                derived.insert(name.clone(), given.clone());
            }
        }
    }
}

fn add_to(field: &mut Map<String, Value>, given: &Map<String, Value>) {
    for (key, value) in given {
        let holds_fields = matches!(key.as_str(), "properties" | "fields");
        match (field.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
            (Some(inside), Some(given)) if holds_fields => overlay(inside, given),
            (_, _) => {
                field.insert(key.clone(), value.clone());
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
        FieldKind::Column { kind, .. } => kind_mapping(kind),
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
        let projection = Projection::compile(&relation, &key, table, &types).unwrap();
        index_body(&projection, table, Duration::ZERO)
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
    fn a_routing_is_required_where_there_is_one() {
        let mut table = TableSettings::with_defaults("public", "t");
        assert!(body(&table).unwrap()["mappings"].get("_routing").is_none());
        table.routing = Some("name".to_owned());
        assert_eq!(body(&table).unwrap()["mappings"]["_routing"], json!({"required": true}));
        table.mappings.insert("_routing".to_owned(), json!({"required": false}));
        assert_eq!(body(&table), Err(MappingError::Routing));
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

    #[test]
    fn what_names_no_type_is_added_at_every_level() {
        let mut table = TableSettings::with_defaults("public", "t");
        for field in ["o.first", "o.last", "o.deep.er"] {
            table.computed.insert(field.to_owned(), parse_template("{name}").unwrap());
        }
        let given = json!({"properties": {
            "name": {"fields": {"english": {"type": "text"}, "keyword": {"ignore_above": 9}}},
            "o": {"properties": {
                "first": {"type": "keyword"},
                "deep": {"properties": {"er": {"fields": {"keyword": {"type": "wildcard"}}}}},
            }},
            "j": {"properties": {"x": {"type": "long"}}},
        }});
        table.mappings = given.as_object().unwrap().clone();
        let body = body(&table).unwrap();
        let fields = &body["mappings"]["properties"];
        let keyword = |above| json!({"type": "keyword", "ignore_above": above});
        let name = json!({"keyword": keyword(9), "english": {"type": "text"}});
        assert_eq!(fields["name"], json!({"type": "text", "fields": name}));
        let inside = &fields["o"]["properties"];
        assert_eq!(inside["first"], json!({"type": "keyword"}));
        assert_eq!(inside["last"], text());
        let er = json!({"type": "text", "fields": {"keyword": {"type": "wildcard"}}});
        assert_eq!(inside["deep"]["properties"]["er"], er);
        assert_eq!(fields["j"]["properties"], json!({"x": {"type": "long"}}));
        assert_eq!(fields["j"]["enabled"], false);
    }

    #[test]
    fn settings_count_by_their_names_and_not_by_what_else_they_say() {
        let with = |settings: Value| {
            let mut table = TableSettings::with_defaults("public", "t");
            table.settings = settings.as_object().unwrap().clone();
            body(&table)
        };
        for harmless in [
            json!({"analysis": {"filter": {"s": {"synonyms": ["faux, synthetic", "mapping.source"]}}}}),
            json!({"index": {"mapping": {"source": {"mode": "stored"}}, "mode": "standard"}}),
        ] {
            assert!(with(harmless.clone()).is_ok(), "{harmless}");
        }
        for odd in [
            json!({"index.mapping.source.mode": "synthetic"}),
            json!({"mapping": {"source.mode": "disabled"}}),
            json!({"index": {"mapping": {"source": {"mode": "synthetic"}}}}),
            json!({"index.mode": "logsdb"}),
            json!({"mode": "time_series"}),
        ] {
            assert!(matches!(with(odd.clone()), Err(MappingError::Source(_))), "{odd}");
        }
    }
}
