//! Several nodes as one server, on an engine that fails, under clients that connect to any of them.

#[path = "nodes/cloud.rs"]
pub mod cloud;
#[path = "nodes/lines.rs"]
mod lines;
#[path = "nodes/peace.rs"]
mod peace;
#[path = "nodes/store.rs"]
pub mod store;
#[path = "nodes/truth.rs"]
pub mod truth;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use xmpp_session::environment::{Environment, Virtual};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::outbox::{Drain, Outbox};
use xmpp_session::server::{Cluster, Driver, Limits, NodeHandle, Server, Shutdown, Want};
use xmpp_session::store::{Memory, SharedMemory, Stores};
use xmpp_session::xep::{Carbons, ClientState, Ping, StreamManagement};

use super::cast::{NODES as ACCOUNTS, bare, furnish, limits, seconds};
use super::device::{DOMAIN, Device, Habits};
use super::random::Random;
use cloud::{Access, Cloud};
use store::Depot;
use truth::Truth;

/// The most nodes at a time.
const MOST: usize = 4;
/// For how long a session may be resumed.
const WINDOW: Duration = seconds(30);

/// The clock of one node: it runs nearly as the others do, and began elsewhere.
struct Drifting {
    all: Arc<Virtual>,
    began: Duration,
    /// In parts of a million.
    drift: AtomicI64,
}

impl Environment for Drifting {
    fn now(&self) -> Duration {
        self.all.advance(Duration::from_micros(1));
        let now = i128::try_from(self.all.now().as_nanos()).unwrap();
        let drift = now * i128::from(self.drift.load(Ordering::Relaxed)) / 1_000_000;
        self.began + Duration::from_nanos(u64::try_from(now + drift).unwrap())
    }

    fn utc(&self) -> SystemTime {
        self.all.utc()
    }

    fn random(&self, out: &mut [u8]) {
        self.all.random(out);
    }
}

/// Who is polled when somebody wants it, as by any runtime.
struct Bell(AtomicBool);

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn ring(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn has_rung(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// A process.
struct Node {
    bell: Arc<Bell>,
    background: Pin<Box<dyn Future<Output = ()>>>,
    process: usize,
    /// Slots that have begun empty here, when that was looked at last.
    lost: u64,
    server: Server<Arc<Outbox>>,
    handle: NodeHandle<Arc<Outbox>>,
    run: Pin<Box<dyn Future<Output = ()>>>,
    environment: Arc<Drifting>,
    access: Access,
    /// It does nothing until then, and its clock goes on.
    paused_until: Option<Duration>,
    was_fenced: Arc<AtomicBool>,
    leaving: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Since when.
    leaves_since: Duration,
}

/// A transport.
struct Line {
    node: usize,
    driver: Option<Driver<Arc<Outbox>>>,
    bell: Arc<Bell>,
    drain: Drain,
    device: usize,
    /// On its way to the server.
    up: VecDeque<u8>,
    is_open: bool,
    /// The server's end is lost.
    is_cut: bool,
    stalled: u64,
    takes_input: bool,
}

/// What goes wrong in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Posts are late.
    Still,
    /// Nodes come and leave as well.
    Calm,
    /// Nodes die as well, stop, and are cut off; the engine fails, restarts, and forgets.
    Storm,
}

pub struct World {
    random: Random,
    all: Arc<Virtual>,
    weather: Weather,
    cloud: Cloud,
    store: Depot,
    jids: BTreeMap<&'static str, BareJid>,
    /// Which process was seen to serve an account last.
    homes: BTreeMap<&'static str, usize>,
    processes: usize,
    nodes: Vec<Option<Node>>,
    lines: Vec<Line>,
    devices: Vec<Device>,
    pub truth: Truth,
    pub trace: Vec<String>,
    traced: bool,
    seed: u64,
    /// When all that has gone wrong so far is over.
    trouble_until: Duration,
    /// So much arrives at a time, at most.
    piece: usize,
    /// Of all, for the record.
    counts: Record,
}

/// What has happened, for the record.
macro_rules! counts {
    ($($name:ident,)*) => {
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Record { $(pub $name: usize,)* }

        impl Record {
            pub const fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    messages, received, repeated, kills, pauses, cuts, restarts, leaves, fences, moves, resumed,
    refused, posts, bytes, stored, deposed,
}

impl World {
    pub fn new(seed: u64, weather: Weather, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let all = Arc::new(Virtual::new(seed));
        let memory = Memory::new();
        furnish(&memory, &memory, &all);
        let store = Depot::new(SharedMemory::new(memory));
        let cloud = Cloud::new(Arc::clone(&all), seed);
        let owners = [0, 0, 1, 1, 2].map(|account| ACCOUNTS[account]);
        let devices = owners.into_iter().enumerate().map(|(n, account)| {
            let mut device = Device::new(n, account, true);
            device.habits = Habits { rough: true, inline: true, copies: true, ..Habits::default() };
            device.conflicts = false;
            device
        });
        let mut world = Self {
            weather,
            cloud,
            store,
            jids: ACCOUNTS.into_iter().map(|account| (account, bare(account))).collect(),
            homes: BTreeMap::new(),
            processes: 0,
            nodes: (0..MOST).map(|_| None).collect(),
            lines: Vec::new(),
            devices: devices.collect(),
            truth: Truth::default(),
            trace: Vec::new(),
            traced,
            seed,
            trouble_until: Duration::ZERO,
            piece: usize::MAX,
            counts: Record::default(),
            all,
            random: Random::new(0),
        };
        for (device, owner) in owners.into_iter().enumerate() {
            world.truth.is_of(device, owner);
        }
        world.truth.is_crowded = world.limits().hibernating_per_account == 1;
        // Somebody who stops hears of nothing until then.
        world.truth.keeps = WINDOW - seconds(if weather == Weather::Storm { 26 } else { 2 });
        let count = 2 + random.below(2);
        world.random = random;
        for node in 0..count {
            world.start(node);
        }
        world.pass(seconds(20));
        world
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.traced {
            let (step, now) = (self.truth.step, self.all.now());
            self.trace.push(format!("{step} {now:?} {}", what()));
        }
    }

    fn start(&mut self, at: usize) {
        let most = if self.weather == Weather::Storm { 70_000 } else { 10_000 };
        let drift = self.random.below(2 * most) as i64 - most as i64;
        let began = seconds(self.random.below(1000) as u64);
        let all = Arc::clone(&self.all);
        let environment = Arc::new(Drifting { all, began, drift: drift.into() });
        let access = self.cloud.access();
        // Only people tell nodes by their names.
        let is_namesake = self.weather == Weather::Storm && self.random.chance(15);
        let name = if is_namesake { self.random.below(MOST) } else { at };
        let cluster = Cluster::new(
            format!("n{name}"),
            Arc::new(access.clone()),
            Arc::new(access.clone()),
            self.store.of(access.clone()),
        );
        let was_fenced = Arc::new(AtomicBool::new(false));
        let server = Server::builder(Arc::clone(&environment) as _, Stores::memory())
            .domain(DomainPart::new(DOMAIN).unwrap().into_owned())
            .extension(StreamManagement::new())
            .extension(Carbons::new())
            .extension(ClientState)
            .extension(Ping)
            .limits(self.limits())
            .on_fault({
                let was_fenced = Arc::clone(&was_fenced);
                move |fault| {
                    if fault.kind().as_str() == "fenced" {
                        was_fenced.store(true, Ordering::SeqCst);
                    }
                }
            })
            .cluster(cluster)
            .build();
        let handle = server.node().expect("one of several");
        let run = Box::pin({
            let handle = handle.clone();
            async move { handle.run().await }
        });
        self.note(|| format!("node {at} starts as n{name}"));
        let background = Box::pin({
            let server = server.clone();
            async move { server.background().await }
        });
        self.processes += 1;
        self.nodes[at] = Some(Node {
            bell: Bell::new(),
            background,
            process: self.processes,
            lost: 0,
            server,
            handle,
            run,
            environment,
            access,
            paused_until: None,
            was_fenced,
            leaving: None,
            leaves_since: Duration::ZERO,
        });
        self.settle();
    }

    fn limits(&self) -> Limits {
        let mut limits = limits(&mut Random::new(self.seed));
        limits.retention.window = WINDOW;
        limits
    }

    pub fn record(&self) -> Record {
        let (messages, received, repeated) = self.truth.messages();
        let (resumed, refused) = (self.truth.resumed, self.truth.refused);
        let cloud::Traffic { posts, bytes, .. } = self.cloud.counts();
        let (stored, deposed) = self.store.operations();
        Record {
            messages,
            received,
            repeated,
            resumed,
            refused,
            posts,
            bytes,
            stored,
            deposed,
            ..self.counts
        }
    }

    /// A random conversation, then peace.
    pub fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.truth.step += 1;
            self.act();
            if !self.truth.violations.is_empty() {
                return;
            }
        }
        self.finish();
    }

    fn act(&mut self) {
        match self.random.below(1000) {
            0..620 => self.deliver(),
            620..820 => self.talk(),
            820..910 => self.reconnect(),
            910..920 => self.cut_line(),
            920..925 if !self.lines.is_empty() => {
                let line = self.random.below(self.lines.len());
                self.lines[line].stalled = self.truth.step + self.random.below(60) as u64;
                self.note(|| format!("line {line} stalls"));
            }
            925..975 => {
                let time = Duration::from_millis(self.random.below(800) as u64);
                self.pass(time);
            }
            975..978 => self.pass(seconds(6)),
            978..984 if self.weather != Weather::Still => self.come_or_go(),
            984..990 => {
                self.cloud.become_late(&mut self.random);
                self.piece = self.random.pick(&[usize::MAX, usize::MAX, usize::MAX, 60]);
            }
            990..993 => self.calm(),
            _ if self.weather == Weather::Storm => self.misfortune(),
            _ => {}
        }
    }

    fn alive(&self) -> Vec<usize> {
        (0..MOST).filter(|at| self.nodes[*at].is_some()).collect()
    }

    /// A node joins, or leaves.
    fn come_or_go(&mut self) {
        let alive = self.alive();
        if let Some(free) = (0..MOST).find(|at| !alive.contains(at))
            && self.random.chance(50)
        {
            return self.start(free);
        }
        let at = if alive.is_empty() { 0 } else { self.random.pick(&alive) };
        if self.stays_beside(Some(at)) {
            let Some(node) = &mut self.nodes[at] else { return };
            if node.leaving.is_none() && node.paused_until.is_none() {
                let handle = node.handle.clone();
                node.leaving = Some(Box::pin(async move { handle.leave(Shutdown::new()).await }));
                node.leaves_since = self.all.now();
                node.bell.ring();
                self.counts.leaves += 1;
                self.note(|| format!("node {at} leaves"));
                self.settle();
            }
        }
    }

    /// Whether somebody else is there to take what a node has.
    fn stays_beside(&self, at: Option<usize>) -> bool {
        let stays = |node: &Node| node.leaving.is_none() && node.handle.is_member();
        let mut nodes = self.nodes.iter().enumerate();
        nodes.any(|(other, node)| Some(other) != at && node.as_ref().is_some_and(stays))
    }

    fn misfortune(&mut self) {
        let alive = self.alive();
        let Some(&first) = alive.first() else { return self.start(0) };
        let at = if alive.len() == 1 { first } else { self.random.pick(&alive) };
        let long = Duration::from_millis(self.random.below(20_000) as u64);
        let what = self.random.below(10);
        if (2..6).contains(&what) {
            self.trouble_until = self.trouble_until.max(self.all.now() + long);
        }
        match what {
            0..2 => self.kill(at),
            2..4 => {
                let until = self.all.now() + long;
                if self.random.chance(60) {
                    self.stop_amid(at, until);
                }
                if let Some(node) = &mut self.nodes[at] {
                    node.paused_until = Some(until);
                    self.counts.pauses += 1;
                    self.note(|| format!("node {at} stops until {until:?}"));
                }
            }
            4..6 => {
                let until = self.all.now() + long;
                let other = self.random.below(MOST);
                let from_other = self.random.chance(30);
                let (Some(node), other_node) = (&self.nodes[at], &self.nodes[other]) else {
                    return;
                };
                self.counts.cuts += 1;
                match other_node.as_ref().filter(|_| from_other && other != at) {
                    Some(other_node) => {
                        self.cloud.cut_way(&other_node.access, &node.access, until);
                        self.note(|| format!("node {other} does not reach {at} until {until:?}"));
                    }
                    None => {
                        node.access.cut(until);
                        self.note(|| format!("node {at} is cut off until {until:?}"));
                    }
                }
            }
            6 => {
                let until = self.all.now() + long / 4;
                self.cloud.stop(until);
                self.note(|| format!("the engine stops until {until:?}"));
            }
            7 => {
                let forgets = self.random.chance(60);
                self.cloud.restart(forgets);
                self.counts.restarts += 1;
                self.note(|| format!("the engine restarts, and forgets: {forgets}"));
            }
            _ => {
                let percent = self.random.below(4);
                self.cloud.lose(percent);
                self.note(|| format!("{percent} % of posts are lost"));
            }
        }
        self.settle();
    }

    /// A process stops behind its look at the clock, with what its clients have just said.
    fn stop_amid(&mut self, at: usize, until: Duration) {
        let Some(node) = &self.nodes[at] else { return };
        node.access.hold(until);
        self.note(|| format!("what node {at} does now is done at {until:?}"));
        let said = self.lines.iter().enumerate().filter(|(_, line)| line.node == at);
        for line in said.map(|(line, _)| line).collect::<Vec<_>>() {
            self.carry_to_server(line, usize::MAX);
        }
        if let Some(node) = &self.nodes[at] {
            node.server.handle_timeout();
        }
        self.settle();
    }

    /// A process is gone at once.
    fn kill(&mut self, at: usize) {
        let Some(node) = self.nodes[at].take() else { return };
        self.note(|| format!("node {at} is killed"));
        self.counts.kills += 1;
        // Whatever its parts do while they are dropped, nobody hears of it.
        node.access.die();
        let serves =
            |account: &&str| node.handle.is_home_of(&self.jids[account]) && node.handle.is_member();
        self.truth.killed(&ACCOUNTS.into_iter().filter(serves).collect::<Vec<_>>());
        self.lost_with(node.process);
        self.drop_lines(at);
        self.sweep();
        drop(node);
        if self.random.chance(30) {
            self.start(at);
        }
        self.settle();
    }

    /// What the accounts had in memory whose home a process was. So may have been who has none now.
    fn lost_with(&mut self, process: usize) {
        let is_lost = |account: &&'static str| {
            let was_home = self.homes.get(account) == Some(&process);
            was_home || self.servers_of(account).is_empty()
        };
        let lost: Vec<_> = ACCOUNTS.into_iter().filter(is_lost).collect();
        self.note(|| format!("lost: {lost:?}"));
        self.truth.lost(&lost);
    }

    /// The nodes at which an account may act now.
    fn servers_of(&self, account: &str) -> Vec<usize> {
        let jid = &self.jids[account];
        let serves = |at: &usize| {
            let node = self.nodes[*at].as_ref();
            node.is_some_and(|node| node.handle.is_home_of(jid) && node.handle.is_member())
        };
        (0..MOST).filter(serves).collect()
    }

    /// Looks where accounts live: at one node, or none.
    fn watch(&mut self) {
        let emptied: Vec<_> =
            self.nodes.iter_mut().flatten().filter_map(Node::has_emptied).collect();
        let mut lost = Vec::new();
        for account in ACCOUNTS {
            let homes = self.servers_of(account);
            if homes.len() > 1 {
                self.truth.violations.push(format!("{account} lives at {homes:?}"));
            }
            let Some(node) = homes.first().and_then(|at| self.nodes[*at].as_ref()) else {
                let home = self.homes.get(account);
                let is_home = |node: &&Node| Some(&node.process) == home;
                let node = self.nodes.iter().flatten().find(is_home);
                if node.is_some_and(|node| !node.handle.is_member()) {
                    self.truth.is_homeless(account);
                }
                continue;
            };
            let process = node.process;
            let before = self.homes.insert(account, process);
            let lives = |before: usize| {
                let mut nodes = self.nodes.iter().flatten();
                nodes.any(|node| node.process == before && node.handle.is_member())
            };
            let is_lost = emptied.contains(&process) || !before.is_none_or(lives);
            if before.is_some() && is_lost {
                lost.push(account);
            }
            if before.is_some_and(|before| before != process) {
                self.counts.moves += 1;
                self.note(|| format!("{account} lives at process {process} now"));
            }
        }
        // Where nobody stays, sessions end as at a shutdown.
        let leaves = self.nodes.iter().flatten().any(|node| node.leaving.is_some());
        if leaves && !self.stays_beside(None) {
            self.truth.lost(&ACCOUNTS);
        }
        if !lost.is_empty() {
            self.note(|| format!("lost: {lost:?}"));
            self.truth.lost(&lost);
        }
        self.truth.violations.extend(self.store.take_wrong());
    }

    /// Lets all nodes do what they can do now.
    fn settle(&mut self) {
        let now = self.all.now();
        for at in 0..MOST {
            if let Some(node) = &mut self.nodes[at]
                && node.paused_until.is_some_and(|until| until <= now)
            {
                node.paused_until = None;
            }
        }
        let mut has_changed = false;
        for round in 0.. {
            if round > 1000 {
                self.truth.violations.push("it has something to do for ever".to_owned());
                break;
            }
            self.cloud.deliver();
            let (mut left, mut is_idle) = (Vec::new(), true);
            for (at, node) in self.nodes.iter_mut().enumerate() {
                let Some(node) = node.as_mut().filter(|node| node.paused_until.is_none()) else {
                    continue;
                };
                if !node.bell.has_rung() {
                    continue;
                }
                is_idle = false;
                let waker = Waker::from(Arc::clone(&node.bell));
                let cx = &mut Context::from_waker(&waker);
                assert!(node.background.as_mut().poll(cx).is_pending());
                let is_over = node.run.as_mut().poll(cx).is_ready();
                let leaving = node.leaving.as_mut();
                let has_left = leaving.is_some_and(|leaving| leaving.as_mut().poll(cx).is_ready());
                if is_over || has_left {
                    left.push((
                        at,
                        node.leaving.is_some() && !node.was_fenced.load(Ordering::SeqCst),
                    ));
                }
            }
            for line in &mut self.lines {
                if self.nodes[line.node].as_ref().is_none_or(|node| node.paused_until.is_some()) {
                    continue;
                }
                let Some(driver) = line.driver.as_mut().filter(|_| line.bell.has_rung()) else {
                    continue;
                };
                is_idle = false;
                let waker = Waker::from(Arc::clone(&line.bell));
                let want = driver.poll_want(&mut Context::from_waker(&waker));
                line.takes_input = want == Poll::Ready(Want::Input);
                if want == Poll::Ready(Want::Close) {
                    line.driver = None;
                    line.up.clear();
                }
            }
            if is_idle && left.is_empty() {
                break;
            }
            has_changed = true;
            for (at, is_clean) in left {
                self.note(|| format!("node {at} is over, having left: {is_clean}"));
                let process = self.nodes[at].as_ref().map_or(0, |node| node.process);
                if !is_clean {
                    self.counts.fences += 1;
                    self.lost_with(process);
                } else if self.homes.values().any(|home| *home == process) {
                    // Nobody has stayed.
                    self.lost_with(process);
                }
                self.drop_lines(at);
                self.nodes[at] = None;
            }
        }
        self.truth.now = now;
        if has_changed {
            self.watch();
        }
    }

    /// Lets time pass, stopping at every deadline.
    fn pass(&mut self, time: Duration) {
        self.note(|| format!("{time:?} pass"));
        let end = self.all.now() + time;
        for _ in 0..100_000 {
            self.settle();
            let here = self.all.now();
            let mut next = self.cloud.next_due();
            let mut sooner = |at: Option<Duration>| {
                next = next.into_iter().chain(at).min();
            };
            for node in self.nodes.iter().flatten() {
                if let Some(until) = node.paused_until {
                    sooner(Some(until));
                    continue;
                }
                sooner(node.server.next_timeout().map(|at| node.environment.of_all(at)));
            }
            for line in &self.lines {
                let node = self.nodes[line.node].as_ref();
                let Some(node) = node.filter(|node| node.paused_until.is_none()) else { continue };
                let due = line.driver.as_ref().and_then(Driver::next_timeout);
                sooner(due.map(|at| node.environment.of_all(at)));
            }
            let Some(next) = next.filter(|next| *next <= end) else {
                self.all.advance(end.saturating_sub(here));
                self.settle();
                return self.sweep();
            };
            self.all.advance(next.saturating_sub(here));
            let Self { nodes, lines, .. } = self;
            for node in nodes.iter().flatten().filter(|node| node.paused_until.is_none()) {
                node.server.handle_timeout();
            }
            for line in lines {
                let node = nodes[line.node].as_ref();
                let Some(node) = node.filter(|node| node.paused_until.is_none()) else { continue };
                let now = node.environment.now();
                if let Some(driver) = &mut line.driver
                    && driver.next_timeout().is_some_and(|at| at <= now)
                {
                    driver.handle_timeout();
                    line.bell.ring();
                }
            }
        }
        panic!("seed {}: a deadline stays in the past whatever is done about it", self.seed);
    }
}

impl Node {
    /// Its process, where slots have begun empty there since the last time.
    fn has_emptied(&mut self) -> Option<usize> {
        let lost = self.handle.metrics().lost;
        (std::mem::replace(&mut self.lost, lost) < lost).then_some(self.process)
    }
}

impl Drifting {
    /// When it is so late by the clock that runs right; a little later, lest it is too early.
    fn of_all(&self, at: Duration) -> Duration {
        let drift = i128::from(self.drift.load(Ordering::Relaxed));
        let at = i128::try_from(at.saturating_sub(self.began).as_nanos()).unwrap() * 1_000_000
            / (1_000_000 + drift);
        Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX)) + Duration::from_micros(1)
    }
}
