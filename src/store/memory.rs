//! Everything in memory.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::mem::{size_of, take};
use std::sync::Arc;

use jid::BareJid;
use parking_lot::Mutex;

use super::{
    AccountStore, BlockStore, ClientKey, ClientTokens, Credentials, OfflineId, OfflineLimits,
    OfflineMessage, OfflineStore, Revision, RosterChange, RosterStore, ScramHash, ScramKeys,
    StoreError, StoreFuture, StoredContact, StoredRoster, SubscriptionRequest, Token, TokenStore,
    made,
};
use crate::rules::roster::Item;

/// A store of everything that forgets when it is dropped: for tests, and for servers whose users
/// come from elsewhere and leave nothing behind.
///
/// It is bounded: everything together has a limit in bytes, counted roughly, and what exceeds it is
/// refused with [`StoreError::Full`]. Its futures are ready at once.
pub struct Memory {
    state: Mutex<State>,
    offline_limits: OfflineLimits,
    capacity: usize,
}

#[derive(Default)]
struct State {
    accounts: HashMap<BareJid, Account>,
    /// Bytes of all entries, as [`cost`](Cost::cost) counts them.
    used: usize,
    /// Shared by the whole store, so that it outlives the accounts.
    last_offline_id: u64,
}

#[derive(Default)]
struct Account {
    credentials: Option<Credentials>,
    version: u64,
    items: HashMap<BareJid, Item>,
    requests: Vec<SubscriptionRequest>,
    offline: Vec<(OfflineId, OfflineMessage)>,
    blocked: Vec<String>,
    clients: Vec<(ClientKey, ClientTokens)>,
}

impl Memory {
    /// An empty store with the default [`OfflineLimits`] and a capacity of 256 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            offline_limits: OfflineLimits::default(),
            capacity: 256 << 20,
        }
    }

    /// How much each account may have waiting as offline messages.
    #[must_use]
    pub fn with_offline_limits(self, offline_limits: OfflineLimits) -> Self {
        Self { offline_limits, ..self }
    }

    /// How many bytes all accounts may hold together.
    #[must_use]
    pub fn with_capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// Looks at an account; `T::default()` where it has no entry.
    fn read<T: Default + Send + 'static>(
        &self,
        account: &BareJid,
        look: impl FnOnce(&Account) -> T,
    ) -> StoreFuture<T> {
        let found = self.state.lock().accounts.get(account).map(look).unwrap_or_default();
        Box::pin(ready(Ok(found)))
    }

    /// Changes an account after making sure that `more` bytes have room. `change` returns how many
    /// bytes it added and removed.
    fn write(
        &self,
        account: &BareJid,
        more: usize,
        change: impl FnOnce(&mut Account) -> Difference,
    ) -> StoreFuture<()> {
        Box::pin(ready(self.state.lock().reserve(more, self.capacity).map(|state| {
            state.change(account, change);
        })))
    }
}

impl State {
    fn reserve(&mut self, more: usize, capacity: usize) -> Result<&mut Self, StoreError> {
        // Removals need no room: they must work in a full store.
        if more > 0 && self.used.saturating_add(more) > capacity {
            return Err(StoreError::Full);
        }
        Ok(self)
    }

    fn change(&mut self, account: &BareJid, change: impl FnOnce(&mut Account) -> Difference) {
        let entry = self.accounts.entry(account.clone()).or_default();
        let difference = change(entry);
        if entry.is_empty() {
            self.accounts.remove(account);
        }
        self.used = self.used.saturating_add(difference.added).saturating_sub(difference.removed);
    }
}

impl Account {
    fn is_empty(&self) -> bool {
        self.credentials.is_none()
            && self.version == 0
            && self.items.is_empty()
            && self.requests.is_empty()
            && self.offline.is_empty()
            && self.blocked.is_empty()
            && self.clients.is_empty()
    }

    fn apply(&mut self, change: RosterChange) -> Difference {
        let mut difference = Difference::default();
        if let Some(version) = change.version {
            self.version = version;
        }
        if let Some(contact) = change.remove {
            difference.removed += total(self.items.remove(&contact).iter());
        }
        if let Some(text) = change.remove_stray {
            // Only a host can have put it here, past the server.
            let gone = self.items.keys().find(|jid| jid.as_str() == text).cloned();
            difference.removed += total(gone.and_then(|jid| self.items.remove(&jid)).iter());
        }
        if let Some(item) = change.put {
            difference.added += item.cost();
            difference.removed += total(self.items.insert(item.jid.clone(), item).iter());
        }
        if let Some(requester) = change.remove_request {
            let gone = self.requests.iter().position(|request| request.from == requester);
            difference.removed += total(gone.map(|at| self.requests.remove(at)).iter());
        }
        if let Some(request) = change.add_request {
            // SUB-9: the first one wins.
            if self.requests.iter().all(|kept| kept.from != request.from) {
                difference.added += request.cost();
                self.requests.push(request);
            }
        }
        difference
    }
}

/// What a change did to the bytes in use.
#[derive(Default)]
struct Difference {
    added: usize,
    removed: usize,
}

/// What takes up space.
trait Cost {
    /// Bytes, roughly: the texts and what holds them.
    fn cost(&self) -> usize;
}

impl Cost for Item {
    fn cost(&self) -> usize {
        let texts = self.name.iter().chain(&self.groups);
        // The contact is the key too.
        2 * self.jid.as_str().len()
            + texts.map(|text| text.len() + size_of::<String>()).sum::<usize>()
            + size_of::<Self>()
    }
}

impl Cost for SubscriptionRequest {
    fn cost(&self) -> usize {
        self.from.as_str().len() + self.stanza.len() + size_of::<Self>()
    }
}

impl Cost for OfflineMessage {
    fn cost(&self) -> usize {
        self.stanza.len() + size_of::<(OfflineId, Self)>()
    }
}

impl Cost for String {
    fn cost(&self) -> usize {
        self.as_str().len() + size_of::<Self>()
    }
}

impl Cost for Credentials {
    fn cost(&self) -> usize {
        let keys = ScramHash::ALL.into_iter().filter_map(|hash| self.keys(hash));
        size_of::<Account>() + keys.map(Cost::cost).sum::<usize>()
    }
}

impl Cost for ScramKeys {
    fn cost(&self) -> usize {
        self.salt.len() + self.stored_key.len() + self.server_key.len()
    }
}

impl Cost for ClientTokens {
    fn cost(&self) -> usize {
        let tokens = self.current.iter().chain(&self.new);
        let texts = self.software.iter().chain(&self.device);
        size_of::<(ClientKey, Self)>()
            + texts.map(String::len).sum::<usize>()
            + tokens
                .map(|Token { mechanism, credentials, .. }| mechanism.len() + credentials.len())
                .sum::<usize>()
    }
}

fn total<'a, E: Cost + 'a>(entries: impl IntoIterator<Item = &'a E>) -> usize {
    entries.into_iter().map(Cost::cost).sum()
}

/// What a roster change may add.
fn growth(change: &RosterChange) -> usize {
    total(&change.put) + total(&change.add_request)
}

impl AccountStore for Memory {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        self.read(account, |entry| entry.credentials.clone())
    }

    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
        let account = match made(account) {
            Ok(account) => account,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        let added = credentials.cost();
        self.write(&account, added, |entry| {
            let former = entry.credentials.replace(credentials);
            Difference { added, removed: total(&former) }
        })
    }

    fn adds_keys(&self) -> bool {
        true
    }

    fn add_keys(
        &self,
        account: &BareJid,
        proved: (ScramHash, ScramKeys),
        keys: (ScramHash, ScramKeys),
    ) -> StoreFuture<bool> {
        let mut is_added = false;
        let most = keys.1.cost();
        let written = self.write(account, most, |entry| {
            let before = total(&entry.credentials);
            is_added = entry.credentials.as_mut().is_some_and(|found| found.upgrade(&proved, keys));
            Difference { added: total(&entry.credentials), removed: before }
        });
        Box::pin(async move { written.await.map(|()| is_added) })
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        let mut removed = None;
        self.state.lock().change(account, |entry| {
            removed = entry.credentials.take();
            Difference { added: 0, removed: total(&removed) }
        });
        Box::pin(ready(Ok(removed.is_some())))
    }

    fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
        Some(self)
    }
}

impl RosterStore for Memory {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        self.read(account, |entry| StoredRoster {
            items: entry.items.values().cloned().collect(),
            version: entry.version,
            requests: entry.requests.iter().map(|request| request.from.clone()).collect(),
            ..StoredRoster::default()
        })
    }

    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        self.read(account, |entry| StoredContact {
            item: entry.items.get(contact).cloned(),
            version: entry.version,
            request: entry.requests.iter().any(|request| request.from == *contact),
            requests: entry.requests.len(),
        })
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        self.write(account, growth(&change), |entry| entry.apply(change))
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        let more = growth(&first_change).saturating_add(growth(&second_change));
        Box::pin(ready(self.state.lock().reserve(more, self.capacity).map(|state| {
            state.change(first, |entry| entry.apply(first_change));
            state.change(second, |entry| entry.apply(second_change));
        })))
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        self.read(account, |entry| entry.requests.clone())
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.write(account, 0, |entry| {
            entry.version = 0;
            let (items, requests) = (take(&mut entry.items), take(&mut entry.requests));
            Difference { added: 0, removed: total(items.values()) + total(&requests) }
        })
    }
}

impl OfflineStore for Memory {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        let state = &mut *self.state.lock();
        let waiting = state.accounts.get(account).map_or(&[][..], |entry| &entry.offline);
        let bytes = waiting.iter().map(|(_, message)| message.stanza.len()).sum();
        if !self.offline_limits.allow(waiting.len(), bytes, message.stanza.len()) {
            return Box::pin(ready(Err(StoreError::Full)));
        }
        let added = message.cost();
        Box::pin(ready(state.reserve(added, self.capacity).map(|state| {
            state.last_offline_id += 1;
            let id = OfflineId::new(state.last_offline_id);
            state.change(account, |entry| {
                entry.offline.push((id, message));
                Difference { added, removed: 0 }
            });
        })))
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        self.read(account, |entry| entry.offline.clone())
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        self.write(account, 0, |entry| {
            let mut removed = 0;
            entry.offline.retain(|(id, message)| {
                let gone = ids.contains(id);
                removed += if gone { message.cost() } else { 0 };
                !gone
            });
            Difference { added: 0, removed }
        })
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        self.read(account, |entry| entry.offline.len())
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.write(account, 0, |entry| {
            let messages = take(&mut entry.offline);
            Difference { added: 0, removed: total(messages.iter().map(|(_, message)| message)) }
        })
    }
}

impl BlockStore for Memory {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>> {
        self.read(account, |entry| entry.blocked.clone())
    }

    fn apply(
        &self,
        account: &BareJid,
        added: Vec<String>,
        removed: Vec<String>,
    ) -> StoreFuture<()> {
        self.write(account, total(&added), |entry| {
            let before = total(&entry.blocked);
            entry.blocked.retain(|jid| !removed.contains(jid));
            for jid in added {
                if !entry.blocked.contains(&jid) {
                    entry.blocked.push(jid);
                }
            }
            Difference { added: total(&entry.blocked), removed: before }
        })
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.write(account, 0, |entry| {
            let jids = take(&mut entry.blocked);
            Difference { added: 0, removed: total(&jids) }
        })
    }
}

impl TokenStore for Memory {
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
        self.read(account, |entry| {
            let found = entry.clients.iter().find(|(key, _)| key == client);
            found.map(|(_, tokens)| tokens.clone())
        })
    }

    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
        self.read(account, |entry| entry.clients.clone())
    }

    fn replace(
        &self,
        account: &BareJid,
        client: &ClientKey,
        found: Option<Revision>,
        tokens: Option<ClientTokens>,
    ) -> StoreFuture<bool> {
        let state = &mut *self.state.lock();
        let clients = state.accounts.get(account).map_or(&[][..], |entry| &entry.clients);
        let former = clients.iter().find(|(key, _)| key == client).map(|(_, tokens)| tokens);
        if former.map(|tokens| tokens.revision) != found {
            return Box::pin(ready(Ok(false)));
        }
        let (added, removed) = (total(&tokens), total(former));
        Box::pin(ready(state.reserve(added.saturating_sub(removed), self.capacity).map(|state| {
            state.change(account, |entry| {
                entry.clients.retain(|(key, _)| key != client);
                entry.clients.extend(tokens.map(|tokens| (*client, tokens)));
                Difference { added, removed }
            });
            true
        })))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.write(account, 0, |entry| {
            let clients = take(&mut entry.clients);
            Difference { added: 0, removed: total(clients.iter().map(|(_, tokens)| tokens)) }
        })
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Memory")
            .field("accounts", &state.accounts.len())
            .field("bytes", &state.used)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
