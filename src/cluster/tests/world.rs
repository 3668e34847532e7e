//! The world: what happens, in which order, and what must hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Break;
use super::faults::Fault;
use super::oracle::Messages;
use super::presence::{self, Pictures, Present};
use super::random::Random;
use crate::cluster::Settings;
use crate::cluster::engine::{Answer, Ask};
use crate::cluster::frame::Recipient;
use crate::cluster::member::AskId;
use crate::cluster::memory::Ledger;
use crate::cluster::node::{Effect, Node, Stored, Work};
use crate::cluster::record::Record;
use crate::cluster::slots::{Change, Job};
use crate::cluster::view::{Incarnation, Slot, View};
use crate::store::fence::{Deposed, Fence, FenceToken, Fences};

/// Microseconds of the world.
pub(super) type Time = u64;

pub(super) const MS: Time = 1000;
/// By how much a clock may be wrong, each way, in parts of a million.
const DRIFT: usize = 20_000;
const FIRST_FAULT: Time = 2_600 * MS;
/// From here on nothing fails.
pub(super) const PEACE: Time = 12_000 * MS;
const END: Time = 19_000 * MS;

pub(super) enum Event {
    Start(usize),
    Tick(Incarnation),
    Hint(Incarnation),
    Ask(Incarnation, AskId, Ask, u32),
    Answer(Incarnation, AskId, Answer, u32),
    Term(Incarnation, Arc<str>),
    Counted(Incarnation, Arc<str>, u64),
    Store(Incarnation, Work, Op),
    Stored(Incarnation, Work, Op, Stored),
    Post(Incarnation, Arc<[u8]>, u32),
    /// An account does what is next.
    Do(Incarnation, Arc<str>),
    /// The accounts of a node do something.
    Beat(Incarnation),
    Fault(Fault),
    Resume(Incarnation),
    Heal(Incarnation),
    Peace,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Claim,
    Write,
}

/// Each with what is in it.
pub(super) type Jobs = VecDeque<(Arc<[u8]>, Work)>;

pub(super) struct Host {
    pub(super) node: Node,
    pub(super) name: usize,
    offset: Time,
    drift: i64,
    pub(super) paused: bool,
    pub(super) pause_next: Option<Time>,
    pub(super) cut: bool,
    backlog: VecDeque<Event>,
    /// A view says that it is dead, whatever it thinks.
    pub(super) deposed: bool,
    /// What it is about to write.
    writes: VecDeque<Work>,
    /// What each account has to do.
    pub(super) jobs: BTreeMap<Arc<str>, Jobs>,
    /// What has come for slots that are not open yet.
    early: BTreeMap<Slot, Vec<Effect>>,
    /// Posted last: posted once more after a reconnect.
    pub(super) recent: VecDeque<(Incarnation, Arc<[u8]>)>,
    /// What the accounts of each slot have done here.
    done: BTreeMap<Slot, u64>,
    pub(super) present: Present,
    view: View,
}

/// What is true of a slot: in which beginning, and what its accounts have done in it.
#[derive(Clone, Copy, Default)]
struct Truth {
    lost: View,
    done: u64,
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) failure: Option<(Time, String)>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) random: Random,
    events: BTreeMap<(Time, u64), Event>,
    last_event: u64,
    pub(super) settings: Settings,
    pub(super) slots: u16,
    pub(super) names: usize,
    pub(super) engine: Ledger,
    engine_drift: i64,
    pub(super) instances: u32,
    /// The last record that there was, forgotten or not.
    last: Option<Arc<Record>>,
    /// The record before the one that the engine has.
    pub(super) snapshot: Option<Arc<Record>>,
    pub(super) engine_until: Time,
    pub(super) slow_until: Time,
    /// Raised with each restart of the engine: what was on its way is gone.
    pub(super) epoch: u32,
    store: Fences,
    pub(super) store_until: Time,
    pub(super) hosts: BTreeMap<Incarnation, Host>,
    last_incarnation: u64,
    /// The last node that said it serves a slot.
    serving: BTreeMap<Slot, Incarnation>,
    truth: BTreeMap<Slot, Truth>,
    pub(super) accounts: Vec<Recipient>,
    pub(super) messages: Messages,
    pub(super) pictures: Pictures,
    /// The way from one node to another keeps its order.
    pub(super) fifo: BTreeMap<(Incarnation, Incarnation), Time>,
    /// So many posts of a hundred are lost.
    pub(super) loss: usize,
    highest: View,
    is_traced: bool,
}

fn skewed(real: Time, drift: i64) -> Time {
    (real as i64 + real as i64 * drift / 1_000_000) as Time
}

impl Host {
    pub(super) fn clock(&self, real: Time) -> Duration {
        Duration::from_micros(self.offset + skewed(real, self.drift))
    }

    /// When this clock shows that, in the world's time.
    fn real(&self, clock: Duration) -> Time {
        let since = (clock.as_micros() as Time).saturating_sub(self.offset);
        (since as i128 * 1_000_000 / (1_000_000 + i128::from(self.drift))) as Time + 1
    }

    fn serves(&self, slot: Slot, real: Time) -> bool {
        let alive = self.node.deadline().is_some_and(|until| self.clock(real) < until);
        alive && self.node.serves(slot)
    }
}

impl World {
    pub(super) fn new(seed: u64, broken: Option<Break>, is_traced: bool) -> Self {
        let mut random = Random::new(seed);
        let settings = Settings {
            patience: Duration::from_millis(random.pick(&[60, 200, 700])),
            moves: 2 + random.below(4),
            answer: if seed.is_multiple_of(2) { Duration::ZERO } else { Duration::from_millis(10) },
            broken,
            ..Settings::of_tests()
        };
        let mut world = Self {
            now: 0,
            failure: None,
            counts: BTreeMap::new(),
            events: BTreeMap::new(),
            last_event: 0,
            settings,
            slots: random.pick(&[4, 8, 16]),
            names: 2 + random.below(4),
            engine: Ledger::new("1".into()),
            engine_drift: drift(&mut random),
            instances: 1,
            last: None,
            snapshot: None,
            engine_until: 0,
            slow_until: 0,
            epoch: 0,
            store: Fences::default(),
            store_until: 0,
            hosts: BTreeMap::new(),
            last_incarnation: 0,
            serving: BTreeMap::new(),
            truth: BTreeMap::new(),
            accounts: Vec::new(),
            messages: Messages::default(),
            pictures: Pictures::default(),
            fifo: BTreeMap::new(),
            loss: random.pick(&[0, 0, 1, 3]),
            highest: View::default(),
            is_traced,
            random,
        };
        for number in 0..4 + world.random.below(6) {
            let account: Arc<str> = format!("a{number}@example.com").into();
            world.accounts.push(Recipient { slot: Slot::among(&account, world.slots), account });
        }
        world.at(PEACE, Event::Peace);
        for name in 0..world.names {
            let at = world.range(0, 300) * MS;
            world.at(at, Event::Start(name));
        }
        for _ in 0..world.random.pick(&[0, 1, 2, 4, 7, 12]) {
            let at = world.range(FIRST_FAULT / MS, PEACE / MS) * MS;
            world.trouble(at);
        }
        world
    }

    pub(super) fn range(&mut self, least: u64, most: u64) -> u64 {
        least + self.random.below((most - least + 1) as usize) as u64
    }

    pub(super) fn at(&mut self, at: Time, event: Event) {
        self.last_event += 1;
        self.events.insert((at.max(self.now), self.last_event), event);
    }

    pub(super) fn log(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>10.3} {}", self.now as f64 / MS as f64, what());
        }
    }

    pub(super) fn fail(&mut self, what: String) {
        self.failure.get_or_insert((self.now, what));
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn is(&self, broken: Break) -> bool {
        self.settings.broken == Some(broken)
    }

    pub(super) fn run(mut self) -> Self {
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > END || self.failure.is_some() {
                break;
            }
            self.now = at;
            self.step(event);
        }
        if self.failure.is_none() {
            self.judge();
        }
        self
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Fault(fault) => self.fault(fault),
            Event::Start(name) => {
                if !self.hosts.values().any(|host| host.name == name) {
                    self.start(name);
                }
            }
            Event::Resume(inc) => {
                let Some(host) = self.hosts.get_mut(&inc).filter(|host| host.paused) else {
                    return;
                };
                host.paused = false;
                let backlog = std::mem::take(&mut host.backlog);
                self.log(|| format!("{inc:?} goes on"));
                self.carry_out(inc);
                backlog.into_iter().for_each(|event| self.step(event));
            }
            Event::Heal(inc) => {
                if let Some(host) = self.hosts.get_mut(&inc) {
                    host.cut = false;
                    self.post_again(inc);
                }
            }
            // Somebody has to stay.
            Event::Peace if self.hosts.values().all(|host| host.node.is_leaving()) => {
                self.hosts.values_mut().for_each(|host| host.node.stay());
            }
            Event::Peace => {}
            Event::Post(inc, _, epoch) if epoch != self.epoch || self.is_cut(inc) => {}
            Event::Ask(inc, id, ask, epoch) => self.ask(inc, id, ask, epoch),
            Event::Term(inc, instance) => {
                let term = self.store.next_term();
                let at = self.now + self.store_delay();
                self.at(at, Event::Counted(inc, instance, term));
            }
            Event::Store(inc, work, op) => self.store(inc, work, op),
            Event::Answer(inc, _, _, epoch) if epoch != self.epoch || self.is_cut(inc) => {}
            Event::Hint(inc) if self.is_cut(inc) => {}
            Event::Answer(inc, ..)
            | Event::Hint(inc)
            | Event::Tick(inc)
            | Event::Beat(inc)
            | Event::Counted(inc, ..)
            | Event::Stored(inc, ..)
            | Event::Do(inc, _)
            | Event::Post(inc, ..) => self.for_node(inc, event),
        }
    }

    fn is_cut(&self, inc: Incarnation) -> bool {
        self.hosts.get(&inc).is_none_or(|host| host.cut)
    }

    fn for_node(&mut self, inc: Incarnation, event: Event) {
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        if host.paused {
            return host.backlog.push_back(event);
        }
        let (clock, node) = (host.clock(self.now), &mut host.node);
        let mut is_answer = false;
        match event {
            Event::Answer(_, id, answer, _) => {
                node.handle_answer(clock, id, answer);
                is_answer = true;
            }
            Event::Hint(_) => node.handle_hint(clock),
            Event::Counted(_, instance, term) => node.handle_term(clock, &instance, term),
            Event::Stored(_, work, op, stored) => {
                node.handle_stored(clock, work.job, stored);
                if op == Op::Write {
                    node.finish(clock, work);
                }
            }
            Event::Post(_, post, _) => node.handle_post(clock, &post),
            Event::Do(_, account) => self.do_next(inc, clock, &account),
            Event::Tick(_) => {
                node.handle_timeout(clock);
                let next = host.real(host.node.next_timeout());
                self.at(next.max(self.now + MS), Event::Tick(inc));
                let (most, hard) = (self.hosts[&inc].node.most_bytes(), self.settings.hard);
                if most > 4 * hard {
                    self.fail(format!("{inc:?} keeps {most} bytes for a slot"));
                }
            }
            Event::Beat(_) => {
                self.beat(inc, clock);
                let next = self.now + self.range(20, 90) * MS;
                self.at(next, Event::Beat(inc));
            }
            _ => {}
        }
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        host.node.open(clock, |_| true);
        host.node.settle(clock);
        let view = host.node.record().view;
        if view < host.view {
            let what = format!("{inc:?} goes back from {:?} to {view:?}", host.view);
            return self.fail(what);
        }
        host.view = view;
        for frame in host.node.void.drain(..) {
            self.messages.at_risk(&frame, true, |_| true);
        }
        // It has checked the clock, and is stopped before it does what it has decided.
        if let Some(pause) = host.pause_next.take() {
            host.paused = true;
            return self.at(self.now + pause, Event::Resume(inc));
        }
        self.carry_out(inc);
        if is_answer {
            (0..self.slots).for_each(|slot| self.acts_alone(inc, Slot(slot)));
        }
    }

    fn carry_out(&mut self, inc: Incarnation) {
        while let Some(work) = self.hosts.get_mut(&inc).and_then(|host| host.writes.pop_front()) {
            self.call_store(inc, work, Op::Write);
        }
        while let Some(effect) = self.next_effect(inc) {
            self.effect(inc, effect);
        }
    }

    fn effect(&mut self, inc: Incarnation, effect: Effect) {
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        if let Some(work) = effect.work()
            && !host.node.does(work.job)
        {
            if host.node.has(work.job) {
                host.early.entry(work.slot()).or_default().push(effect);
            }
            return;
        }
        match effect {
            Effect::Ask(id, ask) => {
                if !self.is_cut(inc) {
                    let delay = if self.now < self.slow_until {
                        self.range(1, 500) * MS
                    } else {
                        self.delay()
                    };
                    self.at(self.now + delay, Event::Ask(inc, id, ask, self.epoch));
                }
            }
            Effect::CountTerm(instance) => {
                let at = self.now + self.store_delay();
                self.at(at, Event::Term(inc, instance));
            }
            Effect::Claim { slot, token } => {
                self.begins_empty(inc, slot);
                let work = Work { job: Job { slot, token }, origin: None };
                self.call_store(inc, work, Op::Claim);
            }
            Effect::Slot(slot, change) => self.changed(inc, slot, change),
            Effect::Export(slot) => {
                let Some(host) = self.hosts.get_mut(&inc) else { return };
                let done = host.done.get(&slot).copied().unwrap_or_default().to_be_bytes();
                let present = self.export_present(inc, slot);
                let Some(host) = self.hosts.get_mut(&inc) else { return };
                let content = [&done[..], &present].concat();
                host.node.export(host.clock(self.now), slot, content.into());
            }
            Effect::Told { .. } | Effect::Misfit(_) | Effect::Freezing(_) => {}
            Effect::Fenced => {
                self.log(|| format!("{inc:?} is fenced"));
                self.count("fenced");
                self.mourn(inc);
                self.gone(inc);
            }
            Effect::Left => {
                self.log(|| format!("{inc:?} has left"));
                self.count("left");
                self.engine.release(inc);
                // Where nobody stays there is nobody to take what it has.
                let has = |host: &Host| host.node.record().concerns(inc);
                if self.hosts.get(&inc).is_some_and(has) {
                    self.mourn(inc);
                }
                self.gone(inc);
            }
            Effect::Post(to, post) => {
                self.count("posts");
                *self.counts.entry("bytes of posts").or_default() += post.len() as u64;
                self.post(inc, to, post);
            }
            // No client is in this world.
            Effect::Up { .. }
            | Effect::Down { .. }
            | Effect::Broken(_)
            | Effect::Emptied(_)
            | Effect::Gone(_) => {}
            Effect::Hear { account, word, bytes, work } => {
                self.hear(inc, &account, &word, &bytes);
                self.finish(inc, work);
            }
            Effect::Lost { slots, only } => self.sweep(inc, &slots, only),
            Effect::Handle { account, bytes, work } if presence::is_probe(&bytes) => {
                self.answer_probe(inc, &account, &bytes);
                self.finish(inc, work);
            }
            Effect::Handle { account, bytes, work } => {
                let Some(host) = self.hosts.get_mut(&inc) else { return };
                let jobs = host.jobs.entry(Arc::clone(&account)).or_default();
                jobs.push_back((bytes, work));
                if jobs.len() == 1 {
                    let at = self.now + self.work_delay();
                    self.at(at, Event::Do(inc, account));
                }
            }
        }
    }

    fn next_effect(&mut self, inc: Incarnation) -> Option<Effect> {
        let host = self.hosts.get_mut(&inc)?;
        host.node.poll().or_else(|| {
            host.node.open(host.clock(self.now), |_| true);
            host.node.settle(host.clock(self.now));
            host.node.poll()
        })
    }

    fn finish(&mut self, inc: Incarnation, work: Work) {
        if let Some(host) = self.hosts.get_mut(&inc) {
            host.node.finish(host.clock(self.now), work);
        }
    }

    fn call_store(&mut self, inc: Incarnation, work: Work, op: Op) {
        let at = self.now + self.store_delay();
        self.at(at, Event::Store(inc, work, op));
    }

    /// A node says that a slot has nothing in memory. That has to be said by its place.
    fn begins_empty(&mut self, inc: Incarnation, slot: Slot) {
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        let lost = host.node.record().place(slot).lost;
        host.done.insert(slot, 0);
        let truth = self.truth.entry(slot).or_default();
        if truth.lost >= lost {
            let what = format!(
                "{slot:?} begins empty at {inc:?} in {lost:?}, and had begun in {:?}",
                truth.lost
            );
            return self.fail(what);
        }
        *truth = Truth { lost, done: 0 };
    }

    fn changed(&mut self, inc: Incarnation, slot: Slot, change: Change) {
        self.log(|| format!("{inc:?} {slot:?} {change:?}"));
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        match change {
            Change::Opened | Change::Thawed => self.thaw_present(inc, slot),
            Change::Arrived(export) => {
                let (done, present) = export.content.split_first_chunk().unwrap();
                let done = u64::from_be_bytes(*done);
                host.done.insert(slot, done);
                self.import_present(inc, present);
                self.count("moved");
                let truth = self.truth.get(&slot).copied().unwrap_or_default();
                if (truth.lost, truth.done) != (export.lost, done) {
                    let what = format!("{slot:?} arrives with {done} of {}", truth.done);
                    self.fail(what);
                }
                return;
            }
            Change::GivenUp { lost } => {
                host.done.remove(&slot);
                host.early.remove(&slot);
                if lost {
                    // Some of it may be younger than the view that says so.
                    host.present.lose(slot, self.slots, &mut self.pictures);
                }
                host.present.drop_slot(slot, self.slots);
                if lost {
                    self.mourn_slot(inc, slot);
                }
                return;
            }
            Change::Frozen => {
                host.present.freeze(slot);
                if let Some(early) = host.early.get_mut(&slot) {
                    let node = &mut host.node;
                    early.retain(|effect| effect.work().is_none_or(|work| !node.refuse(work)));
                }
                return;
            }
            Change::Claim { .. } => return,
        }
        self.serving.insert(slot, inc);
        self.acts_alone(inc, slot);
        let early = self.hosts.get_mut(&inc).and_then(|host| host.early.remove(&slot));
        early.into_iter().flatten().for_each(|effect| self.effect(inc, effect));
    }

    /// The accounts of each slot do something: in memory, and in the store.
    fn beat(&mut self, inc: Incarnation, clock: Duration) {
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        if !host.node.may_act(clock) {
            return;
        }
        let served: Vec<_> =
            (0..self.slots).map(Slot).filter(|slot| host.node.serves(*slot)).collect();
        for slot in served {
            let Some(host) = self.hosts.get_mut(&inc) else { return };
            let Some(work) = host.node.begin(slot) else { continue };
            host.writes.push_back(work);
            let done = host.done.entry(slot).or_default();
            *done += 1;
            let done = *done;
            if self.serving.get(&slot) == Some(&inc)
                && let Some(truth) = self.truth.get_mut(&slot)
            {
                truth.done = done;
            }
            self.speak(inc, clock, slot);
            self.appear(inc, clock, slot);
        }
    }

    /// At most one node may act for a slot, by their own clocks, however long they are stopped.
    fn acts_alone(&mut self, inc: Incarnation, slot: Slot) {
        let serves =
            |inc: &Incarnation| self.hosts.get(inc).is_some_and(|host| host.serves(slot, self.now));
        if !serves(&inc) {
            return;
        }
        if let Some(other) = self.hosts.keys().find(|other| **other != inc && serves(other)) {
            let what = format!("{inc:?} and {other:?} both act for {slot:?}");
            self.fail(what);
        }
    }

    pub(super) fn delay(&mut self) -> Time {
        match self.random.chance(3) {
            true => self.range(5, 350) * MS,
            false => self.range(200, 3_000),
        }
    }

    fn store_delay(&mut self) -> Time {
        let is_slow = self.now < self.store_until && self.random.chance(50);
        if is_slow { self.range(200, 3_500) * MS } else { self.range(1, 8) * MS }
    }

    fn store(&mut self, inc: Incarnation, work: Work, op: Op) {
        let Job { slot, token } = work.job;
        let fence =
            Fence { slot: slot.0, token: FenceToken { term: token.term, number: token.number } };
        let is_told =
            !self.is(Break::NoStoreFence) && (op == Op::Write || !self.is(Break::OnlyWritesFence));
        let passed = if is_told { self.store.pass(fence) } else { Ok(()) };
        let stored = match passed {
            Ok(()) => Stored::Done,
            Err(Deposed { by, .. }) => {
                self.count("refused by the store");
                Stored::Refused { by: View { term: by.term, number: by.number } }
            }
        };
        let serving = self.serving.get(&slot);
        if stored == Stored::Done && op == Op::Write && serving != Some(&inc) {
            let what = format!("the store takes a write of {inc:?} for {slot:?} of {serving:?}");
            self.fail(what);
        }
        let at = self.now + self.range(1, 3) * MS;
        self.at(at, Event::Stored(inc, work, op, stored));
    }

    fn ask(&mut self, inc: Incarnation, id: AskId, ask: Ask, epoch: u32) {
        if epoch != self.epoch {
            return;
        }
        if self.now < self.engine_until {
            return self.at(self.engine_until, Event::Ask(inc, id, ask, epoch));
        }
        let now = Duration::from_micros(skewed(self.now, self.engine_drift));
        let before = self.engine.record().cloned();
        self.break_leases(&ask);
        let answer = self.engine.ask(now, ask);
        if let Some(record) =
            answer.record.as_ref().filter(|record| Some(*record) != before.as_ref())
        {
            self.log(|| format!("the engine has {record:?}"));
            self.count("views");
            if record.view <= self.highest {
                let what = format!("{:?} comes after {:?}", record.view, self.highest);
                self.fail(what);
            }
            self.highest = record.view;
            let has: Vec<_> = record.members.iter().map(|member| member.incarnation).collect();
            let last = self.last.replace(Arc::clone(record));
            let record = Arc::clone(record);
            for (slot, place) in record.slots() {
                if last.as_ref().is_none_or(|last| last.place(slot).lost < place.lost) {
                    self.lose_present(slot);
                }
            }
            self.snapshot = before;
            for inc in self.hosts.keys().copied().collect::<Vec<_>>() {
                let at = self.now + self.delay();
                self.at(at, Event::Hint(inc));
                let was = last.as_ref().is_some_and(|last| last.has(inc));
                if was && !has.contains(&inc) {
                    self.mourn(inc);
                }
            }
        }
        let at = self.now + self.delay();
        self.at(at, Event::Answer(inc, id, answer, self.epoch));
    }

    fn break_leases(&mut self, ask: &Ask) {
        let Ask::Renew { lease, .. } = ask else { return };
        let leases = self.engine.leases();
        if self.settings.broken == Some(Break::LeaseByName) {
            leases.retain(|_, (_, other)| {
                other.name != lease.name || other.incarnation >= lease.incarnation
            });
        }
    }

    pub(super) fn start(&mut self, name: usize) {
        self.last_incarnation += 1;
        let inc = Incarnation(self.last_incarnation);
        let host = Host {
            node: Node::new(inc, format!("node{name}").into(), self.slots, self.settings.clone()),
            name,
            offset: self.range(0, 1_000_000) * MS,
            drift: drift(&mut self.random),
            paused: false,
            pause_next: None,
            cut: false,
            deposed: false,
            jobs: BTreeMap::new(),
            early: BTreeMap::new(),
            recent: VecDeque::new(),
            backlog: VecDeque::new(),
            writes: VecDeque::new(),
            done: BTreeMap::new(),
            present: Present::default(),
            view: View::default(),
        };
        self.log(|| format!("{inc:?} starts as {name}"));
        self.hosts.insert(inc, host);
        self.at(self.now + 1, Event::Tick(inc));
        self.at(self.now + 1, Event::Beat(inc));
    }

    pub(super) fn gone(&mut self, inc: Incarnation) {
        let Some(host) = self.hosts.remove(&inc) else { return };
        let again = if self.now >= PEACE { 50 } else { self.range(20, 3_000) } * MS;
        self.at((self.now + again).min(PEACE.max(self.now + 50 * MS)), Event::Start(host.name));
    }

    /// In the end all is served, and rests.
    fn judge(&mut self) {
        let record = self.engine.record().cloned();
        let Some(record) = record.filter(|record| *record.instance == *self.instances.to_string())
        else {
            return self.fail("there is no view".into());
        };
        for (slot, place) in record.slots() {
            let host = place.owner.and_then(|owner| self.hosts.get(&owner));
            if place.moving.is_some() || !host.is_some_and(|host| host.serves(slot, self.now)) {
                return self.fail(format!("{slot:?} is not served: {place:?}"));
            }
        }
        let unrest = |(inc, host): (&Incarnation, &Host)| {
            Some(format!("{inc:?} has {}", host.node.unrest()?))
        };
        let wrong = self.hosts.iter().find_map(unrest).or_else(|| self.messages.unaccounted());
        let wrong = wrong.or_else(|| self.pictures.wrong(&self.accounts));
        if let Some(what) = wrong {
            self.fail(what);
        }
        self.messages.tally(&mut self.counts);
    }
}

fn drift(random: &mut Random) -> i64 {
    random.below(2 * DRIFT) as i64 - DRIFT as i64
}
