//! What is kept for clients that may come back: its limits, and who ends whom (LIMIT-10…12, SM-17,
//! SM-24), without a wire.

use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::*;
use xmpp_session::session::{
    AckCheck, AckPolicy, Copies, Epoch, EventKind, Item, NotSent, Reason, RetentionLimits,
};

fn limits(change: impl FnOnce(&mut RetentionLimits)) -> RetentionLimits {
    let mut limits = RetentionLimits::default();
    change(&mut limits);
    limits
}

/// Two threads at once.
fn race<A: Send, B: Send>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let one = scope.spawn(|| {
            barrier.wait();
            one()
        });
        barrier.wait();
        let other = other();
        (one.join().unwrap(), other)
    })
}

fn reason(world: &World, id: xmpp_session::session::SessionId) -> Option<Reason> {
    world.events_of(id).into_iter().find_map(|kind| match kind {
        EventKind::Ended { reason, .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn sm_17_of_copies_that_die_while_they_are_sent_one_is_left() {
    for _ in 0..300 {
        let world = World::new();
        let owners = ["a@x/1", "a@x/2"].map(|jid| {
            let (mut owner, _) = world.bind(jid, &[]);
            owner.retain(Duration::ZERO, |_| Vec::new()).unwrap();
            owner
        });
        let handles = owners.each_ref().map(|owner| owner.handle());
        let copies = Copies::of(&message("b@x/1", 0));
        let send = || {
            for handle in &handles {
                let _refused = handle.send_item(&Item::new(&message("b@x/1", 0)).copy_of(&copies));
            }
            copies.release()
        };
        let (back, ()) = race(send, || drop(owners));
        assert_eq!(usize::from(back) + lock(&world.leftovers).len(), 1);
    }
}

#[test]
fn sm_17_a_refused_copy_does_not_count() {
    let world = World::new();
    let (mut one, _) = world.bind("a@x/1", &[]);
    let (two, line) = world.bind("a@x/2", &[]);
    retain(&mut one);
    line.set(Mode::Closed);
    let copies = Copies::of(&message("b@x/1", 0));
    one.handle().send_item(&Item::new(&message("b@x/1", 0)).copy_of(&copies)).unwrap();
    assert!(two.handle().send_item(&Item::new(&message("b@x/1", 0)).copy_of(&copies)).is_err());
    assert!(!copies.release());
    drop(one);
    world.pass(600);
    let left = lock(&world.leftovers);
    assert_eq!(left.len(), 1);
    assert!(left[0].retained && left[0].written);
}

#[test]
fn sm_24_a_claim_has_one_winner_and_an_old_transport_none() {
    let policy = AckPolicy::default();
    for _ in 0..100 {
        let world = World::new();
        let (mut owner, _) = world.bind("a@x/1", &[]);
        let token = retain(&mut owner);
        (0..5).for_each(|n| owner.send(&message("b@x/1", n)).unwrap());
        let (handle, epoch) = (owner.handle(), owner.epoch());
        let claim = |epoch: Epoch| handle.claim_ack_request(epoch, &policy);
        let (one, other) = race(|| claim(epoch), || claim(epoch));
        assert!(one != other);
        // After a resumption it is due again, on the new transport alone (SM-15).
        let new = world.resume(&Wire::default(), "a@x", &token, 0).unwrap();
        assert!(!claim(epoch) && !handle.is_current(epoch));
        assert!(claim(new.epoch()) && !claim(new.epoch()));
        drop(owner);
    }
}

#[test]
fn sm_24_nothing_is_asked_of_who_keeps_nothing_or_is_not_there() {
    let policy = AckPolicy::default();
    let world = World::new();
    let (mut owner, _) = world.bind("a@x/1", &[]);
    let handle = owner.handle();
    (0..9).for_each(|n| owner.send(&message("b@x/1", n)).unwrap());
    assert!(!handle.claim_ack_request(owner.epoch(), &policy));
    assert_eq!((handle.check_acks_at(&policy), handle.claim_sign_of_life()), (None, None));
    retain(&mut owner);
    let epoch = owner.epoch();
    assert_eq!(handle.check_acks_at(&policy), None, "all acknowledged");
    assert_eq!(handle.claim_sign_of_life(), Some(true));
    assert_eq!(handle.claim_sign_of_life(), Some(false));
    assert_eq!(handle.check_acks_at(&policy), Some(policy.answer));
    drop(owner);
    (0..9).for_each(|n| handle.send(&message("b@x/1", n)).unwrap());
    assert!(!handle.claim_ack_request(epoch, &policy));
    assert_eq!(handle.check_acks_at(&policy), None);
    world.time.advance(Duration::from_secs(100));
    assert_eq!(handle.check_acks(&policy), AckCheck::Quiet, "hibernating");
}

#[test]
fn limit_11_what_is_kept_is_counted_right_whatever_happens_meanwhile() {
    for _ in 0..100 {
        let world = World::new();
        let (mut owner, _) = world.bind("a@x/1", &[]);
        let token = retain(&mut owner);
        let handle = owner.handle();
        let sender = || {
            (0..20).for_each(|n| {
                let _ended = handle.send(&message("b@x/1", n));
            });
        };
        let client = || {
            let _freed = owner.acknowledge(3);
            let next = world.resume(&Wire::default(), "a@x", &token, 3);
            drop(owner);
            next.ok()
        };
        let ((), resumed) = race(sender, client);
        let kept = world.registry.counts().retained_bytes;
        assert_eq!(kept, handle.info().bytes_waiting);
        drop(resumed);
        world.registry.destroy_session(&handle, Reason::Kicked);
        assert_eq!(world.registry.counts().retained_bytes, 0);
    }
}

#[test]
fn limit_11_many_senders_end_no_more_sessions_than_they_must() {
    let size = message("b@x/1", 0).len();
    let limits = limits(|limits| limits.all_bytes = 15 * size);
    let world = World::with(|builder| builder.retention(limits));
    let owners: Vec<_> = (0..8).map(|n| world.bind(&format!("a{n}@x/1"), &[]).0).collect();
    let handles: Vec<_> = owners
        .into_iter()
        .map(|mut owner| {
            retain(&mut owner);
            world.time.advance(Duration::from_secs(1));
            owner.handle()
        })
        .collect();
    assert_eq!(world.registry.counts().hibernating, 8);
    thread::scope(|scope| {
        for handle in &handles {
            scope.spawn(move || {
                (0..3).for_each(|n| {
                    let _ended = handle.send(&message("b@x/1", n));
                });
            });
        }
    });
    let counts = world.registry.counts();
    assert!(counts.retained_bytes <= 15 * size, "{counts:?}");
    assert!((1..8).contains(&counts.hibernating), "{counts:?}");
}

#[test]
fn limit_10_an_acknowledgement_races_a_refusal() {
    let limits = limits(|limits| limits.live_stanzas = 3);
    for _ in 0..100 {
        let world = World::with(|builder| builder.retention(limits));
        let (mut owner, _) = world.bind("a@x/1", &[]);
        retain(&mut owner);
        let handle = owner.handle();
        (0..4).for_each(|n| owner.send(&message("b@x/1", n)).unwrap());
        let ack = || owner.acknowledge(4);
        let (sent, freed) = race(|| handle.send(&message("b@x/1", 4)), ack);
        assert!(matches!(sent, Ok(()) | Err(NotSent::Full)) && freed.is_some(), "{sent:?}");
        assert!(!handle.is_ended());
        let waiting = handle.info().bytes_waiting;
        assert_eq!(waiting > 0, sent.is_ok());
        drop(owner);
    }
}

#[test]
fn limit_10_what_waits_for_a_gate_is_bounded_too() {
    let limits = limits(|limits| limits.bytes = 1000);
    let world = World::with(|builder| builder.retention(limits));
    let (old, line) = world.bind("a@x/1", &[]);
    let (w, taken) = (world.clone(), Arc::new(Mutex::new(None)));
    let slot = Arc::clone(&taken);
    // While the old instance says its last words the new one is gated.
    line.on_send(move |frame| {
        if frame.contains("conflict") {
            let handle = w.session("a@x/1").unwrap();
            let sent = (10..100).take_while(|n| handle.send(&message("b@x/1", *n)).is_ok()).count();
            *lock(&slot) = Some((sent, handle.is_ended()));
        }
    });
    let (new, new_line) = world.bind("a@x/1", &[]);
    let size = message("b@x/1", 10).len();
    // The last one found some room. Whoever is refused still has the stanza.
    assert_eq!(*lock(&taken), Some((1000 / size + 1, false)));
    assert_eq!(new_line.take().len(), 1 + 1000 / size + 1, "behind its greeting");
    line.forget_hook();
    drop((old, new));
}

/// Work that was left to the background.
type Work = Arc<Mutex<Vec<Box<dyn FnOnce() + Send>>>>;

fn with_background() -> (World, Work) {
    let work = Work::default();
    let queue = Arc::clone(&work);
    let world = World::with(|builder| builder.background(move |one| lock(&queue).push(one)));
    (world, work)
}

#[test]
fn limit_13_an_end_that_a_sender_causes_is_left_to_the_background() {
    for dropped in [false, true] {
        let (world, work) = with_background();
        let (_watcher, seen_by) = world.available("b@x/1", &["a@x"]);
        let (mut owner, line) = world.bind("a@x/1", &["b@x"]);
        appear(&mut owner, 0);
        drop(seen_by.take());
        line.set(Mode::Closed);
        let handle = owner.handle();
        assert!(handle.send(&message("b@x/1", 0)).is_err());
        assert!(handle.is_ended() && world.session("a@x/1").is_none(), "decided at once");
        assert!(seen_by.take().is_empty() && reason(&world, owner.id()).is_none());
        // BIND-14: the resource is free, but its next session waits.
        let (mut next, next_line) = world.bind("a@x/1", &["b@x"]);
        assert!(next_line.take().is_empty() && next.try_input().is_none());
        let one = lock(&work).pop().unwrap();
        if dropped {
            drop(one);
        } else {
            one();
        }
        assert_eq!(seen(&seen_by.take(), "a@x/1"), [false]);
        assert_eq!(reason(&world, owner.id()), Some(Reason::TransportLost));
        assert_eq!(next_line.take().len(), 1);
        assert!(next.try_input().is_some() && lock(&work).is_empty());
    }
}

#[test]
fn destroy_14_an_owner_does_its_own_work() {
    let (world, work) = with_background();
    let (owner, _) = world.bind("a@x/1", &[]);
    let id = owner.id();
    drop(owner);
    assert!(lock(&work).is_empty());
    assert_eq!(reason(&world, id), Some(Reason::TransportLost));
}
