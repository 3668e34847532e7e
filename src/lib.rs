//! An embeddable, transport-agnostic session manager for XMPP client-to-server streams.
#![forbid(unsafe_code)]

pub mod connection;
pub mod environment;
#[cfg(any(feature = "tokio", feature = "threads"))]
pub mod host;
pub mod outbox;
pub mod stanza;

pub use jid;
pub use minidom;

#[cfg(doctest)]
#[doc = include_str!("../docs/connection.md")]
mod connection_guide {}
