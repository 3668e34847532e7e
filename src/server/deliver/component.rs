//! Domains that code of the host answers for, inside of the process.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use jid::{DomainPart, DomainRef};

use super::address::Address;
use super::handler::HANDLER_TIMEOUT;
#[cfg(feature = "cluster")]
use super::iq::is_request;
use super::route::{Outgoing, RouteError};
use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::extension::RequestError;
use crate::rules::presence::PresenceType;
use crate::server::work::timers::Timers;
use crate::server::{Core, PeerAddress, Server, caught};
use crate::session::{HostCode, RetentionLimits, Validity};
use crate::shield::note_behind;
use crate::stanza::{Condition, Kind, Stanza, StanzaError};
use crate::stream::Limit;
use crate::sync::common::Mutex;

/// What comes of a stanza for a component.
type Handled = Pin<Box<dyn Future<Output = Result<(), StanzaError>> + Send>>;

type Handler<C> = Box<dyn Fn(ComponentHandle<C>, Stanza) -> Handled + Send + Sync>;

/// So many stanzas in a row, then other work has its turn.
const TURN: u32 = 32;

/// How a component speaks: in the name of its domain, and of every address in it.
///
/// Every call of the handler gets one; [`Server::component`] has one for other code of the component. It
/// keeps no server alive.
pub struct ComponentHandle<C: SharedConnection> {
    core: Weak<Core<C>>,
    domain: Arc<str>,
}

/// Why a component's stanza was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// Its `from` is no address in the component's domain ([COMP-4](crate::rules#comp-4)).
    #[error("the sender is not in the component's domain")]
    ForeignSender,
    /// The server is gone.
    #[error("the server is gone")]
    Gone,
}

impl<C: SharedConnection> ComponentHandle<C> {
    /// The component's domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Sends a stanza, as if it had come from another domain: see [`Server::send`]. Its `from` is the domain
    /// or an address in it; without one it is from the domain.
    ///
    /// # Errors
    ///
    /// [`ComponentError`]. What becomes of the stanza is not known here: its error comes to the component.
    pub fn send(&self, stanza: Stanza) -> Result<(), ComponentError> {
        let (core, stanza) = self.stamped(stanza)?;
        Server(core).send(stanza);
        Ok(())
    }

    /// Sends an iq get or set and waits for its answer, which does not go to the handler.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: also where [`send`](Self::send) would refuse the iq.
    pub async fn request(&self, iq: Stanza) -> Result<Stanza, RequestError> {
        let (core, iq) = self.stamped(iq).map_err(|_| RequestError::NotARequest)?;
        core.request(&self.domain, iq).await
    }

    fn stamped(&self, stanza: Stanza) -> Result<(Arc<Core<C>>, Stanza), ComponentError> {
        let core = self.core.upgrade().ok_or(ComponentError::Gone)?;
        let is_own = |from: &str| {
            core.address(from).is_ok_and(|from| from.bare.domain().as_str() == &*self.domain)
        };
        let stanza = match stanza.from() {
            Some(from) if is_own(&from) => stanza,
            Some(_) => return Err(ComponentError::ForeignSender),
            None => stanza.readdressed(Some(&self.domain), stanza.to().as_deref()),
        };
        Ok((core, stanza))
    }
}

impl<C: SharedConnection> Clone for ComponentHandle<C> {
    fn clone(&self) -> Self {
        Self { core: Weak::clone(&self.core), domain: Arc::clone(&self.domain) }
    }
}

impl<C: SharedConnection> fmt::Debug for ComponentHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentHandle").finish_non_exhaustive()
    }
}

impl<C: SharedConnection> Server<C> {
    /// The handle of the component that answers for `domain`, if there is one.
    #[must_use]
    pub fn component(&self, domain: &DomainRef) -> Option<ComponentHandle<C>> {
        let component = self.0.components.at(domain.as_str())?;
        Some(component.handle(&Arc::downgrade(&self.0)))
    }
}

/// All components of a server.
pub(crate) struct Components<C: SharedConnection> {
    all: Vec<Arc<Component<C>>>,
    /// Their server.
    core: Weak<Core<C>>,
}

/// One domain, its handler, and what waits for it.
struct Component<C: SharedConnection> {
    domain: Arc<str>,
    handler: Handler<C>,
    queue: Mutex<Queue<C>>,
}

struct Queue<C: SharedConnection> {
    waiting: VecDeque<Outgoing<C>>,
    bytes: usize,
    /// Somebody hands over what waits, or is about to.
    is_served: bool,
}

impl<C: SharedConnection> Queue<C> {
    /// Whether, with one more stanza of so many bytes, more waits than so many quarters of what may.
    fn exceeds(&self, limits: &RetentionLimits, bytes: usize, quarters: usize) -> bool {
        let is_over =
            |now: usize, most: usize| now.saturating_mul(4) > most.saturating_mul(quarters);
        let (stanzas, bytes) = (self.waiting.len() + 1, self.bytes.saturating_add(bytes));
        !self.waiting.is_empty()
            && (is_over(stanzas, limits.live_stanzas) || is_over(bytes, limits.bytes))
    }
}

impl<C: SharedConnection> Default for Components<C> {
    fn default() -> Self {
        Self { all: Vec::new(), core: Weak::new() }
    }
}

impl<C: SharedConnection> Components<C> {
    pub(crate) fn add<F>(
        &mut self,
        domain: &DomainPart,
        handler: impl Fn(ComponentHandle<C>, Stanza) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), StanzaError>> + Send + 'static,
    {
        let queue = Queue { waiting: VecDeque::new(), bytes: 0, is_served: false };
        self.all.push(Arc::new(Component {
            domain: domain.as_str().into(),
            handler: Box::new(move |handle, stanza| Box::pin(handler(handle, stanza))),
            queue: Mutex::new(queue),
        }));
    }

    pub(crate) fn domains(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|component| &*component.domain)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// A domain that the server serves itself stays its own (COMP-1).
    pub(crate) fn leave_out(&mut self, is_served: impl Fn(&str) -> bool) {
        self.all.retain(|component| !is_served(&component.domain));
    }

    /// The same, of this server.
    pub(crate) fn of(self, core: Weak<Core<C>>) -> Self {
        Self { core, ..self }
    }

    fn at(&self, domain: &str) -> Option<&Arc<Component<C>>> {
        self.all.iter().find(|component| *component.domain == *domain)
    }
}

impl<C: SharedConnection> Component<C> {
    fn handle(&self, core: &Weak<Core<C>>) -> ComponentHandle<C> {
        ComponentHandle { core: Weak::clone(core), domain: Arc::clone(&self.domain) }
    }

    /// Takes a stanza into the queue, if there is room for it. `Ok(true)`: somebody has to serve it.
    fn put(
        &self,
        mut outgoing: Outgoing<C>,
        validity: Validity<'_>,
        limits: &RetentionLimits,
    ) -> Result<bool, Outgoing<C>> {
        let mut queue = self.queue.lock();
        if validity.is_void() {
            return Ok(false);
        }
        if queue.exceeds(limits, outgoing.stanza.len(), 4) {
            // LIMIT-10: that somebody is gone is always told, up to a point.
            let is_end = PresenceType::read(&outgoing.stanza) == Ok(PresenceType::Unavailable);
            if outgoing.stanza.kind() != Kind::Presence || !is_end {
                return Err(outgoing);
            }
            if let Some(bare) = outgoing.stanza.without(|_| true) {
                outgoing.stanza = bare;
            }
            if queue.exceeds(limits, outgoing.stanza.len(), 8) {
                return Err(outgoing);
            }
        }
        queue.bytes += outgoing.stanza.len();
        queue.waiting.push_back(outgoing);
        // LIMIT-13
        if queue.exceeds(limits, 0, 1) {
            note_behind();
        }
        Ok(!std::mem::replace(&mut queue.is_served, true))
    }

    fn next(&self) -> Option<Outgoing<C>> {
        let mut queue = self.queue.lock();
        let next = queue.waiting.pop_front();
        match &next {
            Some(outgoing) => queue.bytes = queue.bytes.saturating_sub(outgoing.stanza.len()),
            None => queue.is_served = false,
        }
        next
    }
}

/// Hands a component what waits for it, one by one (COMP-2). It keeps no server alive.
async fn serve<C: SharedConnection>(
    core: Weak<Core<C>>,
    timers: Arc<Timers>,
    component: Arc<Component<C>>,
) {
    let mut in_turn = 0;
    while let Some(outgoing) = component.next() {
        let handle = component.handle(&core);
        let stanza = outgoing.stanza.clone();
        let told = |message| {
            if let Some(core) = core.upgrade() {
                core.faults.panicked(HostCode::Component, &PeerAddress::UNKNOWN, None, message);
            }
        };
        let work = caught(async { (component.handler)(handle, stanza).await }, told);
        let error = match timers.within(HANDLER_TIMEOUT, work).await {
            Some(Some(Ok(()))) => None,
            Some(Some(Err(error))) => Some(error),
            Some(None) => Some(Condition::InternalServerError.into()),
            None => Some(RouteError::Timeout.into()),
        };
        if let Some((error, core)) = error.zip(core.upgrade()) {
            core.not_routed(outgoing, error);
        }
        in_turn += 1;
        if in_turn == TURN
            && let Some(core) = core.upgrade()
        {
            return core.serve_component(&component);
        }
    }
}

impl<C: SharedConnection> Core<C> {
    /// Queues a stanza for the component that it is for; given back where there is none. `to`: its address, where that
    /// was read.
    pub(super) fn to_component(
        &self,
        outgoing: Outgoing<C>,
        to: Option<&Address<'_>>,
        validity: Validity<'_>,
    ) -> Option<Outgoing<C>> {
        let component = match to {
            Some(to) => self.components.at(to.bare.domain().as_str()),
            None => self.component_of(outgoing.stanza.to().as_deref()),
        };
        let Some(component) = component else { return Some(outgoing) };
        if outgoing.stanza.kind() == Kind::Iq {
            if self.requests.take_answer(&component.domain, &outgoing.stanza) {
                return None;
            }
            // The component may be at several nodes, and another one may have asked.
            #[cfg(feature = "cluster")]
            if is_request(&outgoing.stanza) == Some(false) {
                self.answered_elsewhere(&outgoing.stanza);
            }
        }
        match component.put(outgoing, validity, &self.limits.retention) {
            Ok(true) => self.serve_component(component),
            Ok(false) => {}
            Err(refused) => {
                let sender = refused.origin.as_ref().map(|session| &session.account().bare);
                self.limit(Limit::Waiting, &PeerAddress::UNKNOWN, sender);
                self.not_routed(refused, RouteError::Busy);
            }
        }
        None
    }

    /// From another node.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn to_component_here(&self, stanza: Stanza) {
        if let Some(outgoing) =
            self.to_component(Outgoing { stanza, origin: None }, None, Validity::FOR_GOOD)
        {
            self.not_routed(outgoing, RouteError::NotFound);
        }
    }

    /// What waits for a component is handed over in the background.
    fn serve_component(&self, component: &Arc<Component<C>>) {
        let core = Weak::clone(&self.components.core);
        let timers = Arc::clone(&self.timers);
        self.jobs.later(serve(core, timers, Arc::clone(component)));
    }

    /// The domain, of those that ask, to which an answer is addressed: a component's, else none.
    #[cfg(feature = "cluster")]
    pub(super) fn asker(&self, answer: &Stanza) -> &str {
        self.component_of(answer.to().as_deref()).map_or("", |component| &component.domain)
    }

    /// Whether a component sends a stanza, or gets it.
    pub(super) fn concerns_component(&self, stanza: &Stanza) -> bool {
        [stanza.to(), stanza.from()].iter().any(|one| self.component_of(one.as_deref()).is_some())
    }

    /// The component at whose domain an address is.
    fn component_of(&self, address: Option<&str>) -> Option<&Arc<Component<C>>> {
        if self.components.all.is_empty() {
            return None;
        }
        let address = self.address(bare_of(address?)).ok()?;
        self.components.at(address.bare.domain().as_str())
    }
}
