//! From a tuple to a resolved row: every unchanged TOAST column is settled here, or named as missing.
//!
//! Postgres does not send a large value that an update left alone (`u`), whatever the replica identity; with
//! FULL, and for key columns, the old tuple holds it. It must never become a null or a missing field, so
//! what the old tuple lacks is reported and selected again from the table.

use crate::document::Field;
use crate::pgoutput::message::OldTuple;
use crate::pgoutput::tuple::{Tuple, Value};

/// A row whose columns are settled, but for those in `missing`.
pub(super) struct Resolved<'a> {
    pub(super) fields: Vec<Field<'a>>,
    /// Columns that are needed and unchanged TOAST, `Absent` in `fields`.
    pub(super) missing: Vec<usize>,
}

/// What a change says of the row as it was.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// An insert: there was none.
    Nothing,
    /// An update that names no old row: its identity is as it was.
    Unsent,
    /// The old row, or its identity.
    Row(&'a OldTuple<'a>),
}

impl<'a> Before<'a> {
    pub(super) fn row(self) -> Option<&'a OldTuple<'a>> {
        match self {
            Self::Nothing | Self::Unsent => None,
            Self::Row(old) => Some(old),
        }
    }
}

/// A tuple that waldex never asks for: `binary` is off in its START_REPLICATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a column arrived in binary form, which was not asked for")]
pub struct BinaryColumn;

/// The new row of an insert or update; `uses` says whether a column matters to the document.
pub(super) fn resolve<'a>(
    new: &Tuple<'a>,
    old: Option<&OldTuple<'a>>,
    uses: impl Fn(usize) -> bool,
) -> Result<Resolved<'a>, BinaryColumn> {
    let mut fields = Vec::with_capacity(new.len());
    let mut missing = Vec::new();
    for (column, value) in new.iter().enumerate() {
        fields.push(match value {
            Value::Null => Field::Null,
            Value::Text(text) => Field::Text(text),
            Value::Binary(_) => return Err(BinaryColumn),
            Value::UnchangedToast => match old.and_then(|old| kept_by(old, column)) {
                Some(text) => Field::Text(text),
                None => {
                    if uses(column) {
                        missing.push(column);
                    }
                    Field::Absent
                }
            },
        });
    }
    Ok(Resolved { fields, missing })
}

/// The old row, for its document id. In a key tuple the other columns are absent, not NULL.
pub(super) fn old_row<'a>(old: &OldTuple<'a>) -> Result<Vec<Field<'a>>, BinaryColumn> {
    old.tuple()
        .iter()
        .map(|value| match value {
            Value::Null | Value::UnchangedToast => Ok(Field::Absent),
            Value::Text(text) => Ok(Field::Text(text)),
            Value::Binary(_) => Err(BinaryColumn),
        })
        .collect()
}

/// An unchanged value cannot be NULL, so only text counts.
fn kept_by<'a>(old: &OldTuple<'a>, column: usize) -> Option<&'a [u8]> {
    match old.tuple().iter().nth(column) {
        Some(Value::Text(text)) => Some(text),
        Some(Value::Null | Value::UnchangedToast | Value::Binary(_)) | None => None,
    }
}
