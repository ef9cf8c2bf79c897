//! What happens to single requests between waldex and the search cluster, all through a round.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::dice::{Dice, Weights};
use super::tally::Tally;
use crate::support::proxy::http::{Fault, Request};

/// What every request meets while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spell {
    Overload,
    Unavailable,
    Gateway,
    Trickle,
}

pub(super) const SPELLS: &[Spell] =
    &[Spell::Overload, Spell::Unavailable, Spell::Gateway, Spell::Trickle];

/// What one request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    Delay,
    CutRequest,
    LoseAnswer,
    Silence,
    Late,
    TwiceAtOnce,
    TwiceLater,
    CutAnswer,
    ShortenAnswer,
    Overload,
    Unavailable,
}

const MISHAPS: &[Mishap] = &[
    Mishap::Delay,
    Mishap::CutRequest,
    Mishap::LoseAnswer,
    Mishap::Silence,
    Mishap::Late,
    Mishap::TwiceAtOnce,
    Mishap::TwiceLater,
    Mishap::CutAnswer,
    Mishap::ShortenAnswer,
    Mishap::Overload,
    Mishap::Unavailable,
];

const OVERLOAD: &str = r#"{"error":{"type":"es_rejected_execution_exception"},"status":429}"#;
const UNAVAILABLE: &str = r#"{"error":{"type":"unavailable_shards_exception"},"status":503}"#;
const GATEWAY: &str = "<html>of some gateway</html>";
/// The latest that a late request comes. The tombstones of waldex's indices live longer.
const LATE_MS_MAX: u32 = 20_000;

/// The spell of now, set by who makes the faults.
#[derive(Clone, Default)]
pub(super) struct Sky(Arc<Mutex<Option<Spell>>>);

impl Sky {
    pub(super) fn set(&self, spell: Option<Spell>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = spell;
    }

    fn spell(&self) -> Option<Spell> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rule for the proxy.
pub(super) fn rule(
    mut dice: Dice,
    sky: Sky,
    faults: Tally,
) -> impl FnMut(&Request) -> Fault + Send + 'static {
    let mishaps = dice.weights(MISHAPS);
    let percent_of_bulks = *dice.one_of(&[0, 2, 6, 15]);
    let percent_of_others = *dice.one_of(&[0, 2, 6]);
    println!(
        "  of bulks {percent_of_bulks} %, of other requests {percent_of_others} %: {mishaps:?}"
    );
    move |request| {
        if let Some(spell) = sky.spell() {
            faults.one(&format!("request under {spell:?}"));
            return of_spell(spell);
        }
        let percent = if request.is_bulk() { percent_of_bulks } else { percent_of_others };
        if !dice.chance(percent) {
            return Fault::Pass;
        }
        let (kind, fault) = mishap(&mut dice, &mishaps, request);
        faults.one(&format!("request {kind:?}"));
        fault
    }
}

fn of_spell(spell: Spell) -> Fault {
    match spell {
        Spell::Overload => Fault::Answer(429, OVERLOAD),
        Spell::Unavailable => Fault::Answer(503, UNAVAILABLE),
        Spell::Gateway => Fault::Answer(502, GATEWAY),
        Spell::Trickle => Fault::Trickle(200, Duration::from_millis(5)),
    }
}

fn mishap(dice: &mut Dice, mishaps: &Weights<Mishap>, request: &Request) -> (Mishap, Fault) {
    let kind = mishaps.choose(dice);
    let part = u32::try_from(request.body_bytes).unwrap_or(1_000_000);
    let mut some = |bytes: u32| usize::try_from(dice.below(bytes)).unwrap_or(0);
    let fault = match kind {
        Mishap::CutRequest => Fault::CutRequest(some(part)),
        Mishap::CutAnswer => Fault::CutAnswer(some(300)),
        Mishap::ShortenAnswer => Fault::ShortenAnswer(some(300)),
        Mishap::LoseAnswer => Fault::LoseAnswer,
        Mishap::Silence => Fault::Silence,
        Mishap::Delay => Fault::Delay(dice.millis(5, 1500)),
        Mishap::Late => Fault::Late(dice.millis(0, 3000)),
        Mishap::TwiceAtOnce => Fault::Twice(Duration::ZERO),
        Mishap::TwiceLater => Fault::Twice(dice.millis(50, LATE_MS_MAX)),
        Mishap::Overload => Fault::Answer(429, OVERLOAD),
        Mishap::Unavailable => Fault::Answer(503, UNAVAILABLE),
    };
    (kind, fault)
}
