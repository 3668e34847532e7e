//! The backlog as the account's chain of jobs works it off.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use jid::BareJid;

use super::{Backlog, Taken};
use crate::connection::SharedConnection;
use crate::session::handle::SessionHandle;
use crate::session::registry::SessionRegistry;
use crate::session::registry::end::Leftover;
use crate::session::registry::shared::Inner;
use crate::session::registry::table::AccountKey;
use crate::stanza::Stanza;

/// A place in the order of an account: while it is held, no message passes it.
#[must_use = "holds back what arrives later"]
pub(crate) struct Place<C: SharedConnection> {
    registry: Weak<Inner<C>>,
    taken: Option<Taken>,
}

impl<C: SharedConnection> Drop for Place<C> {
    fn drop(&mut self) {
        if let Some((registry, taken)) = self.registry.upgrade().zip(self.taken.take()) {
            registry.give_up(taken);
        }
    }
}

impl<C: SharedConnection> SessionRegistry<C> {
    /// Takes a place in the order of an account, for a message that goes to its chain.
    pub(crate) fn queue_up(&self, account: AccountKey<'_>) -> Place<C> {
        self.inner().change_backlog(account, |backlog| backlog.queued += 1);
        self.place(Taken(account.bare.into()))
    }

    fn place(&self, taken: Taken) -> Place<C> {
        Place { registry: Arc::downgrade(self.inner()), taken: Some(taken) }
    }

    /// What ended sessions of an account have left, in order. To be called on its chain, before
    /// anything else is delivered there.
    pub(crate) fn left_behind(&self, account: &BareJid) -> Option<(Vec<Leftover>, Place<C>)> {
        if !self.inner().backlogs.has(account.as_str()) {
            return None;
        }
        let (left, taken) = self.inner().take_left(self.key(account.as_str()))?;
        Some((left, self.place(taken)))
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
