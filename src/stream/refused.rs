//! Stanzas that are answered with an error before anything else looks at them.

use std::fmt;

use super::Limit;
use super::limits::broken;
use crate::stanza::canonical::Flaw;
use crate::stanza::{Condition, Received, StanzaError};

/// A stanza that was refused while it was read, and skipped to its end: it breaks a limit ([LIMIT-4](crate::rules#limit-4),
/// [LIMIT-5](crate::rules#limit-5), [LIMIT-40](crate::rules#limit-40)) or cannot be passed on ([STREAM-15](crate::rules#stream-15)). The stream goes on.
pub struct RefusedStanza {
    stanza: Received<'static>,
    flaw: Flaw,
    /// The limit in force on its length.
    bytes: Limit,
}

impl RefusedStanza {
    pub(super) const fn new(stanza: Received<'static>, flaw: Flaw, bytes: Limit) -> Self {
        Self { stanza, flaw, bytes }
    }

    /// The stanza without its payload: enough to answer it.
    #[must_use]
    pub const fn stanza(&self) -> &Received<'static> {
        &self.stanza
    }

    /// What to answer: `policy-violation` where a limit was exceeded, `not-acceptable` for names,
    /// both of type `modify`.
    #[must_use]
    pub fn error(&self) -> StanzaError {
        match self.flaw {
            Flaw::Exceeded(_) => Condition::PolicyViolation.into(),
            Flaw::Names => Condition::NotAcceptable.into(),
        }
    }

    /// The limit that was exceeded, for the host.
    #[must_use]
    pub const fn limit(&self) -> Option<Limit> {
        match self.flaw {
            Flaw::Exceeded(bound) => Some(broken(bound, self.bytes)),
            Flaw::Names => None,
        }
    }
}

impl fmt::Debug for RefusedStanza {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusedStanza")
            .field("stanza", &self.stanza)
            .field("limit", &self.limit())
            .finish_non_exhaustive()
    }
}
