//! The endpoint: everything between "bytes arrived" and "stanza delivered".
//!
//! A [`Server`] is the assembly of the rooms above: the stream, SASL, the registry of sessions, the
//! rules, the stores and the extensions. It has no socket and no runtime. For each transport the
//! host calls [`Server::accept`] and gets a [`Driver`]: a machine that takes bytes, acts through the
//! [`Connection`](crate::connection::Connection) and says what it wants next.
//!
//! ```text
//! bytes ──▶ Driver ── Stanza ──▶ rules ──▶ SessionHandle ──▶ Connection ──▶ bytes
//!              │                   │
//!              │ Want              └──▶ stores, extensions, router
//!              ▼
//!            host
//! ```

mod builder;
mod deliver;
mod driver;
mod ends;
mod limits;
mod metrics;
mod work;

pub use builder::{Builder, DomainPolicy};
pub use deliver::requests::RequestError;
pub use deliver::route::{RouteError, Router};
pub use driver::Driver;
pub use driver::admission::Place;
pub use driver::hashing::{Offload, Work};
pub use driver::peer::{Peer, Want};
pub use ends::{Progress, Shutdown};
pub use limits::{Limits, Rate};
pub use metrics::Metrics;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jid::{BareJid, DomainPart};
use parking_lot::Mutex;

use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::extension::{Extension, Outcome, Target};
use crate::recent::Recent;
use crate::session::{Copies, Item, NotSent, SessionHandle, SessionRegistry, Validity};
use crate::shield::shielded;
use crate::stanza::{Condition, ErrorType, Frame, Stanza, StanzaError};
use crate::store::Stores;
use builder::Domain;
use deliver::requests::Requests;
use driver::admission::Ledger;
use driver::failures::Failures;
use driver::hashing::Hashing;
use driver::rate::Allowances;
use driver::unbound::Early;
use metrics::Counters;
use work::jobs::Jobs;
use work::timers::Timers;

/// Work on a stanza that has to wait for the host.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An XMPP endpoint for clients. Cheap to clone; all clones are one server.
pub struct Server<C: SharedConnection>(Arc<Core<C>>);

/// The shared inside of a server.
struct Core<C: SharedConnection> {
    registry: SessionRegistry<C>,
    environment: Arc<dyn Environment>,
    stores: Stores,
    domains: Vec<Domain>,
    default_domain: Option<DomainPart>,
    former_domains: Vec<DomainPart>,
    extensions: Vec<Box<dyn Extension<C>>>,
    limits: Limits,
    router: deliver::route::Outlet<C>,
    jobs: Arc<Jobs>,
    timers: Timers,
    requests: Requests,
    ledger: Arc<Ledger>,
    allowances: Allowances,
    failures: Arc<Failures>,
    hashing: Option<Arc<Hashing>>,
    early: Arc<Early>,
    metrics: Counters,
    log_addresses: bool,
    /// When which pending-out request was sent again (SUB-13).
    reminders: Mutex<Recent<Duration>>,
    unheard: deliver::unheard::Unheard,
    offline_failures: deliver::offline::Failures,
}

impl<C: SharedConnection> Server<C> {
    /// The sessions.
    #[must_use]
    pub fn registry(&self) -> &SessionRegistry<C> {
        &self.0.registry
    }

    /// The monotonic time that [`Driver::next_timeout`] and [`next_timeout`](Self::next_timeout)
    /// are on.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.environment.now()
    }

    /// Takes a transport that has just been accepted.
    pub fn accept(&self, connection: C, peer: Peer) -> Driver<C> {
        Driver::new(Arc::clone(&self.0), connection, peer)
    }

    /// Drives on the work that outlives its connection: run it once, in a task or on a thread of
    /// its own. It never ends.
    pub async fn background(&self) {
        poll_fn(|cx| self.0.jobs.poll(cx)).await;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next. Later work may set
    /// an earlier time: a host that calls it once a second is right too.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        [self.0.timers.next(), self.0.registry.next_timeout()].into_iter().flatten().min()
    }

    /// Ends what has waited for too long: hibernating sessions, handlers, requests.
    pub fn handle_timeout(&self) {
        self.0.timers.fire();
        self.0.registry.handle_timeout();
    }

    /// Routes a stanza of the host, or one that arrived from another domain, by its `to`. Its
    /// `from` is believed: the host has checked it. It gets its normal form (JID-1); a stanza whose
    /// `from` has none is dropped. What one of another domain says in our name is taken out (STZ-14).
    pub fn send(&self, stanza: Stanza) {
        let Some(stanza) = self.0.with_normal_from(stanza) else { return };
        let stanza = self.0.without_claims_of_others(stanza);
        self.0.route_for_host(stanza);
    }

    /// Sends an iq get or set, and waits for its answer: the result or error with its id and from
    /// its `to` (STZ-13).
    ///
    /// # Errors
    ///
    /// [`RequestError`] when no answer comes within 60 seconds, or the iq is no request.
    pub async fn request(&self, iq: Stanza) -> Result<Stanza, RequestError> {
        self.0.request(iq).await
    }

    /// What the server has done so far.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.0.metrics()
    }
}

impl<C: SharedConnection> Clone for Server<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: SharedConnection> fmt::Debug for Server<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("sessions", &self.0.registry.counts())
            .finish_non_exhaustive()
    }
}

impl<C: SharedConnection> Core<C> {
    /// Gives a stanza to a session, as it is.
    fn give(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Result<(), NotSent> {
        session.send(stanza)?;
        self.given(session, stanza);
        Ok(())
    }

    /// Gives a session a message that may go to other sessions of the account as well; one that a session
    /// has left, as accepted `since` then.
    fn give_copy(
        &self,
        session: &SessionHandle<C>,
        stanza: &Stanza,
        copies: Option<&Copies>,
        since: Option<Duration>,
    ) -> Result<(), NotSent> {
        let is_given = match (since, copies) {
            (Some(since), copies) => session.send_left(stanza, copies, since)?,
            (None, Some(copies)) => {
                session.send_item(&Item::new(stanza).copy_of(copies)).map(|()| true)?
            }
            (None, None) => session.send(stanza).map(|()| true)?,
        };
        if is_given {
            self.given(session, stanza);
        }
        Ok(())
    }

    fn given(&self, session: &SessionHandle<C>, stanza: &Stanza) {
        self.metrics.out(stanza);
        self.show(|extension| extension.outbound(session, stanza));
    }

    /// Routes what the host hands in. A panic of an extension ends this stanza alone.
    fn route_for_host(self: &Arc<Self>, stanza: Stanza) {
        match shielded(|| self.route(None, stanza.clone())) {
            Some(None) => {}
            Some(Some(task)) => self.jobs.spawn(task),
            None => self.bounce(None, &stanza, Condition::InternalServerError),
        }
    }

    /// Gives a session presence of another, of ours or of somebody elsewhere.
    fn give_presence(&self, session: &SessionHandle<C>, stanza: &Stanza, validity: Validity<'_>) {
        if validity.is_for_good() {
            let _gone = self.give(session, stanza);
        } else {
            let _gone = session.send_item(&Item::new(stanza).while_valid(validity));
        }
    }

    /// Sends an answer to whoever asked: the session itself, or wherever its `to` leads.
    fn answer(&self, origin: Option<&SessionHandle<C>>, answer: Stanza) {
        match origin {
            Some(session) => {
                // STZ-3: what a stanza without `to` asked of the account is answered by the account.
                let from =
                    answer.from().map_or_else(|| session.account().bare.to_string(), Into::into);
                let to = session.jid().as_str();
                let right = answer.raw_from().is_some() && answer.raw_to() == Some(to);
                let answer = if right { answer } else { answer.readdressed(Some(&from), Some(to)) };
                self.give_answer(session, &answer);
            }
            None => self.route_answer(answer),
        }
    }

    /// An answer goes past everything that may keep a stanza out (BLOCK-8).
    fn give_answer(&self, session: &SessionHandle<C>, answer: &Stanza) {
        if self.give(session, answer).is_ok() {
            let (account, reached) = (&session.account().bare, std::slice::from_ref(session));
            self.delivered(answer, None, Some(account), reached, Outcome::Delivered, None);
        }
    }

    /// Whether accounts of this domain live here, and this is one by its form.
    fn is_account_here(&self, jid: &BareJid) -> bool {
        jid.node().is_some() && self.registry.is_local(jid.as_str())
    }

    /// Whether this is one of our domains.
    fn serves(&self, domain: &str) -> bool {
        self.domains.iter().any(|served| served.name.as_str() == domain)
    }

    /// Whether there is such an account; an account with sessions is not looked up.
    async fn exists(&self, account: &BareJid) -> bool {
        self.registry.is_loaded(account)
            || self.stores.accounts.exists(account).await.unwrap_or(false)
    }

    fn disco_features(&self, target: Target) -> Vec<&'static str> {
        let mut features: Vec<_> = self
            .extensions
            .iter()
            .flat_map(|extension| shielded(|| extension.disco_features(target)).unwrap_or_default())
            .copied()
            .collect();
        features.sort_unstable();
        features.dedup();
        features
    }

    fn push_id(&self) -> String {
        self.registry.push_id()
    }
}

/// As much waits for whom a stanza is for as may (LIMIT-10): its sender may try again.
fn too_much() -> StanzaError {
    StanzaError::new(Condition::ResourceConstraint).with_type(ErrorType::Wait)
}

/// A stanza as XML of its own.
fn xml(stanza: &Stanza) -> Vec<u8> {
    let frame = Frame::stanza(stanza);
    let mut out = Vec::with_capacity(frame.len());
    frame.write_to(&mut out);
    out
}

/// As [`shielded`], for host code that takes its time.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let poll = || future.as_mut().poll(cx);
        match shielded(poll) {
            Some(Poll::Ready(value)) => Poll::Ready(Some(value)),
            Some(Poll::Pending) => Poll::Pending,
            None => Poll::Ready(None),
        }
    })
    .await
}

#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
mod tests;
