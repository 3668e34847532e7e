//! Special shapes: each at two sizes, so that a step that grows with the size shows.

use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use xmpp_session::jid::FullJid;
use xmpp_session::session::{BindRequest, Reason};

use crate::world::{
    BROKEN, Live, World, account, appear, bind, deliver_to, each, message, registry, roster, sent,
};

/// Deliveries of two threads on two cores against those of one.
pub(crate) fn two_threads(sessions: usize) {
    const EACH: usize = 300_000;
    const ROUNDS: usize = 7;
    let mut world = World::filled(sessions);
    let targets = [world.targets(EACH), world.targets(EACH)];
    let registry = &world.registry;
    // CPU and clock of one delivery.
    let run = |targets: &Vec<FullJid>| {
        let (message, start) = (message(), Instant::now());
        let cpu = each(EACH, || deliver_to(registry, targets, &message));
        (cpu, start.elapsed().as_nanos() as f64 / EACH as f64)
    };
    let mean = |both: [(f64, f64); 2]| {
        let [(a, c), (b, d)] = both;
        ((a + b) / 2.0, (c + d) / 2.0)
    };
    // One round after the other of both, so that what else the machine does meets both.
    let (mut cpu, mut clock) = ([0.0; ROUNDS], [0.0; ROUNDS]);
    for (cpu, clock) in cpu.iter_mut().zip(&mut clock) {
        let alone = mean(targets.each_ref().map(run));
        let barrier = Barrier::new(2);
        let together = thread::scope(|scope| {
            let threads = targets.each_ref().map(|targets| {
                let (barrier, run) = (&barrier, &run);
                scope.spawn(move || {
                    barrier.wait();
                    run(targets)
                })
            });
            mean(threads.map(|thread| thread.join().expect("no panic")))
        });
        *cpu = 2.0 * alone.0 / together.0;
        *clock = 2.0 * alone.1 / together.1;
    }
    println!(
        "\ntwo threads do so many times the deliveries of one, in {ROUNDS} rounds (goal 1.8):"
    );
    for (by, mut ratios) in [("CPU time", cpu), ("the clock", clock)] {
        ratios.sort_by(f64::total_cmp);
        let [least, _, _, middle, .., most] = ratios;
        println!("by {by} {middle:.2} ({least:.2} to {most:.2})");
    }
}

pub(crate) fn print(small: usize, large: usize) {
    println!("\n| shape | size | ns each | size | ns each | factor |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    show("bind in one account, to its limit", crowd_bind, 32, 320);
    show("message to a session of such an account", crowd_deliver, 32, 320);
    show("presence of a contact in so many rosters, per copy", celebrity, small, large);
    show("login storm (10 contacts each), per login", storm, small, large);
    show("mass disconnect of those, per session", disconnect, small, large);
    show("chain of ends, per end", chain, small, large);
}

fn show(name: &str, shape: fn(usize) -> f64, small: usize, large: usize) {
    let least = |size| (0..3).map(|_| shape(size)).fold(f64::INFINITY, f64::min);
    let (a, b) = (least(small), least(large));
    println!("| {name} | {small} | {a:.0} | {large} | {b:.0} | {:.2} |", b / a);
}

fn crowd_bind(size: usize) -> f64 {
    let registry = registry(size);
    each(size, || -> Vec<Live> {
        (0..size).map(|_| bind(&registry, account(0), BindRequest::new())).collect()
    })
}

fn crowd_deliver(size: usize) -> f64 {
    let registry = registry(size);
    let sessions: Vec<Live> =
        (0..size).map(|_| bind(&registry, account(0), BindRequest::new())).collect();
    let targets: Vec<FullJid> = sessions.iter().map(|s| s.jid().clone()).collect();
    let message = message();
    each(size * 100, || (0..100).for_each(|_| deliver_to(&registry, &targets, &message)))
}

fn celebrity(size: usize) -> f64 {
    let registry = registry(32);
    let _fans: Vec<Live> = (1..=size)
        .map(|n| {
            let mut fan = bind(&registry, account(n), BindRequest::new());
            appear(&mut fan);
            fan
        })
        .collect();
    let mut star = bind(&registry, account(0), BindRequest::new().roster(roster(1..=size)));
    appear(&mut star);
    sent();
    let took = each(size, || appear(&mut star));
    assert_eq!(sent(), size + 1);
    took
}

/// Everybody has the five before and the five after as contacts.
fn neighbours(n: usize, size: usize) -> BindRequest<'static> {
    BindRequest::new().roster(roster((1..=5).flat_map(|d| [(n + d) % size, (n + size - d) % size])))
}

fn log_in(size: usize) -> (f64, Vec<Live>) {
    let registry = registry(32);
    let requests: Vec<_> = (0..size).map(|n| (account(n), neighbours(n, size))).collect();
    let mut sessions = Vec::with_capacity(size);
    let took = each(size, || {
        for (account, request) in requests {
            let mut session = bind(&registry, account, request);
            appear(&mut session);
            sessions.push(session);
        }
    });
    // The sessions go first: what is measured of their end is not that of the registry.
    std::mem::forget(registry);
    (took, sessions)
}

fn storm(size: usize) -> f64 {
    let (took, sessions) = log_in(size);
    drop(sessions);
    took
}

fn disconnect(size: usize) -> f64 {
    let (_, sessions) = log_in(size);
    each(size, || sessions.into_iter().for_each(drop))
}

/// The end of each is told to the next, whose connection is found broken, so that it ends too.
fn chain(size: usize) -> f64 {
    let registry = registry(32);
    let mut sessions: Vec<Live> = (0..size)
        .map(|n| {
            let next = (n + 1 < size).then_some(n + 1);
            let mut session = bind(&registry, account(n), BindRequest::new().roster(roster(next)));
            appear(&mut session);
            session
        })
        .collect();
    let first = sessions.swap_remove(0);
    BROKEN.store(true, Ordering::Relaxed);
    let took = each(size, || first.end(Reason::TransportLost));
    BROKEN.store(false, Ordering::Relaxed);
    assert!(registry.is_empty(), "{} are left", registry.len());
    took
}
