//! The rows of the table: an account and its sessions, in as few bytes as it takes.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use jid::{ResourcePart, ResourceRef};

use super::table::{AccountKey, Hash};
use crate::connection::SharedConnection;
use crate::session::account::Account;
use crate::session::handle::Shared;

/// One account's row in the table. Three words: a hash table keeps up to half of its rows empty.
pub(super) struct Row<C: SharedConnection> {
    pub(super) account: Arc<Account>,
    pub(super) slots: Slots<C>,
}

pub(super) struct Slot<C: SharedConnection> {
    pub(super) session: Arc<Shared<C>>,
    /// Of its account, so that a table that grows reads its rows alone: a place for it is left here.
    pub(super) hash: Hash,
    pub(super) state: SlotState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    Live,
    /// Without a transport. How long, [`Hibernating`](super::hibernation::Hibernating) knows.
    Absent,
    /// Over and invisible, kept until its last unavailable is accepted (BIND-14).
    Ending,
}

/// The places of an account in the order in which they were taken: nearly always it has one.
pub(super) enum Slots<C: SharedConnection> {
    None,
    One(Slot<C>),
    Many(Box<Many<C>>),
}

pub(super) struct Many<C: SharedConnection> {
    slots: Vec<Slot<C>>,
    /// When which resource was replaced, for BIND-6.
    pub(super) replaced: Vec<(ResourcePart, Duration)>,
}

impl<C: SharedConnection> Slot<C> {
    pub(super) fn is_of(&self, resource: &ResourceRef) -> bool {
        self.session.jid.resource() == resource
    }

    /// Whether a session of this resource and client begins only when this one is forgotten (BIND-14,
    /// BIND2-4).
    pub(super) fn precedes(&self, resource: &ResourceRef, client: Option<NonZeroU64>) -> bool {
        self.is_of(resource)
            || (client.is_some()
                && self.state == SlotState::Ending
                && self.session.client() == client)
    }
}

impl<C: SharedConnection> Row<C> {
    pub(super) fn is(&self, key: AccountKey<'_>) -> bool {
        self.account.bare.as_str() == key.bare
    }

    /// The slots that can be found: live and hibernating.
    pub(super) fn visible(&self) -> impl Iterator<Item = &Slot<C>> {
        self.slots.as_slice().iter().filter(|slot| slot.state != SlotState::Ending)
    }
}

impl<C: SharedConnection> Slots<C> {
    pub(super) fn as_slice(&self) -> &[Slot<C>] {
        match self {
            Self::None => &[],
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(many) => &many.slots,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Slot<C>] {
        match self {
            Self::None => &mut [],
            Self::One(slot) => std::slice::from_mut(slot),
            Self::Many(many) => &mut many.slots,
        }
    }

    #[cfg(feature = "cluster")]
    pub(super) fn replaced(&self) -> &[(ResourcePart, Duration)] {
        match self {
            Self::Many(many) => &many.replaced,
            Self::None | Self::One(_) => &[],
        }
    }

    pub(super) fn position(&self, shared: &Shared<C>) -> Option<usize> {
        self.as_slice().iter().position(|slot| slot.session.id == shared.id)
    }

    pub(super) fn push(&mut self, slot: Slot<C>) {
        if let Self::None = self {
            *self = Self::One(slot);
        } else {
            self.change(|many| many.slots.push(slot));
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.change(|many| many.slots.remove(at));
    }

    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Many<C>) -> T) -> T {
        let mut many = match std::mem::replace(self, Self::None) {
            Self::None => Box::new(Many { slots: Vec::new(), replaced: Vec::new() }),
            Self::One(slot) => Box::new(Many { slots: vec![slot], replaced: Vec::new() }),
            Self::Many(many) => many,
        };
        let result = change(&mut many);
        *self = if many.slots.len() > 1 || !many.replaced.is_empty() {
            Self::Many(many)
        } else {
            many.slots.pop().map_or(Self::None, Self::One)
        };
        result
    }
}

#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
mod tests {
    use super::*;
    use crate::connection::Recorder;

    #[test]
    fn a_row_takes_three_words() {
        assert_eq!(size_of::<Row<Recorder>>(), 3 * size_of::<usize>());
    }
}
