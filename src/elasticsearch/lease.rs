//! The lease on a slot: who may write to the cluster, and until when.
//!
//! It stands in the state document. Its holder renews it with every write of that document; whoever else wants
//! it has to see a whole duration pass without one. The two compare no clocks: each counts on its own, the
//! holder from before it asked, the other from after it was told. So the holder's right is over first. Nothing is
//! sent that could still be under way then: what waits for an answer has `request_timeout` for it, and the lease
//! must outlive that.
//!
//! A request that was sent before, and is carried out late, is absorbed by the versions, for as long as deletes
//! are remembered ([`Term::tombstones_min`]).
//!
//! Pure, but for [`Moment::now`] and the waiting of [`Right`].

use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::bulk::obstacle::Cause;

/// A lease of less would be lost to a pause that means nothing.
const DURATION_MIN: Duration = Duration::from_secs(5);
/// Parts of a lease that pass between two renewals: the first leaves time for a second attempt while requests
/// may still be sent.
const RENEWALS: u32 = 4;

/// Goes on while the machine sleeps: whoever waits for the lease elsewhere does not sleep with it.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A moment of this machine's own clock, which nobody sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let now = clock_gettime(CLOCK);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    /// How long it is from `earlier` to here; nothing if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// How long a lease lasts, and how much of it a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    duration: Duration,
    request_timeout: Duration,
}

impl Term {
    /// Of a holder whose requests are answered or given up within `request_timeout`.
    pub fn of(request_timeout: Duration) -> Self {
        Self { duration: request_timeout.saturating_mul(2).max(DURATION_MIN), request_timeout }
    }

    /// From one renewal on.
    pub fn duration(self) -> Duration {
        self.duration
    }

    /// How long deletes must be remembered, so that no request of a holder that lost the lease comes too late
    /// to be told from a new one.
    pub fn tombstones_min(self) -> Duration {
        self.duration.saturating_add(self.request_timeout)
    }

    /// Whether a lease until `until` outlives a request that is sent `now`.
    fn allows(self, until: Moment, now: Moment) -> bool {
        until > now + self.request_timeout
    }

    /// How long a lease until `until` can wait to be renewed.
    fn rest(self, until: Moment, now: Moment) -> Duration {
        let renewed_at_latest = self.duration - self.duration / RENEWALS;
        until.since(now + renewed_at_latest)
    }
}

/// Names one state of the document: no two writes share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// `_seq_no`.
    pub seq_no: u64,
    /// `_primary_term`.
    pub primary_term: u64,
}

/// What somebody who does not hold a lease has seen of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vigil {
    /// What was read last, and when it was read first.
    seen: Option<(Version, Moment)>,
}

impl Vigil {
    /// How much longer the lease may hold, if it does: `version` was read, and the answer was there at `now`.
    pub fn remaining(
        &mut self,
        version: Version,
        duration: Duration,
        now: Moment,
    ) -> Option<Duration> {
        let since = self.seen.filter(|(seen, _)| *seen == version).map_or(now, |(_, since)| since);
        self.seen = Some((version, since));
        let remaining = duration.saturating_sub(now.since(since));
        (remaining > Duration::ZERO).then_some(remaining)
    }
}

/// How things stand with the lease of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Not asked for yet, or given up.
    None,
    /// Ours until then.
    Until(Moment),
    /// Somebody else's, for good.
    Lost(Lost),
    /// Nobody's: the versions alone must do.
    Unfenced,
}

/// Why a lease is not renewed.
pub type Failure = (Cause, String);

/// Another has the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Who; none if it is nobody's, the document being gone.
    pub to: Option<String>,
}

/// The right to write, as far as this process has it. Clones are the same right.
#[derive(Clone)]
pub struct Right {
    term: Term,
    standing: Arc<watch::Sender<Standing>>,
    failure: Arc<watch::Sender<Option<Failure>>>,
}

impl Right {
    /// A right that is still to be had.
    pub fn new(term: Term) -> Self {
        Self::standing(term, Standing::None)
    }

    /// The right to write beside whoever holds the lease: of what is harmless for its versions alone.
    pub fn unfenced() -> Self {
        Self::standing(Term::of(Duration::ZERO), Standing::Unfenced)
    }

    fn standing(term: Term, standing: Standing) -> Self {
        let (standing, failure) = (watch::Sender::new(standing), watch::Sender::new(None));
        Self { term, standing: Arc::new(standing), failure: Arc::new(failure) }
    }

    /// Whether a request that is sent now is over before the lease can be.
    pub fn holds(&self) -> bool {
        self.holds_at(Moment::now()) == Ok(true)
    }

    fn holds_at(&self, now: Moment) -> Result<bool, Lost> {
        match &*self.standing.borrow() {
            Standing::None => Ok(false),
            Standing::Until(until) => Ok(self.term.allows(*until, now)),
            Standing::Lost(lost) => Err(lost.clone()),
            Standing::Unfenced => Ok(true),
        }
    }

    /// Waits until a request may be sent. `waits` is told why it may not, each time that is known.
    ///
    /// # Errors
    /// It never may again.
    pub async fn held(&self, mut waits: impl FnMut(&Failure)) -> Result<(), Lost> {
        let (mut standing, mut failure) = (self.standing.subscribe(), self.failure.subscribe());
        while !self.holds_at(Moment::now())? {
            if let Some(failure) = failure.borrow_and_update().as_ref() {
                waits(failure);
            }
            // The senders live as long as this.
            tokio::select! {
                _ = standing.changed() => {}
                _ = failure.changed() => {}
            }
        }
        Ok(())
    }

    /// Returns once another has the lease.
    pub async fn lost(&self) -> Lost {
        let mut standing = self.standing.subscribe();
        loop {
            if let Standing::Lost(lost) = &*standing.borrow_and_update() {
                return lost.clone();
            }
            // The sender lives as long as this.
            let _ = standing.changed().await;
        }
    }

    /// The document was written with our lease; the request was made at `asked_at`.
    pub(super) fn renewed(&self, asked_at: Moment) {
        let renewed = Standing::Until(asked_at + self.term.duration);
        self.standing.send_if_modified(|standing| {
            let is_ours = matches!(standing, Standing::None | Standing::Until(_));
            if is_ours {
                *standing = renewed;
            }
            is_ours
        });
        self.failure.send_if_modified(|failure| failure.take().is_some());
    }

    /// The document was not written, for this reason.
    pub(super) fn not_renewed(&self, failure: Failure) {
        self.failure.send_replace(Some(failure));
    }

    /// Nothing is sent any more.
    pub(super) fn give_up(&self) {
        self.leave(Standing::None);
    }

    /// Another wrote the document. Whoever never had the lease did not lose it.
    pub(super) fn lose(&self, to: Option<String>) {
        self.leave(Standing::Lost(Lost { to }));
    }

    fn leave(&self, left: Standing) {
        self.standing.send_if_modified(|standing| {
            let was_held = matches!(standing, Standing::Until(_));
            if was_held {
                *standing = left;
            }
            was_held
        });
    }

    /// Whether it was had, and neither given up nor lost; it may have run out.
    pub fn is_kept(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Until(_))
    }

    /// How long the next renewal can wait; none if there is nothing to renew.
    pub(super) fn rest(&self) -> Option<Duration> {
        match *self.standing.borrow() {
            Standing::Until(until) => Some(self.term.rest(until, Moment::now())),
            Standing::None | Standing::Lost(_) | Standing::Unfenced => None,
        }
    }

    /// Waits until there is something to renew.
    pub(super) async fn had(&self) {
        let mut standing = self.standing.subscribe();
        // The sender lives as long as this.
        let _ = standing.wait_for(|standing| matches!(standing, Standing::Until(_))).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const LEASE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn version(seq_no: u64) -> Version {
        Version { seq_no, primary_term: 1 }
    }

    #[test]
    fn a_lease_is_two_requests_long_and_five_seconds_at_least() {
        assert_eq!(Term::of(TIMEOUT).duration(), LEASE);
        assert_eq!(Term::of(Duration::from_millis(100)).duration(), DURATION_MIN);
        assert_eq!(Term::of(TIMEOUT).tombstones_min(), Duration::from_secs(90));
        assert_eq!(Term::of(Duration::MAX).tombstones_min(), Duration::MAX);
    }

    #[test]
    fn a_request_is_sent_only_if_the_lease_outlives_it() {
        let right = Right::new(Term::of(TIMEOUT));
        assert_eq!(right.holds_at(at(0)), Ok(false));
        right.renewed(at(100));
        assert_eq!(right.holds_at(at(129)), Ok(true));
        assert_eq!(right.holds_at(at(130)), Ok(false));
        right.renewed(at(131));
        assert_eq!(right.holds_at(at(160)), Ok(true));
        right.lose(Some("another".to_owned()));
        right.renewed(at(161));
        assert_eq!(right.holds_at(at(162)), Err(Lost { to: Some("another".to_owned()) }));
    }

    #[test]
    fn a_renewal_is_due_while_requests_may_still_be_sent() {
        for request_timeout in [1, 2, 3, 30, 600].map(Duration::from_secs) {
            let term = Term::of(request_timeout);
            let until = at(1000) + term.duration();
            let due = at(1000) + term.rest(until, at(1000));
            assert!(term.allows(until, due + term.duration() / 5), "{request_timeout:?}");
            assert_eq!(term.rest(until, until), Duration::ZERO);
        }
    }

    /// The holder counts from before its request, the other from after its answer: with the least delay on
    /// the way, the holder's last request is over when the other begins.
    #[test]
    fn the_holder_is_done_before_the_other_begins() {
        let (holder, mut vigil) = (Right::new(Term::of(TIMEOUT)), Vigil::default());
        holder.renewed(at(100));
        assert_eq!(vigil.remaining(version(7), LEASE, at(100)), Some(LEASE));
        let sent_last = (100..200).rev().find(|second| holder.holds_at(at(*second)) == Ok(true));
        let taken = (100..200).find(|it| vigil.remaining(version(7), LEASE, at(*it)).is_none());
        let (sent_last, taken) = (sent_last.map(at).unwrap(), taken.map(at).unwrap());
        assert!(sent_last + TIMEOUT < taken, "{sent_last:?} {taken:?}");
    }

    #[test]
    fn a_vigil_begins_anew_with_each_write_of_the_holder() {
        let mut vigil = Vigil::default();
        for renewal in 0..10 {
            let (version, second) = (version(renewal), 59 * renewal);
            assert_eq!(vigil.remaining(version, LEASE, at(second)), Some(LEASE));
            assert!(vigil.remaining(version, LEASE, at(second + 58)).is_some());
        }
        let other_term = Version { primary_term: 2, ..version(9) };
        assert_eq!(vigil.remaining(other_term, LEASE, at(9999)), Some(LEASE));
        assert_eq!(vigil.remaining(other_term, LEASE, at(9999 + 60)), None);
    }

    #[test]
    fn a_lease_of_nonsense_is_waited_for_and_does_no_harm() {
        let mut vigil = Vigil::default();
        let endless = Duration::from_millis(u64::MAX);
        assert_eq!(vigil.remaining(version(1), endless, at(1)), Some(endless));
        assert_eq!(vigil.remaining(version(2), Duration::ZERO, at(2)), None);
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_with_the_renewal_and_ends_with_the_loss() {
        let right = Right::new(Term::of(TIMEOUT));
        right.renewed(at(0));
        let mut heard = Vec::new();
        let mut held = Box::pin(right.held(|failure| heard.push(failure.1.clone())));
        assert_eq!(held.as_mut().now_or_never(), None);
        right.not_renewed((Cause::Unreachable, "no answer".to_owned()));
        assert_eq!(held.as_mut().now_or_never(), None);
        right.renewed(Moment::now());
        assert_eq!(held.await, Ok(()));
        assert_eq!(heard, ["no answer"]);
        right.renewed(at(0));
        let mut held = Box::pin(right.held(|_| ()));
        assert_eq!(held.as_mut().now_or_never(), None);
        right.lose(None);
        assert_eq!(held.await, Err(Lost { to: None }));
        assert_eq!(right.lost().await, Lost { to: None });
    }

    #[tokio::test]
    async fn a_right_that_was_never_had_is_not_lost() {
        let right = Right::new(Term::of(TIMEOUT));
        right.lose(None);
        right.renewed(Moment::now());
        assert!(right.holds() && right.is_kept());
        right.give_up();
        assert!(!right.holds() && !right.is_kept() && right.rest().is_none());
        assert!(Right::unfenced().holds());
    }
}
