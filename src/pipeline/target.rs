//! Where the rows of one relation go: the plan made for its table, and how the stream's rows fit it.

use std::sync::Arc;

use super::layout::Layout;
use super::row;
use super::{OpenTransaction, PipelineError, Reselect, Scratch};
use crate::bulk::write::write_routing;
use crate::document::Field;
use crate::document::id;
use crate::document::json;
use crate::document::projection::{Projection, ProjectionError};
use crate::document::types::TypeRegistry;
use crate::lsn::Lsn;
use crate::pgoutput::message::OldTuple;
use crate::pgoutput::relation::{Column, Relation, ReplicaIdentity};
use crate::pgoutput::tuple::Tuple;
use crate::settings::TableSettings;
use crate::visibility::Snapshot;

/// What is planned for a table: its columns as the catalog had them, and where its documents go.
#[derive(Clone, Debug)]
pub struct TablePlan {
    relation: Relation,
    projection: Projection,
    write_alias: String,
    /// `"_index":"…","_id":` as it stands in every action line.
    name_prefix: Vec<u8>,
    /// What the load of this generation has seen for certain, and the position at its end.
    loaded: Option<(Snapshot, Lsn)>,
}

impl TablePlan {
    /// Plans the documents of `relation`; `key` are the columns of their id, in key order, `write_alias` what
    /// every bulk names.
    ///
    /// # Errors
    /// The configuration does not fit the table.
    pub fn new(
        relation: Relation,
        key: &[String],
        settings: &TableSettings,
        types: &TypeRegistry,
        write_alias: String,
    ) -> Result<Self, PipelineError> {
        let projection = Projection::compile(&relation, key, settings, types)
            .map_err(|source| PipelineError::Projection { table: relation.full_name(), source })?;
        let mut name_prefix = b"\"_index\":".to_vec();
        json::write_string(write_alias.as_bytes(), &mut name_prefix);
        name_prefix.extend_from_slice(b",\"_id\":");
        Ok(Self { relation, projection, write_alias, name_prefix, loaded: None })
    }

    /// The same, for a generation whose load began with `snapshot` and ended at `end`: a transaction that the
    /// snapshot shows is in every row that was loaded. The stream's copy of it is skipped, since it may
    /// describe the table as it was before its columns were changed.
    #[must_use]
    pub fn loaded_since(mut self, snapshot: Snapshot, end: Lsn) -> Self {
        self.loaded = Some((snapshot, end));
        self
    }

    pub(super) fn relation(&self) -> &Relation {
        &self.relation
    }
}

/// A plan met by a Relation message.
pub(super) struct Target {
    plan: Arc<TablePlan>,
    layout: Layout,
    is_as_planned: bool,
    /// Columns of the stream's tuples.
    streamed_columns: usize,
    /// Whether an update that comes without its old row has left the row's routing as it was.
    tells_routing: bool,
}

impl Target {
    pub(super) fn new(plan: Arc<TablePlan>, streamed: &Relation) -> Self {
        let layout = Layout::between(streamed, &plan.relation);
        // Another table may have the name; and a key that moved to other columns shows in the identity alone.
        let identity = |relation: &Relation| -> Vec<bool> {
            relation.columns.iter().map(|column| column.in_identity).collect()
        };
        let is_as_planned = layout.is_identical()
            && plan.relation.oid == streamed.oid
            && identity(&plan.relation) == identity(streamed);
        // Of a whole old row nothing can be left out, and of one without the column nothing is said.
        let tells_routing = plan.projection.routing_column().is_none_or(|column| {
            let name = plan.relation.columns.get(column).map(|column| &column.name);
            let is_it = |streamed: &Column| Some(&streamed.name) == name && streamed.in_identity;
            streamed.identity != ReplicaIdentity::Full && streamed.columns.iter().any(is_it)
        });
        let streamed_columns = streamed.columns.len();
        Self { plan, layout, is_as_planned, streamed_columns, tells_routing }
    }

    /// Whether the stream describes the table as it was planned.
    pub(super) fn is_as_planned(&self) -> bool {
        self.is_as_planned
    }

    pub(super) fn write_alias(&self) -> &str {
        &self.plan.write_alias
    }

    /// Whether the load of the generation holds this transaction already. Beyond its end none is asked about:
    /// by then the 32 bits of a transaction's id may stand for another one.
    pub(super) fn holds(&self, transaction: OpenTransaction) -> bool {
        self.plan.loaded.as_ref().is_some_and(|(snapshot, end)| {
            transaction.commit_lsn <= *end && snapshot.sees(transaction.xid)
        })
    }

    /// Whether the document or its id needs a column of the stream.
    pub(super) fn uses(&self, streamed: usize) -> bool {
        self.layout.planned(streamed).is_some_and(|column| self.plan.projection.uses(column))
    }

    /// A row of the stream in the planned columns, and which of those it lacks: `missing` of the stream, and
    /// those the stream does not have.
    pub(super) fn arrange<'a>(
        &self,
        row: Vec<Field<'a>>,
        missing: Vec<usize>,
    ) -> (Vec<Field<'a>>, Vec<usize>) {
        if self.layout.is_identical() {
            return (row, missing);
        }
        let sent = missing.into_iter().filter_map(|column| self.layout.planned(column));
        let unsent = self.layout.unstreamed().filter(|&column| self.plan.projection.uses(column));
        (self.layout.arrange(row), sent.chain(unsent).collect())
    }

    /// A tuple of another width than its relation means that one of the two was misread.
    pub(super) fn check_width(&self, tuple: &Tuple<'_>) -> Result<(), PipelineError> {
        let (expected, found) = (self.streamed_columns, tuple.len());
        if expected == found {
            return Ok(());
        }
        Err(self.unfit(ProjectionError::RowLength { expected, found }))
    }

    /// An update came without its old row.
    pub(super) fn check_routing_is_kept(&self) -> Result<(), PipelineError> {
        if self.tells_routing {
            return Ok(());
        }
        let routing = self.plan.projection.routing(&[]);
        routing.map(drop).map_err(|error| self.unfit(error))
    }

    /// Renders the row's `"_index":…,"_id":…` into `scratch.name`, and its routing into `scratch.routing`.
    pub(super) fn write_name(
        &self,
        row: &[Field<'_>],
        scratch: &mut Scratch,
    ) -> Result<(), PipelineError> {
        scratch.id.clear();
        self.plan.projection.write_id(row, &mut scratch.id).map_err(|error| self.unfit(error))?;
        scratch.name.clear();
        scratch.name.extend_from_slice(&self.plan.name_prefix);
        json::write_string(&scratch.id, &mut scratch.name);
        scratch.routing.clear();
        let routing = self.plan.projection.routing(row).map_err(|error| self.unfit(error))?;
        if let Some(column) = routing {
            scratch.id.clear();
            id::write_routing(column, &mut scratch.id);
            write_routing(&scratch.id, &mut scratch.routing);
        }
        Ok(())
    }

    /// The same of an old row, as the stream has it.
    pub(super) fn write_old_name(
        &self,
        old: &OldTuple<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), PipelineError> {
        self.check_width(old.tuple())?;
        let row = self.layout.arrange(row::old_row(old)?);
        self.write_name(&row, scratch)
    }

    /// Renders the row's document into `scratch.document`.
    pub(super) fn write_document(
        &self,
        row: &[Field<'_>],
        scratch: &mut Scratch,
    ) -> Result<(), PipelineError> {
        scratch.document.clear();
        let written = self.plan.projection.write_document(row, &mut scratch.document);
        written.map_err(|error| self.unfit(error))
    }

    pub(super) fn reselect(
        &self,
        row: &[Field<'_>],
        missing: &[usize],
        xid: u32,
    ) -> Result<Reselect, PipelineError> {
        let relation = &self.plan.relation;
        let name_of = |&column: &usize| relation.columns.get(column).map(|c| c.name.clone());
        let mut key = Vec::new();
        for &column in self.plan.projection.key_columns() {
            match row.get(column) {
                Some(Field::Text(text)) => key.push(text.to_vec()),
                Some(Field::Null | Field::Absent) | None => {
                    let name = name_of(&column).unwrap_or_default();
                    return Err(self.unfit(ProjectionError::KeyMissing(name)));
                }
            }
        }
        Ok(Reselect {
            relation: relation.clone(),
            key,
            columns: missing.iter().filter_map(name_of).collect(),
            xid,
        })
    }

    fn unfit(&self, source: ProjectionError) -> PipelineError {
        PipelineError::Projection { table: self.plan.relation.full_name(), source }
    }
}
