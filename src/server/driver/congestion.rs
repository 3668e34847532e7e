//! Clients that read more slowly than they cause output (LIMIT-13).

use std::task::{Context, Poll};
use std::time::Duration;

use super::{Driver, State};
use crate::connection::SharedConnection;
use crate::environment::Nanos;
use crate::stream::Limit;

/// How often to check whether a slow reader has caught up; most hosts report it sooner.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

/// How far a client had read what waits for it, and since when no further.
#[derive(Clone, Copy)]
pub(super) struct Stall {
    /// Bytes that its connection had written.
    written: u64,
    /// The place in the session's queue that the connection had reached.
    position: u32,
    since: Nanos,
}

impl<C: SharedConnection> Driver<C> {
    /// Gives the connection what waits in front of it, and notes since when the client takes nothing,
    /// while something waits for it.
    #[inline]
    pub(super) fn drain_backlog(&mut self) {
        let now = || self.core.environment.now();
        let (mut backlog, mut is_waiting) = (None, false);
        if let State::Bound(session) = &self.state {
            backlog = session.go_on();
            is_waiting = backlog.is_some() || self.connection.waiting() > 0;
            let later = || now().saturating_add(CHECK_AGAIN).into();
            self.backlog_check = backlog.map(|_| self.backlog_check.unwrap_or_else(later));
        }
        self.stall = is_waiting.then(|| {
            let (written, position) = (self.connection.written(), backlog.unwrap_or_default());
            let is_same = |stall: &Stall| (stall.written, stall.position) == (written, position);
            let new = || Stall { written, position, since: now().into() };
            self.stall.filter(is_same).unwrap_or_else(new)
        });
    }

    /// When a client that goes on taking nothing is given up.
    pub(super) fn stuck_at(&self) -> Option<Duration> {
        let stall = self.stall.filter(|_| !self.is_local)?;
        Some(Duration::from(stall.since).saturating_add(self.core.limits.stuck))
    }

    /// A client that has asked for something is not read from as long as it does not read. One that
    /// only acknowledges is, since that adds nothing to what waits. So is a bot: it may be about to read,
    /// behind what it sends (BOT-5).
    #[inline]
    pub(super) fn poll_congested(&mut self, cx: Option<&mut Context<'_>>) -> Poll<()> {
        let is_congested = || {
            let waiting = self.connection.waiting();
            let State::Bound(session) = &self.state else { return false };
            let mark = self.core.limits.soft_mark;
            waiting > mark || (waiting > 0 && waiting.saturating_add(session.unwritten()) > mark)
        };
        if !self.output_grew || !is_congested() || self.is_local {
            self.output_grew = false;
            if self.congested.is_some() {
                self.resume_input(self.core.environment.now());
            }
            return Poll::Ready(());
        }
        if let Some(cx) = cx {
            self.wake_on_write(cx);
            // What was written meanwhile woke nobody.
            if !is_congested() {
                return Poll::Ready(());
            }
        }
        if self.congested.is_none() {
            self.limit(Limit::SlowReader);
        }
        self.congested = Some(self.core.environment.now().saturating_add(CHECK_AGAIN).into());
        Poll::Pending
    }
}
