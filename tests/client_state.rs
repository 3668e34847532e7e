//! Client state indication (rules CSI-1 to CSI-5, LIMIT-14).

use crate::common::wire;
use std::time::Duration;

use wire::{Client, World};
use xmpp_session::server::{Limits, RouteError, Router};
use xmpp_session::stanza::{Stanza, canonicalise};
use xmpp_session::xep;

const NOTHING: [&str; 0] = [];
const INACTIVE: &str = "<inactive xmlns='urn:xmpp:csi:0'/>";
const ACTIVE: &str = "<active xmlns='urn:xmpp:csi:0'/>";
const PING: &str = "<iq to='example.com' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
const PONG: &str = "<iq from='example.com' to='romeo@example.com/phone' id='p' type='result'/>";

struct Anywhere;

impl Router for Anywhere {
    fn route(&self, _: &Stanza) -> Result<(), RouteError> {
        Ok(())
    }
}

fn world() -> World {
    let world = World::with(|builder, _| {
        builder
            .router(Anywhere)
            .extension(xep::ClientState)
            .extension(xep::StreamManagement::new())
            .extension(xep::Ping)
    });
    world.friends("romeo", "juliet");
    world.friends("romeo", "nurse");
    world
}

/// Available, inactive, and has read all.
fn inactive(world: &World) -> Client {
    let romeo = world.online("romeo", "phone");
    assert_eq!(romeo.ask(INACTIVE), NOTHING);
    romeo
}

fn presence(from: &str, show: &str) -> String {
    format!("<presence from='{from}' to='romeo@example.com'><show>{show}</show></presence>")
}

fn show(client: &Client, show: &str) {
    client.send(&format!("<presence><show>{show}</show></presence>"));
}

fn state(client: &Client, name: &str) {
    client.send(&format!(
        "<message to='romeo@example.com/phone' type='chat'>\
         <{name} xmlns='http://jabber.org/protocol/chatstates'/></message>"
    ));
}

fn body(client: &Client) {
    client.send("<message to='romeo@example.com/phone' type='chat'><body>a</body></message>");
}

#[test]
fn csi_1_streams_start_active_and_nothing_is_answered() {
    let world = world();
    let (romeo, juliet) = (world.online("romeo", "phone"), world.online("juliet", "balcony"));
    let _initial = romeo.received();
    show(&juliet, "away");
    assert_eq!(romeo.received().len(), 1);
    for repeated in [ACTIVE, ACTIVE, INACTIVE, INACTIVE] {
        assert_eq!(romeo.ask(repeated), NOTHING);
    }
    show(&juliet, "dnd");
    assert_eq!(romeo.received(), NOTHING);
    assert_eq!(romeo.ask(INACTIVE), NOTHING);
    assert_eq!(romeo.ask(ACTIVE), [presence("juliet@example.com/balcony", "dnd")]);
    show(&juliet, "chat");
    assert_eq!(romeo.received().len(), 1);
    // Others see nothing of it.
    assert!(juliet.received().iter().all(|one| !one.contains("csi")));
}

#[test]
fn csi_1_a_resumed_stream_is_active() {
    let world = world();
    let romeo = world.online("romeo", "phone");
    let enabled = romeo.ask("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").concat();
    let token = enabled.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    romeo.send(INACTIVE);
    let juliet = world.online("juliet", "balcony");
    show(&juliet, "away");
    romeo.lose();
    let again = world.authenticated("romeo");
    let replayed = again.ask(&format!("<resume xmlns='urn:xmpp:sm:3' h='0' previd='{token}'/>"));
    let held: Vec<_> = replayed.iter().filter(|one| one.contains("juliet@")).collect();
    assert_eq!(held.len(), 1, "{replayed:?}");
    assert!(held[0].contains("<show>away</show><delay "), "{held:?}");
    show(&juliet, "dnd");
    assert!(again.received().concat().contains("<show>dnd</show>"));
}

#[test]
fn csi_2_what_is_held_comes_before_the_answer_to_what_follows() {
    let world = world();
    let juliet = world.online("juliet", "balcony");
    let romeo = inactive(&world);
    show(&juliet, "away");
    let answers = romeo.ask(&format!("{ACTIVE}{PING}"));
    assert_eq!(answers, [presence("juliet@example.com/balcony", "away"), PONG.to_owned()]);
}

#[test]
fn csi_3_of_presence_the_latest_of_each_full_jid_is_kept() {
    let world = world();
    let (juliet, nurse) = (world.online("juliet", "balcony"), world.online("nurse", "hall"));
    let romeo = inactive(&world);
    show(&juliet, "away");
    show(&nurse, "away");
    show(&juliet, "dnd");
    nurse.send("<presence type='unavailable'/>");
    show(&juliet, "xa");
    assert_eq!(romeo.received(), NOTHING);
    assert_eq!(
        romeo.ask(ACTIVE),
        [
            "<presence from='nurse@example.com/hall' to='romeo@example.com' type='unavailable'/>"
                .to_owned(),
            presence("juliet@example.com/balcony", "xa"),
        ]
    );
}

#[test]
fn csi_3_of_chat_states_the_latest_of_each_sender_is_kept() {
    let world = world();
    let juliet = world.online("juliet", "balcony");
    let romeo = inactive(&world);
    state(&juliet, "composing");
    state(&juliet, "paused");
    juliet.send(
        "<message to='romeo@example.com/phone' type='chat'><thread>t</thread>\
         <gone xmlns='http://jabber.org/protocol/chatstates'/></message>",
    );
    assert_eq!(romeo.received(), NOTHING);
    let held = romeo.ask(ACTIVE);
    assert_eq!(held.len(), 1, "{held:?}");
    assert!(held[0].contains("<gone "), "{held:?}");
}

#[test]
fn csi_3_own_sessions_are_held_and_joined_rooms_are_not() {
    let world = world();
    let romeo = inactive(&world);
    let desk = world.online("romeo", "desk");
    assert_eq!(romeo.received(), NOTHING);
    romeo.send("<presence to='room@muc.example/romeo'/>");
    let room = "<presence from='room@muc.example/juliet' to='romeo@example.com/phone'/>";
    world.server().send(canonicalise(room.as_bytes()).unwrap());
    world.settle();
    let seen = romeo.received();
    assert!(seen.concat().contains("room@muc.example/juliet"), "{seen:?}");
    desk.send("<presence type='unavailable'/>");
    assert_eq!(romeo.received(), NOTHING);
    assert_eq!(romeo.ask(ACTIVE).len(), 1);
}

#[test]
fn csi_3_all_else_passes() {
    let world = world();
    world.account("tybalt");
    let (juliet, tybalt) = (world.online("juliet", "balcony"), world.online("tybalt", "street"));
    let romeo = inactive(&world);
    body(&juliet);
    assert_eq!(romeo.received().len(), 1);
    juliet.send(
        "<message to='romeo@example.com/phone' type='chat'><body>a</body>\
         <active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    );
    assert_eq!(romeo.received().len(), 1);
    tybalt.send("<presence to='romeo@example.com' type='subscribe'/>");
    assert!(romeo.received().concat().contains("type='subscribe'"));
    assert_eq!(romeo.ask(PING), [PONG]);
}

#[test]
fn csi_4_a_passing_stanza_comes_behind_what_is_held_from_its_sender() {
    let world = world();
    let (juliet, nurse) = (world.online("juliet", "balcony"), world.online("nurse", "hall"));
    let romeo = inactive(&world);
    show(&juliet, "away");
    show(&nurse, "away");
    state(&juliet, "composing");
    body(&juliet);
    let seen = romeo.received();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(seen[0], presence("juliet@example.com/balcony", "away"));
    assert!(seen[1].contains("<composing ") && seen[2].contains("<body>"), "{seen:?}");
    assert_eq!(romeo.ask(ACTIVE), [presence("nurse@example.com/hall", "away")]);
}

#[test]
fn csi_4_stored_messages_come_behind_what_is_held() {
    let world = world();
    let juliet = world.online("juliet", "balcony");
    let romeo = world.client("romeo", "phone");
    romeo.send("<presence><priority>-1</priority></presence>");
    romeo.send(INACTIVE);
    let _read = romeo.received();
    show(&juliet, "away");
    juliet.send("<message to='romeo@example.com' type='chat'><body>Hi</body></message>");
    assert_eq!(romeo.received(), NOTHING);
    romeo.send("<presence/>");
    let received = romeo.received();
    let place = |what: &str| received.iter().position(|one| one.contains(what)).unwrap();
    assert!(place("away") < place("<body>"), "{received:?}");
}

#[test]
fn csi_4_what_is_held_goes_with_the_transport_into_the_queue() {
    let world = world();
    let romeo = world.online("romeo", "phone");
    romeo.ask("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    romeo.send(INACTIVE);
    let juliet = world.online("juliet", "balcony");
    state(&juliet, "composing");
    let before = romeo.session().info().bytes_waiting;
    romeo.lose();
    assert!(romeo.session().info().bytes_waiting > before);
    // It is written to nobody else when the session ends.
    world.advance(Duration::from_secs(601));
    assert!(romeo.session().is_ended());
}

#[test]
fn csi_4_at_the_end_of_the_stream_it_is_written() {
    let world = world();
    let juliet = world.online("juliet", "balcony");
    let romeo = inactive(&world);
    show(&juliet, "away");
    world.kick(&romeo.session());
    world.settle();
    let seen = romeo.received();
    assert_eq!(seen[0], presence("juliet@example.com/balcony", "away"));
    assert!(seen.last().unwrap().starts_with("</stream"), "{seen:?}");
}

#[test]
fn csi_5_it_is_offered_and_taken_once_the_client_is_authenticated() {
    let world = world();
    let early = world.connect();
    early.open();
    assert!(!early.received().concat().contains("<csi "));
    let refused = early.ask(INACTIVE).concat();
    assert!(refused.contains("<unsupported-stanza-type "), "{refused}");

    world.account("romeo");
    let romeo = world.connect();
    romeo.open();
    romeo.authenticate("romeo", wire::PASSWORD);
    romeo.open();
    assert!(romeo.received().concat().contains("<csi xmlns='urn:xmpp:csi:0'/>"));
    romeo.send(&format!(
        "{INACTIVE}<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>phone</resource></bind></iq>"
    ));
    romeo.send("<presence/>");
    let juliet = world.online("juliet", "balcony");
    show(&juliet, "away");
    assert!(!romeo.received().concat().contains("juliet@"));
    assert!(romeo.ask(ACTIVE).concat().contains("<show>away</show>"));
}

#[test]
fn limit_14_at_its_limit_the_queue_is_flushed_as_a_whole() {
    let world = World::with(|builder, _| {
        let mut limits = Limits::default();
        limits.retention.held_stanzas = 2;
        limits.retention.held_bytes = 2000;
        builder.limits(limits).extension(xep::ClientState)
    });
    let romeo = inactive(&world);
    let from = |n: usize, status: &str| {
        let presence = format!(
            "<presence from='c{n}@remote.example/r' to='romeo@example.com/phone'><status>{status}</status></presence>"
        );
        world.server().send(canonicalise(presence.as_bytes()).unwrap());
        world.settle();
    };
    from(1, "a");
    from(1, "b");
    from(2, "a");
    assert_eq!(romeo.received(), NOTHING);
    from(3, "a");
    let seen = romeo.received();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen[0].contains("'c1@") && seen[0].contains(">b<") && seen[2].contains("'c3@"));
    // And holds on.
    from(4, "a");
    assert_eq!(romeo.received(), NOTHING);
    from(5, &"x".repeat(2000));
    assert_eq!(romeo.received().len(), 2);
}
