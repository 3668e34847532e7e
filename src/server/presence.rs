//! Presence: what clients broadcast and direct, and what arrives for accounts of ours
//! (RFC 6121 §4, §8.5).

use std::sync::Arc;

use jid::BareJid;

use super::address::Address;
use super::transaction::Change;
use super::{Core, Task};
use crate::connection::Connection;
use crate::extension::Admission;
use crate::rules::delivery::{PresenceDecision, PresenceSituation, presence};
use crate::rules::presence::{PresenceType, Probe, ProbeAnswer, answer_probe, read_priority};
use crate::rules::roster::Roster;
use crate::rules::subscription::SubscriptionKind;
use crate::session::{Bound, Presence, Session, SessionHandle};
use crate::stanza::delay::{delay, is_delayed_by};
use crate::stanza::{Condition, Stanza, StanzaError, canonicalise};

impl<C: Connection + Clone> Core<C> {
    /// A presence that a client sent, with `from` set.
    pub(super) fn client_presence(
        self: &Arc<Self>,
        session: &mut Session<Bound, C>,
        stanza: &Stanza,
        to: Option<&Address>,
    ) -> Option<Task> {
        let handle = session.handle();
        let refuse = |error: StanzaError| {
            self.bounce(Some(&handle), stanza, error);
            None
        };
        let type_ = match PresenceType::read(stanza) {
            Ok(type_) => type_,
            Err(error) => return refuse(error.into()),
        };
        let Some(to) = to else {
            return match type_ {
                PresenceType::Available => self.broadcast(session, stanza),
                PresenceType::Unavailable => {
                    session.set_presence(Presence::Unavailable { stanza: Some(stanza) });
                    None
                }
                PresenceType::Error => None,
                // STZ-4: these are for somebody.
                PresenceType::Subscription(_) | PresenceType::Probe => {
                    refuse(Condition::BadRequest.into())
                }
            };
        };
        match type_ {
            PresenceType::Available => {
                let target = to.to_text();
                // Recorded first, sent after: an end in between tells the target (mechanism 2).
                match handle.record_directed(&target, self.limits.directed) {
                    Ok(number) => self.presence(Some(&handle), stanza, to, Some(number)),
                    Err(error) => refuse(error.condition().into()),
                }
            }
            PresenceType::Unavailable => {
                handle.forget_directed(&to.to_text());
                self.presence(Some(&handle), stanza, to, None)
            }
            PresenceType::Subscription(kind) => {
                self.subscription(&handle, kind, stanza, to.bare.clone())
            }
            PresenceType::Probe => {
                // PRES-19: from the bare JID.
                let account = handle.account().bare.as_str();
                let probe = stanza.readdressed(Some(account), stanza.to().as_deref());
                self.presence(Some(&handle), &probe, to, None)
            }
            PresenceType::Error => self.presence(Some(&handle), stanza, to, None),
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
            Err(error) => {
                self.bounce(Some(&handle), stanza, error);
                return None;
            }
        };
        let reachable = handle.is_available() && handle.priority() >= 0;
        let initial = session.set_presence(Presence::Available { stanza, priority });
        let requests = initial && handle.roster().requests().len() > 0;
        let messages = !reachable && priority >= 0 && self.stores.offline.is_some();
        if !requests && !messages {
            return None;
        }
        let core = Arc::clone(self);
        Some(Box::pin(async move {
            if requests {
                core.deliver_requests(&handle).await;
            }
            if messages {
                core.deliver_offline(&handle).await;
            }
        }))
    }

    /// Stored requests, to each session that becomes available (SUB-10).
    async fn deliver_requests(self: &Arc<Self>, session: &SessionHandle<C>) {
        let account = session.account().bare.clone();
        let (core, session) = (Arc::clone(self), session.clone());
        let key = account.to_string();
        let job = async move {
            let Ok(requests) = core.stores.rosters.requests(&account).await else { return };
            for request in requests {
                if let Ok(stanza) = canonicalise(&request.stanza) {
                    let _gone = core.give(&session, &stanza);
                }
            }
        };
        self.jobs.run(&key, job).await;
    }

    /// Offline messages, in order, each to this session alone; what it accepted leaves the store
    /// (OFF-3, OFF-4).
    async fn deliver_offline(self: &Arc<Self>, session: &SessionHandle<C>) {
        let Some(store) = self.stores.offline.clone() else { return };
        let account = session.account().bare.clone();
        let (core, session) = (Arc::clone(self), session.clone());
        let key = account.to_string();
        let job = async move {
            let Ok(messages) = store.list(&account).await else { return };
            let domain = account.domain().as_str();
            let mut accepted = Vec::new();
            for (id, message) in messages {
                // One that cannot be read any more is of no use to anybody.
                if let Ok(mut stanza) = canonicalise(&message.stanza) {
                    if !is_delayed_by(&stanza, domain) {
                        stanza = stanza.with_appended(&delay(domain, message.received));
                    }
                    if core.give(&session, &stanza).is_err() {
                        break;
                    }
                }
                accepted.push(id);
            }
            if !accepted.is_empty() {
                let _kept = store.remove(&account, accepted).await;
            }
        };
        self.jobs.run(&key, job).await;
    }

    /// A subscription stanza that a client sent (SUB-1…6).
    fn subscription(
        self: &Arc<Self>,
        session: &SessionHandle<C>,
        kind: SubscriptionKind,
        stanza: &Stanza,
        contact: BareJid,
    ) -> Option<Task> {
        let account = session.account().bare.clone();
        if contact == account {
            // Every session of an account sees the others as it is.
            return None;
        }
        let stanza = stanza.readdressed(Some(account.as_str()), Some(contact.as_str()));
        let (core, session) = (Arc::clone(self), session.clone());
        Some(Box::pin(async move {
            let change = Change::Send { kind, stanza: stanza.clone() };
            if let Err(failed) = core.change_roster(account, contact, change, || ()).await {
                core.bounce(Some(&session), &stanza, StanzaError::from(failed));
            }
        }))
    }

    /// A presence for somebody: an account or a domain of ours, or somebody elsewhere. `number` is
    /// the one that its source had when it recorded the target.
    pub(super) fn presence(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address,
        number: Option<u32>,
    ) -> Option<Task> {
        if !self.registry.is_local(to.bare.as_str()) {
            self.route_elsewhere(origin, stanza.clone());
            return None;
        }
        // MSG-9: to the domain, silence.
        let type_ = PresenceType::read(stanza).ok().filter(|_| to.is_account())?;
        match self.admit(&to.bare, stanza) {
            Admission::Accept => {}
            Admission::Drop => return None,
            Admission::Refuse(error) => {
                self.bounce(origin, stanza, error);
                return None;
            }
        }
        let sessions = self.registry.sessions_of(to.bare.as_str());
        let mut reached: Vec<SessionHandle<C>> = match &to.resource {
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
                let from = stanza.from();
                for session in reached.drain(..) {
                    if matches!(type_, PresenceType::Unavailable | PresenceType::Error) {
                        // PRES-11
                        session.forget_directed(from.as_deref().unwrap_or_default());
                    }
                    self.give_presence(&session, stanza, origin, number);
                }
                None
            }
            PresenceDecision::Subscription => self.inbound_subscription(stanza, type_, to),
            PresenceDecision::Probe => self.probe(origin, stanza, to),
        }
    }

    /// A subscription stanza that arrives from elsewhere (SUB-7).
    fn inbound_subscription(
        self: &Arc<Self>,
        stanza: &Stanza,
        type_: PresenceType,
        to: &Address,
    ) -> Option<Task> {
        let PresenceType::Subscription(kind) = type_ else { return None };
        let contact = Address::parse(&stanza.from()?, |_| false).ok()?.bare;
        let account = to.bare.clone();
        let stanza = stanza.readdressed(Some(contact.as_str()), Some(account.as_str()));
        let core = Arc::clone(self);
        Some(Box::pin(async move {
            let admitted = core.admit_later(&account, &stanza).await;
            if matches!(admitted, Admission::Accept) && core.exists(&account).await {
                // A store that fails leaves everything as it was; the contact may ask again.
                let _failed = core
                    .change_roster(account, contact, Change::Receive { kind, stanza }, || ())
                    .await;
            }
        }))
    }

    /// A probe for an account of ours (PRES-14…18).
    fn probe(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address,
    ) -> Option<Task> {
        let from = Address::parse(&stanza.from()?, |_| false).ok()?.bare;
        let (core, origin, stanza, to) =
            (Arc::clone(self), origin.cloned(), stanza.clone(), to.clone());
        if let Some(account) = self.registry.account(to.bare.as_str()) {
            self.answer_probe(origin.as_ref(), &stanza, &to, &from, &account.roster());
            return None;
        }
        Some(Box::pin(async move {
            if !matches!(core.admit_later(&to.bare, &stanza).await, Admission::Accept) {
                return;
            }
            // An unknown account has an empty roster, and answers like one that refuses (PRES-14).
            let roster = core.load_roster(&to.bare).await.unwrap_or_default();
            core.answer_probe(origin.as_ref(), &stanza, &to, &from, &roster);
        }))
    }

    fn answer_probe(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        probe: &Stanza,
        to: &Address,
        from: &BareJid,
        roster: &Roster,
    ) {
        let account = to.bare.as_str();
        let own = from == &to.bare;
        let sessions: Vec<_> = self.registry.sessions_of(account).collect();
        let holder = sessions.iter().find(|s| s.has_directed_to(from.as_str()));
        let matching =
            to.resource.as_deref().map(|r| sessions.iter().find(|s| s.resource().as_str() == r));
        let available = match matching {
            Some(session) => session.is_some_and(SessionHandle::is_available),
            None => sessions.iter().any(SessionHandle::is_available),
        };
        let facts = Probe {
            full: to.resource.is_some(),
            subscriber: own || roster.is_subscriber(from.as_str()),
            available,
            directed: holder.is_some(),
        };
        let reply = |type_: Option<&str>, from: &str| {
            let mut answer = Stanza::presence().from(from).to(&probe.from().unwrap_or_default());
            if let Some(type_) = type_ {
                answer = answer.type_(type_);
            }
            if let Some(id) = probe.id() {
                answer = answer.id(&id);
            }
            answer.build()
        };
        match answer_probe(facts) {
            ProbeAnswer::Unsubscribed => self.answer(origin, reply(Some("unsubscribed"), account)),
            ProbeAnswer::Unavailable => {
                self.answer(origin, reply(Some("unavailable"), &to.to_text()))
            }
            ProbeAnswer::Mere => {
                let jid = match matching.flatten().filter(|_| facts.subscriber).or(holder) {
                    Some(session) => session.jid().as_str(),
                    None => return,
                };
                self.answer(origin, reply(None, jid));
            }
            ProbeAnswer::Broadcasts => {
                for session in sessions.iter().filter(|s| s.is_available()) {
                    if let Some((presence, at)) = session.last_presence() {
                        let presence =
                            presence.readdressed(Some(session.jid().as_str()), Some(from.as_str()));
                        let jid = session.jid().as_str();
                        self.answer(origin, presence.with_appended(&delay(jid, at)));
                    }
                }
            }
        }
    }
}
