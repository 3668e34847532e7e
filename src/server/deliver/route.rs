//! Where a stanza goes: to an account or a domain of this server, or to the host's router.

use std::collections::VecDeque;
use std::sync::Arc;

use jid::BareJid;
use parking_lot::Mutex;

use super::address::Address;
use super::give::Origin;
use super::message::Accepted;
use crate::address::{self, InvalidAddress};
use crate::connection::SharedConnection;
use crate::extension::Outcome;
use crate::server::faults::Faults;
use crate::server::{Core, PeerAddress, Task};
use crate::session::{AccountKey, HostCode, SessionHandle, Validity};
use crate::stanza::{Condition, ErrorType, Kind, Stanza, StanzaError};

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
pub(crate) struct RouterQueue<C: SharedConnection> {
    router: Option<Box<dyn Router>>,
    state: Mutex<QueueState<C>>,
}

struct QueueState<C: SharedConnection> {
    waiting: VecDeque<Outgoing<C>>,
    writing: bool,
}

/// A stanza on its way out, and the session that is told if there is no way.
struct Outgoing<C: SharedConnection> {
    stanza: Stanza,
    origin: Option<SessionHandle<C>>,
}

impl<C: SharedConnection> RouterQueue<C> {
    pub(crate) fn new(router: Option<Box<dyn Router>>) -> Self {
        let state = QueueState { waiting: VecDeque::new(), writing: false };
        Self { router, state: Mutex::new(state) }
    }

    /// Routes a stanza, or queues it while another thread is writing. One that is void by
    /// the time it has its place in the order is dropped (PRES-21). `refused` gets what could not
    /// be routed.
    fn route(
        &self,
        outgoing: Outgoing<C>,
        validity: Validity<'_>,
        faults: &Faults,
        mut refused: impl FnMut(Outgoing<C>, RouteError),
    ) {
        let mut refused = |outgoing: Outgoing<C>, error| {
            // It leads into the host's code: its panic must not leave the queue without a writer.
            let peer = &PeerAddress::UNKNOWN;
            faults.shielded(HostCode::Extension, peer, None, || refused(outgoing, error));
        };
        let Some(router) = &self.router else { return refused(outgoing, RouteError::NotFound) };
        let mut queue = self.state.lock();
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
            let account = outgoing.origin.as_ref().map(|session| &session.account().bare);
            let routed = faults.shielded(HostCode::Router, &PeerAddress::UNKNOWN, account, route);
            let routed = routed.unwrap_or(Err(RouteError::Timeout));
            if let Err(error) = routed {
                refused(outgoing, error);
            }
            queue = self.state.lock();
        }
        queue.writing = false;
    }
}

impl<C: SharedConnection> Core<C> {
    /// Routes a stanza with a true `from` by its `to`.
    pub(crate) fn route(self: &Arc<Self>, origin: Origin<'_, C>, stanza: Stanza) -> Option<Task> {
        let to = stanza.to();
        let to = match to.as_deref().map(|to| self.address(to)) {
            Some(Ok(to)) => to,
            // Only the host can send a stanza without an address here, and there is nobody to tell.
            None => return None,
            Some(Err(_)) => {
                self.bounce(origin, &stanza, Condition::JidMalformed);
                return None;
            }
        };
        self.route_to(origin, &stanza, &to)
    }

    /// Routes what the host hands in. A panic of an extension ends this stanza alone.
    pub(crate) fn route_for_host(self: &Arc<Self>, stanza: Stanza) {
        match self.shielded(HostCode::Extension, None, || self.route(None, stanza.clone())) {
            Some(None) => {}
            Some(Some(task)) => self.jobs.spawn(task),
            None => self.bounce(None, &stanza, Condition::InternalServerError),
        }
    }

    pub(crate) fn route_to(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        if !self.registry.is_local(to.bare.as_str()) {
            // First, since the router may refuse it on the spot.
            self.delivered(stanza, origin, None, &[], Outcome::Routed, None);
            if stanza.kind() == Kind::Iq {
                self.check_iq(origin, stanza)?;
            }
            self.route_elsewhere(origin, stanza.clone());
            return None;
        }
        match stanza.kind() {
            Kind::Message => self.message(origin, stanza, to, Accepted::Now),
            Kind::Presence => self.presence(origin, stanza, to, Validity::FOR_GOOD),
            Kind::Iq => self.iq(origin, stanza, Some(to)),
        }
    }

    pub(crate) fn address<'a>(&self, text: &'a str) -> Result<Address<'a>, InvalidAddress> {
        let hash = |bare: &str| self.registry.key(bare).hash;
        let known = |bare: AccountKey<'_>| self.registry.account(bare);
        Address::parse(text, hash, known, |bare| self.registry.is_local(bare))
    }

    /// A stanza of the host with its `from` in normal form; `None` where that is no address.
    pub(crate) fn with_normal_from(&self, stanza: Stanza) -> Option<Stanza> {
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
    pub(super) fn route_elsewhere(&self, origin: Origin<'_, C>, stanza: Stanza) {
        self.route_while(origin, stanza, Validity::FOR_GOOD);
    }

    /// The same for a stanza that may have become untrue before it has its place in the order.
    pub(crate) fn route_while(
        &self,
        origin: Option<&SessionHandle<C>>,
        stanza: Stanza,
        validity: Validity<'_>,
    ) {
        let outgoing = Outgoing { stanza, origin: origin.cloned() };
        self.router.route(
            outgoing,
            validity,
            &self.faults,
            |Outgoing { stanza, origin }, error| {
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
            },
        );
    }

    /// The local session that a stanza came from.
    fn sender(&self, stanza: &Stanza) -> Option<SessionHandle<C>> {
        let from = stanza.from()?;
        let (bare, resource) = address::parts(&from);
        self.registry.find(self.registry.key(bare), resource?)
    }
}
