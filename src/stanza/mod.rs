//! Stanzas as bytes: a header, and a payload in canonical form that is shared, not copied.

pub(crate) mod canonical;
mod child;
mod element;
mod error;
mod escape;
mod frame;
mod head;
mod scan;
pub(crate) mod write;

pub use canonical::{CanonicaliseError, Received, canonicalise};
pub use child::Child;
use child::{Children, Scope};
pub use element::NotAStanza;
pub use error::{Condition, ErrorType, StanzaError};
pub use frame::{Frame, Framing};
pub(crate) use head::Head;
use head::{Attribute, Layout};

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The content namespace of a client's stream (RFC 6120 §4.8.2).
const CONTENT_NAMESPACE: &str = "jabber:client";

/// The three kinds of stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6120 §8 knows three")]
pub enum Kind {
    /// `<message/>`
    Message,
    /// `<presence/>`
    Presence,
    /// `<iq/>`
    Iq,
}

impl Kind {
    /// The element's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Presence => "presence",
            Self::Iq => "iq",
        }
    }
}

/// A stanza on its way: cloning it shares the bytes.
#[derive(Clone)]
pub struct Stanza {
    /// Attributes, then payload; the element's name and its end tag are implied by `kind`.
    bytes: Arc<[u8]>,
    payload_start: usize,
    layout: Layout,
    kind: Kind,
}

impl Stanza {
    pub fn builder(kind: Kind) -> Builder {
        todo!()
    }
    pub fn kind(&self) -> Kind {
        self.kind
    }
    pub fn from(&self) -> Option<Cow<'_, str>> {
        self.escaped(Attribute::From).map(escape::unescape)
    }
    pub fn to(&self) -> Option<Cow<'_, str>> {
        self.escaped(Attribute::To).map(escape::unescape)
    }
    pub fn id(&self) -> Option<Cow<'_, str>> {
        self.escaped(Attribute::Id).map(escape::unescape)
    }
    /// The `type` attribute.
    pub fn type_(&self) -> Option<Cow<'_, str>> {
        self.escaped(Attribute::Type).map(escape::unescape)
    }
    pub fn lang(&self) -> Option<Cow<'_, str>> {
        self.escaped(Attribute::Lang).map(escape::unescape)
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
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.payload_start..).unwrap_or_default()
    }
    /// Shared bytes, as counted by limits.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    /// The same stanza with other addresses (`None` = without the attribute): copies the bytes.
    #[must_use]
    pub fn readdressed(&self, from: Option<&str>, to: Option<&str>) -> Self {
        todo!()
    }
    /// The same stanza with `xml` (canonical bytes, e.g. a `<delay/>`) appended to its payload.
    #[must_use]
    pub(crate) fn with_appended(&self, xml: &[u8]) -> Self {
        todo!()
    }
    /// The error answer of STZ-6; `None` where STZ-7 forbids one (type error, iq result).
    pub fn error_answer(&self, error: &StanzaError) -> Option<Self> {
        todo!()
    }
    /// The result for an iq get or set: addresses swapped, same id; `None` for anything else.
    pub fn result_answer(&self, payload: &[u8]) -> Option<Self> {
        todo!()
    }
}

impl fmt::Debug for Stanza {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stanza")
            .field("kind", &self.kind())
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}

/// Builds a stanza.
pub struct Builder {}

impl Builder {
    pub fn from(self, from: &str) -> Self {
        todo!()
    }
    pub fn to(self, to: &str) -> Self {
        todo!()
    }
    pub fn id(self, id: &str) -> Self {
        todo!()
    }
    pub fn type_(self, type_: &str) -> Self {
        todo!()
    }
    pub fn lang(self, lang: &str) -> Self {
        todo!()
    }
    /// Appends a child element, written in canonical form.
    pub fn child(self, element: &minidom::Element) -> Self {
        todo!()
    }
    /// Appends bytes that are canonical already (what this crate writes itself).
    pub(crate) fn payload(self, canonical: &[u8]) -> Self {
        todo!()
    }
    pub fn build(self) -> Stanza {
        todo!()
    }
}
