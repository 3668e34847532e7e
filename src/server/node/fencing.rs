//! NODE-1 and NODE-2: who asks the clock, and what ends when it is too late.

use std::time::{Duration, SystemTime};

use jid::BareJid;

use super::letter::Tale;
use super::{Clustered, Command};
use crate::connection::{Close, SharedConnection};
use crate::server::driver::admission::{BarNumber, Dismissal};
use crate::server::{Core, FaultKind, PeerAddress};
use crate::stream::StreamError;

impl<C: SharedConnection> Core<C> {
    /// NODE-1: whether input may be taken. Asked before anything is looked at.
    #[inline]
    pub(in crate::server) fn may_act(&self) -> bool {
        let Some(node) = &self.node else { return true };
        node.placement.may_act() || self.is_not_late(node)
    }

    /// The same of work that has begun, or is the host's: before the node is a member there is none of its accounts.
    #[inline]
    pub(in crate::server) fn goes_on(&self) -> bool {
        let Some(node) = &self.node else { return true };
        node.placement.may_act() || !self.is_late(node)
    }

    #[cold]
    fn is_late(&self, node: &Clustered<C>) -> bool {
        let is_late = node.placement.is_late();
        if is_late {
            self.fence(false);
        }
        is_late
    }

    /// A member that is late is fenced; before it is one it takes no input either.
    #[cold]
    fn is_not_late(&self, node: &Clustered<C>) -> bool {
        let _fenced = self.is_late(node);
        false
    }

    /// NODE-2: all sessions end, and nobody but their clients hears of it. `has_left`: that was meant to be.
    pub(super) fn fence(&self, has_left: bool) {
        let Some(node) = &self.node else { return };
        if !node.placement.fence() {
            return;
        }
        self.registry.forget(&|_: &str| true, Some(Close::Abort));
        // Whoever drives it is to notice.
        node.inbox.put(Command::Timeout);
        if !has_left {
            self.faults.tell(FaultKind::Fenced, &PeerAddress::UNKNOWN, None);
        }
    }

    /// Ends what streams without a session have proved to be this account, at every other node, and no stream that has
    /// begun before may do so for so long.
    pub(in crate::server) fn bar_elsewhere(
        &self,
        account: &BareJid,
        error: &StreamError,
        time: (Duration, BarNumber),
    ) {
        self.tell_barred(account, error, time, true);
    }

    /// The same of those that have done so by now.
    pub(in crate::server) fn dismiss_elsewhere(
        &self,
        account: &BareJid,
        error: &StreamError,
        within: (Duration, BarNumber),
    ) {
        self.tell_barred(account, error, within, false);
    }

    fn tell_barred(
        &self,
        account: &BareJid,
        error: &StreamError,
        time: (Duration, BarNumber),
        is_for_all: bool,
    ) {
        if let Some(node) = &self.node {
            let (account, error) = (account.clone(), error.clone());
            let tale = Tale::Barred { account, error, time, is_for_all };
            node.inbox.put(Command::TellAll(tale.encode()));
        }
    }

    /// The tokens of an account that were issued before end now, at every node, whatever the store does.
    pub(in crate::server) fn tell_voided(&self, account: &BareJid, since: SystemTime) {
        if let Some(node) = &self.node {
            let one = (account.clone(), since);
            node.note_voided(one.clone());
            node.inbox.put(Command::TellAll(Tale::Voided(vec![one]).encode()));
        }
    }

    /// What another node has [said](Self::tell_voided).
    pub(super) fn voided(&self, node: &Clustered<C>, those: Vec<(BareJid, SystemTime)>) {
        for (account, since) in those {
            if !self.is_voided(&account, since) {
                self.voided.lock().insert(account.as_str(), since);
                node.note_voided((account, since));
            }
        }
    }

    /// What another node has [said](Self::bar_elsewhere).
    pub(super) fn barred(
        &self,
        account: &BareJid,
        error: StreamError,
        (time, number): (Duration, BarNumber),
        is_for_all: bool,
    ) {
        let dismissal = Dismissal::from(error);
        match is_for_all {
            true => self.ledger.bar(account, dismissal, Some(time), number),
            false => self.ledger.dismiss_coming(account, &dismissal, (time, number)),
        }
    }
}
