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

/// Sessions that refused a message: they are not asked again (MSG-8).
type Refused = SmallVec<[SessionId; 2]>;
/// Sessions that took it.
type Reached<C> = SmallVec<[SessionHandle<C>; 4]>;

impl<C: Connection + Clone> Core<C> {
    /// Delivers a message to an account or a domain that is ours. What has to wait for a store is
    /// returned as a task.
    pub(super) fn message(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        self.message_of(origin, stanza, to, Turn::First)
    }

    /// The same for a message that another session was to get. Where it was accepted `since` then,
    /// it says so, wherever it goes now (SM-17).
    pub(super) fn message_again(
        self: &Arc<Self>,
        stanza: &Stanza,
        to: &Address<'_>,
        since: Option<SystemTime>,
    ) -> Option<Task> {
        self.message_of(None, stanza, to, Turn::Again { since })
    }

    fn message_of(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address<'_>,
        turn: Turn,
    ) -> Option<Task> {
        if !to.is_account() {
            self.delivered(stanza, origin, None, &[], Outcome::Refused, None);
            let type_ = MessageType::of(stanza.type_().as_deref());
            if message_to_domain(type_) == MessageDecision::Bounce {
                self.bounce(origin, stanza, BOUNCE);
            }
            return None;
        }
        let end = match self.admit(to, stanza) {
            Admission::Accept => match self.attempt(stanza, to, turn) {
                Attempt::Store => {
                    let (origin, stanza) = (origin.cloned(), stanza.clone());
                    return Some(self.store_message(origin, stanza, to, turn));
                }
                attempt => attempt.into(),
            },
            refused => kept_out(stanza, to, turn, refused),
        };
        self.end_message(origin, stanza, &to.bare, turn, end);
        None
    }

    /// Gives a message for an account to the sessions that the rules name, until one takes it or
    /// none is left (MSG-8); never [`Attempt::Again`].
    fn attempt(&self, stanza: &Stanza, to: &Address<'_>, turn: Turn) -> Attempt<C> {
        let type_ = MessageType::of(stanza.type_().as_deref());
        let domain = to.bare.domain().as_str();
        let since = turn.since().filter(|_| !is_delayed_by(stanza, domain));
        let delayed = since.map(|since| stanza.with_appended(&delay(domain, since)));
        let mut refused = Refused::new();
        loop {
            match self.try_message(type_, delayed.as_ref().unwrap_or(stanza), to, &mut refused) {
                Attempt::Again => {}
                settled => return settled,
            }
        }
    }

    /// Tells extensions, and the sender where that is due, what became of a message.
    fn end_message(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        account: &BareJid,
        turn: Turn,
        end: End<C>,
    ) {
        let (outcome, reached, copies) = match &end {
            End::Taken(reached, copies) => (Outcome::Delivered, &reached[..], copies.as_ref()),
            End::Stored => (Outcome::Stored, &[][..], None),
            End::Refused(_) => (Outcome::Refused, &[][..], None),
        };
        if turn == Turn::First {
            self.delivered(stanza, origin, Some(account), reached, outcome, copies);
        }
        if copies.is_some_and(Copies::release) {
            // Whoever took it has ended since, and has left it to us.
            let to = self.address_of(account.clone());
            let since = Some(self.environment.utc());
            if let Some(task) = self.message_again(stanza, &to, since) {
                self.jobs.spawn(task);
            }
        }
        if let End::Refused(Admission::Refuse(error)) = end {
            self.bounce(origin, stanza, error);
        }
    }

    fn try_message(
        &self,
        type_: MessageType,
        stanza: &Stanza,
        to: &Address<'_>,
        refused: &mut Refused,
    ) -> Attempt<C> {
        let sessions = self.registry.sessions_of(to.key());
        let sessions: SmallVec<[SessionHandle<C>; 4]> =
            sessions.filter(|session| !refused.contains(&session.id())).collect();
        // Others may get it by a carbon copy.
        let copies = (sessions.len() > 1).then(|| Copies::of(stanza));
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
        // The store is asked only where its answer counts: it looks through the whole message.
        let offline = if situation.asks_offline() { self.offline(stanza) } else { Offline::Bounce };
        // An unknown account looks like one without sessions (MSG-5): the store tells them apart.
        match message(type_, situation, offline) {
            MessageDecision::Silent => Attempt::Silent,
            MessageDecision::Bounce => Attempt::Bounce,
            MessageDecision::Offline => Attempt::Store,
            MessageDecision::Addressed => self.give_each(matching, stanza, copies, refused),
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
                self.give_each(chosen, stanza, copies, refused)
            }
            MessageDecision::All => {
                let chosen = sessions.iter().filter(|s| s.is_available() && s.priority() >= 0);
                self.give_each(chosen, stanza, copies, refused)
            }
        }
    }

    fn give_each<'a>(
        &self,
        sessions: impl IntoIterator<Item = &'a SessionHandle<C>>,
        stanza: &Stanza,
        copies: Option<Copies>,
        refused: &mut Refused,
    ) -> Attempt<C> {
        let mut reached = Reached::new();
        for session in sessions {
            match self.give_copy(session, stanza, copies.as_ref()) {
                Ok(()) => reached.push(session.clone()),
                Err(_) => refused.push(session.id()),
            }
        }
        if reached.is_empty() { Attempt::Again } else { Attempt::Done(reached, copies) }
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
        to: &Address<'_>,
        turn: Turn,
    ) -> Task {
        let core = Arc::clone(self);
        let to = to.to_static();
        Box::pin(async move {
            let Some(store) = core.stores.offline.clone() else { return };
            let (key, account) = (to.bare.to_string(), to.bare.clone());
            // The store says itself since when it has kept a message.
            let since = turn.since().filter(|_| !is_delayed_by(&stanza, account.domain().as_str()));
            let since = since.unwrap_or_else(|| core.environment.utc());
            let message = OfflineMessage::new(super::xml(&stanza), since);
            let job = {
                let (core, stanza) = (Arc::clone(&core), stanza.clone());
                async move {
                    // Asked again where it was asked before: what came in between may be a block.
                    let state = core.loaded_state(&to.bare).await?;
                    match core.ask(&state, &stanza) {
                        Admission::Accept => {}
                        refused => return Ok(kept_out(&stanza, &to, turn, refused)),
                    }
                    if !core.stores.accounts.exists(&to.bare).await? {
                        return Ok(End::Stored);
                    }
                    match core.attempt(&stanza, &to, turn) {
                        Attempt::Store => store.push(&to.bare, message).await?,
                        attempt => return Ok(attempt.into()),
                    }
                    Ok::<_, StoreError>(End::Stored)
                }
            };
            let refuse = |condition: Condition| End::Refused(Admission::Refuse(condition.into()));
            let end = match core.jobs.run(&key, job).await {
                Some(Ok(end)) => end,
                Some(Err(StoreError::Full)) => refuse(BOUNCE),
                _ => refuse(Condition::InternalServerError),
            };
            core.end_message(origin.as_ref(), &stanza, &account, turn, end);
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

/// What becomes of a message that does not get in: who sent it is answered where an account that is
/// away, and keeps nothing, would answer, whatever sessions there are (BLOCK-5). One that was taken
/// before ends in silence.
fn kept_out<C: Connection + Clone>(
    stanza: &Stanza,
    to: &Address<'_>,
    turn: Turn,
    refused: Admission,
) -> End<C> {
    let away = match to.resource {
        Some(_) => MessageSituation::FullNoneNonNegative,
        None => MessageSituation::BareNoneAvailable,
    };
    let type_ = MessageType::of(stanza.type_().as_deref());
    let answers = message(type_, away, offline(stanza, false)) == MessageDecision::Bounce;
    End::Refused(if answers && turn == Turn::First { refused } else { Admission::Drop })
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
enum Attempt<C: Connection + Clone> {
    /// The copies are counted until everybody who gets one has it.
    Done(Reached<C>, Option<Copies>),
    /// Nobody is to have it.
    Silent,
    /// Nobody took it, somebody else may.
    Again,
    Store,
    Bounce,
}

/// What became of a message in the end.
enum End<C: Connection + Clone> {
    Taken(Reached<C>, Option<Copies>),
    /// By the store, or by nobody where there is no such account: its sender sees no difference.
    Stored,
    /// As an extension, or the rules, would have it.
    Refused(Admission),
}

impl<C: Connection + Clone> From<Attempt<C>> for End<C> {
    fn from(attempt: Attempt<C>) -> Self {
        match attempt {
            Attempt::Done(reached, copies) => Self::Taken(reached, copies),
            Attempt::Silent | Attempt::Again => Self::Refused(Admission::Drop),
            Attempt::Bounce => Self::Refused(Admission::Refuse(BOUNCE.into())),
            Attempt::Store => Self::Stored,
        }
    }
}
