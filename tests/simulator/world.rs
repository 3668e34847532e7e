//! A server, its clients, and what lies between them: every step follows from the seed.

use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use xmpp_session::environment::{Environment, Virtual};
use xmpp_session::jid::DomainPart;
use xmpp_session::server::{Driver, Server, Transport, Want};
use xmpp_session::store::{MemoryAccounts, Stores};
use xmpp_session::xep::{Ping, StreamManagement};

use super::cast::{NODES, furnish, limits, seconds};
use super::device::{DOMAIN, Device, Stage, Witness as _, wrong_views};
use super::edges::Edges;
use super::link::Link;
use super::oracle::Oracle;
use super::random::Random;

/// A transport.
pub struct Line {
    pub link: Link,
    pub driver: Option<Driver<Link>>,
    device: usize,
    /// On its way to the server.
    pub up: VecDeque<u8>,
    /// Bytes written to `up` and taken off it so far.
    written: usize,
    read: usize,
    /// Places in that count behind which the server knows an `h`.
    marks: VecDeque<(usize, u32)>,
    /// The client's end is there.
    open: bool,
    /// Until which step nothing moves.
    pub stalled: u64,
    pub session: Option<usize>,
    takes_input: bool,
}

pub struct World {
    pub random: Random,
    pub environment: Arc<Virtual>,
    pub server: Server<Link>,
    pub lines: Vec<Line>,
    pub devices: Vec<Device>,
    pub oracle: Oracle,
    pub step: u64,
    capacity: usize,
    /// In a world of slow stores, and of sessions that begin and end under traffic.
    pub edges: Option<Edges>,
    /// What happened, the latest last.
    pub trace: Vec<String>,
    traced: bool,
}

/// A clock that goes on whenever somebody looks at it: no two messages are of one moment.
pub struct Ticking(pub Arc<Virtual>);

impl Environment for Ticking {
    fn now(&self) -> Duration {
        self.0.advance(Duration::from_micros(1));
        self.0.now()
    }

    fn utc(&self) -> SystemTime {
        self.0.utc()
    }

    fn random(&self, out: &mut [u8]) {
        self.0.random(out);
    }
}

impl World {
    pub fn new(seed: u64, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let environment = Arc::new(Virtual::new(seed));
        let mut stores = Stores::memory();
        stores.accounts = Arc::new(MemoryAccounts::new());
        furnish(&*stores.accounts, &*stores.rosters, &environment);
        let limits = limits(&mut random);
        let oracle = Oracle::default();
        let listener = oracle.spy.clone();
        let server = Server::builder(Arc::new(Ticking(Arc::clone(&environment))), stores)
            .domain(DomainPart::new(DOMAIN).unwrap().into_owned())
            .extension(StreamManagement::new())
            .extension(Ping)
            .extension(oracle.spy.clone())
            .listener(move |event| listener.event(event))
            .limits(limits)
            .build();
        oracle.spy.watch(&server);
        let plain = random.chance(25);
        let nodes = [NODES[0], NODES[0], NODES[1], NODES[1], NODES[2]];
        let devices = nodes.into_iter().enumerate();
        let devices = devices.map(|(n, node)| Device::new(n, node, !(plain && n == 4))).collect();
        Self::of(random, environment, server, devices, oracle, traced)
    }

    pub fn of(
        mut random: Random,
        environment: Arc<Virtual>,
        server: Server<Link>,
        devices: Vec<Device>,
        oracle: Oracle,
        traced: bool,
    ) -> Self {
        let capacity = if random.chance(20) { 3000 } else { 1 << 16 };
        Self {
            random,
            environment,
            server,
            lines: Vec::new(),
            devices,
            oracle,
            step: 0,
            capacity,
            edges: None,
            trace: Vec::new(),
            traced,
        }
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if !self.traced {
            return;
        }
        let (step, now) = (self.step, self.environment.now().as_secs());
        self.trace.push(format!("{step} {now}s {}", what()));
    }

    /// A random conversation, then peace.
    pub fn run(&mut self, steps: u64) {
        while self.step < steps {
            self.step += 1;
            self.act();
            if !self.oracle.violations.is_empty() {
                return;
            }
        }
        if self.edges.is_some() && self.random.chance(40) {
            self.restart();
        }
        self.finish();
    }

    fn act(&mut self) {
        if self.edges.is_some() {
            return self.act_at_the_edges();
        }
        match self.random.below(100) {
            0..62 => self.deliver(),
            62..82 => self.talk(),
            82..91 => self.reconnect(),
            91 => self.cut(),
            92 => {
                if let Some(line) = self.any_line() {
                    self.lines[line].stalled = self.step + self.random.below(60) as u64;
                    self.note(|| format!("line {line} stalls"));
                }
            }
            93..97 => {
                let time = Duration::from_millis(self.random.below(3000) as u64);
                self.pass(time);
            }
            97 if self.random.chance(50) => self.pass(seconds(6)),
            98 if self.random.chance(30) => self.pass(seconds(20)),
            99 if self.random.chance(20) => {
                let time = self.random.pick(&[35, 65, 650]);
                self.pass(seconds(time));
            }
            _ => {}
        }
    }

    pub fn any_line(&mut self) -> Option<usize> {
        if self.lines.is_empty() { None } else { Some(self.random.below(self.lines.len())) }
    }

    pub fn line_of(&self, device: usize) -> Option<usize> {
        self.lines.iter().position(|line| line.device == device && line.open)
    }

    /// Some bytes reach one end of some transport.
    pub fn deliver(&mut self) {
        let Some(first) = self.any_line() else { return };
        let some = match self.random.below(10) {
            0 => 1 + self.random.below(30),
            1..4 => 1 + self.random.below(400),
            _ => usize::MAX,
        };
        let up = self.random.chance(50);
        let count = self.lines.len();
        for at in (first..count).chain(0..first) {
            if self.lines[at].stalled > self.step {
                continue;
            }
            if up && self.carry_to_server(at, some) || self.carry_to_client(at, some) {
                break;
            }
        }
        self.sweep();
    }

    pub fn carry_to_server(&mut self, at: usize, most: usize) -> bool {
        let line = &mut self.lines[at];
        let most = most.min(line.up.len());
        if most == 0 || !line.takes_input {
            return false;
        }
        let Some(driver) = &mut line.driver else { return false };
        let was_good = !line.link.is_closed();
        let bytes: Vec<u8> = line.up.drain(..most).collect();
        line.read += most;
        driver.receive(&bytes);
        if !was_good {
            line.marks.clear();
        }
        let device = line.device;
        self.note(|| format!("device {device} -> {}", String::from_utf8_lossy(&bytes)));
        self.settle();
        true
    }

    pub fn carry_to_client(&mut self, at: usize, most: usize) -> bool {
        let line = &mut self.lines[at];
        if !line.open {
            return false;
        }
        if line.link.in_flight() == 0 || self.random.chance(50) {
            line.link.write();
        }
        let bytes = line.link.arrive(most);
        let (device, session) = (line.device, line.session);
        if !bytes.is_empty() {
            self.note(|| format!("device {device} <- {}", String::from_utf8_lossy(&bytes)));
            let Self { devices, oracle, random, .. } = self;
            devices[device].receive(&bytes, session, oracle, random);
            self.flush(device);
            self.settle();
        }
        let line = &mut self.lines[at];
        let over = line.driver.is_none() && line.link.in_flight() == 0 && !line.link.has_accepted();
        if line.open && over {
            line.open = false;
            self.note(|| format!("device {device} reads the end"));
            self.devices[device].lost(&mut self.oracle);
        } else if self.devices[device].stage == Stage::Away {
            line.open = false;
        }
        !bytes.is_empty()
    }

    /// What a device has written goes on its way.
    pub fn flush(&mut self, device: usize) {
        let at = self.line_of(device);
        let device = &mut self.devices[device];
        let (bytes, marks) = (std::mem::take(&mut device.out), std::mem::take(&mut device.marks));
        let Some(at) = at else { return };
        let line = &mut self.lines[at];
        line.marks.extend(marks.into_iter().map(|(place, h)| (line.written + place, h)));
        line.written += bytes.len();
        line.up.extend(bytes);
    }

    /// Lets the server do all that it can do now.
    pub fn settle(&mut self) {
        for _ in 0..3 {
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(pin!(self.server.background()).as_mut().poll(cx).is_pending());
            if let Some(edges) = &mut self.edges {
                edges.settle(cx);
            }
            for line in &mut self.lines {
                let Some(driver) = &mut line.driver else { continue };
                let want = driver.poll_want(cx);
                line.takes_input = want == Poll::Ready(Want::Input);
                if let Some(handle) = driver.session() {
                    line.session = Some(self.oracle.session(handle));
                }
                if line.takes_input {
                    // Of a resumption that was refused, the `h` says nothing about what comes next.
                    let session = line.session.filter(|_| !line.link.is_closed());
                    let good = session.filter(|session| !self.oracle.is_ended(*session));
                    while line.marks.front().is_some_and(|(place, _)| *place <= line.read) {
                        let Some((_, h)) = line.marks.pop_front() else { break };
                        if let Some(session) = good {
                            self.oracle.acknowledged(session, h);
                        }
                    }
                }
                if want == Poll::Ready(Want::Close) || line.link.is_aborted() {
                    line.link.write();
                    line.driver = None;
                    line.up.clear();
                }
            }
        }
        for line in &self.lines {
            self.oracle.unprotected(line.link.take_unprotected());
        }
        self.oracle.observe(self.step);
        self.hear_the_stores();
    }

    /// Forgets transports of which nothing is left.
    pub fn sweep(&mut self) {
        self.lines.retain(|line| line.driver.is_some() || line.open);
    }

    pub fn reconnect(&mut self) {
        let device = self.random.below(self.devices.len());
        if self.devices[device].stage != Stage::Away {
            return;
        }
        let forgetful = if self.edges.is_some() { 30 } else { 4 };
        if self.random.chance(forgetful) {
            self.note(|| format!("device {device} forgets"));
            self.devices[device].forget(&mut self.oracle);
        }
        self.connect(device);
    }

    pub fn connect(&mut self, device: usize) {
        let link = Link::new(self.capacity, self.oracle.spy.clone());
        let driver = self.server.accept(link.clone(), Transport::new().secure(true));
        self.note(|| format!("device {device} connects"));
        self.lines.push(Line {
            link,
            driver: Some(driver),
            device,
            up: VecDeque::new(),
            written: 0,
            read: 0,
            marks: VecDeque::new(),
            open: true,
            stalled: 0,
            session: None,
            takes_input: true,
        });
        self.devices[device].connected(&mut self.random);
        self.flush(device);
        self.settle();
    }

    pub fn cut(&mut self) {
        let Some(at) = self.any_line() else { return };
        let (ways, part) = (self.random.below(3), self.random.below(1 << 16));
        let line = &mut self.lines[at];
        let device = line.device;
        let (client, server) = [(true, true), (true, false), (false, true)][ways];
        if server {
            line.driver = None;
            line.up.clear();
        }
        let was_open = line.open;
        if client {
            line.open = false;
            // What was on its way may arrive up to any byte.
            let left = part % (line.up.len() + 1);
            line.up.truncate(left);
        }
        self.note(|| format!("line {at} of device {device} is cut: {ways}"));
        if client && was_open {
            self.devices[device].lost(&mut self.oracle);
        }
        self.settle();
        self.sweep();
    }

    /// A client does something.
    pub fn talk(&mut self) {
        let ready = self.devices.iter().filter(|device| device.stage == Stage::Ready);
        let ready: Vec<_> = ready.map(|device| device.number).collect();
        if ready.is_empty() {
            return;
        }
        let number = self.random.pick(&ready);
        let session = self.line_of(number).and_then(|at| self.lines[at].session);
        let Self { random, oracle, devices, .. } = self;
        match random.below(100) {
            0..55 => {
                let node = random.pick(&NODES);
                let full: Vec<_> = devices.iter().filter_map(|device| device.jid.clone()).collect();
                let to = match random.below(10) {
                    0..5 => format!("{node}@{DOMAIN}"),
                    5..9 if !full.is_empty() => full[random.below(full.len())].clone(),
                    _ => format!("{node}@{DOMAIN}/one"),
                };
                let normal = random.chance(30);
                let padding = if random.chance(10) { random.below(900) } else { 1 };
                devices[number].message(&to, normal, padding, oracle, session);
            }
            55..69 => {
                let priority = random.pick(&[-1, 0, 0, 0, 1, 5]);
                devices[number].available(priority);
            }
            69..73 => devices[number].unavailable(),
            73..80 => {
                devices[number].query("<ping xmlns='urn:xmpp:ping'/>");
            }
            80..84 => {
                devices[number].query("<query xmlns='jabber:iq:roster'/>");
            }
            84..89 => devices[number].ask(),
            89..95 => devices[number].acknowledge(),
            95..98 => devices[number].close(random),
            _ => {}
        }
        self.flush(number);
    }

    /// Lets time pass, stopping at every deadline.
    pub fn pass(&mut self, time: Duration) {
        self.note(|| format!("{time:?} pass"));
        let end = self.environment.now() + time;
        for _ in 0..10_000 {
            self.settle();
            let here = self.environment.now();
            let drivers = self.lines.iter().filter_map(|line| line.driver.as_ref());
            let deadlines = drivers.filter_map(Driver::next_timeout);
            let stores = self.edges.as_ref().and_then(|edges| edges.depot.next_due());
            let next = deadlines.chain(self.server.next_timeout()).chain(stores).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.environment.advance(end.saturating_sub(here));
                self.settle();
                return self.sweep();
            };
            self.environment.advance(next.saturating_sub(here));
            self.server.handle_timeout();
            if let Some(edges) = &self.edges {
                edges.depot.release_due(self.environment.now());
            }
            for line in &mut self.lines {
                if let Some(driver) = &mut line.driver
                    && driver.next_timeout().is_some_and(|at| at <= next.max(here))
                {
                    driver.handle_timeout();
                }
            }
        }
        panic!("a deadline stays in the past whatever is done about it");
    }

    /// Everything that is on its way arrives.
    pub fn drain(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            for at in 0..self.lines.len() {
                moved |= self.carry_to_server(at, usize::MAX);
                moved |= self.carry_to_client(at, usize::MAX);
            }
            let before = self.lines.len();
            self.sweep();
            if !moved && before == self.lines.len() {
                return;
            }
        }
        self.oracle.blame("it never comes to rest".to_owned());
    }

    fn finish(&mut self) {
        self.step += 1;
        self.note(|| "peace".to_owned());
        self.heal();
        for line in &mut self.lines {
            line.stalled = 0;
            if !line.open {
                line.driver = None;
            }
        }
        self.settle();
        self.sweep();
        for device in &mut self.devices {
            device.conflicts = false;
        }
        for _ in 0..20 {
            self.drain();
            for device in 0..self.devices.len() {
                if self.devices[device].stage == Stage::Away {
                    self.connect(device);
                }
            }
            self.step += 1;
        }
        // What has begun to end has ended by then.
        self.pass(seconds(10));
        self.drain();
        for device in 0..self.devices.len() {
            if self.devices[device].stage == Stage::Away {
                self.connect(device);
            }
        }
        self.drain();
        self.check_all(|device| device.stage == Stage::Ready, "is not back");
        self.lines.iter().for_each(|line| line.link.widen());
        self.fetch_all();
        for priority in [3, 0] {
            for device in 0..self.devices.len() {
                self.devices[device].available(priority);
                self.flush(device);
            }
            self.drain();
        }
        for _ in 0..35 {
            self.step += 1;
            self.pass(seconds(20));
            self.drain();
            self.come_back();
        }
        for device in 0..self.devices.len() {
            self.devices[device].ask();
            self.devices[device].acknowledge();
            self.flush(device);
        }
        self.drain();
        self.check_all(Device::is_settled, "has not got all its acknowledgements and answers");
        let stored = self.edges.as_ref().map_or_else(BTreeSet::new, Edges::stored);
        self.oracle.settle(&stored);
        self.check_views();
        let counts = self.server.registry().counts();
        if (counts.sessions, counts.hibernating, counts.retained_bytes)
            != (self.devices.len(), 0, 0)
        {
            self.oracle.blame(format!("ghosts: {counts:?}"));
        }
        for device in 0..self.devices.len() {
            self.step += 1;
            self.devices[device].close(&mut self.random);
            self.flush(device);
            self.drain();
            self.check_views();
        }
        self.pass(seconds(10));
        self.drain();
        let (counts, metrics) = (self.server.registry().counts(), self.server.metrics());
        let left = (counts.sessions, counts.hibernating, counts.retained_bytes);
        let rest = (metrics.unauthenticated, metrics.jobs, self.lines.len());
        if left != (0, 0, 0) || rest != (0, 0, 0) {
            self.oracle.blame(format!("left over: {left:?} {rest:?}"));
        }
    }

    fn check_all(&mut self, holds: impl Fn(&Device) -> bool, otherwise: &str) {
        for device in self.devices.iter().filter(|device| !holds(device)) {
            self.oracle.blame(format!("device {} {otherwise}", device.number));
        }
    }

    /// Everybody sees exactly those that are there.
    fn check_views(&mut self) {
        self.oracle.violations.extend(wrong_views(&self.devices));
    }

    pub fn summary(&self) -> (usize, usize) {
        self.oracle.messages()
    }
}
