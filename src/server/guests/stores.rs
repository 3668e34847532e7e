//! The host's stores, as a server with guests sees them: each guest has an account, and leaves nothing in them
//! (GUEST-2, GUEST-4).

use std::future::ready;
use std::sync::Arc;

use jid::BareJid;

use super::Guests;
use crate::store::{
    AccountStore, Credentials, OfflineId, OfflineMessage, OfflineStore, RosterChange, RosterStore,
    ScramHash, ScramKeys, StoreError, StoreFuture, StoredContact, StoredRoster, Stores,
    SubscriptionRequest,
};

/// A store that guests do not get into.
struct Split<S: ?Sized> {
    guests: Arc<Guests>,
    store: Arc<S>,
}

pub(super) fn split(guests: &Arc<Guests>, mut stores: Stores) -> Stores {
    let (one, other) = (Arc::clone(guests), Arc::clone(guests));
    stores.accounts = Arc::new(Split { guests: one, store: stores.accounts });
    stores.rosters = Arc::new(Split { guests: other, store: stores.rosters });
    stores.offline = stores.offline.map(|store| {
        let guests = Arc::clone(guests);
        Arc::new(Split { guests, store }) as Arc<dyn OfflineStore>
    });
    stores
}

fn refused<T: Send + 'static>() -> StoreFuture<T> {
    Box::pin(ready(Err(StoreError::failed("a guest has no credentials"))))
}

impl AccountStore for Split<dyn AccountStore> {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        self.store.credentials(account)
    }

    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        match self.guests.has(account) {
            true => Box::pin(ready(Ok(true))),
            false => self.store.exists(account),
        }
    }

    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
        match self.guests.has(account) {
            true => refused(),
            false => self.store.set_credentials(account, credentials),
        }
    }

    fn adds_keys(&self) -> bool {
        self.store.adds_keys()
    }

    fn add_keys(
        &self,
        account: &BareJid,
        proved: (ScramHash, ScramKeys),
        added: (ScramHash, ScramKeys),
    ) -> StoreFuture<bool> {
        self.store.add_keys(account, proved, added)
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        match self.guests.has(account) {
            true => Box::pin(ready(Ok(true))),
            false => self.store.remove(account),
        }
    }
}

impl Split<dyn RosterStore> {
    fn of(&self, account: &BareJid) -> &dyn RosterStore {
        if self.guests.has(account) { &self.guests.kept } else { &*self.store }
    }
}

impl RosterStore for Split<dyn RosterStore> {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        self.of(account).load(account)
    }

    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        self.of(account).contact(account, contact)
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        self.of(account).apply(account, change)
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        let (one, other) = (self.guests.has(first), self.guests.has(second));
        if one == other {
            return self.of(first).apply_pair(first, first_change, second, second_change);
        }
        // The guest's side first: nobody reads it again if the other fails.
        let (guest, of_guest, account, of_account) = match one {
            true => (first, first_change, second, second_change),
            false => (second, second_change, first, first_change),
        };
        let (guest, store) = (self.guests.kept.apply(guest, of_guest), Arc::clone(&self.store));
        let account = account.clone();
        Box::pin(async move {
            guest.await?;
            store.apply(&account, of_account).await
        })
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        self.of(account).requests(account)
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.of(account).clear(account)
    }
}

/// Nothing is kept for a guest whose session does not take it.
impl OfflineStore for Split<dyn OfflineStore> {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        match self.guests.has(account) {
            true => Box::pin(ready(Err(StoreError::Full))),
            false => self.store.push(account, message),
        }
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        match self.guests.has(account) {
            true => Box::pin(ready(Ok(Vec::new()))),
            false => self.store.list(account),
        }
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        self.store.remove(account, ids)
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        match self.guests.has(account) {
            true => Box::pin(ready(Ok(0))),
            false => self.store.count(account),
        }
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        match self.guests.has(account) {
            true => Box::pin(ready(Ok(()))),
            false => self.store.clear(account),
        }
    }
}
