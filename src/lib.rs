//! An embeddable, transport-agnostic session manager for XMPP client-to-server streams.
#![forbid(unsafe_code)]

pub mod connection;
pub mod environment;
pub mod rules;
pub mod stanza;
#[cfg(feature = "server")]
pub mod store;

pub use jid;
pub use minidom;
