//! Where stanzas go: what the rules, the stores and the extensions say of each, and who gets it.

pub(super) mod address;
pub(super) mod claims;
pub(super) mod extensions;
pub(super) mod iq;
pub(super) mod message;
pub(super) mod offline;
pub(super) mod presence;
pub(super) mod probe;
pub(super) mod requests;
pub(super) mod roster;
pub(super) mod route;
pub(super) mod transaction;
pub(super) mod unheard;
