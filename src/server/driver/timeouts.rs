//! What the driver does by itself as time passes.

use std::time::Duration;

use super::{Driver, State, Want};
use crate::connection::{Close, SharedConnection};
use crate::environment::Nanos;
use crate::extension::{Flow, Liveness};
use crate::stream::{Limit, StreamCondition};

/// How long input may lag behind after a pause: until then an answer may still be unread.
const INPUT_LAG: Duration = Duration::from_secs(10);

impl<C: SharedConnection> Driver<C> {
    /// When [`handle_timeout`](Self::handle_timeout) has something to do, on the clock of
    /// [`Server::now`](crate::server::Server::now).
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.want == Want::Close {
            return None;
        }
        let checks = [self.congested, self.backlog_check].into_iter().flatten();
        let mut soonest = Duration::from(checks.fold(self.deadline, Nanos::min));
        let mut or = |at: Option<Duration>| soonest = at.map_or(soonest, |at| at.min(soonest));
        or(self.spent.rates.paused_until());
        or(self.spent.rates.broadcast_at().filter(|_| self.has_deferred()));
        or(self.extensions_at());
        or(self.stuck_at());
        if let Some(place) = self.place.as_ref().filter(|_| self.waits_for_place()) {
            or(place.next_eviction());
        }
        or(self.not_before());
        or(self.expires());
        Some(soonest)
    }

    /// Acts on the time that has passed.
    pub fn handle_timeout(&mut self) {
        let _span = self.trace.entered();
        let now = self.core.environment.now();
        self.end_pauses(now);
        if self.want == Want::Close {
            return;
        }
        if let Some(place) = self.place.as_ref().filter(|_| self.waits_for_place()) {
            place.evict_overdue();
        }
        self.drain_backlog();
        if self.stuck_at().is_some_and(|at| at <= now) {
            return self.give_up(Limit::SlowReader);
        }
        if self.extensions_at().is_some_and(|at| at <= now)
            && self.run_extension_timers(now) == Liveness::Lost
        {
            return self.give_up(Limit::Silence);
        }
        self.expire(now);
        if self.deadline <= now.into() {
            self.deadline_passed(now);
        }
    }

    /// Ends each pause whose time is over.
    fn end_pauses(&mut self, now: Duration) {
        let was_paused = self.spent.rates.paused_until().is_some_and(|at| at <= now);
        self.spent.rates.end_pauses(now);
        if was_paused || self.congested.is_some_and(|at| Duration::from(at) <= now) {
            self.resume_input(now);
        }
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.not_before = negotiating.not_before.filter(|at| *at > now);
        }
        self.backlog_check = self.backlog_check.filter(|at| Duration::from(*at) > now);
    }

    fn deadline_passed(&mut self, now: Duration) {
        match &self.state {
            State::Closing(_) | State::Over => self.finish(Close::Flush),
            State::Bound(_) if self.is_local => self.set_deadline(self.core.limits.silence),
            State::Bound(_) => self.check_silence(now),
            State::Unauthed(_) if self.waits_for_place() => {
                if let Some(place) = &self.place {
                    place.refuse();
                }
            }
            State::Unauthed(_) if self.is_refused() => self.finish(Close::Abort),
            #[cfg(feature = "cluster")]
            State::Binding if self.is_ending_away() => self.finish(Close::Abort),
            // Its home decides.
            #[cfg(feature = "cluster")]
            State::Binding if self.is_away() => self.set_deadline(self.core.limits.silence),
            State::Unauthed(_) | State::Authed(_) | State::Binding => {
                self.close_unbound(Limit::Negotiation, StreamCondition::PolicyViolation);
            }
        }
    }

    /// STREAM-29: a silent client is asked first, and given up without a word if it does not
    /// answer.
    fn check_silence(&mut self, now: Duration) {
        self.deadline = now.saturating_add(self.core.limits.answer).into();
        // Its answer may be unread; or it takes what waits, and is watched by that (LIMIT-13).
        let may_be_unread = self.is_input_held() || self.input_lags_until > now.into();
        if may_be_unread || self.stall.is_some() {
            return;
        }
        if std::mem::replace(&mut self.was_asked, true) {
            return self.give_up(Limit::Silence);
        }
        let State::Bound(session) = &self.state else { return };
        let handle = session.handle();
        let is_asked = self.core.extensions.iter().any(|extension| {
            let flow = self.shielded(|| extension.ask_for_life(&handle));
            flow.is_some_and(|flow| flow != Flow::Next)
        });
        if !is_asked {
            self.core.ping(&handle);
        }
    }

    /// Nothing was heard of the client for too long, though it was asked.
    #[cfg(feature = "websocket")]
    pub(crate) fn unheard(&mut self) {
        let _span = self.trace.entered();
        if self.want != Want::Close {
            self.give_up(Limit::Silence);
        }
    }

    /// A dead transport is dropped without a word (STREAM-29).
    fn give_up(&mut self, limit: Limit) {
        self.limit(limit);
        self.finish(Close::Abort);
    }

    /// When an extension has something to do for the session. Not while its input waits: an answer
    /// may stand in it.
    fn extensions_at(&self) -> Option<Duration> {
        let State::Bound(session) = &self.state else { return None };
        if self.is_input_held() {
            return None;
        }
        let handle = session.handle();
        let extensions = self.core.extensions.iter();
        let soonest = || extensions.filter_map(|extension| extension.next_timeout(&handle)).min();
        self.shielded(soonest).flatten().map(|at| at.max(self.input_lags_until.into()))
    }

    fn run_extension_timers(&self, now: Duration) -> Liveness {
        let State::Bound(session) = &self.state else { return Liveness::Alive };
        let handle = session.handle();
        let is_lost = self.core.extensions.iter().any(|extension| {
            self.shielded(|| extension.handle_timeout(&handle, now)) == Some(Liveness::Lost)
        });
        if is_lost { Liveness::Lost } else { Liveness::Alive }
    }

    fn is_input_held(&self) -> bool {
        let waits = self.pending.is_some() || self.congested.is_some();
        waits || self.spent.rates.paused_until().is_some()
    }

    /// The client is read from again after a pause.
    pub(super) fn resume_input(&mut self, now: Duration) {
        self.congested = None;
        self.input_lags_until = now.saturating_add(INPUT_LAG).into();
    }

    #[inline]
    pub(super) fn set_deadline(&mut self, time: Duration) {
        self.deadline = self.core.environment.now().saturating_add(time).into();
    }
}
