//! From nothing, or from whatever a crash left, to a state that the stream can go on from.
//!
//! Continuity is proven (`continuity`), and every index that was complete is there, or waldex stops in
//! `needs_resync` (spec P5). Before anything is changed the lease is taken, and only while it lasts.

use tracing::{info, warn};

use super::continuity::{self, Source};
use super::foreign::refuse_foreign_index;
use super::generations::{choose_generation, create_missing};
use super::newcomers;
use super::schema::partitions;
use super::slot_creation::{Making, create_slot};
use super::tables::{Plan, PlannedTable};
use crate::cli::Reload;
use crate::elasticsearch::client::Client;
use crate::elasticsearch::index::{self, ReaderName, generation_index};
use crate::elasticsearch::state::{State, TableState};
use crate::elasticsearch::store::{Found, StateStore};
use crate::elasticsearch::versions;
use crate::error::{Discontinuity, Error};
use crate::lsn::Lsn;
use crate::postgres::PostgresError;
use crate::postgres::catalog;
use crate::postgres::replication::Replication;
use crate::postgres::session::Session;
use crate::postgres::slot::{self, SlotFacts};
use crate::settings::{PostgresSettings, Settings};

/// What a slot that exists is called when it is made.
const DUPLICATE_OBJECT: &str = "42710";

/// A single table may be named with or without its schema.
pub(super) fn wants(reload: &Reload, table: &PlannedTable) -> bool {
    match reload {
        Reload::Nothing => false,
        Reload::All => true,
        Reload::Table(wanted) => *wanted == table.name() || *wanted == table.settings.table,
    }
}

/// Asks the server who it is and where the slot stands.
pub(crate) async fn look_at_source(
    session: &Session,
    settings: &PostgresSettings,
) -> Result<Source, Error> {
    let mut replication = Replication::connect(settings, session.encoding()).await?;
    Ok(ask(&mut replication, session, &settings.slot).await?)
}

/// The same over a connection that stands. A standby is no answer: it may be about to be promoted.
pub(crate) async fn ask(
    replication: &mut Replication,
    session: &Session,
    slot: &str,
) -> Result<Source, PostgresError> {
    session.refuse_standby()?;
    let system = replication.identify_system().await?;
    let history = match system.timeline {
        1 => None,
        timeline => replication.timeline_history(timeline).await?,
    };
    let slot = slot::inspect(session, slot).await?;
    Ok(Source { system, history, slot })
}

/// Notes the timeline that the stream goes on with. It need not be written at once: the position that makes
/// it matter is written in the same document.
pub(crate) fn go_on(state: &mut State, source: &Source, slot: &str) -> Result<(), Error> {
    let timeline = continuity::prove(state, source, slot).map_err(Error::NeedsResync)?;
    if timeline.number != state.timeline {
        info!(
            before = state.timeline,
            now = timeline.number,
            left_at = timeline.begun_at.map(|lsn| lsn.to_string()),
            durable = %state.durable_lsn,
            "failover: the new primary has all that the indices hold, going on there"
        );
    }
    state.timeline = timeline.number;
    state.timeline_begun_at = timeline.begun_at.or(state.timeline_begun_at);
    Ok(())
}

/// Both sides, where a run is to begin.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) settings: &'a Settings,
    pub(super) session: &'a Session,
    pub(super) client: &'a Client,
    pub(super) store: &'a StateStore,
    pub(super) making: &'a Making,
}

impl Target<'_> {
    /// Finds or makes the state, the slot and the indices. Afterwards every planned table has a generation that
    /// exists and that the state names; those not loaded are to be. `found` is the state.
    pub(super) async fn establish(
        self,
        plan: &Plan,
        reload: &Reload,
        found: Option<Found>,
    ) -> Result<State, Error> {
        let before = found.as_ref().map(|found| found.version);
        match establish(self, plan, reload, found.map(|found| found.state)).await {
            // Of two that began at once, the other may have gone on since the state was read.
            Err(error @ (Error::NeedsResync(_) | Error::SlotNotMade(_))) => {
                let now = self.store.find().await?;
                let has_gone_on = now.is_some_and(|found| {
                    found.state.instance != self.store.instance() && Some(found.version) != before
                });
                let is_made = matches!(&error, Error::SlotNotMade(error)
                    if error.sqlstate() == Some(DUPLICATE_OBJECT));
                if !has_gone_on && !is_made {
                    return Err(error);
                }
                Err(Error::Busy("another waldex begins on this slot".to_owned()))
            }
            established => established,
        }
    }
}

async fn establish(
    target: Target<'_>,
    plan: &Plan,
    reload: &Reload,
    found: Option<State>,
) -> Result<State, Error> {
    let Target { settings, session, client, store, making } = target;
    let source = look_at_source(session, &settings.postgres).await?;
    for table in &plan.tables {
        refuse_foreign_index(client, &table.settings.index).await?;
    }
    if let Reload::Table(name) = reload
        && !plan.tables.iter().any(|table| wants(reload, table))
    {
        return Err(Error::Configuration {
            what: format!("--reload names \"{name}\", which is no table that is kept"),
            fix: "name one that `waldex status` shows under tables; alone it stands for all"
                .to_owned(),
        });
    }
    // Before a slot is made: one that nobody may read on from, for want of rights here, would only keep WAL.
    store.prepare().await?;
    let mut state = match found {
        Some(mut state) if *reload != Reload::All && !state.is_claim() => {
            go_on(&mut state, &source, &settings.postgres.slot)?;
            store.write(&state).await?;
            state
        }
        found => {
            let claim = found.unwrap_or_else(|| claim(settings, &source));
            if claim.is_claim() && *reload != Reload::All {
                refuse_unaccounted(client, plan).await?;
            }
            if let Some(problem) = versions::look(client).await? {
                return Err(Error::Preflight(vec![problem]));
            }
            // The lease before the slot: of two that begin at once, one may make or move it.
            store.write(&claim).await?;
            let known = claim.tables;
            let mut state = fresh_state(settings, session, source, making).await?;
            state.tables = known;
            state
        }
    };
    // A table that was left out for a while has missed changes: it is loaded again when it comes back.
    state.tables.retain(|name, _| plan.tables.iter().any(|table| table.name() == *name));
    for table in &plan.tables {
        let name = table.name();
        let wanted = wants(reload, table);
        let known = state.tables.remove(&name);
        let unseen = partitions::unseen(session, table, known.as_ref()).await?;
        let mut entry = choose_generation(client, store, table, known, wanted).await?;
        if let Some(reason) = unseen.filter(|_| entry.load_begun) {
            warn!(
                table = name,
                reason,
                "rows of the table came or went without a change that is streamed; `waldex run --reload {name}` \
                 makes the index equal to it"
            );
            entry.reload_recommended = Some(reason.to_owned());
        }
        state.tables.insert(name, entry);
    }
    state.left_out = newcomers::remembered(&plan.left_out);
    // The state first: an index without a state that names it could not be accounted for.
    store.write(&state).await?;
    create_missing(client, store, plan, &state).await?;
    give_back_to_readers(client, store, &state).await?;
    Ok(state)
}

/// Somebody may have taken the readers' alias away, or put it back to a generation that is not written any
/// more; readers would find nothing, or what gets older and older.
async fn give_back_to_readers(
    client: &Client,
    store: &StateStore,
    state: &State,
) -> Result<(), Error> {
    for (table, entry) in state.tables.iter().filter(|(_, entry)| entry.loaded && entry.readable) {
        let (index, generation) = (&entry.index, entry.generation);
        let seen = match index::reader_name(client, index).await? {
            ReaderName::Foreign { .. } => continue,
            ReaderName::Generations(seen) if seen == [generation] => continue,
            ReaderName::Generations(seen) => seen,
            ReaderName::Free => Vec::new(),
        };
        let others: Vec<u32> = seen.into_iter().filter(|&other| other != generation).collect();
        store.held().await?;
        warn!(table, alias = index, generation, "readers had lost their alias: giving it back");
        index::give_to_readers(client, index, generation, &others).await?;
    }
    Ok(())
}

/// Says whose slot it will be, before there is anything to say of it.
fn claim(settings: &Settings, source: &Source) -> State {
    let (system, timeline) = (source.system.system_id.clone(), source.timeline().number);
    let PostgresSettings { database, slot, publication, .. } = &settings.postgres;
    State::new(system, timeline, database.clone(), slot, publication, Lsn::ZERO)
}

/// A state for the slot, with every table still to be loaded; the slot is made if it is missing, else moved to
/// now: what lies before is in the rows that are loaded, and could keep the stream from ever getting there.
async fn fresh_state(
    settings: &Settings,
    session: &Session,
    source: Source,
    making: &Making,
) -> Result<State, Error> {
    let name = &settings.postgres.slot;
    let advanced = match source.slot {
        Some(ref facts) => advance(session, name, facts).await?,
        None => None,
    };
    let start = match advanced {
        Some(start) => start,
        None => {
            if source.slot.is_some() {
                warn!(slot = name, "the slot is lost: dropping it and making it anew");
                slot::drop(session, name).await?;
            }
            create_slot(&settings.postgres, session, making).await?
        }
    };
    let timeline = source.timeline();
    let mut state = State::new(
        source.system.system_id,
        timeline.number,
        settings.postgres.database.clone(),
        name,
        &settings.postgres.publication,
        start,
    );
    state.timeline_begun_at = timeline.begun_at;
    Ok(state)
}

/// Moves the slot to now, and gives where it stands then; none if it is lost.
async fn advance(
    session: &Session,
    name: &str,
    facts: &SlotFacts,
) -> Result<Option<Lsn>, PostgresError> {
    let Some(lsn) = facts.confirmed_flush.filter(|_| !facts.is_lost()) else { return Ok(None) };
    let now = catalog::flush_lsn(session).await?.max(lsn);
    match slot::advance(session, name, now).await {
        // Its WAL is gone, and the server notices only now.
        Err(error) if error.is_lost_slot() => Ok(None),
        advanced => advanced.map(Some),
    }
}

/// Without a state, an empty target is loaded; anything else cannot be accounted for.
async fn refuse_unaccounted(client: &Client, plan: &Plan) -> Result<(), Error> {
    for table in &plan.tables {
        let index = &table.settings.index;
        for generation in index::generations(client, index).await? {
            if index::document_count(client, index, generation).await? > 0 {
                let index = generation_index(index, generation);
                return Err(Error::NeedsResync(Discontinuity::Unaccounted { index }));
            }
        }
    }
    Ok(())
}

/// An index that was complete must be there.
pub(super) fn refuse_gone(known: &TableState, existing: &[u32]) -> Result<(), Error> {
    if known.loaded && !existing.contains(&known.generation) {
        let index = generation_index(&known.index, known.generation);
        return Err(Error::NeedsResync(Discontinuity::IndexGone { index }));
    }
    Ok(())
}

/// Whether the indices are as the state says, as [`establish`] will find them.
pub(crate) async fn account_for_indices(
    client: &Client,
    plan: &Plan,
    state: Option<&State>,
) -> Result<(), Error> {
    let Some(state) = state else { return refuse_unaccounted(client, plan).await };
    for table in &plan.tables {
        let index = &table.settings.index;
        if let Some(known) = state.tables.get(&table.name()).filter(|it| it.index == *index) {
            refuse_gone(known, &index::generations(client, index).await?)?;
        }
    }
    Ok(())
}
