//! An engine in memory: several nodes in one process.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::engine::{Answer, Ask, Engine, EngineFuture, Posts};
use super::record::{Lease, Record};
use super::view::{Incarnation, View};
use crate::environment::Environment;

type Inbox = Arc<dyn Fn(Arc<[u8]>) + Send + Sync>;
type Hint = Arc<dyn Fn() + Send + Sync>;

/// Leases and the record, by the clock of the engine, which is a number here.
#[derive(Debug)]
pub(crate) struct Ledger {
    instance: Arc<str>,
    /// Each with its end.
    leases: BTreeMap<Incarnation, (Duration, Lease)>,
    record: Option<Arc<Record>>,
}

impl Ledger {
    pub(crate) const fn new(instance: Arc<str>) -> Self {
        Self { instance, leases: BTreeMap::new(), record: None }
    }

    /// Does what it is asked, and says what is then.
    pub(crate) fn ask(&mut self, now: Duration, ask: Ask) -> Answer {
        self.expire(now);
        let done = match ask {
            Ask::Read => true,
            Ask::Renew { lease, first } => {
                let done = first || self.leases.contains_key(&lease.incarnation);
                if done {
                    self.leases.insert(lease.incarnation, (now + lease.ttl, lease));
                }
                done
            }
            Ask::Replace { over, record } => {
                let is_over = self.record.as_ref().map(|record| record.view) == over;
                let done = is_over && record.instance == self.instance;
                if done {
                    self.record = Some(record);
                }
                done
            }
        };
        let living = self.leases.values().map(|(_, lease)| lease.clone()).collect();
        let (instance, record) = (Arc::clone(&self.instance), self.record.clone());
        Answer { done, instance, living, record }
    }

    pub(crate) fn release(&mut self, node: Incarnation) {
        self.leases.remove(&node);
    }

    fn expire(&mut self, now: Duration) {
        self.leases.retain(|_, (until, _)| *until > now);
    }

    #[cfg(test)]
    pub(super) const fn leases(&mut self) -> &mut BTreeMap<Incarnation, (Duration, Lease)> {
        &mut self.leases
    }

    #[cfg(test)]
    pub(super) const fn record(&self) -> Option<&Arc<Record>> {
        self.record.as_ref()
    }

    /// It comes back as another instance, with this record of all that it had.
    #[cfg(test)]
    pub(super) fn restart(&mut self, instance: Arc<str>, record: Option<Arc<Record>>) {
        *self = Self { record, ..Self::new(instance) };
    }
}

/// An [`Engine`] and [`Posts`] for nodes in one process: tests, and hosts that try things out.
pub struct MemoryEngine {
    environment: Arc<dyn Environment>,
    state: Mutex<State>,
}

struct State {
    ledger: Ledger,
    inboxes: BTreeMap<Incarnation, VecDeque<Arc<[u8]>>>,
    listening: BTreeMap<Incarnation, Inbox>,
    hints: Vec<Hint>,
}

impl MemoryEngine {
    /// One on this clock.
    pub fn new(environment: Arc<dyn Environment>) -> Self {
        let instance = crate::environment::random_hex::<8>(&*environment).into();
        let ledger = Ledger::new(instance);
        let state = State {
            ledger,
            inboxes: BTreeMap::new(),
            listening: BTreeMap::new(),
            hints: Vec::new(),
        };
        Self { environment, state: Mutex::new(state) }
    }

    /// The engine after a restart: another instance, with the record that it had and no leases.
    #[must_use]
    pub fn restarted(&self) -> Self {
        let restarted = Self::new(Arc::clone(&self.environment));
        restarted.state.lock().ledger.record = self.state.lock().ledger.record.clone();
        restarted
    }

    /// What was posted to a node that does not listen.
    #[cfg(test)]
    pub(crate) fn inbox(&self, node: Incarnation) -> VecDeque<Arc<[u8]>> {
        self.state.lock().inboxes.remove(&node).unwrap_or_default()
    }

    fn ask(&self, ask: Ask) -> EngineFuture<Answer> {
        let writes = matches!(ask, Ask::Replace { .. });
        let now = self.environment.now();
        let (answer, hints) = {
            let mut state = self.state.lock();
            let answer = state.ledger.ask(now, ask);
            let hints = if writes && answer.done { state.hints.clone() } else { Vec::new() };
            (answer, hints)
        };
        for hint in hints {
            hint();
        }
        Box::pin(ready(Ok(answer)))
    }
}

impl Engine for MemoryEngine {
    fn renew(&self, lease: Lease, first: bool) -> EngineFuture<Answer> {
        self.ask(Ask::Renew { lease, first })
    }

    fn release(&self, node: Incarnation) -> EngineFuture<()> {
        let mut state = self.state.lock();
        state.ledger.release(node);
        state.inboxes.remove(&node);
        state.listening.remove(&node);
        Box::pin(ready(Ok(())))
    }

    fn replace(&self, over: Option<View>, record: Arc<Record>) -> EngineFuture<Answer> {
        self.ask(Ask::Replace { over, record })
    }

    fn read(&self) -> EngineFuture<Answer> {
        self.ask(Ask::Read)
    }

    fn watch(&self, hint: Hint) {
        self.state.lock().hints.push(hint);
    }
}

impl Posts for MemoryEngine {
    fn post(&self, to: Incarnation, post: Arc<[u8]>) {
        let mut state = self.state.lock();
        if let Some(inbox) = state.listening.get(&to) {
            let inbox = Arc::clone(inbox);
            drop(state);
            return inbox(post);
        }
        // Nobody takes it out of the inbox of somebody who is gone.
        if state.ledger.leases.contains_key(&to) {
            state.inboxes.entry(to).or_default().push_back(post);
        }
    }

    fn listen(&self, me: Incarnation, inbox: Inbox) {
        let waiting = {
            let mut state = self.state.lock();
            state.listening.insert(me, Arc::clone(&inbox));
            state.inboxes.remove(&me).unwrap_or_default()
        };
        waiting.into_iter().for_each(|post| inbox(post));
    }
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine").finish_non_exhaustive()
    }
}
