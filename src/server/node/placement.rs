//! What everybody may ask of a node at any time: whether it may act, and for whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use jid::BareJid;
use parking_lot::RwLock;

use crate::cluster::{SLOTS, Slot, View};
use crate::environment::Environment;
use crate::server::breaks::broken;
use crate::store::{Fence, FenceToken, FenceTokens};

pub(in crate::server) struct Placement {
    /// In nanoseconds of the node's clock; zero before it may act at all.
    deadline: AtomicU64,
    fenced: AtomicBool,
    served: Box<[AtomicBool]>,
    /// How many of these.
    count: AtomicUsize,
    /// For which so much waits that those who send more are to pause.
    pressed: Box<[AtomicBool]>,
    environment: Arc<dyn Environment>,
    /// The view in which each slot came here.
    tokens: RwLock<Box<[Option<View>]>>,
}

impl Placement {
    pub(in crate::server) fn new(environment: Arc<dyn Environment>) -> Self {
        let none = || (0..SLOTS).map(|_| AtomicBool::new(false)).collect();
        Self {
            environment,
            pressed: none(),
            deadline: AtomicU64::new(0),
            fenced: AtomicBool::new(false),
            served: none(),
            count: AtomicUsize::new(0),
            tokens: RwLock::new(vec![None; SLOTS.into()].into()),
        }
    }

    /// NODE-1. The clock is asked before anything else.
    pub(super) fn may_act(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Acquire);
        let is_early = self.now() < deadline || deadline != 0 && broken!(NoDeadline);
        is_early && !self.is_fenced()
    }

    /// Whether it was a member, and may not act any more.
    pub(super) fn is_late(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Acquire);
        self.is_fenced() || deadline != 0 && self.now() >= deadline && !broken!(NoDeadline)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.environment.now().as_nanos()).unwrap_or(u64::MAX)
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
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn set_deadline(&self, until: Option<Duration>) {
        let until = until.map_or(0, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        self.deadline.store(until, Ordering::Release);
    }

    /// Nothing is done here any more; `false` where that was so.
    pub(super) fn fence(&self) -> bool {
        let was_fenced = self.fenced.swap(true, Ordering::AcqRel);
        (0..SLOTS).for_each(|slot| self.set_served(Slot(slot), false));
        !was_fenced
    }

    pub(super) fn is_pressed(&self, slot: Slot) -> bool {
        self.pressed.get(slot.index()).is_some_and(|pressed| pressed.load(Ordering::Relaxed))
    }

    pub(super) fn set_pressed(&self, slot: Slot, is_pressed: bool) {
        if let Some(pressed) = self.pressed.get(slot.index()) {
            pressed.store(is_pressed, Ordering::Relaxed);
        }
    }

    pub(super) fn set_served(&self, slot: Slot, is_served: bool) {
        let Some(served) = self.served.get(slot.index()) else { return };
        match (served.swap(is_served, Ordering::AcqRel), is_served) {
            (false, true) => _ = self.count.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.count.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Whether it lives here, served or not.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.tokens.read().get(slot.index()).is_some_and(Option::is_some)
    }

    /// In which view a slot came here; `None`: it is not here.
    pub(super) fn set_token(&self, slot: Slot, token: Option<View>) {
        if let Some(known) = self.tokens.write().get_mut(slot.index()) {
            if broken!(TokenStays) && known.is_some() {
                return;
            }
            *known = token;
        }
    }
}

impl FenceTokens for Placement {
    fn fence(&self, account: &BareJid) -> Option<Fence> {
        // NODE-1: nor does the store, whatever it would say.
        if self.is_late() {
            return None;
        }
        let slot = Slot::of(account.as_str());
        let token = self.tokens.read().get(slot.index()).copied().flatten()?;
        Some(fence(slot, token))
    }
}

pub(super) const fn fence(slot: Slot, token: View) -> Fence {
    Fence { slot: slot.0, token: FenceToken { term: token.term, number: token.number } }
}
