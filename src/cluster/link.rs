//! The link to another node: frames are numbered, handled once and in order, and answered (NODE-5).
//!
//! It knows frames by their numbers, and slots only as what an answer names.

use std::collections::{BTreeMap, VecDeque};
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use super::begun::Begun;
use super::frame::{Frame, Numbered, Post, Refused};
use super::view::{Incarnation, Slot, View};

/// What is to become of a frame that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next one.
    Next,
    /// It has been here.
    Again,
    /// Something before it is missing, or it is of a view that is not known yet. So is all behind it.
    Early,
}

/// An answered frame, and the slots that have refused it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) numbered: Numbered,
    pub(super) refused: Vec<Slot>,
}

#[derive(Default)]
pub(super) struct Link {
    last: u64,
    /// Numbered, and without an answer.
    waiting: VecDeque<Numbered>,
    /// What these take up.
    bytes: usize,
    /// So many of these, the last ones, have to be sent, or sent again.
    unsent: usize,
    /// When all of these were sent, or sent again.
    sent_at: Duration,
    /// Since when the first of these has no answer, or an earlier one had none.
    waits_since: Option<Duration>,
    /// So often these were sent again, and none of them has an answer.
    resent: u32,
    /// All up to here have come.
    received: u64,
    /// Of those that have come.
    begun: Begun,
    /// Kept until the other end is seen to know.
    refused: BTreeMap<u64, Vec<Slot>>,
    owes: Owes,
    /// Since when, and how many frames have come meanwhile.
    owes_since: Option<Duration>,
    unanswered: usize,
    is_missing: bool,
    /// What comes behind this number has been asked for, once: should that be lost too, it comes by time-out.
    asked_behind: Option<u64>,
    /// What came is of a view that is not known yet: to ask for it before that would only bring it again.
    awaits_view: bool,
}

/// What the other end is to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Owes {
    #[default]
    Nothing,
    /// That something has come, or is handled. It only has to keep it until then.
    Answer,
    /// What it waits for.
    News,
}

/// So many frames are answered at once: what is kept without an answer counts for those who send.
const MANY: usize = 32;
/// What has no answer is sent again half as often each time, and at last every four intervals: whoever is slow is not
/// made slower, and once it can be reached that is less than a lease.
const DOUBLED: u32 = 2;

impl Link {
    /// The next frame.
    pub(super) fn number(&mut self, view: View, frame: Arc<Frame>) {
        self.last += 1;
        self.bytes += frame.cost();
        self.waiting.push_back(Numbered { seq: self.last, view, frame });
        self.unsent += 1;
    }

    /// The other end has answered all up to `handled`.
    pub(super) fn answered(&mut self, handled: u64, refused: &[Refused]) -> Vec<Answered> {
        let mut answered = Vec::new();
        while self.waiting.front().is_some_and(|first| first.seq <= handled) {
            let Some(numbered) = self.waiting.pop_front() else { break };
            self.bytes -= numbered.frame.cost();
            let back = refused.iter().find(|back| back.seq == numbered.seq);
            let refused = back.map(|back| back.slots.clone()).unwrap_or_default();
            answered.push(Answered { numbered, refused });
        }
        self.unsent = self.unsent.min(self.waiting.len());
        if !answered.is_empty() {
            (self.waits_since, self.resent) = (None, 0);
        }
        answered
    }

    /// The other end misses something.
    pub(super) fn send_again(&mut self) {
        self.unsent = self.waiting.len();
    }

    /// The other end knows of all answers before this.
    pub(super) fn known(&mut self, base: u64) {
        self.refused = self.refused.split_off(&base);
    }

    /// A frame has come. `view`: what is known here. Whatever becomes of it, the other end wants to know.
    pub(super) fn arrives(&mut self, seq: u64, stamp: View, view: View) -> Arrival {
        if seq == self.received + 1 && stamp <= view {
            self.received = seq;
            self.unanswered += 1;
            self.owes =
                self.owes.max(if self.unanswered < MANY { Owes::Answer } else { Owes::News });
            return Arrival::Next;
        }
        self.owes = Owes::News;
        if seq <= self.received {
            return Arrival::Again;
        }
        if seq == self.received + 1 {
            self.awaits_view = true;
        } else if !self.awaits_view && self.asked_behind != Some(self.received) {
            self.asked_behind = Some(self.received);
            self.is_missing = true;
        }
        Arrival::Early
    }

    /// Another view is known: what waits for one is asked for.
    pub(super) const fn view_known(&mut self) {
        if self.awaits_view {
            (self.awaits_view, self.is_missing, self.owes) = (false, true, Owes::News);
        }
    }

    /// A slot begins something with a frame: until it is finished that is not handled.
    pub(super) fn begin(&mut self, seq: u64, slot: Slot) {
        self.begun.begin(seq, slot, || ());
    }

    pub(super) fn finish(&mut self, seq: u64, slot: Slot) {
        if self.begun.finish(seq, slot) {
            self.owes = self.owes.max(Owes::Answer);
        }
    }

    /// A slot does not take a frame.
    pub(super) fn refuse(&mut self, seq: u64, slot: Slot) {
        let slots = self.refused.entry(seq).or_default();
        if !slots.contains(&slot) {
            slots.push(slot);
        }
        self.owes = Owes::News;
    }

    /// A slot has begun something with a frame, and does not take it after all.
    pub(super) fn return_begun(&mut self, seq: u64, slot: Slot) {
        self.refuse(seq, slot);
        self.finish(seq, slot);
    }

    /// A slot will never finish what it has begun.
    pub(super) fn give_up(&mut self, slot: Slot) {
        for seq in self.begun.give_up(slot) {
            self.refuse(seq, slot);
        }
    }

    /// What is to be sent now, if anything is. `answer`: for so long an answer may wait for company.
    pub(super) fn flush(
        &mut self,
        from: Incarnation,
        view: View,
        now: Duration,
        resend: Duration,
        answer: Duration,
    ) -> Option<Post> {
        self.waits_since = (!self.waiting.is_empty()).then(|| self.waits_since.unwrap_or(now));
        if self.resends_at(resend).is_some_and(|at| now >= at) {
            self.resent = DOUBLED.min(self.resent + 1);
            self.send_again();
        }
        if self.owes != Owes::Nothing {
            self.owes_since.get_or_insert(now);
        }
        let is_due = self.owes == Owes::News || self.answers_at(answer).is_some_and(|at| now >= at);
        if self.unsent == 0 && !is_due {
            return None;
        }
        // What is new says nothing of what has had no answer before.
        if self.unsent > 0 && self.unsent >= self.waiting.len() {
            self.sent_at = now;
        }
        (self.owes, self.owes_since, self.unanswered) = (Owes::Nothing, None, 0);
        let first = self.waiting.len() - take(&mut self.unsent).min(self.waiting.len());
        Some(Post {
            from,
            view,
            base: self.waiting.front().map_or(self.last + 1, |first| first.seq),
            frames: self.waiting.range(first..).cloned().collect(),
            handled: self.handled(),
            refused: self
                .refused
                .iter()
                .map(|(seq, slots)| Refused { seq: *seq, slots: slots.clone() })
                .collect(),
            again: take(&mut self.is_missing),
        })
    }

    /// When what has no answer is sent again: whatever is sent behind it meanwhile, since the other end asks once for what it
    /// misses, and may not be heard.
    pub(super) fn resends_at(&self, resend: Duration) -> Option<Duration> {
        let since = self.waits_since.map_or(self.sent_at, |since| since.max(self.sent_at));
        (!self.waiting.is_empty()).then(|| since + resend * (1 << self.resent))
    }

    /// When what has come is answered at the latest.
    pub(super) fn answers_at(&self, answer: Duration) -> Option<Duration> {
        self.owes_since.map(|since| since + answer)
    }

    /// Since when something has no answer, and nothing has had one.
    pub(super) const fn waits_since(&self) -> Option<Duration> {
        self.waits_since
    }

    /// What has no answer.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Numbered> {
        self.waiting.iter()
    }

    /// What that takes up.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_waiting(self) -> VecDeque<Numbered> {
        self.waiting
    }

    /// All up to here are handled.
    fn handled(&self) -> u64 {
        self.begun.first().map_or(self.received, |first| first - 1)
    }
}
