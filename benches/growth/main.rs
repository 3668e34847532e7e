//! What an operation costs as sessions become more: `cargo bench --bench growth`.
//!
//! Everything is thread CPU time, in memory, with connections that swallow what they are sent. Beside
//! each figure stands what the machine itself takes, in the same run, for one look-up in a plain
//! table of as many entries and as many bytes: caches miss more often in more memory, whatever the
//! program. `cargo bench --bench growth -- 100000` stops at that size and leaves the plots alone.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a bench whose world is not as it made it fails by panicking"
)]

mod plot;
mod shapes;
mod table;
mod world;

use std::fs;
use std::path::Path;
use std::process::Command;

use plot::{Curve, Plot};
use world::World;

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// What one size came to: nanoseconds of CPU for each operation, but for the last.
#[derive(Clone, Copy)]
struct Row {
    sessions: f64,
    deliver: f64,
    bind: f64,
    destroy: f64,
    presence: f64,
    machine: f64,
    longest: f64,
    bytes: f64,
}

const HEAD: &str = "\
CPU nanoseconds for each operation, the best of several stretches
| sessions | deliver | bind | destroy | presence, per recipient | the machine | \
longest bind while filling | bytes/session |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, size] = &*args
        && flag == "--row"
    {
        return measure(size.parse().expect("a size"));
    }
    let most = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(usize::MAX);
    println!("{HEAD}");
    let rows: Vec<Row> = SIZES.into_iter().filter(|size| *size <= most).map(row).collect();
    ratios(&rows);
    if let [first, .., last] = &*rows {
        let (small, large) = (first.sessions as usize * 10, (last.sessions as usize).min(100_000));
        shapes::two_threads(large);
        shapes::print(small, large);
    }
    if rows.len() == SIZES.len() {
        let wrote = draw(&rows);
        println!("\nplots: {}", wrote.map_or_else(|e| e.to_string(), |()| "docs/plots".to_owned()));
    }
}

/// Each size in a process of its own, whose memory has no history.
fn row(sessions: usize) -> Row {
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program).args(["--row", &sessions.to_string()]).output();
    let figures = String::from_utf8(child.expect("a child").stdout).expect("figures");
    print!("{figures}");
    let numbers: Vec<f64> =
        figures.split(['|', '\n']).filter_map(|cell| cell.trim().parse().ok()).collect();
    let [sessions, deliver, bind, destroy, presence, machine, longest, bytes] = numbers[..] else {
        panic!("a child failed");
    };
    Row { sessions, deliver, bind, destroy, presence, machine, longest, bytes }
}

fn measure(sessions: usize) {
    let before = world::resident();
    let mut world = World::filled(sessions);
    let bytes = (world::resident() - before) / sessions as f64;
    let longest = world.longest;
    // First what moves nothing, then what does.
    let deliver = world.deliver();
    let presence = world.presence();
    let (destroy, bind) = world.turnover();
    drop(world);
    let machine = table::look_up(sessions, bytes);
    println!(
        "| {sessions} | {deliver:.0} | {bind:.0} | {destroy:.0} | {presence:.0} | {machine:.0} | \
         {longest:.0} | {bytes:.0} |"
    );
}

type Pick = fn(&Row) -> f64;
const CURVES: [(&str, Pick); 5] = [
    ("deliver", |row| row.deliver),
    ("bind", |row| row.bind),
    ("destroy", |row| row.destroy),
    ("presence, per recipient", |row| row.presence),
    ("the machine", |row| row.machine),
];

/// How much steeper than the machine's each curve is from end to end; the goal is at most 1.5.
fn ratios(rows: &[Row]) {
    let [first, .., last] = rows else { return };
    let machine = last.machine / first.machine;
    println!(
        "\n| from {} to {} | grows | the machine grows | ratio |",
        first.sessions, last.sessions
    );
    println!("| --- | ---: | ---: | ---: |");
    for (name, pick) in CURVES {
        let grows = pick(last) / pick(first);
        println!("| {name} | {grows:.2} | {machine:.2} | {:.2} |", grows / machine);
    }
    println!(
        "at the end {:.0} MB of sessions; the longest bind took {:.1} times the mean",
        last.bytes * last.sessions / 1e6,
        last.longest / last.bind
    );
}

fn draw(rows: &[Row]) -> std::io::Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plots");
    fs::create_dir_all(&folder)?;
    let curves = |value: &dyn Fn(Pick, &Row) -> f64| -> Vec<Curve> {
        CURVES
            .iter()
            .map(|(name, pick)| Curve {
                name,
                points: rows.iter().map(|r| (r.sessions, value(*pick, r))).collect(),
            })
            .collect()
    };
    let cost = Plot { title: "CPU nanoseconds per operation", across: "sessions" };
    fs::write(folder.join("growth.svg"), cost.draw(&curves(&|pick, row| pick(row))))?;
    let relative = Plot { title: "Cost, relative to 1,000 sessions", across: "sessions" };
    let relative = relative.draw(&curves(&|pick, row| pick(row) / pick(first)));
    fs::write(folder.join("growth-relative.svg"), relative)
}
