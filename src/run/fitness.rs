//! The indices of a plan, looked at before a run and after one was made.

use super::start::wants;
use super::tables::{Plan, PlannedTable};
use crate::cli::Reload;
use crate::elasticsearch::client::Client;
use crate::elasticsearch::fitness::{self, Wanted};
use crate::elasticsearch::state::{State, TableState};
use crate::error::Error;
use crate::findings::Findings;

/// Looks at the indices of all tables, those that are gone on with and those to be made: one that is loaded again
/// would else be in the way of its own replacement.
pub(crate) async fn look(
    client: &Client,
    plan: &Plan,
    state: Option<&State>,
    reload: &Reload,
) -> Result<Findings, Error> {
    let wanted = plan.tables.iter().map(|table| {
        let known = state.and_then(|state| state.tables.get(&table.name()));
        let is_kept = |known: &&TableState| known.index == table.settings.index && known.loaded;
        let known = known.filter(is_kept).filter(|_| !wants(reload, table));
        Wanted {
            table: table.name(),
            index: &table.settings.index,
            generation: known.map(|known| known.generation),
            body: &table.index_body,
        }
    });
    Ok(fitness::look(client, &wanted.collect::<Vec<_>>()).await?)
}

/// Refuses a generation that a template made unfit, before anything is written into it.
pub(crate) async fn refuse_unfit(
    client: &Client,
    table: &PlannedTable,
    generation: u32,
) -> Result<(), Error> {
    let (index, body) = (&table.settings.index, &table.index_body);
    let found = fitness::look_at_made(client, table.name(), index, generation, body).await?;
    if found.is_empty() { Ok(()) } else { Err(Error::Preflight(found)) }
}
