//! A whole server in a world that follows from a seed: transports that delay, stall and break at
//! any byte, clients that come back, and an oracle that knows what must hold (docs/simulator.md).
//!
//! `SEED=7 cargo test --test simulator` replays one seed and prints what happened;
//! `SEEDS=10000 cargo test --release --test simulator -- --nocapture` is the long run.

#![cfg(feature = "server")]
#![cfg(test)]
#![expect(unreachable_pub, reason = "the simulator is private to this test")]

#[path = "simulator/device.rs"]
mod device;
#[path = "simulator/link.rs"]
mod link;
#[path = "simulator/oracle.rs"]
mod oracle;
#[path = "simulator/random.rs"]
mod random;
#[path = "simulator/splitter.rs"]
mod splitter;
#[path = "simulator/world.rs"]
mod world;

use world::World;

/// Steps of one conversation.
const STEPS: u64 = 600;
/// Seeds of an ordinary run.
const SEEDS: u64 = 150;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn run(seed: u64, traced: bool) -> World {
    let mut world = World::new(seed, traced);
    world.run(STEPS);
    world
}

#[test]
fn whatever_breaks_nothing_is_lost_doubled_or_left_behind() {
    let one = number("SEED");
    let seeds = one.map_or_else(|| 0..number("SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let (mut messages, mut received, mut failed) = (0, 0, Vec::new());
    for seed in seeds.clone() {
        let world = run(seed, one.is_some());
        let (sent, got) = world.summary();
        (messages, received) = (messages + sent, received + got);
        let violations = &world.oracle.violations;
        if one.is_some() {
            world.trace.iter().for_each(|line| println!("{line}"));
        }
        if !violations.is_empty() {
            println!("SEED={seed}: {violations:#?}");
            failed.push(seed);
        }
    }
    println!("seeds {seeds:?}: {messages} messages, {received} of them received");
    assert!(failed.is_empty(), "replay with SEED=: {failed:?}");
}

#[test]
fn a_seed_is_replayed_exactly() {
    for seed in 0..5 {
        assert_eq!(run(seed, true).trace, run(seed, true).trace, "seed {seed}");
    }
}
