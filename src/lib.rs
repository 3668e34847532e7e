//! An embeddable, transport-agnostic session manager for XMPP client-to-server streams.
#![forbid(unsafe_code)]

pub mod connection;
pub mod environment;
pub mod stanza;
#[cfg(feature = "stream")]
pub mod stream;

pub use jid;
pub use minidom;
