//! What one node has for one slot, in order, wherever that is (NODE-6).
//!
//! A flow goes to the owner of its slot. It stops where a frame was refused, where the slot is moving, and where
//! anything that was sent to a former owner has no answer yet; what comes then is held. When nothing is under way any
//! more it goes on: first what came back, then what is new.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::Frame;
use super::record::Place;
use super::view::{Slot, View};
use super::{Settings, broken};

#[derive(Default)]
pub(super) struct Flow {
    /// The views under which its frames without an answer were numbered, and what they take up.
    under_way: VecDeque<(View, usize)>,
    back: VecDeque<Arc<Frame>>,
    fresh: VecDeque<Arc<Frame>>,
    /// What those have known that refused: before that view is known here, they would refuse again.
    needs: View,
    bytes: usize,
}

impl Flow {
    /// Whether its slot takes frames, as far as is known in this view.
    pub(super) fn passes(&self, place: Place, view: View, settings: &Settings) -> bool {
        let is_behind = self.under_way.front().is_some_and(|(stamp, _)| *stamp < place.since);
        let is_behind = is_behind && !broken!(settings, NewOwnerAtOnce);
        place.owner.is_some() && place.moving.is_none() && view >= self.needs && !is_behind
    }

    /// Whether what comes now goes at once.
    pub(super) fn goes(&self, place: Place, view: View, settings: &Settings) -> bool {
        !self.holds() && self.passes(place, view, settings)
    }

    /// Whether what is held goes on.
    pub(super) fn goes_on(&self, place: Place, view: View, settings: &Settings) -> bool {
        self.holds() && self.under_way.is_empty() && self.passes(place, view, settings)
    }

    pub(super) fn holds(&self) -> bool {
        !self.back.is_empty() || !self.fresh.is_empty()
    }

    pub(super) fn hold(&mut self, frame: Arc<Frame>) {
        // What a slot said last is all that the same session need not have said.
        let of_source = |earlier: &Arc<Frame>| earlier.source == frame.source;
        let held = if self.fresh.iter().any(of_source) { &mut self.fresh } else { &mut self.back };
        let last = held.iter().rposition(of_source);
        if let Some(at) = last.filter(|at| held.get(*at).is_some_and(|last| frame.renews(last))) {
            self.bytes -= held.remove(at).map_or(0, |last| last.cost());
        }
        self.bytes += frame.cost();
        self.fresh.push_back(frame);
    }

    /// A frame has come back. Behind those that came back before it, in front of what is new.
    pub(super) fn take_back(&mut self, frame: Arc<Frame>, their_view: View, settings: &Settings) {
        self.needs = self.needs.max(their_view);
        self.bytes += frame.cost();
        let behind = broken!(settings, ReturnedBehind);
        if behind { self.fresh.push_back(frame) } else { self.back.push_back(frame) }
    }

    /// A frame has come back of which nobody knows whether it was taken: its recipients' home is gone. Of the presence
    /// of a session only the last word is said again, so that nothing comes behind its end (NODE-10).
    pub(super) fn say_again(&mut self, frame: Arc<Frame>, settings: &Settings) {
        if !broken!(settings, PresenceSentAgain) {
            for earlier in std::mem::take(&mut self.back) {
                let left = frame.outdated(&earlier).map(Arc::new);
                self.bytes -= if left.is_some() { earlier.cost() } else { 0 };
                self.bytes += left.as_ref().map_or(0, |left| left.cost());
                self.back.push_back(left.unwrap_or(earlier));
            }
            self.back.retain(|frame| !frame.body.to().is_empty());
        }
        self.take_back(frame, View::default(), settings);
    }

    /// All that is held, in order.
    pub(super) fn release(&mut self) -> Vec<Arc<Frame>> {
        let held: Vec<_> = self.back.drain(..).chain(self.fresh.drain(..)).collect();
        self.bytes -= held.iter().map(|frame| frame.cost()).sum::<usize>();
        held
    }

    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<Frame>> {
        self.back.iter().chain(&self.fresh)
    }

    /// A slot that lives here no longer has taken along what it had to send.
    pub(super) fn forget(&mut self, source: Slot) {
        for held in [&mut self.back, &mut self.fresh] {
            held.retain(|frame| {
                let stays = frame.source != Some(source);
                self.bytes -= if stays { 0 } else { frame.cost() };
                stays
            });
        }
    }

    /// A frame for it was numbered.
    pub(super) fn sent(&mut self, view: View, cost: usize) {
        self.bytes += cost;
        self.under_way.push_back((view, cost));
    }

    /// The oldest of these has an answer.
    pub(super) fn answered(&mut self) {
        let (_, cost) = self.under_way.pop_front().unwrap_or_default();
        self.bytes -= cost;
    }

    /// What is held and under way, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}
