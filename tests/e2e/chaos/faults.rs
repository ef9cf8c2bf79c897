//! The faults of a round: one after the other and several at a time, each healed after a while.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::time::Instant;

use super::canary::Hurts;
use super::dice::{Dice, Weights};
use super::tally::Tally;
use super::wire::{SPELLS, Sky};
use crate::e2e::faults::arena::Arena;
use crate::e2e::faults::scene::Scene;
use crate::support::proxy::http::SearchProxy;
use crate::support::proxy::tcp::Link;

/// How often what is due is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// A fast stop of Postgres takes no longer, whatever is with waldex and the search cluster.
const FAST_STOP_MAX: Duration = Duration::from_secs(5);
/// `shutdown_grace`, the last write of the state, and a busy machine.
const WALDEX_STOP_MAX: Duration = Duration::from_secs(20);
/// Elasticsearch takes its time to start, and without it not much else happens: it is killed in so many rounds
/// of a hundred, ...
const PERCENT_WITH_KILLS_OF_ELASTICSEARCH: u32 = 40;
/// ... and not again for so long.
const BETWEEN_KILLS_OF_ELASTICSEARCH: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    KillWaldex,
    KillWaldexForLonger,
    StopWaldex,
    FreezeWaldex,
    FreezeWaldexForLonger,
    KillPostgres,
    StopPostgres,
    FreezePostgres,
    FreezePostgresForLonger,
    KillElasticsearch,
    FreezeElasticsearch,
    FreezeElasticsearchForLonger,
    CutLink,
    CutLinkAfterBytes,
    RefuseLink,
    StallLink,
    DelayLink,
    SplitLink,
    Spell,
}

pub(super) const FAULTS: &[Fault] = &[
    Fault::KillWaldex,
    Fault::KillWaldexForLonger,
    Fault::StopWaldex,
    Fault::FreezeWaldex,
    Fault::FreezeWaldexForLonger,
    Fault::KillPostgres,
    Fault::StopPostgres,
    Fault::FreezePostgres,
    Fault::FreezePostgresForLonger,
    Fault::KillElasticsearch,
    Fault::FreezeElasticsearch,
    Fault::FreezeElasticsearchForLonger,
    Fault::CutLink,
    Fault::CutLinkAfterBytes,
    Fault::RefuseLink,
    Fault::StallLink,
    Fault::DelayLink,
    Fault::SplitLink,
    Fault::Spell,
];

/// What is hurt by a fault; one at a time of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Waldex,
    Postgres,
    Elasticsearch,
    Link,
    Wire,
}

impl Fault {
    fn part(self) -> Part {
        match self {
            Self::KillWaldex
            | Self::KillWaldexForLonger
            | Self::StopWaldex
            | Self::FreezeWaldex
            | Self::FreezeWaldexForLonger => Part::Waldex,
            Self::KillPostgres
            | Self::StopPostgres
            | Self::FreezePostgres
            | Self::FreezePostgresForLonger => Part::Postgres,
            Self::KillElasticsearch
            | Self::FreezeElasticsearch
            | Self::FreezeElasticsearchForLonger => Part::Elasticsearch,
            Self::CutLink
            | Self::CutLinkAfterBytes
            | Self::RefuseLink
            | Self::StallLink
            | Self::DelayLink
            | Self::SplitLink => Part::Link,
            Self::Spell => Part::Wire,
        }
    }
}

/// What is to be done to end a fault.
#[derive(Clone, Copy, Debug)]
struct Hurt {
    fault: Fault,
    until: Instant,
    /// Nothing more befalls its part before this, so that things go on meanwhile.
    rest_until: Instant,
}

/// Makes the faults of one round.
pub(super) struct Mischief<'a> {
    pub(super) arena: &'static Arena,
    pub(super) scene: &'a mut Scene,
    pub(super) link: &'a Link,
    pub(super) proxy: &'a SearchProxy,
    pub(super) sky: Sky,
    pub(super) hurts: Hurts,
    pub(super) done: Tally,
    pub(super) likely: Weights<Fault>,
    pub(super) dice: Dice,
    /// Pause between two faults, at most.
    pub(super) pause_max_ms: u32,
    now: Vec<Hurt>,
    healed: Vec<Hurt>,
    kills_elasticsearch: bool,
    elasticsearch_killed: Option<Instant>,
}

/// What a round's mischief needs.
pub(super) struct Means<'a> {
    pub(super) arena: &'static Arena,
    pub(super) scene: &'a mut Scene,
    pub(super) link: &'a Link,
    pub(super) proxy: &'a SearchProxy,
    pub(super) sky: Sky,
    pub(super) hurts: Hurts,
    pub(super) done: Tally,
    pub(super) dice: Dice,
}

impl<'a> Mischief<'a> {
    pub(super) fn new(means: Means<'a>) -> Self {
        let Means { arena, scene, link, proxy, sky, hurts, done, mut dice } = means;
        let likely = dice.weights(FAULTS);
        let pause_max_ms = *dice.one_of(&[600, 1200, 2500, 5000]);
        let kills_elasticsearch = dice.chance(PERCENT_WITH_KILLS_OF_ELASTICSEARCH);
        println!("  faults every {pause_max_ms} ms at most: {likely:?}");
        Self {
            arena,
            scene,
            link,
            proxy,
            sky,
            hurts,
            done,
            likely,
            dice,
            pause_max_ms,
            now: Vec::new(),
            healed: Vec::new(),
            kills_elasticsearch,
            elasticsearch_killed: None,
        }
    }

    /// Makes faults for this long, then heals everything.
    pub(super) async fn run(mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let mut next = Instant::now();
        while Instant::now() < end {
            self.scene.look().await?;
            self.heal(false)?;
            if Instant::now() >= next {
                let fault = self.likely.choose(&mut self.dice);
                self.begin(fault).await?;
                next = Instant::now() + self.dice.millis(self.pause_max_ms / 5, self.pause_max_ms);
            }
            tokio::time::sleep(LOOK).await;
        }
        self.heal(true)
    }

    fn is_hurt(&self, part: Part) -> bool {
        self.now.iter().any(|hurt| hurt.fault.part() == part)
    }

    /// Whether it was killed not long ago.
    fn elasticsearch_starts(&self) -> bool {
        self.elasticsearch_killed
            .is_some_and(|killed| killed.elapsed() < BETWEEN_KILLS_OF_ELASTICSEARCH)
    }

    async fn begin(&mut self, fault: Fault) -> Result<()> {
        let is_too_soon = fault == Fault::KillElasticsearch
            && (!self.kills_elasticsearch || self.elasticsearch_starts());
        self.healed.retain(|hurt| hurt.rest_until > Instant::now());
        let rests = self.healed.iter().any(|hurt| hurt.fault.part() == fault.part());
        if is_too_soon || rests || self.is_hurt(fault.part()) {
            return Ok(());
        }
        let time = match fault {
            Fault::KillWaldex | Fault::StopWaldex | Fault::StopPostgres | Fault::CutLink => {
                Duration::ZERO
            }
            Fault::KillPostgres => self.dice.millis(0, 3000),
            Fault::KillWaldexForLonger | Fault::KillElasticsearch => self.dice.millis(0, 8000),
            Fault::FreezeWaldex | Fault::FreezePostgres | Fault::FreezeElasticsearch => {
                self.dice.millis(50, 2500)
            }
            // Longer than `wal_sender_timeout`.
            Fault::FreezeWaldexForLonger
            | Fault::FreezePostgresForLonger
            | Fault::FreezeElasticsearchForLonger => self.dice.millis(6000, 10_000),
            Fault::StallLink => self.dice.millis(500, 9000),
            Fault::RefuseLink
            | Fault::CutLinkAfterBytes
            | Fault::DelayLink
            | Fault::SplitLink
            | Fault::Spell => self.dice.millis(500, 6000),
        };
        match fault.part() {
            Part::Waldex => {
                if !self.begin_waldex(fault).await? {
                    return Ok(());
                }
            }
            Part::Postgres => {
                if !self.begin_postgres(fault).await? {
                    return Ok(());
                }
            }
            Part::Elasticsearch => self.begin_elasticsearch(fault)?,
            Part::Link => self.begin_link(fault),
            Part::Wire => self.sky.set(Some(*self.dice.one_of(SPELLS))),
        }
        self.done.one(&format!("{fault:?}"));
        let until = Instant::now() + time;
        self.now.push(Hurt { fault, until, rest_until: until + time });
        Ok(())
    }

    async fn begin_waldex(&mut self, fault: Fault) -> Result<bool> {
        if fault == Fault::StopWaldex {
            return self.stop_waldex().await;
        }
        let waldex = self.scene.waldex.as_mut().context("no waldex")?;
        if matches!(fault, Fault::KillWaldex | Fault::KillWaldexForLonger) {
            waldex.kill()?;
            self.scene.is_down = true;
        } else {
            waldex.signal(Signal::STOP);
        }
        Ok(true)
    }

    /// SIGTERM: it ends in good order, whatever is with the servers.
    async fn stop_waldex(&mut self) -> Result<bool> {
        let waldex = self.scene.waldex.as_mut().context("no waldex")?;
        let Some(finished) = waldex.try_stop(WALDEX_STOP_MAX).await? else { return Ok(false) };
        // One that has just given up waiting for a server to appear ends with that reason.
        let may_have_given_up = !self.now.is_empty() || self.elasticsearch_starts();
        // Before its first line, nobody listens to signals yet.
        let had_not_begun = finished.code.is_none() && finished.stderr.is_empty();
        let is_well = finished.code == Some(0)
            || had_not_begun
            || (finished.code == Some(1) && may_have_given_up);
        ensure!(is_well, "waldex ended with {:?} after SIGTERM", finished.code);
        Ok(true)
    }

    async fn begin_postgres(&mut self, fault: Fault) -> Result<bool> {
        if fault == Fault::StopPostgres {
            return self.stop_postgres().await;
        }
        self.hurts.fetch_add(1, Ordering::Relaxed);
        let backend = self.arena.postgres.backend();
        if fault == Fault::KillPostgres {
            tokio::task::block_in_place(|| backend.kill())?;
        } else {
            backend.suspend()?;
        }
        Ok(true)
    }

    /// A fast stop. It waits for a walsender whose client does not answer, so waldex must be able to.
    async fn stop_postgres(&mut self) -> Result<bool> {
        if self.is_hurt(Part::Waldex) || self.is_hurt(Part::Link) {
            return Ok(false);
        }
        self.hurts.fetch_add(1, Ordering::Relaxed);
        let arena = self.arena;
        let stop = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            arena.postgres.backend().stop().map(|()| began.elapsed())
        });
        let took = self.scene.until(async { stop.await? }).await?;
        println!("  Postgres stopped in {took:?}");
        ensure!(
            took < FAST_STOP_MAX,
            "Postgres took {took:?} to stop:\n{}",
            arena.postgres.log_tail()
        );
        Ok(true)
    }

    fn begin_elasticsearch(&mut self, fault: Fault) -> Result<()> {
        let backend = self.arena.elasticsearch.backend();
        if fault != Fault::KillElasticsearch {
            return backend.suspend();
        }
        self.elasticsearch_killed = Some(Instant::now());
        // What was to come over its connections goes with them.
        self.proxy.forget_waiting();
        tokio::task::block_in_place(|| backend.kill())
    }

    fn begin_link(&mut self, fault: Fault) {
        let bytes = u64::from(self.dice.between(100, 300_000));
        let piece = usize::try_from(self.dice.between(1, 600)).unwrap_or(1);
        let delay = self.dice.millis(1, 40);
        self.link.set(|weather| {
            weather.refuses = fault == Fault::RefuseLink;
            weather.stalled = fault == Fault::StallLink;
            if fault == Fault::DelayLink {
                weather.delay = delay;
            }
            weather.piece_bytes = (fault == Fault::SplitLink).then_some(piece);
            weather.cut_after_bytes = (fault == Fault::CutLinkAfterBytes).then_some(bytes);
        });
        if matches!(fault, Fault::CutLink | Fault::RefuseLink) {
            self.link.cut();
        }
    }

    /// Ends the faults that have lasted long enough, or all.
    fn heal(&mut self, all: bool) -> Result<()> {
        let now = Instant::now();
        let due: Vec<Hurt> = self.now.extract_if(.., |hurt| all || hurt.until <= now).collect();
        for hurt in due {
            self.end(hurt.fault)?;
            self.healed.push(hurt);
        }
        Ok(())
    }

    fn end(&mut self, fault: Fault) -> Result<()> {
        match fault.part() {
            Part::Waldex => {
                self.scene.is_down = false;
                if let Some(waldex) = &self.scene.waldex {
                    waldex.signal(Signal::CONT);
                }
            }
            Part::Postgres => {
                let postgres = &self.arena.postgres;
                if matches!(fault, Fault::KillPostgres | Fault::StopPostgres) {
                    tokio::task::block_in_place(|| postgres.start_again())?;
                } else {
                    postgres.backend().resume()?;
                }
                self.hurts.fetch_add(1, Ordering::Relaxed);
            }
            Part::Elasticsearch => {
                let backend = self.arena.elasticsearch.backend();
                if fault == Fault::KillElasticsearch {
                    // It takes its time to be ready; other faults meet it meanwhile.
                    backend.start_again()?;
                } else {
                    backend.resume()?;
                }
            }
            Part::Link => self.link.clear(),
            Part::Wire => self.sky.set(None),
        }
        Ok(())
    }
}
