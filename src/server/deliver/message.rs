//! Messages to accounts and domains of ours (RFC 6121 §8.5.2, §8.5.3).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jid::BareJid;
use smallvec::SmallVec;

use crate::connection::SharedConnection;
use crate::extension::{Admission, Outcome};
use crate::rules::delivery::{
    BOUNCE, MessageDecision, MessageSituation, MessageType, Offline, Top, message,
    message_to_domain, offline,
};
use crate::server::deliver::address::Address;
use crate::server::{Core, Task};
use crate::session::{Copies, NotSent, SessionHandle, SessionId, Standing};
use crate::stanza::delay::{delay, is_delayed_by};
use crate::stanza::{Condition, Stanza, StanzaError};
use crate::store::{OfflineMessage, StoreError};

/// Sessions that refused a message: they are not asked again (MSG-8).
#[derive(Default)]
struct Refused {
    by: SmallVec<[SessionId; 2]>,
    /// For one of them as much waits as may.
    full: bool,
}

impl Refused {
    fn push(&mut self, session: SessionId, why: NotSent) {
        self.by.push(session);
        self.full |= why == NotSent::Full;
    }
}

/// Sessions that took it.
type Reached<C> = SmallVec<[SessionHandle<C>; 4]>;

impl<C: SharedConnection> Core<C> {
    /// Delivers a message to an account or a domain that is ours. What has to wait for a store is
    /// returned as a task.
    pub(in crate::server) fn message(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        self.message_of(origin, stanza, to, Turn::First)
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
            Admission::Accept => match self.attempt(stanza, to, turn, Past::Nothing) {
                Attempt::Store | Attempt::Behind => {
                    let (origin, stanza) = (origin.cloned(), stanza.clone());
                    return Some(self.queue_message(origin, stanza, to, turn));
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
    fn attempt(&self, stanza: &Stanza, to: &Address<'_>, turn: Turn, past: Past) -> Attempt<C> {
        let type_ = MessageType::of(stanza.type_().as_deref());
        let delayed = turn.delay(stanza, &to.bare);
        let mut refused = Refused::default();
        loop {
            let stanza = delayed.as_ref().unwrap_or(stanza);
            match self.try_message(type_, stanza, to, turn.since(), past, &mut refused) {
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
            End::Nobody => (Outcome::NoAccount, &[][..], None),
            End::Refused(_) => (Outcome::Refused, &[][..], None),
        };
        if turn == Turn::First {
            self.delivered(stanza, origin, Some(account), reached, outcome, copies);
        }
        if copies.is_some_and(Copies::release) {
            // Whoever took it has ended since, and has left it to us.
            let to = self.address_of(account.clone());
            let (accepted, since) = (self.environment.utc(), self.environment.now());
            let turn = Turn::Again { accepted, since, delayed: true };
            if let Some(task) = self.message_of(None, stanza, &to, turn) {
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
        since: Option<Duration>,
        past: Past,
        refused: &mut Refused,
    ) -> Attempt<C> {
        let sessions = self.registry.sessions_of(to.key());
        let standing = |session: SessionHandle<C>| {
            let standing = session.standing();
            (session, standing)
        };
        let sessions: SmallVec<[(SessionHandle<C>, Standing); 4]> =
            sessions.filter(|session| !refused.by.contains(&session.id())).map(standing).collect();
        // Others may get it by a carbon copy.
        let copies = (sessions.len() > 1).then(|| Copies::of(stanza));
        let matching = to.resource.as_deref().and_then(|resource| {
            sessions.iter().find(|(session, _)| session.resource().as_str() == resource)
        });
        let available = || sessions.iter().filter(|(_, standing)| standing.is_available());
        let priorities = || available().map(|(_, standing)| standing.priority());
        let situation = match (&to.resource, matching) {
            (Some(_), Some(_)) => MessageSituation::FullMatch,
            (Some(_), None) => MessageSituation::full_without_match(priorities()),
            (None, _) => MessageSituation::bare(priorities()),
        };
        // The store is asked only where its answer counts: it looks through the whole message.
        let offline = if situation.asks_offline() { self.offline(stanza) } else { Offline::Bounce };
        // An unknown account looks like one without sessions (MSG-5): the store tells them apart.
        let decision = message(type_, situation, offline);
        if decision.is_delivery() {
            // After the look at the sessions: one that can be found has said by then what it is to get
            // first.
            let is_behind = match past {
                Past::Nothing => sessions.iter().any(|(_, standing)| standing.is_behind()),
                Past::Chain => self.registry.has_waiting(to.bare.as_str()),
                Past::Everything => false,
            };
            if is_behind {
                return Attempt::Behind;
            }
        }
        match decision {
            MessageDecision::Silent => Attempt::Silent,
            // LIMIT-10: not into the store, where it would be ahead of what waits for the session.
            MessageDecision::Bounce | MessageDecision::Offline if refused.full => Attempt::Full,
            MessageDecision::Bounce => Attempt::Bounce,
            MessageDecision::Offline => Attempt::Store,
            MessageDecision::Addressed => self.give_each(matching, stanza, copies, since, refused),
            MessageDecision::Top => {
                let facts = |(s, standing): &(SessionHandle<C>, Standing)| {
                    (standing.priority(), s.is_live())
                };
                let Some(top) = Top::choose(available().map(facts)) else {
                    return Attempt::Again;
                };
                let chosen =
                    available().filter(|(s, standing)| top.takes(standing.priority(), s.is_live()));
                self.give_each(chosen, stanza, copies, since, refused)
            }
            MessageDecision::All => {
                let chosen = available().filter(|(_, standing)| standing.priority() >= 0);
                self.give_each(chosen, stanza, copies, since, refused)
            }
        }
    }

    fn give_each<'a>(
        &self,
        sessions: impl IntoIterator<Item = &'a (SessionHandle<C>, Standing)>,
        stanza: &Stanza,
        copies: Option<Copies>,
        since: Option<Duration>,
        refused: &mut Refused,
    ) -> Attempt<C> {
        let mut reached = Reached::new();
        for (session, _) in sessions {
            match self.give_copy(session, stanza, copies.as_ref(), since) {
                Ok(()) => reached.push(session.clone()),
                Err(why) => refused.push(session.id(), why),
            }
        }
        if reached.is_empty() { Attempt::Again } else { Attempt::Done(reached, copies) }
    }

    /// What the offline store would make of a message.
    fn offline(&self, stanza: &Stanza) -> Offline {
        offline(stanza, self.stores.offline.is_some())
    }

    /// Has a message wait for its turn on the account's chain, behind the account's backlog.
    fn queue_message(
        self: &Arc<Self>,
        origin: Option<SessionHandle<C>>,
        stanza: Stanza,
        to: &Address<'_>,
        turn: Turn,
    ) -> Task {
        let (core, to) = (Arc::clone(self), to.to_static());
        // From now on: what comes later is not to pass it.
        let place = self.registry.queue_up(to.key());
        Box::pin(async move {
            let key = to.bare.to_string();
            let job = {
                let (core, origin, stanza) = (Arc::clone(&core), origin.clone(), stanza.clone());
                async move {
                    core.settle_left(&to.bare).await;
                    let end = core.message_in_turn(&stanza, &to, turn, Past::Chain).await;
                    core.end_message(origin.as_ref(), &stanza, &to.bare, turn, end);
                    drop(place);
                }
            };
            if core.jobs.run(&key, job).await.is_none() {
                core.bounce(origin.as_ref(), &stanza, Condition::InternalServerError);
            }
        })
    }

    /// Gives a message to the account's sessions, or stores it if there is such an account (OFF-1,
    /// OFF-2, MSG-5). Runs on the account's chain, where what came before it was dealt with.
    async fn message_in_turn(
        self: &Arc<Self>,
        stanza: &Stanza,
        to: &Address<'_>,
        turn: Turn,
        past: Past,
    ) -> End<C> {
        let account = &to.bare;
        let refuse = |condition: Condition| End::Refused(Admission::Refuse(condition.into()));
        // Asked again where it was asked before: what came in between may be a block.
        let Ok(state) = self.loaded_state(account).await else {
            return refuse(Condition::InternalServerError);
        };
        match self.ask(&state, stanza) {
            Admission::Accept => {}
            refused => return kept_out(stanza, to, turn, refused),
        }
        if !self.registry.is_loaded(account) {
            match self.stores.accounts.exists(account).await {
                Ok(true) => {}
                Ok(false) => return self.to_nobody(stanza, to),
                Err(_) => return refuse(Condition::InternalServerError),
            }
        }
        loop {
            let mut attempt = self.attempt(stanza, to, turn, past);
            if matches!(attempt, Attempt::Behind) {
                if self.catch_up(account).await {
                    continue;
                }
                // The store does not answer: what it can keep goes behind what it has.
                attempt = match self.offline(stanza) {
                    Offline::Store => Attempt::Store,
                    _ => self.attempt(stanza, to, turn, Past::Everything),
                };
            }
            if !matches!(attempt, Attempt::Store) {
                return attempt.into();
            }
            return match self.store(account, stanza, turn).await {
                Ok(()) => End::Stored,
                Err(StoreError::Full) => refuse(BOUNCE),
                Err(_) => refuse(Condition::InternalServerError),
            };
        }
    }

    /// Puts a message into the offline store.
    async fn store(
        &self,
        account: &BareJid,
        stanza: &Stanza,
        turn: Turn,
    ) -> Result<(), StoreError> {
        let Some(store) = &self.stores.offline else { return Ok(()) };
        let (accepted, delayed) = match turn {
            Turn::First => (self.environment.utc(), None),
            Turn::Again { accepted, .. } => (accepted, since_then(stanza, account, accepted)),
        };
        let stanza = crate::server::xml(delayed.as_ref().unwrap_or(stanza));
        store.push(account, OfflineMessage::new(stanza, accepted)).await
    }

    /// What becomes of a message to an account that does not exist (MSG-T1, MSG-T2).
    fn to_nobody(&self, stanza: &Stanza, to: &Address<'_>) -> End<C> {
        let situation = match to.resource {
            Some(_) => MessageSituation::UnknownFull,
            None => MessageSituation::UnknownBare,
        };
        let type_ = MessageType::of(stanza.type_().as_deref());
        match message(type_, situation, self.offline(stanza)) {
            MessageDecision::Bounce => End::Refused(Admission::Refuse(BOUNCE.into())),
            _ => End::Nobody,
        }
    }

    /// A message that an ended session had accepted, in its turn: it goes where it would go without
    /// that session. Says which sessions have got it.
    pub(super) async fn message_left(
        self: &Arc<Self>,
        stanza: &Stanza,
        to: &Address<'_>,
        turn: Turn,
    ) -> Vec<SessionId> {
        let end = self.message_in_turn(stanza, to, turn, Past::Everything).await;
        let reached = match &end {
            End::Taken(reached, _) => reached.iter().map(SessionHandle::id).collect(),
            End::Stored | End::Nobody | End::Refused(_) => Vec::new(),
        };
        self.end_message(None, stanza, &to.bare, turn, end);
        reached
    }

    /// Answers a stanza with an error, where one is due (STZ-6, STZ-7).
    pub(in crate::server) fn bounce(
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
fn kept_out<C: SharedConnection>(
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
pub(super) enum Turn {
    First,
    /// One that was accepted then, by either clock; where it is `delayed`, it says so (SM-17).
    Again {
        accepted: SystemTime,
        since: Duration,
        delayed: bool,
    },
}

impl Turn {
    const fn since(self) -> Option<Duration> {
        match self {
            Self::First => None,
            Self::Again { since, .. } => Some(since),
        }
    }

    /// The message with the time since when it is delayed, where it does not say so yet.
    fn delay(self, stanza: &Stanza, account: &BareJid) -> Option<Stanza> {
        let Self::Again { accepted, delayed: true, .. } = self else { return None };
        since_then(stanza, account, accepted)
    }
}

/// The message with the time at which it was accepted, where it does not say so yet.
fn since_then(stanza: &Stanza, account: &BareJid, accepted: SystemTime) -> Option<Stanza> {
    let domain = account.domain().as_str();
    (!is_delayed_by(stanza, domain)).then(|| stanza.with_appended(&delay(domain, accepted)))
}

/// What became of one attempt to deliver a message.
enum Attempt<C: SharedConnection> {
    /// The copies are counted until everybody who gets one has it.
    Done(Reached<C>, Option<Copies>),
    /// Nobody is to have it.
    Silent,
    /// Nobody took it, somebody else may.
    Again,
    Store,
    Bounce,
    /// As much waits for whom it is for as may: its sender may try again.
    Full,
    /// It would pass what comes first for the account.
    Behind,
}

/// What a message may be given past.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// It has just arrived: nothing that waits for the account.
    Nothing,
    /// It is its turn on the account's chain: others there, but nothing that ended sessions have left or
    /// that the store has for a session.
    Chain,
    /// It is one of those that ended sessions have left, and comes among what the store has; or the
    /// store does not answer.
    Everything,
}

/// What became of a message in the end.
enum End<C: SharedConnection> {
    Taken(Reached<C>, Option<Copies>),
    Stored,
    /// There is no such account: its sender sees no difference.
    Nobody,
    /// As an extension, or the rules, would have it.
    Refused(Admission),
}

impl<C: SharedConnection> From<Attempt<C>> for End<C> {
    fn from(attempt: Attempt<C>) -> Self {
        match attempt {
            Attempt::Done(reached, copies) => Self::Taken(reached, copies),
            Attempt::Silent | Attempt::Again => Self::Refused(Admission::Drop),
            Attempt::Bounce => Self::Refused(Admission::Refuse(BOUNCE.into())),
            Attempt::Full => Self::Refused(Admission::Refuse(crate::server::too_much())),
            Attempt::Store | Attempt::Behind => Self::Stored,
        }
    }
}
