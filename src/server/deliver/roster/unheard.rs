//! Roster changes that a block hides, to be shown when it ends (BLOCK-9).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jid::BareJid;

use super::transaction::Change;
use crate::connection::SharedConnection;
use crate::server::Core;
use crate::session::AccountState;
use crate::sync::common::Mutex;

/// Items that are remembered for all accounts together: a client sees others at its next roster get.
const MOST: usize = 8192;

/// Changed items, by the account that keeps the two from hearing of each other.
#[derive(Default)]
pub(crate) struct Unheard(Mutex<HashMap<BareJid, BTreeSet<Item>>>);

/// Whose roster has changed, and the contact.
type Item = (BareJid, BareJid);

impl Unheard {
    pub(super) fn add(&self, by: BareJid, account: BareJid, contact: BareJid) {
        let mut all = self.0.lock();
        if all.values().map(BTreeSet::len).sum::<usize>() < MOST {
            all.entry(by).or_default().insert((account, contact));
        }
    }

    /// Takes out those of an account about others who are `heard` again. No lock is held while it asks.
    fn take(&self, by: &BareJid, heard: impl Fn(&BareJid) -> bool) -> BTreeSet<Item> {
        let Some(items) = self.0.lock().remove(by) else { return BTreeSet::new() };
        let is_heard =
            |(account, contact): &Item| heard(if account == by { contact } else { account });
        let (shown, kept): (BTreeSet<_>, BTreeSet<_>) = items.into_iter().partition(is_heard);
        if !kept.is_empty() {
            self.0.lock().entry(by.clone()).or_default().extend(kept);
        }
        shown
    }
}

impl<C: SharedConnection> Core<C> {
    /// An extension has changed what it keeps for an account: accounts that may hear of each other again
    /// are shown what has changed meanwhile.
    pub(in crate::server::deliver) fn show_unheard(self: &Arc<Self>, account: &BareJid) {
        let Some(row) = self.registry.account(self.registry.key(account.as_str())) else { return };
        let state = AccountState(row);
        let heard = |other: &BareJid| !self.is_hidden(&state, other.as_str());
        for (account, contact) in self.unheard.take(account, heard) {
            let core = Arc::clone(self);
            self.jobs.spawn(Box::pin(async move {
                // A store that fails leaves it to the next roster get.
                let _shown = core.change_roster(account, contact, Change::Show, None, || ()).await;
            }));
        }
    }
}
