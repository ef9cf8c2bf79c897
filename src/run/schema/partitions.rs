//! What happens to the partitions of a published root without any row in the stream.
//!
//! A partition that is detached, dropped or emptied by a TRUNCATE of its own takes its rows out of the table, and
//! one that is attached brings rows into it; of none of that the publication says anything. So the partitions
//! that a generation was made for are remembered in the state and compared each time the tables are planned.

use std::collections::BTreeMap;

use crate::elasticsearch::state::TableState;
use crate::postgres::PostgresError;
use crate::postgres::catalog::{self, Partition};
use crate::postgres::session::Session;
use crate::run::tables::PlannedTable;

/// Each partition with its file, by OID: another file of the same partition was truncated or rewritten.
pub(crate) type Files = BTreeMap<u32, u32>;

/// The files of these partitions.
pub(crate) fn files(partitions: &[Partition]) -> Files {
    partitions.iter().map(|partition| (partition.oid, partition.file)).collect()
}

/// Why index and table may differ since the state was written, as far as partitions are concerned.
///
/// # Errors
/// The session's.
pub(crate) async fn unseen(
    session: &Session,
    table: &PlannedTable,
    known: Option<&TableState>,
) -> Result<Option<&'static str>, PostgresError> {
    let source = known.and_then(|known| known.source.as_ref());
    let Some(before) = source.and_then(|source| source.partitions.as_ref()) else {
        return Ok(None);
    };
    let now = &table.published.partitions;
    let attached = newly_attached(before, now);
    let attached_rows = !attached.is_empty() && catalog::has_rows(session, &attached).await?;
    Ok(unstreamed(before, now, attached_rows))
}

/// The partitions whose rows no stream has brought, if they have any: those that were attached since, with all that
/// came with them.
fn newly_attached(before: &Files, now: &[Partition]) -> Vec<u32> {
    let is_new = |partition: &&Partition| !before.contains_key(&partition.oid);
    if !now.iter().filter(is_new).any(|partition| partition.is_attached) {
        return Vec::new();
    }
    now.iter().filter(is_new).map(|partition| partition.oid).collect()
}

/// Why index and table may differ, if what lies between the partitions before and those of now went by without
/// a row in the stream. A TRUNCATE of the root, which is streamed, gives all of them other files; a rewrite of
/// one, as by VACUUM FULL, cannot be told from a TRUNCATE of it. `attached_rows` is whether those of
/// [`newly_attached`] have any.
fn unstreamed(before: &Files, now: &[Partition], attached_rows: bool) -> Option<&'static str> {
    if before.keys().any(|oid| !now.iter().any(|partition| partition.oid == *oid)) {
        return Some("a partition was detached or dropped: orphans possible");
    }
    if attached_rows {
        return Some("a partition was attached: its rows may be missing");
    }
    let files =
        now.iter().filter_map(|partition| Some((partition.file, before.get(&partition.oid)?)));
    // One that has no file is partitioned itself.
    let files: Vec<bool> =
        files.filter(|(file, _)| *file != 0).map(|(file, was)| file == *was).collect();
    let (kept, others) = (files.contains(&true), files.contains(&false));
    (kept && others).then_some("a partition was truncated or rewritten: orphans possible")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(oid: u32, file: u32, is_attached: bool) -> Partition {
        Partition { oid, file, is_attached }
    }

    #[test]
    fn what_the_stream_tells_or_moves_no_row_is_no_reason() {
        let before =
            files(&[partition(1, 10, false), partition(2, 20, true), partition(3, 0, false)]);
        for now in [
            vec![partition(1, 10, false), partition(2, 20, true), partition(3, 0, false)],
            vec![partition(1, 11, false), partition(2, 21, true), partition(3, 0, false)],
            vec![
                partition(1, 10, false),
                partition(2, 20, true),
                partition(3, 0, false),
                partition(4, 40, false),
            ],
        ] {
            assert_eq!(unstreamed(&before, &now, false), None, "{now:?}");
            assert!(newly_attached(&before, &now).is_empty(), "{now:?}");
        }
        assert_eq!(unstreamed(&Files::new(), &[], false), None);
    }

    #[test]
    fn rows_that_came_or_went_unseen_are_a_reason() {
        let before = files(&[partition(1, 10, false), partition(2, 20, true)]);
        let of = |now: &[Partition]| unstreamed(&before, now, false).unwrap();
        assert!(of(&[partition(1, 10, false)]).contains("detached"));
        assert!(of(&[partition(1, 11, false), partition(2, 20, true)]).contains("truncated"));
        let attached = [partition(1, 10, false), partition(2, 20, true), partition(3, 30, true)];
        assert_eq!(newly_attached(&before, &attached), [3]);
        assert_eq!(newly_attached(&Files::new(), &attached), [1, 2, 3]);
        assert_eq!(unstreamed(&before, &attached, false), None);
        assert!(unstreamed(&before, &attached, true).unwrap().contains("attached"));
    }
}
