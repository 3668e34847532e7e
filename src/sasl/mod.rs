//! Authentication: the server's side of SASL, without I/O.
//!
//! [`Policy`] is what a host says about it: which mechanisms, how many retries. One `Negotiation`
//! per stream holds what is offered there and the current exchange. It takes requests that
//! `wire` has read (in either profile: SASL1, RFC 6120 §6, and SASL2, XEP-0388) and answers with a `Step` or a `Failure`; where it needs the
//! host's store, a step says so, and the caller passes in what the store found. Nothing here waits, so
//! nothing here is `async`.
//!
//! ```text
//!  <auth/>, <response/>, <abort/>               <challenge/>, <success/>
//!  ──── wire::parse ───▶ Negotiation ── Step ───────▶
//!                          │     ▲  └── Failure ─────▶ <failure/>, perhaps policy-violation
//!         NeedCredentials, │     │ credentials(…), verdict(…), token(…),
//!         CheckPassword,   ▼     │ hashed(…), store_failed()
//!         CheckKeys     the host's store, a thread that hashes
//! ```
//!
//! The mechanisms are PLAIN (RFC 4616), EXTERNAL (RFC 4422, XEP-0178) and SCRAM (RFC 5802, RFC 7677), the latter with
//! channel binding (RFC 5929, RFC 9266), protection against downgrades (XEP-0474, XEP-0515) and upgrades (XEP-0480);
//! OAUTHBEARER (RFC 7628) and ANONYMOUS (RFC 4505) where the host wants them. `docs/decisions/0002-sasl.md` says why SCRAM is written here, on the
//! primitives of RustCrypto.

mod anonymous;
mod bearer;
mod binding;
mod error;
mod establish;
mod exchange;
pub(crate) mod fast;
mod ht;
mod mechanism;
mod negotiation;
mod policy;
mod scram;
mod tokens;
pub(crate) mod upgrade;
pub(crate) mod wire;

pub use crate::client::UserAgent;
pub use binding::ChannelBindings;
pub use error::SaslError;
pub use mechanism::{Mechanism, UnknownMechanism};
pub use policy::Policy;
pub use tokens::FastPolicy;

pub(crate) use establish::{Bind2, Establish, UsedToken};
pub(crate) use exchange::{Context, Step, admitted};
pub(crate) use fast::Fast;
pub(crate) use ht::FastProof;
pub(crate) use negotiation::{Failure, Negotiation};
pub(crate) use tokens::{Accepted, Description, Fingerprint, Holder, Issued, Standing, revision};
