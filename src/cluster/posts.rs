//! The half of a node that talks to others: frames go where their slots are, and come from there (NODE-4 to 7).

use std::sync::Arc;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::broken;
use super::flow::Flow;
use super::frame::{Body, FewSlots, Frame, Numbered, Post, Receipt, Recipient, Recipients, Word};
use super::leg::{Down, LegId, Up};
use super::link::{Answered, Arrival, Link};
use super::node::{Effect, Node, Origin, Work};
use super::record::Place;
use super::view::{Incarnation, Slot, View};

/// What has become of something that was submitted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Submitted {
    /// More waits for these than may: they have not been sent anything.
    pub(crate) bounced: Vec<Recipient>,
    /// Whoever sends this is to pause.
    pub(crate) is_pressed: bool,
}

impl Node {
    /// Sends something from an account of this slot to accounts wherever they live, in the order in which it is
    /// submitted for each. The receipt is dropped once it is handled.
    pub(crate) fn submit(
        &mut self,
        now: Duration,
        source: impl Into<Option<Slot>>,
        mut to: Recipients,
        bytes: Arc<[u8]>,
        receipt: Receipt,
    ) -> Submitted {
        let mut submitted = Submitted::default();
        if !self.may_act(now) {
            return submitted;
        }
        let bytes_for = |one: &Recipient| self.flows.get(&one.slot).map_or(0, Flow::bytes);
        submitted.is_pressed = to.iter().any(|one| bytes_for(one) >= self.settings.soft);
        if submitted.is_pressed {
            let is_full = |one: &Recipient| bytes_for(one) >= self.settings.hard;
            submitted.bounced = to.iter().filter(|one| is_full(one)).cloned().collect();
            to.retain(|one| !is_full(one));
        }
        if !to.is_empty() {
            let body = Body::Stanza { to, bytes, receipt };
            self.dispatch(Frame { source: source.into(), body });
        }
        self.step(now);
        submitted
    }

    /// Tells another node something, behind all that it was sent before, and this one at once; whoever is no member hears nothing. `source`: the
    /// slot that says it, which does not move before that is answered.
    pub(crate) fn tell(
        &mut self,
        now: Duration,
        source: Option<Slot>,
        node: Incarnation,
        bytes: Arc<[u8]>,
    ) {
        if self.may_act(now) && self.record().has(node) {
            self.convey(node, Arc::new(Frame { source, body: Body::Told(bytes) }));
            self.step(now);
        }
    }

    /// Something of a client whose edge this is, in its order; `false` where that may not be sent.
    pub(crate) fn submit_up(
        &mut self,
        now: Duration,
        slot: Slot,
        leg: u64,
        number: u64,
        said: Up,
    ) -> bool {
        let may_act = self.may_act(now);
        if may_act {
            let leg = LegId { edge: self.member.me, number: leg };
            let body = Body::Up { slot, leg, number, said };
            self.dispatch(Frame { source: None, body });
            self.step(now);
        }
        may_act
    }

    /// Something for a client whose account lives here in this slot, to its edge.
    pub(crate) fn submit_down(
        &mut self,
        now: Duration,
        source: Slot,
        leg: LegId,
        number: u64,
        said: Down,
    ) {
        if self.may_act(now) {
            let body = Body::Down { leg, number, said };
            self.convey(leg.edge, Arc::new(Frame { source: Some(source), body }));
            self.step(now);
        }
    }

    /// The same of presence. It is never too much: whoever says it is to pause, and what says that somebody is gone
    /// must be heard.
    pub(crate) fn submit_presence(
        &mut self,
        now: Duration,
        source: Option<Slot>,
        to: Recipients,
        word: Word,
        bytes: Arc<[u8]>,
    ) -> Submitted {
        let mut submitted = Submitted::default();
        if self.may_act(now) {
            let full = |one: &Recipient| {
                self.flows.get(&one.slot).is_some_and(|flow| flow.bytes() >= self.settings.soft)
            };
            submitted.is_pressed = to.iter().any(full);
            self.dispatch(Frame { source, body: Body::Presence { to, word, bytes } });
            self.step(now);
        }
        submitted
    }

    /// To each recipient's home, one frame for each node; or it is held.
    pub(super) fn dispatch(&mut self, frame: Frame) {
        let slots = frame.slots();
        let mut ways = SmallVec::<[(Incarnation, FewSlots); 1]>::new();
        for &slot in &slots {
            let (place, view) = (self.record().place(slot), self.member.view());
            let is_closed = self.is_closed_here(slot, place);
            let flow = self.flows.entry(slot).or_default();
            match place.owner.filter(|_| !is_closed && flow.goes(place, view, &self.settings)) {
                Some(owner) => match ways.iter_mut().find(|(node, _)| *node == owner) {
                    Some((_, slots)) => slots.push(slot),
                    None => ways.push((owner, smallvec![slot])),
                },
                None => {
                    flow.hold(Arc::new(frame.narrowed(|one| one.slot == slot)));
                    self.holding.insert(slot);
                }
            }
        }
        match &*ways {
            [(node, to)] if to.len() == slots.len() => self.convey(*node, Arc::new(frame)),
            ways => {
                for (node, slots) in ways {
                    let part = frame.narrowed(|one| slots.contains(&one.slot));
                    self.convey(*node, Arc::new(part));
                }
            }
        }
    }

    /// Whether a slot is here, and what this node has for it is held: it is not open (NODE-6).
    fn is_closed_here(&self, slot: Slot, place: Place) -> bool {
        place.owner == Some(self.member.me) && !self.slots.is_open(slot)
    }

    fn convey(&mut self, node: Incarnation, frame: Arc<Frame>) {
        if node == self.member.me { self.own.push_back(frame) } else { self.number(node, frame) }
    }

    pub(super) fn number(&mut self, node: Incarnation, frame: Arc<Frame>) {
        let view = self.member.view();
        for slot in frame.slots() {
            self.flows.entry(slot).or_default().sent(view, frame.cost());
        }
        self.links.entry(node).or_default().number(view, frame);
    }

    /// What is held goes on where it may. Not what comes from a slot that is moving: that goes along with it.
    pub(super) fn go_on(&mut self) {
        let (view, record) = (self.member.view(), Arc::clone(self.member.record()));
        for slot in std::mem::take(&mut self.holding) {
            let Some(flow) = self.flows.get(&slot).filter(|flow| flow.holds()) else { continue };
            let place = record.place(slot);
            let is_closed = self.is_closed_here(slot, place);
            let goes_on = !is_closed && flow.goes_on(place, view, &self.settings);
            let Some(owner) = place.owner.filter(|_| goes_on) else {
                self.holding.insert(slot);
                continue;
            };
            let held = self.flows.get_mut(&slot).map(Flow::release);
            for frame in held.unwrap_or_default() {
                if frame.source.is_some_and(|source| self.slots.is_frozen(source)) {
                    self.hold(slot, frame);
                } else {
                    self.convey(owner, frame);
                }
            }
        }
        self.take_own();
    }

    fn hold(&mut self, slot: Slot, frame: Arc<Frame>) {
        self.flows.entry(slot).or_default().hold(frame);
        self.holding.insert(slot);
    }

    /// What this node tells itself. What is not taken now is held like anything else.
    pub(super) fn take_own(&mut self) {
        while let Some(frame) = self.own.pop_front() {
            self.own_last += 1;
            for slot in self.accept(&frame, self.member.view(), Origin::Own(self.own_last)) {
                self.hold(slot, Arc::new(frame.narrowed(|one| one.slot == slot)));
            }
        }
    }

    /// A post has come. Those of who is no member are void, or come again.
    pub(crate) fn handle_post(&mut self, now: Duration, post: &[u8]) {
        if !self.may_act(now) || !self.member.is_leased() {
            return;
        }
        let Some(post) = Post::decode(post) else { return };
        if post.view > self.member.view() {
            self.member.look();
        }
        if self.record().has(post.from) || broken!(self.settings, StrangersHeard) {
            self.hear(&post);
        }
        self.step(now);
    }

    fn hear(&mut self, post: &Post) {
        let from = post.from;
        let link = self.links.entry(from).or_default();
        link.known(post.base);
        let answered = link.answered(post.handled, &post.refused);
        if post.again {
            link.send_again();
        }
        for Answered { numbered, refused } in answered {
            for slot in numbered.frame.slots() {
                self.flows.entry(slot).or_default().answered();
                if refused.contains(&slot) {
                    self.take_back(slot, &numbered, Some(post.view));
                }
            }
        }
        for numbered in &post.frames {
            let view = self.member.view();
            let is_strict = !broken!(self.settings, NewerViewHeard);
            let link = self.links.entry(from).or_default();
            let stamp = if is_strict { numbered.view } else { numbered.view.min(view) };
            match link.arrives(numbered.seq, stamp, view) {
                Arrival::Again => continue,
                Arrival::Early => break,
                Arrival::Next => {}
            }
            let stamp = if broken!(self.settings, StampedAnew) { post.view } else { numbered.view };
            for slot in self.accept(&numbered.frame, stamp, Origin::Other(from, numbered.seq)) {
                self.links.entry(from).or_default().refuse(numbered.seq, slot);
            }
        }
    }

    /// Takes a frame; the slots that do not are returned (NODE-4).
    fn accept(&mut self, frame: &Arc<Frame>, stamp: View, origin: Origin) -> Vec<Slot> {
        if self.is_void(frame, stamp) {
            #[cfg(test)]
            self.void.push(Arc::clone(frame));
            return Vec::new();
        }
        let (to, bytes) = match &frame.body {
            Body::Stanza { to, bytes, .. } | Body::Presence { to, bytes, .. } => (to, bytes),
            Body::Told(bytes) => {
                let from = match origin {
                    Origin::Own(_) => self.member.me,
                    Origin::Other(from, _) => from,
                };
                self.effects.push_back(Effect::Told { from, bytes: Arc::clone(bytes) });
                return Vec::new();
            }
            Body::Export(export) => {
                let record = Arc::clone(self.member.record());
                let reads = |content: &[u8]| self.reads.as_ref().is_none_or(|reads| reads(content));
                self.slots.arrive(self.member.me, export.clone(), &record, reads);
                return Vec::new();
            }
            Body::Up { slot, leg, number, said } => {
                let Some(work) = self.takes(frame, *slot, stamp, origin) else {
                    return vec![*slot];
                };
                let (slot, leg, number, said) = (*slot, *leg, *number, said.clone());
                self.effects.push_back(Effect::Up { slot, leg, number, said, work });
                return Vec::new();
            }
            Body::Down { leg, number, said } => {
                // Of another incarnation it is nobody's.
                if leg.edge == self.member.me {
                    let (leg, number, said) = (leg.number, *number, said.clone());
                    self.effects.push_back(Effect::Down { leg, number, said });
                }
                return Vec::new();
            }
        };
        let mut refused = Vec::new();
        for Recipient { slot, account } in to {
            let Some(work) = self.takes(frame, *slot, stamp, origin) else {
                if !refused.contains(slot) {
                    refused.push(*slot);
                }
                continue;
            };
            let (account, bytes) = (Arc::clone(account), Arc::clone(bytes));
            self.effects.push_back(match frame.body.word().cloned() {
                None => Effect::Handle { account, bytes, work },
                Some(word) => Effect::Hear { account, word, bytes, work },
            });
        }
        refused
    }

    /// The job that a frame is for a slot here, if that takes it (NODE-4).
    fn takes(
        &mut self,
        frame: &Arc<Frame>,
        slot: Slot,
        stamp: View,
        origin: Origin,
    ) -> Option<Work> {
        let place = self.record().place(slot);
        let is_owner = place.owner == Some(self.member.me) && stamp >= place.since;
        if !is_owner || !self.slots.takes(slot, &self.settings) {
            return None;
        }
        let job = self.slots.begin(slot)?;
        match origin {
            _ if broken!(self.settings, AckOnReceipt) => {}
            Origin::Own(seq) => self.own_begun.begin(seq, slot, || Arc::clone(frame)),
            Origin::Other(from, seq) => self.links.entry(from).or_default().begin(seq, slot),
        }
        Some(Work { job, origin: Some(origin) })
    }

    pub(super) fn finish_origin(&mut self, work: Work) {
        // A job of an earlier stay was refused when that ended.
        let is_same =
            self.slots.home(work.job.slot).is_some_and(|home| home.token == work.job.token);
        match work.origin.filter(|_| is_same) {
            Some(Origin::Own(seq)) => {
                self.own_begun.finish(seq, work.job.slot);
            }
            Some(Origin::Other(from, seq)) => {
                if let Some(link) = self.links.get_mut(&from) {
                    link.finish(seq, work.job.slot);
                }
            }
            None => {}
        }
    }

    /// What a slot sent before it was lost: its end may have been told already.
    fn is_void(&self, frame: &Frame, stamp: View) -> bool {
        let is_void = frame.source.is_some_and(|source| self.record().place(source).lost > stamp);
        is_void && !broken!(self.settings, VoidHeard)
    }

    /// A frame comes back from a slot: refused, in the view that is known there, or because nobody is there any more.
    fn take_back(&mut self, slot: Slot, numbered: &Numbered, refused: Option<View>) {
        if self.is_void(&numbered.frame, numbered.view) {
            #[cfg(test)]
            self.void.push(Arc::clone(&numbered.frame));
            return;
        }
        let part = Arc::new(numbered.frame.narrowed(|one| one.slot == slot));
        let flow = self.flows.entry(slot).or_default();
        self.holding.insert(slot);
        match refused {
            Some(their_view) => flow.take_back(part, their_view, &self.settings),
            None => flow.say_again(part, &self.settings),
        }
    }

    /// What somebody had not answered who is no member any more goes to whoever has the slots now (NODE-10).
    pub(super) fn take_back_all(&mut self, link: Link) {
        for numbered in link.into_waiting() {
            for slot in numbered.frame.slots() {
                self.flows.entry(slot).or_default().answered();
                // Whether it was taken nobody knows.
                if let Body::Up { leg, .. } = &numbered.frame.body {
                    self.effects.push_back(Effect::Broken(leg.number));
                } else {
                    self.take_back(slot, &numbered, None);
                }
            }
        }
    }

    /// How long an answer may wait. Not while slots move or somebody leaves, which waits for answers.
    pub(super) fn answer(&self) -> Duration {
        if self.is_in_motion { Duration::ZERO } else { self.settings.answer }
    }

    /// All that waits for one node goes in one post.
    pub(super) fn flush(&mut self, now: Duration) {
        let (me, view, resend) = (self.member.me, self.member.view(), self.settings.resend);
        let answer = self.answer();
        for (node, link) in &mut self.links {
            if let Some(post) = link.flush(me, view, now, resend, answer) {
                self.effects.push_back(Effect::Post(*node, post.encode()));
            }
        }
    }
}
