//! Presence and subscriptions between nodes: the same script on one server and on several, whose clients must not see
//! a difference (NODE-15, 17, 18).

use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xmpp_session::cluster::MemoryEngine;
use xmpp_session::connection::Recorder;
use xmpp_session::environment::{Environment, Virtual};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::rules::roster::{Item, Subscription};
use xmpp_session::server::{Cluster, Driver, Server, Transport, Want};
use xmpp_session::store::{
    AccountStore as _, Credentials, Fence, FenceTokens, Memory, RosterChange, RosterStore as _,
    SharedMemory, SharedStore, StoreError, StoreFuture, Stores,
};
use xmpp_session::xep::Blocking;

const DOMAIN: &str = "example.com";

type Run = Pin<Box<dyn Future<Output = ()> + std::marker::Send>>;

struct Node {
    server: Server<Recorder>,
    background: Mutex<Run>,
    run: Mutex<Option<Run>>,
    is_cut: Mutex<bool>,
}

/// Servers on one clock and one store; the clients of an account are where it lives.
struct World {
    environment: Arc<Virtual>,
    nodes: Vec<Node>,
    clients: Mutex<Vec<Client>>,
    /// The store is: it does not hear of new owners of slots.
    is_slow: Arc<AtomicBool>,
}

struct Slow {
    store: SharedMemory,
    is_slow: Arc<AtomicBool>,
}

impl SharedStore for Slow {
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores {
        self.store.of_node(tokens)
    }

    fn claim(&self, fence: Fence) -> StoreFuture<()> {
        let (mut claim, is_slow) = (self.store.claim(fence), Arc::clone(&self.is_slow));
        Box::pin(poll_fn(move |cx| match is_slow.load(Ordering::Relaxed) {
            true => Poll::Pending,
            false => claim.as_mut().poll(cx),
        }))
    }

    fn next_term(&self) -> StoreFuture<u64> {
        self.store.next_term()
    }
}

#[derive(Clone)]
struct Client {
    at: usize,
    driver: Arc<Mutex<Option<Driver<Recorder>>>>,
    recorder: Recorder,
}

const ACCOUNTS: [&str; 12] =
    ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11"];

impl World {
    /// None: one server, that is no node.
    fn new(nodes: usize) -> Self {
        Self::with(nodes, &[])
    }

    /// The same, with items of rosters.
    fn with(nodes: usize, items: &[(&str, &str, Subscription)]) -> Self {
        let environment = Arc::new(Virtual::new(1));
        let memory = Memory::new();
        for account in ACCOUNTS {
            let jid = BareJid::new(&format!("{account}@{DOMAIN}")).unwrap();
            let keys = Credentials::from_password_with("secret", NonZeroU32::MIN, &*environment);
            done(memory.set_credentials(&jid, keys.unwrap()));
        }
        for (account, contact, subscription) in items {
            let jid = |name| BareJid::new(&format!("{name}@{DOMAIN}")).unwrap();
            let mut item = Item::new(jid(contact));
            item.subscription = *subscription;
            done(memory.apply(&jid(account), RosterChange::new().version(1).put(item)));
        }
        let blocks = Arc::new(Memory::new());
        let is_slow = Arc::new(AtomicBool::new(false));
        let builder = |stores| {
            Server::builder(Arc::clone(&environment) as Arc<dyn Environment>, stores)
                .domain(DomainPart::new(DOMAIN).unwrap().into_owned())
                .extension(Blocking::new(Arc::clone(&blocks) as _))
        };
        let mut servers = Vec::new();
        if nodes == 0 {
            servers.push(builder(Stores::all_in(Arc::new(memory))).build());
        } else {
            let engine = Arc::new(MemoryEngine::new(Arc::clone(&environment) as _));
            let store = SharedMemory::new(memory);
            let store = Arc::new(Slow { store, is_slow: Arc::clone(&is_slow) });
            for name in 0..nodes {
                let cluster = Cluster::new(
                    format!("node{name}"),
                    Arc::clone(&engine) as _,
                    Arc::clone(&engine) as _,
                    Arc::clone(&store) as _,
                );
                servers.push(builder(Stores::memory()).cluster(cluster).build());
            }
        }
        let node = |server: Server<Recorder>| {
            let (background, run) = (server.clone(), server.node());
            Node {
                background: Mutex::new(Box::pin(async move { background.background().await })),
                run: Mutex::new(run.map(|run| Box::pin(async move { run.run().await }) as Run)),
                is_cut: Mutex::new(false),
                server,
            }
        };
        let nodes = servers.into_iter().map(node).collect();
        let world = Self { environment, nodes, clients: Mutex::default(), is_slow };
        world.advance(Duration::from_secs(10));
        world
    }

    fn home(&self, account: &str) -> usize {
        let jid = BareJid::new(&format!("{account}@{DOMAIN}")).unwrap();
        let is_home = |node: &Node| match node.server.node() {
            Some(handle) => !*node.is_cut.lock().unwrap() && handle.is_home_of(&jid),
            None => true,
        };
        self.nodes.iter().position(is_home).expect("somebody serves it")
    }

    fn settle(&self) {
        for _ in 0..12 {
            let cx = &mut Context::from_waker(Waker::noop());
            for node in self.nodes.iter().filter(|node| !*node.is_cut.lock().unwrap()) {
                let _ = node.background.lock().unwrap().as_mut().poll(cx);
                let mut run = node.run.lock().unwrap();
                if run.as_mut().is_some_and(|run| run.as_mut().poll(cx).is_ready()) {
                    *run = None;
                }
            }
            for client in self.clients.lock().unwrap().iter() {
                client.poll();
            }
        }
    }

    fn advance(&self, time: Duration) {
        let end = self.environment.now() + time;
        self.settle();
        while self.environment.now() < end {
            let living = self.nodes.iter().filter(|node| !*node.is_cut.lock().unwrap());
            let next = living.filter_map(|node| node.server.next_timeout()).min();
            let now = self.environment.now();
            let next = next.unwrap_or(end).clamp(now + Duration::from_millis(1), end);
            self.environment.advance(next - now);
            for node in self.nodes.iter().filter(|node| !*node.is_cut.lock().unwrap()) {
                node.server.handle_timeout();
            }
            self.settle();
        }
    }

    /// A node stops: it does nothing any more.
    fn kill(&self, node: usize) {
        *self.nodes[node].is_cut.lock().unwrap() = true;
        self.clients.lock().unwrap().retain(|client| client.at != node);
    }

    /// A client of the account, bound, at the account's home.
    fn client(&self, account: &str, resource: &str) -> Client {
        let at = self.home(account);
        let recorder = Recorder::new();
        let driver = self.nodes[at].server.accept(recorder.clone(), Transport::new().secure(true));
        let client = Client { at, driver: Arc::new(Mutex::new(Some(driver))), recorder };
        self.clients.lock().unwrap().push(client.clone());
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='{DOMAIN}' version='1.0'>"
        );
        let plain = STANDARD.encode(format!("\0{account}\0secret"));
        self.send(&client, &header);
        self.send(
            &client,
            &format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
            ),
        );
        self.send(&client, &header);
        self.send(
            &client,
            &format!(
                "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                 <resource>{resource}</resource></bind></iq>"
            ),
        );
        assert!(client.take().contains("<jid>"), "bound");
        client
    }

    fn send(&self, client: &Client, xml: &str) {
        if let Some(driver) = &mut *client.driver.lock().unwrap() {
            driver.receive(xml.as_bytes());
        }
        self.settle();
    }
}

/// A store in memory does not wait.
fn done(future: impl Future<Output = Result<(), StoreError>>) {
    let polled = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(()))));
}

impl Client {
    fn take(&self) -> String {
        String::from_utf8(self.recorder.drain().into_iter().flat_map(String::into_bytes).collect())
            .unwrap()
    }

    fn poll(&self) {
        let mut slot = self.driver.lock().unwrap();
        let Some(driver) = &mut *slot else { return };
        let want = driver.poll_want(&mut Context::from_waker(Waker::noop()));
        if want == Poll::Ready(Want::Close) {
            let over = slot.take();
            drop(slot);
            drop(over);
        }
    }
}

/// What clients do, by name (`account/resource`).
#[derive(Clone, Copy)]
enum Step<'a> {
    Come(&'a str),
    Send(&'a str, &'a str),
    /// The connection breaks.
    Lose(&'a str),
}
use Step::{Come, Lose, Send};

/// What each client gets in each step.
fn transcript(world: &World, names: [&str; 3], steps: &[Step<'_>]) -> Vec<String> {
    play(world, names, steps).1
}

/// The same, with the clients that are left.
fn play(
    world: &World,
    names: [&str; 3],
    steps: &[Step<'_>],
) -> (Vec<(String, Client)>, Vec<String>) {
    let named = |text: &str| {
        let mut text = text.to_owned();
        for (role, name) in ["ROMEO", "JULIET", "NURSE"].iter().zip(names) {
            text = text.replace(role, name);
        }
        text
    };
    let mut clients: Vec<(String, Client)> = Vec::new();
    let mut lines = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Come(name) => {
                let jid = named(name);
                let (account, resource) = jid.split_once('/').unwrap();
                clients.push(((*name).to_owned(), world.client(account, resource)));
            }
            Send(name, xml) => {
                let (_, client) = clients.iter().find(|(of, _)| of == name).unwrap();
                world.send(client, &named(xml));
            }
            Lose(name) => {
                let at = clients.iter().position(|(of, _)| of == name).unwrap();
                let (_, client) = clients.remove(at);
                world
                    .clients
                    .lock()
                    .unwrap()
                    .retain(|one| !Arc::ptr_eq(&one.driver, &client.driver));
                drop(client);
                world.settle();
            }
        }
        for (name, client) in &clients {
            for element in client
                .take()
                .replace("><presence", ">\n<presence")
                .replace("><iq", ">\n<iq")
                .lines()
            {
                lines.push(format!("{number} {name}: {}", without_id(element)));
            }
        }
    }
    (clients, lines)
}

/// Ids of pushes are random.
fn without_id(element: &str) -> String {
    let is_push = element.contains("type='set'") && element.contains("jabber:iq:roster");
    let id = element.split_once(" id='").and_then(|(_, rest)| rest.split_once('\''));
    match id.filter(|_| is_push) {
        Some((id, _)) => element.replace(id, "ID"),
        None => element.to_owned(),
    }
}

/// What different accounts say is in no order with each other; what each says is.
fn by_sender(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by_key(|line| {
        let (to, what) = line.split_once(": ").unwrap_or_default();
        let (step, client) = to.split_once(' ').unwrap_or_default();
        let from = what.split_once("from='").and_then(|(_, rest)| rest.split(['@', '\'']).next());
        let step: usize = step.parse().unwrap_or_default();
        (step, client.to_owned(), from.unwrap_or_default().to_owned())
    });
    lines
}

/// Three accounts that live at three nodes.
fn apart(world: &World) -> [&'static str; 3] {
    let at = |node| *ACCOUNTS.iter().find(|one| world.home(one) == node).expect("one there");
    [at(0), at(1), at(2)]
}

/// The same on one server and on three.
fn alike(steps: &[Step<'_>]) -> Vec<String> {
    alike_with(|_| Vec::new(), steps)
}

/// The same, with items of rosters.
fn alike_with(
    items: impl Fn([&'static str; 3]) -> Vec<(&'static str, &'static str, Subscription)>,
    steps: &[Step<'_>],
) -> Vec<String> {
    let names = apart(&World::new(3));
    let (items, cluster) = (items(names), World::with(3, &items(names)));
    let told = by_sender(transcript(&cluster, names, steps));
    let alone = by_sender(transcript(&World::with(0, &items), names, steps));
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>()
    };
    let (here, there) = (only(&told, &alone), only(&alone, &told));
    let first = told.iter().zip(&alone).position(|(one, other)| one != other);
    let around = first
        .map(|at| (&told[at..(at + 4).min(told.len())], &alone[at..(at + 4).min(alone.len())]));
    assert!(told == alone, "{around:#?} {here:#?}\n instead of {there:#?}");
    told
}

const SUBSCRIBE_ROMEO: &str = "<presence to='ROMEO@example.com' type='subscribe'/>";
const SUBSCRIBE: &str = "<presence to='JULIET@example.com' type='subscribe'/>";
const GET: &str = "<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>";
/// Romeo and Juliet see each other.
const FRIENDS: [Step<'_>; 10] = [
    Come("ROMEO/1"),
    Come("JULIET/1"),
    Send("ROMEO/1", GET),
    Send("JULIET/1", GET),
    Send("ROMEO/1", "<presence/>"),
    Send("JULIET/1", "<presence/>"),
    Send("ROMEO/1", SUBSCRIBE),
    Send("JULIET/1", "<presence to='ROMEO@example.com' type='subscribed'/>"),
    Send("JULIET/1", "<presence to='ROMEO@example.com' type='subscribe'/>"),
    Send("ROMEO/1", "<presence to='JULIET@example.com' type='subscribed'/>"),
];

fn friends_and(steps: &[Step<'_>]) -> Vec<String> {
    alike(&[&FRIENDS, steps].concat())
}

#[test]
fn node_15_a_subscription_is_made_as_at_one_node() {
    let told = friends_and(&[]);
    assert!(told.iter().any(|line| line.contains("subscription='both'")), "{told:#?}");
}

#[test]
fn node_15_a_subscription_ends_as_at_one_node() {
    for end in ["unsubscribe", "unsubscribed"] {
        let end = format!("<presence to='JULIET@example.com' type='{end}'/>");
        friends_and(&[
            Send("ROMEO/1", &end),
            Send("JULIET/1", "<presence><show>away</show></presence>"),
        ]);
    }
    let remove = "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>\
        <item jid='JULIET@example.com' subscription='remove'/></query></iq>";
    friends_and(&[Send("ROMEO/1", remove)]);
}

#[test]
fn node_15_who_is_not_there_is_asked_as_at_one_node() {
    // Unknown, with no session, pending.
    for to in ["nobody@example.com", "NURSE@example.com"] {
        let subscribe = format!("<presence to='{to}' type='subscribe'/>");
        let probe = format!("<presence to='{to}' type='probe' id='p'/>");
        let cancel = format!("<presence to='{to}' type='unsubscribe'/>");
        alike(&[
            Come("ROMEO/1"),
            Send("ROMEO/1", GET),
            Send("ROMEO/1", "<presence/>"),
            Send("ROMEO/1", &probe),
            Send("ROMEO/1", &subscribe),
            Send("ROMEO/1", &probe),
            Come("ROMEO/2"),
            Send("ROMEO/2", "<presence/>"),
            Send("ROMEO/1", &cancel),
        ]);
    }
    alike(&[
        Come("ROMEO/1"),
        Send("ROMEO/1", "<presence/>"),
        Send("ROMEO/1", SUBSCRIBE),
        Lose("ROMEO/1"),
        Come("ROMEO/1"),
        Send("ROMEO/1", "<presence/>"),
        Come("JULIET/1"),
        Send("JULIET/1", GET),
        Send("JULIET/1", "<presence/>"),
        Send("JULIET/1", "<presence to='ROMEO@example.com' type='subscribed'/>"),
    ]);
}

#[test]
fn node_15_presence_goes_as_at_one_node() {
    friends_and(&[
        Send("ROMEO/1", "<presence id='x'><show>away</show><priority>3</priority></presence>"),
        Come("JULIET/2"),
        Send("JULIET/2", "<presence/>"),
        Come("ROMEO/2"),
        Send("ROMEO/2", "<presence><status>two</status></presence>"),
        Send("JULIET/1", "<presence type='unavailable'><status>bye</status></presence>"),
        Lose("ROMEO/1"),
        Send("ROMEO/2", "</stream:stream>"),
        Send("JULIET/1", "<presence/>"),
        Lose("JULIET/2"),
        Come("ROMEO/3"),
        Send("ROMEO/3", "<presence/>"),
    ]);
}

#[test]
fn node_15_directed_presence_goes_as_at_one_node() {
    alike(&[
        Come("ROMEO/1"),
        Come("JULIET/1"),
        Come("JULIET/2"),
        Send("JULIET/2", "<presence/>"),
        Send("ROMEO/1", "<presence to='JULIET@example.com/1' id='d'/>"),
        Send("ROMEO/1", "<presence to='JULIET@example.com'><show>dnd</show></presence>"),
        Send("ROMEO/1", "<presence to='JULIET@example.com/none'/>"),
        Send("JULIET/2", "<presence type='probe' to='ROMEO@example.com' id='p'/>"),
        Send("JULIET/1", "<presence to='ROMEO@example.com/1'/>"),
        Lose("JULIET/1"),
        Come("JULIET/3"),
        Send("ROMEO/1", "<presence to='JULIET@example.com/3'/>"),
        Send("ROMEO/1", "<presence to='JULIET@example.com/3' type='unavailable' id='u'/>"),
        Send("ROMEO/1", "<presence to='JULIET@example.com/3'/>"),
        Lose("ROMEO/1"),
    ]);
    // To a contact, only connected and available.
    friends_and(&[
        Come("JULIET/2"),
        Send("ROMEO/1", "<presence to='JULIET@example.com/2'><status>you</status></presence>"),
        Send("ROMEO/1", "<presence to='JULIET@example.com/1'><status>you</status></presence>"),
        Send("ROMEO/1", "<presence type='unavailable'/>"),
        Send("ROMEO/1", "<presence/>"),
        Send("ROMEO/1", "<presence to='JULIET@example.com' type='unavailable'/>"),
        Lose("ROMEO/1"),
    ]);
}

/// Each watcher is told once that somebody is gone whose node is.
#[test]
fn destroy_17_when_a_node_is_lost_each_watcher_is_told_once_of_each_session() {
    let world = World::new(3);
    let names = apart(&world);
    let steps = [&FRIENDS[..], &[Come("ROMEO/2"), Send("ROMEO/2", "<presence/>")]].concat();
    let (clients, _) = play(&world, names, &steps);
    let juliet = &clients.iter().find(|(name, _)| name == "JULIET/1").unwrap().1;
    let nurse = world.client(names[2], "1");
    world.send(&nurse, "<presence/>");
    let romeo = &clients.iter().find(|(name, _)| name == "ROMEO/1").unwrap().1;
    world.send(romeo, &format!("<presence to='{}@{DOMAIN}/1'/>", names[2]));
    drop((juliet.take(), nurse.take()));
    world.kill(world.home(names[0]));
    world.advance(Duration::from_secs(10));
    let gone = |resource: &str, to: &str| {
        format!("<presence from='{0}@{DOMAIN}/{resource}' to='{to}' type='unavailable'/>", names[0])
    };
    let own = format!("{}@{DOMAIN}", names[1]);
    assert_eq!(juliet.take(), [gone("1", &own), gone("2", &own)].concat());
    assert_eq!(nurse.take(), gone("1", &format!("{}@{DOMAIN}/1", names[2])));
    // He comes again, elsewhere, and goes: nobody hears of the old ones.
    let romeo = world.client(names[0], "1");
    world.send(&romeo, "<presence/>");
    assert!(juliet.take().contains("/1'") && romeo.take().contains(names[1]));
    world.send(&romeo, "</stream:stream>");
    assert_eq!(juliet.take(), gone("1", &own));
    assert_eq!(nurse.take(), "");
}

#[test]
fn node_18_nothing_comes_behind_the_end_of_its_session() {
    let world = World::new(3);
    let steps = [
        Send(
            "ROMEO/1",
            "<presence type='unavailable'/><presence/><presence><show>away</show></presence>\
             <presence to='JULIET@example.com/1'/><presence type='unavailable'/>",
        ),
        Send("ROMEO/1", "<presence/>"),
        Lose("ROMEO/1"),
    ];
    // What he is told himself is not what it is at one node: he is gone before he is answered (NODE-17).
    let told = transcript(&world, apart(&world), &[&FRIENDS[..], &steps].concat());
    let of_romeo = |line: &&String| line.contains(" JULIET/1: ") && line.contains("/1' to=");
    let last = told.iter().rfind(of_romeo).unwrap();
    assert!(last.contains("type='unavailable'"), "{told:#?}");
}

/// What comes for a slot of which the store has not heard yet waits for that.
#[test]
fn node_3_what_comes_before_a_slot_is_open_is_not_lost() {
    let world = World::new(3);
    let names = apart(&world);
    let romeo = world.client(names[0], "1");
    world.send(&romeo, "<presence/>");
    let (dead, jid) = (world.home(names[1]), format!("{}@{DOMAIN}", names[1]));
    world.is_slow.store(true, Ordering::Relaxed);
    world.kill(dead);
    world.advance(Duration::from_secs(10));
    world.send(&romeo, &format!("<message to='{jid}' id='m'><body>Hi</body></message>"));
    world.send(&romeo, &format!("<presence to='{jid}' type='subscribe'/>"));
    world.is_slow.store(false, Ordering::Relaxed);
    world.advance(Duration::from_secs(2));
    let juliet = world.client(names[1], "1");
    world.send(&juliet, "<presence/>");
    let told = juliet.take();
    assert!(told.contains("<body>Hi</body>") && told.contains("type='subscribe'"), "{told}");
}

/// A half that is left over when a home dies between the two is undone at the next word.
#[test]
fn node_15_a_half_that_is_left_over_heals() {
    let names = apart(&World::new(3));
    for (left, is_there) in [("to", false), ("to", true), ("from", true), ("both", true)] {
        let subscription = match left {
            "to" => Subscription::To,
            "from" => Subscription::From,
            _ => Subscription::Both,
        };
        let world = World::with(3, &[(names[0], names[1], subscription)]);
        assert_eq!(apart(&world), names);
        if is_there {
            world.send(&world.client(names[1], "1"), "<presence/>");
        }
        let romeo = world.client(names[0], "1");
        world.send(&romeo, GET);
        assert!(romeo.take().contains(&format!("subscription='{left}'")));
        world.send(&romeo, "<presence/>");
        // What juliet sees of it she sees to its end.
        world.send(&romeo, "<presence type='unavailable'/>");
        world.send(&romeo, GET);
        let told = romeo.take();
        let last = told.rsplit("<item").next().unwrap();
        assert!(last.contains("subscription='none'"), "{left}: {told}");
    }
}

#[test]
fn pres_20_whoever_is_not_in_the_roster_is_seen_as_at_one_node() {
    let both = |[romeo, juliet, _]: [&'static str; 3]| vec![(romeo, juliet, Subscription::Both)];
    let seen = alike_with(
        |names| vec![(names[0], names[1], Subscription::From), both(names)[0]],
        &[
            Come("JULIET/1"),
            Come("JULIET/2"),
            Send("JULIET/1", "<presence/>"),
            Come("ROMEO/1"),
            Come("ROMEO/2"),
            Send("ROMEO/1", "<presence/>"),
            Send("ROMEO/1", "<presence><show>away</show></presence>"),
            Send("ROMEO/2", "<presence/>"),
            Send("ROMEO/1", "<presence type='unavailable'/>"),
            Send("ROMEO/2", "<presence><show>dnd</show></presence>"),
            Lose("ROMEO/2"),
        ],
    );
    assert_eq!(seen.iter().filter(|line| line.contains(" JULIET/1: ")).count(), 7, "{seen:#?}");
}

/// Two halves are left alone, whatever comes at the same time.
#[test]
fn node_15_nobody_is_unsubscribed_who_sees() {
    let told = friends_and(&[
        Send("ROMEO/1", "<presence><show>away</show></presence>"),
        Send("JULIET/1", "<presence to='ROMEO@example.com' type='unsubscribe'/>"),
        Send("JULIET/1", SUBSCRIBE_ROMEO),
        Send("ROMEO/1", "<presence><show>dnd</show></presence>"),
        Send("ROMEO/1", "<presence to='JULIET@example.com' type='subscribed'/>"),
    ]);
    let last = told.iter().rfind(|line| line.contains("<item")).unwrap();
    assert!(last.contains("subscription='both'"), "{told:#?}");
}

#[test]
fn node_15_probes_of_clients_are_answered_as_at_one_node() {
    let mut steps = FRIENDS.to_vec();
    for to in
        ["JULIET@example.com", "JULIET@example.com/1", "JULIET@example.com/2", "NURSE@example.com"]
    {
        let probe = format!("<presence type='probe' to='{to}' id='p'/>");
        steps.push(Send("ROMEO/1", probe.leak()));
        steps.push(Come(format!("ROMEO/{}", steps.len()).leak()));
    }
    alike(&steps);
}

fn block(name: &str, jid: &str) -> &'static str {
    format!(
        "<iq type='set' id='b'><{name} xmlns='urn:xmpp:blocking'><item jid='{jid}'/></{name}></iq>"
    )
    .leak()
}

#[test]
fn node_15_who_is_blocked_sees_what_he_would_at_one_node() {
    friends_and(&[
        Send("JULIET/1", block("block", "ROMEO@example.com")),
        Send("ROMEO/1", "<presence><show>away</show></presence>"),
        Send("ROMEO/1", "<presence type='probe' to='JULIET@example.com' id='p'/>"),
        Come("ROMEO/2"),
        Send("ROMEO/2", "<presence/>"),
        Send("ROMEO/1", "<presence to='JULIET@example.com'/>"),
        Send("JULIET/1", "<presence><show>dnd</show></presence>"),
        Send("JULIET/1", block("unblock", "ROMEO@example.com")),
        Send("ROMEO/1", "<presence/>"),
        Lose("JULIET/1"),
    ]);
    // What changes meanwhile changes without a word.
    for kind in ["unsubscribe", "unsubscribed", "subscribe"] {
        let stanza = format!("<presence to='JULIET@example.com' type='{kind}'/>");
        friends_and(&[
            Send("JULIET/1", block("block", "ROMEO@example.com")),
            Send("ROMEO/1", &stanza),
            Send("JULIET/1", block("unblock", "ROMEO@example.com")),
            Send("JULIET/1", GET),
        ]);
    }
}

/// A block of one session (BLOCK-4) leaves the others out of nothing.
#[test]
fn block_6_a_blocked_session_sees_what_it_would_at_one_node() {
    let (phone, desk) = ("JULIET@example.com/1", "JULIET@example.com/2");
    let more = [Come("JULIET/2"), Send("JULIET/2", "<presence/>")];
    let online = Send("ROMEO/1", "<presence><show>away</show></presence>");
    let offline = Send("ROMEO/1", "<presence type='unavailable'/>");
    let there = Send("ROMEO/1", "<presence/>");
    let block_one = Send("ROMEO/1", block("block", phone));
    let unblock = Send("ROMEO/1", block("unblock", phone));
    let probe = "<presence type='probe' to='ROMEO@example.com' id='p'/>";
    for steps in [
        // Told of its end alone, and of nothing after it.
        &[block_one, online, offline, there, unblock, online, offline][..],
        // Blocked while nobody is there, or before it is there itself.
        &[offline, block_one, there, online, unblock, offline],
        &[
            block_one,
            Lose("JULIET/1"),
            Come("JULIET/1"),
            Send("JULIET/1", "<presence/>"),
            Send("JULIET/1", probe),
            Send("JULIET/2", probe),
            online,
            Lose("ROMEO/1"),
        ],
        // One session after the other, then the account, and the other way round.
        &[
            block_one,
            Send("ROMEO/1", block("block", desk)),
            online,
            Send("ROMEO/1", block("block", "JULIET@example.com")),
            unblock,
            online,
            Send("ROMEO/1", block("unblock", "JULIET@example.com")),
            online,
            Send("ROMEO/1", "<iq type='set' id='u'><unblock xmlns='urn:xmpp:blocking'/></iq>"),
            offline,
        ],
        // Several sessions of the account that blocks.
        &[
            Come("ROMEO/2"),
            Send("ROMEO/2", "<presence/>"),
            block_one,
            Send("ROMEO/2", "<presence><show>dnd</show></presence>"),
            Lose("ROMEO/1"),
            Come("ROMEO/3"),
            Send("ROMEO/3", "<presence/>"),
            Lose("ROMEO/2"),
            Send("ROMEO/3", block("unblock", phone)),
            Lose("ROMEO/3"),
        ],
        // It is not available when it is blocked, or later.
        &[
            Send("JULIET/1", "<presence type='unavailable'/>"),
            block_one,
            Send("JULIET/1", "<presence/>"),
            online,
            Send("JULIET/1", "<presence type='unavailable'/>"),
            offline,
            unblock,
            there,
            Send("JULIET/1", "<presence/>"),
        ],
        // Directed presence, and what the blocked one says.
        &[
            Send("ROMEO/1", "<presence to='JULIET@example.com/1'><status>you</status></presence>"),
            Send("ROMEO/1", "<presence to='JULIET@example.com/2'><status>you</status></presence>"),
            block_one,
            Send("ROMEO/1", "<presence to='JULIET@example.com/1'/>"),
            Send("ROMEO/1", "<presence to='JULIET@example.com'/>"),
            Send("JULIET/1", "<presence to='ROMEO@example.com/1'/>"),
            Send("JULIET/1", "<presence><show>away</show></presence>"),
            Send("JULIET/2", "<presence><show>away</show></presence>"),
            Send("JULIET/1", "<message to='ROMEO@example.com/1' id='m'><body>a</body></message>"),
            Send("JULIET/1", "<iq to='ROMEO@example.com/1' id='i' type='get'><q xmlns='x'/></iq>"),
            Send("ROMEO/1", "<message to='JULIET@example.com/1' id='m'><body>a</body></message>"),
            Send("ROMEO/1", "<message to='JULIET@example.com/2' id='m'><body>a</body></message>"),
            offline,
        ],
        // The subscription ends and begins anew meanwhile.
        &[
            block_one,
            Send("ROMEO/1", "<presence to='JULIET@example.com' type='unsubscribed'/>"),
            Send("JULIET/2", SUBSCRIBE_ROMEO),
            Send("ROMEO/1", "<presence to='JULIET@example.com' type='subscribed'/>"),
            online,
            offline,
        ],
        &[
            block_one,
            Send("JULIET/1", "<presence to='ROMEO@example.com' type='unsubscribe'/>"),
            online,
        ],
    ] {
        friends_and(&[&more, steps].concat());
    }
}

/// Of a node that is lost, whoever saw its sessions, and nobody else.
#[test]
fn destroy_17_a_blocked_session_is_not_told_of_the_end_of_a_node() {
    let names = apart(&World::new(3));
    let more = [Come("JULIET/2"), Send("JULIET/2", "<presence/>")];
    let blocked = [Send("ROMEO/1", block("block", "JULIET@example.com/1"))];
    let later = [Come("JULIET/3"), Send("JULIET/3", "<presence/>")];
    let again = [Send("ROMEO/1", "<presence type='unavailable'/>"), Send("ROMEO/1", "<presence/>")];
    for (steps, told) in [
        ([&FRIENDS[..], &more, &blocked, &later].concat(), [0, 1, 1]),
        ([&FRIENDS[..], &more, &later, &blocked, &again].concat(), [0, 1, 1]),
        (
            [
                &FRIENDS[..],
                &more,
                &later,
                &blocked,
                &again,
                &[Send("ROMEO/1", block("unblock", "JULIET@example.com/1"))],
            ]
            .concat(),
            [1, 1, 1],
        ),
        (
            [
                &FRIENDS[..],
                &more,
                &later,
                &[Send("ROMEO/1", "<presence to='JULIET@example.com/1'/>")],
            ]
            .concat(),
            [1, 1, 1],
        ),
    ] {
        let world = World::new(3);
        let (clients, _) = play(&world, names, &steps);
        world.kill(world.home(names[0]));
        world.advance(Duration::from_secs(10));
        for (name, told) in ["JULIET/1", "JULIET/2", "JULIET/3"].iter().zip(told) {
            let (_, client) = clients.iter().find(|(of, _)| of == name).unwrap();
            let heard = client.take();
            assert_eq!(heard.matches("type='unavailable'").count(), told, "{name}: {heard}");
        }
    }
}
