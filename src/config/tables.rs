//! The `tables` list: its form in the file, and what each entry means.
//!
//! What can only be known from the catalog (does the table exist, has it these columns) is the
//! preflight's work; everything the file alone can get wrong is found here.

use std::collections::{BTreeMap, BTreeSet};

use saphyr::MarkedYaml;
use serde_json::{Map, Value};

use super::Given;
use super::index_name;
use super::keys;
use super::problem::{Place, Problem};
use super::table_name;
use super::yaml::{Entry, Walk};
use crate::document::template::parse_template;
use crate::settings::{ColumnChoice, TableSettings};

/// Field names that the search cluster keeps for itself and refuses in a document.
const METADATA_FIELDS: [&str; 10] = [
    "_id",
    "_index",
    "_source",
    "_routing",
    "_ignored",
    "_field_names",
    "_version",
    "_seq_no",
    "_type",
    "_tier",
];

/// One entry of the list as it is written.
pub(super) struct TableText {
    place: Place,
    table: Option<Given>,
    index: Option<Given>,
    columns: Option<Names>,
    exclude: Option<Names>,
    /// Column, field.
    rename: Vec<(Given, Given)>,
    /// Field, template.
    computed: Vec<(Given, Given)>,
    routing: Option<Given>,
    settings: Map<String, Value>,
    mappings: Map<String, Value>,
}

/// A list of column names and where its key stands.
struct Names {
    place: Place,
    names: Vec<Given>,
}

impl Walk<'_> {
    /// Reads the list.
    pub(super) fn tables(&mut self, entry: &Entry<'_>) -> Vec<TableText> {
        if entry.node.data.is_null() {
            return Vec::new();
        }
        let nodes = self.sequence(entry).unwrap_or_default();
        nodes.iter().map(|node| self.table(node)).collect()
    }

    fn table(&mut self, node: &MarkedYaml<'static>) -> TableText {
        let mut out = TableText {
            place: self.at(node.span.start),
            table: None,
            index: None,
            columns: None,
            exclude: None,
            rename: Vec::new(),
            computed: Vec::new(),
            routing: None,
            settings: Map::new(),
            mappings: Map::new(),
        };
        let entries = self.mapping(node, "an entry of \"tables\"");
        if !entries.iter().any(|entry| entry.name == "table") {
            self.note(out.place.clone(), "\"table\" is missing in this entry".to_owned());
        }
        for entry in entries {
            match entry.name.as_str() {
                "table" => out.table = self.text(entry.node, "table", &entry.place),
                "index" => out.index = self.text(entry.node, "index", &entry.place),
                "columns" => out.columns = self.names(&entry),
                "exclude" => out.exclude = self.names(&entry),
                "rename" => out.rename = self.pairs(&entry),
                "computed" => out.computed = self.pairs(&entry),
                "routing" => out.routing = self.text(entry.node, "routing", &entry.place),
                "settings" => out.settings = self.json_object(&entry),
                "mappings" => out.mappings = self.json_object(&entry),
                name => {
                    let path = format!("tables[].{name}");
                    self.unknown_key(&path, &entry, keys::TABLE_KEYS.to_vec());
                }
            }
        }
        out
    }

    fn names(&mut self, entry: &Entry<'_>) -> Option<Names> {
        let nodes = self.sequence(entry)?;
        if nodes.is_empty() {
            let remedy = "leave the key out to index every column";
            self.note(entry.place.clone(), format!("\"{}\" is empty; {remedy}", entry.name));
        }
        let read = |node| self.text(node, &entry.name, &entry.place);
        let names: Vec<Given> = nodes.iter().filter_map(read).collect();
        let mut seen = BTreeSet::new();
        for name in &names {
            if !seen.insert(name.text.as_str()) {
                self.note(name.place.clone(), name.complain("is listed twice"));
            }
        }
        Some(Names { place: entry.place.clone(), names })
    }

    fn pairs(&mut self, entry: &Entry<'_>) -> Vec<(Given, Given)> {
        let mut out = Vec::new();
        for inner in self.mapping(entry.node, &format!("\"{}\"", entry.name)) {
            let Some(value) = self.text(inner.node, &inner.name, &inner.place) else { continue };
            let key = Given {
                shown: Some(inner.name.clone()),
                text: inner.name,
                place: inner.place,
                layer: value.layer,
            };
            out.push((key, value));
        }
        out
    }
}

/// Turns the entries into settings and notes everything that contradicts itself or each other.
pub(super) fn resolve(entries: Vec<TableText>, problems: &mut Vec<Problem>) -> Vec<TableSettings> {
    let mut resolved: Vec<(Place, TableSettings)> = Vec::new();
    let mut check = Check { problems };
    for entry in entries {
        let Some(table) = check.table(&entry) else { continue };
        check.against_others(&entry, &table, &resolved);
        resolved.push((entry.place, table));
    }
    resolved.into_iter().map(|(_, table)| table).collect()
}

struct Check<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn note(&mut self, place: &Place, message: String) {
        self.problems.push(Problem { place: place.clone(), message });
    }

    fn table(&mut self, entry: &TableText) -> Option<TableSettings> {
        let given = entry.table.as_ref()?;
        let (schema, table) = match table_name::parse(given) {
            Ok(names) => names,
            Err(message) => {
                self.note(&given.place, message);
                return None;
            }
        };
        let mut out = TableSettings::with_defaults(&schema, &table);
        self.index(entry, given, &mut out);
        self.columns(entry, &mut out);
        self.renames(entry, &mut out);
        self.computed(entry, &mut out);
        self.fields(entry, &out);
        self.routing(entry, &mut out);
        out.settings.clone_from(&entry.settings);
        out.mappings.clone_from(&entry.mappings);
        Some(out)
    }

    fn index(&mut self, entry: &TableText, table: &Given, out: &mut TableSettings) {
        match &entry.index {
            Some(index) => {
                out.index.clone_from(&index.text);
                if let Err(complaint) = index_name::validate(&index.text) {
                    self.note(&index.place, format!("index: {}", index.complain(&complaint)));
                }
            }
            None => {
                if let Err(complaint) = index_name::validate(&out.table) {
                    let message = format!(
                        "the table's name \"{}\" cannot be its index's name, which {complaint}; \
                         set \"index\" in this entry",
                        out.table
                    );
                    self.note(&table.place, message);
                }
            }
        }
    }

    fn columns(&mut self, entry: &TableText, out: &mut TableSettings) {
        let texts =
            |names: &Names| names.names.iter().map(|name| name.text.clone()).collect::<Vec<_>>();
        out.columns = match (&entry.columns, &entry.exclude) {
            (None, None) => ColumnChoice::All,
            (Some(columns), None) => ColumnChoice::Only(texts(columns)),
            (None, Some(exclude)) => ColumnChoice::Except(texts(exclude)),
            (Some(columns), Some(exclude)) => {
                let message = "\"columns\" and \"exclude\" are both given; keep one".to_owned();
                let later = if exclude.place.is_after(&columns.place) { exclude } else { columns };
                self.note(&later.place, message);
                ColumnChoice::All
            }
        };
    }

    fn renames(&mut self, entry: &TableText, out: &mut TableSettings) {
        for (column, field) in &entry.rename {
            let left_out = match &out.columns {
                ColumnChoice::All => false,
                ColumnChoice::Only(columns) => !columns.contains(&column.text),
                ColumnChoice::Except(columns) => columns.contains(&column.text),
            };
            if left_out {
                let complaint = "is renamed but not among the columns that are indexed";
                self.note(&column.place, column.complain(complaint));
            }
            self.field_name(field);
            out.rename.insert(column.text.clone(), field.text.clone());
        }
    }

    fn computed(&mut self, entry: &TableText, out: &mut TableSettings) {
        for (field, template) in &entry.computed {
            self.field_name(field);
            match parse_template(&template.text) {
                Ok(parts) => {
                    out.computed.insert(field.text.clone(), parts);
                }
                Err(error) => {
                    let message = format!("computed field \"{}\": {error}", field.text);
                    self.note(&template.place, message);
                }
            }
        }
    }

    fn routing(&mut self, entry: &TableText, out: &mut TableSettings) {
        let Some(column) = &entry.routing else { return };
        if column.text.is_empty() {
            self.note(&column.place, column.complain("is no column; leave routing out"));
        }
        out.routing = Some(column.text.clone());
    }

    fn field_name(&mut self, field: &Given) {
        let name = field.text.as_str();
        let complaint = if name.split('.').any(str::is_empty) {
            "is no field name: it is empty, or has a dot too many"
        } else if METADATA_FIELDS.contains(&name) {
            "is a field that the search cluster keeps for itself"
        } else {
            return;
        };
        self.note(&field.place, field.complain(complaint));
    }

    /// No two columns, renamed or computed, may be written to one field.
    fn fields(&mut self, entry: &TableText, out: &TableSettings) {
        let mut taken: BTreeMap<&str, String> = BTreeMap::new();
        if let ColumnChoice::Only(columns) = &out.columns {
            for column in columns.iter().filter(|column| !out.rename.contains_key(*column)) {
                taken.insert(column, format!("column \"{column}\""));
            }
        }
        let renamed = entry.rename.iter().map(|(column, field)| {
            (field.text.as_str(), &field.place, format!("column \"{}\"", column.text))
        });
        let computed = entry.computed.iter().map(|(field, _)| {
            (field.text.as_str(), &field.place, format!("computed field \"{}\"", field.text))
        });
        for (field, place, source) in renamed.chain(computed) {
            if let Some(other) = taken.get(field) {
                self.note(place, format!("field \"{field}\" is written by {other} too"));
            } else {
                taken.insert(field, source);
            }
        }
    }

    fn against_others(
        &mut self,
        entry: &TableText,
        table: &TableSettings,
        others: &[(Place, TableSettings)],
    ) {
        let place =
            entry.index.as_ref().or(entry.table.as_ref()).map_or(&entry.place, |g| &g.place);
        for (_, other) in others {
            let names = other.full_name();
            if (&other.schema, &other.table) == (&table.schema, &table.table) {
                self.note(place, format!("table \"{names}\" is listed twice"));
            } else if other.index == table.index {
                let message = format!(
                    "index \"{}\" is that of table \"{names}\" too; \
                     set \"index\" to another name in one of them",
                    table.index
                );
                self.note(place, message);
            } else if index_name::is_generation_of(&other.index, &table.index)
                || index_name::is_generation_of(&table.index, &other.index)
            {
                let message = format!(
                    "indices \"{}\" and \"{}\" would collide, since generations are named \
                     <index>-000001; set \"index\" to another name in one of them",
                    other.index, table.index
                );
                self.note(place, message);
            }
        }
    }
}
