//! Looks at the source beside the stream, every few seconds, on a connection of its own.
//!
//! Some things the stream never says: that a table left the publication and came back, that the primary's
//! commits wait for us, that the slot keeps more and more WAL and whose transaction holds it. Nothing here
//! holds up the stream; a look that fails is taken again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::continuity;
use super::tables::Plan;
use super::vitals::SourceVitals;
use crate::elasticsearch::retry::Backoff;
use crate::error::Error;
use crate::postgres::PostgresError;
use crate::postgres::catalog::{self, PublicationFacts, PublishedTable};
use crate::postgres::session::{Purpose, Session};
use crate::postgres::slot::{self, SlotFacts};
use crate::postgres::standbys::StandbyNames;
use crate::settings::PostgresSettings;

/// Between two looks, at least and at most.
const INTERVAL: Duration = Duration::from_secs(5);
const INTERVAL_MAX: Duration = Duration::from_secs(300);
/// So many times as long as a look took is the next one away: of ten thousand tables each takes the source seconds.
const REST_FACTOR: u32 = 9;
/// Not everything that a table may be left out for is seen from here: everything is planned again so often.
const LEFT_OUT_INTERVAL: Duration = Duration::from_secs(600);
/// Findings that wait to be read; the watch waits rather than look again.
const FINDINGS_MAX: usize = 1;

/// What was found.
#[derive(Debug)]
pub(crate) enum Finding {
    /// How the source fares.
    Source(SourceVitals),
    /// Publication or tables are not as they were planned.
    Outplanned(String),
    /// Nothing goes on here.
    Definite(Error),
}

/// The looking task; it ends with this.
pub(crate) struct Watch {
    findings: mpsc::Receiver<Finding>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn start(settings: &PostgresSettings, plan: &Plan) -> Self {
        let (tell, findings) = mpsc::channel(FINDINGS_MAX);
        let looker = Looker { settings: settings.clone(), planned: Planned::of(plan) };
        Self { findings, task: tokio::spawn(looker.look_for_ever(tell)) }
    }

    /// The next finding. Cancel-safe.
    pub(crate) async fn finding(&mut self) -> Finding {
        match self.findings.recv().await {
            Some(finding) => finding,
            // The task ends only with us.
            None => std::future::pending().await,
        }
    }

    /// The first finding that ends the run; others are passed over. Cancel-safe.
    pub(crate) async fn definite(&mut self) -> Error {
        loop {
            if let Finding::Definite(error) = self.finding().await {
                return error;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the plan took from the catalog.
struct Planned {
    /// By schema and name.
    tables: BTreeMap<(String, String), PublishedTable>,
    /// Those that were not fit to be kept.
    left_out: BTreeMap<(String, String), PublishedTable>,
    takes_new_tables: bool,
}

impl Planned {
    fn of(plan: &Plan) -> Self {
        let published = plan.tables.iter().map(|table| table.published.clone());
        Self {
            tables: published.map(named).collect(),
            left_out: plan.left_out.iter().map(|it| named(it.published.clone())).collect(),
            takes_new_tables: plan.takes_new_tables,
        }
    }

    /// The first thing that is not as planned.
    fn difference(
        &self,
        publication: Option<PublicationFacts>,
        published: &[PublishedTable],
    ) -> Option<String> {
        if publication.is_none_or(|facts| !facts.left_out().is_empty()) {
            return Some("the publication is gone or publishes less".to_owned());
        }
        let published: BTreeMap<(&str, &str), &PublishedTable> =
            published.iter().map(|table| (names(table), table)).collect();
        for ((schema, name), planned) in &self.tables {
            let shown = || format!("{schema}.{name}");
            let Some(table) = published.get(&(schema.as_str(), name.as_str())) else {
                return Some(format!("{} left the publication", shown()));
            };
            let oids = |table: &PublishedTable| (table.relation.oid, table.membership_oid);
            if oids(table) != oids(planned) {
                return Some(format!("{} came back to the publication", shown()));
            }
            if table.membership != planned.membership {
                return Some(format!("{} was published otherwise", shown()));
            }
            if table.relation.columns != planned.relation.columns
                || table.numbers != planned.numbers
            {
                return Some(format!("{} has other columns", shown()));
            }
            // With REPLICA IDENTITY FULL the stream does not tell which columns are the key.
            if table.key != planned.key {
                return Some(format!("{} has another key", shown()));
            }
            if table.partitions != planned.partitions {
                return Some(format!("{} has other partitions", shown()));
            }
        }
        for ((schema, name), before) in &self.left_out {
            let now = published.get(&(schema.as_str(), name.as_str()));
            if now.is_none_or(|table| *table != before) {
                return Some(format!("{schema}.{name}, which was left out, has changed"));
            }
        }
        if !self.takes_new_tables {
            return None;
        }
        let is_new = |table: &&&PublishedTable| {
            let name = name_of(table);
            !self.tables.contains_key(&name) && !self.left_out.contains_key(&name)
        };
        let (schema, name) = names(published.values().find(is_new)?);
        Some(format!("{schema}.{name} is in the publication now"))
    }
}

fn names(table: &PublishedTable) -> (&str, &str) {
    (&table.relation.schema, &table.relation.name)
}

fn name_of(table: &PublishedTable) -> (String, String) {
    (table.relation.schema.clone(), table.relation.name.clone())
}

fn named(table: PublishedTable) -> ((String, String), PublishedTable) {
    (name_of(&table), table)
}

struct Looker {
    settings: PostgresSettings,
    planned: Planned,
}

impl Looker {
    async fn look_for_ever(self, tell: mpsc::Sender<Finding>) {
        let mut session = None;
        let mut backoff = Backoff::of_source();
        let mut pause = INTERVAL;
        let begun = Instant::now();
        loop {
            // The stream has only just begun from what was found at the start.
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            let looked = self.look(&mut session).await;
            pause = pause_after(began.elapsed());
            match looked {
                Ok(mut findings) => {
                    let is_time = begun.elapsed() >= LEFT_OUT_INTERVAL;
                    if is_time && !self.planned.left_out.is_empty() {
                        let what = "tables are left out: whether they can be kept now";
                        findings.push(Finding::Outplanned(what.to_owned()));
                    }
                    backoff = Backoff::of_source();
                    for finding in findings {
                        if tell.send(finding).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    // The stream itself says what is wrong with Postgres.
                    debug!(%error, "a look at the source failed");
                    session = None;
                    pause = backoff.next(None).max(pause);
                }
            }
        }
    }

    async fn look(&self, kept: &mut Option<Session>) -> Result<Vec<Finding>, PostgresError> {
        let session = match kept.take() {
            Some(session) => session,
            None => Session::connect(&self.settings, Purpose::Control).await?,
        };
        let session = kept.insert(session);
        // An address that has moved to a standby for a while says nothing of the slot.
        session.refuse_standby()?;
        let (slot_name, publication) = (&self.settings.slot, &self.settings.publication);
        let slot = slot::inspect(session, slot_name).await?;
        let slot = match continuity::prove_kept(slot.as_ref(), slot_name) {
            Ok(slot) => slot,
            Err(lost) => return Ok(vec![Finding::Definite(Error::NeedsResync(lost))]),
        };
        if self.is_synchronous(session, slot).await? {
            return Ok(vec![Finding::Definite(Error::SynchronousStandby)]);
        }
        let mut findings = Vec::new();
        let facts = catalog::publication(session, publication).await?;
        let published = match facts {
            Some(_) => catalog::published_tables(session, publication).await?,
            None => Vec::new(),
        };
        findings.extend(self.planned.difference(facts, &published).map(Finding::Outplanned));
        findings.push(Finding::Source(SourceVitals {
            retained_wal_bytes: slot.retained_bytes,
            safe_wal_bytes: slot.safe_wal_bytes,
            oldest_transaction: catalog::oldest_transaction(session).await?,
        }));
        Ok(findings)
    }

    /// Whether the primary's commits wait for us. Without the right to see that, the names that would make
    /// it so are looked at.
    async fn is_synchronous(
        &self,
        session: &Session,
        slot: &SlotFacts,
    ) -> Result<bool, PostgresError> {
        let Some(pid) = slot.active_pid else { return Ok(false) };
        match catalog::sync_state(session, pid).await? {
            Some(state) => Ok(state != "async"),
            None => {
                let names = catalog::synchronous_standby_names(session).await?;
                Ok(StandbyNames::parse(&names).covers_us())
            }
        }
    }
}

/// After a look that took so long.
fn pause_after(look: Duration) -> Duration {
    look.saturating_mul(REST_FACTOR).clamp(INTERVAL, INTERVAL_MAX)
}

/// WAL kept by the slot that is worth a warning.
const RETAINED_WARN_BYTES: i64 = 1 << 30;
/// WAL that may still be written before the slot is lost, below which it is worth one.
const SAFE_WARN_BYTES: i64 = 1 << 30;
/// A transaction as old as that is named.
const OLD_SECONDS: i64 = 300;

/// Warns of a source that comes to harm; whether there was reason to.
pub(crate) fn warn_of(source: &SourceVitals) -> bool {
    let retained = source.retained_wal_bytes.unwrap_or(0);
    let is_near = source.safe_wal_bytes.is_some_and(|bytes| bytes < SAFE_WARN_BYTES);
    let oldest = source.oldest_transaction.as_ref();
    let is_held = oldest.is_some_and(|oldest| oldest.seconds >= Some(OLD_SECONDS));
    let has_reason = retained >= RETAINED_WARN_BYTES || is_near || is_held;
    if has_reason {
        warn!(
            retained_wal_bytes = retained,
            safe_wal_bytes = source.safe_wal_bytes,
            oldest_transaction = oldest.map(|oldest| oldest.who.as_str()),
            oldest_transaction_seconds = oldest.and_then(|oldest| oldest.seconds),
            "the source keeps WAL for this slot: once it is confirmed it goes, but not before the oldest \
             transaction has ended"
        );
    }
    has_reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_looked_at_for_a_tenth_of_the_time_at_most() {
        let pause = |look_ms| pause_after(Duration::from_millis(look_ms));
        assert_eq!(pause(20), INTERVAL);
        assert_eq!(pause(2_000), Duration::from_secs(18));
        assert_eq!(pause(3_600_000), INTERVAL_MAX);
    }
}
