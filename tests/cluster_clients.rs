//! Clients that are not like others, at several nodes: bots, guests, streams that have no session yet.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use xmpp_session::cluster::{Incarnation, MemoryEngine, Posts};
use xmpp_session::connection::Recorder;
use xmpp_session::extension::Extension;
use xmpp_session::jid::{BareJid, FullJid};
use xmpp_session::minidom::Element;
use xmpp_session::sasl::Policy;
use xmpp_session::server::{
    Bot, BotError, Cluster, DomainPolicy, GuestPolicy, Limits, Listing, ServerBuilder, Shutdown,
};
use xmpp_session::session::{Reason, SessionHandle};
use xmpp_session::stanza::{Stanza, canonicalise};
use xmpp_session::store::{
    AnyAccount, ClientKey, ClientTokens, Fence, FenceTokens, Revision, SharedMemory, SharedStore,
    StoreError, StoreFuture, Stores, TokenStore,
};
use xmpp_session::stream::{StreamCondition, StreamError};

use crate::common::nodes::{Client, Node, Nodes, OPEN, auth, bind};
use crate::nodes::leave;

fn bot(world: &Nodes, at: &Node, account: &BareJid) -> Bot<Recorder> {
    let jid = FullJid::new(&format!("{account}/cage")).unwrap();
    world.run(at.server.bot(&jid)).unwrap()
}

fn say(world: &Nodes, bot: &Bot<Recorder>, xml: &str) {
    let stanza: Stanza = canonicalise(xml.as_bytes()).unwrap();
    world.run(bot.send(&stanza)).unwrap();
}

/// What a bot can take now, and no more than so many.
fn take(bot: &mut Bot<Recorder>, most: usize) -> Vec<Stanza> {
    let mut taken = Vec::new();
    while taken.len() < most {
        let next = pin!(bot.recv()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(stanza)) = next else { break };
        taken.push(stanza);
    }
    taken
}

fn texts(stanzas: &[Stanza]) -> String {
    stanzas.iter().map(|stanza| format!("{stanza:?}")).collect()
}

fn is_over(bot: &mut Bot<Recorder>) -> bool {
    let next = pin!(bot.recv()).poll(&mut Context::from_waker(Waker::noop()));
    matches!(next, Poll::Ready(None))
}

/// An account at the first node, and a friend of it at the second one, who is there.
struct Scene {
    world: Nodes,
    polly: BareJid,
    romeo: BareJid,
}

impl Scene {
    fn new(moves: bool) -> Self {
        let silence = |_, builder: ServerBuilder<Recorder>| {
            let mut limits = Limits::default();
            limits.silence = Duration::from_secs(60);
            builder.limits(limits)
        };
        let world = if moves { Nodes::moving(3, silence) } else { Nodes::with(3, silence) };
        let (polly, romeo) = (world.account_at(0, "polly"), world.account_at(1, "romeo"));
        world.run(world.node(2).server.account(&romeo).befriend(&polly)).unwrap();
        Self { world, polly, romeo }
    }
}

#[test]
fn bot_1_a_bot_of_any_node_is_at_the_home_of_its_account() {
    for at in 0..3 {
        let Scene { world, polly, romeo } = Scene::new(false);
        let orchard = world.online(&romeo, "orchard");
        let mut bot = bot(&world, &world.node(at), &polly);
        assert_eq!(bot.jid().as_str(), format!("{polly}/cage"));
        assert!(world.home(&polly).server.registry().session(bot.jid()).is_some());
        say(&world, &bot, "<presence/>");
        world.settle();
        assert!(orchard.received().contains(&format!("from='{polly}/cage'")));
        let told = take(&mut bot, 10);
        assert!(told.iter().any(|one| one.from().as_deref() == Some(&*format!("{romeo}/orchard"))));
        // It answers, and is asked at its bare JID as well.
        world.say(
            &orchard,
            &format!("<message to='{polly}' type='chat' id='m'><body>a</body></message>"),
        );
        let told = take(&mut bot, 10);
        assert_eq!(told.len(), 1, "{}", texts(&told));
        say(
            &world,
            &bot,
            &format!("<message to='{romeo}' type='chat'><body>polly wants</body></message>"),
        );
        world.settle();
        assert!(orchard.received().contains("polly wants"));
        // It is neither asked for signs of life nor given up.
        if at == 2 {
            world.advance(Duration::from_secs(700));
        }
        assert!(!is_over(&mut bot));
        // Whatever ends a client's session ends it.
        match at {
            0 => drop(world.client(&polly, "cage")),
            1 => {
                let error = StreamError::new(StreamCondition::Conflict);
                assert_eq!(world.run(world.node(2).server.account(&polly).kick(&error)), 1);
            }
            _ => {
                let session = world.home(&polly).server.registry().session(bot.jid()).unwrap();
                let error = StreamError::new(StreamCondition::Conflict);
                assert!(world.home(&polly).server.kick_with(&session, &error));
            }
        }
        world.settle();
        assert!(is_over(&mut bot));
        assert_eq!(bot.condition(), Some(StreamCondition::Conflict));
        let over = world.run(bot.send(&canonicalise(b"<presence/>").unwrap()));
        assert!(matches!(over, Err(BotError::Ended(Some(StreamCondition::Conflict)))), "{over:?}");
        // It has been silent itself where that was tried.
        assert_eq!(orchard.received().contains("type='unavailable'"), at != 2);
    }
}

#[test]
fn bot_2_dropping_a_bot_of_any_node_is_a_close_tag() {
    for at in 0..3 {
        let Scene { world, polly, romeo } = Scene::new(false);
        let orchard = world.online(&romeo, "orchard");
        let bot = bot(&world, &world.node(at), &polly);
        say(&world, &bot, "<presence/>");
        for n in 0..20 {
            say(
                &world,
                &bot,
                &format!("<message to='{romeo}' type='chat' id='{n}'><body>a</body></message>"),
            );
        }
        drop(bot);
        world.settle();
        let told = orchard.received();
        assert_eq!(told.matches("<body>").count(), 20, "{told}");
        assert_eq!(told.matches("type='unavailable'").count(), 1, "{told}");
        assert_eq!(world.home(&polly).server.registry().sessions(&polly).count(), 0);
    }
}

#[test]
fn bot_4_what_a_bot_of_any_node_has_not_taken_goes_elsewhere() {
    for at in 0..3 {
        for is_kicked in [false, true] {
            let Scene { world, polly, romeo } = Scene::new(false);
            let orchard = world.online(&romeo, "orchard");
            let mut bot = bot(&world, &world.node(at), &polly);
            say(&world, &bot, "<presence/>");
            world.settle();
            let _own = take(&mut bot, 10);
            for n in 0..50 {
                world.say(
                    &orchard,
                    &format!("<message to='{polly}' type='chat' id='{n}'><body>a</body></message>"),
                );
            }
            let taken = take(&mut bot, 7);
            assert_eq!(taken.len(), 7);
            world.settle();
            if is_kicked {
                let error = StreamError::new(StreamCondition::Conflict);
                world.run(world.node(1).server.account(&polly).kick(&error));
                world.settle();
                assert!(take(&mut bot, 50).is_empty(), "what is left is not the bot's any more");
            }
            drop(bot);
            world.settle();
            let later = world.client(&polly, "later");
            let told = world.ask(&later, "<presence/>");
            assert_eq!(told.matches("<body>").count(), 43, "{told}");
            assert!(told.contains("id='7'") && told.contains("id='49'"), "{told}");
        }
    }
}

#[test]
fn node_14_a_bot_follows_a_planned_move() {
    for at in [1, 2] {
        let Scene { world, polly, romeo } = Scene::new(true);
        let orchard = world.client_at(&world.node(1), &romeo, "orchard");
        world.say(&orchard, "<presence/>");
        let mut bot = bot(&world, &world.node(at), &polly);
        say(&world, &bot, "<presence/>");
        world.settle();
        let _before = (take(&mut bot, 10), orchard.received());
        let mut ids = Vec::new();
        let mut said = 0;
        leave(&world, &[(0, Shutdown::new)], |n| {
            world.say(
                &orchard,
                &format!("<message to='{polly}/cage' id='{n}'><body>a</body></message>"),
            );
            if n % 2 == 0 {
                ids.extend(
                    take(&mut bot, 3)
                        .iter()
                        .filter_map(|one| one.id().map(|id| id.parse::<usize>().unwrap())),
                );
            }
            said = n;
        });
        world.settle();
        ids.extend(
            take(&mut bot, 1000)
                .iter()
                .filter_map(|one| one.id().map(|id| id.parse::<usize>().unwrap())),
        );
        assert_eq!(ids, (0..=said).collect::<Vec<_>>());
        say(
            &world,
            &bot,
            &format!("<message to='{romeo}' type='chat'><body>still here</body></message>"),
        );
        world.settle();
        let told = orchard.received();
        assert!(told.contains("still here") && !told.contains("unavailable"), "{told}");
    }
}

#[test]
fn node_13_a_bot_ends_with_the_home_of_its_account_and_with_its_edge() {
    let Scene { world, polly, romeo } = Scene::new(false);
    let orchard = world.client_at(&world.node(1), &romeo, "orchard");
    world.say(&orchard, "<presence/>");
    let mut one = bot(&world, &world.node(2), &polly);
    say(&world, &one, "<presence/>");
    world.settle();
    let _before = (take(&mut one, 10), orchard.received());
    world.node(0).stop(true);
    world.advance(Duration::from_secs(10));
    assert!(is_over(&mut one));
    assert_eq!(one.condition(), Some(StreamCondition::SystemShutdown));
    assert_eq!(orchard.received().matches("type='unavailable'").count(), 1);
    // The next one is at the new home; its own node is lost this time.
    let is_home = |n: &usize| world.node(*n).is_home_of(&polly);
    let (home, edge) = if is_home(&1) { (world.node(1), 2) } else { (world.node(2), 1) };
    let other = bot(&world, &world.node(edge), &polly);
    say(&world, &other, "<presence/>");
    world.settle();
    assert_eq!(home.server.registry().sessions(&polly).count(), 1);
    world.node(edge).stop(true);
    world.advance(Duration::from_secs(10));
    assert_eq!(home.server.registry().sessions(&polly).count(), 0);
}

const HALL: &str = "guests.example";

/// Nodes that let guests in, and how many.
fn hall(moves: bool, most: usize) -> Nodes {
    let guests = move |_, builder: ServerBuilder<Recorder>| {
        let mut policy = DomainPolicy::default();
        let mut guests = GuestPolicy::default();
        (guests.most, guests.rate) = (most, None);
        policy.guests = Some(guests);
        builder.domain_with(HALL.parse().unwrap(), policy)
    };
    if moves { Nodes::moving(3, guests) } else { Nodes::with(3, guests) }
}

/// A guest at this node, and what it is called; `None`: it is not let in.
fn guest(world: &Nodes, at: usize) -> Option<(Client, BareJid)> {
    let open = OPEN.replace("example.com", HALL);
    let client = world.connect_with(&world.node(at), &open);
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'>=</auth>";
    if !world.ask(&client, auth).contains("<success") {
        return None;
    }
    world.say(&client, &open);
    let told = world.ask(&client, &bind("hat"));
    let jid = told.split_once("<jid>")?.1.split_once('/')?.0;
    let jid = BareJid::new(jid).ok()?;
    world.say(&client, "<presence/>");
    let _own = client.received();
    Some((client, jid))
}

fn has_account(world: &Nodes, guest: &BareJid) -> Vec<bool> {
    let nodes = world.all();
    let asked = nodes.iter().filter(|node| node.is_member());
    asked.map(|node| world.run(node.server.account(guest).roster()).is_ok()).collect()
}

#[test]
fn guest_7_a_guest_of_any_node_is_at_the_home_of_its_account() {
    let world = hall(false, 9);
    let romeo = world.account_at(1, "romeo");
    let orchard = world.online(&romeo, "orchard");
    // Until there was one at each node, whatever they are called.
    let mut guests: Vec<_> = (0..9).map(|n| guest(&world, n % 3).unwrap()).collect();
    assert!(guest(&world, 0).is_some(), "each node lets so many in");
    for (client, jid) in &guests {
        assert_eq!(has_account(&world, jid), [true; 3]);
        world.say(&orchard, &format!("<message to='{jid}' type='chat'><body>hi</body></message>"));
        assert!(client.received().contains("<body>hi</body>"));
        world.say(client, &format!("<presence to='{romeo}' type='subscribe'/>"));
        world.say(&orchard, &format!("<presence to='{jid}' type='subscribed'/>"));
        assert!(client.received().contains(&format!("from='{romeo}/orchard'")));
        let told =
            world.ask(client, "<message to='a@example.org' id='m'><body>out</body></message>");
        assert!(told.contains("<forbidden "), "{told}");
    }
    let homes = guests.iter().map(|(_, jid)| (0..3).find(|n| world.node(*n).is_home_of(jid)));
    assert!(homes.collect::<std::collections::BTreeSet<_>>().len() > 1);
    let _before = orchard.received();
    while let Some((client, jid)) = guests.pop() {
        client.cut();
        world.advance(Duration::from_secs(1));
        assert_eq!(has_account(&world, &jid), [false; 3]);
        assert!(
            orchard.received().contains(&format!("from='{jid}' to='{romeo}' type='unsubscribe'"))
        );
    }
}

#[test]
fn guest_7_a_guest_moves_with_its_account() {
    let world = hall(true, 40);
    let romeo = world.account_at(1, "romeo");
    let orchard = world.client_at(&world.node(1), &romeo, "orchard");
    let get = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
    world.say(&orchard, &format!("{get}<presence/>"));
    let mut guests = Vec::new();
    while guests.iter().filter(|(_, jid)| world.node(0).is_home_of(jid)).count() < 3 {
        guests.push(guest(&world, 1 + guests.len() % 2).unwrap());
    }
    guests.retain(|(_, jid)| world.node(0).is_home_of(jid));
    for (client, jid) in &guests {
        world.say(client, &format!("<presence to='{romeo}' type='subscribe'/>"));
        world.say(&orchard, &format!("<presence to='{jid}' type='subscribed'/>"));
        world.say(&orchard, &format!("<presence to='{jid}' type='subscribe'/>"));
        let _told = client.received();
    }
    let _told = orchard.received();
    leave(&world, &[(0, Shutdown::new)], |_| {});
    for (client, jid) in &guests {
        assert!(client.is_connected());
        let roster = world.run(world.node(2).server.account(jid).roster()).unwrap();
        assert_eq!((roster.len(), roster.requests().count()), (1, 1));
        let told =
            world.ask(client, "<message to='a@example.org' id='m'><body>out</body></message>");
        assert!(told.contains("<forbidden "), "{told}");
    }
    assert!(!orchard.received().contains("unavailable"));
    for (client, jid) in &guests {
        client.cut();
        world.advance(Duration::from_secs(1));
        assert!(!has_account(&world, jid).contains(&true));
        let told = orchard.received();
        assert!(told.contains(&format!("from='{jid}' to='{romeo}' type='unsubscribe'")), "{told}");
    }
}

#[test]
fn guest_7_a_guest_ends_with_its_edge_and_with_its_home() {
    let world = hall(false, 40);
    let (mut of_edge, mut of_home) = (None, None);
    while of_edge.is_none() || of_home.is_none() {
        let (client, jid) = guest(&world, 1).unwrap();
        if world.node(2).is_home_of(&jid) {
            of_edge = Some((client, jid));
        } else {
            of_home = guest(&world, 2).filter(|(_, jid)| world.node(1).is_home_of(jid)).or(of_home);
        }
    }
    world.node(1).stop(true);
    world.advance(Duration::from_secs(10));
    let ((_, one), (client, other)) = (of_edge.unwrap(), of_home.unwrap());
    for jid in [&one, &other] {
        let is_there = world.run(world.node(2).server.account(jid).roster()).is_ok();
        assert!(!is_there, "{jid}");
    }
    assert!(!client.is_connected());
}

#[test]
fn node_12_a_stream_without_a_session_is_shown_where_its_socket_is() {
    let world = Nodes::new(3);
    let romeo = world.account_at(1, "romeo");
    for at in 0..3 {
        let shown = |n: usize| {
            let overview = world.node(n).server.overview(&Listing::default());
            (overview.authenticated, overview.streams.len(), overview.bound)
        };
        let client = world.log_in(&world.node(at), &romeo);
        for n in 0..3 {
            assert_eq!(shown(n), if n == at { (1, 1, 0) } else { (0, 0, 0) }, "{at} {n}");
        }
        world.say(&client, &bind("x"));
        for n in 0..3 {
            assert_eq!(shown(n), (0, 0, usize::from(n == 1)), "{at} {n}");
        }
        client.cut();
        world.settle();
    }
}

fn authenticate(account: &BareJid, inside: &str) -> String {
    let name = account.node().unwrap().as_str();
    let plain = STANDARD.encode(format!("\0{name}\0secret"));
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{plain}\
         </initial-response><user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>{inside}\
         </authenticate>"
    )
}

/// All that a client is told, but the ids of its streams.
fn told(client: &Client) -> String {
    let mut told = client.received();
    while let Some(at) = told.find("id='").filter(|at| told[*at..].find('\'') == Some(3)) {
        let end = at + 4 + told[at + 4..].find('\'').unwrap();
        told.replace_range(at..=end, "ID");
    }
    told
}

/// What a client of an account says before a move, and then.
type Says<'a> = &'a dyn Fn(&BareJid) -> [String; 2];

/// What a client at the third node is told whose account moves from the first one between what it says first and what
/// it says then; or stays.
fn logs_in(says: Says<'_>, moves: bool) -> String {
    let world = Nodes::moving(3, |_, builder| builder);
    let romeo = world.account_at(0, "romeo");
    let client = world.connect(&world.node(2));
    let [first, then] = says(&romeo);
    world.say(&client, &first);
    if moves {
        leave(&world, &[(0, Shutdown::new)], |_| {});
        assert!(!world.node(0).is_home_of(&romeo));
    }
    world.say(&client, &then);
    let login = told(&client);
    if login.contains("</stream:stream>") {
        world.advance(Duration::from_secs(3));
        assert!(!client.is_connected());
        return login;
    }
    assert!(client.is_connected());
    // It is a session like any other.
    assert_eq!(world.home(&romeo).server.registry().sessions(&romeo).count(), 1);
    let streams = world.node(2).server.overview(&Listing::default()).authenticated;
    assert_eq!(streams, 0, "its edge knows");
    world.say(&client, "<presence/>");
    world.say(
        &client,
        &format!("<message to='{romeo}' type='chat' id='m'><body>to myself</body></message>"),
    );
    login + &told(&client)
}

#[test]
fn node_14_a_stream_without_a_session_follows_a_planned_move() {
    let bind = bind("x");
    let (half, rest) = bind.split_at(bind.len() / 2);
    let (open, more) = OPEN.split_at(OPEN.len() / 2);
    let ping = "<iq type='get' id='early' to='example.com'><ping xmlns='urn:xmpp:ping'/></iq>";
    let empty = "<iq type='get' id='again'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    let wrong = OPEN.replace("example.com", "example.org");
    let says: [Says<'_>; 13] = [
        &|of| [auth(of), format!("{OPEN}{bind}")],
        &|of| [auth(of) + open, format!("{more}{bind}")],
        &|of| [auth(of) + OPEN, bind.clone()],
        &|of| [auth(of) + OPEN + half, rest.to_owned()],
        &|of| [auth(of) + OPEN + ping + half, rest.to_owned()],
        &|of| [auth(of) + OPEN + "<!-", "-".to_owned()],
        &|of| [auth(of) + OPEN + &empty.repeat(3), empty.repeat(2) + &bind],
        // As often as it may, and once more.
        &|of| [auth(of) + OPEN + &empty.repeat(3), empty.repeat(20)],
        &|of| [auth(of), wrong.clone()],
        &|of| [auth(of) + OPEN, "</stream:stream>".to_owned()],
        &|of| [authenticate(of, ""), bind.clone()],
        &|of| [authenticate(of, ""), "\n".to_owned() + ping + &bind],
        &|of| {
            [authenticate(of, "<bind xmlns='urn:xmpp:bind:0'><tag>T</tag></bind>"), String::new()]
        },
    ];
    for (n, says) in says.into_iter().enumerate() {
        let (stays, moves) = (logs_in(says, false), logs_in(says, true));
        let is_over = [5, 7, 8, 9].contains(&n);
        assert_eq!(stays.contains("to myself"), !is_over, "{n}: {stays}");
        if n == 12 {
            // The server has made up a name for it.
            assert!(moves.contains("to myself") && !moves.contains("error"), "{n}: {moves}");
        } else {
            assert_eq!(moves, stays, "{n}");
        }
    }
}

#[test]
fn node_14_a_stream_without_a_session_ends_at_its_new_home_as_at_the_old_one() {
    for n in 0..3 {
        let world = Nodes::moving(3, |_, builder| builder);
        let romeo = world.account_at(0, "romeo");
        let client = world.log_in(&world.node(2), &romeo);
        let _features = client.received();
        leave(&world, &[(0, Shutdown::new)], |_| {});
        let account = world.node(1).server.account(&romeo);
        let error = StreamError::new(StreamCondition::Conflict);
        let condition = match n {
            0 => {
                assert_eq!(world.run(account.kick(&error)), 0);
                "<conflict "
            }
            1 => {
                world.run(account.set_password("other", None)).unwrap();
                "<reset "
            }
            _ => {
                world.advance(Limits::default().negotiation);
                "<policy-violation "
            }
        };
        world.advance(Duration::from_secs(1));
        let told = client.received();
        assert!(told.contains(condition) && told.ends_with("</stream:stream>"), "{n}: {told}");
    }
}

/// What is said of a session when it is bound takes as long as the test wants.
#[derive(Default)]
struct Slow {
    is_slow: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Slow {
    fn let_go(&self) {
        self.is_slow.store(false, Ordering::Relaxed);
        self.wakers.lock().unwrap().drain(..).for_each(Waker::wake);
    }
}

struct Gated(Arc<Slow>);

impl Extension<Recorder> for Gated {
    fn bound(&self, _: &SessionHandle<Recorder>) -> Option<StoreFuture<Option<Element>>> {
        let slow = Arc::clone(&self.0);
        Some(Box::pin(poll_fn(move |cx| match slow.is_slow.load(Ordering::Relaxed) {
            true => {
                slow.wakers.lock().unwrap().push(cx.waker().clone());
                Poll::Pending
            }
            false => Poll::Ready(Ok(None)),
        })))
    }
}

#[test]
fn node_14_what_a_stream_waits_for_is_waited_for_by_the_move() {
    for is_ended in [false, true] {
        let slow = Arc::new(Slow::default());
        slow.is_slow.store(true, Ordering::Relaxed);
        let says = |_, builder: ServerBuilder<Recorder>| builder.extension(Gated(slow.clone()));
        let world = Nodes::moving(3, says);
        let romeo = world.account_at(0, "romeo");
        let orchard = world.client_at(&world.node(2), &romeo, "orchard");
        let client = world.connect(&world.node(2));
        world.say(&client, &authenticate(&romeo, "<bind xmlns='urn:xmpp:bind:0'/>"));
        let before = world.node(0);
        leave(&world, &[(0, Shutdown::new)], |n| {
            if n != 20 {
                return;
            }
            // The slot has stood still for two seconds.
            let sessions: Vec<_> = before.server.registry().sessions(&romeo).collect();
            assert_eq!(sessions.len(), 2);
            if is_ended {
                let registry = before.server.registry();
                let end = |session| registry.destroy_session(session, Reason::Kicked);
                assert!(sessions.iter().all(end));
            }
            slow.let_go();
        });
        let told = client.received();
        let streams = world.node(2).server.overview(&Listing::default());
        if is_ended {
            for told in [told, orchard.received()] {
                assert!(told.ends_with("</stream:error></stream:stream>"), "{told}");
            }
            assert!(!client.is_connected() && !orchard.is_connected());
            continue;
        }
        assert!(told.contains("<success "), "{told}");
        assert_eq!((streams.authenticated, streams.streams.len()), (0, 0), "its edge knows");
        assert!(world.ask(&client, "<presence/>").contains("<presence "));
    }
}

#[test]
fn guest_7_a_guest_without_a_session_moves_with_its_account() {
    let world = hall(true, 99);
    let open = OPEN.replace("example.com", HALL);
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'>=</auth>";
    // Some of them live at each node.
    let guests: Vec<_> = (0..30).map(|_| world.connect_with(&world.node(2), &open)).collect();
    for guest in &guests {
        world.say(guest, &format!("{auth}{open}"));
        let _features = guest.received();
    }
    leave(&world, &[(0, Shutdown::new)], |_| {});
    for guest in guests {
        let told = world.ask(&guest, &bind("hat"));
        let jid = told.split_once("<jid>").expect(&told).1.split_once('/').unwrap().0;
        let jid = BareJid::new(jid).unwrap();
        assert!(world.run(world.node(1).server.account(&jid).roster()).is_ok());
        guest.cut();
        world.advance(Duration::from_secs(1));
        assert!(!has_account(&world, &jid).contains(&true));
    }
}

#[test]
fn limit_27_a_stream_that_its_home_closes_counts_where_its_socket_is() {
    let few = |_, builder: ServerBuilder<Recorder>| {
        let mut limits = Limits::default();
        limits.unauthenticated = 2;
        builder.limits(limits)
    };
    for is_bound in [true, false] {
        let world = Nodes::with(3, few);
        let romeo = world.account_at(1, "romeo");
        let mut clients = Vec::new();
        for n in 0..3 {
            let client = world.log_in(&world.node(2), &romeo);
            if is_bound {
                world.say(&client, &bind(&n.to_string()));
            }
            world.say(&client, "</wrong>");
            assert!(client.received().ends_with("</stream:error></stream:stream>"), "{n}");
            let closing = [0, 1, 2].map(|at| {
                let overview = world.node(at).server.overview(&Listing::default());
                overview.closing
            });
            assert_eq!(closing, [0, 0, (n + 1).min(2)], "{is_bound}");
            clients.push(client);
        }
        let open: Vec<_> = clients.iter().map(Client::is_connected).collect();
        assert_eq!(open, [false, true, true], "{is_bound}: the oldest went at once");
        world.advance(Duration::from_secs(3));
        assert!(clients.iter().all(|client| !client.is_connected()));
        assert_eq!(world.node(2).server.overview(&Listing::default()).closing, 0);
    }
}

const VAULT: &str = "tokens.example";
const FAST: &str = "urn:xmpp:fast:0";

/// Tokens are kept in it, unless it fails.
struct Keeper {
    store: Arc<SharedMemory>,
    fails: Arc<AtomicBool>,
}

struct Kept(Arc<dyn TokenStore>, Arc<AtomicBool>);

impl SharedStore for Keeper {
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores {
        let mut stores = self.store.of_node(tokens);
        let kept = stores.tokens.take().unwrap();
        stores.tokens = Some(Arc::new(Kept(kept, Arc::clone(&self.fails))));
        stores
    }

    fn claim(&self, fence: Fence) -> StoreFuture<()> {
        self.store.claim(fence)
    }

    fn next_term(&self) -> StoreFuture<u64> {
        self.store.next_term()
    }
}

impl Kept {
    fn or_fail<T: Send + 'static>(&self, call: StoreFuture<T>) -> StoreFuture<T> {
        match self.1.load(Ordering::Relaxed) {
            true => Box::pin(std::future::ready(Err(StoreError::failed("broken")))),
            false => call,
        }
    }
}

impl TokenStore for Kept {
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
        self.or_fail(self.0.client(account, client))
    }

    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
        self.or_fail(self.0.clients(account))
    }

    fn replace(
        &self,
        account: &BareJid,
        client: &ClientKey,
        found: Option<Revision>,
        tokens: Option<ClientTokens>,
    ) -> StoreFuture<bool> {
        match self.1.load(Ordering::Relaxed) {
            true => Box::pin(std::future::ready(Err(StoreError::failed("broken")))),
            false => self.0.replace(account, client, found, tokens),
        }
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.or_fail(self.0.clear(account))
    }
}

/// Posts that do not come to one node while it is closed.
struct Line {
    engine: Arc<MemoryEngine>,
    to: Mutex<Option<Incarnation>>,
    is_closed: AtomicBool,
}

impl Posts for Line {
    fn post(&self, to: Incarnation, post: Arc<[u8]>) {
        if !self.is_closed.load(Ordering::Relaxed) || *self.to.lock().unwrap() != Some(to) {
            self.engine.post(to, post);
        }
    }

    fn listen(&self, me: Incarnation, inbox: Arc<dyn Fn(Arc<[u8]>) + Send + Sync>) {
        *self.to.lock().unwrap() = Some(me);
        self.engine.listen(me, inbox);
    }
}

/// Nodes whose host checks passwords itself, and an account at the first one.
struct Vault {
    world: Nodes,
    fails: Arc<AtomicBool>,
    /// To the node that came last.
    line: Arc<Line>,
    romeo: BareJid,
}

impl Vault {
    fn new() -> Self {
        let world = Nodes::new(0);
        let (engine, to) = (Arc::clone(&world.engine), Mutex::default());
        let line = Arc::new(Line { engine, to, is_closed: false.into() });
        let romeo = BareJid::new(&format!("romeo@{VAULT}")).unwrap();
        let mut vault = Self { world, fails: Arc::default(), line, romeo };
        (0..3).for_each(|n| vault.start(n));
        let names = (0..).map(|k| BareJid::new(&format!("romeo{k}@{VAULT}")).unwrap());
        vault.romeo = names.into_iter().find(|one| vault.world.node(0).is_home_of(one)).unwrap();
        let account = vault.world.node(0).server.account(&vault.romeo);
        vault.world.run(account.create("secret")).unwrap();
        vault
    }

    fn start(&self, n: usize) {
        let (store, fails) = (Arc::clone(&self.world.store), Arc::clone(&self.fails));
        let engine = Arc::clone(&self.world.engine) as _;
        let keeper = Arc::new(Keeper { store, fails });
        let cluster = Cluster::new(format!("n{n}"), engine, Arc::clone(&self.line) as _, keeper);
        let mut policy = DomainPolicy::default();
        policy.sasl = Some(Policy::new(&*self.world.environment).secret([7; 32]));
        policy.authenticator = Some(Arc::new(AnyAccount::new("secret").unwrap()));
        let domain =
            |builder: ServerBuilder<Recorder>| builder.domain_with(VAULT.parse().unwrap(), policy);
        let node = self.world.start_in(cluster.moves(0), domain);
        self.world.until("it is a member", || node.is_member());
    }

    /// A client that has authenticated at this node, and asks for this.
    fn asks(&self, at: usize, mechanism: &str, response: &[u8], inside: &str) -> Client {
        let open = OPEN.replace("example.com", &format!("{VAULT}' from='{}", self.romeo));
        let client = self.world.connect_with(&self.world.node(at), &open);
        let response = STANDARD.encode(response);
        let _features = client.received();
        self.world.say(
            &client,
            &format!(
                "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>\
                 {response}</initial-response>\
                 <user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>{inside}</authenticate>"
            ),
        );
        client
    }

    fn name(&self) -> &str {
        self.romeo.node().unwrap().as_str()
    }

    fn by_password(&self, at: usize) -> String {
        let request = format!("<request-token xmlns='{FAST}' mechanism='HT-SHA-256-NONE'/>");
        let plain = format!("\0{}\0secret", self.name());
        let told = self.asks(at, "PLAIN", plain.as_bytes(), &request).received();
        let token = told.split_once(" token='").expect(&told).1;
        token.split_once('\'').unwrap().0.to_owned()
    }

    fn by_token(&self, at: usize, token: &str, inside: &str) -> Client {
        let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).unwrap();
        mac.update(b"Initiator");
        let mac = mac.finalize().into_bytes();
        let response = [self.name().as_bytes(), b"\0", &mac].concat();
        self.asks(at, "HT-SHA-256-NONE", &response, &format!("<fast xmlns='{FAST}'/>{inside}"))
    }

    fn is_good(&self, at: usize, token: &str) -> bool {
        let told = self.by_token(at, token, "").received();
        assert!(told.contains("<success") != told.contains("<credentials-expired"), "{told}");
        told.contains("<success")
    }

    /// The host says that the password has changed, while the store fails.
    fn change(&self) {
        self.world.advance(Duration::from_secs(1));
        self.fails.store(true, Ordering::Relaxed);
        self.world.node(0).server.password_changed(&self.romeo, None);
        self.world.settle();
        self.fails.store(false, Ordering::Relaxed);
    }
}

#[test]
fn fast_10_tokens_that_have_ended_have_at_every_node_whatever_the_store_says() {
    let vault = Vault::new();
    let token = vault.by_password(2);
    assert_eq!([0, 1, 2].map(|at| vault.is_good(at, &token)), [true; 3]);
    vault.change();
    assert_eq!([0, 1, 2].map(|at| vault.is_good(at, &token)), [false; 3]);
    // One that comes later is told.
    vault.start(3);
    assert!(!vault.is_good(3, &token));
    // So it stays when the account's home dies.
    vault.world.node(0).stop(true);
    vault.world.advance(Duration::from_secs(100));
    vault.start(4);
    assert_eq!([1, 2, 3, 4].map(|at| vault.is_good(at, &token)), [false; 4]);
    let token = vault.by_password(1);
    assert_eq!([1, 2, 3, 4].map(|at| vault.is_good(at, &token)), [true; 4]);
}

#[test]
fn fast_10_the_home_knows_of_tokens_what_an_edge_has_not_heard() {
    let vault = Vault::new();
    let token = vault.by_password(2);
    let sessions = |token: &str| {
        let client = vault.by_token(2, token, "<bind xmlns='urn:xmpp:bind:0'/>");
        let home = vault.world.home(&vault.romeo).server;
        (home.registry().sessions(&vault.romeo).count(), client)
    };
    vault.line.is_closed.store(true, Ordering::Relaxed);
    assert_eq!(sessions(&token).0, 1, "what goes to its home comes");
    vault.change();
    // What held against logins that had begun is over.
    vault.world.advance(Limits::default().negotiation);
    let (begun, client) = sessions(&token);
    assert_eq!(begun, 0);
    vault.line.is_closed.store(false, Ordering::Relaxed);
    vault.world.advance(Duration::from_secs(2));
    assert!(client.received().contains("<temporary-auth-failure"));
    assert!(!vault.is_good(2, &token));
}
