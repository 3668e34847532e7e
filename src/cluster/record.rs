//! The record: who is a member, and who owns which slot. It is changed only by compare-and-swap, in three ways:
//! the leader writes [members](Record::with_members) and begins [moves](Record::with_moves), the new owner of a
//! slot [takes](Record::with_arrived) it, the old one [keeps](Record::with_cancelled) it. So whoever changes it
//! needs no other agreement (NODE-8, NODE-9).
//!
//! All of it is pure: a record and what is known go in, the next record comes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::view::{Incarnation, Slot, View};
use super::{Settings, broken};

/// The place of a slot in a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Nobody before the first view.
    pub(crate) owner: Option<Incarnation>,
    /// The view from which on frames for it count: raised with each owner, and when a move is cancelled. So what
    /// was numbered before cannot slip in front of what had been refused meanwhile.
    pub(crate) since: View,
    /// The view in which it last began empty: its owner was lost, and what that had in memory.
    pub(crate) lost: View,
    pub(crate) moving: Option<Move>,
    /// The last move was cancelled by who was to get it, and could not read what had come.
    pub(crate) refused: bool,
}

impl Place {
    /// It begins empty.
    fn empty(owner: Option<Incarnation>, view: View) -> Self {
        Self { owner, since: view, lost: view, ..Self::default() }
    }
}

/// A slot is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) to: Incarnation,
    /// The view in which that began, by which a move is told from a later one.
    pub(crate) began: View,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub name: Arc<str>,
    pub incarnation: Incarnation,
}

/// The lease of a node, with what it tells the others by it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "engines of hosts keep it")]
pub struct Lease {
    /// Whose it is.
    pub incarnation: Incarnation,
    /// The name that the host has given the node.
    pub name: Arc<str>,
    /// The highest view that it has seen.
    pub seen: View,
    /// It waits for no answer to a frame that was numbered under an older view.
    pub settled: View,
    /// It is about to go.
    pub leaving: bool,
    /// How long it lives without a renewal: the same for all nodes of a cluster.
    pub ttl: Duration,
    /// Where it keeps what is kept: the same for all nodes of a cluster, or empty where that cannot be told.
    pub store: Arc<str>,
}

/// Who is a member, and where each slot is. An engine keeps it as it is, and looks at what is public only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub view: View,
    /// The instance of the engine that it was written to. Another one may have forgotten what came after.
    pub instance: Arc<str>,
    pub(crate) members: Vec<Member>,
    pub(crate) places: Vec<Place>,
}

impl Record {
    /// Before the first view.
    pub(crate) fn nothing(slots: u16) -> Self {
        let places = vec![Place::default(); slots.into()];
        Self { view: View::default(), instance: Arc::default(), members: Vec::new(), places }
    }

    pub(crate) fn place(&self, slot: Slot) -> Place {
        self.places.get(slot.index()).copied().unwrap_or_default()
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (Slot, Place)> {
        (0..).map(Slot).zip(self.places.iter().copied())
    }

    pub(crate) fn has(&self, node: Incarnation) -> bool {
        self.members.iter().any(|member| member.incarnation == node)
    }

    /// Whether it owns a slot, or is about to.
    pub(crate) fn concerns(&self, node: Incarnation) -> bool {
        let of = |place: &Place| {
            place.owner == Some(node) || place.moving.is_some_and(|one| one.to == node)
        };
        self.places.iter().any(of)
    }

    /// Who writes members and begins moves: the lowest name among the members that live; before there is one, among
    /// all that live. Two may think so of themselves for a moment, between which the engine decides.
    pub(crate) fn leader(&self, living: &[Lease]) -> Option<Incarnation> {
        let lowest = |of_members: bool| {
            let meant = living.iter().filter(|lease| !of_members || self.has(lease.incarnation));
            meant.min_by_key(|lease| (&*lease.name, lease.incarnation))
        };
        lowest(true).or_else(|| lowest(false)).map(|lease| lease.incarnation)
    }

    fn next(&self, view: View) -> Self {
        Self { view, ..self.clone() }
    }

    /// Those whose lease is gone leave, and their slots begin empty elsewhere; those who have come join. `None`
    /// where that changes nothing, or nobody lives.
    ///
    /// `forgot`: this goes on from a record of another instance of the engine. Whether a move to somebody who is
    /// gone had come to its end is not known then, so its slot begins empty as well, where it is.
    pub(crate) fn with_members(&self, living: &[Lease], view: View, forgot: bool) -> Option<Self> {
        let mut new = self.next(view);
        let lives = |node| living.iter().any(|lease| lease.incarnation == node);
        new.members.retain(|member| lives(member.incarnation));
        // Somebody has to own the slots.
        let all_leave = living.iter().all(|lease| lease.leaving);
        for lease in living.iter().filter(|lease| all_leave || !lease.leaving) {
            if !new.has(lease.incarnation) {
                let (name, incarnation) = (Arc::clone(&lease.name), lease.incarnation);
                new.members.push(Member { name, incarnation });
            }
        }
        let mut loads = self.loads(living.iter().filter(|lease| all_leave || !lease.leaving));
        for place in &mut new.places {
            let is_stranded = place.moving.is_some_and(|one| !lives(one.to));
            if !place.owner.is_some_and(lives) {
                let owner = lightest(&loads)?;
                loads.entry(owner).and_modify(|load| *load += 1);
                *place = Place::empty(Some(owner), view);
            } else if is_stranded {
                (place.since, place.moving) = (view, None);
                if forgot {
                    place.lost = view;
                }
            }
        }
        (new.members != self.members || new.places != self.places).then_some(new)
    }

    /// Moves begin, as long as fewer than `limit` are under way: away from members that leave, else from the heaviest
    /// to the lightest where they differ by two or more. Of slots that `may`.
    pub(crate) fn with_moves(
        &self,
        living: &[Lease],
        view: View,
        limit: usize,
        may: impl Fn(Slot) -> bool,
    ) -> Option<Self> {
        let stays = |lease: &&Lease| !lease.leaving && self.has(lease.incarnation);
        let mut loads = self.loads(living.iter().filter(stays));
        let mut new = self.next(view);
        let mut under_way = new.places.iter().filter(|place| place.moving.is_some()).count();
        while under_way < limit {
            let Some(to) = lightest(&loads) else { break };
            let heaviest = loads.iter().max_by_key(|(node, load)| (**load, **node));
            let Some((&heaviest, &many)) = heaviest else { break };
            let few = loads.get(&to).copied().unwrap_or_default();
            let resting = |of: &dyn Fn(Incarnation) -> bool| {
                let of = |(slot, place): (Slot, Place)| {
                    place.moving.is_none() && place.owner.is_some_and(of) && may(slot)
                };
                new.slots().position(of)
            };
            // Whoever does not stay has its slots moved first, however light it is.
            let slot = resting(&|owner| !loads.contains_key(&owner));
            let is_uneven = many >= few + 2;
            let slot = slot.or_else(|| resting(&|owner| is_uneven && owner == heaviest));
            let Some(place) = slot.and_then(|slot| new.places.get_mut(slot)) else { break };
            (place.moving, place.refused) = (Some(Move { to, began: view }), false);
            if let Some(load) = place.owner.and_then(|owner| loads.get_mut(&owner)) {
                *load -= 1;
            }
            loads.entry(to).and_modify(|load| *load += 1);
            under_way += 1;
        }
        (new.places != self.places).then_some(new)
    }

    /// One move begins, for no reason.
    #[cfg(test)]
    pub(crate) fn with_move(&self, slot: Slot, to: Incarnation, view: View) -> Option<Self> {
        let mut new = self.next(view);
        let place = &mut new.places[slot.index()];
        if place.moving.is_some() || place.owner == Some(to) || !self.has(to) {
            return None;
        }
        place.moving = Some(Move { to, began: view });
        Some(new)
    }

    /// These slots have arrived where they were moving: that node owns them from this view on.
    pub(crate) fn with_arrived(&self, slots: &[Slot], view: View) -> Self {
        self.with_ended(slots, view, |place| {
            (place.owner, place.since) = (place.moving.map(|one| one.to), view);
        })
    }

    /// These slots stay where they are.
    pub(crate) fn with_cancelled(&self, slots: &[Slot], view: View, settings: &Settings) -> Self {
        let raises = !broken!(settings, CancelUnstamped);
        self.with_ended(slots, view, |place| {
            place.since = if raises { view } else { place.since };
        })
    }

    /// These slots stay where they are, since what has come of them cannot be read where they were to be.
    pub(crate) fn with_refused(&self, slots: &[Slot], view: View) -> Self {
        self.with_ended(slots, view, |place| (place.since, place.refused) = (view, true))
    }

    /// These slots begin empty where they are.
    pub(crate) fn with_lost(&self, slots: &[Slot], view: View) -> Self {
        let mut new = self.next(view);
        for slot in slots {
            if let Some(place) = new.places.get_mut(slot.index()) {
                *place = Place::empty(place.owner, view);
            }
        }
        new
    }

    fn with_ended(&self, slots: &[Slot], view: View, settle: impl Fn(&mut Place)) -> Self {
        let mut new = self.next(view);
        let moving = |place: &&mut Place| place.moving.is_some();
        for slot in slots {
            if let Some(place) = new.places.get_mut(slot.index()).filter(moving) {
                settle(place);
                place.moving = None;
            }
        }
        new
    }

    /// How many slots each of these nodes owns, or will.
    fn loads<'a>(&self, of: impl Iterator<Item = &'a Lease>) -> BTreeMap<Incarnation, usize> {
        let mut loads: BTreeMap<_, _> = of.map(|lease| (lease.incarnation, 0)).collect();
        for place in &self.places {
            let owner = place.moving.map(|one| one.to).or(place.owner);
            if let Some(load) = owner.and_then(|owner| loads.get_mut(&owner)) {
                *load += 1;
            }
        }
        loads
    }
}

fn lightest(loads: &BTreeMap<Incarnation, usize>) -> Option<Incarnation> {
    loads.iter().min_by_key(|(node, load)| (**load, **node)).map(|(node, _)| *node)
}
