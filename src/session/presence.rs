//! Presence of bound sessions: recorded first, sent after, and never overtaken by its end.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::events::{Event, EventKind};
use super::handle::{AVAILABLE, ENDED, SessionHandle, Shared};
use super::outbound::{Item, To, Valid};
use super::registry::{Inner, SessionRegistry};
use crate::connection::Connection;
use crate::rules::presence::{Directed, TooManyTargets, uncovered};
use crate::rules::roster::Roster;
use crate::stanza::Stanza;
use crate::stanza::delay::delay;
use crate::sync::atomic::Ordering;

/// A change of broadcast presence ([RFC 6121 §4](https://www.rfc-editor.org/rfc/rfc6121#section-4)).
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a session is available or it is not")]
pub enum Presence<'a> {
    /// Presence without a type: its stanza, stamped with the full JID and without `to`, and the
    /// priority that it states (PRES-2), 0 where it states none.
    Available {
        /// The presence.
        stanza: &'a Stanza,
        /// Its priority.
        priority: i8,
    },
    /// Presence of type unavailable; without a stanza one is made (PRES-8).
    Unavailable {
        /// The presence.
        stanza: Option<&'a Stanza>,
    },
}

/// What a session's presence lock guards.
#[derive(Default)]
pub(super) struct PresenceState {
    pub(super) last: Option<Box<Last>>,
    directed: Directed,
}

/// The last broadcast presence.
pub(super) struct Last {
    pub(super) stanza: Stanza,
    pub(super) at: SystemTime,
}

/// What was taken from a session that is no longer available.
pub(super) struct Gone {
    pub(super) was_available: bool,
    pub(super) directed: Directed,
}

impl PresenceState {
    pub(super) fn take(&mut self) -> Gone {
        let directed = std::mem::take(&mut self.directed);
        Gone { was_available: self.last.take().is_some(), directed }
    }
}

impl<C: Connection + Clone> Inner<C> {
    /// Sets broadcast presence and tells everybody. `true` = it was initial presence (PRES-3).
    pub(super) fn set_presence(&self, shared: &Arc<Shared<C>>, presence: Presence<'_>) -> bool {
        match presence {
            Presence::Available { stanza, priority } => {
                self.set_available(shared, stanza, priority)
            }
            Presence::Unavailable { stanza } => {
                self.set_unavailable(shared, stanza);
                false
            }
        }
    }

    fn set_available(&self, shared: &Arc<Shared<C>>, stanza: &Stanza, priority: i8) -> bool {
        let last = Last { stanza: stanza.clone(), at: self.settings.environment.utc() };
        let (initial, number) = {
            let mut state = shared.presence.lock();
            if !shared.set_flags(AVAILABLE | u32::from(u8::from_le_bytes(priority.to_le_bytes()))) {
                return false;
            }
            let number = shared.number.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
            let initial = state.last.replace(Box::new(last)).is_none();
            if initial {
                self.events.push(|| {
                    Event::new(SessionHandle(Arc::clone(shared)), EventKind::BecameAvailable)
                });
            }
            (initial, number)
        };
        self.events.deliver();
        let roster = shared.account.roster();
        let valid = Valid { of: &shared.number, number };
        self.broadcast(shared, &roster, stanza, Some(&valid));
        if initial {
            self.learn(shared, &roster);
        }
        initial
    }

    fn set_unavailable(&self, shared: &Arc<Shared<C>>, stanza: Option<&Stanza>) {
        let gone = {
            let mut state = shared.presence.lock();
            if !shared.set_flags(0) {
                return;
            }
            shared.number.fetch_add(1, Ordering::SeqCst);
            let gone = state.take();
            if gone.was_available {
                self.events.push(|| {
                    Event::new(SessionHandle(Arc::clone(shared)), EventKind::BecameUnavailable)
                });
            }
            gone
        };
        self.broadcast_unavailable(shared, &gone, stanza);
        if gone.was_available {
            // It sees its own unavailable as well (PRES-6), though it is not available any more.
            let own = stanza.cloned().unwrap_or_else(|| unavailable(shared));
            self.give(&SessionHandle(Arc::clone(shared)), &own, To::OwnBare, None);
        }
        self.events.deliver();
    }

    /// Tells subscribers, own sessions and directed targets that the session is not available any
    /// more (PRES-6, 7, 8). Its number was raised before.
    pub(super) fn broadcast_unavailable(
        &self,
        shared: &Arc<Shared<C>>,
        gone: &Gone,
        stanza: Option<&Stanza>,
    ) {
        let own;
        let stanza = match stanza {
            Some(stanza) => stanza,
            None => {
                own = unavailable(shared);
                &own
            }
        };
        let roster = shared.account.roster();
        if gone.was_available {
            self.broadcast(shared, &roster, stanza, None);
        }
        if !gone.was_available {
            // No broadcast has covered any of them.
            return gone.directed.iter().for_each(|target| self.direct(stanza, target));
        }
        let own = shared.account.bare.as_str();
        let heard = |jid: &str| {
            let resource = jid.split_once('/').map_or("", |(_, resource)| resource);
            self.find(own, resource).is_some_and(|session| session.is_available())
        };
        for target in uncovered(&gone.directed, &roster, own, heard) {
            self.direct(stanza, target);
        }
    }

    /// One presence to all subscribers and to all own available sessions (PRES-3, 5, 6).
    fn broadcast(
        &self,
        shared: &Shared<C>,
        roster: &Roster,
        stanza: &Stanza,
        valid: Option<&Valid<'_>>,
    ) {
        for contact in roster.subscribers().map(|entry| entry.jid()) {
            self.presence_to_contact(contact, stanza, valid);
        }
        self.presence_to_account(shared.account.bare.as_str(), stanza, valid);
    }

    /// A copy for one contact: to its sessions if it is ours, else to the router.
    pub(super) fn presence_to_contact(
        &self,
        contact: &str,
        stanza: &Stanza,
        valid: Option<&Valid<'_>>,
    ) {
        if self.is_local(contact) {
            self.presence_to_account(contact, stanza, valid);
        } else if valid.is_none_or(Valid::holds) {
            self.elsewhere(|| stanza.readdressed(stanza.from().as_deref(), Some(contact)));
        }
    }

    fn presence_to_account(&self, account: &str, stanza: &Stanza, valid: Option<&Valid<'_>>) {
        for session in self.sessions(account) {
            if session.is_available() {
                self.give(&session, stanza, To::OwnBare, valid);
            }
        }
    }

    /// Directed presence to exactly this JID (PRES-T1).
    fn direct(&self, stanza: &Stanza, target: &str) {
        let stanza = || stanza.readdressed(stanza.from().as_deref(), Some(target));
        let (bare, resource) =
            target.split_once('/').map_or((target, None), |(bare, r)| (bare, Some(r)));
        if !self.is_local(bare) {
            return self.elsewhere(stanza);
        }
        let stanza = stanza();
        for session in self.sessions(bare) {
            let meant = resource
                .map_or_else(|| session.is_available(), |r| session.resource().as_str() == r);
            if meant {
                self.give(&session, &stanza, To::AsIs, None);
            }
        }
    }

    /// What a session that has just become available is told: the presence of the contacts that
    /// it is subscribed to, and of its own other sessions (PRES-3).
    fn learn(&self, shared: &Arc<Shared<C>>, roster: &Roster) {
        let me = SessionHandle(Arc::clone(shared));
        let own = shared.account.bare.as_str();
        for contact in roster.subscriptions().map(|entry| entry.jid()) {
            if self.is_local(contact) {
                self.learn_of(&me, own, contact);
            } else {
                self.elsewhere(|| Stanza::presence().type_("probe").from(own).to(contact).build());
            }
        }
        for session in self.sessions(own) {
            if let Some((stanza, number)) = session.current().filter(|_| session != me) {
                self.give(
                    &me,
                    &stanza,
                    To::OwnBare,
                    Some(&Valid { of: &session.0.number, number }),
                );
            }
        }
    }

    /// The answer to a probe of a local contact, given without the probe (PRES-13…16): from memory
    /// where it has sessions; where it has none, the user's own item says that it may know.
    fn learn_of(&self, me: &SessionHandle<C>, own: &str, contact: &str) {
        let sessions = self.sessions(contact);
        let refuses = sessions.first().is_some_and(|session| !session.roster().is_subscriber(own));
        if refuses {
            return;
        }
        let mut available = false;
        for session in &sessions {
            let known = {
                let state = session.0.presence.lock();
                let last = state.last.as_ref();
                last.map(|last| {
                    (last.stanza.clone(), last.at, session.0.number.load(Ordering::SeqCst))
                })
            };
            if let Some((stanza, at, number)) = known {
                available = true;
                let stanza = stanza.with_appended(&delay(session.jid().as_str(), at));
                self.give(me, &stanza, To::OwnBare, Some(&Valid { of: &session.0.number, number }));
            }
        }
        if !available {
            let stanza = Stanza::presence().type_("unavailable").from(contact).build();
            self.give(me, &stanza, To::OwnBare, None);
        }
    }

    /// A refusal needs no answer: a recipient that is gone needs no presence any more.
    fn give(&self, to: &SessionHandle<C>, stanza: &Stanza, address: To, valid: Option<&Valid<'_>>) {
        let (_sent, after) = to.0.send(self, Item::Stanza(stanza, address), valid);
        self.settle(&to.0, after);
    }
}

/// The presence that we make where a session cannot make its own (PRES-8).
fn unavailable<C: Connection + Clone>(shared: &Shared<C>) -> Stanza {
    Stanza::presence().type_("unavailable").from(shared.jid.as_str()).build()
}

/// Directed presence (PRES-9…12).
impl<C: Connection + Clone> SessionHandle<C> {
    /// The last broadcast presence and its number.
    fn current(&self) -> Option<(Stanza, u32)> {
        let state = self.0.presence.lock();
        state.last.as_ref().map(|last| (last.stanza.clone(), self.0.number.load(Ordering::SeqCst)))
    }

    /// Records that `target` (a JID as normalised text) is about to be sent directed presence, so
    /// that it will be told of the end
    /// ([RFC 6121 §4.6.3](https://www.rfc-editor.org/rfc/rfc6121#section-4.6.3)). Recorded first,
    /// then sent with [`give_directed`](Self::give_directed) under the number returned.
    ///
    /// # Errors
    ///
    /// [`TooManyTargets`] where the session has `limit` of them (LIMIT-17); nothing must be sent.
    pub fn record_directed(&self, target: &str, limit: usize) -> Result<u32, TooManyTargets> {
        let mut state = self.0.presence.lock();
        let number = self.0.number.load(Ordering::SeqCst);
        if self.0.flags.load(Ordering::SeqCst) & ENDED != 0 {
            // Nobody reads the records any more: what is sent now is void from the start.
            return Ok(number.wrapping_sub(1));
        }
        state.directed.record(target, limit)?;
        Ok(number)
    }

    /// Forgets a target of directed presence (PRES-11).
    pub fn forget_directed(&self, target: &str) {
        self.0.presence.lock().directed.forget(target);
    }

    /// Whether directed presence is held to this bare JID or a resource of it.
    #[must_use]
    pub fn has_directed_to(&self, bare: &str) -> bool {
        self.0.presence.lock().directed.reaches(bare)
    }

    /// The last broadcast presence and when it was sent.
    #[must_use]
    pub fn last_presence(&self) -> Option<(Stanza, SystemTime)> {
        let state = self.0.presence.lock();
        state.last.as_ref().map(|last| (last.stanza.clone(), last.at))
    }

    /// Gives this session directed presence that `source` recorded under `number`; dropped if the
    /// source has moved on, so that it never comes behind its end (PRES-21).
    pub fn give_directed(&self, stanza: &Stanza, source: &Self, number: u32) {
        let valid = Valid { of: &source.0.number, number };
        let _gone = self.send_item(Item::Stanza(stanza, To::AsIs), Some(&valid));
    }
}

impl<C: Connection + Clone> SessionRegistry<C> {
    /// Tells a contact (a bare JID as normalised text) the presence of each available session of
    /// an account: it has become a subscriber.
    pub fn tell_contact(&self, account: &str, contact: &str) {
        let inner = self.inner();
        for session in inner.sessions(account) {
            if let Some((stanza, number)) = session.current() {
                let valid = Valid { of: &session.0.number, number };
                inner.presence_to_contact(contact, &stanza, Some(&valid));
            }
        }
    }

    /// Tells a contact, who sees the account's presence no longer, that each of its available
    /// sessions is gone, and forgets what they directed to it (SUB-16).
    pub fn part_from(&self, account: &str, contact: &str) {
        let inner = self.inner();
        for session in inner.sessions(account) {
            let directed = session.0.presence.lock().directed.forget_account(contact);
            if session.is_available() || directed {
                inner.presence_to_contact(contact, &unavailable(&session.0), None);
            }
        }
    }
}

impl fmt::Debug for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gone")
            .field("was_available", &self.was_available)
            .field("directed", &self.directed.len())
            .finish()
    }
}
