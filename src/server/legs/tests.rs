//! Drivers that are away and drivers that are adopted, with the legs between them and no node: what a client is told is
//! held against what a server alone tells it.

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jid::{BareJid, DomainPart};
use parking_lot::Mutex;

use super::{Edges, Homes, SaidDown, SaidUp};
use crate::cluster::leg::{LegId, Up, WINDOW};
use crate::cluster::{Incarnation, Slot};
use crate::connection::{Close, Recorder};
use crate::environment::{Environment as _, Virtual};
use crate::outbox::{Drain, FromOutbox as _, Marks, Outbox};
use crate::sasl::{FastPolicy, Policy};
use crate::server::driver::admission::Dismissal;
use crate::server::{DomainPolicy, Driver, Limits, Server, Transport, Want};
use crate::stanza::{Framing, Stanza};
use crate::store::{Credentials, Memory, MemoryAccounts, Stores};
use crate::stream::StreamError;
use crate::xep::{Carbons, ClientState, StreamManagement};

const EDGE: Incarnation = Incarnation(7);
const PHONE: &str = "d4565fa7-4d72-4749-b3d3-740edbf87770";

type Wire = Server<Recorder>;

/// One server that has the sockets, one that has the accounts, and what goes between them. Or one alone.
struct World {
    clock: Arc<Virtual>,
    edge: Wire,
    home: Wire,
    between: Option<Arc<Between>>,
}

struct Between {
    edges: Arc<Edges<Recorder>>,
    homes: Mutex<Homes<Recorder>>,
    /// Slots that move.
    frozen: AtomicBool,
    /// What is under way up while it is held.
    held: Mutex<Vec<SaidUp>>,
    is_held: AtomicBool,
}

impl Between {
    /// Brings all to where it goes, until nothing goes on.
    fn pump(&self) {
        let mut homes = self.homes.lock();
        loop {
            let mut held = self.held.lock();
            // And what could wait.
            for now in [Duration::ZERO, Duration::from_secs(1)] {
                held.extend(self.edges.take_said(now));
            }
            let up = match self.is_held.load(Ordering::Relaxed) {
                true => Vec::new(),
                false => std::mem::take(&mut *held),
            };
            drop(held);
            for SaidUp { slot, leg, number, said } in up {
                homes.handle_up(slot, LegId { edge: EDGE, number: leg }, number, said);
            }
            let is_frozen = self.frozen.load(Ordering::Relaxed);
            homes.run(|_| !is_frozen);
            let down = homes.take_said();
            if down.is_empty() {
                return;
            }
            for SaidDown { leg, number, said, .. } in down {
                self.edges.handle_down(leg.number, number, said);
            }
        }
    }
}

struct Client<'a> {
    world: &'a World,
    driver: Driver<Recorder>,
    wire: Recorder,
}

fn server(clock: &Arc<Virtual>, stores: &Stores, limits: Limits) -> Wire {
    let mut policy = DomainPolicy::default();
    let sasl = Policy::new(&**clock).secret([7; 32]).iterations(NonZeroU32::MIN);
    policy.sasl = Some(sasl.fast(FastPolicy::new()));
    Server::builder(Arc::clone(clock) as _, stores.clone())
        .domain_with(DomainPart::new("example.com").unwrap().into_owned(), policy)
        .extension(StreamManagement::new())
        .extension(Carbons::new())
        .extension(ClientState)
        .limits(limits)
        .build()
}

impl World {
    fn new(is_cluster: bool, limits: Limits) -> Self {
        let clock = Arc::new(Virtual::new(1));
        let accounts = Arc::new(MemoryAccounts::new());
        for name in ["romeo", "juliet"] {
            let salt = &*clock;
            let credentials = Credentials::from_password_with("secret", NonZeroU32::MIN, salt);
            let jid = BareJid::new(&format!("{name}@example.com")).unwrap();
            accounts.insert(jid, credentials.unwrap());
        }
        let mut stores = Stores::memory().with_tokens(Arc::new(Memory::new()));
        stores.accounts = accounts;
        let edge = server(&clock, &stores, limits.clone());
        if !is_cluster {
            return Self { clock, home: edge.clone(), edge, between: None };
        }
        let home = server(&clock, &stores, limits);
        let edges = Edges::new(|| ());
        assert!(edge.0.edges.set(Arc::clone(&edges)).is_ok());
        let connect = Recorder::from_outbox;
        let homes = Homes::new(Arc::clone(&home.0), connect, Marks::default(), || ());
        let between = Between {
            edges,
            homes: Mutex::new(homes),
            frozen: AtomicBool::new(false),
            held: Mutex::default(),
            is_held: AtomicBool::new(false),
        };
        Self { clock, edge, home, between: Some(Arc::new(between)) }
    }

    fn between(&self) -> &Between {
        self.between.as_ref().unwrap()
    }

    fn settle(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..20 {
            for server in [&self.edge, &self.home] {
                let mut work = pin!(server.background());
                assert!(work.as_mut().poll(&mut cx).is_pending());
            }
            if let Some(between) = &self.between {
                between.pump();
            }
        }
    }

    fn connect(&self, framing: Framing) -> Client<'_> {
        let wire = Recorder::with_framing(framing);
        let transport = Transport::new().secure(true).source("192.0.2.7");
        Client { world: self, driver: self.edge.accept(wire.clone(), transport), wire }
    }

    fn advance(&self, time: Duration, clients: &mut [&mut Client<'_>]) {
        let end = self.clock.now() + time;
        while self.clock.now() < end {
            self.clock.advance(Duration::from_millis(500));
            for server in [&self.edge, &self.home] {
                server.handle_timeout();
            }
            if let Some(between) = &self.between {
                between.homes.lock().handle_timeout(self.clock.now(), |_| true);
            }
            for client in &mut *clients {
                if client.driver.next_timeout().is_some_and(|at| at <= self.clock.now()) {
                    client.driver.handle_timeout();
                }
                _ = client.want();
            }
            self.settle();
        }
    }
}

impl Client<'_> {
    fn want(&mut self) -> Poll<Want> {
        self.driver.poll_want(&mut Context::from_waker(Waker::noop()))
    }

    fn settled(&mut self) -> Poll<Want> {
        for _ in 0..5 {
            _ = self.want();
            self.world.settle();
        }
        self.want()
    }

    /// Says something; what came of it, and what is wanted next.
    fn say(&mut self, text: &str) -> (String, Poll<Want>) {
        if self.settled() == Poll::Ready(Want::Input) {
            self.driver.receive(text.as_bytes());
        }
        let want = self.settled();
        (without_chance(&self.wire.take().concat()), want)
    }

    fn login(&mut self) -> &mut Self {
        let (_, want) = self.say(&(header() + &plain()));
        assert_eq!(want, Poll::Ready(Want::Input));
        let (got, want) = self.say(&[&header(), BIND, "<presence/>"].concat());
        assert!(got.contains("<jid>romeo@example.com/orchard</jid>"), "{got}");
        assert_eq!(want, Poll::Ready(Want::Input));
        self
    }
}

fn header() -> String {
    "<?xml version='1.0'?><stream:stream xmlns='jabber:client' to='example.com' version='1.0' \
     from='romeo@example.com' xml:lang='it' xmlns:stream='http://etherx.jabber.org/streams'>"
        .into()
}

fn initial() -> String {
    STANDARD.encode("\0romeo\0secret")
}

fn plain() -> String {
    let initial = initial();
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{initial}</auth>")
}

fn authenticate(inside: &str) -> String {
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{}</initial-response>\
         <user-agent id='{PHONE}'><software>S</software></user-agent>{inside}</authenticate>",
        initial()
    )
}

const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                    <resource>orchard</resource></bind></iq>";
const BIND_2: &str = "<bind xmlns='urn:xmpp:bind:0'><tag>T</tag><enable xmlns='urn:xmpp:carbons:2'/>\
                      <enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
const ROSTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
const MESSAGE: &str = "<message to='romeo@example.com/orchard' id='m'><body>Hi</body></message>";

/// What chance has made is not compared.
fn without_chance(text: &str) -> String {
    let is_chance = |run: &str| run.len() >= 12 && run.bytes().any(|byte| byte.is_ascii_digit());
    let mut out = String::new();
    let mut run = String::new();
    for char in text.chars().chain(['\0']) {
        if char.is_ascii_alphanumeric() || "-_+=".contains(char) {
            run.push(char);
            continue;
        }
        out.push_str(if is_chance(&run) { "*" } else { &run });
        run.clear();
        out.extend((char != '\0').then_some(char));
    }
    out
}

/// What a client says, piece by piece, and what it gets for it, at a server alone and over a leg.
fn compare(framing: Framing, limits: &Limits, script: &[String]) {
    let transcript = |is_cluster| {
        let world = World::new(is_cluster, limits.clone());
        let mut client = world.connect(framing);
        let mut said = Vec::new();
        for text in script {
            said.push(match &**text {
                "EOF" => {
                    _ = client.settled();
                    client.driver.end_of_input();
                    let want = client.settled();
                    (client.wire.take().concat(), want)
                }
                wait if wait.starts_with("WAIT ") => {
                    let time = Duration::from_secs(wait[5..].parse().unwrap());
                    world.advance(time, &mut [&mut client]);
                    (without_chance(&client.wire.take().concat()), client.settled())
                }
                text => client.say(text),
            });
        }
        (said, client.wire.closed(), world.home.registry().len())
    };
    let (alone, over_a_leg) = (transcript(false), transcript(true));
    for (at, (alone, other)) in alone.0.iter().zip(&over_a_leg.0).enumerate() {
        // An edge reads ahead of its home.
        let is_over = |want| want == Poll::Ready(Want::Close);
        assert_eq!(alone.0, other.0, "step {at} of {script:#?}");
        assert_eq!(is_over(alone.1), is_over(other.1), "step {at} of {script:#?}");
    }
    assert_eq!((alone.1, alone.2), (over_a_leg.1, over_a_leg.2), "the end of {script:#?}");
}

fn scripts() -> Vec<Vec<String>> {
    let header = header();
    let wrong = plain().replace(&initial(), &STANDARD.encode("\0romeo\0wrong"));
    let begun = [header.clone(), plain(), header.clone()];
    let bound = [&begun[..], &[BIND.into(), "<presence/>".into()]].concat();
    let begun_2 = [header.clone(), authenticate(BIND_2)];
    let end = || "</stream:stream>".to_owned();
    let of = |before: &[String], more: &[&str]| {
        [before, &more.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>()].concat()
    };
    vec![
        of(&bound, &[ROSTER, MESSAGE, "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"]),
        of(&bound, &[&end()]),
        of(&bound, &["EOF"]),
        of(&bound, &["<message><body>cut", " off</body></message>", "<a xmlns='urn:a'/>"]),
        of(&bound, &["<message>&foo;</message>"]),
        of(&bound, &[&[MESSAGE, MESSAGE, "</stream:stream>"].concat()]),
        of(&bound, &[&plain()]),
        of(&bound, &["WAIT 400", "WAIT 100"]),
        of(&bound, &["<enable xmlns='urn:xmpp:sm:3' resume='true'/>", MESSAGE, "WAIT 1", "EOF"]),
        // One write for all, and one behind the answer.
        vec![[&header, &plain(), &header, BIND, "<presence/>", MESSAGE].concat()],
        vec![[&header, &plain(), &header, BIND, "<presence/>", MESSAGE, &end()].concat()],
        of(&begun, &[]),
        of(&begun, &["WAIT 61"]),
        of(&begun[..2], &["WAIT 61"]),
        of(&begun[..2], &["<presence/>"]),
        of(&begun[..2], &["EOF"]),
        of(&begun, &[&end()]),
        of(&begun, &[MESSAGE]),
        of(&begun[..2], &[&header.replace("to='example.com'", "to='other.example'")]),
        of(&begun[..2], &[&header.replace("from='romeo@example.com'", "from='juliet@other.com'")]),
        vec![header.clone(), wrong, plain(), header.clone(), BIND.into()],
        of(
            &begun,
            &["<iq type='get' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"; 7],
        ),
        of(&begun_2, &["<presence/>", MESSAGE, ROSTER, "<r xmlns='urn:xmpp:sm:3'/>", &end()]),
        of(&begun_2, &["EOF"]),
        of(&begun_2, &[&authenticate("")]),
        of(&begun_2[..1], &[&authenticate(""), BIND, MESSAGE, &end()]),
        of(&begun_2[..1], &[&authenticate(""), "WAIT 61"]),
        of(&begun_2[..1], &[&[&authenticate(BIND_2), "<presence/>"].concat()]),
        of(
            &begun_2[..1],
            &[&authenticate("<resume xmlns='urn:xmpp:sm:3' previd='x' h='1'/>"), BIND],
        ),
        of(
            &begun_2[..1],
            &[&authenticate(&format!(
                "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>{BIND_2}"
            ))],
        ),
    ]
}

/// The same for a transport on which each element is a message.
fn in_messages(script: &[String]) -> Option<Vec<String>> {
    let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0' \
                from='romeo@example.com' xml:lang='it'/>";
    let close = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
    let changed = |text: &String| match &**text {
        "</stream:stream>" => Some(close.to_owned()),
        text if text == header() => Some(open.to_owned()),
        text if text.contains("stream:stream") || text.matches("><body").count() > 1 => None,
        "<message><body>cut" | " off</body></message>" => None,
        text => {
            let stanza = |name: &str| text.starts_with(name) && !text.contains(" xmlns='jabber:c");
            let name =
                ["message", "presence", "iq"].into_iter().find(|one| stanza(&format!("<{one}")));
            let named = |name| text.replacen(name, &format!("{name} xmlns='jabber:client'"), 1);
            Some(name.map_or_else(|| text.to_owned(), named))
        }
    };
    script.iter().map(changed).collect()
}

#[test]
fn node_12_a_client_is_told_what_a_server_alone_tells_it() {
    for script in scripts() {
        compare(Framing::Stream, &Limits::default(), &script);
    }
}

#[test]
fn node_12_so_is_one_whose_elements_are_messages() {
    let scripts = scripts();
    let scripts: Vec<_> = scripts.iter().filter_map(|script| in_messages(script)).collect();
    assert!(scripts.len() > 15, "{}", scripts.len());
    for script in scripts {
        compare(Framing::Message, &Limits::default(), &script);
    }
}

#[test]
fn node_12_limits_hold_as_for_a_socket_of_the_home() {
    let stream = crate::stream::Limits::default().with_element_bytes(10_000);
    let mut limits = Limits { stream, ..Limits::default() };
    limits.stanzas = Some(crate::server::Rate::new(2, Duration::from_secs(1), 4));
    limits.sessions_per_account = 1;
    let bound = [header(), plain(), header(), BIND.into(), "<presence/>".into()];
    let with = |more: &[String]| [&bound[..], more].concat();
    let long = format!("<message><body>{}</body></message>", "x".repeat(20_000));
    compare(Framing::Stream, &limits, &with(&[long]));
    let many = MESSAGE.repeat(30);
    let later = ["WAIT 1", "WAIT 3", "WAIT 30"].map(str::to_owned);
    compare(Framing::Stream, &limits, &with(&[&[many][..], &later].concat()));
}

#[test]
fn node_13_the_loss_of_a_socket_is_the_loss_of_the_transport_and_no_more() {
    let world = World::new(true, Limits::default());
    let mut client = world.connect(Framing::Stream);
    client.login();
    let (got, _) = client.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    assert!(got.starts_with("<enabled xmlns='urn:xmpp:sm:3'"), "{got}");
    let session = world.home.registry().iter().next().unwrap();
    let jid = session.jid().clone();
    drop(client);
    world.settle();
    assert_eq!(world.between().edges.len() + world.between().homes.lock().len(), 0);
    assert!(!session.is_ended(), "it hibernates");
    let mut other = world.connect(Framing::Stream);
    _ = other.say(&(header() + &plain()));
    _ = other.say(&[&header(), BIND, "<presence/>"].concat());
    assert_eq!(world.home.registry().len(), 2 - usize::from(session.is_ended()), "{jid}");
}

#[test]
fn node_13_a_session_is_resumed_over_another_leg_with_what_was_not_acknowledged() {
    let world = World::new(true, Limits::default());
    let mut client = world.connect(Framing::Stream);
    client.login();
    client.driver.receive(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    _ = client.settled();
    let enabled = client.wire.take().concat();
    let id = enabled.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    let body = "<body xmlns='jabber:client'>late</body>".parse().unwrap();
    let message = || {
        let message = Stanza::message().from("example.com").to("romeo@example.com/orchard");
        message.child(&body).build()
    };
    world.home.send(message());
    let (got, _) = client.say("<r xmlns='urn:xmpp:sm:3'/>");
    assert!(got.contains("late"), "{got}");
    drop(client);
    world.settle();
    world.home.send(message());
    let mut other = world.connect(Framing::Stream);
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>");
    let (got, want) = other.say(&(header() + &authenticate(&resume)));
    assert!(got.contains("<resumed ") && got.matches("late").count() == 2, "{got}");
    assert_eq!(want, Poll::Ready(Want::Input));
    assert!(other.say(MESSAGE).0.contains("Hi"));
}

#[test]
fn node_13_a_number_that_does_not_fit_breaks_the_leg_at_either_end() {
    for is_up in [true, false] {
        let world = World::new(true, Limits::default());
        let mut client = world.connect(Framing::Stream);
        client.login();
        client.driver.receive(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        _ = client.settled();
        let leg = LegId { edge: EDGE, number: 1 };
        let slot = Slot::of("romeo@example.com");
        let between = world.between();
        match is_up {
            true => between.homes.lock().handle_up(slot, leg, 999, Up::EndOfInput),
            false => between.edges.handle_down(1, 999, crate::cluster::leg::Down::Bound),
        }
        let want = client.settled();
        assert_eq!(between.homes.lock().len(), 0);
        let session = world.home.registry().iter().next().unwrap();
        assert!(!session.is_ended(), "the session hibernates");
        let said = client.wire.take().concat();
        match is_up {
            true => assert_eq!(want, Poll::Ready(Want::Close)),
            false => assert!(said.ends_with("</stream:error></stream:stream>"), "{said}"),
        }
    }
}

#[test]
fn node_13_the_loss_of_a_home_closes_the_clients_stream() {
    for is_bound in [true, false] {
        let world = World::new(true, Limits::default());
        let mut client = world.connect(Framing::Stream);
        match is_bound {
            true => _ = client.login(),
            // The header of its new stream has not come.
            false => _ = client.say(&(header() + &plain())),
        }
        world.between().edges.lost(Slot::of("juliet@example.com"));
        assert_eq!(client.settled(), Poll::Ready(Want::Input), "it is not juliet");
        _ = client.wire.take();
        world.between().edges.lost(Slot::of("romeo@example.com"));
        _ = client.settled();
        let said = client.wire.take().concat();
        let error = "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                     </stream:error></stream:stream>";
        assert!(said.ends_with(error), "{said}");
        assert_eq!(said.contains("<stream:stream "), !is_bound, "{said}");
        assert_eq!(world.between().edges.len(), 0);
        client.driver.end_of_input();
        assert_eq!(client.want(), Poll::Ready(Want::Close));
        assert_eq!(client.wire.closed(), Some(Close::Flush));
    }
}

#[test]
fn node_13_the_loss_of_an_edge_is_the_loss_of_its_transports() {
    let world = World::new(true, Limits::default());
    let mut client = world.connect(Framing::Stream);
    client.login();
    world.between().homes.lock().edge_lost(Incarnation(1));
    assert_eq!(world.home.registry().len(), 1);
    world.between().homes.lock().edge_lost(EDGE);
    assert_eq!(world.home.registry().len(), 0);
}

#[test]
fn node_19_an_edge_that_goes_ends_transports_and_no_session() {
    let world = World::new(true, Limits::default());
    let mut client = world.connect(Framing::Stream);
    client.login();
    _ = client.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let host = StreamError::see_other_host("two.example.com", None);
    let error = StreamError::new(crate::stream::StreamCondition::SystemShutdown);
    world.between().edges.dismiss_all(&Dismissal { error, protected: Some(host) });
    _ = client.settled();
    let said = client.wire.take().concat();
    assert!(said.contains("<see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>two."));
    assert_eq!(world.between().homes.lock().len(), 0);
    assert!(world.home.registry().iter().all(|session| !session.is_ended()));
    assert_eq!(world.home.registry().len(), 1);
}

#[test]
fn node_14_while_its_slot_moves_a_client_is_told_nothing_and_is_not_read() {
    let world = World::new(true, Limits::default());
    let mut client = world.connect(Framing::Stream);
    client.login();
    world.between().frozen.store(true, Ordering::Relaxed);
    assert_eq!(client.say(MESSAGE), (String::new(), Poll::Ready(Want::Input)));
    let much = "<message><body>x</body></message>".repeat(1000);
    let mut times = 0;
    while client.settled() == Poll::Ready(Want::Input) {
        client.driver.receive(much.as_bytes());
        times += 1;
    }
    assert_eq!(times, WINDOW.div_ceil(much.len() as u64), "its credits are used up");
    world.between().frozen.store(false, Ordering::Relaxed);
    world.between().homes.lock().opened(Slot::of("romeo@example.com"));
    assert!(client.settled().is_ready());
    assert!(client.wire.take().concat().contains("<body>Hi</body>"));
}

#[test]
fn node_12_what_is_wanted_behind_a_login_waits_for_its_answer() {
    let world = World::new(true, Limits::default());
    let mut client = world.connect(Framing::Stream);
    _ = client.say(&header());
    world.between().is_held.store(true, Ordering::Relaxed);
    client.driver.receive(authenticate("<bind xmlns='urn:xmpp:bind:0'/>").as_bytes());
    assert_eq!(client.settled(), Poll::Pending);
    client.driver.receive(b"<presence/>");
    let said = client.wire.take().concat();
    assert!(said.contains("<policy-violation "), "SASL2-5: {said}");
    world.between().is_held.store(false, Ordering::Relaxed);
    world.settle();
    assert_eq!(world.home.registry().len(), 0, "and nothing is bound");
}

/// A client that reads when the test says so.
struct Reader {
    driver: Driver<Recorder>,
    outbox: Arc<Outbox>,
    drain: Drain,
}

#[test]
fn node_12_a_slow_reader_is_one_for_its_home() {
    let limits = Limits { stuck: Duration::from_secs(60), ..Limits::default() };
    let world = World::new(true, limits);
    let (outbox, drain) = Outbox::new(Marks::default());
    let wire = Recorder::from_outbox(Arc::clone(&outbox));
    let driver = world.edge.accept(wire, Transport::new().secure(true));
    let mut reader = Reader { driver, outbox, drain };
    let mut cx = Context::from_waker(Waker::noop());
    for text in [header(), plain(), header(), BIND.to_owned()] {
        _ = reader.driver.poll_want(&mut cx);
        reader.driver.receive(text.as_bytes());
        for _ in 0..5 {
            world.settle();
            _ = reader.driver.poll_want(&mut cx);
        }
        while let Poll::Ready(Some(bytes)) = reader.drain.poll_fill(&mut cx) {
            let taken = bytes.len();
            reader.drain.consume(taken);
        }
        _ = reader.driver.poll_want(&mut cx);
        world.settle();
    }
    let session = world.home.registry().iter().next().unwrap();
    assert_eq!(session.bytes_waiting(), 0, "the client has taken all");
    let body = format!("<body xmlns='jabber:client'>{}</body>", "x".repeat(1000)).parse().unwrap();
    for _ in 0..100 {
        let to = session.jid().as_str();
        world.home.send(Stanza::message().from("example.com").to(to).child(&body).build());
    }
    world.settle();
    let waiting = outbox_waiting(&reader);
    assert!((60_000..70_000).contains(&waiting), "the home's marks are the client's: {waiting}");
    assert!(session.bytes_waiting() >= 100_000, "{}", session.bytes_waiting());
    // It takes a little: the home knows, and does not give it up.
    for _ in 0..100 {
        world.clock.advance(Duration::from_secs(1));
        if let Poll::Ready(Some(_)) = reader.drain.poll_fill(&mut cx) {
            reader.drain.consume(100);
        }
        reader.driver.handle_timeout();
        _ = reader.driver.poll_want(&mut cx);
        world.between().homes.lock().handle_timeout(world.clock.now(), |_| true);
        world.settle();
    }
    assert!(!session.is_ended());
    // It takes nothing for a minute.
    for _ in 0..62 {
        world.clock.advance(Duration::from_secs(1));
        reader.driver.handle_timeout();
        _ = reader.driver.poll_want(&mut cx);
        world.between().homes.lock().handle_timeout(world.clock.now(), |_| true);
        world.settle();
    }
    assert_eq!(reader.driver.poll_want(&mut cx), Poll::Ready(Want::Close));
    assert_eq!(reader.outbox.closed(), Some(Close::Abort));
    assert!(session.is_ended());
}

fn outbox_waiting(reader: &Reader) -> usize {
    use crate::connection::Connection as _;
    reader.outbox.waiting()
}
