//! Tests for an engine of your own: what nodes rely on, rule by rule.
//!
//! Call them from a test of the crate that implements it:
//!
//! ```
//! use std::sync::Arc;
//! use std::thread;
//! use std::time::Duration;
//! use xmpp_session::cluster::{MemoryEngine, conformance};
//! use xmpp_session::environment::System;
//!
//! let ttl = Duration::from_millis(200);
//! let memory = Arc::new(MemoryEngine::new(Arc::new(System::new())));
//! conformance::engine(|| Arc::clone(&memory) as _, ttl, thread::sleep);
//! conformance::posts(|| Arc::clone(&memory) as _);
//! ```
//!
//! `open` gives what one node would have: a new connection to the same engine each time, or the same value. The engine
//! is for these tests alone; they leave leases and a record in it. They block the calling thread on its
//! futures: one whose futures need a runtime is tested from a thread that has entered it, with the runtime running
//! on others.
//!
//! # Panics
//!
//! Every function here panics where the engine does not do what it must; the message begins with
//! the rule.

#![expect(clippy::panic, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::engine::{Answer, Engine, EngineFuture, Posts};
use super::record::{Lease, Member, Record};
use super::view::{Incarnation, View};
use crate::park::block_on;

/// How long something is waited for that comes by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tests an engine, with leases that live for `ttl`: a few times as long as it takes to answer. `wait` lets so much time pass,
/// by the clock of the engine: [`thread::sleep`] for most.
pub fn engine(open: impl Fn() -> Arc<dyn Engine>, ttl: Duration, wait: impl Fn(Duration)) {
    leases(&*open(), ttl, &wait);
    record(&open);
    race(&open);
    one_moment(&open);
    hints(&open);
    bytes(&open);
}

/// Tests that an engine which has forgotten is another instance. `forget` makes it forget all.
pub fn forgetting(open: impl Fn() -> Arc<dyn Engine>, forget: impl FnOnce()) {
    const RULE: &str = "NODE-11: an engine that has forgotten has another name";
    let engine = open();
    let (node, before) = (lease(), current(RULE, &*engine));
    assert!(done(RULE, engine.renew(node.clone(), true)).done, "{RULE}");
    assert!(before.0.is_some(), "{RULE}: there is a record");
    forget();
    let after = patiently(RULE, || block_on(engine.read()).ok());
    assert_ne!(before.1, after.instance, "{RULE}");
    assert!(after.record.is_none_or(|record| record.instance != after.instance), "{RULE}");
    assert!(!done(RULE, engine.renew(node.clone(), false)).done, "{RULE}: the lease is gone");
    let late = Record { instance: before.1, ..written(Some(View::first_of(9))) };
    let over = done(RULE, engine.read()).record.map(|record| record.view);
    let refused = done(RULE, engine.replace(over, Arc::new(late)));
    assert!(!refused.done, "{RULE}: a record for the one that was");
    assert!(done(RULE, engine.renew(node, true)).done, "{RULE}: a first lease is taken");
}

/// Tests the way for posts.
pub fn posts(open: impl Fn() -> Arc<dyn Posts>) {
    const RULE: &str = "NODE-4: posts come in order or not at all";
    let (from, to) = (open(), open());
    let inboxes = [incarnation(), incarnation()].map(|me| {
        let inbox = Arc::<Mutex<Vec<Arc<[u8]>>>>::default();
        let into = Arc::clone(&inbox);
        to.listen(me, Arc::new(move |post| into.lock().push(post)));
        (me, inbox)
    });
    let [(first, inbox), (second, other)] = &inboxes;
    // Whoever has just begun to listen may not be heard of everywhere.
    patiently(RULE, || {
        for (me, _) in &inboxes {
            from.post(*me, Arc::from(*b"ready"));
        }
        thread::sleep(Duration::from_millis(20));
        (!inbox.lock().is_empty() && !other.lock().is_empty()).then_some(())
    });
    let numbered = |number: u32, size: usize| -> Arc<[u8]> {
        let mut post = number.to_be_bytes().to_vec();
        post.resize(size.max(4), number as u8);
        post.into()
    };
    for number in 0..1000 {
        // Among them some of a slot that moves.
        let size = if number % 100 == 99 { 1_000_000 } else { 300 };
        from.post(*first, numbered(number, size));
        from.post(*second, numbered(number, 4));
        from.post(incarnation(), numbered(number, 4));
    }
    for inbox in [inbox, other] {
        let all = patiently(RULE, || {
            let posts = inbox.lock().clone();
            let last = posts.iter().any(|post| post.starts_with(&999_u32.to_be_bytes()));
            last.then_some(posts)
        });
        let posts: Vec<_> = all.iter().filter(|post| ***post != *b"ready").collect();
        let number = |post: &Arc<[u8]>| post.first_chunk().map(|head| u32::from_be_bytes(*head));
        let numbers: Vec<_> = posts.iter().filter_map(|post| number(post)).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{RULE}: {numbers:?}");
        assert_eq!(numbers.len(), 1000, "{RULE}: none is lost where nothing breaks");
        for post in posts {
            let number = number(post).unwrap_or_default();
            assert_eq!(**post, *numbered(number, post.len()), "{RULE}: as it was sent");
        }
    }
}

fn leases(engine: &dyn Engine, ttl: Duration, wait: &impl Fn(Duration)) {
    const RULE: &str = "NODE-1: a lease that is over does not revive";
    let (me, other) = (lease_of(ttl), lease_of(ttl));
    assert!(!done(RULE, engine.renew(me.clone(), false)).done, "{RULE}: there is none");
    let first = done(RULE, engine.renew(me.clone(), true));
    assert!(first.done && has(&first, &me), "{RULE}: a first one is taken, and is in the answer");
    wait(ttl * 3 / 5);
    let changed = Lease { leaving: true, seen: View { term: 3, number: 4 }, ..me.clone() };
    let renewed = done(RULE, engine.renew(changed.clone(), false));
    assert!(renewed.done && has(&renewed, &changed), "{RULE}: it is renewed, with what it says");
    wait(ttl * 3 / 5);
    let answer = done(RULE, engine.renew(other.clone(), true));
    assert!(has(&answer, &changed) && has(&answer, &other), "{RULE}: it lives from its renewal on");
    wait(ttl * 3 / 5);
    let answer = done(RULE, engine.read());
    assert!(!has(&answer, &changed) && has(&answer, &other), "{RULE}: it is over");
    assert!(!done(RULE, engine.renew(me.clone(), false)).done, "{RULE}");
    assert!(!has(&done(RULE, engine.read()), &me), "{RULE}");
    assert!(done(RULE, engine.renew(me.clone(), true)).done, "{RULE}: but a first one is taken");
    assert!(done(RULE, engine.renew(me.clone(), true)).done, "{RULE}: twice, if it must be");
    done(RULE, engine.release(me.incarnation));
    let answer = done(RULE, engine.read());
    assert!(!has(&answer, &me) && has(&answer, &other), "{RULE}: it was released");
    assert!(!done(RULE, engine.renew(me.clone(), false)).done, "{RULE}: it was released");
    // Each has its own time.
    let long = lease_of(ttl * 4);
    assert!(done(RULE, engine.renew(long.clone(), true)).done, "{RULE}");
    wait(ttl * 2);
    let answer = done(RULE, engine.read());
    assert!(has(&answer, &long) && !has(&answer, &other), "{RULE}: as long as it says");
    for node in [me, other, long] {
        done(RULE, engine.release(node.incarnation));
    }
}

fn record(open: &impl Fn() -> Arc<dyn Engine>) {
    const RULE: &str = "NODE-8: the record is written over the one that was meant";
    let (one, other) = (open(), open());
    let (over, instance) = current(RULE, &*one);
    let next = |view: View| Record { instance: Arc::clone(&instance), ..written(Some(view)) };
    let first = next(over.map_or(View::first_of(1), View::next));
    if over.is_some() {
        let none = done(RULE, one.replace(None, Arc::new(first.clone())));
        assert!(!none.done, "{RULE}: there is one");
    }
    let answer = done(RULE, one.replace(over, Arc::new(first.clone())));
    assert_eq!((answer.done, answer.record.as_deref()), (true, Some(&first)), "{RULE}");
    for engine in [&one, &other] {
        let read = done(RULE, engine.read());
        assert_eq!(read.record.as_deref(), Some(&first), "{RULE}: to be read by all");
        assert_eq!(read.instance, instance, "{RULE}: the same engine for all");
    }
    let second = next(first.view.next());
    for wrong in [over, None, Some(second.view)] {
        let answer = done(RULE, other.replace(wrong, Arc::new(second.clone())));
        assert_eq!((answer.done, answer.record.as_deref()), (false, Some(&first)), "{RULE}");
    }
    let foreign = Record { instance: "another".into(), ..second.clone() };
    let answer = done(RULE, other.replace(Some(first.view), Arc::new(foreign)));
    assert_eq!((answer.done, answer.record.as_deref()), (false, Some(&first)), "{RULE}");
    let answer = done(RULE, other.replace(Some(first.view), Arc::new(second.clone())));
    assert_eq!((answer.done, answer.record.as_deref()), (true, Some(&second)), "{RULE}");
    assert_eq!(done(RULE, one.read()).record.as_deref(), Some(&second), "{RULE}");
}

/// Several write over the same one at the same time.
fn race(open: &impl Fn() -> Arc<dyn Engine>) {
    const RULE: &str = "NODE-8: of several that write at the same time one does";
    let engines: Vec<_> = (0..4).map(|_| open()).collect();
    for _ in 0..20 {
        let Some(engine) = engines.first() else { return };
        let (over, instance) = current(RULE, &**engine);
        let view = over.map_or(View::first_of(1), View::next);
        let write = |engine: &Arc<dyn Engine>| {
            let (engine, instance) = (Arc::clone(engine), Arc::clone(&instance));
            // Started first, so that they are under way together.
            let record = Arc::new(Record { instance, ..written(Some(view)) });
            let answer = engine.replace(over, Arc::clone(&record));
            (record, answer)
        };
        let under_way: Vec<_> = engines.iter().map(write).collect();
        let answers = under_way.into_iter().map(|(record, answer)| (record, done(RULE, answer)));
        let won: Vec<_> = answers.filter(|(_, answer)| answer.done).collect();
        let read = done(RULE, engine.read()).record;
        let [(record, _)] = &*won else { panic!("{RULE}: {} did", won.len()) };
        assert_eq!(read.as_ref(), Some(record), "{RULE}: and that one is read");
    }
}

/// A node begins its lease, is written into the record, and is written out of it before it ends its lease: so every
/// member has a lease in every answer.
fn one_moment(open: &impl Fn() -> Arc<dyn Engine>) {
    const RULE: &str = "NODE-8: an answer is of one moment";
    let (writer, over) = (open(), AtomicBool::new(false));
    let (first, instance) = current(RULE, &*writer);
    let mut view = first.unwrap_or_default();
    let mut write = |members: Vec<Member>| {
        let before = (view != View::default()).then_some(view);
        view = before.map_or(View::first_of(1), View::next);
        let record = Record { members, instance: Arc::clone(&instance), ..written(Some(view)) };
        assert!(done(RULE, writer.replace(before, Arc::new(record))).done, "{RULE}");
    };
    write(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, over) = (open(), &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let answer = done(RULE, reader.read());
                    let members = answer.record.iter().flat_map(|record| &record.members);
                    for member in members.map(|member| member.incarnation) {
                        let lives = |lease: &Lease| lease.incarnation == member;
                        assert!(answer.living.iter().any(lives), "{RULE}: {member:?} has no lease");
                    }
                }
            });
        }
        let until = Over(&over);
        for _ in 0..50 {
            let node = lease();
            assert!(done(RULE, writer.renew(node.clone(), true)).done, "{RULE}");
            write(vec![Member { name: node.name, incarnation: node.incarnation }]);
            write(Vec::new());
            done(RULE, writer.release(node.incarnation));
        }
        drop(until);
    });
}

/// Ends the readers, also where the writer fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn hints(open: &impl Fn() -> Arc<dyn Engine>) {
    const RULE: &str = "NODE-8: all are told that the record may have changed";
    let (writer, watcher) = (open(), open());
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    watcher.watch(Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let before = told.load(Ordering::Relaxed);
    patiently(RULE, || {
        let (over, instance) = current(RULE, &*writer);
        let view = over.map_or(View::first_of(1), View::next);
        let record = Record { instance, ..written(Some(view)) };
        assert!(done(RULE, writer.replace(over, Arc::new(record))).done, "{RULE}");
        thread::sleep(Duration::from_millis(50));
        (told.load(Ordering::Relaxed) > before).then_some(())
    });
}

/// Names of any kind, records of the usual size.
fn bytes(open: &impl Fn() -> Arc<dyn Engine>) {
    const RULE: &str = "NODE-8: what is written is what is read";
    let engine = open();
    let (over, instance) = current(RULE, &*engine);
    let name: Arc<str> = "n\u{e4}me' \"\\ \u{0}\r\n\u{1f41f}".into();
    let odd = Lease { name: Arc::clone(&name), incarnation: Incarnation(u64::MAX), ..lease() };
    let answer = done(RULE, engine.renew(odd.clone(), true));
    assert!(answer.done && has(&answer, &odd), "{RULE}");
    let view = over.map_or(View::first_of(1), View::next);
    let mut large = Record::nothing(super::view::SLOTS);
    large.members = (0..100)
        .map(|_| lease())
        .chain([odd.clone()])
        .map(|lease| Member { name: lease.name, incarnation: lease.incarnation })
        .collect();
    let owners = large.members.iter().map(|member| member.incarnation).cycle();
    for (place, owner) in large.places.iter_mut().zip(owners) {
        (place.owner, place.since, place.lost) = (Some(owner), view, view);
    }
    let large = Record { view, instance, ..large };
    let answer = done(RULE, engine.replace(over, Arc::new(large.clone())));
    assert_eq!((answer.done, answer.record.as_deref()), (true, Some(&large)), "{RULE}");
    assert_eq!(done(RULE, open().read()).record.as_deref(), Some(&large), "{RULE}");
    done(RULE, engine.release(odd.incarnation));
}

fn incarnation() -> Incarnation {
    Incarnation(RandomState::new().hash_one(()))
}

/// One that outlives a test.
fn lease() -> Lease {
    lease_of(PATIENCE * 6)
}

fn lease_of(ttl: Duration) -> Lease {
    let incarnation = incarnation();
    let name = format!("node-{incarnation:?}").into();
    Lease {
        incarnation,
        name,
        seen: View::default(),
        settled: View::default(),
        leaving: false,
        ttl,
        store: "somewhere".into(),
    }
}

/// A record like no other.
fn written(view: Option<View>) -> Record {
    let mut record = Record { view: view.unwrap_or_default(), ..Record::nothing(4) };
    if let Some(place) = record.places.first_mut() {
        place.owner = Some(incarnation());
    }
    record
}

fn current(rule: &str, engine: &dyn Engine) -> (Option<View>, Arc<str>) {
    let answer = done(rule, engine.read());
    (answer.record.map(|record| record.view), answer.instance)
}

fn has(answer: &Answer, lease: &Lease) -> bool {
    answer.living.contains(lease)
}

fn done<T>(rule: &str, future: EngineFuture<T>) -> T {
    match block_on(future) {
        Ok(value) => value,
        Err(error) => panic!("{rule}: {error}: {:?}", error.0),
    }
}

fn patiently<T>(rule: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "{rule}: it never comes");
        thread::sleep(Duration::from_millis(10));
    }
}
