//! The endpoint: everything between "bytes arrived" and "stanza delivered".
//!
//! A [`Server`] assembles the stream, SASL, the registry of sessions, the rules, the stores and the
//! extensions. It has no socket and no runtime. For each transport the
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

mod accounts;
mod bot;
#[cfg(feature = "cluster")]
mod breaks;
mod builder;
mod credentials;
mod deliver;
mod driver;
mod ends;
#[cfg(feature = "cluster")]
mod export;
mod faults;
mod guests;
#[cfg(feature = "cluster")]
mod legs;
mod limits;
mod metrics;
#[cfg(feature = "cluster")]
mod node;
mod overview;
mod tokens;
mod trace;
mod work;

pub use crate::extension::RequestError;
pub use accounts::{Account, AccountError, TokenClient};
pub use bot::{Bot, BotError, BotSender};
pub use builder::{DomainPolicy, Login, ServerBuilder};
pub use deliver::component::{ComponentError, ComponentHandle};
pub use deliver::route::{RouteError, Router};
pub use driver::{Driver, Offload, Place, Transport, Want};
pub use ends::{Progress, Shutdown};
pub use faults::{Fault, FaultKind, PeerAddress, StoreCall, StoreFailure};
pub use guests::GuestPolicy;
pub use limits::{Limits, Rate};
#[cfg(feature = "metrics")]
pub use metrics::Feed;
pub use metrics::{ByKind, Histogram, LoginStep, Metrics, Unit};
#[cfg(feature = "cluster")]
pub use node::{Cluster, NodeHandle, NodeMetrics};
pub use overview::{Listing, Order, Overview, Stage, StreamInfo};

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use jid::{BareJid, DomainPart};

use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::extension::{Extension, Reach, ServerHandle, Wants, Work};
use crate::recent::{self, Recent};
use crate::session::{SessionHandle, SessionRegistry};
use crate::shield::shielded_or;
use crate::stanza::Stanza;
use crate::store::Stores;
use crate::sync::Padded;
use crate::sync::common::Mutex;
use builder::{Domain, OnLogin};
use deliver::message::review::Reviews;
use deliver::requests::Requests;
use driver::admission::Ledger;
use driver::negotiate::hashing::Hashing;
use driver::negotiate::login_failures::LoginFailures;
use driver::rate::Allowances;
use faults::Faults;
use guests::Guests;
use metrics::Counters;
use work::jobs::Jobs;
use work::timers::Timers;

/// Work on a stanza that has to wait for the host.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

type Acted = Pin<Box<dyn Future<Output = Result<(), AccountError>> + Send>>;

/// An XMPP endpoint for clients. Cheap to clone; all clones are one server.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::server::{Server, Transport};
/// use xmpp_session::stanza::Stanza;
/// use xmpp_session::store::Stores;
///
/// // With feature `system`, `System` is the environment of a real server.
/// let server = Server::builder(Arc::new(Virtual::new(1)), Stores::memory())
///     .domain("example.com".parse()?)
///     .build();
///
/// // For each transport a driver: `host::tokio` and `host::threads` do this for a socket.
/// let connection = Recorder::new();
/// let mut driver = server.accept(connection.clone(), Transport::new().source("192.0.2.7").secure(true));
/// driver.receive(
///     b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
///       version='1.0' to='example.com'>",
/// );
/// assert!(connection.take().concat().contains("<mechanism>SCRAM-SHA-256</mechanism>"));
///
/// // A stanza of the host's, or from another domain, goes where its `to` says.
/// server.send(Stanza::message().from("example.com").to("juliet@example.com").build());
/// assert_eq!(server.metrics().accepted, 1);
/// # Ok::<(), xmpp_session::jid::Error>(())
/// ```
pub struct Server<C: SharedConnection>(Arc<Core<C>>);

/// What the clones of a server share.
struct Core<C: SharedConnection> {
    registry: SessionRegistry<C>,
    environment: Arc<dyn Environment>,
    stores: Stores,
    domains: Vec<Domain>,
    default_domain: Option<DomainPart>,
    former_domains: Vec<DomainPart>,
    extensions: Arc<Vec<Box<dyn Extension<C>>>>,
    /// What connections call.
    drains: Arc<driver::Drains<C>>,
    /// What all of them want.
    wants: Wants,
    /// What extensions reach the server by.
    handle: ServerHandle<C>,
    /// Messages that wait for extensions.
    reviews: Arc<Reviews>,
    limits: Limits,
    router: Option<Box<dyn Router>>,
    components: deliver::component::Components<C>,
    bots: bot::Bots<C>,
    router_queue: Padded<Mutex<deliver::route::RouterQueue<C>>>,
    jobs: Arc<Jobs>,
    timers: Arc<Timers>,
    requests: Padded<Requests>,
    ledger: Arc<Ledger>,
    allowances: Padded<Allowances>,
    login_failures: Arc<LoginFailures>,
    /// What clients have asked for before they authenticated, by source (LIMIT-33).
    strangers: Padded<Mutex<recent::Allowances>>,
    /// Where a domain lets them in.
    guests: Option<Arc<Guests>>,
    hashing: Option<Arc<Hashing>>,
    metrics: Counters,
    faults: Arc<Faults>,
    on_login: Option<OnLogin<C>>,
    log_addresses: bool,
    /// When which pending-out request was sent again (SUB-13).
    reminders: Padded<Mutex<Recent<Duration>>>,
    /// Which halves of subscriptions of accounts without a session are known to be there (NODE-15).
    #[cfg(feature = "cluster")]
    halves: Padded<Mutex<Recent<()>>>,
    /// When the host ended all tokens of an account.
    voided: Padded<Mutex<Recent<SystemTime>>>,
    unheard: Padded<deliver::roster::unheard::Unheard>,
    offline_retries: Padded<deliver::offline::Retries>,
    /// Where it is one of several nodes.
    #[cfg(feature = "cluster")]
    node: Option<node::Clustered<C>>,
    /// Where there are several nodes: its clients, as soon as they have authenticated.
    #[cfg(feature = "cluster")]
    edges: std::sync::OnceLock<Arc<legs::Edges<C>>>,
}

impl<C: SharedConnection> Server<C> {
    /// The sessions; of several nodes those that live at this one.
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

    /// Takes a transport that has just been accepted. Nothing is sent before the client has spoken; one that does
    /// not get a session within [`Limits::negotiation`] is closed ([LIMIT-1](crate::rules#limit-1)).
    pub fn accept(&self, connection: C, transport: Transport) -> Driver<C> {
        Driver::new(Arc::clone(&self.0), connection, transport)
    }

    /// Drives the work that outlives its connection: run it once, in a task or on a thread of its own.
    /// It never ends. Time is not its business: see [`handle_timeout`](Self::handle_timeout).
    pub async fn background(&self) {
        poll_fn(|cx| {
            #[cfg(feature = "cluster")]
            if !self.0.goes_on() {
                return Poll::Pending;
            }
            self.0.jobs.poll(cx)
        })
        .await;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next. Later work may set
    /// an earlier time: a host that calls it once a second is right too.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let core = &self.0;
        if core.is_fenced() {
            return core.timers.next();
        }
        let next = [core.timers.next(), core.registry.next_timeout(), core.bots.next_timeout()];
        let next = next.into_iter().flatten().min();
        #[cfg(feature = "cluster")]
        let next = core
            .node
            .as_ref()
            .and_then(node::Clustered::next_timeout)
            .into_iter()
            .chain(next)
            .min();
        next
    }

    /// Ends what has waited too long: hibernating sessions, handlers, requests.
    pub fn handle_timeout(&self) {
        // They wake only: who waits for a time-out hears of it also where nothing else is done any more.
        self.0.timers.fire();
        #[cfg(feature = "cluster")]
        if !self.0.goes_on() {
            return;
        }
        self.0.registry.handle_timeout();
        self.0.bots.handle_timeout(self.0.environment.now());
        #[cfg(feature = "cluster")]
        if let Some(node) = &self.0.node {
            node.handle_timeout(self.0.environment.now());
        }
    }

    /// Routes a stanza of the host, or one that arrived from another domain, by its `to`. Its
    /// `from` is believed: the host has checked it. It gets its normal form ([JID-1](crate::rules#jid-1)); a stanza whose
    /// `from` has none is dropped. What another domain says in our name is taken out ([STZ-14](crate::rules#stz-14)).
    ///
    /// Presence in the name of an account of this server is that account's own act: `subscribe`, `subscribed`
    /// and the like change its roster as if a client had sent them ([HOST-1](crate::rules#host-1)); what is only for a session to say
    /// needs that session ([HOST-2](crate::rules#host-2)). For a program that talks as an account there is a [`Bot`].
    pub fn send(&self, stanza: Stanza) {
        #[cfg(feature = "cluster")]
        if !self.0.goes_on() {
            return;
        }
        if let Some(stanza) = self.0.sent_by_host(stanza) {
            self.0.route_for_host(&stanza);
        }
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

impl<C: SharedConnection> Reach<C> for Core<C> {
    fn registry(&self) -> &SessionRegistry<C> {
        &self.registry
    }

    fn send(self: Arc<Self>, stanza: Stanza) {
        Server(self).send(stanza);
    }

    fn ask(
        self: Arc<Self>,
        iq: Stanza,
    ) -> Pin<Box<dyn Future<Output = Result<Stanza, RequestError>> + Send>> {
        Box::pin(async move { Server(self).request(iq).await })
    }

    fn spawn(self: Arc<Self>, work: Work) {
        self.jobs.later(work);
    }

    fn create(self: Arc<Self>, account: BareJid, password: String, source: Option<&str>) -> Acted {
        let source = self.ledger.source(&PeerAddress::new(source));
        Box::pin(async move { self.create_account(account, password, source).await })
    }

    fn set_password(self: Arc<Self>, by: SessionHandle<C>, password: String) -> Acted {
        let account = by.account().bare.clone();
        Box::pin(async move { self.change_password(account, password, Some(by.id())).await })
    }

    fn remove(self: Arc<Self>, by: SessionHandle<C>, request: Stanza) -> Acted {
        Box::pin(async move { self.remove_by(by, request).await })
    }

    fn befriend(self: Arc<Self>, one: BareJid, other: BareJid) -> Acted {
        Box::pin(async move { Server(self).account(&one).befriend(&other).await })
    }
}

/// Runs host code that takes its time; `None` where it panicked, with what `told` is told.
async fn caught<T>(future: impl Future<Output = T>, told: impl Fn(Option<String>)) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let poll = || future.as_mut().poll(cx);
        match shielded_or(poll, &told) {
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
