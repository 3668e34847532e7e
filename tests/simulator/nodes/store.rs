//! The store of all nodes, as each reaches it: what a node has asked for happens, maybe later, whatever has become of
//! the node. It keeps its own books of who has which slot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use xmpp_session::jid::BareJid;
use xmpp_session::store::{
    AccountStore, BlockStore, ClientKey, ClientTokens, Credentials, Fence, FenceToken, FenceTokens,
    OfflineId, OfflineMessage, OfflineStore, Revision, RosterChange, RosterStore, SharedMemory,
    SharedStore, StoreFuture, StoredContact, StoredRoster, Stores, SubscriptionRequest, TokenStore,
};

use super::super::cast::at_once;
use super::cloud::Access;

/// What is there for all.
#[derive(Clone)]
pub struct Depot {
    store: Arc<SharedMemory>,
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    /// The highest token that was let through, of each slot.
    highest: BTreeMap<u16, FenceToken>,
    wrong: Vec<String>,
    operations: usize,
    refused: usize,
}

impl Depot {
    pub fn new(store: SharedMemory) -> Self {
        Self { store: Arc::new(store), books: Arc::default() }
    }

    /// For a process.
    pub fn of(&self, access: Access) -> Arc<dyn SharedStore> {
        Arc::new(Reached { depot: self.clone(), access })
    }

    /// What was let through and should not have been.
    pub fn take_wrong(&self) -> Vec<String> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut books.wrong)
    }

    /// Operations that were done, and those that were refused.
    pub fn operations(&self) -> (usize, usize) {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        (books.operations, books.refused)
    }

    fn note(&self, what: &str, fence: Option<Fence>, is_done: bool) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let count = if is_done { &mut books.operations } else { &mut books.refused };
        *count += 1;
        let Some(fence) = fence.filter(|_| is_done) else { return };
        let highest = books.highest.entry(fence.slot).or_default();
        if fence.token < *highest {
            let highest = *highest;
            books.wrong.push(format!("{what} by a former owner: {fence:?} behind {highest:?}"));
        } else {
            *highest = fence.token;
        }
    }
}

/// The store as a process reaches it.
struct Reached {
    depot: Depot,
    access: Access,
}

struct OfNode {
    depot: Depot,
    access: Access,
    tokens: Arc<dyn FenceTokens>,
    /// What is of a login, which is not fenced.
    open: Stores,
}

/// Tokens as they were when something was asked for.
struct Then(Vec<(BareJid, Option<Fence>)>);

impl FenceTokens for Then {
    fn fence(&self, account: &BareJid) -> Option<Fence> {
        self.0.iter().find(|(one, _)| one == account).and_then(|(_, fence)| *fence)
    }
}

impl SharedStore for Reached {
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores {
        let open = self.depot.store.of_node(Arc::clone(&tokens));
        let (depot, access) = (self.depot.clone(), self.access.clone());
        Stores::all_in(Arc::new(OfNode { depot, access, tokens, open }))
    }

    fn claim(&self, fence: Fence) -> StoreFuture<()> {
        let depot = self.depot.clone();
        self.access.at_store(move || {
            let claimed = at_once(depot.store.claim(fence));
            depot.note("a claim", Some(fence), claimed.is_ok());
            claimed
        })
    }

    fn next_term(&self) -> StoreFuture<u64> {
        let depot = self.depot.clone();
        self.access.at_store(move || at_once(depot.store.next_term()))
    }
}

impl OfNode {
    /// In the name of whoever has the accounts now, whenever it is done.
    fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        accounts: &[&BareJid],
        call: impl FnOnce(Stores) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let then = accounts.iter().map(|one| ((*one).clone(), self.tokens.fence(one)));
        let then: Vec<_> = then.collect();
        let depot = self.depot.clone();
        self.access.at_store(move || {
            let fences: Vec<_> = then.iter().map(|(_, fence)| *fence).collect();
            let answer = at_once(call(depot.store.of_node(Arc::new(Then(then)))));
            for fence in fences {
                depot.note(what, fence, answer.is_ok());
            }
            answer
        })
    }
}

impl AccountStore for OfNode {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        let (store, account) = (Arc::clone(&self.open.accounts), account.clone());
        self.access.at_store(move || at_once(store.credentials(&account)))
    }

    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        let (store, account) = (Arc::clone(&self.open.accounts), account.clone());
        self.access.at_store(move || at_once(store.exists(&account)))
    }

    fn set_credentials(&self, account: &BareJid, new: Credentials) -> StoreFuture<()> {
        let key = account.clone();
        self.call("credentials", &[account], move |stores| {
            stores.accounts.set_credentials(&key, new)
        })
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        let key = account.clone();
        self.call("a removal", &[account], move |stores| stores.accounts.remove(&key))
    }

    fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
        self.open.tokens.is_some().then_some(self as _)
    }
}

impl OfNode {
    fn token_call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn TokenStore) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let store = self.open.tokens.clone().expect("asked for where there is one");
        self.access.at_store(move || at_once(call(&*store)))
    }
}

impl TokenStore for OfNode {
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
        let (account, client) = (account.clone(), *client);
        self.token_call(move |store| store.client(&account, &client))
    }

    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
        let account = account.clone();
        self.token_call(move |store| store.clients(&account))
    }

    fn replace(
        &self,
        account: &BareJid,
        client: &ClientKey,
        found: Option<Revision>,
        tokens: Option<ClientTokens>,
    ) -> StoreFuture<bool> {
        let (account, client) = (account.clone(), *client);
        self.token_call(move |store| store.replace(&account, &client, found, tokens))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let account = account.clone();
        self.token_call(move |store| store.clear(&account))
    }
}

impl RosterStore for OfNode {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        let key = account.clone();
        self.call("a roster", &[account], move |stores| stores.rosters.load(&key))
    }

    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        let (key, contact) = (account.clone(), contact.clone());
        self.call("a contact", &[account], move |stores| stores.rosters.contact(&key, &contact))
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        let key = account.clone();
        self.call("a change", &[account], move |stores| stores.rosters.apply(&key, change))
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        let (one, two) = (first.clone(), second.clone());
        self.call("two changes", &[first, second], move |stores| {
            stores.rosters.apply_pair(&one, first_change, &two, second_change)
        })
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        let key = account.clone();
        self.call("requests", &[account], move |stores| stores.rosters.requests(&key))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let key = account.clone();
        self.call("a clearance", &[account], move |stores| stores.rosters.clear(&key))
    }
}

impl OfflineStore for OfNode {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        let key = account.clone();
        self.offline("a message", account, move |store| store.push(&key, message))
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        let key = account.clone();
        self.offline("messages", account, move |store| store.list(&key))
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        let key = account.clone();
        self.offline("messages", account, move |store| store.remove(&key, ids))
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        let key = account.clone();
        self.offline("messages", account, move |store| store.count(&key))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let key = account.clone();
        self.offline("messages", account, move |store| store.clear(&key))
    }
}

impl OfNode {
    fn offline<T: Send + 'static>(
        &self,
        what: &'static str,
        account: &BareJid,
        call: impl FnOnce(&dyn OfflineStore) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        self.call(what, &[account], move |stores| {
            let store = stores.offline.expect("there is one");
            call(&*store)
        })
    }
}

impl BlockStore for OfNode {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>> {
        let key = account.clone();
        self.call("blocks", &[account], move |stores| stores.blocks.load(&key))
    }

    fn apply(
        &self,
        account: &BareJid,
        added: Vec<String>,
        removed: Vec<String>,
    ) -> StoreFuture<()> {
        let key = account.clone();
        self.call("blocks", &[account], move |stores| stores.blocks.apply(&key, added, removed))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let key = account.clone();
        self.call("blocks", &[account], move |stores| stores.blocks.clear(&key))
    }
}
