//! What goes wrong with the database, in words that say what to do.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a database cannot be used as an engine, or did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The URL, or a certificate, is not understood.
    #[error("not a URL of postgres://, or a bad certificate")]
    Url(#[source] Cause),
    /// It is called outside of a tokio runtime.
    #[error("no tokio runtime is entered")]
    NoRuntime,
    /// The name or the password is wrong, or one is wanted.
    #[error("the database refuses the name or the password")]
    Password(#[source] Cause),
    /// The user has not the rights that are wanted: those of `docs/engines.md`.
    #[error("the user of the database has not the rights for this")]
    Rights(#[source] Cause),
    /// The disk is full, or there are too many connections.
    #[error("the database is full")]
    Full(#[source] Cause),
    /// It is a standby, or read-only: the URL has to lead to the one that takes writes
    /// (`target_session_attrs=read-write`).
    #[error("the database is a standby, or takes no writes")]
    ReadOnly(#[source] Cause),
    /// It is older than the oldest version that is understood.
    #[error("the database is of version {found}, and has to be of {least} at least")]
    Version {
        /// Its version, as it says.
        found: Arc<str>,
        /// The oldest version that is understood.
        least: &'static str,
    },
    /// It has not answered in time.
    #[error("the database does not answer in time")]
    TimedOut,
    /// There is no connection to it.
    #[error("the database cannot be reached")]
    Unreachable(#[source] Cause),
    /// It keeps something that was written by another version of this crate, or by somebody else.
    #[error("what the database keeps is of another version")]
    Foreign,
    /// Anything else.
    #[error("the database answers something unexpected")]
    Other(#[source] Cause),
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code().cloned() else {
            // Connections that end say nothing else; neither does what is not understood of an answer.
            return Self::Unreachable(Arc::new(error));
        };
        let class = state.code().get(..2).unwrap_or_default();
        let make = match &state {
            state if *state == SqlState::INSUFFICIENT_PRIVILEGE => Self::Rights,
            state if *state == SqlState::READ_ONLY_SQL_TRANSACTION => Self::ReadOnly,
            // What asks for the timeline says this of a standby.
            state if *state == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => Self::ReadOnly,
            state if *state == SqlState::QUERY_CANCELED => return Self::TimedOut,
            state if *state == SqlState::LOCK_NOT_AVAILABLE => return Self::TimedOut,
            _ if class == "28" => Self::Password,
            _ if class == "53" => Self::Full,
            _ if class == "08" || class == "57" => Self::Unreachable,
            _ => Self::Other,
        };
        make(Arc::new(error))
    }
}
