//! How the rows of a Relation message lie in the columns that were planned.
//!
//! The plan is made from the catalog, which is as new as the newest change or newer; while the stream catches
//! up it can still describe a table as it was before an ALTER. Its rows are then brought into the planned
//! columns: by name and type, because a renamed or retyped column is another one.

use crate::document::Field;
use crate::pgoutput::relation::Relation;

/// Where each planned column stands in the stream's tuples.
pub(super) struct Layout {
    /// None where the stream has no such column.
    streamed_at: Vec<Option<usize>>,
    is_identical: bool,
}

impl Layout {
    pub(super) fn between(streamed: &Relation, planned: &Relation) -> Self {
        let streamed_at: Vec<Option<usize>> = planned
            .columns
            .iter()
            .map(|wanted| {
                streamed.columns.iter().position(|column| {
                    column.name == wanted.name && column.type_oid == wanted.type_oid
                })
            })
            .collect();
        let in_place = |(at, found): (usize, &Option<usize>)| *found == Some(at);
        let is_identical = streamed.columns.len() == planned.columns.len()
            && streamed_at.iter().enumerate().all(in_place);
        Self { streamed_at, is_identical }
    }

    /// Whether the stream's columns are the planned ones, in the same order.
    pub(super) fn is_identical(&self) -> bool {
        self.is_identical
    }

    /// The planned column that a streamed one is.
    pub(super) fn planned(&self, streamed: usize) -> Option<usize> {
        if self.is_identical {
            return Some(streamed);
        }
        self.streamed_at.iter().position(|at| *at == Some(streamed))
    }

    /// Planned columns that the stream does not have.
    pub(super) fn unstreamed(&self) -> impl Iterator<Item = usize> {
        self.streamed_at.iter().enumerate().filter(|(_, at)| at.is_none()).map(|(place, _)| place)
    }

    /// A streamed row in the planned order; what the stream does not have is absent.
    pub(super) fn arrange<'a>(&self, row: Vec<Field<'a>>) -> Vec<Field<'a>> {
        if self.is_identical {
            return row;
        }
        let field =
            |at: &Option<usize>| at.and_then(|at| row.get(at).copied()).unwrap_or(Field::Absent);
        self.streamed_at.iter().map(field).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(columns: &[(&str, u32)]) -> Relation {
        Relation::for_test("t", columns)
    }

    fn texts<'a>(row: &[Field<'a>]) -> Vec<Option<&'a [u8]>> {
        let text = |field: &Field<'a>| match field {
            Field::Text(text) => Some(*text),
            Field::Null | Field::Absent => None,
        };
        row.iter().map(text).collect()
    }

    #[test]
    fn the_same_columns_pass_as_they_are() {
        let now = relation(&[("id", 20), ("v", 25)]);
        let layout = Layout::between(&now, &now);
        assert!(layout.is_identical() && layout.unstreamed().count() == 0);
        assert_eq!(layout.planned(1), Some(1));
    }

    #[test]
    fn rows_from_before_an_alter_find_their_columns() {
        let before = relation(&[("id", 20), ("gone", 25), ("n", 23), ("v", 25)]);
        let now = relation(&[("id", 20), ("n", 20), ("v", 25), ("added", 25)]);
        let layout = Layout::between(&before, &now);
        assert!(!layout.is_identical());
        assert_eq!(layout.unstreamed().collect::<Vec<_>>(), [1, 3], "n has another type");
        assert_eq!((layout.planned(1), layout.planned(3)), (None, Some(2)));
        let row = [b"7", b"g", b"1", b"v"].map(|text| Field::Text(text)).to_vec();
        let arranged = layout.arrange(row);
        assert_eq!(texts(&arranged), [Some(b"7".as_slice()), None, Some(b"v"), None]);
    }
}
