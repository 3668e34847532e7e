//! Guests, who log in with ANONYMOUS (rules GUEST-1 to GUEST-5, LIMIT-32).

use crate::common::wire;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::{Client, Elsewhere, World, now};
use xmpp_session::jid::BareJid;
use xmpp_session::server::{DomainPolicy, GuestPolicy, Limits, Rate, Transport};
use xmpp_session::store::{
    AccountStore as _, Credentials, Memory, OfflineStore as _, RosterStore as _, ScramHash,
    ScramKeys, Stores,
};
use xmpp_session::stream::Limit;
use xmpp_session::xep::{Blocking, StreamManagement};

const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const OPEN: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='guests.example' version='1.0'>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";

fn auth(text: &str) -> String {
    format!("<auth xmlns='{NS}' mechanism='ANONYMOUS'>{text}</auth>")
}

fn failure(condition: &str) -> String {
    format!("<failure xmlns='{NS}'><{condition}/></failure>")
}

fn success() -> String {
    format!("<success xmlns='{NS}'/>")
}

struct Hall {
    world: World,
    kept: Arc<Memory>,
    elsewhere: Elsewhere,
}

fn hall(change: impl FnOnce(&mut GuestPolicy)) -> Hall {
    hall_with(Limits::default(), change)
}

fn hall_with(limits: Limits, change: impl FnOnce(&mut GuestPolicy)) -> Hall {
    let mut guests = GuestPolicy::default();
    change(&mut guests);
    let (kept, elsewhere) = (Arc::new(Memory::new()), Elsewhere::default());
    let router = elsewhere.clone();
    let blocks = Arc::clone(&kept);
    let world = World::with_stores(Stores::all_in(Arc::clone(&kept)), |builder, _| {
        let mut policy = DomainPolicy::default();
        policy.guests = Some(guests);
        builder
            .domain_with("guests.example".parse().unwrap(), policy)
            .limits(limits)
            .router(router)
            .extension(Blocking::new(blocks))
            .extension(StreamManagement::new())
    });
    Hall { world, kept, elsewhere }
}

fn from(source: u8) -> Transport {
    Transport::new().secure(true).source(format!("192.0.2.{source}"))
}

fn opened(world: &World, source: u8) -> (Client, String) {
    let client = world.accept(from(source));
    client.send(OPEN);
    let features = client.received().concat();
    (client, features)
}

/// A guest that is there.
fn guest(world: &World, source: u8) -> (Client, BareJid) {
    let (client, _) = opened(world, source);
    assert_eq!(client.ask(&auth("=")), [success()]);
    client.send(OPEN);
    client.send(BIND);
    client.send("<presence/>");
    let _own = client.received();
    let jid = client.session().jid().to_bare();
    (client, jid)
}

fn exists(world: &World, jid: &BareJid) -> bool {
    world.run(world.server().account(jid).roster()).is_ok()
}

#[test]
fn guest_1_guests_come_where_the_host_lets_them_in() {
    let hall = hall(|_| ());
    let (client, features) = opened(&hall.world, 1);
    assert!(features.contains("<mechanism>ANONYMOUS</mechanism>"), "{features}");
    // With a trace (RFC 4505 §2), or without a word (XEP-0175 §2).
    assert_eq!(client.ask(&auth(&STANDARD.encode("sirhc"))), [success()]);
    let (client, _) = opened(&hall.world, 1);
    assert_eq!(client.ask(&auth("")), [success()]);
    let (client, _) = opened(&hall.world, 1);
    let long = STANDARD.encode("\u{e9}".repeat(256));
    for bad in [long, STANDARD.encode("a\0b"), STANDARD.encode(b"\xff")] {
        assert_eq!(client.ask(&auth(&bad)), [failure("malformed-request")]);
    }
    let fits = STANDARD.encode("\u{e9}".repeat(255));
    assert_eq!(client.ask(&auth(&fits)), [success()]);
    // The other domain of the server.
    let client = hall.world.connect();
    client.open();
    assert!(!client.received().concat().contains("ANONYMOUS"));
    assert_eq!(client.ask(&auth("=")), [failure("invalid-mechanism")]);
}

#[test]
fn guest_2_a_guest_has_an_account_that_nobody_else_gets_into() {
    let hall = hall(|_| ());
    let ((one, own), (other, another)) = (guest(&hall.world, 1), guest(&hall.world, 1));
    assert_ne!(own, another);
    assert!(own.node().unwrap().as_str().len() >= 22, "128 bits");
    assert!(exists(&hall.world, &own));
    // They reach each other, and an account of the server reaches them.
    one.send(&format!("<message to='{another}'><body>hi</body></message>"));
    assert!(other.received().concat().contains("<body>hi</body>"));
    let romeo = hall.world.online("romeo", "orchard");
    romeo.send(&format!("<message to='{own}'><body>ho</body></message>"));
    assert!(one.received().concat().contains("<body>ho</body>"));
    // Nobody logs in as one, and no password is set for one.
    let plain = STANDARD.encode(format!("\0{}\0secret", own.node().unwrap()));
    let (thief, _) = opened(&hall.world, 2);
    let answer = thief.ask(&format!("<auth xmlns='{NS}' mechanism='PLAIN'>{plain}</auth>"));
    assert_eq!(answer, [failure("not-authorized")]);
    assert!(now(hall.kept.credentials(&own)).unwrap().is_none());
}

#[test]
fn guest_3_the_account_ends_with_its_transport() {
    let hall = hall(|_| ());
    let world = &hall.world;
    let juliet = world.online("juliet", "balcony");
    juliet.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    let (client, own) = guest(world, 1);
    let enabled = client.answer("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    assert!(enabled.starts_with("<enabled"), "{enabled}");
    client.send("<presence to='juliet@example.com' type='subscribe'/>");
    let _asked = juliet.received();
    juliet.send(&format!("<presence to='{own}' type='subscribed'/>"));
    juliet.send(&format!("<presence to='{own}' type='subscribe'/>"));
    client.send("<presence to='juliet@example.com' type='subscribed'/>");
    let _told = juliet.received();
    client.lose();
    world.settle();
    assert!(!exists(world, &own), "no session waits for whom nobody can be again");
    assert!(world.each().all(|session| session.jid().to_bare() != own));
    let told = juliet.received().concat();
    assert!(told.contains("type='unavailable'") && told.contains("type='unsubscribed'"), "{told}");
    // One that never binds, one that says goodbye, one that is sent away.
    let (client, _) = opened(world, 1);
    assert_eq!(client.ask(&auth("=")), [success()]);
    client.lose();
    let (client, own) = guest(world, 1);
    client.send("</stream:stream>");
    world.settle();
    assert!(!exists(world, &own));
    let (client, own) = guest(world, 1);
    world.kick(&client.session());
    world.advance(Duration::from_secs(10));
    assert!(!exists(world, &own));
}

const NS_2: &str = "urn:xmpp:sasl:2";

#[test]
fn guest_3_one_login_is_one_guest_in_sasl2_as_well() {
    let hall = hall(|guests| {
        guests.most = 2;
        guests.rate = None;
    });
    let world = &hall.world;
    let ask = |more: &str| {
        format!(
            "<authenticate xmlns='{NS_2}' mechanism='ANONYMOUS'><initial-response/>{more}\
             </authenticate>"
        )
    };
    let bind = "<bind xmlns='urn:xmpp:bind:0'/>";
    let (client, features) = opened(world, 1);
    let list = features.split("<authentication ").nth(1).unwrap();
    assert!(list.contains("<mechanism>ANONYMOUS</mechanism>"), "{features}");
    let success = client.ask(&ask(bind)).concat();
    assert!(success.contains("@guests.example/"), "{success}");
    let own = client.session().jid().to_bare();
    assert!(exists(world, &own));
    client.lose();
    world.settle();
    assert!(!exists(world, &own));
    // Whoever fails with all that it asks for, again and again, is still one.
    let client = world.accept(from(1));
    client.send(&OPEN.replace(" version", " from='romeo@guests.example' version"));
    let _features = client.received();
    for _ in 0..3 {
        let failed = client.ask(&ask(bind)).concat();
        assert!(failed.contains("<invalid-authzid "), "{failed}");
    }
    let (other, _) = opened(world, 1);
    assert!(other.ask(&ask(bind)).concat().starts_with("<success "));
    let (third, _) = opened(world, 1);
    assert!(third.ask(&ask(bind)).concat().contains("<temporary-auth-failure "));
    client.lose();
    world.settle();
    assert!(third.ask(&ask(bind)).concat().starts_with("<success "));
}

#[test]
fn guest_3_who_logs_in_as_somebody_else_is_no_guest_any_longer() {
    const SASL2: &str = "urn:xmpp:sasl:2";
    let hall = hall(|guests| guests.most = 1);
    let romeo = BareJid::new("romeo@guests.example").unwrap();
    let keys = ScramKeys::derive("pencil", b"salt", NonZeroU32::MIN, ScramHash::Sha1).unwrap();
    hall.world.accounts().insert(romeo, Credentials::new().with_keys(ScramHash::Sha1, keys));
    let client = hall.world.accept(from(1));
    client.send(&OPEN.replace(" to=", " from='romeo@guests.example' to="));
    assert!(client.received().concat().contains("HT-SHA-256-NONE"));
    let anonymous = format!("<authenticate xmlns='{SASL2}' mechanism='ANONYMOUS'/>");
    let refused = format!("<failure xmlns='{SASL2}'><invalid-authzid xmlns='{NS}'/></failure>");
    assert_eq!(client.ask(&anonymous), [refused]);
    let (other, _) = opened(&hall.world, 2);
    assert_eq!(other.ask(&auth("=")), [failure("temporary-auth-failure")]);
    let plain = STANDARD.encode("\0romeo\0pencil");
    let success = client.ask(&format!(
        "<authenticate xmlns='{SASL2}' mechanism='PLAIN'><initial-response>{plain}\
         </initial-response><user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>\
         <request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/></authenticate>"
    ));
    let success = success.concat();
    assert!(success.starts_with("<success ") && success.contains("<token "), "{success}");
    hall.world.settle();
    assert_eq!(other.ask(&auth("=")), [self::success()]);
}

#[test]
fn guest_4_nothing_of_a_guest_gets_into_a_store() {
    let hall = hall(|_| ());
    let world = &hall.world;
    let (client, own) = guest(world, 1);
    let set = |id: &str, query: &str| format!("<iq type='set' id='{id}'>{query}</iq>");
    let item = "<query xmlns='jabber:iq:roster'><item jid='romeo@example.com' name='R'/></query>";
    let answer = client.answer(&set("r", item));
    assert!(answer.contains("type='result'"), "{answer}");
    let roster = world.run(world.server().account(&own).roster()).unwrap();
    assert_eq!(roster.len(), 1, "it has a roster");
    assert!(now(hall.kept.load(&own)).unwrap().items.is_empty(), "that is kept nowhere");
    let block = "<block xmlns='urn:xmpp:blocking'><item jid='tybalt@example.com'/></block>";
    let answer = client.ask(&set("b", block)).concat();
    assert!(answer.contains("type='result'"), "{answer}");
    // Nor what others send when it does not take it.
    client.send("<presence type='unavailable'/>");
    let romeo = world.online("romeo", "orchard");
    romeo.send(&format!("<message to='{own}' id='m'><body>later</body></message>"));
    assert!(romeo.received().concat().contains("<service-unavailable "));
    assert_eq!(now(hall.kept.count(&own)).unwrap(), 0);
    client.lose();
    world.settle();
    assert!(now(world.stores().blocks.load(&own)).unwrap().is_empty());
}

#[test]
fn guest_4_a_guest_and_an_account_are_friends_in_two_stores() {
    let hall = hall(|_| ());
    let world = &hall.world;
    let juliet = world.account("juliet");
    let (client, own) = guest(world, 1);
    world.run(world.server().account(&juliet).befriend(&own)).unwrap();
    let stored = now(hall.kept.load(&juliet)).unwrap();
    assert_eq!(stored.items.len(), 1);
    assert!(now(hall.kept.load(&own)).unwrap().items.is_empty());
    client.lose();
    world.settle();
    let stored = now(hall.kept.load(&juliet)).unwrap();
    assert!(stored.items.iter().all(|item| item.subscription.as_str() == "none"), "unsubscribed");
}

#[test]
fn guest_5_guests_stay_within_the_server() {
    for elsewhere in [false, true] {
        let hall = hall(|guests| guests.elsewhere = elsewhere);
        let (client, _) = guest(&hall.world, 1);
        client.send("<message to='romeo@example.org' id='m'><body>spam</body></message>");
        client.send("<presence to='romeo@example.org'/>");
        client.send("<iq type='get' to='example.org' id='i'><query xmlns='jabber:iq:x'/></iq>");
        let (refused, out) = (client.received().concat(), hall.elsewhere.take());
        assert_eq!(refused.matches("<forbidden ").count(), if elsewhere { 0 } else { 3 });
        assert_eq!(out.len(), if elsewhere { 3 } else { 0 }, "{out:?}");
        client.send("<presence to='romeo@example.org' type='subscribe'/>");
        client.lose();
        hall.world.settle();
        let out = hall.elsewhere.take();
        assert_eq!(out.is_empty(), !elsewhere, "{out:?}");
        // Others go where they like.
        let juliet = hall.world.online("juliet", "balcony");
        juliet.send("<message to='romeo@example.org' id='m'><body>my love</body></message>");
        assert_eq!(hall.elsewhere.take().len(), 1);
    }
}

#[test]
fn guest_6_a_new_guest_is_no_new_allowance() {
    let mut limits = Limits::default();
    limits.stanzas = Some(Rate::new(1, Duration::from_secs(10), 20));
    let hall = hall_with(limits, |guests| guests.rate = None);
    let world = &hall.world;
    // Until it is no longer read from.
    let (client, _) = guest(world, 1);
    let mut sent = 0;
    while client.want().is_some() && sent < 100 {
        client.send("<message to='juliet@example.com' type='headline'/>");
        sent += 1;
    }
    assert!((10..30).contains(&sent), "{sent}");
    client.lose();
    let (next, _) = opened(world, 1);
    assert_eq!(next.ask(&auth("=")), [success()]);
    assert_eq!(next.want(), None, "the same source");
    world.advance(Duration::from_secs(20));
    assert!(next.want().is_some());
    let (_other, _) = guest(world, 2);
}

#[test]
fn limit_32_so_many_guests_are_let_in() {
    let hall = hall(|guests| {
        guests.most = 3;
        guests.rate = None;
    });
    let world = &hall.world;
    let three: Vec<_> = (0..3).map(|n| guest(world, n)).collect();
    let (fourth, _) = opened(world, 9);
    assert_eq!(fourth.ask(&auth("=")), [failure("temporary-auth-failure")]);
    assert!(world.metrics().limits.iter().any(|(limit, n)| *limit == Limit::Guests && *n == 1));
    // Who is gone makes room.
    three[0].0.lose();
    world.settle();
    assert_eq!(fourth.ask(&auth("=")), [success()]);
}

#[test]
fn limit_32_so_many_come_from_one_source() {
    let hall = hall(|guests| guests.rate = Some(Rate::new(1, Duration::from_secs(10), 2)));
    let world = &hall.world;
    let enter = |source| {
        let (client, _) = opened(world, source);
        let answer = client.ask(&auth("=")).concat();
        client.lose();
        answer
    };
    assert_eq!([enter(1), enter(1)], [success(), success()]);
    assert_eq!(enter(1), failure("temporary-auth-failure"), "coming and going is no way around");
    assert_eq!(enter(2), success());
    world.advance(Duration::from_secs(10));
    assert_eq!(enter(1), success());
}
