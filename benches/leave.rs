//! A node leaves: `cargo bench --features cluster,system --bench leave [-- SESSIONS]`. Two nodes in one process and on one thread; the
//! clients are connected to the one that stays, and their accounts live at the one that goes. How long their slots take to move,
//! how long a turn of either node is, and what that takes of memory.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that cannot measure fails by panicking"
)]

use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use xmpp_session::cluster::MemoryEngine;
use xmpp_session::connection::{Close, Connection, SendError};
use xmpp_session::environment::{Environment, System};
use xmpp_session::jid::BareJid;
use xmpp_session::sasl::{Mechanism, Policy};
use xmpp_session::server::{Cluster, DomainPolicy, Driver, Limits, Server, Shutdown, Transport};
use xmpp_session::stanza::Frame;
use xmpp_session::store::{AnyAccount, Fence, FenceTokens, SharedStore, StoreFuture, Stores};
use xmpp_session::xep::{Carbons, ClientState, Ping, StreamManagement};

type Wire = Arc<dyn Connection>;
type Run = Pin<Box<dyn Future<Output = ()>>>;

/// Logins that are under way at a time.
const BATCH: usize = 64;

/// Whoever asks has the slot.
struct Open(Stores, AtomicU64);

impl SharedStore for Open {
    fn of_node(&self, _: Arc<dyn FenceTokens>) -> Stores {
        self.0.clone()
    }

    fn claim(&self, _: Fence) -> StoreFuture<()> {
        Box::pin(ready(Ok(())))
    }

    fn next_term(&self) -> StoreFuture<u64> {
        Box::pin(ready(Ok(self.1.fetch_add(1, Ordering::Relaxed) + 1)))
    }
}

struct Node {
    server: Server<Wire>,
    run: Option<Run>,
    longest: Duration,
}

impl Node {
    fn start(
        name: &str,
        engine: &Arc<MemoryEngine>,
        store: &Arc<Open>,
        clock: &Arc<System>,
    ) -> Self {
        let environment = Arc::clone(clock) as Arc<dyn Environment>;
        let mut policy = DomainPolicy::default();
        policy.sasl = Some(Policy::new(&*environment).mechanisms(&[Mechanism::Plain]));
        let (leases, posts) = (Arc::clone(engine) as _, Arc::clone(engine) as _);
        let server = Server::builder(environment, Stores::memory())
            .domain_with("localhost".parse().expect("a domain"), policy)
            .limits(Limits::unlimited())
            .extension(StreamManagement::new())
            .extension(Carbons::new())
            .extension(ClientState)
            .extension(Ping)
            .cluster(Cluster::new(name, leases, posts, Arc::clone(store) as _))
            .build();
        let node = server.node().expect("a node");
        let run = Some(Box::pin(async move { node.run().await }) as Run);
        Self { server, run, longest: Duration::ZERO }
    }

    fn step(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        self.server.handle_timeout();
        let _never = pin!(self.server.background()).poll(&mut cx);
        let begin = Instant::now();
        self.run.take_if(|run| run.as_mut().poll(&mut cx).is_ready());
        self.longest = self.longest.max(begin.elapsed());
    }

    fn slots(&self) -> usize {
        self.server.node().map_or(0, |node| node.slots())
    }
}

/// Counts what it is sent.
#[derive(Default)]
struct Swallow(Mutex<Vec<u8>>, AtomicUsize);

impl Connection for Swallow {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let mut taken = self.0.lock().expect("no panic");
        taken.clear();
        frame.write_to(&mut taken);
        self.1.fetch_add(1, Ordering::Relaxed);
        taken.shrink_to(256);
        Ok(())
    }

    fn close(&self, _: Close) {
        self.1.store(usize::MAX / 2, Ordering::Relaxed);
    }
}

struct Client {
    driver: Driver<Wire>,
    wire: Arc<Swallow>,
}

const OPEN: &str = "<stream:stream xmlns='jabber:client' to='localhost' version='1.0' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                    <resource>r</resource></bind></iq><enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>";
const PING: &str = "<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>";

fn main() {
    let many = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(100_000);
    let clock = Arc::new(System::new());
    let engine = Arc::new(MemoryEngine::new(Arc::clone(&clock) as _));
    let mut stores = Stores::memory();
    stores.accounts = Arc::new(AnyAccount::new("secret").expect("a password"));
    let store = Arc::new(Open(stores, AtomicU64::new(0)));
    let start = |name| Node::start(name, &engine, &store, &clock);
    let mut nodes = [start("goes"), start("stays")];
    while nodes.iter().any(|node| node.slots() != 512) {
        step(&mut nodes);
        thread::sleep(Duration::from_millis(1));
    }
    let goes = nodes[0].server.node().expect("a node");
    let names = (0..).map(|n| format!("user{n}"));
    let lives = |name: &String| {
        BareJid::new(&format!("{name}@localhost")).is_ok_and(|jid| goes.is_home_of(&jid))
    };
    let names: Vec<_> = names.filter(lives).take(many).collect();
    let mut clients = Vec::with_capacity(many);
    for batch in names.chunks(BATCH) {
        let begun = batch.iter().map(|_| {
            let wire = Arc::new(Swallow::default());
            let transport = Transport::new().secure(true);
            let driver = nodes[1].server.accept(Arc::clone(&wire) as Wire, transport);
            Client { driver, wire }
        });
        let mut begun: Vec<_> = begun.collect();
        let plain = |name: &str| base64(format!("\0{name}\0secret").as_bytes());
        let auth = |name: &str| {
            let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
            format!("<auth xmlns='{sasl}' mechanism='PLAIN'>{}</auth>", plain(name))
        };
        for part in 0..4 {
            for (client, name) in begun.iter_mut().zip(batch) {
                match part {
                    0 | 2 => client.driver.receive(OPEN.as_bytes()),
                    1 => client.driver.receive(auth(name).as_bytes()),
                    _ => client.driver.receive(BIND.as_bytes()),
                }
            }
            settle(&mut nodes, &mut begun);
        }
        clients.append(&mut begun);
    }
    let of = |node: &Node| node.server.registry().iter().count();
    assert_eq!(of(&nodes[0]), many, "all are there");
    let (rss, cpu) = (memory("VmRSS"), cpu());
    nodes.iter_mut().for_each(|node| node.longest = Duration::ZERO);
    println!("{many} sessions: RSS of both nodes and the clients {} MiB", rss / 1024);
    let begin = Instant::now();
    let mut leaving = Box::pin(async move { goes.leave(Shutdown::new()).await });
    let mut moved = None;
    while nodes[0].run.is_some() {
        step(&mut nodes);
        let _left = leaving.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if moved.is_none() && nodes[1].slots() == 1024 {
            moved = Some(begin.elapsed());
        }
    }
    let took = begin.elapsed();
    println!(
        "moved in {:.2} s, left in {:.2} s; CPU {:.2} s; longest turn: {:?} where they go, {:?} where they come; peak RSS {} MiB",
        moved.unwrap_or_default().as_secs_f64(),
        took.as_secs_f64(),
        (crate::cpu() - cpu).as_secs_f64(),
        nodes[0].longest,
        nodes[1].longest,
        memory("VmHWM") / 1024,
    );
    assert_eq!(of(&nodes[1]), many, "none is lost");
    for client in clients.iter_mut().step_by(997) {
        let before = client.wire.1.load(Ordering::Relaxed);
        client.driver.receive(PING.as_bytes());
        settle(&mut nodes, std::slice::from_mut(client));
        assert_eq!(client.wire.1.load(Ordering::Relaxed), before + 1, "it is answered");
    }
}

fn step(nodes: &mut [Node]) {
    nodes.iter_mut().for_each(Node::step);
}

fn settle(nodes: &mut [Node], clients: &mut [Client]) {
    for _ in 0..8 {
        step(nodes);
        for client in &mut *clients {
            let _want = client.driver.poll_want(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// In KiB.
fn memory(what: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(what)).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    let nanos = stat.split_whitespace().next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

/// As RFC 4648 has it.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
