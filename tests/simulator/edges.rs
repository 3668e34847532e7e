//! Worlds in which sessions begin and end under traffic, in front of stores that are slow or fail.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use xmpp_session::environment::Virtual;
use xmpp_session::jid::DomainPart;
use xmpp_session::server::{Limits, RouteError, Router, Server, Shutdown};
use xmpp_session::stanza::Stanza;
use xmpp_session::store::{Memory, OfflineLimits, OfflineStore};
use xmpp_session::stream::StreamCondition;
use xmpp_session::xep::{Blocking, Ping, StreamManagement};

use super::cast::{NODES, at_once, bare, furnish, limits, seconds};
use super::device::{DOMAIN, Device, Habits, Stage, Stream, Witness as _};
use super::link::Link;
use super::oracle::{Oracle, REMOTE};
use super::random::Random;
use super::spy::Spy;
use super::stores::{Depot, Mood, Reviewer, id_of};
use super::world::{Ticking, World};

/// What such a world has beside its server and its clients.
pub struct Edges {
    pub depot: Depot,
    /// How the stores are in good and in bad times.
    moods: [Mood; 2],
    limits: Limits,
    /// Whether messages are reviewed.
    reviews: bool,
    /// Messages that have come from elsewhere.
    remote: u32,
    back: Back,
    shutdown: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// What went back to another domain.
#[derive(Clone, Default)]
struct Back(Arc<Mutex<Vec<String>>>);

impl Back {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Router for Back {
    fn route(&self, stanza: &Stanza) -> Result<(), RouteError> {
        let bounced = stanza.id().filter(|_| stanza.type_().as_deref() == Some("error"));
        let mut back = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        back.extend(bounced.map(|id| id.to_string()));
        Ok(())
    }
}

impl Edges {
    pub fn settle(&mut self, cx: &mut Context<'_>) {
        if let Some(shutdown) = &mut self.shutdown
            && shutdown.as_mut().poll(cx) == Poll::Ready(())
        {
            self.shutdown = None;
            self.depot.spy().close();
        }
    }

    /// The ids of the messages in the stores.
    pub fn stored(&self) -> BTreeSet<String> {
        let lists = NODES.map(|node| at_once(self.depot.memory().list(&bare(node))).unwrap());
        lists.iter().flatten().map(|(_, message)| id_of(message)).collect()
    }
}

fn build(
    environment: &Arc<Virtual>,
    depot: &Depot,
    limits: &Limits,
    back: &Back,
    spy: &Spy,
    reviews: bool,
) -> Server<Link> {
    let stores = depot.stores();
    let listener = spy.clone();
    let builder = Server::builder(Arc::new(Ticking(Arc::clone(environment))), stores.clone())
        .domain(DomainPart::new(DOMAIN).unwrap().into_owned())
        .extension(StreamManagement::new())
        .extension(Ping)
        .extension(Blocking::new(stores.blocks))
        .extension(spy.clone())
        .listener(move |event| listener.event(event))
        .router(back.clone())
        .limits(limits.clone());
    let builder = if reviews { builder.extension(Reviewer(depot.clone())) } else { builder };
    let server = builder.build();
    spy.watch(&server);
    server
}

impl World {
    /// A world of this kind. Accounts have one device but for one, which has two.
    pub fn at_the_edges(seed: u64, traced: bool) -> Self {
        Self::edges(seed, traced, false)
    }

    /// The same, where each message is reviewed.
    pub fn reviewed(seed: u64, traced: bool) -> Self {
        Self::edges(seed, traced, true)
    }

    fn edges(seed: u64, traced: bool, reviews: bool) -> Self {
        let mut random = Random::new(!seed);
        let environment = Arc::new(Virtual::new(seed));
        let mut oracle = Oracle::default();
        let mut limits = limits(&mut random);
        if random.chance(40) {
            limits.retention.stanzas = 12;
        }
        let slow = random.pick(&[0, 0, 20, 60]);
        let failing = random.pick(&[0, 0, 0, 30, 70]);
        let mut memory = Memory::new();
        if failing > 0 && random.chance(25) {
            memory = memory.with_offline_limits(OfflineLimits::new(15, 1 << 20));
        }
        // HOOK-4, HOOK-5: where reviews are slow, what waits too long for them, or is too much, is refused.
        oracle.may_fail = failing > 0 || (reviews && (slow > 0 || limits.retention.stanzas == 12));
        furnish(&memory, &memory, &environment);
        let depot = Depot::new(memory, Arc::clone(&environment), oracle.spy.clone(), seed);
        let moods = [Mood { slow, failing: 0 }, Mood { slow, failing }];
        depot.set(moods[0]);
        let back = Back::default();
        let server = build(&environment, &depot, &limits, &back, &oracle.spy, reviews);
        let habits = Habits {
            lazy: random.pick(&[0, 0, 50, 90]),
            curt: random.pick(&[0, 50, 100]),
            rough: true,
            inline: false,
            copies: false,
        };
        let plain = random.chance(25).then(|| random.below(4));
        let devices = [NODES[0], NODES[1], NODES[1], NODES[2]].into_iter().enumerate();
        let devices = devices.map(|(n, node)| {
            let mut device = Device::new(n, node, plain != Some(n));
            device.habits = habits;
            device
        });
        let devices = devices.collect();
        let mut world = Self::of(random, environment, server, devices, oracle, traced);
        world.edges =
            Some(Edges { depot, moods, limits, reviews, remote: 0, back, shutdown: None });
        world
    }

    pub fn act_at_the_edges(&mut self) {
        match self.random.below(100) {
            0..20 => self.deliver(),
            20..42 => self.deliver_all(),
            42..62 => self.talk_at_the_edges(),
            62..70 => self.reconnect(),
            70..80 => self.hear_from_elsewhere(),
            80..86 => self.release(),
            86..88 => self.change_moods(),
            88..90 => self.kick(),
            90 => self.cut(),
            91..93 => {
                if let Some(line) = self.any_line() {
                    self.lines[line].stalled = self.step + self.random.below(60) as u64;
                    self.note(|| format!("line {line} stalls"));
                }
            }
            93..97 => {
                let time = Duration::from_millis(self.random.below(2000) as u64);
                self.pass(time);
            }
            97 if self.random.chance(50) => self.pass(seconds(6)),
            98 if self.random.chance(50) => self.pass(seconds(20)),
            99 if self.random.chance(20) => {
                let time = self.random.pick(&[35, 65, 650]);
                self.pass(seconds(time));
            }
            _ => {}
        }
    }

    /// What is on its way reaches the other ends.
    fn deliver_all(&mut self) {
        for at in 0..self.lines.len() {
            if self.lines[at].stalled <= self.step {
                self.carry_to_server(at, usize::MAX);
                self.carry_to_client(at, usize::MAX);
            }
        }
        self.sweep();
    }

    fn talk_at_the_edges(&mut self) {
        let ready = self.devices.iter().filter(|device| device.stage == Stage::Ready);
        let ready: Vec<_> = ready.map(|device| device.number).collect();
        if ready.is_empty() {
            return;
        }
        let number = self.random.pick(&ready);
        let session = self.session_of(number);
        let Self { random, oracle, devices, .. } = self;
        let device = &mut devices[number];
        match random.below(100) {
            0..50 => {
                let node = if random.chance(40) { NODES[0] } else { random.pick(&NODES) };
                let normal = random.chance(30);
                let full = random.chance(10);
                let to = format!("{node}@{DOMAIN}{}", if full { "/one" } else { "" });
                for _ in 0..1 + random.below(5) {
                    device.message(&to, normal, 1, oracle, session);
                }
            }
            50..75 => device.available(random.pick(&[-1, 0, 0, 0, 1, 5])),
            75..80 => device.unavailable(),
            80..83 => {
                device.query("<ping xmlns='urn:xmpp:ping'/>");
            }
            83..86 => device.ask(),
            86..90 => device.acknowledge(),
            90..97 => device.close(random),
            97..99 => device.err(true),
            _ => device.err(false),
        }
        self.flush(number);
    }

    /// Messages of another domain, whose server waits for nobody: they come now, or in the middle of
    /// what happens next.
    fn hear_from_elsewhere(&mut self) {
        let node = if self.random.chance(50) { NODES[0] } else { self.random.pick(&NODES) };
        let to = format!("{node}@{DOMAIN}");
        let now = self.random.chance(50);
        for _ in 0..1 + self.random.below(6) {
            let Some(edges) = &mut self.edges else { return };
            edges.remote += 1;
            let (number, id) = (edges.remote, format!("r{}", edges.remote));
            self.oracle.add(&id, REMOTE, number, &to, false, None);
            self.oracle.order.sent(&id, Stream(REMOTE, 0), number, &to);
            self.note(|| format!("{id} from elsewhere to {to}"));
            let message = Stanza::message().from("friend@elsewhere.example/x").to(&to);
            let body = "<body xmlns='jabber:client'/>".parse().unwrap();
            let message = message.id(&id).type_("chat").child(&body).build();
            let seed = self.random.below(1 << 16) as u64;
            self.oracle.spy.arrive(message, || Random::new(seed));
            if now {
                self.oracle.spy.send_all();
            }
            if now && self.random.chance(30) {
                self.settle();
            }
        }
        self.settle();
    }

    fn release(&mut self) {
        let Some(edges) = &self.edges else { return };
        let count = edges.depot.waiting();
        let many = if self.random.chance(50) { 1 } else { 20 };
        for _ in 0..many.min(count * many) {
            let Some(edges) = &self.edges else { return };
            let which = self.random.below(count);
            edges.depot.release(which);
            self.settle();
        }
    }

    fn change_moods(&mut self) {
        let Some(edges) = &self.edges else { return };
        let mood = self.random.pick(&edges.moods);
        edges.depot.set(mood);
        self.note(|| format!("the stores: {mood:?}"));
    }

    fn kick(&mut self) {
        let which = self.random.below(1 << 16);
        let Some(session) = self.oracle.any_session(which) else { return };
        let condition =
            self.random.pick(&[StreamCondition::PolicyViolation, StreamCondition::Reset]);
        self.note(|| format!("{} is kicked", session.jid()));
        self.server.kick_with(&session, &condition.into());
        self.settle();
    }

    /// The server shuts down with everything going on, and is started again.
    pub fn restart(&mut self) {
        let server = self.server.clone();
        let Some(edges) = &mut self.edges else { return };
        edges.shutdown = Some(Box::pin(async move { server.shutdown(Shutdown::new()).await }));
        self.note(|| "shutdown".to_owned());
        self.settle();
        for turn in 0.. {
            let Some(edges) = &self.edges else { return };
            if edges.shutdown.is_none() {
                break;
            }
            self.step += 1;
            if turn == 60 {
                self.heal();
            }
            match self.random.below(10) {
                0..4 => self.deliver(),
                4..6 => self.talk_at_the_edges(),
                6..8 => self.hear_from_elsewhere(),
                8 => self.release(),
                _ => self.pass(Duration::from_millis(50)),
            }
            if turn > 1000 {
                return self.oracle.blame("the shutdown has no end".to_owned());
            }
        }
        self.note(|| "the server has gone".to_owned());
        for line in &mut self.lines {
            line.link.write();
            line.driver = None;
            line.up.clear();
        }
        self.settle();
        self.oracle.spy.forget();
        let Some(edges) = &self.edges else { return };
        let Edges { depot, limits, reviews, back, .. } = edges;
        let spy = &self.oracle.spy;
        self.server = build(&self.environment, depot, limits, back, spy, *reviews);
        self.sweep();
    }

    /// All is well from now on.
    pub fn heal(&mut self) {
        let Some(edges) = &self.edges else { return };
        edges.depot.set(Mood::default());
        while edges.depot.waiting() > 0 {
            edges.depot.release(0);
        }
        self.oracle.spy.send_all();
        for device in &mut self.devices {
            device.habits.lazy = 0;
            device.habits.curt = 0;
        }
        self.settle();
        // Nobody is asked again who owes an answer.
        for device in 0..self.devices.len() {
            if self.devices[device].stage == Stage::Ready {
                self.devices[device].acknowledge();
                self.flush(device);
            }
        }
    }

    /// Everybody comes anew for what is stored.
    pub fn fetch_all(&mut self) {
        if self.edges.is_none() {
            return;
        }
        for device in 0..self.devices.len() {
            self.devices[device].unavailable();
            self.flush(device);
        }
        self.drain();
    }

    /// What an expired session leaves may be more than its account's other one can hold.
    pub fn come_back(&mut self) {
        let away = |device: &Device| device.stage == Stage::Away;
        if self.edges.is_none() || !self.devices.iter().any(away) {
            return;
        }
        for device in 0..self.devices.len() {
            if away(&self.devices[device]) {
                self.connect(device);
            }
        }
        self.drain();
        self.lines.iter().for_each(|line| line.link.widen());
        for device in 0..self.devices.len() {
            if self.devices[device].priority.is_none() {
                self.devices[device].available(0);
                self.flush(device);
            }
        }
        self.drain();
    }

    /// What the stores and the other domain have to say.
    pub fn hear_the_stores(&mut self) {
        let Some(edges) = &self.edges else { return };
        let (done, wrong) = (edges.depot.take_done(), edges.depot.take_wrong());
        let back = edges.back.take();
        let ended = std::mem::take(&mut self.oracle.ended);
        for what in done.into_iter().chain(ended) {
            self.note(|| what);
        }
        wrong.into_iter().for_each(|what| self.oracle.blame(what));
        back.iter().for_each(|id| self.oracle.bounced(id));
    }

    fn session_of(&self, device: usize) -> Option<usize> {
        self.line_of(device).and_then(|at| self.lines[at].session)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It knows the registry, which knows it.
        self.oracle.spy.forget();
    }
}
