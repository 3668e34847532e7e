//! What extensions say about stanzas on their way: whether they get in, and what became of them.

use std::sync::Arc;

use jid::BareJid;

use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::extension::{Admission, Delivery, Extension, Outcome};
use crate::rules::roster::Roster;
use crate::server::Core;
use crate::server::deliver::address::{Address, Bare};
use crate::session::{Account, AccountState, Copies, Hold, SessionHandle, Values};
use crate::stanza::{Condition, Kind, Stanza, StanzaError};
use crate::store::StoreError;

impl<C: SharedConnection> Core<C> {
    /// Whether a stanza gets in to an account that has sessions. An account without sessions is
    /// asked about where the stanza would have an effect, with [`admit_loaded`](Self::admit_loaded).
    pub(super) fn admit(&self, to: &Address<'_>, stanza: &Stanza) -> Admission {
        let account = match &to.bare {
            Bare::Known(account) => Some(Arc::clone(account)),
            Bare::Jid(_) => self.registry.account(to.key()),
        };
        account.map(AccountState).map_or(Admission::Accept, |state| self.ask(&state, stanza))
    }

    /// The same of an account whose data may have to be loaded. Runs on the account's chain.
    ///
    /// A load that fails keeps the stanza out: nobody knows what it would have said (BIND-13).
    pub(super) async fn admit_loaded(&self, account: &BareJid, stanza: &Stanza) -> Admission {
        match self.loaded_state(account).await {
            Ok(state) => self.ask(&state, stanza),
            Err(_) => Admission::Refuse(StanzaError::new(Condition::InternalServerError)),
        }
    }

    /// What extensions keep for an account, in memory or from their stores.
    pub(super) async fn loaded_state(&self, account: &BareJid) -> Result<AccountState, StoreError> {
        if let Some(state) = self.registry.account_state(account) {
            return Ok(state);
        }
        let kept = self.load_kept(account).await?;
        Ok(AccountState(Arc::new(Account::new(account.clone(), Roster::new(), kept))))
    }

    /// As [`admit_loaded`](Self::admit_loaded), from outside of the account's chain.
    pub(super) async fn admit_later(
        self: &Arc<Self>,
        account: &BareJid,
        stanza: &Stanza,
    ) -> Admission {
        if self.extensions.is_empty() {
            return Admission::Accept;
        }
        let (core, account, stanza) = (Arc::clone(self), account.clone(), stanza.clone());
        let key = account.to_string();
        let asked = self.jobs.run(&key, async move { core.admit_loaded(&account, &stanza).await });
        let failed = || Admission::Refuse(StanzaError::new(Condition::InternalServerError));
        asked.await.unwrap_or_else(failed)
    }

    /// Whether a stanza gets in to this account.
    pub(super) fn ask(&self, account: &AccountState, stanza: &Stanza) -> Admission {
        let from = stanza.from();
        let sender = from.as_deref().map(bare_of);
        if sender == Some(account.jid().as_str()) {
            return Admission::Accept;
        }
        let answers = self.extensions.iter().map(|extension| extension.admit(account, stanza));
        let mut refusals = answers.filter(|answer| !matches!(answer, Admission::Accept));
        refusals.next().unwrap_or(Admission::Accept)
    }

    /// Whether an extension hides an account's presence from a JID.
    pub(in crate::server) fn is_hidden(&self, account: &AccountState, jid: &str) -> bool {
        let hides = || self.extensions.iter().any(|extension| extension.hides(account, jid));
        crate::server::shielded(hides).unwrap_or(true)
    }

    /// Whether an extension holds a stanza back from a session.
    pub(in crate::server) fn is_held(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Hold {
        let answers = self.extensions.iter().map(|extension| extension.hold(session, stanza));
        let mut held = answers.filter(|answer| *answer != Hold::Pass);
        held.next().unwrap_or(Hold::Pass)
    }

    /// What extensions keep for an account, from their stores.
    pub(in crate::server) async fn load_kept(
        &self,
        account: &BareJid,
    ) -> Result<Values, StoreError> {
        let mut kept = Values::default();
        for extension in &self.extensions {
            if let Some(load) = extension.load(account)
                && let Some(value) = load.await?
            {
                kept.put(value);
            }
        }
        Ok(kept)
    }

    /// Tells extensions what became of a message.
    pub(in crate::server) fn delivered(
        &self,
        stanza: &Stanza,
        sender: Option<&SessionHandle<C>>,
        account: Option<&BareJid>,
        reached: &[SessionHandle<C>],
        outcome: Outcome,
        copies: Option<&Copies>,
    ) {
        if stanza.kind() != Kind::Message {
            return;
        }
        let registry = &self.registry;
        let delivery = Delivery { stanza, sender, account, reached, outcome, copies, registry };
        self.show(|extension| extension.delivered(&delivery));
    }

    /// Lets each extension look at something. One that panics loses its own look: what it is shown
    /// has happened, and goes on for everybody else.
    pub(in crate::server) fn show(&self, look: impl Fn(&dyn Extension<C>)) {
        let mut rest = self.extensions.iter();
        while rest.len() > 0 {
            crate::server::shielded(|| rest.by_ref().for_each(|one| look(&**one)));
        }
    }
}
