//! Accounts and their credentials.

use jid::BareJid;

use super::StoreFuture;

/// Who may log in, and what proves it.
pub trait AccountStore: Send + Sync + 'static {
    /// The credentials of `account`; `None` where there is no such account.
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>>;
    /// Whether the account exists. By default asks for its credentials.
    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        let found = self.credentials(account);
        Box::pin(async move { Ok(found.await?.is_some()) })
    }
    /// Creates the account or replaces its credentials.
    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()>;
    /// Removes the account (credentials only; rosters and messages have stores of their own). `false` if there was none.
    fn remove(&self, account: &BareJid) -> StoreFuture<bool>;
}

/// What proves the identity of an account: SCRAM keys (RFC 5802 §3), from which the password cannot be read.
#[derive(Clone)]
#[non_exhaustive]
pub struct Credentials {
    /// Keys for SCRAM-SHA-1, if the host has them.
    pub scram_sha_1: Option<ScramKeys>,
    /// Keys for SCRAM-SHA-256, if the host has them.
    pub scram_sha_256: Option<ScramKeys>,
    /// A disabled account: right credentials are answered `account-disabled` (SASL-7).
    pub disabled: bool,
}

/// A hash function of SCRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScramHash {
    /// SHA-1 (RFC 5802).
    Sha1,
    /// SHA-256 (RFC 7677).
    Sha256,
}

/// Stored SCRAM keys of one account and hash function.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScramKeys {
    /// Per-account salt.
    pub salt: Vec<u8>,
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// `StoredKey`
    pub stored_key: Vec<u8>,
    /// `ServerKey`
    pub server_key: Vec<u8>,
}
