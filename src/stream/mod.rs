//! A client's stream: bytes in, headers, stanzas and other elements out; and what a server writes
//! around its stanzas.
//!
//! ```text
//! bytes ─▶ Parser ─▶ Event::{Header, Stanza, Refused, Nonza, End} or StreamError
//!          ResponseHeader, Features, StreamError, close ─▶ bytes
//! ```
//!
//! No socket, no clock, no session: the driver of a stream decides what an event means. The limits
//! of rules LIMIT-2 to LIMIT-6 hold here, as bytes arrive.

mod condition;
mod declaration;
mod error;
mod features;
mod header;
mod limits;
mod nonza;
mod parser;
mod refused;
mod response;
#[cfg(test)]
mod tests;

pub use condition::StreamCondition;
pub use error::StreamError;
pub use features::Features;
pub use header::{Header, Version};
pub use limits::{Limit, Limits};
pub use nonza::Nonza;
pub use parser::{Event, Parser};
pub use refused::RefusedStanza;
pub use response::{ResponseHeader, close};

use crate::stanza::CONTENT_NAMESPACE;

/// The namespace of the stream itself (RFC 6120 §4.8.1).
pub const STREAM_NAMESPACE: &str = "http://etherx.jabber.org/streams";

/// The namespace of stream error conditions (RFC 6120 §4.9.2).
const ERROR_NAMESPACE: &str = "urn:ietf:params:xml:ns:xmpp-streams";
