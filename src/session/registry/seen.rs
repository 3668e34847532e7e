//! When an account was there last: for most, and for those it hides from (PRES-15, BLOCK-10).

use std::sync::Arc;
use std::time::SystemTime;

use super::inner::Inner;
use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::recent::Recent;
use crate::rules::roster::Roster;
use crate::session::account::Account;

/// Accounts, and those whom they hide from, that are remembered: half a megabyte of each at most.
const REMEMBERED: usize = 8192;

/// When the accounts were there last.
pub(super) struct Seen {
    /// An available session of the account last went.
    gone: Recent<SystemTime>,
    /// What somebody else sees in its place, by account and JID.
    frozen: Recent<Frozen>,
}

#[derive(Clone, Copy)]
enum Frozen {
    /// Since it is hidden from: the account looks as if it had been away since then.
    At(Option<SystemTime>),
    /// No longer.
    #[cfg(feature = "server")]
    No,
}

impl Default for Seen {
    fn default() -> Self {
        Self { gone: Recent::new(REMEMBERED), frozen: Recent::new(REMEMBERED) }
    }
}

impl Seen {
    fn frozen(&self, account: &str, jid: &str) -> Option<Option<SystemTime>> {
        // As on most servers.
        if self.frozen.is_empty() {
            return None;
        }
        match self.frozen.get(&(account, jid)) {
            Some(Frozen::At(at)) => Some(at),
            _ => None,
        }
    }
}

impl<C: SharedConnection> Inner<C> {
    /// When an available session of the account last went.
    pub(super) fn last_gone(&self, account: &str) -> Option<SystemTime> {
        self.seen.lock().gone.get(account)
    }

    /// The same as far as `viewer`, a full JID, may know.
    pub(super) fn seen_last(&self, account: &str, viewer: &str) -> Option<SystemTime> {
        let seen = self.seen.lock();
        let frozen = || [viewer, bare_of(viewer)].into_iter().find_map(|v| seen.frozen(account, v));
        frozen().unwrap_or_else(|| seen.gone.get(account))
    }

    /// An available session of the account has just gone.
    pub(super) fn left_now(&self, account: &Arc<Account>, roster: &Roster) {
        let bare = account.bare.as_str();
        if self.hides_any(account).is_some() {
            let before = self.last_gone(bare);
            self.freeze_hidden(account, roster.subscribers().map(|entry| entry.jid()), before);
        }
        let at = self.settings.environment.utc();
        self.seen.lock().gone.insert(bare, at);
    }

    /// Of these, whom the account hides from sees it as it was at `at`, unless that is settled.
    pub(super) fn freeze_hidden<'a>(
        &self,
        account: &Arc<Account>,
        jids: impl IntoIterator<Item = &'a str>,
        at: Option<SystemTime>,
    ) {
        let bare = account.bare.as_str();
        for jid in jids.into_iter().filter(|jid| self.hides(account, jid)) {
            let mut seen = self.seen.lock();
            let settled = [jid, bare_of(jid)].iter().any(|jid| seen.frozen(bare, jid).is_some());
            if !settled {
                seen.frozen.insert(&(bare, jid), Frozen::At(at));
            }
        }
    }

    /// From now on `jid` sees the account as it was at `at`.
    #[cfg(feature = "server")]
    pub(super) fn freeze(&self, account: &str, jid: &str, at: Option<SystemTime>) {
        self.seen.lock().frozen.insert(&(account, jid), Frozen::At(at));
    }

    /// From now on `jid` sees the account as it is.
    #[cfg(feature = "server")]
    pub(super) fn thaw(&self, account: &str, jid: &str) {
        self.seen.lock().frozen.insert(&(account, jid), Frozen::No);
    }
}
