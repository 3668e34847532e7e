//! A store that waits, fails or panics where a test says so, in front of one in memory.

#![expect(unreachable_pub, reason = "the module is private to its test binary")]

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use xmpp_session::jid::BareJid;
use xmpp_session::store::{
    BlockStore, Memory, OfflineId, OfflineMessage, OfflineStore, RosterChange, RosterStore,
    StoreError, StoreFuture, StoredRoster, Stores, SubscriptionRequest,
};

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done at once.
    None,
    /// It is an error at once.
    Fail,
    /// It is done when [`Faulty::release`] is called.
    Slow,
    /// It is an error then.
    SlowFail,
    /// It is done at once, and the answer comes then.
    SlowAnswer,
    /// It panics with the first poll.
    Panic,
}

type Decide = Box<dyn FnMut(&BareJid, usize) -> Fault + Send>;
type Hook = Arc<dyn Fn() + Send + Sync>;

/// Clones are the same store.
#[derive(Clone)]
pub struct Faulty(Arc<Inner>);

struct Inner {
    memory: Arc<Memory>,
    decide: Mutex<Decide>,
    calls: Mutex<usize>,
    gate: Arc<Mutex<Gate>>,
    hook: Mutex<Option<Hook>>,
}

#[derive(Default)]
struct Gate {
    /// How often it was opened.
    opened: usize,
    waiting: Vec<Waker>,
}

impl Faulty {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            memory: Arc::new(Memory::new()),
            decide: Mutex::new(Box::new(|_, _| Fault::None)),
            calls: Mutex::default(),
            gate: Arc::default(),
            hook: Mutex::default(),
        }))
    }

    /// All stores, this one where faults are wanted.
    pub fn stores(&self) -> Stores {
        let store = Arc::new(self.clone());
        let accounts = Arc::clone(&self.0.memory) as _;
        Stores::new(accounts, Arc::clone(&store) as _, Arc::clone(&store) as _).with_offline(store)
    }

    /// What is stored, without faults.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Asks for each call from now on, by its account and its number.
    pub fn decide(&self, decide: impl FnMut(&BareJid, usize) -> Fault + Send + 'static) {
        *lock(&self.0.calls) = 0;
        *lock(&self.0.decide) = Box::new(decide);
    }

    /// How many calls there were since the last [`decide`](Self::decide).
    pub fn calls(&self) -> usize {
        *lock(&self.0.calls)
    }

    /// Calls `hook` within every call.
    pub fn on_call(&self, hook: impl Fn() + Send + Sync + 'static) {
        *lock(&self.0.hook) = Some(Arc::new(hook));
    }

    /// Lets what is slow go on.
    pub fn release(&self) {
        let waiting = {
            let mut gate = lock(&self.0.gate);
            gate.opened += 1;
            std::mem::take(&mut gate.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn call<T: Send + 'static>(
        &self,
        account: &BareJid,
        work: impl FnOnce(&Memory) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let hook = lock(&self.0.hook).clone();
        if let Some(hook) = hook {
            hook();
        }
        let number = {
            let mut calls = lock(&self.0.calls);
            *calls += 1;
            *calls - 1
        };
        let fault = lock(&self.0.decide)(account, number);
        let (memory, gate) = (Arc::clone(&self.0.memory), Arc::clone(&self.0.gate));
        let opened = lock(&gate).opened;
        let wait = poll_fn(move |cx| {
            let mut gate = lock(&gate);
            if gate.opened > opened {
                return Poll::Ready(());
            }
            gate.waiting.push(cx.waker().clone());
            Poll::Pending
        });
        Box::pin(async move {
            match fault {
                Fault::None => work(&memory).await,
                Fault::Fail => Err(StoreError::failed("as the test wants it")),
                Fault::Panic => panic!("as the test wants it"),
                Fault::Slow => {
                    wait.await;
                    work(&memory).await
                }
                Fault::SlowFail => {
                    wait.await;
                    Err(StoreError::failed("as the test wants it"))
                }
                Fault::SlowAnswer => {
                    let answer = work(&memory).await;
                    wait.await;
                    answer
                }
            }
        })
    }
}

impl RosterStore for Faulty {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        let key = account.clone();
        self.call(account, move |memory| RosterStore::load(memory, &key))
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        let key = account.clone();
        self.call(account, move |memory| RosterStore::apply(memory, &key, change))
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        let (one, other) = (first.clone(), second.clone());
        self.call(first, move |memory| memory.apply_pair(&one, first_change, &other, second_change))
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        let key = account.clone();
        self.call(account, move |memory| memory.requests(&key))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let key = account.clone();
        self.call(account, move |memory| RosterStore::clear(memory, &key))
    }
}

impl OfflineStore for Faulty {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        let key = account.clone();
        self.call(account, move |memory| memory.push(&key, message))
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        let key = account.clone();
        self.call(account, move |memory| memory.list(&key))
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        let key = account.clone();
        self.call(account, move |memory| OfflineStore::remove(memory, &key, ids))
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        let key = account.clone();
        self.call(account, move |memory| memory.count(&key))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let key = account.clone();
        self.call(account, move |memory| OfflineStore::clear(memory, &key))
    }
}

impl BlockStore for Faulty {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>> {
        BlockStore::load(&*self.0.memory, account)
    }

    fn apply(
        &self,
        account: &BareJid,
        added: Vec<String>,
        removed: Vec<String>,
    ) -> StoreFuture<()> {
        let key = account.clone();
        self.call(account, move |memory| BlockStore::apply(memory, &key, added, removed))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        BlockStore::clear(&*self.0.memory, account)
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
