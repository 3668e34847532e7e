//! When an account was there last: for most, and for those it hides from (PRES-15, BLOCK-10).

#[cfg(feature = "cluster")]
use std::collections::HashSet;
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
    /// Whose `gone` may move to another node, by name.
    #[cfg(feature = "cluster")]
    names: Option<Names>,
}

/// The names seen last, in bounded memory.
#[cfg(feature = "cluster")]
#[derive(Default)]
struct Names {
    young: HashSet<Box<str>>,
    old: HashSet<Box<str>>,
}

#[derive(Clone, Copy)]
enum Frozen {
    /// Since it is hidden from: the account looks as if it had been away since then.
    At(Option<SystemTime>),
    /// No longer.
    #[cfg(feature = "server")]
    No,
}

impl Seen {
    /// `moves`: its accounts may move to other nodes.
    #[cfg_attr(not(feature = "cluster"), expect(unused_variables, reason = "there are none"))]
    pub(super) fn new(moves: bool) -> Self {
        Self {
            gone: Recent::new(REMEMBERED),
            frozen: Recent::new(REMEMBERED),
            #[cfg(feature = "cluster")]
            names: moves.then(Names::default),
        }
    }

    fn went(&mut self, account: &str, at: SystemTime) {
        self.gone.insert(account, at);
        #[cfg(feature = "cluster")]
        if let Some(names) = self.names.as_mut().filter(|names| !names.young.contains(account)) {
            if names.young.len() >= REMEMBERED {
                names.old = std::mem::take(&mut names.young);
            }
            names.young.insert(account.into());
        }
    }

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

    /// As when those in its roster see an account, whom it hides from.
    #[cfg(feature = "cluster")]
    pub(super) fn hidden_from(
        &self,
        account: &Arc<Account>,
        roster: &Roster,
    ) -> Vec<(String, Option<SystemTime>)> {
        let of = |jid: &str| {
            let full = self.hidden_resources(account, jid).into_iter();
            let full = full.map(move |resource| format!("{jid}/{resource}"));
            [jid.to_owned()].into_iter().chain(full).collect::<Vec<_>>()
        };
        let jids: Vec<_> = roster.iter().flat_map(|item| of(item.jid())).collect();
        let (bare, seen) = (account.bare.as_str(), self.seen.lock());
        let frozen = |jid: String| seen.frozen(bare, &jid).map(|at| (jid, at));
        jids.into_iter().filter_map(frozen).collect()
    }

    /// When those of these accounts were there last that were here lately.
    #[cfg(feature = "cluster")]
    pub(super) fn gone_of(&self, which: super::Which<'_>) -> Vec<(Box<str>, SystemTime)> {
        let seen = self.seen.lock();
        let names = seen.names.iter().flat_map(|names| names.old.union(&names.young));
        let those = names.filter(|name| which.has(name));
        those.filter_map(|name| Some((name.clone(), seen.gone.get(&**name)?))).collect()
    }

    #[cfg(feature = "cluster")]
    pub(super) fn remember_gone(&self, account: &str, at: SystemTime) {
        self.seen.lock().went(account, at);
    }

    #[cfg(feature = "cluster")]
    pub(super) fn forget_gone(&self, which: super::Which<'_>) {
        let mut seen = self.seen.lock();
        let Seen { gone, names, .. } = &mut *seen;
        for names in names.iter_mut().flat_map(|names| [&mut names.young, &mut names.old]) {
            names.extract_if(|name| which.has(name)).for_each(|name| gone.remove(&*name));
        }
    }

    /// An available session of the account has just gone.
    pub(super) fn left_now(&self, account: &Arc<Account>, roster: &Roster) {
        let bare = account.bare.as_str();
        if self.hides_any(account).is_some() {
            let before = self.last_gone(bare);
            self.freeze_hidden(account, roster.subscribers().map(|entry| entry.jid()), before);
        }
        let at = self.settings.environment.utc();
        self.seen.lock().went(bare, at);
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
