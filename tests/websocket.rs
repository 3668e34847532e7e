//! A stream whose elements are messages, as on a WebSocket (RFC 7395, rules WS-1 to WS-11).

use crate::common::wire;
use std::task::{Context, Waker};
use std::time::Duration;

use wire::{Client, PASSWORD, World};
use xmpp_session::connection::{Close, Connection, Recorder};
use xmpp_session::minidom::Element;
use xmpp_session::outbox::{Marks, Outbox};
use xmpp_session::server::{Shutdown, Transport, Want};
use xmpp_session::stanza::{Frame, Framing, Stanza};
use xmpp_session::stream::BrokenMessage;
use xmpp_session::xep::{Carbons, ClientState, Ping, StreamManagement};

const OPEN: &str =
    "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0'/>";
const CLOSE: &str = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
const STREAM: &str = "http://etherx.jabber.org/streams";
const CLIENT: &str = "jabber:client";
const SM: &str = "urn:xmpp:sm:3";
const SECOND: Duration = Duration::from_secs(1);

fn world() -> World {
    World::with(|builder, _| {
        let builder = builder.extension(StreamManagement::new()).extension(Carbons::new());
        builder.extension(ClientState).extension(Ping)
    })
}

fn accept(world: &World, transport: Transport) -> Client {
    world.accept_on(Recorder::with_framing(Framing::Message), transport)
}

fn connect(world: &World) -> Client {
    accept(world, Transport::new().secure(true).starttls(true))
}

/// The messages that came: each is a document.
fn messages(client: &Client) -> Vec<Element> {
    let frames = client.frames();
    frames.iter().map(|xml| xml.parse().unwrap_or_else(|e| panic!("{xml}: {e}"))).collect()
}

fn ask(client: &Client, message: &str) -> Vec<Element> {
    client.send(message);
    messages(client)
}

fn names(messages: &[Element]) -> Vec<&str> {
    messages.iter().map(Element::name).collect()
}

fn condition(error: &Element) -> &str {
    assert!(error.is("error", STREAM), "{error:?}");
    error.children().next().unwrap().name()
}

/// Logs in; the features of the stream behind that.
fn authenticate(world: &World, client: &Client, node: &str) -> Element {
    world.account(node);
    let opened = ask(client, OPEN);
    assert_eq!(names(&opened), ["open", "features"]);
    client.authenticate(node, PASSWORD);
    assert_eq!(names(&messages(client)), ["success"]);
    let mut opened = ask(client, OPEN);
    assert_eq!(names(&opened), ["open", "features"]);
    opened.remove(1)
}

fn bind(client: &Client, resource: &str) {
    let bound = ask(
        client,
        &format!(
            "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{resource}</resource></bind></iq>"
        ),
    );
    assert!(bound.len() == 1 && bound[0].is("iq", CLIENT), "{bound:?}");
    assert_eq!(bound[0].attr("type"), Some("result"));
}

/// A client that is bound and has said nothing.
fn bound(world: &World, node: &str) -> Client {
    let client = connect(world);
    authenticate(world, &client, node);
    bind(&client, "page");
    client
}

fn online(world: &World, node: &str) -> Client {
    let client = bound(world, node);
    let own = ask(&client, "<presence xmlns='jabber:client'/>");
    assert!(own.iter().all(|one| one.is("presence", CLIENT)), "{own:?}");
    client
}

fn message(to: &str, body: &str) -> String {
    format!(
        "<message xmlns='jabber:client' type='chat' to='{to}@example.com'><body>{body}</body></message>"
    )
}

fn bodies(messages: &[Element]) -> Vec<String> {
    let stanzas = messages.iter().filter(|one| one.is("message", CLIENT));
    stanzas.filter_map(|one| Some(one.get_child("body", CLIENT)?.text())).collect()
}

/// Its token.
fn enable(client: &Client) -> String {
    let enabled = ask(client, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    assert!(enabled[0].is("enabled", SM), "{enabled:?}");
    enabled[0].attr("id").unwrap().to_owned()
}

fn resume(client: &Client, token: &str, h: u32) -> Vec<Element> {
    ask(client, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{token}' h='{h}'/>"))
}

#[test]
fn ws_1_everything_works_as_on_a_stream() {
    let world = world();
    let (page, phone) = (online(&world, "romeo"), world.online("juliet", "balcony"));
    page.send(&message("juliet", "from a page"));
    assert!(phone.received().concat().contains("from a page"));
    phone.send("<message to='romeo@example.com' type='chat'><body>to a page</body></message>");
    assert_eq!(bodies(&messages(&page)), ["to a page"]);
    let other = online(&world, "juliet");
    let _presence = (messages(&other), phone.received());
    let enabled = ask(
        &other,
        "<iq xmlns='jabber:client' type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>",
    );
    assert_eq!(enabled[0].attr("type"), Some("result"));
    phone.send("<message to='romeo@example.com' type='chat'><body>copied</body></message>");
    let copies = messages(&other);
    assert_eq!(copies.len(), 1);
    let copy = copies[0].get_child("sent", "urn:xmpp:carbons:2").expect("a carbon copy");
    let forwarded = copy.get_child("forwarded", "urn:xmpp:forward:0").unwrap();
    assert!(forwarded.get_child("message", CLIENT).is_some());
    assert_eq!(bodies(&messages(&page)), ["copied"]);
    let pong = ask(
        &page,
        "<iq xmlns='jabber:client' type='get' id='p' to='example.com'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    assert_eq!(pong[0].attr("type"), Some("result"));
}

#[test]
fn ws_2_a_message_that_is_not_one_element_ends_the_session() {
    for (input, expected) in [
        (" ", "bad-format"),
        ("", "not-well-formed"),
        ("<presence xmlns='jabber:client'/><presence xmlns='jabber:client'/>", "not-well-formed"),
        ("<!-- x --><presence xmlns='jabber:client'/>", "restricted-xml"),
        ("<?xml version='1.0'?><presence xmlns='jabber:client'/>", "restricted-xml"),
    ] {
        for is_fragmented in [false, true] {
            let world = world();
            let client = online(&world, "romeo");
            let token = enable(&client);
            client.driver(|driver| match is_fragmented {
                true => {
                    for byte in input.as_bytes().chunks(1) {
                        driver.receive_message(byte, false);
                    }
                    driver.receive_message(b"", true);
                }
                false => driver.receive_message(input.as_bytes(), true),
            });
            world.settle();
            let said = messages(&client);
            assert_eq!(names(&said), ["error", "close"], "{input}");
            assert_eq!(condition(&said[0]), expected, "{input}");
            assert!(said[1].is("close", FRAMING));
            let again = connect(&world);
            authenticate(&world, &again, "romeo");
            assert!(resume(&again, &token, 0)[0].is("failed", SM), "{input}");
        }
    }
}

#[test]
fn ws_2_a_broken_message_ends_the_session() {
    for (what, expected) in [
        (BrokenMessage::Binary, "not-well-formed"),
        (BrokenMessage::NotUtf8, "unsupported-encoding"),
        (BrokenMessage::TooLong, "policy-violation"),
    ] {
        let world = world();
        let client = online(&world, "romeo");
        let token = enable(&client);
        client.driver(|driver| driver.broken_message(what));
        let said = messages(&client);
        assert_eq!((names(&said), condition(&said[0])), (vec!["error", "close"], expected));
        let again = connect(&world);
        authenticate(&world, &again, "romeo");
        assert!(resume(&again, &token, 0)[0].is("failed", SM), "{what:?}");
        // Before authentication, and before any header: nothing is known to be a client of ours.
        let stranger = connect(&world);
        stranger.driver(|driver| driver.broken_message(what));
        let said = messages(&stranger);
        assert_eq!((names(&said), condition(&said[1])), (vec!["open", "error", "close"], expected));
    }
}

#[test]
fn ws_2_pipelined_messages_keep_their_edges() {
    let world = world();
    let juliet = online(&world, "juliet");
    let romeo = connect(&world);
    world.account("romeo");
    romeo.driver(|driver| {
        for message in [
            OPEN,
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
            OPEN,
            "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        ] {
            driver.receive_message(message.as_bytes(), true);
        }
        for body in ["1", "2", "3"] {
            let message = message("juliet", body);
            let (first, second) = message.as_bytes().split_at(20);
            driver.receive_message(first, false);
            driver.receive_message(second, true);
        }
    });
    world.settle();
    assert_eq!(names(&messages(&romeo)), ["open", "features", "success", "open", "features", "iq"]);
    assert_eq!(bodies(&messages(&juliet)), ["1", "2", "3"]);
}

#[test]
fn ws_3_what_does_not_open_a_stream() {
    for (input, expected) in [
        ("<open xmlns='jabber:client' to='example.com' version='1.0'/>", "invalid-namespace"),
        ("<open to='example.com' version='1.0'/>", "invalid-namespace"),
        (
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='example.com' version='1.0'>",
            "invalid-namespace",
        ),
        ("<presence xmlns='jabber:client'/>", "invalid-namespace"),
        ("<flow xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>", "bad-format"),
        (
            "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com'/>",
            "unsupported-version",
        ),
        (
            "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='x' version='1.0'/>",
            "host-unknown",
        ),
    ] {
        let world = world();
        let client = connect(&world);
        let said = ask(&client, input);
        assert_eq!(names(&said), ["open", "error", "close"], "{input}");
        assert_eq!(condition(&said[1]), expected, "{input}");
        assert!(client.is_connected(), "the client's own close is waited for");
        client.send(CLOSE);
        world.advance(2 * SECOND);
        assert!(!client.is_connected());
    }
}

#[test]
fn ws_3_the_header_says_what_that_of_a_stream_does() {
    let world = world();
    let client = connect(&world);
    let open = OPEN.replace(" to=", " from='romeo@example.com/x' xml:lang='de' to=");
    let opened = ask(&client, &open).remove(0);
    assert!(opened.is("open", FRAMING));
    let attribute = |name: &'static str| opened.attr(name);
    assert_eq!(
        (attribute("from"), attribute("to")),
        (Some("example.com"), Some("romeo@example.com"))
    );
    assert_eq!(attribute("version"), Some("1.0"));
    assert!(attribute("id").is_some_and(|id| id.len() >= 22));
    // STREAM-11
    authenticate_again(&world, &client, &open);
    bind(&client, "page");
    let juliet = world.online("juliet", "balcony");
    client.send(&message("juliet", "hallo"));
    assert!(juliet.received().concat().contains(" xml:lang='de'"));
}

fn authenticate_again(world: &World, client: &Client, open: &str) {
    world.account("romeo");
    client.authenticate("romeo", PASSWORD);
    assert_eq!(names(&messages(client)), ["success"]);
    assert_eq!(names(&ask(client, open)), ["open", "features"]);
}

#[test]
fn ws_4_whatever_the_server_sends_is_a_document() {
    let world = world();
    let page = online(&world, "romeo");
    let own = |condition: &str, element: &Element| {
        let error = element.get_child("error", CLIENT).expect("an error");
        assert!(error.get_child(condition, "urn:ietf:params:xml:ns:xmpp-stanzas").is_some());
    };
    let answers = ask(
        &page,
        "<iq xmlns='jabber:client' type='get' id='1' to='example.com'><x xmlns='urn:x'/></iq>",
    );
    own("service-unavailable", &answers[0]);
    // What comes of the server itself and of other domains.
    world.server().send(Stanza::message().from("a@example.net").to("romeo@example.com").build());
    assert!(messages(&page)[0].is("message", CLIENT));
    enable(&page);
    for body in ["1", "2", "3", "4", "5"] {
        world
            .server()
            .send(Stanza::message().from("a@example.net").to("romeo@example.com").id(body).build());
    }
    let got = messages(&page);
    assert_eq!(names(&got)[..5], ["message"; 5]);
    assert!(got[5].is("r", SM), "what is appended to a write is a message of its own: {got:?}");
}

#[test]
fn ws_5_close_answers_close() {
    let world = world();
    for state in ["nothing", "open", "authenticated", "bound"] {
        let client = connect(&world);
        match state {
            "open" => drop(ask(&client, OPEN)),
            "authenticated" => drop(authenticate(&world, &client, "romeo")),
            "bound" => {
                authenticate(&world, &client, "romeo");
                bind(&client, "page");
            }
            _ => {}
        }
        let said = ask(&client, CLOSE);
        assert!(said.len() == 1 && said[0].is("close", FRAMING), "{state}: {said:?}");
        assert!(!client.is_connected(), "{state}");
        assert_eq!(client.recorder().closed(), Some(Close::Flush), "{state}");
    }
    assert!(world.is_forgotten());
}

#[test]
fn ws_5_the_server_closes() {
    let world = world();
    let client = online(&world, "romeo");
    assert!(world.kick(&client.session()));
    let said = messages(&client);
    assert_eq!((names(&said), condition(&said[0])), (vec!["error", "close"], "policy-violation"));
    assert!(client.is_connected(), "the answer is waited for");
    client.send(CLOSE);
    assert!(!client.is_connected());
    // A resumption elsewhere tells the older transport.
    let old = online(&world, "romeo");
    let token = enable(&old);
    let new = connect(&world);
    authenticate(&world, &new, "romeo");
    assert!(resume(&new, &token, 0)[0].is("resumed", SM));
    let said = messages(&old);
    assert_eq!((names(&said), condition(&said[0])), (vec!["error", "close"], "conflict"));
    let waiting = connect(&world);
    let _open = ask(&waiting, OPEN);
    let shutdown = wire_shutdown(&world);
    assert_eq!(shutdown, "system-shutdown");
    let said = messages(&waiting);
    assert_eq!((names(&said), condition(&said[0])), (vec!["error", "close"], "system-shutdown"));
}

/// Shuts down; what a bound page is told.
fn wire_shutdown(world: &World) -> String {
    let page = online(world, "juliet");
    let mut shutdown = std::pin::pin!(world.shutdown(Shutdown::new));
    let cx = &mut Context::from_waker(Waker::noop());
    let _pending = shutdown.as_mut().poll(cx);
    world.settle();
    let said = messages(&page);
    assert_eq!(names(&said), ["error", "close"]);
    condition(&said[0]).to_owned()
}

#[test]
fn ws_6_a_restart_has_a_new_header_and_no_close() {
    let world = world();
    world.account("romeo");
    let client = connect(&world);
    let id = |opened: &[Element]| opened[0].attr("id").unwrap().to_owned();
    let first = id(&ask(&client, OPEN));
    client.authenticate("romeo", PASSWORD);
    assert_eq!(names(&messages(&client)), ["success"]);
    let again = ask(&client, OPEN);
    assert_ne!(first, id(&again));
    assert!(again[1].get_child("bind", "urn:ietf:params:xml:ns:xmpp-bind").is_some());
    // A stanza in place of it is no header.
    let client = connect(&world);
    let _opened = ask(&client, OPEN);
    client.authenticate("romeo", PASSWORD);
    let _success = messages(&client);
    let said = ask(&client, &message("juliet", "too early"));
    assert_eq!(names(&said), ["open", "error", "close"]);
    assert_eq!(condition(&said[1]), "invalid-namespace");
    // A second one without a restart is an element that nobody takes (STREAM-16).
    let client = bound(&world, "romeo");
    let said = ask(&client, OPEN);
    assert_eq!(
        (names(&said), condition(&said[0])),
        (vec!["error", "close"], "unsupported-stanza-type")
    );
}

#[test]
fn ws_7_a_silent_client_is_asked_in_xml() {
    let world = world();
    let client = online(&world, "romeo");
    world.advance(Duration::from_secs(1801));
    let asked = messages(&client);
    assert!(asked.len() == 1 && asked[0].is("iq", CLIENT), "{asked:?}");
    assert!(asked[0].get_child("ping", "urn:xmpp:ping").is_some());
    let said = ask(&client, " ");
    assert_eq!((names(&said), condition(&said[0])), (vec!["error", "close"], "bad-format"));
}

#[test]
fn ws_8_starttls_is_neither_offered_nor_taken() {
    let world = world();
    let client = connect(&world);
    let opened = ask(&client, OPEN);
    assert!(opened[1].get_child("starttls", "urn:ietf:params:xml:ns:xmpp-tls").is_none());
    assert!(opened[1].get_child("mechanisms", "urn:ietf:params:xml:ns:xmpp-sasl").is_some());
    let said = ask(&client, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(
        (names(&said), condition(&said[0])),
        (vec!["error", "close"], "unsupported-stanza-type")
    );
    assert_ne!(client.want(), Some(Want::StartTls));
    // Nothing can be offered on a transport that is not secure (STREAM-F7).
    let plain = accept(&world, Transport::new().starttls(true));
    let said = ask(&plain, OPEN);
    assert_eq!(names(&said), ["open", "error", "close"]);
    assert_eq!(condition(&said[1]), "policy-violation");
}

#[test]
fn ws_9_a_transport_that_is_lost_without_close() {
    let world = world();
    let juliet = world.online("juliet", "balcony");
    let page = online(&world, "romeo");
    let token = enable(&page);
    page.send(&message("juliet", "1"));
    page.lose();
    assert!(juliet.received().concat().contains("<body>1<"));
    juliet.send("<message to='romeo@example.com' type='chat'><body>2</body></message>");
    let again = connect(&world);
    authenticate(&world, &again, "romeo");
    let got = resume(&again, &token, 0);
    assert!(got[0].is("resumed", SM), "{got:?}");
    assert_eq!(got[0].attr("h"), Some("1"));
    assert_eq!(bodies(&got), ["2"]);
    // Without stream management it is the end of the session.
    let other = bound(&world, "romeo");
    let session = other.session();
    other.lose();
    assert!(session.is_ended());
}

#[test]
fn ws_11_a_stanza_that_is_too_large_ends_the_session() {
    let world = world();
    let juliet = world.online("juliet", "balcony");
    for is_fragmented in [false, true] {
        let page = online(&world, "romeo");
        let token = enable(&page);
        let large = message("juliet", &"x".repeat(262_144));
        page.driver(|driver| match is_fragmented {
            true => {
                for piece in large.as_bytes().chunks(4096) {
                    driver.receive_message(piece, false);
                }
            }
            false => driver.receive_message(large.as_bytes(), true),
        });
        world.settle();
        let said = messages(&page);
        assert_eq!(
            (names(&said), condition(&said[0])),
            (vec!["error", "close"], "policy-violation")
        );
        let again = connect(&world);
        authenticate(&world, &again, "romeo");
        assert!(resume(&again, &token, 0)[0].is("failed", SM));
        bind(&again, "page");
        assert_eq!(juliet.received(), [""; 0]);
        again.send(CLOSE);
    }
}

#[test]
fn ws_11_other_limits_are_those_of_a_stream() {
    let world = world();
    let page = online(&world, "romeo");
    let deep = format!(
        "<message xmlns='jabber:client' id='1' to='juliet@example.com'>{}{}</message>",
        "<a xmlns='urn:a'>".repeat(64),
        "</a>".repeat(64)
    );
    let answer = ask(&page, &deep);
    assert!(answer[0].is("message", CLIENT), "{answer:?}");
    assert_eq!(answer[0].attr("type"), Some("error"));
    let stranger = connect(&world);
    let _opened = ask(&stranger, OPEN);
    let said = ask(
        &stranger,
        &format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</auth>", "x".repeat(10_000)),
    );
    assert_eq!((names(&said), condition(&said[0])), (vec!["error", "close"], "policy-violation"));
    // STREAM-18: at its start tag.
    let stranger = connect(&world);
    let _opened = ask(&stranger, OPEN);
    stranger.driver(|driver| driver.receive_message(b"<message xmlns='jabber:client'>", false));
    let said = messages(&stranger);
    assert_eq!((names(&said), condition(&said[0])), (vec!["error", "close"], "not-authorized"));
}

#[test]
fn ws_4_what_waits_in_an_outbox_keeps_its_edges() {
    let (outbox, mut drain) = Outbox::with_framing(Marks::default(), Framing::Message);
    let stanza = Stanza::message().to("a@b").build();
    for _ in 0..2 {
        outbox.send(Frame::stanza(&stanza)).unwrap();
    }
    outbox.send_all(&[Frame::element(b"<r xmlns='urn:r'/>"), Frame::close()]).unwrap();
    outbox.close(Close::Flush);
    let expected = ["<message xmlns='jabber:client' to='a@b'/>"; 2];
    let expected: Vec<_> = expected.into_iter().chain(["<r xmlns='urn:r'/>", CLOSE]).collect();
    let first = drain.fill_blocking(None).map(|bytes| bytes.map(<[u8]>::to_vec));
    assert_eq!(first, std::task::Poll::Ready(Some(expected[0].as_bytes().to_vec())));
    let all: Vec<_> =
        drain.messages().map(|one| String::from_utf8(one.to_vec()).unwrap()).collect();
    assert_eq!(all, expected);
    // The half of one, then that and the next, then the rest.
    let mut taken = Vec::new();
    for most in [10, expected[0].len() - 10 + expected[1].len(), usize::MAX] {
        let mut left = most;
        for message in drain.messages() {
            let piece = &message[..left.min(message.len())];
            left -= piece.len();
            taken.extend_from_slice(piece);
        }
        drain.consume(most.saturating_sub(left));
    }
    assert_eq!(String::from_utf8(taken).unwrap(), expected.concat());
    assert_eq!(outbox.waiting(), 0);
    assert_eq!(drain.fill_blocking(None), std::task::Poll::Ready(None));
}

/// The messages that clients get when a server shuts down like this: one before its login and, on a secure
/// transport, one that is bound.
fn dismissed(secure: bool, how: fn() -> Shutdown) -> Vec<Vec<Element>> {
    let world = world();
    let mut clients = vec![accept(&world, Transport::new().secure(secure))];
    if secure {
        let _opened = ask(&clients[0], OPEN);
        clients.push(bound(&world, "romeo"));
    }
    let mut shutdown = std::pin::pin!(world.shutdown(how));
    while shutdown.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        world.advance(SECOND);
    }
    world.settle();
    clients.iter().map(messages).collect()
}

#[test]
fn ws_10_clients_are_sent_to_another_uri() {
    const URI: &str = "wss://two.example.com/xmpp-websocket?a=1&b='2'";
    for how in [
        || Shutdown::new().see_other_uri(URI),
        || Shutdown::new().see_other_host("two.example.com", None).see_other_uri(URI),
        || Shutdown::new().see_other_uri(URI).see_other_host("two.example.com", None),
    ] as [fn() -> Shutdown; 3]
    {
        for said in dismissed(true, how) {
            assert_eq!(names(&said), ["close"]);
            assert_eq!(said[0].attr("see-other-uri"), Some(URI));
        }
    }
    for (secure, how) in [
        (true, || Shutdown::new().see_other_host("two.example.com", None)),
        (true, || Shutdown::new().see_other_uri("ws://two.example.com/xmpp-websocket")),
        (true, || Shutdown::new().see_other_uri("two.example.com")),
        (false, || Shutdown::new().see_other_uri(URI)),
    ] as [(bool, fn() -> Shutdown); 4]
    {
        for said in dismissed(secure, how) {
            let [.., error, close] = &*said else { panic!("{said:?}") };
            assert_eq!(condition(error), "system-shutdown");
            assert!(close.is("close", FRAMING) && close.attr("see-other-uri").is_none());
        }
    }
    // Over TCP there is no URI.
    let world = World::new();
    let phone = world.client("juliet", "balcony");
    let mut shutdown = std::pin::pin!(world.shutdown(|| Shutdown::new().see_other_uri(URI)));
    let _done = shutdown.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(phone.received().concat().contains("<system-shutdown "));
}
