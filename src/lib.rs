//! An embeddable, transport-agnostic session manager for XMPP client-to-server streams.
#![forbid(unsafe_code)]

pub mod connection;
pub mod environment;
pub mod rules;
#[cfg(feature = "server")]
#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "its caller is the driver, in the room below")
)]
pub mod sasl;
pub mod stanza;
#[cfg(feature = "server")]
pub mod store;

pub use jid;
pub use minidom;
