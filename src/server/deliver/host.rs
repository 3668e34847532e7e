//! Presence that the host sends in the name of an account of this server: the account's own act, as far as
//! it can be one (HOST-1, HOST-2).

use std::sync::Arc;

use jid::BareJid;

use super::address::Address;
use super::roster::transaction::{Asker, Change};
use crate::connection::SharedConnection;
#[cfg(feature = "cluster")]
use crate::extension::Wants;
use crate::rules::presence::PresenceType;
use crate::rules::subscription::SubscriptionKind;
use crate::server::{Core, Task};
use crate::session::Validity;
#[cfg(feature = "cluster")]
use crate::stanza::Kind;
use crate::stanza::{Condition, Stanza, StanzaError};

impl<C: SharedConnection> Core<C> {
    /// Presence that the host hands in for this address.
    pub(super) fn host_presence(
        self: &Arc<Self>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        let from = stanza.from();
        let from = from.as_deref().and_then(|from| self.address(from).ok());
        let from = from.filter(|from| from.is_account() && self.is_ours(from.bare.as_str()));
        let (Some(from), Ok(type_)) = (from, PresenceType::read(stanza)) else {
            return self.route_to(None, stanza, to);
        };
        #[cfg(feature = "cluster")]
        if self.of_host_elsewhere(&from.bare, stanza) {
            return None;
        }
        let session = from.resource.as_deref().and_then(|r| self.registry.find(from.key(), r));
        match (type_, session) {
            (PresenceType::Subscription(kind), _) => {
                let (account, contact) = (BareJid::clone(&from.bare), BareJid::clone(&to.bare));
                self.host_subscription(kind, stanza, account, contact)
            }
            (type_, Some(session)) => self.directed(&session, stanza, to, type_),
            // PRES-19
            (PresenceType::Probe, None) => {
                let account = from.bare.as_str();
                let probe = stanza.readdressed(Some(account), stanza.to().as_deref());
                self.presence(None, &probe, to, Validity::FOR_GOOD)
            }
            // Nobody would ever take it back.
            (PresenceType::Available, None) => {
                self.metrics.error(Condition::NotAllowed);
                None
            }
            (PresenceType::Unavailable | PresenceType::Error, None) => {
                self.route_to(None, stanza, to)
            }
        }
    }

    /// Whether a message of the host's is in the name of an account of another node, where it is reviewed as sent
    /// (HOOK-1): it goes by way of that.
    #[cfg(feature = "cluster")]
    pub(super) fn is_reviewed_elsewhere(&self, stanza: &Stanza) -> bool {
        if stanza.kind() != Kind::Message || !self.wants.has_any(Wants::MESSAGES) {
            return false;
        }
        let from = stanza.from();
        let from = from.as_deref().and_then(|from| self.address(from).ok());
        let from = from.filter(|from| from.is_account() && self.is_ours(from.bare.as_str()));
        from.is_some_and(|from| self.of_host_elsewhere(&from.bare, stanza))
    }

    /// A subscription stanza of an account, whoever of it is there (SUB-1…6).
    fn host_subscription(
        self: &Arc<Self>,
        kind: SubscriptionKind,
        stanza: &Stanza,
        account: BareJid,
        contact: BareJid,
    ) -> Option<Task> {
        if contact == account {
            return None;
        }
        let stanza = stanza.readdressed(Some(account.as_str()), Some(contact.as_str()));
        let core = Arc::clone(self);
        Some(Box::pin(async move {
            let change = Change::Send { kind, stanza: stanza.clone(), by: Asker::Host };
            if let Err(error) = core.change_roster(account, contact, change, None, || ()).await {
                core.bounce(None, &stanza, StanzaError::from(error));
            }
        }))
    }
}
