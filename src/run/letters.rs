//! The dead letters of a run: opened at its start, told of the tables with each plan.

use std::collections::BTreeSet;

use super::tables::{Plan, PlannedTable};
use crate::elasticsearch::client::Client;
use crate::elasticsearch::dead_letter::{DeadLetters, LetterSettings};
use crate::elasticsearch::index::generation_index;
use crate::elasticsearch::state::State;
use crate::elasticsearch::writer::Writer;
use crate::error::Error;
use crate::settings::{OnRejected, Settings};

/// Opens the dead letters, if refused documents are to have such.
///
/// # Errors
/// The cluster's.
pub(crate) async fn open(
    settings: &Settings,
    client: &Client,
    writer: &Writer,
) -> Result<Option<DeadLetters>, Error> {
    let OnRejected::DeadLetter { keep_document, max } = settings.on_rejected else {
        return Ok(None);
    };
    let slot = settings.postgres.slot.clone();
    let ours = LetterSettings { slot, keep_document, max };
    Ok(Some(DeadLetters::open(client, writer.mailbox(), ours).await?))
}

/// Tells the letters which table is behind which index.
pub(crate) fn know_tables(letters: Option<&DeadLetters>, plan: &Plan) {
    let Some(letters) = letters else { return };
    let name = |table: &PlannedTable| (table.settings.index.clone(), table.name());
    letters.know_tables(plan.tables.iter().map(name).collect());
}

/// Takes away the letters of generations that are gone.
pub(crate) async fn discard_outdated(letters: Option<&DeadLetters>, state: &State) {
    let Some(letters) = letters else { return };
    let generations = state.tables.values().flat_map(|table| {
        let numbers = [Some(table.generation), table.previous_generation];
        numbers.into_iter().flatten().map(|number| generation_index(&table.index, number))
    });
    let kept: BTreeSet<String> = generations.collect();
    letters.discard_where(|letter| !kept.contains(&letter.index)).await;
}
