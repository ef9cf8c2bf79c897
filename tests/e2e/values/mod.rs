//! Every type with its edge values, the same in the document whichever way the row comes: by the load, as an
//! insert, an update, an update that leaves it alone, an update of the key.

mod compound;
mod long;
pub(in crate::e2e) mod table;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::sql;
use crate::support::stage::Stage;

/// SQL expression and JSON of each edge value.
type Values = Vec<(String, String)>;

/// The columns of the table, one a type; row `n` has the `n`th value of each.
pub(in crate::e2e) struct Matrix {
    columns: Vec<(String, Values)>,
}

/// How rows come, and what becomes of them.
struct Way {
    /// Their ids are greater than this, and at most a thousand more.
    ids_after: usize,
    /// What `n` is in the end.
    n: u32,
}

const LOADED: Way = Way { ids_after: 0, n: 0 };
const INSERTED: Way = Way { ids_after: 1000, n: 0 };
const UPDATED: Way = Way { ids_after: 2000, n: 0 };
const MOVED: Way = Way { ids_after: 4000, n: 0 };
/// Long values are not sent with such an update.
const LOADED_AND_LEFT_ALONE: Way = Way { ids_after: 5000, n: 1 };
const INSERTED_AND_LEFT_ALONE: Way = Way { ids_after: 6000, n: 1 };
const MOVED_AND_LEFT_ALONE: Way = Way { ids_after: 8000, n: 1 };
const WAYS: [Way; 7] = [
    LOADED,
    INSERTED,
    UPDATED,
    MOVED,
    LOADED_AND_LEFT_ALONE,
    INSERTED_AND_LEFT_ALONE,
    MOVED_AND_LEFT_ALONE,
];
/// Shown of two documents around the place where they differ.
const CONTEXT: usize = 80;

impl Matrix {
    pub(in crate::e2e) async fn of(stage: &Stage<'_>) -> Result<Self> {
        let available = sql::rows(&stage.sql, "select name from pg_available_extensions").await?;
        let has = |name: &str| available.iter().any(|row| row[0].as_deref() == Some(name));
        let mut columns: Vec<(String, Values)> = Vec::new();
        let mut add = |of: &table::Type| {
            let owned = |(sql, json): &(&str, &str)| ((*sql).to_owned(), (*json).to_owned());
            columns.push((of.name.to_owned(), of.values.iter().map(owned).collect()));
        };
        table::TYPES.iter().chain(compound::ARRAYS).chain(compound::RANGES).for_each(&mut add);
        for (extension, of) in table::OF_EXTENSIONS {
            if has(extension) {
                stage.execute(&format!("create extension if not exists {extension}")).await?;
                add(of);
            }
        }
        for (name, sql, json) in long::long(has("hstore")) {
            let found = columns.iter_mut().find(|(column, _)| column == name);
            found.with_context(|| format!("no column {name}"))?.1.push((sql, json));
        }
        Ok(Self { columns })
    }

    pub(in crate::e2e) fn rows(&self) -> usize {
        self.columns.iter().map(|(_, values)| values.len()).max().unwrap_or_default()
    }

    pub(in crate::e2e) fn definition(&self) -> String {
        let column = |(name, _): &(String, Values)| format!(", {} {name}", quoted(name));
        let columns: String = self.columns.iter().map(column).collect();
        format!("id int primary key, n int{columns}")
    }

    /// The columns' names, quoted.
    pub(in crate::e2e) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| quoted(name)).collect()
    }

    /// One INSERT for each row.
    pub(in crate::e2e) fn inserts(&self, table: &str, ids_after: usize) -> String {
        let row = |row: usize| {
            let value = |(name, values): &(String, Values)| match values.get(row) {
                Some((sql, _)) => format!(", ({sql})::{name}"),
                None => ", null".to_owned(),
            };
            let values: String = self.columns.iter().map(value).collect();
            format!("insert into {table} values ({}, 0{values});\n", ids_after + row + 1)
        };
        (0..self.rows()).map(row).collect()
    }

    /// One UPDATE of every column for each row.
    fn updates(&self, ids_after: usize) -> String {
        let row = |row: usize| {
            let set = |(name, values): &(String, Values)| {
                let (sql, _) = values.get(row)?;
                Some(format!("{} = ({sql})::{name}", quoted(name)))
            };
            let sets: Vec<String> = self.columns.iter().filter_map(set).collect();
            format!("update v set {} where id = {};\n", sets.join(", "), ids_after + row + 1)
        };
        (0..self.rows()).map(row).collect()
    }

    /// The document of the row `id` with the values of `row`, to the letter.
    pub(in crate::e2e) fn document(&self, id: usize, n: u32, row: usize) -> String {
        let mut document = format!("{{\"id\":{id},\"n\":{n}");
        for (name, values) in &self.columns {
            let value = values.get(row).map_or("null", |(_, json)| json);
            document.push_str(&format!(",{}:{value}", Value::from(name.as_str())));
        }
        document.push('}');
        document
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// So that a long value is out of line, and not sent again with an update that leaves it alone.
pub(in crate::e2e) async fn store_out_of_line(stage: &Stage<'_>, table: &str) -> Result<()> {
    let query = format!(
        "select format('alter table {table} alter %I set storage external', attname) from pg_attribute \
         where attrelid = '{table}'::regclass and attnum > 0 and attstorage in ('x', 'm')"
    );
    for row in sql::rows(&stage.sql, &query).await? {
        stage.execute(row[0].as_deref().context("a NULL")?).await?;
    }
    Ok(())
}

async fn the_same_every_way<'a>(
    label: &str,
    postgres: &'a Postgres,
    node: &'a SearchNode,
) -> Result<Stage<'a>> {
    let mut stage = Stage::new(label, postgres, node).await?;
    stage.execute(table::DEFINITIONS).await?;
    let matrix = Matrix::of(&stage).await?;
    stage.table("v", &matrix.definition(), "").await?;
    store_out_of_line(&stage, "v").await?;
    for ids_after in [LOADED.ids_after, 3000, LOADED_AND_LEFT_ALONE.ids_after, 7000] {
        stage.execute(&matrix.inserts("v", ids_after)).await?;
    }
    stage.catch_up().await?;

    stage.execute(&matrix.inserts("v", INSERTED.ids_after)).await?;
    let (first, last) = (UPDATED.ids_after + 1, UPDATED.ids_after + matrix.rows());
    stage
        .execute(&format!(
            "insert into v (id, n) select g, 0 from generate_series({first}, {last}) g"
        ))
        .await?;
    stage.execute(&matrix.updates(UPDATED.ids_after)).await?;
    stage.execute("update v set id = id + 1000 where id between 3001 and 4000").await?;
    stage.execute("update v set n = 1 where id between 5001 and 6000").await?;
    stage.execute(&matrix.inserts("v", INSERTED_AND_LEFT_ALONE.ids_after)).await?;
    stage.execute("update v set n = 1 where id between 6001 and 7000").await?;
    stage.execute("update v set n = 1, id = id + 1000 where id between 7001 and 8000").await?;
    stage.catch_up().await?;

    let found = stage.search.sources(&stage.index("v"), json!({"match_all": {}})).await?;
    let expected: BTreeMap<String, String> = WAYS
        .iter()
        .flat_map(|way| (0..matrix.rows()).map(move |row| (way, row)))
        .map(|(way, row)| {
            let id = way.ids_after + row + 1;
            (id.to_string(), matrix.document(id, way.n, row))
        })
        .collect();
    let missing: Vec<&String> = expected.keys().filter(|id| !found.contains_key(*id)).collect();
    ensure!(missing.is_empty(), "refused or lost: {missing:?}");
    ensure!(found.len() == expected.len(), "{} documents too many", found.len() - expected.len());
    for (id, expected) in &expected {
        ensure_same(id, expected, &found[id])?;
    }
    Ok(stage)
}

/// Fails with the place where two texts differ.
pub(in crate::e2e) fn ensure_same(id: &str, expected: &str, found: &str) -> Result<()> {
    let same = expected.bytes().zip(found.bytes()).take_while(|(one, other)| one == other).count();
    let around = |text: &str| {
        let bytes = text.as_bytes();
        let shown = &bytes[same.saturating_sub(CONTEXT)..bytes.len().min(same + CONTEXT)];
        String::from_utf8_lossy(shown).into_owned()
    };
    ensure!(
        expected == found,
        "{id}:\nexpected …{}…\nfound    …{}…",
        around(expected),
        around(found)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_from_the_newest_postgres_to_elasticsearch() -> Result<()> {
    the_same_every_way("values_es", shared_postgres()?, shared_elasticsearch()?).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_from_postgres_14_to_opensearch() -> Result<()> {
    the_same_every_way("values_os", shared_postgres_14()?, shared_opensearch()?).await.map(drop)
}
