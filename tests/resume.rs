//! Outliving a transport: retention, acknowledgement, hibernation and resumption.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use crate::common::*;
use xmpp_session::connection::Close;
use xmpp_session::rules::roster::Roster;
use xmpp_session::session::{
    Acknowledged, EventKind, Item, Misuse, NotSent, Reason, ResumeError, ResumeRefusal,
};
use xmpp_session::stanza::StreamCondition;

fn ids(frames: &[String]) -> Vec<usize> {
    let stanzas = frames.iter().filter(|frame| frame.starts_with("<message"));
    stanzas.filter_map(|frame| attribute(frame, "id")?.parse().ok()).collect()
}

fn say(owner: &Owner, numbers: std::ops::Range<usize>) {
    for n in numbers {
        owner.send(&message("b@x/1", n)).unwrap();
    }
}

fn hear(owner: &mut Owner) {
    drop(owner.try_input().expect("not busy").expect("not detached"));
}

#[test]
fn sm_4_counting_begins_with_retention() {
    let world = World::new();
    let (mut owner, line) = world.bind("a@x/1", &[]);
    hear(&mut owner);
    say(&owner, 0..2);
    assert_eq!((owner.handled(), owner.acknowledge(0)), (None, None));
    retain(&mut owner);
    assert!(owner.retain(Duration::from_secs(9), |_| Vec::new()).is_none(), "it is on already");
    say(&owner, 2..3);
    hear(&mut owner);
    hear(&mut owner);
    assert_eq!(owner.handled(), Some(2));
    assert_eq!(owner.acknowledge(1), Some(Acknowledged::Freed(1)));
    let frames = line.take();
    let enabled = frames.iter().position(|frame| frame == "<enabled/>");
    assert_eq!(enabled, Some(3), "bind result, two messages, then the answer");
}

#[test]
fn sm_5_a_stanza_counts_before_it_has_an_effect_and_only_for_its_transport() {
    let world = World::new();
    let (mut old, _) = world.bind("a@x/1", &[]);
    let token = retain(&mut old);
    let ticket = old.try_input().unwrap().unwrap();
    assert_eq!(old.handled(), Some(1), "counted while it is still in work");
    drop(ticket);
    let new = world.resume(&Wire::default(), "a@x", &token, 0).unwrap();
    assert!(matches!(old.try_input(), Some(Err(_))), "the old transport has no say");
    assert_eq!(new.handled(), Some(1));
}

#[test]
fn sm_6_acknowledgements_cover_what_was_sent_and_nothing_else() {
    let world = World::new();
    let (mut owner, _) = world.bind("a@x/1", &[]);
    retain(&mut owner);
    say(&owner, 0..5);
    assert_eq!(owner.acknowledge(6), Some(Acknowledged::TooHigh { handled: 6, sent: 5 }));
    assert_eq!(owner.acknowledge(3), Some(Acknowledged::Freed(3)));
    assert_eq!(owner.acknowledge(3), Some(Acknowledged::Freed(0)));
    // A step back looks like a step too far (SM-7).
    assert_eq!(owner.acknowledge(2), Some(Acknowledged::TooHigh { handled: 2, sent: 5 }));
    assert_eq!(owner.acknowledge(5), Some(Acknowledged::Freed(2)));
    assert_eq!(owner.handle().info().bytes_waiting, 0);
}

#[test]
fn sm_6_a_stanza_may_be_acknowledged_before_send_returns() {
    let world = World::new();
    let line = Wire::default();
    let owner = Arc::new(std::sync::Mutex::new(world.bind_on(&line, "a@x/1", &[])));
    retain(&mut lock(&owner));
    let handle = lock(&owner).handle();
    line.on_send({
        let owner = Arc::downgrade(&owner);
        move |frame| {
            if let (true, Some(owner)) = (frame.starts_with("<message"), owner.upgrade()) {
                assert_eq!(lock(&owner).acknowledge(1), Some(Acknowledged::Freed(1)));
            }
        }
    });
    handle.send(&message("b@x/1", 0)).unwrap();
    line.forget_hook();
    handle.send(&message("b@x/1", 1)).unwrap();
    assert_eq!(lock(&owner).acknowledge(2), Some(Acknowledged::Freed(1)));
}

#[test]
fn sm_11_tokens_have_128_bits_and_stay_valid_through_resumptions() {
    let world = World::new();
    let (mut owner, _) = world.bind("a@x/1", &[]);
    let token = retain(&mut owner);
    assert!(token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit()));
    let (mut other, _) = world.bind("a@x/2", &[]);
    assert_ne!(retain(&mut other), token);
    for _ in 0..3 {
        owner = world.resume(&Wire::default(), "a@x", &token, 0).unwrap();
    }
    assert!(owner.is_current());
}

#[test]
fn sm_12_a_foreign_token_is_refused_like_an_unknown_one() {
    let world = World::new();
    let (mut owner, _) = world.bind("a@x/1", &[]);
    let token = retain(&mut owner);
    drop(owner);
    let (_b, _) = world.bind("b@x/1", &[]);
    let foreign = world.resume(&Wire::default(), "b@x", &token, 0).unwrap_err();
    assert_eq!(*foreign.error(), ResumeRefusal::NotFound { handled: None }.into());
    for unknown in ["", "0", &token[1..], &token.replace(char::is_alphabetic, "0")] {
        let refused = world.resume(&Wire::default(), "a@x", unknown, 0).unwrap_err();
        assert_eq!(*refused.error(), ResumeRefusal::NotFound { handled: None }.into());
    }
    // The refused stream may go on to bind; the session still waits for its own client.
    let request = xmpp_session::session::BindRequest::new();
    assert!(foreign.into_session().bind(&world.registry, request).is_ok());
    assert!(world.resume(&Wire::default(), "a@x", &token, 0).is_ok());
}

#[test]
fn sm_12_a_stream_that_is_not_open_resumes_nothing() {
    let world = World::new();
    let (mut owner, _) = world.bind("a@x/1", &[]);
    let token = retain(&mut owner);
    let mut session = authed(&Wire::default(), "a@x");
    session.restart();
    let refused = session.resume(&world.registry, &token, 0, &mut |_| Vec::new()).unwrap_err();
    assert_eq!(*refused.error(), Misuse::NotOpen.into());
    assert!(owner.is_current());
}

#[test]
fn sm_14_everything_is_checked_before_anything_changes() {
    let world = World::new();
    let (mut owner, line) = world.bind("a@x/1", &[]);
    let token = retain(&mut owner);
    say(&owner, 0..3);
    owner.acknowledge(1).unwrap();
    let refused = world.resume(&Wire::default(), "a@x", &token, 4).unwrap_err();
    let ResumeError::Refused(ResumeRefusal::HandledTooHigh { handled, sent, .. }) =
        *refused.error()
    else {
        panic!()
    };
    assert_eq!((handled, sent), (4, 3));
    assert!(owner.is_current() && line.closed().is_none(), "not even the old transport is cut");
    assert!(!world.events_of(owner.id()).contains(&EventKind::Resumed));
    drop(owner);
    assert!(world.resume(&Wire::default(), "a@x", &token, 4).is_err());
    assert_eq!(world.registry.counts().hibernating, 1);
    let new = Wire::default();
    let owner = world.resume(&new, "a@x", &token, 1).unwrap();
    assert_eq!(ids(&new.frames()), [1, 2]);
    assert!(owner.is_current());
}

#[test]
fn sm_15_the_answer_comes_first_then_what_was_unacknowledged_then_what_is_new() {
    let world = World::new();
    let (mut owner, line) = world.bind("a@x/1", &[]);
    let token = retain(&mut owner);
    hear(&mut owner);
    say(&owner, 0..4);
    line.set(Mode::Closed);
    say(&owner, 4..5); // the one that notices
    let handle = owner.handle();
    assert!(!owner.is_current());
    handle.send(&message("b@x/1", 5)).expect("accepted for the resumption");
    let new_line = Wire::default();
    new_line.on_send({
        let handle = handle.clone();
        move |frame| {
            if frame.starts_with("<resumed") {
                handle.send(&message("b@x/1", 6)).unwrap();
            }
        }
    });
    let mut owner = world.resume(&new_line, "a@x", &token, 2).unwrap();
    new_line.forget_hook();
    let frames = new_line.take();
    assert_eq!(frames[0], "<resumed h='1'/>");
    assert_eq!(ids(&frames), [2, 3, 4, 5, 6]);
    assert_eq!(frames.len(), 6);
    // The numbers go on where they were.
    assert_eq!(owner.acknowledge(7), Some(Acknowledged::Freed(5)));
    // A second resumption repeats only what came after.
    say(&owner, 7..8);
    let last = Wire::default();
    let owner = world.resume(&last, "a@x", &token, 7).unwrap();
    assert_eq!(ids(&last.take()), [7]);
    assert!(owner.is_current());
}

#[test]
fn sm_15_a_full_transport_loses_nothing_of_a_resumable_session() {
    let world = World::new();
    let (mut owner, line) = world.bind("a@x/1", &[]);
    let token = retain(&mut owner);
    line.set(Mode::Full);
    assert_eq!(owner.send(&message("b@x/1", 0)), Ok(()));
    assert!(owner.is_current() && line.closed().is_none(), "it waits for its transport");
    assert_eq!(owner.acknowledge(1), Some(Acknowledged::TooHigh { handled: 1, sent: 0 }));
    let new = Wire::default();
    let _owner = world.resume(&new, "a@x", &token, 0).unwrap();
    assert_eq!(ids(&new.take()), [0]);
}

#[test]
fn sm_15_raw_elements_of_the_old_transport_are_not_repeated() {
    let world = World::new();
    let (mut owner, line) = world.bind("a@x/1", &[]);
    let token = retain(&mut owner);
    line.on_send({
        let handle = owner.handle();
        move |frame| {
            if frame.starts_with("<message") {
                handle.send_item(&Item::element(b"<r/>")).unwrap();
                handle.send(&message("b@x/1", 9)).unwrap();
            }
        }
    });
    line.set(Mode::Closed);
    owner.send(&message("b@x/1", 0)).unwrap();
    line.forget_hook();
    let new = Wire::default();
    let owner = world.resume(&new, "a@x", &token, 0).unwrap();
    let frames = new.take();
    assert_eq!(ids(&frames), [0, 9]);
    assert_eq!(frames.len(), 3);
    drop(owner);
    let asleep = world.session("a@x/1").unwrap();
    assert_eq!(
        asleep.send_item(&Item::element(b"<r/>")),
        Err(NotSent::Ended),
        "there is no transport to ask"
    );
}

#[test]
fn sm_18_only_the_loss_of_the_transport_hibernates() {
    let ends: [fn(&World, Owner); 4] = [
        |_, owner| assert!(owner.end(Reason::Closed)),
        |_, owner| assert!(owner.end_with(Reason::StreamError, &StreamCondition::Reset.into())),
        |world, owner| {
            world.registry.destroy_session(&owner.handle(), Reason::Kicked);
        },
        |world, _| drop(world.try_bind(&Wire::default(), "a@x/1", Roster::new()).unwrap()),
    ];
    for end in ends {
        let world = World::new();
        let (mut owner, _) = world.bind("a@x/1", &[]);
        let token = retain(&mut owner);
        end(&world, owner);
        assert!(world.resume(&Wire::default(), "a@x", &token, 0).is_err());
        assert!(world.registry.is_empty());
    }
}

#[test]
fn sm_19_a_hibernating_session_stays_available_and_collects() {
    let world = World::new();
    let (mut w, watcher) = world.available("w@x/1", &["a@x"]);
    let (mut owner, _) = world.available("a@x/1", &["w@x"]);
    owner.set_interested();
    let token = retain(&mut owner);
    drop(watcher.take());
    let id = owner.id();
    drop(owner);
    assert!(watcher.take().is_empty(), "nobody is told of the beginning");
    assert!(world.events_of(id).ends_with(&[EventKind::Absent]));
    let handle = world.session("a@x/1").unwrap();
    assert!(handle.is_available() && handle.is_interested() && !handle.is_live());
    assert_eq!(world.registry.counts().hibernating, 1);
    appear(&mut w, 4);
    handle.send(&message("b@x/1", 0)).unwrap();
    let line = Wire::default();
    let owner = world.resume(&line, "a@x", &token, 0).unwrap();
    let frames = line.take();
    assert_eq!(seen(&frames, "w@x/1"), [true]);
    assert_eq!(ids(&frames), [0]);
    assert!(world.events_of(id).ends_with(&[EventKind::Absent, EventKind::Resumed]));
    assert_eq!(world.registry.counts().hibernating, 0);
    drop(owner);
}

#[test]
fn sm_20_a_resumption_carries_over_what_the_session_was() {
    let world = World::new();
    let (_w, watcher) = world.available("w@x/1", &["a@x"]);
    let (mut owner, _) = world.bind("a@x/1", &["w@x"]);
    appear(&mut owner, 7);
    owner.set_interested();
    let token = retain(&mut owner);
    hear(&mut owner);
    let handle = owner.handle();
    drop(watcher.take());
    drop(owner);
    let line = Wire::default();
    let owner = world.resume(&line, "a@x", &token, 0).unwrap();
    assert!(handle == owner.handle(), "handles stay valid");
    assert_eq!(handle.available().map(|view| view.priority()), Some(7));
    assert!(owner.is_interested());
    assert_eq!((owner.handled(), owner.jid().as_str()), (Some(1), "a@x/1"));
    assert!(handle.connection().is_some_and(|now| Arc::ptr_eq(&now, &line)));
    assert!(watcher.take().is_empty(), "presence is not repeated");
    assert_eq!(line.take(), ["<resumed h='1'/>"]);
}

#[test]
fn sm_21_an_old_transport_is_detached_first_and_told_conflict() {
    let world = World::new();
    let (mut old, old_line) = world.available("a@x/1", &[]);
    let token = retain(&mut old);
    drop(old_line.take());
    old_line.on_send({
        let handle = old.handle();
        let old_line = Arc::downgrade(&old_line);
        move |frame| {
            assert!(frame.contains("<conflict "));
            let now = handle.connection().unwrap();
            assert!(!Arc::ptr_eq(&now, &old_line.upgrade().unwrap()), "detached already");
        }
    });
    let new = world.resume(&Wire::default(), "a@x", &token, 0).unwrap();
    old_line.forget_hook();
    assert_eq!((old_line.take().len(), old_line.closed()), (1, Some(Close::Flush)));
    assert!(!old.is_current());
    assert!(!appear(&mut old, 1), "what it does has no effect");
    old.set_interested();
    assert!(!new.is_interested());
    assert_eq!(old.acknowledge(0), None);
    assert!(!old.end(Reason::Closed), "nor has its end");
    assert!(new.is_current() && new.is_available());
    assert!(!world.events_of(new.id()).iter().any(|k| is_end(k) || *k == EventKind::Absent));
}

#[test]
fn sm_21_the_loss_of_an_old_transport_has_no_effect() {
    let world = World::new();
    let (mut old, _) = world.bind("a@x/1", &[]);
    let token = retain(&mut old);
    let new = world.resume(&Wire::default(), "a@x", &token, 0).unwrap();
    drop(old);
    assert!(new.is_current());
    assert_eq!(world.registry.counts().hibernating, 0);
}

/// Woken is who waits for a ticket, and nobody who has given back its own.
#[test]
fn stream_23_a_ticket_that_nobody_waits_for_wakes_nobody() {
    struct Woken(AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let world = World::new();
    let (mut owner, _) = world.bind("a@x/1", &[]);
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let ready = |owner: &mut Owner| owner.poll_ready(&mut Context::from_waker(&waker));
    let count = || woken.0.load(Ordering::Relaxed);
    assert!(ready(&mut owner).is_ready());
    drop(owner.try_input());
    assert_eq!(count(), 0);
    let ticket = owner.try_input();
    assert!(ready(&mut owner).is_pending());
    drop(ticket);
    assert_eq!(count(), 1);
    assert!(ready(&mut owner).is_ready());
    drop(owner.try_input());
    assert_eq!(count(), 1);
    world.registry.destroy_session(&owner.handle(), Reason::Kicked);
    assert_eq!(count(), 2, "the end is told in any case");
}

#[test]
fn sm_22_a_resumed_stream_takes_no_input_while_the_old_ones_stanza_is_in_work() {
    let world = World::new();
    let (mut old, _) = world.bind("a@x/1", &[]);
    let token = retain(&mut old);
    let ticket = old.try_input().unwrap().unwrap();
    assert!(old.try_input().is_none(), "one by one");
    drop(old);
    let mut new = world.resume(&Wire::default(), "a@x", &token, 0).unwrap();
    assert!(new.try_input().is_none());
    drop(ticket);
    hear(&mut new);
    assert_eq!(new.handled(), Some(2));
}

#[test]
fn sm_23_a_session_expires_at_the_end_of_its_window_and_not_before() {
    let world = World::new();
    let (_w, watcher) = world.available("w@x/1", &["a@x"]);
    let (mut owner, _) = world.available("a@x/1", &["w@x"]);
    let token = retain(&mut owner);
    let id = owner.id();
    world.pass(10);
    assert_eq!(world.registry.next_timeout(), None, "a live session has no deadline");
    drop((owner, watcher.take()));
    assert_eq!(world.registry.next_timeout(), Some(Duration::from_secs(610)));
    world.pass(599);
    assert!(watcher.take().is_empty());
    world.pass(1);
    assert_eq!(seen(&watcher.take(), "a@x/1"), [false]);
    let refused = world.resume(&Wire::default(), "a@x", &token, 0).unwrap_err();
    assert_eq!(*refused.error(), ResumeRefusal::NotFound { handled: Some(0) }.into());
    let end = world.events_of(id).pop();
    assert!(matches!(end, Some(EventKind::Ended { reason: Reason::Expired, .. })), "{end:?}");
    assert_eq!(world.registry.counts().hibernating, 0);
    assert_eq!(world.registry.next_timeout(), None);
}

#[test]
fn sm_23_each_absence_has_a_window_of_its_own() {
    let world = World::new();
    let (mut owner, _) = world.bind("a@x/1", &[]);
    let token = retain(&mut owner);
    for _ in 0..3 {
        drop(owner);
        world.pass(599);
        owner = world.resume(&Wire::default(), "a@x", &token, 0).unwrap();
    }
    world.pass(1000);
    assert!(owner.is_current());
}

#[test]
fn sm_25_a_window_of_zero_keeps_stanzas_but_not_the_session() {
    let world = World::new();
    let (mut owner, _) = world.bind("a@x/1", &[]);
    let retention = owner.retain(Duration::ZERO, |_| b"<enabled/>".to_vec()).unwrap();
    say(&owner, 0..1);
    drop(owner);
    assert!(world.registry.is_empty());
    assert!(world.resume(&Wire::default(), "a@x", &retention.token, 0).is_err());
    assert_eq!(lock(&world.leftovers).len(), 1);
}

#[test]
fn destroy_9_hibernation_and_resumption_are_no_ends() {
    let world = World::new();
    let (_w, watcher) = world.available("w@x/1", &["a@x"]);
    let (mut owner, _) = world.available("a@x/1", &["w@x"]);
    let token = retain(&mut owner);
    let id = owner.id();
    drop((owner, watcher.take()));
    let owner = world.resume(&Wire::default(), "a@x", &token, 0).unwrap();
    drop(owner);
    world.pass(600);
    let events = world.events_of(id);
    assert_eq!(events[2..5], [EventKind::Absent, EventKind::Resumed, EventKind::Absent]);
    assert!(events.len() == 6 && is_end(&events[5]));
    assert_eq!(seen(&watcher.take(), "a@x/1"), [false]);
}
