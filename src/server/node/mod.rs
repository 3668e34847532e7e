//! This server as one of several nodes (section 18 of the rules).
//!
//! All that a node is happens in one place, [`NodeHandle::run`]: other threads put what they have for it into its
//! inbox, in order, and read two things beside it, which are atomics: until when the node may act, and which slots are
//! served here.
//!
//! ```text
//! Core ── submit, done, timeout ──▶ inbox ──▶ actor ── Node (cluster/) ──▶ effects ──▶ engine, posts, store
//!   ▲                                           │
//!   └──────── stanzas, legs, slots ◀────────────┘
//! ```

pub(in crate::server) mod act;
mod actor;
mod fencing;
mod letter;
mod metrics;
mod options;
mod placement;
mod presence;
mod shield;
#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
#[path = "../../../tests/simulator/broken.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::field_reassign_with_default,
    reason = "the simulator's, which has more"
)]
mod simulated;
mod submit;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use jid::BareJid;
use parking_lot::{Mutex, RwLock};

use super::breaks::broken;
use super::faults::Faults;
use super::legs::Edges;
use super::tokens::VOIDED;
use super::{Core, Server, Shutdown};
use crate::address;
use crate::cluster::{Engine, Incarnation, Node, Posts, Slot, Work};
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::oneshot;
use crate::outbox::Outbox;
use crate::session::Validity;
use crate::store::SharedStore;
use actor::Actor;
pub use metrics::NodeMetrics;
pub use options::Cluster;
pub(in crate::server) use placement::Placement;
use shield::Shielded;
use submit::Submission;

/// What a server has where it is one of several nodes.
pub(in crate::server) struct Clustered<C: SharedConnection> {
    pub(in crate::server) placement: Arc<Placement>,
    inbox: Arc<Inbox<C>>,
    acts: act::Acts,
    /// Whose tokens have ended since which time, the last ones: for nodes that come (FAST-10).
    voided: Mutex<VecDeque<(BareJid, SystemTime)>>,
    arrived: submit::Arrived<C>,
    /// Taken while it runs.
    actor: Mutex<Option<Box<Actor<C>>>>,
    engine: Arc<dyn Engine>,
    posts: Arc<dyn Posts>,
    store: Arc<dyn SharedStore>,
    me: Incarnation,
    /// The home's end of a leg.
    connect: fn(Arc<Outbox>) -> C,
    edges: Arc<Edges<C>>,
}

/// What others have for the node, in order.
struct Inbox<C: SharedConnection> {
    state: Mutex<Waiting<C>>,
    /// What other nodes have said of their components.
    domains: RwLock<BTreeMap<Incarnation, Vec<String>>>,
    /// As of the last time that something was done.
    figures: Mutex<NodeMetrics>,
    /// It leaves, and whatever others can take of it they have.
    is_emptied: AtomicBool,
}

struct Waiting<C: SharedConnection> {
    commands: Vec<Command<C>>,
    /// Of whoever drives the node, while it rests: it looks again before it does, and a task that wakes itself costs a thread.
    waker: Option<Waker>,
    /// There is something to do that is not here.
    is_called: bool,
    next_timeout: Option<Duration>,
    /// Nobody takes anything any more.
    is_closed: bool,
}

/// What the node is to do.
enum Command<C: SharedConnection> {
    Post(Arc<[u8]>),
    Hint,
    Timeout,
    /// Whether it stays for its clients.
    Leave(bool),
    Submit(Submission<C>),
    Tell {
        source: Option<Slot>,
        to: Incarnation,
        bytes: Arc<[u8]>,
    },
    TellAll(Arc<[u8]>),
    /// All other nodes are asked who is online there; whoever asks is told what to wait for.
    AskAll(oneshot::Sender<Vec<(u64, oneshot::Receiver<act::Said>)>>),
    /// A session of this account is not available any more.
    Gone(Arc<str>),
    /// What an account had to do first is done.
    Through(Arc<str>),
    Finished(Work),
}

impl<C: SharedConnection> Inbox<C> {
    fn new() -> Self {
        let (commands, waker, next_timeout) = (Vec::new(), None, None);
        let (is_called, is_closed) = (false, false);
        let waiting = Waiting { commands, waker, is_called, next_timeout, is_closed };
        Self {
            state: Mutex::new(waiting),
            domains: RwLock::default(),
            figures: Mutex::default(),
            is_emptied: AtomicBool::new(false),
        }
    }

    fn put(&self, command: Command<C>) {
        self.put_while(Validity::FOR_GOOD, command);
    }

    /// The same, unless it is void by the time it has its place in the order.
    fn put_while(&self, validity: Validity<'_>, command: Command<C>) {
        let mut state = self.state.lock();
        if validity.is_void() || state.is_closed {
            return;
        }
        state.commands.push(command);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// There is something to do that is not here.
    fn wake(&self) {
        let mut state = self.state.lock();
        state.is_called = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whether nothing waits that is of an account of this slot.
    fn is_quiet(&self, slot: Slot) -> bool {
        let is_of = |command: &Command<C>| match command {
            Command::Submit(Submission { source, .. }) | Command::Tell { source, .. } => {
                *source == Some(slot)
            }
            Command::Gone(account) | Command::Through(account) => Slot::of(account) == slot,
            Command::Finished(work) => work.slot() == slot,
            Command::Post(_) | Command::Hint | Command::Timeout => false,
            Command::Leave(_) | Command::TellAll(_) | Command::AskAll(_) => false,
        };
        !self.state.lock().commands.iter().any(is_of)
    }

    /// Whether anything waits that is for an account of this slot.
    fn has_for(&self, slot: Slot) -> bool {
        let is_for = |command: &Command<C>| match command {
            Command::Submit(Submission { to, .. }) => to.iter().any(|one| one.slot == slot),
            _ => false,
        };
        self.state.lock().commands.iter().any(is_for)
    }

    /// Nothing is done any more.
    fn close(&self) {
        let mut state = self.state.lock();
        (state.is_closed, state.next_timeout) = (true, None);
        let commands = std::mem::take(&mut state.commands);
        drop(state);
        drop(commands);
    }

    /// All that has come. Nobody is woken from here on until it [rests](Self::rests).
    fn take(&self) -> Vec<Command<C>> {
        let mut state = self.state.lock();
        state.is_called = false;
        let waker = state.waker.take();
        let commands = std::mem::take(&mut state.commands);
        drop(state);
        drop(waker);
        commands
    }

    /// Whether nothing has come since: whoever asks is woken then when something does.
    fn rests(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        let rests = state.commands.is_empty() && !state.is_called;
        if rests {
            state.waker = Some(cx.waker().clone());
        }
        rests
    }
}

impl<C: SharedConnection> Clustered<C> {
    pub(in crate::server) fn new(
        cluster: Cluster,
        placement: Arc<Placement>,
        environment: &dyn Environment,
        connect: fn(Arc<Outbox>) -> C,
        faults: &Arc<Faults>,
    ) -> Self {
        let mut bytes = [0; 8];
        environment.random(&mut bytes);
        let me = Incarnation::new(u64::from_le_bytes(bytes));
        let Cluster { name, engine, posts, store, settings, .. } = cluster;
        let engine = Arc::new(Shielded::new(engine, Arc::clone(faults)));
        let posts = Arc::new(Shielded::new(posts, Arc::clone(faults)));
        let store = Arc::new(Shielded::new(store, Arc::clone(faults)));
        let node = Node::new(me, name, crate::cluster::SLOTS, settings);
        let actor = Mutex::new(Some(Box::new(Actor::new(me, node))));
        let inbox = Arc::new(Inbox::new());
        let (acts, arrived) = (act::Acts::default(), submit::Arrived::default());
        let edges = {
            let inbox = Arc::downgrade(&inbox);
            Edges::new(move || inbox.upgrade().into_iter().for_each(|inbox| inbox.wake()))
        };
        let voided = Mutex::default();
        Self {
            placement,
            inbox,
            acts,
            voided,
            arrived,
            actor,
            engine,
            posts,
            store,
            me,
            connect,
            edges,
        }
    }

    fn note_voided(&self, one: (BareJid, SystemTime)) {
        let mut voided = self.voided.lock();
        voided.retain(|(account, _)| *account != one.0);
        voided.push_back(one);
        if voided.len() > VOIDED {
            voided.pop_front();
        }
    }

    /// The clients that have authenticated here.
    pub(in crate::server) fn edges(&self) -> Arc<Edges<C>> {
        Arc::clone(&self.edges)
    }

    pub(in crate::server) fn is_fenced(&self) -> bool {
        self.placement.is_fenced()
    }

    pub(in crate::server) fn next_timeout(&self) -> Option<Duration> {
        self.inbox.state.lock().next_timeout
    }

    pub(in crate::server) fn handle_timeout(&self, now: Duration) {
        if self.next_timeout().is_some_and(|at| at <= now) {
            self.inbox.put(Command::Timeout);
        }
    }
}

/// How often a node that leaves looks whether it is empty.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A server as one of several nodes. Cheap to clone.
pub struct NodeHandle<C: SharedConnection>(Arc<Core<C>>);

impl<C: SharedConnection> Server<C> {
    /// This server as a node; `None` where it is a whole server.
    #[must_use]
    pub fn node(&self) -> Option<NodeHandle<C>> {
        self.0.node.is_some().then(|| NodeHandle(Arc::clone(&self.0)))
    }
}

impl<C: SharedConnection> NodeHandle<C> {
    fn clustered(&self) -> Option<&Clustered<C>> {
        self.0.node.as_ref()
    }

    /// Drives the node: run it once, as [`Server::background`]. It ends when the node has
    /// [left](Self::leave), or is [fenced](Self::is_fenced).
    pub async fn run(&self) {
        let Some(node) = self.clustered() else { return };
        let Some(mut actor) = node.actor.lock().take() else { return };
        actor.begin(&self.0, node);
        poll_fn(|cx| actor.poll(&self.0, node, cx)).await;
    }

    /// It is to go ([NODE-19](crate::rules#node-19)): its accounts move to other nodes with their sessions, then the
    /// clients of its sockets are told what `how` says, then [`run`](Self::run) ends, and this returns. Where nobody
    /// stays (it is the last one, or all leave) the accounts stay where they are, and their sessions end as at a
    /// [`shutdown`](Server::shutdown).
    ///
    /// The host drives all on meanwhile, as at a shutdown.
    pub async fn leave(&self, how: Shutdown) {
        let Some(node) = self.clustered() else { return };
        node.inbox.put(Command::Leave(true));
        let stays = || !node.inbox.is_emptied.load(Ordering::Acquire) && !broken!(LeavesAtOnce);
        while stays() && !self.is_fenced() {
            self.0.sleep(LOOK_AGAIN).await;
        }
        Server(Arc::clone(&self.0)).shutdown(how).await;
        node.inbox.put(Command::Leave(false));
        while !self.is_fenced() {
            self.0.sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether it belongs to the cluster and may act now.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.clustered().is_some_and(|node| node.placement.may_act())
    }

    /// Whether it may never act again ([NODE-2](crate::rules#node-2)): a new server has to take its place.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.clustered().is_some_and(Clustered::is_fenced)
    }

    /// Whether an account lives here.
    #[must_use]
    pub fn is_home_of(&self, account: &BareJid) -> bool {
        let account = address::account(account).unwrap_or_else(|_| account.clone());
        account.node().is_some() && self.0.registry.is_local(account.as_str())
    }

    /// How many of the 1,024 slots of accounts live here.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.clustered().map_or(0, |node| node.placement.slots())
    }
}

impl<C: SharedConnection> Clone for NodeHandle<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: SharedConnection> fmt::Debug for NodeHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("slots", &self.slots()).finish_non_exhaustive()
    }
}
