//! What a stanza costs on its way, in instructions, beside the limits of each way.
//!
//! `.ci/bench` runs this, and checks the ratios between the rows.

use std::hint::black_box;

use gungraun::prelude::*;
use xmpp_session::connection::Connection as _;
use xmpp_session::jid::FullJid;
use xmpp_session::minidom::Element;
use xmpp_session::session::SessionRegistry;
use xmpp_session::stanza::{Frame, Stanza, canonicalise};
use xmpp_session::stream::{Limits, Parser};
use xmpp_session_benches::{Buffer, Client, Wire, World};

/// 290 bytes.
const MESSAGE: &str = "<message to='juliet@example.com/balcony' type='chat' id='c5b2f9f4' \
    xml:lang='en'><body>Wherefore art thou Romeo? Deny thy father and refuse thy name, or or be but \
    sworn my love, etc.</body><active xmlns='http://jabber.org/protocol/chatstates'/>\
    <request xmlns='urn:xmpp:receipts'/></message>";

/// The same, to the account.
fn to_bare() -> String {
    MESSAGE.replace("/balcony", "")
}

const PRESENCE: &str = "<presence id='p1'><show>away</show><status>gone to the orchard, back \
    before the lark sings; leave a message if you must</status><priority>0</priority>\
    <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://client.example' \
    ver='QgayPKawpkPSDYmwT/WM94uAlu0='/><x xmlns='vcard-temp:x:update'><photo>\
    e8eb4dd36ea1a2a7f4b5b1b0d8b0a3c7f6b0c9a1</photo></x></presence>";

// Limits.

fn copy_setup() -> (Vec<u8>, Vec<u8>) {
    (MESSAGE.into(), Vec::with_capacity(4096))
}

#[library_benchmark]
#[bench::message(copy_setup())]
fn copy((message, mut out): (Vec<u8>, Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    out.extend_from_slice(black_box(&message));
    (message, out)
}

fn parser() -> Parser {
    let mut parser = Parser::new(&Limits::default());
    parser.feed(
        b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
          to='example.com' version='1.0'>",
    );
    assert!(matches!(parser.next(), Ok(Some(_))));
    assert!(matches!(parser.next(), Ok(None)));
    parser.authenticated(&Limits::default());
    let mut warm = MESSAGE.as_bytes();
    assert!(matches!(parser.read(&mut warm), Ok(Some(_))));
    parser
}

#[library_benchmark]
#[bench::message(parser(), MESSAGE.to_owned())]
fn recognise(mut parser: Parser, message: String) -> (Parser, String) {
    let mut input = black_box(message.as_bytes());
    let event = parser.read(&mut input);
    assert!(matches!(black_box(&event), Ok(Some(_))));
    drop(event);
    (parser, message)
}

fn registry() -> (SessionRegistry<Wire>, FullJid, Pair) {
    let pair = Pair::new(1);
    (
        pair.world.server.registry().clone(),
        FullJid::new("juliet@example.com/balcony").unwrap(),
        pair,
    )
}

#[library_benchmark]
#[bench::session(registry())]
fn look_up(
    (registry, jid, pair): (SessionRegistry<Wire>, FullJid, Pair),
) -> (SessionRegistry<Wire>, FullJid, Pair) {
    let found = registry.session(black_box(&jid));
    assert!(black_box(&found).is_some());
    drop(found);
    (registry, jid, pair)
}

fn frame(xml: &str) -> (Stanza, Wire) {
    let wire = Wire::new(Buffer::default());
    let stanza = canonicalise(xml.as_bytes()).unwrap();
    let stanza = stanza.readdressed(Some("romeo@example.com/orchard"), stanza.to().as_deref());
    wire.send(Frame::stanza(&stanza)).unwrap();
    wire.reset();
    (stanza, wire)
}

#[library_benchmark]
#[bench::message(frame(MESSAGE))]
fn send((stanza, wire): (Stanza, Wire)) -> (Stanza, Wire) {
    wire.send(Frame::stanza(black_box(&stanza))).unwrap();
    (stanza, wire)
}

#[library_benchmark]
#[bench::presence(frame(PRESENCE))]
fn send_copy((stanza, wire): (Stanza, Wire)) -> (Stanza, Wire) {
    wire.send(Frame::stanza(black_box(&stanza)).to(Some("contact12@example.com"))).unwrap();
    (stanza, wire)
}

/// What a server does that makes a tree of what arrives and writes it out.
fn tree_setup() -> (String, Vec<u8>) {
    let message = MESSAGE.replace("<message ", "<message xmlns='jabber:client' ");
    (message, Vec::with_capacity(4096))
}

#[library_benchmark]
#[bench::message(tree_setup())]
fn tree((message, mut out): (String, Vec<u8>)) -> (String, Vec<u8>) {
    let mut element: Element = black_box(&message).parse().unwrap();
    let from = xmpp_session::minidom::rxml::NcName::try_from("from").unwrap();
    element.set_attr(
        xmpp_session::minidom::rxml::Namespace::NONE,
        from,
        "romeo@example.com/orchard".to_owned(),
    );
    element.write_to(&mut out).unwrap();
    (message, out)
}

// Ways.

struct Pair {
    world: World,
    sender: Client,
    recipients: Vec<Client>,
}

impl Pair {
    fn new(resources: usize) -> Self {
        let world = World::new();
        let sender = world.online("romeo", "orchard");
        let names = ["balcony", "garden", "chamber"].into_iter().take(resources);
        let recipients = names.map(|name| world.online("juliet", name)).collect();
        let mut pair = Self { world, sender, recipients };
        let warm = if resources == 1 { MESSAGE.to_owned() } else { to_bare() };
        pair.sender.driver.receive(warm.as_bytes());
        pair.ready();
        pair
    }

    fn contacts(count: usize) -> Self {
        let world = World::new();
        let name = |n| format!("contact{n}");
        (0..count).for_each(|n| world.friends("romeo", &name(n)));
        let sender = world.online("romeo", "orchard");
        let recipients = (0..count).map(|n| world.online(&name(n), "home")).collect();
        let mut pair = Self { world, sender, recipients };
        pair.sender.driver.receive(PRESENCE.as_bytes());
        pair.ready();
        pair
    }

    fn ready(&mut self) {
        self.sender.wire.reset();
        for recipient in &self.recipients {
            let expected = recipient.wire.len();
            assert!(expected > 200, "delivered: {expected}");
            recipient.wire.reset();
        }
    }
}

#[library_benchmark]
#[bench::full(Pair::new(1), MESSAGE.to_owned())]
#[bench::three(Pair::new(3), to_bare())]
#[bench::prefixed(Pair::new(1), MESSAGE.replace("<body>", "<body><![CDATA[]]>"))]
fn message(mut pair: Pair, message: String) -> (Pair, String) {
    pair.sender.driver.receive(black_box(message.as_bytes()));
    (pair, message)
}

#[library_benchmark]
#[bench::hundred(Pair::contacts(100), PRESENCE.to_owned())]
#[bench::none(Pair::contacts(0), PRESENCE.to_owned())]
fn presence(mut pair: Pair, presence: String) -> (Pair, String) {
    pair.sender.driver.receive(black_box(presence.as_bytes()));
    (pair, presence)
}

fn roster_set(contact: usize, name: &str) -> String {
    format!(
        "<iq type='set' id='s1'><query xmlns='jabber:iq:roster'>\
         <item jid='contact{contact:04}@example.net' name='{name}'><group>Friends</group></item>\
         </query></iq>"
    )
}

/// A client with so many contacts, of which it is about to change one.
fn listed(contacts: usize) -> (Pair, String) {
    let world = World::new();
    let mut sender = world.online("romeo", "orchard");
    sender.ask("<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>");
    for contact in 0..contacts {
        let answer = sender.ask(&roster_set(contact, "Name"));
        assert!(answer.contains(" type='result'/>"), "{answer}");
    }
    sender.wire.reset();
    (Pair { world, sender, recipients: Vec::new() }, roster_set(contacts / 2, "Another"))
}

// To the result and the push.
#[library_benchmark]
#[bench::ten(listed(10))]
#[bench::hundred(listed(100))]
#[bench::thousand(listed(1_000))]
#[bench::two_thousand(listed(2_000))]
fn roster_change((mut pair, set): (Pair, String)) -> (Pair, String) {
    pair.sender.driver.receive(black_box(set.as_bytes()));
    (pair, set)
}

library_benchmark_group!(
    name = limits,
    benchmarks = [copy, recognise, look_up, send, send_copy, tree]
);
library_benchmark_group!(name = ways, benchmarks = [message, presence, roster_change]);

main!(library_benchmark_groups = [limits, ways]);
