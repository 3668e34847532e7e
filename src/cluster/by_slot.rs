//! What is kept for accounts, by their slots: of one slot it is found without a look at the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::view::Slot;

#[derive(Debug)]
pub(super) struct BySlot<T>(BTreeMap<Slot, BTreeMap<Arc<str>, T>>);

impl<T> Default for BySlot<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> BySlot<T> {
    pub(super) fn get(&self, account: &str) -> Option<&T> {
        self.0.get(&Slot::of(account))?.get(account)
    }

    pub(super) fn get_mut(&mut self, account: &str) -> Option<&mut T> {
        self.0.get_mut(&Slot::of(account))?.get_mut(account)
    }

    pub(super) fn contains_key(&self, account: &str) -> bool {
        self.get(account).is_some()
    }

    pub(super) fn insert(&mut self, account: Arc<str>, value: T) {
        self.0.entry(Slot::of(&account)).or_default().insert(account, value);
    }

    pub(super) fn remove(&mut self, account: &str) {
        let slot = Slot::of(account);
        let Some(those) = self.0.get_mut(&slot) else { return };
        those.remove(account);
        if those.is_empty() {
            self.0.remove(&slot);
        }
    }

    /// All, or those of one slot.
    pub(super) fn of(&self, slot: Option<Slot>) -> impl Iterator<Item = (&Arc<str>, &T)> {
        let (first, last) = range(slot);
        self.0.range(first..=last).flat_map(|(_, those)| those)
    }

    /// Keeps of all, or of those of one slot, what is to be kept.
    pub(super) fn retain(
        &mut self,
        slot: Option<Slot>,
        mut keep: impl FnMut(&Arc<str>, &mut T) -> bool,
    ) {
        let (first, last) = range(slot);
        let mut empty = Vec::new();
        for (slot, those) in self.0.range_mut(first..=last) {
            those.retain(|account, value| keep(account, value));
            if those.is_empty() {
                empty.push(*slot);
            }
        }
        empty.iter().for_each(|slot| _ = self.0.remove(slot));
    }
}

fn range(slot: Option<Slot>) -> (Slot, Slot) {
    slot.map_or((Slot(0), Slot(u16::MAX)), |slot| (slot, slot))
}
