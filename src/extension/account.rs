//! Why an act on an account fails.

use crate::rules::roster::RosterError;
use crate::store::{PasswordError, StoreError};

/// Why nobody could act on an account. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// There is no such account, or it is being removed; for two accounts, one of them.
    #[error("there is no such account")]
    NoAccount,
    /// The contact is no bare JID or domain that a roster may hold: it has no normal form, or is the account
    /// itself ([ROSTER-7](crate::rules#roster-7)).
    #[error("no roster item can have this address")]
    InvalidContact,
    /// The contact to remove is not in the roster.
    #[error("the roster has no such contact")]
    NoContact,
    /// A group is empty, or named twice.
    #[error("a group is empty or named twice")]
    InvalidGroup,
    /// The roster, or this item of it, would be larger than it may be ([LIMIT-15](crate::rules#limit-15)).
    #[error("the roster or its item would be too large")]
    TooLarge,
    /// There is such an account, or it is being removed.
    #[error("there is such an account")]
    Exists,
    /// No account can have this address: it has no normal form, or is of no domain of this server.
    #[error("no account can have this address")]
    InvalidAddress,
    /// No account can have this password.
    #[error("no account can have this password")]
    Password(#[source] PasswordError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RosterError> for AccountError {
    fn from(error: RosterError) -> Self {
        match error {
            RosterError::UnknownItem => Self::NoContact,
            RosterError::EmptyGroup | RosterError::DuplicateGroup => Self::InvalidGroup,
            RosterError::NameTooLong
            | RosterError::GroupTooLong
            | RosterError::TooManyGroups
            | RosterError::ItemTooLarge
            | RosterError::TooManyItems
            | RosterError::TooLarge => Self::TooLarge,
            RosterError::ItemInGet
            | RosterError::NotOneItem
            | RosterError::NoJid
            | RosterError::InvalidJid
            | RosterError::FullJid
            | RosterError::OwnJid => Self::InvalidContact,
        }
    }
}
