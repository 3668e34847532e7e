//! What logins cost the server, and whom (LIMIT-28, LIMIT-29).

use crate::common::wire;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::{Client, PASSWORD, World};
use xmpp_session::server::{Limits, Offload, Transport};
use xmpp_session::stream::Limit;

type Hash = Box<dyn FnOnce() + Send>;

const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const SECOND: Duration = Duration::from_secs(1);

/// Threads that work when the test says so.
#[derive(Clone, Default)]
struct Threads(Arc<Mutex<Vec<Hash>>>);

impl Offload for Threads {
    fn run(&self, work: Hash) {
        self.0.lock().unwrap().push(work);
    }
}

impl Threads {
    fn busy(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn take(&self) -> Hash {
        self.0.lock().unwrap().remove(0)
    }

    /// Does what was handed out first.
    fn work(&self, world: &World) {
        self.take()();
        world.settle();
    }
}

/// A thread that works where it stands.
#[derive(Clone)]
struct Here;

impl Offload for Here {
    fn run(&self, work: Hash) {
        work();
    }
}

/// A host that has no threads left.
#[derive(Clone)]
struct Nowhere;

impl Offload for Nowhere {
    fn run(&self, _: Hash) {
        panic!("no more threads");
    }
}

fn on(offload: impl Offload + Clone, hashes: usize) -> World {
    let mut limits = Limits::default();
    limits.hashes = hashes;
    let world = World::with(|builder, _| builder.limits(limits).hashing(offload));
    world.account("romeo");
    world
}

fn peer(source: u8) -> Transport {
    Transport::new().secure(true).source(format!("192.0.2.{source}"))
}

/// A client that has said its password.
fn logs_in(world: &World, peer: Transport, password: &str) -> Client {
    let client = world.accept(peer);
    client.open();
    let _features = client.received();
    client.authenticate("romeo", password);
    client
}

fn failure(condition: &str) -> String {
    format!("<failure xmlns='{NS}'><{condition}/></failure>")
}

fn success() -> String {
    format!("<success xmlns='{NS}'/>")
}

#[test]
fn limit_28_so_many_passwords_are_hashed_at_once_and_each_source_has_its_turn() {
    let threads = Threads::default();
    let world = on(threads.clone(), 4);
    let flood: Vec<_> = (0..40).map(|_| logs_in(&world, peer(1), "wrong")).collect();
    assert_eq!(threads.busy(), 2, "a source leaves room for another");
    let others: Vec<_> = (2..10).map(|n| logs_in(&world, peer(n), PASSWORD)).collect();
    assert_eq!(threads.busy(), 4);
    assert!(flood.iter().chain(&others).all(|client| client.want().is_none()));
    // One of each in turn: all others are through before the flood is.
    (0..24).for_each(|_| {
        threads.work(&world);
        assert!(threads.busy() <= 4);
    });
    assert!(others.iter().all(|client| client.received() == [success()]));
    let answered = flood.iter().filter(|client| client.received() == [failure("not-authorized")]);
    assert!(answered.count() < 20);
    // Nothing is done for those who are gone.
    flood.iter().for_each(Client::lose);
    while threads.busy() > 0 {
        threads.work(&world);
    }
    let client = logs_in(&world, peer(2), PASSWORD);
    assert_eq!(threads.busy(), 1);
    threads.work(&world);
    assert_eq!(client.received(), [success()]);
}

#[test]
fn limit_28_one_at_least() {
    for hashes in [0, 1] {
        let threads = Threads::default();
        let world = on(threads.clone(), hashes);
        let clients = [1, 1, 1, 2].map(|source| logs_in(&world, peer(source), PASSWORD));
        let answered = || clients.each_ref().map(|client| client.received().len());
        assert_eq!(threads.busy(), 1);
        threads.work(&world);
        assert_eq!((answered(), threads.busy()), ([1, 0, 0, 0], 1));
        threads.work(&world);
        assert_eq!((answered(), threads.busy()), ([0, 1, 0, 0], 1));
        threads.work(&world);
        assert_eq!((answered(), threads.busy()), ([0, 0, 0, 1], 1), "its turn");
        threads.work(&world);
        assert_eq!((answered(), threads.busy()), ([0, 0, 1, 0], 0));
    }
}

#[test]
fn limit_28_what_the_threads_do_not_do_fails_for_now() {
    let threads = Threads::default();
    let world = on(threads.clone(), 1);
    let clients = [PASSWORD, PASSWORD].map(|password| logs_in(&world, peer(1), password));
    drop(threads.take());
    world.settle();
    assert_eq!(clients[0].received(), [failure("temporary-auth-failure")]);
    threads.work(&world);
    assert_eq!(clients[1].received(), [success()]);
    let world = on(Nowhere, 1);
    for _ in 0..30 {
        let client = logs_in(&world, peer(1), PASSWORD);
        assert_eq!(client.received(), [failure("temporary-auth-failure")]);
    }
}

#[test]
fn limit_28_threads_may_work_where_they_stand() {
    for world in [on(Here, 1), World::new()] {
        world.account("romeo");
        assert_eq!(logs_in(&world, peer(1), PASSWORD).received(), [success()]);
        assert_eq!(logs_in(&world, peer(1), "x").received(), [failure("not-authorized")]);
    }
}

/// Twenty logins that fail, over several streams.
fn fail(world: &World, peer: &Transport) {
    for _ in 0..10 {
        let client = logs_in(world, peer.clone(), "wrong");
        client.authenticate("nobody", PASSWORD);
        assert_eq!(client.received(), [failure("not-authorized"), failure("not-authorized")]);
        client.lose();
    }
}

fn hits(world: &World) -> u64 {
    let limits = world.metrics().limits;
    limits
        .into_iter()
        .find(|(limit, _)| *limit == Limit::FailedLogins)
        .map_or(0, |(_, count)| count)
}

#[test]
fn limit_29_after_failures_a_source_waits_longer_each_time() {
    let world = World::new();
    world.account("romeo");
    fail(&world, &peer(1));
    assert_eq!(hits(&world), 0);
    // The next one fails at once, those behind it wait before they are looked at.
    assert_eq!(logs_in(&world, peer(1), "wrong").received().len(), 1);
    for (n, delay) in [250, 500, 1000, 2000].into_iter().enumerate() {
        // Of a client that says more at once, only the first.
        let client = logs_in(&world, peer(1), "wrong");
        world.advance(Duration::from_millis(delay - 1));
        assert_eq!(client.received(), [""; 0], "{n}");
        world.advance(Duration::from_millis(1));
        assert_eq!(client.received(), [failure("not-authorized")], "{n}");
        assert_eq!(hits(&world), 1 + n as u64);
        // By now some of it is forgotten: one in two seconds.
        (0..delay / 2000).for_each(|_| logs_in(&world, peer(1), "wrong").lose());
    }
    // Others are not concerned.
    assert_eq!(logs_in(&world, peer(2), PASSWORD).received(), [success()]);
}

#[test]
fn limit_29_right_and_wrong_known_and_unknown_wait_alike() {
    let scram = |client: &Client| {
        let first = STANDARD.encode("n,,n=romeo,r=abc");
        client.send(&format!("<auth xmlns='{NS}' mechanism='SCRAM-SHA-256'>{first}</auth>"));
    };
    for login in [
        &(|client: &Client| client.authenticate("romeo", PASSWORD)) as &dyn Fn(&Client),
        &|client| client.authenticate("romeo", "wrong"),
        &|client| client.authenticate("nobody", "wrong"),
        &scram,
    ] {
        let world = World::new();
        world.account("romeo");
        fail(&world, &peer(1));
        logs_in(&world, peer(1), "wrong").lose();
        let client = world.accept(peer(1));
        client.open();
        let _features = client.received();
        login(&client);
        world.advance(Duration::from_millis(249));
        assert_eq!(client.received(), [""; 0]);
        world.advance(Duration::from_millis(1));
        assert_eq!(client.received().len(), 1);
    }
}

#[test]
fn limit_29_a_login_that_is_given_up_has_failed() {
    let threads = Threads::default();
    let world = on(threads.clone(), 1);
    (0..21).for_each(|_| logs_in(&world, peer(1), "wrong").lose());
    let _waits = logs_in(&world, peer(1), PASSWORD);
    assert_eq!(hits(&world), 1);
    // So has a SCRAM exchange that was begun only.
    let world = World::new();
    for _ in 0..21 {
        let client = world.accept(peer(1));
        client.open();
        let first = STANDARD.encode("n,,n=nobody,r=abc");
        client.send(&format!("<auth xmlns='{NS}' mechanism='SCRAM-SHA-1'>{first}</auth>"));
        client.lose();
    }
    let _waits = logs_in(&world, peer(1), PASSWORD);
    assert_eq!(hits(&world), 1);
}

#[test]
fn limit_29_it_is_bounded_and_forgotten_and_successes_are_none() {
    let world = World::new();
    world.account("romeo");
    for _ in 0..100 {
        let client = logs_in(&world, peer(1), PASSWORD);
        assert_eq!(client.received(), [success()]);
        client.lose();
    }
    for _ in 0..3 {
        // However many: the longest wait is of 8 s.
        fail(&world, &peer(1));
        let clients: Vec<_> = (0..30).map(|_| logs_in(&world, peer(1), "wrong")).collect();
        world.advance(8 * SECOND);
        clients.iter().for_each(|client| assert_eq!(client.received().len(), 1));
        let client = logs_in(&world, peer(1), PASSWORD);
        assert_eq!(client.received(), [""; 0]);
        world.advance(8 * SECOND);
        assert_eq!(client.received(), [success()]);
        clients.iter().for_each(Client::lose);
        world.advance(60 * SECOND);
        let before = hits(&world);
        assert_eq!(logs_in(&world, peer(1), PASSWORD).received(), [success()]);
        assert_eq!(hits(&world), before);
    }
}

#[test]
fn limit_29_without_a_source_it_is_the_account() {
    let world = World::new();
    world.account("romeo");
    world.account("juliet");
    let unnamed = || Transport::new().secure(true);
    (0..21).for_each(|_| logs_in(&world, unnamed(), "wrong").lose());
    assert_eq!(logs_in(&world, unnamed(), PASSWORD).received(), [""; 0]);
    let client = world.accept(unnamed());
    client.open();
    let _features = client.received();
    client.authenticate("juliet", PASSWORD);
    assert_eq!(client.received(), [success()]);
}
