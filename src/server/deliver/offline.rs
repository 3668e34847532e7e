//! What the offline store has for a session that has become available (OFF-3, OFF-4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

use super::address::Address;
use super::give::Message;
use super::message::with_delay;
use crate::connection::SharedConnection;
use crate::extension::Outcome;
use crate::server::Core;
use crate::session::{SessionHandle, Waiting};
use crate::stanza::delay::is_delayed_by;
use crate::stanza::{Stanza, canonicalise};
use crate::store::{OfflineId, OfflineMessage, StoreError};
use crate::sync::common::Mutex;

/// How soon a store that failed is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// Accounts whose offline messages are to be asked for again. A leaf lock.
#[derive(Default)]
pub(crate) struct Retries(Mutex<HashMap<BareJid, Retry>>);

#[derive(Default)]
struct Retry {
    /// What sessions have got and the store did not remove: it is given to nobody else.
    given: Vec<OfflineId>,
    /// The store will be asked again.
    is_retried: bool,
}

impl Retries {
    fn given(&self, account: &BareJid) -> Vec<OfflineId> {
        self.0.lock().get(account).map(|retry| retry.given.clone()).unwrap_or_default()
    }

    /// The store is about to be asked again.
    fn retried(&self, account: &BareJid) {
        let mut retries = self.0.lock();
        let Some(retry) = retries.get_mut(account) else { return };
        retry.is_retried = false;
        if retry.given.is_empty() {
            retries.remove(account);
        }
    }
}

impl<C: SharedConnection> Core<C> {
    /// Gives the account's sessions what the store has for them.
    pub(super) async fn deliver_offline(self: &Arc<Self>, account: &BareJid) {
        let (core, owner) = (Arc::clone(self), account.clone());
        let job = async move {
            core.remove_given(&owner, Vec::new()).await;
            core.catch_up(&owner).await
        };
        let _given = self.jobs.run(account.as_str(), job).await;
    }

    /// The same on the account's chain, with what ended sessions have left by then. `false`: the store
    /// has failed, or a session takes no more for now. It is asked again later, and what it has still
    /// comes first.
    pub(super) async fn catch_up(self: &Arc<Self>, account: &BareJid) -> bool {
        loop {
            self.settle_left(account).await;
            let Some(session) = self.registry.recipient(account.as_str()) else { return true };
            let is_reachable = gets_messages(&session);
            if is_reachable {
                // LIMIT-10: what a session does not take yet waits as if the store had failed.
                let takes = session.takes_stored();
                let stored = if takes { self.stored(account).await.ok() } else { None };
                let Some(stored) = stored else {
                    self.retry_later(account);
                    return false;
                };
                if self.registry.has_left(account) {
                    continue;
                }
                self.give_stored(account, &session, stored).await;
            } else if let Some(other) = self.registry.sessions(account).find(gets_messages) {
                // Messages that have queued behind it meanwhile go to another session that is there.
                self.registry.expect_stored(&other);
            }
            self.registry.stored_given(&session);
            if !is_reachable {
                session.renounce();
            }
        }
    }

    /// What a session has inherited, before a message for it alone: it may never become available
    /// (DESTROY-8).
    pub(super) async fn give_inherited(self: &Arc<Self>, to: &Address<'_>) {
        let resource = to.resource.as_deref();
        let session = resource.and_then(|resource| self.registry.find(to.key(), resource));
        if let Some(heir) = session.filter(SessionHandle::is_heir) {
            self.give_stored(&to.bare, &heir, Vec::new()).await;
        }
    }

    /// What the store has that no session has got.
    async fn stored(
        &self,
        account: &BareJid,
    ) -> Result<Vec<(OfflineId, OfflineMessage)>, StoreError> {
        let Some(store) = &self.stores.offline else { return Ok(Vec::new()) };
        let given = self.offline_retries.given(account);
        let mut stored = store.list(account).await?;
        stored.retain(|(id, _)| !given.contains(id));
        Ok(stored)
    }

    /// Offline messages, and what the session has inherited, in the order in which they were accepted,
    /// all to this session; what it accepted leaves the store.
    async fn give_stored(
        self: &Arc<Self>,
        account: &BareJid,
        session: &SessionHandle<C>,
        stored: Vec<(OfflineId, OfflineMessage)>,
    ) {
        let domain = account.domain().as_str();
        let delayed = |stanza: &Stanza, since| {
            with_delay(stanza, domain, since).unwrap_or_else(|| stanza.clone())
        };
        let (mut ids, mut waiting) = (Vec::new(), Vec::new());
        for (id, message) in stored {
            ids.push(id);
            // A message that can no longer be parsed is dropped.
            if let Ok(stanza) = canonicalise(&message.stanza) {
                // A session that ended had it before: it is stamped already.
                let is_new = !is_delayed_by(&stanza, domain);
                let (stanza, since) = (delayed(&stanza, message.received), message.received);
                waiting.push(Waiting::stored(stanza, since, is_new));
            }
        }
        let Ok(given) = session.give_waiting(waiting, delayed) else { return };
        for Waiting { stanza, is_new, .. } in &given {
            self.given(session, stanza);
            if *is_new {
                self.metrics.offline_retrieved();
                let reached = std::slice::from_ref(session);
                let message = Message::of(stanza);
                self.delivered(None, message, Some(account), reached, Outcome::Retrieved, None);
            }
        }
        self.remove_given(account, ids).await;
    }

    /// Removes what sessions have got, `new` and before. A store that fails is asked again, and
    /// nothing is given twice meanwhile.
    async fn remove_given(self: &Arc<Self>, account: &BareJid, new: Vec<OfflineId>) {
        let Some(store) = &self.stores.offline else { return };
        let mut ids = self.offline_retries.given(account);
        ids.extend(new);
        if ids.is_empty() {
            return;
        }
        if store.remove(account, ids.clone()).await.is_ok() {
            if let Some(retry) = self.offline_retries.0.lock().get_mut(account) {
                retry.given.clear();
            }
        } else {
            self.offline_retries.0.lock().entry(account.clone()).or_default().given = ids;
            self.retry_later(account);
        }
    }

    fn retry_later(self: &Arc<Self>, account: &BareJid) {
        let mut retries = self.offline_retries.0.lock();
        let retry = retries.entry(account.clone()).or_default();
        if std::mem::replace(&mut retry.is_retried, true) {
            return;
        }
        drop(retries);
        let (core, account) = (Arc::clone(self), account.clone());
        self.jobs.later(async move {
            core.sleep(RETRY).await;
            core.offline_retries.retried(&account);
            core.deliver_offline(&account).await;
        });
    }
}

/// Whether messages for the account may go to a session.
fn gets_messages<C: SharedConnection>(session: &SessionHandle<C>) -> bool {
    session.is_available() && session.priority() >= 0
}
