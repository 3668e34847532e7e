//! Stanzas as bytes: a header, and a payload in canonical form that is shared, not copied.

mod error;
mod frame;

pub use error::{Condition, ErrorType, StanzaError};
pub use frame::{Frame, Framing};

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

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

/// A stanza on its way: cloning it shares the bytes.
#[derive(Clone)]
pub struct Stanza {
    bytes: Arc<[u8]>,
}

/// One child element of a stanza, seen without building a tree.
#[derive(Clone, Copy)]
pub struct Child<'a> {
    xml: &'a [u8],
}

impl<'a> Child<'a> {
    /// The local name.
    pub fn name(&self) -> &'a str {
        todo!()
    }
    /// The namespace; `jabber:client` for content-namespace children.
    pub fn namespace(&self) -> Cow<'a, str> {
        todo!()
    }
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        todo!()
    }
    /// Value of an unprefixed attribute.
    pub fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        todo!()
    }
    /// The text directly inside, references resolved (text inside nested elements not included).
    pub fn text(&self) -> Cow<'a, str> {
        todo!()
    }
    /// Its own child elements.
    pub fn children(&self) -> impl Iterator<Item = Child<'a>> + 'a {
        std::iter::empty()
    }
    /// The canonical bytes from `<` to `>`.
    pub fn xml(&self) -> &'a [u8] {
        self.xml
    }
    pub fn to_element(&self) -> minidom::Element {
        todo!()
    }
}

impl Stanza {
    pub fn builder(kind: Kind) -> Builder {
        todo!()
    }
    pub fn kind(&self) -> Kind {
        todo!()
    }
    pub fn from(&self) -> Option<Cow<'_, str>> {
        todo!()
    }
    pub fn to(&self) -> Option<Cow<'_, str>> {
        todo!()
    }
    pub fn id(&self) -> Option<Cow<'_, str>> {
        todo!()
    }
    /// The `type` attribute.
    pub fn type_(&self) -> Option<Cow<'_, str>> {
        todo!()
    }
    pub fn lang(&self) -> Option<Cow<'_, str>> {
        todo!()
    }
    /// First child element.
    pub fn child(&self) -> Option<Child<'_>> {
        todo!()
    }
    /// All child elements at the first level.
    pub fn children(&self) -> impl Iterator<Item = Child<'_>> + '_ {
        std::iter::empty()
    }
    /// The canonical bytes between start tag and end tag.
    pub fn payload(&self) -> &[u8] {
        todo!()
    }
    /// Shared bytes, as counted by limits.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    pub fn to_element(&self) -> minidom::Element {
        todo!()
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
