//! A relation and its table's configuration, compiled into the steps that write a document.
//!
//! Compiled again for each new Relation message; per row it only copies prefixes and writes values.

use std::collections::BTreeMap;

use super::Field;
use super::id;
use super::json::{append_escaped, write_string};
use super::types::{Kind, TypeRegistry};
use super::value::write_value;
use crate::pgoutput::relation::Relation;
use crate::settings::{ColumnChoice, TableSettings, TemplatePart};

/// Names that Elasticsearch keeps for itself at the top of a document. A column of such a name becomes a
/// field with `pg` before it: `_id` → `pg_id`.
const RESERVED_NAMES: [&str; 13] = [
    "_id",
    "_index",
    "_type",
    "_source",
    "_size",
    "_doc_count",
    "_field_names",
    "_ignored",
    "_routing",
    "_meta",
    "_tier",
    "_version",
    "_seq_no",
];

/// The configuration does not fit the table, or a row does not fit the relation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProjectionError {
    /// A column that is named and not there.
    #[error("{place} names column \"{column}\", which is not published")]
    NoSuchColumn {
        /// Where it is named.
        place: &'static str,
        /// Its name.
        column: String,
    },
    /// Nothing identifies a row.
    #[error("the table has no key to make document ids from")]
    NoKey,
    /// Two sources of one field.
    #[error("two columns or computed fields are called \"{0}\"; rename one")]
    SameName(String),
    /// `a` and `a.b`: Elasticsearch reads a dot as an object's field.
    #[error(
        "field \"{outer}\" cannot be a value and, for \"{inner}\", an object as well; rename one"
    )]
    NameInside {
        /// The shorter name.
        outer: String,
        /// The longer name.
        inner: String,
    },
    /// Empty, or with an empty part.
    #[error("\"{0}\" is no field name for Elasticsearch; rename the column")]
    BadName(String),
    /// A tuple of another length than the relation.
    #[error("a row has {found} columns, its relation {expected}")]
    RowLength {
        /// Of the relation.
        expected: usize,
        /// Of the row.
        found: usize,
    },
    /// The identity did not carry a column of the key.
    #[error(
        "a change came without key column \"{0}\"; the document id needs the primary key or the identity's index"
    )]
    KeyMissing(String),
    /// Nobody can tell where the document is, or is to go.
    #[error(
        "a change came without a value of \"{0}\", by which the documents are routed: one would be left behind; \
         the column must be NOT NULL and in the replica identity"
    )]
    RoutingMissing(String),
}

/// How one field of the document comes about, in the document's order.
#[derive(Clone, Debug)]
struct Step {
    name: String,
    /// `"name":`, escaped.
    prefix: Vec<u8>,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Column { column: usize, kind: Kind },
    Computed(Vec<Part>),
}

#[derive(Clone, Debug)]
enum Part {
    /// Escaped for the inside of a JSON string.
    Literal(Vec<u8>),
    Column(usize),
}

/// What a field is made of, for its mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind<'a> {
    /// One column's value.
    Column {
        /// Its place in the relation.
        column: usize,
        /// Of its type.
        kind: &'a Kind,
    },
    /// A template's text.
    Computed,
}

/// The compiled projection of one relation.
#[derive(Clone, Debug)]
pub struct Projection {
    steps: Vec<Step>,
    key: Vec<usize>,
    key_names: Vec<String>,
    /// The column that documents are routed by.
    routing: Option<(usize, String)>,
    /// By column: whether the document, its id or its routing needs it.
    used: Vec<bool>,
}

impl Projection {
    /// Compiles the projection of `relation`; `key` are the columns of the document id, in key order.
    ///
    /// # Errors
    /// The configuration names what is not there, or fields that cannot stand side by side.
    pub fn compile(
        relation: &Relation,
        key: &[String],
        table: &TableSettings,
        types: &TypeRegistry,
    ) -> Result<Self, ProjectionError> {
        let find = |place, name: &str| {
            let found = relation.columns.iter().position(|column| column.name == name);
            found.ok_or_else(|| ProjectionError::NoSuchColumn { place, column: name.to_owned() })
        };
        if key.is_empty() {
            return Err(ProjectionError::NoKey);
        }
        let key_columns =
            key.iter().map(|name| find("the key", name)).collect::<Result<Vec<_>, _>>()?;
        for name in table.rename.keys() {
            find("rename", name)?;
        }
        let mut steps = Vec::new();
        for (column, described) in relation.columns.iter().enumerate() {
            if is_chosen(&table.columns, &described.name) {
                let name = field_name(&described.name, table);
                let kind = types.kind(described.type_oid);
                steps.push(Step::new(name, Source::Column { column, kind }));
            }
        }
        match &table.columns {
            ColumnChoice::All => {}
            ColumnChoice::Only(names) | ColumnChoice::Except(names) => {
                for name in names {
                    find("columns or exclude", name)?;
                }
            }
        }
        for (name, template) in &table.computed {
            let parts = template.iter().map(|part| compile_part(part, find));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            steps.push(Step::new(name.clone(), Source::Computed(parts)));
        }
        refuse_clashes(&steps)?;
        let routed_by = |name: &String| Ok((find("routing", name)?, name.clone()));
        let routing = table.routing.as_ref().map(routed_by).transpose()?;
        let of_routing = routing.iter().map(|(column, _)| *column);
        let needed: Vec<usize> = key_columns.iter().copied().chain(of_routing).collect();
        let used = used_columns(relation.columns.len(), &needed, &steps);
        Ok(Self { steps, key: key_columns, key_names: key.to_vec(), routing, used })
    }

    /// Whether the document, its id or its routing needs the column.
    pub fn uses(&self, column: usize) -> bool {
        self.used.get(column).copied().unwrap_or(false)
    }

    /// Columns of the document id, in key order.
    pub fn key_columns(&self) -> &[usize] {
        &self.key
    }

    /// The column that documents are routed by.
    pub fn routing_column(&self) -> Option<usize> {
        self.routing.as_ref().map(|(column, _)| *column)
    }

    /// The fields of a document, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, FieldKind<'_>)> {
        self.steps.iter().map(|step| {
            let kind = match &step.source {
                Source::Column { column, kind } => FieldKind::Column { column: *column, kind },
                Source::Computed(_) => FieldKind::Computed,
            };
            (step.name.as_str(), kind)
        })
    }

    /// Appends the row's document id, as raw bytes, to `out`, which must be empty.
    ///
    /// # Errors
    /// The row does not carry the whole key.
    pub fn write_id(&self, row: &[Field<'_>], out: &mut Vec<u8>) -> Result<(), ProjectionError> {
        let part = |column: &usize| match row.get(*column) {
            Some(Field::Text(text)) => Some(*text),
            Some(Field::Null | Field::Absent) | None => None,
        };
        if let Some(missing) = self.key.iter().position(|column| part(column).is_none()) {
            let name = self.key_names.get(missing).cloned().unwrap_or_default();
            return Err(ProjectionError::KeyMissing(name));
        }
        id::write_id(self.key.iter().map(|column| part(column).unwrap_or_default()), out);
        Ok(())
    }

    /// The text of the column that the row is routed by; none where documents are not routed. A routing is made
    /// of it by [`id::write_routing`].
    ///
    /// # Errors
    /// The row does not carry it: one without would be refused, or be another document.
    pub fn routing<'a>(&self, row: &[Field<'a>]) -> Result<Option<&'a [u8]>, ProjectionError> {
        let Some((column, name)) = &self.routing else { return Ok(None) };
        match row.get(*column) {
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(Field::Null | Field::Absent) | None => {
                Err(ProjectionError::RoutingMissing(name.clone()))
            }
        }
    }

    /// Appends the row's document to `out`, as one line of JSON without its newline. A NULL is `null`; an
    /// absent column leaves its field out.
    ///
    /// # Errors
    /// The row has another length than the relation.
    pub fn write_document(
        &self,
        row: &[Field<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), ProjectionError> {
        if row.len() != self.used.len() {
            return Err(ProjectionError::RowLength { expected: self.used.len(), found: row.len() });
        }
        out.push(b'{');
        let empty = out.len();
        for step in &self.steps {
            let start = out.len();
            if start > empty {
                out.push(b',');
            }
            out.extend_from_slice(&step.prefix);
            if !step.source.write(row, out) {
                out.truncate(start);
            }
        }
        out.push(b'}');
        Ok(())
    }
}

impl Step {
    fn new(name: String, source: Source) -> Self {
        let mut prefix = Vec::new();
        write_string(name.as_bytes(), &mut prefix);
        prefix.push(b':');
        Self { name, prefix, source }
    }
}

impl Source {
    /// Appends the value; `false` if there is none to write.
    fn write(&self, row: &[Field<'_>], out: &mut Vec<u8>) -> bool {
        match self {
            Self::Column { column, kind } => match row.get(*column) {
                Some(Field::Text(text)) => write_value(kind, text, out),
                Some(Field::Null) => out.extend_from_slice(b"null"),
                Some(Field::Absent) | None => return false,
            },
            Self::Computed(parts) => return write_computed(parts, row, out),
        }
        true
    }
}

/// A NULL adds nothing; a text all of whose columns are NULL is null.
fn write_computed(parts: &[Part], row: &[Field<'_>], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut has_text = false;
    out.push(b'"');
    for part in parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text),
            Part::Column(column) => match row.get(*column) {
                Some(Field::Text(text)) => {
                    has_text = true;
                    append_escaped(text, out);
                }
                Some(Field::Null) => {}
                Some(Field::Absent) | None => return false,
            },
        }
    }
    out.push(b'"');
    if !has_text {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
    true
}

fn is_chosen(choice: &ColumnChoice, name: &str) -> bool {
    let named = |names: &[String]| names.iter().any(|other| other == name);
    match choice {
        ColumnChoice::All => true,
        ColumnChoice::Only(names) => named(names),
        ColumnChoice::Except(names) => !named(names),
    }
}

fn field_name(column: &str, table: &TableSettings) -> String {
    match table.rename.get(column) {
        Some(name) => name.clone(),
        None if RESERVED_NAMES.contains(&column) => format!("pg{column}"),
        None => column.to_owned(),
    }
}

fn compile_part(
    part: &TemplatePart,
    find: impl Fn(&'static str, &str) -> Result<usize, ProjectionError>,
) -> Result<Part, ProjectionError> {
    match part {
        TemplatePart::Literal(text) => {
            let mut escaped = Vec::new();
            append_escaped(text.as_bytes(), &mut escaped);
            Ok(Part::Literal(escaped))
        }
        TemplatePart::Column(name) => find("a computed field", name).map(Part::Column),
    }
}

fn refuse_clashes(steps: &[Step]) -> Result<(), ProjectionError> {
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    for step in steps {
        let name = step.name.as_str();
        let is_reserved = RESERVED_NAMES.contains(&name);
        if is_reserved || name.trim().is_empty() || name.split('.').any(str::is_empty) {
            return Err(ProjectionError::BadName(name.to_owned()));
        }
        if seen.insert(name, ()).is_some() {
            return Err(ProjectionError::SameName(name.to_owned()));
        }
    }
    for (inner, ()) in &seen {
        let outer = inner.match_indices('.').filter_map(|(at, _)| inner.get(..at));
        if let Some(outer) = outer.into_iter().find(|outer| seen.contains_key(outer)) {
            let (outer, inner) = (outer.to_owned(), (*inner).to_owned());
            return Err(ProjectionError::NameInside { outer, inner });
        }
    }
    Ok(())
}

fn used_columns(columns: usize, needed: &[usize], steps: &[Step]) -> Vec<bool> {
    let mut used = vec![false; columns];
    let mut mark = |column: usize| {
        if let Some(used) = used.get_mut(column) {
            *used = true;
        }
    };
    needed.iter().copied().for_each(&mut mark);
    for step in steps {
        match &step.source {
            Source::Column { column, .. } => mark(*column),
            Source::Computed(parts) => {
                for part in parts {
                    if let Part::Column(column) = part {
                        mark(*column);
                    }
                }
            }
        }
    }
    used
}

#[cfg(test)]
mod tests;
