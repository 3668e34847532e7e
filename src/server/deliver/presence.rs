//! Presence: what clients broadcast and direct, and what arrives for accounts of ours
//! (RFC 6121 §4, §8.5).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

use crate::connection::SharedConnection;
use crate::extension::Admission;
use crate::rules::delivery::{PresenceDecision, PresenceSituation, presence};
use crate::rules::presence::{Audience, PresenceType, broadcast, read_priority};
use crate::rules::subscription::SubscriptionKind;
use crate::server::deliver::address::Address;
use crate::server::deliver::transaction::Change;
use crate::server::{Core, Task};
use crate::session::{Bound, Item, Presence, Session, SessionHandle, Validity};
use crate::stanza::{Condition, Stanza, StanzaError, canonicalise};
use crate::store::SubscriptionRequest;

/// How often an unanswered request is sent again (SUB-13).
const REMINDER: Duration = Duration::from_secs(24 * 60 * 60);

impl<C: SharedConnection> Core<C> {
    /// A presence that a client sent, with `from` set.
    pub(in crate::server) fn client_presence(
        self: &Arc<Self>,
        session: &mut Session<Bound, C>,
        stanza: &Stanza,
        to: Option<&Address<'_>>,
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
                    Ok(validity) => self.presence(Some(&handle), stanza, to, validity),
                    Err(error) => {
                        self.metrics.limit("LIMIT-17");
                        refuse(error.condition().into())
                    }
                }
            }
            PresenceType::Unavailable => {
                handle.forget_directed(&to.to_text());
                self.presence(Some(&handle), stanza, to, Validity::FOR_GOOD)
            }
            PresenceType::Subscription(kind) => {
                self.subscription(&handle, kind, stanza, BareJid::clone(&to.bare))
            }
            PresenceType::Probe => {
                // PRES-19: from the bare JID, and nobody is told if there is no way.
                let account = handle.account().bare.as_str();
                let probe = stanza.readdressed(Some(account), stanza.to().as_deref());
                let here = self.registry.is_local(to.bare.as_str());
                self.presence(Some(&handle).filter(|_| here), &probe, to, Validity::FOR_GOOD)
            }
            PresenceType::Error => self.presence(Some(&handle), stanza, to, Validity::FOR_GOOD),
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
            self.remind(&handle, first);
            if !messages {
                return None;
            }
        }
        let core = Arc::clone(self);
        Some(Box::pin(async move {
            if requests {
                core.deliver_requests(&handle).await;
                core.remind(&handle, first);
            }
            if messages {
                core.deliver_offline(&handle.account().bare).await;
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
            let state = session.account_state();
            // BLOCK-5: these wait for their user to unblock, or to deny them.
            let heard =
                |request: &&SubscriptionRequest| !core.is_hidden(&state, request.from.as_str());
            let heard = requests.iter().filter(heard);
            let stanzas: Vec<_> = heard.filter_map(|one| canonicalise(&one.stanza).ok()).collect();
            let items: Vec<_> = stanzas.iter().map(Item::new).collect();
            if session.send_stored(&items).is_ok() {
                stanzas.iter().for_each(|stanza| core.given(&session, stanza));
            }
        };
        self.jobs.run(&key, job).await;
    }

    /// Requests to contacts elsewhere that have no answer yet, sent again in case they got lost,
    /// when the first session of the account has become available (SUB-13).
    fn remind(&self, session: &SessionHandle<C>, first: bool) {
        if !first {
            return;
        }
        let account = session.account().bare.as_str();
        let (roster, now) = (session.roster(), self.environment.now());
        let state = session.account_state();
        for contact in roster.iter().filter(|entry| entry.ask()).map(|entry| entry.jid()) {
            let pending = roster.standing(contact).state.is_pending_out();
            let meant =
                pending && !self.registry.is_local(contact) && !self.is_hidden(&state, contact);
            if meant && self.is_due(account, contact, now) {
                let request = Stanza::presence().type_("subscribe").from(account).to(contact);
                self.route_elsewhere(None, request.build());
            }
        }
    }

    fn is_due(&self, account: &str, contact: &str, now: Duration) -> bool {
        let name = format!("{account} {contact}");
        let mut reminders = self.reminders.lock();
        let due = reminders.get(&name).is_none_or(|at| now.saturating_sub(at) >= REMINDER);
        if due {
            reminders.insert(&name, now);
        }
        due
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
            let origin = Some(session.clone());
            if let Err(failed) = core.change_roster(account, contact, change, origin, || ()).await {
                core.bounce(Some(&session), &stanza, StanzaError::from(failed));
            }
        }))
    }

    /// A presence for somebody: an account or a domain of ours, or somebody elsewhere. Dropped
    /// once it is void.
    pub(super) fn presence(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &Address<'_>,
        validity: Validity<'_>,
    ) -> Option<Task> {
        if !self.registry.is_local(to.bare.as_str()) {
            self.route_while(origin, stanza.clone(), validity);
            return None;
        }
        // MSG-9: to the domain, silence.
        let type_ = PresenceType::read(stanza).ok().filter(|_| to.is_account())?;
        match self.admit(to, stanza) {
            Admission::Accept => {}
            // What changes a subscription does so without a word (BLOCK-9).
            Admission::Drop if matches!(type_, PresenceType::Subscription(_)) => {}
            Admission::Drop => return None,
            Admission::Refuse(error) => {
                self.bounce(origin, stanza, error);
                return None;
            }
        }
        let sessions = self.registry.sessions_of(to.key());
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
                let ends = matches!(type_, PresenceType::Unavailable | PresenceType::Error);
                let from = if ends { self.true_from(origin, stanza) } else { None };
                for session in reached.drain(..) {
                    if let Some(from) = &from {
                        // PRES-11
                        session.forget_directed(from);
                    }
                    self.give_presence(&session, stanza, validity);
                }
                None
            }
            PresenceDecision::Subscription => self.inbound_subscription(stanza, type_, to),
            PresenceDecision::Probe => self.probe(origin, stanza, to),
        }
    }

    /// Who sent a stanza, as normalised text: a session of ours, or somebody elsewhere.
    fn true_from<'a>(
        &self,
        origin: Option<&'a SessionHandle<C>>,
        stanza: &Stanza,
    ) -> Option<Cow<'a, str>> {
        match origin {
            Some(session) => Some(session.jid().as_str().into()),
            None => Some(self.address(&stanza.from()?).ok()?.to_text().into()),
        }
    }

    /// A subscription stanza that arrives from elsewhere (SUB-7).
    fn inbound_subscription(
        self: &Arc<Self>,
        stanza: &Stanza,
        type_: PresenceType,
        to: &Address<'_>,
    ) -> Option<Task> {
        let PresenceType::Subscription(kind) = type_ else { return None };
        let contact = self.address(&stanza.from()?).ok()?.bare;
        let (contact, account) = (BareJid::clone(&contact), BareJid::clone(&to.bare));
        if contact == account {
            return None;
        }
        let stanza = stanza.readdressed(Some(contact.as_str()), Some(account.as_str()));
        let core = Arc::clone(self);
        Some(Box::pin(async move {
            if core.exists(&account).await {
                // A store that fails leaves everything as it was; the contact may ask again.
                let change = Change::Receive { kind, stanza };
                let _failed = core.change_roster(account, contact, change, None, || ()).await;
            }
        }))
    }
}
