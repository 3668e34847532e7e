//! Subscriptions on the wire (RFC 6121 §3, Appendix A; rules SUB-O1…I4, SUB-1 to SUB-16, LIMIT-16).

use crate::common::{contacts, wire};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contacts::{GET, Remote, interested, push, remove, set, short};
use wire::{Client, World, elements, now};
use xmpp_session::jid::BareJid;
use xmpp_session::rules::roster::{Item, Roster, Subscription};
use xmpp_session::server::{Limits, RouteError};
use xmpp_session::store::{RosterChange, SubscriptionRequest};

const ME: &str = "romeo@example.com";
const THEM: &str = "juliet@remote.example";

/// A state of RFC 6121 Appendix A: its short name, the subscription, Pending Out, Pending In.
type State = (&'static str, Subscription, bool, bool);

const PENDING_OUT: State = ("PO", Subscription::None, true, false);
const FROM_PENDING_OUT: State = ("FPO", Subscription::From, true, false);
const STATES: [State; 9] = [
    ("N", Subscription::None, false, false),
    PENDING_OUT,
    ("PI", Subscription::None, false, true),
    ("POI", Subscription::None, true, true),
    ("T", Subscription::To, false, false),
    ("TPI", Subscription::To, false, true),
    ("F", Subscription::From, false, false),
    FROM_PENDING_OUT,
    ("B", Subscription::Both, false, false),
];

/// A stanza between the two accounts.
fn presence(type_: &str, from: &str, to: &str) -> String {
    format!(
        "<presence from='{from}' to='{to}' id='s' type='{type_}'><status>Hi</status></presence>"
    )
}

/// Brings the stored roster into a state towards the contact.
fn store(world: &World, node: &str, contact: &str, state: State, approved: bool) {
    let (account, contact) = (world.account(node), BareJid::new(contact).unwrap());
    let mut item = Item::new(contact.clone());
    let (_, subscription, ask, request) = state;
    (item.subscription, item.ask, item.approved) = (subscription, ask, approved);
    let mut change = RosterChange::new().version(1).put(item);
    if request {
        let stanza = presence("subscribe", contact.as_str(), account.as_str());
        change = change.add_request(SubscriptionRequest::new(contact, stanza.into_bytes()));
    }
    now(world.stores().rosters.apply(&account, change)).unwrap();
}

/// The stored state towards the contact, with `a` behind it where it is approved.
fn state(world: &World, node: &str, contact: &str) -> String {
    let account = BareJid::new(&format!("{node}@example.com")).unwrap();
    let stored = now(world.stores().rosters.load(&account)).unwrap();
    let roster = Roster::from_items(stored.items, stored.version, stored.requests);
    let item = roster.get(contact);
    let (subscription, ask) =
        item.map(|item| (item.subscription(), item.ask())).unwrap_or_default();
    let state = (subscription, ask, roster.has_request(contact));
    let (name, ..) =
        STATES.iter().find(|(_, s, ask, request)| (*s, *ask, *request) == state).unwrap();
    let approved = item.is_some_and(|item| item.approved());
    format!("{name}{}", if approved { "+a" } else { "" })
}

/// One user, available and interested, and the network, in one log.
struct Scene {
    world: World,
    remote: Remote,
    romeo: Client,
    log: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    fn new(from: State, approved: bool) -> Self {
        let (world, remote) = Remote::world();
        store(&world, "romeo", THEM, from, approved);
        let romeo = interested(world.online("romeo", "orchard"));
        let _before = romeo.received();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (client, network) = (Arc::clone(&log), Arc::clone(&log));
        romeo.recorder().on_send(move |text| client.lock().unwrap().extend(elements(text)));
        remote.on_route(move |text| network.lock().unwrap().push(text.to_owned()));
        Self { world, remote, romeo, log }
    }

    /// What happened, in the words of the rules: who got the stanza, pushes, presence, replies.
    fn transcript(&self, kind: &str) -> String {
        let mine = presence(kind, ME, THEM);
        let theirs = presence(kind, THEM, ME);
        let current = format!("<presence from='{ME}/orchard' to='{THEM}'/>");
        let gone = format!("<presence from='{ME}/orchard' to='{THEM}' type='unavailable'/>");
        let reply = |x: &str| format!("<presence from='{ME}' to='{THEM}' id='s' type='{x}'/>");
        let words = |line: &String| match line {
            line if *line == mine => "R",
            line if *line == theirs => "D",
            line if *line == current => "here",
            line if *line == gone => "gone",
            line if *line == reply("subscribed") => "A:subscribed",
            line if *line == reply("unsubscribed") => "A:unsubscribed",
            line if line.contains("type='set'><query xmlns='jabber:iq:roster'") => "P",
            other => panic!("{other}"),
        };
        self.log.lock().unwrap().iter().map(words).collect::<Vec<_>>().join(" ")
    }
}

/// What the user got, and what the network got.
fn apart(words: &str) -> [Vec<&str>; 2] {
    let is_users = |word: &&str| matches!(*word, "D" | "P");
    let (user, network) = words.split_whitespace().partition(is_users);
    [user, network]
}

/// Runs one column: nine cells, each "new state: what happens".
#[track_caller]
fn column(kind: &str, outbound: bool, approved: bool, cells: [(&str, &str); 9]) {
    for (from, (to, expected)) in STATES.iter().zip(cells) {
        if to == "/" {
            continue;
        }
        let scene = Scene::new(*from, approved);
        if outbound {
            // SUB-1: the client's `from` and the resource in its `to` do not leave.
            scene.romeo.send(&presence(kind, "x@y.example", &format!("{THEM}/balcony")));
        } else {
            let from = format!("{THEM}/balcony");
            scene.remote.send(&scene.world, &presence(kind, &from, ME));
        }
        let name = from.0;
        let to = if to == "=" { name } else { to };
        let to = if approved && to == name && !expected.contains('P') {
            format!("{to}+a")
        } else {
            to.to_owned()
        };
        let happened = scene.transcript(kind);
        match scene.world.is_several() {
            // What the network gets comes from another node than what the client gets.
            true => assert_eq!(apart(&happened), apart(expected), "{kind} in {name}"),
            false => assert_eq!(happened, expected, "{kind} in {name}"),
        }
        assert_eq!(state(&scene.world, "romeo", THEM), to, "{kind} in {name}");
    }
}

#[test]
fn sub_o1_subscribe() {
    column(
        "subscribe",
        true,
        false,
        [
            ("PO", "R P"),
            ("=", "R"),
            ("POI", "R P"),
            ("=", "R"),
            ("=", "R"),
            ("=", "R"),
            ("FPO", "R P"),
            ("=", "R"),
            ("=", "R"),
        ],
    );
}

#[test]
fn sub_o2_unsubscribe() {
    column(
        "unsubscribe",
        true,
        false,
        [
            ("=", "R"),
            ("N", "R P"),
            ("=", "R"),
            ("PI", "R P"),
            ("N", "R P"),
            ("PI", "R P"),
            ("=", "R"),
            ("F", "R P"),
            ("F", "R P"),
        ],
    );
}

#[test]
fn sub_o3_subscribed() {
    column(
        "subscribed",
        true,
        false,
        [
            ("N+a", "P"),
            ("PO+a", "P"),
            ("F", "R P here"),
            ("FPO", "R P here"),
            ("T+a", "P"),
            ("B", "R P here"),
            ("=", ""),
            ("=", ""),
            ("=", ""),
        ],
    );
}

#[test]
fn sub_o4_unsubscribed() {
    column(
        "unsubscribed",
        true,
        false,
        [
            ("=", ""),
            ("=", ""),
            ("N", "R"),
            ("PO", "R"),
            ("=", ""),
            ("T", "R"),
            ("N", "gone R P"),
            ("PO", "gone R P"),
            ("T", "gone R P"),
        ],
    );
}

#[test]
fn sub_o4_unsubscribed_takes_an_approval_back() {
    const NONE: (&str, &str) = ("/", "");
    let cells = [("N", "P"), ("PO", "P"), NONE, NONE, ("T", "P"), NONE, NONE, NONE, NONE];
    column("unsubscribed", true, true, cells);
}

#[test]
fn sub_i1_subscribe() {
    column(
        "subscribe",
        false,
        false,
        [
            ("PI", "D"),
            ("POI", "D"),
            ("=", ""),
            ("=", ""),
            ("TPI", "D"),
            ("=", ""),
            ("=", "A:subscribed here"),
            ("=", "A:subscribed here"),
            ("=", "A:subscribed here"),
        ],
    );
}

#[test]
fn sub_i1_subscribe_that_was_approved_beforehand() {
    const NONE: (&str, &str) = ("/", "");
    let done = "A:subscribed P here";
    let cells = [("F", done), ("FPO", done), NONE, NONE, ("B", done), NONE, NONE, NONE, NONE];
    column("subscribe", false, true, cells);
}

#[test]
fn sub_i2_unsubscribe() {
    let left = "D P gone A:unsubscribed";
    column(
        "unsubscribe",
        false,
        false,
        [
            ("=", ""),
            ("=", ""),
            ("N", "D A:unsubscribed"),
            ("PO", "D A:unsubscribed"),
            ("=", ""),
            ("T", "D A:unsubscribed"),
            ("N", left),
            ("PO", left),
            ("T", left),
        ],
    );
}

#[test]
fn sub_i3_subscribed() {
    column(
        "subscribed",
        false,
        false,
        [
            ("=", ""),
            ("T", "D P"),
            ("=", ""),
            ("TPI", "D P"),
            ("=", ""),
            ("=", ""),
            ("=", ""),
            ("B", "D P"),
            ("=", ""),
        ],
    );
}

#[test]
fn sub_i4_unsubscribed() {
    column(
        "unsubscribed",
        false,
        false,
        [
            ("=", ""),
            ("N", "D P"),
            ("=", ""),
            ("PI", "D P"),
            ("N", "D P"),
            ("PI", "D P"),
            ("=", ""),
            ("F", "D P"),
            ("F", "D P"),
        ],
    );
}

/// Note (g): nobody was ever shown an item.
#[test]
fn sub_i2_pi_without_an_item_drops_the_request_only() {
    let (world, remote) = Remote::world();
    let romeo = interested(world.online("romeo", "orchard"));
    remote.send(&world, &presence("subscribe", THEM, ME));
    let _request = romeo.received();
    remote.send(&world, &presence("unsubscribe", THEM, ME));
    assert_eq!((romeo.received(), remote.routed()), (vec![], vec![]));
    assert_eq!(state(&world, "romeo", THEM), "N");
}

fn local(type_: &str, from: &str, to: &str) -> String {
    presence(type_, &format!("{from}@example.com"), &format!("{to}@example.com"))
}

#[test]
fn sub_4_both_ends_live_here() {
    let world = World::new();
    let romeo = interested(world.online("romeo", "orchard"));
    let juliet = interested(world.online("juliet", "balcony"));
    romeo.send(&presence("subscribe", "", "juliet@example.com/balcony"));
    let pending = "<item jid='juliet@example.com' subscription='none' ask='subscribe'/>";
    assert_eq!(short(&romeo), [push(1, pending)]);
    assert_eq!(short(&juliet), [local("subscribe", "romeo", "juliet")]);

    juliet.send(&presence("subscribed", "", ME));
    assert_eq!(short(&juliet), [push(1, &format!("<item jid='{ME}' subscription='from'/>"))]);
    // SUB-8: before the push; SUB-12: and the presence that it lets through.
    assert_eq!(
        short(&romeo),
        [
            local("subscribed", "juliet", "romeo"),
            push(2, "<item jid='juliet@example.com' subscription='to'/>"),
            format!("<presence from='juliet@example.com/balcony' to='{ME}'/>"),
        ]
    );

    juliet.send(&presence("unsubscribed", "", ME));
    assert_eq!(short(&juliet), [push(2, &format!("<item jid='{ME}' subscription='none'/>"))]);
    assert_eq!(
        short(&romeo),
        [
            format!("<presence from='juliet@example.com/balcony' to='{ME}' type='unavailable'/>"),
            local("unsubscribed", "juliet", "romeo"),
            push(3, "<item jid='juliet@example.com' subscription='none'/>"),
        ]
    );
    assert_eq!(state(&world, "romeo", "juliet@example.com"), "N");
    assert_eq!(state(&world, "juliet", ME), "N");
}

/// An approval beforehand answers within the request: both pushes of the asker, in order.
#[test]
fn sub_4_approved_beforehand() {
    let world = World::new();
    let romeo = interested(world.online("romeo", "orchard"));
    let juliet = interested(world.online("juliet", "balcony"));
    juliet.send(&presence("subscribed", "", ME));
    let approved = format!("<item jid='{ME}' subscription='none' approved='true'/>");
    assert_eq!(short(&juliet), [push(1, &approved)]);
    romeo.send(&presence("subscribe", "", "juliet@example.com"));
    assert_eq!(
        short(&romeo),
        [
            push(1, "<item jid='juliet@example.com' subscription='none' ask='subscribe'/>"),
            "<presence from='juliet@example.com' to='romeo@example.com' id='s' type='subscribed'/>"
                .to_owned(),
            push(2, "<item jid='juliet@example.com' subscription='to'/>"),
            format!("<presence from='juliet@example.com/balcony' to='{ME}'/>"),
        ]
    );
    assert_eq!(short(&juliet), [push(2, &format!("<item jid='{ME}' subscription='from'/>"))]);
}

#[test]
fn sub_5_an_unknown_account_stays_silent() {
    let world = World::new();
    let romeo = interested(world.online("romeo", "orchard"));
    romeo.send(&presence("subscribe", "", "nobody@example.com"));
    let item = "<item jid='nobody@example.com' subscription='none' ask='subscribe'/>";
    assert_eq!(short(&romeo), [push(1, item)]);
    romeo.send(&presence("unsubscribe", "", "nobody@example.com"));
    assert_eq!(short(&romeo), [push(2, "<item jid='nobody@example.com' subscription='none'/>")]);
}

#[test]
fn sub_6_who_asked_learns_that_there_is_no_way() {
    let (world, remote) = Remote::world();
    let (romeo, other) = (world.online("romeo", "orchard"), world.online("romeo", "street"));
    let _before = (romeo.received(), other.received());
    remote.refuse(Some(RouteError::NotFound));
    romeo.send(&presence("subscribe", "", &format!("{THEM}/balcony")));
    let error = format!(
        "<presence from='{THEM}' to='{ME}/orchard' id='s' type='error'><error type='cancel'>\
         <remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
    );
    assert_eq!(romeo.received(), [error]);
    assert_eq!(other.received(), [""; 0]);
    // What was made by us asked nobody, and is answered to nobody.
    romeo.send(&remove(THEM));
    let result = format!("<iq from='{ME}' to='{ME}/orchard' id='set' type='result'/>");
    assert_eq!(romeo.received(), [result]);
}

#[test]
fn sub_7_requests_to_a_resource_are_requests_to_the_account() {
    for (to, connected) in [("orchard", true), ("gone", false)] {
        let to = format!("{ME}/{to}");
        let (world, remote) = Remote::world();
        let romeo = interested(world.online("romeo", "orchard"));
        remote.send(&world, &presence("subscribe", THEM, &to));
        assert_eq!(romeo.received(), [presence("subscribe", THEM, ME)]);

        let (world, remote) = Remote::world();
        store(&world, "romeo", THEM, PENDING_OUT, false);
        let romeo = interested(world.online("romeo", "orchard"));
        remote.send(&world, &presence("subscribed", THEM, &to));
        assert_eq!(romeo.received().len(), if connected { 2 } else { 0 }, "{to}");
        assert_eq!(state(&world, "romeo", THEM), if connected { "T" } else { "PO" });
    }
}

#[test]
fn sub_8_who_is_told_of_what() {
    let (world, remote) = Remote::world();
    store(&world, "romeo", THEM, PENDING_OUT, false);
    let available = world.online("romeo", "available");
    let listening = interested(world.client("romeo", "interested"));
    let _before = (available.received(), listening.received());
    remote.send(&world, &presence("subscribe", THEM, ME));
    assert_eq!(available.received(), [presence("subscribe", THEM, ME)]);
    assert_eq!(listening.received(), [""; 0]);
    remote.send(&world, &presence("subscribed", THEM, ME));
    assert_eq!(available.received(), [""; 0]);
    let item = format!("<item jid='{THEM}' subscription='to'/>");
    assert_eq!(short(&listening), [presence("subscribed", THEM, ME), push(2, &item)]);
}

/// Another account's request, with extensions, that waits in the store; a second one came after it.
fn with_request() -> (World, Remote, String) {
    let (world, remote) = Remote::world();
    world.account("romeo");
    let request = format!(
        "<presence from='{THEM}' to='{ME}' id='s' type='subscribe'><status>Hi &amp; ho</status>\
         <nick xmlns='http://jabber.org/protocol/nick'>J</nick></presence>"
    );
    remote.send(&world, &request);
    remote.send(&world, &presence("subscribe", &format!("{THEM}/other"), ME));
    (world, remote, request)
}

#[test]
fn sub_9_a_request_is_kept_whole_and_once() {
    let (world, _remote, request) = with_request();
    let mine = world.client("romeo", "one").ask("<presence/>");
    let requests: Vec<_> = mine.iter().filter(|one| one.contains("type='subscribe'")).collect();
    assert_eq!(requests, [&request]);
    assert_eq!(world.client("romeo", "two").ask(GET).len(), 1, "no item");
}

#[test]
fn sub_10_requests_wait_for_every_session_until_they_are_answered() {
    let (world, _remote, request) = with_request();
    for (resource, priority) in [("one", 0), ("two", -5)] {
        let romeo = world.client("romeo", resource);
        let mine = romeo.ask(&format!("<presence><priority>{priority}</priority></presence>"));
        assert_eq!(mine.iter().filter(|one| **one == request).count(), 1, "{mine:?}");
        // PRES-5: not with later presence.
        let later = romeo.ask("<presence><show>away</show></presence>");
        assert!(!later.contains(&request));
    }
    let romeo = world.client("romeo", "three");
    romeo.send(&presence("unsubscribed", "", THEM));
    assert!(!romeo.ask("<presence/>").contains(&request));
}

/// Both addresses become bare, and the rest stays.
#[test]
fn sub_1_a_request_leaves_with_bare_addresses_and_otherwise_whole() {
    let (world, remote) = Remote::world();
    let romeo = world.online("romeo", "orchard");
    romeo.send(&format!(
        "<presence to='{THEM}/somewhere' id='s' type='subscribe'><status>Hi</status>\
         <nick xmlns='http://jabber.org/protocol/nick'>R</nick></presence>"
    ));
    assert_eq!(
        remote.routed(),
        [format!(
            "<presence from='{ME}' to='{THEM}' id='s' type='subscribe'><status>Hi</status>\
             <nick xmlns='http://jabber.org/protocol/nick'>R</nick></presence>"
        )]
    );
}

#[test]
fn sub_13_pending_requests_are_sent_again() {
    let (world, remote) = Remote::world();
    store(&world, "romeo", THEM, PENDING_OUT, false);
    store(&world, "romeo", "other@remote.example", FROM_PENDING_OUT, false);
    store(&world, "romeo", "juliet@example.com", PENDING_OUT, false);
    let again = |to: &str| format!("<presence from='{ME}' to='{to}' type='subscribe'/>");
    let both = [again(THEM), again("other@remote.example")];
    let requests = || remote.routed().into_iter().filter(|s| s.contains("'subscribe'"));

    let first = world.client("romeo", "orchard");
    assert_eq!(requests().count(), 0);
    first.send("<presence/>");
    assert!(requests().eq(both.clone()));
    let _second = world.online("romeo", "street");
    assert_eq!(requests().count(), 0);

    let day = Duration::from_secs(24 * 60 * 60);
    for (wait, expected) in [(day - Duration::from_secs(60), 0), (Duration::from_secs(60), 2)] {
        let environment = world.environment();
        // The clients of before are gone by then.
        world.each().for_each(|session| {
            world
                .home(&session)
                .registry()
                .destroy_session(&session, xmpp_session::session::Reason::Kicked);
        });
        world.settle();
        environment.advance(wait);
        let _romeo = world.online("romeo", "orchard");
        assert_eq!(requests().count(), expected);
    }
}

#[test]
fn sub_14_notices_to_accounts_without_sessions_change_state_alone() {
    let (world, remote) = Remote::world();
    store(&world, "romeo", THEM, PENDING_OUT, false);
    remote.send(&world, &presence("subscribed", THEM, ME));
    assert_eq!(state(&world, "romeo", THEM), "T");
    let romeo = interested(world.client("romeo", "orchard"));
    assert_eq!(romeo.ask("<presence/>").len(), 1);
}

#[test]
fn sub_15_an_approval_survives_and_goes_with_its_item() {
    let (world, remote) = Remote::world();
    let romeo = interested(world.online("romeo", "orchard"));
    romeo.send(&presence("subscribed", "", THEM));
    romeo.send(&presence("subscribe", "", THEM));
    assert_eq!(state(&world, "romeo", THEM), "PO+a");
    remote.send(&world, &presence("subscribed", THEM, ME));
    assert_eq!(state(&world, "romeo", THEM), "T+a");
    romeo.send(&presence("unsubscribe", "", THEM));
    assert_eq!(state(&world, "romeo", THEM), "N+a");
    romeo.send(&remove(THEM));
    romeo.send(&set(&format!("<item jid='{THEM}'/>")));
    assert_eq!(state(&world, "romeo", THEM), "N");
}

#[test]
fn sub_16_a_cancelled_subscriber_is_told_once_and_forgotten() {
    let world = World::new();
    world.friends("romeo", "juliet");
    let romeo = world.online("romeo", "orchard");
    let (juliet, quiet) = (world.online("juliet", "balcony"), world.client("juliet", "quiet"));
    romeo.send("<presence to='juliet@example.com'/>");
    romeo.send("<presence to='juliet@example.com/quiet'/>");
    let _before = (juliet.received(), quiet.received());
    romeo.send(&presence("unsubscribed", "", "juliet@example.com"));
    let gone =
        "<presence from='romeo@example.com/orchard' to='juliet@example.com' type='unavailable'/>";
    assert_eq!(juliet.received(), [gone]);
    // Only connected, it hears nothing that is said to its account.
    assert_eq!(
        quiet.received(),
        [gone.replace("to='juliet@example.com'", "to='juliet@example.com/quiet'")]
    );
    // Nothing is left to be told at the end.
    romeo.lose();
    assert_eq!((juliet.received(), quiet.received()), (vec![], vec![]));
}

#[test]
fn sub_16_directed_presence_is_no_subscription() {
    let (world, remote) = Remote::world();
    let romeo = interested(world.online("romeo", "orchard"));
    romeo.send(&format!("<presence to='{THEM}'/>"));
    assert_eq!(state(&world, "romeo", THEM), "N");
    assert_eq!(remote.routed(), [format!("<presence from='{ME}/orchard' to='{THEM}'/>")]);
}

#[test]
fn limit_16_requests_and_their_size() {
    let mut limits = Limits::default();
    limits.requests.count = 2;
    let (world, remote) = Remote::world_with(limits);
    let romeo = interested(world.online("romeo", "orchard"));
    for n in 0..4 {
        remote.send(&world, &presence("subscribe", &format!("c{n}@remote.example"), ME));
    }
    assert_eq!(romeo.received().len(), 2);
    romeo.send(&presence("unsubscribed", "", "c0@remote.example"));
    let large = "x".repeat(8 * 1024);
    let request = format!(
        "<presence from='{THEM}' to='{ME}' type='subscribe'><status>{large}</status></presence>"
    );
    remote.send(&world, &request);
    assert_eq!(romeo.received(), [""; 0]);
    remote.send(&world, &presence("subscribe", THEM, ME));
    assert_eq!(romeo.received().len(), 1);
    let expected = ["c1@remote.example", THEM];
    let stored = now(world.stores().rosters.requests(&BareJid::new(ME).unwrap())).unwrap();
    assert!(stored.iter().map(|request| request.from.as_str()).eq(expected));
    // Silently: the askers are told nothing.
    assert!(remote.routed().iter().all(|s| s.contains("'unsubscribed'")));
}
