//! What a stalled pipeline asks of the outside world.

use crate::pgoutput::relation::Relation;

/// What only the outside world can do, before the stream goes on.
#[derive(Debug)]
pub enum Work {
    /// Select columns again by key; answer with [`super::Pipeline::reselected`].
    Reselect(Reselect),
    /// Remove every document of these tables, once [`super::Pipeline::is_drained`]; then
    /// [`super::Pipeline::truncated`].
    Truncate(Truncate),
    /// The table is not as it was planned: nothing goes on here. Plan again, and start from what is confirmed.
    Replan(String),
}

/// Unchanged TOAST columns of one row.
#[derive(Clone)]
pub struct Reselect {
    /// The table.
    pub relation: Relation,
    /// Text of each key column of the new row.
    pub key: Vec<Vec<u8>>,
    /// Names of the columns to select.
    pub columns: Vec<String>,
    /// Transaction of the change: "no such row" counts only once it is visible.
    pub xid: u32,
}

impl std::fmt::Debug for Reselect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reselect")
            .field("table", &self.relation.name)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

/// Tables emptied by one TRUNCATE.
#[derive(Clone, Debug)]
pub struct Truncate {
    /// Write aliases whose documents go.
    pub write_aliases: Vec<String>,
    /// Version of the deletes.
    pub version: i64,
}
