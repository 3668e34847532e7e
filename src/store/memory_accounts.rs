//! Accounts in memory.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;

use jid::BareJid;
use parking_lot::RwLock;
use subtle::ConstantTimeEq;

use super::account::{AccountStore, Credentials};
use super::keys::{PasswordError, ScramHash, ScramKeys, prepare_password};
use super::login::{Authenticator, Verdict};
use super::{StoreError, StoreFuture, made};

/// Accounts that are gone when the program ends: for tests, examples and small hosts.
///
/// Its futures are ready when they are made.
///
/// ```
/// use xmpp_session::environment::System;
/// use xmpp_session::jid::BareJid;
/// use xmpp_session::store::{Credentials, MemoryAccounts};
///
/// let accounts = MemoryAccounts::new();
/// let juliet = BareJid::new("juliet@im.example.com")?;
/// accounts.insert(juliet, Credentials::from_password("r0m30myr0m30", &System::new())?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct MemoryAccounts {
    accounts: RwLock<HashMap<BareJid, Credentials>>,
}

impl MemoryAccounts {
    /// No accounts yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the account or replaces its credentials, without a future to wait for. One whose
    /// address has no [normal form](crate::address) is not made: nobody could log in to it.
    pub fn insert(&self, account: BareJid, credentials: Credentials) {
        if let Ok(account) = made(&account) {
            self.accounts.write().insert(account, credentials);
        }
    }
}

impl fmt::Debug for MemoryAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryAccounts").field("accounts", &self.accounts.read().len()).finish()
    }
}

impl AccountStore for MemoryAccounts {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        Box::pin(ready(Ok(self.accounts.read().get(account).cloned())))
    }

    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        Box::pin(ready(Ok(self.accounts.read().contains_key(account))))
    }

    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
        let account = made(account);
        Box::pin(ready(account.map(|account| {
            self.accounts.write().insert(account, credentials);
        })))
    }

    fn adds_keys(&self) -> bool {
        true
    }

    fn add_keys(
        &self,
        account: &BareJid,
        proved: (ScramHash, ScramKeys),
        added: (ScramHash, ScramKeys),
    ) -> StoreFuture<bool> {
        let mut accounts = self.accounts.write();
        let found = accounts.get_mut(account);
        let is_added = found.is_some_and(|credentials| credentials.upgrade(&proved, added));
        Box::pin(ready(Ok(is_added)))
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        let removed = self.accounts.write().remove(account).is_some();
        Box::pin(ready(Ok(removed)))
    }
}

/// **For load tests only**: every account exists, and all of them have the same password.
///
/// As an [`AccountStore`] it gives everyone the same keys; as an [`Authenticator`] it checks PLAIN
/// with one hash instead of a key derivation, so that a load test measures the server and not
/// PBKDF2.
pub struct AnyAccount {
    credentials: Credentials,
    digest: Vec<u8>,
}

impl AnyAccount {
    /// Every account, with this password.
    ///
    /// # Errors
    ///
    /// [`PasswordError`] where the password cannot be prepared with SASLprep.
    pub fn new(password: &str) -> Result<Self, PasswordError> {
        // One salt for everybody, so a random one would hide nothing.
        let salt = b"the same for all";
        let mut credentials = Credentials::new();
        for hash in ScramHash::ALL {
            let keys = ScramKeys::derive(password, salt, Credentials::DEFAULT_ITERATIONS, hash)?;
            credentials = credentials.with_keys(hash, keys);
        }
        Ok(Self {
            credentials,
            digest: ScramHash::Sha256.hash(prepare_password(password)?.as_bytes()),
        })
    }
}

impl fmt::Debug for AnyAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyAccount")
    }
}

impl AccountStore for AnyAccount {
    fn credentials(&self, _: &BareJid) -> StoreFuture<Option<Credentials>> {
        Box::pin(ready(Ok(Some(self.credentials.clone()))))
    }

    fn exists(&self, _: &BareJid) -> StoreFuture<bool> {
        Box::pin(ready(Ok(true)))
    }

    /// Fails: the accounts cannot be changed.
    fn set_credentials(&self, _: &BareJid, _: Credentials) -> StoreFuture<()> {
        Box::pin(ready(Err(StoreError::Failed("the accounts cannot be changed".into()))))
    }

    /// Fails: the accounts cannot be changed.
    fn remove(&self, _: &BareJid) -> StoreFuture<bool> {
        Box::pin(ready(Err(StoreError::Failed("the accounts cannot be changed".into()))))
    }
}

impl Authenticator for AnyAccount {
    fn check_password(&self, _: &BareJid, password: &str) -> StoreFuture<Verdict> {
        let digest = ScramHash::Sha256.hash(password.as_bytes());
        let verdict =
            if digest.ct_eq(&self.digest).into() { Verdict::Accepted } else { Verdict::Refused };
        Box::pin(ready(Ok(verdict)))
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::environment::Virtual;

    fn now<T>(mut future: StoreFuture<T>) -> Result<T, StoreError> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => found,
            Poll::Pending => panic!("a memory store has nothing to wait for"),
        }
    }

    #[test]
    fn sasl_7_memory_accounts_come_and_go() {
        let store = MemoryAccounts::new();
        let juliet = BareJid::new("juliet@example.com").unwrap();
        assert!(now(store.credentials(&juliet)).unwrap().is_none());
        let credentials = Credentials::from_password("pencil", &Virtual::new(1)).unwrap();
        now(store.set_credentials(&juliet, credentials)).unwrap();
        assert!(now(store.credentials(&juliet)).unwrap().is_some());
        assert!(now(store.exists(&juliet)).unwrap());
        assert_eq!(format!("{store:?}"), "MemoryAccounts { accounts: 1 }");
        assert!(now(store.remove(&juliet)).unwrap());
        assert!(!now(store.remove(&juliet)).unwrap());
        assert!(!now(store.exists(&juliet)).unwrap());
    }

    #[test]
    fn sasl_7_any_account_has_one_password() {
        let store = AnyAccount::new("pencil").unwrap();
        let juliet = BareJid::new("juliet@example.com").unwrap();
        assert_eq!(now(store.check_password(&juliet, "pencil")).unwrap(), Verdict::Accepted);
        assert_eq!(now(store.check_password(&juliet, "pencils")).unwrap(), Verdict::Refused);
        assert!(now(store.exists(&juliet)).unwrap());
        assert!(now(store.credentials(&juliet)).unwrap().unwrap().keys(ScramHash::Sha1).is_some());
        assert!(now(store.remove(&juliet)).is_err());
    }
}
