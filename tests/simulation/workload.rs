//! What applications do to the source: random transactions, several of them open at a time.

use rand::RngExt;
use rand::rngs::StdRng;

use super::cluster::{POISON, SPOILS};
use super::shape::{KEYS, Key, Row, Shape};
use super::source::Source;

/// Transactions open at a time, at most.
const OPEN_MAX: usize = 3;

/// How often each kind of change is made; a swarm: each seed leaves some out.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    tables: Vec<Shape>,
    put: u32,
    remove: u32,
    replace: u32,
    relocate: u32,
    swap: u32,
    chain: u32,
    truncate: u32,
    message: u32,
    /// Of a thousand rows, so many that the cluster refuses.
    pub(crate) poison_permille: u32,
    commit_probability: f64,
}

impl Workload {
    pub(crate) fn random(random: &mut StdRng) -> Self {
        let mut weight = |most: u32| {
            if random.random_bool(0.3) { 0 } else { random.random_range(1..=most) }
        };
        let (remove, replace, relocate) = (weight(10), weight(6), weight(8));
        let (swap, chain, truncate, message) = (weight(4), weight(4), weight(2), weight(1));
        let poison_permille = if random.random_bool(0.2) { 15 } else { 0 };
        let mut tables = vec![Shape::Default, Shape::Full, Shape::Index, Shape::Unconfigured];
        tables.retain(|_| random.random_bool(0.6));
        if !tables.iter().any(|table| table.is_configured()) {
            tables.push(Shape::Default);
        }
        Self {
            tables,
            put: 10,
            remove,
            replace,
            relocate,
            swap,
            chain,
            truncate,
            message,
            poison_permille,
            commit_probability: [0.05, 0.2, 0.5][random.random_range(0..3)],
        }
    }

    /// Goes on by a little: a change, a begin, a commit, or WAL of somebody else.
    pub(crate) fn advance(&self, source: &mut Source, random: &mut StdRng) {
        if source.open.is_empty() || source.open.len() < OPEN_MAX && random.random_bool(0.1) {
            source.begin();
        }
        let at = random.random_range(0..source.open.len());
        if random.random_bool(0.05) {
            source.write_elsewhere(random.random_range(1..2_000));
        } else if random.random_bool(0.02) {
            source.roll_back(at);
        } else if random.random_bool(self.commit_probability) {
            source.commit(at);
        } else {
            self.change(source, at, random);
        }
    }

    /// Ends what is still open.
    pub(crate) fn finish(source: &mut Source) {
        while !source.open.is_empty() {
            source.commit(0);
        }
    }

    fn change(&self, source: &mut Source, at: usize, random: &mut StdRng) {
        let table = self.tables[random.random_range(0..self.tables.len())];
        let [key, other, third] = [0; 3].map(|_| random.random_range(0..KEYS));
        let kinds: [(u32, Kind); 8] = [
            (self.put, Kind::Put),
            (self.remove, Kind::Remove),
            (self.replace, Kind::Replace),
            (self.relocate, Kind::Relocate),
            (self.swap, Kind::Swap),
            (self.chain, Kind::Chain),
            (self.truncate, Kind::Truncate),
            (self.message, Kind::Message),
        ];
        let free = |source: &Source, key| source.row(at, table, key).is_none();
        if ![key, other, third].iter().all(|&key| source.can_lock(at, table, key)) {
            return;
        }
        match pick(&kinds, random) {
            Kind::Put => self.put(source, at, table, (key, key), random),
            Kind::Remove => source.delete(at, table, key),
            Kind::Replace => {
                source.delete(at, table, key);
                self.put(source, at, table, (key, key), random);
            }
            Kind::Relocate => self.relocate(source, at, table, (key, other), random),
            // Through a free key; the large values travel unchanged.
            Kind::Swap if key != other && free(source, third) => {
                self.relocate(source, at, table, (key, third), random);
                self.relocate(source, at, table, (other, key), random);
                self.relocate(source, at, table, (third, other), random);
            }
            Kind::Chain if key != other && free(source, third) => {
                self.relocate(source, at, table, (key, third), random);
                self.relocate(source, at, table, (other, key), random);
            }
            Kind::Swap | Kind::Chain => self.put(source, at, table, (key, key), random),
            Kind::Truncate => {
                let mut tables = self.tables.clone();
                tables.retain(|_| random.random_bool(0.6));
                if !tables.is_empty() {
                    source.truncate(at, &tables);
                }
            }
            Kind::Message => source.message(at),
        }
    }

    fn relocate(
        &self,
        source: &mut Source,
        at: usize,
        table: Shape,
        (from, to): (Key, Key),
        random: &mut StdRng,
    ) {
        let exists = source.row(at, table, from).is_some();
        if exists && source.row(at, table, to).is_none() {
            self.put(source, at, table, (from, to), random);
        }
    }

    /// Writes a row; of one that exists, the large value mostly stays as it is.
    fn put(
        &self,
        source: &mut Source,
        at: usize,
        table: Shape,
        (from, to): (Key, Key),
        random: &mut StdRng,
    ) {
        let number = random.random_range(0..1_000);
        let large = match source.row(at, table, from) {
            Some(old) if random.random_bool(0.7) => old.large,
            Some(_) | None => match random.random_range(0..6) {
                0 => None,
                1 => Some(format!("short {number}")),
                _ => Some(format!("large {number} {}", "x".repeat(random.random_range(40..90)))),
            },
        };
        let is_poison = random.random_ratio(self.poison_permille, 1_000);
        let text = match is_poison {
            true if random.random_bool(0.3) => SPOILS.to_owned(),
            true => POISON.to_owned(),
            false => format!("\"{number}\"\n"),
        };
        source.put(at, table, from, to, Row { text, large, step: 0 });
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Put,
    Remove,
    Replace,
    Relocate,
    Swap,
    Chain,
    Truncate,
    Message,
}

fn pick(kinds: &[(u32, Kind)], random: &mut StdRng) -> Kind {
    let total = kinds.iter().map(|(weight, _)| weight).sum();
    let mut left = random.random_range(0..total);
    for (weight, kind) in kinds {
        if left < *weight {
            return *kind;
        }
        left -= weight;
    }
    Kind::Put
}
