//! What everybody may ask of a node at any time: whether it may act, and for whom.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jid::BareJid;
use parking_lot::RwLock;

use crate::cluster::{SLOTS, Slot, View};
use crate::store::{Fence, FenceToken, FenceTokens};

pub(in crate::server) struct Placement {
    /// In nanoseconds of the node's clock; zero before it may act at all.
    deadline: AtomicU64,
    fenced: AtomicBool,
    served: Box<[AtomicBool]>,
    /// The view in which each slot came here.
    tokens: RwLock<Box<[Option<View>]>>,
}

impl Placement {
    pub(in crate::server) fn new() -> Self {
        Self {
            deadline: AtomicU64::new(0),
            fenced: AtomicBool::new(false),
            served: (0..SLOTS).map(|_| AtomicBool::new(false)).collect(),
            tokens: RwLock::new(vec![None; SLOTS.into()].into()),
        }
    }

    /// NODE-1. The clock is asked before anything else.
    pub(in crate::server) fn may_act(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        now < self.deadline.load(Ordering::Acquire) && !self.is_fenced()
    }

    pub(super) fn is_member(&self, now: Duration) -> bool {
        self.may_act(now)
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// Whether an account, or a domain, acts here. Our domains are everywhere.
    pub(in crate::server) fn is_here(&self, bare: &str) -> bool {
        !bare.contains('@') || self.is_served(Slot::of(bare))
    }

    pub(super) fn is_served(&self, slot: Slot) -> bool {
        self.served.get(slot.index()).is_some_and(|served| served.load(Ordering::Acquire))
    }

    pub(super) fn slots(&self) -> usize {
        self.served.iter().filter(|served| served.load(Ordering::Relaxed)).count()
    }

    pub(super) fn set_deadline(&self, until: Option<Duration>) {
        let until = until.map_or(0, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        self.deadline.store(until, Ordering::Release);
    }

    pub(super) fn fence(&self) {
        self.fenced.store(true, Ordering::Release);
        self.served.iter().for_each(|served| served.store(false, Ordering::Release));
    }

    pub(super) fn set_served(&self, slot: Slot, is_served: bool) {
        if let Some(served) = self.served.get(slot.index()) {
            served.store(is_served, Ordering::Release);
        }
    }

    /// In which view a slot came here; `None`: it is not here.
    pub(super) fn set_token(&self, slot: Slot, token: Option<View>) {
        if let Some(known) = self.tokens.write().get_mut(slot.index()) {
            *known = token;
        }
    }
}

impl FenceTokens for Placement {
    fn fence(&self, account: &BareJid) -> Option<Fence> {
        let slot = Slot::of(account.as_str());
        let token = self.tokens.read().get(slot.index()).copied().flatten()?;
        Some(fence(slot, token))
    }
}

pub(super) const fn fence(slot: Slot, token: View) -> Fence {
    Fence { slot: slot.0, token: FenceToken { term: token.term, number: token.number } }
}
