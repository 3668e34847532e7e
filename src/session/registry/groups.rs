//! Accounts by the group in which they move to another registry, so that nobody looks at all to find those of one.

use std::sync::Arc;

use crate::session::account::Account;
use crate::sync::Mutex;

/// Which accounts, by their bare JIDs.
pub(crate) trait Accounts {
    fn has(&self, bare: &str) -> bool;

    /// The group that has these, and no other.
    fn group(&self) -> Option<usize> {
        None
    }
}

impl<F: Fn(&str) -> bool> Accounts for F {
    fn has(&self, bare: &str) -> bool {
        self(bare)
    }
}

pub(crate) type Which<'a> = &'a dyn Accounts;

/// How many groups there are, and which one an account is in.
pub(crate) type Grouping = (usize, fn(&str) -> usize);

/// The accounts that have sessions here. Leaf locks.
pub(super) struct Groups {
    of: fn(&str) -> usize,
    groups: Box<[Mutex<Vec<Arc<Account>>>]>,
}

impl Groups {
    pub(super) fn new((groups, of): Grouping) -> Self {
        Self { of, groups: (0..groups).map(|_| Mutex::default()).collect() }
    }

    fn group(&self, account: &Account) -> Option<&Mutex<Vec<Arc<Account>>>> {
        self.groups.get((self.of)(account.bare.as_str()))
    }

    /// It has its row now, whose shard is locked: so nobody is there twice.
    pub(super) fn add(&self, account: &Arc<Account>) {
        if let Some(group) = self.group(account) {
            group.lock().push(Arc::clone(account));
        }
    }

    /// It is about to lose its row.
    pub(super) fn remove(&self, account: &Arc<Account>) {
        let Some(group) = self.group(account) else { return };
        let mut accounts = group.lock();
        if let Some(at) = accounts.iter().position(|one| Arc::ptr_eq(one, account)) {
            let removed = accounts.swap_remove(at);
            if accounts.len() * 4 < accounts.capacity() {
                accounts.shrink_to_fit();
            }
            drop(accounts);
            drop(removed);
        }
    }

    pub(super) fn those(&self, group: usize) -> Vec<Arc<Account>> {
        self.groups.get(group).map(|accounts| accounts.lock().clone()).unwrap_or_default()
    }
}
