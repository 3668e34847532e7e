//! Stores that several nodes share: each operation is done in the name of whoever has the account's slot (NODE-3).

use std::fmt;
use std::future::ready;
use std::sync::Arc;

use jid::BareJid;
use parking_lot::Mutex;

use super::fence::{Deposed, Fence, Fences};
use super::{
    AccountStore, BlockStore, Credentials, Memory, OfflineId, OfflineMessage, OfflineStore,
    RosterChange, RosterStore, ScramHash, ScramKeys, StoreError, StoreFuture, StoredContact,
    StoredRoster, Stores, SubscriptionRequest, TokenStore,
};

/// Says in whose name an operation for an account is done, at the moment.
pub trait FenceTokens: Send + Sync + 'static {
    /// `None` where the account does not live here.
    fn fence(&self, account: &BareJid) -> Option<Fence>;
}

/// An operation for an account that does not live here. Nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("the account does not live here")]
pub(crate) struct NotHere;

/// A store that several nodes share.
pub trait SharedStore: Send + Sync + 'static {
    /// The stores of one node. Each of their operations is done only if no higher token than its own is known for the
    /// slots of its accounts, in one transaction with that question; and from then on its token is. But not what belongs
    /// to a login, which may be at any node: the look for credentials, and what compares before it changes.
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores;

    /// A slot begins empty: from now on nothing is done with a lower token. Before the first input of the slot, since
    /// what its former owner still writes must not come behind what the new one reads.
    fn claim(&self, fence: Fence) -> StoreFuture<()>;

    /// A term that nobody has had before.
    fn next_term(&self) -> StoreFuture<u64>;

    /// Which store this is, as people would tell it from another, in few words since each lease has it. A node that keeps
    /// its accounts elsewhere than those which are there is [refused](crate::rules#node-1); one that cannot tell (empty,
    /// the default) is not.
    fn identity(&self) -> Arc<str> {
        Arc::default()
    }
}

/// A [`Memory`] for several nodes in one process.
pub struct SharedMemory(Arc<Shared>);

struct Shared {
    memory: Arc<Memory>,
    /// Held through each operation, which is done when its call returns.
    fences: Mutex<Fences>,
}

impl SharedMemory {
    /// All nodes share what this one keeps.
    pub fn new(memory: Memory) -> Self {
        Self(Arc::new(Shared { memory: Arc::new(memory), fences: Mutex::default() }))
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").finish_non_exhaustive()
    }
}

impl SharedStore for SharedMemory {
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores {
        Stores::all_in(Arc::new(OfNode { shared: Arc::clone(&self.0), tokens }))
    }

    fn claim(&self, fence: Fence) -> StoreFuture<()> {
        let passed = self.0.fences.lock().pass(fence);
        Box::pin(ready(passed.map_err(StoreError::from)))
    }

    fn next_term(&self) -> StoreFuture<u64> {
        Box::pin(ready(Ok(self.0.fences.lock().next_term())))
    }
}

struct OfNode {
    shared: Arc<Shared>,
    tokens: Arc<dyn FenceTokens>,
}

impl OfNode {
    fn fence(&self, account: &BareJid) -> Result<Fence, StoreError> {
        self.tokens.fence(account).ok_or_else(|| StoreError::failed(NotHere))
    }

    fn pass<T: Send + 'static, const N: usize>(
        &self,
        accounts: [&BareJid; N],
        operation: impl FnOnce(&Memory) -> StoreFuture<T>,
    ) -> StoreFuture<T> {
        let named: Result<Vec<_>, _> = accounts.iter().map(|account| self.fence(account)).collect();
        let passed = named.and_then(|named| {
            let mut fences = self.shared.fences.lock();
            named.into_iter().try_for_each(|fence| fences.pass(fence))?;
            Ok(operation(&self.shared.memory))
        });
        passed.unwrap_or_else(|error| Box::pin(ready(Err(error))))
    }
}

impl AccountStore for OfNode {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        self.shared.memory.credentials(account)
    }

    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        self.shared.memory.exists(account)
    }

    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
        self.pass([account], |memory| memory.set_credentials(account, credentials))
    }

    fn adds_keys(&self) -> bool {
        self.shared.memory.adds_keys()
    }

    fn add_keys(
        &self,
        account: &BareJid,
        proved: (ScramHash, ScramKeys),
        added: (ScramHash, ScramKeys),
    ) -> StoreFuture<bool> {
        self.shared.memory.add_keys(account, proved, added)
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        self.pass([account], |memory| AccountStore::remove(memory, account))
    }

    fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
        Arc::clone(&self.shared.memory).tokens()
    }
}

impl RosterStore for OfNode {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        self.pass([account], |memory| RosterStore::load(memory, account))
    }

    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        self.pass([account], |memory| memory.contact(account, contact))
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        self.pass([account], |memory| RosterStore::apply(memory, account, change))
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        self.pass([first, second], |memory| {
            memory.apply_pair(first, first_change, second, second_change)
        })
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        self.pass([account], |memory| memory.requests(account))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.pass([account], |memory| RosterStore::clear(memory, account))
    }
}

impl OfflineStore for OfNode {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        self.pass([account], |memory| memory.push(account, message))
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        self.pass([account], |memory| memory.list(account))
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        self.pass([account], |memory| OfflineStore::remove(memory, account, ids))
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        self.pass([account], |memory| memory.count(account))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.pass([account], |memory| OfflineStore::clear(memory, account))
    }
}

impl BlockStore for OfNode {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>> {
        self.pass([account], |memory| BlockStore::load(memory, account))
    }

    fn apply(
        &self,
        account: &BareJid,
        added: Vec<String>,
        removed: Vec<String>,
    ) -> StoreFuture<()> {
        self.pass([account], |memory| BlockStore::apply(memory, account, added, removed))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.pass([account], |memory| BlockStore::clear(memory, account))
    }
}

/// What a store said to whoever is deposed; `None` where it failed for another reason.
pub(crate) fn deposed(error: &StoreError) -> Option<Deposed> {
    match error {
        StoreError::Failed(cause) => cause.downcast_ref().copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;

    use super::*;
    use crate::park::block_on;
    use crate::store::conformance;
    use crate::store::fence::FenceToken;

    /// A node that has every slot since this view; accounts live in the slot of their first letter.
    struct Since(u64);

    impl FenceTokens for Since {
        fn fence(&self, account: &BareJid) -> Option<Fence> {
            let slot = account.as_str().bytes().next()?.into();
            let token = FenceToken { term: 1, number: self.0 };
            (self.0 > 0).then_some(Fence { slot, token })
        }
    }

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).unwrap()
    }

    /// A store that can be shared, as nodes see it, and what it needs to be there.
    type Case<const N: usize> = (Box<dyn Any>, Box<dyn SharedStore>, [Stores; N]);

    /// One with these nodes for each store.
    fn nodes<const N: usize>(since: [u64; N]) -> Vec<Case<N>> {
        let mut shared: Vec<(Box<dyn Any>, Box<dyn SharedStore>)> = Vec::new();
        shared.push((Box::new(()), Box::new(SharedMemory::new(Memory::new()))));
        #[cfg(feature = "postgres")]
        if let Some(database) = crate::store::postgres::tests::Database::new() {
            let store = database.store();
            shared.push((Box::new(database), Box::new(store)));
        }
        let of_nodes = |(kept, shared): (_, Box<dyn SharedStore>)| {
            let stores = since.map(|since| shared.of_node(Arc::new(Since(since))));
            (kept, shared, stores)
        };
        shared.into_iter().map(of_nodes).collect()
    }

    fn fence(slot: u8, number: u64) -> Fence {
        Fence { slot: slot.into(), token: FenceToken { term: 1, number } }
    }

    #[test]
    fn node_3_a_shared_store_conforms() {
        for (_kept, _shared, [node]) in nodes([1]) {
            conformance::all(|| node.clone());
        }
    }

    #[test]
    fn node_3_a_former_owner_neither_writes_nor_reads() {
        for (_kept, shared, [old, new]) in nodes([1, 2]) {
            let juliet = jid("juliet@example.com");
            let change = |added: &[&str], removed: &[&str]| {
                let [added, removed] =
                    [added, removed].map(|list| list.iter().map(ToString::to_string).collect());
                block_on(old.blocks.apply(&juliet, added, removed))
            };
            change(&["a.example"], &[]).unwrap();
            block_on(shared.claim(fence(b'j', 2))).unwrap();
            let by = FenceToken { term: 1, number: 2 };
            let said = Some(Deposed { slot: b'j'.into(), by });
            assert_eq!(deposed(&change(&[], &["a.example"]).unwrap_err()), said);
            assert_eq!(deposed(&block_on(old.blocks.load(&juliet)).unwrap_err()), said);
            assert_eq!(deposed(&block_on(old.rosters.load(&juliet)).unwrap_err()), said);
            assert_eq!(deposed(&block_on(shared.claim(fence(b'j', 1))).unwrap_err()), said);
            assert_eq!(block_on(new.blocks.load(&juliet)).unwrap(), ["a.example"]);
            // Another slot is another matter.
            block_on(old.blocks.load(&jid("romeo@example.com"))).unwrap();
        }
    }

    #[test]
    fn node_3_a_read_raises_the_fence_as_well() {
        for (_kept, _shared, [old, new]) in nodes([1, 2]) {
            let juliet = jid("juliet@example.com");
            block_on(new.rosters.load(&juliet)).unwrap();
            let change = RosterChange::new().version(1);
            assert!(deposed(&block_on(old.rosters.apply(&juliet, change)).unwrap_err()).is_some());
        }
    }

    #[test]
    fn node_3_of_two_sides_none_is_written_where_one_is_of_another() {
        for (_kept, shared, [node]) in nodes([1]) {
            block_on(shared.claim(fence(b'r', 2))).unwrap();
            let (juliet, romeo) = (jid("juliet@example.com"), jid("romeo@example.com"));
            let change = || RosterChange::new().version(1);
            let pair = node.rosters.apply_pair(&juliet, change(), &romeo, change());
            assert!(deposed(&block_on(pair).unwrap_err()).is_some());
            assert_eq!(block_on(node.rosters.load(&juliet)).unwrap().version, 0);
        }
    }

    #[test]
    fn node_3_only_the_look_for_credentials_is_anybodys() {
        for (_kept, _shared, [nobody]) in nodes([0]) {
            let juliet = jid("juliet@example.com");
            assert!(block_on(nobody.accounts.credentials(&juliet)).unwrap().is_none());
            assert!(!block_on(nobody.accounts.exists(&juliet)).unwrap());
            let refused = nobody.accounts.set_credentials(&juliet, Credentials::new());
            assert!(deposed(&block_on(refused).unwrap_err()).is_none());
            assert!(block_on(nobody.accounts.remove(&juliet)).is_err());
            assert!(block_on(nobody.offline.unwrap().count(&juliet)).is_err());
            assert!(block_on(nobody.rosters.load(&juliet)).is_err());
        }
    }

    #[test]
    fn node_11_no_term_is_counted_twice() {
        for (_kept, shared, []) in nodes([]) {
            assert_eq!(block_on(shared.next_term()).unwrap(), 1);
            assert_eq!(block_on(shared.next_term()).unwrap(), 2);
        }
    }
}
