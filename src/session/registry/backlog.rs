//! What comes first for an account: the backlog behind which later messages wait (STZ-8).
//!
//! Messages to an account reach its sessions and its store in one order. A message that had to wait
//! is its *backlog*: one that an ended session left, one in the store that a session is about to
//! get, one on the account's chain behind these. As long as there is a backlog, nothing is delivered
//! past it. All sessions of the account say so in the word that each delivery reads anyway, so an
//! account without a backlog costs nothing.
//!
//! What a session leaves is put here under the lock under which it stops to accept: whoever finds
//! it ended, and has to wait for the chain, comes behind.

#[cfg(feature = "server")]
mod chain;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::end::Leftover;
use super::rows::Row;
use super::shared::Inner;
use super::table::AccountKey;
use crate::address::bare_of_full;
use crate::connection::SharedConnection;
use crate::session::handle::{SessionHandle, Shared};
use crate::session::outbound::Left;
use crate::shield::HostCode;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// The accounts that have a backlog. A leaf lock.
pub(super) struct Backlogs<C: SharedConnection> {
    accounts: Mutex<HashMap<Box<str>, Backlog<C>>>,
    /// How many they are: most of the time none.
    count: AtomicUsize,
}

struct Backlog<C: SharedConnection> {
    /// What ended sessions have left, in order.
    left: VecDeque<(Arc<Shared<C>>, Left)>,
    /// Sessions that are to get what the store has.
    recipients: VecDeque<SessionHandle<C>>,
    /// Messages on the account's chain.
    queued: usize,
}

impl<C: SharedConnection> Default for Backlog<C> {
    fn default() -> Self {
        Self { left: VecDeque::new(), recipients: VecDeque::new(), queued: 0 }
    }
}

impl<C: SharedConnection> Backlog<C> {
    fn is_empty(&self) -> bool {
        self.left.is_empty() && self.recipients.is_empty() && self.queued == 0
    }
}

impl<C: SharedConnection> Backlogs<C> {
    pub(super) fn new() -> Self {
        Self { accounts: Mutex::new(HashMap::new()), count: AtomicUsize::new(0) }
    }

    /// Whether an account has a backlog; under the lock of its shard.
    pub(super) fn has(&self, account: &str) -> bool {
        self.look(account, |_| ()).is_some()
    }

    /// Looks at the backlog of an account, if it has one: most of the time without the lock.
    fn look<T>(&self, account: &str, look: impl FnOnce(&Backlog<C>) -> T) -> Option<T> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.accounts.lock().get(account).map(look)
    }

    /// Whether a session is about to get what the store has.
    #[cfg(feature = "server")]
    pub(super) fn expects_stored(&self, session: &SessionHandle<C>) -> bool {
        let account = session.0.account.bare.as_str();
        self.look(account, |backlog| backlog.recipients.contains(session)) == Some(true)
    }

    /// Changes the backlog of an account; whether there is one then.
    fn change<T>(&self, account: &str, change: impl FnOnce(&mut Backlog<C>) -> T) -> (T, bool) {
        let mut accounts = self.accounts.lock();
        let (changed, is_behind) = match accounts.get_mut(account) {
            Some(backlog) => {
                let changed = change(backlog);
                (changed, !backlog.is_empty())
            }
            None => {
                let mut backlog = Backlog::default();
                let changed = change(&mut backlog);
                let is_behind = !backlog.is_empty();
                if is_behind {
                    accounts.insert(account.into(), backlog);
                }
                (changed, is_behind)
            }
        };
        if !is_behind {
            accounts.remove(account);
        }
        self.count.store(accounts.len(), Ordering::SeqCst);
        (changed, is_behind)
    }
}

impl<C: SharedConnection> Row<C> {
    fn set_behind(&self, is_behind: bool) {
        self.slots.as_slice().iter().for_each(|slot| slot.session.set_behind(is_behind));
    }
}

impl<C: SharedConnection> Inner<C> {
    /// Changes the backlog of an account, and lets its sessions say whether there is one.
    fn change_backlog<T>(
        &self,
        account: AccountKey<'_>,
        change: impl FnOnce(&mut Backlog<C>) -> T,
    ) -> T {
        let shard = self.table.shard(account).write();
        let (changed, is_behind) = self.backlogs.change(account.bare, change);
        if let Some(row) = shard.find(account.hash.wide(), |row| row.is(account)) {
            row.set_behind(is_behind);
        }
        changed
    }

    /// Puts in what a session leaves whose end was just decided, under the lock of its shard.
    pub(super) fn put_left(&self, row: &Row<C>, shared: &Arc<Shared<C>>, left: Vec<Left>) {
        if left.is_empty() {
            return;
        }
        let left = left.into_iter().map(|left| (Arc::clone(shared), left));
        let account = row.account.bare.as_str();
        let ((), is_behind) = self.backlogs.change(account, |backlog| backlog.left.extend(left));
        row.set_behind(is_behind);
    }

    /// The same for what an end has failed to write.
    pub(super) fn leave_strays(&self, shared: &Arc<Shared<C>>, left: Vec<Left>) {
        let left = left.into_iter().map(|left| (Arc::clone(shared), left));
        self.change_backlog(self.table.key(bare_of_full(&shared.jid)), |backlog| {
            backlog.left.extend(left)
        });
        self.settle_left(shared);
    }

    /// Has what ended sessions of an account left taken care of.
    pub(super) fn settle_left(&self, shared: &Shared<C>) {
        let account = &shared.account.bare;
        if let Some(hook) = &self.settings.backlog {
            self.shielded(HostCode::Extension, Some(account), || hook(account));
            return;
        }
        while let Some((left, place)) = self.take_left(self.table.key(account.as_str())) {
            left.into_iter().for_each(|leftover| self.leave(leftover));
            self.give_up(place);
        }
    }

    /// Takes out what ended sessions of an account have left, with a place in its order.
    fn take_left(&self, account: AccountKey<'_>) -> Option<(Vec<Leftover>, Taken)> {
        let environment = &self.settings.environment;
        let clocks = (environment.now(), environment.utc());
        let left = self.change_backlog(account, |backlog| {
            backlog.queued += usize::from(!backlog.left.is_empty());
            std::mem::take(&mut backlog.left)
        });
        if left.is_empty() {
            return None;
        }
        let leftover = |(shared, left): (Arc<Shared<C>>, Left)| left.into_leftover(&shared, clocks);
        Some((left.into_iter().filter_map(leftover).collect(), Taken(account.bare.into())))
    }

    fn give_up(&self, place: Taken) {
        let account = self.table.key(&place.0);
        self.change_backlog(account, |backlog| backlog.queued = backlog.queued.saturating_sub(1));
    }
}

/// The account in whose order a place was taken.
struct Taken(Box<str>);
