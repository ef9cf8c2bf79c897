//! A TRUNCATE of the source: every document of the table goes, by versioned deletes.
//!
//! Not `_delete_by_query`: it works on what the last refresh showed, takes no external version, and is not
//! there everywhere. The lanes are drained before, so a refresh shows every document; the deletes carry
//! the version of the truncating transaction, so that of a replay only older documents go.

use serde_json::json;

use super::client::Client;
use super::index::physical_of;
use super::letter::{Letter, document_name, rendered_routing};
use super::retry::Backoff;
use super::scan::{Scan, ScanError};
use super::target::{self, Target};
use super::writer::{Event, Waiting, WriteError, Writer};
use crate::bulk::obstacle::Cause;
use crate::bulk::open::OpenBatch;
use crate::bulk::write::Write;

/// Removes every document behind `write_alias` that is not newer than `version`, and the dead letters of
/// such, waiting out outages.
///
/// # Errors
/// The index is gone.
pub async fn remove_all(
    client: &Client,
    writer: &Writer,
    write_alias: &str,
    version: i64,
    mut tell: impl FnMut(Event),
) -> Result<u64, WriteError> {
    writer.wait_for_version(version, &mut tell).await;
    let mut backoff = Backoff::default();
    let mut removed = 0;
    loop {
        let failed = match scan(client, writer, write_alias, version, &mut removed, &mut tell).await
        {
            Ok(()) => return Ok(removed),
            Err(Failed::Write(error)) => return Err(error),
            Err(Failed::Scan(error)) => error,
        };
        let is_missing = matches!(failed, ScanError::Missing { .. });
        let mut reason = failed.to_string();
        if is_missing {
            match target::look(client, write_alias).await {
                Ok(Target::Gone { index }) => return Err(WriteError::IndexGone { index }),
                Ok(Target::Unsound(what)) => reason = what,
                Ok(Target::Sound) | Err(_) => {}
            }
        }
        let cause = cause_of(&failed);
        let pause = if cause.needs_operator() { backoff.next_slow() } else { backoff.next(None) };
        tell(Event::Waiting(Waiting { cause, reason, attempts: backoff.attempts(), pause }));
        tokio::time::sleep(pause).await;
        // From the start: what is gone already will not be found again.
    }
}

fn cause_of(failed: &ScanError) -> Cause {
    match failed {
        ScanError::Call(_) => Cause::Unreachable,
        ScanError::Missing { .. } => Cause::Misconfigured,
        // A lost scroll answers 404; that passes as well.
        ScanError::Refused { status: 404, .. } => Cause::Unreachable,
        ScanError::Refused { status, kind, .. } => {
            Cause::of(*status, kind).unwrap_or(Cause::Misconfigured)
        }
    }
}

enum Failed {
    Scan(ScanError),
    Write(WriteError),
}

impl From<ScanError> for Failed {
    fn from(error: ScanError) -> Self {
        Self::Scan(error)
    }
}

async fn scan(
    client: &Client,
    writer: &Writer,
    write_alias: &str,
    version: i64,
    removed: &mut u64,
    tell: &mut impl FnMut(Event),
) -> Result<(), Failed> {
    let mut scan =
        Scan::start(client, write_alias, &json!({"match_all": {}}), &json!(false)).await?;
    loop {
        let page = scan.next_page().await?;
        if page.is_empty() {
            break;
        }
        let mut batch = OpenBatch::new(0);
        for hit in &page {
            let routing = rendered_routing(hit.routing.as_deref());
            let name = document_name(write_alias, &hit.id);
            batch.push(&Write::delete(&name, version).routed(&routing));
        }
        let receipt = writer.write(batch.seal(), &mut *tell).await.map_err(Failed::Write)?;
        *removed += receipt.applied();
        tell(Event::Removed);
    }
    if let Some(letters) = writer.letters() {
        let physical = physical_of(write_alias);
        let goes = |letter: &Letter| letter.index == physical && letter.version <= version;
        letters.remove_where(goes, tell).await?;
    }
    Ok(())
}
