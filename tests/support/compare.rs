//! Table and index, document by document, both ways.
//!
//! Numbers are compared as `serde_json` reads them: integers of 64 bits exactly, others as `f64`.
//! What a test says about longer numerics it must check on the text.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio_postgres::Client;

use super::search::Search;
use super::sql;

/// How many differences an error names.
const SHOWN: usize = 10;

/// What the index should hold.
pub struct Expectation<'a> {
    /// A query of two columns: the document's id, and its source as JSON text.
    pub query: String,
    /// Brings an expected document into the shape the product writes.
    pub adjust: &'a dyn Fn(&mut Value),
}

impl Expectation<'static> {
    /// Every row of `table` under the text of its `key` column, with these columns.
    pub fn columns(table: &str, key: &str, columns: &[&str]) -> Self {
        let pairs: Vec<String> =
            columns.iter().map(|column| format!("'{column}', \"{column}\"")).collect();
        let source = format!("jsonb_build_object({})", pairs.join(", "));
        Self::query(format!("select \"{key}\"::text, {source}::text from {table}"))
    }

    /// A query of two columns: id and JSON text.
    pub fn query(query: String) -> Self {
        Self { query, adjust: &|_| () }
    }
}

/// Fails with the first differences unless the index holds exactly the expected documents.
pub async fn assert_table_equals_index(
    client: &Client,
    expectation: &Expectation<'_>,
    search: &Search,
    alias: &str,
) -> Result<()> {
    let differences = differences(client, expectation, search, alias).await?;
    let shown = differences.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n  ");
    ensure!(
        differences.is_empty(),
        "table and index \"{alias}\" differ in {} documents:\n  {shown}",
        differences.len()
    );
    Ok(())
}

/// One line for each document that is missing, too many or different.
pub async fn differences(
    client: &Client,
    expectation: &Expectation<'_>,
    search: &Search,
    alias: &str,
) -> Result<Vec<String>> {
    let mut expected = BTreeMap::new();
    for row in sql::rows(client, &expectation.query).await? {
        let [Some(id), Some(source)] = row.as_slice() else {
            anyhow::bail!("the expectation's query must give two columns, neither NULL");
        };
        let mut source = serde_json::from_str(source).context("the expectation is not JSON")?;
        (expectation.adjust)(&mut source);
        ensure!(expected.insert(id.clone(), source).is_none(), "id \"{id}\" expected twice");
    }
    let found = search.documents(alias).await?;
    let mut differences = Vec::new();
    for (id, source) in &expected {
        match found.get(id) {
            None => differences.push(format!("missing {id}: {source}")),
            Some(document) if document.source != *source => {
                let (version, found) = (document.version, &document.source);
                differences
                    .push(format!("{id}: expected {source}, found version {version}, {found}"));
            }
            Some(_) => {}
        }
    }
    let extra = found.iter().filter(|(id, _)| !expected.contains_key(*id));
    differences.extend(extra.map(|(id, document)| {
        format!("orphan {id}: version {}, {}", document.version, document.source)
    }));
    Ok(differences)
}
