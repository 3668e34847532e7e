//! Sessions that wait to be resumed, and what is remembered of those that waited in vain.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use smallvec::SmallVec;

use crate::connection::SharedConnection;
use crate::environment::Nanos;
use crate::session::handle::{SessionId, Shared};
use crate::session::outbound::RetentionLimits;

/// Sessions without a transport, by the end of their wait and by what is kept for them.
pub(crate) struct Hibernating<C: SharedConnection> {
    waits: BTreeMap<SessionId, Wait<C>>,
    by_end: BTreeSet<(Nanos, SessionId)>,
    /// What is kept for each account in all.
    by_weight: BTreeSet<(usize, AccountId)>,
    accounts: HashMap<AccountId, Keeps>,
    bytes: usize,
}

struct Wait<C: SharedConnection> {
    since: Nanos,
    until: Nanos,
    account: AccountId,
    bytes: usize,
    session: Weak<Shared<C>>,
}

/// The address of what the sessions of an account share: its own as long as one of them is here.
type AccountId = usize;

/// The hibernating sessions of one account for which something is kept.
#[derive(Default)]
struct Keeps {
    bytes: usize,
    sessions: SmallVec<[SessionId; 2]>,
}

impl<C: SharedConnection> Default for Hibernating<C> {
    fn default() -> Self {
        Self {
            waits: BTreeMap::new(),
            by_end: BTreeSet::new(),
            by_weight: BTreeSet::new(),
            accounts: HashMap::new(),
            bytes: 0,
        }
    }
}

impl<C: SharedConnection> Hibernating<C> {
    /// A session that weighs nothing yet.
    pub(crate) fn insert(&mut self, session: &Arc<Shared<C>>, since: Duration, until: Duration) {
        let (since, until) = (since.into(), until.into());
        let account = Arc::as_ptr(&session.account).addr();
        let wait = Wait { since, until, account, bytes: 0, session: Arc::downgrade(session) };
        self.by_end.insert((until, session.id));
        self.waits.insert(session.id, wait);
    }

    /// It stands still: its wait has no end and it is not ended for its weight.
    #[cfg(feature = "cluster")]
    pub(super) fn hold(&mut self, id: SessionId) {
        self.weigh(id, 0);
        if let Some(wait) = self.waits.get(&id) {
            self.by_end.remove(&(wait.until, id));
        }
    }

    /// It goes on, after it has stood for so long.
    #[cfg(feature = "cluster")]
    pub(super) fn go_on(&mut self, id: SessionId, stood: Duration) {
        let Some(wait) = self.waits.get_mut(&id) else { return };
        if !self.by_end.contains(&(wait.until, id)) {
            wait.until = Duration::from(wait.until).saturating_add(stood).into();
            self.by_end.insert((wait.until, id));
        }
    }

    /// Since when a session waits, and until when.
    #[cfg(feature = "cluster")]
    pub(super) fn times(&self, id: SessionId) -> Option<(Duration, Duration)> {
        self.waits.get(&id).map(|wait| (wait.since.into(), wait.until.into()))
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Weak<Shared<C>>> {
        self.weigh(id, 0);
        let wait = self.waits.remove(&id)?;
        self.by_end.remove(&(wait.until, id));
        Some(wait.session)
    }

    pub(crate) fn weigh(&mut self, id: SessionId, bytes: usize) {
        let Some(wait) = self.waits.get_mut(&id).filter(|wait| wait.bytes != bytes) else { return };
        let before = std::mem::replace(&mut wait.bytes, bytes);
        let keeps = self.accounts.entry(wait.account).or_default();
        self.by_weight.remove(&(keeps.bytes, wait.account));
        if before == 0 {
            keeps.sessions.push(id);
        } else if bytes == 0 {
            keeps.sessions.retain(|other| *other != id);
        }
        keeps.bytes = keeps.bytes.saturating_add(bytes).saturating_sub(before);
        self.bytes = self.bytes.saturating_add(bytes).saturating_sub(before);
        if keeps.sessions.is_empty() {
            self.accounts.remove(&wait.account);
        } else {
            self.by_weight.insert((keeps.bytes, wait.account));
        }
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when a session waits; `None` where it does not, or was taken out to be ended.
    pub(crate) fn since(&self, id: SessionId) -> Option<Duration> {
        self.waits.get(&id).map(|wait| wait.since.into())
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.by_end.first().map(|(until, _)| Duration::from(*until))
    }

    /// Takes out a session whose wait has ended.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Weak<Shared<C>>> {
        let (_, id) = self.by_end.first().filter(|(until, _)| *until <= now.into())?;
        self.remove(*id)
    }

    /// Takes out the heaviest session of the account that most is kept for, of equals the oldest, if it is
    /// anything.
    pub(crate) fn pop_heaviest(&mut self) -> Option<Weak<Shared<C>>> {
        let (_, account) = self.by_weight.last()?;
        let weight = |id: &&SessionId| {
            let wait = self.waits.get(id)?;
            Some((wait.bytes, Reverse(wait.since), **id))
        };
        let id = *self.accounts.get(account)?.sessions.iter().max_by_key(weight)?;
        self.remove(id)
    }
}

/// The last `h` of sessions that can no longer be resumed (SM-13, LIMIT-12).
#[derive(Default)]
pub(crate) struct Remembered {
    accounts: HashMap<Box<str>, SmallVec<[Memo; 1]>>,
    /// When whose memo is to be forgotten, soonest first.
    order: VecDeque<(Duration, Box<str>)>,
}

struct Memo {
    token: String,
    handled: u32,
    until: Duration,
}

/// As many for all accounts together, whatever the limit of each.
const MOST: usize = 1 << 16;

impl Remembered {
    pub(crate) fn keep(
        &mut self,
        account: &str,
        token: String,
        handled: u32,
        now: Duration,
        limits: &RetentionLimits,
    ) {
        if limits.remembered == 0 {
            return;
        }
        self.forget(now);
        self.put(account, token, handled, now.saturating_add(limits.remembered_for), limits);
    }

    pub(super) fn put(
        &mut self,
        account: &str,
        token: String,
        handled: u32,
        until: Duration,
        limits: &RetentionLimits,
    ) {
        let memos = self.accounts.entry(account.into()).or_default();
        memos.push(Memo { token, handled, until });
        if memos.len() > limits.remembered {
            memos.remove(0);
        }
        // What has come from elsewhere is not the latest.
        let at = self.order.partition_point(|(other, _)| *other <= until);
        self.order.insert(at, (until, account.into()));
        while self.order.len() > MOST {
            self.forget_first();
        }
    }

    pub(crate) fn recall(&self, account: &str, token: &str, now: Duration) -> Option<u32> {
        let mut known = self.accounts.get(account)?.iter().filter(|memo| now < memo.until).rev();
        let found = known.find(|memo| is_same(&memo.token, token));
        found.map(|memo| memo.handled)
    }

    /// Forgets what is too old. It has no deadline of its own: nobody needs to wake up for it.
    pub(crate) fn forget(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }

    /// What is remembered of these accounts: account, resumption id, `h`, until when. The oldest first.
    #[cfg(feature = "cluster")]
    pub(super) fn of(&self, which: super::Which<'_>) -> Vec<(Box<str>, String, u32, Duration)> {
        let those = self.accounts.iter().filter(|(account, _)| which.has(account));
        let memos = those.flat_map(|(account, memos)| {
            let of = |memo: &Memo| (account.clone(), memo.token.clone(), memo.handled, memo.until);
            memos.iter().map(of)
        });
        let mut memos: Vec<_> = memos.collect();
        memos.sort_by_key(|(.., until)| *until);
        memos
    }

    #[cfg(feature = "cluster")]
    pub(super) fn forget_those(&mut self, which: super::Which<'_>) {
        // Of whom nothing is remembered nothing is forgotten, when it is due.
        self.accounts.retain(|account, _| !which.has(account));
    }

    #[cfg(all(test, not(any(loom_model, shuttle))))]
    pub(crate) fn len(&self) -> usize {
        self.accounts.len()
    }

    fn forget_first(&mut self) {
        let Some((until, account)) = self.order.pop_front() else { return };
        let Some(memos) = self.accounts.get_mut(&account) else { return };
        memos.retain(|memo| memo.until > until);
        if memos.is_empty() {
            self.accounts.remove(&account);
        }
    }
}

/// Compared in constant time (SEC-1): how much of a guess was right cannot be measured.
pub(super) fn is_same(ours: &str, theirs: &str) -> bool {
    let (ours, theirs) = (ours.as_bytes(), theirs.as_bytes());
    let differences = ours.iter().zip(theirs).fold(0, |sum, (a, b)| sum | (a ^ b));
    ours.len() == theirs.len() && differences == 0
}
