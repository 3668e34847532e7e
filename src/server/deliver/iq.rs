//! Iq stanzas for the server, for accounts and for sessions (RFC 6120 §8.2.3, RFC 6121 §8.5).

use std::sync::Arc;

use jid::BareJid;

use super::address::Address;
use super::answer::is_full;
use super::give::Origin;
use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::extension::{Admission, Target};
use crate::rules::delivery::{BOUNCE, IqDecision, IqSituation, Relation, iq};
use crate::rules::roster;
use crate::server::{Core, Task};
use crate::session::{AccountKey, NotSent};
use crate::stanza::{Condition, Stanza};

/// Whether an iq is a request; `None` where it is none of the four types, or not a good one (IQ-3).
pub(crate) fn is_request(stanza: &Stanza) -> Option<bool> {
    let request = match stanza.type_().as_deref() {
        Some("get" | "set") => true,
        Some("result" | "error") => false,
        _ => return None,
    };
    let is_good = stanza.id().is_some() && (!request || stanza.children().take(2).count() == 1);
    is_good.then_some(request)
}

impl<C: SharedConnection> Core<C> {
    /// An iq for an account or a domain of this server. `to` is `None` for the sender's own account.
    pub(crate) fn iq(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: Option<&Address<'_>>,
    ) -> Option<Task> {
        let request = self.check_iq(origin, stanza)?;
        let own = origin.map(|session| &session.account().bare);
        if let Some(to) = to.filter(|to| to.is_account()) {
            match self.admit_iq(stanza, to, own) {
                Admission::Accept => {}
                Admission::Refuse(error) if request => return self.refuse(origin, stanza, error),
                Admission::Refuse(_) | Admission::Drop => return None,
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
            IqDecision::Silent => {}
            IqDecision::Consume => {
                self.domain_answered(stanza);
            }
            IqDecision::Bounce => self.bounce(origin, stanza, BOUNCE),
            IqDecision::Addressed => {
                let given = matching.map(|session| self.give(&session, stanza));
                match given {
                    Some(Ok(())) => {}
                    _ if !request => {}
                    Some(Err(NotSent::Full)) => self.bounce(origin, stanza, is_full()),
                    _ => self.bounce(origin, stanza, BOUNCE),
                }
            }
            IqDecision::Handler => {
                let bare = to.map(|to| &*to.bare).or(own)?;
                let target =
                    if situation == IqSituation::Domain { Target::Domain } else { Target::Account };
                return self.handle_iq(origin, stanza, bare.clone(), target);
            }
        }
        None
    }

    /// Whether an iq gets in to an account.
    fn admit_iq(&self, stanza: &Stanza, to: &Address<'_>, own: Option<&BareJid>) -> Admission {
        if to.resource.is_none() && Some(&*to.bare) != own && is_roster_set(stanza) {
            // ROSTER-4: whether the account exists and blocks the sender does not matter.
            return Admission::Refuse(Condition::Forbidden.into());
        }
        self.admit(to, stanza)
    }

    /// As [`is_request`]; where it is `None`, the sender is told so.
    pub(super) fn check_iq(&self, origin: Origin<'_, C>, stanza: &Stanza) -> Option<bool> {
        let request = is_request(stanza);
        // IQ-4: a malformed answer is no request for one.
        if request.is_none() && !matches!(stanza.type_().as_deref(), Some("result" | "error")) {
            self.bounce(origin, stanza, Condition::BadRequest);
        }
        request
    }

    /// Whether the sender of a request may reach the sessions of this account (IQ-2).
    fn is_entitled(&self, stanza: &Stanza, to: &Address<'_>) -> bool {
        !self.limits.iq_needs_presence || self.relation(stanza, to.key()).is_entitled()
    }

    /// What the sender is to an account that has sessions (section "Terms").
    pub(super) fn relation(&self, stanza: &Stanza, account: AccountKey<'_>) -> Relation {
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
pub(super) fn sender(stanza: &Stanza) -> Option<String> {
    stanza.from().map(|from| bare_of(&from).to_owned())
}
