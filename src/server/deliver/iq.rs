//! Iq stanzas for the server, for accounts and for sessions (RFC 6120 §8.2.3, RFC 6121 §8.5).

use std::sync::Arc;
use std::time::Duration;

use crate::address;
use crate::connection::SharedConnection;
use crate::extension::{Admission, IqDone, IqReply, IqRequest, IqResult, Target};
use crate::rules::delivery::{BOUNCE, IqDecision, IqSituation, Relation, iq};
use crate::rules::roster;
use crate::server::deliver::address::Address;
use crate::server::{Core, Task};
use crate::session::{AccountKey, NotSent, SessionHandle};
use crate::stanza::{Condition, ErrorType, Stanza, StanzaError};

/// IQ-5: a handler that takes longer has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
const LEGACY_SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";

/// What became of a request that took too long (IQ-5).
pub(super) fn late() -> StanzaError {
    StanzaError::new(Condition::ResourceConstraint).with_type(ErrorType::Wait)
}

/// Whether an iq is a request, or why it is none of the four (IQ-3).
pub(in crate::server) fn is_request(stanza: &Stanza) -> Result<bool, StanzaError> {
    let bad = || StanzaError::new(Condition::BadRequest);
    let request = match stanza.type_().as_deref() {
        Some("get" | "set") => true,
        Some("result" | "error") => false,
        _ => return Err(bad()),
    };
    if stanza.id().is_none() || (request && stanza.children().take(2).count() != 1) {
        return Err(bad());
    }
    Ok(request)
}

impl<C: SharedConnection> Core<C> {
    /// An iq for an account or a domain of ours. `to` is `None` for the sender's own account.
    pub(in crate::server) fn iq(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: Option<&Address<'_>>,
    ) -> Option<Task> {
        let request = self.well_formed_iq(origin, stanza)?;
        let own = origin.map(|session| &session.account().bare);
        let is_others = |to: &Address<'_>| to.is_account() && Some(&*to.bare) != own;
        if to.is_some_and(|to| to.resource.is_none() && is_others(to)) && is_roster_set(stanza) {
            // ROSTER-4: before anybody asks whether there is such an account, and whom it blocks.
            self.bounce(origin, stanza, Condition::Forbidden);
            return None;
        }
        if let Some(to) = to.filter(|to| to.is_account()) {
            match self.admit(to, stanza) {
                Admission::Accept => {}
                Admission::Drop => return None,
                Admission::Refuse(error) => {
                    if request {
                        self.bounce(origin, stanza, error);
                    }
                    return None;
                }
            }
        }
        let matching = to.and_then(|to| self.registry.find(to.key(), to.resource.as_deref()?));
        let situation = match to {
            None => IqSituation::OwnAccount,
            Some(to) if !to.is_account() => IqSituation::Domain,
            Some(to) if matching.is_some() => {
                let entitled = !request || self.is_entitled(stanza, to);
                IqSituation::FullMatch { entitled }
            }
            Some(to) if to.resource.is_some() => IqSituation::FullWithoutMatch,
            Some(to) if Some(&*to.bare) == own => IqSituation::OwnAccount,
            Some(_) => IqSituation::OtherAccount,
        };
        match iq(request, situation) {
            IqDecision::Silent => None,
            IqDecision::Consume => {
                self.requests.take_answer(stanza);
                None
            }
            IqDecision::Bounce => {
                self.bounce(origin, stanza, BOUNCE);
                None
            }
            IqDecision::Addressed => {
                let given = matching.map(|session| self.give(&session, stanza));
                match given {
                    Some(Ok(())) => {}
                    _ if !request => {}
                    Some(Err(NotSent::Full)) => {
                        self.bounce(origin, stanza, crate::server::too_much())
                    }
                    _ => self.bounce(origin, stanza, BOUNCE),
                }
                None
            }
            IqDecision::Handler => {
                let bare = to.map(|to| &*to.bare).or(own)?;
                let target =
                    if situation == IqSituation::Domain { Target::Domain } else { Target::Account };
                self.handle(origin, stanza, bare.clone(), target)
            }
        }
    }

    /// Whether an iq is a request; `None` where it is none of the four types, and its sender has
    /// been told so (IQ-3).
    pub(super) fn well_formed_iq(
        &self,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
    ) -> Option<bool> {
        let error = match is_request(stanza) {
            Ok(request) => return Some(request),
            Err(error) => error,
        };
        // IQ-4: a malformed answer is no request for one.
        if !matches!(stanza.type_().as_deref(), Some("result" | "error")) {
            self.bounce(origin, stanza, error);
        }
        None
    }

    fn handle(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: jid::BareJid,
        target: Target,
    ) -> Option<Task> {
        let own = origin.is_some_and(|session| session.account().bare == to);
        let query = stanza.child()?;
        if let Some(session) = origin {
            let is_set = stanza.type_().as_deref() == Some("set");
            // A stream is the business of its server and of its account, and of nobody else.
            let of_stream = own || target == Target::Domain;
            // BIND-15
            if of_stream && is_set && query.is("session", LEGACY_SESSION) {
                self.result(origin, stanza, b"");
                return None;
            }
            // BIND-9
            if of_stream && query.is("bind", BIND) {
                self.bounce(origin, stanza, Condition::NotAllowed);
                return None;
            }
            if query.is("query", roster::NAMESPACE) && target == Target::Account {
                if own {
                    return self.roster_iq(session, stanza, &query, is_set);
                }
                self.bounce(origin, stanza, BOUNCE);
                return None;
            }
        }
        let loaded = target == Target::Domain || own || self.registry.is_loaded(&to);
        if loaded {
            let relation = if own {
                Relation::Own
            } else if target == Target::Domain {
                Relation::Subscriber
            } else {
                self.relation(stanza, self.registry.key(to.as_str()))
            };
            return self.ask_extensions(origin, stanza, &to, target, relation);
        }
        let (core, origin, stanza) = (Arc::clone(self), origin.cloned(), stanza.clone());
        Some(Box::pin(async move {
            match core.admit_later(&to, &stanza).await {
                Admission::Accept => {}
                Admission::Drop => return,
                Admission::Refuse(error) => return core.bounce(origin.as_ref(), &stanza, error),
            }
            let sender = sender(&stanza).and_then(|sender| address::bare(&sender).ok());
            let subscribes = match &sender {
                Some(sender) if core.serves(sender.as_str()) => true,
                Some(sender) => {
                    let contact = core.load_contact(&to, sender).await;
                    contact.is_ok_and(|(roster, _)| roster.is_subscriber(sender.as_str()))
                }
                None => false,
            };
            let relation = Relation::of(false, || subscribes, || false);
            let task = core.ask_extensions(origin.as_ref(), &stanza, &to, target, relation);
            if let Some(task) = task {
                task.await;
            }
        }))
    }

    fn ask_extensions(
        self: &Arc<Self>,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        to: &jid::BareJid,
        target: Target,
        relation: Relation,
    ) -> Option<Task> {
        let query = stanza.child()?;
        let advertised = self.disco_features(target);
        let request = IqRequest {
            stanza,
            query,
            to,
            target,
            session: origin,
            registry: &self.registry,
            relation,
            advertised: &advertised,
        };
        let ask = || self.extensions.iter().find_map(|extension| extension.iq(&request));
        let failed = || Some(IqReply::error(Condition::InternalServerError));
        match crate::server::shielded(ask).unwrap_or_else(failed) {
            None => {
                self.bounce(origin, stanza, BOUNCE);
                None
            }
            Some(IqReply::Now(result)) => {
                self.reply(origin, stanza, result);
                None
            }
            Some(IqReply::Job(work)) => {
                let (core, origin, stanza) = (Arc::clone(self), origin.cloned(), stanza.clone());
                let account = to.clone();
                let done = self.jobs.run(to.as_str(), async move {
                    let failed = || IqDone::new(Err(Condition::InternalServerError.into()));
                    let done = crate::server::caught(work).await.unwrap_or_else(failed);
                    core.reply(origin.as_ref(), &stanza, done.result);
                    if let Some(then) = done.then {
                        then();
                    }
                    core.show_unheard(&account);
                });
                Some(Box::pin(async move {
                    let _panicked = done.await;
                }))
            }
            Some(IqReply::Later(answer)) => {
                let (core, origin, stanza) = (Arc::clone(self), origin.cloned(), stanza.clone());
                Some(Box::pin(async move {
                    let result = core.timers.within(PATIENCE, crate::server::caught(answer)).await;
                    let failed = || Err(Condition::InternalServerError.into());
                    let result = result.map_or(Err(late()), |answer| answer.unwrap_or_else(failed));
                    core.reply(origin.as_ref(), &stanza, result);
                }))
            }
        }
    }

    fn reply(&self, origin: Option<&SessionHandle<C>>, stanza: &Stanza, result: IqResult) {
        match result.map(|payload| stanza.result_with(payload.as_ref())) {
            Err(error) => self.bounce(origin, stanza, error),
            Ok(answer) => {
                if let Some(answer) = answer {
                    self.answer(origin, answer);
                }
            }
        }
    }

    /// An iq result to whoever asked.
    pub(super) fn result(
        &self,
        origin: Option<&SessionHandle<C>>,
        stanza: &Stanza,
        payload: &[u8],
    ) {
        if let Some(answer) = stanza.result_answer(payload) {
            self.answer(origin, answer);
        }
    }

    /// Whether the sender of a request may reach the sessions of this account (IQ-2).
    fn is_entitled(&self, stanza: &Stanza, to: &Address<'_>) -> bool {
        !self.limits.iq_needs_presence || self.relation(stanza, to.key()).is_entitled()
    }

    /// What the sender is to an account that has sessions (section "Terms").
    fn relation(&self, stanza: &Stanza, account: AccountKey<'_>) -> Relation {
        let Some(sender) = sender(stanza) else { return Relation::Stranger };
        let subscribes = || {
            let account = self.registry.account(account);
            self.serves(&sender)
                || account.is_some_and(|account| account.roster().is_subscriber(&sender))
        };
        let directed = || {
            let mut sessions = self.registry.sessions_of(account);
            sessions.any(|session| session.has_directed_to(&sender))
        };
        Relation::of(sender == account.bare, subscribes, directed)
    }
}

fn is_roster_set(stanza: &Stanza) -> bool {
    let is_set = stanza.type_().as_deref() == Some("set");
    is_set && stanza.child().is_some_and(|query| query.is("query", roster::NAMESPACE))
}

/// The sender's bare JID.
fn sender(stanza: &Stanza) -> Option<String> {
    stanza.from().map(|from| address::bare_of(&from).to_owned())
}
