//! Tables of more columns than an index has fields by default, and rows that are large.

use anyhow::{Result, ensure};

use super::assert_index;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};

const COLUMNS: usize = 1200;

async fn many_columns(label: &str, node: &SearchNode) -> Result<()> {
    let mut stage = Stage::new(label, shared_postgres()?, node).await?;
    let of = |number: usize| if number.is_multiple_of(2) { "text" } else { "int" };
    let columns: String =
        (1..COLUMNS).map(|number| format!(", c{number} {}", of(number))).collect();
    stage.table("wide", &format!("id int primary key{columns}"), "").await?;
    let values: String = (1..COLUMNS).map(|number| format!(", '{}'", number % 9)).collect();
    stage.execute(&format!("insert into wide values (1{values}), (2{values})")).await?;
    stage.execute("insert into wide (id) values (3)").await?;
    stage.catch_up().await?;
    stage.execute(&format!("insert into wide values (4{values})")).await?;
    stage.execute("update wide set c1199 = 77, c600 = 'x' where id < 3").await?;
    stage.catch_up().await?;
    // One more column finds room, too.
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage.execute("alter table wide add column late text; update wide set late = 'l'").await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.catch_up().await?;
    assert_index(&stage, "wide", "select id::text, to_jsonb(wide)::text from wide".to_owned())
        .await?;
    let mapping = stage
        .search
        .expect(
            elasticsearch::http::Method::Get,
            &format!("/{}/_mapping/field/c1198", stage.index("wide")),
            None,
        )
        .await?;
    ensure!(mapping.to_string().contains("\"text\""), "{mapping}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_1200_columns_on_elasticsearch() -> Result<()> {
    many_columns("wide_es", shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_1200_columns_on_opensearch() -> Result<()> {
    many_columns("wide_os", shared_opensearch()?).await
}
