//! What goes wrong with an instance, in words that say what to do.

use std::sync::Arc;

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why an instance of Redis or Valkey cannot be used, or did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// The URL, or a certificate, is not understood.
    #[error("not a URL of redis:// or rediss://, or a bad certificate")]
    Url(#[source] Cause),
    /// There is no URL.
    #[error("no instance is named")]
    NoUrl,
    /// It is called outside of a tokio runtime.
    #[error("no tokio runtime is entered")]
    NoRuntime,
    /// The name or the password is wrong, or one is wanted.
    #[error("the instance refuses the name or the password")]
    Password(#[source] Cause),
    /// The user has not the rights that are wanted (ACL): [these](crate::guide::engines).
    #[error("the user of the instance has not the rights for this")]
    Rights(#[source] Cause),
    /// Nothing more may be written: `maxmemory` is reached.
    #[error("the instance is full (maxmemory)")]
    Full(#[source] Cause),
    /// It is a replica, or became one: the URL has to lead to the one that takes writes.
    #[error("the instance is a replica, or takes no writes")]
    ReadOnly(#[source] Cause),
    /// It is older than the oldest version that is understood.
    #[error("the instance is of version {found}, and has to be of {least} at least")]
    Version {
        /// Its version, as far as it is known.
        found: Arc<str>,
        /// The oldest version that is understood.
        least: &'static str,
    },
    /// It has not answered in time.
    #[error("the instance does not answer in time")]
    TimedOut,
    /// There is no connection to it.
    #[error("the instance cannot be reached")]
    Unreachable(#[source] Cause),
    /// It keeps something that was written by another version of this crate, or by somebody else.
    #[error("what the instance keeps is of another version")]
    Foreign,
    /// Anything else.
    #[error("the instance answers something unexpected")]
    Other(#[source] Cause),
}

impl RedisError {
    /// Whether the connection is of no use any more.
    pub(super) const fn ends_connection(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Unreachable(_) | Self::ReadOnly(_))
    }
}

/// The oldest version that is understood: scripts that write by the clock, ACLs, pushed messages.
pub(super) const LEAST: &str = "6.0";

impl From<redis::RedisError> for RedisError {
    fn from(error: redis::RedisError) -> Self {
        use redis::{ErrorKind, ServerErrorKind};
        // What fails inside of a script bears its reason in words only.
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match error.kind() {
            _ if error.is_timeout() => Self::TimedOut,
            ErrorKind::RESP3NotSupported => Self::Version { found: "below 6".into(), least: LEAST },
            _ if says(&["unknown command `HELLO`", "unknown command 'HELLO'"]) => {
                Self::Version { found: "below 6".into(), least: LEAST }
            }
            ErrorKind::AuthenticationFailed => Self::Password(Arc::new(error)),
            _ if says(&["WRONGPASS", "NOAUTH", "invalid password", "invalid username"]) => {
                Self::Password(Arc::new(error))
            }
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Rights(Arc::new(error)),
            _ if says(&[
                "NOPERM",
                "ACL failure",
                "no permissions",
                "executing the script can't",
            ]) =>
            {
                Self::Rights(Arc::new(error))
            }
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
                Self::ReadOnly(Arc::new(error))
            }
            _ if says(&["READONLY", "NOREPLICAS", "MISCONF"]) => Self::ReadOnly(Arc::new(error)),
            _ if error.code() == Some("OOM") => Self::Full(Arc::new(error)),
            ErrorKind::InvalidClientConfig => Self::Url(Arc::new(error)),
            ErrorKind::Io => Self::Unreachable(Arc::new(error)),
            _ if error.is_unrecoverable_error() => Self::Unreachable(Arc::new(error)),
            _ => Self::Other(Arc::new(error)),
        }
    }
}
