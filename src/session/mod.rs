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
mod handle;
mod input;
#[cfg(feature = "server")]
mod kept;
mod outbound;
mod registry;
mod state;

pub use crate::client::ClientId;
pub use crate::rules::presence::TooManyTargets;
pub use crate::shield::{HostCode, Panicked};
pub use account::AccountState;
#[cfg(feature = "server")]
pub(crate) use account::{Account, Values};
#[cfg(feature = "server")]
pub(crate) use handle::Standing;
pub use handle::{Available, Interested, SessionHandle, SessionId, SessionInfo, SessionState};
pub use input::{Detached, InputTicket};
#[cfg(feature = "server")]
pub use kept::{Keeper, Kept};
#[cfg(feature = "server")]
pub(crate) use outbound::LastWords;
pub use outbound::{
    AckCheck, AckPolicy, Acknowledged, Copies, Epoch, Hold, Item, NotSent, Reply, RetentionLimits,
    Validity,
};
#[cfg(all(test, feature = "server"))]
#[cfg(not(any(loom_model, shuttle)))]
pub(crate) use registry::hashes;
#[cfg(feature = "server")]
pub(crate) use registry::{AccountKey, Hash, Pattern, Waiting};
#[cfg(feature = "cluster")]
pub(crate) use registry::{Accounts, Afar, Grouping, Told};
pub use registry::{
    BindError, BindRefusal, BindRequest, Conflict, Counts, Event, EventKind, Leftover, Misuse,
    Parting, Presence, Reason, RegistryBuilder, ResumeError, ResumeRefusal, Resumed, Retention,
    SessionRegistry, SessionSetup, Sessions,
};
#[cfg(feature = "cluster")]
pub(crate) use registry::{Keeps, NotAnExport, Which};
#[cfg(feature = "cluster")]
pub(crate) use registry::{read_roster, write_roster};
pub use state::{Authed, AuthenticateError, Bound, Session, State, TransitionError, Unauthed};

#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
mod tests;
