//! Schemas, tables, columns and publications with names of every odd kind.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::assert_index;
use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::stage::{LIMIT, Stage};
use crate::support::waldex::Waldex;

/// As long as a name can be: 63 bytes.
const LONG: &str = "long_ñ_long_long_long_long_long_long_long_long_long_long_long";

/// Schema and table. Some match each other where `_` and `%` are taken for wildcards.
const TABLES: [(&str, &str); 16] = [
    ("public", "Upper"),
    ("public", "upper"),
    ("public", "we\"ird"),
    ("public", "dot.ted"),
    ("public", "a_b"),
    ("public", "axb"),
    ("public", "a%b"),
    ("public", "sp ace, and 'quotes'"),
    ("public", "select"),
    ("public", "таблица🦀"),
    ("public", "back\\slash"),
    ("public", LONG),
    ("My Schema", "t"),
    ("My_Schema", "t"),
    ("s.t", "t"),
    ("public", "s.t.t"),
];

/// Those that a document cannot have as they are come with `pg` before them.
const COLUMNS: [&str; 26] = [
    "_id",
    "_source",
    "_index",
    "_version",
    "_routing",
    "_type",
    "_field_names",
    "_ignored",
    "_seq_no",
    "_meta",
    "Upper",
    "upper",
    "q\"uote",
    "'",
    "dot.ted",
    "dot.other",
    "back\\slash",
    "sp ace",
    "new\nline",
    "select",
    "ключ",
    "a_b",
    "a%b",
    "axb",
    "{}",
    LONG,
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn field(column: &str) -> String {
    if column.starts_with('_') { format!("pg{column}") } else { column.to_owned() }
}

async fn every_odd_name(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    let mut stage = Stage::new(label, postgres, node).await?;
    let columns: String = COLUMNS.iter().map(|name| format!(", {} text", quoted(name))).collect();
    let publication = r#"Pub "lication" o'f.it \ ñ"#;
    let mut tables = Vec::new();
    for (number, (schema, table)) in TABLES.iter().enumerate() {
        let table = format!("{}.{}", quoted(schema), quoted(table));
        stage.execute(&format!("create schema if not exists {}", quoted(schema))).await?;
        stage
            .execute(&format!("create table {table} (\"the Key\" int primary key{columns})"))
            .await?;
        stage.keep(&format!("t{number}"), &table, "");
        tables.push(table);
    }
    let all = tables.join(", ");
    stage.execute(&format!("create publication {} for table {all}", quoted(publication))).await?;
    let marked = |table: &str, word: &str| -> String {
        COLUMNS
            .iter()
            .map(|column| {
                format!(", '{word} {} {}'", table.replace('\'', "''"), column.replace('\'', "''"))
            })
            .collect()
    };
    for table in &tables {
        let loaded = marked(table, "loaded");
        stage
            .execute(&format!("insert into {table} values (1{loaded}), (2{loaded}), (3{loaded})"))
            .await?;
    }
    let run = |more: &[&str]| -> Result<Waldex> {
        let run = stage.waldex("run")?.publication(publication);
        Ok(more.iter().fold(run, |run, arg| run.arg(arg)))
    };
    run(&["--until", "current"])?.run_to_end(LIMIT).await?.expect_code(0)?;
    for table in &tables {
        let streamed = marked(table, "streamed");
        stage
            .execute(&format!(
                "insert into {table} values (4{streamed}); \
                 update {table} set \"_id\" = 'updated' where \"the Key\" = 1; \
                 update {table} set \"the Key\" = 5 where \"the Key\" = 2; delete from {table} where \"the Key\" = 3"
            ))
            .await?;
    }
    run(&["--until", "current"])?.run_to_end(LIMIT).await?.expect_code(0)?;
    let pairs: String = COLUMNS
        .iter()
        .map(|column| format!(", '{}', {}", field(column).replace('\'', "''"), quoted(column)))
        .collect();
    for (number, table) in tables.iter().enumerate() {
        let json = format!("json_build_object('the Key', \"the Key\"{pairs})::text");
        let query = format!("select \"the Key\"::text, {json} from {table}");
        let compared = assert_index(&stage, &format!("t{number}"), query).await;
        compared.map_err(|error| error.context(table.clone()))?;
    }
    // One of two that differ by what could be a wildcard, and the commands that name tables.
    let reload = run(&["--reload", "public.a_b", "--until", "current"])?;
    let log = reload.run_to_end(LIMIT).await?.expect_code(0)?.stderr.join("\n");
    let loads =
        |table: &str| log.contains(&format!("\"message\":\"loading\",\"table\":\"{table}\""));
    ensure!(loads("public.a_b") && !loads("public.axb") && !loads("public.a%b"), "{log}");
    let status = stage.waldex("status")?.arg("--json").run_to_end(LIMIT).await?;
    let status: Value = serde_json::from_str(&status.expect_code(0)?.stdout.join(""))?;
    let shown = status["tables"].as_object().map_or(0, serde_json::Map::len);
    ensure!(shown == TABLES.len(), "{status}");
    stage.remove_indices().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_odd_name_from_the_newest_postgres_to_elasticsearch() -> Result<()> {
    every_odd_name("names_es", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_odd_name_from_postgres_14_to_opensearch() -> Result<()> {
    every_odd_name("names_os", shared_postgres_14()?, shared_opensearch()?).await
}

/// What no document can hold is refused before anything is touched, and a rename puts it right.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_cannot_stand_side_by_side_are_refused_until_renamed() -> Result<()> {
    for (number, (columns, what, rename)) in [
        ("t text, \"t.x\" text", "cannot be a value and", "t.x: t_x"),
        ("\"_id\" text, \"pg_id\" text", "are called \"pg_id\"", "_id: own_id"),
        ("\" \" text", "is no field name", "\" \": blank"),
        ("\"a..b\" text", "is no field name", "a..b: ab"),
        ("\".\" text", "is no field name", "\".\": dot"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stage =
            Stage::new(&format!("clash_{number}"), shared_postgres()?, shared_elasticsearch()?)
                .await?;
        stage.execute(&format!("create table t (id int primary key, {columns})")).await?;
        stage.execute(&format!("create publication {} for table t", stage.name())).await?;
        stage.execute("insert into t values (1, 'x')").await?;
        let refused = Stage::waldex(&stage, "run")?.run_to_end(LIMIT).await?;
        let log = refused.expect_code(64)?.stderr.join("\n");
        ensure!(log.contains(what), "{columns}: {log}");
        ensure!(stage.search.count(&stage.index("t")).await?.is_none(), "an index was made");
        stage.keep("t", "public.t", &format!("rename: {{{rename}}}"));
        stage.catch_up().await?;
        ensure!(stage.search.count(&stage.index("t")).await? == Some(1), "{columns}");
    }
    Ok(())
}
