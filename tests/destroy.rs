//! How sessions end: once, for everybody, whatever the cause.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::common::*;
use xmpp_session::connection::Close;
use xmpp_session::jid::BareJid;
use xmpp_session::minidom::Element;
use xmpp_session::session::{
    BindRequest, EventKind, Item, NotSent, Presence, Reason, Retention, Session,
};
use xmpp_session::stanza::{Stanza, StreamCondition, StreamError};

type End = fn(&World, Owner, &Wire);

/// Every way in which a session can end.
const ENDS: [(&str, End); 12] = [
    ("close tag", |_, owner, _| assert!(owner.end(Reason::Closed))),
    ("stream error", |_, owner, _| {
        assert!(owner.end_with(Reason::StreamError, &StreamCondition::Reset.into()));
    }),
    ("drop of the owner", |_, owner, _| drop(owner)),
    ("host panic", |_, owner, _| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _owner = owner;
            panic!("in the host");
        }));
        assert!(caught.is_err());
    }),
    ("transport loss seen by a sender", |_, owner, line| {
        line.set(Mode::Closed);
        assert_eq!(owner.send(&message("m@x/1", 1)), Err(NotSent::Ended));
    }),
    ("queue overflow", |_, owner, line| {
        line.set(Mode::Full);
        // Nobody else can make so much wait for it.
        let much = vec![b' '; 7 << 20];
        assert_eq!((owner.send_element(&much), owner.send_element(&much)), (Ok(()), Ok(())));
        assert_eq!(owner.send_element(&much), Err(NotSent::Full));
    }),
    ("panicking connection", |_, owner, line| {
        line.set(Mode::Panics);
        assert_eq!(owner.send(&message("m@x/1", 1)), Err(NotSent::Ended));
    }),
    ("replacement", |world, owner, _| {
        drop(world.bind("a@x/1", &[]));
        assert!(!owner.is_current());
    }),
    ("kick", |world, owner, _| {
        assert!(world.registry.destroy_session(&owner.handle(), Reason::Kicked));
    }),
    ("account removal", |world, owner, _| {
        assert!(world.registry.destroy_session(&owner.handle(), Reason::AccountRemoved));
    }),
    ("expiry", |world, mut owner, _| {
        retain(&mut owner);
        drop(owner);
        world.pass(600);
    }),
    ("eviction", |world, mut owner, _| {
        retain(&mut owner);
        drop(owner);
        for n in 0..8 {
            let (mut other, _) = world.bind(&format!("a@x/evicts{n}"), &[]);
            retain(&mut other);
            world.pass(1);
        }
    }),
];

#[test]
fn destroy_1_every_session_ends_once_with_one_event_whatever_ended_it() {
    for (cause, end) in ENDS {
        let world = World::new();
        let (owner, line) = world.available("a@x/1", &[]);
        let id = owner.id();
        end(&world, owner, &line);
        let events = world.events_of(id);
        assert_eq!(events.iter().filter(|k| is_end(k)).count(), 1, "{cause}");
        assert!(events.last().is_some_and(is_end), "{cause}: it is the last");
        assert!(world.session("a@x/1").is_none(), "{cause}");
    }
}

#[test]
fn destroy_1_the_event_tells_reason_handled_and_left() {
    let world = World::new();
    let (mut owner, _) = world.available("a@x/1", &[]);
    drop(owner.try_input());
    retain(&mut owner);
    for n in 0..2 {
        drop(owner.try_input().unwrap().unwrap());
        owner.send(&message("b@x/1", n)).unwrap();
    }
    owner.send(&message("b@x/1", 2)).unwrap();
    let id = owner.id();
    owner.end(Reason::Closed);
    let Some(EventKind::Ended { reason, successor, handled, left, was_available, .. }) =
        world.events_of(id).pop()
    else {
        panic!()
    };
    assert_eq!((reason, successor), (Reason::Closed, None));
    assert_eq!((handled, left, was_available), (Some(2), 3, true));
}

#[test]
fn destroy_2_who_saw_the_resource_gets_one_unavailable_whatever_ended_it() {
    for (cause, end) in ENDS {
        let world = World::new();
        let (_w, watcher) = world.available("w@x/1", &["a@x"]);
        let (_own, own) = world.available("a@x/own", &["w@x"]);
        let (owner, line) = world.available("a@x/1", &[]);
        drop((watcher.take(), own.take()));
        end(&world, owner, &line);
        assert_eq!(seen(&watcher.take(), "a@x/1"), [false], "{cause}");
        assert_eq!(seen(&own.take(), "a@x/1"), [false], "{cause}");
    }
}

#[test]
fn destroy_2_a_session_that_was_never_available_ends_in_silence() {
    for (cause, end) in ENDS {
        let world = World::new();
        let (_w, watcher) = world.available("w@x/1", &["a@x"]);
        let (owner, line) = world.bind("a@x/1", &["w@x"]);
        drop((watcher.take(), line.take()));
        end(&world, owner, &line);
        assert!(watcher.take().is_empty(), "{cause}");
    }
}

#[test]
fn destroy_3_invisible_at_once_and_forgotten_last() {
    let world = World::new();
    let (_w, watcher) = world.available("w@x/1", &["a@x"]);
    let (owner, line) = world.available("a@x/1", &["w@x"]);
    let account = BareJid::new("a@x").unwrap();
    let seen_from_inside = Arc::new(Mutex::new(Vec::new()));
    watcher.on_send({
        let (world, seen, line) = (world.clone(), Arc::clone(&seen_from_inside), line.clone());
        let account = account.clone();
        move |_| {
            assert!(!lock(&world.events).last().is_some_and(|(_, kind)| is_end(kind)));
            lock(&seen).push((
                world.session("a@x/1").is_some(),
                world.registry.is_loaded(&account),
                line.closed().is_some(),
            ));
        }
    });
    world.registry.destroy_session(&owner.handle(), Reason::Kicked);
    watcher.forget_hook();
    // While the unavailable is told: not found, still there, and the connection not yet closed.
    assert_eq!(*lock(&seen_from_inside), [(false, true, false)]);
    assert!(!world.registry.is_loaded(&account));
    assert_eq!(line.closed(), Some(Close::Flush));
}

#[test]
fn destroy_4_destroying_again_does_nothing_and_says_so() {
    let world = World::new();
    let (_w, watcher) = world.available("w@x/1", &["a@x"]);
    let (owner, _) = world.available("a@x/1", &["w@x"]);
    let handle = owner.handle();
    let again = Arc::new(AtomicUsize::new(0));
    watcher.on_send({
        let (world, handle, again) = (world.clone(), handle.clone(), Arc::clone(&again));
        move |_| {
            // From inside one of its own effects.
            let did = world.registry.destroy_session(&handle, Reason::Shutdown);
            again.fetch_add(if did { 100 } else { 1 }, Ordering::SeqCst);
        }
    });
    assert!(world.registry.destroy_session(&handle, Reason::Kicked));
    watcher.forget_hook();
    assert!(!world.registry.destroy_session(&handle, Reason::Kicked));
    assert!(!owner.end(Reason::Closed));
    assert_eq!(again.load(Ordering::SeqCst), 1);
    assert_eq!(world.events_of(handle.id()).iter().filter(|k| is_end(k)).count(), 1);
}

#[test]
fn destroy_5_a_late_teardown_leaves_the_successor_alone() {
    let world = World::new();
    let (old, _) = world.available("a@x/1", &[]);
    let stale = old.handle();
    let (mut new, _) = world.bind("a@x/1", &[]);
    appear(&mut new, 3);
    drop(old);
    assert!(!world.registry.destroy_session(&stale, Reason::Kicked));
    assert_eq!(world.session("a@x/1").map(|s| s.id()), Some(new.id()));
    assert!(new.is_current() && new.is_available());
    assert_eq!(world.events_of(new.id()), [EventKind::Bound, EventKind::BecameAvailable]);
}

#[test]
fn destroy_6_a_stale_handle_says_not_delivered_and_changes_nothing() {
    let world = World::new();
    let (mut owner, line) = world.available("a@x/1", &[]);
    owner.set_interested();
    let handle = owner.handle();
    world.registry.destroy_session(&handle, Reason::Kicked);
    drop(line.take());
    assert_eq!(handle.send(&message("b@x/1", 1)), Err(NotSent::Ended));
    assert_eq!(handle.send_item(&Item::element(b"<r/>")), Err(NotSent::Ended));
    assert!(handle.available().is_none() && handle.interested().is_none());
    assert!(handle.is_ended() && !handle.is_live() && handle.connection().is_none());
    assert!(matches!(owner.try_input(), Some(Err(_))));
    assert!(!appear(&mut owner, 0));
    owner.set_interested();
    assert!(!owner.is_interested() && !owner.is_available());
    assert!(owner.retain(Duration::from_secs(1), |_| Vec::new()).is_none());
    assert!(owner.acknowledge(0).is_none() && owner.handled().is_none());
    assert!(line.take().is_empty());
    let info = handle.info();
    assert_eq!((info.live, info.available, info.bytes_waiting), (false, false, 0));
    assert_eq!(handle.jid().as_str(), "a@x/1");
}

#[test]
fn destroy_7_the_successor_is_told_only_after_the_old_one_is_gone() {
    let world = World::new();
    let (_w, watcher) = world.available("w@x/1", &["a@x"]);
    let (mut old, old_line) = world.available("a@x/1", &["w@x"]);
    let token = retain(&mut old);
    drop((watcher.take(), old_line.take()));
    let line = Wire::default();
    line.on_send({
        let (world, watcher, old, old_line) =
            (world.clone(), watcher.clone(), old.handle(), old_line.clone());
        move |_| {
            assert_eq!(seen(&watcher.frames(), "a@x/1"), [false], "its unavailable is sent");
            assert!(old.is_ended());
            assert!(old_line.frames().last().is_some_and(|f| f.contains("<conflict ")));
            assert!(world.resume(&Wire::default(), "a@x", &token, 0).is_err(), "its id is void");
        }
    });
    let new = world.bind_on(&line, "a@x/1", &[]);
    line.forget_hook();
    assert_eq!(line.frames(), [bind_result(new.jid())]);
}

#[test]
fn destroy_8_the_successor_gets_neither_the_unavailable_nor_the_queue_of_the_old_one() {
    let world = World::new();
    let (mut old, _) = world.available("a@x/1", &[]);
    retain(&mut old);
    old.send(&message("b@x/1", 1)).unwrap();
    let (mut new, line) = world.bind("a@x/1", &[]);
    appear(&mut new, 0);
    let frames = line.take();
    assert_eq!(seen(&frames, "a@x/1"), [true], "its own presence alone");
    assert!(!frames.iter().any(|frame| frame.starts_with("<message")));
    assert_eq!(lock(&world.leftovers).len(), 1);
}

#[test]
fn destroy_10_an_owner_dropped_inside_its_own_bind_leaves_no_entry() {
    let world = World::new();
    let mut reply = |_: &_| panic!("while the bind result is made");
    let request = BindRequest::new().reply(&mut reply);
    let bound = authed(&Wire::default(), "a@x").bind(&world.registry, request);
    drop(bound);
    assert!(world.registry.is_empty());
    assert_eq!(world.registry.counts().hibernating, 0);
}

#[test]
fn destroy_11_a_session_that_never_bound_leaves_no_trace() {
    let world = World::new();
    for n in 0..20 {
        let line = Wire::default();
        let kept: Weak<Line> = Arc::downgrade(&line);
        let mut session = Session::new(line);
        if n % 2 == 0 {
            session.open(domain());
            drop(session.authenticate(BareJid::new("a@x").unwrap()).unwrap());
        } else {
            session.close(Close::Flush);
        }
        assert!(kept.upgrade().is_none());
    }
    assert!(lock(&world.events).is_empty() && lock(&world.elsewhere).is_empty());
}

#[test]
fn destroy_11_after_many_connects_all_counts_are_back() {
    let world = World::new();
    let mut kept = Vec::new();
    for (n, (_, end)) in ENDS.into_iter().cycle().take(200).enumerate() {
        let (mut owner, line) = world.available("a@x/1", &["b@x"]);
        if n % 3 == 0 {
            leave(&mut owner);
        }
        kept.push(Arc::downgrade(&line));
        end(&world, owner, &line);
    }
    world.pass(600);
    assert!(world.registry.is_empty() && world.registry.iter().next().is_none());
    assert_eq!(world.registry.counts().hibernating, 0);
    assert!(!world.registry.is_loaded(&BareJid::new("a@x").unwrap()));
    assert_eq!(world.registry.next_timeout(), None);
    assert!(kept.iter().all(|line| line.upgrade().is_none()), "no connection is kept");
}

#[test]
fn destroy_12_what_was_accepted_and_never_written_is_handed_back_in_order() {
    let world = World::new();
    let (owner, line) = world.bind("a@x/1", &[]);
    line.on_send({
        let (world, handle) = (world.clone(), owner.handle());
        let once = AtomicUsize::new(0);
        move |_| {
            if once.fetch_add(1, Ordering::SeqCst) == 0 {
                // Accepted while another stanza is being written; then the transport breaks.
                for n in 1..4 {
                    handle.send(&message("b@x/1", n)).unwrap();
                }
                world.registry.destroy_session(&handle, Reason::TransportLost);
            }
        }
    });
    assert!(owner.send(&message("b@x/1", 0)).is_err(), "the caller still has this one");
    line.forget_hook();
    let left = lock(&world.leftovers);
    let ids: Vec<_> = left.iter().filter_map(|l| l.stanza.id().map(|id| id.into_owned())).collect();
    assert_eq!(ids, ["1", "2", "3"]);
    assert!(left.iter().all(|l| !l.written && l.session.as_str() == "a@x/1"));
}

#[test]
fn destroy_12_strays_of_failing_last_words_keep_their_order() {
    let world = World::new();
    let (owner, line) = world.bind("a@x/1", &[]);
    line.on_send({
        let (world, handle, line) = (world.clone(), owner.handle(), Arc::downgrade(&line));
        let calls = AtomicUsize::new(0);
        move |_| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => {
                for n in 1..4 {
                    handle.send(&message("b@x/1", n)).unwrap();
                }
            }
            1 => {
                // What waits would be written before the last words, but the transport is gone.
                world.registry.destroy_session(&handle, Reason::Kicked);
                line.upgrade().unwrap().set(Mode::Closed);
            }
            _ => {}
        }
    });
    owner.send(&message("b@x/1", 0)).unwrap();
    line.forget_hook();
    let left = lock(&world.leftovers);
    let ids: Vec<_> = left.iter().filter_map(|l| l.stanza.id().map(|id| id.into_owned())).collect();
    assert_eq!(ids, ["1", "2", "3"]);
    assert_eq!(line.closed(), Some(Close::Abort));
}

#[test]
fn destroy_12_unacknowledged_stanzas_are_handed_back_with_the_time_they_were_accepted() {
    let world = World::new();
    let (mut owner, line) = world.bind("a@x/1", &[]);
    retain(&mut owner);
    owner.send(&message("b@x/1", 0)).unwrap();
    owner.acknowledge(1).unwrap();
    owner.send(&message("b@x/1", 1)).unwrap();
    line.set(Mode::Closed);
    drop(owner);
    world.pass(60);
    world.session("a@x/1").unwrap().send(&message("b@x/1", 2)).unwrap();
    world.pass(540);
    let left = lock(&world.leftovers);
    let told: Vec<_> =
        left.iter().map(|l| (l.stanza.id().unwrap().into_owned(), l.written)).collect();
    assert_eq!(told, [("1".to_owned(), true), ("2".to_owned(), false)]);
    assert_eq!(left[1].accepted.duration_since(left[0].accepted).unwrap().as_secs(), 60);
    let kinds: Vec<_> = lock(&world.events).iter().map(|(_, kind)| *kind).collect();
    assert!(is_end(kinds.last().unwrap()));
}

#[test]
fn destroy_12_what_waits_is_written_before_the_last_words() {
    let world = World::new();
    let (owner, line) = world.bind("a@x/1", &[]);
    drop(line.take());
    line.on_send({
        let (world, handle) = (world.clone(), owner.handle());
        let once = AtomicUsize::new(0);
        move |_| {
            if once.fetch_add(1, Ordering::SeqCst) == 0 {
                handle.send(&message("b@x/1", 1)).unwrap();
                world.registry.destroy_session(&handle, Reason::Shutdown);
                assert!(handle.send(&message("b@x/1", 2)).is_err());
            }
        }
    });
    owner.send(&message("b@x/1", 0)).unwrap();
    line.forget_hook();
    let frames = line.take();
    assert_eq!(frames.len(), 3);
    assert_eq!(attribute(&frames[1], "id"), Some("1"));
    assert!(frames[2].contains("<system-shutdown ") && frames[2].ends_with("</stream:stream>"));
    assert_eq!(line.closed(), Some(Close::Flush));
}

#[test]
fn destroy_13_a_chain_of_20_000_ends_needs_no_more_stack_than_one() {
    const N: usize = 20_000;
    let ended = Arc::new(AtomicUsize::new(0));
    let world = World::with(|builder| {
        let ended = Arc::clone(&ended);
        builder.listener(move |event| {
            ended.fetch_add(usize::from(is_end(&event.kind())), Ordering::SeqCst);
        })
    });
    // Each is watched by the next one, which has lost its transport when it is told.
    let mut owners: Vec<_> =
        (0..N).map(|n| world.bind(&format!("u{n}@x/r"), &[&format!("u{}@x", n + 1)])).collect();
    for (owner, _) in &mut owners {
        appear(owner, 0);
    }
    for (_, line) in &owners {
        line.set(Mode::Closed);
    }
    let first = owners[0].0.handle();
    let registry = world.registry.clone();
    std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(move || registry.destroy_session(&first, Reason::Kicked))
        .unwrap()
        .join()
        .unwrap();
    assert_eq!((world.registry.len(), ended.load(Ordering::SeqCst)), (0, N));
}

#[test]
fn destroy_13_a_listener_that_ends_sessions_is_not_called_inside_itself() {
    let world = World::new();
    let depth = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let time = Arc::clone(&world.time);
    let registry: Arc<Mutex<Option<Registry>>> = Arc::default();
    let listener = {
        let (depth, registry) = (Arc::clone(&depth), Arc::clone(&registry));
        move |event: &xmpp_session::session::Event<Wire>| {
            assert_eq!(depth.0.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            if is_end(&event.kind()) {
                let registry = lock(&registry).clone().unwrap();
                let next = registry.iter().next();
                if let Some(next) = next {
                    registry.destroy_session(&next, Reason::Kicked);
                }
                depth.1.fetch_add(1, Ordering::SeqCst);
            }
            depth.0.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let one = Registry::builder(time).listener(listener).build();
    *lock(&registry) = Some(one.clone());
    let bind = |n: usize| {
        let request = BindRequest::new();
        authed(&Wire::default(), &format!("u{n}@x")).bind(&one, request).unwrap()
    };
    let owners: Vec<_> = (0..50).map(bind).collect();
    one.destroy_session(&owners[0].handle(), Reason::Kicked);
    assert_eq!((one.len(), depth.1.load(Ordering::SeqCst)), (0, 50));
    *lock(&registry) = None;
}

#[test]
fn destroy_13_events_made_inside_the_listener_wait_until_it_is_back() {
    let registry: Arc<Mutex<Option<Registry>>> = Arc::default();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = {
        let (registry, told) = (Arc::clone(&registry), Arc::clone(&told));
        move |event: &xmpp_session::session::Event<Wire>| {
            let jid = event.session().jid();
            lock(&told).push(format!("{jid} in"));
            let registry = lock(&registry).clone();
            if let (EventKind::Bound, "a@x/1", Some(registry)) =
                (event.kind(), jid.as_str(), registry)
            {
                let request = BindRequest::new().resource(resource("1"));
                drop(authed(&Wire::default(), "b@x").bind(&registry, request));
            }
            lock(&told).push(format!("{jid} out"));
        }
    };
    let one = Registry::builder(World::new().time).listener(listener).build();
    *lock(&registry) = Some(one.clone());
    let request = BindRequest::new().resource(resource("1"));
    let _owner = authed(&Wire::default(), "a@x").bind(&one, request).unwrap();
    *lock(&registry) = None;
    let in_order = ["a@x/1 in", "a@x/1 out", "b@x/1 in", "b@x/1 out", "b@x/1 in", "b@x/1 out"];
    assert_eq!(*lock(&told), in_order);
}

#[test]
fn destroy_13_a_panicking_listener_loses_nothing_but_its_own_call() {
    let events: Arc<Mutex<Vec<_>>> = Arc::default();
    let world = World::with(|builder| {
        let record = recording(&events);
        builder.listener(move |event| {
            record(event);
            panic!("in the listener");
        })
    });
    let (owner, _) = world.available("a@x/1", &[]);
    owner.end(Reason::Closed);
    let kinds: Vec<_> = lock(&events).iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds.len(), 3);
    assert_eq!(kinds[..2], [EventKind::Bound, EventKind::BecameAvailable]);
    assert!(is_end(&kinds[2]));
}

#[test]
fn destroy_13_panicking_hooks_leave_the_end_whole() {
    let world = World::with(|builder| {
        builder.leftover(|_| panic!("in the hook")).elsewhere(|_, _| panic!("in the router"))
    });
    let (_w, watcher) = world.available("w@x/1", &["a@x"]);
    let (mut owner, _) = world.available("a@x/1", &["w@x", "far@y"]);
    retain(&mut owner);
    owner.send(&message("b@x/1", 1)).unwrap();
    drop(watcher.take());
    let id = owner.id();
    owner.end(Reason::Closed);
    assert_eq!(seen(&watcher.take(), "a@x/1"), [false]);
    assert_eq!(world.events_of(id).iter().filter(|k| is_end(k)).count(), 1);
    assert_eq!(world.registry.len(), 1);
}

#[test]
fn destroy_13_a_panicking_waker_leaves_the_thread_able_to_end_others() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("in the runtime");
        }
    }
    let world = World::new();
    let (mut owner, _) = world.bind("a@x/1", &[]);
    let waker = std::task::Waker::from(Arc::new(Panics));
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(owner.poll_ready(&mut cx).is_ready());
    assert!(world.registry.destroy_session(&owner.handle(), Reason::Kicked));
    let (other, _) = world.bind("a@x/1", &[]);
    assert!(other.end(Reason::Closed));
    assert!(world.registry.is_empty());
    assert_eq!(lock(&world.events).iter().filter(|(_, kind)| is_end(kind)).count(), 2);
}

#[test]
fn destroy_14_dropping_a_handle_does_nothing_and_dropping_the_owner_ends_the_session() {
    let world = World::new();
    let (owner, line) = world.bind("a@x/1", &[]);
    drop(owner.handle());
    assert!(owner.is_current());
    let handle = owner.handle();
    drop(owner);
    assert!(handle.is_ended());
    assert_eq!(line.closed(), Some(Close::Abort));
}

#[test]
fn destroy_14_dropping_the_registry_ends_all_and_owners_left_over_are_inert() {
    let world = World::new();
    let (a, a_line) = world.available("a@x/1", &[]);
    let (mut b, _) = world.available("b@x/1", &[]);
    retain(&mut b);
    let asleep = b.handle();
    drop(b);
    let events = Arc::clone(&world.events);
    let copy = world.registry.clone();
    drop(world);
    assert!(a.is_current(), "a clone is the registry");
    drop(copy);
    assert!(!a.is_current() && asleep.is_ended());
    assert!(a_line.frames().last().is_some_and(|f| f.contains("<system-shutdown ")));
    assert_eq!(lock(&events).iter().filter(|(_, kind)| is_end(kind)).count(), 2);
    assert_eq!(a.send(&message("b@x/1", 1)), Err(NotSent::Ended));
    drop(a);
}

#[test]
fn stream_26_a_lingering_owner_learns_when_the_last_words_are_written_and_closes_itself() {
    let world = World::new();
    let line = Wire::default();
    let request = BindRequest::new().lingers();
    let mut owner = authed(&line, "a@x").bind(&world.registry, request).unwrap();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(owner.poll_ready(&mut cx).is_ready());
    assert!(world.registry.destroy_session(&owner.handle(), Reason::Shutdown));
    assert!(line.frames().pop().is_some_and(|last| last.ends_with("</stream:stream>")));
    assert_eq!(line.closed(), None);
    assert!(matches!(owner.poll_ready(&mut cx), std::task::Poll::Ready(Err(_))));
    drop(owner);
    assert!(world.registry.is_empty());
}

#[test]
fn destroy_18_19_each_reason_tells_its_condition() {
    let conditions = [
        (Reason::PasswordChanged, "<reset "),
        (Reason::Kicked, "<policy-violation "),
        (Reason::AccountRemoved, "<not-authorized "),
        (Reason::Shutdown, "<system-shutdown "),
    ];
    for (reason, condition) in conditions {
        let world = World::new();
        let (owner, line) = world.bind("a@x/1", &[]);
        world.registry.destroy_session(&owner.handle(), reason);
        let last = line.take().pop().unwrap();
        assert!(last.contains(condition) && last.ends_with("</stream:stream>"), "{last}");
    }
}

#[test]
fn destroy_19_a_kick_closes_with_the_error_that_the_host_names() {
    let world = World::new();
    let (owner, line) = world.bind("a@x/1", &[]);
    let error = StreamError::see_other_host("example.org", None);
    assert!(world.registry.destroy_session_with(&owner.handle(), Reason::Kicked, &error));
    assert_eq!(
        line.take().pop().unwrap(),
        "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>example.org\
         </see-other-host></stream:error></stream:stream>"
    );
}

#[test]
fn destroy_18_a_hibernating_session_ends_as_well() {
    let world = World::new();
    let (mut owner, _) = world.available("a@x/1", &[]);
    let token = retain(&mut owner);
    let handle = owner.handle();
    drop(owner);
    assert!(world.registry.destroy_session(&handle, Reason::PasswordChanged));
    assert!(world.resume(&Wire::default(), "a@x", &token, 0).is_err());
    assert_eq!(world.registry.counts().hibernating, 0);
}

#[test]
fn roster_11_only_an_interested_session_takes_pushes_and_each_gets_its_own_address() {
    let world = World::new();
    let (mut one, one_line) = world.bind("a@x/1", &[]);
    let (two, _) = world.bind("a@x/2", &[]);
    one.set_interested();
    assert!(two.handle().interested().is_none());
    drop(one_line.take());
    let push = Stanza::iq("set").from("a@x").id("push").build();
    let account = BareJid::new("a@x").unwrap();
    for session in world.registry.interested(&account) {
        session.interested().unwrap().push(&push).unwrap();
    }
    assert_eq!(
        one_line.take(),
        ["<iq from='a@x' to='a@x/1' id='push' type='set'></iq>"].map(|f| {
            // An empty payload has no end tag.
            f.replace("></iq>", "/>")
        })
    );
}

#[test]
fn sec_6_debug_shows_state_and_counts_only() {
    let secrets = ["romeo", "orchard", "wherefore", "swordfish", "juliet"];
    let world = World::new();
    let (mut watcher, _) = world.bind("juliet@x/balcony", &["romeo@x"]);
    appear(&mut watcher, 0);
    let mut printed = Vec::new();
    let line = Wire::default();
    let mut session = Session::new(Arc::clone(&line));
    printed.push(format!("{session:?}"));
    session.open(domain());
    let authed = session.authenticate(BareJid::new("romeo@x").unwrap()).unwrap();
    printed.push(format!("{authed:?}"));
    let request = BindRequest::new().resource(resource("orchard")).roster(mutual(&["juliet@x"]));
    printed.push(format!("{request:?}"));
    let mut owner = authed.bind(&world.registry, request).unwrap();
    owner.set_interested();
    let body = Element::builder("status", "jabber:client");
    let stanza = Stanza::presence()
        .from("romeo@x/orchard")
        .id("swordfish")
        .child(&body.append("wherefore").build())
        .build();
    let presence = Presence::Available { stanza: &stanza, priority: 1 };
    printed.push(format!("{presence:?}"));
    owner.set_presence(presence);
    let mut seen = None;
    owner.retain(Duration::from_secs(1), |retention: &Retention| {
        seen = Some(retention.clone());
        b"<enabled/>".to_vec()
    });
    let retention = seen.unwrap();
    printed.push(format!("{retention:?}"));
    let handle = owner.handle();
    handle.send(&stanza).unwrap();
    printed.push(format!(
        "{owner:?} {handle:?} {:?} {:?}",
        handle.available(),
        handle.interested()
    ));
    printed.push(format!("{:?} {:?} {:?}", handle.info(), world.registry, handle.roster()));
    printed.push(format!("{:?}", world.registry.sessions(owner.account())));
    printed.push(format!("{stanza:?} {:?}", xmpp_session::stanza::Frame::stanza(&stanza)));
    printed.push(format!("{:?}", owner.try_input().unwrap().unwrap()));
    printed.push(format!("{:?}", Registry::builder(world.time.clone()).domain(domain())));
    let refused = world.resume(&line, "romeo@x", &retention.token, 99).unwrap_err();
    printed.push(format!("{refused:?} {refused}"));
    printed.push(format!("{:?}", refused.into_session()));
    let (outbox, drain) = xmpp_session::outbox::Outbox::new(Default::default());
    let recorder = xmpp_session::connection::Recorder::new();
    for connection in [&*outbox as &dyn xmpp_session::connection::Connection, &recorder] {
        connection.send(xmpp_session::stanza::Frame::stanza(&stanza)).unwrap();
    }
    printed.push(format!("{outbox:?} {drain:?} {recorder:?}"));
    owner.end(Reason::Closed);
    printed.push(format!("{handle:?} {:?} {:?}", world.leftovers, world.events));
    printed.push(format!("{:?}", xmpp_session::session::SessionHandle::clone(&handle)));
    let printed = printed.join("\n");
    for secret in secrets.iter().copied().chain([retention.token.as_str()]) {
        assert!(!printed.contains(secret), "{secret} in\n{printed}");
    }
}
