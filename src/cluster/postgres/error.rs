//! What goes wrong with the database, in words that say what to do.

use tokio_postgres::error::SqlState;

use crate::store::ConnectError;

/// Why a database cannot be an engine, or did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// It is called outside of a tokio runtime.
    #[error("no tokio runtime is entered")]
    NoRuntime,
    /// What may be wrong with a store, too: it cannot be reached, refuses the user, is too old, a standby, or the user has
    /// not the rights that are wanted.
    #[error("the database cannot be used")]
    Database(#[from] ConnectError),
    /// The disk is full, or there are too many connections.
    #[error("the database is full")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has not answered in time.
    #[error("the database does not answer in time")]
    TimedOut,
    /// It keeps something that was written by another version of this crate, or by somebody else.
    #[error("what the database keeps is of another version")]
    Foreign,
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE) => Self::TimedOut,
            // What asks for the timeline says this of a standby.
            Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => ConnectError::ReadOnly.into(),
            Some(code) if code.code().starts_with("53") => Self::Full(error.into()),
            _ => ConnectError::from(error).into(),
        }
    }
}
