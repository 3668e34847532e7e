//! Streams on the wire: headers, features, errors and ends (rules STREAM-1 to STREAM-33, SERR-2).

use crate::common::wire;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wire::{Client, PASSWORD, World};
use xmpp_session::connection::{Close, Recorder};
use xmpp_session::jid::DomainPart;
use xmpp_session::sasl::Policy;
use xmpp_session::server::{DomainPolicy, ServerBuilder, Transport, Want};
use xmpp_session::session::Reason;
use xmpp_session::xep::{ClientState, StreamManagement};

const SECOND: Duration = Duration::from_secs(1);
const CLOSE: &str = "</stream:stream>";

/// A world with a second domain, a former one and no default.
fn world() -> World {
    World::with(|builder, _| {
        builder.domain(domain("example.net")).former_domain(domain("old.example"))
    })
}

fn with(
    configure: impl FnOnce(ServerBuilder<Recorder>) -> ServerBuilder<Recorder> + Clone,
) -> World {
    World::with(|builder, _| configure(builder))
}

fn domain(name: &str) -> DomainPart {
    DomainPart::new(name).unwrap().into_owned()
}

/// The client's header with these attributes.
fn header(attributes: &str) -> String {
    format!(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         {attributes}>"
    )
}

/// The server's, its id left out.
fn answer(from: &str, rest: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream from='{from}'{rest} xml:lang='en' \
         xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    )
}

fn error(condition: &str) -> String {
    format!(
        "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
    )
}

/// What came, with the ids of headers taken out and given back.
fn read(client: &Client) -> (Vec<String>, Vec<String>) {
    let mut ids = Vec::new();
    let cut = |element: String| {
        let Some((before, rest)) = element.split_once(" id='") else { return element };
        if !element.starts_with("<?xml") {
            return element;
        }
        let (id, after) = rest.split_once('\'').unwrap();
        ids.push(id.to_owned());
        format!("{before}{after}")
    };
    (client.received().into_iter().map(cut).collect(), ids)
}

fn ask(client: &Client, xml: &str) -> Vec<String> {
    client.send(xml);
    read(client).0
}

/// The stream is closed, with nothing behind, and the transport ends in time.
fn assert_over(world: &World, client: &Client) {
    client.send("<presence/><message to='juliet@example.com'><body>late</body></message>");
    world.advance(2 * SECOND);
    assert_eq!(client.received(), [""; 0]);
    assert!(!client.is_connected());
    assert!(client.recorder().closed().is_some());
    assert_eq!(world.metrics().unauthenticated, 0);
}

/// States a stream can be in.
fn streams(world: &World) -> [(&'static str, Client); 3] {
    let open = world.connect();
    open.open();
    let _features = open.received();
    [
        ("open", open),
        ("authenticated", world.authenticated("romeo")),
        ("bound", world.client("romeo", "orchard")),
    ]
}

#[test]
fn stream_1_every_header_is_answered_with_the_features_of_the_state() {
    let world = World::new();
    world.account("romeo");
    let client = world.connect();
    let first = ask(&client, &header("to='example.com' version='1.0'"));
    assert_eq!(first.len(), 2);
    assert!(first[1].starts_with("<stream:features><mechanisms "), "{first:?}");
    client.authenticate("romeo", PASSWORD);
    let _success = client.received();
    let second = ask(&client, &header("to='example.com' version='1.0'"));
    assert_eq!(second.len(), 2);
    assert!(second[1].starts_with("<stream:features><bind "), "{second:?}");
}

#[test]
fn stream_2_without_a_version_there_is_no_stream() {
    for attributes in ["to='example.com'", "to='example.com' version='0.9'"] {
        let world = world();
        let client = world.connect();
        let said = ask(&client, &header(attributes));
        let expected = [answer("example.com", ""), error("unsupported-version"), CLOSE.to_owned()];
        assert_eq!(said, expected, "{attributes}");
        assert_over(&world, &client);
    }
}

#[test]
fn stream_3_versions_are_compared_as_numbers() {
    for (theirs, ours) in [("1.0", "1.0"), ("1.1", "1.0"), ("10.2", "1.0"), ("01.00", "1.0")] {
        let world = world();
        let client = world.connect();
        let said = ask(&client, &header(&format!("to='example.com' version='{theirs}'")));
        assert_eq!(said[0], answer("example.com", &format!(" version='{ours}'")), "{theirs}");
        assert!(said[1].starts_with("<stream:features>"), "{said:?}");
    }
}

#[test]
fn stream_4_without_an_address_the_default_domain_is_meant() {
    let world =
        with(|builder| builder.domain(domain("example.net")).default_domain(domain("example.net")));
    let said = ask(&world.connect(), &header("version='1.0'"));
    assert_eq!(said[0], answer("example.net", " version='1.0'"));

    let world = self::world();
    let client = world.connect();
    let said = ask(&client, &header("version='1.0'"));
    let expected =
        [answer("example.com", " version='1.0'"), error("host-unknown"), CLOSE.to_owned()];
    assert_eq!(said, expected);
    assert_over(&world, &client);
}

#[test]
fn stream_5_domains_that_are_not_served() {
    for (to, condition) in [
        ("elsewhere.example", "host-unknown"),
        ("old.example", "host-gone"),
        ("romeo@example.com", "host-unknown"),
        ("", "host-unknown"),
    ] {
        let world = world();
        let client = world.connect();
        let said = ask(&client, &header(&format!("to='{to}' from='romeo@{to}' version='1.0'")));
        assert!(said[0].starts_with("<?xml version='1.0'?><stream:stream from='example.com'"));
        assert_eq!(said[1..], [error(condition), CLOSE.to_owned()], "{to}");
        assert_over(&world, &client);
    }
}

#[test]
fn stream_6_domains_are_normalised() {
    for to in ["EXAMPLE.com", "example.com.", "Example.COM."] {
        let world = world();
        let said = ask(&world.connect(), &header(&format!("to='{to}' version='1.0'")));
        assert_eq!(said[0], answer("example.com", " version='1.0'"), "{to}");
    }
    let world = with(|builder| builder.domain(domain("bücher.example")));
    let said = ask(&world.connect(), &header("to='BÜCHER.example' version='1.0'"));
    assert!(said[1].starts_with("<stream:features>"), "{said:?}");
}

#[test]
fn stream_7_an_authenticated_stream_stays_in_its_domain() {
    let world = world();
    world.account("romeo");
    let client = world.connect();
    client.open();
    client.authenticate("romeo", PASSWORD);
    let _before = client.received();
    let said = ask(&client, &header("to='example.net' version='1.0'"));
    let expected =
        [answer("example.net", " version='1.0'"), error("not-authorized"), CLOSE.to_owned()];
    assert_eq!(said, expected);
    assert_over(&world, &client);
}

#[test]
fn stream_8_tls_forgets_what_was_said_before() {
    let world = World::with(|builder, environment| {
        let policy = DomainPolicy::default();
        let mut other = DomainPolicy::default();
        other.sasl =
            Some(Policy::new(&*environment).mechanisms(&[xmpp_session::sasl::Mechanism::Plain]));
        builder.domain_with(domain("example.net"), other).domain_with(domain("example.org"), policy)
    });
    let client = world.accept(Transport::new().starttls(true));
    client.send(&header("to='example.org' from='romeo@example.org' version='1.0' xml:lang='de'"));
    client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    let _before = client.received();
    client.driver(|driver| driver.secured(xmpp_session::sasl::ChannelBindings::new()));
    let said = ask(&client, &header("to='example.net' version='1.0'"));
    // No `to`: the new header has no `from`. The mechanisms are those of the new domain.
    assert_eq!(said[0], answer("example.net", " version='1.0'"));
    assert!(said[1].contains("<mechanism>PLAIN</mechanism></mechanisms>"), "{said:?}");
    assert!(!said[1].contains("SCRAM"), "{said:?}");
}

#[test]
fn stream_9_the_answer_names_the_client_if_it_named_itself() {
    let world = world();
    let said = ask(
        &world.connect(),
        &header("to='example.com' from='Romeo@example.com/orchard' version='1.0'"),
    );
    assert_eq!(said[0], answer("example.com", " to='romeo@example.com' version='1.0'"));
    let said = ask(&world.connect(), &header("to='example.com' version='1.0'"));
    assert_eq!(said[0], answer("example.com", " version='1.0'"));
}

#[test]
fn stream_10_ids_are_long_and_never_the_same() {
    let world = world();
    world.account("romeo");
    let mut seen = HashSet::new();
    for _ in 0..50 {
        let client = world.connect();
        client.send(&header("to='example.com' version='1.0' id='mine'"));
        client.authenticate("romeo", PASSWORD);
        client.open();
        let (_, ids) = read(&client);
        assert_eq!(ids.len(), 2);
        assert!(ids.iter().all(|id| id.len() >= 32 && id != "mine"), "{ids:?}");
        seen.extend(ids);
    }
    assert_eq!(seen.len(), 100);
}

#[test]
fn stream_11_the_language_of_the_header_is_that_of_its_stanzas() {
    let world = World::new();
    world.account("romeo");
    let juliet = world.online("juliet", "balcony");
    let client = world.connect();
    client.open();
    client.authenticate("romeo", PASSWORD);
    client.send(&header("to='example.com' version='1.0' xml:lang='de'"));
    client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    client.send("<message to='juliet@example.com'><body>Hallo</body></message>");
    client.send("<message to='juliet@example.com' xml:lang='fr'><body>Salut</body></message>");
    let got = juliet.received();
    assert!(got[0].contains("xml:lang='de'") && got[1].contains("xml:lang='fr'"), "{got:?}");
}

#[test]
fn stream_16_unknown_elements_close() {
    let world = World::new();
    for (state, client) in streams(&world) {
        let said = ask(&client, "<element xmlns='urn:example:unknown'/>");
        assert_eq!(said, [error("unsupported-stanza-type"), CLOSE.to_owned()], "{state}");
        assert_over(&world, &client);
    }
}

#[test]
fn stream_16_the_answer_comes_at_the_start_tag() {
    let world = with(|builder| builder.extension(StreamManagement::new()).extension(ClientState));
    for element in [
        "<foo xmlns='x:y'>",
        "<foo xmlns='x:y'><message to='juliet@example.com'>",
        "<stream:stream xmlns='jabber:client' to='example.com' version='1.0'>",
        "<stream:features>",
        "<foo>",
        "<body>text",
        "<r xmlns='x:y'>",
        "<foo xmlns='urn:xmpp:sm:3'>",
        "<foo xmlns='urn:xmpp:csi:0'>",
        "<error xmlns='jabber:client'>",
        "<starttls xmlns='jabber:client'>",
    ] {
        for (state, client) in streams(&world) {
            let said = ask(&client, element);
            assert_eq!(
                said,
                [error("unsupported-stanza-type"), CLOSE.to_owned()],
                "{state}: {element}"
            );
            assert_over(&world, &client);
        }
    }
    // What may turn out to be something is waited for.
    for (element, end) in [
        ("<r xmlns='urn:xmpp:sm:3'>", "</r>"),
        ("<stream:error>", "</stream:error>"),
        ("<active xmlns='urn:xmpp:csi:0'>", "</active>"),
        ("<message>", "</message>"),
        ("<presence>", "</presence>"),
    ] {
        let client = world.client("romeo", &element[1..4]);
        assert_eq!(ask(&client, element), [""; 0], "{element}");
        client.send(end);
        assert!(!client.received().concat().contains("unsupported-stanza-type"), "{element}");
    }
    for (state, client) in streams(&world).into_iter().skip(1) {
        let said =
            ask(&client, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>");
        assert_eq!(said, [error("not-authorized"), CLOSE.to_owned()], "{state}");
        let client = world.client("romeo", state);
        let said = ask(&client, "<message xmlns='jabber:server'>");
        assert_eq!(said, [error("invalid-namespace"), CLOSE.to_owned()], "{state}");
    }
    let [(_, open), ..] = streams(&world);
    for (element, end) in [
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>", "</auth>"),
        ("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'>", "</starttls>"),
    ] {
        assert_eq!(ask(&open, element), [""; 0], "{element}");
        assert!(!ask(&open, end).is_empty(), "{element}");
    }
}

#[test]
fn stream_15_names_that_are_not_ascii_are_answered_and_not_passed_on() {
    let world = World::new();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
    for inside in [
        "<\u{2c00} xmlns='urn:x'/>",
        "<x xmlns='urn:x' \u{2c00}='1'/>",
        "<p:x xmlns:p='urn:a b'/>",
        "<x xmlns='urn:}'/>",
    ] {
        for (kind, start) in [
            ("message", "<message to='juliet@example.com/balcony' id='1'>"),
            ("message", "<message to='juliet@example.com' id='1'><body>b</body>"),
            ("presence", "<presence to='juliet@example.com/balcony' id='1'>"),
            ("presence", "<presence to='juliet@example.com' type='subscribe' id='1'>"),
            ("presence", "<presence id='1'>"),
            ("iq", "<iq to='juliet@example.com/balcony' type='set' id='1'>"),
            ("iq", "<iq type='set' id='1'>"),
        ] {
            let answer = romeo.answer(&format!("{start}{inside}</{kind}>"));
            assert!(
                answer.starts_with(&format!("<{kind} ")) && answer.contains(" id='1'"),
                "{answer}"
            );
            assert!(answer.contains("<error type='modify'><not-acceptable "), "{answer}");
            assert_eq!(juliet.received(), [""; 0], "{start}{inside}");
        }
    }
}

#[test]
fn stream_17_text_closes_and_white_space_does_not() {
    let world = World::new();
    for (state, client) in streams(&world) {
        assert_eq!(ask(&client, " \n\t "), [""; 0], "{state}");
        assert_eq!(client.want(), Some(Want::Input));
        let said = ask(&client, "text");
        assert_eq!(said, [error("bad-format"), CLOSE.to_owned()], "{state}");
        assert_over(&world, &client);
    }
}

#[test]
fn stream_18_no_stanza_before_authentication() {
    for stanza in [
        "<message to='juliet@example.com'><body>Hi</body></message>",
        "<presence/>",
        "<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>",
        "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        "<iq type='error' id='1'/>",
    ] {
        let world = World::new();
        let juliet = world.online("juliet", "balcony");
        let client = world.connect();
        client.open();
        let _features = client.received();
        let said = ask(&client, stanza);
        assert_eq!(said, [error("not-authorized"), CLOSE.to_owned()], "{stanza}");
        assert_over(&world, &client);
        assert_eq!(juliet.received(), [""; 0]);
    }
    // The start tag says so.
    let world = World::new();
    for start in
        ["<message>", "<presence to='juliet@example.com'>", "<iq type='get' id='1'><query>"]
    {
        let [(_, client), ..] = streams(&world);
        assert_eq!(ask(&client, start), [error("not-authorized"), CLOSE.to_owned()], "{start}");
    }
}

#[test]
fn stream_19_to_21_what_is_no_xml_closes() {
    for (input, condition) in [
        ("<a><b></a></b>", "not-well-formed"),
        ("<a b='1' b='2'/>", "not-well-formed"),
        ("<presence>\u{1}</presence>", "not-well-formed"),
        ("<!-- comment -->", "restricted-xml"),
        ("<?target data?>", "restricted-xml"),
        ("<!DOCTYPE a>", "restricted-xml"),
        ("<presence><status>&lol;</status></presence>", "restricted-xml"),
        ("<message xmlns='jabber:server'/>", "invalid-namespace"),
    ] {
        let world = World::new();
        for (state, client) in streams(&world) {
            let said = ask(&client, input);
            assert_eq!(said, [error(condition), CLOSE.to_owned()], "{state}: {input}");
            assert_over(&world, &client);
        }
    }
}

#[test]
fn stream_23_half_a_stanza_has_no_effect() {
    let world = World::new();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
    let message = "<message to='juliet@example.com'><body>Hi</body></message>";
    for byte in message.split_inclusive(|_| true) {
        assert_eq!(juliet.received(), [""; 0]);
        romeo.send(byte);
    }
    assert_eq!(juliet.received().len(), 1);
    romeo.send("<message to='juliet@example.com'><body>cut</body>");
    romeo.lose();
    assert_eq!(juliet.received(), [""; 0]);
}

#[test]
fn stream_24_an_error_is_one_frame_and_the_last_one() {
    let world = World::new();
    for (state, client) in streams(&world) {
        client.send("<element xmlns='urn:example:unknown'/><element xmlns='urn:example:unknown'/>");
        let frames = client.recorder().take();
        let expected = format!("{}{CLOSE}", error("unsupported-stanza-type"));
        assert_eq!(frames, [expected], "{state}");
        client.send("<<<");
        assert!(client.recorder().take().is_empty(), "{state}");
        assert!(!client.is_connected(), "{state}: what follows cannot be read");
    }
}

#[test]
fn stream_24_any_number_of_closes_yields_one_close_tag() {
    let world = World::new();
    let client = world.client("romeo", "orchard");
    let registry = world.home_of("romeo").registry();
    assert!(registry.destroy_session(&client.session(), Reason::Kicked));
    assert!(!registry.destroy_session(&client.session(), Reason::Kicked));
    client.send(CLOSE);
    client.send(CLOSE);
    assert_eq!(client.received(), [error("policy-violation"), CLOSE.to_owned()]);
    assert!(!client.is_connected());
}

#[test]
fn stream_25_an_early_error_brings_the_header_along() {
    for (input, condition) in [
        (
            "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:server' to='example.com' version='1.0'>",
            "invalid-namespace",
        ),
        ("<stream xmlns='jabber:client'>", "invalid-namespace"),
        ("<?xml version='1.0' encoding='latin1'?>", "unsupported-encoding"),
        ("<!DOCTYPE stream>", "restricted-xml"),
        ("GET / HTTP/1.1\r\n", "not-well-formed"),
        ("\u{feff}<stream:stream", "not-well-formed"),
    ] {
        let world = world();
        let client = world.connect();
        client.send(input);
        let frames = client.recorder().take();
        assert_eq!(frames.len(), 1, "{input}: {frames:?}");
        assert!(frames[0].starts_with("<?xml version='1.0'?><stream:stream from='example.com'"));
        assert!(
            frames[0].ends_with(&format!("{}{CLOSE}", error(condition))),
            "{input}: {frames:?}"
        );
        assert_over(&world, &client);
    }
}

#[test]
fn stream_25_also_on_the_stream_behind_sasl() {
    let world = World::new();
    world.account("romeo");
    let client = world.connect();
    client.send(&header("to='example.com' from='romeo@example.com' version='1.0'"));
    client.authenticate("romeo", PASSWORD);
    let _before = client.received();
    client.send("<message to='juliet@example.com'/>");
    let frames = client.recorder().take();
    assert_eq!(frames.len(), 1);
    assert!(frames[0].starts_with("<?xml version='1.0'?><stream:stream from='example.com' id='"));
    assert!(frames[0].ends_with(&format!("{}{CLOSE}", error("invalid-namespace"))), "{frames:?}");
}

#[test]
fn stream_26_the_close_tag_of_the_client_is_waited_for() {
    // After an error: 2 s, or until it comes.
    let world = World::new();
    for (state, client) in streams(&world) {
        client.send("<element xmlns='urn:example:unknown'/>");
        world.advance(SECOND);
        assert!(client.is_connected(), "{state}");
        client.send(CLOSE);
        assert!(!client.is_connected(), "{state}");
        assert_eq!(client.recorder().closed(), Some(Close::Flush), "{state}");
    }
    let client = world.client("romeo", "orchard");
    client.send("<element xmlns='urn:example:unknown'/>");
    world.advance(2 * SECOND);
    assert!(!client.is_connected());
    // After a clean close: 5 s.
    let client = world.client("romeo", "orchard");
    world.destroy(&client.session(), Reason::Closed);
    world.advance(4 * SECOND);
    assert_eq!(client.received(), [CLOSE]);
    assert!(client.is_connected());
    world.advance(SECOND);
    assert!(!client.is_connected());
}

#[test]
fn stream_27_the_close_tag_ends_what_is_before_it_and_ignores_what_is_behind() {
    let world = World::new();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
    romeo.send(
        "<message to='juliet@example.com'><body>one</body></message></stream:stream>\
         <message to='juliet@example.com'><body>two</body></message>",
    );
    let got = juliet.received();
    assert!(got.len() == 1 && got[0].contains("one"), "{got:?}");
    assert_eq!(romeo.received(), [CLOSE]);
    assert!(!romeo.is_connected());
    assert_eq!(world.counts().sessions, 1);
}

#[test]
fn stream_27_the_close_tag_is_answered_in_every_state() {
    let world = World::new();
    for (state, client) in streams(&world) {
        assert_eq!(ask(&client, CLOSE), [CLOSE], "{state}");
        assert!(!client.is_connected(), "{state}");
        assert_eq!(client.recorder().closed(), Some(Close::Flush), "{state}");
    }
    let client = world.connect();
    let said = ask(
        &client,
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0'/>",
    );
    assert_eq!(said.last().map(String::as_str), Some(CLOSE));
    assert!(!client.is_connected());
}

#[test]
fn stream_28_what_follows_sasl_at_once_is_the_next_stream() {
    let world = World::new();
    world.account("romeo");
    let client = world.connect();
    let all = format!(
        "{h}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>\
         {h}<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>orchard</resource></bind></iq><presence/>",
        h = header("to='example.com' version='1.0'")
    );
    client.send(&all);
    assert_eq!(client.jid(), "romeo@example.com/orchard");
    assert!(client.session().available().is_some());
    let (said, _) = read(&client);
    assert_eq!(said.iter().filter(|one| one.starts_with("<?xml")).count(), 2);
    assert!(!said.iter().any(|one| one == CLOSE), "a restart has no close tag");
}

#[test]
fn stream_29_a_silent_client_is_asked_first() {
    let world = World::new();
    let (client, idle) = (world.client("romeo", "orchard"), world.client("romeo", "garden"));
    world.advance(1799 * SECOND);
    assert_eq!(client.received(), [""; 0]);
    world.advance(SECOND);
    for client in [&client, &idle] {
        let asked = client.received();
        assert!(
            asked.len() == 1 && asked[0].contains("<ping xmlns='urn:xmpp:ping'/>"),
            "{asked:?}"
        );
    }
    world.advance(59 * SECOND);
    client.send(" ");
    world.advance(SECOND);
    assert!(client.is_connected());
    // Given up without a word.
    assert!(!idle.is_connected());
    assert_eq!(idle.received(), [""; 0]);
    assert_eq!(idle.recorder().closed(), Some(Close::Abort));
    world.advance(1798 * SECOND);
    assert_eq!(client.received(), [""; 0], "asked too often");
    world.advance(SECOND);
    assert_eq!(client.received().len(), 1);
}

#[test]
fn stream_29_nobody_is_asked_more_often_than_every_five_minutes() {
    let mut limits = xmpp_session::server::Limits::default();
    limits.silence = SECOND;
    let world = with(|builder| builder.limits(limits));
    let client = world.client("romeo", "orchard");
    world.advance(299 * SECOND);
    assert_eq!(client.received(), [""; 0]);
    world.advance(SECOND);
    assert_eq!(client.received().len(), 1);
}

#[test]
fn stream_30_no_other_host_is_named_on_a_plain_stream() {
    // Nothing in the server sends `see-other-host`: the word does not occur on any stream.
    let world = world();
    let client = world.accept(Transport::new().starttls(true));
    let said = ask(&client, &header("to='elsewhere.example' version='1.0'"));
    assert!(!said.concat().contains("see-other-host"));
}

#[test]
fn stream_31_no_compression() {
    let world = World::new();
    for (state, client) in streams(&world) {
        let said = ask(
            &client,
            "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>",
        );
        assert_eq!(said, [error("unsupported-stanza-type"), CLOSE.to_owned()], "{state}");
    }
}

#[test]
fn stream_32_limits_are_advertised() {
    let world = World::new();
    let client = world.connect();
    client.open();
    let features = client.received().remove(1);
    assert!(features.contains("<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes><idle-seconds>60</idle-seconds></limits>"), "{features}");
    world.account("romeo");
    client.authenticate("romeo", PASSWORD);
    client.open();
    let features = client.received().remove(2);
    assert!(features.contains("<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>262144</max-bytes><idle-seconds>1800</idle-seconds></limits>"), "{features}");
}

#[test]
fn stream_33_no_features_once_bound() {
    let world = World::new();
    let client = world.client("romeo", "orchard");
    // A second header is an element out of place.
    let said = ask(&client, &header("to='example.com' version='1.0'"));
    assert!(!said.concat().contains("features"), "{said:?}");
}

/// The features that a transport is offered on its first stream, or the error.
fn offered(tls_required: bool, insecure_sasl: bool, peer: Transport) -> String {
    let world = World::with(|builder, environment| {
        let mut policy = DomainPolicy::default();
        policy.tls_required = tls_required;
        policy.sasl = Some(Policy::new(&*environment).allow_insecure(insecure_sasl));
        builder.domain_with(domain("example.net"), policy)
    });
    let client = world.accept(peer);
    ask(&client, &header("to='example.net' version='1.0'"))[1..].concat()
}

const LIMITS: &str = "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes><idle-seconds>60</idle-seconds></limits></stream:features>";
const STARTTLS: &str = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const SCRAM: &str = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism>";

const SASL_2: &str = "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism><inline><bind xmlns='urn:xmpp:bind:0'/><fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast></inline><upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-512</upgrade><upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade></authentication>";

#[test]
fn stream_f1_tls_required() {
    for insecure_sasl in [true, false] {
        assert_eq!(
            offered(true, insecure_sasl, Transport::new().starttls(true)),
            "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
        );
    }
}

#[test]
fn stream_f2_tls_optional() {
    let peer = || Transport::new().starttls(true);
    assert_eq!(offered(false, true, peer()), format!("{STARTTLS}{SCRAM}</mechanisms>{LIMITS}"));
    assert_eq!(offered(false, false, peer()), format!("{STARTTLS}{LIMITS}"));
}

#[test]
fn stream_f2_starttls_is_offered_only_where_it_can_be_done() {
    assert_eq!(
        offered(false, true, Transport::new()),
        format!("<stream:features>{SCRAM}</mechanisms>{LIMITS}")
    );
}

#[test]
fn stream_f4_after_sasl() {
    let world = World::new();
    world.account("romeo");
    let client = world.connect();
    client.open();
    client.authenticate("romeo", PASSWORD);
    let _before = client.received();
    client.open();
    let features = client.received().remove(1);
    for offered in [
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
        "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>",
        "<ver xmlns='urn:xmpp:features:rosterver'/>",
        "<sub xmlns='urn:xmpp:features:pre-approval'/>",
    ] {
        assert!(features.contains(offered), "{features}");
    }
    assert!(!features.contains("starttls") && !features.contains("mechanism"), "{features}");
}

#[test]
fn stream_f7_nothing_to_offer_closes() {
    let text = format!(
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>\
         no way to log in can be offered on this transport</text></stream:error>{CLOSE}"
    );
    let closed = error("policy-violation").replace("</stream:error>", &text);
    for insecure_sasl in [true, false] {
        assert_eq!(offered(true, insecure_sasl, Transport::new()), closed);
    }
    assert_eq!(offered(false, false, Transport::new()), closed);
}

#[test]
fn stream_f8_declared_secure() {
    assert_eq!(
        offered(true, false, Transport::new().secure(true).starttls(true)),
        format!("{STARTTLS}{SCRAM}<mechanism>PLAIN</mechanism></mechanisms>{SASL_2}{LIMITS}")
    );
    assert_eq!(
        offered(true, false, Transport::new().secure(true)),
        format!(
            "<stream:features>{SCRAM}<mechanism>PLAIN</mechanism></mechanisms>{SASL_2}{LIMITS}"
        )
    );
}

#[test]
fn serr_2_a_stream_error_of_the_client_ends_the_session() {
    let world = World::new();
    for (state, client) in streams(&world) {
        let xml = "<stream:error><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
        assert_eq!(ask(&client, xml), [CLOSE], "{state}");
        assert!(!client.is_connected(), "{state}");
    }
    assert_eq!(world.counts().sessions, 0);
}

#[test]
fn stream_24_last_words_wait_for_another_writer() {
    // While another thread writes to a session, the words that its owner adds are written by that
    // thread: the transport must not be closed before.
    let world = World::new();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
    let close = Arc::new(Mutex::new(Some(romeo.clone())));
    let recorder = romeo.recorder().clone();
    recorder.on_send(move |_| {
        // Inside the write of juliet's message: romeo closes, and its driver asks to end.
        if let Some(romeo) = close.lock().unwrap().take() {
            romeo.driver(|driver| driver.receive(CLOSE.as_bytes()));
        }
    });
    juliet.send("<message to='romeo@example.com/orchard'><body>Hi</body></message>");
    let got = romeo.received();
    assert!(got.len() == 2 && got[0].contains("Hi") && got[1] == CLOSE, "{got:?}");
    assert!(!romeo.is_connected());
    assert_eq!(romeo.recorder().closed(), Some(Close::Flush));
}
