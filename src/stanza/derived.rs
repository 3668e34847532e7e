//! Stanzas made from other stanzas.

use minidom::Element;

#[cfg(feature = "server")]
use super::Frame;
use super::head::{Attribute, Value, concat};
use super::{Kind, Stanza, StanzaError, write};

impl Stanza {
    /// The same stanza with other addresses (`None` = without the attribute): copies the bytes.
    #[must_use = "the stanza itself stays as it is"]
    pub fn readdressed(&self, from: Option<&str>, to: Option<&str>) -> Self {
        let own = |attribute| self.escaped(attribute).map(Value::plain);
        let values = [
            from.map(Value::new),
            to.map(Value::new),
            own(Attribute::Id),
            own(Attribute::Type),
            own(Attribute::Lang),
        ];
        Self::join(self.kind, values, self.other_attributes(), self.payload())
    }

    /// The stanza as a document of its own.
    #[cfg(feature = "server")]
    pub(crate) fn to_xml(&self) -> Vec<u8> {
        let frame = Frame::stanza(self);
        let mut out = Vec::with_capacity(frame.len());
        frame.write_to(&mut out);
        out
    }

    /// The same stanza with `xml` (canonical bytes, e.g. a `<delay/>`) appended to its payload.
    #[must_use = "the stanza itself stays as it is"]
    pub(crate) fn with_appended(&self, xml: &[u8]) -> Self {
        let bytes = concat(self.bytes.len() + xml.len(), |room| {
            room.put(&self.bytes);
            room.put(xml);
        });
        Self { bytes, ..*self }
    }

    /// The same stanza with these child elements behind its own, written in canonical form (rule
    /// [STREAM-15](crate::rules#stream-15)).
    #[must_use = "the stanza itself stays as it is"]
    pub fn with_children<'a>(&self, children: impl IntoIterator<Item = &'a Element>) -> Self {
        let mut xml = Vec::new();
        children.into_iter().for_each(|child| write::element(&mut xml, child));
        self.with_appended(&xml)
    }

    /// The same stanza without those of its child elements that are `unwanted`; `None` if none is.
    #[cfg(feature = "server")]
    pub(crate) fn without(&self, unwanted: impl Fn(&super::Child<'_>) -> bool) -> Option<Self> {
        let payload = self.payload();
        let (mut kept, mut at) = (Vec::new(), 0);
        for child in self.children().filter(unwanted) {
            let start = payload.len().saturating_sub(child.to_end());
            kept.extend_from_slice(payload.get(at..start).unwrap_or_default());
            at = start.saturating_add(child.xml().len());
        }
        if at == 0 {
            return None;
        }
        kept.extend_from_slice(payload.get(at..).unwrap_or_default());
        let bytes = concat(self.payload_start + kept.len(), |room| {
            room.put(self.head());
            room.put(&kept);
        });
        Some(Self { bytes, ..*self })
    }

    /// The error answer to this stanza: same kind and id, addresses swapped, `type='error'` and
    /// one `<error/>`, without the original payload (rule [STZ-6](crate::rules#stz-6),
    /// [RFC 6120 §8.3.1](https://www.rfc-editor.org/rfc/rfc6120#section-8.3.1)).
    ///
    /// An address that is missing here is missing there; [`readdressed`](Self::readdressed) adds
    /// it. `None` where no answer may be given: to a stanza of type `error` and an iq of type
    /// `result` (rule [STZ-7](crate::rules#stz-7)).
    #[must_use]
    pub fn error_answer(&self, error: &StanzaError) -> Option<Self> {
        let type_ = self.type_();
        if matches!((self.kind, type_.as_deref()), (_, Some("error")) | (Kind::Iq, Some("result")))
        {
            return None;
        }
        let mut payload = Vec::with_capacity(128);
        error.write_to(&mut payload);
        Some(self.answer("error", &payload))
    }

    /// The result for an iq get or set: addresses swapped, same id, with `payload` as its only
    /// child ([RFC 6120 §8.2.3](https://www.rfc-editor.org/rfc/rfc6120#section-8.2.3)). `None` for
    /// anything else.
    #[must_use]
    pub fn result_with(&self, payload: Option<&Element>) -> Option<Self> {
        self.result_answer(&payload.map(write::to_vec).unwrap_or_default())
    }

    /// As [`result_with`](Self::result_with), with a payload in canonical form.
    #[must_use]
    pub(crate) fn result_answer(&self, payload: &[u8]) -> Option<Self> {
        let type_ = self.type_();
        matches!((self.kind, type_.as_deref()), (Kind::Iq, Some("get" | "set")))
            .then(|| self.answer("result", payload))
    }

    fn answer(&self, type_: &str, payload: &[u8]) -> Self {
        let own = |attribute| self.escaped(attribute).map(Value::plain);
        let (from, to) = (own(Attribute::To), own(Attribute::From));
        let values = [from, to, own(Attribute::Id), Some(Value::plain(type_)), None];
        Self::join(self.kind, values, &[], payload)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Head;
    use super::super::{Condition, ErrorType, Frame};
    use super::*;

    const KINDS: [Kind; 3] = [Kind::Message, Kind::Presence, Kind::Iq];

    fn shown(stanza: &Stanza) -> String {
        Frame::stanza(stanza).to_string()
    }

    fn request(kind: Kind, type_: &str) -> Stanza {
        Stanza::builder(kind)
            .from("a@example.com/<&>")
            .to("b@example.com")
            .id("it's")
            .type_(type_)
            .lang("de")
            .payload(b"<body>long</body>")
            .build()
    }

    #[test]
    fn stz_6_an_error_has_kind_and_id_of_the_cause_and_swapped_addresses() {
        let error = StanzaError::from(Condition::ItemNotFound);
        for kind in KINDS {
            let answer = request(kind, "set").error_answer(&error).unwrap();
            let name = kind.as_str();
            assert_eq!(
                shown(&answer),
                format!(
                    "<{name} from='b@example.com' to='a@example.com/&lt;&amp;&gt;' id='it&apos;s' type='error'>\
                     <error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></{name}>"
                )
            );
        }
        let anonymous = Stanza::message().build().error_answer(&error).unwrap();
        assert_eq!((anonymous.from(), anonymous.to(), anonymous.id()), (None, None, None));
    }

    #[test]
    fn stz_6_an_error_holds_one_condition_and_no_original_payload() {
        let error = StanzaError::new(Condition::PolicyViolation)
            .with_type(ErrorType::Wait)
            .with_text("slow <down>")
            .with_application(&Element::bare("rate", "urn:example:rate"));
        let answer = request(Kind::Message, "chat").error_answer(&error).unwrap();
        assert_eq!(
            std::str::from_utf8(answer.payload()).unwrap(),
            "<error type='wait'><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>slow &lt;down&gt;</text>\
             <rate xmlns='urn:example:rate'/></error>"
        );
    }

    #[test]
    fn stz_7_errors_and_results_are_not_answered() {
        let error = StanzaError::new(Condition::BadRequest);
        for kind in KINDS {
            assert!(request(kind, "error").error_answer(&error).is_none());
            assert!(request(kind, "error").result_answer(b"").is_none());
        }
        assert!(request(Kind::Iq, "result").error_answer(&error).is_none());
        assert!(request(Kind::Iq, "result").result_answer(b"").is_none());
        // `result` means nothing in the other kinds.
        assert!(request(Kind::Message, "result").error_answer(&error).is_some());
        assert!(request(Kind::Message, "get").result_answer(b"").is_none());
        assert!(Stanza::presence().build().error_answer(&error).is_some());
    }

    #[test]
    fn a_result_answers_get_and_set() {
        for type_ in ["get", "set"] {
            let answer =
                request(Kind::Iq, type_).result_with(Some(&Element::bare("q", "n"))).unwrap();
            assert_eq!(
                shown(&answer),
                "<iq from='b@example.com' to='a@example.com/&lt;&amp;&gt;' id='it&apos;s' type='result'><q xmlns='n'/></iq>"
            );
        }
        assert!(request(Kind::Iq, "set").result_with(None).unwrap().payload().is_empty());
    }

    #[test]
    fn readdressing_keeps_all_else() {
        let head = Head {
            id: Some("1"),
            from: Some("a"),
            lang: Some("de"),
            other: b" x='&lt;'",
            ..Head::new(Kind::Iq)
        };
        let stanza = Stanza::assemble(&head, b"<q xmlns='n'/>");
        assert_eq!(
            shown(&stanza.readdressed(None, Some("b"))),
            "<iq to='b' id='1' xml:lang='de' x='&lt;'><q xmlns='n'/></iq>"
        );
        assert_eq!(shown(&stanza.readdressed(Some("a"), None)), shown(&stanza));
    }

    #[test]
    fn appending_leaves_the_original_alone() {
        let stanza = Stanza::message().to("b").payload(b"<body/>").build();
        let delayed = stanza.with_appended(b"<delay xmlns='urn:xmpp:delay'/>");
        assert_eq!(
            shown(&delayed),
            "<message to='b'><body/><delay xmlns='urn:xmpp:delay'/></message>"
        );
        assert_eq!(shown(&stanza), "<message to='b'><body/></message>");
        assert_eq!(delayed.to().as_deref(), Some("b"));
    }
}
