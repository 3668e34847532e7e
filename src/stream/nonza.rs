//! First-level elements that are no stanzas.

use std::borrow::Cow;
use std::fmt;

use minidom::Element;

#[cfg(feature = "server")]
use crate::stanza::write;
use crate::stanza::{Child, canonical};

/// A first-level element that is no stanza: `<starttls/>`, `<auth/>`, `<r/>`, `<stream:error/>` …
///
/// Whoever gets one and does not know it closes the stream with `unsupported-stanza-type`
/// (rule [STREAM-16](crate::rules#stream-16)); it is never passed on.
#[derive(Clone)]
pub struct Nonza {
    xml: Box<[u8]>,
}

impl Nonza {
    /// `xml`: canonical bytes that stand alone.
    pub(super) fn new(xml: Vec<u8>) -> Self {
        Self { xml: xml.into() }
    }

    /// One of another node, which has read it.
    #[cfg(feature = "cluster")]
    pub(crate) fn of_node(xml: Vec<u8>) -> Self {
        Self::new(xml)
    }

    /// A child element of another one.
    #[cfg(feature = "server")]
    pub(crate) fn of(child: &Child<'_>) -> Self {
        Self::new(write::to_vec(&child.to_element()))
    }

    /// The local name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.child().map_or("", |child| child.name())
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> Cow<'_, str> {
        self.child().map_or(Cow::Borrowed(""), |child| child.namespace())
    }

    /// Whether it has this local name in this namespace.
    #[must_use]
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.child().is_some_and(|child| child.is(name, namespace))
    }

    /// Value of an attribute without a prefix, or of one with the prefix `xml`, named with it
    /// (`xml:lang`).
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        self.child()?.attribute(name)
    }

    /// The text directly inside.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        self.child().map_or(Cow::Borrowed(""), |child| child.text())
    }

    /// Its child elements.
    pub fn children(&self) -> impl Iterator<Item = Child<'_>> {
        self.child().into_iter().flat_map(|child| child.children())
    }

    /// The element in canonical form. It stands alone: all of its namespaces are declared.
    #[must_use]
    pub fn xml(&self) -> &[u8] {
        &self.xml
    }

    /// Builds a tree of it.
    #[must_use]
    pub fn to_element(&self) -> Element {
        self.child().map_or_else(|| Element::bare("", ""), |child| child.to_element())
    }

    fn child(&self) -> Option<Child<'_>> {
        canonical::element(&self.xml)
    }
}

impl fmt::Debug for Nonza {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nonza").field("bytes", &self.xml.len()).finish_non_exhaustive()
    }
}
