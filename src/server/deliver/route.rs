//! Where a stanza goes: to an account or a domain of ours, or to the host's router.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use jid::{BareJid, FullJid};
use parking_lot::Mutex;

use crate::address::{self, InvalidAddress};
use crate::connection::SharedConnection;
use crate::extension::Outcome;
use crate::rules::delivery::{BOUNCE, MessageType};
use crate::server::deliver::address::Address;
use crate::server::deliver::message::Turn;
use crate::server::{Core, Task};
use crate::session::{AccountKey, Leftover, SessionHandle, SessionId, Validity};
use crate::stanza::{Condition, ErrorType, Kind, Stanza, StanzaError};

const CARBONS: &str = "urn:xmpp:carbons:2";

/// The way to other domains, of a host that has one.
///
/// Stanzas come in the order in which they were sent, one at a time, without a lock of this crate.
/// What arrives from there the host hands in by [`Server::send`](crate::server::Server::send). A `to` is as
/// its sender wrote it: [`address`](crate::address) knows the domain's one spelling.
pub trait Router: Send + Sync + 'static {
    /// Takes a stanza for another domain. Never blocks: `Ok` = accepted.
    ///
    /// # Errors
    ///
    /// [`RouteError`], which the sender is told where an answer is due (STZ-10).
    fn route(&self, stanza: &Stanza) -> Result<(), RouteError>;
}

/// Why a stanza cannot be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// There is no such domain, or no way to it.
    #[error("there is no way to that domain")]
    NotFound,
    /// The domain does not answer now.
    #[error("the domain does not answer")]
    Timeout,
}

impl From<RouteError> for StanzaError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NotFound => Self::new(Condition::RemoteServerNotFound),
            RouteError::Timeout => {
                Self::new(Condition::RemoteServerTimeout).with_type(ErrorType::Wait)
            }
        }
    }
}

/// The queue in front of the router: one writer at a time, in order.
pub(in crate::server) struct Outlet<C: SharedConnection> {
    router: Option<Box<dyn Router>>,
    queue: Mutex<Queue<C>>,
}

struct Queue<C: SharedConnection> {
    waiting: VecDeque<Outgoing<C>>,
    writing: bool,
}

/// A stanza on its way out, and the session that is told if it finds none.
struct Outgoing<C: SharedConnection> {
    stanza: Stanza,
    origin: Option<SessionHandle<C>>,
}

impl<C: SharedConnection> Outlet<C> {
    pub(in crate::server) fn new(router: Option<Box<dyn Router>>) -> Self {
        let queue = Queue { waiting: VecDeque::new(), writing: false };
        Self { router, queue: Mutex::new(queue) }
    }

    /// Routes a stanza, or queues it where another thread is at it. One that is void by
    /// the time it has its place in the order is dropped (PRES-21). `refused` gets what could not
    /// be routed.
    fn route(
        &self,
        outgoing: Outgoing<C>,
        validity: Validity<'_>,
        mut refused: impl FnMut(Outgoing<C>, RouteError),
    ) {
        let mut refused = |outgoing, error| {
            // It leads into the host's code: its panic must not leave the queue without a writer.
            let _panicked = crate::server::shielded(|| refused(outgoing, error));
        };
        let Some(router) = &self.router else { return refused(outgoing, RouteError::NotFound) };
        let mut queue = self.queue.lock();
        if validity.is_void() {
            return;
        }
        queue.waiting.push_back(outgoing);
        if queue.writing {
            return;
        }
        queue.writing = true;
        while let Some(outgoing) = queue.waiting.pop_front() {
            drop(queue);
            let route = || router.route(&outgoing.stanza);
            let routed = crate::server::shielded(route).unwrap_or(Err(RouteError::Timeout));
            if let Err(error) = routed {
                refused(outgoing, error);
            }
            queue = self.queue.lock();
        }
        queue.writing = false;
    }
}

impl<C: SharedConnection> Core<C> {
    /// Routes a stanza with a true `from` by its `to`.
    pub(in crate::server) fn route(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: Stanza,
    ) -> Option<Task> {
        let to = stanza.to();
        let to = match to.as_deref().map(|to| self.address(to)) {
            Some(Ok(to)) => to,
            // Without an address there is nobody to deliver to, and the host knows better.
            None => return None,
            Some(Err(_)) => {
                self.bounce(origin, &stanza, Condition::JidMalformed);
                return None;
            }
        };
        self.route_to(origin, &stanza, &to)
    }

    pub(in crate::server) fn route_to(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        if !self.registry.is_local(to.bare.as_str()) {
            // First, since the router may refuse it on the spot.
            self.delivered(stanza, origin, None, &[], Outcome::Routed, None);
            if stanza.kind() == Kind::Iq {
                self.well_formed_iq(origin, stanza)?;
            }
            self.route_elsewhere(origin, stanza.clone());
            return None;
        }
        match stanza.kind() {
            Kind::Message => self.message(origin, stanza, to),
            Kind::Presence => self.presence(origin, stanza, to, Validity::FOR_GOOD),
            Kind::Iq => self.iq(origin, stanza, Some(to)),
        }
    }

    pub(in crate::server) fn address<'a>(
        &self,
        text: &'a str,
    ) -> Result<Address<'a>, InvalidAddress> {
        let hash = |bare: &str| self.registry.key(bare).hash;
        let known = |bare: AccountKey<'_>| self.registry.account(bare);
        Address::parse(text, hash, known, |bare| self.registry.is_local(bare))
    }

    /// A stanza of the host, from whom everything else here knows.
    pub(in crate::server) fn with_normal_from(&self, stanza: Stanza) -> Option<Stanza> {
        let Some(from) = stanza.from() else { return Some(stanza) };
        let Ok(normal) = self.address(&from).map(|from| from.to_text()) else {
            self.metrics.error(Condition::JidMalformed);
            return None;
        };
        if normal == from {
            return Some(stanza);
        }
        Some(stanza.readdressed(Some(&normal), stanza.to().as_deref()))
    }

    /// The address of an account itself.
    pub(super) fn address_of(&self, account: BareJid) -> Address<'static> {
        let hash = self.registry.key(account.as_str()).hash;
        Address::of(account, hash)
    }

    /// To the host's router; a refusal is answered to `origin`, or else to the session that the
    /// stanza is from, where that is due (STZ-10, SUB-6).
    pub(super) fn route_elsewhere(&self, origin: Option<&SessionHandle<C>>, stanza: Stanza) {
        self.route_while(origin, stanza, Validity::FOR_GOOD);
    }

    /// The same for a stanza that may have become untrue before it has its place in the order.
    pub(in crate::server) fn route_while(
        &self,
        origin: Option<&SessionHandle<C>>,
        stanza: Stanza,
        validity: Validity<'_>,
    ) {
        let outgoing = Outgoing { stanza, origin: origin.cloned() };
        self.router.route(outgoing, validity, |Outgoing { stanza, origin }, error| {
            let sender = origin.or_else(|| self.sender(&stanza));
            if let Some(session) = sender {
                if stanza.kind() == Kind::Presence
                    && let to = stanza.to()
                    && let Some(Ok(to)) = to.as_deref().map(|to| self.address(to))
                {
                    // PRES-11
                    session.forget_directed(&to.to_text());
                }
                self.bounce(Some(&session), &stanza, error);
            }
        });
    }

    /// The session that a stanza came from, if it is one of ours.
    fn sender(&self, stanza: &Stanza) -> Option<SessionHandle<C>> {
        let from = stanza.from()?;
        let (bare, resource) = address::parts(&from);
        self.registry.find(self.registry.key(bare), resource?)
    }

    /// An answer to somebody who is not a session at hand.
    pub(in crate::server) fn route_answer(&self, answer: Stanza) {
        let to = answer.to();
        let Some(Ok(to)) = to.as_deref().map(|to| self.address(to)) else { return };
        if !self.registry.is_local(to.bare.as_str()) {
            self.route_elsewhere(None, answer.clone());
        } else if !to.is_account() {
            self.requests.take_answer(&answer);
        } else {
            let found = to.resource.as_deref().and_then(|r| self.registry.find(to.key(), r));
            if let Some(session) = found {
                self.give_answer(&session, &answer);
            }
        }
    }

    /// Deals with what ended sessions of an account have left, in order, behind what is on the
    /// account's chain.
    pub(in crate::server) fn account_left(self: &Arc<Self>, account: &BareJid) {
        let (core, key) = (Arc::clone(self), account.to_string());
        let account = account.clone();
        let _settled = self.jobs.run(&key, async move { core.settle_left(&account).await });
    }

    /// [`settle_left`](Self::settle_left) in the midst of a message's turn: a future of known size.
    pub(super) fn settle_first<'a>(
        self: &'a Arc<Self>,
        account: &'a BareJid,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.settle_left(account))
    }

    /// The same on the account's chain, where it comes before everything else.
    pub(super) async fn settle_left(self: &Arc<Self>, account: &BareJid) {
        let (mut places, mut all) = (Vec::new(), VecDeque::<Leftover>::new());
        let mut reached = Vec::new();
        loop {
            while let Some((left, place)) = self.registry.left_behind(account) {
                places.push(place);
                // What several sessions leave goes on in the order in which it was accepted. In one
                // moment what a session leaves that has just got some of it comes before the rest.
                let (again, new): (Vec<_>, Vec<_>) =
                    left.into_iter().partition(|leftover| reached.contains(&leftover.id));
                all = again.into_iter().chain(all).chain(new).collect();
                all.make_contiguous().sort_by_key(|leftover| leftover.at);
            }
            let Some(leftover) = all.pop_front() else { return };
            // A panic of host code takes no other stanza along.
            let taken = crate::server::caught(self.route_leftover(leftover)).await;
            reached.extend(taken.unwrap_or_default());
        }
    }

    /// A stanza that an ended session leaves. One that was never written is routed again as if that
    /// session had not been (DESTROY-12); one that the client may have got is answered, or given to
    /// the account's other sessions or to its offline store (SM-17).
    ///
    /// Says which sessions have got it.
    async fn route_leftover(self: &Arc<Self>, leftover: Leftover) -> Vec<SessionId> {
        let stanza = &leftover.stanza;
        let type_ = stanza.type_();
        match (stanza.kind(), type_.as_deref()) {
            (Kind::Presence, _) | (Kind::Message, Some("error" | "headline")) => {}
            (Kind::Iq, Some("get" | "set")) | (Kind::Message, Some("groupchat")) => {
                self.bounce_leftover(&leftover).await;
            }
            (Kind::Iq, _) => {}
            (Kind::Message, _) if is_carbon(stanza, &leftover.session) => {}
            // MSG-T8, MSG-T9; a successor of the same resource is not who was meant (DESTROY-8).
            (Kind::Message, type_) if !leftover.retained && is_for_one(stanza, type_) => {
                self.bounce_leftover(&leftover).await;
            }
            (Kind::Message, _) => {
                let to = self.address_of(leftover.session.to_bare());
                let Leftover { accepted, at: since, retained: delayed, .. } = leftover;
                let turn = Turn::Again { accepted, since, delayed };
                return self.message_left(stanza, &to, turn).await;
            }
        }
        Vec::new()
    }

    /// Answers what an ended session leaves, unless its account hides from the sender by now (BLOCK-11).
    async fn bounce_leftover(&self, Leftover { stanza, session, .. }: &Leftover) {
        let from = stanza.from().unwrap_or_default();
        let state = self.loaded_state(&session.to_bare()).await;
        if !state.is_ok_and(|state| self.is_hidden(&state, &from)) {
            self.bounce(None, stanza, BOUNCE);
        }
    }
}

/// Whether a message is for no other resource than the one it is addressed to.
fn is_for_one(stanza: &Stanza, type_: Option<&str>) -> bool {
    MessageType::of(type_) == MessageType::Normal && stanza.to().is_some_and(|to| to.contains('/'))
}

/// Whether the account has sent its session a copy of a message (XEP-0280).
fn is_carbon(stanza: &Stanza, session: &FullJid) -> bool {
    stanza.from().is_some_and(|from| from == session.to_bare().as_str())
        && stanza.children().any(|child| child.namespace() == CARBONS)
}
