//! Presence between contacts on the wire (RFC 6121 §4; rules PRES-1 to PRES-21, DESTROY-2, LIMIT-17).

use crate::common::{contacts, wire};
use std::time::Duration;

use contacts::{Remote, interested};
use wire::{Client, World, elements};
use xmpp_session::rules::roster::Subscription;
use xmpp_session::server::{Limits, RouteError};

const ME: &str = "romeo@example.com";
const ORCHARD: &str = "romeo@example.com/orchard";
const THEM: &str = "juliet@remote.example";

fn gone(from: &str, to: &str) -> String {
    format!("<presence from='{from}' to='{to}' type='unavailable'/>")
}

fn here(from: &str, to: &str) -> String {
    format!("<presence from='{from}' to='{to}'/>")
}

fn bad_request(id: &str) -> String {
    format!(
        "<presence from='{ME}' to='{ORCHARD}' id='{id}' type='error'><error type='modify'>\
         <bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
    )
}

/// A remote contact with each subscription: both@, from@, to@, none@remote.example.
fn four_contacts() -> (World, Remote) {
    let (world, remote) = Remote::world();
    let romeo = world.account("romeo");
    for (node, subscription) in [
        ("both", Subscription::Both),
        ("from", Subscription::From),
        ("none", Subscription::None),
        ("to", Subscription::To),
    ] {
        let jid = format!("{node}@remote.example");
        world.roster(romeo.node().unwrap().as_str(), &jid, subscription);
    }
    (world, remote)
}

#[test]
fn pres_1_unknown_types() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    for type_ in ["available", "invisible", ""] {
        let answer = romeo.ask(&format!("<presence type='{type_}' id='1'/>"));
        assert_eq!(answer, [bad_request("1")]);
    }
    assert!(!romeo.session().is_available());
}

#[test]
fn pres_2_a_bad_priority_changes_nothing() {
    let world = World::new();
    world.friends("romeo", "juliet");
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
    romeo.send("<presence><priority>7</priority></presence>");
    let _before = (romeo.received(), juliet.received());
    for payload in [
        "<priority>128</priority>",
        "<priority>high</priority>",
        "<priority>1</priority><priority>1</priority>",
        "<show>away</show><show>xa</show>",
    ] {
        assert_eq!(
            romeo.ask(&format!("<presence id='1'>{payload}</presence>")),
            [bad_request("1")]
        );
    }
    assert_eq!(juliet.received(), [""; 0]);
    assert_eq!(romeo.session().available().unwrap().priority(), 7);
}

#[test]
fn pres_3_initial_presence_in_its_order() {
    let (world, remote) = four_contacts();
    world.friends("romeo", "nurse");
    let other = world.online("romeo", "street");
    let nurse = world.online("nurse", "house");
    let _before = (other.received(), nurse.received(), remote.routed());
    let romeo = world.client("romeo", "orchard");
    let mut mine =
        romeo.ask("<presence id='i'><status>Hi</status><x xmlns='urn:example:x'/></presence>");
    if world.is_several() {
        // Contacts at other nodes have to be asked (NODE-15).
        mine[1..].reverse();
    }
    let copy = |to: &str| {
        format!(
            "<presence from='{ORCHARD}' to='{to}' id='i'><status>Hi</status><x xmlns='urn:example:x'/></presence>"
        )
    };
    let probe = |to: &str| format!("<presence from='{ME}' to='{to}' type='probe'/>");
    assert_eq!(
        remote.routed(),
        [
            copy("both@remote.example"),
            copy("from@remote.example"),
            probe("both@remote.example"),
            probe("to@remote.example"),
        ]
    );
    // PRES-4: the bare JID, for contacts here, own sessions and itself.
    assert_eq!(nurse.received(), [copy("nurse@example.com")]);
    assert_eq!(other.received(), [copy(ME)]);
    let delay = "<delay xmlns='urn:xmpp:delay' from='nurse@example.com/house' stamp='2026-01-01T00:00:00Z'/>";
    assert_eq!(
        mine,
        [
            copy(ME),
            format!("<presence from='nurse@example.com/house' to='{ME}'>{delay}</presence>"),
            here("romeo@example.com/street", ME),
        ]
    );
}

#[test]
fn pres_3_again_after_an_unavailable() {
    let (world, remote) = four_contacts();
    let romeo = world.online("romeo", "orchard");
    romeo.send("<presence type='unavailable'/>");
    let _before = remote.routed();
    romeo.send("<presence/>");
    assert_eq!(remote.routed().iter().filter(|s| s.contains("'probe'")).count(), 2);
}

#[test]
fn pres_3_requests_then_reminders_then_messages() {
    let (world, remote) = Remote::world();
    world.account("romeo");
    remote.send(&world, &format!("<presence type='subscribe' from='{THEM}' to='{ME}'/>"));
    remote.send(&world, &format!("<message from='{THEM}' to='{ME}'><body>Hi</body></message>"));
    let romeo = world.client("romeo", "orchard");
    romeo.send("<presence type='subscribe' to='nurse@remote.example'/>");
    let _before = remote.routed();
    let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (client, network) = (log.clone(), log.clone());
    romeo.recorder().on_send(move |text| client.lock().unwrap().extend(elements(text)));
    remote.on_route(move |text| network.lock().unwrap().push(text.to_owned()));
    romeo.send("<presence/>");
    let mut log = log.lock().unwrap();
    assert_eq!(log.len(), 4, "{log:?}");
    if world.is_several() {
        // What the network gets comes from another node than what the client gets.
        log[..3].rotate_left(1);
    }
    assert_eq!(log[0], here(ORCHARD, ME));
    assert!(log[1].contains(THEM) && log[1].contains("'subscribe'"));
    assert!(log[2].contains("to='nurse@remote.example' type='subscribe'"));
    assert!(log[3].starts_with("<message"));
}

#[test]
fn pres_5_later_presence() {
    let (world, remote) = four_contacts();
    let romeo = world.online("romeo", "orchard");
    let _before = remote.routed();
    romeo.send("<presence><show>away</show></presence>");
    let away =
        |to: &str| format!("<presence from='{ORCHARD}' to='{to}'><show>away</show></presence>");
    assert_eq!(remote.routed(), [away("both@remote.example"), away("from@remote.example")]);
    assert_eq!(romeo.received(), [away(ME)]);
}

#[test]
fn pres_6_unavailable_reaches_everybody_once() {
    let (world, remote) = four_contacts();
    world.account("juliet");
    let (romeo, other) = (world.online("romeo", "orchard"), world.online("romeo", "street"));
    let juliet = world.client("juliet", "balcony");
    for to in [
        "both@remote.example/r",
        "none@remote.example",
        "room@muc.example/r",
        "juliet@example.com/balcony",
    ] {
        romeo.send(&format!("<presence to='{to}'/>"));
    }
    let _before = (remote.routed(), romeo.received(), other.received(), juliet.received());
    romeo.send("<presence type='unavailable'><status>Bye</status></presence>");
    let bye = |to: &str| {
        format!(
            "<presence from='{ORCHARD}' to='{to}' type='unavailable'><status>Bye</status></presence>"
        )
    };
    assert_eq!(
        remote.routed(),
        ["both@remote.example", "from@remote.example", "none@remote.example", "room@muc.example/r"]
            .map(bye)
    );
    assert_eq!(romeo.received(), [bye(ME)]);
    assert_eq!(other.received(), [bye(ME)]);
    assert_eq!(juliet.received(), [bye("juliet@example.com/balcony")]);
    assert!(!romeo.session().is_available());
    romeo.lose();
    assert_eq!((remote.routed(), other.received()), (vec![], vec![]));
}

#[test]
fn pres_7_unavailable_of_who_was_not_available() {
    let (world, remote) = four_contacts();
    let romeo = world.client("romeo", "orchard");
    romeo.send("<presence type='unavailable'/>");
    assert_eq!((remote.routed(), romeo.received()), (vec![], vec![]));
    romeo.send(&format!("<presence to='{THEM}'/>"));
    // A subscriber too: no broadcast has reached it (PRES-10).
    romeo.send("<presence to='from@remote.example'/>");
    let _directed = remote.routed();
    romeo.send("<presence type='unavailable'/>");
    assert_eq!(remote.routed(), [gone(ORCHARD, "from@remote.example"), gone(ORCHARD, THEM)]);
    romeo.send("<presence type='unavailable'/>");
    assert_eq!(remote.routed(), [""; 0]);
}

#[test]
fn pres_9_directed_presence_changes_nothing() {
    let (world, remote) = Remote::world();
    let romeo = world.client("romeo", "orchard");
    let juliet = world.client("juliet", "balcony");
    let payload = "<show>dnd</show><priority>9</priority><x xmlns='urn:example:x'/>";
    for to in [THEM, "juliet@example.com/balcony"] {
        romeo.send(&format!("<presence to='{to}' id='d'>{payload}</presence>"));
        let whole = format!("<presence from='{ORCHARD}' to='{to}' id='d'>{payload}</presence>");
        let got = if to == THEM { remote.routed() } else { juliet.received() };
        assert_eq!(got, [whole]);
    }
    assert!(romeo.session().available().is_none());
}

#[test]
fn pres_11_targets_are_forgotten() {
    let (world, remote) = Remote::world();
    let romeo = world.online("romeo", "orchard");
    for n in 0..4 {
        romeo.send(&format!("<presence to='c{n}@remote.example'/>"));
    }
    romeo.send("<presence to='c0@remote.example' type='unavailable'/>");
    remote.send(&world, &gone("C1@Remote.example", ORCHARD));
    let error = format!(
        "<presence from='c2@remote.example' to='{ORCHARD}' type='error'><error type='cancel'>\
         <gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
    );
    remote.send(&world, &error);
    // Only from exactly that JID.
    remote.send(&world, &gone("c3@remote.example/other", ORCHARD));
    let _before = remote.routed();
    romeo.lose();
    assert_eq!(remote.routed(), [gone(ORCHARD, "c3@remote.example")]);
}

#[test]
fn pres_11_a_contact_here_that_goes_is_forgotten() {
    let (world, remote) = Remote::world();
    world.friends("romeo", "juliet");
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
    romeo.send("<presence to='juliet@example.com/balcony'/>");
    juliet.send(&format!("<presence to='{ORCHARD}'/>"));
    juliet.lose();
    let back = world.online("juliet", "balcony");
    let _before = (back.received(), remote.routed());
    romeo.lose();
    // It saw nothing of this romeo.
    assert_eq!(back.received(), [""; 0]);
}

#[test]
fn pres_11_who_cannot_be_reached_is_not_told() {
    let (world, remote) = Remote::world();
    let romeo = world.online("romeo", "orchard");
    remote.refuse(Some(RouteError::NotFound));
    let answer = romeo.ask(&format!("<presence to='{THEM}' id='d'/>"));
    assert!(answer[0].contains("<remote-server-not-found "), "{answer:?}");
    remote.refuse(None);
    romeo.lose();
    assert_eq!(remote.routed(), [""; 0]);
}

#[test]
fn pres_12_a_subscriber_told_of_an_end_hears_on() {
    let (world, remote) = four_contacts();
    let romeo = world.online("romeo", "orchard");
    romeo.send("<presence to='from@remote.example' type='unavailable'/>");
    let _before = remote.routed();
    romeo.send("<presence/>");
    assert_eq!(
        remote.routed(),
        [here(ORCHARD, "both@remote.example"), here(ORCHARD, "from@remote.example")]
    );
}

fn probe(remote: &Remote, world: &World, from: &str, to: &str) -> Vec<String> {
    let _before = remote.routed();
    remote.send(world, &format!("<presence type='probe' from='{from}' to='{to}' id='p'/>"));
    remote.routed()
}

#[test]
fn pres_14_strangers_and_unknown_accounts() {
    let (world, remote) = four_contacts();
    let answer = |from: &str, to: &str| {
        vec![format!("<presence from='{to}' to='{from}' id='p' type='unsubscribed'/>")]
    };
    for session in [None, Some(world.online("romeo", "orchard"))] {
        for from in [THEM, "to@remote.example", "none@remote.example"] {
            assert_eq!(probe(&remote, &world, from, ME), answer(from, ME), "{}", session.is_some());
            assert_eq!(probe(&remote, &world, from, ORCHARD), answer(from, ME));
        }
        assert_eq!(probe(&remote, &world, THEM, "x@example.com"), answer(THEM, "x@example.com"));
    }
}

#[test]
fn pres_15_nobody_is_available() {
    let (world, remote) = four_contacts();
    let from = "from@remote.example";
    let answer = |delay: &str| {
        let head = format!("<presence from='{ME}' to='{from}' id='p' type='unavailable'");
        if delay.is_empty() {
            vec![format!("{head}/>")]
        } else {
            vec![format!("{head}>{delay}</presence>")]
        }
    };
    assert_eq!(probe(&remote, &world, from, ME), answer(""));
    let romeo = world.online("romeo", "orchard");
    world.advance(Duration::from_secs(90));
    romeo.send("<presence type='unavailable'><status>Bye</status></presence>");
    world.advance(Duration::from_secs(60));
    let delay = format!("<delay xmlns='urn:xmpp:delay' from='{ME}' stamp='2026-01-01T00:01:30Z'/>");
    assert_eq!(probe(&remote, &world, from, ME), answer(&delay));
    romeo.lose();
    assert_eq!(probe(&remote, &world, from, ME), answer(&delay));
}

#[test]
fn pres_15_a_contact_here_is_learned_of_without_a_probe() {
    let world = World::new();
    world.friends("romeo", "juliet");
    let juliet = world.online("juliet", "balcony");
    world.advance(Duration::from_secs(5));
    juliet.lose();
    let romeo = world.client("romeo", "orchard");
    let learned = &romeo.ask("<presence/>")[1];
    let delay =
        "<delay xmlns='urn:xmpp:delay' from='juliet@example.com' stamp='2026-01-01T00:00:05Z'/>";
    assert_eq!(
        *learned,
        format!(
            "<presence from='juliet@example.com' to='{ME}' type='unavailable'>{delay}</presence>"
        )
    );
}

#[test]
fn pres_16_every_available_session_answers() {
    let (world, remote) = four_contacts();
    let (one, two) = (world.client("romeo", "one"), world.client("romeo", "two"));
    let _connected = world.client("romeo", "three");
    one.send("<presence id='o'><show>away</show></presence>");
    world.advance(Duration::from_secs(10));
    two.send("<presence><priority>-1</priority></presence>");
    world.advance(Duration::from_secs(10));
    let delay = |r: &str, s: u8| {
        format!("<delay xmlns='urn:xmpp:delay' from='{ME}/{r}' stamp='2026-01-01T00:00:{s:02}Z'/>")
    };
    let from = "from@remote.example";
    assert_eq!(
        probe(&remote, &world, from, ME),
        [
            format!(
                "<presence from='{ME}/one' to='{from}' id='o'><show>away</show>{}</presence>",
                delay("one", 0)
            ),
            format!(
                "<presence from='{ME}/two' to='{from}'><priority>-1</priority>{}</presence>",
                delay("two", 10)
            ),
        ]
    );
}

#[test]
fn pres_17_who_holds_directed_presence() {
    let (world, remote) = Remote::world();
    let sessions: Vec<Client> = ["a", "b", "c"].map(|r| world.client("romeo", r)).into();
    sessions[2].send("<presence/>");
    sessions[0].send(&format!("<presence to='{THEM}/balcony'><show>away</show></presence>"));
    sessions[2].send(&format!("<presence to='{THEM}'/>"));
    let mere = |r: &str| format!("<presence from='{ME}/{r}' to='{THEM}' id='p'/>");
    assert_eq!(probe(&remote, &world, THEM, ME), [mere("a"), mere("c")]);
    assert_eq!(probe(&remote, &world, THEM, &format!("{ME}/a")), [mere("a")]);
    // Nothing about a session that directed none.
    let refused = format!("<presence from='{ME}' to='{THEM}' id='p' type='unsubscribed'/>");
    assert_eq!(probe(&remote, &world, THEM, &format!("{ME}/b")), [refused]);
}

#[test]
fn pres_18_a_subscriber_probes_one_resource() {
    let (world, remote) = four_contacts();
    let _romeo = world.online("romeo", "orchard");
    let _connected = world.client("romeo", "connected");
    let from = "both@remote.example";
    assert_eq!(
        probe(&remote, &world, from, ORCHARD),
        [format!("<presence from='{ORCHARD}' to='{from}' id='p'/>")]
    );
    for resource in ["connected", "missing"] {
        let to = format!("{ME}/{resource}");
        let answer = format!("<presence from='{to}' to='{from}' id='p' type='unavailable'/>");
        assert_eq!(probe(&remote, &world, from, &to), [answer]);
    }
}

#[test]
fn pres_19_a_client_may_probe() {
    let (world, remote) = Remote::world();
    world.friends("romeo", "juliet");
    let (romeo, _juliet) = (world.online("romeo", "orchard"), world.online("juliet", "balcony"));
    let answer = romeo.ask("<presence type='probe' to='juliet@example.com'/>");
    assert_eq!(answer.len(), 1);
    assert!(
        answer[0]
            .starts_with(&format!("<presence from='juliet@example.com/balcony' to='{ORCHARD}'>"))
    );
    let stranger = romeo.ask("<presence type='probe' to='nurse@example.com' id='p'/>");
    assert_eq!(
        stranger,
        [format!("<presence from='nurse@example.com' to='{ORCHARD}' id='p' type='unsubscribed'/>")]
    );
    let _before = remote.routed();
    assert_eq!(romeo.ask(&format!("<presence type='probe' to='{THEM}' id='p'/>")), [""; 0]);
    assert_eq!(
        remote.routed(),
        [format!("<presence from='{ME}' to='{THEM}' id='p' type='probe'/>")]
    );
    remote.refuse(Some(RouteError::Timeout));
    assert_eq!(romeo.ask(&format!("<presence type='probe' to='{THEM}'/>")), [""; 0]);
    assert_eq!(romeo.ask("<presence type='probe' to='not a jid'/>"), [""; 0]);
}

#[test]
fn pres_t1_t5_where_presence_goes() {
    let (world, remote) = Remote::world();
    let negative = world.client("romeo", "negative");
    let (available, connected) =
        (world.online("romeo", "available"), world.client("romeo", "connected"));
    negative.send("<presence><priority>-1</priority></presence>");
    let all = [&available, &connected, &negative];
    all.iter().for_each(|client| drop(client.received()));
    let error = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for (type_, payload) in [("", ""), (" type='unavailable'", ""), (" type='error'", error)] {
        for (to, expected) in [
            (ME, [true, false, true]),
            ("romeo@example.com/connected", [false, true, false]),
            ("romeo@example.com/missing", [false; 3]),
            ("nobody@example.com", [false; 3]),
            ("example.com", [false; 3]),
        ] {
            let end =
                if payload.is_empty() { "/>".to_owned() } else { format!(">{payload}</presence>") };
            let presence = format!("<presence from='{THEM}/r' to='{to}'{type_}{end}");
            remote.send(&world, &presence);
            let got = all.map(Client::received);
            assert_eq!(got.clone().map(|got| !got.is_empty()), expected, "{presence}");
            assert!(got.concat().iter().all(|one| *one == presence), "{got:?}");
        }
    }
    assert_eq!(remote.routed(), [""; 0]);
}

#[test]
fn pres_20_no_filter_by_our_roster() {
    let world = World::new();
    world.roster("juliet", ME, Subscription::Both);
    world.account("romeo");
    let (romeo, juliet) = (world.online("romeo", "orchard"), world.client("juliet", "balcony"));
    juliet.send("<presence/>");
    assert_eq!(romeo.received(), [here("juliet@example.com/balcony", ME)]);
}

#[test]
fn limit_17_one_target_too_many() {
    let mut limits = Limits::default();
    limits.directed = 3;
    let (world, remote) = Remote::world_with(limits);
    let romeo = world.client("romeo", "orchard");
    (0..3).for_each(|n| romeo.send(&format!("<presence to='c{n}@remote.example'/>")));
    let answer = romeo.ask("<presence to='more@remote.example' id='d'/>");
    let error = format!(
        "<presence from='more@remote.example' to='{ORCHARD}' id='d' type='error'><error type='wait'>\
         <resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
    );
    assert_eq!(answer, [error]);
    assert_eq!(remote.routed().len(), 3);
}

/// The races of a cancelled subscription, each inside of host code that is called on the way.
mod races {
    use super::*;

    /// While the first copy of a broadcast is routed, a later recipient loses its subscription.
    #[test]
    fn sub_16_a_broadcast_under_way_leaves_nobody_available() {
        let (world, remote) = four_contacts();
        let romeo = world.online("romeo", "orchard");
        let _before = remote.routed();
        let inner = world.clone();
        remote.on_route(move |stanza| {
            if stanza.contains("<show>") && stanza.contains("both@remote") {
                let leave =
                    format!("<presence from='from@remote.example' to='{ME}' type='unsubscribe'/>");
                inner.server().send(xmpp_session::stanza::canonicalise(leave.as_bytes()).unwrap());
            }
        });
        romeo.send("<presence><show>away</show></presence>");
        let told: Vec<_> = remote
            .routed()
            .into_iter()
            .filter(|s| s.contains(&format!("from='{ORCHARD}' to='from@")))
            .collect();
        assert!(told.len() > 1, "{told:?}");
        assert_eq!(*told.last().unwrap(), gone(ORCHARD, "from@remote.example"));
    }

    /// The session ends between the change of the roster and its unavailable to the contact.
    #[test]
    fn destroy_2_an_end_amid_a_cancellation() {
        let world = World::new();
        world.friends("romeo", "juliet");
        let (romeo, listener) =
            (world.online("romeo", "orchard"), interested(world.client("romeo", "listener")));
        let juliet = world.online("juliet", "balcony");
        let _before = (juliet.received(), listener.received());
        let (inner, session) = (world.clone(), romeo.session());
        listener.recorder().on_send(move |text| {
            if text.contains("type='unsubscribe'") {
                let reason = xmpp_session::session::Reason::Kicked;
                inner.home(&session).registry().destroy_session(&session, reason);
            }
        });
        juliet.send(&format!("<presence type='unsubscribe' to='{ME}'/>"));
        let received = juliet.received();
        let told = received.iter().filter(|one| **one == gone(ORCHARD, "juliet@example.com"));
        assert_eq!(told.count(), 1, "{received:?}");
    }

    /// A session ends while its broadcast is under way: what is still to come of it is dropped.
    #[test]
    fn pres_21_nothing_available_after_the_end() {
        let (world, remote) = four_contacts();
        let romeo = world.online("romeo", "orchard");
        let _before = remote.routed();
        let (inner, session) = (world.clone(), romeo.session());
        remote.on_route(move |stanza| {
            if stanza.contains("<show>") {
                let reason = xmpp_session::session::Reason::Kicked;
                inner.home(&session).registry().destroy_session(&session, reason);
            }
        });
        romeo.send("<presence><show>away</show></presence>");
        let routed = remote.routed();
        for contact in ["both@remote.example", "from@remote.example"] {
            let told: Vec<_> =
                routed.iter().filter(|s| s.contains(&format!("to='{contact}'"))).collect();
            assert_eq!(told.iter().filter(|s| s.contains("unavailable")).count(), 1, "{told:?}");
            assert!(told.last().unwrap().contains("unavailable"), "{told:?}");
        }
    }
}

/// Every kind of end: subscribers, own sessions and directed targets hear one unavailable each.
mod ends {
    use super::*;
    use xmpp_session::session::Reason;

    fn end(how: impl FnOnce(&World, &Client)) {
        let (world, remote) = four_contacts();
        world.friends("romeo", "nurse");
        let (romeo, other) = (world.online("romeo", "orchard"), world.online("romeo", "street"));
        let (nurse, silent) = (world.online("nurse", "house"), world.client("juliet", "balcony"));
        let quiet = world.client("nurse", "quiet");
        for to in [
            "none@remote.example",
            "from@remote.example/r",
            "juliet@example.com/balcony",
            "nurse@example.com/quiet",
        ] {
            romeo.send(&format!("<presence to='{to}'/>"));
        }
        let all = [&romeo, &other, &nurse, &silent, &quiet];
        let _before = (all.map(Client::received), remote.routed());
        how(&world, &romeo);
        world.settle();
        let told = |client: &Client| {
            let is_end = |one: &String| one.contains(ORCHARD) && one.contains("unavailable");
            client.received().into_iter().filter(is_end).collect::<Vec<_>>()
        };
        assert_eq!(told(&other), [gone(ORCHARD, ME)]);
        assert_eq!(told(&nurse), [gone(ORCHARD, "nurse@example.com")]);
        assert_eq!(told(&silent), [gone(ORCHARD, "juliet@example.com/balcony")]);
        // A session of a subscriber that is only connected heard of it by directed presence alone.
        assert_eq!(told(&quiet), [gone(ORCHARD, "nurse@example.com/quiet")]);
        let contacts = ["both@remote.example", "from@remote.example", "none@remote.example"];
        assert_eq!(remote.routed(), contacts.map(|to| gone(ORCHARD, to)));
    }

    #[test]
    fn destroy_2_close_tag() {
        end(|_, romeo| romeo.send("</stream:stream>"));
    }

    #[test]
    fn destroy_2_stream_error_of_ours() {
        end(|_, romeo| romeo.send("<nonsense xmlns='urn:example:x'/>"));
    }

    #[test]
    fn destroy_2_stream_error_of_theirs() {
        end(|_, romeo| {
            let error =
                "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
            romeo.send(&format!("{error}</stream:stream>"));
        });
    }

    #[test]
    fn destroy_2_transport_lost() {
        end(|_, romeo| romeo.lose());
    }

    #[test]
    fn destroy_2_slow_reader() {
        end(|world, romeo| {
            romeo.recorder().refuse(Some(xmpp_session::connection::SendError::Full));
            let ping = format!("<message to='{ORCHARD}'><body>x</body></message>");
            world.client("x", "y").send(&ping);
            world.advance(Duration::from_secs(60));
        });
    }

    #[test]
    fn destroy_2_replaced() {
        end(|world, _| drop(world.client("romeo", "orchard")));
    }

    #[test]
    fn destroy_2_every_reason() {
        let reasons =
            [Reason::Kicked, Reason::AccountRemoved, Reason::PasswordChanged, Reason::Expired];
        for reason in reasons {
            end(|world, romeo| {
                let _ended = world.destroy(&romeo.session(), reason);
            });
        }
    }

    #[test]
    fn destroy_2_not_twice() {
        let (world, remote) = four_contacts();
        let romeo = world.online("romeo", "orchard");
        romeo.send("<presence type='unavailable'/>");
        romeo.send(&format!("<presence to='{THEM}'/>"));
        let _before = remote.routed();
        romeo.send("</stream:stream>");
        // Only who was added since.
        assert_eq!(remote.routed(), [gone(ORCHARD, THEM)]);
    }
}
