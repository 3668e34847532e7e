//! Several nodes as one server, on an engine that fails, under clients that connect to any of them.

#[path = "nodes/cloud.rs"]
pub mod cloud;
#[path = "nodes/truth.rs"]
pub mod truth;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use xmpp_session::environment::{Environment, Virtual};
use xmpp_session::jid::DomainPart;
use xmpp_session::outbox::{Drain, Marks, Outbox};
use xmpp_session::server::{
    Cluster, Driver, Limits, NodeHandle, Server, Shutdown, Transport, Want,
};
use xmpp_session::store::{Memory, SharedMemory, SharedStore, Stores};
use xmpp_session::xep::{Carbons, ClientState, Ping, StreamManagement};

use crate::device::{DOMAIN, Device, Habits, Stage, Witness as _, wrong_views};
use crate::nodes::cloud::{Access, Cloud};
use crate::nodes::truth::Truth;
use crate::random::Random;
use crate::world::{NODES as ACCOUNTS, furnish, limits, seconds};

/// The most nodes at a time.
const MOST: usize = 4;

/// The clock of one node: it runs nearly as the others do.
struct Drifting {
    all: Arc<Virtual>,
    /// In parts of a million.
    drift: AtomicI64,
}

impl Environment for Drifting {
    fn now(&self) -> Duration {
        self.all.advance(Duration::from_micros(1));
        let now = i128::try_from(self.all.now().as_nanos()).unwrap();
        let drift = now * i128::from(self.drift.load(Ordering::Relaxed)) / 1_000_000;
        Duration::from_nanos(u64::try_from(now + drift).unwrap())
    }

    fn utc(&self) -> SystemTime {
        self.all.utc()
    }

    fn random(&self, out: &mut [u8]) {
        self.all.random(out);
    }
}

/// A process.
struct Node {
    server: Server<Arc<Outbox>>,
    handle: NodeHandle<Arc<Outbox>>,
    run: Pin<Box<dyn Future<Output = ()>>>,
    environment: Arc<Drifting>,
    access: Access,
    /// It does nothing until then, and its clock goes on.
    paused_until: Option<Duration>,
    was_fenced: Arc<AtomicBool>,
    leaving: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// A transport.
struct Line {
    node: usize,
    driver: Option<Driver<Arc<Outbox>>>,
    drain: Drain,
    device: usize,
    /// On its way to the server.
    up: VecDeque<u8>,
    is_open: bool,
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
    store: Arc<dyn SharedStore>,
    nodes: Vec<Option<Node>>,
    lines: Vec<Line>,
    devices: Vec<Device>,
    pub truth: Truth,
    pub trace: Vec<String>,
    traced: bool,
    seed: u64,
    /// Of all, for the record.
    pub counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub kills: usize,
    pub pauses: usize,
    pub cuts: usize,
    pub restarts: usize,
    pub leaves: usize,
}

impl World {
    pub fn new(seed: u64, weather: Weather, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let all = Arc::new(Virtual::new(seed));
        let memory = Memory::new();
        furnish(&memory, &memory, &all);
        let store: Arc<dyn SharedStore> = Arc::new(SharedMemory::new(memory));
        let cloud = Cloud::new(Arc::clone(&all), seed);
        let owners = [0, 0, 1, 1, 2].map(|account| ACCOUNTS[account]);
        let devices = owners.into_iter().enumerate().map(|(n, account)| {
            let mut device = Device::new(n, account, true);
            device.habits = Habits { rough: true, inline: true, ..Habits::default() };
            device.conflicts = false;
            device
        });
        let mut world = Self {
            weather,
            cloud,
            store,
            nodes: (0..MOST).map(|_| None).collect(),
            lines: Vec::new(),
            devices: devices.collect(),
            truth: Truth::default(),
            trace: Vec::new(),
            traced,
            seed,
            counts: Counts::default(),
            all,
            random: Random::new(0),
        };
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
        let drift = self.random.below(20_000) as i64 - 10_000;
        let environment = Arc::new(Drifting { all: Arc::clone(&self.all), drift: drift.into() });
        let access = self.cloud.access();
        let cluster = Cluster::new(
            format!("n{at}"),
            Arc::new(access.clone()),
            Arc::new(access.clone()),
            Arc::clone(&self.store),
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
        self.note(|| format!("node {at} starts"));
        self.nodes[at] = Some(Node {
            server,
            handle,
            run,
            environment,
            access,
            paused_until: None,
            was_fenced,
            leaving: None,
        });
        self.settle();
    }

    fn limits(&self) -> Limits {
        let mut limits = limits(&mut Random::new(self.seed));
        limits.retention.window = seconds(30);
        limits
    }

    /// A random conversation, then peace.
    pub fn run(&mut self, steps: u64) {
        while self.truth.step < steps {
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
            984..990 => self.cloud.become_late(&mut self.random),
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
        if alive.len() > 1 {
            let at = self.random.pick(&alive);
            let Some(node) = &mut self.nodes[at] else { return };
            if node.leaving.is_none() && node.paused_until.is_none() {
                let handle = node.handle.clone();
                node.leaving = Some(Box::pin(async move { handle.leave(Shutdown::new()).await }));
                self.counts.leaves += 1;
                self.note(|| format!("node {at} leaves"));
                self.settle();
            }
        }
    }

    fn misfortune(&mut self) {
        let alive = self.alive();
        let Some(&first) = alive.first() else { return self.start(0) };
        let at = if alive.len() == 1 { first } else { self.random.pick(&alive) };
        let long = Duration::from_millis(self.random.below(20_000) as u64);
        match self.random.below(10) {
            0..2 => self.kill(at),
            2..4 => {
                let until = self.all.now() + long;
                if let Some(node) = &mut self.nodes[at] {
                    node.paused_until = Some(until);
                    self.counts.pauses += 1;
                    self.note(|| format!("node {at} stops until {until:?}"));
                }
            }
            4..6 => {
                let until = self.all.now() + long;
                if let Some(node) = &self.nodes[at] {
                    node.access.cut(until);
                    self.counts.cuts += 1;
                    self.note(|| format!("node {at} is cut off until {until:?}"));
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

    /// A process is gone at once.
    fn kill(&mut self, at: usize) {
        let Some(node) = self.nodes[at].take() else { return };
        self.note(|| format!("node {at} is killed"));
        self.counts.kills += 1;
        // Whatever its parts do while they are dropped, nobody hears of it.
        node.access.die();
        self.truth.died();
        self.drop_lines(at);
        drop(node);
        self.settle();
    }

    /// The transports to a node that is no more.
    fn drop_lines(&mut self, at: usize) {
        for line in &mut self.lines {
            if line.node != at {
                continue;
            }
            line.driver = None;
            line.up.clear();
            if std::mem::take(&mut line.is_open) {
                self.devices[line.device].lost(&mut self.truth);
            }
        }
        self.sweep();
    }

    /// Some bytes reach one end of some transport.
    fn deliver(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let first = self.random.below(self.lines.len());
        let some = match self.random.below(10) {
            0 => 1 + self.random.below(30),
            1..4 => 1 + self.random.below(400),
            _ => usize::MAX,
        };
        let up = self.random.chance(50);
        let count = self.lines.len();
        for at in (first..count).chain(0..first) {
            if self.lines[at].stalled > self.truth.step {
                continue;
            }
            if up && self.carry_to_server(at, some) || self.carry_to_client(at, some) {
                break;
            }
        }
        self.sweep();
    }

    fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].as_ref().is_none_or(|node| node.paused_until.is_some())
    }

    fn carry_to_server(&mut self, at: usize, most: usize) -> bool {
        if self.is_paused(self.lines[at].node) {
            return false;
        }
        let line = &mut self.lines[at];
        let most = most.min(line.up.len());
        if most == 0 || !line.takes_input {
            return false;
        }
        let Some(driver) = &mut line.driver else { return false };
        let bytes: Vec<u8> = line.up.drain(..most).collect();
        driver.receive(&bytes);
        let (device, node) = (line.device, line.node);
        self.note(|| format!("device {device} -> {node}: {}", String::from_utf8_lossy(&bytes)));
        self.settle();
        true
    }

    fn carry_to_client(&mut self, at: usize, most: usize) -> bool {
        if self.is_paused(self.lines[at].node) || !self.lines[at].is_open {
            return false;
        }
        let line = &mut self.lines[at];
        let (device, node) = (line.device, line.node);
        let mut is_over = false;
        let bytes = match line.drain.poll_fill(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Vec::new(),
            Poll::Ready(None) => {
                is_over = true;
                Vec::new()
            }
            Poll::Ready(Some(bytes)) => bytes[..most.min(bytes.len())].to_vec(),
        };
        if !bytes.is_empty() {
            line.drain.consume(bytes.len());
            self.note(|| format!("device {device} <- {node}: {}", String::from_utf8_lossy(&bytes)));
            let Self { devices, truth, random, .. } = self;
            let before = devices[device].jid.clone();
            devices[device].receive(&bytes, Some(device), truth, random);
            if devices[device].jid != before {
                truth.jids.insert(device, devices[device].jid.clone());
            }
            self.flush(device);
            self.settle();
        }
        let line = &mut self.lines[at];
        let is_over = is_over || line.driver.is_none();
        if line.is_open && is_over && bytes.is_empty() {
            line.is_open = false;
            self.note(|| format!("device {device} reads the end"));
            self.devices[device].lost(&mut self.truth);
        } else if self.devices[device].stage == Stage::Away {
            line.is_open = false;
        }
        !bytes.is_empty()
    }

    /// What a device has written goes on its way.
    fn flush(&mut self, device: usize) {
        let at = self.lines.iter().position(|line| line.device == device && line.is_open);
        let bytes = std::mem::take(&mut self.devices[device].out);
        self.devices[device].marks.clear();
        if let Some(at) = at {
            self.lines[at].up.extend(bytes);
        }
    }

    /// Lets all nodes do what they can do now.
    fn settle(&mut self) {
        let now = self.all.now();
        let cx = &mut Context::from_waker(Waker::noop());
        for at in 0..MOST {
            if let Some(node) = &mut self.nodes[at]
                && node.paused_until.is_some_and(|until| until <= now)
            {
                node.paused_until = None;
            }
        }
        for _ in 0..4 {
            self.cloud.deliver();
            let mut left = Vec::new();
            for (at, node) in self.nodes.iter_mut().enumerate() {
                let Some(node) = node.as_mut().filter(|node| node.paused_until.is_none()) else {
                    continue;
                };
                assert!(pin!(node.server.background()).as_mut().poll(cx).is_pending());
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
                let Some(driver) = &mut line.driver else { continue };
                let want = driver.poll_want(cx);
                line.takes_input = want == Poll::Ready(Want::Input);
                if want == Poll::Ready(Want::Close) {
                    line.driver = None;
                    line.up.clear();
                }
            }
            for (at, is_clean) in left {
                self.note(|| format!("node {at} is over, having left: {is_clean}"));
                if !is_clean {
                    self.truth.died();
                }
                self.drop_lines(at);
                self.nodes[at] = None;
            }
        }
    }

    /// Forgets transports of which nothing is left.
    fn sweep(&mut self) {
        self.lines.retain(|line| line.driver.is_some() || line.is_open);
    }

    fn reconnect(&mut self) {
        let device = self.random.below(self.devices.len());
        if self.devices[device].stage != Stage::Away {
            return;
        }
        if self.random.chance(6) {
            self.note(|| format!("device {device} forgets"));
            self.devices[device].forget(&mut self.truth);
        }
        self.connect(device);
    }

    fn connect(&mut self, device: usize) {
        let alive: Vec<_> = self.alive().into_iter().filter(|at| !self.is_paused(*at)).collect();
        if alive.is_empty() {
            return;
        }
        let node = self.random.pick(&alive);
        let Some(process) = &self.nodes[node] else { return };
        let (outbox, drain) = Outbox::new(Marks::default());
        let driver = process.server.accept(outbox, Transport::new().secure(true));
        self.note(|| format!("device {device} connects to node {node}"));
        self.lines.push(Line {
            node,
            driver: Some(driver),
            drain,
            device,
            up: VecDeque::new(),
            is_open: true,
            stalled: 0,
            takes_input: true,
        });
        self.devices[device].connected(&mut self.random);
        self.flush(device);
        self.settle();
    }

    fn cut_line(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let at = self.random.below(self.lines.len());
        let (ways, part) = (self.random.below(3), self.random.below(1 << 16));
        let line = &mut self.lines[at];
        let device = line.device;
        let (client, server) = [(true, true), (true, false), (false, true)][ways];
        if server {
            line.driver = None;
            line.up.clear();
        }
        let was_open = line.is_open;
        if client {
            line.is_open = false;
            let left = part % (line.up.len() + 1);
            line.up.truncate(left);
        }
        self.note(|| format!("line {at} of device {device} is cut: {ways}"));
        if client && was_open {
            self.devices[device].lost(&mut self.truth);
        }
        self.settle();
        self.sweep();
    }

    /// A client does something.
    fn talk(&mut self) {
        let ready = self.devices.iter().filter(|device| device.stage == Stage::Ready);
        let ready: Vec<_> = ready.map(|device| device.number).collect();
        if ready.is_empty() {
            return;
        }
        let number = self.random.pick(&ready);
        let Self { random, truth, devices, .. } = self;
        match random.below(100) {
            0..60 => {
                let account = random.pick(&ACCOUNTS);
                let full: Vec<_> = devices.iter().filter_map(|device| device.jid.clone()).collect();
                let to = match random.below(10) {
                    0..5 => format!("{account}@{DOMAIN}"),
                    5..9 if !full.is_empty() => full[random.below(full.len())].clone(),
                    _ => format!("{account}@{DOMAIN}/one"),
                };
                let normal = random.chance(30);
                let padding = if random.chance(10) { random.below(900) } else { 1 };
                devices[number].message(&to, normal, padding, truth, Some(number));
            }
            60..74 => {
                let priority = random.pick(&[-1, 0, 0, 0, 1, 5]);
                devices[number].available(priority);
            }
            74..77 => devices[number].unavailable(),
            77..82 => {
                devices[number].query("<ping xmlns='urn:xmpp:ping'/>");
            }
            82..86 => {
                devices[number].query("<query xmlns='jabber:iq:roster'/>");
            }
            86..90 => devices[number].ask(),
            90..96 => devices[number].acknowledge(),
            96..98 => devices[number].close(random),
            _ => {}
        }
        self.flush(number);
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
                }
            }
        }
        panic!("seed {}: a deadline stays in the past whatever is done about it", self.seed);
    }

    /// Everything that is on its way arrives.
    fn drain(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            for at in 0..self.lines.len() {
                moved |= at < self.lines.len() && self.carry_to_server(at, usize::MAX);
                moved |= at < self.lines.len() && self.carry_to_client(at, usize::MAX);
            }
            let before = self.lines.len();
            self.sweep();
            if !moved && before == self.lines.len() {
                return;
            }
        }
        self.truth.blame("it never comes to rest".to_owned());
    }

    fn rest(&mut self) {
        for _ in 0..6 {
            self.drain();
            self.pass(Duration::from_millis(500));
        }
        self.drain();
    }

    fn come_back(&mut self) {
        for device in 0..self.devices.len() {
            if self.devices[device].stage == Stage::Away {
                self.connect(device);
            }
        }
    }

    fn finish(&mut self) {
        self.truth.step += 1;
        self.note(|| "peace".to_owned());
        self.cloud.heal();
        for node in self.nodes.iter_mut().flatten() {
            node.access.cut(Duration::ZERO);
            node.paused_until = None;
        }
        for line in &mut self.lines {
            line.stalled = 0;
            if !line.is_open {
                line.driver = None;
            }
        }
        self.settle();
        self.sweep();
        if self.alive().is_empty() {
            self.start(0);
        }
        self.pass(seconds(40));
        // All of them may have been about to leave.
        if self.alive().is_empty() {
            self.start(0);
            self.pass(seconds(20));
        }
        for _ in 0..5 {
            self.rest();
            self.come_back();
            self.truth.step += 1;
        }
        self.rest();
        for device in self.devices.iter().filter(|device| device.stage != Stage::Ready) {
            let (number, stage) = (device.number, device.stage);
            self.truth.violations.push(format!("device {number} is not back, but {stage:?}"));
        }
        for priority in [3, 0] {
            for device in 0..self.devices.len() {
                self.devices[device].available(priority);
                self.flush(device);
            }
            self.rest();
        }
        for _ in 0..4 {
            self.truth.step += 1;
            self.pass(seconds(20));
            self.drain();
            self.come_back();
        }
        for device in 0..self.devices.len() {
            self.devices[device].ask();
            self.devices[device].acknowledge();
            self.flush(device);
        }
        self.rest();
        for device in self.devices.iter().filter(|device| !device.is_settled()) {
            let number = device.number;
            self.truth.violations.push(format!("device {number} waits for acknowledgements"));
        }
        self.truth.settle();
        self.check_views();
        let counts = self.nodes.iter().flatten().map(|node| node.server.registry().counts());
        let sessions: usize = counts.map(|counts| counts.sessions).sum();
        if sessions != self.devices.len() {
            self.truth.blame(format!("{sessions} sessions"));
        }
        for device in 0..self.devices.len() {
            self.truth.step += 1;
            self.devices[device].close(&mut self.random);
            self.flush(device);
            self.rest();
            self.check_views();
        }
        for node in self.nodes.iter().flatten() {
            let left = node.server.registry().counts().sessions;
            if left != 0 {
                self.truth.violations.push(format!("left over: {left} sessions"));
            }
        }
    }

    /// Everybody sees exactly those that are there.
    fn check_views(&mut self) {
        self.truth.violations.extend(wrong_views(&self.devices));
    }
}

impl Drifting {
    /// When it is so late by the clock that runs right; a little later, lest it is too early.
    fn of_all(&self, at: Duration) -> Duration {
        let drift = i128::from(self.drift.load(Ordering::Relaxed));
        let at = i128::try_from(at.as_nanos()).unwrap() * 1_000_000 / (1_000_000 + drift);
        Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX)) + Duration::from_micros(1)
    }
}
