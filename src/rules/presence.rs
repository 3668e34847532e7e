//! Presence: reading it, and who is told of it
//! ([RFC 6121 §4](https://www.rfc-editor.org/rfc/rfc6121#section-4)).

mod broadcast;
mod directed;
#[cfg(feature = "server")]
mod probe;
#[cfg(feature = "server")]
mod read;

pub(crate) use broadcast::{Audience, broadcast, uncovered};
pub(crate) use directed::Directed;
pub use directed::TooManyTargets;
#[cfg(feature = "server")]
pub(crate) use probe::{Probe, ProbeAnswer, answer_probe};
#[cfg(feature = "server")]
pub(crate) use read::{PresenceType, read_priority};
