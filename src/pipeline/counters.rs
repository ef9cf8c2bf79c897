//! What a pipeline counts.

/// Counted since the pipeline was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Inserts, updates and deletes of configured tables, and copied rows.
    pub rows: u64,
    /// Transactions received whole.
    pub transactions: u64,
    /// Items the server applied.
    pub applied: u64,
    /// Items for which the server held something newer.
    pub superseded: u64,
    /// Items that the server refused, whose dead letters are durable.
    pub dead_lettered: u64,
    /// Rows whose columns were selected again.
    pub reselected: u64,
}

impl Counters {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            transactions: self.transactions + other.transactions,
            applied: self.applied + other.applied,
            superseded: self.superseded + other.superseded,
            dead_lettered: self.dead_lettered + other.dead_lettered,
            reselected: self.reselected + other.reselected,
        }
    }
}
