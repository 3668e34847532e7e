//! Where a stanza goes: to an account or a domain of this server, or to the host's router.

use std::collections::VecDeque;
use std::sync::Arc;

use jid::BareJid;

use super::address::Address;
use super::answer::try_again;
use super::destination::Destination;
use super::give::{Message, Origin};
use super::message::Accepted;
use crate::address::{self, InvalidAddress};
use crate::connection::SharedConnection;
use crate::extension::Outcome;
use crate::server::{Core, Task};
use crate::session::{AccountKey, HostCode, SessionHandle, Validity};
use crate::stanza::{Condition, ErrorType, Kind, Stanza, StanzaError};

/// The way to other domains, of a host that has one.
///
/// Stanzas come in the order in which they were sent, one at a time, without a lock of this crate.
/// What arrives from there the host hands in by [`Server::send`](crate::server::Server::send). A `to` is as
/// its sender wrote it: [`address`](crate::address) knows the domain's one spelling.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::{SyncSender, sync_channel};
/// use std::sync::Arc;
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::server::{RouteError, Router, Server};
/// use xmpp_session::stanza::Stanza;
/// use xmpp_session::store::Stores;
///
/// /// To the task that has the streams to other servers.
/// struct Federation(SyncSender<Stanza>);
///
/// impl Router for Federation {
///     fn route(&self, stanza: &Stanza) -> Result<(), RouteError> {
///         self.0.try_send(stanza.clone()).map_err(|_| RouteError::Timeout)
///     }
/// }
///
/// let (queue, outgoing) = sync_channel(1000);
/// let server: Server<Recorder> = Server::builder(Arc::new(Virtual::new(1)), Stores::memory())
///     .domain("example.com".parse()?)
///     .router(Federation(queue))
///     .build();
///
/// server.send(Stanza::message().from("example.com").to("romeo@example.net").build());
/// assert_eq!(outgoing.try_recv()?.to().as_deref(), Some("romeo@example.net"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Router: Send + Sync + 'static {
    /// Takes a stanza for another domain. Never blocks: `Ok` = accepted.
    ///
    /// # Errors
    ///
    /// [`RouteError`], which the sender is told where an answer is due ([STZ-10](crate::rules#stz-10)).
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
    /// More waits for the domain than may: `resource-constraint`, to be tried again.
    #[error("too much waits for the domain")]
    Busy,
}

impl From<RouteError> for StanzaError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NotFound => Self::new(Condition::RemoteServerNotFound),
            RouteError::Timeout => {
                Self::new(Condition::RemoteServerTimeout).with_type(ErrorType::Wait)
            }
            RouteError::Busy => try_again(),
        }
    }
}

/// The queue in front of the router: one writer at a time, in order.
pub(crate) struct RouterQueue<C: SharedConnection> {
    pub(crate) waiting: VecDeque<Outgoing<C>>,
    pub(crate) writing: bool,
}

/// A stanza on its way out, and the session that is told if there is no way.
pub(crate) struct Outgoing<C: SharedConnection> {
    pub(super) stanza: Stanza,
    pub(super) origin: Option<SessionHandle<C>>,
}

impl<C: SharedConnection> Outgoing<C> {
    #[cfg(feature = "cluster")]
    pub(crate) const fn stanza(&self) -> &Stanza {
        &self.stanza
    }

    #[cfg(feature = "cluster")]
    pub(crate) const fn origin(&self) -> Option<&SessionHandle<C>> {
        self.origin.as_ref()
    }
}

impl<C: SharedConnection> Core<C> {
    /// Routes what the host hands in by its `to`. A panic of an extension ends this stanza alone.
    pub(crate) fn route_for_host(self: &Arc<Self>, stanza: &Stanza) {
        if let Some(task) = self.route_by_host(stanza) {
            self.jobs.spawn(task);
        }
    }

    /// The same; what has to wait is returned.
    pub(in crate::server) fn route_by_host(self: &Arc<Self>, stanza: &Stanza) -> Option<Task> {
        let to = stanza.to();
        let route = || match to.as_deref().map(|to| self.address(to)) {
            Some(Ok(to)) if stanza.kind() == Kind::Presence => self.host_presence(stanza, &to),
            #[cfg(feature = "cluster")]
            Some(Ok(_)) if self.is_reviewed_elsewhere(stanza) => None,
            Some(Ok(to)) => self.route_to(None, stanza, &to),
            Some(Err(_)) => self.refuse(None, stanza, Condition::JidMalformed),
            // There is nobody to tell.
            None => None,
        };
        match self.shielded(HostCode::Extension, None, route) {
            Some(task) => task,
            None => self.refuse(None, stanza, Condition::InternalServerError),
        }
    }

    pub(crate) fn route_to(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        if stanza.kind() == Kind::Message && self.is_followed() {
            return self.review_and_route(origin, stanza, to);
        }
        self.route_now(origin, stanza, to)
    }

    /// The same, of what no extension has to be asked about.
    #[inline]
    pub(super) fn route_now(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        match (self.destination(&to.bare), stanza.kind()) {
            (Destination::Elsewhere, kind) => {
                if kind == Kind::Iq {
                    self.check_iq(origin, stanza)?;
                }
                self.hand_on(origin, Message::of(stanza), to);
                None
            }
            (Destination::Here, Kind::Message) => self.message(origin, stanza, to, Accepted::Now),
            (Destination::Here, Kind::Presence) => {
                self.presence(origin, stanza, to, Validity::FOR_GOOD)
            }
            (Destination::Here, Kind::Iq) => self.iq(origin, stanza, Some(to)),
        }
    }

    pub(crate) fn address<'a>(&self, text: &'a str) -> Result<Address<'a>, InvalidAddress> {
        let hash = |bare: &str| self.registry.key(bare).hash;
        let known = |bare: AccountKey<'_>| self.registry.account(bare);
        Address::parse(text, hash, known, |bare| self.is_ours(bare))
    }

    /// A stanza of the host, with its `from` in normal form (JID-1), and without what another domain says
    /// in our name (STZ-14); `None` where `from` is no address.
    pub(crate) fn sent_by_host(&self, stanza: Stanza) -> Option<Stanza> {
        let Some(from) = stanza.from() else { return Some(stanza) };
        let Ok(sender) = self.address(&from) else {
            self.metrics.error(Condition::JidMalformed);
            return None;
        };
        let (normal, is_ours) = (sender.to_text(), self.is_ours(sender.bare.as_str()));
        let readdressed =
            (normal != from).then(|| stanza.readdressed(Some(&normal), stanza.to().as_deref()));
        drop(from);
        let stanza = readdressed.unwrap_or(stanza);
        Some(if is_ours { stanza } else { self.without_claims(stanza) })
    }

    /// The address of an account itself.
    pub(super) fn address_of(&self, account: BareJid) -> Address<'static> {
        let hash = self.registry.key(account.as_str()).hash;
        Address::of(account, hash)
    }

    /// To where its recipient lives, at another node or another domain; extensions are told.
    pub(super) fn hand_on(&self, origin: Origin<'_, C>, message: Message<'_>, to: &Address<'_>) {
        // First, since the router may refuse it on the spot.
        self.delivered(origin, message, None, &[], Outcome::Routed, None);
        self.route_to_elsewhere(origin, message.stanza.clone(), Some(to), Validity::FOR_GOOD);
    }

    /// To the host's router, or into the queue while another thread is writing. A stanza that is void by
    /// the time it has its place in the order is dropped (PRES-21).
    pub(crate) fn route_elsewhere(
        &self,
        origin: Origin<'_, C>,
        stanza: Stanza,
        validity: Validity<'_>,
    ) {
        self.route_to_elsewhere(origin, stanza, None, validity);
    }

    /// The same of a stanza whose `to` has been read, if it has.
    fn route_to_elsewhere(
        &self,
        origin: Origin<'_, C>,
        stanza: Stanza,
        to: Option<&Address<'_>>,
        validity: Validity<'_>,
    ) {
        let outgoing = Outgoing { stanza, origin: origin.cloned() };
        let Some(outgoing) = self.to_component(outgoing, to, validity) else { return };
        #[cfg(feature = "cluster")]
        let Some(outgoing) = self.to_another_node(outgoing, to, validity) else { return };
        if let Some(error) = self.is_kept_here(&outgoing.stanza) {
            return self.not_routed(outgoing, error);
        }
        let Some(router) = &self.router else {
            return self.not_routed(outgoing, RouteError::NotFound);
        };
        let mut queue = self.router_queue.lock();
        if validity.is_void() {
            return;
        }
        queue.waiting.push_back(outgoing);
        if std::mem::replace(&mut queue.writing, true) {
            return;
        }
        while let Some(outgoing) = queue.waiting.pop_front() {
            drop(queue);
            let route = || router.route(&outgoing.stanza);
            let account = outgoing.origin.as_ref().map(|session| &session.account().bare);
            let routed = self.shielded(HostCode::Router, account, route);
            let routed = routed.unwrap_or(Err(RouteError::Timeout));
            if let Err(error) = routed {
                self.not_routed(outgoing, error);
            }
            queue = self.router_queue.lock();
        }
        queue.writing = false;
    }

    /// A refusal is answered to the session that sent the stanza, where that is due (STZ-10, SUB-6); and
    /// where a component sent it or was to get it, to whom else it is from (COMP-3).
    pub(in crate::server) fn not_routed(
        &self,
        Outgoing { stanza, origin }: Outgoing<C>,
        error: impl Into<StanzaError>,
    ) {
        let answer = || {
            let Some(session) = origin.or_else(|| self.sender(&stanza)) else {
                if self.concerns_component(&stanza) {
                    self.bounce(None, &stanza, error);
                }
                return;
            };
            if stanza.kind() == Kind::Presence
                && let to = stanza.to()
                && let Some(Ok(to)) = to.as_deref().map(|to| self.address(to))
            {
                // PRES-11
                session.forget_directed(&to.to_text());
            }
            self.bounce(Some(&session), &stanza, error);
        };
        // It leads into the host's code: its panic must not leave the queue without a writer.
        let _panicked = self.shielded(HostCode::Extension, None, answer);
    }

    /// The local session that a stanza came from.
    fn sender(&self, stanza: &Stanza) -> Option<SessionHandle<C>> {
        let from = stanza.from()?;
        let (bare, resource) = address::parts(&from);
        self.registry.find(self.registry.key(bare), resource?)
    }
}
