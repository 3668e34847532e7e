//! An engine, the way of posts, and the store as one node reaches them: all of them fail.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use xmpp_session::cluster::{
    Answer, Engine, EngineError, EngineFuture, Incarnation, Lease, MemoryEngine, Posts, Record,
    View,
};
use xmpp_session::environment::{Environment as _, Virtual};

use crate::random::Random;

type Inbox = Arc<dyn Fn(Arc<[u8]>) + Send + Sync>;
/// As long as nodes ask for.

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
    timers: Vec<(Duration, Waker)>,
    nodes: Vec<Gate>,
    stopped_until: Duration,
    /// Of posts, in percent.
    lost: usize,
    /// The longest way of a post, and the longest time of a call.
    late: Duration,
}

#[derive(Clone, Copy, Default)]
struct Gate {
    is_dead: bool,
    cut_until: Duration,
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
            timers: Vec::new(),
            nodes: Vec::new(),
            stopped_until: Duration::ZERO,
            lost: 0,
            late: Duration::from_millis(2),
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

    pub fn lose(&self, percent: usize) {
        self.state().lost = percent;
    }

    pub fn become_late(&self, random: &mut Random) {
        let late = random.pick(&[0, 1, 5, 50, 300]);
        self.state().late = Duration::from_millis(late);
    }

    pub fn heal(&self) {
        let mut state = self.state();
        (state.lost, state.stopped_until) = (0, Duration::ZERO);
        state.late = Duration::from_millis(1);
    }

    /// When something comes to its end.
    pub fn next_due(&self) -> Option<Duration> {
        let state = self.state();
        let posts = state.posts.values().filter_map(|posts| posts.front());
        let posts = posts.map(|(at, _)| *at);
        posts.chain(state.timers.iter().map(|(at, _)| *at)).min()
    }

    /// What is due arrives.
    pub fn deliver(&self) {
        let mut state = self.state();
        let now = state.all.now();
        let mut wakers = Vec::new();
        state.timers.retain(|(at, waker)| {
            let is_due = *at <= now;
            if is_due {
                wakers.push(waker.clone());
            }
            !is_due
        });
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
        wakers.into_iter().for_each(Waker::wake);
        arrived.into_iter().for_each(|(inbox, post)| inbox(post));
    }
}

impl State {
    /// A moment from now, up to the longest.
    fn due(&mut self) -> Duration {
        let micros = self.late.as_micros() as usize;
        self.all.now() + Duration::from_micros(self.random.below(micros + 1) as u64)
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

    async fn sleep_until(cloud: Cloud, at: Duration) {
        poll_fn(|cx| {
            let mut state = cloud.state();
            if state.all.now() >= at {
                return Poll::Ready(());
            }
            state.timers.push((at, cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// A call that takes its time on the way there, and on the way back.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&MemoryEngine) -> EngineFuture<T> + Send + 'static,
    ) -> EngineFuture<T> {
        let (cloud, node) = (self.cloud.clone(), self.node);
        let there = cloud.state().due();
        Box::pin(async move {
            Self::sleep_until(cloud.clone(), there).await;
            let (engine, fails) = {
                let state = cloud.state();
                (Arc::clone(&state.engine), state.fails(node))
            };
            let answer = if fails { None } else { Some(call(&engine).await) };
            let back = cloud.state().due();
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
        self.call(move |engine| engine.replace(over, record))
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
        if state.nodes[self.node].is_dead || state.nodes[self.node].cut_until > state.all.now() {
            return;
        }
        let (lost, due) = (state.lost, state.due());
        if lost > 0 && state.random.chance(lost) {
            return;
        }
        let again = lost > 0 && state.random.chance(lost);
        let queue = state.posts.entry((self.node, to)).or_default();
        let due = queue.back().map_or(due, |(last, _)| due.max(*last));
        queue.push_back((due, Arc::clone(&post)));
        if again {
            queue.push_back((due, post));
        }
    }

    fn listen(&self, me: Incarnation, inbox: Inbox) {
        self.cloud.state().inboxes.insert(me, (self.node, inbox));
    }
}
