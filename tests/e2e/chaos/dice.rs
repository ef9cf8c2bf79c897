//! Every random choice comes from one of these, and each from the round's seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Seeds of one round's parts lie this far apart.
const APART: u64 = 0x9E37_79B9_7F4A_7C15;
/// What a weight may be: some things never happen in a round, some all the time.
const WEIGHTS: [u32; 8] = [0, 0, 1, 1, 2, 3, 6, 12];

pub(super) struct Dice(StdRng);

impl Dice {
    /// Those of part `number` of what has this seed.
    pub(super) fn of(seed: u64, number: u64) -> Self {
        Self(StdRng::seed_from_u64(seed ^ number.wrapping_add(1).wrapping_mul(APART)))
    }

    /// At least `from`, less than `to`.
    pub(super) fn between(&mut self, from: u32, to: u32) -> u32 {
        self.0.random_range(from..to.max(from + 1))
    }

    pub(super) fn below(&mut self, to: u32) -> u32 {
        self.between(0, to)
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0.random()
    }

    pub(super) fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.0.random_range(0..all.len())]
    }

    pub(super) fn millis(&mut self, from: u32, to: u32) -> Duration {
        Duration::from_millis(self.between(from, to).into())
    }

    /// Random weights for these, of which at least one is not 0.
    pub(super) fn weights<T: Copy>(&mut self, all: &[T]) -> Weights<T> {
        let mut weights: Vec<(T, u32)> =
            all.iter().map(|one| (*one, *self.one_of(&WEIGHTS))).collect();
        if weights.iter().all(|(_, weight)| *weight == 0) {
            weights.iter_mut().for_each(|(_, weight)| *weight = 1);
        }
        Weights(weights)
    }
}

/// Things, and how often each is chosen.
#[derive(Clone, Debug)]
pub(super) struct Weights<T>(Vec<(T, u32)>);

impl<T: Copy> Weights<T> {
    pub(super) fn choose(&self, dice: &mut Dice) -> T {
        let mut left = dice.below(self.0.iter().map(|(_, weight)| weight).sum());
        for (one, weight) in &self.0 {
            if left < *weight {
                return *one;
            }
            left -= weight;
        }
        self.0[0].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_chooses_the_same() {
        let choices = |seed| {
            let mut dice = Dice::of(seed, 3);
            let weights = dice.weights(&['a', 'b', 'c', 'd', 'e', 'f']);
            (0..50).map(|_| weights.choose(&mut dice)).collect::<String>()
        };
        assert_eq!(choices(7), choices(7));
        assert_ne!(choices(7), choices(8));
    }
}
