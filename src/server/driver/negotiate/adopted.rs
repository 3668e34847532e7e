//! Streams that another node hands over behind authentication, or this one to itself (NODE-12).

use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

use super::{Driver, State};
use crate::connection::{Close, SharedConnection};
use crate::packed::{Reader, Writer};
use crate::sasl::Policy;
use crate::server::Core;
use crate::server::driver::rate::Spent;
use crate::server::legs::{Adoption, GoesOn, Login};
use crate::stream::{Heard, StreamCondition};

/// A stream that has authenticated and has no session, on its way from one home to the next (NODE-14).
pub(in crate::server) struct Unbound {
    pub(in crate::server) adoption: Adoption,
    spent: Spent,
}

impl Unbound {
    pub(in crate::server) fn read(
        bytes: &[u8],
        policy: impl Fn(&BareJid) -> Option<Arc<Policy>>,
        now: Duration,
    ) -> Option<Self> {
        let mut input = Reader::new(bytes);
        let adoption = Adoption::decode(input.bytes()?, policy)?;
        let spent = Spent::import(now, &mut input)?;
        input.is_empty().then_some(Self { adoption, spent })
    }
}

impl<C: SharedConnection> Driver<C> {
    /// A driver of a stream whose client has authenticated elsewhere, and goes on as it would have gone on there.
    pub(in crate::server) fn adopted(
        core: Arc<Core<C>>,
        connection: C,
        adoption: Adoption,
    ) -> Self {
        let Adoption { account, peer, secure, times, .. } = adoption;
        let mut driver = Self::behind(core, connection, &account, peer, secure);
        driver.is_local = adoption.is_local;
        driver.place().adopted(&account, adoption.bar);
        let now = driver.core.environment.now();
        driver.set_deadline(times.negotiation_left);
        driver.expires_in(times.login_left);
        if let Some(negotiating) = &mut driver.negotiating {
            negotiating.is_adopted = true;
            negotiating.has_opened = true;
            negotiating.mechanism = adoption.mechanism;
            negotiating.bind_failures = adoption.bind_failures;
            negotiating.since.accepted = now.saturating_sub(times.accepted_ago);
            negotiating.since.auth = now.saturating_sub(times.auth_ago);
        }
        if adoption.is_guest {
            driver.lodge(&account);
        }
        match adoption.goes_on {
            None => driver.restarts_as(account),
            Some(goes_on) => driver.goes_on_as(account, goes_on),
        }
        driver.parser.feed_unread(&adoption.unread);
        // From the first byte on: it may move in the middle of what was said together with the login.
        let rare = driver.rare.get_or_insert_default();
        (rare.is_leg, rare.heard) = (true, Some(Box::new(Heard::new(&driver.parser))));
        driver
    }

    /// The same where it goes on from one home to the next.
    pub(in crate::server) fn adopted_again(
        core: Arc<Core<C>>,
        connection: C,
        unbound: Unbound,
    ) -> Self {
        let mut driver = Self::adopted(core, connection, unbound.adoption);
        driver.spent = unbound.spent;
        driver
    }

    /// What it takes to adopt it at the next home, where it has authenticated and has no session; it stays as it is.
    pub(in crate::server) fn export_unbound(&mut self) -> Option<Vec<u8>> {
        let State::Authed(session) = &self.state else { return None };
        let account = session.account().clone();
        let heard = &mut self.rare.get_or_insert_default().heard;
        let heard = heard.get_or_insert_with(|| Box::new(Heard::new(&self.parser)));
        let (unread, before_header) = self.parser.not_read(heard)?;
        let unread = unread.to_vec();
        let agent = self.negotiating.as_ref()?.agent.clone();
        let goes_on = (!before_header).then(|| self.goes_on(Login::Told(agent)));
        let bar = self.place.as_ref().and_then(|place| place.held_against(&account));
        let adoption = self.adoption(account, bar, unread, goes_on)?;
        let mut out = Writer::default();
        out.bytes(&adoption.encode());
        self.spent.export(self.core.environment.now(), &mut out);
        Some(out.into_bytes())
    }

    /// Behind SASL1: the client, which has been told so, opens its stream anew. Its login is counted already.
    fn restarts_as(&mut self, account: BareJid) {
        let Some(mut session) = self.authenticate(account) else {
            return self.fail(StreamCondition::InternalServerError.into());
        };
        self.spend_for(session.account());
        session.restart();
        self.state = State::Authed(session);
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.restart();
        }
        self.parser.authenticated(&self.core.limits.stream);
    }

    /// Behind the header: in SASL2 the client gets what it has asked for, and is told so; one that was told may bind.
    fn goes_on_as(&mut self, account: BareJid, goes_on: GoesOn) {
        let GoesOn { opened, lang, login } = goes_on;
        self.lang = lang;
        self.parser.go_on(opened);
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.header_sent = true;
        }
        let is_void = match &login {
            Login::Proved(proved) => {
                proved.issued.is_some_and(|at| self.core.is_voided(&account, at))
            }
            Login::Told(_) => false,
        };
        // FAST-10: its edge does not know of that yet.
        let session = if is_void { None } else { self.authenticate(account) };
        match (session, login) {
            (Some(session), Login::Proved(proved)) => {
                self.parser.set_strict(true);
                self.establish_here(session, *proved);
            }
            (Some(session), Login::Told(agent)) => {
                self.spend_for(session.account());
                self.state = State::Authed(session);
                if let Some(negotiating) = &mut self.negotiating {
                    negotiating.agent = agent;
                }
                self.parser.authenticated(&self.core.limits.stream);
            }
            (None, Login::Proved(_)) => _ = self.refuse_here(),
            (None, Login::Told(_)) => self.fail(StreamCondition::InternalServerError.into()),
        }
    }

    /// The client cannot have what it has asked for: its edge tells it so, and takes it back. `false` where that is here.
    pub(super) fn refuse_here(&mut self) -> bool {
        let is_adopted = self.negotiating.as_ref().is_some_and(|it| it.is_adopted);
        if is_adopted {
            self.rare.get_or_insert_default().is_refused = true;
            self.finish(Close::Abort);
        }
        is_adopted
    }

    /// Whether that has happened.
    pub(in crate::server) fn is_refused_here(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_refused)
    }

    /// As [`receive`](Self::receive), for bytes that another driver has counted and not read.
    pub(in crate::server) fn receive_carried(&mut self, unread: &[u8]) {
        let _span = self.trace.entered();
        self.alive(unread.len(), self.core.environment.now());
        if self.want == super::Want::Input {
            self.parser.feed_unread(unread);
            self.read_on();
        }
    }

    /// As `overhead`, for bytes that another driver has counted.
    pub(in crate::server) fn carried_overhead(&mut self, bytes: usize) {
        let _span = self.trace.entered();
        self.alive(bytes, self.core.environment.now());
    }

    /// Bytes that were handed in and are not read.
    pub(in crate::server) fn unread(&self) -> usize {
        self.parser.unread()
    }

    fn expires_in(&mut self, left: Option<Duration>) {
        if let Some(left) = left {
            let now = self.core.environment.now();
            self.terms_mut().expires_at(now.saturating_add(left));
        }
    }
}
