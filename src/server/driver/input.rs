//! Input of a bound session: each stanza is counted, stamped and carried out.

use std::sync::Arc;
use std::time::Duration;

use super::blocked::Pending;
use super::{Driver, State};
use crate::address::InvalidAddress;
use crate::connection::SharedConnection;
use crate::extension::Flow;
use crate::oneshot;
use crate::rules::presence::PresenceType;
use crate::server::deliver::address::Address;
use crate::server::deliver::extensions::is_asked;
use crate::server::{Core, Task, caught};
use crate::session::{Bound, HostCode, InputTicket, Session, SessionHandle};
use crate::shield::shielded_or;
use crate::stanza::{Condition, ErrorType, Kind, Received, Stanza, StanzaError};
use crate::stream::{Limit, RefusedStanza};

/// Bytes by which a stanza may grow uncounted (LIMIT-20): room for the sender's address, in all but odd
/// cases.
const FREE_GROWTH: usize = 256;

/// Broadcast presence that came too soon (LIMIT-19). A later one takes its place.
pub(super) struct Deferred {
    pub(super) presence: Option<Stanza>,
    /// What must not overtake it. Nothing more is read until it was carried out.
    pub(super) next: Option<Stanza>,
}

impl<C: SharedConnection> Driver<C> {
    /// A stanza of the client, which has come `now`.
    pub(super) fn stanza(&mut self, received: &Received<'_>, now: Duration) {
        let State::Bound(session) = &mut self.state else { return };
        let stanza = stamp(session, received, self.lang.as_deref());
        let stanza = if received.may_claim() { self.core.without_claims(stanza) } else { stanza };
        let grown = stanza.len().saturating_sub(received.bytes_received());
        let is_broadcast = is_broadcast(received);
        match self.rare.as_mut().and_then(|rare| rare.deferred.as_mut()) {
            Some(deferred) if is_broadcast => {
                deferred.presence = Some(stanza);
                self.count_replaced();
            }
            Some(deferred) if !is_question(session, received) => {
                deferred.next = Some(stanza);
                self.spent.rates.wait_for_broadcast();
            }
            None if is_broadcast && self.spent.rates.broadcast_at().is_some_and(|at| at > now) => {
                let deferred = Deferred { presence: Some(stanza), next: None };
                self.rare.get_or_insert_default().deferred = Some(Box::new(deferred));
            }
            _ => self.carry_out(&stanza, received.to(), now),
        }
        if grown > FREE_GROWTH {
            self.count_bytes(grown, now);
        }
    }

    /// LIMIT-19: a presence that a later one has replaced counts as handled (SM-5).
    fn count_replaced(&mut self) {
        if let State::Bound(session) = &mut self.state
            && let Some(Ok(ticket)) = session.try_input()
        {
            drop(ticket);
            let _unmeasured = self.core.metrics.received(Kind::Presence);
            self.count_stanza(false, self.core.environment.now());
        }
    }

    pub(super) fn has_deferred(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.deferred.is_some())
    }

    fn take_deferred(
        &mut self,
        which: impl FnOnce(&mut Box<Deferred>) -> bool,
    ) -> Option<Box<Deferred>> {
        self.rare.as_mut()?.deferred.take_if(which)
    }

    /// Goes on with deferred presence, and with what waited for it; `false` if it is too soon.
    pub(super) fn carry_out_deferred(&mut self) -> bool {
        if !matches!(self.state, State::Bound(_)) {
            self.take_deferred(|_| true);
            return false;
        }
        let now = self.core.environment.now();
        let is_early = self.spent.rates.broadcast_at().is_some_and(|at| at > now);
        let is_due = |deferred: &mut Box<Deferred>| deferred.presence.is_none() || !is_early;
        let Some(mut deferred) = self.take_deferred(is_due) else { return false };
        if let Some(presence) = deferred.presence.take() {
            // The presence may have to wait, and `next` comes behind it.
            self.rare.get_or_insert_default().deferred =
                deferred.next.is_some().then_some(deferred);
            self.carry_out_late(&presence);
        } else if let Some(next) = deferred.next {
            self.carry_out_late(&next);
        }
        true
    }

    /// The client sends no more: its last presence is carried out where that is of use, since the session
    /// ends with it or outlives the transport.
    pub(super) fn carry_out_last_presence(&mut self, outlives: bool) {
        let Some(deferred) = self.take_deferred(|_| true) else { return };
        let (State::Bound(session), Some(presence)) = (&mut self.state, deferred.presence) else {
            return;
        };
        let is_of_use = presence.type_().is_some() || (outlives && session.handled().is_some());
        if is_of_use && self.pending.is_none() {
            self.carry_out_late(&presence);
        }
    }

    /// Carries out a stanza that has waited.
    fn carry_out_late(&mut self, stanza: &Stanza) {
        self.carry_out(stanza, stanza.to().as_deref(), self.core.environment.now());
    }

    /// Carries out a stanza of the client, which names this recipient. It is counted before it has an effect
    /// (SM-5), and its ticket stays out until the last effect is done, even if the driver is gone by then.
    #[inline]
    fn carry_out(&mut self, stanza: &Stanza, to: Option<&str>, now: Duration) {
        let Self { core, state, spent, peer, .. } = self;
        let (core, peer) = (&*core, &*peer);
        let State::Bound(session) = state else { return };
        let Some(Ok(ticket)) = session.try_input() else { return };
        // What others have sent on this thread does not count.
        let _others = crate::shield::take_behind();
        // METRIC-4
        let since = core.metrics.received(stanza.kind()).then(|| core.environment.now());
        let handle = session.handle();
        let address = to.map(|to| core.address(to));
        let known = address.as_ref().and_then(|to| to.as_ref().ok());
        let allowed = core.allows_recipient(&mut spent.recipients, &handle, stanza, known);
        // A panic of host code loses this stanza alone, and its sender is told.
        let work = || match allowed {
            true => core.client_stanza(session, &handle, stanza, address),
            false => {
                core.limit(Limit::Recipients, peer, Some(&handle.account().bare));
                let error = StanzaError::new(Condition::PolicyViolation);
                core.refuse(Some(&handle), stanza, error.with_type(ErrorType::Wait))
            }
        };
        let told = |message| {
            let account = Some(&handle.account().bare);
            core.faults.panicked(HostCode::Extension, peer, account, message);
        };
        let task = shielded_or(work, told)
            .unwrap_or_else(|| core.refuse(Some(&handle), stanza, Condition::InternalServerError));
        let broadcast = stanza.kind() == Kind::Presence && to.is_none();
        if let Some(task) = task {
            self.go_on_later(task, handle, ticket, stanza.clone(), since);
        } else if let Some(since) = since {
            core.sample(to, since);
        }
        self.count_stanza(broadcast, now);
    }

    /// What a stanza of the client has to wait for; nothing more is read until it is done.
    fn go_on_later(
        &mut self,
        task: Task,
        handle: SessionHandle<C>,
        ticket: InputTicket<C>,
        stanza: Stanza,
        since: Option<Duration>,
    ) {
        let (sender, done) = oneshot::channel();
        let (core, peer) = (Arc::clone(&self.core), self.peer.clone());
        self.core.jobs.spawn(async move {
            let told = |message| {
                let account = Some(&handle.account().bare);
                core.faults.panicked(HostCode::Extension, &peer, account, message);
            };
            if caught(task, told).await.is_none() {
                core.bounce(Some(&handle), &stanza, Condition::InternalServerError);
            }
            if let Some(since) = since {
                core.sample(stanza.to().as_deref(), since);
            }
            drop(ticket);
            sender.send(());
        });
        self.pending = Some(Pending::Stanza(done));
    }

    /// A stanza that was refused while it was read. It counts as handled: it is answered (SM-5).
    pub(super) fn refused(&mut self, refused: &RefusedStanza) {
        let Self { core, state, peer, .. } = self;
        let State::Bound(session) = state else { return };
        let Some(Ok(ticket)) = session.try_input() else { return };
        let _unmeasured = core.metrics.received(refused.stanza().kind());
        if let Some(limit) = refused.limit() {
            core.limit(limit, peer, Some(session.account()));
        }
        let stanza = stamp(session, refused.stanza(), self.lang.as_deref());
        let handle = session.handle();
        match stanza.to().as_deref().map(|to| core.address(to)) {
            Some(Err(InvalidAddress { .. })) => core.malformed(&handle, &stanza),
            _ => core.bounce(Some(&handle), &stanza, refused.error()),
        }
        drop(ticket);
        self.count_stanza(false, self.core.environment.now());
    }
}

/// Whether it is broadcast presence: without `to`, hence for all who see it.
fn is_broadcast(received: &Received<'_>) -> bool {
    received.kind() == Kind::Presence
        && received.to().is_none()
        && matches!(received.type_(), None | Some("unavailable"))
}

/// Whether it asks the server or the own account, and changes nothing that others see.
fn is_question<C: SharedConnection>(session: &Session<Bound, C>, received: &Received<'_>) -> bool {
    let own = |to: &str| to == session.account().as_str() || to == session.domain().as_str();
    received.kind() == Kind::Iq && received.type_() == Some("get") && received.to().is_none_or(own)
}

/// STZ-1: the true sender, whatever the client wrote; subscriptions come from the account.
fn stamp<C: SharedConnection>(
    session: &Session<Bound, C>,
    received: &Received<'_>,
    lang: Option<&str>,
) -> Stanza {
    let is_managed = || {
        matches!(
            received.type_(),
            Some("subscribe" | "subscribed" | "unsubscribe" | "unsubscribed")
        )
    };
    let from = if received.kind() == Kind::Presence && is_managed() {
        session.account().as_str()
    } else {
        session.jid().as_str()
    };
    received.stamp(Some(from), lang)
}

impl<C: SharedConnection> Core<C> {
    /// Carries out a stanza of a client. What has to wait is returned.
    fn client_stanza(
        self: &Arc<Self>,
        session: &mut Session<Bound, C>,
        handle: &SessionHandle<C>,
        stanza: &Stanza,
        to: Option<Result<Address<'_>, InvalidAddress>>,
    ) -> Option<Task> {
        let kept = self.keeps(handle.account());
        let mut asked = self.extensions.iter().filter(|one| is_asked(&***one, kept));
        if asked.any(|one| one.inbound(handle, stanza) != Flow::Next) {
            return None;
        }
        let to = match to.transpose() {
            Ok(to) => to,
            Err(InvalidAddress { .. }) => {
                self.malformed(handle, stanza);
                return None;
            }
        };
        match (stanza.kind(), to) {
            (Kind::Presence, to) => self.client_presence(session, stanza, to.as_ref()),
            (Kind::Iq, None) => self.iq(Some(handle), stanza, None),
            // STZ-4: without an address, to the own account.
            (Kind::Message, None) => {
                let own = self.address(handle.account().bare.as_str()).ok()?;
                self.route_to(Some(handle), stanza, &own)
            }
            (_, Some(to)) => self.route_to(Some(handle), stanza, &to),
        }
    }

    /// STZ-5: a bad address is not echoed.
    fn malformed(&self, handle: &SessionHandle<C>, stanza: &Stanza) {
        let probe = stanza.kind() == Kind::Presence
            && PresenceType::read(stanza) == Ok(PresenceType::Probe);
        if probe {
            // PRES-19
            return;
        }
        let own = handle.account().bare.as_str();
        let stanza = stanza.readdressed(stanza.from().as_deref(), Some(own));
        self.bounce(Some(handle), &stanza, Condition::JidMalformed);
    }

    /// STREAM-29: a ping, which a silent client may answer with anything.
    pub(super) fn ping(self: &Arc<Self>, session: &SessionHandle<C>) {
        let domain = session.jid().domain().as_str();
        let id = self.registry.push_id();
        let ping = Stanza::iq("get").from(domain).to(session.jid().as_str()).id(&id);
        let _gone = self.give(session, &ping.payload(b"<ping xmlns='urn:xmpp:ping'/>").build());
    }
}
