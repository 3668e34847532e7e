//! The worlds of several nodes inside the library, where a test may break a node on purpose
//! (docs/simulator.md).
//!
//! `SEEDS=100 cargo test --release --features cluster --lib node_every_break_is_searched -- --ignored --nocapture`

mod cast;
mod device;
mod nodes;
mod splitter;

use std::panic::{AssertUnwindSafe, catch_unwind};

use nodes::{Weather, World};

use crate::cluster::tests::random;
use crate::server::breaks::Break;

/// Steps of one conversation.
const STEPS: u64 = 600;

/// A world in which each is noticed.
const SEEDS: &[(Break, Weather, u64)] = &[
    (Break::LegsStay, Weather::Calm, 0),
    (Break::LeavesAtOnce, Weather::Calm, 0),
    (Break::ServedWhileFrozen, Weather::Calm, 0),
    (Break::KeptAfterMove, Weather::Calm, 0),
    (Break::LegsOutliveHome, Weather::Storm, 1),
    (Break::LegsOutliveEdge, Weather::Storm, 2),
    (Break::LostUntold, Weather::Storm, 32),
    (Break::KeptStays, Weather::Calm, 0),
    (Break::ProbeUnheard, Weather::Calm, 1),
    (Break::TokenStays, Weather::Calm, 2),
    (Break::NoDeadline, Weather::Storm, 3),
    (Break::PartedUnnoted, Weather::Calm, 1),
    (Break::LedgerStays, Weather::Calm, 29),
    (Break::AnsweredFromAfar, Weather::Calm, 1296),
    (Break::HandledAtOnce, Weather::Storm, 995),
    (Break::UnreadStays, Weather::Calm, 8),
];

/// What is wrong in a world whose nodes are broken so.
fn wrong(broken: Option<Break>, weather: Weather, seed: u64) -> Option<String> {
    Break::make(broken);
    let run = || {
        let mut world = World::new(seed, weather, false);
        world.run(STEPS);
        world.truth.violations.first().cloned()
    };
    let wrong = catch_unwind(AssertUnwindSafe(run));
    Break::make(None);
    wrong.unwrap_or_else(|_| Some("it panics".to_owned()))
}

/// How many seeds from that one on may be needed: what happens in a world changes with the server.
const MORE: u64 = 12;

#[test]
fn node_every_break_is_noticed() {
    for (broken, weather, seed) in SEEDS.iter().copied() {
        let mut seeds = seed..seed + MORE;
        let is_noticed = seeds.any(|seed| wrong(Some(broken), weather, seed).is_some());
        assert!(is_noticed, "{broken:?} in {weather:?} from {seed} on");
    }
}

#[test]
#[ignore = "searches for seeds"]
fn node_every_break_is_searched() {
    let seeds = std::env::var("SEEDS").map_or(50, |text| text.parse().expect("a number"));
    let first = std::env::var("FROM").map_or(0, |text| text.parse().expect("a number"));
    let one = std::env::var("BREAK").ok();
    let is_meant = |broken: &Break| one.as_ref().is_none_or(|one| *one == format!("{broken:?}"));
    for broken in Break::ALL.iter().copied().filter(is_meant) {
        for weather in [Weather::Calm, Weather::Storm] {
            let found = (first..first + seeds)
                .find_map(|seed| Some((seed, wrong(Some(broken), weather, seed)?)));
            println!("{broken:?}, {weather:?}: {found:?}");
        }
    }
}

/// The same worlds as those of the simulator itself, with nothing broken: beside a search, in the same build.
#[test]
#[ignore = "many seeds"]
fn node_nothing_is_broken() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds: u64 = number("SEEDS").unwrap_or(50);
    let first = number("FROM").unwrap_or(0);
    if let (Some(seed), Ok(meant)) = (number("SEED"), std::env::var("WEATHER")) {
        for weather in [Weather::Still, Weather::Calm, Weather::Storm] {
            if format!("{weather:?}") == meant {
                let mut world = World::new(seed, weather, true);
                world.run(STEPS);
                world.trace.iter().for_each(|line| println!("{line}"));
                println!("{:#?}", world.truth.violations);
            }
        }
        return;
    }
    for weather in [Weather::Still, Weather::Calm, Weather::Storm] {
        let mut failed = Vec::new();
        for seed in first..first + seeds {
            if let Some(wrong) = wrong(None, weather, seed) {
                println!("{weather:?}, seed {seed}: {wrong}");
                failed.push(seed);
            }
        }
        println!("{weather:?}, {seeds} seeds from {first}: {} failed: {failed:?}", failed.len());
    }
}
