//! An engine, the way of posts, and what lies between a node and its store: all of them fail.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::{poll_fn, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use xmpp_session::cluster::{
    Answer, Engine, EngineError, EngineFuture, Incarnation, Lease, MemoryEngine, Posts, Record,
    View,
};
use xmpp_session::environment::{Environment as _, Virtual};
use xmpp_session::store::{StoreError, StoreFuture};

use super::super::random::Random;

type Inbox = Arc<dyn Fn(Arc<[u8]>) + Send + Sync>;

type Hint = Arc<dyn Fn() + Send + Sync>;

/// Posts, each with the time at which it arrives.
type UnderWay = VecDeque<(Duration, Arc<[u8]>)>;

/// What all nodes reach. Clones are the same.
#[derive(Clone)]
pub struct Cloud(Arc<Mutex<State>>);

struct State {
    all: Arc<Virtual>,
    random: Random,
    engine: Arc<MemoryEngine>,
    hints: Vec<(usize, Hint)>,
    inboxes: HashMap<Incarnation, (usize, Inbox)>,
    /// Each with its time, by where it comes from and goes to.
    posts: BTreeMap<(usize, Incarnation), UnderWay>,
    timers: BTreeMap<(Duration, u64), Waker>,
    /// Of these and the effects so far.
    number: u64,
    /// What others do for nodes, each with its time: it is done whatever has become of whoever asked.
    effects: BTreeMap<(Duration, u64), Effect>,
    nodes: Vec<Gate>,
    /// Ways on which no post arrives until then.
    cuts: HashMap<(usize, usize), Duration>,
    stopped_until: Duration,
    /// Of posts, in percent.
    lost: usize,
    /// The longest way of a post, and the longest time of a call.
    late: Duration,
    /// The longest way to the store.
    store_late: Duration,
    pub counts: Traffic,
}

type Effect = Box<dyn FnOnce() + Send>;

/// What went through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub posts: usize,
    pub bytes: usize,
    pub calls: usize,
}

#[derive(Clone, Copy, Default)]
struct Gate {
    is_dead: bool,
    cut_until: Duration,
    /// What it does now has its effect then: it has stopped between its look at the clock and that.
    held_until: Duration,
}

/// The cloud as one node has it.
#[derive(Clone)]
pub struct Access {
    cloud: Cloud,
    node: usize,
}

impl Cloud {
    pub fn new(all: Arc<Virtual>, seed: u64) -> Self {
        let engine = Arc::new(MemoryEngine::new(Arc::clone(&all) as _));
        Self(Arc::new(Mutex::new(State {
            all,
            random: Random::new(!seed),
            engine,
            hints: Vec::new(),
            inboxes: HashMap::new(),
            posts: BTreeMap::new(),
            timers: BTreeMap::new(),
            number: 0,
            effects: BTreeMap::new(),
            nodes: Vec::new(),
            cuts: HashMap::new(),
            stopped_until: Duration::ZERO,
            lost: 0,
            late: Duration::from_millis(2),
            store_late: Duration::ZERO,
            counts: Traffic::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a process that starts.
    pub fn access(&self) -> Access {
        let mut state = self.state();
        state.nodes.push(Gate::default());
        Access { cloud: self.clone(), node: state.nodes.len() - 1 }
    }

    pub fn stop(&self, until: Duration) {
        self.state().stopped_until = until;
    }

    /// It may come back with what it had, or with nothing.
    pub fn restart(&self, forgets: bool) {
        let mut state = self.state();
        let engine = if forgets {
            MemoryEngine::new(Arc::clone(&state.all) as _)
        } else {
            state.engine.restarted()
        };
        state.engine = Arc::new(engine);
        let hints: Vec<_> = state.hints.iter().map(|(_, hint)| Arc::clone(hint)).collect();
        drop(state);
        hints.into_iter().for_each(|hint| hint());
    }

    /// Most hear soon that the record has changed, some when they renew their lease.
    fn hint(&self) {
        let mut state = self.state();
        for (node, hint) in state.hints.clone() {
            if state.random.chance(80) {
                let late = state.late;
                let at = state.due(node, late);
                state.has_effect(at, Box::new(move || hint()));
            }
        }
    }

    pub fn lose(&self, percent: usize) {
        self.state().lost = percent;
    }

    pub fn become_late(&self, random: &mut Random) {
        let late = random.pick(&[0, 1, 5, 50, 300]);
        let store_late = random.pick(&[0, 0, 0, 2, 100, 1500, 1500]);
        let mut state = self.state();
        state.late = Duration::from_millis(late);
        state.store_late = Duration::from_millis(store_late);
    }

    /// What one process posts to another does not arrive until then.
    pub fn cut_way(&self, from: &Access, to: &Access, until: Duration) {
        self.state().cuts.insert((from.node, to.node), until);
    }

    pub fn counts(&self) -> Traffic {
        self.state().counts
    }

    pub fn heal(&self) {
        let mut state = self.state();
        (state.lost, state.stopped_until) = (0, Duration::ZERO);
        state.late = Duration::from_millis(1);
        state.store_late = Duration::ZERO;
        state.cuts.clear();
    }

    /// When something comes to its end.
    pub fn next_due(&self) -> Option<Duration> {
        let state = self.state();
        let posts = state.posts.values().filter_map(|posts| posts.front());
        let posts = posts.map(|(at, _)| *at);
        let timer = state.timers.keys().next().map(|(at, _)| *at);
        let effect = state.effects.keys().next().map(|(at, _)| *at);
        posts.chain(timer).chain(effect).min()
    }

    /// What is due arrives.
    pub fn deliver(&self) {
        let mut state = self.state();
        let now = state.all.now();
        let later = state.effects.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.effects, later);
        let later = state.timers.split_off(&(now, u64::MAX));
        let wakers = std::mem::replace(&mut state.timers, later);
        let mut arrived = Vec::new();
        let State { posts, inboxes, nodes, .. } = &mut *state;
        for ((_, to), posts) in posts.iter_mut() {
            while posts.front().is_some_and(|(at, _)| *at <= now) {
                let Some((_, post)) = posts.pop_front() else { break };
                if let Some((node, inbox)) = inboxes.get(to)
                    && !nodes[*node].is_dead
                {
                    arrived.push((Arc::clone(inbox), post));
                }
            }
        }
        state.posts.retain(|_, posts| !posts.is_empty());
        drop(state);
        due.into_values().for_each(|effect| effect());
        wakers.into_values().for_each(Waker::wake);
        arrived.into_iter().for_each(|(inbox, post)| inbox(post));
    }
}

impl State {
    /// A moment from now, up to the longest.
    fn due(&mut self, node: usize, longest: Duration) -> Duration {
        let micros = longest.as_micros() as usize;
        let now = self.all.now().max(self.nodes[node].held_until);
        now + Duration::from_micros(self.random.below(micros + 1) as u64)
    }

    fn has_effect(&mut self, at: Duration, effect: Effect) {
        self.number += 1;
        self.effects.insert((at, self.number), effect);
    }

    fn fails(&self, node: usize) -> bool {
        let now = self.all.now();
        let gate = self.nodes[node];
        gate.is_dead || gate.cut_until > now || self.stopped_until > now
    }
}

impl Access {
    /// The process is no more.
    pub fn die(&self) {
        self.cloud.state().nodes[self.node].is_dead = true;
    }

    /// It reaches neither the engine nor others until then.
    pub fn cut(&self, until: Duration) {
        self.cloud.state().nodes[self.node].cut_until = until;
    }

    /// It stops, with what it does now on its way: others see that then.
    pub fn hold(&self, until: Duration) {
        self.cloud.state().nodes[self.node].held_until = until;
    }

    /// Has something done at the store, now or later, and hears of it then, unless the process is no more.
    pub fn at_store<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<T> {
        let (now, there, back) = {
            let mut state = self.cloud.state();
            let late = state.store_late;
            let there = state.due(self.node, late);
            let micros = late.as_micros() as usize;
            let back = there + Duration::from_micros(state.random.below(micros + 1) as u64);
            state.counts.calls += 1;
            (state.all.now(), there, back)
        };
        if there <= now && back <= now {
            return Box::pin(ready(call()));
        }
        let answer = Arc::new(Mutex::new(None));
        let place = Arc::clone(&answer);
        let effect = move || *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(call());
        self.cloud.state().has_effect(there, Box::new(effect));
        let cloud = self.cloud.clone();
        Box::pin(async move {
            // Each look at a clock moves it: the time may have come before the store has done it.
            let answer = || answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            Self::wait_for(cloud, back, answer).await
        })
    }

    async fn sleep_until(cloud: Cloud, at: Duration) {
        Self::wait_for(cloud, at, || Some(())).await;
    }

    /// What there is, from then on.
    async fn wait_for<T>(cloud: Cloud, at: Duration, mut what: impl FnMut() -> Option<T>) -> T {
        let mut number = None;
        poll_fn(|cx| {
            let mut state = cloud.state();
            if state.all.now() >= at
                && let Some(what) = what()
            {
                return Poll::Ready(what);
            }
            state.number += u64::from(number.is_none());
            let number = *number.get_or_insert(state.number);
            state.timers.insert((at, number), cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// A call that takes its time on the way there, and on the way back.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&MemoryEngine) -> EngineFuture<T> + Send + 'static,
    ) -> EngineFuture<T> {
        let (cloud, node) = (self.cloud.clone(), self.node);
        let there = {
            let mut state = cloud.state();
            let late = state.late;
            state.due(node, late)
        };
        Box::pin(async move {
            Self::sleep_until(cloud.clone(), there).await;
            let (engine, fails) = {
                let state = cloud.state();
                (Arc::clone(&state.engine), state.fails(node))
            };
            let answer = if fails { None } else { Some(call(&engine).await) };
            let back = {
                let mut state = cloud.state();
                let late = state.late;
                state.due(node, late)
            };
            Self::sleep_until(cloud.clone(), back).await;
            let fails = cloud.state().fails(node);
            answer.filter(|_| !fails).unwrap_or_else(|| Err(EngineError::new("no answer")))
        })
    }
}

impl Engine for Access {
    fn renew(&self, lease: Lease, first: bool) -> EngineFuture<Answer> {
        self.call(move |engine| engine.renew(lease, first))
    }

    fn release(&self, node: Incarnation) -> EngineFuture<()> {
        self.call(move |engine| engine.release(node))
    }

    fn replace(&self, over: Option<View>, record: Arc<Record>) -> EngineFuture<Answer> {
        let (cloud, replaced) =
            (self.cloud.clone(), self.call(move |engine| engine.replace(over, record)));
        Box::pin(async move {
            let answer = replaced.await;
            if answer.as_ref().is_ok_and(|answer| answer.done) {
                cloud.hint();
            }
            answer
        })
    }

    fn read(&self) -> EngineFuture<Answer> {
        self.call(MemoryEngine::read)
    }

    fn watch(&self, hint: Hint) {
        self.cloud.state().hints.push((self.node, hint));
    }
}

impl Posts for Access {
    fn post(&self, to: Incarnation, post: Arc<[u8]>) {
        let mut state = self.cloud.state();
        let now = state.all.now();
        let is_cut = state.inboxes.get(&to).is_some_and(|(other, _)| {
            state.cuts.get(&(self.node, *other)).is_some_and(|until| *until > now)
        });
        if is_cut || state.nodes[self.node].is_dead || state.nodes[self.node].cut_until > now {
            return;
        }
        (state.counts.posts, state.counts.bytes) =
            (state.counts.posts + 1, state.counts.bytes + post.len());
        let late = state.late;
        let (lost, due) = (state.lost, state.due(self.node, late));
        if lost > 0 && state.random.chance(lost) {
            return;
        }
        // Once more, maybe behind others.
        let again = lost > 0 && state.random.chance(lost);
        let later = if state.random.chance(50) { Duration::ZERO } else { late * 2 };
        let queue = state.posts.entry((self.node, to)).or_default();
        let due = queue.back().map_or(due, |(last, _)| due.max(*last));
        queue.push_back((due, Arc::clone(&post)));
        if again && later == Duration::ZERO {
            queue.push_back((due, post));
        } else if again {
            let inbox = state.inboxes.get(&to).map(|(node, inbox)| (*node, Arc::clone(inbox)));
            let (cloud, effect_at) = (self.cloud.clone(), due + later);
            if let Some((node, inbox)) = inbox {
                let effect = move || {
                    if !cloud.state().nodes[node].is_dead {
                        inbox(post);
                    }
                };
                state.has_effect(effect_at, Box::new(effect));
            }
        }
    }

    fn listen(&self, me: Incarnation, inbox: Inbox) {
        self.cloud.state().inboxes.insert(me, (self.node, inbox));
    }
}
