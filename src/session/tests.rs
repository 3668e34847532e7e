//! Primitives that the rooms below use and the public surface does not show.

use std::sync::Arc;
use std::time::Duration;

use jid::{BareJid, DomainPart, FullJid, ResourcePart};

use super::handle::SessionHandle;
use super::outbound::{Item, NotSent};
use super::registry::{Hibernating, Remembered, hashes};
use super::{
    Acknowledged, BindRequest, Bound, Presence, Reason, RetentionLimits, Session, SessionRegistry,
};
use crate::connection::Recorder;
use crate::environment::Virtual;
use crate::rules::presence::TooManyTargets;
use crate::rules::roster::{Item as RosterItem, Roster, Subscription};
use crate::stanza::Stanza;

type Registry = SessionRegistry<Recorder>;

fn registry() -> Registry {
    Registry::builder(Arc::new(Virtual::new(1))).build()
}

fn bind(
    registry: &Registry,
    jid: &str,
    subscriber: Option<&str>,
) -> (Session<Bound, Recorder>, Recorder) {
    let jid = FullJid::new(jid).unwrap();
    let recorder = Recorder::new();
    let mut session = Session::new(recorder.clone());
    session.open(DomainPart::new(jid.domain().as_str()).unwrap().into_owned());
    let items = subscriber.map(|contact| {
        let mut item = RosterItem::new(BareJid::new(contact).unwrap());
        item.subscription = Subscription::From;
        item
    });
    let resource = ResourcePart::new(jid.resource().as_str()).unwrap().into_owned();
    let request = BindRequest::new().resource(resource).roster(Roster::from_items(items, 1, []));
    let bound = session.authenticate(jid.to_bare()).unwrap().bind(registry, request).unwrap();
    (bound, recorder)
}

fn appear(session: &mut Session<Bound, Recorder>) {
    let stanza = Stanza::presence().from(session.jid().as_str()).build();
    session.set_presence(Presence::Available { stanza: &stanza, priority: 0 });
}

/// Directed presence as a server sends it: recorded, then sent.
fn direct(from: &SessionHandle<Recorder>, to: &SessionHandle<Recorder>) -> bool {
    let validity = from.record_directed(to.jid().as_str(), 10).unwrap();
    let stanza = Stanza::presence().from(from.jid().as_str()).to(to.jid().as_str()).build();
    to.send_item(&Item::new(&stanza).while_valid(validity)).is_ok()
}

fn unavailable(recorder: &Recorder) -> usize {
    recorder.take().iter().filter(|frame| frame.contains("type='unavailable'")).count()
}

#[test]
fn pres_9_directed_presence_changes_neither_availability_nor_the_stored_presence() {
    let registry = registry();
    let (a, _) = bind(&registry, "a@x/1", None);
    let (b, b_line) = bind(&registry, "b@x/1", None);
    assert!(direct(&a.handle(), &b.handle()));
    assert!(!a.is_available() && a.handle().last_presence().is_none());
    assert_eq!(b_line.take().len(), 1);
    assert!(a.handle().has_directed_to("b@x"));
}

#[test]
fn pres_10_directed_targets_are_told_of_the_end_once_each() {
    let registry = registry();
    let (mut b, b_line) = bind(&registry, "b@x/1", None);
    let (_c, c_line) = bind(&registry, "c@x/1", None);
    appear(&mut b);
    for is_available in [false, true] {
        let (mut a, _) = bind(&registry, "a@x/1", Some("b@x"));
        if is_available {
            appear(&mut a);
        }
        direct(&a.handle(), &b.handle());
        direct(&a.handle(), &b.handle());
        direct(&a.handle(), &registry.session(&FullJid::new("c@x/1").unwrap()).unwrap());
        drop((b_line.take(), c_line.take()));
        drop(a);
        // A subscriber that the broadcast reaches gets no second one.
        assert_eq!((unavailable(&b_line), unavailable(&c_line)), (1, 1), "{is_available}");
    }
}

#[test]
fn pres_10_an_own_session_that_is_not_available_is_told_if_it_had_directed_presence() {
    let registry = registry();
    let (own, own_line) = bind(&registry, "a@x/2", None);
    let (mut a, _) = bind(&registry, "a@x/1", None);
    appear(&mut a);
    direct(&a.handle(), &own.handle());
    drop(a);
    assert_eq!(unavailable(&own_line), 1);
}

#[test]
fn pres_11_a_forgotten_target_is_not_told() {
    let registry = registry();
    let (b, b_line) = bind(&registry, "b@x/1", None);
    let (mut a, _) = bind(&registry, "a@x/1", None);
    direct(&a.handle(), &b.handle());
    a.handle().forget_directed("b@x/1");
    drop(b_line.take());
    a.set_presence(Presence::Unavailable { stanza: None });
    assert_eq!(unavailable(&b_line), 0);
}

#[test]
fn pres_12_a_broadcast_unavailable_empties_the_directed_set() {
    let registry = registry();
    let (b, b_line) = bind(&registry, "b@x/1", None);
    let (mut a, _) = bind(&registry, "a@x/1", None);
    direct(&a.handle(), &b.handle());
    a.set_presence(Presence::Unavailable { stanza: None });
    assert_eq!(unavailable(&b_line), 1);
    a.set_presence(Presence::Unavailable { stanza: None });
    drop(a);
    assert_eq!(unavailable(&b_line), 0);
}

#[test]
fn limit_17_the_directed_set_takes_so_many_targets_and_no_more() {
    let registry = registry();
    let (a, _) = bind(&registry, "a@x/1", None);
    let handle = a.handle();
    assert!(handle.record_directed("b@x", 1).is_ok());
    assert!(handle.record_directed("b@x", 1).is_ok(), "it is there already");
    assert_eq!(handle.record_directed("c@x", 1).err(), Some(TooManyTargets));
    assert!(!handle.has_directed_to("c@x"));
}

#[test]
fn pres_21_directed_presence_never_comes_behind_the_end() {
    let registry = registry();
    let (b, b_line) = bind(&registry, "b@x/1", None);
    // Recorded, then overtaken by the end, then sent.
    let (a, _) = bind(&registry, "a@x/1", None);
    let handle = a.handle();
    let validity = handle.record_directed("b@x/1", 10).unwrap();
    registry.destroy_session(&handle, Reason::Kicked);
    assert_eq!(unavailable(&b_line), 1);
    let stanza = Stanza::presence().from("a@x/1").to("b@x/1").build();
    let item = Item::new(&stanza).while_valid(validity);
    assert_eq!(b.handle().send_item(&item), Err(NotSent::Void));
    // Recorded after the end.
    assert!(!direct(&handle, &b.handle()));
    assert!(b_line.take().is_empty());
}

#[test]
fn presence_keeps_the_time_at_which_it_was_sent() {
    let time = Arc::new(Virtual::new(1));
    let registry = Registry::builder(time.clone()).build();
    let (mut a, _) = bind(&registry, "a@x/1", None);
    time.advance(Duration::from_secs(9));
    appear(&mut a);
    let at = a.handle().last_presence().unwrap().1;
    time.advance(Duration::from_secs(9));
    assert_eq!(
        crate::environment::Environment::utc(&*time).duration_since(at).unwrap().as_secs(),
        9
    );
}

#[test]
fn sm_6_counters_wrap_at_2_to_the_32() {
    let registry = registry();
    let (mut a, line) = bind(&registry, "a@x/1", None);
    a.retain(Duration::from_secs(60), |_| Vec::new()).unwrap();
    let handle = a.handle();
    {
        let mut out = handle.0.out.lock();
        // As if so many had come and gone.
        let retained = out.retained.as_mut().unwrap();
        retained.acked = u32::MAX - 1;
        retained.from = 5_u32.wrapping_sub(u32::MAX);
        out.received = 5;
    }
    assert_eq!(a.handled(), Some(u32::MAX));
    drop(a.try_input());
    assert_eq!(a.handled(), Some(0));
    for _ in 0..4 {
        handle.send(&Stanza::message().build()).unwrap();
    }
    let too_high = |handled| Some(Acknowledged::TooHigh { handled, sent: 2 });
    assert_eq!(a.acknowledge(u32::MAX - 2), too_high(u32::MAX - 2), "a step back");
    assert_eq!(a.acknowledge(3), too_high(3));
    assert_eq!(a.acknowledge(u32::MAX), Some(Acknowledged::Freed(1)));
    assert_eq!(a.acknowledge(0), Some(Acknowledged::Freed(1)));
    assert_eq!(a.acknowledge(u32::MAX), too_high(u32::MAX));
    assert_eq!(a.acknowledge(2), Some(Acknowledged::Freed(2)));
    assert_eq!(line.take().len(), 5, "four, and the answer to `<enable/>`");
    assert_eq!(registry.counts().retained_bytes, 0);
}

#[test]
fn limit_11_the_heaviest_session_of_the_heaviest_account_goes_first() {
    let registry = registry();
    let mut sleeping = Hibernating::default();
    let second = Duration::from_secs;
    let owners =
        ["a@x/1", "a@x/2", "b@x/1", "c@x/1"].map(|jid| bind(&registry, jid, Some("d@x")).0);
    let of = owners.each_ref().map(|owner| owner.id());
    for (at, owner) in (1..).zip(&owners) {
        sleeping.insert(&owner.handle().0, second(at), second(10 - at));
    }
    assert!(sleeping.pop_heaviest().is_none(), "nothing is gained");
    // Together a's are heavier than b's, each for itself they are not.
    for (id, bytes) in of.into_iter().zip([60, 60, 100, 1]) {
        sleeping.weigh(id, bytes / 2);
        sleeping.weigh(id, bytes);
    }
    assert_eq!((sleeping.bytes(), sleeping.next()), (221, Some(second(6))));
    let mut pop = || sleeping.pop_heaviest().and_then(|heaviest| heaviest.upgrade()).unwrap().id;
    assert_eq!([pop(), pop(), pop()], [of[0], of[2], of[1]], "of equals the oldest");
    assert_eq!(sleeping.since(of[0]), None, "taken out to be ended");
    assert_eq!(sleeping.since(of[3]), Some(second(4)));
    sleeping.weigh(of[0], 1000);
    assert_eq!(sleeping.bytes(), 1);
    assert!(sleeping.pop_due(second(5)).is_none());
    assert_eq!(sleeping.pop_due(second(6)).and_then(|due| due.upgrade()).unwrap().id, of[3]);
    assert!(sleeping.pop_heaviest().is_none() && sleeping.next().is_none());
    assert_eq!(sleeping.bytes(), 0);
}

#[test]
fn limit_12_memory_is_bounded_for_all_accounts_together() {
    let (mut remembered, limits) = (Remembered::default(), RetentionLimits::default());
    let most = 1 << 16;
    for n in 0..=most {
        let now = Duration::from_millis(n);
        remembered.keep(&format!("{n}@x"), "token".into(), 1, now, &limits);
    }
    let now = Duration::from_millis(most);
    assert_eq!(remembered.recall("0@x", "token", now), None);
    assert_eq!(remembered.recall("1@x", "token", now), Some(1));
    assert_eq!(remembered.recall("1@x", "tokem", now), None);
    let later = now + limits.remembered_for;
    assert_eq!(remembered.recall("1@x", "token", later), None, "before it is forgotten");
    remembered.forget(later);
    assert_eq!(remembered.len(), 0);
}

#[test]
fn a_broadcast_hashes_no_contact() {
    let broadcast = |contacts: usize| {
        let registry = registry();
        let watchers: Vec<_> =
            (0..contacts).map(|n| bind(&registry, &format!("w{n}@x/1"), Some("a@x"))).collect();
        let (mut a, _) = bind(&registry, "a@x/1", None);
        let mut roster = Roster::new();
        for (mut watcher, line) in watchers {
            appear(&mut watcher);
            let mut item = RosterItem::new(watcher.jid().to_bare());
            item.subscription = Subscription::Both;
            assert!(roster.put(&item));
            std::mem::forget((watcher, line));
        }
        a.handle().set_roster(roster);
        hashes(|| appear(&mut a))
    };
    assert_eq!(broadcast(1), broadcast(20));
}

#[test]
fn a_table_that_grows_hashes_nobody() {
    let registry = registry();
    let roster = |n: usize| format!("u{n}@x/1");
    let mut sessions = vec![bind(&registry, &roster(0), None)];
    let mut most = 0;
    for n in 1..2000 {
        most = most.max(hashes(|| sessions.push(bind(&registry, &roster(n), None))));
    }
    assert_eq!(most, 1);
}

/// Each registry hashes in its own way.
#[test]
fn a_roster_may_come_from_another_registry() {
    let [one, other] = [1, 2].map(|seed| Registry::builder(Arc::new(Virtual::new(seed))).build());
    let (a, _) = bind(&one, "a@x/1", Some("b@x"));
    let (mut b, b_line) = bind(&other, "b@x/1", None);
    appear(&mut b);
    drop(b_line.take());
    for bound in [true, false] {
        let mut session = Session::new(Recorder::new());
        session.open(DomainPart::new("x").unwrap().into_owned());
        let session = session.authenticate(BareJid::new("a@x").unwrap()).unwrap();
        let roster = Roster::clone(&a.handle().roster());
        let request = BindRequest::new();
        let mut session = if bound {
            session.bind(&other, request.roster(roster)).unwrap()
        } else {
            let session = session.bind(&other, request).unwrap();
            session.handle().set_roster(roster);
            session
        };
        appear(&mut session);
        assert_eq!(b_line.take().len(), 1, "{bound}");
        drop(session);
        assert_eq!(unavailable(&b_line), 1, "{bound}");
    }
}

#[test]
fn sm_22_a_thread_waits_until_input_may_be_fed() {
    let registry = registry();
    let (mut owner, _) = bind(&registry, "a@x/1", None);
    assert_eq!(owner.ready_blocking(None), Some(Ok(())));
    let ticket = owner.begin_input_blocking(None).unwrap().unwrap();
    assert_eq!(owner.ready_blocking(Some(Duration::from_millis(1))), None);
    assert!(owner.begin_input_blocking(Some(Duration::from_millis(1))).is_none());
    let handle = owner.handle();
    let (reading, waits) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        reading.send(()).unwrap();
        let second = owner.begin_input_blocking(None).unwrap().unwrap();
        reading.send(()).unwrap();
        // Its ticket is out, so that only the end can wake this thread.
        let third = owner.begin_input_blocking(None).unwrap();
        drop(second);
        third.is_err()
    });
    waits.recv().unwrap();
    drop(ticket);
    waits.recv().unwrap();
    registry.destroy_session(&handle, Reason::Kicked);
    assert!(reader.join().unwrap());
}

#[test]
fn fault_3_a_registry_alone_tells_of_panics_too() {
    use std::sync::Mutex;

    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let registry = Registry::builder(Arc::new(Virtual::new(1)))
        .listener(|_| panic!("in the listener"))
        .on_panic(move |panicked| {
            log.lock().unwrap().push((panicked.to_string(), panicked.account.clone()));
            panic!("in the hook");
        })
        .build();
    let (session, recorder) = bind(&registry, "juliet@example.com/r", None);
    recorder.on_send(|_| std::panic::panic_any(7));
    let sent = session.handle().send(&Stanza::message().build());
    assert_eq!(sent, Err(NotSent::Ended));
    let told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let juliet = Some(BareJid::new("juliet@example.com").unwrap());
    let listener = ("listener panicked: in the listener".to_owned(), juliet.clone());
    let connection = ("connection panicked: no message".to_owned(), juliet);
    assert!(told.starts_with(&[listener, connection]), "{told:?}");
}
