//! Stores that take their time, fail and recover, as the seed has it, in front of one in memory.

use std::collections::BTreeSet;
use std::future::{poll_fn, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use xmpp_session::environment::{Environment, Virtual};
use xmpp_session::extension::{Extension, Passage, Passing, Review, Wants};
use xmpp_session::jid::BareJid;
use xmpp_session::stanza::Condition;
use xmpp_session::store::{
    AccountStore, BlockStore, ClientKey, ClientTokens, Credentials, Memory, OfflineId,
    OfflineMessage, OfflineStore, Revision, RosterChange, RosterStore, StoreError, StoreFuture,
    StoredRoster, Stores, SubscriptionRequest, TokenStore,
};

use super::cast::at_once;
use super::link::Link;
use super::random::Random;
use super::splitter::attribute;
use super::spy::{Act, Spy};

/// How the stores feel, in percent of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mood {
    /// Answered when the scheduler, or the clock, has it so.
    pub slow: usize,
    /// An error, at once or then.
    pub failing: usize,
}

/// Clones are the same stores.
#[derive(Clone)]
pub struct Depot(Arc<Inner>);

struct Inner {
    memory: Memory,
    environment: Arc<Virtual>,
    spy: Spy,
    state: Mutex<State>,
}

struct State {
    random: Random,
    mood: Mood,
    calls: u64,
    waiting: Vec<Waiting>,
    /// Who is asked what just now.
    busy: BTreeSet<(&'static str, String)>,
    wrong: Vec<String>,
    done: Vec<String>,
}

struct Waiting {
    call: u64,
    due: Duration,
    waker: Option<Waker>,
}

/// A call under way. Dropping it is its end.
struct Call {
    inner: Arc<Inner>,
    number: u64,
    /// The store and the account.
    key: (&'static str, String),
    alone: bool,
    what: String,
    fails: bool,
    /// Its effect comes with its beginning, only the answer is late.
    early: bool,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    fn done(&self, how: &str) {
        self.inner.state().done.push(format!("{}: {how}", self.what));
    }

    /// Until the scheduler lets it go on.
    async fn wait(&self) {
        poll_fn(|cx| {
            let mut state = self.inner.state();
            match state.waiting.iter_mut().find(|waiting| waiting.call == self.number) {
                Some(waiting) => {
                    waiting.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            }
        })
        .await;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.waiting.retain(|waiting| waiting.call != self.number);
        if self.alone {
            state.busy.remove(&self.key);
        }
    }
}

impl Depot {
    pub fn new(memory: Memory, environment: Arc<Virtual>, spy: Spy, seed: u64) -> Self {
        let state = State {
            random: Random::new(seed ^ 0x5705),
            mood: Mood::default(),
            calls: 0,
            waiting: Vec::new(),
            busy: BTreeSet::new(),
            wrong: Vec::new(),
            done: Vec::new(),
        };
        Self(Arc::new(Inner { memory, environment, spy, state: Mutex::new(state) }))
    }

    pub fn stores(&self) -> Stores {
        Stores::all_in(Arc::new(self.clone()))
    }

    pub fn spy(&self) -> &Spy {
        &self.0.spy
    }

    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    pub fn set(&self, mood: Mood) {
        self.0.state().mood = mood;
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.0.state().waiting.len()
    }

    /// Lets the call at this place go on.
    pub fn release(&self, at: usize) {
        let waiting = {
            let mut state = self.0.state();
            let at = at % state.waiting.len().max(1);
            if state.waiting.is_empty() { None } else { Some(state.waiting.remove(at)) }
        };
        waiting.and_then(|waiting| waiting.waker).into_iter().for_each(Waker::wake);
    }

    /// When the first call that waits has waited long enough.
    pub fn next_due(&self) -> Option<Duration> {
        self.0.state().waiting.iter().map(|waiting| waiting.due).min()
    }

    /// Lets go on what has waited until now.
    pub fn release_due(&self, now: Duration) {
        while let Some(at) = self.due(now) {
            self.release(at);
        }
    }

    fn due(&self, now: Duration) -> Option<usize> {
        self.0.state().waiting.iter().position(|waiting| waiting.due <= now)
    }

    /// Calls that the contract forbids.
    pub fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state().wrong)
    }

    /// What became of the calls since the last time.
    pub fn take_done(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state().done)
    }

    /// Begins a call to one of the stores. `alone`: about one account they come one after another.
    fn enter(&self, what: &'static str, alone: bool, account: &BareJid) -> Call {
        self.0.spy.interrupt();
        let now = self.0.environment.now();
        let mut state = self.0.state();
        state.calls += 1;
        let number = state.calls;
        let Mood { slow, failing } = state.mood;
        let (slow, fails) = (state.random.chance(slow), state.random.chance(failing));
        let early = state.random.chance(50);
        if slow {
            let due = now + Duration::from_millis(state.random.below(8000) as u64);
            state.waiting.push(Waiting { call: number, due, waker: None });
        }
        let key = (what.split(' ').next().unwrap_or_default(), account.to_string());
        if alone && !state.busy.insert(key.clone()) {
            state.wrong.push(format!("two calls at once: {what} of {account}"));
        }
        let what = format!("store: {what} of {account}, slow: {slow}, early: {early}");
        Call { inner: Arc::clone(&self.0), number, key, alone, what, fails, early }
    }

    fn call<T: Send + 'static>(
        &self,
        call: Call,
        effect: impl FnOnce(&Inner) -> StoreFuture<T> + Send + 'static,
        failed: impl FnOnce(&Inner) + Send + 'static,
    ) -> StoreFuture<T> {
        Box::pin(async move {
            if call.fails {
                call.wait().await;
                failed(&call.inner);
                call.done("failed");
                return Err(StoreError::failed("as the seed has it"));
            }
            if call.early {
                let answer = effect(&call.inner).await;
                call.wait().await;
                call.done("done");
                return answer;
            }
            call.wait().await;
            call.done("done");
            effect(&call.inner).await
        })
    }

    fn plain<T: Send + 'static>(
        &self,
        what: &'static str,
        account: &BareJid,
        effect: impl FnOnce(&Memory, &BareJid) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        // Those that log in are asked about whenever they like.
        let alone = !what.starts_with("accounts") && !what.starts_with("tokens");
        let account = account.clone();
        let call = self.enter(what, alone, &account);
        self.call(call, move |inner| effect(&inner.memory, &account), |_| ())
    }
}

/// Reviews each message in a store: as slow, and as likely to fail, as the others.
pub struct Reviewer(pub Depot);

impl Extension<Link> for Reviewer {
    fn wants(&self) -> Wants {
        Wants::MESSAGES.and(Wants::OUTCOMES)
    }

    fn review(&self, message: &Passing<'_, Link>) -> Review {
        let account = message.account().jid();
        let mark = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{account}' id='1'/>");
        let kept = self.0.plain("review", account, |_, _| Box::pin(ready(Ok(()))));
        Review::later(async move {
            match kept.await {
                Ok(()) => Passage::Mark(mark.parse().into_iter().collect()),
                Err(_) => Passage::Refuse(Condition::InternalServerError.into()),
            }
        })
    }
}

impl AccountStore for Depot {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        self.plain("accounts credentials", account, |memory, key| memory.credentials(key))
    }

    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        self.plain("accounts exists", account, |memory, key| memory.exists(key))
    }

    fn set_credentials(&self, account: &BareJid, new: Credentials) -> StoreFuture<()> {
        self.plain("accounts set", account, |memory, key| memory.set_credentials(key, new))
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        self.plain("accounts remove", account, |memory, key| AccountStore::remove(memory, key))
    }

    fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
        Some(self)
    }
}

impl TokenStore for Depot {
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
        let client = *client;
        self.plain("tokens client", account, move |memory, key| memory.client(key, &client))
    }

    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
        self.plain("tokens clients", account, |memory, key| memory.clients(key))
    }

    fn replace(
        &self,
        account: &BareJid,
        client: &ClientKey,
        found: Option<Revision>,
        tokens: Option<ClientTokens>,
    ) -> StoreFuture<bool> {
        let client = *client;
        self.plain("tokens replace", account, move |memory, key| {
            memory.replace(key, &client, found, tokens)
        })
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.plain("tokens clear", account, |memory, key| TokenStore::clear(memory, key))
    }
}

impl RosterStore for Depot {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        self.plain("roster load", account, |memory, key| RosterStore::load(memory, key))
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        self.plain("roster apply", account, |memory, key| RosterStore::apply(memory, key, change))
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        let second = second.clone();
        self.plain("roster pair", first, move |memory, first| {
            memory.apply_pair(first, first_change, &second, second_change)
        })
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        self.plain("roster requests", account, |memory, key| memory.requests(key))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.plain("roster clear", account, |memory, key| RosterStore::clear(memory, key))
    }
}

impl OfflineStore for Depot {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        let call = self.enter("offline push", true, account);
        let account = account.clone();
        let effect = move |inner: &Inner| {
            let id = id_of(&message);
            let answer = at_once(inner.memory.push(&account, message));
            if answer.is_ok() {
                inner.spy.note(Act::Stored, &id, &account);
            }
            Box::pin(ready(answer)) as StoreFuture<()>
        };
        self.call(call, effect, |_| ())
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        let call = self.enter("offline list", true, account);
        let (account, key) = (account.clone(), account.clone());
        let effect = move |inner: &Inner| inner.memory.list(&account);
        self.call(call, effect, move |inner| inner.spy.unlisted(&key))
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        let call = self.enter("offline remove", true, account);
        let (account, key) = (account.clone(), account.clone());
        let kept = ids.clone();
        let effect = move |inner: &Inner| OfflineStore::remove(&inner.memory, &account, ids);
        let failed = move |inner: &Inner| {
            let there = at_once(inner.memory.list(&key)).unwrap_or_default();
            for (_, message) in there.iter().filter(|(id, _)| kept.contains(id)) {
                inner.spy.note(Act::Kept, &id_of(message), &key);
            }
        };
        self.call(call, effect, failed)
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        self.plain("offline count", account, |memory, key| memory.count(key))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.plain("offline clear", account, |memory, key| OfflineStore::clear(memory, key))
    }
}

impl BlockStore for Depot {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>> {
        self.plain("block load", account, |memory, key| BlockStore::load(memory, key))
    }

    fn apply(
        &self,
        account: &BareJid,
        added: Vec<String>,
        removed: Vec<String>,
    ) -> StoreFuture<()> {
        self.plain("block apply", account, |memory, key| {
            BlockStore::apply(memory, key, added, removed)
        })
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.plain("block clear", account, |memory, key| BlockStore::clear(memory, key))
    }
}

/// The id of a message in a store.
pub fn id_of(message: &OfflineMessage) -> String {
    let text = String::from_utf8_lossy(&message.stanza);
    attribute(&text, "id").unwrap_or_default().to_owned()
}
