//! A connection over which nothing comes any more, and of which nobody says that it is closed: a firewall that has
//! forgotten it, a proxy in between that hangs, a host that is gone.
//!
//! An idle server says nothing either, so it is asked. No answer is no proof: a walsender that decodes a large
//! transaction of which nothing is published does not listen meanwhile, for minutes, and to cut it off would make
//! it begin again. Then the server is asked over another connection what that walsender does. Only if that
//! connection cannot be had, or the walsender is gone, or waits and would answer, the silence is an end.
//!
//! The time during which we do not read does not count.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::debug;

use crate::postgres::catalog;
use crate::postgres::session::{Purpose, Session};
use crate::settings::PostgresSettings;

/// Silent for so long, the server is asked for a keepalive.
const ASK_AFTER: Duration = Duration::from_secs(5);
/// And without an answer for so long, it is looked at.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// Between two looks at a walsender that waits: the answer may be on its way.
const SECOND_LOOK: Duration = Duration::from_secs(1);

const TOO_MANY_CONNECTIONS: &str = "53300";

/// What is to be done about the silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Ask the server for a keepalive.
    Ask,
    /// Look at the walsender from elsewhere.
    Look,
}

/// Pure: how long nothing has come.
#[derive(Debug)]
struct Timer {
    heard_at: Instant,
    asked_at: Option<Instant>,
}

impl Timer {
    fn heard(&mut self, now: Instant) {
        *self = Self { heard_at: now, asked_at: None };
    }

    /// Call it about once a second.
    fn step(&mut self, now: Instant) -> Step {
        match self.asked_at {
            Some(at) if now.saturating_duration_since(at) >= LOOK_AFTER => return Step::Look,
            None if now.saturating_duration_since(self.heard_at) >= ASK_AFTER => {
                self.asked_at = Some(now);
                return Step::Ask;
            }
            Some(_) | None => {}
        }
        Step::Nothing
    }
}

/// Watches over one stream.
pub(super) struct Silence {
    timer: Timer,
    looking: Option<JoinHandle<bool>>,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self { timer: Timer { heard_at: now, asked_at: None }, looking: None }
    }

    /// Something came, or nothing was read.
    pub(super) fn heard(&mut self, now: Instant) {
        self.timer.heard(now);
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
    }

    /// Whether the server is to be asked now; begins to look by itself.
    pub(super) fn tick(&mut self, now: Instant, settings: &PostgresSettings, pid: i32) -> bool {
        match self.timer.step(now) {
            Step::Nothing => false,
            Step::Ask => true,
            Step::Look => {
                if self.looking.is_none() {
                    self.looking = Some(tokio::spawn(is_dead(settings.clone(), pid)));
                }
                false
            }
        }
    }

    /// Returns once the connection is known to be of no use any more. Cancel-safe.
    pub(super) async fn is_the_end(&mut self) {
        let Some(looking) = &mut self.looking else { return pending().await };
        let dead = looking.await.unwrap_or(false);
        self.looking = None;
        if dead {
            return;
        }
        // It works: it is asked again, and looked at again, when it stays silent.
        self.timer.heard(Instant::now());
        pending().await
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
    }
}

async fn is_dead(settings: PostgresSettings, pid: i32) -> bool {
    for look in 1..=2 {
        let waits = async {
            let session = Session::connect(&settings, Purpose::Control).await?;
            catalog::waits_for_client(&session, pid).await
        };
        match waits.await {
            Ok(Some(true)) if look == 1 => tokio::time::sleep(SECOND_LOOK).await,
            Ok(Some(true) | None) => return true,
            Ok(Some(false)) => {
                debug!(pid, "the walsender is silent and works");
                return false;
            }
            // It answers, only not to one more connection.
            Err(error) if error.sqlstate() == Some(TOO_MANY_CONNECTIONS) => return false,
            Err(error) => {
                debug!(%error, "the server cannot be reached to look at the walsender");
                return true;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_asked_about_once_and_then_looked_into() {
        let start = Instant::now();
        let mut timer = Timer { heard_at: start, asked_at: None };
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(timer.step(at(4)), Step::Nothing);
        assert_eq!(timer.step(at(5)), Step::Ask);
        assert_eq!(timer.step(at(6)), Step::Nothing);
        assert_eq!(timer.step(at(10)), Step::Look);
        timer.heard(at(11));
        assert_eq!(timer.step(at(15)), Step::Nothing);
        assert_eq!(timer.step(at(16)), Step::Ask);
    }

    #[test]
    fn who_slept_through_it_asks_before_looking() {
        let start = Instant::now();
        let mut timer = Timer { heard_at: start, asked_at: None };
        assert_eq!(timer.step(start + Duration::from_secs(600)), Step::Ask);
        assert_eq!(timer.step(start + Duration::from_secs(601)), Step::Nothing);
    }
}
