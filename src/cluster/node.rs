//! A node: what it may do, what it owns, what it tells the others.
//!
//! Whoever drives it hands in what has come, with the time, and then takes all [effects](Node::poll) before anything
//! else. When nothing more is there for now it lets all of that [settle](Node::settle) together: what waits for one node
//! goes in one post. A step begins with the clock: once the deadline has passed nothing goes on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::begun::Begun;
use super::engine::{Answer, Ask};
use super::flow::Flow;
use super::frame::{Body, Frame, Word};
#[cfg(test)]
use super::frame::{Receipt, Recipient};
use super::leg::{Down, LegId, Up};
use super::link::Link;
use super::member::{AskId, Member, Output};
use super::record::{Lease, Place, Record};
use super::slots::{Change, Job, Slots};
use super::view::{Incarnation, Slot, View};
use super::{Settings, broken};

/// What a node wants from whoever drives it, in this order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A call of the engine.
    Ask(AskId, Ask),
    /// A term that the store has given to nobody before.
    CountTerm(Arc<str>),
    /// The store is to be told that a slot has a new owner.
    Claim { slot: Slot, token: View },
    /// What has become of a slot here.
    Slot(Slot, Change),
    /// These slots are about to freeze, all in this view.
    Freezing(Vec<Slot>),
    /// All that the accounts of a slot have is to be handed over: see [`Node::export`].
    Export(Slot),
    /// Something for an account that lives here, behind all that came for it before; to be done once its slot is open.
    /// The job is to be [finished](Node::finish).
    Handle { account: Arc<str>, bytes: Arc<[u8]>, work: Work },
    /// From another node, for this one.
    Told { from: Incarnation, bytes: Arc<[u8]> },
    /// Of a client whose account lives here, in its order. The job is to be [finished](Node::finish).
    Up { slot: Slot, leg: LegId, number: u64, said: Up, work: Work },
    /// Of a client whose edge this is, in its order.
    Down { leg: u64, number: u64, said: Down },
    /// What was in the order of these clients, whose edge this is, is lost.
    Broken(u64),
    /// What a slot had is lost: so are the clients whose edge this is.
    Emptied(Slot),
    /// It has ceased to be a member.
    Gone(Incarnation),
    /// Presence for an account that lives here, in the same order.
    Hear { account: Arc<str>, word: Word, bytes: Arc<[u8]>, work: Work },
    /// What these slots had is lost, and void: whoever lives here and was told of it is to be told of its end; only of
    /// this slot, where others have been told already (NODE-17).
    Lost { slots: Vec<Slot>, only: Option<Slot> },
    /// To another node.
    Post(Incarnation, Arc<[u8]>),
    /// The leases of this one live for another time than those of the node here: it is fenced.
    Misfit(Lease),
    /// It may not act any more, and has nothing any more (NODE-2).
    Fenced,
    /// Nothing is here any more, and nobody waits for anything (NODE-19).
    Left,
}

impl Effect {
    /// What it is to be finished with.
    pub(crate) const fn work(&self) -> Option<Work> {
        match self {
            Self::Handle { work, .. } | Self::Hear { work, .. } | Self::Up { work, .. } => {
                Some(*work)
            }
            _ => None,
        }
    }
}

/// A job that somebody may be told of when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) job: Job,
    /// The frame that it came with. Tests have jobs of their own.
    pub(super) origin: Option<Origin>,
}

/// A frame that has come, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Of this node itself.
    Own(u64),
    /// Of another one.
    Other(Incarnation, u64),
}

impl Work {
    pub(crate) const fn slot(self) -> Slot {
        self.job.slot
    }

    /// The other node that the frame came from.
    #[cfg(test)]
    pub(super) const fn from(self) -> Option<Incarnation> {
        match self.origin {
            Some(Origin::Other(from, _)) => Some(from),
            _ => None,
        }
    }
}

/// What the store says to a claim, or to any other operation for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Done,
    /// It has heard of a higher token for the slot.
    Refused {
        by: View,
    },
}

/// Whether what has come of a slot can be read.
type Reads = Box<dyn Fn(&[u8]) -> bool + Send>;

pub(crate) struct Node {
    pub(super) member: Member,
    pub(super) slots: Slots,
    pub(super) links: BTreeMap<Incarnation, Link>,
    pub(super) flows: BTreeMap<Slot, Flow>,
    /// The flows that hold something, and maybe others.
    pub(super) holding: BTreeSet<Slot>,
    /// What it tells itself.
    pub(super) own: VecDeque<Arc<Frame>>,
    /// What has been begun with that: until it is finished its sender is not told that it is handled (SM-5).
    pub(super) own_begun: Begun<Arc<Frame>>,
    pub(super) own_last: u64,
    pub(super) settings: Settings,
    /// What the slots here have been told of.
    known: Arc<Record>,
    /// By that, slots are on their way from one node to another.
    pub(super) is_in_motion: bool,
    is_over: bool,
    /// It does not go yet, though it could.
    stays: bool,
    /// The first view in which it owned nothing, while it leaves.
    empty_since: Option<View>,
    pub(super) effects: VecDeque<Effect>,
    /// Whether what has come of a slot can be read here.
    pub(super) reads: Option<Reads>,
    /// What has been dropped with good reason: what a lost slot had sent.
    #[cfg(test)]
    pub(super) void: Vec<Arc<Frame>>,
}

impl Node {
    pub(crate) fn new(me: Incarnation, name: Arc<str>, slots: u16, settings: Settings) -> Self {
        Self {
            member: Member::new(me, name, slots, settings.clone()),
            slots: Slots::default(),
            links: BTreeMap::new(),
            flows: BTreeMap::new(),
            holding: BTreeSet::new(),
            own: VecDeque::new(),
            own_begun: Begun::default(),
            own_last: 0,
            settings,
            known: Arc::new(Record::nothing(slots)),
            is_in_motion: false,
            is_over: false,
            stays: false,
            empty_since: None,
            effects: VecDeque::new(),
            reads: None,
            #[cfg(test)]
            void: Vec::new(),
        }
    }

    /// A slot is taken over only if `reads` says so of what comes with it.
    pub(crate) fn reads_by(&mut self, reads: impl Fn(&[u8]) -> bool + Send + 'static) {
        self.reads = Some(Box::new(reads));
    }

    /// What it wants next.
    pub(crate) fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn record(&self) -> &Record {
        self.member.record()
    }

    /// NODE-1: whether it may act.
    pub(crate) fn may_act(&mut self, now: Duration) -> bool {
        if !self.member.may_act(now) {
            self.end(Effect::Fenced);
        }
        !self.is_over
    }

    /// Whether the accounts of a slot act here. Ask [`may_act`](Self::may_act) first.
    pub(crate) fn serves(&self, slot: Slot) -> bool {
        !self.is_over && self.slots.is_served(slot, &self.settings)
    }

    /// The members of its view.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Incarnation, &Arc<str>)> {
        self.record().members.iter().map(|member| (member.incarnation, &member.name))
    }

    /// What waits for other nodes: the bytes of what has no answer, and for how long the oldest has had none.
    pub(crate) fn links(
        &self,
        now: Duration,
    ) -> impl Iterator<Item = (Incarnation, usize, Duration)> {
        self.links.iter().map(move |(node, link)| {
            (
                *node,
                link.bytes(),
                link.waits_since().map_or(Duration::ZERO, |at| now.saturating_sub(at)),
            )
        })
    }

    /// The bytes of what waits for the slots of others, and is not under way.
    pub(crate) fn held_bytes(&self) -> usize {
        let held = self.holding.iter().filter_map(|slot| self.flows.get(slot)).flat_map(Flow::held);
        held.map(|frame| frame.cost()).sum()
    }

    /// Slots that are on their way from here.
    pub(crate) fn moving(&self) -> usize {
        self.slots.moving()
    }

    /// Whether a job is still to be done, and may be: its slot is open, and is what it was.
    pub(crate) fn does(&self, job: Job) -> bool {
        let is_same = self.slots.home(job.slot).is_some_and(|home| home.token == job.token);
        !self.is_over && is_same && self.slots.is_open(job.slot)
    }

    /// The view in which a slot came here.
    pub(crate) fn token(&self, slot: Slot) -> Option<View> {
        self.slots.home(slot).map(|home| home.token)
    }

    /// NODE-1: until when it may act; `None` before it may at all, and once it may not any more.
    pub(crate) fn acts_until(&self) -> Option<Duration> {
        self.member.acts_until().filter(|_| !self.is_over)
    }

    /// The store has been told of the new owner of a slot; `None`: it has failed, and is asked again.
    pub(crate) fn handle_claimed(
        &mut self,
        now: Duration,
        slot: Slot,
        token: View,
        stored: Option<Stored>,
    ) {
        match stored {
            Some(stored) => self.handle_stored(now, Job { slot, token }, stored),
            None if self.token(slot) == Some(token) => {
                self.effects.push_back(Effect::Claim { slot, token });
            }
            None => {}
        }
    }

    /// A slot begins something that is to be finished before it moves, such as an operation of the store, which is
    /// marked with the token.
    #[cfg(test)]
    pub(crate) fn begin(&mut self, slot: Slot) -> Option<Work> {
        self.slots.begin(slot).map(|job| Work { job, origin: None })
    }

    /// Whoever sent what the job was about is told that it is handled.
    pub(crate) fn finish(&mut self, now: Duration, work: Work) {
        if self.may_act(now) {
            self.slots.finish(work.job);
            self.finish_origin(work);
            self.step(now);
        }
    }

    /// A slot leaves before it was open: a job is not done here, and what it was about comes again, to where the slot will
    /// be. `false` where that is of this node itself: it is to be done here, or the slot stays.
    pub(crate) fn refuse(&mut self, work: Work) -> bool {
        let Some(Origin::Other(from, seq)) = work.origin else { return false };
        self.slots.finish(work.job);
        if let Some(link) = self.links.get_mut(&from) {
            link.return_begun(seq, work.job.slot);
        }
        true
    }

    /// It is about to go: its slots move to others, then it [has left](Effect::Left), unless it `stays` for something
    /// else. It is asked to again when that is done.
    pub(crate) const fn leave(&mut self, stays: bool) {
        self.member.leaving = true;
        self.stays = stays;
    }

    /// Whether it is about to go, and whatever others can take of it they have (NODE-19).
    pub(crate) fn is_emptied(&self) -> bool {
        let owns = || self.record().concerns(self.member.me);
        self.member.leaving && !(self.member.has_heirs() && owns())
    }

    /// Whether so much waits for a slot that those who fill it are to pause (NODE-7).
    pub(crate) fn is_pressed(&self, slot: Slot) -> bool {
        self.flows.get(&slot).is_some_and(|flow| flow.bytes() >= self.settings.soft)
    }

    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How long an answer of the engine, and one of the store, is waited for.
    pub(crate) const fn patience(&self) -> (Duration, Duration) {
        (self.settings.renew, self.settings.ttl)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(crate) fn next_timeout(&self) -> Duration {
        // Where it is writing already, or may not, it is the answer that is waited for.
        let late = self.member.next_view().and_then(|_| self.slots.next_late(&self.settings));
        let again = self.links.values().filter_map(|link| link.resends_at(self.settings.resend));
        let answers = self.links.values().filter_map(|link| link.answers_at(self.answer()));
        again.chain(answers).chain(late).fold(self.member.next_timeout(), Duration::min)
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        if self.may_act(now) {
            self.member.handle_timeout(now, self.settled());
            self.step(now);
        }
    }

    /// The record may have changed.
    pub(crate) fn handle_hint(&mut self, now: Duration) {
        if self.may_act(now) {
            self.member.look();
            self.step(now);
        }
    }

    pub(crate) fn handle_answer(&mut self, now: Duration, id: AskId, answer: Answer) {
        #[cfg(test)]
        self.break_deadline(id, &answer);
        if self.may_act(now) {
            self.member.handle_answer(now, id, answer);
            self.step(now);
        }
    }

    /// The engine could not be asked, and says so.
    pub(crate) fn handle_failure(&mut self, now: Duration, id: AskId) {
        if self.may_act(now) {
            self.member.handle_failure(now, id);
        }
    }

    pub(crate) fn handle_term(&mut self, now: Duration, instance: &str, term: u64) {
        if self.may_act(now) {
            self.member.handle_term(instance, term);
            self.step(now);
        }
    }

    /// The store answers an operation that was marked with this token; the first is the claim.
    pub(crate) fn handle_stored(&mut self, now: Duration, job: Job, stored: Stored) {
        if !self.may_act(now) {
            return;
        }
        match stored {
            Stored::Done => {
                self.slots.claimed(job.slot, job.token);
            }
            // Of a term that this node has not heard of: another engine has another cluster (NODE-3).
            Stored::Refused { by } if by.term > self.member.view().term => {
                return self.end(Effect::Fenced);
            }
            Stored::Refused { by } => {
                self.slots.deposed(job.slot, job.token, by);
                self.member.look();
            }
        }
        self.step(now);
    }

    /// Whether all that the accounts of a slot have sent is answered. It was so at [`Effect::Export`], but what has
    /// been finished since may have said more.
    pub(crate) fn is_through(&self, slot: Slot) -> bool {
        is_through(&self.links, &self.own_begun, slot)
    }

    /// What the accounts of a slot have, for [`Effect::Export`]. It is kept until a view gives the slot to its new owner.
    pub(crate) fn export(&mut self, now: Duration, slot: Slot, content: Arc<[u8]>) {
        if !self.may_act(now) {
            return;
        }
        let Some(to) = self.slots.leaves_to(slot) else { return };
        let seen = self.member.view();
        let held = self.flows.values().flat_map(Flow::held);
        let outgoing = held.filter(|frame| frame.source == Some(slot)).cloned().collect();
        let export = self.slots.export(slot, seen, content, outgoing, &self.settings);
        if let Some(export) = export {
            self.number(to, Arc::new(Frame { source: None, body: Body::Export(export) }));
        }
        self.step(now);
    }

    /// The end of every input: a new view takes effect, and what this node tells itself has its place in the order.
    pub(super) fn step(&mut self, now: Duration) {
        self.take_outputs(now);
        self.take_own();
    }

    /// Slots are open from here on for which nothing is under way to where they were before, and of which `is_quiet` says
    /// that nothing for them is on its way here; what is held for them goes first (NODE-6). Whoever is here may tell them
    /// something himself after these effects.
    pub(crate) fn open(&mut self, now: Duration, is_quiet: impl Fn(Slot) -> bool) {
        let waiting = self.slots.waiting();
        if waiting.is_empty() || !self.may_act(now) {
            return;
        }
        let (view, record) = (self.member.view(), Arc::clone(self.member.record()));
        for slot in waiting {
            let passes = |flow: &Flow| flow.passes(record.place(slot), view, &self.settings);
            let is_clear = self.flows.get(&slot).is_none_or(passes);
            if (is_clear || broken!(self.settings, OpensAtOnce)) && is_quiet(slot) {
                let change = self.slots.open(slot);
                self.effects.extend(change.map(|change| Effect::Slot(slot, change)));
            }
        }
        self.go_on();
    }

    /// What follows from all that was handed in: what may go now goes, and what is due is done. Then there may be more
    /// [effects](Self::poll).
    pub(crate) fn settle(&mut self, now: Duration) {
        if !self.may_act(now) {
            return;
        }
        self.step(now);
        self.go_on();
        self.advance_moves(now);
        self.member.settle(now);
        self.take_outputs(now);
        self.flush(now);
        self.go();
    }

    fn take_outputs(&mut self, now: Duration) {
        while let Some(output) = self.member.poll() {
            match output {
                Output::Ask(id, ask) => self.effects.push_back(Effect::Ask(id, ask)),
                Output::CountTerm(instance) => self.effects.push_back(Effect::CountTerm(instance)),
                Output::Adopted => self.adopted(now),
            }
        }
    }

    /// A new view: what it makes of each slot here, and of what was sent to those who are no members any more.
    fn adopted(&mut self, now: Duration) {
        let record = Arc::clone(self.member.record());
        let me = self.member.me;
        if !record.has(me) {
            return;
        }
        let before = std::mem::replace(&mut self.known, Arc::clone(&record));
        self.is_in_motion = record.slots().any(|(_, place)| place.moving.is_some());
        let gone = before.members.iter().map(|member| member.incarnation);
        let gone = gone.filter(|node| !record.has(*node));
        self.effects.extend(gone.map(Effect::Gone));
        let has_changed = |(slot, place): &(Slot, Place)| before.place(*slot) != *place;
        let slots: Vec<_> = record.slots().filter(has_changed).map(|(slot, _)| slot).collect();
        let taken = slots.iter().map(|slot| (*slot, self.slots.take(me, now, *slot, &record)));
        let taken: Vec<_> = taken.collect();
        let freezes = |(slot, changes): &(Slot, Vec<Change>)| {
            changes.contains(&Change::Frozen).then_some(*slot)
        };
        let freezing: Vec<_> = taken.iter().filter_map(freezes).collect();
        if !freezing.is_empty() {
            self.effects.push_back(Effect::Freezing(freezing));
        }
        for (slot, changes) in taken {
            if record.place(slot).lost > before.place(slot).lost {
                self.effects.push_back(Effect::Emptied(slot));
            }
            changes.into_iter().for_each(|change| self.changed(slot, change));
        }
        let is_lost = |slot: Slot| match broken!(self.settings, SweepByOwner) {
            true => before.place(slot).owner.is_some_and(|owner| !record.has(owner)),
            false => record.place(slot).lost > before.place(slot).lost,
        };
        let lost: Vec<_> = slots.into_iter().filter(|slot| is_lost(*slot)).collect();
        self.lose(lost, None);
        let links = std::mem::take(&mut self.links);
        let (links, gone): (_, BTreeMap<_, _>) =
            links.into_iter().partition(|(node, _)| record.has(*node));
        self.links = links;
        self.links.values_mut().for_each(Link::view_known);
        gone.into_values().for_each(|link| self.take_back_all(link));
    }

    fn changed(&mut self, slot: Slot, change: Change) {
        match &change {
            Change::Claim { token } => {
                return self.effects.push_back(Effect::Claim { slot, token: *token });
            }
            Change::GivenUp { lost } => self.gave_up(slot, *lost),
            // In front of what its accounts say from here on.
            Change::Arrived(export) => {
                for frame in &export.outgoing {
                    self.dispatch(Frame::clone(frame));
                }
                let record = self.member.record();
                let since = record.slots().filter(|(_, place)| place.lost > export.seen);
                let lost = since.map(|(slot, _)| slot).collect();
                self.effects.push_back(Effect::Slot(slot, change));
                return self.lose(lost, Some(slot));
            }
            Change::Opened | Change::Frozen | Change::Thawed => {}
        }
        self.effects.push_back(Effect::Slot(slot, change));
    }

    fn lose(&mut self, slots: Vec<Slot>, only: Option<Slot>) {
        if !slots.is_empty() {
            self.effects.push_back(Effect::Lost { slots, only });
        }
    }

    /// What its accounts had to send has gone along, or is void; what they had taken and not done is refused.
    fn gave_up(&mut self, slot: Slot, _lost: bool) {
        #[cfg(test)]
        if _lost {
            self.void.extend(
                self.frames().filter(|frame| frame.source == Some(slot)).collect::<Vec<_>>(),
            );
        }
        self.own_begun.give_up(slot);
        self.flows.values_mut().for_each(|flow| flow.forget(slot));
        self.links.values_mut().for_each(|link| link.give_up(slot));
    }

    /// NODE-9: what is frozen and quiet is exported, what has arrived is taken, or refused where it cannot be read, what takes too
    /// long is cancelled. The last two exclude each other by the engine's compare-and-swap, and nothing else has to.
    fn advance_moves(&mut self, now: Duration) {
        let (links, own) = (&self.links, &self.own_begun);
        let is_through = |slot| is_through(links, own, slot);
        let is_quiet = |slot| is_through(slot) || broken!(self.settings, NoDrain);
        let due = self.slots.due(is_quiet);
        self.effects.extend(due.into_iter().map(Effect::Export));
        let Some(view) = self.member.next_view() else { return };
        let record = self.member.record();
        let arrived = self.slots.arrived(self.member.me, record);
        let usurped = self.slots.usurped(record.view);
        let next = if !usurped.is_empty() {
            record.with_lost(&usurped, view)
        } else if let unreadable = self.slots.unreadable()
            && !unreadable.is_empty()
        {
            record.with_refused(&unreadable, view)
        } else if arrived.is_empty() {
            let late = self.slots.late(now, &self.settings);
            if late.is_empty() {
                return;
            }
            record.with_cancelled(&late, view, &self.settings)
        } else {
            record.with_arrived(&arrived, view)
        };
        self.member.write(now, next);
    }

    /// NODE-19: when it owns nothing, and every member of its view says, by its lease, that nothing has no answer that
    /// was numbered while it did. Where nobody stays it goes as it is, once it has said what it had to say.
    fn go(&mut self) {
        let (record, me) = (self.member.record(), self.member.me);
        if !self.member.leaving || self.stays || self.is_over {
            return;
        }
        if !record.has(me) {
            return self.end(Effect::Left);
        }
        if record.concerns(me) && (self.member.has_heirs() || !self.effects.is_empty()) {
            self.empty_since = None;
            return;
        }
        let empty_since = *self.empty_since.get_or_insert(record.view);
        let is_settled = self.member.all_settled(empty_since);
        let is_quiet = self.links.values().all(|link| link.waiting().next().is_none())
            && !self.flows.values().any(Flow::holds);
        if is_settled && is_quiet || broken!(self.settings, LeavesAtOnce) {
            self.end(Effect::Left);
        }
    }

    /// The oldest view under which something was numbered that has no answer.
    fn settled(&self) -> View {
        let oldest = self.links.values().filter_map(|link| link.waiting().next());
        oldest.map(|numbered| numbered.view).min().unwrap_or_else(|| self.member.view())
    }

    fn end(&mut self, how: Effect) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.member.fence();
            #[cfg(test)]
            self.void.extend(self.handed_out().collect::<Vec<_>>());
            self.effects.clear();
            self.effects.extend(self.member.misfit.take().map(Effect::Misfit));
            self.effects.push_back(how);
        }
    }
}

fn is_through(links: &BTreeMap<Incarnation, Link>, own: &Begun<Arc<Frame>>, slot: Slot) -> bool {
    let from = |frame: &Frame| frame.source == Some(slot);
    !links.values().any(|link| link.waiting().any(|one| from(&one.frame)))
        && !own.kept().any(|frame| from(frame))
}

#[cfg(test)]
impl Node {
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.member.deadline_now()
    }

    pub(super) fn set_whim(&mut self, slot: Slot, to: Incarnation) {
        self.member.whim = Some((slot, to));
        self.member.at_rest = None;
    }

    pub(super) const fn is_leaving(&self) -> bool {
        self.member.leaving
    }

    pub(super) const fn stay(&mut self) {
        self.member.leaving = false;
    }

    /// All that it has to send, or has sent without an answer.
    pub(super) fn frames(&self) -> impl Iterator<Item = Arc<Frame>> {
        let waiting = self.links.values().flat_map(Link::waiting).map(|one| &one.frame);
        let held = self.flows.values().flat_map(Flow::held);
        let arriving = self.slots.arriving().flat_map(|export| &export.outgoing);
        waiting.chain(held).chain(&self.own).chain(arriving).cloned()
    }

    /// What it is about to hand to accounts here.
    pub(super) fn handed_out(&self) -> impl Iterator<Item = Arc<Frame>> {
        self.effects.iter().filter_map(|effect| {
            let Effect::Handle { account, bytes, work } = effect else { return None };
            let to = smallvec::smallvec![Recipient {
                slot: work.job.slot,
                account: Arc::clone(account)
            }];
            let body = Body::Stanza { to, bytes: Arc::clone(bytes), receipt: Receipt::default() };
            Some(Arc::new(Frame { source: None, body }))
        })
    }

    /// What it has sent to another one without an answer.
    pub(super) fn waiting_for(&self, node: Incarnation) -> impl Iterator<Item = Arc<Frame>> {
        self.links.get(&node).into_iter().flat_map(Link::waiting).map(|one| Arc::clone(&one.frame))
    }

    /// The bytes that wait for the slot for which most do.
    pub(super) fn most_bytes(&self) -> usize {
        self.flows.values().map(Flow::bytes).max().unwrap_or_default()
    }

    /// Whether a job is still to be done, some time.
    pub(super) fn has(&self, job: Job) -> bool {
        self.slots.home(job.slot).is_some_and(|home| home.token == job.token)
    }

    /// Why it is not at rest.
    pub(super) fn unrest(&self) -> Option<&'static str> {
        if self.links.values().any(|link| link.waiting().next().is_some()) {
            return Some("frames without an answer");
        }
        self.flows.values().any(Flow::holds).then_some("frames that are held")
    }

    /// NODE-1, broken.
    fn break_deadline(&mut self, id: AskId, answer: &Answer) {
        use super::tests::Break;
        let is_broken = self.settings.broken == Some(Break::AnswerRevives);
        if let Some(start) = self.member.renewal_started(id).filter(|_| is_broken && answer.done) {
            let until = start + self.settings.ttl - self.settings.margin;
            self.member.deadline().revive(until);
        }
    }
}
