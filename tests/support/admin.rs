//! Questions to the admin server of a running waldex.

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stage::LIMIT;
use super::wait::wait_until;

/// Status and body of one request.
pub async fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: waldex\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// Waits until `/live` or `/ready` answers with this status and state.
pub async fn wait_for_state(port: u16, path: &str, status: u16, state: &str) -> Result<()> {
    wait_until(LIMIT, &format!("{path} to answer {status} {state}"), async || {
        matches!(get(port, path).await, Ok((found, body)) if found == status && body.trim() == state)
    })
    .await
}

/// The value of one metric.
pub fn metric(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    Ok(line.with_context(|| format!("no {name} in:\n{text}"))?.parse()?)
}
