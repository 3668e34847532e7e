//! Messages to accounts and domains of ours (RFC 6121 §8.5.2, §8.5.3).

use std::sync::Arc;
use std::time::SystemTime;

use jid::BareJid;
use smallvec::SmallVec;

use super::address::Address;
use super::{Core, Task};
use crate::connection::Connection;
use crate::extension::{Admission, Outcome};
use crate::rules::delivery::{
    BOUNCE, MessageDecision, MessageSituation, MessageType, Offline, Top, message,
    message_to_domain, offline,
};
use crate::session::{Copies, SessionHandle, SessionId};
use crate::stanza::delay::{delay, is_delayed_by};
use crate::stanza::{Condition, Stanza, StanzaError};
use crate::store::{OfflineMessage, StoreError};

/// The sessions that were asked to take a message.
struct Tried<C: Connection + Clone> {
    reached: SmallVec<[SessionHandle<C>; 4]>,
    /// They are not asked again (MSG-8).
    refused: SmallVec<[SessionId; 2]>,
}

impl<C: Connection + Clone> Default for Tried<C> {
    fn default() -> Self {
        Self { reached: SmallVec::new(), refused: SmallVec::new() }
    }
}

impl<C: Connection + Clone> Core<C> {
    /// Delivers a message to an account or a domain that is ours. What has to wait for a store is
    /// returned as a task.
    pub(super) fn message(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address,
    ) -> Option<Task> {
        self.message_of(origin, stanza, to, Turn::First)
    }

    /// The same for a message that another session was to get. Where it was accepted `since` then,
    /// it says so, wherever it goes now (SM-17).
    pub(super) fn message_again(
        self: &Arc<Self>,
        stanza: &Stanza,
        to: &Address,
        since: Option<SystemTime>,
    ) -> Option<Task> {
        self.message_of(None, stanza, to, Turn::Again { since })
    }

    fn message_of(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address,
        turn: Turn,
    ) -> Option<Task> {
        let type_ = MessageType::of(stanza.type_().as_deref());
        if !to.is_account() {
            self.delivered(stanza, origin, None, &[], Outcome::Refused);
            if message_to_domain(type_) == MessageDecision::Bounce {
                self.bounce(origin, stanza, BOUNCE);
            }
            return None;
        }
        // An account that gets its first session later on is asked about in the store's job.
        let asked = self.registry.is_loaded(&to.bare);
        match self.admit(&to.bare, stanza) {
            Admission::Accept => {}
            refused => {
                self.refused(origin, stanza, &to.bare, turn, refused);
                return None;
            }
        }
        let domain = to.bare.domain().as_str();
        let since = turn.since().filter(|_| !is_delayed_by(stanza, domain));
        let delayed = since.map(|since| stanza.with_appended(&delay(domain, since)));
        let delayed = delayed.as_ref().unwrap_or(stanza);
        let mut tried = Tried::default();
        loop {
            let attempt = self.try_message(type_, delayed, to, &mut tried);
            let outcome = match attempt {
                Attempt::Again => continue,
                Attempt::Store => {
                    let (origin, stanza) = (origin.cloned(), stanza.clone());
                    return Some(self.store_message(origin, stanza, to, turn, asked));
                }
                Attempt::Done => Outcome::Delivered,
                Attempt::Silent | Attempt::Bounce => Outcome::Refused,
            };
            if turn == Turn::First {
                self.delivered(stanza, origin, Some(&to.bare), &tried.reached, outcome);
            }
            if let Attempt::Bounce = attempt {
                self.bounce(origin, stanza, BOUNCE);
            }
            return None;
        }
    }

    /// A message that an extension keeps out.
    fn refused(
        &self,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        account: &BareJid,
        turn: Turn,
        admission: Admission,
    ) {
        if turn == Turn::First {
            self.delivered(stanza, origin, Some(account), &[], Outcome::Refused);
        }
        if let Admission::Refuse(error) = admission {
            self.bounce(origin, stanza, error);
        }
    }

    fn try_message(
        &self,
        type_: MessageType,
        stanza: &Stanza,
        to: &Address,
        tried: &mut Tried<C>,
    ) -> Attempt {
        let mut sessions: SmallVec<[SessionHandle<C>; 4]> =
            self.registry.sessions_of(to.bare.as_str()).collect();
        sessions.retain(|session| !tried.refused.contains(&session.id()));
        let matching = to.resource.as_deref().and_then(|resource| {
            sessions.iter().find(|session| session.resource().as_str() == resource)
        });
        let priorities =
            || sessions.iter().filter(|s| s.is_available()).map(SessionHandle::priority);
        let situation = match (&to.resource, matching) {
            (Some(_), Some(_)) => MessageSituation::FullMatch,
            (Some(_), None) => MessageSituation::full_without_match(priorities()),
            (None, _) => MessageSituation::bare(priorities()),
        };
        // An unknown account looks like one without sessions (MSG-5): the store tells them apart.
        match message(type_, situation, self.offline(stanza)) {
            MessageDecision::Silent => Attempt::Silent,
            MessageDecision::Bounce => Attempt::Bounce,
            MessageDecision::Offline => Attempt::Store,
            MessageDecision::Addressed => self.give_each(matching, stanza, tried),
            MessageDecision::Top => {
                let facts = |s: &SessionHandle<C>| (s.priority(), s.is_live());
                let Some(top) =
                    Top::choose(sessions.iter().filter(|s| s.is_available()).map(facts))
                else {
                    return Attempt::Again;
                };
                let chosen = sessions
                    .iter()
                    .filter(|s| s.is_available() && top.takes(s.priority(), s.is_live()));
                self.give_each(chosen, stanza, tried)
            }
            MessageDecision::All => {
                let chosen = sessions.iter().filter(|s| s.is_available() && s.priority() >= 0);
                self.give_each(chosen, stanza, tried)
            }
        }
    }

    fn give_each<'a>(
        &self,
        sessions: impl IntoIterator<Item = &'a SessionHandle<C>>,
        stanza: &Stanza,
        tried: &mut Tried<C>,
    ) -> Attempt {
        let mut sessions = sessions.into_iter().peekable();
        let Some(first) = sessions.next() else { return Attempt::Again };
        if sessions.peek().is_none() {
            return match self.give(first, stanza) {
                Ok(()) => {
                    tried.reached.push(first.clone());
                    Attempt::Done
                }
                Err(_) => {
                    tried.refused.push(first.id());
                    Attempt::Again
                }
            };
        }
        let copies = Copies::new();
        for session in std::iter::once(first).chain(sessions) {
            match self.give_copy(session, stanza, &copies) {
                Ok(()) => tried.reached.push(session.clone()),
                Err(_) => tried.refused.push(session.id()),
            }
        }
        // A session that took it may have ended since, and have left it to the others.
        if copies.release() {
            tried.reached.clear();
            return Attempt::Again;
        }
        Attempt::Done
    }

    /// What the offline store would make of a message.
    fn offline(&self, stanza: &Stanza) -> Offline {
        offline(stanza, self.stores.offline.is_some())
    }

    /// Stores a message for an account, if there is such an account (OFF-1, OFF-2, MSG-5). `asked`:
    /// whether extensions have admitted it.
    fn store_message(
        self: &Arc<Self>,
        origin: Option<SessionHandle<C>>,
        stanza: Stanza,
        to: &Address,
        turn: Turn,
        asked: bool,
    ) -> Task {
        let core = Arc::clone(self);
        let account = to.bare.clone();
        Box::pin(async move {
            let Some(store) = core.stores.offline.clone() else { return };
            // The store says itself since when it has kept a message.
            let since = turn.since().filter(|_| !is_delayed_by(&stanza, account.domain().as_str()));
            let since = since.unwrap_or_else(|| core.environment.utc());
            let message = OfflineMessage::new(super::xml(&stanza), since);
            let stored = core.jobs.run(account.as_str(), {
                let (core, account, stanza) = (Arc::clone(&core), account.clone(), stanza.clone());
                async move {
                    if !asked {
                        match core.admit_loaded(&account, &stanza).await {
                            Admission::Accept => {}
                            refused => return Ok(refused),
                        }
                    }
                    if core.stores.accounts.exists(&account).await? {
                        store.push(&account, message).await?;
                    }
                    Ok::<_, StoreError>(Admission::Accept)
                }
            });
            let error = match stored.await {
                Some(Ok(Admission::Accept)) => {
                    if turn == Turn::First {
                        let (origin, account) = (origin.as_ref(), Some(&account));
                        core.delivered(&stanza, origin, account, &[], Outcome::Stored);
                    }
                    return;
                }
                Some(Ok(refused)) => {
                    return core.refused(origin.as_ref(), &stanza, &account, turn, refused);
                }
                Some(Err(StoreError::Full)) => BOUNCE,
                _ => Condition::InternalServerError,
            };
            let refused = Admission::Refuse(error.into());
            core.refused(origin.as_ref(), &stanza, &account, turn, refused);
        })
    }

    /// Answers a stanza with an error, where one is due (STZ-6, STZ-7).
    pub(super) fn bounce(
        &self,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        error: impl Into<StanzaError>,
    ) {
        let error = error.into();
        self.metrics.error(error.condition());
        if let Some(answer) = stanza.error_answer(&error) {
            self.answer(origin, answer);
        }
    }
}

/// Whether a message comes for the first time, or from a session that has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Again { since: Option<SystemTime> },
}

impl Turn {
    const fn since(self) -> Option<SystemTime> {
        match self {
            Self::First => None,
            Self::Again { since } => since,
        }
    }
}

/// What became of one attempt to deliver a message.
enum Attempt {
    Done,
    /// Nobody is to have it.
    Silent,
    /// Nobody took it, somebody else may.
    Again,
    Store,
    Bounce,
}
