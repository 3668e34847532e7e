//! The slots that live here, and those on their way here: what each view makes of them (NODE-3, NODE-9).
//!
//! ```text
//!            a view gives it, empty          the store has heard            its flow is clear
//!   nothing ───────────────────────▶ claimed ───────────────────▶ waiting ──────────────────▶ open
//!      ▲  └──── a view gives it, and it has come with all it had ──▶┘  ▲                        │ a view moves it
//!      │                                                               └── a view cancels ──┐   ▼
//!      └──────────────────────── a view gives it to another, or empties it ◀─────────────── frozen
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::frame::Frame;
use super::record::{Move, Record};
use super::view::{Incarnation, Slot, View};
use super::{Settings, broken};

/// A slot that lives here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Home {
    /// What the store is told: the view in which the slot came here.
    pub(super) token: View,
    /// What it has here is of this beginning.
    lost: View,
    pub(super) state: State,
    /// It has never been open, and began empty.
    is_new: bool,
    /// What it has begun and not finished.
    jobs: usize,
    pub(super) frozen: Option<Freeze>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The store has not heard of it yet, and may take what somebody else writes.
    Claimed,
    /// What the others here have sent to where it was before, and what is held for it, goes first (NODE-6).
    Waiting,
    Open,
    /// The store has heard of a later owner, by this token: nothing goes on until a view says which.
    Deposed {
        by: View,
    },
}

/// Work that a slot has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) slot: Slot,
    /// By which the slot is told from what it is when it comes back later.
    pub(crate) token: View,
}

/// It is moving away: it takes nothing, gives nothing, and finishes what it has begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Freeze {
    pub(super) to: Move,
    pub(super) at: Duration,
    /// Its new owner was told all that it has.
    pub(super) is_sent: bool,
}

/// All that a slot has, on its way to its new owner.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Export {
    pub(crate) slot: Slot,
    /// The move that this belongs to.
    pub(crate) began: View,
    /// Which beginning of the slot it goes on from.
    pub(crate) lost: View,
    /// The view that the old owner knew: of what was lost later, nobody in the slot has heard.
    pub(crate) seen: View,
    /// What its accounts have.
    pub(crate) content: Arc<[u8]>,
    /// What they had sent and nobody had taken yet.
    pub(crate) outgoing: Vec<Arc<Frame>>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("slot", &self.slot)
            .field("began", &self.began)
            .finish_non_exhaustive()
    }
}

/// What a view, or the store, has made of a slot here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It lives here from now on, with nothing in memory: the store is to be told before anything is taken in.
    Claim { token: View },
    /// It is served, and has nothing in memory.
    Opened,
    /// It has come with all that it had, and is to be served.
    Arrived(Export),
    /// It is moving away. What has come for it and waits for it to be open is to be [refused](super::node::Node::refuse).
    Frozen,
    /// It is served, with what it has: it has come, or stays after all.
    Thawed,
    /// It lives here no longer; `lost`: nor anywhere else what it had.
    GivenUp { lost: bool },
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    homes: BTreeMap<Slot, Home>,
    /// Those of them that are frozen, waiting or deposed.
    unsteady: BTreeSet<Slot>,
    arriving: BTreeMap<Slot, Export>,
    /// What came of these cannot be read: the view in which the move had begun.
    unreadable: BTreeMap<Slot, View>,
}

impl Slots {
    pub(super) fn home(&self, slot: Slot) -> Option<&Home> {
        self.homes.get(&slot)
    }

    /// Those that do not just go on.
    fn unsteady(&self) -> impl Iterator<Item = (Slot, &Home)> {
        self.unsteady.iter().filter_map(|slot| Some((*slot, self.homes.get(slot)?)))
    }

    fn note(&mut self, slot: Slot) {
        let is_unsteady = |home: &Home| {
            home.frozen.is_some() || matches!(home.state, State::Waiting | State::Deposed { .. })
        };
        match self.home(slot).is_some_and(is_unsteady) {
            true => self.unsteady.insert(slot),
            false => self.unsteady.remove(&slot),
        };
    }

    /// How many are frozen.
    pub(super) fn moving(&self) -> usize {
        self.unsteady().filter(|(_, home)| home.frozen.is_some()).count()
    }

    /// Whether it is served: its accounts act.
    pub(super) fn is_served(&self, slot: Slot, settings: &Settings) -> bool {
        self.is_open(slot) && self.takes(slot, settings)
    }

    /// Whether it does what it has begun.
    pub(super) fn is_open(&self, slot: Slot) -> bool {
        self.home(slot).is_some_and(|home| home.state == State::Open)
    }

    /// What `record` makes of a slot, in the order in which it happens.
    pub(super) fn take(
        &mut self,
        me: Incarnation,
        now: Duration,
        slot: Slot,
        record: &Record,
    ) -> Vec<Change> {
        let place = record.place(slot);
        let mut changes = Vec::new();
        let is_mine = place.owner == Some(me);
        // A slot that has been lost since and is here again begins anew.
        let is_lost = self.home(slot).is_some_and(|home| home.lost < place.lost);
        if (!is_mine || is_lost) && self.homes.remove(&slot).is_some() {
            changes.push(Change::GivenUp { lost: is_lost });
        }
        if is_mine && !self.homes.contains_key(&slot) {
            let export = self.arriving.remove(&slot).filter(|export| export.lost == place.lost);
            let state = if export.is_some() { State::Waiting } else { State::Claimed };
            let (token, lost, is_new) = (place.since, place.lost, export.is_none());
            self.homes.insert(slot, Home { token, lost, state, is_new, jobs: 0, frozen: None });
            changes.push(export.map_or(Change::Claim { token }, Change::Arrived));
        }
        if let Some(home) = self.homes.get_mut(&slot) {
            changes.extend(home.follow(place.moving, now));
        }
        let is_coming = place.moving.map(|one| (one.to, one.began));
        if self.arriving.get(&slot).is_some_and(|e| is_coming != Some((me, e.began))) {
            self.arriving.remove(&slot);
        }
        if self.unreadable.get(&slot).is_some_and(|began| is_coming != Some((me, *began))) {
            self.unreadable.remove(&slot);
        }
        self.note(slot);
        changes
    }

    /// The store has heard of the claim with this token.
    pub(super) fn claimed(&mut self, slot: Slot, token: View) {
        let claimed = |home: &&mut Home| home.token == token && home.state == State::Claimed;
        if let Some(home) = self.homes.get_mut(&slot).filter(claimed) {
            home.state = State::Waiting;
        }
        self.note(slot);
    }

    /// Those that are to be open once nothing goes before.
    pub(super) fn waiting(&self) -> Vec<Slot> {
        let waiting = self.unsteady().filter(|(_, home)| home.is_waiting());
        waiting.map(|(slot, _)| slot).collect()
    }

    /// Nothing goes before a slot that was waiting.
    pub(super) fn open(&mut self, slot: Slot) -> Option<Change> {
        let home = self.homes.get_mut(&slot).filter(|home| home.is_waiting())?;
        home.state = State::Open;
        let is_new = std::mem::take(&mut home.is_new);
        self.note(slot);
        Some(if is_new { Change::Opened } else { Change::Thawed })
    }

    /// It begins a job: until that is finished nothing of the slot is exported.
    pub(super) fn begin(&mut self, slot: Slot) -> Option<Job> {
        let home = self.homes.get_mut(&slot)?;
        home.jobs += 1;
        Some(Job { slot, token: home.token })
    }

    pub(super) fn finish(&mut self, job: Job) {
        if let Some(home) = self.homes.get_mut(&job.slot).filter(|home| home.token == job.token) {
            home.jobs = home.jobs.saturating_sub(1);
        }
    }

    /// The store has refused this token: it has heard of a higher one.
    pub(super) fn deposed(&mut self, slot: Slot, token: View, by: View) {
        if let Some(home) = self.homes.get_mut(&slot).filter(|home| home.token == token) {
            home.state = State::Deposed { by };
        }
        self.note(slot);
    }

    /// Those that somebody else has used whom no view gave them, as far as this one: another engine did, beside the one
    /// that this node knows.
    pub(super) fn usurped(&self, view: View) -> Vec<Slot> {
        let is_usurped = |home: &Home| matches!(home.state, State::Deposed { by } if by <= view);
        self.unsteady().filter(|(_, home)| is_usurped(home)).map(|(slot, _)| slot).collect()
    }

    /// A slot comes with all that it has. It lives here when a view says so, and not before; not at all where nobody
    /// `reads` it.
    pub(super) fn arrive(
        &mut self,
        me: Incarnation,
        export: Export,
        record: &Record,
        reads: impl FnOnce(&[u8]) -> bool,
    ) {
        let place = record.place(export.slot);
        if place.moving != Some(Move { to: me, began: export.began }) {
            return;
        }
        if reads(&export.content) {
            self.arriving.insert(export.slot, export);
        } else {
            self.unreadable.insert(export.slot, export.began);
        }
    }

    /// Those that are to stay where they are, since nobody reads here what they had.
    pub(super) fn unreadable(&self) -> Vec<Slot> {
        self.unreadable.keys().copied().collect()
    }

    /// Those that have arrived and wait for the view that gives them.
    pub(super) fn arrived(&self, me: Incarnation, record: &Record) -> Vec<Slot> {
        let awaited = |(slot, export): (&Slot, &Export)| {
            let is_meant = record.place(*slot).moving == Some(Move { to: me, began: export.began });
            is_meant.then_some(*slot)
        };
        self.arriving.iter().filter_map(awaited).collect()
    }

    /// Those whose move takes too long.
    pub(super) fn late(&self, now: Duration, settings: &Settings) -> Vec<Slot> {
        let is_late =
            |home: &Home| home.frozen.as_ref().is_some_and(|f| now >= f.at + settings.patience);
        self.unsteady().filter(|(_, home)| is_late(home)).map(|(slot, _)| slot).collect()
    }

    /// When the next move has taken too long.
    pub(super) fn next_late(&self, settings: &Settings) -> Option<Duration> {
        let late = |(_, home): (_, &Home)| Some(home.frozen.as_ref()?.at + settings.patience);
        self.unsteady().filter_map(late).min()
    }

    /// Whether it takes what comes for it: it lives here and is still. Before it is open that waits.
    pub(super) fn takes(&self, slot: Slot, settings: &Settings) -> bool {
        let is_still = |home: &Home| home.frozen.is_none() || broken!(settings, NoFreeze);
        self.home(slot).is_some_and(is_still)
    }

    pub(super) fn is_frozen(&self, slot: Slot) -> bool {
        self.home(slot).is_some_and(|home| home.frozen.is_some())
    }

    /// Where it is moving.
    pub(super) fn leaves_to(&self, slot: Slot) -> Option<Incarnation> {
        Some(self.home(slot)?.frozen.as_ref()?.to.to)
    }

    /// What is on its way here.
    #[cfg(test)]
    pub(super) fn arriving(&self) -> impl Iterator<Item = &Export> {
        self.arriving.values()
    }

    /// Those to be exported now, each once: frozen, with all jobs finished, and `quiet`.
    pub(super) fn due(&mut self, quiet: impl Fn(Slot) -> bool) -> Vec<Slot> {
        let due = |slot: &Slot| {
            let home = self.homes.get_mut(slot)?;
            let has_all = matches!(home.state, State::Waiting | State::Open);
            let freeze = home.frozen.as_mut().filter(|freeze| has_all && !freeze.is_sent)?;
            freeze.is_sent = home.jobs == 0 && quiet(*slot);
            freeze.is_sent.then_some(*slot)
        };
        self.unsteady.iter().filter_map(due).collect()
    }

    /// All that a slot has which is [due](Self::due). It is kept here until a view gives the slot to its new owner
    /// (NODE-9).
    pub(super) fn export(
        &mut self,
        slot: Slot,
        seen: View,
        content: Arc<[u8]>,
        outgoing: Vec<Arc<Frame>>,
        settings: &Settings,
    ) -> Option<Export> {
        let home = self.home(slot)?;
        let began = home.frozen.as_ref()?.to.began;
        let export = Export { slot, began, lost: home.lost, seen, content, outgoing };
        if broken!(settings, ForgottenAtExport) {
            self.homes.remove(&slot);
            self.note(slot);
        }
        Some(export)
    }
}

impl Home {
    fn is_waiting(&self) -> bool {
        self.state == State::Waiting && self.frozen.is_none()
    }

    fn follow(&mut self, moving: Option<Move>, now: Duration) -> Option<Change> {
        let frozen = self.frozen.as_ref().map(|freeze| freeze.to);
        match moving {
            _ if moving == frozen => None,
            // A later move than the one that was known: cancelled, and begun again, maybe to somebody else.
            Some(to) => {
                self.frozen = Some(Freeze { to, at: now, is_sent: false });
                frozen.is_none().then_some(Change::Frozen)
            }
            None => {
                self.frozen = None;
                if self.state == State::Open {
                    self.state = State::Waiting;
                }
                None
            }
        }
    }
}
