//! Where stanzas go: what the rules, the stores and the extensions say of each, and who gets it.

pub(in crate::server) mod address;
pub(in crate::server) mod claims;
pub(in crate::server) mod extensions;
pub(in crate::server) mod iq;
pub(in crate::server) mod message;
pub(in crate::server) mod offline;
pub(in crate::server) mod presence;
pub(in crate::server) mod probe;
pub(in crate::server) mod requests;
pub(in crate::server) mod roster;
pub(in crate::server) mod route;
pub(in crate::server) mod transaction;
pub(in crate::server) mod unheard;
