//! What the stream has announced, by OID: whose rows are wanted, and what is not as it was planned.
//!
//! A table that no plan has is no reason to plan again by being announced alone: of a partition that is published as
//! its root, the server announces the root and then the partition itself, whose name no change ever bears, on every
//! connection and whenever its description of the partition has grown old.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::target::Target;
use super::{PipelineError, Plan, TablePlan};
use crate::lsn::Lsn;
use crate::pgoutput::relation::Relation;

enum Announced {
    Wanted(Target),
    /// Published, and not to be kept.
    Unwanted,
    /// To be kept, and not planned: its schema-qualified name.
    Unplanned(String),
}

/// The plan, and the announcements that met it.
pub(super) struct Relations {
    tables: HashMap<(String, String), Arc<TablePlan>>,
    planned_as_of: Lsn,
    takes_new_tables: bool,
    left_out: BTreeSet<u32>,
    announced: HashMap<u32, Announced>,
}

impl Relations {
    pub(super) fn new(plan: Plan) -> Self {
        let by_name = |table: TablePlan| {
            let relation = table.relation();
            ((relation.schema.clone(), relation.name.clone()), Arc::new(table))
        };
        Self {
            tables: plan.tables.into_iter().map(by_name).collect(),
            planned_as_of: plan.as_of,
            takes_new_tables: plan.takes_new_tables,
            left_out: plan.left_out,
            announced: HashMap::new(),
        }
    }

    /// Notes what the transaction that commits at `commit_lsn` announces; the name of a planned table that is not as
    /// it was planned.
    pub(super) fn announce(&mut self, relation: &Relation, commit_lsn: Lsn) -> Option<String> {
        let name = (relation.schema.clone(), relation.name.clone());
        // By its OID: in a backlog it may have another name, and another table its name.
        let plan = self.tables.iter().find(|(_, plan)| plan.relation().oid == relation.oid);
        let announced = match plan {
            Some((planned, plan)) => {
                let target = Target::new(Arc::clone(plan), relation);
                if commit_lsn > self.planned_as_of && !(target.is_as_planned() && *planned == name)
                {
                    return Some(relation.full_name());
                }
                Announced::Wanted(target)
            }
            None if self.left_out.contains(&relation.oid) => Announced::Unwanted,
            None if self.takes_new_tables || self.tables.contains_key(&name) => {
                Announced::Unplanned(relation.full_name())
            }
            None => Announced::Unwanted,
        };
        self.announced.insert(relation.oid, announced);
        None
    }

    /// Where the rows of a relation go, if they are wanted and planned.
    pub(super) fn target(&self, oid: u32) -> Result<Option<&Target>, PipelineError> {
        match self.announced.get(&oid).ok_or(PipelineError::UnknownRelation(oid))? {
            Announced::Wanted(target) => Ok(Some(target)),
            Announced::Unwanted | Announced::Unplanned(_) => Ok(None),
        }
    }

    /// The name of a table that must be planned before its changes in the transaction that commits at `commit_lsn`
    /// can be taken. An older transaction's are of a table that the plan has left out knowingly.
    pub(super) fn unplanned(&self, oid: u32, commit_lsn: Lsn) -> Option<String> {
        match self.announced.get(&oid) {
            Some(Announced::Unplanned(name)) if commit_lsn > self.planned_as_of => {
                Some(name.clone())
            }
            Some(Announced::Unplanned(_) | Announced::Wanted(_) | Announced::Unwanted) | None => {
                None
            }
        }
    }

    /// Prepares for the rows of a planned table, which come in its planned columns.
    pub(super) fn load(&mut self, relation: &Relation) -> Result<(), PipelineError> {
        let name = (relation.schema.clone(), relation.name.clone());
        let plan = self.tables.get(&name).ok_or(PipelineError::UnknownRelation(relation.oid))?;
        let target = Target::new(Arc::clone(plan), relation);
        self.announced.insert(relation.oid, Announced::Wanted(target));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchLimits, Epoch, Limits, Pipeline, Work};
    use super::*;
    use crate::document::types::TypeRegistry;
    use crate::settings::TableSettings;

    const ROOT: u32 = 10;
    const LEAVES: [u32; 2] = [11, 12];
    const LEFT_OUT: u32 = 13;
    const PLANNED_AS_OF: u64 = 100;

    fn relation(oid: u32, name: &str) -> Relation {
        Relation { oid, ..Relation::for_test(name, &[("id", 23)]) }
    }

    /// Of a publication whose tables are all to be kept: it had the root alone, published in its leaves' place.
    fn pipeline() -> Pipeline {
        let (root, settings) = (relation(ROOT, "p"), TableSettings::with_defaults("public", "p"));
        let (key, types) = (["id".to_owned()], TypeRegistry::builtin());
        let table = TablePlan::new(root, &key, &settings, &types, "p-write".to_owned()).unwrap();
        let as_of = Lsn::new(PLANNED_AS_OF);
        let left_out = BTreeSet::from([LEFT_OUT]);
        let plan = Plan { tables: vec![table], as_of, takes_new_tables: true, left_out };
        let batch = BatchLimits { documents_max: 9, bytes_max: 9999, pace_ms: 0 };
        Pipeline::new(plan, Epoch(0), Limits { lanes: 1, batch, memory_budget_bytes: 9999 })
    }

    /// Of an XLogData with these parts as payload.
    fn push(pipeline: &mut Pipeline, parts: &[&[u8]]) -> Option<Work> {
        let frame = [b"w".as_slice(), &[0; 24], &parts.concat()].concat();
        pipeline.push_frame(&frame).unwrap()
    }

    fn begin(pipeline: &mut Pipeline, commit_lsn: u64) {
        let begun = push(pipeline, &[b"B", &commit_lsn.to_be_bytes(), &[0; 8], &[0, 0, 0, 7]]);
        assert!(begun.is_none());
    }

    fn commit(pipeline: &mut Pipeline, commit_lsn: u64) {
        let (lsn, end) = (commit_lsn.to_be_bytes(), (commit_lsn + 1).to_be_bytes());
        assert!(push(pipeline, &[b"C\0", &lsn, &end, &[0; 8]]).is_none());
    }

    fn announce(pipeline: &mut Pipeline, oid: u32, name: &str) -> Option<Work> {
        let column = b"d\0\x01\0id\0\0\0\0\x17\xff\xff\xff\xff";
        push(pipeline, &[b"R", &oid.to_be_bytes(), b"public\0", name.as_bytes(), b"\0", column])
    }

    fn insert(pipeline: &mut Pipeline, oid: u32) -> Option<Work> {
        push(pipeline, &[b"I", &oid.to_be_bytes(), b"N\0\x01t\0\0\0\x015"])
    }

    #[test]
    fn a_partition_that_is_announced_beside_its_root_is_no_new_table() {
        let mut pipeline = pipeline();
        for (place, leaf) in (1..).zip(LEAVES) {
            begin(&mut pipeline, PLANNED_AS_OF + place);
            assert!(announce(&mut pipeline, ROOT, "p").is_none());
            assert!(announce(&mut pipeline, leaf, &format!("p_{leaf}")).is_none());
            assert!(insert(&mut pipeline, ROOT).is_none());
            commit(&mut pipeline, PLANNED_AS_OF + place);
        }
        assert_eq!(pipeline.counters().rows, 2);
    }

    #[test]
    fn a_table_that_is_not_planned_is_planned_once_something_changes_in_it() {
        let truncate = [b"T\0\0\0\x01\0", LEAVES[0].to_be_bytes().as_slice()].concat();
        let change = |pipeline: &mut Pipeline, truncates: bool| match truncates {
            true => push(pipeline, &[&truncate]),
            false => insert(pipeline, LEAVES[0]),
        };
        for truncates in [false, true] {
            let mut pipeline = pipeline();
            begin(&mut pipeline, PLANNED_AS_OF);
            assert!(announce(&mut pipeline, LEAVES[0], "t").is_none());
            assert!(change(&mut pipeline, truncates).is_none(), "the plan was made after that");
            commit(&mut pipeline, PLANNED_AS_OF);
            begin(&mut pipeline, PLANNED_AS_OF + 1);
            let work = change(&mut pipeline, truncates);
            assert!(matches!(work, Some(Work::Replan(name)) if name == "public.t"));
            assert!(!pipeline.wants_frame());
        }
    }

    #[test]
    fn a_table_that_was_left_out_is_passed_over() {
        let mut pipeline = pipeline();
        begin(&mut pipeline, PLANNED_AS_OF + 1);
        assert!(announce(&mut pipeline, LEFT_OUT, "keyless").is_none());
        assert!(insert(&mut pipeline, LEFT_OUT).is_none());
        commit(&mut pipeline, PLANNED_AS_OF + 1);
        assert_eq!(pipeline.counters().rows, 0);
    }
}
