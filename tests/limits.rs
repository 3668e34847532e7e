//! Limits on the wire (section 13 of the rules).

use crate::common::wire;
use std::fmt::Write as _;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wire::{Client, PASSWORD, World};
use xmpp_session::connection::{Close, Recorder, SendError};
use xmpp_session::server::{Builder, Limits, Peer, Rate, Want};
use xmpp_session::xep;

const SECOND: Duration = Duration::from_secs(1);
const CLOSE: &str = "</stream:stream>";

fn with(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = Limits::default();
    change(&mut limits);
    World::with(|builder: Builder<Recorder>, _| builder.limits(limits))
}

fn violation() -> [String; 2] {
    let error = "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    [error.to_owned(), CLOSE.to_owned()]
}

/// How often a limit was reported to the host.
fn hits(world: &World, id: &str) -> u64 {
    let limits = world.server().metrics().limits;
    limits.into_iter().find(|(known, _)| *known == id).map_or(0, |(_, count)| count)
}

fn opened(world: &World) -> Client {
    let client = world.connect();
    client.open();
    let _features = client.received();
    client
}

fn assert_violation(world: &World, client: &Client, id: &str) {
    assert_eq!(client.received(), violation(), "{id}");
    assert_eq!(hits(world, id), 1, "{id}");
    world.advance(2 * SECOND);
    assert!(!client.is_connected(), "{id}");
}

/// A message of `bytes` bytes.
fn message(bytes: usize) -> String {
    let (start, end) = ("<message to='romeo@example.com/x'><body>", "</body></message>");
    format!("{start}{}{end}", "b".repeat(bytes - start.len() - end.len()))
}

#[test]
fn limit_1_negotiation_has_sixty_seconds() {
    let world = World::new();
    world.account("romeo");
    let silent = world.connect();
    let half = world.connect();
    half.send("<stream:stream xmlns='jabber:client'");
    let open = opened(&world);
    let authed = world.authenticated("romeo");
    let between = opened(&world);
    between.authenticate("romeo", PASSWORD);
    let _success = between.received();
    let bound = world.client("romeo", "orchard");
    world.advance(59 * SECOND);
    for client in [&silent, &half, &open, &authed, &between, &bound] {
        assert!(client.is_connected());
        assert_eq!(client.received(), [""; 0]);
    }
    world.advance(SECOND);
    // Nothing is written where no header came.
    for client in [&silent, &half, &between] {
        assert_eq!(client.received(), [""; 0]);
        assert!(!client.is_connected());
        assert_eq!(client.recorder().closed(), Some(Close::Abort));
    }
    for client in [&open, &authed] {
        assert_eq!(client.received(), violation());
    }
    assert_eq!(hits(&world, "LIMIT-1"), 5);
    world.advance(2 * SECOND);
    assert!(!open.is_connected() && !authed.is_connected() && bound.is_connected());
    assert_eq!(world.server().metrics().unauthenticated, 0);
}

#[test]
fn limit_1_traffic_does_not_help() {
    let world = World::new();
    let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0'>";
    let client = world.connect();
    let mut rest = header.bytes().chain(std::iter::repeat(b' '));
    for _ in 0..120 {
        let byte = [rest.next().unwrap()];
        client.send(std::str::from_utf8(&byte).unwrap());
        world.advance(Duration::from_millis(500));
    }
    assert_eq!(hits(&world, "LIMIT-1"), 1);
    world.advance(2 * SECOND);
    assert!(!client.is_connected());
}

#[test]
fn limit_1_nothing_is_written_during_a_handshake() {
    let world = World::new();
    let client = world.accept(Peer::new().starttls(true));
    client.open();
    client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    let _proceed = client.received();
    assert_eq!(client.want(), Some(Want::StartTls));
    world.advance(60 * SECOND);
    assert_eq!(client.received(), [""; 0]);
    assert!(!client.is_connected());
    assert_eq!(client.recorder().closed(), Some(Close::Abort));
}

#[test]
fn limit_2_one_element_before_authentication() {
    let world = World::new();
    let auth = |bytes: usize| {
        let (start, end) =
            ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>", "</auth>");
        format!("{start}{}{end}", "A".repeat(bytes - start.len() - end.len()))
    };
    let client = opened(&world);
    assert!(client.ask(&auth(10_000)).concat().contains("<failure"));
    let client = opened(&world);
    client.send(&auth(10_001));
    assert_violation(&world, &client, "LIMIT-2");
}

#[test]
fn limit_3_all_bytes_before_authentication() {
    let world = World::new();
    let client = opened(&world);
    // White space counts as well.
    for _ in 0..63 {
        client.send(&" ".repeat(1024));
    }
    assert_eq!(client.received(), [""; 0]);
    client.send(&" ".repeat(1024));
    assert_violation(&world, &client, "LIMIT-3");
}

/// The error that a stanza of this start gets.
fn refused(kind: &str, from: &str, id: &str) -> String {
    format!(
        "<{kind} from='{from}' to='romeo@example.com/x'{id} type='error'><error type='modify'>\
         <policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></{kind}>"
    )
}

#[test]
fn limit_4_one_element_after_authentication() {
    let world = with(|limits| limits.bytes = None);
    let client = world.client("romeo", "x");
    assert_eq!(client.ask(&message(262_144)).len(), 1);
    // What is longer is read to its end, up to four times the limit, and answered; the stream goes on.
    let error = refused("message", "romeo@example.com/x", "");
    for bytes in [262_145, 262_146, 1_048_576] {
        assert_eq!(client.ask(&message(bytes)), [error.as_str()], "{bytes}");
    }
    let value =
        format!("<iq type='set' id='1'><x xmlns='urn:x' y='{}'/></iq>", "v".repeat(300_000));
    assert_eq!(client.ask(&value), [refused("iq", "romeo@example.com", " id='1'")]);
    assert_eq!(hits(&world, "LIMIT-4"), 4);
    assert_eq!(client.ask(&message(1000)).len(), 1);
    client.send(&message(1_048_577));
    assert_eq!(client.received(), violation());
    assert_eq!(hits(&world, "LIMIT-4"), 5);
    // What never ends is not waited for, nor is what cannot be answered.
    for (start, many) in [
        ("<message to='romeo@example.com'><body>", 256),
        ("<message to='", 64),
        ("<r xmlns='urn:xmpp:sm:3'>", 64),
    ] {
        let mut limits = Limits::default();
        limits.bytes = None;
        let world = World::with(|builder, _| {
            builder.limits(limits).extension(xep::StreamManagement::new())
        });
        let client = world.client("romeo", "x");
        client.send(start);
        for _ in 0..many {
            assert_eq!(client.received(), [""; 0], "{start}");
            client.send(&"b".repeat(4096));
        }
        assert_eq!(client.received(), violation(), "{start}");
    }
}

#[test]
fn limit_5_depth_attributes_and_elements() {
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let attributes = |count: usize, start: &str, end: &str| {
        let mut xml = format!("<message{start}");
        for n in 0..count {
            write!(xml, " a{n}=''").unwrap();
        }
        xml + end
    };
    let auth =
        |inside: &str| format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{inside}</auth>");
    let world = World::new();
    for xml in [auth(&nested(8)), auth(&attributes(17, "", "/>")), auth(&"<a/>".repeat(64))] {
        let client = opened(&world);
        client.send(&xml);
        assert_eq!(client.received(), violation(), "before authentication");
    }
    assert_eq!(hits(&world, "LIMIT-5"), 3);
    let client = world.client("romeo", "x");
    let juliet = world.online("juliet", "y");
    let to = " to='juliet@example.com/y' id='1'";
    let message = |inside: &str| format!("<message{to}>{inside}</message>");
    let mut exceeded = 3;
    for (fits, exceeds) in [
        (message(&nested(63)), message(&nested(64))),
        (message(&nested(63)), message(&nested(10_000))),
        (attributes(62, to, "/>"), attributes(63, to, "/>")),
        (attributes(62, to, "/>"), attributes(3000, to, "><a/></message>")),
        (message("<a/>"), message(&attributes(65, "", "/>"))),
        (message(&"<a/>".repeat(4095)), message(&"<a/>".repeat(4096))),
        (
            message(&format!("<{}/>", "a".repeat(1024))),
            message(&format!("<{}/>", "a".repeat(1025))),
        ),
    ] {
        assert_eq!(client.ask(&fits), [""; 0]);
        assert_eq!(juliet.received().len(), 1);
        let error = refused("message", "juliet@example.com/y", " id='1'");
        assert_eq!(client.ask(&exceeds), [error]);
        assert_eq!(juliet.received(), [""; 0]);
        exceeded += 1;
        assert_eq!(hits(&world, "LIMIT-5"), exceeded);
        // STZ-7
        for type_ in ["error", "result"] {
            let error = exceeds.replacen("message", "iq", 1).replacen(
                " id=",
                &format!(" type='{type_}' id="),
                1,
            );
            let error = error
                .strip_suffix("</message>")
                .map_or_else(|| error.clone(), |start| format!("{start}</iq>"));
            assert_eq!(client.ask(&error), [""; 0]);
            exceeded += 1;
        }
    }
    // Before bind there is an answer as well.
    let authed = world.authenticated("romeo");
    let bind = format!(
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>{}</iq>",
        nested(64)
    );
    let answer = authed.answer(&bind);
    assert!(answer.contains("<policy-violation ") && answer.contains(" id='b'"), "{answer}");
    assert_eq!(authed.want(), Some(Want::Input));
}

#[test]
fn limit_20_what_a_stanza_grows_by_counts_too() {
    let world = with(|limits| limits.stanzas = None);
    let juliet = world.online("juliet", "y");
    // Each message is stamped with it.
    let romeo = world.client("romeo", &"x".repeat(1023));
    let (mut sent, mut came) = (0, 0);
    while romeo.want() == Some(Want::Input) && came < 2 << 20 {
        let message = "<message to='juliet@example.com/y'/>";
        romeo.send(message);
        sent += message.len();
        came += juliet.received().concat().len();
    }
    assert!(sent < 50_000 && (1 << 20..(1 << 20) + 50_000).contains(&came), "{sent} {came}");
    assert_eq!(hits(&world, "LIMIT-20"), 1);
}

#[test]
fn limit_40_what_is_written_anew_is_a_few_times_what_came() {
    let world = World::new();
    let juliet = world.online("juliet", "y");
    world.account("romeo");
    let header = |declared: &str| {
        format!(
            "<stream:stream xmlns='jabber:client' xmlns:p='{declared}' \
            xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0'>"
        )
    };
    let bound = |declared: &str| {
        let client = world.connect();
        client.open();
        client.authenticate("romeo", PASSWORD);
        client.send(&header(declared));
        client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>x</resource></bind></iq>");
        client
    };
    // 8 KB on the header are refused there.
    let client = bound(&"u".repeat(8000));
    assert!(client.received().concat().ends_with(&violation().concat()));
    assert_eq!(hits(&world, "LIMIT-41"), 1);
    let client = bound(&"u".repeat(900));
    let _before = client.received();
    let mut came = (0, 0);
    for children in [1, 2, 5, 20, 60, 600] {
        let xml = format!(
            "<message to='juliet@example.com/y' id='1'>{}</message>",
            "<p:x/>".repeat(children)
        );
        let answer = client.ask(&xml);
        let got = juliet.received().concat();
        assert!(got.len() <= 4 * xml.len() + 512, "{} of {}", got.len(), xml.len());
        if got.is_empty() {
            assert_eq!(answer, [refused("message", "juliet@example.com/y", " id='1'")]);
            came.1 += 1;
        } else {
            assert_eq!(answer, [""; 0]);
            came.0 += 1;
        }
    }
    assert_eq!((came, hits(&world, "LIMIT-40")), ((0, 6), 6));
    // Where the name is one that people use, nothing is refused.
    let client = bound("http://jabber.org/protocol/pubsub#event");
    for children in [1, 2, 5] {
        let xml = format!(
            "<message to='juliet@example.com/y' id='1'>{}</message>",
            "<p:x/>".repeat(children)
        );
        client.send(&xml);
        assert_eq!(juliet.received().len(), 1, "{children}");
    }
}

#[test]
fn limit_6_a_long_language_is_ignored() {
    let world = World::new();
    world.account("romeo");
    let juliet = world.online("juliet", "balcony");
    for (lang, kept) in [("d".repeat(35), true), ("d".repeat(36), false)] {
        let client = opened(&world);
        client.authenticate("romeo", PASSWORD);
        client.send(&format!("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0' xml:lang='{lang}'>"));
        client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        client.send("<message to='juliet@example.com'><body>Hi</body></message>");
        assert_eq!(juliet.received().concat().contains("xml:lang"), kept);
    }
}

#[test]
fn limit_8_sessions_of_an_account() {
    let world = World::new();
    let clients: Vec<_> = (0..32).map(|n| world.client("romeo", &n.to_string())).collect();
    let client = world.authenticated("romeo");
    let answer =
        client.ask("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(answer.concat().contains("<resource-constraint "), "{answer:?}");
    assert_eq!(hits(&world, "LIMIT-8"), 1);
    drop(clients);
}

#[test]
fn limit_13_who_does_not_read_is_not_read_from() {
    let world = World::with(|builder, _| builder.extension(xep::StreamManagement::new()));
    let (client, other) = (world.client("romeo", "x"), world.online("juliet", "balcony"));
    client.recorder().set_progress(512 << 10, 0);
    let ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    client.send(ping);
    assert_eq!(client.want(), Some(Want::Input), "at the mark is not above it");
    client.recorder().set_progress((512 << 10) + 1, 0);
    client.send("<a xmlns='urn:xmpp:sm:3' h='0'/>");
    assert_eq!(client.want(), Some(Want::Input), "it has asked for nothing");
    client.send(ping);
    assert_eq!(client.want(), None);
    assert_eq!(other.want(), Some(Want::Input), "others are not slowed down");
    client.send("<message to='juliet@example.com'><body>Hi</body></message>");
    assert_eq!(other.received(), [""; 0]);
    // Whatever the write loop tells: it is looked at again within a second.
    client.recorder().set_progress(0, 1 << 20);
    world.advance(SECOND);
    assert_eq!(client.want(), Some(Want::Input));
    assert_eq!(other.received().len(), 1);
    assert_eq!(hits(&world, "LIMIT-13"), 1);
}

#[test]
fn limit_13_a_write_wakes_who_waits_for_it() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let world = World::new();
    let client = world.client("romeo", "x");
    client.recorder().set_progress(1 << 20, 0);
    client.send("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let poll = |client: &Client| client.driver(|d| d.poll_want(&mut Context::from_waker(&waker)));
    assert_eq!(poll(&client), Poll::Pending);
    let _written = client.recorder().drain();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    client.recorder().set_progress(0, 1 << 20);
    assert_eq!(poll(&client), Poll::Ready(Want::Input));
}

#[test]
fn limit_13_a_client_that_takes_nothing_for_a_minute_is_given_up() {
    let world = World::new();
    let (stuck, slow) = (world.client("romeo", "x"), world.client("juliet", "balcony"));
    stuck.recorder().set_progress(100, 7);
    slow.recorder().set_progress(100, 7);
    world.settle();
    world.advance(59 * SECOND);
    slow.recorder().set_progress(100, 8);
    world.settle();
    assert!(stuck.is_connected() && slow.is_connected());
    world.advance(SECOND);
    assert!(!stuck.is_connected(), "no byte in 60 s");
    assert_eq!(stuck.recorder().closed(), Some(Close::Abort));
    assert!(slow.is_connected(), "one byte is progress");
    assert_eq!(hits(&world, "LIMIT-13"), 1);
}

#[test]
fn limit_13_what_a_connection_does_not_take_waits_for_it() {
    let world = World::new();
    let (client, juliet) = (world.online("romeo", "x"), world.client("juliet", "balcony"));
    let _before = client.received();
    let message = "<message to='romeo@example.com/x' type='chat'><body>Hi</body></message>";
    client.recorder().refuse(Some(SendError::Full));
    juliet.send(message);
    client.recorder().refuse(None);
    client.recorder().drained();
    assert_eq!(client.received().len(), 1);
    // Without progress it is given up, and what waited goes where it goes without it.
    client.recorder().refuse(Some(SendError::Full));
    juliet.send(message);
    world.settle();
    world.advance(59 * SECOND);
    // More of it is no progress.
    juliet.send(message);
    assert!(client.is_connected());
    world.advance(SECOND);
    assert_eq!(client.recorder().closed(), Some(Close::Abort));
    assert_eq!(world.server().registry().counts().sessions, 1);
    assert_eq!(world.client("romeo", "y").ask("<presence/>").len(), 3);
    // Before bind nothing waits.
    let client = world.connect();
    client.recorder().refuse(Some(SendError::Full));
    client.open();
    assert!(!client.is_connected());
    assert_eq!(client.recorder().closed(), Some(Close::Abort));
}

#[test]
fn limit_17_targets_of_directed_presence() {
    let world = with(|limits| limits.directed = 3);
    let client = world.client("romeo", "x");
    let targets: Vec<_> = ["a", "b", "c", "d"].map(|node| world.online(node, "y")).into();
    for node in ["a", "b", "c", "a"] {
        assert_eq!(client.ask(&format!("<presence to='{node}@example.com/y'/>")), [""; 0]);
    }
    let answer = client.ask("<presence to='d@example.com/y' id='p'/>").concat();
    assert!(answer.contains("<error type='wait'><resource-constraint "), "{answer}");
    assert_eq!(hits(&world, "LIMIT-17"), 1);
    assert_eq!(targets[3].received(), [""; 0]);
    assert_eq!(targets[0].received().len(), 2);
    // One that is taken back makes room.
    client.send("<presence to='a@example.com/y' type='unavailable'/>");
    assert_eq!(client.ask("<presence to='d@example.com/y'/>"), [""; 0]);
    assert_eq!(targets[3].received().len(), 1);
}

#[test]
fn limit_19_broadcasts_of_presence() {
    let world = World::new();
    let client = world.client("romeo", "x");
    for n in 0..30 {
        client.send(&format!("<presence><priority>{n}</priority></presence>"));
        assert_eq!(client.want(), Some(Want::Input), "{n}");
    }
    client.send("<presence><priority>99</priority></presence>");
    client.send(&"<presence><priority>-1</priority></presence>".repeat(40));
    client.send("<presence><priority>100</priority></presence>");
    assert_eq!(client.session().available().unwrap().priority(), 99, "the next one waits");
    // What only asks is answered at once.
    let ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert_eq!(client.ask(ping).len(), 1);
    assert_eq!(client.want(), Some(Want::Input));
    world.advance(2 * SECOND);
    assert_eq!(client.session().available().unwrap().priority(), 100);
    assert!(hits(&world, "LIMIT-19") >= 1);
    // What others see is not to pass it.
    client.send("<presence><priority>101</priority></presence>");
    client.send("<message to='romeo@example.com/x'><body>1</body></message>");
    client.send(ping);
    let received = client.received().concat();
    assert!(!received.contains("<body>1<") && !received.contains("id='p'"), "{received}");
    assert_eq!(client.want(), None);
    world.advance(2 * SECOND);
    let received = client.received().concat();
    let place = |what: &str| received.find(what).unwrap();
    assert!(place(">101<") < place("<body>1<") && place("<body>1<") < place("id='p'"));
    // Directed presence is no broadcast.
    let client = world.client("romeo", "y");
    let _juliet = world.online("juliet", "z");
    client.send(&"<presence to='juliet@example.com/z'/>".repeat(50));
    assert_eq!(client.want(), Some(Want::Input));
}

/// The last broadcast is not lost with the transport, nor with the stream.
#[test]
fn limit_19_a_broadcast_that_waits_at_an_end() {
    for retained in [false, true] {
        let world = World::with(|builder, _| builder.extension(xep::StreamManagement::new()));
        world.friends("romeo", "juliet");
        let (client, juliet) = (world.client("romeo", "x"), world.online("juliet", "y"));
        if retained {
            client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        }
        client.send(&"<presence/>".repeat(32));
        let _before = juliet.received();
        let last = if retained { "<presence>" } else { "<presence type='unavailable'>" };
        client.send(&format!("{last}<status>bye</status></presence>"));
        assert_eq!(juliet.received(), [""; 0]);
        if retained {
            client.lose();
        } else {
            client.send(CLOSE);
        }
        let told = juliet.received();
        assert!(told.len() == 1 && told[0].contains("<status>bye</status>"), "{told:?}");
    }
}

#[test]
fn limit_20_stanzas_and_bytes() {
    let world = World::new();
    let juliet = world.online("juliet", "z");
    let client = world.client("romeo", "x");
    let message = "<message to='juliet@example.com/z'/>";
    client.send(&message.repeat(1000));
    assert_eq!(client.want(), Some(Want::Input));
    client.send(&message.repeat(101));
    assert_eq!(client.want(), None);
    assert_eq!(juliet.received().len(), 1001, "the first too many is the last");
    world.advance(SECOND);
    assert_eq!(juliet.received().len(), 100);
    world.advance(Duration::from_millis(10));
    assert_eq!(client.want(), Some(Want::Input));

    let mut limits = Limits::default();
    limits.bytes = Some(Rate::new(100, SECOND, 1000));
    limits.stanzas = None;
    let world = World::with(|builder, _| builder.limits(limits));
    let client = world.client("romeo", "x");
    client.send(&" ".repeat(1000));
    assert_eq!(client.want(), Some(Want::Input));
    client.send(&" ".repeat(200));
    assert_eq!(client.want(), None);
    world.advance(SECOND);
    assert_eq!(client.want(), None);
    world.advance(SECOND);
    assert_eq!(client.want(), Some(Want::Input));
    assert!(hits(&world, "LIMIT-20") >= 1);
}

#[test]
fn limit_20_a_host_that_reads_on_is_stopped() {
    let mut limits = Limits::default();
    limits.bytes = Some(Rate::new(1, SECOND, 100));
    let world = World::with(|builder, _| builder.limits(limits));
    let client = world.client("romeo", "x");
    client.send(&" ".repeat(200));
    assert_eq!(client.want(), None);
    for _ in 0..63 {
        client.send(&" ".repeat(4096));
    }
    assert!(client.recorder().take().is_empty());
    client.send(&" ".repeat(4096));
    assert_eq!(client.received(), violation());
    assert_eq!(hits(&world, "LIMIT-4"), 1);
}

#[test]
fn limit_22_silence_and_the_wait_for_an_answer_are_settings() {
    let world = with(|limits| {
        limits.silence = 400 * SECOND;
        limits.answer = 10 * SECOND;
    });
    let client = world.client("romeo", "x");
    world.advance(400 * SECOND);
    assert_eq!(client.received().len(), 1);
    world.advance(9 * SECOND);
    assert!(client.is_connected());
    world.advance(SECOND);
    assert!(!client.is_connected());
    assert_eq!(hits(&world, "LIMIT-22"), 1);
}

#[test]
fn limit_23_the_close_handshake() {
    let world = with(|limits| {
        limits.close = 3 * SECOND;
        limits.close_clean = 7 * SECOND;
    });
    let client = opened(&world);
    client.send("<presence/>");
    world.advance(2 * SECOND);
    assert!(client.is_connected());
    world.advance(SECOND);
    assert!(!client.is_connected());
    let client = world.client("romeo", "x");
    world
        .server()
        .registry()
        .destroy_session(&client.session(), xmpp_session::session::Reason::Closed);
    world.advance(6 * SECOND);
    assert!(client.is_connected());
    world.advance(SECOND);
    assert!(!client.is_connected());
}

#[test]
fn limit_24_parts_of_a_jid() {
    let world = World::new();
    let client = world.client("romeo", "x");
    for to in [
        format!("{}@example.com", "n".repeat(1024)),
        format!("juliet@example.com/{}", "r".repeat(1024)),
        format!("juliet@elsewhere.example/{}", "r".repeat(1024)),
    ] {
        let answer = client.ask(&format!("<message to='{to}' id='m'/>")).concat();
        assert!(answer.contains("<error type='modify'><jid-malformed "), "{answer}");
        assert!(answer.contains("from='romeo@example.com'"), "{answer}");
        assert!(!answer.contains("nnn") && !answer.contains("rrr"), "a bad address is not echoed");
    }
}

#[test]
fn limit_25_streams_before_authentication() {
    let world = with(|limits| {
        limits.unauthenticated = 5;
        limits.unauthenticated_per_source = 2;
    });
    let here = || Peer::new().secure(true).source("192.0.2.1");
    let (one, _two) = (world.accept(here()), world.accept(here()));
    let refused = world.accept(here());
    assert!(!refused.is_connected());
    assert_eq!(refused.received(), [""; 0]);
    assert_eq!(refused.recorder().closed(), Some(Close::Abort));
    let other = world.accept(Peer::new().secure(true).source("192.0.2.2"));
    assert!(other.is_connected());
    assert_eq!(world.server().metrics().unauthenticated, 3);
    let _more = (world.connect(), world.connect());
    assert!(!world.connect().is_connected(), "the whole server is full");
    assert_eq!(hits(&world, "LIMIT-25"), 2);
    // Who is lost or authenticated makes room.
    one.lose();
    world.account("romeo");
    other.open();
    other.authenticate("romeo", PASSWORD);
    assert_eq!(world.server().metrics().unauthenticated, 3);
    assert!(world.accept(here()).is_connected());
}

#[test]
fn limit_25_a_refused_transport_stays_refused() {
    let world = with(|limits| limits.unauthenticated = 0);
    let mut driver = world.server().accept(Recorder::new(), Peer::new());
    driver.secured(xmpp_session::server::Tls::new());
    driver.receive(b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0'>");
    let want = driver.poll_want(&mut Context::from_waker(Waker::noop()));
    assert_eq!(want, Poll::Ready(Want::Close));
    assert_eq!(driver.next_timeout(), None);
}

#[test]
fn sec_5_and_6_debug_shows_no_address() {
    let world = World::new();
    let peer = Peer::new().secure(true).source("192.0.2.7");
    assert!(!format!("{peer:?}").contains("192"));
    let client = world.client("romeo", "x");
    let text = client.driver(|driver| format!("{driver:?}"));
    assert!(!text.contains("romeo"), "{text}");
    assert!(!format!("{:?}", world.server()).contains("romeo"));
}
