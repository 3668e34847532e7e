//! A whole server on the wire: several clients, stores in memory, a clock that is moved by hand.
//!
//! A test says what a client sends and reads what every client gets, one string for each
//! first-level element. Nothing runs but what the test causes:
//!
//! ```ignore
//! #[cfg(test)]
//! #[path = "common/wire.rs"]
//! mod wire;
//!
//! let world = World::new();
//! let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
//! romeo.send("<message to='juliet@example.com'><body>Hi</body></message>");
//! assert_eq!(juliet.received().len(), 1);
//! world.advance(Duration::from_secs(60));
//! ```

#![expect(unreachable_pub, reason = "the module is private to its test binary")]

use std::future::{Future, poll_fn};
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
#[cfg(feature = "cluster")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
#[cfg(feature = "cluster")]
use xmpp_session::cluster::MemoryEngine;
use xmpp_session::connection::Recorder;
use xmpp_session::environment::{Environment, Virtual};
use xmpp_session::jid::{BareJid, DomainPart, FullJid};
use xmpp_session::rules::roster::{Item, Subscription};
#[cfg(feature = "cluster")]
use xmpp_session::sasl::Policy;
use xmpp_session::server::{
    DomainPolicy, Driver, Metrics, RouteError, Router, Server, ServerBuilder, Shutdown, Transport,
    Want,
};
use xmpp_session::session::{Reason, SessionHandle};
use xmpp_session::stanza::{Frame, Stanza};
use xmpp_session::store::{Credentials, MemoryAccounts, RosterChange, Stores};
#[cfg(feature = "cluster")]
use xmpp_session::store::{Fence, FenceTokens, SharedStore, StoreFuture};
use xmpp_session::stream::StreamError;

/// The domain that every world serves.
pub const DOMAIN: &str = "example.com";
/// The password of every account.
pub const PASSWORD: &str = "secret";

/// How long a lease of a node lives; none ends, so that few renewals are enough.
#[cfg(feature = "cluster")]
const LEASE: Duration = Duration::from_secs(3650 * 24 * 3600);

/// What a world's server has beside its defaults; where it is several nodes, each of them has it.
pub trait Configure:
    FnOnce(ServerBuilder<Recorder>, Arc<dyn Environment>) -> ServerBuilder<Recorder> + Clone
{
}

impl<T> Configure for T where
    T: FnOnce(ServerBuilder<Recorder>, Arc<dyn Environment>) -> ServerBuilder<Recorder> + Clone
{
}

/// A server and its clients. Clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    environment: Arc<Virtual>,
    accounts: Arc<MemoryAccounts>,
    stores: Stores,
    /// Where these are several nodes, no account lives on the last one, to which all clients connect.
    servers: Vec<Server<Recorder>>,
    /// What drives the nodes.
    runs: Mutex<Vec<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    clients: Mutex<Vec<Client>>,
    /// Sessions that may be resumed, where they are on other nodes than their clients.
    tokens: Mutex<Vec<(String, SessionHandle<Recorder>)>>,
}

/// What [`World::counts`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sessions: usize,
    pub hibernating: usize,
    pub retained_bytes: usize,
}

/// The client's end of one transport, and the host's loop around it.
#[derive(Clone)]
pub struct Client {
    world: std::sync::Weak<Inner>,
    driver: Arc<Mutex<Option<Driver<Recorder>>>>,
    recorder: Recorder,
    want: Arc<Mutex<Option<Want>>>,
    session: Arc<Mutex<Option<SessionHandle<Recorder>>>>,
    /// What came and nobody has asked for.
    unread: Arc<Mutex<String>>,
}

impl World {
    /// A server of [`DOMAIN`] with the default limits and no extensions.
    pub fn new() -> Self {
        Self::with(|builder, _| builder)
    }

    /// A server that `configure` adds to.
    pub fn with(configure: impl Configure) -> Self {
        Self::with_stores(Stores::memory(), configure)
    }

    /// A server on these stores; the accounts are the world's own.
    pub fn with_stores(stores: Stores, configure: impl Configure) -> Self {
        Self::with_policy(stores, |_| DomainPolicy::default(), configure)
    }

    /// The same under a policy of its own.
    pub fn with_policy(
        stores: Stores,
        policy: impl FnOnce(&Virtual) -> DomainPolicy,
        configure: impl Configure,
    ) -> Self {
        #[cfg(feature = "cluster")]
        if std::env::var_os("XMPP_NODES").is_some() {
            return Self::three_nodes(stores, policy, configure);
        }
        Self::one_node(stores, policy, configure)
    }

    /// A world that is never several nodes: for what cannot be configured more than once.
    pub fn alone(
        configure: impl FnOnce(ServerBuilder<Recorder>, Arc<dyn Environment>) -> ServerBuilder<Recorder>,
    ) -> Self {
        Self::one_node(Stores::memory(), |_| DomainPolicy::default(), configure)
    }

    fn one_node(
        mut stores: Stores,
        policy: impl FnOnce(&Virtual) -> DomainPolicy,
        configure: impl FnOnce(ServerBuilder<Recorder>, Arc<dyn Environment>) -> ServerBuilder<Recorder>,
    ) -> Self {
        let environment = Arc::new(Virtual::new(1));
        let accounts = Arc::new(MemoryAccounts::new());
        stores.accounts = Arc::clone(&accounts) as _;
        let builder = Server::builder(Arc::clone(&environment) as _, stores.clone())
            .domain_with(DomainPart::new(DOMAIN).unwrap().into_owned(), policy(&environment));
        let servers = vec![configure(builder, Arc::clone(&environment) as _).build()];
        let (runs, clients, tokens) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { environment, accounts, stores, servers, runs, clients, tokens }))
    }

    /// Two nodes on which accounts live, and a third one for the clients.
    #[cfg(feature = "cluster")]
    fn three_nodes(
        mut stores: Stores,
        policy: impl FnOnce(&Virtual) -> DomainPolicy,
        configure: impl Configure,
    ) -> Self {
        let environment = Arc::new(Virtual::new(1));
        let accounts = Arc::new(MemoryAccounts::new());
        stores.accounts = Arc::clone(&accounts) as _;
        let mut policy = policy(&environment);
        // All nodes have one secret.
        policy.sasl.get_or_insert_with(|| Policy::new(&*environment));
        let engine = Arc::new(MemoryEngine::new(Arc::clone(&environment) as _));
        let shared = Arc::new(Unfenced(stores.clone(), AtomicU64::new(0)));
        let mut world = Inner {
            environment,
            accounts,
            stores,
            servers: Vec::new(),
            runs: Mutex::default(),
            clients: Mutex::default(),
            tokens: Mutex::default(),
        };
        let mut passed = Duration::ZERO;
        for name in ["a", "b", "c"] {
            // Whoever leads gives slots to those that are there at first, and moves none later.
            let (engine, posts) = (Arc::clone(&engine) as _, Arc::clone(&engine) as _);
            let cluster =
                xmpp_session::server::Cluster::new(name, engine, posts, Arc::clone(&shared) as _)
                    .leases(LEASE, Duration::from_secs(1))
                    .moves(0);
            let environment = Arc::clone(&world.environment) as Arc<dyn Environment>;
            let builder = Server::builder(Arc::clone(&environment), world.stores.clone())
                .domain_with(DomainPart::new(DOMAIN).unwrap().into_owned(), policy.clone());
            let server = configure.clone()(builder, environment).cluster(cluster).build();
            let node = server.node().expect("one of several");
            lock(&world.runs).push(Box::pin(async move { node.run().await }));
            world.servers.push(server);
            if name != "a" {
                world = Self(Arc::new(world)).until_members();
            }
            // A test may name the time of day.
            let now = world.environment.now();
            world.environment.set_back(now - std::mem::replace(&mut passed, now));
        }
        Self(Arc::new(world))
    }

    /// Lets time pass until all nodes are members.
    #[cfg(feature = "cluster")]
    fn until_members(self) -> Inner {
        let are_members = || {
            let mut nodes = self.0.servers.iter().filter_map(Server::node);
            nodes.all(|node| node.is_member())
        };
        for _ in 0..100 {
            if are_members() {
                break;
            }
            self.advance(LEASE / 16);
        }
        assert!(are_members(), "the nodes have not found each other");
        Arc::into_inner(self.0).expect("no clone yet")
    }

    /// The server that clients connect to.
    pub fn server(&self) -> &Server<Recorder> {
        self.0.servers.last().expect("one at least")
    }

    /// Lets what is between nodes arrive, unless that is being done.
    fn catch_up(&self) {
        let is_free = self.is_several() && self.0.runs.try_lock().is_ok();
        if is_free {
            self.settle();
        }
    }

    /// Whether these are several nodes.
    pub fn is_several(&self) -> bool {
        self.0.servers.len() > 1
    }

    /// A session, wherever it lives.
    pub fn session(&self, jid: &str) -> Option<SessionHandle<Recorder>> {
        let jid = FullJid::new(jid).ok()?;
        self.0.servers.iter().find_map(|server| server.registry().session(&jid))
    }

    /// What is counted of the sessions of all servers.
    pub fn counts(&self) -> Counts {
        self.catch_up();
        let mut all = Counts::default();
        for server in &self.0.servers {
            let one = server.registry().counts();
            all.sessions += one.sessions;
            all.hibernating += one.hibernating;
            all.retained_bytes += one.retained_bytes;
        }
        all
    }

    /// How many sessions there are, wherever they live.
    pub fn sessions(&self) -> usize {
        self.catch_up();
        self.0.servers.iter().map(|server| server.registry().len()).sum()
    }

    /// What all servers have counted together, but how long things took.
    pub fn metrics(&self) -> Metrics {
        self.catch_up();
        let (last, others) = self.0.servers.split_last().expect("one at least");
        let mut all = last.metrics();
        for one in others.iter().map(Server::metrics) {
            all.unauthenticated += one.unauthenticated;
            all.sessions.sessions += one.sessions.sessions;
            all.sessions.hibernating += one.sessions.hibernating;
            all.sessions.retained_bytes += one.sessions.retained_bytes;
            all.jobs += one.jobs;
            for (sum, more) in [
                (&mut all.accepted, one.accepted),
                (&mut all.binds, one.binds),
                (&mut all.resumptions, one.resumptions),
                (&mut all.received.messages, one.received.messages),
                (&mut all.received.presences, one.received.presences),
                (&mut all.received.iqs, one.received.iqs),
                (&mut all.delivered.messages, one.delivered.messages),
                (&mut all.delivered.presences, one.delivered.presences),
                (&mut all.delivered.iqs, one.delivered.iqs),
                (&mut all.bytes_received, one.bytes_received),
                (&mut all.bytes_delivered, one.bytes_delivered),
                (&mut all.offline_stored, one.offline_stored),
                (&mut all.offline_retrieved, one.offline_retrieved),
                (&mut all.unread, one.unread),
            ] {
                *sum += more;
            }
            add(&mut all.logins, one.logins);
            add(&mut all.login_failures, one.login_failures);
            add(&mut all.ends, one.ends);
            add(&mut all.stanza_errors, one.stanza_errors);
            add(&mut all.stream_errors, one.stream_errors);
            add(&mut all.limits, one.limits);
            add(&mut all.faults, one.faults);
        }
        all
    }

    /// What an act of the host comes to, which may have to ask another node.
    pub fn run<T>(&self, act: impl Future<Output = T>) -> T {
        let mut act = pin!(act);
        for _ in 0..8 {
            let polled = act.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Ready(value) => return value,
                Poll::Pending => self.settle(),
            }
        }
        panic!("it waits");
    }

    /// Whether no server remembers anything of a session.
    pub fn is_forgotten(&self) -> bool {
        self.0.servers.iter().all(|server| server.registry().is_forgotten())
    }

    /// All sessions, wherever they live.
    pub fn each(&self) -> impl Iterator<Item = SessionHandle<Recorder>> {
        self.0.servers.iter().flat_map(|server| server.registry().iter())
    }

    /// The server on which an account lives, of those by this name.
    #[cfg_attr(not(feature = "cluster"), expect(unused_variables, reason = "there is one server"))]
    pub fn home_of(&self, node: &str) -> &Server<Recorder> {
        #[cfg(feature = "cluster")]
        {
            let account = BareJid::new(&format!("{node}@{DOMAIN}")).unwrap();
            let is_home = |server: &&Server<Recorder>| {
                server.node().is_some_and(|node| node.is_home_of(&account))
            };
            if let Some(home) = self.0.servers.iter().find(is_home) {
                return home;
            }
        }
        self.server()
    }

    /// All servers end what they have.
    pub async fn shutdown(&self, how: impl Fn() -> Shutdown) {
        let ends = self.0.servers.iter().map(|server| (server, how()));
        let mut all: Vec<_> = ends.map(|(server, how)| Box::pin(server.shutdown(how))).collect();
        poll_fn(|cx| {
            all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
            if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The server on which a session lives, or has lived.
    pub fn home(&self, session: &SessionHandle<Recorder>) -> &Server<Recorder> {
        let account = session.jid().to_bare();
        let is_home = |server: &&Server<Recorder>| server.registry().is_local(account.as_str());
        self.0.servers.iter().find(is_home).unwrap_or_else(|| self.server())
    }

    /// A host ends a session, where it lives.
    pub fn kick(&self, session: &SessionHandle<Recorder>) -> bool {
        let is_kicked = self.home(session).kick(session);
        self.catch_up();
        is_kicked
    }

    /// The same with this error.
    pub fn kick_with(&self, session: &SessionHandle<Recorder>, error: &StreamError) -> bool {
        let is_kicked = self.home(session).kick_with(session, error);
        self.catch_up();
        is_kicked
    }

    /// Ends a session, where it lives.
    pub fn destroy(&self, session: &SessionHandle<Recorder>, reason: Reason) -> bool {
        let is_ended = self.home(session).registry().destroy_session(session, reason);
        self.catch_up();
        is_ended
    }

    pub fn environment(&self) -> &Virtual {
        &self.0.environment
    }

    pub fn accounts(&self) -> &MemoryAccounts {
        &self.0.accounts
    }

    pub fn stores(&self) -> &Stores {
        &self.0.stores
    }

    /// Creates an account, unless it is there.
    pub fn account(&self, node: &str) -> BareJid {
        let jid = BareJid::new(&format!("{node}@{DOMAIN}")).unwrap();
        if !now(self.0.stores.accounts.exists(&jid)).unwrap() {
            let (salt, iterations) = (&*self.0.environment, NonZeroU32::MIN);
            let credentials = Credentials::from_password_with(PASSWORD, iterations, salt).unwrap();
            self.0.accounts.insert(jid.clone(), credentials);
        }
        jid
    }

    /// Puts `contact`, a bare JID, on the stored roster of an account that has no session yet.
    pub fn roster(&self, node: &str, contact: &str, subscription: Subscription) {
        let account = self.account(node);
        let mut item = Item::new(BareJid::new(contact).unwrap());
        item.subscription = subscription;
        let change = RosterChange::new().version(1).put(item);
        now(self.0.stores.rosters.apply(&account, change)).unwrap();
    }

    /// Subscribes two accounts without sessions to each other.
    pub fn friends(&self, one: &str, other: &str) {
        self.roster(one, &format!("{other}@{DOMAIN}"), Subscription::Both);
        self.roster(other, &format!("{one}@{DOMAIN}"), Subscription::Both);
    }

    /// A transport on which nothing was said yet.
    pub fn accept(&self, peer: Transport) -> Client {
        self.accept_on(Recorder::new(), peer)
    }

    /// The same on this connection.
    pub fn accept_on(&self, recorder: Recorder, peer: Transport) -> Client {
        let driver = self.server().accept(recorder.clone(), peer);
        let client = Client {
            world: Arc::downgrade(&self.0),
            driver: Arc::new(Mutex::new(Some(driver))),
            recorder,
            want: Arc::default(),
            session: Arc::default(),
            unread: Arc::default(),
        };
        lock(&self.0.clients).push(client.clone());
        self.settle();
        client
    }

    /// A secure transport on which nothing was said yet.
    pub fn connect(&self) -> Client {
        self.accept(Transport::new().secure(true))
    }

    /// A client of the account, authenticated, with no resource; the account is created if need be.
    pub fn authenticated(&self, node: &str) -> Client {
        self.account(node);
        let client = self.connect();
        client.open();
        client.authenticate(node, PASSWORD);
        client.open();
        let _features = client.received();
        client
    }

    /// A client of the account, bound to `resource`, that has sent nothing and read all.
    pub fn client(&self, node: &str, resource: &str) -> Client {
        let client = self.authenticated(node);
        client.send(&format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{resource}</resource></bind></iq>"
        ));
        let answer = client.received();
        let jid = format!("<jid>{node}@{DOMAIN}/{resource}</jid>");
        assert!(answer.iter().any(|one| one.contains(&jid)), "not bound: {answer:?}");
        client
    }

    /// The same, available with priority 0.
    pub fn online(&self, node: &str, resource: &str) -> Client {
        let client = self.client(node, resource);
        client.send("<presence/>");
        let _own = client.received();
        client
    }

    /// The same, on a resource of the server's choice; `read` gets everything that comes.
    pub fn online_reading(&self, node: &str, read: &mut dyn FnMut(&str)) -> Client {
        let client = self.authenticated(node);
        client.send(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>\
             <presence/>",
        );
        client.received().iter().for_each(|one| read(one));
        client
    }

    /// Lets `time` pass, stopping at every deadline of the server and of the drivers.
    pub fn advance(&self, time: Duration) {
        let end = self.0.environment.now() + time;
        for _ in 0..100_000 {
            self.settle();
            let here = self.0.environment.now();
            let clients = lock(&self.0.clients).clone();
            let drivers = clients.iter().filter_map(Client::next_timeout);
            let servers = self.0.servers.iter().filter_map(Server::next_timeout);
            let next = drivers.chain(servers).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.0.environment.advance(end - here);
                return self.settle();
            };
            self.0.environment.advance(next.saturating_sub(here));
            self.0.servers.iter().for_each(Server::handle_timeout);
            for client in clients {
                client.handle_timeout(next.max(here));
            }
        }
        panic!("a deadline stays in the past whatever is done about it");
    }

    /// Lets everything that can go on do so.
    pub fn settle(&self) {
        // What one driver, or node, does may let another go on: between several, until nobody woke another.
        let is_alone = self.0.servers.len() == 1;
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        let mut quiet = 0;
        for _ in 0..if is_alone { 4 } else { 64 } {
            for server in &self.0.servers {
                assert!(pin!(server.background()).as_mut().poll(cx).is_pending());
            }
            lock(&self.0.runs).iter_mut().for_each(|run| {
                assert!(run.as_mut().poll(cx).is_pending());
            });
            let clients = lock(&self.0.clients).clone();
            clients.iter().for_each(|client| client.poll(cx));
            quiet = if woken.0.swap(false, Ordering::SeqCst) { 0 } else { quiet + 1 };
            if quiet == 2 && !is_alone {
                break;
            }
        }
        lock(&self.0.clients).retain(|client| lock(&client.driver).is_some());
    }
}

impl Client {
    /// Sends bytes of the stream.
    pub fn send(&self, xml: &str) {
        let world = World(self.world.upgrade().expect("the world is still there"));
        if let Some(driver) = &mut *lock(&self.driver) {
            driver.receive(xml.as_bytes());
        }
        world.settle();
    }

    /// What the server wrote since the last call: each first-level element, and each header and
    /// close tag, as one string.
    pub fn received(&self) -> Vec<String> {
        if let Some(world) = self.world.upgrade().map(World) {
            world.catch_up();
        }
        self.fetch();
        elements(&std::mem::take(&mut *lock(&self.unread)))
    }

    /// The frames that the server wrote since the last call.
    pub fn frames(&self) -> Vec<String> {
        if let Some(world) = self.world.upgrade().map(World) {
            world.catch_up();
        }
        let frames = self.recorder.drain();
        self.learn(&frames.concat());
        frames
    }

    fn fetch(&self) {
        let came = self.recorder.drain().concat();
        self.learn(&came);
        lock(&self.unread).push_str(&came);
    }

    /// What came may say whose session this is, where that is on another node.
    fn learn(&self, came: &str) {
        let Some(world) = self.world.upgrade().map(World).filter(World::is_several) else { return };
        for tag in ["<jid>", "<authorization-identifier>"] {
            let name = came.split_once(tag).and_then(|(_, rest)| rest.split('<').next());
            if let Some(session) = name.and_then(|name| world.session(name)) {
                *lock(&self.session) = Some(session);
            }
        }
        let id = |tag: &str, name: &str| {
            let (_, rest) = came.split_once(tag)?;
            let (_, rest) = rest.split_once(&format!("{name}='"))?;
            rest.split('\'').next().map(str::to_owned)
        };
        let session = lock(&self.session).clone();
        if let Some((id, session)) = id("<enabled ", " id").zip(session) {
            lock(&world.0.tokens).push((id, session));
        }
        if let Some(previous) = id("<resumed ", "previd") {
            let tokens = lock(&world.0.tokens);
            let session = tokens.iter().find(|(id, _)| *id == previous);
            *lock(&self.session) = session.map(|(_, session)| session.clone());
        }
    }

    /// Lets nodes say what they say after a while, or along with something else: that a stanza is handled (SM-5), and
    /// what a client has taken.
    pub fn linger(&self) {
        if let Some(world) = self.world.upgrade().map(World).filter(World::is_several) {
            world.advance(Duration::from_millis(100));
        }
    }

    /// Sends, and takes what came for this client.
    pub fn ask(&self, xml: &str) -> Vec<String> {
        let _before = self.received();
        self.send(xml);
        self.received()
    }

    /// Sends, and takes the one element that came for this client.
    pub fn answer(&self, xml: &str) -> String {
        let mut received = self.ask(xml);
        assert_eq!(received.len(), 1, "one answer to {xml}, not {received:?}");
        received.remove(0)
    }

    /// Sends a stream header.
    pub fn open(&self) {
        self.send(&format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='{DOMAIN}' version='1.0'>"
        ));
    }

    /// Authenticates with PLAIN.
    pub fn authenticate(&self, node: &str, password: &str) {
        let plain = STANDARD.encode(format!("\0{node}\0{password}"));
        self.send(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
        ));
    }

    /// The transport breaks.
    pub fn lose(&self) {
        let driver = lock(&self.driver).take();
        drop(driver);
        if let Some(world) = self.world.upgrade() {
            World(world).settle();
        }
    }

    /// Whether the transport is still there.
    pub fn is_connected(&self) -> bool {
        lock(&self.driver).is_some()
    }

    /// What the driver wants; `None` while it waits for a store or for time to pass.
    pub fn want(&self) -> Option<Want> {
        *lock(&self.want)
    }

    /// The session, once it is bound.
    pub fn session(&self) -> SessionHandle<Recorder> {
        if lock(&self.session).is_none() {
            self.fetch();
        }
        lock(&self.session).clone().expect("bound")
    }

    /// The full JID.
    pub fn jid(&self) -> String {
        self.session().jid().to_string()
    }

    /// The connection as the server sees it.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Calls into the driver, as the host's loop does.
    pub fn driver<T>(&self, act: impl FnOnce(&mut Driver<Recorder>) -> T) -> T {
        act(lock(&self.driver).as_mut().expect("connected"))
    }

    fn poll(&self, cx: &mut Context<'_>) {
        let mut slot = lock(&self.driver);
        let Some(driver) = &mut *slot else { return };
        let want = match driver.poll_want(cx) {
            Poll::Ready(want) => Some(want),
            Poll::Pending => None,
        };
        *lock(&self.want) = want;
        if let Some(session) = driver.session() {
            lock(&self.session).get_or_insert_with(|| session.clone());
        }
        if want == Some(Want::Close) {
            let over = slot.take();
            drop(slot);
            drop(over);
        }
    }

    fn next_timeout(&self) -> Option<Duration> {
        lock(&self.driver).as_ref().and_then(Driver::next_timeout)
    }

    fn handle_timeout(&self, now: Duration) {
        let mut driver = lock(&self.driver);
        let is_due = |driver: &&mut Driver<_>| driver.next_timeout().is_some_and(|at| at <= now);
        if let Some(driver) = driver.as_mut().filter(is_due) {
            driver.handle_timeout();
        }
    }
}

/// Whether anybody was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Any stores, shared by nodes that stop and move nothing.
#[cfg(feature = "cluster")]
struct Unfenced(Stores, AtomicU64);

#[cfg(feature = "cluster")]
impl SharedStore for Unfenced {
    fn of_node(&self, _tokens: Arc<dyn FenceTokens>) -> Stores {
        self.0.clone()
    }

    fn claim(&self, _fence: Fence) -> StoreFuture<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn next_term(&self) -> StoreFuture<u64> {
        Box::pin(std::future::ready(Ok(self.1.fetch_add(1, Ordering::SeqCst) + 1)))
    }
}

/// Other domains: a router that keeps what it is given.
#[derive(Clone, Default)]
pub struct Elsewhere(Arc<Mutex<Vec<String>>>);

impl Elsewhere {
    /// What came since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl Router for Elsewhere {
    fn route(&self, stanza: &Stanza) -> Result<(), RouteError> {
        lock(&self.0).push(xml(stanza));
        Ok(())
    }
}

/// A stanza as it is written.
pub fn xml(stanza: &Stanza) -> String {
    let mut bytes = Vec::new();
    Frame::stanza(stanza).write_to(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

/// What a store in memory comes to.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("not ready"),
    }
}

fn add<K: PartialEq>(to: &mut Vec<(K, u64)>, more: Vec<(K, u64)>) {
    for (key, n) in more {
        match to.iter_mut().find(|(one, _)| *one == key) {
            Some((_, sum)) => *sum += n,
            None => to.push((key, n)),
        }
    }
}

/// Cuts a stream's text into its first-level elements.
pub fn elements(text: &str) -> Vec<String> {
    let (mut found, mut start, mut at, mut depth) = (Vec::new(), 0, 0, 0_usize);
    while let Some(offset) = text[at..].find('<') {
        let open = at + offset;
        if depth == 0 && text[start..open].trim().is_empty() {
            start = open;
        }
        let end = end_of_tag(text, open);
        let tag = &text[open..end];
        at = end;
        let alone = tag.starts_with("<stream:stream") || tag.starts_with("</stream:stream");
        if tag.starts_with("<?") {
            continue;
        }
        if tag.starts_with("</") && !alone {
            depth -= 1;
        } else if !tag.ends_with("/>") && !alone {
            depth += 1;
        }
        if depth == 0 {
            found.push(text[start..end].to_owned());
            start = end;
        }
    }
    assert_eq!(depth, 0, "not whole elements: {text}");
    assert!(text[start..].trim().is_empty(), "text between the elements: {text}");
    found
}

fn end_of_tag(text: &str, open: usize) -> usize {
    let mut quote = None;
    for (at, c) in text[open..].char_indices() {
        match (quote, c) {
            (None, '>') => return open + at + 1,
            (None, '"' | '\'') => quote = Some(c),
            (Some(mark), _) if mark == c => quote = None,
            _ => {}
        }
    }
    panic!("no end of tag: {text}");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
