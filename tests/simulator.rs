//! A whole server in a world that follows from a seed: transports that delay, stall and break at
//! any byte, clients that come back, and an oracle that knows what must hold (docs/simulator.md).
//!
//! `SEED=7 cargo test --test simulator whatever_breaks` replays one seed and prints what happened;
//! `SEEDS=10000 cargo test --release --test simulator -- --nocapture` is the long run.

#![cfg(feature = "server")]
#![cfg(test)]
#![expect(unreachable_pub, reason = "the simulator is private to this test")]

#[path = "simulator/cast.rs"]
mod cast;
#[path = "simulator/device.rs"]
mod device;
#[path = "simulator/edges.rs"]
mod edges;
#[path = "simulator/link.rs"]
mod link;
#[cfg(feature = "cluster")]
#[path = "simulator/nodes.rs"]
mod nodes;
#[path = "simulator/oracle.rs"]
mod oracle;
#[path = "simulator/order.rs"]
mod order;
#[path = "simulator/random.rs"]
mod random;
#[path = "simulator/splitter.rs"]
mod splitter;
#[path = "simulator/spy.rs"]
mod spy;
#[path = "simulator/stores.rs"]
mod stores;
#[path = "simulator/world.rs"]
mod world;

use std::collections::BTreeMap;

use world::World;

/// Steps of one conversation.
const STEPS: u64 = 600;
/// Seeds of an ordinary run.
const SEEDS: u64 = 150;
/// Those of the worlds at the edges.
const EDGES: u64 = 25;

type Make = fn(u64, bool) -> World;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn run(make: Make, seed: u64, traced: bool) -> World {
    let mut world = make(seed, traced);
    world.run(STEPS);
    world
}

/// What is wrong in a world, each with its kind.
fn wrong(world: &World) -> Vec<(String, String)> {
    let oracle = &world.oracle;
    let violations = oracle.violations.iter().map(|what| ("".to_owned(), what.clone()));
    let order = oracle.order.violations.iter();
    let order = order.map(|(kind, what)| (format!("{kind:?}"), what.clone()));
    let repeats = oracle.repeats.iter().map(|what| ("Repeated".to_owned(), what.clone()));
    violations.chain(order).chain(repeats).collect()
}

fn run_all(make: Make, seeds: u64) {
    let one = number("SEED");
    let seeds = one.map_or_else(|| 0..number("SEEDS").unwrap_or(seeds), |seed| seed..seed + 1);
    let (mut messages, mut received, mut failed) = (0, 0, Vec::new());
    // Of each kind: in how many seeds it was found, how often, and the first of them.
    let mut kinds = BTreeMap::<String, (usize, usize, u64)>::new();
    for seed in seeds.clone() {
        let world = run(make, seed, one.is_some());
        let (sent, got) = world.summary();
        (messages, received) = (messages + sent, received + got);
        if one.is_some() {
            world.trace.iter().for_each(|line| println!("{line}"));
        }
        let wrong = wrong(&world);
        let mut count = BTreeMap::<&str, usize>::new();
        for (kind, _) in &wrong {
            *count.entry(kind).or_default() += 1;
        }
        for (kind, count) in count {
            let (seeds, all, _) = kinds.entry(kind.to_owned()).or_insert((0, 0, seed));
            (*seeds, *all) = (*seeds + 1, *all + count);
        }
        if !wrong.is_empty() {
            println!("SEED={seed}: {wrong:#?}");
            failed.push(seed);
        }
    }
    println!("seeds {seeds:?}: {messages} messages, {received} of them received");
    for (kind, (seeds, all, first)) in kinds {
        println!("{kind}: {all} in {seeds} seeds, first in {first}");
    }
    assert!(failed.is_empty(), "replay with SEED=: {failed:?}");
}

#[test]
fn whatever_breaks_nothing_is_lost_doubled_or_left_behind() {
    run_all(World::new, SEEDS);
}

#[test]
fn whatever_begins_or_ends_messages_keep_their_order() {
    run_all(World::at_the_edges, EDGES);
}

#[test]
fn hook_2_whoever_reviews_messages_they_keep_their_order() {
    run_all(World::reviewed, EDGES);
}

#[test]
fn a_seed_is_replayed_exactly() {
    for make in [World::new, World::at_the_edges, World::reviewed] {
        for seed in 0..4 {
            assert_eq!(run(make, seed, true).trace, run(make, seed, true).trace, "seed {seed}");
        }
    }
}

#[cfg(feature = "cluster")]
mod several {
    use crate::nodes::{Record, Weather, World};
    use crate::{STEPS, number};

    fn run_all(weather: Weather, seeds: u64) {
        let one = number("SEED");
        let first = one.or_else(|| number("FROM")).unwrap_or(0);
        let count = one.map_or_else(|| number("SEEDS").unwrap_or(seeds), |_| 1);
        let (mut record, mut failed) = (Record::default(), Vec::new());
        for seed in first..first + count {
            let mut world = World::new(seed, weather, one.is_some());
            world.run(STEPS);
            if one.is_some() {
                world.trace.iter().for_each(|line| println!("{line}"));
            }
            record.add(&world.record());
            if let Some(first) = world.truth.violations.first() {
                println!("{weather:?}, seed {seed}: {first}");
                failed.push(seed);
            }
        }
        println!("{weather:?}, {count} seeds from {first}: {record:?}");
        assert!(failed.is_empty(), "{weather:?}: replay with SEED=: {failed:?}");
    }

    #[test]
    fn node_5_12_13_clients_are_served_by_any_node() {
        run_all(Weather::Still, 40);
    }

    #[test]
    fn node_9_19_nodes_come_and_go_and_clients_notice_nothing() {
        run_all(Weather::Calm, 80);
    }

    /// Accounts that part, come together again and part: what was put down the first time is not told.
    #[test]
    fn node_17_what_comes_together_is_known_by_the_registry_alone() {
        let mut world = World::new(1508, Weather::Calm, false);
        world.run(STEPS);
        assert_eq!(world.truth.violations, <[String; 0]>::default());
    }

    #[test]
    fn node_1_10_11_whatever_happens_to_nodes_all_goes_on() {
        run_all(Weather::Storm, 80);
    }
}
