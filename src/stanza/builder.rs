//! Making stanzas.

use std::fmt;

use minidom::Element;

use super::{Head, Kind, Stanza, write};

/// Builds a stanza; see [`Stanza::builder`].
///
/// All texts are plain, not escaped: what XML cannot hold becomes U+FFFD.
#[must_use = "a builder does nothing until `build`"]
pub struct StanzaBuilder {
    kind: Kind,
    from: Option<String>,
    to: Option<String>,
    id: Option<String>,
    type_: Option<String>,
    lang: Option<String>,
    payload: Vec<u8>,
}

impl StanzaBuilder {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, from: None, to: None, id: None, type_: None, lang: None, payload: Vec::new() }
    }

    /// Sets the sender's address.
    pub fn from(mut self, from: &str) -> Self {
        self.from = Some(from.to_owned());
        self
    }

    /// Sets the recipient's address.
    pub fn to(mut self, to: &str) -> Self {
        self.to = Some(to.to_owned());
        self
    }

    /// Sets the id.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Sets the type.
    pub fn type_(mut self, type_: &str) -> Self {
        self.type_ = Some(type_.to_owned());
        self
    }

    /// Sets the language of what people read in it (`xml:lang`).
    pub fn lang(mut self, lang: &str) -> Self {
        self.lang = Some(lang.to_owned());
        self
    }

    /// Appends a child element, written in canonical form (rule STREAM-15).
    pub fn child(self, element: &Element) -> Self {
        let mut xml = Vec::new();
        write::element(&mut xml, element);
        self.payload(&xml)
    }

    /// Appends bytes that are canonical already (what this crate writes itself).
    pub(crate) fn payload(mut self, canonical: &[u8]) -> Self {
        self.payload.extend_from_slice(canonical);
        self
    }

    /// The stanza.
    #[must_use]
    pub fn build(self) -> Stanza {
        let head = Head {
            kind: self.kind,
            from: self.from.as_deref(),
            to: self.to.as_deref(),
            id: self.id.as_deref(),
            type_: self.type_.as_deref(),
            lang: self.lang.as_deref(),
            other: &[],
        };
        Stanza::assemble(&head, &self.payload)
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
