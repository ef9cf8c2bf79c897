//! `waldex dead-letters`: what the cluster refused, from the outside.

use serde_json::{Value, json};

use super::output;
use super::retry::{Retried, Retry};
use crate::cli::{DeadLettersAction, Letters};
use crate::elasticsearch::client::Client;
use crate::elasticsearch::dead_letter::{self, discard};
use crate::elasticsearch::letter::Letter;
use crate::error::Error;
use crate::settings::Settings;

const NONE: &str = "there are no dead letters";

/// Lists, retries or drops the letters of the configured slot.
///
/// # Errors
/// A server cannot be reached, a letter that is named is not there, or one stays after a retry.
pub(super) async fn dead_letters(
    settings: &Settings,
    action: &DeadLettersAction,
) -> Result<(), Error> {
    let client = Client::new(&settings.elasticsearch)?;
    let mut letters = dead_letter::list(&client, &settings.postgres.slot).await?;
    letters.sort_by(|a, b| {
        (&a.time, &a.index, &a.document_id).cmp(&(&b.time, &b.index, &b.document_id))
    });
    match action {
        DeadLettersAction::List { json } => {
            output::print(if *json { json_list(&letters) } else { text_list(&letters) })
        }
        DeadLettersAction::Retry(which) => retry(settings, client, chosen(letters, which)?).await,
        DeadLettersAction::Drop(which) => {
            let chosen = chosen(letters, which)?;
            for letter in &chosen {
                discard(&client, letter).await?;
            }
            output::line(format_args!(
                "{} dead letters dropped; their documents stay as they are",
                chosen.len()
            ))
        }
    }
}

fn chosen(letters: Vec<Letter>, which: &Letters) -> Result<Vec<Letter>, Error> {
    if which.all {
        return Ok(letters);
    }
    let missing = which.ids.iter().find(|id| letters.iter().all(|letter| letter.id() != **id));
    if let Some(id) = missing {
        return Err(Error::Configuration {
            what: format!("there is no dead letter \"{}\"", id.escape_debug()),
            fix: "see `waldex dead-letters list`; it goes when its document is written".to_owned(),
        });
    }
    Ok(letters.into_iter().filter(|letter| which.ids.contains(&letter.id())).collect())
}

async fn retry(settings: &Settings, client: Client, letters: Vec<Letter>) -> Result<(), Error> {
    if letters.is_empty() {
        return output::line(NONE);
    }
    let retry = Retry::open(settings, client).await?;
    let mut open = 0;
    for letter in letters {
        let id = letter.id();
        let became = retry.one(letter).await?;
        let text = match &became {
            Retried::Written => "written as the row is now".to_owned(),
            Retried::Removed => "the row is gone, and so is the document".to_owned(),
            Retried::Superseded => "something newer was there already".to_owned(),
            Retried::Obsolete => "its index is no longer written to".to_owned(),
            Retried::Refused(reason) => format!("refused again: {reason}"),
            Retried::Impossible(why) => format!("cannot be retried: {why}"),
        };
        output::line(format_args!("{}: {text}", id.escape_debug()))?;
        open += usize::from(matches!(became, Retried::Refused(_) | Retried::Impossible(_)));
    }
    if open > 0 { Err(Error::LettersStay(open)) } else { Ok(()) }
}

fn json_list(letters: &[Letter]) -> String {
    format!("{}\n", Value::Array(letters.iter().map(as_value).collect()))
}

fn text_list(letters: &[Letter]) -> String {
    if letters.is_empty() {
        return format!("{NONE}\n");
    }
    let head = ["ID", "TABLE", "LSN", "TIME", "TIMES", "REASON"].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(letters.iter().map(line)).collect();
    let width = |column: usize| {
        let cell = |line: &[String; 6]| line.get(column).map_or(0, |cell| cell.chars().count());
        lines.iter().map(cell).max().unwrap_or(0)
    };
    let [id_width, table_width, lsn_width, time_width] = [0, 1, 2, 3].map(width);
    let shown = lines.iter().map(|[id, table, lsn, time, times, reason]| {
        format!(
            "{id:id_width$}  {table:table_width$}  {lsn:lsn_width$}  {time:time_width$}  {times:>5}  {reason}\n"
        )
    });
    shown.collect()
}

/// Control characters of a key must not reach the terminal.
fn line(letter: &Letter) -> [String; 6] {
    [
        letter.id().escape_debug().to_string(),
        letter.table.clone().unwrap_or_else(|| "?".to_owned()),
        letter.lsn.clone(),
        letter.time.clone(),
        letter.attempts.to_string(),
        letter.reason().to_string(),
    ]
}

fn as_value(letter: &Letter) -> Value {
    json!({
        "id": letter.id(),
        "table": letter.table,
        "index": letter.index,
        "document_id": letter.document_id,
        "action": letter.action,
        "lsn": letter.lsn,
        "version": letter.version,
        "time": letter.time,
        "attempts": letter.attempts,
        "status": letter.status,
        "error": letter.error,
        "field": letter.field,
        "document_bytes": letter.document_bytes,
        "reason": letter.reason().to_string(),
    })
}
