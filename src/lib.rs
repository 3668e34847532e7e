//! An embeddable, transport-agnostic session manager for XMPP client-to-server streams.
#![forbid(unsafe_code)]

pub mod connection;
pub mod environment;
#[cfg(feature = "server")]
pub mod extension;
#[cfg(any(feature = "tokio", feature = "threads"))]
pub mod host;
pub mod outbox;
mod recent;
pub mod rules;
#[cfg(feature = "server")]
pub mod sasl;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
pub mod stanza;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "stream")]
pub mod stream;
mod sync;

pub use jid;
pub use minidom;

/// Compiles the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/connection.md")]
mod connection_guide {}
