//! The one function that defines the canonical form (STREAM-15), and what parses stanzas for it.
//!
//! ```text
//! bytes ─ feeder ─▶ raw events ─ tag, scope ─▶ names with namespaces ─ reader ─▶ Received
//!           │                                                     └─ writer ─┐      ▲
//!           └──────────── payload as it came, if canonical (form) ───────────┴──────┘
//! ```
//!
//! `rxml`'s raw parser is used because its finished events have lost prefixes, and with them the
//! difference between what may be passed on and what may not. This room adds the checks it lacks:
//! prefixes, duplicate attributes, size.

mod feeder;
mod form;
mod reader;
mod scope;
mod skip;
mod tag;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

#[cfg(feature = "stream")]
pub(crate) use feeder::Feeder;
#[cfg(feature = "stream")]
pub(crate) use reader::Opening;
pub(super) use reader::ParsedHead;
pub(crate) use reader::{ElementReader, Parsed};
#[cfg(feature = "stream")]
pub(crate) use scope::Declaration;
#[cfg(any(feature = "stream", test, fuzzing))]
pub(crate) use scope::Declarations;
#[cfg(feature = "stream")]
pub(crate) use tag::{Tag, TagBuilder};

use super::bounds::{Bounds, Excess};
use super::recognise::{Recognised, Recogniser};
use super::{Received, Stanza};

/// Parses one stanza and brings it into the canonical form, in which it can be sent.
///
/// The element stands alone: its namespace is `jabber:client`, declared or, without any
/// declaration, implied. White space around it is skipped. The addresses stay as they are. What is
/// canonical already keeps its payload byte for byte, so that doing this twice changes nothing
/// (rule [STREAM-15](crate::rules#stream-15)).
///
/// # Errors
///
/// A [`CanonicaliseError`] if the bytes are not exactly one stanza, if they use what XMPP forbids
/// ([RFC 6120 §11](https://www.rfc-editor.org/rfc/rfc6120#section-11)), if a name in them is not
/// ASCII, or if they are too large: 16 MiB, 128 levels, 256 attributes and declarations in one
/// element, 65 536 elements.
///
/// # Examples
///
/// ```
/// use xmpp_session::stanza::{Kind, canonicalise};
///
/// let stanza = canonicalise(b"<x:message xmlns:x='jabber:client' to='a@b'><x:body>hi</x:body></x:message>")?;
/// assert_eq!(stanza.kind(), Kind::Message);
/// assert_eq!(stanza.payload(), b"<body>hi</body>");
/// # Ok::<(), xmpp_session::stanza::CanonicaliseError>(())
/// ```
pub fn canonicalise(bytes: &[u8]) -> Result<Stanza, CanonicaliseError> {
    let mut rest = bytes.trim_ascii();
    match rest {
        [b'<', b'?' | b'!', ..] => return Err(CanonicaliseError::RestrictedXml),
        [b'<', ..] => {}
        _ => return Err(CanonicaliseError::NotWellFormed),
    }
    match Recogniser::new(true).advance(rest, &Bounds::GENEROUS) {
        Recognised::Canonical(outline, text) if text.len() == rest.len() => {
            let received = Received::recognised(outline, text);
            return Ok(received.stamp(received.from(), None));
        }
        _ => {}
    }
    let mut reader = ElementReader::new(Bounds::GENEROUS, Arc::clone(&reader::CONTENT));
    let parsed = reader.feed(&mut rest)?;
    match parsed {
        Some(Parsed::Refused(_, flaw)) => Err(flaw.into()),
        Some(Parsed::Stanza(received)) if rest.is_empty() => {
            Ok(received.stamp(received.from(), None))
        }
        Some(Parsed::Other(_)) if rest.is_empty() => Err(CanonicaliseError::NotAStanza),
        _ => Err(CanonicaliseError::NotWellFormed),
    }
}

/// Why bytes are not one stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicaliseError {
    /// Not well-formed XML, or more or less than one element.
    #[error("not exactly one well-formed element")]
    NotWellFormed,
    /// A comment, a processing instruction, a document type declaration, or a reference to an
    /// entity that is not predefined.
    #[error("contains XML that XMPP does not allow")]
    RestrictedXml,
    /// The bytes are not UTF-8.
    #[error("not encoded as UTF-8")]
    UnsupportedEncoding,
    /// A stanza's name in another namespace than `jabber:client`.
    #[error("the stanza is not in the namespace jabber:client")]
    InvalidNamespace,
    /// Neither message nor presence nor iq.
    #[error("the element is neither message nor presence nor iq")]
    NotAStanza,
    /// A name that is not ASCII, or a namespace with a character that no URI contains: many parsers
    /// would refuse it.
    #[error("a name or namespace that not every parser accepts")]
    Names,
    /// Too many bytes, levels, attributes or elements, as received or in canonical form.
    #[error("larger than any stanza may be")]
    TooLarge,
}

impl From<Refusal> for CanonicaliseError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotWellFormed => Self::NotWellFormed,
            Refusal::RestrictedXml => Self::RestrictedXml,
            Refusal::UnsupportedEncoding => Self::UnsupportedEncoding,
            Refusal::InvalidNamespace => Self::InvalidNamespace,
            Refusal::Exceeded(_) => Self::TooLarge,
        }
    }
}

impl From<Flaw> for CanonicaliseError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Names => Self::Names,
            Flaw::Exceeded(_) => Self::TooLarge,
        }
    }
}

/// The element that canonical bytes hold which stand alone.
#[cfg(feature = "stream")]
pub(crate) fn element(xml: &[u8]) -> Option<super::Child<'_>> {
    super::Children::new(xml, super::Scope::stanza()).next()
}

/// Why an element is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// STREAM-19
    NotWellFormed,
    /// STREAM-20
    RestrictedXml,
    /// STREAM-21
    UnsupportedEncoding,
    /// STREAM-13
    InvalidNamespace,
    /// LIMIT-2 to LIMIT-5
    Exceeded(Excess),
}

/// Why a stanza is refused while its stream goes on: it is read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// STREAM-15
    Names,
    /// LIMIT-4, LIMIT-5, LIMIT-40
    Exceeded(Excess),
}
