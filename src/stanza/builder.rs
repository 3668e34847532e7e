//! Making stanzas.

use std::fmt;

use minidom::Element;

use super::head::{Attribute, Value};
use super::{Kind, Stanza, write};

/// Builds a stanza; see [`Stanza::builder`].
///
/// All texts are plain, not escaped: what XML cannot hold becomes U+FFFD.
#[must_use = "a builder does nothing until `build`"]
pub struct StanzaBuilder {
    kind: Kind,
    values: [Option<String>; 5],
    payload: Vec<u8>,
}

impl StanzaBuilder {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, values: [const { None }; 5], payload: Vec::new() }
    }

    /// Sets the sender's address.
    pub fn from(self, from: &str) -> Self {
        self.with(Attribute::From, from)
    }

    /// Sets the recipient's address.
    pub fn to(self, to: &str) -> Self {
        self.with(Attribute::To, to)
    }

    /// Sets the id.
    pub fn id(self, id: &str) -> Self {
        self.with(Attribute::Id, id)
    }

    /// Sets the type.
    pub fn type_(self, type_: &str) -> Self {
        self.with(Attribute::Type, type_)
    }

    /// Sets the language of what people read in it (`xml:lang`).
    pub fn lang(self, lang: &str) -> Self {
        self.with(Attribute::Lang, lang)
    }

    fn with(mut self, attribute: Attribute, value: &str) -> Self {
        if let Some(place) = self.values.get_mut(attribute as usize) {
            *place = Some(value.to_owned());
        }
        self
    }

    /// Appends a child element, written in canonical form (rule [STREAM-15](crate::rules#stream-15)).
    pub fn child(self, element: &Element) -> Self {
        self.payload(&write::to_vec(element))
    }

    /// Appends bytes that are canonical already (what this crate writes itself).
    pub(crate) fn payload(mut self, canonical: &[u8]) -> Self {
        self.payload.extend_from_slice(canonical);
        self
    }

    /// The stanza.
    #[must_use]
    pub fn build(self) -> Stanza {
        let values = self.values.each_ref().map(|value| value.as_deref().map(Value::new));
        Stanza::join(self.kind, values, &[], &self.payload)
    }
}

impl fmt::Debug for StanzaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StanzaBuilder")
            .field("kind", &self.kind)
            .field("payload", &self.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::*;

    #[test]
    fn attributes_stand_in_one_order_and_children_in_that_of_the_calls() {
        let stanza = Stanza::iq("set")
            .lang("en")
            .id("<1>")
            .child(&Element::builder("query", "jabber:iq:roster").append("x").build())
            .to("b@example.com")
            .child(&Element::bare("plain", "jabber:client"))
            .from("a@example.com/x")
            .payload(b"<own/>")
            .build();
        assert_eq!(
            Frame::stanza(&stanza).to_string(),
            "<iq from='a@example.com/x' to='b@example.com' id='&lt;1&gt;' type='set' xml:lang='en'>\
             <query xmlns='jabber:iq:roster'>x</query><plain/><own/></iq>"
        );
        assert_eq!(stanza.kind(), Kind::Iq);
        assert_eq!(Stanza::message().build().kind(), Kind::Message);
        assert_eq!(Stanza::presence().build().kind(), Kind::Presence);
    }

    #[test]
    fn debug_prints_counts_only() {
        let builder = Stanza::message().to("secret@example.com").payload(b"<body>hidden</body>");
        assert_eq!(format!("{builder:?}"), "StanzaBuilder { kind: Message, payload: 19, .. }");
    }
}
