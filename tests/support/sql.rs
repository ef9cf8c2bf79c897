//! SQL for tests: thin shapes over tokio-postgres.

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Connects; the connection is driven by a task of the current runtime.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("cannot connect to Postgres")?;
    // How a connection ends is seen by the client's next query.
    drop(tokio::spawn(connection));
    Ok(client)
}

/// Runs statements; each is its own transaction unless they say otherwise.
pub async fn batch(client: &Client, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.with_context(|| format!("SQL failed: {sql}"))
}

/// All rows of a query, each column as Postgres prints it.
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    let messages = client.simple_query(sql).await.with_context(|| format!("SQL failed: {sql}"))?;
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            let columns = 0..row.columns().len();
            rows.push(columns.map(|column| row.get(column).map(str::to_owned)).collect());
        }
    }
    Ok(rows)
}

/// The first column of the first row; none for no row and for NULL.
pub async fn value(client: &Client, sql: &str) -> Result<Option<String>> {
    let rows = rows(client, sql).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}
