//! The races again, under a scheduler that chooses every interleaving itself.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --no-default-features --test models`
//!
//! Host callbacks run shielded, so what they see is recorded and judged outside.
#![cfg(shuttle)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use shuttle::future::block_on;
use shuttle::thread;
use xmpp_session::session::{Copies, EventKind, Item, Reason, RetentionLimits};

/// Of each kind of schedule, for each model.
const ITERATIONS: usize = 300;

/// Random schedules, and some with few but well-placed preemptions.
fn model(body: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(body.clone(), ITERATIONS);
    shuttle::check_pct(body, ITERATIONS, 3);
}

/// A connection during whose `send` others may run.
fn yielding() -> Wire {
    let line = Wire::default();
    line.on_send(|_| thread::yield_now());
    line
}

fn watch(world: &World, jid: &str, contact: &str) -> (Owner, Wire) {
    let line = yielding();
    let mut owner = world.bind_on(&line, jid, &[contact]);
    appear(&mut owner, 0);
    (owner, line)
}

fn unavailables(told: &[bool]) -> usize {
    told.iter().filter(|on| !**on).count()
}

fn ends(world: &World) -> usize {
    lock(&world.events).iter().filter(|(_, kind)| is_end(kind)).count()
}

#[test]
fn pres_21_an_end_overtakes_no_broadcast() {
    model(|| {
        let world = World::new();
        let watchers = [watch(&world, "w1@x/1", "a@x"), watch(&world, "w2@x/1", "a@x")];
        let (mut owner, _) = world.bind("a@x/1", &["w1@x", "w2@x"]);
        let handle = owner.handle();
        let broadcast = thread::spawn(move || {
            appear(&mut owner, 0);
            appear(&mut owner, 1);
            owner
        });
        assert!(world.registry.destroy_session(&handle, Reason::Kicked));
        drop(broadcast.join().unwrap());
        for (_, line) in &watchers {
            let told = seen(&line.frames(), "a@x/1");
            assert_ne!(told.last(), Some(&true), "{told:?}");
            assert!(unavailables(&told) <= 1, "{told:?}");
        }
    });
}

#[test]
fn destroy_2_whoever_becomes_available_meanwhile_is_told_as_well() {
    model(|| {
        let world = World::new();
        let (a, _) = {
            let line = Wire::default();
            let mut owner = world.bind_on(&line, "a@x/1", &["w@x"]);
            appear(&mut owner, 0);
            (owner, line)
        };
        let late = {
            let world = world.clone();
            thread::spawn(move || watch(&world, "w@x/1", "a@x"))
        };
        drop(a);
        let (_w, line) = late.join().unwrap();
        let told = seen(&line.frames(), "a@x/1");
        assert_ne!(told.last(), Some(&true), "{told:?}");
    });
}

#[test]
fn bind_5_two_clients_replace_each_other() {
    model(|| {
        let world = World::new();
        let (_w, watcher) = watch(&world, "w@x/1", "a@x");
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || {
                    let line = yielding();
                    let mut owner = world.bind_on(&line, "a@x/1", &["w@x"]);
                    if block_on(owner.ready()).is_ok() {
                        assert!(line.frames()[0].starts_with("<iq"), "the result comes first");
                        appear(&mut owner, 0);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let told = seen(&watcher.frames(), "a@x/1");
        assert_ne!(told.last(), Some(&true), "{told:?}");
        let due = |k: &EventKind| matches!(k, EventKind::Ended { was_available: true, .. });
        let due = lock(&world.events).iter().filter(|(_, kind)| due(kind)).count();
        assert_eq!((unavailables(&told), ends(&world)), (due, 2));
        assert_eq!(world.registry.len(), 1);
    });
}

#[test]
fn bind_14_the_successor_is_seen_after_the_end_of_its_predecessor() {
    model(|| {
        let world = World::new();
        let (_w, watcher) = watch(&world, "w@x/1", "a@x");
        let (mut old, _) = world.bind("a@x/1", &["w@x"]);
        appear(&mut old, 0);
        let end = thread::spawn(move || drop(old));
        let (mut new, _) = world.bind("a@x/1", &["w@x"]);
        block_on(new.ready()).unwrap();
        appear(&mut new, 0);
        end.join().unwrap();
        assert_eq!(seen(&watcher.frames(), "a@x/1"), [true, false, true]);
    });
}

#[test]
fn sm_23_resume_replace_and_expire_exclude_each_other() {
    model(|| {
        let world = World::new();
        let (mut owner, _) = world.bind("a@x/1", &[]);
        let token = retain(&mut owner);
        let id = owner.id();
        drop(owner);
        world.time.advance(Duration::from_secs(600));
        let (w1, w2) = (world.clone(), world.clone());
        let resume = thread::spawn(move || w1.resume(&yielding(), "a@x", &token, 0).ok());
        let expire = thread::spawn(move || w2.registry.handle_timeout());
        let (new, _) = world.bind("a@x/1", &[]);
        expire.join().unwrap();
        let resumed = resume.join().unwrap();
        assert!(!resumed.is_some_and(|owner| owner.is_current()));
        assert_eq!(world.events_of(id).iter().filter(|k| is_end(k)).count(), 1);
        assert_eq!(world.session("a@x/1").map(|s| s.id()), Some(new.id()));
        assert_eq!((world.registry.len(), world.registry.counts().hibernating), (1, 0));
    });
}

#[test]
fn sm_21_an_old_owners_end_and_a_resumption_have_one_winner() {
    model(|| {
        let world = World::new();
        let (mut owner, _) = world.bind("a@x/1", &[]);
        let token = retain(&mut owner);
        let w1 = world.clone();
        let resume = thread::spawn(move || w1.resume(&yielding(), "a@x", &token, 0).ok());
        let ended = owner.end(Reason::Closed);
        let resumed = resume.join().unwrap();
        assert_ne!(resumed.as_ref().is_some_and(|owner| owner.is_current()), ended);
    });
}

#[test]
fn sm_22_stanzas_sent_during_a_hand_over_are_neither_lost_nor_reordered() {
    model(|| {
        let world = World::new();
        let first = yielding();
        let mut owner = world.bind_on(&first, "a@x/1", &[]);
        let token = retain(&mut owner);
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let handle = owner.handle();
                thread::spawn(move || {
                    for n in 0..2 {
                        handle.send(&message(&format!("s{sender}@x/1"), n)).unwrap();
                    }
                })
            })
            .collect();
        let messages = |line: &Wire| -> Vec<String> {
            line.frames().into_iter().filter(|f| f.starts_with("<message")).collect()
        };
        // What the client had read when its line was cut.
        let mut got = messages(&first);
        let second = yielding();
        let handled = u32::try_from(got.len()).unwrap();
        let new = world.resume(&second, "a@x", &token, handled).unwrap();
        drop(owner);
        for sender in senders {
            sender.join().unwrap();
        }
        got.extend(messages(&second));
        assert_eq!(got.len(), 4, "{got:?}");
        for sender in 0..2 {
            let from = format!("s{sender}@x/1");
            let of = got.iter().filter(|m| attribute(m, "from") == Some(&from));
            let ids: Vec<_> = of.filter_map(|m| attribute(m, "id")).collect();
            assert_eq!(ids, ["0", "1"]);
        }
        assert!(second.frames()[0].starts_with("<resumed"), "the answer comes first");
        assert!(new.is_current());
    });
}

#[test]
fn destroy_1_events_are_told_in_order_and_one_at_a_time() {
    model(|| {
        let told: Arc<std::sync::Mutex<Vec<_>>> = Arc::default();
        let world = World::with(|builder| {
            let record = recording(&told);
            builder.listener(move |event| {
                record(event);
                thread::yield_now();
                record(event);
            })
        });
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || {
                    let (mut owner, _) = world.bind("a@x/1", &[]);
                    appear(&mut owner, 0);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let told = lock(&told).clone();
        assert!(told.chunks(2).all(|pair| pair[0] == pair[1]), "one inside another: {told:?}");
        for id in told.iter().map(|(id, _)| *id) {
            let of: Vec<_> = told.iter().filter(|(i, _)| *i == id).map(|(_, k)| *k).collect();
            assert!(of[0] == EventKind::Bound && of.last().is_some_and(is_end), "{of:?}");
        }
    });
}

#[test]
fn sm_17_of_copies_that_die_while_they_are_sent_one_is_left() {
    model(|| {
        let world = World::new();
        let owners = ["a@x/1", "a@x/2"].map(|jid| {
            let mut owner = world.bind_on(&yielding(), jid, &[]);
            owner.retain(Duration::ZERO, |_| Vec::new()).unwrap();
            owner
        });
        let handles = owners.each_ref().map(|owner| owner.handle());
        let copies = Copies::of(&message("b@x/1", 0));
        let ends = owners.map(|owner| thread::spawn(move || drop(owner)));
        for handle in &handles {
            let _refused = handle.send_item(&Item::new(&message("b@x/1", 0)).copy_of(&copies));
        }
        let back = copies.release();
        for end in ends {
            end.join().unwrap();
        }
        assert_eq!(usize::from(back) + lock(&world.leftovers).len(), 1);
        assert_eq!(world.registry.counts().retained_bytes, 0);
    });
}

#[test]
fn limit_10_a_resumption_and_an_overflow_have_one_winner() {
    model(|| {
        let mut limits = RetentionLimits::default();
        limits.stanzas = 1;
        let world = World::with(|builder| builder.retention(limits));
        let mut owner = world.bind_on(&yielding(), "a@x/1", &[]);
        let token = retain(&mut owner);
        let handle = owner.handle();
        drop(owner);
        handle.send(&message("b@x/1", 0)).unwrap();
        let w = world.clone();
        let resume = thread::spawn(move || w.resume(&yielding(), "a@x", &token, 0).ok());
        assert!(handle.send(&message("b@x/1", 1)).is_ok(), "it was accepted in any case");
        let resumed = resume.join().unwrap();
        assert_ne!(resumed.is_some_and(|owner| owner.is_current()), handle.is_ended());
    });
}
