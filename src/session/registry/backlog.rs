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

use std::collections::VecDeque;
use std::hash::RandomState;
#[cfg(feature = "server")]
use std::sync::Arc;
use std::sync::Weak;

use hashbrown::HashMap;
#[cfg(feature = "server")]
use jid::BareJid;
use jid::FullJid;

#[cfg(feature = "server")]
use super::SessionRegistry;
use super::end::Leftover;
use super::inner::Inner;
use super::rows::Row;
use super::table::AccountKey;
use crate::address::bare_of_full;
use crate::connection::SharedConnection;
#[cfg(feature = "server")]
use crate::session::account::Account;
use crate::session::handle::{BEHIND, SessionHandle, SessionId, Shared};
use crate::session::outbound::Left;
use crate::shield::HostCode;
#[cfg(feature = "server")]
use crate::stanza::Stanza;
use crate::sync::Padded;
use crate::sync::atomic::Ordering;
use crate::sync::common::{AtomicUsize, Mutex};

/// The accounts that have a backlog. A leaf lock.
pub(super) struct Backlogs<C: SharedConnection> {
    accounts: Padded<Mutex<HashMap<String, Backlog<C>, RandomState>>>,
    /// How many they are: most of the time none.
    count: Padded<AtomicUsize>,
}

struct Backlog<C: SharedConnection> {
    /// What ended sessions have left, in order.
    left: VecDeque<(Heirless, Left)>,
    /// Sessions that are to get what the store has.
    recipients: VecDeque<SessionHandle<C>>,
    /// Messages on the account's chain.
    queued: usize,
}

/// The session that has left something. (Not itself: what the registry keeps does not keep the registry.)
#[derive(Clone)]
struct Heirless {
    jid: FullJid,
    id: SessionId,
    #[cfg(feature = "server")]
    account: Arc<Account>,
}

impl Heirless {
    fn of<C: SharedConnection>(session: &Shared<C>) -> Self {
        Self {
            jid: session.jid.clone(),
            id: session.id,
            #[cfg(feature = "server")]
            account: Arc::clone(&session.account),
        }
    }
}

impl<C: SharedConnection> Backlog<C> {
    fn is_empty(&self) -> bool {
        self.left.is_empty() && self.recipients.is_empty() && self.queued == 0
    }
}

impl<C: SharedConnection> Backlogs<C> {
    pub(super) fn new() -> Self {
        Self { accounts: Padded::new(Mutex::new(HashMap::default())), count: Padded::default() }
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

    /// The registry is over: what its last jobs have not given any more is given to nobody. Returned to be dropped
    /// without the lock.
    pub(super) fn forget_recipients(&self) -> Vec<SessionHandle<C>> {
        let mut accounts = self.accounts.lock();
        accounts.values_mut().flat_map(|backlog| std::mem::take(&mut backlog.recipients)).collect()
    }

    /// Whether nothing of these accounts is about to be delivered.
    #[cfg(feature = "cluster")]
    pub(super) fn is_quiet(&self, which: super::Which<'_>) -> bool {
        let is_quiet = |backlog: &Backlog<C>| backlog.left.is_empty() && backlog.queued == 0;
        let accounts = self.accounts.lock();
        accounts.iter().all(|(account, backlog)| is_quiet(backlog) || !which.has(account))
    }

    /// Who is about to get what the store has for an account, which has failed.
    #[cfg(feature = "cluster")]
    pub(super) fn recipients(&self, account: &str) -> Vec<SessionId> {
        let ids = |backlog: &Backlog<C>| backlog.recipients.iter().map(SessionHandle::id).collect();
        self.look(account, ids).unwrap_or_default()
    }

    #[cfg(feature = "cluster")]
    pub(super) fn forget(&self, which: super::Which<'_>) {
        let mut accounts = self.accounts.lock();
        let gone: Vec<_> = accounts.extract_if(|account, _| which.has(account)).collect();
        self.count.store(accounts.len(), Ordering::SeqCst);
        drop(accounts);
        drop(gone);
    }

    /// Changes the backlog of an account; whether there is one then.
    fn change<T>(&self, account: &str, change: impl FnOnce(&mut Backlog<C>) -> T) -> (T, bool) {
        let mut accounts = self.accounts.lock();
        let none = || Backlog { left: VecDeque::new(), recipients: VecDeque::new(), queued: 0 };
        let backlog = accounts.entry_ref(account).or_insert_with(none);
        let changed = change(backlog);
        let is_behind = !backlog.is_empty();
        if !is_behind {
            accounts.remove(account);
        }
        self.count.store(accounts.len(), Ordering::SeqCst);
        (changed, is_behind)
    }
}

impl<C: SharedConnection> Row<C> {
    fn set_behind(&self, is_behind: bool) {
        self.slots.as_slice().iter().for_each(|slot| slot.session.set(BEHIND, is_behind));
    }
}

impl<C: SharedConnection> Inner<C> {
    /// Changes the backlog of an account, and lets its sessions say whether there is one.
    fn change_backlog<T>(
        &self,
        account: AccountKey<'_>,
        change: impl FnOnce(&mut Backlog<C>) -> T,
    ) -> T {
        let shard = self.table.write(account);
        let (changed, is_behind) = self.backlogs.change(account.bare, change);
        if let Some(row) = shard.find(account.hash.wide(), |row| row.is(account)) {
            row.set_behind(is_behind);
        }
        changed
    }

    /// Puts in what a session leaves whose end was just decided, under the lock of its shard.
    pub(super) fn put_left(&self, row: &Row<C>, shared: &Shared<C>, left: Vec<Left>) {
        if left.is_empty() {
            return;
        }
        let gone = Heirless::of(shared);
        let left = left.into_iter().map(|left| (gone.clone(), left));
        let account = row.account.bare.as_str();
        let ((), is_behind) = self.backlogs.change(account, |backlog| backlog.left.extend(left));
        row.set_behind(is_behind);
    }

    /// The same for what an end has failed to write.
    pub(super) fn leave_strays(&self, shared: &Shared<C>, left: Vec<Left>) {
        if left.is_empty() {
            return;
        }
        let gone = Heirless::of(shared);
        let left = left.into_iter().map(|left| (gone.clone(), left));
        let account = self.table.key(bare_of_full(&shared.jid));
        self.change_backlog(account, |backlog| backlog.left.extend(left));
        self.settle_left(shared);
    }

    /// Has what ended sessions of an account left taken care of.
    pub(super) fn settle_left(&self, shared: &Shared<C>) {
        let account = &shared.account.bare;
        if let Some(hook) = &self.settings.backlog {
            self.shielded(HostCode::Extension, Some(account), || hook(account));
            return;
        }
        while let Some((left, _place)) = self.take_left(self.table.key(account.as_str())) {
            left.into_iter().for_each(|leftover| self.leave(leftover));
        }
    }

    /// Takes out what ended sessions of an account have left, with a place in its order.
    fn take_left(&self, account: AccountKey<'_>) -> Option<(Vec<Leftover>, Place<C>)> {
        let environment = &self.settings.environment;
        let clocks = (environment.now(), environment.utc());
        let left = self.change_backlog(account, |backlog| {
            backlog.queued += usize::from(!backlog.left.is_empty());
            std::mem::take(&mut backlog.left)
        });
        if left.is_empty() {
            return None;
        }
        let leftover = |(gone, left): (Heirless, Left)| {
            #[cfg(feature = "server")]
            let copies = left.copies().cloned();
            let leftover = left.into_leftover((&gone.jid, gone.id), clocks);
            #[cfg(feature = "server")]
            if let Some(copies) = copies.filter(|it| leftover.is_none() && it.begins_to_wait()) {
                self.tell_waits(&gone.account, copies.message());
            }
            leftover
        };
        Some((left.into_iter().filter_map(leftover).collect(), self.place_of(account)))
    }

    /// A place that was counted.
    fn place_of(&self, account: AccountKey<'_>) -> Place<C> {
        Place { inner: Weak::clone(&self.me), account: account.bare.into() }
    }
}

/// A place in the order of an account: while it is held, no message passes it.
#[must_use = "holds back what arrives later"]
pub(crate) struct Place<C: SharedConnection> {
    inner: Weak<Inner<C>>,
    account: Box<str>,
}

impl<C: SharedConnection> Drop for Place<C> {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else { return };
        let account = inner.table.key(&self.account);
        inner.change_backlog(account, |backlog| backlog.queued = backlog.queued.saturating_sub(1));
    }
}

/// The backlog as the account's chain of jobs works it off.
#[cfg(feature = "server")]
impl<C: SharedConnection> SessionRegistry<C> {
    /// Takes a place in the order of an account, for a message that goes to its chain.
    pub(crate) fn queue_up(&self, account: AccountKey<'_>) -> Place<C> {
        self.inner().change_backlog(account, |backlog| backlog.queued += 1);
        self.inner().place_of(account)
    }

    /// What ended sessions of an account have left, in order. To be called on its chain, before
    /// anything else is delivered there.
    pub(crate) fn left_behind(&self, account: &BareJid) -> Option<(Vec<Leftover>, Place<C>)> {
        if !self.inner().backlogs.has(account.as_str()) {
            return None;
        }
        self.inner().take_left(self.key(account.as_str()))
    }

    /// Drops what ended sessions of an account have left and `is_unwanted`.
    pub(in crate::session) fn take_out_left(
        &self,
        account: &str,
        is_unwanted: impl Fn(&Stanza) -> bool,
    ) {
        if !self.inner().backlogs.has(account) {
            return;
        }
        // Dropped without the lock.
        let unwanted: VecDeque<_> = self.inner().change_backlog(self.key(account), |backlog| {
            let left = std::mem::take(&mut backlog.left).into_iter();
            let (unwanted, rest) = left.partition(|(_, left)| is_unwanted(left.message()));
            backlog.left = rest;
            unwanted
        });
        unwanted.into_iter().for_each(|(_, left)| left.forget());
    }

    /// A session is about to become one that gets what the store has for its account. To be called
    /// before others can find it as such.
    pub(crate) fn expect_stored(&self, session: &SessionHandle<C>) {
        let account = self.key(session.0.account.bare.as_str());
        self.inner().change_backlog(account, |backlog| {
            if !backlog.recipients.contains(session) {
                backlog.recipients.push_back(session.clone());
            }
        });
    }

    /// Whether something comes before what is on the account's chain.
    pub(crate) fn has_waiting(&self, account: &str) -> bool {
        let waits = |b: &Backlog<C>| !b.left.is_empty() || !b.recipients.is_empty();
        self.inner().backlogs.look(account, waits) == Some(true)
    }

    /// Whether ended sessions of an account have left something.
    pub(crate) fn has_left(&self, account: &BareJid) -> bool {
        let left = |backlog: &Backlog<C>| !backlog.left.is_empty();
        self.inner().backlogs.look(account.as_str(), left) == Some(true)
    }

    /// The next session that is to get what the store has for an account.
    pub(crate) fn recipient(&self, account: &str) -> Option<SessionHandle<C>> {
        self.inner().backlogs.look(account, |backlog| backlog.recipients.front().cloned())?
    }

    /// A session has got what the store had, or is to get nothing.
    pub(crate) fn stored_given(&self, session: &SessionHandle<C>) {
        let account = self.key(session.0.account.bare.as_str());
        // Dropped without the lock.
        let _handle = self.inner().change_backlog(account, |backlog| {
            let at = backlog.recipients.iter().position(|recipient| recipient == session)?;
            backlog.recipients.remove(at)
        });
    }
}
