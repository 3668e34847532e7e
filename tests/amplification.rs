//! What goes out for what comes in, for each kind of request (SEC-12, docs/amplification.md).

use crate::common::wire;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::{Client, World};
use xmpp_session::rules::roster::Subscription;
use xmpp_session::store::Stores;
use xmpp_session::xep;

const STREAMS: &str = "http://etherx.jabber.org/streams";

fn world() -> World {
    let stores = Stores::memory();
    let blocks = Arc::clone(&stores.blocks);
    let world = World::with_stores(stores, |builder, environment| {
        builder
            .extension(xep::StreamManagement::new())
            .extension(xep::ClientState)
            .extension(xep::Blocking::new(blocks))
            .extension(xep::Carbons::new())
            .extension(xep::Ping)
            .extension(xep::SoftwareVersion::new("Example", "1.0"))
            .extension(xep::LastActivity::new(environment))
            .extension(xep::Disco::new())
    });
    for (node, contact) in [("romeo", "juliet"), ("juliet", "romeo")] {
        world.account(node);
        world.roster(node, &format!("{contact}@example.com"), Subscription::Both);
    }
    world
}

/// Bytes in, and bytes out to the one who gets most.
type Cost = (usize, usize);

/// What `recipient` gets for what `client` sends.
fn cost(client: &Client, xml: &str, recipient: &Client) -> Cost {
    let _before = (client.recorder().take(), recipient.recorder().take());
    client.send(xml);
    client.linger();
    (xml.len(), recipient.recorder().take().concat().len())
}

/// From a client that is bound and available, to itself.
fn own(xml: &str) -> Cost {
    let world = world();
    let romeo = world.online("romeo", "x");
    cost(&romeo, xml, &romeo)
}

/// The same where it has asked for its lists, and so gets their pushes.
fn interested(xml: &str) -> Cost {
    let world = world();
    let romeo = world.online("romeo", "x");
    romeo.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    romeo.send("<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>");
    cost(&romeo, xml, &romeo)
}

/// The same to a client with the longest resource.
fn far(xml: &str) -> Cost {
    let world = world();
    let romeo = world.online("romeo", &"x".repeat(1023));
    cost(&romeo, xml, &romeo)
}

/// The same to a contact on its only session.
fn contact(xml: &str) -> Cost {
    let world = world();
    let (romeo, juliet) = (world.online("romeo", "x"), world.online("juliet", "y"));
    cost(&romeo, xml, &juliet)
}

/// The same on a stream that is open, or on a new one.
fn early(header: bool, xml: &str) -> Cost {
    let world = world();
    world.account("romeo");
    let client = world.connect();
    if header {
        client.open();
    }
    cost(&client, xml, &client)
}

fn authenticated(xml: &str) -> Cost {
    let world = world();
    let client = world.authenticated("romeo");
    cost(&client, xml, &client)
}

/// The message is copied to another session of its sender or recipient.
fn copied(xml: &str) -> Cost {
    let world = world();
    let (romeo, _juliet) = (world.online("romeo", "x"), world.online("juliet", "y"));
    let other = world.client("juliet", "z");
    other.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    cost(&romeo, xml, &other)
}

/// A login with a resource, and with all that can be had inline.
fn login(tag: &str) -> String {
    let plain = STANDARD.encode(format!("\0romeo\0{}", wire::PASSWORD));
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{plain}</initial-response>\
         <bind xmlns='urn:xmpp:bind:0'><tag>{tag}</tag>\
         <enable xmlns='urn:xmpp:sm:3' resume='1'/></bind></authenticate>"
    )
}

/// A prefix for what is short spares the client its namespace.
fn with_prefix(namespace: &str, before: &str, xml: &str) -> Cost {
    let world = world();
    world.account("romeo");
    let client = world.connect();
    client.open();
    client.authenticate("romeo", wire::PASSWORD);
    client.send(&format!(
        "<stream:stream xmlns='jabber:client' xmlns:p='{namespace}' xmlns:stream='{STREAMS}' to='example.com' version='1.0'>\
         <iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>{before}"
    ));
    cost(&client, xml, &client)
}

/// All bytes that made a list, and those of the answer to a get.
fn kept(sets: impl Iterator<Item = String>, get: &str) -> Cost {
    let world = world();
    let romeo = world.online("romeo", "x");
    let mut sent = get.len();
    for set in sets {
        sent += set.len();
        romeo.send(&set);
        world.advance(std::time::Duration::from_secs(1));
    }
    (sent, cost(&romeo, get, &romeo).1)
}

fn present_and_gone(xml: &str) -> Cost {
    let world = world();
    let (romeo, nurse) = (world.client("romeo", "x"), world.online("nurse", "y"));
    let (sent, came) = cost(&romeo, xml, &nurse);
    let (closed, left) = cost(&romeo, "</stream:stream>", &nurse);
    (sent + closed, came + left)
}

fn iq(type_: &str, to: &str, payload: &str) -> String {
    let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
    format!("<iq type='{type_}' id='1'{to}>{payload}</iq>")
}

/// The most that a text of `length` bytes comes to when it is escaped in an attribute of ours.
fn quotes(length: usize) -> String {
    format!("\"{}\"", "'".repeat(length))
}

fn measured() -> Vec<(&'static str, Cost, Option<Cost>)> {
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let to = "juliet@example.com/y";
    let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
    let long = "<".repeat(20_000);
    let item = |n: usize| {
        format!(
            "<query xmlns='jabber:iq:roster'><item jid='c{n}@example.net' name='{}'/></query>",
            ">".repeat(20)
        )
    };
    let block = |n: usize| {
        iq("set", "", &format!("<block xmlns='urn:xmpp:blocking'><item jid='c{n}@e.net'/></block>"))
    };
    let bind = |resource: &str| {
        format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{resource}</bind></iq>"
        )
    };
    vec![
        (
            "stream header",
            early(false, &format!("<a:stream xmlns:a='{STREAMS}' to='example.com' version='1.0'>")),
            None,
        ),
        ("stream error instead of a header", early(false, "<a>"), None),
        ("stream error", early(true, "<a>"), None),
        ("SASL: failure", early(true, &format!("<abort xmlns='{sasl}'/>")), None),
        ("SASL2: failure", early(true, "<abort xmlns='urn:xmpp:sasl:2'/>"), None),
        ("SASL2: success", early(true, &login("")), Some(early(true, &login(&">".repeat(50))))),
        (
            "SASL: challenge",
            early(
                true,
                &format!(
                    "<auth xmlns='{sasl}' mechanism='SCRAM-SHA-1'>biwsbj1yb21lbyxyPWE=</auth>"
                ),
            ),
            None,
        ),
        (
            "bind",
            authenticated(&bind("")),
            Some(authenticated(&bind(&format!("<resource>{}</resource>", ">".repeat(250))))),
        ),
        (
            "message",
            own("<message/>"),
            Some(own(&format!("<message><a><![CDATA[{long}]]></a></message>"))),
        ),
        ("message of somebody with the longest resource", far("<message/>"), None),
        (
            "message: carbon copy",
            copied(&format!("<message to='{to}' type='chat'/>")),
            Some(copied(&format!(
                "<message to='{to}' type='chat'><a><![CDATA[{long}]]></a></message>"
            ))),
        ),
        (
            "message: error",
            own("<message to='@'/>"),
            Some(own(&format!("<message to='@' id={}/>", quotes(200)))),
        ),
        (
            "stanza refused while it is read",
            own("<iq><\u{e9}/></iq>"),
            Some(own(&format!("<iq id={}><\u{e9}/></iq>", quotes(5000)))),
        ),
        (
            "presence, to each contact",
            contact("<presence/>"),
            Some(contact(&format!("<presence><a><![CDATA[{long}]]></a></presence>"))),
        ),
        ("presence of somebody with the longest resource", far("<presence/>"), None),
        ("presence: error", own("<presence to=''/>"), None),
        (
            "directed presence, with its end",
            present_and_gone("<presence to='nurse@example.com/y'/>"),
            Some(present_and_gone(&format!(
                "<presence to='nurse@example.com/y'>{}</presence>",
                "a".repeat(9000)
            ))),
        ),
        (
            "subscription, with its push",
            interested("<presence to='c@example.com' type='subscribe'/>"),
            None,
        ),
        ("iq to a contact", contact(&iq("get", to, "<a/>")), None),
        ("iq: error", own("<iq/>"), None),
        ("iq: error, to somebody with the longest resource", far("<iq/>"), None),
        ("iq: ping", own(&iq("get", "", "<ping xmlns='urn:xmpp:ping'/>")), None),
        ("iq: version", own(&iq("get", "example.com", "<query xmlns='jabber:iq:version'/>")), None),
        (
            "iq: last activity",
            own(&iq("get", "example.com", "<query xmlns='jabber:iq:last'/>")),
            None,
        ),
        ("iq: disco#info of the server", own(&iq("get", "example.com", info)), None),
        ("iq: disco#info of the account", own(&iq("get", "", info)), None),
        ("iq: carbons on", own(&iq("set", "", "<enable xmlns='urn:xmpp:carbons:2'/>")), None),
        ("iq: roster set, with its push", interested(&iq("set", "", &item(1))), None),
        (
            "iq: roster get, for all that was set",
            kept(
                (0..200).map(|n| iq("set", "", &item(n))),
                "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
            ),
            None,
        ),
        ("iq: block, with its push", interested(&block(1)), None),
        (
            "iq: block list, for all that was set",
            kept(
                (0..200).map(block),
                "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>",
            ),
            None,
        ),
        (
            "XEP-0198: request",
            with_prefix("urn:xmpp:sm:3", "<p:enable resume='true'/>", "<p:r/>"),
            None,
        ),
        ("XEP-0198: enable", with_prefix("urn:xmpp:sm:3", "", "<p:enable resume='1'/>"), None),
        ("XEP-0198: failed", with_prefix("urn:xmpp:sm:3", "", "<p:r/>"), None),
        ("XEP-0352", with_prefix("urn:xmpp:csi:0", "", "<p:active/>"), None),
        ("white space", own(" "), None),
        ("close tag", own("</stream:stream>"), None),
    ]
}

fn ratio((sent, came): Cost) -> f64 {
    came as f64 / sent as f64
}

/// The table holds for what is measured, and is not far above it.
#[test]
fn sec_12_bytes_out_are_a_small_factor_of_bytes_in() {
    let table = include_str!("../docs/amplification.md");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .collect();
    let measured = measured();
    for (name, small, long) in &measured {
        let more = long.map(|long| ratio((long.0 - small.0, long.1 - small.1)));
        println!(
            "| {name} | {} | {} | {:.1} | {} |",
            small.0,
            small.1,
            ratio(*small),
            more.map_or_else(|| "–".into(), |more| format!("{more:.1}"))
        );
        let row = rows.iter().find(|row| row[0] == *name);
        let Some(row) = row else { panic!("no row for {name}") };
        let bound = |column: usize| row[column].parse::<f64>().ok();
        let holds = |is: f64, most: f64| is <= most && is >= most / 2.0;
        let most = bound(1).expect("a number");
        assert!(holds(ratio(*small), most), "{name}: {:.2}, not {most}", ratio(*small));
        assert_eq!(more.is_some(), bound(2).is_some(), "{name}");
        if let (Some(more), Some(most)) = (more, bound(2)) {
            assert!(holds(more, most), "{name}: {more:.2} for what is longer, not {most}");
        }
    }
    assert_eq!(rows.len(), measured.len() + 1, "rows without a measurement");
}
