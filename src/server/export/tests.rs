//! The same happens on two servers: one, and one that moves with all its accounts and streams between any two pieces
//! of what clients send. No client sees a difference, and nobody else.

use std::num::NonZeroU32;
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::connection::{Connection as _, Recorder};
use crate::environment::{Environment, Virtual};
use crate::server::{RouteError, Router, Server, Transport, Want};
use crate::stanza::{Frame, Framing, Stanza};
use crate::store::{Credentials, MemoryAccounts, Stores};
use crate::stream::{Limits, Parser};
use crate::xep::{Blocking, Carbons, ClientState, StreamManagement};

const NAMES: [&str; 2] = ["juliet", "romeo"];

/// What clients say.
const WORDS: [&str; 30] = [
    "<presence/>",
    "<presence><priority>5</priority><show>away</show></presence>",
    "<presence><priority>-1</priority></presence>",
    "<presence type='unavailable'/>",
    "<presence to='romeo@example.com/r0'/>",
    "<presence to='room@muc.example.net/nick'/>",
    "<presence to='room@muc.example.net/nick' type='unavailable'/>",
    "<presence to='romeo@example.com' type='subscribe'/>",
    "<presence to='juliet@example.com' type='subscribed'/>",
    "<message to='juliet@example.com' type='chat' id='1'><body>&lt;hi</body></message>",
    "<message to='romeo@example.com' type='chat'><body>ho</body></message>",
    "<message to='juliet@example.com/r0' type='chat'><body>you</body></message>",
    "<message to='juliet@example.com/r1'><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    "<message to='nurse@example.net'><body>far</body></message>",
    "<s:message xmlns:s='jabber:client' to='romeo@example.com'><s:body>odd</s:body></s:message>",
    "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
    "<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='nurse@example.net'/></query></iq>",
    "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>",
    "<iq type='set' id='d'><disable xmlns='urn:xmpp:carbons:2'/></iq>",
    "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='romeo@example.com'/></block></iq>",
    "<iq type='set' id='u'><unblock xmlns='urn:xmpp:blocking'/></iq>",
    "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>",
    "<inactive xmlns='urn:xmpp:csi:0'/>",
    "<active xmlns='urn:xmpp:csi:0'/>",
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    "<enable xmlns='urn:xmpp:sm:3'/>",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<a xmlns='urn:xmpp:sm:3' h='1'/>",
    "<a xmlns='urn:xmpp:sm:3' h='3'/>",
    "<message to='a@b@c'><body>no address</body></message>",
];

#[derive(Clone, Debug)]
enum Step {
    Login {
        name: usize,
        resource: usize,
        messages: bool,
    },
    /// What it says, and where that is cut in two.
    Say {
        client: usize,
        word: usize,
        cut: usize,
    },
    /// Goes on with what was cut.
    GoOn {
        client: usize,
    },
    Drop {
        client: usize,
    },
    Resume {
        client: usize,
        handled: u32,
        messages: bool,
    },
    Drain {
        client: usize,
    },
    Advance {
        seconds: u64,
    },
}

struct Client {
    wire: Recorder,
    driver: Option<Driver<Recorder>>,
    session: Option<SessionId>,
    name: usize,
    token: Option<String>,
    rest: Vec<u8>,
    /// For the log: what its wire has said before the move.
    said: Vec<String>,
}

struct Out(Arc<Mutex<Vec<String>>>);

impl Router for Out {
    fn route(&self, stanza: &Stanza) -> Result<(), RouteError> {
        self.0.lock().push(format!("router: {}", Frame::stanza(stanza)));
        Ok(())
    }
}

struct World {
    environment: Arc<Virtual>,
    stores: Stores,
    server: Server<Recorder>,
    log: Arc<Mutex<Vec<String>>>,
    clients: Vec<Client>,
    moves: u64,
}

const fn all(_: &str) -> bool {
    true
}

fn server(
    environment: &Arc<Virtual>,
    stores: &Stores,
    log: &Arc<Mutex<Vec<String>>>,
    first: u64,
) -> Server<Recorder> {
    Server::builder(Arc::clone(environment) as Arc<dyn Environment>, stores.clone())
        .domain("example.com".parse().unwrap())
        .of_node(first)
        .extension(Blocking::new(Arc::clone(&stores.blocks)))
        .extension(StreamManagement::new())
        .extension(Carbons::new())
        .extension(ClientState)
        .router(Out(Arc::clone(log)))
        .build()
}

impl World {
    fn new() -> Self {
        let environment = Arc::new(Virtual::new(3));
        environment.advance(Duration::from_secs(1_000_000));
        let accounts = MemoryAccounts::new();
        for name in NAMES {
            let jid = BareJid::new(&format!("{name}@example.com")).unwrap();
            let one = NonZeroU32::MIN;
            let credentials = Credentials::from_password_with("secret", one, &*environment);
            accounts.insert(jid, credentials.unwrap());
        }
        let mut stores = Stores::memory();
        stores.accounts = Arc::new(accounts);
        let log = Arc::default();
        let server = server(&environment, &stores, &log, 1);
        Self { environment, stores, server, log, clients: Vec::new(), moves: 0 }
    }

    fn client(&mut self, client: usize) -> Option<&mut Client> {
        let count = self.clients.len().max(1);
        self.clients.get_mut(client % count)
    }

    fn run(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _never = self.server.0.jobs.poll(&cx);
        for driver in self.clients.iter_mut().filter_map(|client| client.driver.as_mut()) {
            let _want = driver.poll_want(&mut cx);
        }
    }

    /// A stream of this account, up to the features behind its login.
    fn log_in(&self, name: usize, messages: bool) -> (Recorder, Driver<Recorder>) {
        let framing = if messages { Framing::Message } else { Framing::Stream };
        let wire = Recorder::with_framing(framing);
        let transport = Transport::new().secure(true).source("192.0.2.7");
        let mut driver = self.server.accept(wire.clone(), transport);
        let open = match messages {
            true => {
                "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0' to='example.com'/>"
            }
            false => {
                "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
                 xml:lang='de' version='1.0' to='example.com'>"
            }
        };
        let plain = STANDARD.encode(format!("\0{}\0secret", NAMES[name]));
        let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>";
        for words in [open, &format!("{auth}{plain}</auth>"), open] {
            hear(&mut driver, words.as_bytes(), messages.then_some(true));
        }
        (wire, driver)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Login { name, resource, messages } => {
                let (wire, mut driver) = self.log_in(name, messages);
                let bind = format!(
                    "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                     <resource>r{resource}</resource></bind></iq>"
                );
                hear(&mut driver, bind.as_bytes(), messages.then_some(true));
                self.begin(name, wire, driver);
            }
            Step::Resume { client, handled, messages } => {
                let Some(client) = self.client(client) else { return };
                let (Some(token), name) = (client.token.clone(), client.name) else { return };
                let (wire, mut driver) = self.log_in(name, messages);
                let resume =
                    format!("<resume xmlns='urn:xmpp:sm:3' previd='{token}' h='{handled}'/>");
                hear(&mut driver, resume.as_bytes(), messages.then_some(true));
                self.begin(name, wire, driver);
            }
            Step::Say { client, word, cut } => {
                self.step(&Step::GoOn { client });
                let Some(client) = self.client(client) else { return };
                let Some(driver) = client.driver.as_mut() else { return };
                let messages = is_messages(&client.wire);
                let mut words = WORDS[word % WORDS.len()].to_owned();
                if messages && !words.contains("xmlns:s=") {
                    let end = words.find([' ', '/', '>']).unwrap();
                    if !words.contains("urn:xmpp:sm:3") && !words.contains("urn:xmpp:csi") {
                        words.insert_str(end, " xmlns='jabber:client'");
                    }
                }
                let (first, rest) = words.as_bytes().split_at(cut % (words.len() + 1));
                let is_whole = rest.is_empty();
                hear(driver, first, messages.then_some(is_whole));
                client.rest = rest.to_vec();
            }
            Step::GoOn { client } => {
                let Some(client) = self.client(client) else { return };
                let Some(driver) = client.driver.as_mut() else { return };
                let rest = std::mem::take(&mut client.rest);
                if !rest.is_empty() {
                    hear(driver, &rest, is_messages(&client.wire).then_some(true));
                }
            }
            Step::Drop { client } => {
                let Some(client) = self.client(client) else { return };
                client.rest.clear();
                drop(client.driver.take());
            }
            Step::Drain { client } => {
                let Some(client) = self.client(client) else { return };
                client.said.extend(client.wire.drain());
                client.wire.drained();
            }
            Step::Advance { seconds } => {
                self.environment.advance(Duration::from_secs(seconds));
                self.server.handle_timeout();
                for driver in self.clients.iter_mut().filter_map(|client| client.driver.as_mut()) {
                    driver.handle_timeout();
                }
            }
        }
    }

    fn begin(&mut self, name: usize, wire: Recorder, driver: Driver<Recorder>) {
        let session = driver.session().map(crate::session::SessionHandle::id);
        let (rest, said) = (Vec::new(), Vec::new());
        let driver = Some(driver);
        self.clients.push(Client { wire, driver, session, name, token: None, rest, said });
    }

    fn told(&mut self) -> Vec<String> {
        self.run();
        let mut told = std::mem::take(&mut *self.log.lock());
        for (at, client) in self.clients.iter_mut().enumerate() {
            client.said.extend(client.wire.take());
            let mut cx = Context::from_waker(Waker::noop());
            for said in std::mem::take(&mut client.said) {
                let id = said.split_once("<enabled xmlns='urn:xmpp:sm:3' id='");
                let token =
                    id.and_then(|(_, rest)| rest.split_once('\'')).map(|(id, _)| id.to_owned());
                client.token = token.or_else(|| client.token.take());
                told.push(format!("{at}: {said}"));
            }
            let want = client.driver.as_mut().map(|driver| {
                let due = driver.next_timeout().map(|at| at.max(self.environment.now()));
                (driver.poll_want(&mut cx), due)
            });
            if want.as_ref().is_some_and(|(want, _)| *want == Poll::Ready(Want::Close)) {
                client.driver = None;
            }
            told.push(format!("{at}: {want:?} {:?}", client.wire.closed()));
        }
        for name in NAMES {
            let account = BareJid::new(&format!("{name}@example.com")).unwrap();
            for session in self.server.registry().sessions(&account) {
                let info = session.info();
                told.push(format!(
                    "{} {:?} {:?} {:?} {} {} {:?}",
                    info.jid,
                    info.state(),
                    (info.since, info.hibernating_since, info.presence_at, info.priority),
                    (info.stanzas_received, info.stanzas_sent, info.unacknowledged_since),
                    info.bytes_waiting,
                    session.roster().ver(),
                    session.is_interested(),
                ));
            }
        }
        let registry = self.server.registry();
        told.push(format!("{:?} {:?}", registry.counts(), registry.next_timeout()));
        told
    }

    /// All accounts move to another server, with the streams of their clients.
    fn move_all(&mut self) {
        self.moves += 1;
        let to = server(&self.environment, &self.stores, &self.log, self.moves << 32);
        self.server.0.freeze(&all);
        let (mut legs, mut places) = (Vec::new(), Vec::new());
        for (at, client) in self.clients.iter_mut().enumerate() {
            let Some(driver) = client.driver.as_mut() else { continue };
            let session = driver.session().map(crate::session::SessionHandle::id);
            if let (Some(session), Some(driver)) = (session, driver.export()) {
                legs.push(Leg { session, line: vec![u8::try_from(at).unwrap()], driver });
                places.push(at);
            }
        }
        let leaving = Leaving { legs, ..Leaving::default() };
        let bytes = self.server.0.export(&all, &leaving).unwrap();
        let clients = &mut self.clients;
        let connect = |_: SessionId, line: &[u8]| {
            let client = &mut clients[usize::from(line[0])];
            client.wire = Recorder::with_framing(client.wire.framing());
            Some(client.wire.clone())
        };
        let Arrived { going_on: mut arrived, over, .. } = to.0.import(&bytes, connect).unwrap();
        assert!(over.is_empty());
        self.server.0.forget(&all, None);
        assert!(self.server.registry().is_forgotten());
        assert_eq!(arrived.len(), places.len());
        for at in places {
            if let Some(driver) = self.clients[at].driver.take() {
                driver.let_go();
            }
        }
        to.0.thaw(&all, Duration::ZERO);
        for leg in &mut arrived {
            leg.driver.thaw(Duration::ZERO);
        }
        for Leg { session, line, driver } in arrived {
            let client = &mut self.clients[usize::from(line[0])];
            client.session = Some(session);
            client.driver = Some(driver);
        }
        self.server = to;
    }
}

fn is_messages(wire: &Recorder) -> bool {
    wire.framing() == Framing::Message
}

/// As a home hears a client, and then takes what it can.
fn hear(driver: &mut Driver<Recorder>, bytes: &[u8], message: Option<bool>) {
    let unread = match message {
        None => bytes.to_vec(),
        Some(is_last) => {
            let mut parser = Parser::with_framing(&Limits::default(), Framing::Message);
            parser.feed_message(bytes, is_last);
            parser.take_unread()
        }
    };
    driver.receive_leg(&unread);
    let _want = driver.poll_want(&mut Context::from_waker(Waker::noop()));
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let client = 0..4_usize;
    let step = prop_oneof![
        3 => (0..2_usize, 0..2_usize, any::<bool>())
            .prop_map(|(name, resource, messages)| Step::Login { name, resource, messages }),
        20 => (client.clone(), 0..WORDS.len(), prop_oneof![Just(usize::MAX - 1), 0..200_usize])
            .prop_map(|(client, word, cut)| {
                // Nearly always as a whole.
                let cut = if cut == usize::MAX - 1 { WORDS[word].len() } else { cut };
                Step::Say { client, word, cut }
            }),
        2 => client.clone().prop_map(|client| Step::GoOn { client }),
        2 => client.clone().prop_map(|client| Step::Drop { client }),
        2 => (client.clone(), 0..4_u32, any::<bool>())
            .prop_map(|(client, handled, messages)| Step::Resume { client, handled, messages }),
        2 => client.prop_map(|client| Step::Drain { client }),
        2 => prop_oneof![Just(1), Just(6), Just(65), Just(700)]
            .prop_map(|seconds| Step::Advance { seconds }),
    ];
    let first = Just((Step::Login { name: 0, resource: 0, messages: false }, false));
    let second = Just((Step::Login { name: 1, resource: 0, messages: false }, false));
    (first, second, proptest::collection::vec((step, any::<bool>()), 1..50)).prop_map(
        |(first, second, steps)| [first, second].into_iter().chain(steps).collect::<Vec<_>>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn node_14_a_client_notices_nothing_of_a_move(steps in steps()) {
        let (mut one, mut moving) = (World::new(), World::new());
        for (step, moves) in &steps {
            one.step(step);
            moving.step(step);
            prop_assert_eq!(one.told(), moving.told(), "behind {:?}", step);
            if *moves {
                moving.move_all();
                let _as_random = server(&one.environment, &one.stores, &one.log, 1);
                prop_assert_eq!(one.told(), moving.told(), "moved behind {:?}", step);
            }
        }
    }
}
