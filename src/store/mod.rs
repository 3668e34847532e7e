//! What a host keeps for its users: accounts, rosters, offline messages, block lists, tokens.
//!
//! Five traits, one for each. [`Memory`] implements them all for tests and for servers that may
//! forget; `Sqlite` (feature `sqlite`) implements them all in one file, `Postgres` (feature
//! `postgres`) in a database. A host with its own
//! database or service implements the ones it wants and passes them in [`Stores`]. The tests
//! of `store::conformance` (feature `conformance`) check that an implementation keeps the
//! contract below. [`MemoryAccounts`] is for hosts that keep only accounts in memory.
//!
//! # The contract of every store
//!
//! The traits are object-safe and name no runtime: a method returns a boxed future that owns what
//! it needs (clone the pool into it). The work may begin with the call or with the first poll.
//!
//! - **Atomic.** One call changes everything it names or nothing, even across a crash.
//! - **Durable.** `Ok` of a write means that it will be found again after a crash or a loss of
//!   power. The server tells clients that something is done only after that (promise: durable
//!   before acknowledged). A store in memory keeps this as long as the process lives.
//! - **Read your writes.** A call that is made after another one's `Ok` sees its effect.
//! - **Concurrency.** Calls arrive from any thread. The server makes the calls to one store about
//!   one account one after another, waiting for each answer; calls about different accounts
//!   overlap. Several servers that share a store give no such promise together.
//! - **Cancellation.** The server drives every write to its end, even if the connection that caused it
//!   breaks; a login's look-up is dropped with its connection. A store must only make sure that a
//!   dropped future changes everything or nothing.
//! - **Unknown accounts.** A store knows no accounts but those of its entries: an account
//!   without entries has an empty roster, no messages and no blocked JIDs. That is never an error.
//! - **Errors.** An error means that nothing was changed. If an answer is lost (a
//!   broken connection to a database), the store finds out, or repeats the call, before it answers:
//!   every write but [`OfflineStore::push`] has the same effect when done twice. A read that
//!   fails is an error and never an empty or shortened answer, which the server would trust
//!   ([BIND-13](crate::rules#bind-13)). A single entry that cannot be read is left out and counted
//!   ([`StoredRoster::unread`]): it must not block the account ([JID-6](crate::rules#jid-6)).

mod account;
mod block;
mod certificate;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "cluster")]
pub(crate) mod fence;
mod invitation;
mod keys;
mod login;
mod memory;
mod memory_accounts;
mod offline;
#[cfg(feature = "postgres")]
mod postgres;
mod roster;
#[cfg(feature = "cluster")]
#[cfg_attr(not(test), expect(dead_code, reason = "no server has a node yet"))]
pub(crate) mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;
mod token;

pub use account::{AccountStore, Credentials};
pub use block::BlockStore;
#[cfg(feature = "certificates")]
pub use certificate::CertificateError;
pub use certificate::{CertificateMapper, ClientCertificate};
pub use invitation::{InvitationStore, MemoryInvitations, StoredInvitation};
pub(crate) use keys::prepare_password;
pub use keys::{PasswordError, ScramHash, ScramKeys};
pub use login::{
    Authenticator, LoginRequest, TokenAuthenticator, TokenError, TokenGrant, TokenStatus,
    TokenVerdict, Verdict,
};
pub use memory::Memory;
pub use memory_accounts::{AnyAccount, MemoryAccounts};
pub use offline::{OfflineId, OfflineLimits, OfflineMessage, OfflineStore};
#[cfg(feature = "postgres")]
pub use postgres::{ConnectError, Postgres, PostgresConfig};
pub use roster::{RosterChange, RosterStore, StoredContact, StoredRoster, SubscriptionRequest};
#[cfg(feature = "sqlite")]
pub use sqlite::{OpenError, Sqlite};
pub use token::{ClientKey, ClientTokens, Revision, Token, TokenStore};

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jid::BareJid;

use crate::address;

/// A store's answer, to come.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'static>>;

/// Why a store could not do what was asked. Its text goes to the host's log, never to a
/// peer, and its `Debug` leaves it to the [source](std::error::Error::source). Nothing was changed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached or failed; the same call may succeed later.
    #[error("the store failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store keeps no more for this account: a limit of the host's.
    #[error("the store is full")]
    Full,
    /// The store has no space for this entry: a full disk.
    #[error("the store has no space left")]
    NoSpace(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed(_) => "Failed",
            Self::Full => "Full",
            Self::NoSpace(_) => "NoSpace",
        })
    }
}

impl StoreError {
    /// A full disk, with what says so.
    pub fn no_space(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::NoSpace(cause.into())
    }

    /// A failure with its cause.
    pub fn failed(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(cause.into())
    }
}

/// The account of new credentials. Nobody could log in to one whose address has no normal form.
fn made(account: &BareJid) -> Result<BareJid, StoreError> {
    address::account(account).map_err(StoreError::failed)
}

/// The stores of one server.
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::store::{Memory, Stores};
///
/// let everything_in_one = Stores::all_in(Arc::new(Memory::new()));
/// let without_offline_messages = Stores::memory().without_offline();
/// # assert!(everything_in_one.offline.is_some() && without_offline_messages.offline.is_none());
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Stores {
    /// Who may log in.
    pub accounts: Arc<dyn AccountStore>,
    /// Rosters and inbound subscription requests.
    pub rosters: Arc<dyn RosterStore>,
    /// Messages for accounts without a session that takes them; without it their senders get
    /// `service-unavailable` ([OFF-2](crate::rules#off-2)).
    pub offline: Option<Arc<dyn OfflineStore>>,
    /// Block lists.
    pub blocks: Arc<dyn BlockStore>,
    /// What is kept of the tokens of fast logins; without it none are issued ([FAST-1](crate::rules#fast-1)).
    pub tokens: Option<Arc<dyn TokenStore>>,
}

impl Stores {
    /// Stores of different kinds, without offline messages and tokens.
    #[must_use]
    pub fn new(
        accounts: Arc<dyn AccountStore>,
        rosters: Arc<dyn RosterStore>,
        blocks: Arc<dyn BlockStore>,
    ) -> Self {
        Self { accounts, rosters, offline: None, blocks, tokens: None }
    }

    /// One store that keeps everything, tokens where it [says so](AccountStore::tokens).
    #[must_use]
    pub fn all_in<S>(store: Arc<S>) -> Self
    where
        S: AccountStore + RosterStore + OfflineStore + BlockStore,
    {
        let (rosters, offline) = (Arc::clone(&store), Arc::clone(&store));
        let (blocks, tokens) = (Arc::clone(&store), Arc::clone(&store).tokens());
        Self { accounts: store, rosters, offline: Some(offline), blocks, tokens }
    }

    /// Everything in a new [`Memory`].
    #[must_use]
    pub fn memory() -> Self {
        Self::all_in(Arc::new(Memory::new()))
    }

    /// The same stores with `offline` for offline messages.
    #[must_use]
    pub fn with_offline(self, offline: Arc<dyn OfflineStore>) -> Self {
        Self { offline: Some(offline), ..self }
    }

    /// The same stores without offline messages.
    #[must_use]
    pub fn without_offline(self) -> Self {
        Self { offline: None, ..self }
    }

    /// The same stores with `tokens` for the tokens of fast logins.
    #[must_use]
    pub fn with_tokens(self, tokens: Arc<dyn TokenStore>) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// The same stores without tokens: clients log in with what the account store or the host knows, each time.
    #[must_use]
    pub fn without_tokens(self) -> Self {
        Self { tokens: None, ..self }
    }

    /// Removes everything that is kept for `account`, its credentials last: after a crash or an
    /// error meanwhile the account still exists and its removal can be repeated, and
    /// nothing is left for a later account of the same name ([DESTROY-15](crate::rules#destroy-15)). `false` if there
    /// was no such account.
    ///
    /// This is the last step of a removal: contacts are told and sessions ended before it, and
    /// no session may begin until it is done.
    ///
    /// # Errors
    ///
    /// The first error of a store; the remaining stores are not asked.
    #[must_use = "the work may begin only with the first poll"]
    pub fn remove_account(&self, account: &BareJid) -> StoreFuture<bool> {
        let (stores, account) = (self.clone(), account.clone());
        Box::pin(async move {
            if let Some(tokens) = &stores.tokens {
                tokens.clear(&account).await?;
            }
            if let Some(offline) = &stores.offline {
                offline.clear(&account).await?;
            }
            stores.blocks.clear(&account).await?;
            stores.rosters.clear(&account).await?;
            stores.accounts.remove(&account).await
        })
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("offline", &self.offline.is_some())
            .field("tokens", &self.tokens.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
