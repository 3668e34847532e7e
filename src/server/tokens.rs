//! Tokens of fast logins, between the stores and what judges them.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use jid::BareJid;

use super::Core;
use crate::connection::SharedConnection;
use crate::sasl::{
    Accepted, Description, FastProof, Fingerprint, Holder, Issued, Mechanism, Policy, SaslError,
    Standing, UsedToken, admitted, revision,
};
use crate::store::{Authenticator, ClientKey, ClientTokens, LoginRequest, StoreError, TokenStore};

/// How often a record may change under our hands. Each time somebody else has come further.
const ATTEMPTS: usize = 64;

/// How many accounts are remembered as having lost their tokens.
pub(super) const VOIDED: usize = 1 << 12;

/// A login with a token.
pub(super) struct FastLogin {
    pub(super) holder: Holder,
    pub(super) proof: FastProof,
    pub(super) count: Option<u64>,
    /// The client's tokens shall end (FAST-5).
    pub(super) invalidate: bool,
    /// Who is asked about the account, and what it is told.
    pub(super) host: Option<(Arc<dyn Authenticator>, LoginRequest)>,
}

/// The token that a client that has logged in wants, or is to have.
pub(super) struct TokenWish {
    pub(super) policy: Arc<Policy>,
    pub(super) holder: Holder,
    pub(super) mechanism: Mechanism,
    /// What it has logged in with, if that was one: then one that was issued lately will do.
    pub(super) used: Option<UsedToken>,
    /// Of the credentials that it has logged in with, if that were any.
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) description: Description,
}

impl<C: SharedConnection> Core<C> {
    fn tokens(&self) -> Result<&Arc<dyn TokenStore>, StoreError> {
        self.stores.tokens.as_ref().ok_or_else(|| StoreError::failed("there is no store of tokens"))
    }

    /// Judges a login with a token, and stores that the token was used. The same calls whether or not there is such an
    /// account or client (SASL-7).
    pub(super) async fn check_token(
        &self,
        policy: &Policy,
        login: &FastLogin,
    ) -> Result<Result<Accepted, SaslError>, StoreError> {
        let FastLogin { holder, proof, count, invalidate, host } = login;
        let standing = self.standing(policy, &holder.account).await?;
        for _ in 0..ATTEMPTS {
            let found = self.tokens()?.client(&holder.account, &holder.client).await?;
            let found = found.map(|record| self.without_voided(&holder.account, record));
            let now = self.environment.utc();
            let judged =
                policy.check_token(holder, found.as_ref(), standing.as_ref(), proof, *count, now);
            let mut proved = match judged {
                Ok(proved) => proved,
                Err(error) => return Ok(Err(error)),
            };
            if let Some((host, request)) = host {
                let verdict = host.check_account(&holder.account, request).await?;
                match admitted(verdict, now) {
                    Ok(until) => proved.until = until,
                    Err(error) => return Ok(Err(error)),
                }
            }
            if *invalidate {
                let record = proved.changed.take().or_else(|| found.clone());
                let ended = |record| ClientTokens { current: None, new: None, ..record };
                proved.changed = record.map(ended);
                (proved.used.number, proved.used.is_due) = (None, false);
            }
            let Some(changed) = proved.changed.take() else { return Ok(Ok(proved)) };
            if self.replace(holder, found.as_ref(), changed).await? {
                return Ok(Ok(proved));
            }
        }
        Err(contended())
    }

    /// Issues a token. `None` where the account is not one that can log in with one, or what the client has logged in
    /// with has ended since (FAST-4).
    pub(super) async fn grant_token(&self, wish: TokenWish) -> Result<Option<Issued>, StoreError> {
        let TokenWish { policy, holder, mechanism, used, fingerprint, description } = wish;
        let fingerprint = match fingerprint {
            Some(fingerprint) => fingerprint,
            None => match self.standing(&policy, &holder.account).await? {
                Some(standing) => standing.fingerprint(&policy),
                None => return Ok(None),
            },
        };
        for _ in 0..ATTEMPTS {
            let found = self.tokens()?.client(&holder.account, &holder.client).await?;
            let found = found.map(|record| self.without_voided(&holder.account, record));
            if used.as_ref().is_some_and(|used| !used.is_good(found.as_ref())) {
                return Ok(None);
            }
            if found.is_none() {
                self.make_room(&policy, &holder.account).await?;
            }
            let (mut record, issued) = policy.issue_token(
                &holder,
                found.clone(),
                mechanism,
                &fingerprint,
                used.is_some(),
                &*self.environment,
            );
            record.software.clone_from(&description.software);
            record.device.clone_from(&description.device);
            if found.as_ref() == Some(&record)
                || self.replace(&holder, found.as_ref(), record).await?
            {
                return Ok(Some(issued));
            }
        }
        Err(contended())
    }

    /// The clients of an account whose tokens are good, the last used first.
    pub(super) async fn token_clients(
        &self,
        policy: &Policy,
        account: &BareJid,
    ) -> Result<Vec<(ClientKey, ClientTokens, SystemTime)>, StoreError> {
        let Some(tokens) = &self.stores.tokens else { return Ok(Vec::new()) };
        let now = self.environment.utc();
        let clients = tokens.clients(account).await?.into_iter();
        let mut clients: Vec<_> = clients
            .filter_map(|(client, record)| {
                let record = self.without_voided(account, record);
                let expiry = policy.tokens_expire(&record, now)?;
                Some((client, record, expiry))
            })
            .collect();
        clients.sort_by_key(|(_, record, _)| Reverse(record.used));
        Ok(clients)
    }

    /// Ends the tokens of one client. `false` if it has none.
    pub(super) async fn retire_client(
        &self,
        account: &BareJid,
        client: ClientKey,
    ) -> Result<bool, StoreError> {
        let Some(tokens) = &self.stores.tokens else { return Ok(false) };
        let holder = Holder { account: account.clone(), client };
        for _ in 0..ATTEMPTS {
            let Some(found) = tokens.client(account, &client).await? else { return Ok(false) };
            if found.current.is_none() && found.new.is_none() {
                return Ok(false);
            }
            let retired = ClientTokens { current: None, new: None, ..found.clone() };
            if self.replace(&holder, Some(&found), retired).await? {
                return Ok(true);
            }
        }
        Err(contended())
    }

    /// Ends the tokens of all clients of an account: those that were issued so far from now on, whatever its store does.
    pub(super) fn retire_tokens(self: &Arc<Self>, account: &BareJid) {
        let Some(tokens) = self.stores.tokens.clone() else { return };
        let now = self.environment.utc();
        self.voided.lock().insert(account.as_str(), now);
        #[cfg(feature = "cluster")]
        self.tell_voided(account, now);
        let (core, account) = (Arc::clone(self), account.clone());
        let key = account.to_string();
        let _told = self.jobs.run(&key, async move {
            // A store that fails has been told of as a fault.
            let Ok(clients) = tokens.clients(&account).await else { return };
            for (client, _) in clients {
                let _told = core.retire_client(&account, client).await;
            }
        });
    }

    /// Whether the host has ended what was issued to the account at this time.
    pub(super) fn is_voided(&self, account: &BareJid, issued: SystemTime) -> bool {
        self.voided.lock().get(account.as_str()).is_some_and(|since| issued < since)
    }

    /// The record without the tokens that the host has ended.
    fn without_voided(&self, account: &BareJid, mut record: ClientTokens) -> ClientTokens {
        for slot in [&mut record.current, &mut record.new] {
            *slot = slot.take().filter(|token| !self.is_voided(account, token.issued));
        }
        record
    }

    async fn replace(
        &self,
        holder: &Holder,
        found: Option<&ClientTokens>,
        mut record: ClientTokens,
    ) -> Result<bool, StoreError> {
        record.revision = revision(&*self.environment);
        let found = found.map(|found| found.revision);
        self.tokens()?.replace(&holder.account, &holder.client, found, Some(record)).await
    }

    /// The account, if it can log in.
    async fn standing(
        &self,
        policy: &Policy,
        account: &BareJid,
    ) -> Result<Option<Standing>, StoreError> {
        if policy.host_checks_passwords() {
            // Credentials are the host's own affair.
            let exists = self.stores.accounts.exists(account).await?;
            return Ok(exists.then(Standing::default));
        }
        let credentials = self.stores.accounts.credentials(account).await?;
        let is_there = match policy.host_checks_tokens() {
            true => self.stores.accounts.exists(account).await?,
            false => credentials.is_some(),
        };
        Ok(is_there.then_some(Standing { credentials }))
    }

    /// Makes room for one more client of an account: those without a good token go first, then those that have been away
    /// longest.
    async fn make_room(&self, policy: &Policy, account: &BareJid) -> Result<(), StoreError> {
        let tokens = self.tokens()?;
        let now = self.environment.utc();
        let mut clients = tokens.clients(account).await?;
        let most = self.limits.clients_per_account.max(1);
        let too_many = (clients.len() + 1).saturating_sub(most);
        clients
            .sort_by_key(|(_, record)| (policy.tokens_expire(record, now).is_some(), record.used));
        for (client, record) in clients.into_iter().take(too_many) {
            // If it has changed it was used: then there is one too many, until the next one comes.
            let _gone = tokens.replace(account, &client, Some(record.revision), None).await?;
        }
        Ok(())
    }
}

fn contended() -> StoreError {
    StoreError::failed("the tokens of a client do not stop changing")
}
