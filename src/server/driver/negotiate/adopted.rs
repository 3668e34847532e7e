//! Streams that another node hands over behind authentication, or this one to itself (NODE-12).

use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

use super::{Driver, State};
use crate::connection::{Close, SharedConnection};
use crate::server::Core;
use crate::server::legs::{Adoption, GoesOn};
use crate::stream::StreamCondition;

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
        driver
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

    /// In SASL2: the client gets what it has asked for, and is told so.
    fn goes_on_as(&mut self, account: BareJid, goes_on: GoesOn) {
        let GoesOn { opened, lang, proved } = goes_on;
        self.lang = lang;
        self.parser.go_on(opened);
        self.parser.set_strict(true);
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.header_sent = true;
        }
        match self.authenticate(account) {
            Some(session) => self.establish_here(session, proved),
            None => _ = self.refuse_here(),
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
