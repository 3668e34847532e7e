//! The extensions that come with the crate, on the wire (rules IQ-6, IQ-7).

use crate::common::wire;
use std::sync::Arc;
use std::time::Duration;

use wire::{Client, World};
use xmpp_session::environment::Virtual;
use xmpp_session::jid::Jid;
use xmpp_session::xep;

const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const ITEMS: &str = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
const PING: &str = "<ping xmlns='urn:xmpp:ping'/>";
const LAST: &str = "<query xmlns='jabber:iq:last'/>";

fn world() -> World {
    World::with(|builder, environment| {
        builder
            .extension(xep::Ping)
            .extension(xep::SoftwareVersion::new("Example & Co", "1.0"))
            .extension(xep::LastActivity::new(environment))
            .extension(xep::Disco::new())
    })
}

/// What a get with this payload is answered: the one stanza, without its `to`.
fn get(client: &Client, to: Option<&str>, payload: &str) -> String {
    let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
    let answer = client.answer(&format!("<iq type='get' id='1'{to}>{payload}</iq>"));
    answer.replace(&format!(" to='{}'", client.jid()), "")
}

fn result(from: &str, payload: &str) -> String {
    if payload.is_empty() {
        return format!("<iq from='{from}' id='1' type='result'/>");
    }
    format!("<iq from='{from}' id='1' type='result'>{payload}</iq>")
}

fn error(from: &str, type_: &str, condition: &str) -> String {
    format!(
        "<iq from='{from}' id='1' type='error'><error type='{type_}'>\
         <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    )
}

fn unavailable(from: &str) -> String {
    error(from, "cancel", "service-unavailable")
}

#[test]
fn iq_6_pings_to_the_server_and_the_own_account_are_answered() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    assert_eq!(get(&romeo, Some("example.com"), PING), result("example.com", ""));
    assert_eq!(get(&romeo, Some("example.com/x"), PING), result("example.com/x", ""));
    let own = "romeo@example.com";
    assert_eq!(get(&romeo, Some(own), PING), result(own, ""));
    assert_eq!(get(&romeo, None, PING), result(own, ""));
}

#[test]
fn iq_6_a_set_is_no_ping() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let answer =
        romeo.ask("<iq type='set' id='1' to='example.com'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert!(answer.concat().contains("<service-unavailable"), "{answer:?}");
}

#[test]
fn iq_7_strangers_cannot_tell_an_account_by_any_query() {
    let world = world();
    world.friends("juliet", "nurse");
    let (romeo, nurse) = (world.online("romeo", "orchard"), world.online("nurse", "chamber"));
    let _juliet = world.online("juliet", "balcony");
    world.account("tybalt");
    let node = "<query xmlns='http://jabber.org/protocol/disco#items' node='n'/>";
    let info_node = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    let other = "<query xmlns='jabber:iq:version'/>";
    for query in [INFO, info_node, ITEMS, node, PING, LAST, other] {
        let same = |jid: &str| get(&romeo, Some(jid), query).replace(jid, "it");
        let unknown = same("nobody@example.com");
        if !query.contains("#items") {
            assert_eq!(unknown, unavailable("it"));
        }
        for jid in ["juliet@example.com", "tybalt@example.com", "nurse@example.com"] {
            assert_eq!(same(jid), unknown, "{query} to {jid}");
        }
    }
    // The nurse is no stranger.
    let juliet = "juliet@example.com";
    assert_eq!(get(&nurse, Some(juliet), PING), result(juliet, ""));
    assert_eq!(
        get(&nurse, Some(juliet), LAST),
        result(juliet, "<query xmlns='jabber:iq:last' seconds='0'/>")
    );
}

#[test]
fn iq_7_disco_info_of_strangers_is_unavailable_and_items_are_empty() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    for jid in ["juliet@example.com", "nobody@example.com"] {
        let _juliet = (jid == "juliet@example.com").then(|| world.online("juliet", "balcony"));
        assert_eq!(get(&romeo, Some(jid), INFO), unavailable(jid));
        assert_eq!(get(&romeo, Some(jid), ITEMS), result(jid, ITEMS));
        let node = "<query xmlns='http://jabber.org/protocol/disco#items' node='a&amp;b'/>";
        assert_eq!(get(&romeo, Some(jid), node), result(jid, node));
    }
}

#[test]
fn iq_6_disco_info_lists_what_the_server_serves() {
    let world = World::with(|builder, _| {
        let disco = xep::Disco::new()
            .name("Verona")
            .identity("pubsub", "pep")
            .identity("server", "im")
            .feature("urn:example:mine")
            .offline_messages();
        builder.extension(disco).extension(xep::Ping).extension(xep::SoftwareVersion::new("a", "1"))
    });
    let romeo = world.client("romeo", "orchard");
    assert_eq!(
        get(&romeo, Some("example.com"), INFO),
        result(
            "example.com",
            "<query xmlns='http://jabber.org/protocol/disco#info'>\
             <identity category='server' name='Verona' type='im'/>\
             <identity category='pubsub' name='Verona' type='pep'/>\
             <feature var='http://jabber.org/protocol/disco#info'/>\
             <feature var='http://jabber.org/protocol/disco#items'/>\
             <feature var='jabber:iq:roster'/>\
             <feature var='jabber:iq:version'/>\
             <feature var='msgoffline'/>\
             <feature var='urn:example:mine'/>\
             <feature var='urn:xmpp:ping'/></query>"
        )
    );
    let account = result(
        "romeo@example.com",
        "<query xmlns='http://jabber.org/protocol/disco#info'>\
         <identity category='account' type='registered'/>\
         <feature var='http://jabber.org/protocol/disco#info'/>\
         <feature var='http://jabber.org/protocol/disco#items'/>\
         <feature var='urn:xmpp:ping'/></query>",
    );
    assert_eq!(get(&romeo, Some("romeo@example.com"), INFO), account);
    assert_eq!(get(&romeo, None, INFO), account);
}

#[test]
fn iq_6_a_feature_that_is_not_served_is_not_listed() {
    let world = World::with(|builder, _| builder.extension(xep::Disco::new()));
    let romeo = world.client("romeo", "orchard");
    let answer = get(&romeo, Some("example.com"), INFO);
    for feature in ["urn:xmpp:ping", "msgoffline", "jabber:iq:version", "jabber:iq:last"] {
        assert!(!answer.contains(feature), "{answer}");
    }
}

#[test]
fn iq_6_the_items_of_the_domain_are_the_hosts() {
    let rooms = Jid::new("rooms.example.com").unwrap();
    let files = Jid::new("files.example.com").unwrap();
    let world = World::with(|builder, _| {
        let disco = xep::Disco::new().item(rooms, Some("Rooms & more".into())).item(files, None);
        builder.extension(disco)
    });
    let romeo = world.client("romeo", "orchard");
    assert_eq!(
        get(&romeo, Some("example.com"), ITEMS),
        result(
            "example.com",
            "<query xmlns='http://jabber.org/protocol/disco#items'>\
             <item jid='rooms.example.com' name='Rooms &amp; more'/>\
             <item jid='files.example.com'/></query>"
        )
    );
}

#[test]
fn iq_6_the_items_of_the_own_account_are_its_available_resources() {
    let world = world();
    let _tablet = world.client("romeo", "tablet");
    let romeo = world.online("romeo", "orchard");
    let _phone = world.online("romeo", "phone");
    let expected = result(
        "romeo@example.com",
        "<query xmlns='http://jabber.org/protocol/disco#items'>\
         <item jid='romeo@example.com/orchard'/>\
         <item jid='romeo@example.com/phone'/></query>",
    );
    assert_eq!(get(&romeo, None, ITEMS), expected);
}

#[test]
fn sec_4_directed_presence_shows_one_session_and_no_other() {
    let world = world();
    let romeo = world.online("romeo", "orchard");
    let (balcony, _garden) = (world.online("juliet", "balcony"), world.online("juliet", "garden"));
    balcony.send("<presence to='romeo@example.com/orchard'/>");
    let juliet = "juliet@example.com";
    assert_eq!(
        get(&romeo, Some(juliet), ITEMS),
        result(
            juliet,
            "<query xmlns='http://jabber.org/protocol/disco#items'>\
             <item jid='juliet@example.com/balcony'/></query>"
        )
    );
    balcony.send("<presence type='unavailable' to='romeo@example.com/orchard'/>");
    assert_eq!(get(&romeo, Some(juliet), ITEMS), result(juliet, ITEMS));
}

#[test]
fn iq_7_a_subscriber_may_ask_an_account_without_sessions() {
    let world = world();
    world.friends("juliet", "romeo");
    let romeo = world.online("romeo", "orchard");
    let juliet = "juliet@example.com";
    assert!(get(&romeo, Some(juliet), INFO).contains("category='account'"));
    assert_eq!(get(&romeo, Some(juliet), ITEMS), result(juliet, ITEMS));
    assert_eq!(get(&romeo, Some(juliet), LAST), unavailable(juliet));
}

#[test]
fn iq_6_an_unknown_node_is_not_found() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    for kind in ["info", "items"] {
        let query = format!("<query xmlns='http://jabber.org/protocol/disco#{kind}' node='n'/>");
        for jid in ["example.com", "romeo@example.com"] {
            assert_eq!(get(&romeo, Some(jid), &query), error(jid, "cancel", "item-not-found"));
        }
    }
}

#[test]
fn iq_6_the_version_is_the_hosts_and_the_domains() {
    let query = "<query xmlns='jabber:iq:version'/>";
    let old = world();
    let romeo = old.client("romeo", "orchard");
    assert_eq!(
        get(&romeo, Some("example.com"), query),
        result(
            "example.com",
            "<query xmlns='jabber:iq:version'><name>Example &amp; Co</name>\
             <version>1.0</version></query>"
        )
    );
    assert_eq!(get(&romeo, None, query), unavailable("romeo@example.com"));
    let version = xep::SoftwareVersion::new("a", "2").os("Plan 9");
    let new = World::with(|builder, _| builder.extension(version));
    let answer = get(&new.client("romeo", "orchard"), Some("example.com"), query);
    assert!(answer.contains("<version>2</version><os>Plan 9</os></query>"), "{answer}");
}

#[test]
fn iq_6_last_activity_of_the_server_is_its_uptime() {
    let clock = Arc::new(Virtual::new(1));
    clock.advance(Duration::from_secs(1000));
    let uptime = xep::LastActivity::new(Arc::clone(&clock) as _);
    clock.advance(Duration::from_millis(61_900));
    let world = World::with(|builder, _| builder.extension(uptime));
    let romeo = world.client("romeo", "orchard");
    assert_eq!(
        get(&romeo, Some("example.com"), LAST),
        result("example.com", "<query xmlns='jabber:iq:last' seconds='61'/>")
    );
    assert_eq!(
        get(&romeo, None, LAST),
        result("romeo@example.com", "<query xmlns='jabber:iq:last' seconds='0'/>")
    );
}

#[test]
fn iq_8_the_last_activity_of_a_contact_who_is_away_is_when_it_left() {
    let world = World::with(|builder, environment| {
        builder.extension(xep::LastActivity::new(environment)).extension(xep::Disco::new())
    });
    world.friends("romeo", "juliet");
    world.account("tybalt");
    let (romeo, tybalt) = (world.client("romeo", "orchard"), world.client("tybalt", "street"));
    let juliet = "juliet@example.com";
    let asked = |client| get(client, Some(juliet), LAST);
    let seconds =
        |n: u64| result(juliet, &format!("<query xmlns='jabber:iq:last' seconds='{n}'/>"));
    // Never seen.
    assert_eq!(asked(&romeo), unavailable(juliet));
    let (first, second) = (world.online("juliet", "balcony"), world.online("juliet", "chamber"));
    world.advance(Duration::from_secs(5));
    assert_eq!(asked(&romeo), seconds(0));
    first.lose();
    world.advance(Duration::from_secs(5));
    assert_eq!(asked(&romeo), seconds(0));
    second.send("<presence type='unavailable'/>");
    world.advance(Duration::from_secs(61));
    // Connected, and not there.
    assert_eq!(asked(&romeo), seconds(61));
    second.lose();
    world.advance(Duration::from_secs(39));
    assert_eq!(asked(&romeo), seconds(100));
    // Strangers learn nothing, at any time.
    assert!(asked(&tybalt).contains("<service-unavailable "));
    assert!(get(&tybalt, Some("nobody@example.com"), LAST).contains("<service-unavailable "));
}
