//! Hostile input: nothing panics, nobody becomes somebody else, nothing is left behind (SEC-2, SEC-7,
//! DESTROY-11, promise 9).

use crate::common::{slow, wire};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use slow::{Mode, Slow};
use wire::{Client, World};
use xmpp_session::connection::{Recorder, SendError};
use xmpp_session::sasl::ChannelBindings;
use xmpp_session::server::{Driver, Limits, Transport, Want};
use xmpp_session::session::Reason;
use xmpp_session::stream::Limit;

const SECOND: Duration = Duration::from_secs(1);
const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0' xml:lang='en'>";
const AUTH: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>orchard</resource></bind></iq>";

/// A whole session, from the header to the close tag.
fn good_login() -> String {
    format!(
        "{HEADER}{AUTH}{HEADER}{BIND}\
         <iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>\
         <presence><priority>5</priority></presence>\
         <message to='juliet@example.com' type='chat'><body>Hi &amp; bye</body></message>\
         <presence type='subscribe' to='juliet@example.com'/>\
         </stream:stream>"
    )
}

/// A world with two accounts, of which one is online.
fn world() -> (World, Client) {
    let world = World::new();
    world.account("romeo");
    let juliet = world.online("juliet", "balcony");
    (world, juliet)
}

/// Everything that counts is where it was: juliet's session and nothing else.
fn assert_clean(world: &World, what: &dyn std::fmt::Debug) {
    world.settle();
    let metrics = world.metrics();
    assert_eq!(metrics.unauthenticated, 0, "{what:?}");
    assert_eq!(metrics.sessions.sessions, 1, "{what:?}");
    assert_eq!(metrics.sessions.hibernating, 0, "{what:?}");
    assert_eq!(metrics.jobs, 0, "{what:?}");
}

#[test]
fn destroy_11_every_prefix_of_a_login_cut_off() {
    let login = good_login();
    let (world, juliet) = world();
    for end in 0..=login.len() {
        let client = world.connect();
        client.driver(|driver| driver.receive(&login.as_bytes()[..end]));
        world.settle();
        client.lose();
        assert_clean(&world, &end);
    }
    // Of each presence that juliet has seen she has seen the end.
    let got = juliet.received();
    let count = |text: &str| got.iter().filter(|one| one.contains(text)).count();
    assert_eq!(count("<presence from='romeo@example.com/orchard' type='unavailable'"), 0);
}

#[test]
fn sec_7_every_byte_of_a_login_changed() {
    let login = good_login();
    let (world, juliet) = world();
    for at in 0..login.len() {
        for value in [0, b' ', b'<', b'>', b'\'', b'&', b'/', b'a', b'B', b'=', 0x80, 0xff] {
            let mut bytes = login.clone().into_bytes();
            if std::mem::replace(&mut bytes[at], value) == value {
                continue;
            }
            let recorder = Recorder::new();
            let mut driver = world.server().accept(recorder.clone(), Transport::new().secure(true));
            driver.receive(&bytes);
            let _want = driver.poll_want(&mut Context::from_waker(Waker::noop()));
            if let Some(session) = driver.session() {
                assert_eq!(session.jid().to_bare().as_str(), "romeo@example.com", "{at}: {value}");
            }
            drop(driver);
        }
        assert_clean(&world, &at);
        let _read = juliet.received();
    }
}

#[test]
fn sec_7_all_chunkings_are_one() {
    let login = good_login();
    let said = |sizes: &[usize]| {
        let (world, juliet) = world();
        let client = world.connect();
        let mut rest = login.as_bytes();
        for size in sizes.iter().cycle() {
            let (now, later) = rest.split_at((*size).min(rest.len()));
            if now.is_empty() {
                break;
            }
            client.driver(|driver| driver.receive(now));
            rest = later;
        }
        world.settle();
        (client.recorder().take().concat(), juliet.received())
    };
    let whole = said(&[usize::MAX]);
    assert!(
        whole.0.ends_with("</stream:stream>") && !whole.0.contains("stream:error"),
        "{whole:?}"
    );
    for sizes in [&[1][..], &[2], &[3, 1], &[7], &[100, 1], &[64]] {
        assert_eq!(said(sizes), whole, "{sizes:?}");
    }
}

#[test]
fn sec_3_bombs() {
    let nested = |depth: usize| "<a xmlns='b'>".repeat(depth);
    let entities = "<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>";
    for bomb in [
        nested(100_000),
        format!("<message>{}", nested(100_000)),
        entities.to_owned(),
        format!("<message {}", "a='b' ".repeat(100_000)),
        (0..100_000)
            .map(|n| format!(" a{n}=''"))
            .fold("<message".to_owned(), |all, one| all + &one),
        format!("<message><body>{}", "&amp;".repeat(300_000)),
        format!("<message><body>{}", "&#x1F600;".repeat(200_000)),
        format!("<message>{}", "<a/>".repeat(300_000)),
        format!("<{}", "m".repeat(1_000_000)),
        format!("<message a='{}", "v".repeat(1_000_000)),
        format!("<message xmlns:{}='b'", "p".repeat(1_000_000)),
        "<![CDATA[".repeat(10_000),
        "]]>".repeat(10_000),
        "\u{0}".repeat(10_000),
        "\u{feff}".repeat(10_000),
        "<".repeat(100_000),
        "</".repeat(100_000),
        "&".repeat(100_000),
    ] {
        let (world, _juliet) = world();
        let authed = {
            let client = world.connect();
            client.send(&format!("{HEADER}{AUTH}{HEADER}"));
            client
        };
        let bound = world.client("romeo", "orchard");
        let (new, open) = (world.connect(), world.connect());
        open.send(HEADER);
        for (state, client) in [("new", new), ("open", open), ("authed", authed), ("bound", bound)]
        {
            let _before = client.recorder().take();
            for chunk in bomb.as_bytes().chunks(8192) {
                if client.is_connected() {
                    client.driver(|driver| driver.receive(chunk));
                    world.settle();
                }
            }
            // The rates of a bound stream may have paused it.
            world.advance(20 * SECOND);
            let said = client.recorder().take().concat();
            let start: String = bomb.chars().take(30).collect();
            assert!(said.ends_with("</stream:stream>"), "{state}: {start}: {said}");
            assert!(said.contains("<stream:error>"), "{state}: {start}: {said}");
            assert!(!client.is_connected(), "{state}: {start}");
        }
        assert_clean(&world, &"bombs");
    }
}

#[test]
fn limit_3_floods_before_authentication() {
    for flood in [
        " ",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'/>",
        "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>=</response>",
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        "<presence/>",
    ] {
        let (world, _juliet) = world();
        let client = world.connect();
        client.send(HEADER);
        let _features = client.recorder().take();
        let mut sent = 0;
        while client.is_connected() && sent < 200_000 {
            client.driver(|driver| driver.receive(flood.as_bytes()));
            world.settle();
            sent += flood.len();
            if !client.recorder().take().concat().contains("</stream:stream>") {
                continue;
            }
            world.advance(2 * SECOND);
        }
        assert!(sent <= 65_536, "{flood}: {sent} bytes read");
        assert_clean(&world, &flood);
    }
}

#[test]
fn limit_1_slow_loris() {
    let (world, _juliet) = world();
    let loris: Vec<_> = (0..100).map(|_| world.connect()).collect();
    let login = good_login();
    for byte in login.as_bytes().iter().take(70) {
        for client in loris.iter().filter(|client| client.is_connected()) {
            client.driver(|driver| driver.receive(&[*byte]));
        }
        world.advance(SECOND);
    }
    assert!(loris.iter().all(|client| !client.is_connected()));
    let limits = world.metrics().limits;
    assert!(limits.contains(&(Limit::Negotiation, 100)), "{limits:?}");
    assert_clean(&world, &"loris");
}

/// What may happen to a driver, in any order.
#[derive(Clone, Debug)]
enum Op {
    Send(usize),
    Bytes(Vec<u8>),
    Poll,
    Secured,
    Advance(u16),
    Timeout,
    Server,
    Store(Mode),
    Refuse(Option<SendError>),
    Waiting(usize),
    Kick,
    Drain,
    End,
    Drop,
}

const PIECES: &[&str] = &[
    HEADER,
    AUTH,
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>biwsbj1yb21lbyxyPWFiYw==</auth>",
    "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>Yz1iaXdzLHI9YWJj</response>",
    "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
    "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    BIND,
    "<presence/>",
    "<presence type='unavailable'/>",
    "<presence to='juliet@example.com/balcony'/>",
    "<presence type='subscribe' to='juliet@example.com'/>",
    "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
    "<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='a@example.com'/></query></iq>",
    "<message to='juliet@example.com'><body>Hi</body></message>",
    "<message to='romeo@example.com'><body>me</body></message>",
    "<message to='nobody@example.com'/>",
    "<iq type='get' id='p' to='example.com'><ping xmlns='urn:xmpp:ping'/></iq>",
    "<iq/>",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    "</stream:stream>",
    " ",
    "<message",
    ">",
];

fn op() -> impl Strategy<Value = Op> {
    let mode = prop_oneof![
        Just(Mode::Answer),
        Just(Mode::Wait),
        Just(Mode::Fail),
        Just(Mode::Panic),
        Just(Mode::PanicAtOnce)
    ];
    let refuse =
        prop_oneof![Just(None), Just(Some(SendError::Full)), Just(Some(SendError::Closed))];
    prop_oneof![
        20 => (0..PIECES.len()).prop_map(Op::Send),
        2 => vec(any::<u8>(), 0..20).prop_map(Op::Bytes),
        4 => Just(Op::Poll),
        2 => Just(Op::Secured),
        2 => (0..3000_u16).prop_map(Op::Advance),
        2 => Just(Op::Timeout),
        1 => Just(Op::Server),
        2 => mode.prop_map(Op::Store),
        1 => refuse.prop_map(Op::Refuse),
        1 => (0..2_000_000_usize).prop_map(Op::Waiting),
        1 => Just(Op::Kick),
        1 => Just(Op::Drain),
        1 => Just(Op::End),
        1 => Just(Op::Drop),
    ]
}

/// Runs the operations on one driver after a given start, and checks what holds whatever happens.
fn run(start: usize, peer: Transport, ops: &[Op]) {
    let slow = Slow::new();
    let mut limits = Limits::default();
    limits.unauthenticated = 3;
    let world = World::with_stores(slow.stores(), |builder, _| builder.limits(limits));
    world.account("romeo");
    let juliet = world.online("juliet", "balcony");
    let recorder = Recorder::new();
    let mut driver: Option<Driver<Recorder>> = Some(world.server().accept(recorder.clone(), peer));
    let feed = |driver: &mut Option<Driver<Recorder>>, bytes: &[u8]| {
        if let Some(driver) = driver {
            driver.receive(bytes);
        }
    };
    for piece in [HEADER, AUTH, HEADER, BIND, "<presence/>"].iter().take(start) {
        feed(&mut driver, piece.as_bytes());
    }
    let poll = |driver: &mut Option<Driver<Recorder>>| {
        let want = driver.as_mut().map(|d| d.poll_want(&mut Context::from_waker(Waker::noop())));
        if want == Some(Poll::Ready(Want::Close)) {
            // It stays so.
            let again =
                driver.as_mut().map(|d| d.poll_want(&mut Context::from_waker(Waker::noop())));
            assert_eq!(again, want);
            assert!(recorder.closed().is_some(), "a driver that is over has closed its connection");
        }
    };
    for op in ops {
        match op {
            Op::Send(piece) => feed(&mut driver, PIECES[*piece].as_bytes()),
            Op::Bytes(bytes) => feed(&mut driver, bytes),
            Op::Poll => poll(&mut driver),
            Op::Secured => {
                if let Some(driver) = &mut driver {
                    driver.secured(
                        ChannelBindings::new().exporter(vec![1; 32]).server_end_point(vec![2; 32]),
                    );
                }
            }
            Op::Advance(seconds) => world.advance(SECOND * u32::from(*seconds)),
            Op::Timeout => {
                if let Some(driver) = &mut driver {
                    driver.handle_timeout();
                    let _next = driver.next_timeout();
                }
            }
            Op::Server => world.settle(),
            Op::Store(mode) => slow.set(*mode),
            Op::Refuse(why) => recorder.refuse(*why),
            Op::Waiting(bytes) => recorder.set_progress(*bytes, 0),
            Op::Kick => {
                if let Some(session) = driver.as_ref().and_then(Driver::session) {
                    world.destroy(session, Reason::Kicked);
                }
            }
            Op::Drain => {
                let _written = recorder.drain();
            }
            Op::End => {
                if let Some(driver) = &mut driver {
                    driver.end_of_input();
                }
            }
            Op::Drop => driver = None,
        }
        if let Some(session) = driver.as_ref().and_then(Driver::session) {
            assert_eq!(session.jid().to_bare().as_str(), "romeo@example.com");
        }
    }
    let written = recorder.take().concat();
    let (closes, errors) =
        (written.matches("</stream:stream>").count(), written.matches("<stream:error>").count());
    assert!(closes <= 1 && errors <= 1, "{written}");
    drop(driver);
    slow.set(Mode::Answer);
    world.settle();
    let _read = juliet.recorder().take();
    let metrics = world.metrics();
    assert_eq!((metrics.unauthenticated, metrics.jobs), (0, 0));
    assert!(metrics.sessions.sessions <= 1 && metrics.sessions.hibernating == 0);
    // The server is none the worse for it.
    let client = world.online("romeo", "after");
    assert!(client.is_connected());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn sec_7_no_sequence_of_events_does_harm(
        start in 0..6_usize,
        secure in any::<bool>(),
        starttls in any::<bool>(),
        direct_tls in any::<bool>(),
        ops in vec(op(), 0..40),
    ) {
        let peer = Transport::new().secure(secure || start > 1).starttls(starttls);
        run(start, peer.direct_tls(direct_tls && start == 0), &ops);
    }

    #[test]
    fn sec_7_no_bytes_do_harm(start in 0..6_usize, bytes in vec(any::<u8>(), 0..400)) {
        run(start, Transport::new().secure(true), &[Op::Bytes(bytes), Op::Poll]);
    }
}
