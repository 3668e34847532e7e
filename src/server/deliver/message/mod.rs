//! Messages to accounts and domains of this server (RFC 6121 §8.5.2, §8.5.3).

mod handoff;
mod queued;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jid::BareJid;
use smallvec::SmallVec;

use self::handoff::{Handoff, Overtakes};
use super::address::Address;
use crate::connection::SharedConnection;
use crate::extension::{Admission, Outcome};
use crate::rules::delivery::{
    BOUNCE, MessageDecision, MessageSituation, MessageType, message, message_to_domain, offline,
};
use crate::server::deliver::give::Origin;
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
    },
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
        let answers = message(type_, away, offline(stanza, false)) == MessageDecision::Bounce;
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
            self.message_to_domain(origin, stanza);
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
        self.conclude(origin, stanza, &to.bare, accepted, disposition);
        None
    }

    fn message_to_domain(&self, origin: Origin<'_, C>, stanza: &Stanza) {
        self.delivered(stanza, origin, None, &[], Outcome::Refused, None);
        let type_ = MessageType::of(stanza.type_().as_deref());
        if message_to_domain(type_) == MessageDecision::Bounce {
            self.bounce(origin, stanza, BOUNCE);
        }
    }

    /// Tells extensions, and the sender where that is due, what became of a message.
    fn conclude(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        account: &BareJid,
        accepted: Accepted,
        disposition: Disposition<C>,
    ) {
        let (outcome, reached, copies) = match &disposition {
            Disposition::Delivered(to, copies) => (Outcome::Delivered, &to[..], copies.as_ref()),
            Disposition::Stored => (Outcome::Stored, &[][..], None),
            Disposition::NoAccount => (Outcome::NoAccount, &[][..], None),
            Disposition::Refused(_) => (Outcome::Refused, &[][..], None),
        };
        if accepted == Accepted::Now {
            self.delivered(stanza, origin, Some(account), reached, outcome, copies);
        }
        if copies.is_some_and(Copies::release) {
            // Every session that took it has ended meanwhile and left it to us.
            let to = self.address_of(account.clone());
            let (at, since) = (self.environment.utc(), self.environment.now());
            let accepted = Accepted::Earlier { at, since, delayed: true };
            if let Some(task) = self.message(None, stanza, &to, accepted) {
                self.jobs.spawn(task);
            }
        }
        if let Disposition::Refused(Admission::Refuse(error)) = disposition {
            self.bounce(origin, stanza, error);
        }
    }
}
