//! What nodes tell each other, and what they keep, counted (docs/cluster.md, "Sizing").
//!
//! `cargo test --features cluster --lib cluster::tests::costs -- --include-ignored --nocapture` prints the table; with
//! `SESSIONS=1000` that of as many sessions that move.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;

use super::nodes::{Client, Node, Nodes, OPEN, auth};
use crate::cluster::Settings;
use crate::cluster::engine::{Answer, Engine, EngineFuture, Posts};
use crate::cluster::frame::{Body, Post};
use crate::cluster::ledger::Ledgers;
use crate::cluster::memory::MemoryEngine;
use crate::cluster::record::{Lease, Record};
use crate::cluster::view::{Incarnation, SLOTS, View};
use crate::environment::Environment as _;
use crate::jid::BareJid;
use crate::server::{Cluster, Shutdown};
use crate::xep::StreamManagement;

/// What went from node to node.
#[derive(Clone, Debug, Default)]
struct Tally {
    posts: usize,
    frames: usize,
    bytes: usize,
    /// Bytes that are for clients, or of them.
    legs: usize,
    /// Of the engine.
    calls: usize,
}

struct Counted {
    engine: Arc<MemoryEngine>,
    tally: Mutex<Tally>,
}

impl Posts for Counted {
    fn post(&self, to: Incarnation, post: Arc<[u8]>) {
        let frames = Post::decode(&post).expect("a post").frames;
        let is_of_leg = |body: &Body| matches!(body, Body::Up { .. } | Body::Down { .. });
        {
            let mut tally = self.tally.lock();
            tally.posts += 1;
            tally.frames += frames.len();
            tally.bytes += post.len();
            tally.legs += frames.iter().filter(|one| is_of_leg(&one.frame.body)).count();
        }
        self.engine.post(to, post);
    }

    fn listen(&self, me: Incarnation, inbox: Arc<dyn Fn(Arc<[u8]>) + Send + Sync>) {
        self.engine.listen(me, inbox);
    }
}

impl Engine for Counted {
    fn renew(&self, lease: Lease, first: bool) -> EngineFuture<Answer> {
        self.tally.lock().calls += 1;
        self.engine.renew(lease, first)
    }

    fn release(&self, node: Incarnation) -> EngineFuture<()> {
        self.tally.lock().calls += 1;
        self.engine.release(node)
    }

    fn replace(&self, over: Option<View>, record: Arc<Record>) -> EngineFuture<Answer> {
        self.tally.lock().calls += 1;
        self.engine.replace(over, record)
    }

    fn read(&self) -> EngineFuture<Answer> {
        self.tally.lock().calls += 1;
        self.engine.read()
    }

    fn watch(&self, hint: Arc<dyn Fn() + Send + Sync>) {
        self.engine.watch(hint);
    }
}

struct World {
    nodes: Nodes,
    counted: Arc<Counted>,
}

impl World {
    /// Four nodes, over which slots are spread.
    fn new(moves: usize) -> Self {
        let nodes = Nodes::new(0);
        let engine = Arc::clone(&nodes.engine);
        let counted = Arc::new(Counted { engine, tally: Mutex::default() });
        for n in 0..4 {
            let (engine, posts) = (Arc::clone(&counted) as _, Arc::clone(&counted) as _);
            let store = Arc::clone(&nodes.store) as _;
            let cluster = Cluster::new(format!("n{n}"), engine, posts, store).moves(moves);
            nodes.start_in(cluster, |builder| builder.extension(StreamManagement::new()));
        }
        nodes.until("all are members", || nodes.all().iter().all(Node::is_member));
        Self { nodes, counted }
    }

    /// What it takes until nothing goes on any more.
    fn cost(&self, act: impl FnOnce()) -> Tally {
        self.nodes.settle();
        *self.counted.tally.lock() = Tally::default();
        act();
        (0..4).for_each(|_| self.nodes.settle());
        self.counted.tally.lock().clone()
    }

    fn online(&self, edge: usize, account: &BareJid) -> Client {
        let client = self.nodes.client_at(&self.nodes.node(edge), account, "r");
        self.nodes.say(
            &client,
            "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>",
        );
        client
    }
}

fn message(to: &BareJid) -> String {
    format!("<message to='{to}/r' type='chat' id='m'><body>{}</body></message>", "x".repeat(100))
}

#[test]
fn node_7_a_message_costs_a_frame_for_each_hop() {
    let world = World::new(0);
    // Edge, home, home, edge: all of them different.
    let (romeo, juliet) = (world.nodes.account_at(1, "romeo"), world.nodes.account_at(2, "juliet"));
    let from = world.online(0, &romeo);
    let _to = world.online(3, &juliet);
    let one = world.cost(|| world.nodes.say(&from, &message(&juliet)));
    let many = world.cost(|| {
        (0..100).for_each(|_| from.give(&message(&juliet)));
    });
    println!("a message of 100 characters over three hops: {one:?}");
    println!("a hundred of them at once: {many:?}");
    // The third hop is followed by what the client has taken.
    assert!(one.frames <= 4 && one.bytes <= 2_000, "{one:?}");
    assert!(many.frames <= 304 && many.posts <= 24, "{many:?}");
}

/// How often somebody was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A task that wakes itself has another turn for nothing, and a runtime wakes another thread for it.
#[test]
fn node_7_a_node_wakes_others_and_never_itself() {
    let world = World::new(0);
    let (romeo, juliet) = (world.nodes.account_at(1, "romeo"), world.nodes.account_at(2, "juliet"));
    let (from, to) = (world.online(0, &romeo), world.online(3, &juliet));
    let _before = to.received();
    let bells = [(); 4].map(|()| Arc::<Bell>::default());
    let rung = |n: usize| bells[n].0.load(Ordering::Relaxed);
    let turn = |n: usize| {
        let (before, waker) = (rung(n), Waker::from(Arc::clone(&bells[n])));
        world.nodes.node(n).turn(&mut Context::from_waker(&waker));
        assert_eq!(rung(n), before, "node {n} wakes itself");
    };
    (0..4).for_each(turn);
    let before = [0, 1, 2, 3].map(rung);
    from.give(&message(&juliet));
    // What comes while it rests wakes it, once.
    (0..4).for_each(|n| {
        assert_eq!(rung(n), before[n] + 1, "node {n}");
        turn(n);
    });
    assert!(to.received().contains("<body>"), "it went all the way");
}

#[test]
fn node_7_presence_costs_a_frame_for_each_node() {
    let world = World::new(0);
    let nodes = &world.nodes;
    let romeo = nodes.account_at(1, "romeo");
    let contacts: Vec<_> = (0..50).map(|n| nodes.account_at(n % 4, &format!("c{n}-"))).collect();
    let server = nodes.node(0).server;
    for contact in &contacts {
        nodes.run(server.account(&romeo).befriend(contact)).unwrap();
    }
    let _clients: Vec<_> =
        contacts.iter().zip(0..).map(|(contact, n)| world.online((n + 1) % 4, contact)).collect();
    let mut client = None;
    let login = world.cost(|| {
        let new = nodes.connect(&nodes.node(0));
        nodes.say(&new, &auth(&romeo));
        nodes.say(&new, OPEN);
        nodes.say(
            &new,
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>r</resource></bind></iq>\
             <iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>",
        );
        client = Some(new);
    });
    let change = world.cost(|| {
        let client = client.as_ref().unwrap();
        nodes.say(client, "<presence><show>away</show></presence>");
    });
    let seen = client.unwrap().received();
    assert_eq!(seen.matches("<presence ").count(), 52, "all contacts are there: {seen}");
    println!("a login with 50 contacts, all there: {login:?}");
    println!("a change of presence for them: {change:?}");
    let between_homes = change.frames - change.legs;
    assert!(between_homes <= 3, "one frame for each other node: {change:?}");
    assert!(login.frames - login.legs <= 6 + 50, "a probe, a broadcast, the answers: {login:?}");
}

#[test]
#[ignore = "measures"]
fn node_9_what_sessions_cost_that_move() {
    let sessions = std::env::var("SESSIONS").map_or(100, |text| text.parse().unwrap());
    let world = World::new(16);
    let nodes = &world.nodes;
    let accounts = (0..sessions).map(|n| nodes.account_at(0, &format!("m{n}-")));
    let clients: Vec<_> = accounts
        .map(|account| {
            let client = world.online(1, &account);
            nodes.say(&client, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
            client
        })
        .collect();
    let before = nodes.environment.now();
    let idle = world.cost(|| ());
    assert_eq!((idle.frames, idle.legs), (0, 0));
    let moved = world.cost(|| {
        let handle = nodes.node(0).server.node().unwrap();
        nodes.run(handle.leave(Shutdown::new()));
    });
    let time = nodes.environment.now() - before;
    assert!(clients.iter().all(Client::is_connected));
    let each = moved.bytes / sessions;
    println!(
        "{sessions} sessions move, in 256 slots, within {time:?}: {moved:?}, {each} bytes each"
    );
    assert!(each < 8_000, "{moved:?}");
}

#[test]
fn node_17_what_a_ledger_keeps_is_bounded_by_who_is_known() {
    let accounts: Vec<Arc<str>> =
        (0..100).map(|n| format!("account{n}@example.com").into()).collect();
    let from = |n: usize| -> Arc<str> { format!("contact{n}@example.com/resource{n}").into() };
    let mut ledgers = Ledgers::default();
    for round in 0..10 {
        // Each is told by fifty, of new sessions each time; then these end.
        let known: Vec<_> = (0..50).map(|n| from(round * 50 + n)).collect();
        for from in &known {
            accounts.iter().for_each(|account| ledgers.note(account, None, from));
            accounts.iter().for_each(|account| ledgers.note(account, Some("r"), from));
        }
        assert_eq!(ledgers.len(), 100 * 50 * 2);
        for from in &known {
            accounts.iter().for_each(|account| {
                assert!(ledgers.strike(account, None, from));
                assert!(ledgers.strike(account, Some("r"), from));
            });
        }
        assert_eq!(ledgers.len(), 0);
    }
}

#[test]
fn node_8_what_the_engine_keeps_and_answers() {
    let settings = Settings::default();
    for nodes in [3, 10, 100] {
        let leases: Vec<_> = (0..nodes)
            .map(|n| Lease {
                incarnation: Incarnation(u64::MAX - n),
                name: format!("node-{n:03}.example.com").into(),
                seen: VIEW,
                settled: VIEW,
                leaving: false,
                ttl: settings.ttl,
                store: "xmpp/01234567".into(),
            })
            .collect();
        let record = Record { instance: "0123456789abcdef".into(), ..Record::nothing(SLOTS) };
        let record = record.with_members(&leases, VIEW, true).expect("members");
        let kept = record.encode().len();
        let leased: usize = leases.iter().map(|lease| lease.encode().len()).sum();
        let answers = nodes as f64 / settings.renew.as_secs_f64();
        let answer = kept + leased;
        println!(
            "{nodes} nodes: record {kept}, leases {leased}; {answers:.1} answers/s of {answer} bytes, {:.0} KiB/s",
            answers * answer as f64 / 1024.0
        );
        assert!(answer < 24_000, "{answer}");
    }
}

/// One that has been written for a while.
const VIEW: View = View { term: 3, number: 70_000 };
