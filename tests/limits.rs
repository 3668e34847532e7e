//! Limits on the wire (section 13 of the rules).

use crate::common::wire;
use std::fmt::Write as _;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wire::{Client, PASSWORD, World};
use xmpp_session::connection::{Close, Recorder, SendError};
use xmpp_session::sasl::ChannelBindings;
use xmpp_session::server::{Limits, Rate, ServerBuilder, Transport, Want};
use xmpp_session::xep;

const SECOND: Duration = Duration::from_secs(1);
const CLOSE: &str = "</stream:stream>";

fn with(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = Limits::default();
    change(&mut limits);
    World::with(|builder: ServerBuilder<Recorder>, _| builder.limits(limits))
}

fn violation() -> [String; 2] {
    let error = "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    [error.to_owned(), CLOSE.to_owned()]
}

/// How often a limit was reported to the host.
fn hits(world: &World, id: &str) -> u64 {
    let limits = world.metrics().limits;
    limits.into_iter().filter(|(limit, _)| limit.id() == id).map(|(_, count)| count).sum()
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
    // Nothing is written where no header ever came.
    for client in [&silent, &half] {
        assert_eq!(client.received(), [""; 0]);
        assert!(!client.is_connected());
        assert_eq!(client.recorder().closed(), Some(Close::Abort));
    }
    for client in [&open, &authed] {
        assert_eq!(client.received(), violation());
    }
    // One came before SASL: the answer to the next comes along (STREAM-25).
    let told = between.received();
    assert!(told[0].starts_with("<?xml") && told[1..] == violation(), "{told:?}");
    assert_eq!(hits(&world, "LIMIT-1"), 5);
    world.advance(2 * SECOND);
    assert!([&open, &authed, &between].iter().all(|client| !client.is_connected()));
    assert!(bound.is_connected());
    assert_eq!(world.metrics().unauthenticated, 0);
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
    let client = world.accept(Transport::new().starttls(true));
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
    assert_eq!(world.counts().sessions, 1);
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
    world.advance(10 * SECOND);
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
    limits.bytes = Some(Rate::new(1, SECOND, 1000));
    let world = World::with(|builder, _| builder.limits(limits));
    let client = world.client("romeo", "x");
    client.send(&" ".repeat(1000));
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
    world.destroy(&client.session(), xmpp_session::session::Reason::Closed);
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

const CONSTRAINT: &str = "<resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>";

fn from(source: &str) -> Transport {
    Transport::new().secure(true).source(source)
}

/// Opens, authenticates and binds, as far as the server lets it.
fn log_in(client: &Client, node: &str) {
    client.open();
    client.authenticate(node, PASSWORD);
    client.open();
    client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
}

#[test]
fn limit_25_streams_before_authentication() {
    let world = with(|limits| {
        limits.unauthenticated = 5;
        limits.unauthenticated_per_source = 2;
    });
    let here = || from("192.0.2.1");
    let (one, two) = (world.accept(here()), world.accept(here()));
    one.open();
    two.open();
    let _features = two.received();
    let waits = world.accept(here());
    waits.open();
    assert!(waits.is_connected() && waits.want().is_none());
    assert_eq!(waits.received(), [""; 0]);
    let other = world.accept(from("192.0.2.2"));
    other.open();
    assert_eq!(other.want(), Some(Want::Input));
    assert_eq!(world.metrics().unauthenticated, 4);
    assert_eq!(hits(&world, "LIMIT-25"), 1);
    // Who is lost makes room, and what was said meanwhile is heard.
    one.lose();
    assert!(waits.received().concat().contains("<stream:features"));
    // So does who is bound, but not who is only authenticated.
    world.account("romeo");
    two.authenticate("romeo", PASSWORD);
    let last = world.accept(here());
    last.open();
    assert_eq!((last.want(), world.metrics().unauthenticated), (None, 3));
    two.open();
    assert_eq!(last.want(), None);
    two.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert_eq!(last.want(), Some(Want::Input));
}

#[test]
fn limit_25_silent_transports_shut_nobody_out() {
    let world = World::new();
    let silent: Vec<_> = (0..500).map(|_| world.accept(from("192.0.2.1"))).collect();
    let logs_in = || {
        world.account("romeo");
        let client = world.accept(from("192.0.2.1"));
        log_in(&client, "romeo");
        assert!(client.received().concat().contains("<jid>romeo@example.com/"));
    };
    let open = || silent.iter().filter(|one| one.is_connected()).count();
    logs_in();
    // Of too many the oldest goes, a little later, so that a header on its way is answered.
    assert_eq!(open(), 500);
    world.advance(2 * SECOND);
    assert_eq!(open(), 499);
    assert!(!silent[0].is_connected() && silent[0].received().is_empty());
    assert_eq!(silent[0].recorder().closed(), Some(Close::Abort));
    logs_in();
    world.advance(2 * SECOND);
    assert_eq!(open(), 499, "who speaks is none of them");
    let _more: Vec<_> = (0..500).map(|_| world.accept(from("192.0.2.1"))).collect();
    assert_eq!(open(), 50, "of those no more than are being closed");
    logs_in();
}

#[test]
fn limit_25_silent_transports_of_many_sources_shut_nobody_out() {
    let world = with(|limits| limits.unauthenticated = 100);
    for n in 0..300 {
        let _silent = match n % 2 {
            0 => world.accept(from(&format!("192.0.2.{}", n / 2))),
            _ => world.connect(),
        };
    }
    assert_eq!(world.metrics().unauthenticated, 100);
    // Nor do those that have come no further.
    for n in 0..100 {
        let idle = world.accept(from(&format!("203.0.113.{}", n / 2)));
        idle.open();
    }
    world.advance(3 * SECOND);
    let client = world.accept(from("198.51.100.1"));
    world.account("romeo");
    log_in(&client, "romeo");
    assert!(client.received().concat().contains("<jid>romeo@example.com/"));
}

#[test]
fn limit_25_who_comes_no_step_further_yields_and_is_told() {
    let yields = |client: &Client| {
        let error = format!("<stream:error>{CONSTRAINT}</stream:error>");
        assert_eq!(client.received(), [error, CLOSE.to_owned()]);
    };
    let world = with(|limits| limits.unauthenticated_per_source = 3);
    let [half, idle, busy] = [(); 3].map(|()| world.accept(from("192.0.2.1")));
    half.send("<stream:stream");
    idle.open();
    busy.open();
    let waits = [(); 3].map(|()| world.accept(from("192.0.2.1")));
    waits[0].open();
    world.advance(2 * SECOND);
    let _features = (idle.received(), busy.received());
    // A step, and one more, but not for ever.
    busy.authenticate("nobody", "x");
    world.advance(SECOND);
    assert!(!half.is_connected() && half.received().is_empty(), "it has not said a header");
    assert_eq!(waits[0].want(), Some(Want::Input));
    assert!(idle.is_connected() && idle.received().is_empty(), "nobody needs its place");
    waits[1].open();
    yields(&idle);
    assert_eq!(waits[1].want(), Some(Want::Input));
    [0, 1].into_iter().for_each(|n| waits[n].authenticate("nobody", "x"));
    waits[2].open();
    world.account("romeo");
    let step = |after: u64, step: &dyn Fn(&Client)| {
        world.advance(Duration::from_millis(after));
        [&busy, &waits[0], &waits[1]].into_iter().for_each(step);
    };
    step(1900, &|client| client.authenticate("nobody", "x"));
    step(2400, &|client| client.authenticate("nobody", "x"));
    step(2400, &|client| client.authenticate("romeo", PASSWORD));
    step(2400, &Client::open);
    let _answers = busy.received();
    world.advance(Duration::from_millis(2800));
    assert!(busy.received().is_empty() && waits[2].want().is_none());
    world.advance(Duration::from_millis(100));
    yields(&busy);
    assert_eq!(waits[2].want(), Some(Want::Input));
    // The time of one that waited begins when its wait is over (LIMIT-1).
    world.advance(59 * SECOND);
    assert!(waits[2].is_connected() && !waits[2].received().concat().contains("error"));
}

#[test]
fn limit_25_a_login_that_is_through_is_no_reason_to_stay() {
    let world = with(|limits| limits.unauthenticated_per_source = 3);
    world.account("romeo");
    let here = || from("192.0.2.1");
    let [right, wrong] = [(); 2].map(|()| world.accept(here()));
    let secured = world.accept(here().secure(false).starttls(true));
    [&right, &wrong, &secured].into_iter().for_each(Client::open);
    right.authenticate("romeo", PASSWORD);
    wrong.authenticate("romeo", "x");
    secured.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    secured.driver(|driver| driver.secured(ChannelBindings::new()));
    let stalled = [right, wrong, secured];
    stalled.iter().for_each(|client| drop(client.received()));
    let waits = [(); 3].map(|()| world.accept(here()));
    waits.iter().for_each(Client::open);
    world.advance(Duration::from_millis(2900));
    assert!(stalled.iter().all(|client| client.received().is_empty()));
    assert!(waits.iter().all(|client| client.want().is_none()));
    world.advance(Duration::from_millis(100));
    assert!(waits.iter().all(|client| client.want() == Some(Want::Input)));
    // All of them are told, also those that have not said the next header yet.
    for (client, is_open) in stalled.iter().zip([false, true, false]) {
        let mut told = client.received();
        if !is_open {
            assert!(told.remove(0).starts_with("<?xml"));
        }
        let error = format!("<stream:error>{CONSTRAINT}</stream:error>");
        assert_eq!(told, [error, CLOSE.to_owned()]);
    }
}

#[test]
fn limit_25_a_hundred_logins_at_once_all_succeed() {
    let world = World::new();
    let nodes: Vec<_> = (0..200).map(|n| format!("user{n}")).collect();
    let clients: Vec<_> = nodes.iter().map(|_| world.accept(from("192.0.2.1"))).collect();
    nodes.iter().for_each(|node| drop(world.account(node)));
    // Those that wait have said it already, the others say it in an order of their own.
    let mut clients: Vec<_> = nodes.iter().zip(clients).collect();
    clients.rotate_left(50);
    clients[..150].iter().for_each(|(node, client)| log_in(client, node));
    clients[150..].iter().rev().for_each(|(node, client)| log_in(client, node));
    world.advance(3 * SECOND);
    clients.iter().for_each(|(node, client)| assert!(client.is_connected(), "{node}"));
    assert_eq!(world.sessions(), 200);
}

#[test]
fn limit_25_the_whole_server_yields_to_other_sources() {
    let world = with(|limits| {
        limits.unauthenticated = 10;
        limits.unauthenticated_per_source = 5;
    });
    for unnamed in [false, true] {
        let idle: Vec<_> = (0..10)
            .map(|n| match unnamed {
                true => world.connect(),
                false => world.accept(from(&format!("192.0.2.{}", n % 2))),
            })
            .collect();
        idle.iter().for_each(Client::open);
        // A source that waits much has one turn at a time.
        let greedy: Vec<_> = (0..4).map(|_| world.accept(from("192.0.2.8"))).collect();
        let modest = world.accept(from("192.0.2.9"));
        greedy.iter().chain([&modest]).for_each(Client::open);
        world.advance(2 * SECOND);
        assert!(greedy.iter().chain([&modest]).all(|client| client.want().is_none()));
        idle.iter().take(2).for_each(Client::lose);
        assert_eq!(modest.want(), Some(Want::Input), "{unnamed}");
        assert_eq!(greedy.iter().filter(|client| client.want().is_some()).count(), 1);
        world.advance(2 * SECOND);
        assert!(greedy.iter().all(|client| client.want() == Some(Want::Input)));
        world.advance(2 * SECOND);
        assert_eq!(idle.iter().filter(|client| client.is_connected()).count(), 5);
        greedy.iter().chain(&idle).chain([&modest]).for_each(Client::lose);
    }
    assert_eq!(world.metrics().unauthenticated, 0);
}

#[test]
fn limit_25_a_refusal_is_said_where_a_header_came() {
    let is_told = |client: &Client| {
        let said = client.received();
        assert!(said[0].starts_with("<?xml") && said[1].contains(CONSTRAINT), "{said:?}");
        assert_eq!((said.len(), &*said[2]), (3, CLOSE));
    };
    let world = with(|limits| limits.unauthenticated_per_source = 1);
    let first = world.accept(from("192.0.2.1"));
    first.open();
    let crowd: Vec<_> = (0..10).map(|_| world.accept(from("192.0.2.1"))).collect();
    crowd[1..].iter().for_each(Client::open);
    // Who is silent goes first, then who waits longest.
    let next = world.accept(from("192.0.2.1"));
    next.open();
    let last = world.accept(from("192.0.2.1"));
    assert!(last.want() == Some(Want::Input) && next.want().is_none());
    is_told(&crowd[1]);
    assert!(crowd[2..].iter().all(|client| client.received().is_empty()));
    // Of those that are being closed there is one at a time: that is who has said nothing.
    assert!(!crowd[0].is_connected() && crowd[0].received().is_empty());
    assert_eq!(crowd[0].recorder().closed(), Some(Close::Abort));
    // Who comes last is served first: the others have come in a crowd that does not move.
    first.lose();
    assert!(next.received().concat().contains("<stream:features"));
}

#[test]
fn limit_25_nobody_waits_for_ever() {
    let world = with(|limits| {
        limits.unauthenticated_per_source = 1;
        limits.admission = 2 * SECOND;
    });
    world.accept(from("192.0.2.1")).open();
    let [waits, silent] = [(); 2].map(|()| world.accept(from("192.0.2.1")));
    waits.open();
    world.advance(2 * SECOND);
    assert!(waits.received().concat().contains(CONSTRAINT));
    world.advance(57 * SECOND);
    assert!(silent.is_connected(), "it is not waiting (LIMIT-1)");
    world.advance(SECOND);
    assert!(!silent.is_connected());
}

#[test]
fn limit_25_nothing_is_refused_where_there_is_no_room_at_all() {
    let world = with(|limits| limits.unauthenticated = 0);
    let mut driver = world.server().accept(Recorder::new(), Transport::new());
    driver.secured(ChannelBindings::new());
    driver.receive(b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0'>");
    let mut want = || driver.poll_want(&mut Context::from_waker(Waker::noop()));
    // One that is being closed is one too many as well.
    assert_eq!(want(), Poll::Ready(Want::Close));
    assert_eq!(driver.next_timeout(), None);
}

#[test]
fn limit_25_a_source_is_an_ipv4_address_or_an_ipv6_network() {
    let is_one = |one: &str, other: &str| {
        let world = with(|limits| limits.unauthenticated_per_source = 1);
        world.accept(from(one)).open();
        let other = world.accept(from(other));
        other.open();
        other.want().is_none()
    };
    for (one, other) in [
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("192.0.2.1", "192.0.2.1:5222"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::"),
        ("2001:db8:1:2::1", "[2001:db8:1:2::7]:5222"),
        ("2001:db8:1:2::1", "[2001:0DB8:1:2::9]"),
        ("fe80::1%eth0", "fe80::2"),
        ("unix", "unix"),
    ] {
        assert!(is_one(one, other), "{one} {other}");
    }
    for (one, other) in [
        ("192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("unix", "other"),
        ("", "::"),
    ] {
        assert!(!is_one(one, other), "{one} {other}");
    }
}

#[test]
fn limit_26_streams_of_an_account_without_a_session() {
    let world = World::new();
    // From wherever they come.
    let stream = |n: usize| {
        let client = world.accept(from(&format!("192.0.2.{n}")));
        world.account("romeo");
        client.open();
        client.authenticate("romeo", PASSWORD);
        client.open();
        let _features = client.received();
        client
    };
    let streams: Vec<_> = (0..32).map(stream).collect();
    assert!(streams.iter().all(|client| client.want() == Some(Want::Input)));
    // One that binds makes room.
    streams[1].send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    let next = stream(40);
    assert!(streams[0].received().is_empty());
    let last = stream(41);
    let error = format!("<stream:error>{CONSTRAINT}</stream:error>");
    assert_eq!(streams[0].received(), [error, CLOSE.to_owned()]);
    assert_eq!(hits(&world, "LIMIT-26"), 1);
    assert!([next, last].iter().all(|client| client.want() == Some(Want::Input)));
    // Another account is not concerned.
    let _juliet = world.authenticated("juliet");
    assert_eq!(hits(&world, "LIMIT-26"), 1);
    // Nor does it go without a word between SASL and the header after it.
    let between: Vec<_> = (0..33)
        .map(|n| {
            let client = world.accept(from(&format!("198.51.100.{n}")));
            world.account("nurse");
            client.open();
            client.authenticate("nurse", PASSWORD);
            client
        })
        .collect();
    let told = between[0].received().concat();
    assert!(told.contains("<success ") && told.contains(CONSTRAINT) && told.ends_with(CLOSE));
    assert!(between[1..].iter().all(Client::is_connected));
}

#[test]
fn limit_27_of_too_many_that_are_being_closed_the_oldest_goes_at_once() {
    let world = World::new();
    let closing: Vec<_> = (0..60)
        .map(|n| {
            // Streams with a session, authenticated ones, and others.
            let client = world.accept(from("192.0.2.1"));
            match n % 3 {
                0 => client.send("x"),
                1 => {
                    world.account("romeo");
                    client.open();
                    client.authenticate("romeo", PASSWORD);
                    client.send("x");
                }
                _ => {
                    let node = format!("user{n}");
                    world.account(&node);
                    log_in(&client, &node);
                    client.send("</x>");
                }
            }
            assert!(client.received().concat().ends_with(CLOSE), "{n}");
            client
        })
        .collect();
    let open: Vec<_> = closing.iter().map(Client::is_connected).collect();
    assert_eq!(open, [vec![false; 10], vec![true; 50]].concat());
    // They take nobody's place.
    let client = world.accept(from("192.0.2.1"));
    assert_eq!(client.want(), Some(Want::Input));
    // A host's socket counts for as long as it says so.
    let place = closing[59].driver(xmpp_session::server::Driver::place);
    world.advance(2 * SECOND);
    assert!(closing.iter().all(|client| !client.is_connected()) && !place.is_cut());
    for _ in 0..50 {
        world.accept(from("192.0.2.1")).send("x");
    }
    assert!(place.is_cut());
}

#[test]
fn limit_20_a_new_stream_is_no_new_allowance() {
    let world = World::new();
    let juliet = world.online("juliet", "z");
    let mut delivered = 0;
    for round in 0..6 {
        world.account("romeo");
        let client = world.connect();
        log_in(&client, "romeo");
        world.advance(Duration::from_millis(100));
        client.send(&"<message to='juliet@example.com/z'/>".repeat(500));
        delivered += juliet.received().len();
        assert!(delivered <= 1010 + 20 * round, "{round}: {delivered}");
        match round % 3 {
            0 => client.lose(),
            1 => client.send("</stream:stream>"),
            _ => client.send("<x></y>"),
        }
        client.lose();
    }
    assert!(delivered > 1000, "{delivered}");
    // Another account has its own.
    let tybalt = world.client("tybalt", "x");
    tybalt.send(&"<message to='juliet@example.com/z'/>".repeat(500));
    assert_eq!(juliet.received().len(), 500);
    // It comes back with time.
    world.advance(10 * SECOND);
    let client = world.client("romeo", "y");
    client.send(&"<message to='juliet@example.com/z'/>".repeat(500));
    assert_eq!(juliet.received().len(), 500);
}

#[test]
fn limit_20_holds_before_bind_as_well() {
    let world = World::new();
    world.account("romeo");
    // Authenticated streams: what they send, and what they are answered.
    let client = world.authenticated("romeo");
    client.send(&"<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>".repeat(1100));
    assert_eq!(client.received().len(), 1001);
    assert_eq!(client.want(), None);
    client.lose();
    let client = world.authenticated("romeo");
    assert_eq!(client.want(), None, "it goes on where the other was");
    world.advance(SECOND);
    assert_eq!(client.want(), Some(Want::Input));
    // Before authentication it is the source's.
    let before = hits(&world, "LIMIT-20");
    let mut paused = false;
    for _ in 0..18 {
        let client = world.accept(from("192.0.2.1"));
        client.open();
        (0..15).for_each(|_| client.send(&" ".repeat(4096)));
        paused = client.want().is_none();
        client.lose();
    }
    assert!(paused && hits(&world, "LIMIT-20") > before);
    let other = world.accept(from("192.0.2.2"));
    other.open();
    assert_eq!(other.want(), Some(Want::Input));
}

#[test]
fn sec_5_and_6_debug_shows_no_address() {
    let world = World::new();
    let peer = Transport::new().secure(true).source("192.0.2.7");
    assert!(!format!("{peer:?}").contains("192"));
    let client = world.client("romeo", "x");
    let text = client.driver(|driver| format!("{driver:?}"));
    assert!(!text.contains("romeo"), "{text}");
    assert!(!format!("{:?}", world.server()).contains("romeo"));
}
