//! Streams whose account lives at another node, or here as if it did: from authentication on the driver moves bytes, and
//! nothing of what they say is read here (NODE-12, NODE-13).

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use jid::BareJid;

use super::super::blocked::Pending;
use super::{Driver, OurHeader, Proved, State, Want};
use crate::connection::{Close, SharedConnection};
use crate::server::driver::admission::BarNumber;
use crate::server::legs::{Adoption, Edges, GoesOn, LOOK_AGAIN, Line, Login, Times};
use crate::session::HostCode;
use crate::stanza::Frame;
use crate::stream::StreamError;

/// A stream that is elsewhere. Dropping it is the loss of its transport.
pub(in crate::server) struct Away<C: SharedConnection> {
    line: Arc<Line<C>>,
    /// What came with the authentication is being done: until then it may yet come back.
    is_asked: bool,
    is_bound: bool,
    /// Its home has closed it.
    is_ending: bool,
    /// The account is that of a guest.
    is_guest: bool,
}

impl<C: SharedConnection> Drop for Away<C> {
    fn drop(&mut self) {
        self.line.gone();
    }
}

impl<C: SharedConnection> Driver<C> {
    /// The client is this account, and its stream goes on there where that lives.
    pub(super) fn go_away(
        &mut self,
        edges: &Arc<Edges<C>>,
        account: BareJid,
        proved: Option<Proved>,
    ) {
        if self.want == Want::Close {
            return;
        }
        let is_asked = proved.is_some();
        let bar = self.place.as_ref().and_then(|place| place.goes_away(&account));
        let goes_on = proved.map(|proved| self.goes_on(Login::Proved(proved.into())));
        let unread = self.parser.take_unread();
        let Some(adoption) = self.adoption(account, bar, unread, goes_on) else { return };
        // The typed session is there as well.
        self.state = State::Binding;
        if !is_asked {
            self.parser.authenticated(&self.core.limits.stream);
        }
        self.set_deadline(self.core.limits.silence);
        let line = edges.open(self.connection.clone(), &adoption);
        let is_guest = adoption.is_guest;
        let away = Away { line, is_asked, is_bound: false, is_ending: false, is_guest };
        self.pending = Some(Pending::Away(Box::new(away)));
    }

    /// The stream of this account, for who adopts it.
    pub(super) fn adoption(
        &self,
        account: BareJid,
        bar: Option<BarNumber>,
        unread: Vec<u8>,
        goes_on: Option<GoesOn>,
    ) -> Option<Adoption> {
        let negotiating = self.negotiating.as_ref()?;
        let (since, now) = (&negotiating.since, self.core.environment.now());
        let times = Times {
            accepted_ago: now.saturating_sub(since.accepted),
            auth_ago: now.saturating_sub(since.auth),
            negotiation_left: Duration::from(self.deadline).saturating_sub(now),
            login_left: self.expires().map(|at| at.saturating_sub(now)),
        };
        Some(Adoption {
            peer: self.peer.clone(),
            framing: self.connection.framing(),
            secure: negotiating.secure,
            is_guest: self.is_guest(&account),
            is_local: self.is_local,
            mechanism: negotiating.mechanism,
            bind_failures: negotiating.bind_failures,
            bar,
            times,
            unread,
            goes_on,
            account,
        })
    }

    /// Behind its header.
    pub(super) fn goes_on(&self, login: Login) -> GoesOn {
        GoesOn { opened: self.parser.opened(), lang: self.lang.clone(), login }
    }

    fn away(&self) -> Option<&Away<C>> {
        match &self.pending {
            Some(Pending::Away(away)) => Some(away),
            _ => None,
        }
    }

    fn away_mut(&mut self) -> Option<&mut Away<C>> {
        match &mut self.pending {
            Some(Pending::Away(away)) => Some(away),
            _ => None,
        }
    }

    /// The way to its home.
    pub(in crate::server) fn line(&self) -> Option<Arc<Line<C>>> {
        self.away().map(|away| Arc::clone(&away.line))
    }

    /// Ends the stream as the client's close tag does; `false` where it is here.
    pub(in super::super) fn hang_up_away(&mut self) -> bool {
        let Some(line) = self.line() else { return false };
        line.hang_up();
        self.finish(Close::Abort);
        true
    }

    pub(in super::super) fn is_away(&self) -> bool {
        self.away().is_some()
    }

    /// Whether what came with its authentication is being done elsewhere.
    pub(super) fn is_asked_away(&self) -> bool {
        self.away().is_some_and(|away| away.is_asked)
    }

    /// Whether all that is waited for is a client that takes what its home has said last.
    pub(in super::super) fn is_ending_away(&self) -> bool {
        self.away().is_some_and(|away| away.is_ending)
    }

    /// Whether its home has closed it.
    pub(in super::super) fn is_ended_away(&self) -> bool {
        self.away().is_some_and(|away| away.line.is_ended())
    }

    /// Whether it has a session elsewhere.
    pub(in crate::server) fn is_bound_away(&self) -> bool {
        self.away().is_some_and(|away| away.is_bound)
    }

    /// Acts on what is new. What it waits for is never here.
    pub(in super::super) fn poll_away(&mut self, cx: Option<&Context<'_>>) -> Poll<()> {
        let Some(away) = self.away() else { return Poll::Ready(()) };
        away.line.go_on();
        let news = away.line.poll(cx);
        if let Some(cx) = cx {
            self.wake_on_write(cx);
        }
        let is_asked = away.is_asked;
        if let Some(message) = news.panicked {
            self.core.faults.panicked(HostCode::Connection, &self.peer, None, message);
        }
        if is_asked && news.is_refused {
            self.pending = None;
            // As a guest it comes anew: what was there is being removed.
            self.leave_guests();
            self.login_impossible();
            return Poll::Ready(());
        }
        if is_asked && (news.has_shown || news.is_bound) {
            self.parser.set_strict(false);
            self.parser.authenticated(&self.core.limits.stream);
            if self.away().is_some_and(|away| !away.is_guest) {
                self.leave_guests();
            }
        }
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.header_sent |= news.has_shown;
        }
        if let Some(away) = self.away_mut() {
            away.is_asked &= !(news.has_shown || news.is_bound);
            away.is_bound |= news.is_bound;
        }
        if news.is_ending && news.closed.is_none() && !self.is_ending_away() {
            self.away_mut().into_iter().for_each(|away| away.is_ending = true);
            self.set_deadline(self.core.limits.close);
        }
        if let Some(is_flushed) = news.closed {
            self.finish(if is_flushed { Close::Flush } else { Close::Abort });
            return Poll::Ready(());
        }
        if news.is_ended {
            self.place().close();
        } else if news.is_bound {
            // It serves a session.
            self.place = None;
        }
        if let Some(dismissal) = news.dismissal {
            let is_secure = self.negotiating.as_ref().is_some_and(|it| it.secure);
            self.fail(dismissal.choose(is_secure));
            return Poll::Ready(());
        }
        self.forward();
        Poll::Pending
    }

    /// What the driver wants of its host meanwhile: bytes, as long as there are credits. What comes behind a login that
    /// is not answered yet waits, as it does where the account lives (SASL2-5).
    pub(in super::super) fn want_away(&mut self) -> Poll<Want> {
        self.report_away();
        match self.away() {
            Some(away) if !away.is_asked && away.line.may_give() => Poll::Ready(Want::Input),
            _ => Poll::Pending,
        }
    }

    /// Passes on what has come of the client; `false` where that is here.
    pub(in super::super) fn forward(&mut self) -> bool {
        let Some(away) = self.away().filter(|away| !away.is_asked) else { return false };
        let line = Arc::clone(&away.line);
        let unread = self.parser.take_unread();
        if !unread.is_empty() {
            line.input(&unread);
        }
        true
    }

    /// The client has been heard, with so many bytes of framing.
    #[cfg(feature = "websocket")]
    pub(in super::super) fn forward_overhead(&self, bytes: usize) {
        if let Some(away) = self.away() {
            away.line.alive(bytes);
        }
    }

    /// The client sends no more; `false` where that is known here.
    pub(in super::super) fn forward_end(&mut self) -> bool {
        let is_there = self.forward();
        if let Some(away) = self.away().filter(|_| is_there) {
            away.line.end_of_input();
        }
        is_there
    }

    /// Tells how much the client has taken, and when to look again.
    fn report_away(&mut self) {
        let Some(away) = self.away() else { return };
        let is_waiting = away.line.report();
        let later = || self.core.environment.now().saturating_add(LOOK_AGAIN).into();
        self.backlog_check = is_waiting.then(|| self.backlog_check.unwrap_or_else(later));
    }

    /// Closes the stream with the edge's own words; `false` where the stream is here. To its home that is the loss of
    /// the transport.
    pub(in super::super) fn fail_away(
        &mut self,
        header: Option<&OurHeader>,
        error: &StreamError,
    ) -> bool {
        let Some(line) = self.away().map(|away| Arc::clone(&away.line)) else { return false };
        let has_shown = line.poll(None).has_shown;
        line.gone();
        let header = header.filter(|_| !has_shown).map(OurHeader::parts);
        let mut words = header.iter().map(Frame::open).collect::<Vec<_>>();
        words.extend(Frame::ending(Some(error), self.connection.framing()));
        line.end_with(&words);
        self.parser.stop();
        self.wait_for_close(None, self.core.limits.close);
        true
    }
}
