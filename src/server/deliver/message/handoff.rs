//! The sessions that the rules name for a message, and handing it to them.

use smallvec::SmallVec;

use super::{Accepted, Disposition, Reached, with_delay};
use crate::connection::SharedConnection;
use crate::extension::{Admission, Wants};
use crate::rules::delivery::{
    BOUNCE, MessageDecision, MessageSituation, MessageType, Offline, Top, message, offline,
};
use crate::server::Core;
use crate::server::deliver::address::Address;
use crate::server::deliver::answer::is_full;
use crate::session::{NotSent, SessionHandle, SessionId, Standing};
use crate::stanza::Stanza;

/// What comes of handing a message to an account's sessions.
pub(super) enum Handoff<C: SharedConnection> {
    Settled(Disposition<C>),
    /// It is for the offline store.
    Store,
    /// It would overtake what comes first for the account.
    Behind,
}

/// What a message may overtake among all that waits for its account.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Overtakes {
    /// It has just arrived.
    Nothing,
    /// Nothing, and it is neither delivered nor stored: extensions review it first (HOOK-1).
    Unreviewed,
    /// Its job runs on the account's chain: what else is queued there, but nothing that ended
    /// sessions have left or that the store has for a session.
    Queued,
    /// An ended session left it, and it is delivered among what the store has; or the store does not
    /// answer.
    Everything,
}

/// A session, and its state when the recipients were chosen.
type Candidate<C> = (SessionHandle<C>, Standing);

/// The sessions of an account that may get a message.
struct Candidates<C: SharedConnection>(SmallVec<[Candidate<C>; 4]>);

impl<C: SharedConnection> Candidates<C> {
    fn matching(&self, resource: &str) -> Option<usize> {
        self.0.iter().position(|(session, _)| session.resource().as_str() == resource)
    }

    fn available(&self) -> impl Iterator<Item = &Candidate<C>> {
        self.0.iter().filter(|(_, standing)| standing.is_available())
    }

    /// Leaves those that a decision for delivery means.
    fn choose(&mut self, decision: MessageDecision, matching: Option<usize>) {
        let facts = |(session, standing): &Candidate<C>| (standing.priority(), session.is_live());
        match decision {
            MessageDecision::Addressed => match matching {
                Some(at) if at < self.0.len() => {
                    self.0.swap(0, at);
                    self.0.truncate(1);
                }
                _ => self.0.clear(),
            },
            MessageDecision::Top => {
                let top = Top::choose(self.available().map(facts));
                let Some(top) = top else { return self.0.clear() };
                self.0.retain(|(session, standing)| {
                    let priority = standing.priority();
                    // Most share the highest, and need not be looked at once more.
                    let takes =
                        || top.takes(priority, false) || top.takes(priority, session.is_live());
                    standing.is_available() && takes()
                });
            }
            _ => self.0.retain(|(_, standing)| standing.is_available() && standing.priority() >= 0),
        }
    }
}

/// Sessions that failed to take a message: they are not chosen again (MSG-8).
#[derive(Default)]
struct Skipped {
    sessions: SmallVec<[SessionId; 2]>,
    /// The queue of one of them is full (LIMIT-10).
    is_full: bool,
}

impl<C: SharedConnection> Core<C> {
    /// Hands a message to the sessions that the rules name, until one takes it or none is left
    /// (MSG-8).
    pub(super) fn hand_off(
        &self,
        stanza: &Stanza,
        to: &Address<'_>,
        accepted: Accepted,
        overtakes: Overtakes,
    ) -> Handoff<C> {
        // As it is written: no type holds a character that is escaped.
        let type_ = MessageType::of(stanza.raw_type());
        let (since, stamped) = match accepted {
            Accepted::Now => (None, None),
            Accepted::Earlier { since, delayed: false, .. } => (Some(since), None),
            Accepted::Earlier { since, at, .. } => {
                (Some(since), with_delay(stanza, to.bare.domain().as_str(), at))
            }
        };
        let stanza = stamped.as_ref().unwrap_or(stanza);
        let mut skipped = Skipped::default();
        loop {
            let mut candidates = self.candidates(to, &skipped);
            // Others may get it by a carbon copy.
            let shares = candidates.0.len() > 1
                || (overtakes != Overtakes::Nothing && self.wants.has_any(Wants::OUTCOMES));
            let copies = shares.then(|| accepted.copies_of(stanza));
            let matching = to.resource.as_deref().and_then(|r| candidates.matching(r));
            let decision = self.decide(type_, stanza, to, &candidates, matching.is_some());
            // Asked after the sessions were looked up: a session that can be found is already marked if
            // something comes first for it.
            let heir = matching.and_then(|at| candidates.0.get(at));
            let heir = heir.is_some_and(|(_, standing)| standing.is_heir());
            if decision.is_delivery() && self.is_behind(to, &candidates, heir, overtakes) {
                return Handoff::Behind;
            }
            match decision {
                MessageDecision::Silent => {
                    return Handoff::Settled(Disposition::Refused(Admission::Drop));
                }
                MessageDecision::Addressed | MessageDecision::Top | MessageDecision::All => {}
                // LIMIT-10: not into the store, where it would be ahead of what waits for the session.
                _ if skipped.is_full => return Handoff::Settled(Disposition::refused(is_full())),
                MessageDecision::Bounce => return Handoff::Settled(Disposition::refused(BOUNCE)),
                MessageDecision::Offline => return Handoff::Store,
            }
            let mut reached = Reached::new();
            candidates.choose(decision, matching);
            // In their order.
            candidates.0.reverse();
            while let Some((session, _)) = candidates.0.pop() {
                match self.give_copy(&session, stanza, copies.as_ref(), since) {
                    Ok(()) => reached.push(session),
                    Err(why) => {
                        skipped.sessions.push(session.id());
                        skipped.is_full |= why == NotSent::Full;
                    }
                }
            }
            if !reached.is_empty() {
                return Handoff::Settled(Disposition::Delivered(reached, copies));
            }
        }
    }

    fn decide(
        &self,
        type_: MessageType,
        stanza: &Stanza,
        to: &Address<'_>,
        candidates: &Candidates<C>,
        is_match: bool,
    ) -> MessageDecision {
        let priorities = candidates.available().map(|(_, standing)| standing.priority());
        let situation = match (&to.resource, is_match) {
            (Some(_), true) => MessageSituation::FullMatch,
            (Some(_), false) => MessageSituation::full_without_match(priorities),
            (None, _) => MessageSituation::bare(priorities),
        };
        // The store is asked only where its answer counts: it looks through the whole message.
        let offline = if situation.asks_offline() { self.offline(stanza) } else { Offline::Bounce };
        // An unknown account looks like one without sessions (MSG-5): the store tells them apart.
        message(type_, situation, offline)
    }

    fn candidates(&self, to: &Address<'_>, skipped: &Skipped) -> Candidates<C> {
        Candidates(self.registry.standing(to.key(), &skipped.sessions))
    }

    /// Whether something comes first for the account that the message may not overtake.
    fn is_behind(
        &self,
        to: &Address<'_>,
        candidates: &Candidates<C>,
        heir: bool,
        overtakes: Overtakes,
    ) -> bool {
        match overtakes {
            Overtakes::Nothing => {
                heir || candidates.0.iter().any(|(_, standing)| standing.is_behind())
            }
            Overtakes::Unreviewed => true,
            Overtakes::Queued => heir || self.registry.has_waiting(to.bare.as_str()),
            Overtakes::Everything => false,
        }
    }

    /// What the offline store would make of a message.
    pub(super) fn offline(&self, message: &Stanza) -> Offline {
        offline(message, self.stores.offline.is_some())
    }
}
