//! `on_slot_lost: rebuild`: a slot that is gone, lost or moved is made anew, and every index with it, without
//! anybody asking.
//!
//! Not in a loop: a source that writes more WAL during a load than a slot may keep would be loaded for ever. The
//! last time is in the state, so that a restart does not forget it.

use std::time::Duration;

use crate::elasticsearch::state::State;
use crate::error::{Discontinuity, Error};
use crate::findings::Cure;
use crate::settings::{OnSlotLost, Settings};

/// From the beginning of one to that of the next, at least.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Whether a run that ends so is to build everything anew instead.
pub(super) fn is_wanted(settings: &Settings, error: &Error) -> bool {
    settings.on_slot_lost == OnSlotLost::Rebuild && is_of_slot(error)
}

/// Whether nothing but the slot is the reason: the database is the one it was.
fn is_of_slot(error: &Error) -> bool {
    if let Error::NeedsResync(gap) = error {
        return match gap {
            Discontinuity::SlotGone { .. }
            | Discontinuity::SlotLost { .. }
            | Discontinuity::Gap { .. } => true,
            Discontinuity::OtherSystem { .. }
            | Discontinuity::OtherTimeline { .. }
            | Discontinuity::Diverged { .. }
            | Discontinuity::Ahead { .. }
            | Discontinuity::Unproven { .. }
            | Discontinuity::Unaccounted { .. }
            | Discontinuity::IndexGone { .. } => false,
        };
    }
    if let Error::Preflight(problems) = error {
        return !problems.is_empty() && problems.iter().all(|it| it.cure == Cure::ByReload);
    }
    matches!(error, Error::Postgres(error) if error.is_lost_slot())
}

/// Why not, if not now.
pub(super) fn may_begin(known: Option<&State>, now_micros: i64) -> Result<(), &'static str> {
    let Some((state, last)) = known.and_then(|state| Some((state, state.rebuilt_at_micros?)))
    else {
        return Ok(());
    };
    if !state.tables.values().all(|table| table.loaded && table.readable) {
        return Err(
            "the slot was lost again before the last time was complete: raise max_slot_wal_keep_size",
        );
    }
    let ago = u64::try_from(now_micros.saturating_sub(last)).unwrap_or(0);
    if Duration::from_micros(ago) < INTERVAL {
        return Err("the last time was less than an hour ago");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    fn state(rebuilt_at_micros: Option<i64>) -> State {
        let system = "7000000000000000001".to_owned();
        let mut state = State::new(system, 1, "app".to_owned(), "s", "p", Lsn::new(9));
        state.rebuilt_at_micros = rebuilt_at_micros;
        state
    }

    #[test]
    fn never_twice_within_an_hour_or_before_the_last_was_complete() {
        const HOUR_MICROS: i64 = 3_600_000_000;
        assert!(may_begin(None, 5).is_ok());
        assert!(may_begin(Some(&state(None)), 5).is_ok());
        assert!(may_begin(Some(&state(Some(5))), HOUR_MICROS).is_err());
        assert!(may_begin(Some(&state(Some(5))), HOUR_MICROS + 5).is_ok());
        let mut unfinished = state(Some(5));
        unfinished.tables.insert(
            "public.t".to_owned(),
            crate::elasticsearch::state::TableState {
                index: "t".to_owned(),
                generation: 2,
                loaded: true,
                load_begun: true,
                load_end_lsn: None,
                previous_generation: Some(1),
                readable: false,
                load_snapshot: None,
                source: None,
                refresh_recommended: false,
                reload_recommended: None,
            },
        );
        assert!(may_begin(Some(&unfinished), i64::MAX).is_err());
    }

    #[test]
    fn only_the_slot_is_made_anew_by_itself() {
        let of = |gap| is_of_slot(&Error::NeedsResync(gap));
        assert!(of(Discontinuity::SlotGone { slot: "s".to_owned() }));
        assert!(of(Discontinuity::Gap { slot_lsn: Lsn::new(2), state_lsn: Lsn::new(1) }));
        assert!(!of(Discontinuity::OtherTimeline { state: 1, found: 2 }));
        assert!(!of(Discontinuity::IndexGone { index: "t-000001".to_owned() }));
        assert!(!is_of_slot(&Error::Preflight(Vec::new())));
        assert!(!is_of_slot(&Error::SynchronousStandby));
    }
}
