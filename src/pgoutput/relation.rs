//! What a Relation message says of a table; the catalog describes tables in the same words.

/// How Postgres identifies the old row of an update or delete (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// `d`: the primary key.
    Default,
    /// `n`: nothing; updates and deletes of a published table fail on the source.
    Nothing,
    /// `f`: the whole old row.
    Full,
    /// `i`: the columns of one unique index.
    Index,
}

/// One column of a [`Relation`], in the order in which tuples carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`; -1 for none.
    pub type_modifier: i32,
    /// Whether the column is part of the replica identity (all are, with `FULL`).
    pub in_identity: bool,
}

/// A table as a stream of changes describes it. A later Relation message of the same OID replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The schema's name (`pg_catalog` arrives as an empty string).
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// How the old row of an update or delete is identified.
    pub identity: ReplicaIdentity,
    /// The published columns, in the order of the tuples.
    pub columns: Vec<Column>,
}

impl Relation {
    /// Schema-qualified, as the state and messages have it; not quoted.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

#[cfg(test)]
impl Relation {
    /// A table of the schema `public` with these columns, by name and type OID.
    pub(crate) fn for_test(name: &str, columns: &[(&str, u32)]) -> Self {
        let column = |&(name, type_oid): &(&str, u32)| Column {
            name: name.to_owned(),
            type_oid,
            type_modifier: -1,
            in_identity: false,
        };
        Self {
            oid: 1,
            schema: "public".to_owned(),
            name: name.to_owned(),
            identity: ReplicaIdentity::Default,
            columns: columns.iter().map(column).collect(),
        }
    }
}
