//! Messages to accounts and domains of this server (RFC 6121 §8.5.2, §8.5.3).

mod handoff;
mod queued;
pub(in crate::server) mod review;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jid::BareJid;
use smallvec::SmallVec;

use self::handoff::{Handoff, Overtakes};
use super::address::Address;
use crate::connection::SharedConnection;
use crate::extension::{Admission, Outcome, Wants};
use crate::rules::delivery::{
    self as rules, BOUNCE, MessageDecision, MessageSituation, MessageType,
};
use crate::server::deliver::give::{Message, Origin};
use crate::server::{Core, Task};
use crate::session::{Copies, SessionHandle};
use crate::stanza::delay::{delay, is_delayed_by};
use crate::stanza::{Stanza, StanzaError};

/// When the server accepted a message: just now, or earlier for a session that has ended since.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    Now,
    /// At this time, by either clock. `delayed`: it says so to its recipients (SM-17).
    Earlier {
        at: SystemTime,
        since: Duration,
        delayed: bool,
        /// Extensions know that it waits (HOOK-7).
        is_told: bool,
    },
}

impl Accepted {
    /// Counts copies of the message.
    fn copies_of(self, stanza: &Stanza) -> Copies {
        let copies = Copies::of(stanza);
        if self.is_told() {
            let _new = copies.set_told();
        }
        copies
    }

    const fn is_told(self) -> bool {
        matches!(self, Self::Earlier { is_told: true, .. })
    }
}

/// The message with the time at which `domain` accepted it, where it does not carry one yet.
pub(super) fn with_delay(stanza: &Stanza, domain: &str, at: SystemTime) -> Option<Stanza> {
    (!is_delayed_by(stanza, domain)).then(|| stanza.with_appended(&delay(domain, at)))
}

/// Sessions that took a message.
type Reached<C> = SmallVec<[SessionHandle<C>; 4]>;

/// An [`Outcome`] with what is to be done about it.
enum Disposition<C: SharedConnection> {
    /// To these sessions. The copies are counted until each of them has its own.
    Delivered(Reached<C>, Option<Copies>),
    Stored,
    /// There is no such account, and its sender sees no difference.
    NoAccount,
    /// As an extension or the rules decided.
    Refused(Admission),
}

impl<C: SharedConnection> Disposition<C> {
    fn refused(error: impl Into<StanzaError>) -> Self {
        Self::Refused(Admission::Refuse(error.into()))
    }

    /// A message that does not get in is answered where an account that is away and stores nothing
    /// would answer, whatever sessions there are (BLOCK-5). One accepted earlier ends in silence.
    fn kept_out(
        stanza: &Stanza,
        to: &Address<'_>,
        accepted: Accepted,
        admission: Admission,
    ) -> Self {
        let away = match to.resource {
            Some(_) => MessageSituation::FullNoneNonNegative,
            None => MessageSituation::BareNoneAvailable,
        };
        let type_ = MessageType::of(stanza.type_().as_deref());
        let answers =
            rules::message(type_, away, rules::offline(stanza, false)) == MessageDecision::Bounce;
        let is_told = answers && accepted == Accepted::Now;
        Self::Refused(if is_told { admission } else { Admission::Drop })
    }
}

impl<C: SharedConnection> Core<C> {
    /// Delivers a message to an account or a domain of this server. What has to wait for a store is
    /// returned as a task.
    pub(crate) fn message(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: &Address<'_>,
        accepted: Accepted,
    ) -> Option<Task> {
        if !to.is_account() {
            self.message_to_domain(origin, Message::of(stanza));
            return None;
        }
        let disposition = match self.admit(to, stanza) {
            Admission::Accept => match self.hand_off(stanza, to, accepted, Overtakes::Nothing) {
                Handoff::Settled(disposition) => disposition,
                Handoff::Store | Handoff::Behind => {
                    let (origin, stanza) = (origin.cloned(), stanza.clone());
                    return Some(self.queue_message(origin, stanza, to, accepted));
                }
            },
            refused => Disposition::kept_out(stanza, to, accepted, refused),
        };
        self.conclude(origin, Message::of(stanza), &to.bare, accepted, disposition);
        None
    }

    fn message_to_domain(&self, origin: Origin<'_, C>, message: Message<'_>) {
        self.delivered(origin, message, None, &[], Outcome::Refused, None);
        let stanza = message.stanza;
        let type_ = MessageType::of(stanza.type_().as_deref());
        if rules::message_to_domain(type_) == MessageDecision::Bounce {
            self.bounce(origin, stanza, BOUNCE);
        }
    }

    /// Tells extensions, and the sender where that is due, what became of a message.
    fn conclude(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        message: Message<'_>,
        account: &BareJid,
        accepted: Accepted,
        disposition: Disposition<C>,
    ) {
        let stanza = message.stanza;
        let (outcome, reached, copies) = match &disposition {
            Disposition::Delivered(to, copies) => (Outcome::Delivered, &to[..], copies.as_ref()),
            Disposition::Stored => (Outcome::Stored, &[][..], None),
            Disposition::NoAccount => (Outcome::NoAccount, &[][..], None),
            Disposition::Refused(_) => (Outcome::Refused, &[][..], None),
        };
        if accepted == Accepted::Now {
            self.delivered(origin, message, Some(account), reached, outcome, copies);
        }
        let lost = copies.filter(|copies| copies.release());
        if self.wants.has_any(Wants::OUTCOMES) {
            let kept = if lost.is_some() { None } else { copies };
            self.follow(message, account, accepted, outcome, reached, kept);
        }
        if let Some(copies) = lost {
            self.route_again(stanza, account, copies);
        }
        if let Disposition::Refused(Admission::Refuse(error)) = disposition {
            self.bounce(origin, stanza, error);
        }
    }

    /// Every session that took a message has ended meanwhile and left it to us.
    #[cold]
    fn route_again(self: &Arc<Self>, stanza: &Stanza, account: &BareJid, copies: &Copies) {
        let to = self.address_of(account.clone());
        let (at, since) = (self.environment.utc(), self.environment.now());
        let is_told = copies.is_told();
        let accepted = Accepted::Earlier { at, since, delayed: true, is_told };
        let task = match self.is_followed() {
            true => Some(self.queue_message(None, stanza.clone(), &to, accepted)),
            false => self.message(None, stanza, &to, accepted),
        };
        if let Some(task) = task {
            self.jobs.spawn(task);
        }
    }

    /// Tells extensions that it was routed again, and whether it waits now for clients that are gone
    /// (HOOK-7).
    #[cold]
    fn follow(
        &self,
        message: Message<'_>,
        account: &BareJid,
        accepted: Accepted,
        outcome: Outcome,
        reached: &[SessionHandle<C>],
        copies: Option<&Copies>,
    ) {
        if accepted != Accepted::Now {
            self.came_to(message, account, reached, Outcome::Rerouted);
        }
        let waits = match copies {
            // One that is there may be about to get it with what the store has.
            Some(copies) => {
                copies.lose();
                !reached.iter().any(SessionHandle::is_live) && copies.begins_to_wait()
            }
            None => outcome == Outcome::Stored && !accepted.is_told(),
        };
        if waits {
            self.waits(message.stanza, account);
        }
    }

    /// Tells extensions that a message waits for an account.
    pub(in crate::server) fn waits(&self, stanza: &Stanza, account: &BareJid) {
        self.came_to(Message::of(stanza), account, &[], Outcome::Waiting);
    }
}
