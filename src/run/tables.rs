//! Which tables are kept in which indices: the configuration matched with the publication.

use std::collections::BTreeMap;

use serde_json::Value;

use super::schema::FieldSource;
use crate::config::index_name;
use crate::document::mapping::{derived_mapping, index_body};
use crate::document::projection::{FieldKind, Projection};
use crate::document::template::template_of;
use crate::document::types::TypeRegistry;
use crate::elasticsearch::index::write_alias;
use crate::elasticsearch::lease::Term;
use crate::error::Error;
use crate::lsn::Lsn;
use crate::pgoutput::relation::Relation;
use crate::pipeline::{PipelineError, TablePlan};
use crate::postgres::catalog::{self, PublishedTable};
use crate::postgres::session::Session;
use crate::settings::{Settings, TableSettings};

use super::newcomers::{LeftOut, Newcomers, problem_of};

/// One table, as published and as configured.
#[derive(Clone, Debug)]
pub struct PlannedTable {
    /// As the catalog describes it.
    pub published: PublishedTable,
    /// As configured, or with every default.
    pub settings: TableSettings,
    /// Settings and mappings of its index.
    pub index_body: Value,
    /// The derived mapping of each field, as JSON.
    pub fields: BTreeMap<String, String>,
    /// Where each field comes from.
    pub sources: BTreeMap<String, FieldSource>,
}

impl PlannedTable {
    /// Schema-qualified name, as the state document has it.
    pub fn name(&self) -> String {
        self.settings.full_name()
    }

    /// The columns of the document id, in key order.
    pub(crate) fn key(&self) -> Vec<String> {
        self.published.key.iter().map(|column| column.name.clone()).collect()
    }

    /// What the pipeline needs to know, to write into a generation.
    pub(crate) fn plan(
        &self,
        generation: u32,
        types: &TypeRegistry,
    ) -> Result<TablePlan, PipelineError> {
        let write_alias = write_alias(&self.settings.index, generation);
        let relation = self.published.relation.clone();
        TablePlan::new(relation, &self.key(), &self.settings, types, write_alias)
    }
}

/// The tables to keep, and the types of their columns.
#[derive(Debug)]
pub struct Plan {
    /// In the publication's order.
    pub tables: Vec<PlannedTable>,
    /// Everything the catalog says of their columns' types.
    pub types: TypeRegistry,
    /// The catalog was read after everything up to here was committed.
    pub as_of: Lsn,
    /// Whether every table of the publication is wanted.
    pub takes_new_tables: bool,
    /// Those that are wanted, too, and cannot be kept.
    pub left_out: Vec<LeftOut>,
}

/// Matches the publication's tables with the configuration. Preflight has found every configured table.
///
/// # Errors
/// A table that cannot be projected or indexed as configured, unless it may be left out; the catalog's.
pub async fn plan(
    session: &Session,
    settings: &Settings,
    newcomers: &Newcomers,
) -> Result<Plan, Error> {
    let term = Term::of(settings.elasticsearch.request_timeout);
    let as_of = catalog::flush_lsn(session).await?;
    let published = catalog::published_tables(session, &settings.postgres.publication).await?;
    let types = learn_types(session, &published).await?;
    let (mut tables, mut left_out) = (Vec::new(), Vec::new());
    for table in published {
        let Some(configured) = configured(settings, &table) else { continue };
        let name = configured.full_name();
        if let Some(problem) = newcomers.unfit(&name) {
            left_out.push(LeftOut { published: table, problem: problem.clone() });
            continue;
        }
        match planned(table.clone(), configured, &types, term) {
            Ok(planned) => tables.push(planned),
            Err(error) if newcomers.may_leave(&name) => {
                left_out.push(LeftOut { published: table, problem: problem_of(error)? });
            }
            Err(error) => return Err(error),
        }
    }
    let tables = with_indices_of_their_own(tables, newcomers, &mut left_out)?;
    Ok(Plan { tables, types, as_of, takes_new_tables: settings.tables.is_empty(), left_out })
}

async fn learn_types(
    session: &Session,
    published: &[PublishedTable],
) -> Result<TypeRegistry, Error> {
    let mut types = TypeRegistry::builtin();
    let columns = published.iter().flat_map(|table| &table.relation.columns);
    let unknown: Vec<u32> =
        columns.map(|column| column.type_oid).filter(|&oid| !types.knows(oid)).collect();
    if !unknown.is_empty() {
        let facts = catalog::type_facts(session, &unknown).await?;
        types.learn(&facts, &unknown);
    }
    Ok(types)
}

fn configured(settings: &Settings, table: &PublishedTable) -> Option<TableSettings> {
    let (schema, name) = (&table.relation.schema, &table.relation.name);
    if settings.tables.is_empty() {
        return Some(TableSettings::with_defaults(schema, name));
    }
    let same =
        |configured: &&TableSettings| &configured.schema == schema && &configured.table == name;
    settings.tables.iter().find(same).cloned()
}

fn planned(
    published: PublishedTable,
    settings: TableSettings,
    types: &TypeRegistry,
    term: Term,
) -> Result<PlannedTable, Error> {
    let name = settings.full_name();
    let unfit = |what: String| Error::Configuration {
        what,
        fix: format!("correct the entry of {name} under tables"),
    };
    if let Err(reason) = index_name::validate(&settings.index) {
        return Err(Error::Configuration {
            what: format!("table \"{name}\": \"{}\" is no index name: {reason}", settings.index),
            fix: format!("set tables[].index for {name}"),
        });
    }
    let key: Vec<String> = published.key.iter().map(|column| column.name.clone()).collect();
    let projection = Projection::compile(&published.relation, &key, &settings, types)
        .map_err(|error| unfit(format!("table \"{name}\": {error}")))?;
    let index_body = index_body(&projection, &settings, term.tombstones_min())
        .map_err(|error| unfit(format!("table \"{name}\": {error}")))?;
    let fields = projection.fields().map(|(name, kind)| (name.to_owned(), derived_mapping(kind)));
    let fields = fields.collect();
    let sources = sources(&projection, &published.relation, &settings);
    Ok(PlannedTable { published, settings, index_body, fields, sources })
}

fn sources(
    projection: &Projection,
    relation: &Relation,
    settings: &TableSettings,
) -> BTreeMap<String, FieldSource> {
    let source = |(name, kind): (&str, FieldKind<'_>)| {
        let source = match kind {
            FieldKind::Column { column, .. } => {
                FieldSource::Column(relation.columns.get(column)?.name.clone())
            }
            FieldKind::Computed => FieldSource::Computed(template_of(settings.computed.get(name)?)),
        };
        Some((name.to_owned(), source))
    };
    projection.fields().filter_map(source).collect()
}

/// Two tables cannot share an index; of those that do, the one that is kept already goes first.
fn with_indices_of_their_own(
    tables: Vec<PlannedTable>,
    newcomers: &Newcomers,
    left_out: &mut Vec<LeftOut>,
) -> Result<Vec<PlannedTable>, Error> {
    let mut by_index: BTreeMap<String, String> = BTreeMap::new();
    let (new, kept): (Vec<_>, Vec<_>) =
        tables.into_iter().partition(|table| newcomers.may_leave(&table.name()));
    let mut owners = Vec::new();
    for table in kept.into_iter().chain(new) {
        let (index, name) = (table.settings.index.clone(), table.name());
        match by_index.get(&index) {
            None => {
                by_index.insert(index, name);
                owners.push(table);
            }
            Some(other) => {
                let shared = shared_index(other, &name, &index);
                if !newcomers.may_leave(&name) {
                    return Err(shared);
                }
                left_out.push(LeftOut { published: table.published, problem: problem_of(shared)? });
            }
        }
    }
    let place =
        |table: &PlannedTable| (table.settings.schema.clone(), table.settings.table.clone());
    owners.sort_by_key(place);
    Ok(owners)
}

fn shared_index(first: &str, second: &str, index: &str) -> Error {
    Error::Configuration {
        what: format!("tables \"{first}\" and \"{second}\" would share the index \"{index}\""),
        fix: format!("set tables[].index for {second}"),
    }
}
