//! Where a stanza goes: to an account or a domain of ours, or to the host's router.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use super::address::Address;
use super::{Core, Task};
use crate::connection::Connection;
use crate::session::{Leftover, SessionHandle};
use crate::stanza::{Condition, ErrorType, Kind, Stanza, StanzaError};

/// The way to other domains, of a host that has one.
///
/// Stanzas come in the order in which they were sent, one at a time, without a lock of this crate.
/// What arrives from there the host hands in by [`Server::send`](super::Server::send).
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
#[derive(Default)]
pub(super) struct Outlet {
    router: Option<Box<dyn Router>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Stanza>,
    writing: bool,
}

impl Outlet {
    pub(super) fn new(router: Option<Box<dyn Router>>) -> Self {
        Self { router, queue: Mutex::default() }
    }

    /// Routes a stanza, or queues it where another thread is at it. `refused` gets what could not
    /// be routed.
    fn route(&self, stanza: Stanza, mut refused: impl FnMut(Stanza, RouteError)) {
        let Some(router) = &self.router else { return refused(stanza, RouteError::NotFound) };
        let mut queue = self.queue.lock();
        queue.waiting.push_back(stanza);
        if queue.writing {
            return;
        }
        queue.writing = true;
        while let Some(stanza) = queue.waiting.pop_front() {
            drop(queue);
            let route = || router.route(&stanza);
            let routed = catch_unwind(AssertUnwindSafe(route)).unwrap_or(Err(RouteError::Timeout));
            if let Err(error) = routed {
                refused(stanza, error);
            }
            queue = self.queue.lock();
        }
        queue.writing = false;
    }
}

impl<C: Connection + Clone> Core<C> {
    /// Routes a stanza with a true `from` by its `to`.
    pub(super) fn route(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: Stanza,
    ) -> Option<Task> {
        let to = match stanza.to().map(|to| self.address(&to)) {
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

    pub(super) fn route_to(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address,
    ) -> Option<Task> {
        if !self.registry.is_local(to.bare.as_str()) {
            self.route_elsewhere(origin, stanza.clone());
            return None;
        }
        match stanza.kind() {
            Kind::Message => self.message(origin, stanza, to),
            Kind::Presence => self.presence(origin, stanza, to, None),
            Kind::Iq => self.iq(origin, stanza, Some(to)),
        }
    }

    pub(super) fn address(&self, text: &str) -> Result<Address, super::address::Malformed> {
        Address::parse(text, |bare| self.registry.is_local(bare))
    }

    /// To the host's router; a refusal is answered to the sender where that is due (STZ-10).
    pub(super) fn route_elsewhere(&self, origin: Option<&SessionHandle<C>>, stanza: Stanza) {
        self.router.route(stanza, |stanza, error| {
            // By the time another thread's stanza is refused, its sender is found by its JID.
            let sender = origin.filter(|session| stanza.raw_from() == Some(session.jid().as_str()));
            let found = if sender.is_none() { self.sender(&stanza) } else { None };
            if let Some(session) = sender.or(found.as_ref()) {
                self.bounce(Some(session), &stanza, error);
            }
        });
    }

    /// The session that a stanza came from, if it is one of ours.
    fn sender(&self, stanza: &Stanza) -> Option<SessionHandle<C>> {
        let from = stanza.from()?;
        let (bare, resource) = from.split_once('/')?;
        self.registry.find(bare, resource)
    }

    /// An answer to somebody who is not a session at hand.
    pub(super) fn route_answer(&self, answer: Stanza) {
        let Some(Ok(to)) = answer.to().map(|to| self.address(&to)) else { return };
        if !self.registry.is_local(to.bare.as_str()) {
            self.route_elsewhere(None, answer);
        } else if !to.is_account() {
            self.requests.take_answer(&answer);
        } else {
            let found = to.resource.and_then(|r| self.registry.find(to.bare.as_str(), &r));
            let _gone = found.map(|session| self.give(&session, &answer));
        }
    }

    /// A stanza that an ended session leaves: routed again as if that session had not been
    /// (DESTROY-12, SM-17).
    pub(super) fn route_leftover(self: &Arc<Self>, leftover: Leftover) {
        let stanza = leftover.stanza;
        let type_ = stanza.type_();
        let again = match stanza.kind() {
            Kind::Message => !matches!(type_.as_deref(), Some("error" | "headline")),
            Kind::Iq => matches!(type_.as_deref(), Some("get" | "set")),
            Kind::Presence => false,
        };
        if let Some(task) = again.then(|| self.route(None, stanza)).flatten() {
            self.jobs.spawn(task);
        }
    }
}
