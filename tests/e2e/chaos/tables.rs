//! All tables of a round: made before, compared after.

use anyhow::{Context, Result, bail, ensure};
use elasticsearch::http::Method;
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::dice::Dice;
use super::ledger::Ledger;
use super::operations::first_rows;
use super::shapes::{FUNCTIONS, SHAPES};
use super::wide::Wide;
use crate::e2e::faults::load::MARKS;
use crate::support::compare::{Expectation, compare};
use crate::support::search::Search;
use crate::support::stage::Stage;

/// How many differences are printed.
const SHOWN: usize = 12;

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    pub(super) documents: usize,
    /// Documents that differ and that P2's stated limit covers.
    pub(super) excluded: usize,
}

/// The tables, and how their indices are called.
pub(super) struct Tables {
    /// Whether the configuration lists them; else waldex takes what is published, under its own name.
    pub(super) is_listed: bool,
    pub(super) wide: Wide,
}

impl Tables {
    pub(super) async fn create(stage: &mut Stage<'_>, dice: &mut Dice) -> Result<Self> {
        stage.execute(FUNCTIONS).await?;
        stage
            .execute("create table canary (id bigserial primary key, at timestamptz default now())")
            .await?;
        for shape in SHAPES {
            stage.execute(&format!("create table {} {}", shape.name, shape.definition)).await?;
            stage.execute(shape.after).await?;
            stage.publish(shape.name, "").await?;
            stage.execute(&first_rows(dice, shape)).await?;
        }
        stage.table(MARKS, "id int primary key, n bigint", "").await?;
        stage.execute(super::ddl::TABLE).await?;
        stage.publish(super::ddl::NAME, "").await?;
        let wide = Wide::create(stage).await?;
        let name = stage.name().to_owned();
        stage
            .execute(&format!("alter publication {name} set (publish_via_partition_root = true)"))
            .await?;
        Ok(Self { is_listed: dice.chance(60), wide })
    }

    /// Readers' alias of a table.
    pub(super) fn index(&self, stage: &Stage<'_>, table: &str) -> String {
        if self.is_listed { stage.index(table) } else { table.to_owned() }
    }

    /// Every published table.
    async fn names(&self, stage: &Stage<'_>) -> Result<Vec<String>> {
        let query = format!(
            "select tablename::text from pg_publication_tables where pubname = '{}' order by 1",
            stage.name()
        );
        let rows = crate::support::sql::rows(&stage.sql, &query).await?;
        rows.into_iter().map(|row| row.into_iter().next().flatten().context("a NULL")).collect()
    }

    /// Whether every published table is loaded as it is now, and its readers see it.
    pub(super) async fn are_settled(client: &Client, search: &Search, slot: &str) -> Result<bool> {
        let query = format!(
            "select 'public.' || c.relname, c.oid, r.oid from pg_publication_rel r \
             join pg_class c on c.oid = r.prrelid join pg_publication p on p.oid = r.prpubid \
             where p.pubname = '{}'",
            slot
        );
        let published = crate::support::sql::rows(client, &query).await?;
        let path = format!("/waldex-state/_doc/{}", slot);
        let state = search.expect(Method::Get, &path, None).await?;
        Ok(published.iter().all(|row| {
            let [Some(name), Some(relation), Some(membership)] = row.as_slice() else {
                return false;
            };
            let table = &state["_source"]["tables"][name];
            let source = &table["source"];
            table["loaded"] == true
                && table["readable"] == true
                && table["previous_generation"].is_null()
                && source["relation_oid"].as_u64() == relation.parse().ok()
                && source["membership_oid"].as_u64() == membership.parse().ok()
        }))
    }

    /// Compares every document of every table with its row.
    pub(super) async fn compare(&self, stage: &Stage<'_>, ledger: &Ledger) -> Result<Compared> {
        let mut all = Compared::default();
        let mut wrong = Vec::new();
        for table in self.names(stage).await? {
            let index = self.index(stage, &table);
            let (documents, differences) =
                self.compare_one(stage, &table, &index).await.context(table.clone())?;
            all.documents += documents;
            for (id, difference) in differences {
                // Nothing has changed since: the document is as it was compared.
                let found = stage.search.document(&index, &id).await?;
                let (index, version) = match found {
                    Some(found) => (found.index, Some(found.version)),
                    None => (concrete(stage, &index).await?, None),
                };
                let difference = format!("{table}: version {version:?}, {difference}");
                if ledger.is_doubtful(&index, &id, version) {
                    println!("  excluded, P2's limit: {difference}");
                    all.excluded += 1;
                } else {
                    wrong.push(difference);
                }
            }
        }
        let shown: Vec<&str> = wrong.iter().take(SHOWN).map(String::as_str).collect();
        ensure!(wrong.is_empty(), "{} documents differ:\n  {}", wrong.len(), shown.join("\n  "));
        Ok(all)
    }

    /// How many documents were compared, and the id and the reason of each that differs.
    async fn compare_one(
        &self,
        stage: &Stage<'_>,
        table: &str,
        index: &str,
    ) -> Result<(usize, Vec<(String, String)>)> {
        if table == super::wide::NAME {
            return self.wide.compare(stage, index).await;
        }
        let expectation = Expectation::query(self.expectation(stage, table).await?);
        let (documents, differences) =
            compare(&stage.sql, &expectation, &stage.search, index).await?;
        let told = differences.into_iter().map(|one| (one.id.clone(), one.to_string()));
        Ok((documents, told.collect()))
    }

    async fn expectation(&self, stage: &Stage<'_>, table: &str) -> Result<String> {
        if let Some(shape) = SHAPES.iter().find(|shape| shape.name == table) {
            return Ok(shape.expectation());
        }
        // These have columns that change, of types that JSON has too.
        let query = format!(
            "select string_agg(format('%L, %I', attname, attname), ', ') from pg_attribute \
             where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped"
        );
        let pairs = crate::support::sql::value(&stage.sql, &query).await?.context("no columns")?;
        Ok(format!("select id::text, json_build_object({pairs})::text from {table}"))
    }

    /// Removes the indices of this round, superseded generations among them: a run that ends as soon as readers have
    /// the new one leaves the old one to the next, and the next round may have the same names.
    pub(super) async fn forget(&self, stage: &Stage<'_>) -> Result<()> {
        for table in self.names(stage).await? {
            let path = format!("/{}-*", self.index(stage, &table));
            let found = stage.search.expect(Method::Get, &path, None).await?;
            for name in found.as_object().context("no object")?.keys() {
                stage.search.delete_index(name).await?;
            }
        }
        Ok(())
    }
}

/// The index behind an alias.
async fn concrete(stage: &Stage<'_>, alias: &str) -> Result<String> {
    let path = format!("/_alias/{alias}");
    let answer = stage.search.expect(Method::Get, &path, None).await?;
    let names = answer.as_object().context("no object")?;
    match names.keys().collect::<Vec<_>>().as_slice() {
        [name] => Ok((*name).clone()),
        several => bail!("\"{alias}\" stands for {several:?}"),
    }
}

/// Documents that this slot has put into the dead-letter index.
pub(super) async fn dead_letters(stage: &Stage<'_>) -> Result<Vec<Value>> {
    let query = json!({"query": {"term": {"slot": stage.name()}}});
    let path = "/waldex-dead-letters/_search?ignore_unavailable=true";
    let (_, answer) = stage.search.request(Method::Post, path, Some(query)).await?;
    let hits = answer["hits"]["hits"].as_array().cloned().unwrap_or_default();
    Ok(hits.into_iter().map(|hit| hit["_source"].clone()).collect())
}
