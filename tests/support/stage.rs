//! The scene of one test: a database, a publication and a slot of its own, indices of its own.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::Client;

use super::compare::{Expectation, assert_table_equals_index};
use super::search::Search;
use super::servers::postgres::{Database, Postgres};
use super::servers::search_node::SearchNode;
use super::sql;
use super::waldex::{Finished, Running, Waldex};

/// How long anything in a test may take before it has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Slot, publication and database of a test share a name; its indices begin with it.
pub struct Stage<'a> {
    pub postgres: &'a Postgres,
    pub node: &'a SearchNode,
    pub database: Database,
    pub sql: Client,
    pub search: Search,
    tables: Vec<(String, String)>,
}

impl<'a> Stage<'a> {
    /// A new database on `postgres`, with nothing in it.
    pub async fn new(label: &str, postgres: &'a Postgres, node: &'a SearchNode) -> Result<Self> {
        let database = postgres.create_database(label).await?;
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
        let verb = if self.tables.is_empty() {
            format!("create publication {} for table {name}", self.name())
        } else {
            format!("alter publication {} add table {name}", self.name())
        };
        self.execute(&verb).await?;
        self.tables.push((name.to_owned(), settings.to_owned()));
        Ok(())
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
        let entry = |(name, settings): &(String, String)| {
            let index = self.index(name);
            let lines: String = settings.lines().map(|line| format!("    {line}\n")).collect();
            format!("  - table: public.{name}\n    index: {index}\n{lines}")
        };
        format!("tables:\n{}", self.tables.iter().map(entry).collect::<String>())
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
        let expectation = Expectation::columns(table, key, columns);
        let index = self.index(table);
        assert_table_equals_index(&self.sql, &expectation, &self.search, &index).await
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

    /// Whether the slot has passed a position. An idle stream confirms what others wrote, so that a slot which
    /// moved proves nothing.
    pub async fn has_confirmed(&self, position: &str) -> Result<bool> {
        let name = self.name();
        let query = format!(
            "select confirmed_flush_lsn >= '{position}' from pg_replication_slots where slot_name = '{name}'"
        );
        Ok(sql::value(&self.sql, &query).await?.as_deref() == Some("t"))
    }
}
