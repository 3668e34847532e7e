//! Where stanzas go: what the rules, the stores and the extensions decide about each, and which sessions
//! get it.

pub(super) mod address;
pub(in crate::server) mod answer;
mod claims;
pub(super) mod component;
mod destination;
pub(super) mod extensions;
mod give;
pub(super) mod handler;
mod host;
pub(super) mod iq;
mod leftover;
pub(super) mod message;
pub(super) mod offline;
mod presence;
mod probe;
pub(super) mod requests;
pub(super) mod roster;
pub(super) mod route;
mod subscription;
