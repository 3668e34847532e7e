//! Presence: what clients broadcast and direct, and what arrives for accounts of this server
//! (RFC 6121 §4, §8.5).

use std::borrow::Cow;
use std::sync::Arc;

use jid::BareJid;

use super::address::Address;
use super::destination::Destination;
use super::give::Origin;
use crate::connection::SharedConnection;
use crate::extension::Admission;
use crate::rules::delivery::{PresenceDecision, PresenceSituation, presence};
use crate::rules::presence::{Audience, PresenceType, broadcast, read_priority};
use crate::server::{Core, PeerAddress, Task};
use crate::session::{Bound, Item, Presence, Session, SessionHandle, Validity};
use crate::stanza::{Condition, Stanza};
use crate::stream::Limit;

impl<C: SharedConnection> Core<C> {
    /// A presence that a client sent, with `from` set.
    pub(crate) fn client_presence(
        self: &Arc<Self>,
        session: &mut Session<Bound, C>,
        stanza: &Stanza,
        to: Option<&Address<'_>>,
    ) -> Option<Task> {
        match (PresenceType::read(stanza), to) {
            (Ok(type_), Some(to)) => self.directed(&session.handle(), stanza, to, type_),
            (Ok(PresenceType::Available), None) => self.broadcast(session, stanza),
            (Ok(PresenceType::Unavailable), None) => {
                session.set_presence(Presence::Unavailable { stanza: Some(stanza) });
                None
            }
            (Ok(PresenceType::Error), None) => None,
            // STZ-4: these are for somebody.
            (Ok(PresenceType::Subscription(_) | PresenceType::Probe), None) => {
                self.refuse(Some(&session.handle()), stanza, Condition::BadRequest)
            }
            (Err(error), _) => self.refuse(Some(&session.handle()), stanza, error),
        }
    }

    /// A presence that a client sent to somebody.
    pub(super) fn directed(
        self: &Arc<Self>,
        handle: &SessionHandle<C>,
        stanza: &Stanza,
        to: &Address<'_>,
        type_: PresenceType,
    ) -> Option<Task> {
        match type_ {
            PresenceType::Available => {
                let target = to.to_text();
                // Recorded first, sent after: an end in between tells the target (mechanism 2).
                match handle.record_directed(&target, self.limits.directed) {
                    Ok(validity) => self.presence(Some(handle), stanza, to, validity),
                    Err(error) => {
                        let account = Some(&handle.account().bare);
                        self.limit(Limit::DirectedPresence, &PeerAddress::UNKNOWN, account);
                        self.refuse(Some(handle), stanza, error.condition())
                    }
                }
            }
            PresenceType::Unavailable => {
                handle.forget_directed(&to.to_text());
                self.presence(Some(handle), stanza, to, Validity::FOR_GOOD)
            }
            PresenceType::Subscription(kind) => {
                self.subscription(handle, kind, stanza, BareJid::clone(&to.bare))
            }
            PresenceType::Probe => {
                // PRES-19: from the bare JID, and without an error if there is no way.
                let account = handle.account().bare.as_str();
                let probe = stanza.readdressed(Some(account), stanza.to().as_deref());
                #[cfg(feature = "cluster")]
                if let Some(node) = self.is_afar(to) {
                    node.ask(handle.jid().as_str(), &probe, &to.bare);
                    return None;
                }
                let here = self.is_here(to.bare.as_str());
                self.presence(Some(handle).filter(|_| here), &probe, to, Validity::FOR_GOOD)
            }
            PresenceType::Error => self.presence(Some(handle), stanza, to, Validity::FOR_GOOD),
        }
    }

    /// Broadcast presence, and what is due after it (PRES-3).
    fn broadcast(
        self: &Arc<Self>,
        session: &mut Session<Bound, C>,
        stanza: &Stanza,
    ) -> Option<Task> {
        let handle = session.handle();
        let priority = match read_priority(stanza) {
            Ok(priority) => priority,
            Err(error) => return self.refuse(Some(&handle), stanza, error),
        };
        let first = self.registry.available(&handle.account().bare).is_empty();
        let before = handle.is_available().then(|| handle.priority());
        let waits = self.stores.offline.is_some() || handle.is_heir();
        let causes = broadcast(before, Some(priority));
        let messages = waits && causes.contains(&Audience::OfflineMessages);
        if messages {
            self.registry.expect_stored(&handle);
        }
        let initial = session.set_presence(Presence::Available { stanza, priority });
        let requests = initial && handle.roster().requests().len() > 0;
        if !requests {
            if first {
                self.remind(&handle);
            }
            if !messages {
                return None;
            }
        }
        let core = Arc::clone(self);
        Some(Box::pin(async move {
            if requests {
                core.deliver_requests(&handle).await;
                if first {
                    core.remind(&handle);
                }
            }
            if messages {
                core.deliver_offline(&handle.account().bare).await;
            }
        }))
    }

    /// A presence for somebody: an account or a domain of this server, or somebody elsewhere. Dropped
    /// once it is void.
    pub(super) fn presence(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: &Address<'_>,
        validity: Validity<'_>,
    ) -> Option<Task> {
        match self.destination(&to.bare) {
            Destination::Here => {}
            Destination::Elsewhere => {
                self.route_elsewhere(origin, stanza.clone(), validity);
                return None;
            }
        }
        // MSG-9: to the domain, silence.
        let type_ = PresenceType::read(stanza).ok().filter(|_| to.is_account())?;
        match self.admit(to, stanza) {
            Admission::Accept => {}
            // What changes a subscription does so without a word (BLOCK-9).
            Admission::Drop if matches!(type_, PresenceType::Subscription(_)) => {}
            Admission::Drop => return None,
            Admission::Refuse(error) => return self.refuse(origin, stanza, error),
        }
        let sessions = self.registry.sessions_of(to.key());
        let reached: Vec<SessionHandle<C>> = match &to.resource {
            Some(resource) => sessions.filter(|s| s.resource().as_str() == &**resource).collect(),
            None => sessions.filter(SessionHandle::is_available).collect(),
        };
        let situation = match (&to.resource, reached.is_empty()) {
            (Some(_), false) => PresenceSituation::FullMatch,
            (Some(_), true) => PresenceSituation::FullWithoutMatch,
            (None, false) => PresenceSituation::BareSomeAvailable,
            (None, true) => PresenceSituation::BareNoneAvailable,
        };
        match presence(type_, situation) {
            PresenceDecision::Silent => None,
            PresenceDecision::AllAvailable | PresenceDecision::Addressed => {
                self.give_presence(&reached, stanza, type_, origin, validity);
                None
            }
            PresenceDecision::Subscription => {
                let PresenceType::Subscription(kind) = type_ else { return None };
                self.inbound_subscription(stanza, kind, &to.bare, false)
            }
            PresenceDecision::Probe => self.probe(origin, stanza, to),
        }
    }

    /// Gives sessions presence of another, of this server or elsewhere.
    fn give_presence(
        &self,
        sessions: &[SessionHandle<C>],
        stanza: &Stanza,
        type_: PresenceType,
        origin: Origin<'_, C>,
        validity: Validity<'_>,
    ) {
        let ends = matches!(type_, PresenceType::Unavailable | PresenceType::Error);
        let from = match origin {
            _ if !ends => None,
            Some(session) => Some(Cow::from(session.jid().as_str())),
            None => stanza.from().and_then(|from| Some(self.address(&from).ok()?.to_text().into())),
        };
        for session in sessions {
            if let Some(from) = &from {
                // PRES-11
                session.forget_directed(from);
            }
            if validity.is_for_good() {
                let _gone = self.give(session, stanza);
            } else {
                let _gone = session.send_item(&Item::new(stanza).while_valid(validity));
            }
        }
    }
}
