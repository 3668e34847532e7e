//! What was found lately: a look-up that finds it again takes no lock.
//!
//! The lock of a shard is written by whoever reads it, and the accounts of a shard are anybody's. But most messages go
//! where the one before went. Each thread therefore keeps what it has found, with the state of the shard: a number that
//! changes with each lock for a change, before anything is changed. While that is the same, a look-up would find the
//! same.

use std::sync::{Arc, Weak};

use smallvec::SmallVec;

use super::rows::Row;
use super::table::AccountKey;
use crate::connection::SharedConnection;
use crate::session::account::Account;
use crate::session::handle::Shared;
use crate::sync::{Mutex, Striped};

/// One account and its sessions, or a place for them. What has ended is not kept alive.
pub(super) struct Found<C: SharedConnection> {
    account: Weak<Account>,
    sessions: SmallVec<[Weak<Shared<C>>; 1]>,
    hash: u32,
    state: u32,
}

/// For each thread so many places, of which the hash names one. A leaf lock, of which no two threads have the same.
pub(super) struct Lately<C: SharedConnection>(Striped<Mutex<Vec<Option<Found<C>>>>>);

const PLACES: usize = 1024;

impl<C: SharedConnection> Found<C> {
    pub(super) fn of(row: &Row<C>, key: AccountKey<'_>, state: u32) -> Self {
        let sessions = row.visible().map(|slot| Arc::downgrade(&slot.session)).collect();
        Self { account: Arc::downgrade(&row.account), sessions, hash: key.hash.bits(), state }
    }
}

impl<C: SharedConnection> Lately<C> {
    pub(super) fn new() -> Self {
        Self(Striped::new(Mutex::default))
    }

    /// An account that was found while the shard was in this state.
    #[inline]
    pub(super) fn account(&self, key: AccountKey<'_>, state: u32) -> Option<Arc<Account>> {
        let account = self.found(key, state, |found| found.account.upgrade())?;
        (account.bare.as_str() == key.bare).then_some(account)
    }

    /// Its sessions, likewise: whether these are all. What is not the one, or ends at this moment, the caller
    /// drops without the lock.
    #[inline]
    pub(super) fn sessions(
        &self,
        key: AccountKey<'_>,
        state: u32,
        mut each: impl FnMut(Arc<Shared<C>>),
    ) -> bool {
        let all = |found: &Found<C>| {
            for session in &found.sessions {
                let session = session.upgrade()?;
                let is_its = session.account.bare.as_str() == key.bare;
                each(session);
                is_its.then_some(())?;
            }
            // Else nothing says whose they are.
            (!found.sessions.is_empty()).then_some(())
        };
        self.found(key, state, all).is_some()
    }

    #[inline]
    fn found<T>(
        &self,
        key: AccountKey<'_>,
        state: u32,
        take: impl FnOnce(&Found<C>) -> Option<T>,
    ) -> Option<T> {
        let places = self.0.own().lock();
        let found = places.get(key.hash.bits() as usize % PLACES)?.as_ref()?;
        if found.hash != key.hash.bits() || found.state != state {
            return None;
        }
        take(found)
    }

    pub(super) fn put(&self, found: Found<C>) {
        let at = found.hash as usize % PLACES;
        let mut places = self.0.own().lock();
        if places.is_empty() {
            places.resize_with(PLACES, || None);
        }
        let old = places.get_mut(at).and_then(|place| place.replace(found));
        drop(places);
        drop(old);
    }
}
