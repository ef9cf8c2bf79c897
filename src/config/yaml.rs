//! The file's text → what was written where; every problem of form is noted, none stops the walk.
//!
//! Only form is judged here: keys that do not exist, keys given twice, a list where one value belongs.
//! What the values mean is judged where they are used, so that a value overridden by a flag or a
//! variable need not be good.
//!
//! The loader stops at a duplicate key. To find all mistakes at once, each duplicate is noted, its first
//! letter replaced by a private-use character (so that no column moves) and the text read again.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};
use serde_json::{Map, Value};

use super::keys::{self, Kind};
use super::problem::{Place, Problem};
use super::tables::TableText;
use super::value::{did_you_mean, interpolate};
use super::{Given, Layer};

/// Duplicates that are looked for before the file is given up as a whole.
const DUPLICATES_MAX: u32 = 200;

/// First of the private-use characters that mark a duplicate key.
const DUPLICATE_MARK: u32 = 0xE000;

/// A value as it stands in the file, `${VAR}` not yet replaced.
pub(super) struct Written {
    pub(super) raw: String,
    pub(super) place: Place,
}

/// What the file says.
#[derive(Default)]
pub(super) struct FileText {
    /// Scalar settings by path; lists of scalars have several.
    pub(super) scalars: BTreeMap<&'static str, Vec<Written>>,
    pub(super) tables: Vec<TableText>,
    /// The file could not be read or is no YAML: what is not set may well stand in it.
    pub(super) is_unreadable: bool,
}

/// Reads a whole file.
pub(super) fn read(
    path: &str,
    source: &str,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> FileText {
    let mut walk = Walk { path, env, problems };
    let mut file = FileText::default();
    let noted_before = walk.problems.len();
    match walk.parse(source) {
        Some(root) => walk.root(&root, &mut file),
        None => file.is_unreadable = walk.problems.len() > noted_before,
    }
    file
}

/// One key of a mapping with its value.
pub(super) struct Entry<'n> {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) node: &'n MarkedYaml<'static>,
}

/// The walk through one file.
pub(super) struct Walk<'a> {
    path: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn parse(&mut self, source: &str) -> Option<MarkedYaml<'static>> {
        let source = source.strip_prefix('\u{feff}').unwrap_or(source);
        let mut chars: Vec<char> = source.chars().collect();
        for mark in DUPLICATE_MARK..DUPLICATE_MARK + DUPLICATES_MAX {
            let error = match MarkedYaml::load_from_iter(chars.iter().copied()) {
                Ok(documents) => return self.only(documents),
                Err(error) => error,
            };
            let place = self.at(*error.marker());
            if !error.info().starts_with("duplicated key") {
                self.note(place, format!("this is not valid YAML: {}", error.info()));
                return None;
            }
            match mark_duplicate(&mut chars, error.marker().index(), mark) {
                Some(name) => self.note(place, format!("\"{name}\" is given twice")),
                None => {
                    self.note(place, "this key is given twice".to_owned());
                    return None;
                }
            }
        }
        None
    }

    fn only(&mut self, documents: Vec<MarkedYaml<'static>>) -> Option<MarkedYaml<'static>> {
        let mut documents = documents.into_iter();
        let first = documents.next()?;
        if let Some(second) = documents.next() {
            let place = self.at(second.span.start);
            self.note(place, "a second YAML document; the file must be one".to_owned());
        }
        Some(first)
    }

    /// The problem's place for a position of the loader (lines from 1, columns from 0).
    pub(super) fn at(&self, marker: Marker) -> Place {
        Place::File { path: self.path.to_owned(), line: marker.line(), column: marker.col() + 1 }
    }

    pub(super) fn note(&mut self, place: Place, message: String) {
        self.problems.push(Problem { place, message });
    }

    fn root(&mut self, root: &MarkedYaml<'static>, file: &mut FileText) {
        if matches!(root.data, YamlData::BadValue) {
            return;
        }
        for entry in self.mapping(root, "the configuration") {
            match entry.name.as_str() {
                "tables" => file.tables = self.tables(&entry),
                _ => self.setting("", &entry, file),
            }
        }
    }

    fn section(&mut self, path: &str, section: &Entry<'_>, file: &mut FileText) {
        let prefix = format!("{path}.");
        for entry in self.mapping(section.node, &format!("\"{}\"", section.name)) {
            self.setting(&prefix, &entry, file);
        }
    }

    fn setting(&mut self, prefix: &str, entry: &Entry<'_>, file: &mut FileText) {
        let path = format!("{prefix}{}", entry.name);
        if keys::SECTIONS.contains(&path.as_str()) {
            return self.section(&path, entry, file);
        }
        let Some(key) = keys::ALL.iter().find(|key| key.path == path) else {
            let siblings = keys::ALL
                .iter()
                .filter(|key| key.path.strip_suffix(key.name()) == Some(prefix))
                .map(|key| key.name())
                .chain(keys::SECTIONS.into_iter().filter_map(|path| path.strip_prefix(prefix)))
                .filter(|name| !name.contains('.'));
            self.unknown_key(&path, entry, siblings.collect());
            return;
        };
        let values = if key.path == keys::ADDRESSES.path {
            self.list(entry, key.kind)
        } else {
            self.scalar(entry.node, &entry.name, &entry.place, key.kind).into_iter().collect()
        };
        file.scalars.insert(key.path, values);
    }

    /// Notes a key that does not exist, or not in this version.
    pub(super) fn unknown_key(&mut self, path: &str, entry: &Entry<'_>, known: Vec<&'static str>) {
        let name = &entry.name;
        let message = if keys::NOT_YET.contains(&path) {
            format!("\"{name}\" is not in this version")
        } else {
            match did_you_mean(name, known.iter().copied()) {
                Some(meant) => format!("unknown key \"{name}\"; did you mean \"{meant}\"?"),
                None => format!("unknown key \"{name}\" (known here: {})", known.join(", ")),
            }
        };
        self.note(entry.place.clone(), message);
    }

    /// The entries of a mapping; an empty value is an empty mapping, so that a section whose every line
    /// is a comment may stay.
    pub(super) fn mapping<'n>(
        &mut self,
        node: &'n MarkedYaml<'static>,
        what: &str,
    ) -> Vec<Entry<'n>> {
        let entries = match &node.data {
            YamlData::Mapping(entries) => entries,
            YamlData::Value(Scalar::Null) => return Vec::new(),
            YamlData::Value(_)
            | YamlData::Sequence(_)
            | YamlData::Representation(..)
            | YamlData::Tagged(..)
            | YamlData::Alias(_)
            | YamlData::BadValue => {
                let place = self.at(node.span.start);
                self.note(place, format!("{what} must be a mapping of keys to values"));
                return Vec::new();
            }
        };
        let mut out = Vec::new();
        for (key, node) in entries {
            let place = self.at(key.span.start);
            match &key.data {
                YamlData::Value(Scalar::String(name)) if is_marked(name) => {}
                YamlData::Value(Scalar::String(name)) => {
                    out.push(Entry { name: name.clone().into_owned(), place, node });
                }
                YamlData::Value(_)
                | YamlData::Mapping(_)
                | YamlData::Sequence(_)
                | YamlData::Representation(..)
                | YamlData::Tagged(..)
                | YamlData::Alias(_)
                | YamlData::BadValue => {
                    self.note(place, "a key must be text; put it in quotes".to_owned());
                }
            }
        }
        out
    }

    /// The elements of a list.
    pub(super) fn sequence<'n>(&mut self, entry: &Entry<'n>) -> Option<&'n [MarkedYaml<'static>]> {
        if let YamlData::Sequence(elements) = &entry.node.data {
            return Some(elements);
        }
        self.note(entry.place.clone(), format!("\"{}\" must be a list", entry.name));
        None
    }

    fn list(&mut self, entry: &Entry<'_>, kind: Kind) -> Vec<Written> {
        let Some(elements) = self.sequence(entry) else { return Vec::new() };
        if elements.is_empty() {
            self.note(entry.place.clone(), format!("\"{}\" is empty", entry.name));
        }
        let mut out = Vec::new();
        for element in elements {
            let place = self.at(element.span.start);
            out.extend(self.scalar(element, &entry.name, &place, kind));
        }
        out
    }

    /// One value. Text that YAML reads as something else is refused instead of guessed at: a password
    /// `0123` would lose its zero.
    pub(super) fn scalar(
        &mut self,
        node: &MarkedYaml<'static>,
        name: &str,
        key_place: &Place,
        kind: Kind,
    ) -> Option<Written> {
        let place = self.at(node.span.start);
        let is_text = matches!(kind, Kind::Text | Kind::Secret);
        let complaint = match &node.data {
            YamlData::Value(Scalar::String(text)) => {
                return Some(Written { raw: text.clone().into_owned(), place });
            }
            YamlData::Value(Scalar::Null) => {
                self.note(key_place.clone(), format!("\"{name}\" has no value"));
                return None;
            }
            YamlData::Value(Scalar::Integer(number)) if !is_text => {
                return Some(Written { raw: number.to_string(), place });
            }
            YamlData::Value(Scalar::Boolean(switch)) if !is_text => {
                return Some(Written { raw: switch.to_string(), place });
            }
            YamlData::Value(Scalar::FloatingPoint(number)) if !is_text => {
                return Some(Written { raw: number.to_string(), place });
            }
            YamlData::Value(_) => "must be text; put it in quotes",
            YamlData::Sequence(_) => "must be one value, not a list",
            YamlData::Mapping(_) => "must be one value, not a mapping",
            YamlData::Tagged(..) => "has a tag; tags are not used here",
            YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
                "cannot be read as a value"
            }
        };
        self.note(place, format!("\"{name}\" {complaint}"));
        None
    }

    /// One text with its `${VAR}`s replaced.
    pub(super) fn text(
        &mut self,
        node: &MarkedYaml<'static>,
        name: &str,
        key_place: &Place,
    ) -> Option<Given> {
        let written = self.scalar(node, name, key_place, Kind::Text)?;
        let text = self.interpolated(&written.raw, &written.place)?;
        Some(Given { text, shown: Some(written.raw), place: written.place, layer: Layer::File })
    }

    fn interpolated(&mut self, raw: &str, place: &Place) -> Option<String> {
        match interpolate(raw, self.env) {
            Ok(text) => Some(text),
            Err(error) => {
                self.note(place.clone(), error.message());
                None
            }
        }
    }

    /// A mapping as a JSON object: index settings and mappings, given to the cluster as they are.
    pub(super) fn json_object(&mut self, entry: &Entry<'_>) -> Map<String, Value> {
        let mut out = Map::new();
        for inner in self.mapping(entry.node, &format!("\"{}\"", entry.name)) {
            let value = self.json(&inner);
            out.insert(inner.name, value);
        }
        out
    }

    fn json(&mut self, entry: &Entry<'_>) -> Value {
        let (node, name) = (entry.node, &entry.name);
        match &node.data {
            YamlData::Value(Scalar::Null) => Value::Null,
            YamlData::Value(Scalar::Boolean(switch)) => Value::Bool(*switch),
            YamlData::Value(Scalar::Integer(number)) => Value::from(*number),
            YamlData::Value(Scalar::FloatingPoint(number)) if number.is_finite() => {
                Value::from(number.into_inner())
            }
            YamlData::Value(Scalar::String(text)) => {
                let place = self.at(node.span.start);
                self.interpolated(text, &place).map_or(Value::Null, Value::String)
            }
            YamlData::Mapping(_) => Value::Object(self.json_object(entry)),
            YamlData::Sequence(elements) => {
                let place = &entry.place;
                let element = |node| Entry { name: name.clone(), place: place.clone(), node };
                Value::Array(elements.iter().map(|node| self.json(&element(node))).collect())
            }
            YamlData::Value(Scalar::FloatingPoint(_))
            | YamlData::Tagged(..)
            | YamlData::Representation(..)
            | YamlData::Alias(_)
            | YamlData::BadValue => {
                let place = self.at(node.span.start);
                self.note(place, format!("\"{name}\" cannot be written as JSON"));
                Value::Null
            }
        }
    }
}

/// Replaces the first letter of the key at `index` and returns the key; `None` if the key is no plain or
/// quoted word.
fn mark_duplicate(chars: &mut [char], index: usize, mark: u32) -> Option<String> {
    let is_word = |c: &&char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let quoted = matches!(chars.get(index), Some('"' | '\''));
    let start = index + usize::from(quoted);
    let name: String = chars.iter().skip(start).take_while(is_word).collect();
    let first = chars.get_mut(start).filter(|_| !name.is_empty())?;
    *first = char::from_u32(mark)?;
    Some(name)
}

/// Whether a key is one that [`mark_duplicate`] changed.
fn is_marked(name: &str) -> bool {
    let marks = DUPLICATE_MARK..DUPLICATE_MARK + DUPLICATES_MAX;
    name.chars().next().is_some_and(|first| marks.contains(&u32::from(first)))
}
