//! The promises under real threads.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread;

use crate::common::*;
use xmpp_session::connection::{Close, Connection, SendError};
use xmpp_session::environment::Virtual;
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::session::{
    BindRequest, Epoch, EventKind, Item, Reason, Session, SessionHandle, SessionRegistry,
};
use xmpp_session::stanza::Frame;

type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// Runs `work` on so many threads at once, and returns what each returned.
fn at_once<T: Send + 'static>(works: Vec<Box<dyn FnOnce() -> T + Send>>) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(works.len()));
    let threads: Vec<_> = works
        .into_iter()
        .map(|work| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                barrier.wait();
                work()
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

/// Times that somebody was told *available* after the last *unavailable*: a ghost.
fn is_ghost(seen: &[bool]) -> bool {
    seen.last() == Some(&true)
}

fn count(world: &World, of: impl Fn(&EventKind) -> bool) -> usize {
    lock(&world.events).iter().filter(|(_, kind)| of(kind)).count()
}

#[test]
fn destroy_2_two_clients_race_for_one_resource_while_a_third_party_kicks() {
    for _ in 0..40 {
        let world = World::new();
        let (_w, watcher) = world.available("w@x/1", &["a@x"]);
        watcher.set(Mode::Slow);
        let client = |world: World| {
            Box::new(move || {
                for _ in 0..10 {
                    let (mut owner, _) = world.bind("a@x/1", &["w@x"]);
                    until_ready(&mut owner);
                    appear(&mut owner, 0);
                    appear(&mut owner, 1);
                }
            }) as Work<()>
        };
        let kicker = world.clone();
        at_once(vec![
            client(world.clone()),
            client(world.clone()),
            Box::new(move || {
                for _ in 0..100 {
                    if let Some(session) = kicker.session("a@x/1") {
                        kicker.registry.destroy_session(&session, Reason::Kicked);
                    }
                    thread::yield_now();
                }
            }),
        ]);
        let told = seen(&watcher.frames(), "a@x/1");
        assert!(!is_ghost(&told), "{told:?}");
        let due = count(&world, |k| matches!(k, EventKind::Ended { was_available: true, .. }));
        // Some got a resource of their own, after too many kicks (BIND-6).
        let gone = watcher.frames();
        let gone = gone
            .iter()
            .filter(|frame| frame.contains("from='a@x/"))
            .filter(|frame| frame.contains("unavailable"));
        assert_eq!(gone.count(), due, "exactly one for each end");
        assert_eq!(count(&world, is_end), count(&world, |k| *k == EventKind::Bound) - 1);
        assert_eq!(world.registry.len(), 1, "the watcher alone");
    }
}

#[test]
fn destroy_1_events_of_each_session_begin_with_bound_and_end_with_ended() {
    for _ in 0..20 {
        let world = World::new();
        let works = (0..3)
            .map(|_| {
                let world = world.clone();
                Box::new(move || {
                    for _ in 0..15 {
                        let (mut owner, _) = world.bind("a@x/1", &[]);
                        appear(&mut owner, 0);
                        drop(owner);
                    }
                }) as Work<()>
            })
            .collect();
        at_once(works);
        let events = lock(&world.events).clone();
        let ids: std::collections::BTreeSet<_> = events.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), 45);
        for id in ids {
            let of = world.events_of(id);
            assert_eq!(of.first(), Some(&EventKind::Bound));
            assert!(of.last().is_some_and(is_end));
            assert_eq!(of.iter().filter(|k| is_end(k)).count(), 1);
        }
    }
}

/// Senders that never stop, and a client that acknowledges, loses its line, overflows and
/// resumes, also over a transport that still stands.
#[test]
fn sm_15_resumptions_keep_order_and_count() {
    const SENDERS: usize = 3;
    const EACH: usize = 200;
    for round in 0..12_usize {
        let world = World::new();
        let (mut owner, first) = world.bind("b@x/1", &[]);
        let token = retain(&mut owner);
        let done = Arc::new(AtomicUsize::new(0));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (handle, done) = (owner.handle(), Arc::clone(&done));
                thread::spawn(move || {
                    for n in 0..EACH {
                        handle.send(&message(&format!("s{sender}@x/1"), n)).unwrap();
                        if n % 8 == 0 {
                            thread::yield_now();
                        }
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        let (mut got, mut read, mut line, mut owner) = (Vec::new(), 0, first, Some(owner));
        let (mut dice, mut quiet) = (round, 0);
        loop {
            let all_sent = done.load(Ordering::SeqCst) == SENDERS;
            dice = dice.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
            let fresh = line.frames().split_off(read);
            // A cut takes a tail of what the server has written.
            let keep = if all_sent {
                fresh.len()
            } else {
                fresh.len() - fresh.len() * (dice / 16 % 3) / 4
            };
            read += keep;
            got.extend(fresh.into_iter().take(keep).filter(|frame| frame.starts_with("<message")));
            quiet = if all_sent && read == line.frames().len() { quiet + 1 } else { 0 };
            // What is lost never comes, however often the client resumes.
            if quiet > 0 && got.len() >= SENDERS * EACH || quiet > 20 {
                break;
            }
            let handled = u32::try_from(got.len()).unwrap();
            match dice / 64 % 5 {
                0 => drop(owner.as_mut().map(|owner| owner.acknowledge(handled))),
                1 => {
                    line.set(Mode::Closed);
                    drop(owner.take());
                }
                2 => line.set(Mode::Full),
                _ => thread::yield_now(),
            }
            if dice / 1024 % 3 == 0 || owner.is_none() || all_sent {
                let next = Wire::default();
                let resumed = world.resume(&next, "b@x", &token, handled).unwrap();
                drop(owner.replace(resumed));
                (line, read) = (next, 0);
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(got.len(), SENDERS * EACH, "lost or doubled");
        for sender in 0..SENDERS {
            let from = format!("s{sender}@x/1");
            let of = got.iter().filter(|m| attribute(m, "from") == Some(&from));
            let numbers: Vec<usize> =
                of.map(|m| attribute(m, "id").unwrap().parse().unwrap()).collect();
            assert!(numbers.iter().copied().eq(0..EACH), "order of {from}");
        }
        assert_eq!(count(&world, is_end), 0);
        assert!(owner.unwrap().end(Reason::Closed));
        assert!(world.registry.is_empty());
    }
}

#[test]
fn sm_23_resume_replace_expire_and_destroy_exclude_each_other() {
    enum Won {
        Resumed(Option<Owner>),
        Bound(Owner),
        Nothing,
    }
    for round in 0..300 {
        let world = World::new();
        let (mut owner, _) = world.bind("a@x/1", &[]);
        let token = retain(&mut owner);
        let (id, handle) = (owner.id(), owner.handle());
        drop(owner);
        world.time.advance(std::time::Duration::from_secs(600));
        let [w1, w2, w3, w4] = [(); 4].map(|()| world.clone());
        let mut works: Vec<Work<Won>> = vec![
            Box::new(move || Won::Resumed(w1.resume(&Wire::default(), "a@x", &token, 0).ok())),
            Box::new(move || Won::Bound(w2.bind("a@x/1", &[]).0)),
            Box::new(move || {
                w3.registry.handle_timeout();
                Won::Nothing
            }),
        ];
        if round % 2 == 0 {
            works.push(Box::new(move || {
                w4.registry.destroy_session(&handle, Reason::Kicked);
                Won::Nothing
            }));
        }
        let mut new = None;
        for won in at_once(works) {
            match won {
                Won::Resumed(Some(mut resumed)) => {
                    assert!(
                        matches!(resumed.try_input(), Some(Err(_))),
                        "it was replaced or ended"
                    );
                }
                Won::Bound(owner) => new = Some(owner),
                Won::Resumed(None) | Won::Nothing => {}
            }
        }
        let new = new.unwrap();
        assert_eq!(world.events_of(id).iter().filter(|k| is_end(k)).count(), 1);
        assert_eq!(world.session("a@x/1").map(|s| s.id()), Some(new.id()));
        assert_eq!((world.registry.len(), world.registry.counts().hibernating), (1, 0));
        drop(new);
        assert!(world.registry.is_empty());
    }
}

#[test]
fn sm_23_expiry_and_resumption_have_one_winner() {
    for _ in 0..300 {
        let world = World::new();
        let (mut owner, _) = world.bind("a@x/1", &[]);
        let token = retain(&mut owner);
        let id = owner.id();
        drop(owner);
        world.time.advance(std::time::Duration::from_secs(600));
        let (w1, w2) = (world.clone(), world.clone());
        let works: Vec<Work<Option<Owner>>> = vec![
            Box::new(move || w1.resume(&Wire::default(), "a@x", &token, 0).ok()),
            Box::new(move || {
                w2.registry.handle_timeout();
                None
            }),
        ];
        let resumed = at_once(works).into_iter().flatten().next();
        let ended = world.events_of(id).iter().any(is_end);
        assert_ne!(resumed.is_some(), ended);
        assert_eq!(resumed.is_some_and(|owner| owner.is_current()), !ended);
        assert_eq!(world.registry.counts().hibernating, usize::from(!ended));
    }
}

#[test]
fn sm_21_an_old_owners_end_races_a_resumption_and_one_of_them_holds() {
    for _ in 0..300 {
        let world = World::new();
        let (mut owner, _) = world.bind("a@x/1", &[]);
        let token = retain(&mut owner);
        let w1 = world.clone();
        let works: Vec<Work<(bool, Option<Owner>)>> = vec![
            Box::new(move || (false, w1.resume(&Wire::default(), "a@x", &token, 0).ok())),
            Box::new(move || (owner.end(Reason::Closed), None)),
        ];
        let mut results = at_once(works).into_iter();
        let (resumed, ended) = (results.next().unwrap().1, results.next().unwrap().0);
        assert_ne!(resumed.as_ref().is_some_and(|owner| owner.is_current()), ended);
    }
}

#[test]
fn bind_7_owners_dropped_during_their_bind_leave_no_entry() {
    for _ in 0..150 {
        let world = World::new();
        let works = (0..3)
            .map(|n| {
                let world = world.clone();
                Box::new(move || {
                    let (owner, _) = world.bind("a@x/1", &[]);
                    if n == 0 {
                        thread::yield_now();
                    }
                    drop(owner);
                }) as Work<()>
            })
            .collect();
        at_once(works);
        assert!(world.registry.is_empty());
        assert!(!world.registry.is_loaded(&BareJid::new("a@x").unwrap()));
    }
}

#[test]
fn pres_21_an_end_overtakes_no_broadcast() {
    for _ in 0..40 {
        let world = World::new();
        let names: Vec<_> = (0..20).map(|n| format!("w{n}@x")).collect();
        let watchers: Vec<_> = names
            .iter()
            .map(|name| {
                let (owner, line) = world.available(&format!("{name}/1"), &["a@x"]);
                line.set(Mode::Slow);
                (owner, line)
            })
            .collect();
        let contacts: Vec<_> = names.iter().map(String::as_str).collect();
        let (mut owner, _) = world.bind("a@x/1", &contacts);
        let (handle, registry) = (owner.handle(), world.registry.clone());
        at_once(vec![
            Box::new(move || {
                for priority in 0..6 {
                    appear(&mut owner, priority);
                }
            }) as Work<()>,
            Box::new(move || {
                for _ in 0..20 {
                    thread::yield_now();
                }
                registry.destroy_session(&handle, Reason::Kicked);
            }),
        ]);
        for (_, line) in &watchers {
            let told = seen(&line.frames(), "a@x/1");
            assert!(!is_ghost(&told), "{told:?}");
            assert!(told.iter().filter(|on| !**on).count() <= 1, "{told:?}");
        }
    }
}

#[test]
fn bind_14_a_successor_on_another_thread_waits_for_the_end_of_its_predecessor() {
    let world = World::new();
    let (_w1, first) = world.available("w1@x/1", &["a@x"]);
    let (_w2, second) = world.available("w2@x/1", &["a@x"]);
    let (old, _) = world.available("a@x/1", &["w1@x", "w2@x"]);
    let (inside, go_on) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    first.on_send({
        let (inside, go_on, once) = (inside.clone(), go_on.clone(), AtomicBool::new(true));
        move |_| {
            if once.swap(false, Ordering::SeqCst) {
                inside.wait();
                while !go_on.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
            }
        }
    });
    let (registry, handle) = (world.registry.clone(), old.handle());
    let end = thread::spawn(move || registry.destroy_session(&handle, Reason::Kicked));
    inside.wait();
    // The end is half-way through its unavailables.
    let (mut new, line) = world.bind("a@x/1", &[]);
    assert!(new.try_input().is_none() && line.frames().is_empty());
    go_on.store(true, Ordering::SeqCst);
    until_ready(&mut new);
    appear(&mut new, 0);
    end.join().unwrap();
    first.forget_hook();
    for line in [first, second] {
        assert_eq!(seen(&line.frames(), "a@x/1").last(), Some(&true), "the successor is seen");
    }
}

#[test]
fn destroy_4_many_destroyers_have_one_winner() {
    for _ in 0..100 {
        let world = World::new();
        let (owner, _) = world.bind("a@x/1", &[]);
        let works = (0..4)
            .map(|_| {
                let (registry, handle) = (world.registry.clone(), owner.handle());
                Box::new(move || registry.destroy_session(&handle, Reason::Kicked)) as Work<bool>
            })
            .collect();
        assert_eq!(at_once(works).into_iter().filter(|won| *won).count(), 1);
    }
}

#[test]
fn destroy_14_a_registry_dropped_while_its_sessions_are_used_ends_them_all() {
    for _ in 0..60 {
        let world = World::new();
        let owners: Vec<_> = (0..4).map(|n| world.available(&format!("u{n}@x/1"), &[]).0).collect();
        let events = Arc::clone(&world.events);
        let mut works: Vec<Work<()>> = owners
            .into_iter()
            .map(|mut owner| {
                Box::new(move || {
                    for n in 0..5 {
                        let _may_be_over = owner.send(&message("m@x/1", n));
                        appear(&mut owner, 0);
                    }
                }) as Work<()>
            })
            .collect();
        works.push(Box::new(move || drop(world)));
        at_once(works);
        assert_eq!(lock(&events).iter().filter(|(_, kind)| is_end(kind)).count(), 4);
    }
}

#[test]
fn order_what_one_session_sends_another_gets_in_order_over_a_slow_line() {
    let world = World::new();
    let (owner, line) = world.bind("a@x/1", &[]);
    line.set(Mode::Slow);
    let works = (0..3)
        .map(|sender| {
            let handle = owner.handle();
            Box::new(move || {
                for n in 0..300 {
                    handle.send(&message(&format!("s{sender}@x/1"), n)).unwrap();
                }
            }) as Work<()>
        })
        .collect();
    at_once(works);
    let frames = line.frames();
    for sender in 0..3 {
        let from = format!("s{sender}@x/1");
        let of = frames.iter().filter(|m| attribute(m, "from") == Some(&from));
        assert!(of.filter_map(|m| attribute(m, "id")?.parse::<usize>().ok()).eq(0..300));
    }
}

#[test]
fn reentrant_a_connection_may_call_everything_from_send() {
    let world = World::new();
    let (a, a_line) = world.bind("a@x/1", &["b@x"]);
    let (mut b, _) = world.available("b@x/1", &["a@x"]);
    a_line.on_send({
        let (world, a, b, calls) = (world.clone(), a.handle(), b.handle(), AtomicUsize::new(0));
        move |_| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => {
                assert!(world.session("a@x/1").is_some_and(|found| found == a));
                a.send(&message("a@x/1", 1)).unwrap();
                b.send(&message("a@x/1", 2)).unwrap();
                let other = authed(&Wire::default(), "a@x");
                drop(other.bind(&world.registry, BindRequest::new()).unwrap());
                assert!(world.registry.destroy_session(&b, Reason::Kicked));
                drop((a.info(), a.roster(), world.registry.counts()));
            }
            1 => assert!(world.registry.destroy_session(&a, Reason::Kicked)),
            _ => {}
        }
    });
    a.handle().send(&message("z@x/1", 0)).unwrap();
    a_line.forget_hook();
    assert!(matches!(b.try_input(), Some(Err(_))));
    assert!(world.registry.is_empty());
}

#[test]
fn reentrant_a_connection_that_panics_in_the_middle_of_its_successors_bind_leaves_nothing() {
    let world = World::new();
    let (old, line) = world.bind("a@x/1", &[]);
    line.set(Mode::Panics);
    let (mut new, _) = world.bind("a@x/1", &[]);
    assert!(!old.is_current());
    assert!(matches!(new.try_input(), Some(Ok(_))), "no gate was left closed");
    drop((old, new));
    assert!(world.registry.is_empty());
}

/// A connection that has written everything just when the writer has seen that it has enough to do, and
/// says so: the writer is still at work then, and nobody else will come.
#[derive(Default)]
struct Prompt {
    sent: Mutex<Vec<String>>,
    busy: AtomicBool,
    written: AtomicU64,
    session: OnceLock<(SessionHandle<Arc<Self>>, Epoch)>,
}

impl Connection for Prompt {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        self.sent.lock().unwrap().push(frame.to_string());
        Ok(())
    }

    fn close(&self, _: Close) {}

    fn waiting(&self) -> usize {
        if !self.busy.swap(false, Ordering::SeqCst) {
            return 0;
        }
        self.written.fetch_add(1 << 20, Ordering::SeqCst);
        let (session, transport) = self.session.get().unwrap();
        session.go_on(*transport);
        1 << 20
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }
}

#[test]
fn off_3_a_connection_that_drains_while_it_is_looked_at_gets_the_rest() {
    let registry = SessionRegistry::builder(Arc::new(Virtual::new(1))).build();
    let prompt = Arc::new(Prompt::default());
    let mut session = Session::new(Arc::clone(&prompt));
    session.open(DomainPart::new("x").unwrap().into_owned());
    let session = session.authenticate(BareJid::new("a@x").unwrap()).unwrap();
    let session = session.bind(&registry, BindRequest::new()).unwrap();
    let handle = session.handle();
    assert!(prompt.session.set((handle.clone(), session.epoch())).is_ok());
    prompt.busy.store(true, Ordering::SeqCst);
    let stored = [message("b@x/1", 0), message("b@x/1", 1)];
    handle.send_stored(&[Item::new(&stored[0]), Item::new(&stored[1])]).unwrap();
    assert_eq!(prompt.sent.lock().unwrap().len(), 2);
    drop(session);
}
