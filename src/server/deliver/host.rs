//! Presence that the host sends in the name of an account of this server: the account's own act, as far as
//! it can be one (HOST-1, HOST-2).

use std::sync::Arc;

use jid::BareJid;

use super::roster::transaction::{Asker, Change};
use crate::connection::SharedConnection;
use crate::rules::presence::PresenceType;
use crate::rules::subscription::SubscriptionKind;
use crate::server::{Core, Task};
use crate::session::Validity;
use crate::stanza::{Condition, Kind, Stanza, StanzaError};

impl<C: SharedConnection> Core<C> {
    /// What becomes of presence in the name of a local account; `None` where it is something else.
    pub(super) fn host_presence(self: &Arc<Self>, stanza: &Stanza) -> Option<Option<Task>> {
        if stanza.kind() != Kind::Presence {
            return None;
        }
        let (from, to) = (stanza.from()?, stanza.to()?);
        let from = self.address(&from).ok()?;
        if !from.is_account() || !self.registry.is_local(from.bare.as_str()) {
            return None;
        }
        let type_ = PresenceType::read(stanza).ok()?;
        let to = self.address(&to).ok()?;
        let session = from.resource.as_deref().and_then(|r| self.registry.find(from.key(), r));
        match (type_, session) {
            (PresenceType::Subscription(kind), _) => {
                let (account, contact) = (BareJid::clone(&from.bare), BareJid::clone(&to.bare));
                Some(self.host_subscription(kind, stanza, account, contact))
            }
            (type_, Some(session)) => Some(self.directed(&session, stanza, &to, type_)),
            // PRES-19
            (PresenceType::Probe, None) => {
                let account = from.bare.as_str();
                let probe = stanza.readdressed(Some(account), stanza.to().as_deref());
                Some(self.presence(None, &probe, &to, Validity::FOR_GOOD))
            }
            // Nobody would ever take it back.
            (PresenceType::Available, None) => {
                self.metrics.error(Condition::NotAllowed);
                Some(None)
            }
            (PresenceType::Unavailable | PresenceType::Error, None) => None,
        }
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
