//! One table with a column of every type, whose rows take the values of `values/`, and documents that must be
//! what is said there, to the letter.

use anyhow::{Result, anyhow};
use serde_json::json;

use super::dice::Dice;
use super::operations::Made;
use crate::e2e::values::{Matrix, ensure_same, store_out_of_line, table::DEFINITIONS};
use crate::support::sql;
use crate::support::stage::Stage;

pub(super) const NAME: &str = "wide";
/// The values, not published: row `n` has the `n`th of each type.
const VALUES: &str = "wide_values";
/// `n` is the row of the values, and this for each time that they were left alone.
const STEP: usize = 1000;
const KEYS: u32 = 40;

pub(super) struct Wide {
    matrix: Matrix,
    statements: Statements,
}

/// The parts of statements.
#[derive(Clone)]
pub(super) struct Statements {
    names: String,
    assignments: String,
    rows: u32,
}

impl Wide {
    pub(super) async fn create(stage: &mut Stage<'_>) -> Result<Self> {
        stage.execute(DEFINITIONS).await?;
        let matrix = Matrix::of(stage).await?;
        stage.execute(&format!("create table {VALUES} ({})", matrix.definition())).await?;
        stage.execute(&matrix.inserts(VALUES, 0)).await?;
        stage.table(NAME, &matrix.definition(), "").await?;
        store_out_of_line(stage, NAME).await?;
        let names = matrix.names();
        let assignments: Vec<String> =
            names.iter().map(|name| format!("{name} = v.{name}")).collect();
        let statements = Statements {
            names: names.join(", "),
            assignments: assignments.join(", "),
            rows: u32::try_from(matrix.rows())?,
        };
        Ok(Self { matrix, statements })
    }

    pub(super) fn statements(&self) -> Statements {
        self.statements.clone()
    }

    /// Compares all documents: how many, and the id and the reason of each that differs.
    pub(super) async fn compare(
        &self,
        stage: &Stage<'_>,
        index: &str,
    ) -> Result<(usize, Vec<(String, String)>)> {
        let mut found = stage.search.sources(index, json!({"match_all": {}})).await?;
        let mut differences = Vec::new();
        let rows = sql::rows(&stage.sql, &format!("select id, n from {NAME}")).await?;
        let documents = rows.len().max(found.len());
        for row in rows {
            let [Some(id), Some(n)] = row.as_slice() else { anyhow::bail!("a NULL") };
            let (row, n) = (n.parse::<usize>()? % STEP, n.parse()?);
            let expected = self.matrix.document(id.parse()?, n, row);
            let same = match found.remove(id) {
                Some(found) => ensure_same(id, &expected, &found),
                None => Err(anyhow!("missing")),
            };
            if let Err(difference) = same {
                differences.push((id.clone(), format!("{id}: {difference}")));
            }
        }
        let orphans = found.into_keys().map(|id| (id.clone(), format!("{id}: too many")));
        differences.extend(orphans);
        Ok((documents, differences))
    }
}

impl Statements {
    /// A random operation.
    pub(super) fn operation(&self, dice: &mut Dice) -> Made {
        let Self { names, assignments, rows } = self;
        let (key, other, row) = (dice.below(KEYS), dice.below(KEYS), dice.below(*rows));
        let insert = format!(
            "delete from {NAME} where id = {key}; insert into {NAME} (id, n, {names}) \
             select {key}, {row}, {names} from {VALUES} where id = {row} + 1;"
        );
        let (kind, sql) = match dice.below(8) {
            0..=2 => ("insert", insert),
            3 => (
                "update",
                format!(
                    "update {NAME} set n = {row}, {assignments} from {VALUES} v \
                     where {NAME}.id = {key} and v.id = {row} + 1;"
                ),
            ),
            4 | 5 => ("leave alone", format!("update {NAME} set n = n + {STEP} where id = {key};")),
            6 => (
                "move",
                format!(
                    "delete from {NAME} where id = {other} and id <> {key}; \
                     update {NAME} set id = {other}, n = n + {STEP} where id = {key};"
                ),
            ),
            _ => ("delete", format!("delete from {NAME} where id = {key};")),
        };
        Made { kind: format!("every type: {kind}"), sql }
    }
}
