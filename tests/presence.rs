//! Broadcast presence: who is told what, in which order, with which addresses.

use crate::common::*;
use xmpp_session::minidom::Element;
use xmpp_session::rules::roster::Subscription::{self, Both, From, None as Neither, To};
use xmpp_session::session::{EventKind, Presence, Reason};
use xmpp_session::stanza::Stanza;

fn bind_with(world: &World, jid: &str, items: &[(&str, Subscription)]) -> (Owner, Wire) {
    let line = Wire::default();
    (world.try_bind(&line, jid, roster(items)).unwrap(), line)
}

/// The senders of the presence on a line, in order, without what was bound.
fn senders(frames: &[String]) -> Vec<&str> {
    frames
        .iter()
        .filter(|frame| frame.starts_with("<presence"))
        .filter_map(|frame| attribute(frame, "from"))
        .collect()
}

#[test]
fn pres_3_initial_presence_goes_to_subscribers_and_own_sessions_and_brings_theirs() {
    let world = World::new();
    let (_b, b_line) = world.available("b@x/1", &["a@x"]);
    let (_own, own_line) = world.available("a@x/other", &["b@x"]);
    drop(b_line.take());
    let (mut a, line) = world.bind("a@x/1", &[]);
    assert!(a.handle().available().is_none());
    assert!(appear(&mut a, 5), "it was initial");
    assert_eq!(seen(&b_line.take(), "a@x/1"), [true]);
    assert_eq!(seen(&own_line.take(), "a@x/1"), [true]);
    // Itself first (the broadcast), then contacts, then own other sessions.
    assert_eq!(senders(&line.take()), ["a@x/1", "b@x/1", "a@x/other"]);
    let handle = a.handle();
    let view = handle.available().unwrap();
    assert_eq!((view.priority(), view.session().id()), (5, a.id()));
    assert_eq!(view.presence().from().as_deref(), Some("a@x/1"));
    assert!(world.events_of(a.id()).contains(&EventKind::BecameAvailable));
}

#[test]
fn pres_3_only_subscribers_are_told_and_only_subscriptions_asked() {
    let world = World::new();
    let items = [("from@x", From), ("to@x", To), ("both@x", Both), ("none@x", Neither)];
    let contacts: Vec<_> = items
        .iter()
        .map(|(jid, subscription)| {
            let theirs = match subscription {
                From => To,
                To => From,
                other => *other,
            };
            let (mut owner, line) = bind_with(&world, &format!("{jid}/1"), &[("a@x", theirs)]);
            appear(&mut owner, 0);
            drop(line.take());
            (owner, line)
        })
        .collect();
    let (mut a, line) = bind_with(&world, "a@x/1", &items);
    appear(&mut a, 0);
    assert_eq!(senders(&line.take()), ["a@x/1", "both@x/1", "to@x/1"]);
    let told: Vec<_> = contacts.iter().map(|(_, line)| !line.frames().is_empty()).collect();
    assert_eq!(told, [true, false, true, false]);
}

#[test]
fn pres_3_presence_is_not_shown_on_the_askers_word_alone() {
    let world = World::new();
    let (mut b, _) = bind_with(&world, "b@x/1", &[]);
    appear(&mut b, 0);
    // `a` believes to be subscribed; the roster of `b` knows nothing of it.
    let (mut a, line) = bind_with(&world, "a@x/1", &[("b@x", To)]);
    appear(&mut a, 0);
    assert_eq!(senders(&line.take()), ["a@x/1"]);
}

#[test]
fn pres_3_presence_after_a_broadcast_unavailable_is_initial_again() {
    let world = World::new();
    let (mut a, _) = world.available("a@x/1", &[]);
    assert!(!appear(&mut a, 0));
    leave(&mut a);
    assert!(appear(&mut a, 0));
}

#[test]
fn pres_4_copies_keep_everything_and_are_addressed_to_bare_jids() {
    let world = World::new();
    let (_b, b_line) = world.available("b@x/1", &["a@x"]);
    let (mut a, line) = world.bind("a@x/1", &["b@x"]);
    drop(line.take());
    let show = Element::builder("show", "jabber:client").append("away");
    let stanza = Stanza::presence().from("a@x/1").id("p1").lang("it").child(&show.build()).build();
    a.set_presence(Presence::Available { stanza: &stanza, priority: 0 });
    let copy = b_line.take().pop().unwrap();
    assert_eq!(
        copy,
        "<presence from='a@x/1' to='b@x' id='p1' xml:lang='it'><show>away</show></presence>"
    );
    assert_eq!(attribute(&line.take()[0], "to"), Some("a@x"));
}

#[test]
fn pres_5_later_presence_is_told_but_nothing_is_asked_again() {
    let world = World::new();
    let (_b, b_line) = world.available("b@x/1", &["a@x"]);
    let (mut a, line) = world.available("a@x/1", &["b@x"]);
    drop(b_line.take());
    assert!(!appear(&mut a, 7));
    assert_eq!(seen(&b_line.take(), "a@x/1"), [true]);
    assert_eq!(senders(&line.take()), ["a@x/1"], "its own copy and nobody else's");
    assert_eq!(a.handle().available().unwrap().priority(), 7);
    let became = world.events_of(a.id());
    assert_eq!(became.iter().filter(|k| **k == EventKind::BecameAvailable).count(), 1);
}

#[test]
fn pres_5_sessions_that_are_not_available_are_told_nothing() {
    let world = World::new();
    let (_b, b_line) = world.bind("b@x/1", &["a@x"]);
    let (_own, own_line) = world.bind("a@x/2", &["b@x"]);
    drop((b_line.take(), own_line.take()));
    let (mut a, _) = world.available("a@x/1", &[]);
    appear(&mut a, 1);
    leave(&mut a);
    assert!(b_line.frames().is_empty() && own_line.frames().is_empty());
}

#[test]
fn pres_6_unavailable_goes_to_subscribers_own_sessions_and_itself_once() {
    let world = World::new();
    let (_b, b_line) = world.available("b@x/1", &["a@x"]);
    let (_own, own_line) = world.available("a@x/2", &["b@x"]);
    let (mut a, line) = world.available("a@x/1", &[]);
    drop((b_line.take(), own_line.take(), line.take()));
    let stanza = Stanza::presence().type_("unavailable").from("a@x/1").id("bye").build();
    a.set_presence(Presence::Unavailable { stanza: Some(&stanza) });
    for line in [&b_line, &own_line, &line] {
        let frames = line.take();
        assert_eq!(seen(&frames, "a@x/1"), [false]);
        assert_eq!(attribute(&frames[0], "id"), Some("bye"), "the client's own words");
    }
    assert!(!a.is_available() && a.is_current());
    assert!(world.events_of(a.id()).contains(&EventKind::BecameUnavailable));
    drop(a);
    assert!(b_line.take().is_empty(), "connected only: its end tells nobody");
}

#[test]
fn pres_7_unavailable_of_a_session_that_is_not_available_tells_nobody() {
    let world = World::new();
    let (_b, b_line) = world.available("b@x/1", &["a@x"]);
    let (mut a, line) = world.bind("a@x/1", &["b@x"]);
    drop(line.take());
    leave(&mut a);
    assert!(b_line.take().is_empty() && line.take().is_empty());
    assert_eq!(world.events_of(a.id()), [EventKind::Bound]);
}

#[test]
fn pres_8_an_end_makes_the_unavailable_that_the_client_did_not_send() {
    let world = World::new();
    let (_b, b_line) = world.available("b@x/1", &["a@x"]);
    let (a, _) = world.available("a@x/1", &["b@x"]);
    drop(b_line.take());
    drop(a);
    assert_eq!(b_line.take(), ["<presence from='a@x/1' to='b@x' type='unavailable'/>"]);
}

#[test]
fn pres_13_contacts_elsewhere_get_presence_and_probes_by_the_router() {
    let world = World::new();
    let (mut a, _) =
        bind_with(&world, "a@x/1", &[("both@y", Both), ("from@y", From), ("to@y", To)]);
    appear(&mut a, 0);
    assert_eq!(
        std::mem::take(&mut *lock(&world.elsewhere)),
        [
            "<presence from='a@x/1' to='both@y'/>",
            "<presence from='a@x/1' to='from@y'/>",
            "<presence from='a@x' to='both@y' type='probe'/>",
            "<presence from='a@x' to='to@y' type='probe'/>",
        ]
    );
    drop(a);
    assert_eq!(
        *lock(&world.elsewhere),
        [
            "<presence from='a@x/1' to='both@y' type='unavailable'/>",
            "<presence from='a@x/1' to='from@y' type='unavailable'/>",
        ]
    );
}

#[test]
fn pres_21_an_unavailable_from_inside_the_broadcast_is_the_last_word() {
    let world = World::new();
    // In the order of the roster: the first to be told ends the one that tells.
    let (_w1, first) = world.available("w1@x/1", &["a@x"]);
    let (_w2, second) = world.available("w2@x/1", &["a@x"]);
    let (mut a, _) = world.bind("a@x/1", &["w1@x", "w2@x"]);
    first.on_send({
        let (world, session) = (world.clone(), a.handle());
        move |frame| {
            if !frame.contains("unavailable") {
                world.registry.destroy_session(&session, Reason::Kicked);
            }
        }
    });
    appear(&mut a, 0);
    first.forget_hook();
    assert_eq!(seen(&first.take(), "a@x/1"), [true, false]);
    // It had not been told yet, so the copy that was under way is void.
    assert_eq!(seen(&second.take(), "a@x/1"), [false]);
}

#[test]
fn pres_21_unavailable_is_never_dropped_for_being_old() {
    let world = World::new();
    let (_w1, first) = world.available("w1@x/1", &["a@x"]);
    let (_w2, second) = world.available("w2@x/1", &["a@x"]);
    let (mut a, _) = world.available("a@x/1", &["w1@x", "w2@x"]);
    drop((first.take(), second.take()));
    first.on_send({
        let (world, session) = (world.clone(), a.handle());
        move |_| {
            world.registry.destroy_session(&session, Reason::Kicked);
        }
    });
    leave(&mut a);
    first.forget_hook();
    assert_eq!(seen(&first.take(), "a@x/1"), [false]);
    assert_eq!(seen(&second.take(), "a@x/1"), [false]);
}
