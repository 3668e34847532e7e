//! Accounts that are made, get another password, or remove themselves.

use std::sync::Arc;

use jid::{BareJid, DomainRef};

use super::driver::admission::Source;
#[cfg(feature = "cluster")]
use super::node::act::Act;
use super::{Core, PeerAddress, Server};
use crate::address;
use crate::connection::SharedConnection;
use crate::extension::AccountError;
use crate::session::{HostCode, SessionHandle, SessionId};
use crate::stanza::Stanza;
use crate::store::{Credentials, StoreError};

impl<C: SharedConnection> Core<C> {
    /// Makes an account, unless there is one.
    pub(super) async fn create_account(
        self: &Arc<Self>,
        account: BareJid,
        password: String,
        source: Source,
    ) -> Result<(), AccountError> {
        let account = address::account(&account).map_err(|_| AccountError::InvalidAddress)?;
        if account.node().is_none() || !self.is_ours(account.as_str()) {
            return Err(AccountError::InvalidAddress);
        }
        // Before the password is hashed, which costs more; and after it, in one step.
        self.is_free(&account).await?;
        let credentials = self.derive(source, account.domain(), password).await?;
        self.put_credentials(&account, credentials, None).await
    }

    /// Keeps the credentials of an account that there is not; or, where it is to be `changed`, of one that there is,
    /// whose sessions end then, but for one.
    pub(super) async fn put_credentials(
        self: &Arc<Self>,
        account: &BareJid,
        credentials: Credentials,
        changed: Option<Option<SessionId>>,
    ) -> Result<(), AccountError> {
        #[cfg(feature = "cluster")]
        if self.is_elsewhere(account) {
            let act = Act::SetCredentials(credentials, changed);
            return self.at_home(account, act).await.map(|_done| ());
        }
        let (core, jid) = (Arc::clone(self), account.clone());
        self.on_chain(account, async move {
            let Some(except) = changed else {
                core.is_free(&jid).await?;
                return Ok(core.stores.accounts.set_credentials(&jid, credentials).await?);
            };
            // What is kept beside the password stays as it is.
            let old = core.own_credentials(&jid).await?;
            let credentials = Credentials { disabled: old.disabled, ..credentials };
            core.stores.accounts.set_credentials(&jid, credentials).await?;
            // Whatever becomes of who has asked.
            Server(core).password_changed(&jid, except);
            Ok(())
        })
        .await
    }

    /// Gives an account that has a password another one; then its sessions end, but for one.
    pub(super) async fn change_password(
        self: &Arc<Self>,
        account: BareJid,
        password: String,
        except: Option<SessionId>,
    ) -> Result<(), AccountError> {
        self.own_credentials(&account).await?;
        let source = self.ledger.as_source(&account);
        let credentials = self.derive(source, account.domain(), password).await?;
        self.put_credentials(&account, credentials, Some(except)).await
    }

    /// A session removes its account: the answer to its request comes once that is done, and before its end.
    pub(super) async fn remove_by(
        self: Arc<Self>,
        by: SessionHandle<C>,
        request: Stanza,
    ) -> Result<(), AccountError> {
        let account = by.account().bare.clone();
        self.own_credentials(&account).await?;
        let (removed, removal) = (crate::oneshot::channel(), Arc::clone(&self));
        let (sender, done) = removed;
        // It goes on whatever becomes of the session, whose end is part of it.
        self.jobs.spawn(async move {
            sender.send(removal.account_removed(&account, Some((by, request))).await);
        });
        let lost = || Err(StoreError::failed("it panicked"));
        done.await.unwrap_or_else(lost)?;
        Ok(())
    }

    /// LIMIT-33: whether a client of this source may ask for something before it authenticates.
    pub(super) fn allows_stranger(&self, peer: &PeerAddress) -> bool {
        let Some(rate) = self.limits.strangers else { return true };
        let (source, now) = (self.ledger.source(peer), self.environment.now());
        self.strangers.lock().take(&source, rate.each(), rate.burst, now)
    }

    /// Whether an account of this name can be made.
    async fn is_free(&self, account: &BareJid) -> Result<(), AccountError> {
        let is_taken = self.ledger.is_closed_to(account) || self.exists(account).await?;
        if is_taken { Err(AccountError::Exists) } else { Ok(()) }
    }

    /// What proves to be this account, if that is known here: not of guests, nor of accounts that only an
    /// authenticator knows.
    async fn own_credentials(&self, account: &BareJid) -> Result<Credentials, AccountError> {
        let found = self.stores.accounts.credentials(account).await?;
        found.ok_or(AccountError::NoAccount)
    }

    /// The keys of a password. They are derived where no connection has to wait (LIMIT-28).
    async fn derive(
        &self,
        source: Source,
        domain: &DomainRef,
        password: String,
    ) -> Result<Credentials, AccountError> {
        let domain = self.domains.iter().find(|served| &*served.name == domain);
        let iterations = domain.map(|domain| domain.sasl.iteration_count());
        let iterations = iterations.unwrap_or(Credentials::DEFAULT_ITERATIONS);
        let environment = Arc::clone(&self.environment);
        let derive = move || Credentials::from_password_with(&password, iterations, &*environment);
        let derived = match &self.hashing {
            Some(hashing) => hashing.submit(source, derive).await,
            None => self.shielded(HostCode::Hashing, None, derive),
        };
        let derived = derived.ok_or_else(|| StoreError::failed("the password was not hashed"))?;
        derived.map_err(AccountError::Password)
    }

    /// Does this in the account's turn, to its end.
    async fn on_chain(
        self: &Arc<Self>,
        account: &BareJid,
        work: impl Future<Output = Result<(), AccountError>> + Send + 'static,
    ) -> Result<(), AccountError> {
        let done = self.jobs.run(account.as_str(), work).await;
        done.unwrap_or_else(|| Err(StoreError::failed("the store panicked").into()))
    }
}
