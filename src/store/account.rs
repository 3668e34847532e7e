//! Accounts and their credentials.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use jid::BareJid;

use super::keys::{PasswordError, ScramHash, ScramKeys};
use super::{StoreFuture, TokenStore};
use crate::environment::Environment;

/// Who may log in, and what proves it.
///
/// For hosts to implement. The accounts are addressed by their normalised bare JIDs. A method may
/// be called for invented names as long as a bare JID may be (2047 bytes).
///
/// # Examples
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
/// use xmpp_session::jid::BareJid;
/// use xmpp_session::store::{AccountStore, Credentials, StoreFuture, Stores};
///
/// /// A table of your database: keep `Arc<Pool>` here, and run a query in each future.
/// #[derive(Clone, Default)]
/// struct Table(Arc<Mutex<HashMap<BareJid, Credentials>>>);
///
/// impl AccountStore for Table {
///     fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
///         let (table, account) = (self.clone(), account.clone());
///         Box::pin(async move { Ok(table.0.lock().unwrap().get(&account).cloned()) })
///     }
///
///     fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
///         let (table, account) = (self.clone(), account.clone());
///         Box::pin(async move {
///             table.0.lock().unwrap().insert(account, credentials);
///             Ok(())
///         })
///     }
///
///     fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
///         let (table, account) = (self.clone(), account.clone());
///         Box::pin(async move { Ok(table.0.lock().unwrap().remove(&account).is_some()) })
///     }
/// }
///
/// let mut stores = Stores::memory();
/// stores.accounts = Arc::new(Table::default());
/// ```
pub trait AccountStore: Send + Sync + 'static {
    /// The credentials of `account`; `None` where there is no such account.
    ///
    /// Should do the same work in both cases, with the same number of database queries, in the same
    /// time: the rest of a login does ([SASL-7](crate::rules#sasl-7)).
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>>;

    /// Whether the account exists. By default asks for its credentials.
    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        let found = self.credentials(account);
        Box::pin(async move { Ok(found.await?.is_some()) })
    }

    /// Creates the account or replaces its credentials.
    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()>;

    /// Whether [`add_keys`](Self::add_keys) does something: only then are clients asked to upgrade the keys of their
    /// account. By default it does not.
    fn adds_keys(&self) -> bool {
        false
    }

    /// Adds keys for a hash function to an account that has none for it, in one step with a look at what it has
    /// ([UPGRADE-2](crate::rules#upgrade-2)): `false`, and nothing has changed, if its keys for another hash function
    /// are no longer `proved.1`, by which its client has just proved who it is, or if it is disabled or gone. What it has
    /// stays, and so do keys for this hash function that another client has brought meanwhile: `true`, since they are of
    /// the same password.
    ///
    /// Without that look a password that is changed meanwhile would be undone.
    fn add_keys(
        &self,
        account: &BareJid,
        proved: (ScramHash, ScramKeys),
        added: (ScramHash, ScramKeys),
    ) -> StoreFuture<bool> {
        let _not_kept = (account, proved, added);
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Removes the account (credentials only; rosters and messages have stores of their own).
    /// `false` if there was none.
    fn remove(&self, account: &BareJid) -> StoreFuture<bool>;

    /// The same store as a [`TokenStore`], if it is one: for [`Stores::all_in`](super::Stores::all_in).
    fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
        None
    }
}

/// What proves the identity of an account: SCRAM keys (RFC 5802 §3), from which the password cannot
/// be read.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Credentials {
    /// Keys for SCRAM-SHA-1, if the host has them.
    pub scram_sha_1: Option<ScramKeys>,
    /// Keys for SCRAM-SHA-256, if the host has them.
    pub scram_sha_256: Option<ScramKeys>,
    /// Keys for SCRAM-SHA-512, if the host has them. That mechanism is only offered where the host says so
    /// ([`Policy::mechanisms`](crate::sasl::Policy::mechanisms)).
    pub scram_sha_512: Option<ScramKeys>,
    /// A disabled account: right credentials are answered `account-disabled` ([SASL-7](crate::rules#sasl-7)).
    pub disabled: bool,
}

impl Credentials {
    /// The default number of PBKDF2 iterations: the least that
    /// [RFC 7677 §4](https://www.rfc-editor.org/rfc/rfc7677#section-4) allows.
    pub const DEFAULT_ITERATIONS: NonZeroU32 = match NonZeroU32::new(4096) {
        Some(count) => count,
        None => NonZeroU32::MIN,
    };

    /// Length of the salts that are made here, in bytes.
    pub(crate) const SALT_LEN: usize = 16;

    /// No keys at all: nobody can log in with these until keys are added.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys of `password` for every hash function, with
    /// [`DEFAULT_ITERATIONS`](Self::DEFAULT_ITERATIONS) and random salts.
    ///
    /// # Errors
    ///
    /// [`PasswordError`] where the password cannot be prepared with SASLprep.
    ///
    /// # Examples
    ///
    /// ```
    /// use xmpp_session::environment::System;
    /// use xmpp_session::store::Credentials;
    ///
    /// let credentials = Credentials::from_password("pencil", &System::new())?;
    /// assert!(credentials.scram_sha_256.is_some());
    /// # Ok::<(), xmpp_session::store::PasswordError>(())
    /// ```
    pub fn from_password(
        password: &str,
        environment: &dyn Environment,
    ) -> Result<Self, PasswordError> {
        Self::from_password_with(password, Self::DEFAULT_ITERATIONS, environment)
    }

    /// Like [`from_password`](Self::from_password), with another number of iterations.
    ///
    /// More of them make stolen keys more expensive to attack, each SCRAM login more expensive for
    /// the client, and each PLAIN login more expensive for the server. A server whose accounts do
    /// not have the default number says so with
    /// [`Policy::iterations`](crate::sasl::Policy::iterations).
    ///
    /// # Errors
    ///
    /// [`PasswordError`] where the password cannot be prepared with SASLprep.
    pub fn from_password_with(
        password: &str,
        iterations: NonZeroU32,
        environment: &dyn Environment,
    ) -> Result<Self, PasswordError> {
        let mut credentials = Self::new();
        for hash in ScramHash::ALL {
            let mut salt = [0; Self::SALT_LEN];
            environment.random(&mut salt);
            let keys = ScramKeys::derive(password, &salt, iterations, hash)?;
            credentials = credentials.with_keys(hash, keys);
        }
        Ok(credentials)
    }

    /// Keys for SCRAM-SHA-1 and SCRAM-SHA-256 that were stored before, `None` for a hash function without keys.
    /// Others are added by [`with_keys`](Self::with_keys).
    #[must_use]
    pub const fn from_keys(
        scram_sha_1: Option<ScramKeys>,
        scram_sha_256: Option<ScramKeys>,
    ) -> Self {
        Self { scram_sha_1, scram_sha_256, scram_sha_512: None, disabled: false }
    }

    /// The same with these keys for `hash`.
    ///
    /// ```
    /// use xmpp_session::store::{Credentials, ScramHash, ScramKeys};
    ///
    /// // The rows that a database has of one account.
    /// let rows = [("SHA-256", ScramKeys::from_parts(vec![1; 16], 4096, vec![2; 32], vec![3; 32]))];
    /// let mut credentials = Credentials::new();
    /// for (name, keys) in rows {
    ///     if let Some(hash) = ScramHash::ALL.into_iter().find(|hash| hash.as_str() == name) {
    ///         credentials = credentials.with_keys(hash, keys);
    ///     }
    /// }
    /// assert!(credentials.keys(ScramHash::Sha256).is_some());
    /// assert!(credentials.keys(ScramHash::Sha512).is_none());
    /// ```
    #[must_use]
    pub fn with_keys(mut self, hash: ScramHash, keys: ScramKeys) -> Self {
        let slot = match hash {
            ScramHash::Sha1 => &mut self.scram_sha_1,
            ScramHash::Sha256 => &mut self.scram_sha_256,
            ScramHash::Sha512 => &mut self.scram_sha_512,
        };
        *slot = Some(keys);
        self
    }

    /// The keys for `hash`, as they are stored.
    #[must_use]
    pub const fn keys(&self, hash: ScramHash) -> Option<&ScramKeys> {
        match hash {
            ScramHash::Sha1 => self.scram_sha_1.as_ref(),
            ScramHash::Sha256 => self.scram_sha_256.as_ref(),
            ScramHash::Sha512 => self.scram_sha_512.as_ref(),
        }
    }

    /// Adds keys if these are still what `proved` was about; whether they are. Keys that are there already stay: another
    /// client has brought them.
    pub(crate) fn upgrade(
        &mut self,
        proved: &(ScramHash, ScramKeys),
        (hash, keys): (ScramHash, ScramKeys),
    ) -> bool {
        let is_right = !self.disabled && self.keys(proved.0) == Some(&proved.1);
        if is_right && self.usable(hash).is_none() {
            *self = std::mem::take(self).with_keys(hash, keys);
        }
        is_right
    }

    /// The keys for `hash`, if there are any that can work.
    pub(crate) fn usable(&self, hash: ScramHash) -> Option<&ScramKeys> {
        self.keys(hash).filter(|keys| keys.fit(hash))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("scram_sha_1", &self.scram_sha_1.is_some())
            .field("scram_sha_256", &self.scram_sha_256.is_some())
            .field("scram_sha_512", &self.scram_sha_512.is_some())
            .field("disabled", &self.disabled)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Virtual;

    #[test]
    fn sec_1_salts_come_from_the_environment_and_differ() {
        let world = Virtual::new(1);
        let one = Credentials::from_password("pencil", &world).unwrap();
        let two = Credentials::from_password("pencil", &world).unwrap();
        let again = Credentials::from_password("pencil", &Virtual::new(1)).unwrap();
        let salts =
            |of: &Credentials| ScramHash::ALL.map(|hash| of.keys(hash).unwrap().salt.clone());
        assert_ne!(salts(&one), salts(&two));
        let [a, b, c] = salts(&one);
        assert!(a != b && b != c && a != c);
        assert_eq!(salts(&one), salts(&again));
        assert_eq!(a.len(), Credentials::SALT_LEN);
    }

    #[test]
    fn sec_6_debug_shows_no_keys() {
        let credentials = Credentials::from_password("pencil", &Virtual::new(1)).unwrap();
        assert_eq!(
            format!("{credentials:?}"),
            "Credentials { scram_sha_1: true, scram_sha_256: true, scram_sha_512: true, disabled: false }"
        );
    }
}
