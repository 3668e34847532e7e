//! Several nodes in one process, on one engine in memory, with a clock that is moved by hand. Nothing runs but what a
//! test causes. A client connects to the home of its account, or to a node that the test names.

#![expect(unreachable_pub, reason = "the module is private to its test binary")]

use std::cell::RefCell;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xmpp_session::cluster::{Engine, MemoryEngine, Posts};
use xmpp_session::connection::Recorder;
use xmpp_session::environment::{Environment, Virtual};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::sasl::Policy;
use xmpp_session::server::{
    Cluster, DomainPolicy, Driver, FaultKind, Server, ServerBuilder, Transport, Want,
};
use xmpp_session::session::SessionId;
use xmpp_session::store::{Memory, SharedMemory, SharedStore, Stores};

pub const DOMAIN: &str = "example.com";
const PASSWORD: &str = "secret";
pub const OPEN: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0'>";

/// The nodes and their clients.
pub struct Nodes {
    pub environment: Arc<Virtual>,
    pub engine: Arc<MemoryEngine>,
    pub store: Arc<SharedMemory>,
    /// Slots that move at a time.
    moves: usize,
    nodes: RefCell<Vec<Node>>,
    clients: RefCell<Vec<Client>>,
}

/// A node, and what drives it.
#[derive(Clone)]
pub struct Node {
    pub server: Server<Recorder>,
    run: Rc<RefCell<Option<Running>>>,
    /// It does nothing, and its clock goes on.
    is_stopped: Rc<RefCell<bool>>,
    pub faults: Arc<Mutex<Vec<FaultKind>>>,
}

type Running = Pin<Box<dyn Future<Output = ()>>>;
type Builder = ServerBuilder<Recorder>;

#[derive(Clone)]
pub struct Client {
    node: Node,
    driver: Rc<RefCell<Option<Driver<Recorder>>>>,
    recorder: Recorder,
}

/// Authenticates as this account.
pub fn auth(account: &BareJid) -> String {
    let name = account.node().unwrap().as_str();
    let plain = STANDARD.encode(format!("\0{name}\0{PASSWORD}"));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>")
}

pub fn bind(resource: &str) -> String {
    format!(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>{resource}</resource></bind></iq>"
    )
}

impl Nodes {
    pub fn new(nodes: usize) -> Self {
        Self::with(nodes, |_, builder| builder)
    }

    /// Several whose slots move.
    pub fn moving(nodes: usize, configure: impl FnMut(usize, Builder) -> Builder) -> Self {
        Self::of(nodes, 2048, configure)
    }

    /// Several that have found each other; each is built with what it has beside its defaults.
    pub fn with(nodes: usize, configure: impl FnMut(usize, Builder) -> Builder) -> Self {
        Self::of(nodes, 0, configure)
    }

    fn of(
        nodes: usize,
        moves: usize,
        mut configure: impl FnMut(usize, Builder) -> Builder,
    ) -> Self {
        let environment = Arc::new(Virtual::new(7));
        let engine = Arc::new(MemoryEngine::new(Arc::clone(&environment) as _));
        let memory = Memory::new();
        let world = Self {
            engine,
            store: Arc::new(SharedMemory::new(memory)),
            environment,
            moves,
            nodes: RefCell::default(),
            clients: RefCell::default(),
        };
        for n in 0..nodes {
            world.start(&format!("n{n}"), |builder| configure(n, builder));
        }
        world.until("all are members", || world.all().iter().all(Node::is_member));
        world
    }

    /// Another one begins.
    pub fn start(&self, name: &str, configure: impl FnOnce(Builder) -> Builder) -> Node {
        let (engine, posts) = (
            Arc::clone(&self.engine) as Arc<dyn Engine>,
            Arc::clone(&self.engine) as Arc<dyn Posts>,
        );
        let store = Arc::clone(&self.store) as Arc<dyn SharedStore>;
        let cluster =
            Cluster::new(name, engine, posts, store).marks(16 << 10, 64 << 10).moves(self.moves);
        self.start_in(cluster, configure)
    }

    /// The same, in a cluster of the test's own making.
    pub fn start_in(&self, cluster: Cluster, configure: impl FnOnce(Builder) -> Builder) -> Node {
        let environment = Arc::clone(&self.environment) as Arc<dyn Environment>;
        let faults: Arc<Mutex<Vec<FaultKind>>> = Arc::default();
        let told = Arc::clone(&faults);
        // Nobody is to wait for hashes.
        let mut policy = DomainPolicy::default();
        policy.sasl = Some(Policy::new(&*environment).iterations(NonZeroU32::MIN));
        let builder = Server::builder(environment, Stores::memory())
            .domain_with(DomainPart::new(DOMAIN).unwrap().into_owned(), policy)
            .on_fault(move |fault| told.lock().unwrap().push(fault.kind().clone()));
        let server = configure(builder.cluster(cluster)).build();
        let node = server.node().expect("a node");
        let run: Running = Box::pin(async move { node.run().await });
        let node = Node {
            server,
            run: Rc::new(RefCell::new(Some(run))),
            is_stopped: Rc::default(),
            faults,
        };
        self.nodes.borrow_mut().push(node.clone());
        node
    }

    pub fn all(&self) -> Vec<Node> {
        self.nodes.borrow().clone()
    }

    pub fn node(&self, n: usize) -> Node {
        self.nodes.borrow()[n].clone()
    }

    /// Where an account lives.
    pub fn home(&self, jid: &BareJid) -> Node {
        let nodes = self.all();
        let mut homes = nodes.iter().filter(|node| node.is_home_of(jid));
        let home = homes.next().expect("a home").clone();
        assert!(homes.next().is_none(), "one home");
        home
    }

    /// A node at which an account does not live.
    pub fn elsewhere(&self, jid: &BareJid) -> Node {
        self.all().into_iter().find(|node| node.is_member() && !node.is_home_of(jid)).unwrap()
    }

    /// An account, by a name that begins so, which lives at this node.
    pub fn account_at(&self, n: usize, name: &str) -> BareJid {
        let node = self.node(n);
        let names = (0..).map(|k| BareJid::new(&format!("{name}{k}@{DOMAIN}")).unwrap());
        let jid = names.into_iter().find(|jid| node.is_home_of(jid)).unwrap();
        self.run(node.server.account(&jid).create(PASSWORD)).unwrap();
        jid
    }

    /// A client, bound, at this node.
    pub fn client_at(&self, node: &Node, account: &BareJid, resource: &str) -> Client {
        let client = self.log_in(node, account);
        self.say(&client, &bind(resource));
        let said = client.received();
        assert!(said.contains(&format!("<jid>{account}/{resource}</jid>")), "not bound: {said}");
        client
    }

    /// A client that has authenticated at this node, and opened its stream again.
    pub fn log_in(&self, node: &Node, account: &BareJid) -> Client {
        let client = self.connect(node);
        self.say(&client, &auth(account));
        self.say(&client, OPEN);
        client
    }

    /// A client that has opened its stream.
    pub fn connect(&self, node: &Node) -> Client {
        self.connect_with(node, OPEN)
    }

    /// The same, with this header.
    pub fn connect_with(&self, node: &Node, open: &str) -> Client {
        let recorder = Recorder::new();
        let driver = node.server.accept(recorder.clone(), Transport::new().secure(true));
        let driver = Rc::new(RefCell::new(Some(driver)));
        let client = Client { node: node.clone(), driver, recorder };
        self.clients.borrow_mut().push(client.clone());
        self.say(&client, open);
        client
    }

    /// Of a session of an account.
    pub fn id(&self, account: &BareJid, resource: &str) -> SessionId {
        let home = self.home(account).server;
        let mut sessions = home.registry().sessions(account);
        let session = sessions.find(|one| one.jid().resource().as_str() == resource);
        session.expect("a session").id()
    }

    /// A client, bound, at its home.
    pub fn client(&self, account: &BareJid, resource: &str) -> Client {
        self.client_at(&self.home(account), account, resource)
    }

    /// The same, available, and interested in its roster.
    pub fn online(&self, account: &BareJid, resource: &str) -> Client {
        let client = self.client(account, resource);
        self.say(
            &client,
            "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>",
        );
        let _own = client.received();
        client
    }

    pub fn say(&self, client: &Client, xml: &str) {
        client.give(xml);
        self.settle();
    }

    /// What a client says, and what it gets then.
    pub fn ask(&self, client: &Client, xml: &str) -> String {
        let _before = client.received();
        self.say(client, xml);
        client.received()
    }

    /// Lets everything that can go on do so.
    pub fn settle(&self) {
        (0..12).for_each(|_| self.step());
        self.clients.borrow_mut().retain(|client| client.driver.borrow().is_some());
    }

    /// Lets each go on once.
    fn step(&self) {
        let cx = &mut Context::from_waker(Waker::noop());
        for node in self.all() {
            node.poll(cx);
        }
        let clients = self.clients.borrow().clone();
        clients.iter().for_each(Client::poll);
    }

    /// Lets one of them all go on once, in turn.
    pub fn step_one(&self, n: usize) {
        let (nodes, clients) = (self.all(), self.clients.borrow().clone());
        match nodes.get(n % (nodes.len() + clients.len())) {
            Some(node) => node.poll(&mut Context::from_waker(Waker::noop())),
            None => clients.iter().for_each(Client::poll),
        }
    }

    /// Lets `time` pass, stopping at every deadline.
    pub fn advance(&self, time: Duration) {
        let end = self.environment.now() + time;
        loop {
            self.settle();
            let here = self.environment.now();
            if here >= end {
                return;
            }
            let nodes = self.all();
            let going = nodes.iter().filter(|node| !*node.is_stopped.borrow());
            let nodes = going.filter_map(|node| node.server.next_timeout());
            let clients = self.clients.borrow().clone();
            let next = nodes.chain(clients.iter().filter_map(Client::next_timeout)).min();
            let least = here + Duration::from_millis(1);
            let next = next.map_or(end, |next| next.max(least)).min(end);
            self.environment.advance(next - here);
            for node in self.all() {
                if !*node.is_stopped.borrow() {
                    node.server.handle_timeout();
                }
            }
            clients.iter().for_each(|client| client.handle_timeout(next));
        }
    }

    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..600 {
            if is_so() {
                return;
            }
            self.advance(Duration::from_millis(100));
        }
        panic!("never: {what}");
    }

    /// Waits for something of the host's.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..2000 {
            if let Poll::Ready(value) =
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                self.settle();
                return value;
            }
            self.advance(Duration::from_millis(50));
        }
        panic!("it never comes to an end");
    }
}

impl Node {
    pub fn is_member(&self) -> bool {
        self.server.node().unwrap().is_member()
    }

    pub fn is_home_of(&self, jid: &BareJid) -> bool {
        self.server.node().unwrap().is_home_of(jid)
    }

    /// It stands still from now on, or goes on.
    pub fn stop(&self, is_stopped: bool) {
        *self.is_stopped.borrow_mut() = is_stopped;
    }

    /// Whether what drives it has come to its end.
    pub fn is_over(&self) -> bool {
        self.run.borrow().is_none()
    }

    fn poll(&self, cx: &mut Context<'_>) {
        if *self.is_stopped.borrow() {
            return;
        }
        assert!(pin!(self.server.background()).poll(cx).is_pending());
        self.turn(cx);
    }

    /// What it is as a node goes on, and no more.
    pub fn turn(&self, cx: &mut Context<'_>) {
        let mut run = self.run.borrow_mut();
        if run.as_mut().is_some_and(|run| run.as_mut().poll(cx).is_ready()) {
            *run = None;
        }
    }
}

impl Client {
    pub fn received(&self) -> String {
        self.recorder.drain().concat()
    }

    /// It says this, and nobody has done anything yet.
    pub fn give(&self, xml: &str) {
        if let Some(driver) = &mut *self.driver.borrow_mut() {
            driver.receive(xml.as_bytes());
        }
    }

    /// Its transport is lost.
    pub fn cut(&self) {
        drop(self.driver.take());
    }

    pub fn is_connected(&self) -> bool {
        self.driver.borrow().is_some()
    }

    fn poll(&self) {
        if *self.node.is_stopped.borrow() {
            return;
        }
        let mut slot = self.driver.borrow_mut();
        let Some(driver) = &mut *slot else { return };
        let want = driver.poll_want(&mut Context::from_waker(Waker::noop()));
        if want == Poll::Ready(Want::Close) {
            let _over = slot.take();
        }
    }

    fn next_timeout(&self) -> Option<Duration> {
        if *self.node.is_stopped.borrow() {
            return None;
        }
        self.driver.borrow().as_ref().and_then(Driver::next_timeout)
    }

    fn handle_timeout(&self, now: Duration) {
        if *self.node.is_stopped.borrow() {
            return;
        }
        let mut driver = self.driver.borrow_mut();
        if let Some(driver) =
            driver.as_mut().filter(|driver| driver.next_timeout().is_some_and(|at| at <= now))
        {
            driver.handle_timeout();
        }
    }
}
