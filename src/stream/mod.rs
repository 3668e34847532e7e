//! A client's stream: bytes in, headers, stanzas and other elements out; and what a server writes
//! around its stanzas.
//!
//! ```text
//! bytes ─▶ Parser ─▶ Event::{Header, Stanza, Refused, Nonza, End} or StreamError
//!          ResponseHeader, Features, StreamError ─▶ Frame
//! ```
//!
//! No socket, no clock, no session: the driver of a stream decides what an event means. The limits
//! of rules [LIMIT-2](crate::rules#limit-2) to [LIMIT-6](crate::rules#limit-6) hold here, as bytes arrive.

mod declaration;
mod features;
mod header;
mod limits;
mod nonza;
mod parser;
mod refused;
#[cfg(test)]
mod tests;

pub use features::Features;
pub use header::Header;
pub use limits::Limits;
pub use nonza::Nonza;
#[cfg(feature = "cluster")]
pub(crate) use parser::Heard;
#[cfg(feature = "cluster")]
pub(crate) use parser::OpenedStream;
pub use parser::{BrokenMessage, Event, Parser};
pub use refused::RefusedStanza;

#[doc(no_inline)]
pub use crate::stanza::{Limit, ResponseHeader, StreamCondition, StreamError, Version};

pub use crate::stanza::STREAM_NAMESPACE;

use crate::stanza::CONTENT_NAMESPACE;
