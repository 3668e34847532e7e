//! Messages to accounts and domains of ours (RFC 6121 §8.5.2, §8.5.3).

use std::sync::Arc;

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
use crate::session::{SessionHandle, SessionId};
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
                self.refused(origin, stanza, &to.bare, refused);
                return None;
            }
        }
        let mut tried = Tried::default();
        loop {
            let attempt = self.try_message(type_, stanza, to, &mut tried);
            let outcome = match attempt {
                Attempt::Again => continue,
                Attempt::Store => {
                    return Some(self.store_message(origin.cloned(), stanza.clone(), to, asked));
                }
                Attempt::Done => Outcome::Delivered,
                Attempt::Silent | Attempt::Bounce => Outcome::Refused,
            };
            self.delivered(stanza, origin, Some(&to.bare), &tried.reached, outcome);
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
        admission: Admission,
    ) {
        self.delivered(stanza, origin, Some(account), &[], Outcome::Refused);
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
        for session in sessions {
            match self.give(session, stanza) {
                Ok(()) => tried.reached.push(session.clone()),
                Err(_) => tried.refused.push(session.id()),
            }
        }
        if tried.reached.is_empty() { Attempt::Again } else { Attempt::Done }
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
        asked: bool,
    ) -> Task {
        let core = Arc::clone(self);
        let account = to.bare.clone();
        Box::pin(async move {
            let Some(store) = core.stores.offline.clone() else { return };
            let message = OfflineMessage::new(super::xml(&stanza), core.environment.utc());
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
                    let (origin, account) = (origin.as_ref(), Some(&account));
                    return core.delivered(&stanza, origin, account, &[], Outcome::Stored);
                }
                Some(Ok(refused)) => {
                    return core.refused(origin.as_ref(), &stanza, &account, refused);
                }
                Some(Err(StoreError::Full)) => BOUNCE,
                _ => Condition::InternalServerError,
            };
            core.refused(origin.as_ref(), &stanza, &account, Admission::Refuse(error.into()));
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
