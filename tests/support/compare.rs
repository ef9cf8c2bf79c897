//! Table and index, document by document, both ways.
//!
//! Numbers are compared as `serde_json` reads them: integers of 64 bits exactly, others as `f64`.
//! What a test says about longer numerics it must check on the text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use tokio_postgres::Client;
use waldex::lsn::Lsn;

use super::search::{Document, Search};
use super::sql;

/// How many differences an error names.
const SHOWN: usize = 10;
/// Characters of a value that are shown.
const SHOWN_CHARS: usize = 300;
/// Versions carry the epoch above these bits.
const VERSION_LSN_MASK: u64 = (1 << 56) - 1;

/// What the index should hold.
pub struct Expectation<'a> {
    /// A query of two columns: the document's id, and its source as JSON text; and, where documents are routed,
    /// a third: the routing.
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

    /// The same of a table that is routed by a column.
    pub fn routed(table: &str, key: &str, columns: &[&str], routing: &str) -> Self {
        let Self { query, adjust } = Self::columns(table, key, columns);
        let escaped = format!("replace(replace(\"{routing}\"::text, '~', '~0'), ',', '~1')");
        let hashed = format!("'~h' || encode(sha256(convert_to({escaped}, 'UTF8')), 'hex')");
        let routing = format!(
            "case when {escaped} = '' then '~' when octet_length({escaped}) > 512 then {hashed} \
             else {escaped} end"
        );
        let query = query.replacen(" from ", &format!(", {routing} from "), 1);
        Self { query, adjust }
    }

    /// A query of two columns, id and JSON text, or three, with the routing.
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
    let shown: Vec<String> = differences.iter().take(SHOWN).map(ToString::to_string).collect();
    let shown = shown.join("\n  ");
    ensure!(
        differences.is_empty(),
        "table and index \"{alias}\" differ in {} documents:\n  {shown}",
        differences.len()
    );
    Ok(())
}

/// A document that is missing, too many, or not what it should be.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The document's id.
    pub id: String,
    /// What should be there, if anything.
    pub expected: Option<Value>,
    /// Its routing, if it should have one.
    pub expected_routing: Option<String>,
    /// What is there, if anything.
    pub found: Option<Document>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, expected, expected_routing, found } = self;
        let is_orphan = expected.is_none();
        if let Some(document @ Document { index, version, .. }) = found {
            let (orphan, lsn) =
                (if is_orphan { "orphan " } else { "" }, Lsn::new(version & VERSION_LSN_MASK));
            write!(f, "{orphan}{id} in {index}, written at {lsn} of epoch {}: ", version >> 56)?;
            let routing = &document.routing;
            if !is_orphan && routing != expected_routing {
                write!(f, "routing: expected {expected_routing:?}, found {routing:?}; ")?;
            }
        }
        match (expected, found.as_ref().map(|found| &found.source)) {
            (Some(expected), None) => write!(f, "missing {id}: {}", short(expected)),
            (None, Some(found)) => write!(f, "{}", short(found)),
            (Some(Value::Object(expected)), Some(Value::Object(found))) => {
                let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
                for name in names.into_iter().filter(|name| expected.get(*name) != found.get(*name))
                {
                    let value =
                        |of: &Map<String, Value>| of.get(name).map_or("nothing".to_owned(), short);
                    write!(f, "{name}: expected {}, found {}; ", value(expected), value(found))?;
                }
                Ok(())
            }
            (Some(expected), Some(found)) => write!(f, "expected {expected}, found {found}"),
            (None, None) => Ok(()),
        }
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => {
            format!("{}… ({} bytes)", text.get(..end).unwrap_or_default(), text.len())
        }
        None => text,
    }
}

/// Every document that differs.
pub async fn differences(
    client: &Client,
    expectation: &Expectation<'_>,
    search: &Search,
    alias: &str,
) -> Result<Vec<Difference>> {
    Ok(compare(client, expectation, search, alias).await?.1)
}

/// The same, after the number of documents that were compared.
pub async fn compare(
    client: &Client,
    expectation: &Expectation<'_>,
    search: &Search,
    alias: &str,
) -> Result<(usize, Vec<Difference>)> {
    let mut expected = BTreeMap::new();
    for row in sql::rows(client, &expectation.query).await? {
        let (id, source, routing) = match row.as_slice() {
            [Some(id), Some(source)] => (id, source, None),
            [Some(id), Some(source), Some(routing)] => (id, source, Some(routing.clone())),
            _ => anyhow::bail!("the expectation's query must give two or three columns, none NULL"),
        };
        let mut source = serde_json::from_str(source).context("the expectation is not JSON")?;
        (expectation.adjust)(&mut source);
        let twice = expected.insert(id.clone(), (source, routing));
        ensure!(twice.is_none(), "id \"{id}\" expected twice");
    }
    let mut found = search.documents(alias).await?;
    let compared = expected.len().max(found.len());
    let mut differences = Vec::new();
    for (id, (source, routing)) in expected {
        let found = found.remove(&id);
        let is_it = |found: &Document| found.source == source && found.routing == routing;
        if !found.as_ref().is_some_and(is_it) {
            let expected = Some(source);
            differences.push(Difference { id, expected, expected_routing: routing, found });
        }
    }
    let extra = found.into_iter();
    differences.extend(extra.map(|(id, found)| Difference {
        id,
        expected: None,
        expected_routing: None,
        found: Some(found),
    }));
    Ok((compared, differences))
}
