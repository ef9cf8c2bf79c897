//! The settings of an index, however they are written: nested or dotted, with or without `index.` in front.

use serde_json::{Map, Value};

/// How many fields an index may have.
pub const FIELDS_LIMIT: &str = "index.mapping.total_fields.limit";

/// The settings by their full names, each beginning with `index.`.
pub fn flat(settings: Option<&Value>) -> Map<String, Value> {
    let mut flat = Map::new();
    lay_over(&mut flat, settings);
    flat
}

/// Lays settings over others that are flat already.
pub fn lay_over(flat: &mut Map<String, Value>, settings: Option<&Value>) {
    flatten("", settings, flat);
}

fn flatten(prefix: &str, settings: Option<&Value>, flat: &mut Map<String, Value>) {
    for (name, value) in settings.and_then(Value::as_object).into_iter().flatten() {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if value.is_object() {
            flatten(&name, Some(value), flat);
        } else if name.starts_with("index.") {
            flat.insert(name, value.clone());
        } else {
            flat.insert(format!("index.{name}"), value.clone());
        }
    }
}

/// A setting as text.
pub fn text(flat: &Map<String, Value>, name: &str) -> Option<String> {
    let value = flat.get(name)?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Whether `_source` is not kept as it was sent in this mode, of an index or of its source.
pub fn is_odd_source(mode: &str) -> bool {
    !matches!(mode, "stored" | "standard")
}

/// The setting with which documents are not kept whole, and its value.
pub fn incomplete_source(flat: &Map<String, Value>) -> Option<(&'static str, String)> {
    ["index.mapping.source.mode", "index.mode"].into_iter().find_map(|name| {
        let mode = text(flat, name)?;
        is_odd_source(&mode).then_some((name, mode))
    })
}
