//! Nodes on real engines, by real clocks: each a thread, with nothing but slots and the store's fence.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::servers::eventually;
use crate::cluster::Settings;
use crate::cluster::engine::{Engine, EngineFuture, Posts};
use crate::cluster::frame::{Receipt, Recipient};
use crate::cluster::node::{Effect, Node, Stored};
use crate::cluster::slots::Job;
use crate::cluster::view::{Incarnation, Slot, View};
use crate::store::fence::{Fence, FenceToken, Fences};

pub(super) const TTL: Duration = Duration::from_millis(2500);
const SLOTS: u16 = 12;
const TICK: Duration = Duration::from_millis(5);

fn settings() -> Settings {
    Settings {
        ttl: TTL,
        margin: Duration::from_millis(100),
        renew: Duration::from_millis(300),
        ..Settings::of_tests()
    }
}

/// What all nodes of a test share: the store, and what is seen of them.
pub(super) struct World {
    start: Instant,
    fences: Mutex<Fences>,
    seen: Mutex<Seen>,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    /// Who serves a slot, and until when at most.
    serving: BTreeMap<u16, (u64, Duration)>,
    views: BTreeMap<u64, View>,
    handled: BTreeMap<u64, u64>,
    fenced: Vec<u64>,
    /// Two served a slot at the same time.
    doubled: Vec<String>,
}

pub(super) struct Running {
    name: u64,
    is_killed: Arc<AtomicBool>,
    is_leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            fences: Mutex::default(),
            seen: Mutex::default(),
            over: AtomicBool::new(false),
        })
    }

    /// A node that comes back as often as it is fenced.
    pub(super) fn run(
        self: &Arc<Self>,
        name: u64,
        engine: Arc<dyn Engine>,
        posts: Arc<dyn Posts>,
    ) -> Running {
        let (is_killed, is_leaving) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (world, killed, leaving) =
            (Arc::clone(self), Arc::clone(&is_killed), Arc::clone(&is_leaving));
        let thread = thread::spawn(move || {
            for run in 1.. {
                let me = Incarnation(name << 32 | run);
                let life = Life::new(&world, name, me, &engine, &posts);
                if !life.live(&killed, &leaving) {
                    return;
                }
            }
        });
        Running { name, is_killed, is_leaving, thread: Some(thread) }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Until all slots are served, each of these nodes has some, and they hear each other.
    pub(super) fn settles(&self, nodes: &[&Running]) {
        let before = self.seen.lock().handled.clone();
        let begin = Instant::now();
        eventually("all slots are served by all", || {
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", self.seen.lock());
            let seen = self.seen.lock();
            let now = self.now();
            let serving: Vec<_> =
                seen.serving.values().filter(|(_, until)| *until > now).map(|one| one.0).collect();
            let hears = |node: &&Running| {
                let before = before.get(&node.name).copied().unwrap_or_default();
                serving.contains(&node.name)
                    && seen.handled.get(&node.name).is_some_and(|count| *count > before + 10)
            };
            (serving.len() == usize::from(SLOTS) && nodes.iter().all(hears)).then_some(())
        });
    }

    pub(super) fn view(&self, of: &Running) -> View {
        self.seen.lock().views.get(&of.name).copied().unwrap_or_default()
    }

    pub(super) fn fenced(&self) -> Vec<u64> {
        self.seen.lock().fenced.clone()
    }

    pub(super) fn ends(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// At no time have two served the same slot.
    pub(super) fn was_single(&self) {
        let seen = self.seen.lock();
        assert!(seen.doubled.is_empty(), "{:?}", seen.doubled);
    }
}

impl Running {
    /// Without a word.
    pub(super) fn kill(&mut self) {
        self.is_killed.store(true, Ordering::Relaxed);
        self.join();
    }

    pub(super) fn leave(&mut self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_killed.store(true, Ordering::Relaxed);
        if !thread::panicking() {
            self.join();
        }
    }
}

/// One incarnation.
struct Life<'a> {
    world: &'a World,
    name: u64,
    me: Incarnation,
    node: Node,
    engine: &'a Arc<dyn Engine>,
    posts: &'a Arc<dyn Posts>,
    asked: Vec<(u64, EngineFuture<crate::cluster::engine::Answer>)>,
    inbox: Arc<Mutex<Vec<Arc<[u8]>>>>,
    hinted: Arc<AtomicBool>,
}

impl<'a> Life<'a> {
    fn new(
        world: &'a World,
        name: u64,
        me: Incarnation,
        engine: &'a Arc<dyn Engine>,
        posts: &'a Arc<dyn Posts>,
    ) -> Self {
        let node = Node::new(me, format!("node{name}").into(), SLOTS, settings());
        let (inbox, hinted) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (into, hint) = (Arc::clone(&inbox), Arc::clone(&hinted));
        posts.listen(me, Arc::new(move |post| into.lock().push(post)));
        engine.watch(Arc::new(move || hint.store(true, Ordering::Relaxed)));
        Self { world, name, me, node, engine, posts, asked: Vec::new(), inbox, hinted }
    }

    /// Whether it is to come back.
    fn live(mut self, killed: &AtomicBool, leaving: &AtomicBool) -> bool {
        loop {
            if killed.load(Ordering::Relaxed) || self.world.over.load(Ordering::Relaxed) {
                return false;
            }
            if leaving.load(Ordering::Relaxed) {
                self.node.leave(false);
            }
            let now = self.world.now();
            self.hear(now);
            if now >= self.node.next_timeout() {
                self.node.handle_timeout(now);
            }
            self.work();
            self.node.open(now, |_| true);
            self.node.settle(now);
            while let Some(effect) = self.node.poll() {
                match effect {
                    Effect::Fenced => {
                        self.rest();
                        self.world.seen.lock().fenced.push(self.name);
                        return true;
                    }
                    Effect::Left => {
                        self.rest();
                        drop(self.engine.release(self.me));
                        return false;
                    }
                    effect => self.carry_out(effect),
                }
            }
            sleep(TICK);
        }
    }

    fn hear(&mut self, now: Duration) {
        let mut cx = Context::from_waker(Waker::noop());
        let asked = std::mem::take(&mut self.asked);
        for (id, mut future) in asked {
            match Pin::new(&mut future).poll(&mut cx) {
                Poll::Pending => self.asked.push((id, future)),
                Poll::Ready(Ok(answer)) => self.node.handle_answer(now, id, answer),
                Poll::Ready(Err(_)) => {}
            }
        }
        if self.hinted.swap(false, Ordering::Relaxed) {
            self.node.handle_hint(now);
        }
        let posts = std::mem::take(&mut *self.inbox.lock());
        posts.iter().for_each(|post| self.node.handle_post(now, post));
    }

    fn carry_out(&mut self, effect: Effect) {
        use crate::cluster::engine::Ask;
        let now = self.world.now();
        match effect {
            Effect::Ask(id, ask) => {
                let future = match ask {
                    Ask::Renew { lease, first } => self.engine.renew(lease, first),
                    Ask::Replace { over, record } => self.engine.replace(over, record),
                    Ask::Read => self.engine.read(),
                };
                self.asked.push((id, future));
            }
            Effect::CountTerm(instance) => {
                let term = self.world.fences.lock().next_term();
                self.node.handle_term(now, &instance, term);
            }
            Effect::Claim { slot, token } => self.store(now, Job { slot, token }),
            Effect::Export(slot) => self.node.export(now, slot, Arc::new([])),
            Effect::Handle { work, .. } => {
                *self.world.seen.lock().handled.entry(self.name).or_default() += 1;
                self.node.finish(now, work);
            }
            Effect::Post(to, post) => self.posts.post(to, post),
            _ => {}
        }
    }

    fn store(&mut self, now: Duration, job: Job) {
        let token = FenceToken { term: job.token.term, number: job.token.number };
        let passed = self.world.fences.lock().pass(Fence { slot: job.slot.0, token });
        let stored = match passed {
            Ok(()) => Stored::Done,
            Err(deposed) => {
                Stored::Refused { by: View { term: deposed.by.term, number: deposed.by.number } }
            }
        };
        self.node.handle_stored(now, job, stored);
    }

    /// What it serves it says, uses the store for, and writes to all others from.
    fn work(&mut self) {
        for slot in (0..SLOTS).map(Slot) {
            let serves = self.node.may_act(self.world.now()) && self.node.serves(slot);
            self.says(slot, serves);
            if !serves {
                continue;
            }
            let now = self.world.now();
            if let Some(work) = self.node.begin(slot) {
                self.store(now, work.job);
                self.node.finish(now, work);
            }
            let to = |slot| Recipient { slot, account: "somebody".into() };
            let all = (0..SLOTS).map(Slot).map(to).collect();
            self.node.submit(now, slot, all, Arc::new(*b"hello"), Receipt::default());
        }
        let view = self.node.record().view;
        self.world.seen.lock().views.insert(self.name, view);
    }

    fn says(&self, slot: Slot, serves: bool) {
        let mut seen = self.world.seen.lock();
        let now = self.world.now();
        let until = self.node.deadline().unwrap_or_default();
        let other = seen.serving.get(&slot.0).copied().filter(|(name, _)| *name != self.name);
        if serves && now < until {
            if let Some((other, _)) = other.filter(|(_, until)| *until > now) {
                seen.doubled.push(format!("{slot:?} by {other} and {} at {now:?}", self.name));
            }
            seen.serving.insert(slot.0, (self.name, until));
        } else if other.is_none() {
            seen.serving.remove(&slot.0);
        }
    }

    /// It serves nothing any more.
    fn rest(&self) {
        self.world.seen.lock().serving.retain(|_, (name, _)| *name != self.name);
    }
}

/// A name under which now one server is reached, now another one.
pub(super) struct Proxy {
    pub(super) port: u16,
    target: Arc<AtomicU16>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub(super) fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (target, open) = (Arc::new(AtomicU16::new(target)), Arc::<Mutex<Vec<_>>>::default());
        let (to, all) = (Arc::clone(&target), Arc::clone(&open));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to.load(Ordering::Relaxed))) else {
                    continue;
                };
                for (mut from, mut into) in [
                    (near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (far.try_clone().unwrap(), near.try_clone().unwrap()),
                ] {
                    thread::spawn(move || {
                        let mut bytes = [0; 65536];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            if into.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        let _ended = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
                    });
                }
                all.lock().extend([near, far]);
            }
        });
        Self { port, target, open }
    }

    /// From now on there; what is open ends.
    pub(super) fn turn(&self, target: u16) {
        self.target.store(target, Ordering::Relaxed);
        for stream in std::mem::take(&mut *self.open.lock()) {
            let _ended = stream.shutdown(Shutdown::Both);
        }
    }
}
