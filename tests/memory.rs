//! What it costs to keep a session, a roster item and an idle transport: bytes in use, counted at
//! the allocator, hence exact and the same in every run.
//!
//! `cargo test --test memory -- --nocapture` prints the figures; `docs/performance.md` explains them.

#![cfg(feature = "server")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::future::Future;
use std::num::NonZeroU32;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xmpp_session::connection::{Connection, SendError};
use xmpp_session::environment::Virtual;
use xmpp_session::jid::{BareJid, DomainPart, ResourcePart};
use xmpp_session::outbox::{Drain, Marks, Outbox};
use xmpp_session::rules::roster::{Item, Roster, Subscription};
use xmpp_session::server::{Driver, Server, Transport, Want};
use xmpp_session::session::{
    BindRequest, Bound, Presence, Session, SessionHandle, SessionRegistry,
};
use xmpp_session::stanza::{Frame, Stanza, canonicalise};
use xmpp_session::store::{Credentials, MemoryAccounts, RosterChange, Stores};
use xmpp_session::xep::StreamManagement;

/// Bytes that `work` leaves in use.
fn kept_by(work: impl FnOnce()) -> usize {
    usize::try_from(allocation_counter::measure(work).bytes_current).unwrap()
}

const SESSIONS: usize = 100_000;

/// A connection that is not there.
struct Nowhere;

impl Connection for Nowhere {
    fn send(&self, _: Frame<'_>) -> Result<(), SendError> {
        Ok(())
    }

    fn close(&self, _: xmpp_session::connection::Close) {}
}

type Registry = SessionRegistry<Arc<Nowhere>>;

fn registry() -> Registry {
    let domain = DomainPart::new("example.com").unwrap().into_owned();
    SessionRegistry::builder(Arc::new(Virtual::new(1))).domain(domain).build()
}

fn account(number: usize) -> BareJid {
    BareJid::new(&format!("user{number:06}@example.com")).unwrap()
}

/// Binds, declares interest, and sends initial presence.
fn online(registry: &Registry, account: BareJid, roster: Roster) -> Session<Bound, Arc<Nowhere>> {
    let resource = ResourcePart::new("gajim.7XK3P9QA").unwrap().into_owned();
    let mut session = Session::new(Arc::new(Nowhere));
    session.open(account.domain().to_owned());
    let session = session.authenticate(account).unwrap();
    let request = BindRequest::new().resource(resource).roster(roster);
    let mut session = session.bind(registry, request).unwrap();
    session.handle().set_interested();
    let stanza = presence(session.handle());
    session.set_presence(Presence::Available { stanza: &stanza, priority: 0 });
    session
}

fn presence(session: SessionHandle<Arc<Nowhere>>) -> Stanza {
    let from = session.jid();
    let text = format!(
        "<presence from='{from}'><show>away</show><c xmlns='http://jabber.org/protocol/caps' \
        hash='sha-1' node='https://gajim.org' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/></presence>"
    );
    canonicalise(text.as_bytes()).unwrap()
}

/// The shared bytes of the presence, which the client chose, and not we: two counters and the text.
fn presence_bytes(session: &SessionHandle<Arc<Nowhere>>) -> usize {
    let (stanza, _) = session.last_presence().unwrap();
    2 * size_of::<usize>() + stanza.len()
}

/// The connection of one session, which the host chose.
const CONNECTION: usize = 2 * size_of::<usize>();

#[test]
fn a_session_takes_393_bytes_and_its_presence() {
    let registry = registry();
    let mut owners = Vec::with_capacity(SESSIONS);
    let kept = kept_by(|| {
        owners.extend((0..SESSIONS).map(|n| online(&registry, account(n), Roster::new())));
    });
    let handle = owners.first().unwrap().handle();
    let texts = handle.jid().as_str().len() + account(0).as_str().len();
    // Up to one for rounding.
    let kept = kept.div_ceil(SESSIONS);
    let ours = kept - CONNECTION - presence_bytes(&handle);
    println!("a session: {ours} bytes, {texts} of them its JIDs");
    println!("with its presence: {} bytes", kept - CONNECTION);
    assert!(registry.len() == SESSIONS && registry.available(&account(7)).len() == 1);
    assert!(ours <= 393, "{ours} bytes");
}

#[test]
fn a_roster_item_takes_23_bytes_and_its_texts() {
    const CONTACTS: usize = 50;
    const ACCOUNTS: usize = 1000;
    let item = |n: usize| {
        let mut item = Item::new(account(1_000_000 + n));
        item.name = Some(format!("Contact {n:03}"));
        item.groups = vec!["Friends".into(), "Verona".into()];
        item.subscription = Subscription::Both;
        item
    };
    let texts: usize = (0..CONTACTS)
        .map(item)
        .map(|item| {
            let groups: usize = item.groups.iter().map(String::len).sum();
            item.jid.as_str().len() + item.name.unwrap().len() + groups
        })
        .sum();
    let measure = |roster: &dyn Fn() -> Roster| {
        let registry = registry();
        let mut owners = Vec::with_capacity(ACCOUNTS);
        kept_by(|| owners.extend((0..ACCOUNTS).map(|n| online(&registry, account(n), roster()))))
    };
    let loaded = || Roster::from_items((0..CONTACTS).map(item), 1, []);
    let grown = || {
        let mut roster = Roster::new();
        (0..CONTACTS).for_each(|n| assert!(roster.put(&item(n))));
        roster
    };
    let empty = measure(&Roster::new);
    for (how, roster) in [("loaded", &loaded as &dyn Fn() -> Roster), ("grown", &grown)] {
        let all = (measure(roster) - empty).div_ceil(ACCOUNTS);
        let each = (all - texts).div_ceil(CONTACTS);
        println!("a {how} roster: {each} bytes an item beside its texts, {all} in all");
        assert!(each <= 23, "{each} bytes");
    }
}

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0' xml:lang='en'>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";

const PRESENCE: &str = "<presence><show>away</show></presence>";
const MESSAGE: &str = "<message><body>To myself</body></message>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

/// Hands a driver bytes, and writes what it answers.
fn talk(driver: &mut Driver<Arc<Outbox>>, drain: &mut Drain, xml: &str) {
    let mut cx = Context::from_waker(Waker::noop());
    driver.receive(xml.as_bytes());
    assert_eq!(driver.poll_want(&mut cx), Poll::Ready(Want::Input));
    while let Poll::Ready(bytes) = drain.poll_fill(&mut cx) {
        let written = bytes.expect("an open stream").len();
        drain.consume(written);
    }
}

type Link = (Driver<Arc<Outbox>>, Drain);

const CONNECTIONS: usize = 1000;

/// A server with accounts for twice as many.
fn server() -> (Arc<Virtual>, Server<Arc<Outbox>>) {
    // The seed says how accounts fill the shards of the tables: with others it is up to 4 bytes more.
    let environment = Arc::new(Virtual::new(3));
    let mut stores = Stores::memory();
    let accounts = Arc::new(MemoryAccounts::new());
    let credentials =
        Credentials::from_password_with("secret", NonZeroU32::MIN, &*environment).unwrap();
    for n in 0..2 * CONNECTIONS {
        accounts.insert(account(n), credentials.clone());
    }
    stores.accounts = accounts;
    let clock: Arc<Virtual> = Arc::clone(&environment);
    let server = Server::builder(clock, stores)
        .domain(DomainPart::new("example.com").unwrap().into_owned())
        .extension(StreamManagement::new())
        .build();
    (environment, server)
}

/// A bound session, and these elements of its client.
fn connect(server: &Server<Arc<Outbox>>, n: usize, elements: &[&str]) -> Link {
    let (outbox, mut drain) = Outbox::new(Marks::default());
    let source = format!("192.0.2.{}", n % 250);
    let mut driver = server.accept(outbox, Transport::new().secure(true).source(source));
    let response = STANDARD.encode(format!("\0user{n:06}\0secret"));
    let auth = format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{response}</auth>"
    );
    for xml in [HEADER, &auth, HEADER, BIND].iter().chain(elements) {
        talk(&mut driver, &mut drain, xml);
    }
    (driver, drain)
}

/// What an idle connection takes, its session included, after these elements.
fn idle(elements: &[&str]) -> usize {
    let (_, server) = server();
    let mut connections = Vec::with_capacity(2 * CONNECTIONS);
    let connect = |n| connect(&server, n, elements);
    // The first ones pay for what the server makes when it is needed.
    connections.extend((0..CONNECTIONS).map(connect));
    let kept = kept_by(|| connections.extend((CONNECTIONS..2 * CONNECTIONS).map(connect)));
    let counts = server.metrics().sessions;
    assert_eq!((counts.sessions, counts.retained_bytes), (2 * CONNECTIONS, 0));
    kept.div_ceil(CONNECTIONS) + size_of::<Link>()
}

#[test]
fn an_idle_connection_takes_1194_bytes_with_its_session() {
    let (driver, drain) = (size_of::<Driver<Arc<Outbox>>>(), size_of::<Drain>());
    let outbox = 2 * size_of::<usize>() + size_of::<Outbox>() + drain;
    println!("of a connection, the driver itself: {driver} bytes, the outbox: {outbox}");
    // Both have come back.
    let acknowledge = "<a xmlns='urn:xmpp:sm:3' h='2'/>";
    for (kind, elements, most) in [
        ("a connection", [PRESENCE, MESSAGE].as_slice(), 1194),
        ("one that can be resumed", &[ENABLE, PRESENCE, MESSAGE, acknowledge], 1378),
    ] {
        let kept = idle(elements);
        println!("{kind}, idle: {kept} bytes with its session");
        assert!(kept <= most, "{kept} bytes");
    }
}

/// An idle transport of a host, its task included, over TCP and over a WebSocket.
#[cfg(all(feature = "system", feature = "tokio", feature = "websocket"))]
#[test]
fn ws_17_an_idle_websocket_takes_no_buffer() {
    let (tcp, websocket) = (hosted::idle(hosted::Kind::Tcp), hosted::idle(hosted::Kind::WebSocket));
    println!("an idle connection of a host: {tcp} bytes, over a WebSocket {websocket}");
    assert!(websocket <= tcp + 256, "{websocket} bytes, {tcp} over TCP");
}

/// The same over TLS: what the library keeps, and no buffer of ours.
#[cfg(all(feature = "system", feature = "tokio", feature = "websocket", feature = "ring"))]
#[test]
fn an_idle_connection_over_tls_takes_no_buffer() {
    let (tcp, tls) = (hosted::idle(hosted::Kind::Tcp), hosted::idle(hosted::Kind::Tls));
    println!("an idle connection of a host: {tcp} bytes, over TLS {tls}");
    assert!(tls <= tcp + 3_400, "{tls} bytes, {tcp} over TCP");
}

#[cfg(all(feature = "system", feature = "tokio", feature = "websocket"))]
mod hosted {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::thread;

    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
    use tokio::runtime::{Builder, Runtime};
    use xmpp_session::host::tokio::{serve, serve_direct_tls, websocket};
    use xmpp_session::host::{Host, TlsConfig, WebSockets};

    use super::*;

    const HERE: usize = 100;

    #[derive(Clone, Copy, PartialEq)]
    pub(super) enum Kind {
        Tcp,
        WebSocket,
        Tls,
    }

    fn certificate() -> (TlsConfig, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let key = key.serialize_der().try_into().unwrap();
        (TlsConfig::new(vec![certificate.clone()], key).unwrap(), certificate)
    }

    type Question = (Vec<u8>, &'static str);

    /// The clients' ends of TLS, on a thread of their own, whose allocations are not counted. Each question goes to the
    /// one that connected last, which the empty one does; it comes back with the answer.
    fn tls_clients(
        address: SocketAddr,
        certificate: CertificateDer<'static>,
    ) -> (SyncSender<Question>, Receiver<Question>) {
        let (ask, questions) = sync_channel::<Question>(1);
        let (answer, answers) = sync_channel(1);
        thread::spawn(move || {
            let mut roots = RootCertStore::empty();
            roots.add(certificate).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
            let config = Arc::new(config);
            let mut clients = Vec::new();
            for question in questions {
                if question.0.is_empty() {
                    let name = ServerName::try_from("localhost").unwrap();
                    let connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
                    let socket = TcpStream::connect(address).unwrap();
                    clients.push(StreamOwned::new(connection, socket));
                } else {
                    let client = clients.last_mut().unwrap();
                    client.write_all(&question.0).unwrap();
                    let mut got = Vec::new();
                    while !got.ends_with(question.1.as_bytes()) {
                        let mut byte = [0];
                        client.read_exact(&mut byte).unwrap();
                        got.extend_from_slice(&byte);
                    }
                }
                answer.send(question).unwrap();
            }
        });
        (ask, answers)
    }

    /// Runs the server until the answer ends like this.
    fn ask(runtime: &Runtime, client: &mut TcpStream, bytes: &[u8], end: &[u8]) {
        client.write_all(bytes).unwrap();
        let (mut answer, mut len) = ([0; 4096], 0);
        while !answer.get(..len).unwrap().ends_with(end) {
            runtime.block_on(tokio::time::sleep(Duration::from_micros(100)));
            match client.read(answer.get_mut(len..).unwrap()) {
                Ok(0) => panic!("the server ended the connection"),
                Ok(n) => len += n,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }

    fn frame(text: &str) -> Vec<u8> {
        let len = u16::try_from(text.len()).unwrap().to_be_bytes();
        let head = match text.len() {
            ..126 => vec![0x81, 0x80 | len[1]],
            _ => vec![0x81, 0xfe, len[0], len[1]],
        };
        [&head, [0; 4].as_slice(), text.as_bytes()].concat()
    }

    pub(super) fn idle(kind: Kind) -> usize {
        let is_websocket = kind == Kind::WebSocket;
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let (_, server) = server();
        let (tls, certificate) = certificate();
        let host = Arc::new(Host::new(server).tls(tls));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ask_tls, answers) = tls_clients(address, certificate);
        let connect = |n: usize| {
            let mut client = match kind {
                Kind::Tls => {
                    ask_tls.send((Vec::new(), "")).unwrap();
                    None
                }
                _ => Some(TcpStream::connect(address).unwrap()),
            };
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let socket = tokio::net::TcpStream::from_std(socket).unwrap();
            let transport = Transport::new().secure(true).source(format!("192.0.2.{}", n % 250));
            let host = Arc::clone(&host);
            let pages = WebSockets::from_any_page();
            drop(match kind {
                Kind::WebSocket => runtime.spawn(websocket::serve(host, socket, transport, &pages)),
                Kind::Tcp => runtime.spawn(serve(host, socket, transport)),
                Kind::Tls => runtime.spawn(serve_direct_tls(host, socket, transport)),
            });
            match &mut client {
                Some(client) => client.set_nonblocking(true).unwrap(),
                None => drop(answers.recv().unwrap()),
            }
            let response = STANDARD.encode(format!("\0user{n:06}\0secret"));
            let auth = format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{response}</auth>"
            );
            let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0'/>";
            let header = if is_websocket { open } else { HEADER };
            if is_websocket {
                let request =
                    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
                ask(&runtime, client.as_mut().unwrap(), request, b"\r\n\r\n");
            }
            let bind = BIND.replace("<iq ", "<iq xmlns='jabber:client' ");
            let presence = PRESENCE.replace("<presence>", "<presence xmlns='jabber:client'>");
            // Behind a large message, too, nothing is kept.
            let body = "x".repeat(3_000);
            let message = format!("<message xmlns='jabber:client'><body>{body}</body></message>");
            for (text, end) in [
                (header, "features>"),
                (&auth, "sasl'/>"),
                (header, "features>"),
                (&bind, "</iq>"),
                (&presence, "</presence>"),
                (&message, "</message>"),
            ] {
                let bytes = if is_websocket { frame(text) } else { text.as_bytes().to_vec() };
                match &mut client {
                    Some(client) => ask(&runtime, client, &bytes, end.as_bytes()),
                    None => {
                        ask_tls.send((bytes, end)).unwrap();
                        while answers.try_recv().is_err() {
                            runtime.block_on(tokio::time::sleep(Duration::from_micros(100)));
                        }
                    }
                }
            }
            client
        };
        let mut clients = Vec::with_capacity(2 * HERE);
        clients.extend((0..HERE).map(connect));
        let kept = kept_by(|| clients.extend((HERE..2 * HERE).map(connect)));
        assert_eq!(host.connections(), 2 * HERE);
        kept.div_ceil(HERE)
    }
}

/// What is kept for a client that has lost its transport and may come back.
#[test]
fn a_hibernating_session_takes_824_bytes_and_a_stanza_that_waits_87() {
    const STANZAS: usize = 16;
    let (environment, server) = server();
    let acknowledge = "<a xmlns='urn:xmpp:sm:3' h='1'/>";
    let absent = |numbers: Range<usize>| {
        let online = |n| connect(&server, n, &[ENABLE, PRESENCE, acknowledge]);
        let links: Vec<_> = numbers.map(online).collect();
        // What they have spent of their rates is theirs again (LIMIT-20).
        environment.advance(Duration::from_secs(60));
        drop(links);
    };
    absent(0..CONNECTIONS);
    let kept = kept_by(|| absent(CONNECTIONS..2 * CONNECTIONS));
    let counts = server.metrics().sessions;
    assert_eq!((counts.hibernating, counts.retained_bytes), (2 * CONNECTIONS, 0));
    // The bytes of the stanza are shared.
    let stanza =
        canonicalise(b"<message from='romeo@example.net/orchard'><body>!</body></message>")
            .unwrap();
    let give = |n| {
        for session in server.registry().available(&account(n)) {
            (0..STANZAS).for_each(|_| session.send(&stanza).unwrap());
        }
    };
    (0..CONNECTIONS).for_each(give);
    let queued = kept_by(|| (CONNECTIONS..2 * CONNECTIONS).for_each(give));
    assert_eq!(server.metrics().sessions.retained_bytes, 2 * CONNECTIONS * STANZAS * stanza.len());
    let (kept, queued) = (kept.div_ceil(CONNECTIONS), queued.div_ceil(CONNECTIONS * STANZAS));
    println!("a hibernating session: {kept} bytes");
    println!("a stanza that waits for one: {queued} bytes beside its own");
    assert!(kept <= 824, "{kept} bytes");
    assert!(queued <= 87, "{queued} bytes");
}

/// A client that asks again and again, and does not read (LIMIT-13, LIMIT-15).
#[test]
fn limit_15_unread_rosters_take_the_soft_mark_and_one_roster() {
    const ROSTER: usize = 512 << 10;
    let environment = Arc::new(Virtual::new(1));
    let mut stores = Stores::memory();
    let accounts = Arc::new(MemoryAccounts::new());
    let credentials =
        Credentials::from_password_with("secret", NonZeroU32::MIN, &*environment).unwrap();
    accounts.insert(account(0), credentials);
    stores.accounts = accounts;
    let mut put = pin!(async {
        for n in 0..60 {
            let mut item = Item::new(account(n + 1));
            item.groups = (0..8).map(|group| format!("{group}{}", "g".repeat(1_000))).collect();
            stores
                .rosters
                .apply(&account(0), RosterChange::new().version(1).put(item))
                .await
                .unwrap();
        }
    });
    assert!(put.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    let server = Server::builder(environment, stores.clone())
        .domain(DomainPart::new("example.com").unwrap().into_owned())
        .build();
    let (outbox, mut drain) = Outbox::new(Marks::default());
    let mut driver = server.accept(Arc::clone(&outbox), Transport::new().secure(true));
    let response = STANDARD.encode("\0user000000\0secret");
    let auth = format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{response}</auth>"
    );
    for xml in [HEADER, &auth, HEADER, BIND] {
        talk(&mut driver, &mut drain, xml);
    }
    let get = "<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>";
    let mut cx = Context::from_waker(Waker::noop());
    let kept = kept_by(|| {
        driver.receive(get.repeat(8).as_bytes());
        assert!(driver.poll_want(&mut cx).is_pending(), "no more is read from this client");
    });
    println!("eight unread rosters: {kept} bytes");
    assert!((ROSTER / 2..2 * ROSTER + 64 * 1024).contains(&kept), "{kept} bytes");
    // As it reads on, all of them come.
    let mut read = Vec::new();
    while let Poll::Ready(bytes) = drain.poll_fill(&mut cx) {
        let bytes = bytes.expect("an open stream");
        let piece = bytes.len().min(10_000);
        read.extend_from_slice(bytes.get(..piece).unwrap());
        drain.consume(piece);
        let _want = driver.poll_want(&mut cx);
    }
    let results = String::from_utf8(read).unwrap().matches("</query></iq>").count();
    assert_eq!(results, 8);
}
