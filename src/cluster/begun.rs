//! What slots have begun with frames and not finished: only then is a frame handled (SM-5).

use std::collections::VecDeque;

use smallvec::smallvec;

use super::frame::FewSlots;
use super::view::Slot;

/// Frames by their numbers, each with the slots that are still at it, as often as they have work with it, and with what is kept
/// of it meanwhile. In order, since they begin in order.
pub(super) struct Begun<T = ()>(VecDeque<(u64, FewSlots, T)>);

impl<T> Default for Begun<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Begun<T> {
    pub(super) fn begin(&mut self, seq: u64, slot: Slot, kept: impl FnOnce() -> T) {
        match self.0.back_mut().filter(|(last, ..)| *last == seq) {
            Some((_, slots, _)) => slots.push(slot),
            None => self.0.push_back((seq, smallvec![slot], kept())),
        }
    }

    /// Whether the slot was at it.
    pub(super) fn finish(&mut self, seq: u64, slot: Slot) -> bool {
        let Ok(place) = self.0.binary_search_by_key(&seq, |(seq, ..)| *seq) else { return false };
        let Some((_, slots, _)) = self.0.get_mut(place) else { return false };
        let at = slots.iter().position(|at_it| *at_it == slot);
        if let Some(at) = at {
            slots.swap_remove(at);
        }
        if slots.is_empty() {
            self.0.remove(place);
        }
        at.is_some()
    }

    /// A slot will never finish what it has begun: the frames that it was at.
    pub(super) fn give_up(&mut self, slot: Slot) -> Vec<u64> {
        let mut of = Vec::new();
        self.0.retain_mut(|(seq, slots, _)| {
            if slots.contains(&slot) {
                of.push(*seq);
                slots.retain(|at_it| *at_it != slot);
            }
            !slots.is_empty()
        });
        of
    }

    /// The first frame that is not finished.
    pub(super) fn first(&self) -> Option<u64> {
        self.0.front().map(|(first, ..)| *first)
    }

    pub(super) fn kept(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, _, kept)| kept)
    }
}
