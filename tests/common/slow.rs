//! Stores whose answers wait until they are let go, fail, or panic.

#![expect(unreachable_pub, reason = "the module is private to its test binary")]

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use xmpp_session::jid::BareJid;
use xmpp_session::store::{
    Authenticator, Memory, OfflineId, OfflineMessage, OfflineStore, RosterChange, RosterStore,
    StoreError, StoreFuture, StoredRoster, Stores, SubscriptionRequest, Verdict,
};

/// What becomes of the next calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Answer,
    Wait,
    Fail,
    /// The future panics.
    Panic,
    /// The call panics before there is a future.
    PanicAtOnce,
}

/// The switch, shared by all doubles made of it.
#[derive(Clone)]
pub struct Slow(Arc<Inner>);

struct Inner {
    memory: Memory,
    state: Mutex<State>,
}

struct State {
    mode: Mode,
    wakers: Vec<Waker>,
}

impl Slow {
    pub fn new() -> Self {
        let state = State { mode: Mode::Answer, wakers: Vec::new() };
        Self(Arc::new(Inner { memory: Memory::new(), state: Mutex::new(state) }))
    }

    /// Rosters and offline messages behind this switch.
    pub fn stores(&self) -> Stores {
        let mut stores = Stores::memory();
        stores.rosters = Arc::new(self.clone());
        stores.with_offline(Arc::new(self.clone()))
    }

    /// Sets what happens from now on; what waits goes on if it may.
    pub fn set(&self, mode: Mode) {
        let wakers = {
            let mut state = self.0.state.lock().unwrap();
            state.mode = mode;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn gate<T: Send + 'static>(
        &self,
        inner: impl FnOnce(&Memory) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let mode = {
            let state = self.0.state.lock().unwrap();
            state.mode
        };
        assert!(mode != Mode::PanicAtOnce, "a store with a defect");
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let mode = poll_fn(|cx| {
                let mut state = shared.state.lock().unwrap();
                if state.mode == Mode::Wait {
                    state.wakers.push(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(state.mode)
            })
            .await;
            match mode {
                Mode::Fail => Err(StoreError::failed("no disk")),
                Mode::Panic => panic!("a store with a defect"),
                _ => inner(&shared.memory).await,
            }
        })
    }
}

impl RosterStore for Slow {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        let account = account.clone();
        self.gate(move |memory| RosterStore::load(memory, &account))
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        let account = account.clone();
        self.gate(move |memory| RosterStore::apply(memory, &account, change))
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        let (first, second) = (first.clone(), second.clone());
        self.gate(move |memory| memory.apply_pair(&first, first_change, &second, second_change))
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        let account = account.clone();
        self.gate(move |memory| memory.requests(&account))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let account = account.clone();
        self.gate(move |memory| RosterStore::clear(memory, &account))
    }
}

impl OfflineStore for Slow {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        let account = account.clone();
        self.gate(move |memory| memory.push(&account, message))
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        let account = account.clone();
        self.gate(move |memory| memory.list(&account))
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        let account = account.clone();
        self.gate(move |memory| OfflineStore::remove(memory, &account, ids))
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        let account = account.clone();
        self.gate(move |memory| memory.count(&account))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let account = account.clone();
        self.gate(move |memory| OfflineStore::clear(memory, &account))
    }
}

/// Says yes to everybody, when it says something.
impl Authenticator for Slow {
    fn check_password(&self, _: &BareJid, _: &str) -> StoreFuture<Verdict> {
        self.gate(|_| Box::pin(async { Ok(Verdict::Accepted) }))
    }
}
