//! Stanzas as bytes: a start tag that is always written here, and a payload in canonical form that is
//! shared, not copied.
//!
//! A stanza in *canonical form* (rule [STREAM-15](crate::rules#stream-15)) cannot be read differently by two parsers: UTF-8; ASCII names;
//! elements of the content namespace bear no prefix, every other namespace is declared inside the
//! payload; no CDATA, and no references but the five predefined ones and those that keep white
//! space. All bytes in a [`Stanza`] have this form, so they are read with a scanner
//! ([`Child`]) and sent on as they are ([`Frame`]). A tree ([`minidom::Element`]) is made only on
//! request.

pub(crate) mod bounds;
mod builder;
pub(crate) mod canonical;
mod child;
pub(crate) mod claims;
pub(crate) mod delay;
mod derived;
mod element;
mod error;
mod escape;
mod frame;
mod head;
mod names;
mod received;
pub(crate) mod recognise;
mod runs;
mod scan;
pub(crate) mod write;

pub use builder::StanzaBuilder;
pub use canonical::{CanonicaliseError, canonicalise};
pub use child::Child;
pub use delay::{read_stamp, stamp};
pub use element::{NotAStanza, element};
pub use error::{Condition, ErrorType, StanzaError};
#[cfg(feature = "stream")]
pub(crate) use frame::FRAMING_NAMESPACE;
pub use frame::{
    Addressed, Frame, FrameParts, Framing, Limit, ResponseHeader, STREAM_NAMESPACE,
    StreamCondition, StreamError, Version,
};
pub(crate) use head::Head;
pub use received::Received;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::named::named;
use child::Children;
use escape::unescape;
use head::{Attribute, Layout};
use scan::Scope;

/// A stanza. Cloning it shares the bytes.
///
/// Addresses are texts here, not checked JIDs: a stanza also carries what a client got wrong.
///
/// # Examples
///
/// ```
/// use xmpp_session::minidom::Element;
/// use xmpp_session::stanza::{Frame, Stanza};
///
/// let body = Element::builder("body", "jabber:client").append("Art thou not Romeo?").build();
/// let message = Stanza::message()
///     .from("juliet@example.com/balcony")
///     .to("romeo@example.net")
///     .type_("chat")
///     .child(&body)
///     .build();
///
/// assert_eq!(message.to().as_deref(), Some("romeo@example.net"));
/// let text = message.children().find(|child| child.is("body", "jabber:client")).map(|body| body.text());
/// assert_eq!(text.as_deref(), Some("Art thou not Romeo?"));
/// // To another recipient, without a copy of the payload:
/// let copy = Frame::stanza(&message).to(Some("nurse@example.com")).to_string();
/// assert!(copy.contains("to='nurse@example.com'"));
///
/// // From text, and from a tree and back:
/// let element: Element = "<presence xmlns='jabber:client'><show>away</show></presence>".parse()?;
/// let presence = Stanza::from_element(&element)?;
/// assert_eq!(presence.to_element(), element);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Stanza {
    /// Attributes, then payload; the element's name and its end tag are implied by `kind`.
    bytes: Arc<[u8]>,
    payload_start: usize,
    layout: Layout,
    kind: Kind,
}

#[expect(clippy::len_without_is_empty, reason = "`len` is a cost; a stanza is never nothing")]
impl Stanza {
    /// Starts building a stanza.
    pub const fn builder(kind: Kind) -> StanzaBuilder {
        StanzaBuilder::new(kind)
    }

    /// Starts building a message.
    pub const fn message() -> StanzaBuilder {
        StanzaBuilder::new(Kind::Message)
    }

    /// Starts building a presence.
    pub const fn presence() -> StanzaBuilder {
        StanzaBuilder::new(Kind::Presence)
    }

    /// Starts building an iq of a type: `get`, `set`, `result` or `error`.
    ///
    /// It needs an id too
    /// ([RFC 6120 §8.2.3](https://www.rfc-editor.org/rfc/rfc6120#section-8.2.3)).
    pub fn iq(type_: &str) -> StanzaBuilder {
        StanzaBuilder::new(Kind::Iq).type_(type_)
    }

    /// Which of the three kinds it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The `from` attribute.
    #[must_use]
    pub fn from(&self) -> Option<Cow<'_, str>> {
        self.raw_from().map(unescape)
    }

    /// The `to` attribute.
    #[must_use]
    pub fn to(&self) -> Option<Cow<'_, str>> {
        self.raw_to().map(unescape)
    }

    /// The `id` attribute.
    #[must_use]
    pub fn id(&self) -> Option<Cow<'_, str>> {
        self.escaped(Attribute::Id).map(unescape)
    }

    /// The `type` attribute.
    #[must_use]
    pub fn type_(&self) -> Option<Cow<'_, str>> {
        self.raw_type().map(unescape)
    }

    /// The `xml:lang` attribute.
    #[must_use]
    pub fn lang(&self) -> Option<Cow<'_, str>> {
        self.escaped(Attribute::Lang).map(unescape)
    }

    /// The `from` attribute as it is written. It differs from the text if, and only if, it holds
    /// a `&`; the same for the two below.
    pub(crate) fn raw_from(&self) -> Option<&str> {
        self.escaped(Attribute::From)
    }

    /// The `to` attribute as it is written.
    pub(crate) fn raw_to(&self) -> Option<&str> {
        self.escaped(Attribute::To)
    }

    /// The `type` attribute as it is written.
    pub(crate) fn raw_type(&self) -> Option<&str> {
        self.escaped(Attribute::Type)
    }

    /// First child element.
    #[must_use]
    pub fn child(&self) -> Option<Child<'_>> {
        self.children().next()
    }

    /// All child elements at the first level.
    pub fn children(&self) -> impl Iterator<Item = Child<'_>> {
        Children::new(self.payload(), Scope::stanza())
    }

    /// The canonical bytes between start tag and end tag.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.payload_start..).unwrap_or_default()
    }

    /// Shared bytes, as counted by limits: attributes and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for Stanza {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stanza")
            .field("kind", &self.kind)
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}

named! {
    /// The three kinds of stanza
    /// ([RFC 6120 §8](https://www.rfc-editor.org/rfc/rfc6120#section-8)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[expect(clippy::exhaustive_enums, reason = "RFC 6120 §8 knows three")]
    pub enum Kind {
        /// `<message/>`
        Message = "message",
        /// `<presence/>`
        Presence = "presence",
        /// `<iq/>`
        Iq = "iq",
    }
    /// All three.
    const ALL;
    /// The element's name.
    pub const fn as_str;
}

/// The content namespace of a client's stream
/// ([RFC 6120 §4.8.2](https://www.rfc-editor.org/rfc/rfc6120#section-4.8.2)).
pub(crate) const CONTENT_NAMESPACE: &str = "jabber:client";

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
