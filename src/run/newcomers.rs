//! Tables that join a publication of which every table is wanted, and that cannot be kept: without a key, under a
//! name that no index may have. Nobody asked for them by name, and the tables that are kept must not stop for them,
//! so they are left out, and told of; the watch finds them mended.
//!
//! At the first start of all nothing is left out: whoever sets waldex up is told of everything that is in the way.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::foreign::refuse_foreign_index;
use super::tables::Plan;
use crate::elasticsearch::client::Client;
use crate::elasticsearch::state::{State, TableState};
use crate::error::Error;
use crate::findings::{Cure, Problem};
use crate::postgres::catalog::PublishedTable;
use crate::settings::Settings;

/// A table of the publication that is not kept.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// As the catalog described it then.
    pub published: PublishedTable,
    /// Why.
    pub problem: Problem,
}

/// What a plan may leave out.
#[derive(Debug, Default)]
pub struct Newcomers {
    /// The tables that are kept already; none if nothing may be left out.
    kept: Option<BTreeSet<String>>,
    /// What was said of others.
    unfit: BTreeMap<String, Problem>,
}

impl Newcomers {
    /// Every table but those that `state` knows to be loaded, if there are any and none is configured.
    pub(crate) fn of(settings: &Settings, state: Option<&State>) -> Self {
        let state = state.filter(|state| settings.tables.is_empty() && !state.is_claim());
        let tables = state.into_iter().flat_map(|state| &state.tables);
        let is_kept = |entry: &TableState| entry.loaded || entry.previous_generation.is_some();
        let kept: BTreeSet<String> =
            tables.filter(|(_, entry)| is_kept(entry)).map(|(name, _)| name.clone()).collect();
        Self { kept: Some(kept).filter(|kept| !kept.is_empty()), unfit: BTreeMap::new() }
    }

    /// Whether this table may be left out.
    pub(crate) fn may_leave(&self, name: &str) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.contains(name))
    }

    /// Takes what is in the way of newcomers alone.
    pub(crate) fn take_from(&mut self, problems: &mut Vec<Problem>) {
        let of_newcomer = |problem: &mut Problem| {
            problem.cure == Cure::ByHand
                && problem.table.as_ref().is_some_and(|name| self.may_leave(name))
        };
        let taken: Vec<Problem> = problems.extract_if(.., of_newcomer).collect();
        for problem in taken {
            if let Some(name) = problem.table.clone() {
                self.unfit.entry(name).or_insert(problem);
            }
        }
    }

    /// What was said of this table.
    pub(crate) fn unfit(&self, name: &str) -> Option<&Problem> {
        self.unfit.get(name)
    }
}

/// What stands in the way of a table, if `error` is about its definition or configuration.
pub(crate) fn problem_of(error: Error) -> Result<Problem, Error> {
    if let Error::Configuration { what, fix } = error {
        Ok(Problem::new(what, fix))
    } else {
        Err(error)
    }
}

/// Leaves out newcomers whose index would have a name that is taken.
///
/// # Errors
/// The cluster's.
pub(crate) async fn leave_out_foreign(
    client: &Client,
    plan: &mut Plan,
    newcomers: &Newcomers,
) -> Result<(), Error> {
    for table in std::mem::take(&mut plan.tables) {
        // Of others it is told where the index would be made.
        if !newcomers.may_leave(&table.name()) {
            plan.tables.push(table);
            continue;
        }
        match refuse_foreign_index(client, &table.settings.index).await {
            Ok(()) => plan.tables.push(table),
            Err(error) => {
                let problem = problem_of(error)?;
                plan.left_out.push(LeftOut { published: table.published, problem });
            }
        }
    }
    Ok(())
}

/// Leaves out newcomers whose index would not keep their documents whole.
pub(crate) fn leave_out_unfit(plan: &mut Plan, newcomers: &Newcomers) {
    for table in std::mem::take(&mut plan.tables) {
        match newcomers.unfit(&table.name()) {
            None => plan.tables.push(table),
            Some(problem) => {
                let problem = problem.clone();
                plan.left_out.push(LeftOut { published: table.published, problem });
            }
        }
    }
}

/// What the state says of them: why, and what to do, by schema-qualified name.
pub(crate) fn remembered(left_out: &[LeftOut]) -> BTreeMap<String, String> {
    let entry = |LeftOut { published, problem }: &LeftOut| {
        (published.relation.full_name(), format!("{}; {}", problem.what, problem.fix))
    };
    left_out.iter().map(entry).collect()
}

/// Says which tables are not kept, and why.
pub(crate) fn say(left_out: &[LeftOut]) {
    for LeftOut { published, problem } in left_out {
        warn!(
            table = published.sql_name(),
            reason = problem.what,
            remedy = problem.fix,
            "a table that joined the publication is left out: it cannot be kept as it is"
        );
    }
}
