//! Where the rows of one relation go: its projection, compiled, and the index's write alias.

use super::{PipelineError, Reselect, Scratch};
use crate::document::Field;
use crate::document::json;
use crate::document::projection::{Projection, ProjectionError};
use crate::document::types::TypeRegistry;
use crate::pgoutput::relation::Relation;
use crate::pgoutput::tuple::Tuple;
use crate::settings::TableSettings;

/// What is known of a configured table before the stream describes it.
#[derive(Clone, Debug)]
pub struct TablePlan {
    /// Its configuration.
    pub settings: TableSettings,
    /// Columns of the document id, in key order.
    pub key: Vec<String>,
    /// Alias that every bulk names.
    pub write_alias: String,
}

pub(super) struct Target {
    table: String,
    relation: Relation,
    projection: Projection,
    write_alias: String,
    /// `"_index":"…","_id":` as it stands in every action line.
    key_prefix: Vec<u8>,
}

impl Target {
    pub(super) fn compile(
        relation: &Relation,
        plan: &TablePlan,
        types: &TypeRegistry,
    ) -> Result<Self, PipelineError> {
        let table = format!("{}.{}", relation.schema, relation.name);
        let projection = Projection::compile(relation, &plan.key, &plan.settings, types)
            .map_err(|source| PipelineError::Projection { table: table.clone(), source })?;
        let mut key_prefix = b"\"_index\":".to_vec();
        json::write_string(plan.write_alias.as_bytes(), &mut key_prefix);
        key_prefix.extend_from_slice(b",\"_id\":");
        Ok(Self {
            table,
            relation: relation.clone(),
            projection,
            write_alias: plan.write_alias.clone(),
            key_prefix,
        })
    }

    pub(super) fn write_alias(&self) -> &str {
        &self.write_alias
    }

    pub(super) fn uses(&self, column: usize) -> bool {
        self.projection.uses(column)
    }

    /// A tuple of another width than its relation means that one of the two was misread.
    pub(super) fn check_width(&self, tuple: &Tuple<'_>) -> Result<(), PipelineError> {
        let (expected, found) = (self.relation.columns.len(), tuple.len());
        if expected == found {
            return Ok(());
        }
        Err(self.unfit(ProjectionError::RowLength { expected, found }))
    }

    /// Renders the row's `"_index":…,"_id":…` into `scratch.key`.
    pub(super) fn write_key(
        &self,
        row: &[Field<'_>],
        scratch: &mut Scratch,
    ) -> Result<(), PipelineError> {
        scratch.id.clear();
        self.projection.write_id(row, &mut scratch.id).map_err(|error| self.unfit(error))?;
        scratch.key.clear();
        scratch.key.extend_from_slice(&self.key_prefix);
        json::write_string(&scratch.id, &mut scratch.key);
        Ok(())
    }

    /// Renders the row's document into `scratch.document`.
    pub(super) fn write_document(
        &self,
        row: &[Field<'_>],
        scratch: &mut Scratch,
    ) -> Result<(), PipelineError> {
        scratch.document.clear();
        let written = self.projection.write_document(row, &mut scratch.document);
        written.map_err(|error| self.unfit(error))
    }

    pub(super) fn reselect(
        &self,
        row: &[Field<'_>],
        missing: &[usize],
        xid: u32,
    ) -> Result<Reselect, PipelineError> {
        let name_of = |&column: &usize| self.relation.columns.get(column).map(|c| c.name.clone());
        let mut key = Vec::new();
        for &column in self.projection.key_columns() {
            match row.get(column) {
                Some(Field::Text(text)) => key.push(text.to_vec()),
                Some(Field::Null | Field::Absent) | None => {
                    return Err(PipelineError::Order("a row without its key"));
                }
            }
        }
        Ok(Reselect {
            relation: self.relation.clone(),
            key,
            columns: missing.iter().filter_map(name_of).collect(),
            xid,
        })
    }

    fn unfit(&self, source: ProjectionError) -> PipelineError {
        PipelineError::Projection { table: self.table.clone(), source }
    }
}
