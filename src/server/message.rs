//! Messages to accounts and domains of ours (RFC 6121 §8.5.2, §8.5.3).

use std::sync::Arc;

use smallvec::SmallVec;

use super::address::Address;
use super::{Core, Task};
use crate::connection::Connection;
use crate::rules::delivery::{
    BOUNCE, MessageDecision, MessageSituation, MessageType, Offline, Top, message,
    message_to_domain, offline,
};
use crate::session::{SessionHandle, SessionId};
use crate::stanza::{Condition, Stanza, StanzaError};
use crate::store::{OfflineMessage, StoreError};

/// Sessions that refused a message: they are not asked again (MSG-8).
type Refused = SmallVec<[SessionId; 2]>;

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
            if message_to_domain(type_) == MessageDecision::Bounce {
                self.bounce(origin, stanza, BOUNCE);
            }
            return None;
        }
        match self.attempt(stanza, to) {
            Attempt::Again | Attempt::Done => None,
            Attempt::Bounce => {
                self.bounce(origin, stanza, BOUNCE);
                None
            }
            Attempt::Store => Some(self.store_message(origin.cloned(), stanza.clone(), to)),
        }
    }

    /// Gives a message for an account to the sessions that the rules name, until one takes it or
    /// none is left (MSG-8); never [`Attempt::Again`].
    fn attempt(&self, stanza: &Stanza, to: &Address) -> Attempt {
        let type_ = MessageType::of(stanza.type_().as_deref());
        let mut refused = Refused::new();
        loop {
            match self.try_message(type_, stanza, to, &mut refused) {
                Attempt::Again => {}
                settled => return settled,
            }
        }
    }

    fn try_message(
        &self,
        type_: MessageType,
        stanza: &Stanza,
        to: &Address,
        refused: &mut Refused,
    ) -> Attempt {
        let mut sessions: SmallVec<[SessionHandle<C>; 4]> =
            self.registry.sessions_of(to.bare.as_str()).collect();
        sessions.retain(|session| !refused.contains(&session.id()));
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
            MessageDecision::Silent => Attempt::Done,
            MessageDecision::Bounce => Attempt::Bounce,
            MessageDecision::Offline => Attempt::Store,
            MessageDecision::Addressed => self.give_each(matching, stanza, refused),
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
                self.give_each(chosen, stanza, refused)
            }
            MessageDecision::All => {
                let chosen = sessions.iter().filter(|s| s.is_available() && s.priority() >= 0);
                self.give_each(chosen, stanza, refused)
            }
        }
    }

    fn give_each<'a>(
        &self,
        sessions: impl IntoIterator<Item = &'a SessionHandle<C>>,
        stanza: &Stanza,
        refused: &mut Refused,
    ) -> Attempt {
        let mut accepted = false;
        for session in sessions {
            match self.give(session, stanza) {
                Ok(()) => accepted = true,
                Err(_) => refused.push(session.id()),
            }
        }
        if accepted { Attempt::Done } else { Attempt::Again }
    }

    /// What the offline store would make of a message.
    fn offline(&self, stanza: &Stanza) -> Offline {
        offline(stanza, self.stores.offline.is_some())
    }

    /// Stores a message for an account, if there is such an account (OFF-1, OFF-2, MSG-5).
    ///
    /// On the account's chain, where a session that becomes available fetches what is stored: one
    /// that came while this waited has fetched already, so it is looked for once more (OFF-3).
    fn store_message(
        self: &Arc<Self>,
        origin: Option<SessionHandle<C>>,
        stanza: Stanza,
        to: &Address,
    ) -> Task {
        let core = Arc::clone(self);
        let (account, to) = (to.bare.clone(), to.clone());
        Box::pin(async move {
            let Some(store) = core.stores.offline.clone() else { return };
            let key = account.as_str().to_owned();
            let message = OfflineMessage::new(super::xml(&stanza), core.environment.utc());
            let job = {
                let (core, stanza) = (Arc::clone(&core), stanza.clone());
                async move {
                    if !core.stores.accounts.exists(&account).await? {
                        return Ok(());
                    }
                    match core.attempt(&stanza, &to) {
                        Attempt::Store => store.push(&account, message).await,
                        Attempt::Bounce => Err(StoreError::Full),
                        Attempt::Done | Attempt::Again => Ok(()),
                    }
                }
            };
            match core.jobs.run(&key, job).await {
                Some(Ok(())) => {}
                Some(Err(StoreError::Full)) => core.bounce(origin.as_ref(), &stanza, BOUNCE),
                _ => core.bounce(origin.as_ref(), &stanza, Condition::InternalServerError),
            }
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
    /// Nobody took it, somebody else may.
    Again,
    Store,
    Bounce,
}
