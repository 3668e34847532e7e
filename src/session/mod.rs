//! Sessions, their registry, and everything that happens to them between bind and end.
//!
//! A session starts as [`Session<Unauthed, C>`](Session), becomes `Session<Authed, C>` and then
//! `Session<Bound, C>`; each transition consumes the state before it. From bind on, the session
//! itself lives in the [`SessionRegistry`], where others reach it through a [`SessionHandle`], and
//! `Session<Bound, C>` is the one, revocable right to feed it input.
//!
//! # Locks
//!
//! Life-cycle decisions (bind, replace, hibernate, resume, expire, end) are taken under the lock of
//! the account's shard. Inside it one session's `outbound` or `presence` lock may be taken, never
//! both, and inside those only leaf locks: rosters, timers, memories and events have such. **No lock is
//! held in host code**: decisions yield values, effects happen after.

mod account;
mod acknowledge;
mod backlog;
mod bind;
#[cfg(feature = "server")]
mod blocked;
mod builder;
mod copies;
mod end;
mod events;
mod handle;
mod held;
mod hibernation;
#[cfg(feature = "server")]
mod inheritance;
mod input;
mod kept;
mod outbound;
mod presence;
mod queue;
mod registry;
mod resume;
mod retained;
mod seen;
mod shield;
mod slots;
mod state;
mod table;

pub use crate::rules::presence::TooManyTargets;
#[cfg(feature = "server")]
pub(crate) use account::Account;
pub use acknowledge::{AckCheck, AckPolicy, Acknowledged, Transport};
pub use bind::{BindError, BindRequest, Conflict};
#[cfg(feature = "server")]
pub(crate) use blocked::Pattern;
pub use builder::Builder;
pub use copies::Copies;
pub use end::{Leftover, Reason};
pub use events::{Event, EventKind};
#[cfg(feature = "server")]
pub(crate) use handle::Standing;
pub use handle::{Available, Interested, NotSent, SessionHandle, SessionId, SessionInfo};
pub use held::Hold;
#[cfg(feature = "server")]
pub(crate) use inheritance::Waiting;
pub use input::{Detached, InputTicket};
pub use kept::AccountState;
#[cfg(feature = "server")]
pub(crate) use kept::Kept;
pub use presence::{Parting, Presence};
pub use registry::{Counts, SessionRegistry, Sessions};
pub use resume::{ResumeError, Resumed, Retention};
pub use retained::RetentionLimits;
#[cfg(feature = "server")]
pub(crate) use shield::{shielded, take_behind};
pub use state::{Authed, AuthenticateError, Bound, Refused, Session, State, Unauthed};
#[cfg(all(test, feature = "server"))]
#[cfg(not(any(loom_model, shuttle)))]
pub(crate) use table::hashes;
#[cfg(feature = "server")]
pub(crate) use table::{Hash, Key};

#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
mod tests;
