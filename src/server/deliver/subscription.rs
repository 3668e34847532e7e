//! Subscription stanzas (RFC 6121 §3), and requests that wait for an answer.

use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

use super::roster::transaction::{Asker, Change};
use crate::connection::SharedConnection;
use crate::rules::subscription::SubscriptionKind;
use crate::server::{Core, Task};
use crate::session::{Item, SessionHandle, Validity};
use crate::stanza::{Stanza, StanzaError, canonicalise};
use crate::store::SubscriptionRequest;

/// How often an unanswered request is sent again (SUB-13).
const REMINDER: Duration = Duration::from_secs(24 * 60 * 60);

impl<C: SharedConnection> Core<C> {
    /// Gives a session that has become available the stored requests (SUB-10).
    pub(super) async fn deliver_requests(self: &Arc<Self>, session: &SessionHandle<C>) {
        let account = &session.account().bare;
        let (core, session) = (Arc::clone(self), session.clone());
        let job = async move {
            let Ok(requests) = core.stores.rosters.requests(&session.account().bare).await else {
                return;
            };
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
        self.jobs.run(account.as_str(), job).await;
    }

    /// Sends requests to contacts elsewhere again that have no answer yet, in case they got lost
    /// (SUB-13).
    pub(super) fn remind(&self, session: &SessionHandle<C>) {
        let account = session.account().bare.as_str();
        let (roster, now) = (session.roster(), self.environment.now());
        let state = session.account_state();
        for contact in roster.iter().filter(|entry| entry.ask()).map(|entry| entry.jid()) {
            let pending = roster.standing(contact).state.is_pending_out();
            let meant = pending && !self.is_here(contact) && !self.is_hidden(&state, contact);
            // At another node of ours that costs little, and nobody sees it again (NODE-15).
            let is_due = || self.is_ours(contact) || self.claim_reminder(account, contact, now);
            if meant && is_due() {
                let request = Stanza::presence().type_("subscribe").from(account).to(contact);
                self.route_elsewhere(None, request.build(), Validity::FOR_GOOD);
            }
        }
    }

    /// Whether the contact is to be reminded now; if so it is noted as done.
    fn claim_reminder(&self, account: &str, contact: &str, now: Duration) -> bool {
        let name = format!("{account} {contact}");
        let mut reminders = self.reminders.lock();
        let due = reminders.get(&name).is_none_or(|at| now.saturating_sub(at) >= REMINDER);
        if due {
            reminders.insert(&name, now);
        }
        due
    }

    /// A subscription stanza that a client sent (SUB-1…6).
    pub(super) fn subscription(
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
            let change = Change::Send { kind, stanza: stanza.clone(), by: Asker::Account };
            let origin = Some(session.clone());
            if let Err(error) = core.change_roster(account, contact, change, origin, || ()).await {
                core.bounce(Some(&session), &stanza, StanzaError::from(error));
            }
        }))
    }

    /// A subscription stanza that arrives from elsewhere (SUB-7). `silent`: from an account at another node that hides
    /// from this one (BLOCK-9).
    pub(in crate::server) fn inbound_subscription(
        self: &Arc<Self>,
        stanza: &Stanza,
        kind: SubscriptionKind,
        account: &BareJid,
        silent: bool,
    ) -> Option<Task> {
        let contact = self.address(&stanza.from()?).ok()?.bare;
        let (contact, account) = (BareJid::clone(&contact), account.clone());
        if contact == account {
            return None;
        }
        let stanza = stanza.readdressed(Some(contact.as_str()), Some(account.as_str()));
        let core = Arc::clone(self);
        Some(Box::pin(async move {
            if core.exists(&account).await.unwrap_or(false) {
                // A store that fails leaves everything as it was; the contact may ask again.
                let change = Change::Receive { kind, stanza, silent };
                let _failed = core.change_roster(account, contact, change, None, || ()).await;
            }
        }))
    }
}
