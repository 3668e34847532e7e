//! RFC 6121 as pure functions and tables: no session, no I/O, no clock, no lock.
//!
//! What a rule says becomes a value here: the [`roster`] says what a roster set changes, the
//! [`subscription`] machine which stanzas a `subscribe` causes and in which order, [`presence`] who is
//! told of a change, [`delivery`] which sessions get a stanza. The rooms below carry it out.

pub(crate) mod delivery;
pub(crate) mod presence;
pub mod roster;
#[cfg(feature = "server")]
pub(crate) mod subscription;
