//! The scene of one test: a database, a publication and a slot of its own, indices of its own.

use std::time::Duration;

use anyhow::{Context, Result};
use elasticsearch::http::Method;
use tokio_postgres::Client;

use super::compare::{Expectation, assert_table_equals_index};
use super::search::Search;
use super::servers::postgres::{Database, Postgres};
use super::servers::search_node::SearchNode;
use super::sql;
use super::wait::wait_until;
use super::waldex::{Finished, Running, Waldex};

/// How long anything in a test may take before it has failed.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Slot, publication and database of a test share a name; its indices begin with it.
pub struct Stage<'a> {
    pub postgres: &'a Postgres,
    pub node: &'a SearchNode,
    pub database: Database,
    pub sql: Client,
    pub search: Search,
    tables: Vec<Entry>,
}

/// A table as the configuration names it.
struct Entry {
    /// Its readers' alias ends with this.
    label: String,
    /// As SQL names it, with its schema.
    table: String,
    /// Further lines, as YAML.
    settings: String,
}

impl<'a> Stage<'a> {
    /// A new database on `postgres`, with nothing in it.
    pub async fn new(label: &str, postgres: &'a Postgres, node: &'a SearchNode) -> Result<Self> {
        Self::in_encoding(label, postgres, node, "UTF8").await
    }

    /// The same with a database in another encoding.
    pub async fn in_encoding(
        label: &str,
        postgres: &'a Postgres,
        node: &'a SearchNode,
        encoding: &str,
    ) -> Result<Self> {
        let database = postgres.create_database_in(label, encoding).await?;
        let sql = sql::connect(&database.url).await?;
        let search = Search::of(node)?;
        Ok(Self { postgres, node, database, sql, search, tables: Vec::new() })
    }

    /// Runs SQL, one or several statements.
    pub async fn execute(&self, statements: &str) -> Result<()> {
        sql::batch(&self.sql, statements).await
    }

    /// Creates `public.<name> (<columns>)` and publishes it; `settings` are further lines of its entry
    /// under `tables`, as YAML.
    pub async fn table(&mut self, name: &str, columns: &str, settings: &str) -> Result<()> {
        self.execute(&format!("create table {name} ({columns})")).await?;
        self.publish(name, settings).await
    }

    /// Publishes a table that is there.
    pub async fn publish(&mut self, name: &str, settings: &str) -> Result<()> {
        let verb = if self.tables.is_empty() {
            format!("create publication {} for table {name}", self.name())
        } else {
            format!("alter publication {} add table {name}", self.name())
        };
        self.execute(&verb).await?;
        self.keep(name, &format!("public.{name}"), settings);
        Ok(())
    }

    /// Keeps a table that the test made and published itself; `table` is its name in SQL, with the schema.
    pub fn keep(&mut self, label: &str, table: &str, settings: &str) {
        let [label, table, settings] = [label, table, settings].map(str::to_owned);
        self.tables.push(Entry { label, table, settings });
    }

    /// Name of slot, publication and database.
    pub fn name(&self) -> &str {
        &self.database.name
    }

    /// Readers' alias of a table.
    pub fn index(&self, table: &str) -> String {
        format!("{}-{table}", self.name()).replace('_', "-")
    }

    /// The configuration of all tables.
    pub fn config(&self) -> String {
        let entry = |entry: &Entry| {
            let (table, index) = (entry.table.replace('\'', "''"), self.index(&entry.label));
            let lines: String =
                entry.settings.lines().map(|line| format!("    {line}\n")).collect();
            format!("  - table: '{table}'\n    index: {index}\n{lines}")
        };
        match self.tables.as_slice() {
            // Every table of the publication.
            [] => String::new(),
            tables => format!("tables:\n{}", tables.iter().map(entry).collect::<String>()),
        }
    }

    /// A command line with everything it needs.
    pub fn waldex(&self, subcommand: &str) -> Result<Waldex> {
        let program = Waldex::new(subcommand)?;
        Ok(program.between(&self.database.url, self.name(), self.node).config(&self.config()))
    }

    /// Starts `waldex run`, for ever.
    pub fn run(&self) -> Result<Running> {
        self.waldex("run")?.spawn()
    }

    /// Runs until everything committed so far is confirmed, and expects success.
    pub async fn catch_up(&self) -> Result<Finished> {
        let run = self.waldex("run")?.arg("--until").arg("current");
        let finished = run.run_to_end(LIMIT).await?;
        finished.expect_code(0)?;
        Ok(finished)
    }

    /// Compares a table with its index, document by document, these columns.
    pub async fn assert_equal(&self, table: &str, key: &str, columns: &[&str]) -> Result<()> {
        self.assert_index(&Expectation::columns(table, key, columns), &self.index(table)).await
    }

    /// The same of a table whose documents are routed by a column.
    pub async fn assert_routed(
        &self,
        table: &str,
        key: &str,
        columns: &[&str],
        routing: &str,
    ) -> Result<()> {
        let expectation = Expectation::routed(table, key, columns, routing);
        self.assert_index(&expectation, &self.index(table)).await
    }

    /// Compares what is expected with the index of this name.
    pub async fn assert_index(&self, expectation: &Expectation<'_>, index: &str) -> Result<()> {
        assert_table_equals_index(&self.sql, expectation, &self.search, index).await
    }

    /// Removes all its indices; for a test that makes so many that others would feel it.
    pub async fn remove_indices(&self) -> Result<()> {
        let path = format!("/{}", self.index("*"));
        let found = self.search.expect(Method::Get, &path, None).await?;
        let names: Vec<&str> =
            found.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        self.search.delete_index(&names.join(",")).await
    }

    /// `confirmed_flush_lsn` of the slot.
    pub async fn confirmed(&self) -> Result<Option<String>> {
        let name = self.name();
        let query = format!(
            "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = '{name}'"
        );
        sql::value(&self.sql, &query).await
    }

    /// Runs SQL and gives a position right behind its last commit.
    pub async fn execute_and_mark(&self, statements: &str) -> Result<String> {
        self.execute(statements).await?;
        let position = sql::value(&self.sql, "select pg_current_wal_flush_lsn()").await?;
        position.context("no position")
    }

    /// Whether the slot has passed a position. An idle stream confirms what others wrote, so that a slot
    /// which moved proves nothing.
    pub async fn has_confirmed(&self, position: &str) -> Result<bool> {
        let name = self.name();
        let query = format!(
            "select confirmed_flush_lsn >= '{position}' from pg_replication_slots where slot_name = '{name}'"
        );
        Ok(sql::value(&self.sql, &query).await?.as_deref() == Some("t"))
    }

    /// Waits until the slot has passed a position; a server that is away meanwhile is waited for.
    pub async fn confirms(&self, position: &str, limit: Duration) -> Result<()> {
        wait_until(limit, "the changes to be confirmed", async || {
            self.has_confirmed(position).await.unwrap_or(false)
        })
        .await
    }

    /// Waits until the index of a table has so many documents.
    pub async fn counts(&self, table: &str, documents: u64, limit: Duration) -> Result<()> {
        let index = self.index(table);
        wait_until(limit, "the documents", async || {
            matches!(self.search.count(&index).await, Ok(Some(count)) if count == documents)
        })
        .await
    }
}
