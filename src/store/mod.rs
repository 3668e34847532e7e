//! What a host keeps for its users: accounts, rosters, offline messages, block lists.
//!
//! The traits are object-safe and name no runtime: a method returns a boxed future that owns what
//! it needs (clone the pool into it). The server owns that future from then on, so a connection
//! that breaks does not cancel a write.

mod account;
mod keys;
mod memory_accounts;

pub use account::{AccountStore, Authenticator, Credentials, Verdict};
pub(crate) use keys::prepare_password;
pub use keys::{PasswordError, ScramHash, ScramKeys};
pub use memory_accounts::{AnyAccount, MemoryAccounts};

use std::future::Future;
use std::pin::Pin;

/// The answer of a store, on its way.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'static>>;

/// Why a store could not do what it was asked to. What it says goes to the host's log, never to a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached or failed; the same call may succeed later.
    #[error("the store failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store has no room for this entry (a limit of the account, a full disk).
    #[error("the store is full")]
    Full,
}
