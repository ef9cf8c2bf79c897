//! What is printed. waldex's own log goes elsewhere: to standard error, and only if asked for.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;

use crate::changes::Change;
use crate::scene::{PEOPLE, Scene};

/// Times that the summary is made from.
const TIMES_MAX: usize = 10_000;

/// Times from commit to searchable, the latest ones.
#[derive(Default)]
pub(crate) struct Times {
    millis: VecDeque<u128>,
    pub(crate) count: usize,
}

impl Times {
    pub(crate) fn add(&mut self, elapsed: Duration) {
        if self.millis.len() == TIMES_MAX {
            self.millis.pop_front();
        }
        self.millis.push_back(elapsed.as_millis());
        self.count += 1;
    }

    /// One sentence.
    pub(crate) fn summary(&self) -> String {
        let mut sorted: Vec<u128> = self.millis.iter().copied().collect();
        sorted.sort_unstable();
        match (sorted.get(sorted.len() / 2), sorted.last()) {
            (Some(median), Some(longest)) => format!(
                "{} changes, from commit to searchable {median} ms (median), {longest} ms at most",
                self.count
            ),
            _ => "no changes".to_owned(),
        }
    }
}

/// What is there, and how to look at it.
pub(crate) fn introduction(scene: &Scene, load: Duration) -> Result<()> {
    let [psql, curl] = scene.ways_in()?;
    println!(
        "The table users has {PEOPLE} rows. waldex loaded them into the index {} in {:.1} s:",
        scene.index,
        load.as_secs_f64()
    );
    println!("9 of 12 columns and a computed full_name; password_hash stays where it is.\n");
    println!("Look, or change something, from another terminal:\n  {psql}\n  {curl}\n");
    println!("Now rows change. Each change is searched for from its commit on, until it is found;");
    println!(
        "a search sees what was there at the index's last refresh, every 100 ms. Ctrl-C ends."
    );
    println!("\n{:6}  {:36}  {:48}  {:>9}", "", "committed", "search", "found after");
    Ok(())
}

pub(crate) fn change(change: &Change, elapsed: Duration) {
    let Change { verb, what, query, hits, .. } = change;
    let plural = if *hits == 1 { "" } else { "s" };
    let search = format!("{query} → {hits} hit{plural}");
    println!("{verb:6}  {what:36}  {search:48}  {:>6} ms", elapsed.as_millis());
}
