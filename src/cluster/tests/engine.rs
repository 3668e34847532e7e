//! What an engine promises, of the one in memory.

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::cluster::engine::{Answer, Engine, EngineError, EngineFuture, Posts};
use crate::cluster::memory::MemoryEngine;
use crate::cluster::record::{Lease, Record};
use crate::cluster::view::{Incarnation, View};
use crate::environment::Virtual;

const ME: Incarnation = Incarnation(1);
const OTHER: Incarnation = Incarnation(2);
const TTL: Duration = Duration::from_secs(2);

fn done<T>(future: EngineFuture<T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => value,
        _ => panic!("the engine in memory answers at once"),
    }
}

fn engine() -> (Arc<Virtual>, MemoryEngine) {
    let clock = Arc::new(Virtual::new(1));
    let engine = MemoryEngine::new(Arc::clone(&clock) as _);
    (clock, engine)
}

fn lease(incarnation: Incarnation) -> Lease {
    let name = format!("node{}", incarnation.0).into();
    Lease {
        incarnation,
        name,
        seen: View::default(),
        settled: View::default(),
        leaving: false,
        ttl: TTL,
        store: Arc::default(),
    }
}

fn living(answer: &Answer) -> Vec<Incarnation> {
    answer.living.iter().map(|lease| lease.incarnation).collect()
}

#[test]
fn node_1_a_lease_that_is_over_does_not_revive() {
    let (clock, engine) = engine();
    let engine: &dyn Engine = &engine;
    assert!(!done(engine.renew(lease(ME), false)).done, "it has none");
    assert!(done(engine.renew(lease(ME), true)).done);
    clock.advance(TTL - Duration::from_millis(1));
    assert!(done(engine.renew(lease(ME), false)).done);
    clock.advance(TTL);
    assert!(living(&done(engine.read())).is_empty());
    assert!(!done(engine.renew(lease(ME), false)).done);
    assert!(done(engine.renew(lease(ME), true)).done, "a first one is always taken");
}

#[test]
fn node_8_an_answer_has_all_leases_with_the_record() {
    let (_, engine) = engine();
    done(engine.renew(lease(ME), true));
    let answer = done(engine.renew(lease(OTHER), true));
    assert_eq!((living(&answer), answer.record), (vec![ME, OTHER], None));
    done(engine.release(ME));
    assert_eq!(living(&done(engine.read())), [OTHER]);
}

#[test]
fn node_8_the_record_is_written_over_the_one_that_was_meant() {
    let (_, engine) = engine();
    let hints = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&hints);
    engine.watch(Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let instance = done(engine.read()).instance;
    let record = |number| {
        let view = View { term: 1, number };
        Arc::new(Record { view, instance: Arc::clone(&instance), ..Record::nothing(4) })
    };
    assert!(done(engine.replace(None, record(1))).done);
    assert!(!done(engine.replace(None, record(2))).done, "there is one");
    assert!(!done(engine.replace(Some(View::first_of(1)), record(2))).done, "that is another one");
    let of_another = Record { instance: "another".into(), ..Record::nothing(4) };
    assert!(!done(engine.replace(Some(record(1).view), of_another.into())).done);
    let answer = done(engine.replace(Some(record(1).view), record(2)));
    assert_eq!((answer.done, answer.record), (true, Some(record(2))));
    assert_eq!(hints.load(Ordering::Relaxed), 2);
}

#[test]
fn node_4_posts_come_in_order_to_who_lives() {
    let (_, engine) = engine();
    let post = |byte: u8| Posts::post(&engine, ME, [byte].into());
    post(1);
    done(engine.renew(lease(ME), true));
    (2..4).for_each(post);
    assert_eq!(engine.inbox(ME).iter().map(|post| post[0]).collect::<Vec<_>>(), [2, 3]);
    assert!(engine.inbox(ME).is_empty());
}

#[test]
fn node_1_a_failed_call_says_why() {
    let error = EngineError("no route".into());
    assert_eq!(error.to_string(), "the engine does not answer");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("no route"));
}
