//! Offline messages on the wire (XEP-0160, XEP-0334; rules OFF-1 to OFF-4).

use crate::common::{faults, wire};
use std::sync::Arc;
use std::time::Duration;

use faults::{Fault, Faulty};
use wire::{Client, World, now};
use xmpp_session::connection::SendError;
use xmpp_session::jid::BareJid;
use xmpp_session::server::Limits;
use xmpp_session::store::{Memory, OfflineLimits, Stores};
use xmpp_session::xep::StreamManagement;

const ME: &str = "romeo@example.com";
const BODY: &str = "<body>Hi</body>";

fn message(type_: &str, payload: &str) -> String {
    format!("<message to='{ME}' type='{type_}' id='m'>{payload}</message>")
}

fn bounced(type_: &str) -> String {
    format!(
        "<message from='{ME}' to='juliet@example.com/balcony' id='m' type='error'>\
         <error type='{type_}'><{} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
        if type_ == "wait" { "resource-constraint" } else { "service-unavailable" }
    )
}

fn waiting(world: &World, node: &str) -> usize {
    let account = BareJid::new(&format!("{node}@example.com")).unwrap();
    now(world.stores().offline.as_ref().unwrap().count(&account)).unwrap()
}

/// The bodies of what a client received.
fn bodies(client: &Client) -> Vec<String> {
    let received = client.received();
    let body = |one: &String| Some(one.split("<body>").nth(1)?.split("</body>").next()?.to_owned());
    received.iter().filter_map(body).collect()
}

fn say(juliet: &Client, bodies: &[&str]) {
    for body in bodies {
        juliet.send(&message("chat", &format!("<body>{body}</body>")));
    }
}

/// From the frame with this body on the connection refuses.
fn refuse_behind(client: &Client, body: &str, why: SendError) {
    let recorder = client.recorder().clone();
    let body = format!("<body>{body}<");
    client.recorder().on_send(move |text| {
        if text.contains(&body) {
            recorder.refuse(Some(why));
        }
    });
}

fn pair() -> (World, Client) {
    let world = World::new();
    world.account("romeo");
    let juliet = world.client("juliet", "balcony");
    (world, juliet)
}

#[test]
fn off_1_what_is_stored() {
    let state = "<active xmlns='http://jabber.org/protocol/chatstates'/>";
    let store = "<store xmlns='urn:xmpp:hints'/>";
    let no_store = "<no-store xmlns='urn:xmpp:hints'/>";
    for (type_, payload, stored, answer) in [
        ("normal", BODY.to_owned(), 1, false),
        ("chat", BODY.to_owned(), 1, false),
        ("what", BODY.to_owned(), 1, false),
        ("groupchat", BODY.to_owned(), 0, true),
        ("headline", BODY.to_owned(), 0, false),
        ("error", BODY.to_owned(), 0, false),
        ("chat", state.to_owned(), 0, false),
        ("chat", format!("{state}{store}"), 1, false),
        ("chat", format!("{BODY}{no_store}"), 0, false),
        ("normal", no_store.to_owned(), 0, false),
    ] {
        let (world, juliet) = pair();
        let got = juliet.ask(&message(type_, &payload));
        assert_eq!(waiting(&world, "romeo"), stored, "{type_} {payload}");
        assert_eq!(got, if answer { vec![bounced("cancel")] } else { vec![] }, "{type_} {payload}");
    }
}

#[test]
fn off_1_an_unknown_account_looks_the_same_and_stores_nothing() {
    let (world, juliet) = pair();
    let to = |to: &str, payload: &str| {
        format!("<message to='{to}@example.com' id='m'>{payload}</message>")
    };
    for payload in [BODY.to_owned(), format!("{BODY}<no-store xmlns='urn:xmpp:hints'/>")] {
        let known = juliet.ask(&to("romeo", &payload));
        let unknown = juliet.ask(&to("nobody", &payload));
        assert_eq!(known, unknown.iter().map(|s| s.replace("nobody", "romeo")).collect::<Vec<_>>());
    }
    assert_eq!(waiting(&world, "nobody"), 0);
}

#[test]
fn off_2_a_full_store_bounces() {
    let memory = Memory::new().with_offline_limits(OfflineLimits::new(2, 1 << 20));
    let world = World::with_stores(Stores::all_in(Arc::new(memory)), |builder, _| builder);
    world.account("romeo");
    let juliet = world.client("juliet", "balcony");
    say(&juliet, &["1", "2"]);
    assert_eq!(juliet.received(), [""; 0]);
    assert_eq!(juliet.ask(&message("chat", BODY)), [bounced("cancel")]);
    assert_eq!(waiting(&world, "romeo"), 2);
}

#[test]
fn off_2_without_a_store_everything_bounces() {
    let world = World::with_stores(Stores::memory().without_offline(), |builder, _| builder);
    world.account("romeo");
    let juliet = world.client("juliet", "balcony");
    assert_eq!(juliet.ask(&message("chat", BODY)), [bounced("cancel")]);
}

#[test]
fn off_3_all_in_order_with_the_time_of_arrival() {
    let (world, juliet) = pair();
    juliet.send(&format!("<message to='{ME}/gone' type='chat' xml:lang='en'>{BODY}<x xmlns='urn:example:x'/></message>"));
    world.advance(Duration::from_secs(61));
    juliet.send(&message("normal", "<body>2</body>"));
    world.advance(Duration::from_secs(61));
    let romeo = world.client("romeo", "orchard");
    let delay = |time: &str| {
        format!("<delay xmlns='urn:xmpp:delay' from='example.com' stamp='2026-01-01T00:{time}Z'/>")
    };
    assert_eq!(
        romeo.ask("<presence/>"),
        [
            format!("<presence from='{ME}/orchard' to='{ME}'/>"),
            format!(
                "<message from='juliet@example.com/balcony' to='{ME}/gone' type='chat' xml:lang='en'>{BODY}<x xmlns='urn:example:x'/>{}</message>",
                delay("00:00")
            ),
            format!(
                "<message from='juliet@example.com/balcony' to='{ME}' id='m' type='normal'><body>2</body>{}</message>",
                delay("01:01")
            ),
        ]
    );
    assert_eq!(waiting(&world, "romeo"), 0);
}

#[test]
fn off_3_only_a_change_to_zero_or_more_fetches() {
    let (world, juliet) = pair();
    let romeo = world.client("romeo", "orchard");
    let priority = |n: i8| romeo.send(&format!("<presence><priority>{n}</priority></presence>"));
    say(&juliet, &["1"]);
    priority(-1);
    assert_eq!(bodies(&romeo), [""; 0]);
    priority(0);
    assert_eq!(bodies(&romeo), ["1"]);
    priority(-1);
    say(&juliet, &["2"]);
    priority(-2);
    assert_eq!(bodies(&romeo), [""; 0]);
    priority(5);
    assert_eq!(bodies(&romeo), ["2"]);
    romeo.send("<presence type='unavailable'/>");
    say(&juliet, &["3"]);
    priority(0);
    assert_eq!(bodies(&romeo), ["3"]);
}

#[test]
fn off_4_each_message_goes_to_one_session() {
    let (world, juliet) = pair();
    say(&juliet, &["1", "2"]);
    let (one, two) = (world.client("romeo", "one"), world.client("romeo", "two"));
    one.send("<presence/>");
    two.send("<presence/>");
    assert_eq!((bodies(&one).len(), bodies(&two).len()), (2, 0));
}

#[test]
fn off_4_what_was_not_accepted_stays() {
    let (world, juliet) = pair();
    say(&juliet, &["1", "2", "3"]);
    let romeo = world.client("romeo", "orchard");
    refuse_behind(&romeo, "1", SendError::Closed);
    romeo.send("<presence/>");
    let romeo = world.client("romeo", "street");
    romeo.send("<presence/>");
    assert_eq!(bodies(&romeo), ["2", "3"]);
    assert_eq!(waiting(&world, "romeo"), 0);
}

/// A client that has more waiting than its connection takes at once loses neither of them.
#[test]
fn off_3_more_than_a_connection_takes_at_once() {
    let (world, juliet) = pair();
    say(&juliet, &["1", "2", "3", "4"]);
    let romeo = world.client("romeo", "orchard");
    refuse_behind(&romeo, "2", SendError::Full);
    romeo.send("<presence/>");
    assert_eq!(waiting(&world, "romeo"), 0);
    // What comes now is behind what was stored, and does not break the transport either.
    say(&juliet, &["5"]);
    assert!(romeo.is_connected());
    assert_eq!(bodies(&romeo), ["1", "2"]);
    romeo.recorder().refuse(None);
    world.settle();
    assert_eq!(bodies(&romeo), ["3", "4", "5"]);
    // Who takes nothing any more loses its transport (LIMIT-13).
    romeo.recorder().refuse(Some(SendError::Full));
    say(&juliet, &["6"]);
    world.settle();
    world.advance(Duration::from_secs(60));
    assert!(romeo.session().is_ended());
    assert_eq!(waiting(&world, "romeo"), 1);
}

#[test]
fn off_3_the_last_one_waits_as_the_others_do() {
    let (world, juliet) = pair();
    say(&juliet, &["1", "2"]);
    let romeo = world.client("romeo", "orchard");
    refuse_behind(&romeo, "1", SendError::Full);
    romeo.send("<presence/>");
    world.settle();
    romeo.recorder().refuse(None);
    world.settle();
    assert_eq!(bodies(&romeo), ["1", "2"]);
}

/// A client whose connection had enough to do when it came for two messages, and has written all since.
fn behind() -> (World, Client) {
    let (world, juliet) = pair();
    say(&juliet, &["1", "2"]);
    let romeo = world.client("romeo", "orchard");
    romeo.recorder().refuse(Some(SendError::Full));
    romeo.send("<presence/>");
    assert_eq!(bodies(&romeo), [""; 0]);
    romeo.recorder().refuse(None);
    (world, romeo)
}

/// It is looked at again in time, whoever else forgets to.
#[test]
fn off_3_the_rest_follows_within_a_second() {
    let (world, romeo) = behind();
    let due = romeo.driver(|driver| driver.next_timeout()).unwrap();
    assert!(due <= world.server().now() + Duration::from_secs(1));
    world.advance(Duration::from_secs(1));
    assert_eq!(bodies(&romeo), ["1", "2"]);
}

#[test]
fn off_3_a_connection_that_has_written_all_gets_the_rest_at_once() {
    let (_world, romeo) = behind();
    romeo.recorder().drained();
    assert_eq!(bodies(&romeo), ["1", "2"]);
}

#[test]
fn off_4_what_was_not_written_goes_back_in_order() {
    for closes in [false, true] {
        let (world, juliet) = pair();
        say(&juliet, &["1", "2", "3", "4"]);
        let romeo = world.client("romeo", "orchard");
        refuse_behind(&romeo, "1", SendError::Full);
        romeo.send("<presence/>");
        say(&juliet, &["5"]);
        if closes {
            // Nothing can be written any more, not even that.
            romeo.send("</stream:stream>");
            assert_eq!(bodies(&romeo), ["1"]);
        } else {
            romeo.lose();
        }
        assert_eq!(waiting(&world, "romeo"), 4);
        let romeo = world.client("romeo", "street");
        romeo.send("<presence/>");
        assert_eq!(bodies(&romeo), ["2", "3", "4", "5"]);
    }
}

/// The store has limits of its own: those of the session are for what comes beside.
#[test]
fn off_3_what_was_stored_counts_against_no_limit_of_the_session() {
    let small = |mut limits: Limits| {
        limits.retention.live_stanzas = 2;
        limits.retention.bytes = 600;
        limits
    };
    for retained in [false, true] {
        let world = World::with(|builder, _| {
            builder.extension(StreamManagement::new()).limits(small(Limits::default()))
        });
        world.account("romeo");
        let juliet = world.client("juliet", "balcony");
        say(&juliet, &["1", "2", "3", "4", "5", "6"]);
        let romeo = world.client("romeo", "orchard");
        if retained {
            romeo.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        }
        refuse_behind(&romeo, "2", SendError::Full);
        romeo.send("<presence/>");
        say(&juliet, &["7"]);
        romeo.recorder().on_send(|_| ());
        romeo.recorder().refuse(None);
        world.advance(Duration::from_secs(1));
        assert!(romeo.is_connected());
        assert_eq!(bodies(&romeo), ["1", "2", "3", "4", "5", "6", "7"], "{retained}");
        if retained {
            for body in ["8", "9", "10", "11", "12"] {
                say(&juliet, &[body]);
                // Its sender slows down.
                world.advance(Duration::from_secs(1));
            }
            assert_eq!(bodies(&romeo), ["8", "9"], "what comes beside is limited (LIMIT-10)");
        }
    }
}

/// Stream management that is turned on while stored messages wait covers them: the client counts
/// what is behind `<enabled/>`.
#[test]
fn off_4_what_still_waits_when_management_begins_is_acknowledged() {
    let world = World::with(|builder, _| builder.extension(StreamManagement::new()));
    world.account("romeo");
    let juliet = world.client("juliet", "balcony");
    say(&juliet, &["1", "2", "3"]);
    let romeo = world.client("romeo", "orchard");
    refuse_behind(&romeo, "1", SendError::Full);
    romeo.send("<presence/><enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    romeo.recorder().refuse(None);
    world.settle();
    let received = romeo.received();
    let place = |what: &str| received.iter().position(|one| one.contains(what)).unwrap();
    assert!(place("<body>1<") < place("<enabled") && place("<enabled") < place("<body>2<"));
    let id = received[place("<enabled")].split(" id='").nth(1).unwrap().split('\'').next().unwrap();
    romeo.lose();
    let romeo = world.authenticated("romeo");
    romeo.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"));
    assert_eq!(bodies(&romeo), ["3"]);
    romeo.send("<a xmlns='urn:xmpp:sm:3' h='2'/></stream:stream>");
    assert_eq!(waiting(&world, "romeo"), 0);
}

#[test]
fn off_4_a_removal_that_fails_is_done_later_and_nothing_is_given_twice() {
    let faulty = Faulty::new();
    let world = World::with_stores(faulty.stores(), |builder, _| builder);
    world.account("romeo");
    let juliet = world.client("juliet", "balcony");
    say(&juliet, &["1"]);
    let romeo = world.client("romeo", "orchard");
    // After the list, and before the next one.
    faulty.decide(|_, n| if n == 1 || n == 3 { Fault::Fail } else { Fault::None });
    romeo.send("<presence/>");
    assert_eq!(bodies(&romeo), ["1"]);
    romeo.send("<presence type='unavailable'/>");
    say(&juliet, &["2"]);
    romeo.send("<presence/>");
    assert_eq!(bodies(&romeo), ["2"]);
    world.advance(Duration::from_secs(6));
    assert_eq!(bodies(&romeo), [""; 0]);
    assert_eq!(waiting(&world, "romeo"), 0);
}

/// A session comes while a message to the absent account waits for its store.
#[test]
fn off_3_a_session_that_comes_amid_a_slow_store() {
    for fault in [Fault::Slow, Fault::SlowAnswer] {
        let faulty = Faulty::new();
        let world = World::with_stores(faulty.stores(), |builder, _| builder);
        world.account("romeo");
        let juliet = world.client("juliet", "balcony");
        let romeo = world.client("romeo", "orchard");
        faulty.decide(move |_, n| if n == 0 { fault } else { Fault::None });
        say(&juliet, &["1"]);
        romeo.send("<presence/>");
        assert_eq!(bodies(&romeo), [""; 0]);
        // Behind the first on the same stream, and so behind it at the other end (STZ-8).
        say(&juliet, &["2"]);
        faulty.release();
        world.settle();
        assert_eq!(bodies(&romeo), ["1", "2"], "{fault:?}");
        assert_eq!(waiting(&world, "romeo"), 0);
    }
}

/// A message and the session that fetches it wait behind a slow change of the account.
#[test]
fn off_3_a_session_that_comes_amid_a_slow_change() {
    let faulty = Faulty::new();
    let world = World::with_stores(faulty.stores(), |builder, _| builder);
    world.account("romeo");
    let (juliet, romeo) = (world.client("juliet", "balcony"), world.client("romeo", "orchard"));
    let editor = world.client("romeo", "street");
    say(&juliet, &["0"]);
    faulty.decide(|_, n| if n == 0 { Fault::Slow } else { Fault::None });
    editor.send("<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='a@b.example'/></query></iq>");
    romeo.send("<presence><priority>-1</priority></presence>");
    say(&juliet, &["1"]);
    romeo.send("<presence/>");
    faulty.release();
    world.settle();
    assert_eq!(bodies(&romeo).len(), 2);
    assert_eq!(waiting(&world, "romeo"), 0);
}

#[test]
fn off_2_a_store_that_fails_is_told_to_the_sender() {
    for fault in [Fault::Fail, Fault::SlowFail, Fault::Panic] {
        let faulty = Faulty::new();
        let world = World::with_stores(faulty.stores(), |builder, _| builder);
        world.account("romeo");
        let juliet = world.client("juliet", "balcony");
        faulty.decide(move |_, n| if n == 0 { fault } else { Fault::None });
        juliet.send(&message("chat", BODY));
        faulty.release();
        world.settle();
        let error = bounced("cancel").replace("service-unavailable", "internal-server-error");
        assert_eq!(juliet.received(), [error], "{fault:?}");
        assert_eq!(waiting(&world, "romeo"), 0);
        // The account's chain goes on.
        say(&juliet, &["1"]);
        assert_eq!(waiting(&world, "romeo"), 1);
    }
}
