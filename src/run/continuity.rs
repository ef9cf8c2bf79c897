//! Whether the stream can go on from where the state stands: asked at every start and reconnect, answered from
//! facts alone. What cannot be proven is a [`Discontinuity`], which ends in `needs_resync` (spec P5).
//!
//! # The gap test
//!
//! The state is written before its position is confirmed to Postgres, so it is never behind the slot. A slot
//! that is ahead of it was moved by somebody else, or made anew, or the state comes from an older copy of the
//! cluster: changes between the two were never seen. A slot behind it is the usual replay.
//!
//! # Failover
//!
//! A standby that is promoted begins a new timeline where the WAL it had received ended. `TIMELINE_HISTORY`
//! names that position. Up to there both timelines are the same bytes, so:
//!
//! - at or before it, nothing that the indices hold is missing on the new timeline. The stream goes on there.
//!   Versions stay comparable: whatever commits on the new timeline does so beyond the position at which it
//!   begins, so with a higher LSN than every version written so far;
//!   "Hold" is more than the state's position: the newest transaction of which anything was sent, confirmed or
//!   not, and all that a load has seen. After a crash nobody knows what was sent last; a crash and a failover
//!   together are therefore refused.
//! - beyond it, the indices hold changes that the new primary never had. To send our own position would make it
//!   skip what it has in their place (observed: without a word), and versions would compare changes of two
//!   histories. The position at which a timeline began is remembered, because two standbys of one primary may
//!   both be promoted to the same number.
//!
//! A server whose WAL ends before the state's position was restored from a backup, or is a copy of one.
//!
//! # Epochs
//!
//! The high bits of a version would tell apart LSNs that cannot be compared. They stay zero: within one
//! generation all LSNs are of one continuous history, or this module has stopped the run; and whatever begins
//! anew (`--reload`, a state that is lost) writes generations of its own, which no version of before has reached.
//!
//! # What cannot be seen from here
//!
//! A backup that was restored and has since written beyond our position on the same timeline looks like the
//! original. So does a copy that was promoted while the original lives and that is asked in its place; as long
//! as the original's waldex runs, its lease keeps the second one out.

use crate::elasticsearch::state::State;
use crate::error::{Discontinuity, Error};
use crate::lsn::Lsn;
use crate::postgres::replication::SystemIdentity;
use crate::postgres::slot::SlotFacts;
use crate::postgres::timeline::History;

/// What the server says of itself and of the slot.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) system: SystemIdentity,
    /// Of its timeline; none of the first, or if the server has lost the file.
    pub(crate) history: Option<History>,
    pub(crate) slot: Option<SlotFacts>,
}

/// A timeline, told from others of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeline {
    pub(crate) number: u32,
    /// Where it left the one before, if that is known.
    pub(crate) begun_at: Option<Lsn>,
}

impl Source {
    /// The timeline the server is on.
    pub(crate) fn timeline(&self) -> Timeline {
        let number = self.system.timeline;
        let begun_at = self.history.as_ref().and_then(|history| history.begun_at(number));
        Timeline { number, begun_at }
    }
}

/// Whether the stream can go on from `state`; on which timeline.
pub(crate) fn prove(
    state: &State,
    source: &Source,
    slot_name: &str,
) -> Result<Timeline, Discontinuity> {
    if state.system_id != source.system.system_id {
        return Err(Discontinuity::OtherSystem {
            state: state.system_id.clone(),
            found: source.system.system_id.clone(),
        });
    }
    prove_timeline(state, source)?;
    if state.durable_lsn > source.system.flush_lsn {
        return Err(Discontinuity::Ahead {
            state_lsn: state.durable_lsn,
            flush_lsn: source.system.flush_lsn,
        });
    }
    prove_slot(state, source.slot.as_ref(), slot_name)?;
    prove_end(state, source)?;
    Ok(source.timeline())
}

fn prove_timeline(state: &State, source: &Source) -> Result<(), Discontinuity> {
    let (ours, theirs) = (state.timeline, source.system.timeline);
    let other = Discontinuity::OtherTimeline { state: ours, found: theirs };
    let history = source.history.as_ref();
    // Whether what the server calls by our number is what we call so.
    let begun_at = history.and_then(|history| history.begun_at(ours));
    if state.timeline_begun_at.zip(begun_at).is_some_and(|(ours, theirs)| ours != theirs) {
        return Err(other);
    }
    if ours == theirs {
        return Ok(());
    }
    let left_at = history.and_then(|history| history.left_at(ours)).ok_or(other)?;
    // Up to where the indices are known to hold something: what the stream wrote, and what the loads saw.
    let loads = state.tables.values().filter(|table| table.loaded);
    let seen = loads.filter_map(|table| table.load_end_lsn).max().unwrap_or_default();
    let held = state.written_lsn.unwrap_or_default().max(state.durable_lsn).max(seen);
    if held > left_at {
        return Err(Discontinuity::Diverged { state_lsn: held, timeline: theirs, left_at });
    }
    Ok(())
}

/// After a failover it must be known what was written last.
fn prove_end(state: &State, source: &Source) -> Result<(), Discontinuity> {
    let timeline = source.system.timeline;
    let left_at = source.history.as_ref().and_then(|history| history.left_at(state.timeline));
    match (left_at, state.written_lsn) {
        (Some(left_at), None) if timeline != state.timeline => {
            Err(Discontinuity::Unproven { timeline, left_at })
        }
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

fn prove_slot(
    state: &State,
    slot: Option<&SlotFacts>,
    slot_name: &str,
) -> Result<(), Discontinuity> {
    let slot = prove_kept(slot, slot_name)?;
    match slot.confirmed_flush {
        Some(slot_lsn) if slot_lsn > state.durable_lsn => {
            Err(Discontinuity::Gap { slot_lsn, state_lsn: state.durable_lsn })
        }
        Some(_) => Ok(()),
        // The state was written after the slot was complete, so this is another one.
        None => {
            let reason = "it was made anew, and is not complete".to_owned();
            Err(Discontinuity::SlotLost { slot: slot_name.to_owned(), reason })
        }
    }
}

/// Whether the slot is there, with the WAL it needs.
pub(crate) fn prove_kept<'a>(
    slot: Option<&'a SlotFacts>,
    slot_name: &str,
) -> Result<&'a SlotFacts, Discontinuity> {
    let named = || slot_name.to_owned();
    let slot = slot.ok_or_else(|| Discontinuity::SlotGone { slot: named() })?;
    match slot.lost_because() {
        Some(reason) => Err(Discontinuity::SlotLost { slot: named(), reason }),
        None => Ok(slot),
    }
}

/// The same error, or what it means for continuity: that the slot is gone, or lost, which the server need not have
/// noticed before.
pub(crate) fn told(error: Error, slot_name: &str) -> Error {
    let Error::Postgres(error) = error else { return error };
    let slot = slot_name.to_owned();
    match error.server().filter(|_| error.is_lost_slot()) {
        Some(_) if error.is_undefined() => Error::NeedsResync(Discontinuity::SlotGone { slot }),
        Some(server) => {
            let reason = server.shown().into_owned();
            Error::NeedsResync(Discontinuity::SlotLost { slot, reason })
        }
        None => Error::Postgres(error),
    }
}

/// Whether the reason is that there is no slot to read from any more.
pub(crate) fn is_without_slot(error: &Error) -> bool {
    matches!(
        error,
        Error::NeedsResync(Discontinuity::SlotGone { .. } | Discontinuity::SlotLost { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elasticsearch::state::TableState;

    const SYSTEM: &str = "7000000000000000001";

    fn state(timeline: u32, durable: u64) -> State {
        State::new(SYSTEM.to_owned(), timeline, "app".to_owned(), "s", "p", Lsn::new(durable))
    }

    fn source(timeline: u32, flush: u64, history: &str, slot: Option<SlotFacts>) -> Source {
        Source {
            system: SystemIdentity {
                system_id: SYSTEM.to_owned(),
                timeline,
                flush_lsn: Lsn::new(flush),
                database: Some("app".to_owned()),
            },
            history: History::parse(history).filter(|_| timeline > 1),
            slot,
        }
    }

    fn slot(confirmed: u64) -> Option<SlotFacts> {
        Some(SlotFacts { confirmed_flush: Some(Lsn::new(confirmed)), ..SlotFacts::for_test() })
    }

    fn verdict(state: &State, source: &Source) -> Result<Timeline, Discontinuity> {
        prove(state, source, "s")
    }

    fn first() -> Timeline {
        Timeline { number: 1, begun_at: None }
    }

    #[test]
    fn a_slot_at_or_behind_the_state_is_the_usual_replay() {
        for confirmed in [1, 50, 100] {
            assert_eq!(verdict(&state(1, 100), &source(1, 100, "", slot(confirmed))), Ok(first()));
        }
    }

    #[test]
    fn a_slot_ahead_of_the_state_is_a_gap() {
        let gap = Discontinuity::Gap { slot_lsn: Lsn::new(101), state_lsn: Lsn::new(100) };
        assert_eq!(verdict(&state(1, 100), &source(1, 500, "", slot(101))), Err(gap));
    }

    #[test]
    fn a_slot_that_is_gone_lost_or_unfinished_is_not_made_anew() {
        let gone = verdict(&state(1, 100), &source(1, 500, "", None));
        assert_eq!(gone, Err(Discontinuity::SlotGone { slot: "s".to_owned() }));
        let lost = slot(50).map(|it| SlotFacts { wal_status: Some("lost".to_owned()), ..it });
        let unfinished = slot(50).map(|it| SlotFacts { confirmed_flush: None, ..it });
        let reason = Some("wal_removed".to_owned());
        let invalid = slot(50).map(|it| SlotFacts { invalidation_reason: reason, ..it });
        for slot in [lost, unfinished, invalid] {
            let verdict = verdict(&state(1, 100), &source(1, 500, "", slot));
            assert!(matches!(verdict, Err(Discontinuity::SlotLost { .. })), "{verdict:?}");
        }
    }

    #[test]
    fn another_system_is_refused_before_anything_else() {
        let mut other = state(1, 900);
        other.system_id = "1".to_owned();
        let verdict = verdict(&other, &source(2, 500, "1\t0/1\tx", None));
        assert!(matches!(verdict, Err(Discontinuity::OtherSystem { .. })), "{verdict:?}");
    }

    #[test]
    fn a_server_whose_wal_ends_before_the_state_was_restored() {
        let ahead = Discontinuity::Ahead { state_lsn: Lsn::new(101), flush_lsn: Lsn::new(100) };
        assert_eq!(verdict(&state(1, 101), &source(1, 100, "", slot(50))), Err(ahead));
    }

    #[test]
    fn a_failover_goes_on_up_to_the_fork_and_not_beyond() {
        let promoted =
            |durable| verdict(&state(1, durable), &source(2, 500, "1\t0/64\tx", slot(9)));
        let second = Timeline { number: 2, begun_at: Some(Lsn::new(100)) };
        assert_eq!(promoted(99), Ok(second));
        assert_eq!(promoted(100), Ok(second));
        let diverged = Discontinuity::Diverged {
            state_lsn: Lsn::new(101),
            timeline: 2,
            left_at: Lsn::new(100),
        };
        assert_eq!(promoted(101), Err(diverged));
    }

    #[test]
    fn what_was_written_or_loaded_beyond_the_fork_counts_and_after_a_crash_nobody_knows() {
        let promoted = source(2, 500, "1\t0/64\tx", slot(9));
        let mut ours = state(1, 50);
        ours.written_lsn = Some(Lsn::new(100));
        assert!(verdict(&ours, &promoted).is_ok());
        ours.written_lsn = Some(Lsn::new(101));
        assert!(matches!(verdict(&ours, &promoted), Err(Discontinuity::Diverged { .. })));
        ours.written_lsn = None;
        assert!(matches!(verdict(&ours, &promoted), Err(Discontinuity::Unproven { .. })));
        assert!(
            verdict(&ours, &source(1, 500, "", slot(9))).is_ok(),
            "without a failover it is no matter"
        );
        let mut ours = state(1, 50);
        let table = TableState {
            index: "t".to_owned(),
            generation: 1,
            loaded: true,
            load_begun: true,
            load_end_lsn: Some(Lsn::new(101)),
            previous_generation: None,
            readable: true,
            load_snapshot: None,
            source: None,
            refresh_recommended: false,
            reload_recommended: None,
        };
        ours.tables.insert("public.t".to_owned(), table);
        assert!(matches!(verdict(&ours, &promoted), Err(Discontinuity::Diverged { .. })));
    }

    #[test]
    fn failovers_that_were_slept_through_are_looked_at_each() {
        let history = "1\t0/64\tx\n2\t0/C8\tx\n";
        let at = |timeline, durable| {
            verdict(&state(timeline, durable), &source(3, 900, history, slot(9)))
        };
        assert!(at(1, 100).is_ok() && at(2, 200).is_ok());
        assert!(matches!(at(1, 150), Err(Discontinuity::Diverged { .. })));
        assert!(matches!(at(2, 201), Err(Discontinuity::Diverged { .. })));
    }

    #[test]
    fn a_timeline_that_is_no_ancestor_is_another() {
        let other = |state: &State, source: &Source| {
            assert!(matches!(verdict(state, source), Err(Discontinuity::OtherTimeline { .. })));
        };
        // The old primary, still there after a failover.
        other(&state(2, 100), &source(1, 500, "", slot(9)));
        // Promoted from the first timeline beside the second.
        other(&state(2, 100), &source(3, 500, "1\t0/64\tx\n", slot(9)));
        // The history cannot be had.
        let unknown = Source { history: None, ..source(2, 500, "", slot(9)) };
        other(&state(1, 100), &unknown);
    }

    #[test]
    fn two_promoted_to_the_same_number_are_told_apart_by_where_they_began() {
        let mut ours = state(2, 150);
        ours.timeline_begun_at = Some(Lsn::new(100));
        assert!(verdict(&ours, &source(2, 500, "1\t0/64\tx\n", slot(9))).is_ok());
        let theirs = verdict(&ours, &source(2, 500, "1\t0/60\tx\n", slot(9)));
        assert!(matches!(theirs, Err(Discontinuity::OtherTimeline { .. })), "{theirs:?}");
        let grandchild = verdict(&ours, &source(3, 500, "1\t0/60\tx\n2\t0/C8\tx\n", slot(9)));
        assert!(matches!(grandchild, Err(Discontinuity::OtherTimeline { .. })), "{grandchild:?}");
        // A server that has lost the file says nothing against it.
        let unknown = Source { history: None, ..source(2, 500, "", slot(9)) };
        assert!(verdict(&ours, &unknown).is_ok());
    }
}
