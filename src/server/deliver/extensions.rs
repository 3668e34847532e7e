//! What extensions are asked about stanzas on their way, and what they are shown.

use std::sync::Arc;

use jid::BareJid;

use super::address::{Address, Bare};
use super::give::Message;
use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::extension::{Admission, Delivery, Extension, Outcome, Target, Wants};
use crate::rules::roster::Roster;
use crate::server::{Core, StoreCall, caught};
use crate::session::{Account, AccountState, Copies, Hold, HostCode, SessionHandle, Values};
use crate::stanza::{Condition, Kind, Stanza};
use crate::store::StoreError;

/// Whether an extension is asked about a stanza of an account for which something is kept, or nothing (HOOK-10).
pub(in crate::server) fn is_asked<C: SharedConnection>(one: &dyn Extension<C>, kept: bool) -> bool {
    kept || !one.wants().has_any(Wants::KEPT_ONLY)
}

impl<C: SharedConnection> Core<C> {
    /// Whether a stanza gets in to an account that has sessions. An account without sessions is
    /// asked about where the stanza would have an effect, by [`admit_queued`](Self::admit_queued).
    pub(super) fn admit(&self, to: &Address<'_>, stanza: &Stanza) -> Admission {
        if self.extensions.is_empty() {
            return Admission::Accept;
        }
        let account = match &to.bare {
            Bare::Known(account) => Some(Arc::clone(account)),
            Bare::Jid(_) => self.registry.account(to.key()),
        };
        account.map(AccountState).map_or(Admission::Accept, |state| self.admit_to(&state, stanza))
    }

    /// What extensions keep for an account, in memory or from their stores.
    pub(super) async fn loaded_state(&self, account: &BareJid) -> Result<AccountState, StoreError> {
        if let Some(state) = self.registry.account_state(account) {
            return Ok(state);
        }
        let kept = self.load_kept(account).await?;
        Ok(AccountState(Arc::new(Account::new(account.clone(), Roster::new(), kept))))
    }

    /// As [`admit`](Self::admit), with what has to be loaded for it, behind what is queued for the account.
    ///
    /// A load that fails keeps the stanza out: nobody knows what it would have said (BIND-13).
    pub(super) async fn admit_queued(
        self: &Arc<Self>,
        account: &BareJid,
        stanza: &Stanza,
    ) -> Admission {
        if self.extensions.is_empty() {
            return Admission::Accept;
        }
        let (core, owner, stanza) = (Arc::clone(self), account.clone(), stanza.clone());
        let admission = self.jobs.run(account.as_str(), async move {
            core.loaded_state(&owner).await.ok().map(|state| core.admit_to(&state, &stanza))
        });
        let failed = || Admission::Refuse(Condition::InternalServerError.into());
        admission.await.flatten().unwrap_or_else(failed)
    }

    /// Whether a stanza gets in to this account, whose state is at hand.
    pub(super) fn admit_to(&self, account: &AccountState, stanza: &Stanza) -> Admission {
        let from = stanza.from();
        let sender = from.as_deref().map(bare_of);
        if sender == Some(account.jid().as_str()) {
            return Admission::Accept;
        }
        let kept = self.keeps(&account.0);
        let asked = self.extensions.iter().filter(|one| is_asked(&***one, kept));
        let mut answers = asked.map(|extension| extension.admit(account, stanza));
        let refusal = answers.find(|answer| !matches!(answer, Admission::Accept));
        refusal.unwrap_or(Admission::Accept)
    }

    /// Whether an extension hides an account's presence from a JID.
    pub(crate) fn is_hidden(&self, account: &AccountState, jid: &str) -> bool {
        let hides = || self.extensions.iter().any(|extension| extension.hides(account, jid));
        self.shielded(HostCode::Extension, Some(account.jid()), hides).unwrap_or(true)
    }

    /// The resources of a contact from which an extension hides an account's presence.
    #[cfg(feature = "cluster")]
    pub(crate) fn hidden_resources(&self, account: &AccountState, bare: &str) -> Vec<String> {
        let of = || self.extensions.iter().flat_map(|one| one.hidden_resources(account, bare));
        let all = || of().collect();
        self.shielded(HostCode::Extension, Some(account.jid()), all).unwrap_or_default()
    }

    /// How an extension holds a stanza back from a session.
    pub(crate) fn hold(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Hold {
        let mut answers = self.extensions.iter().map(|extension| extension.hold(session, stanza));
        answers.find(|answer| *answer != Hold::Pass).unwrap_or(Hold::Pass)
    }

    /// The features that extensions list for an entity, each once.
    pub(super) fn disco_features(&self, target: Target) -> Vec<&'static str> {
        let listed = self.extensions.iter().flat_map(|extension| {
            let listed = || extension.disco_features(target);
            self.shielded(HostCode::Extension, None, listed).unwrap_or_default()
        });
        let mut features: Vec<_> = listed.copied().collect();
        features.sort_unstable();
        features.dedup();
        features
    }

    /// What extensions keep for an account, from their stores.
    pub(crate) async fn load_kept(&self, account: &BareJid) -> Result<Values, StoreError> {
        let mut kept = Values::default();
        for extension in self.extensions.iter() {
            let told = |message| self.extension_panicked(account, message);
            let load = async {
                match extension.load(account) {
                    Some(load) => load.await,
                    None => Ok(None),
                }
            };
            let since = self.environment.now();
            let loaded = caught(load, told).await;
            let time = self.environment.now().saturating_sub(since);
            self.metrics.rare.store_call(StoreCall::Extension, time);
            match loaded {
                Some(Ok(None)) => {}
                Some(Ok(Some(value))) => {
                    kept.put(value);
                }
                Some(Err(error)) => {
                    self.faults.store_failed(StoreCall::Extension, &error, account);
                    return Err(error);
                }
                None => return Err(StoreError::failed("the extension panicked")),
            }
        }
        Ok(kept)
    }

    /// Tells extensions what became of a message.
    pub(crate) fn delivered(
        &self,
        sender: Option<&SessionHandle<C>>,
        message: Message<'_>,
        account: Option<&BareJid>,
        reached: &[SessionHandle<C>],
        outcome: Outcome,
        copies: Option<&Copies>,
    ) {
        let Message { stanza, sent } = message;
        if stanza.kind() != Kind::Message || self.extensions.is_empty() {
            return;
        }
        let (registry, server) = (&self.registry, &self.handle);
        let delivery =
            Delivery { stanza, sent, server, sender, account, reached, outcome, copies, registry };
        let kept = self.keeps_for(&delivery);
        self.show(|extension| {
            if is_asked(extension, kept) {
                extension.delivered(&delivery);
            }
        });
    }

    /// Whether something is kept for an account, or no extension minds (HOOK-10).
    pub(in crate::server) fn keeps(&self, account: &Account) -> bool {
        !self.wants.has_any(Wants::KEPT_ONLY) || account.keeps_values()
    }

    /// The same for the two accounts of a message.
    fn keeps_for(&self, delivery: &Delivery<'_, C>) -> bool {
        if delivery.sender.is_some_and(|session| self.keeps(session.account())) {
            return true;
        }
        match (delivery.reached.first(), delivery.account) {
            (Some(session), _) => self.keeps(session.account()),
            (None, Some(account)) => {
                let account = self.registry.account(self.registry.key(account.as_str()));
                account.is_some_and(|account| self.keeps(&account))
            }
            (None, None) => !self.wants.has_any(Wants::KEPT_ONLY),
        }
    }

    /// Tells extensions that want to know it what a message came to after all.
    pub(super) fn came_to(
        &self,
        message: Message<'_>,
        account: &BareJid,
        reached: &[SessionHandle<C>],
        outcome: Outcome,
    ) {
        let (Message { stanza, sent }, account) = (message, Some(account));
        let (registry, server, sender, copies) = (&self.registry, &self.handle, None, None);
        let delivery =
            Delivery { stanza, sent, server, sender, account, reached, outcome, copies, registry };
        self.show_those_that_want(Wants::OUTCOMES, |extension| extension.delivered(&delivery));
    }

    /// Shows something to each extension that wants to see such things.
    pub(crate) fn show_those_that_want(&self, what: Wants, look: impl Fn(&dyn Extension<C>)) {
        self.show(|extension| {
            if extension.wants().has_any(what) {
                look(extension);
            }
        });
    }

    /// Shows something to each extension. One that panics loses its own look alone: what it is shown
    /// has happened.
    pub(crate) fn show(&self, look: impl Fn(&dyn Extension<C>)) {
        let mut rest = self.extensions.iter();
        while rest.len() > 0 {
            let look_on = || rest.by_ref().for_each(|one| look(&**one));
            self.shielded(HostCode::Extension, None, look_on);
        }
    }
}
