//! Rosters on the wire (RFC 6121 §2; rules ROSTER-1 to ROSTER-20, LIMIT-15).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{contacts, wire};
use contacts::{GET, Remote, ask, get, interested, push, remove, set, short, version};
use wire::{Client, World, now};
use xmpp_session::jid::BareJid;
use xmpp_session::rules::roster::{Item, Subscription};
use xmpp_session::server::Limits;
use xmpp_session::store::{
    Memory, RosterChange, RosterStore, StoreFuture, StoredContact, StoredRoster, Stores,
    SubscriptionRequest,
};
use xmpp_session::xep::Blocking;

const ME: &str = "romeo@example.com";
const JULIET: &str = "<item jid='juliet@example.com' subscription='none'/>";

fn result(id: &str, resource: &str) -> String {
    format!("<iq from='{ME}' to='{ME}/{resource}' id='{id}' type='result'/>")
}

fn roster(ver: u64, items: &str) -> String {
    let end = if items.is_empty() { "/>".to_owned() } else { format!(">{items}</query>") };
    format!(
        "<iq from='{ME}' to='{ME}/orchard' id='get' type='result'>\
         <query xmlns='jabber:iq:roster' ver='{ver}'{end}</iq>"
    )
}

fn error(id: &str, from: &str, type_: &str, condition: &str) -> String {
    format!(
        "<iq from='{from}' to='{ME}/orchard' id='{id}' type='error'><error type='{type_}'>\
         <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    )
}

fn stored(world: &World, node: &str) -> StoredRoster {
    let account = BareJid::new(&format!("{node}@example.com")).unwrap();
    now(world.stores().rosters.load(&account)).unwrap()
}

/// The version that a client with an up-to-date cache holds.
fn held(client: &Client) -> String {
    version(&client.answer(GET)).unwrap().to_owned()
}

/// Sends a set that is refused, and checks that nothing changed.
#[track_caller]
fn refused(world: &World, romeo: &Client, items: &str, type_: &str, condition: &str) {
    let before = stored(world, "romeo");
    assert_eq!(romeo.ask(&set(items)), [error("set", ME, type_, condition)], "{items}");
    assert!(before == stored(world, "romeo"), "{items}");
}

#[test]
fn roster_1_no_contacts_are_an_empty_query() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    assert_eq!(ask(&romeo, GET), [roster(0, "")]);
}

#[test]
fn roster_1_one_item_for_each_contact() {
    let world = World::new();
    world.roster("romeo", "nurse@example.com", Subscription::To);
    world.roster("romeo", "juliet@example.com", Subscription::Both);
    let romeo = world.client("romeo", "orchard");
    let items = "<item jid='juliet@example.com' subscription='both'/>\
                 <item jid='nurse@example.com' subscription='to'/>";
    assert_eq!(ask(&romeo, GET), [roster(1, items)]);
}

#[test]
fn roster_1_a_get_about_an_item_is_a_bad_request() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    let ask =
        "<iq type='get' id='get'><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>";
    assert_eq!(romeo.ask(ask), [error("get", ME, "modify", "bad-request")]);
    assert!(!romeo.session().is_interested());
}

#[test]
fn roster_2_interested_from_the_result_on() {
    let world = World::new();
    let (romeo, other) = (world.client("romeo", "orchard"), world.client("romeo", "street"));
    other.send(&set("<item jid='a@remote.example'/>"));
    assert_eq!(romeo.received(), [""; 0]);
    romeo.send(GET);
    other.send(&set("<item jid='b@remote.example'/>"));
    assert_eq!(
        short(&romeo),
        [
            roster(1, "<item jid='a@remote.example' subscription='none'/>"),
            push(2, "<item jid='b@remote.example' subscription='none'/>"),
        ]
    );
}

#[test]
fn roster_3_who_only_asks_is_not_on_the_roster() {
    let (world, remote) = Remote::world();
    let romeo = interested(world.online("romeo", "orchard"));
    remote.send(&world, &format!("<presence type='subscribe' from='a@remote.example' to='{ME}'/>"));
    assert_eq!(
        short(&romeo),
        ["<presence from='a@remote.example' to='romeo@example.com' type='subscribe'/>"]
    );
    assert_eq!(ask(&romeo, GET), [roster(0, "")]);
    assert_eq!(stored(&world, "romeo").requests.len(), 1);
}

#[test]
fn roster_4_the_roster_of_another_account() {
    let stores = Stores::memory();
    let blocks = Arc::clone(&stores.blocks);
    let world = World::with_stores(stores, |builder, _| builder.extension(Blocking::new(blocks)));
    world.account("juliet");
    let tybalt = world.client("tybalt", "street");
    let block = format!("<block xmlns='urn:xmpp:blocking'><item jid='{ME}'/></block>");
    assert_eq!(tybalt.ask(&format!("<iq type='set' id='b'>{block}</iq>")).len(), 1);
    let romeo = world.client("romeo", "orchard");
    for (to, type_, verb, condition) in [
        ("juliet@example.com", "cancel", "get", "service-unavailable"),
        ("juliet@example.com", "auth", "set", "forbidden"),
        // STZ-12: neither that there is no account, nor that one blocks the sender.
        ("nobody@example.com", "cancel", "get", "service-unavailable"),
        ("nobody@example.com", "auth", "set", "forbidden"),
        ("tybalt@example.com", "cancel", "get", "service-unavailable"),
        ("tybalt@example.com", "auth", "set", "forbidden"),
    ] {
        let item = if verb == "set" { "<item jid='a@b.example'/>" } else { "" };
        let ask = format!(
            "<iq type='{verb}' id='1' to='{to}'><query xmlns='jabber:iq:roster'>{item}</query></iq>"
        );
        assert_eq!(romeo.ask(&ask), [error("1", to, type_, condition)], "{verb} {to}");
    }
    assert!(stored(&world, "juliet").items.is_empty());
}

#[test]
fn roster_5_6_7_what_no_item_may_be() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    let long = "x".repeat(1024);
    let items = [
        ("".to_owned(), "modify", "bad-request"),
        ("<item jid='a@b.example'/><item jid='c@b.example'/>".to_owned(), "modify", "bad-request"),
        ("<item name='A'/>".to_owned(), "modify", "bad-request"),
        (
            "<item jid='a@b.example'><group>X</group><group>X</group></item>".to_owned(),
            "modify",
            "bad-request",
        ),
        (format!("<item jid='a@b.example' name='{long}'/>"), "modify", "not-acceptable"),
        ("<item jid='a@b.example'><group/></item>".to_owned(), "modify", "not-acceptable"),
        (
            format!("<item jid='a@b.example'><group>{long}</group></item>"),
            "modify",
            "not-acceptable",
        ),
        ("<item jid='a@b.example/r'/>".to_owned(), "modify", "bad-request"),
        (format!("<item jid='{ME}'/>"), "cancel", "not-allowed"),
        ("<item jid='a@@b.example'/>".to_owned(), "modify", "jid-malformed"),
    ];
    for (items, type_, condition) in items {
        refused(&world, &romeo, &items, type_, condition);
    }
}

#[test]
fn roster_7_a_domain_may_be_a_contact() {
    let world = World::new();
    let romeo = interested(world.client("romeo", "orchard"));
    romeo.send(&set("<item jid='Remote.example'/>"));
    let item = "<item jid='remote.example' subscription='none'/>";
    assert_eq!(short(&romeo), [result("set", "orchard"), push(1, item)]);
}

#[test]
fn roster_8_only_presence_changes_subscriptions() {
    let world = World::new();
    world.friends("romeo", "juliet");
    let romeo = interested(world.client("romeo", "orchard"));
    romeo
        .send(&set("<item jid='juliet@example.com' name='J' subscription='none' ask='subscribe' \
                     approved='true'/>"));
    let item = "<item jid='juliet@example.com' name='J' subscription='both'/>";
    assert_eq!(short(&romeo), [result("set", "orchard"), push(2, item)]);
    romeo.send(&set("<item jid='new@example.com' subscription='both' ask='subscribe'/>"));
    let item = "<item jid='new@example.com' subscription='none'/>";
    assert_eq!(short(&romeo), [result("set", "orchard"), push(3, item)]);
}

#[test]
fn roster_9_name_and_groups_are_replaced_as_a_whole() {
    let world = World::new();
    let romeo = interested(world.client("romeo", "orchard"));
    romeo.send(&set("<item jid='a@b.example' name='A'><group>x</group><group>y</group></item>"));
    romeo.send(&set("<item jid='a@b.example' name=''><group>z</group></item>"));
    romeo.send(&set("<item jid='a@b.example' name='&lt;&apos;&amp;'/>"));
    let done = result("set", "orchard");
    assert_eq!(
        short(&romeo),
        [
            done.clone(),
            push(
                1,
                "<item jid='a@b.example' name='A' subscription='none'><group>x</group><group>y</group></item>"
            ),
            done.clone(),
            push(2, "<item jid='a@b.example' subscription='none'><group>z</group></item>"),
            done,
            push(3, "<item jid='a@b.example' name='&lt;&apos;&amp;' subscription='none'/>"),
        ]
    );
}

#[test]
fn roster_10_result_first_then_pushes_to_the_interested() {
    let world = World::new();
    let sender = world.client("romeo", "orchard");
    let (one, two) = (world.client("romeo", "one"), world.client("romeo", "two"));
    let (one, bystander) = (interested(one), two);
    let friend = interested(world.client("juliet", "balcony"));
    sender.send(&set("<item jid='juliet@example.com'/>"));
    // Not interested: the result alone.
    assert_eq!(short(&sender), [result("set", "orchard")]);
    assert_eq!(short(&one), [push(1, JULIET)]);
    assert_eq!(short(&bystander), [""; 0]);
    assert_eq!(short(&friend), [""; 0]);
    one.send(&set("<item jid='juliet@example.com' name='J'/>"));
    assert_eq!(
        short(&one),
        [
            result("set", "one"),
            push(2, "<item jid='juliet@example.com' name='J' subscription='none'/>")
        ]
    );
    assert_eq!(stored(&world, "romeo").version, 2);
}

#[test]
fn roster_11_answers_to_pushes_are_consumed() {
    let world = World::new();
    let romeo = interested(world.client("romeo", "orchard"));
    romeo.send(&set("<item jid='juliet@example.com'/>"));
    let received = romeo.received();
    let id = received[1].split("id='").nth(1).unwrap().split('\'').next().unwrap();
    romeo.send(&set("<item jid='nurse@example.com'/>"));
    assert!(!romeo.received()[1].contains(&format!("id='{id}'")));
    assert_eq!(romeo.ask(&format!("<iq type='result' id='{id}'/>")), [""; 0]);
    let error = format!(
        "<iq type='error' id='{id}' to='{ME}'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    );
    assert_eq!(romeo.ask(&error), [""; 0]);
    assert!(romeo.is_connected());
}

#[test]
fn roster_12_what_items_show() {
    let (world, _remote) = Remote::world();
    let romeo = interested(world.client("romeo", "orchard"));
    romeo.send("<presence type='subscribe' to='a@remote.example'/>");
    romeo.send("<presence type='subscribed' to='a@remote.example'/>");
    assert_eq!(
        short(&romeo),
        [
            push(1, "<item jid='a@remote.example' subscription='none' ask='subscribe'/>"),
            push(
                2,
                "<item jid='a@remote.example' subscription='none' ask='subscribe' approved='true'/>"
            ),
        ]
    );
    let item = "<item jid='a@remote.example' subscription='none' ask='subscribe' approved='true'/>";
    assert_eq!(ask(&romeo, GET), [roster(2, item)]);
}

#[test]
fn roster_13_a_set_that_changes_nothing() {
    let world = World::new();
    let romeo = interested(world.client("romeo", "orchard"));
    romeo.send(&set("<item jid='juliet@example.com' name='J'/>"));
    let _first = romeo.received();
    let again = romeo.ask(&set("<item jid='juliet@example.com' name='J'/>"));
    assert_eq!(again, [result("set", "orchard")]);
    assert_eq!(stored(&world, "romeo").version, 1);
}

#[test]
fn roster_14_who_is_not_there_cannot_be_removed() {
    let (world, remote) = Remote::world();
    let romeo = world.client("romeo", "orchard");
    remote.send(&world, &format!("<presence type='subscribe' from='a@remote.example' to='{ME}'/>"));
    for jid in ["nobody@example.com", "a@remote.example"] {
        let answer = romeo.ask(&remove(jid));
        assert_eq!(answer, [error("set", ME, "cancel", "item-not-found")]);
    }
    assert_eq!(stored(&world, "romeo").requests.len(), 1);
    assert_eq!(remote.routed(), [""; 0]);
}

/// What removal says to a contact elsewhere, from each state.
#[test]
fn roster_15_farewells_by_state() {
    let unavailable =
        format!("<presence from='{ME}/orchard' to='a@remote.example' type='unavailable'/>");
    let stanza =
        |type_: &str| format!("<presence from='{ME}' to='a@remote.example' type='{type_}'/>");
    let (ends, leaves) = (stanza("unsubscribed"), stanza("unsubscribe"));
    for (subscription, pending_out, pending_in, expected) in [
        (Subscription::None, false, false, vec![]),
        (Subscription::None, true, false, vec![&leaves]),
        (Subscription::None, false, true, vec![&ends]),
        (Subscription::None, true, true, vec![&ends, &leaves]),
        (Subscription::To, false, false, vec![&leaves]),
        (Subscription::To, false, true, vec![&ends, &leaves]),
        (Subscription::From, false, false, vec![&unavailable, &ends]),
        (Subscription::From, true, false, vec![&unavailable, &ends, &leaves]),
        (Subscription::Both, false, false, vec![&unavailable, &ends, &leaves]),
    ] {
        let (world, remote) = Remote::world();
        world.roster("romeo", "a@remote.example", subscription);
        let romeo = interested(world.online("romeo", "orchard"));
        if pending_out {
            romeo.send("<presence type='subscribe' to='a@remote.example'/>");
        }
        if pending_in {
            let ask = format!("<presence type='subscribe' from='a@remote.example' to='{ME}'/>");
            remote.send(&world, &ask);
        }
        let (_before, _routed) = (romeo.received(), remote.routed());
        romeo.send(&remove("a@remote.example"));
        let ver = if pending_out { 3 } else { 2 };
        let gone = "<item jid='a@remote.example' subscription='remove'/>";
        let context = format!("{subscription:?} {pending_out} {pending_in}");
        assert_eq!(short(&romeo), [result("set", "orchard"), push(ver, gone)], "{context}");
        assert_eq!(remote.routed().iter().collect::<Vec<_>>(), expected, "{context}");
        let left = stored(&world, "romeo");
        assert!(left.items.is_empty() && left.requests.is_empty(), "{context}");
    }
}

#[test]
fn roster_15_a_local_contact_sees_it_all() {
    let world = World::new();
    world.friends("romeo", "juliet");
    let romeo = interested(world.online("romeo", "orchard"));
    let juliet = interested(world.online("juliet", "balcony"));
    let (_romeo, _juliet) = (romeo.received(), juliet.received());
    romeo.send(&remove("juliet@example.com"));
    assert_eq!(
        short(&romeo),
        [
            result("set", "orchard"),
            push(2, "<item jid='juliet@example.com' subscription='remove'/>"),
            "<presence from='juliet@example.com/balcony' to='romeo@example.com' type='unavailable'/>"
                .to_owned(),
        ]
    );
    assert_eq!(
        short(&juliet),
        [
            "<presence from='romeo@example.com/orchard' to='juliet@example.com' type='unavailable'/>"
                .to_owned(),
            "<presence from='romeo@example.com' to='juliet@example.com' type='unsubscribed'/>"
                .to_owned(),
            push(2, "<item jid='romeo@example.com' subscription='from'/>"),
            "<presence from='romeo@example.com' to='juliet@example.com' type='unsubscribe'/>"
                .to_owned(),
            push(3, "<item jid='romeo@example.com' subscription='none'/>"),
        ]
    );
}

#[test]
fn roster_17_one_version_for_all_and_in_order() {
    let world = World::new();
    let one = interested(world.client("romeo", "one"));
    let two = interested(world.client("romeo", "two"));
    for n in 0..10 {
        let sender = if n % 2 == 0 { &one } else { &two };
        sender.send(&set(&format!("<item jid='c{n}@remote.example'/>")));
    }
    let pushes = |client| short(client).into_iter().filter(|s| s.starts_with("push"));
    let expected: Vec<_> = (0..10)
        .map(|n| push(n + 1, &format!("<item jid='c{n}@remote.example' subscription='none'/>")))
        .collect();
    assert!(pushes(&one).eq(expected.iter().cloned()));
    assert!(pushes(&two).eq(expected));
}

#[test]
fn roster_18_requests_change_no_version() {
    let (world, remote) = Remote::world();
    let romeo = interested(world.client("romeo", "orchard"));
    romeo.send(&set("<item jid='juliet@example.com'/>"));
    remote.send(&world, &format!("<presence type='subscribe' from='a@remote.example' to='{ME}'/>"));
    let ver = held(&romeo);
    assert_eq!(romeo.ask(&get(&ver)), [result("get", "orchard")]);
    romeo.send("<presence type='unsubscribed' to='a@remote.example'/>");
    assert_eq!(romeo.ask(&get(&ver)), [result("get", "orchard")]);
}

#[test]
fn roster_16_19_versions() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    romeo.send(&set("<item jid='juliet@example.com'/>"));
    let _result = romeo.received();
    let ver = held(&romeo);
    assert_eq!(romeo.ask(&get(&ver)), [result("get", "orchard")]);
    assert!(romeo.session().is_interested());
    for other in ["", "0", "1", "2", "01", "x", &format!("0{ver}")] {
        assert_eq!(ask(&romeo, &get(other)), [roster(1, JULIET)], "{other:?}");
    }
    // ROSTER-16: written though the client named none.
    assert_eq!(ask(&romeo, GET), [roster(1, JULIET)]);
}

#[test]
fn roster_16_the_feature_is_advertised() {
    let world = World::new();
    world.account("romeo");
    let client = world.connect();
    client.open();
    client.authenticate("romeo", wire::PASSWORD);
    client.open();
    let features = client.received().concat();
    assert!(features.contains("<ver xmlns='urn:xmpp:features:rosterver'/>"), "{features}");
    assert!(features.contains("<sub xmlns='urn:xmpp:features:pre-approval'/>"), "{features}");
}

#[test]
fn roster_20_set_and_subscribe_in_either_order() {
    let set = set("<item jid='a@remote.example' name='A'><group>g</group></item>");
    let subscribe = "<presence type='subscribe' to='a@remote.example'/>".to_owned();
    let item = "<item jid='a@remote.example' name='A' subscription='none' ask='subscribe'>\
                <group>g</group></item>";
    for order in [[&set, &subscribe], [&subscribe, &set]] {
        let (world, _remote) = Remote::world();
        let romeo = world.client("romeo", "orchard");
        order.iter().for_each(|stanza| romeo.send(stanza));
        assert_eq!(ask(&romeo, GET), [roster(2, item)]);
    }
}

#[test]
fn limit_15_items() {
    let mut limits = Limits::default();
    limits.roster.items = 2;
    let (world, remote) = Remote::world_with(limits);
    let romeo = world.client("romeo", "orchard");
    romeo.send(&set("<item jid='a@remote.example'/>"));
    romeo.send(&set("<item jid='b@remote.example'/>"));
    refused(&world, &romeo, "<item jid='c@remote.example'/>", "modify", "policy-violation");
    // Neither a request nor an approval beforehand is a way around it.
    for type_ in ["subscribe", "subscribed"] {
        let answer = romeo.ask(&format!("<presence type='{type_}' to='c@remote.example' id='1'/>"));
        let error = error("1", "c@remote.example", "modify", "policy-violation");
        assert_eq!(answer, [error.replace("iq", "presence")]);
    }
    assert_eq!(remote.routed(), [""; 0]);
    assert_eq!(stored(&world, "romeo").items.len(), 2);
    // Those that are there can still be changed.
    romeo.send("<presence type='subscribe' to='b@remote.example'/>");
    assert_eq!(remote.routed().len(), 1);
}

/// Whether a roster set is accepted.
fn accepted(client: &Client, set: &str) -> bool {
    client.ask(set).first() == Some(&result("set", "orchard"))
}

/// A contact of some hundred bytes in a result.
fn long_item(n: usize) -> String {
    format!("<item jid='c{n}@remote.example' name='{}'/>", "n".repeat(400))
}

#[test]
fn limit_15_bytes_of_a_roster_bound_its_result() {
    let mut limits = Limits::default();
    limits.roster.bytes = 3_000;
    let (world, remote) = Remote::world_with(limits);
    let romeo = world.client("romeo", "orchard");
    let mut there = 0;
    while accepted(&romeo, &set(&long_item(there))) {
        there += 1;
    }
    assert_eq!(there, 5);
    refused(&world, &romeo, &long_item(there), "modify", "policy-violation");
    let all = romeo.answer(GET);
    assert!(all.len() <= 3_000 + 250 && all.matches("<item ").count() == there, "{}", all.len());
    // Small ones still have room; then neither a set nor a request has.
    let mut small = 0;
    while accepted(&romeo, &set(&format!("<item jid='s{small}@remote.example'/>"))) {
        small += 1;
    }
    assert!((1..6).contains(&small), "{small}");
    let answer = romeo.ask("<presence type='subscribe' to='other@remote.example' id='1'/>");
    let error = error("1", "other@remote.example", "modify", "policy-violation");
    assert_eq!(answer, [error.replace("iq", "presence")]);
    assert_eq!(remote.routed(), [""; 0]);
    // Whatever becomes of a subscription does not make an item longer.
    romeo.send("<presence type='subscribe' to='c0@remote.example'/>");
    romeo.send("<presence type='subscribed' to='c0@remote.example'/>");
    assert_eq!(remote.routed().len(), 1);
    assert!(romeo.answer(GET).len() <= 3_000 + 250);
    // What is removed makes room.
    assert!(accepted(&romeo, &remove("c0@remote.example")));
    assert!(accepted(&romeo, &set(&long_item(there))));
}

#[test]
fn limit_15_bytes_of_an_item() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    let groups = |n, len| {
        let group = |n| format!("<group>{n:02}{}</group>", "g".repeat(len));
        (0..n).map(group).collect::<String>()
    };
    let item = |groups| format!("<item jid='a@b.example'>{groups}</item>");
    refused(&world, &romeo, &item(groups(64, 200)), "modify", "not-acceptable");
    // Small to write, long to be written.
    let name = "<item jid='a@b.example' name=\"".to_owned() + &"'".repeat(1_000) + "\">";
    refused(
        &world,
        &romeo,
        &format!("{name}{}</item>", groups(4, 1_000)),
        "modify",
        "not-acceptable",
    );
    assert!(accepted(&romeo, &set(&item(groups(64, 90)))));
}

#[test]
fn limit_15_what_was_larger_before_is_readable_and_can_shrink() {
    let mut limits = Limits::default();
    (limits.roster.bytes, limits.roster.item_bytes, limits.roster.items) = (1_000, 400, 3);
    let (world, _remote) = Remote::world_with(limits);
    let account = world.account("romeo");
    for n in 0..8 {
        let mut item = Item::new(BareJid::new(&format!("c{n}@remote.example")).unwrap());
        item.name = Some("n".repeat(500));
        let change = RosterChange::new().version(n + 1).put(item);
        now(world.stores().rosters.apply(&account, change)).unwrap();
    }
    let romeo = world.client("romeo", "orchard");
    let all = romeo.answer(GET);
    assert!(all.len() > 4_000 && all.matches("<item ").count() == 8);
    let named = |len: usize| format!("<item jid='c0@remote.example' name='{}'/>", "m".repeat(len));
    refused(&world, &romeo, &named(501), "modify", "not-acceptable");
    for changed in [named(500), named(400), named(0)] {
        assert!(accepted(&romeo, &set(&changed)));
    }
    refused(&world, &romeo, &named(100), "modify", "policy-violation");
    romeo.send("<presence type='subscribe' to='c1@remote.example'/>");
    assert!(romeo.answer(GET).contains("ask='subscribe'"));
    for n in 1..8 {
        let gone = remove(&format!("c{n}@remote.example"));
        assert!(accepted(&romeo, &gone));
    }
    assert!(accepted(&romeo, &set(&named(100))));
}

/// A store that reads a whole roster where a session of the account binds, and nowhere else.
struct InParts(Memory, AtomicUsize);

impl RosterStore for InParts {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        self.1.fetch_add(1, Ordering::Relaxed);
        RosterStore::load(&self.0, account)
    }

    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        self.0.contact(account, contact)
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        RosterStore::apply(&self.0, account, change)
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        self.0.apply_pair(first, first_change, second, second_change)
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        self.0.requests(account)
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        RosterStore::clear(&self.0, account)
    }
}

#[test]
fn limit_15_nobody_has_the_roster_of_another_account_read() {
    let store = Arc::new(InParts(Memory::new(), AtomicUsize::new(0)));
    let mut stores = Stores::memory();
    stores.rosters = Arc::clone(&store) as _;
    let remote = Remote::default();
    let router = remote.clone();
    let world = World::with_stores(stores, |builder, _| {
        let mut limits = Limits::default();
        limits.requests.count = 2;
        builder.router(router).limits(limits)
    });
    world.friends("juliet", "romeo");
    world.account("nurse");
    let romeo = world.client("romeo", "orchard");
    let before = store.1.load(Ordering::Relaxed);
    let absent = ["juliet@example.com", "nurse@example.com"];
    for to in absent {
        romeo.send(&format!("<presence type='probe' to='{to}'/>"));
        romeo
            .send(&format!("<iq type='get' id='1' to='{to}'><query xmlns='jabber:iq:last'/></iq>"));
        for type_ in ["unsubscribe", "unsubscribed", "subscribe", "subscribed"] {
            romeo.send(&format!("<presence type='{type_}' to='{to}'/>"));
            remote.send(
                &world,
                &format!("<presence type='{type_}' from='a@remote.example' to='{to}'/>"),
            );
        }
        romeo.send(&remove(to));
    }
    assert_eq!(store.1.load(Ordering::Relaxed), before, "a whole roster was read");
    // Requests are counted all the same (LIMIT-16).
    for n in 0..5 {
        let ask = |to| format!("<presence type='subscribe' from='{n}@remote.example' to='{to}'/>");
        absent.iter().for_each(|to| remote.send(&world, &ask(to)));
    }
    for to in absent {
        let account = BareJid::new(to).unwrap();
        assert_eq!(now(store.requests(&account)).unwrap().len(), 2, "{to}");
    }
    assert_eq!(store.1.load(Ordering::Relaxed), before, "a whole roster was read");
}

#[test]
fn roster_17_a_store_that_forgot_has_no_version_of_before() {
    let roster = |contact: &str| {
        let world = World::new();
        let romeo = world.client("romeo", "orchard");
        romeo.send(&set(&format!("<item jid='{contact}'/>")));
        (held(&romeo), world, romeo)
    };
    let (before, ..) = roster("juliet@example.com");
    // One change, as before, and it led elsewhere.
    let (_, _world, romeo) = roster("nurse@example.com");
    assert!(romeo.answer(&get(&before)).contains("nurse@example.com"));
    // The same roster may well be recognised.
    let (same, ..) = roster("juliet@example.com");
    assert_eq!(same, before);
}

#[test]
fn limit_15_groups() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    let groups = |n| (0..n).map(|n| format!("<group>{n}</group>")).collect::<String>();
    let item = |n| format!("<item jid='a@b.example'>{}</item>", groups(n));
    refused(&world, &romeo, &item(65), "modify", "not-acceptable");
    assert_eq!(romeo.ask(&set(&item(64))), [result("set", "orchard")]);
}
