//! RFC 6121 as pure functions and tables: no session, no I/O, no clock, no lock.
//!
//! Rules decide here and others carry them out: what a roster set changes, which stanzas a `subscribe`
//! causes and in which order, who is told of a presence, which sessions get a stanza. Hosts need the
//! [`roster`] alone; the tables are private, so that a new row breaks nobody.
#![cfg_attr(doc, doc = "")]
#![cfg_attr(doc, doc = include_str!("../guide/links.md"))]
#![cfg_attr(doc, doc = include_str!("../../docs/rules.md"))]

pub(crate) mod delivery;
pub(crate) mod presence;
pub mod roster;
#[cfg(feature = "server")]
pub(crate) mod subscription;
