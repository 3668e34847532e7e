//! Slots move between nodes under the clients of their accounts, who are connected to a third one.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;

use super::*;
use crate::cluster::{Incarnation, MemoryEngine, Posts, garbled};
use crate::connection::Recorder;
use crate::environment::{Environment, Virtual};
use crate::server::{Cluster, FaultKind, Server, Shutdown, Transport};
use crate::store::{AccountStore, Credentials, Memory, SharedMemory, SharedStore};
use crate::xep::{Carbons, Ping, StreamManagement};

/// Accounts enough that each node has some of them.
const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// Posts that do not come while it is closed.
struct Line {
    engine: Arc<MemoryEngine>,
    closed: Mutex<Option<Incarnation>>,
    is_closed: AtomicBool,
    /// What is made of slots on their way.
    garble: Mutex<Option<Garble>>,
}

type Garble = fn(&[u8]) -> Vec<u8>;

impl Posts for Line {
    fn post(&self, to: Incarnation, post: Arc<[u8]>) {
        if !self.is_closed.load(Ordering::Relaxed) || *self.closed.lock() != Some(to) {
            let garble = *self.garble.lock();
            self.engine.post(to, garble.and_then(|it| garbled(&post, it)).unwrap_or(post));
        }
    }

    fn listen(&self, me: Incarnation, inbox: Arc<dyn Fn(Arc<[u8]>) + Send + Sync>) {
        *self.closed.lock() = Some(me);
        self.engine.listen(me, inbox);
    }
}

struct Node {
    server: Server<Recorder>,
    run: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

struct World {
    clock: Arc<Virtual>,
    engine: Arc<MemoryEngine>,
    /// To the node that came last.
    line: Arc<Line>,
    store: Arc<dyn SharedStore>,
    nodes: Vec<Node>,
    faults: Arc<Mutex<Vec<FaultKind>>>,
    leaving: Vec<Pin<Box<dyn Future<Output = ()>>>>,
}

struct Client {
    wire: Recorder,
    driver: Driver<Recorder>,
    jid: BareJid,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Virtual::new(5));
        clock.advance(Duration::from_secs(100_000));
        let memory = Memory::new();
        for name in NAMES {
            let jid = BareJid::new(&format!("{name}@example.com")).unwrap();
            let one = NonZeroU32::MIN;
            let credentials = Credentials::from_password_with("secret", one, &*clock).unwrap();
            let mut put = memory.set_credentials(&jid, credentials);
            let put = put.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(put.is_ready());
        }
        let engine = Arc::new(MemoryEngine::new(Arc::clone(&clock) as _));
        let (closed, garble) = (Mutex::default(), Mutex::default());
        let line = Line { engine: Arc::clone(&engine), closed, is_closed: false.into(), garble };
        let store = Arc::new(SharedMemory::new(memory));
        let (line, nodes, leaving) = (Arc::new(line), Vec::new(), Vec::new());
        Self { clock, engine, line, store, nodes, faults: Arc::default(), leaving }
    }

    /// One more node, which gets its part of the slots.
    fn join(&mut self, name: &str) {
        let (engine, line) = (Arc::clone(&self.engine) as _, Arc::clone(&self.line) as _);
        let cluster = Cluster::new(name, engine, line, Arc::clone(&self.store)).moves(2048);
        let environment = Arc::clone(&self.clock) as Arc<dyn Environment>;
        let faults = Arc::clone(&self.faults);
        let server = Server::builder(environment, crate::store::Stores::memory())
            .domain("example.com".parse().unwrap())
            .extension(StreamManagement::new())
            .extension(Carbons::new())
            .extension(Ping)
            .cluster(cluster)
            .on_fault(move |fault| faults.lock().push(fault.kind().clone()))
            .build();
        let node = server.node().unwrap();
        let run: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move { node.run().await });
        self.nodes.push(Node { server, run: Some(run) });
        self.pass(12);
    }

    /// So many seconds pass.
    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds * 2 {
            self.settle();
            self.clock.advance(Duration::from_millis(500));
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..6 {
            for node in &mut self.nodes {
                node.server.handle_timeout();
                let _never = node.server.0.jobs.poll(&cx);
                node.run.take_if(|run| run.as_mut().poll(&mut cx).is_ready());
            }
            self.leaving.retain_mut(|leaving| leaving.as_mut().poll(&mut cx).is_pending());
        }
    }

    /// A client that is connected to this node.
    fn log_in(&mut self, at: usize, name: &str, then: &str) -> Client {
        let wire = Recorder::new();
        let transport = Transport::new().secure(true);
        let driver = self.nodes[at].server.accept(wire.clone(), transport);
        let jid = BareJid::new(&format!("{name}@example.com")).unwrap();
        let mut client = Client { wire, driver, jid };
        let open = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
                    version='1.0' to='example.com'>";
        let plain = STANDARD.encode(format!("\0{name}\0secret"));
        let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>";
        for words in [open, &format!("{auth}{plain}</auth>"), open, then] {
            self.say(&mut client, words);
        }
        client
    }

    fn bind(&mut self, at: usize, name: &str, resource: &str) -> Client {
        let bind = format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{resource}</resource></bind></iq>"
        );
        self.log_in(at, name, &bind)
    }

    fn say(&mut self, client: &mut Client, words: &str) {
        client.driver.receive(words.as_bytes());
        for _ in 0..3 {
            self.settle();
            let _want = client.driver.poll_want(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// This node is to go.
    fn leave(&mut self, node: usize) {
        let handle = self.nodes[node].server.node().unwrap();
        self.leaving.push(Box::pin(async move { handle.leave(Shutdown::new()).await }));
    }

    /// What it is told then.
    fn told(&mut self, client: &mut Client, words: &str) -> String {
        self.say(client, words);
        client.wire.take().concat()
    }

    /// Where an account has its sessions.
    fn home(&self, client: &Client) -> Option<usize> {
        self.nodes.iter().position(|node| node.server.registry().sessions(&client.jid).count() > 0)
    }

    /// An account that lives at this node.
    fn one_at(&mut self, home: usize, edge: usize, but: &[&str]) -> &'static str {
        let names = NAMES.iter().filter(|name| !but.contains(name));
        let is_there = |world: &mut Self, name: &str| {
            let client = world.bind(edge, name, "probe");
            let is_there = world.home(&client) == Some(home);
            drop(client);
            world.settle();
            is_there
        };
        names.copied().find(|name| is_there(self, name)).unwrap()
    }
}

const PING: &str = "<iq type='get' id='p' to='example.com'><ping xmlns='urn:xmpp:ping'/></iq>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

fn token(told: &str) -> String {
    let (_, enabled) = told.split_once("<enabled").unwrap();
    enabled.split_once(" id='").unwrap().1.split_once('\'').unwrap().0.to_owned()
}

/// Clients at the first node, whose accounts move from the second to the third.
struct Moving {
    world: World,
    /// Counted and resumable.
    counted: Client,
    plain: Client,
    /// It has lost its transport.
    hibernating: BareJid,
    token: String,
}

impl Moving {
    fn new() -> Self {
        let mut world = World::new();
        world.join("a");
        world.join("b");
        let one = world.one_at(1, 0, &[]);
        let two = world.one_at(1, 0, &[one]);
        let three = world.one_at(1, 0, &[one, two]);
        let mut counted = world.bind(0, one, "x");
        assert!(world.told(&mut counted, ENABLE).contains("<enabled"));
        world.say(&mut counted, "<presence><priority>3</priority></presence>");
        let mut plain = world.bind(0, two, "y");
        world.say(&mut plain, "<presence/>");
        let mut third = world.bind(0, three, "z");
        let token = token(&world.told(&mut third, ENABLE));
        world.say(&mut third, "<presence/>");
        let hibernating = third.jid.clone();
        drop(third);
        world.settle();
        let _said = (counted.wire.take(), plain.wire.take());
        Self { world, counted, plain, hibernating, token }
    }

    fn homes(&self) -> [Option<usize>; 2] {
        [self.world.home(&self.counted), self.world.home(&self.plain)]
    }

    /// All is as if nothing had happened.
    fn goes_on(&mut self) {
        let world = &mut self.world;
        assert_eq!(self.counted.wire.closed(), None);
        assert_eq!(self.plain.wire.closed(), None);
        assert_eq!(self.counted.wire.take().concat().replace("<r xmlns='urn:xmpp:sm:3'/>", ""), "");
        assert_eq!(self.plain.wire.take().concat(), "");
        let pong = world.told(&mut self.plain, PING);
        assert!(pong.contains("type='result'"), "{pong}");
        let to = format!("{}/x", self.counted.jid);
        for n in 0..3 {
            let message = format!("<message to='{to}' type='chat'><body>{n}</body></message>");
            world.say(&mut self.plain, &message);
        }
        let got = world.told(&mut self.counted, "<r xmlns='urn:xmpp:sm:3'/>");
        let at = |n: u32| got.find(&format!("<body>{n}</body>")).unwrap();
        assert!(at(0) < at(1) && at(1) < at(2), "{got}");
        // Its presence alone.
        assert!(got.contains("<a xmlns='urn:xmpp:sm:3' h='1'/>"), "{got}");
        let acknowledged = world.told(&mut self.counted, "<a xmlns='urn:xmpp:sm:3' h='4'/>");
        assert!(!acknowledged.contains("error"), "{acknowledged}");
        // One that waits gets what has come for it.
        let message =
            format!("<message to='{}' type='chat'><body>late</body></message>", self.hibernating);
        world.say(&mut self.plain, &message);
        let name = self.hibernating.node().unwrap().as_str().to_owned();
        let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='0'/>", self.token);
        let resumed = world.log_in(0, &name, &resume).wire.take().concat();
        assert!(resumed.contains("<resumed") && resumed.contains("<body>late</body>"), "{resumed}");
    }
}

#[test]
fn node_14_clients_notice_nothing_of_a_move_but_the_time() {
    let mut moving = Moving::new();
    assert_eq!(moving.homes(), [Some(1); 2]);
    moving.world.join("c");
    moving.world.leave(1);
    // In the middle of an element.
    let driver = &mut moving.plain.driver;
    driver.receive(b"<iq type='get' id='cut' to='example.com'><ping xmlns='urn:");
    moving.world.pass(20);
    assert!(moving.homes().iter().all(|home| home.is_some_and(|home| home != 1)), "it has left");
    let told = moving.world.told(&mut moving.plain, "xmpp:ping'/></iq>");
    assert!(told.contains("id='cut'") && told.contains("type='result'"), "{told}");
    moving.goes_on();
}

#[test]
fn node_9_a_move_that_is_cancelled_is_as_if_it_had_not_begun() {
    let mut moving = Moving::new();
    // What goes to the third node does not come: nothing can be handed over to it.
    moving.world.line.is_closed.store(true, Ordering::Relaxed);
    moving.world.join("c");
    let frozen = moving.world.nodes[1].server.registry().iter().count();
    assert!(frozen > 0);
    moving.world.pass(4);
    moving.world.line.is_closed.store(false, Ordering::Relaxed);
    moving.world.pass(20);
    moving.goes_on();
}

#[test]
fn node_9_what_cannot_be_read_stays_where_it_was() {
    let garbles: [Garble; 2] = [
        |content| content[..content.len() / 2].to_vec(),
        // Of another version.
        |content| [&[content[0] + 1], &content[1..]].concat(),
    ];
    for (n, garble) in garbles.into_iter().enumerate() {
        let mut moving = Moving::new();
        *moving.world.line.garble.lock() = Some(garble);
        moving.world.join("c");
        moving.world.leave(1);
        moving.world.pass(20);
        assert_eq!(moving.homes(), [Some(1); 2], "{n}");
        let faults = moving.world.faults.lock().clone();
        assert!(faults.len() >= 2, "{n}: {faults:?}");
        assert!(faults.iter().all(|fault| *fault == FaultKind::Arrival), "{n}: {faults:?}");
        // It is tried again, and not all the time.
        let view = moving.world.nodes[0].server.node().unwrap().metrics().view;
        assert!(view.number < 100, "{n}: {view:?}");
        moving.goes_on();
        *moving.world.line.garble.lock() = None;
        moving.world.pass(25);
        assert!(moving.world.nodes[1].run.is_none(), "{n}: it has left");
        assert!(moving.homes().iter().all(|home| home.is_some_and(|home| home != 1)), "{n}");
    }
}

#[test]
fn node_10_the_death_of_the_new_home_in_the_middle_leaves_all_where_it_was() {
    let mut moving = Moving::new();
    moving.world.line.is_closed.store(true, Ordering::Relaxed);
    moving.world.join("c");
    moving.world.nodes.pop();
    moving.world.pass(20);
    assert_eq!(moving.homes(), [Some(1); 2]);
    moving.goes_on();
}

#[test]
fn node_13_the_death_of_the_old_home_in_the_middle_closes_the_streams() {
    let mut moving = Moving::new();
    moving.world.line.is_closed.store(true, Ordering::Relaxed);
    moving.world.join("c");
    moving.world.nodes.remove(1);
    moving.world.line.is_closed.store(false, Ordering::Relaxed);
    moving.world.pass(20);
    let mut world = moving.world;
    for client in [&mut moving.counted, &mut moving.plain] {
        world.say(client, PING);
        let said = client.wire.take().concat();
        assert!(said.ends_with("</stream:stream>"), "{said}");
        let name = client.jid.node().unwrap().as_str().to_owned();
        let mut again = world.bind(0, &name, "again");
        let pong = world.told(&mut again, PING);
        assert!(pong.contains("type='result'"), "{pong}");
    }
}
