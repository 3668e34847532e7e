//! What goes out: a stanza or a raw element that knows its exact length and writes itself.

use std::fmt;

use super::escape::{Context, Escaped, is_plain};
use super::head::{Attribute, TO};
use super::{Kind, Stanza};

/// How a transport delimits elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Framing {
    /// One long document: TCP and TLS (RFC 6120).
    #[default]
    Stream,
    /// One document per message: WebSocket
    /// ([RFC 7395 §3.3.3](https://www.rfc-editor.org/rfc/rfc7395#section-3.3.3)). Each stanza
    /// declares `jabber:client` itself (rule WS-4).
    Message,
}

/// One first-level element to be sent: knows its exact length and writes itself.
///
/// A frame borrows what it writes, so making and writing one allocates nothing: one stanza goes to
/// a hundred recipients as a hundred frames over the same bytes.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    source: Source<'a>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Raw(&'a [u8]),
    Stanza { stanza: &'a Stanza, to: Override<'a>, appended: &'a [u8], framing: Framing },
}

#[derive(Clone, Copy)]
enum Override<'a> {
    Keep,
    Replace(Option<&'a str>),
}

impl<'a> Frame<'a> {
    /// Bytes as they are: a stream header, features, any other element that is no stanza. The
    /// other methods of a builder kind change nothing in such a frame.
    #[must_use]
    pub const fn raw(bytes: &'a [u8]) -> Self {
        Self { source: Source::Raw(bytes) }
    }

    /// A stanza as it is, framed for a stream.
    #[must_use]
    pub const fn stanza(stanza: &'a Stanza) -> Self {
        let to = Override::Keep;
        Self { source: Source::Stanza { stanza, to, appended: &[], framing: Framing::Stream } }
    }

    /// Writes `to` (plain text, not escaped) in place of the stanza's own `to`; `None` writes no
    /// `to` at all.
    ///
    /// For copies that the server makes for several recipients: `to` of a stanza made by somebody
    /// else stays as it is (rule STZ-2,
    /// [RFC 6120 §8.1.1.1](https://www.rfc-editor.org/rfc/rfc6120#section-8.1.1.1)).
    #[must_use]
    pub const fn to(mut self, to: Option<&'a str>) -> Self {
        if let Source::Stanza { to: place, .. } = &mut self.source {
            *place = Override::Replace(to);
        }
        self
    }

    /// Writes `xml` (canonical form, such as a `<delay/>`) after the payload. A second call
    /// replaces what the first one set.
    #[must_use]
    pub const fn append(mut self, xml: &'a [u8]) -> Self {
        if let Source::Stanza { appended, .. } = &mut self.source {
            *appended = xml;
        }
        self
    }

    /// Frames the stanza for a transport.
    #[must_use]
    pub const fn framing(mut self, framing: Framing) -> Self {
        if let Source::Stanza { framing: place, .. } = &mut self.source {
            *place = framing;
        }
        self
    }

    /// Exact number of bytes that [`write_to`](Self::write_to) appends.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut len = 0;
        self.pieces(|piece| len += piece.len());
        len
    }

    /// Whether it is [raw](Self::raw), and not a stanza.
    #[must_use]
    pub const fn is_raw(&self) -> bool {
        matches!(self.source, Source::Raw(_))
    }

    /// Whether nothing would be written: true only for a raw frame of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.source, Source::Raw([]))
    }

    /// Appends the frame's bytes to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        if matches!(self.source, Source::Stanza { stanza, .. } if stanza.len() > LARGE) {
            // What grows by doubling would keep as much again for a client that does not read.
            out.reserve_exact(self.len());
        }
        self.pieces(|piece| out.extend_from_slice(piece));
    }

    fn pieces(&self, mut put: impl FnMut(&[u8])) {
        let (stanza, to, appended, framing) = match self.source {
            Source::Raw(bytes) => return put(bytes),
            Source::Stanza { stanza, to, appended, framing } => (stanza, to, appended, framing),
        };
        let name = stanza.kind().as_str().as_bytes();
        put(opening(stanza.kind()));
        if framing == Framing::Message {
            put(b" xmlns='jabber:client'");
        }
        match to {
            Override::Keep => put(stanza.head()),
            Override::Replace(to) => {
                let place = stanza.layout.whole(Attribute::To);
                put(stanza.head().get(..place.start).unwrap_or_default());
                if let Some(to) = to {
                    put(TO.as_bytes());
                    if is_plain(to) {
                        put(to.as_bytes());
                    } else {
                        let pieces = Escaped::new(to, Context::Attribute);
                        pieces.for_each(|piece| put(piece.as_bytes()));
                    }
                    put(b"'");
                }
                put(stanza.head().get(place.end..).unwrap_or_default());
            }
        }
        if stanza.payload().is_empty() && appended.is_empty() {
            return put(b"/>");
        }
        put(b">");
        put(stanza.payload());
        put(appended);
        put(b"</");
        put(name);
        put(b">");
    }
}

/// What a stanza begins with, in one piece.
const fn opening(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Message => b"<message",
        Kind::Presence => b"<presence",
        Kind::Iq => b"<iq",
    }
}

/// Bytes above which a stanza gets exactly the space it needs.
const LARGE: usize = 64 << 10;

impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.pieces(|piece| {
            for chunk in piece.utf8_chunks() {
                result = result.and_then(|()| f.write_str(chunk.valid()));
                if !chunk.invalid().is_empty() {
                    result = result.and_then(|()| f.write_str("\u{FFFD}"));
                }
            }
        });
        result
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::head::Head;
    use super::*;

    fn presence() -> Stanza {
        let head = Head {
            from: Some("a@example.com/x"),
            to: Some("b@example.com"),
            id: Some("1"),
            lang: Some("en"),
            other: b" extra='1'",
            ..Head::new(Kind::Presence)
        };
        Stanza::assemble(&head, b"<show>away</show>")
    }

    fn bare() -> Stanza {
        Stanza::assemble(&Head::new(Kind::Presence), b"")
    }

    #[test]
    fn a_stanza_is_written_as_it_is() {
        assert_eq!(
            Frame::stanza(&presence()).to_string(),
            "<presence from='a@example.com/x' to='b@example.com' id='1' xml:lang='en' extra='1'>\
             <show>away</show></presence>"
        );
    }

    #[test]
    fn stz_2_only_an_override_changes_to() {
        let stanza = presence();
        assert!(Frame::stanza(&stanza).to_string().contains(" to='b@example.com' "));
        assert_eq!(
            Frame::stanza(&stanza).to(Some("c@example.com/<'&\">")).to_string(),
            "<presence from='a@example.com/x' to='c@example.com/&lt;&apos;&amp;\"&gt;' id='1' \
             xml:lang='en' extra='1'><show>away</show></presence>"
        );
        assert_eq!(
            Frame::stanza(&stanza).to(None).to_string(),
            "<presence from='a@example.com/x' id='1' xml:lang='en' extra='1'><show>away</show></presence>"
        );
        assert_eq!(
            Frame::stanza(&bare()).to(Some("c@example.com")).to_string(),
            "<presence to='c@example.com'/>"
        );
    }

    #[test]
    fn an_empty_stanza_is_one_tag_unless_something_is_appended() {
        let stanza = bare();
        assert_eq!(Frame::stanza(&stanza).to_string(), "<presence/>");
        let delay = b"<delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:08:25Z'/>";
        assert_eq!(
            Frame::stanza(&stanza).append(delay).to_string(),
            "<presence><delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:08:25Z'/></presence>"
        );
    }

    #[test]
    fn ws_4_a_message_declares_the_content_namespace() {
        assert_eq!(
            Frame::stanza(&bare()).framing(Framing::Message).to_string(),
            "<presence xmlns='jabber:client'/>"
        );
        assert_eq!(Frame::raw(b"<a/>").framing(Framing::Message).to_string(), "<a/>");
    }

    #[test]
    fn limit_15_a_large_stanza_takes_no_more_room_than_its_bytes() {
        let stanza = Stanza::assemble(&Head::new(Kind::Iq), &[b'x'; 500_000]);
        let mut out = Vec::new();
        Frame::stanza(&stanza).write_to(&mut out);
        assert_eq!(out.capacity(), out.len());
    }

    #[test]
    fn display_replaces_what_is_not_utf_8() {
        assert_eq!(Frame::raw(b"a\xFFb").to_string(), "a\u{FFFD}b");
        assert!(Frame::raw(b"").is_empty());
    }

    #[test]
    fn debug_prints_no_address() {
        let stanza = presence();
        let len = Frame::stanza(&stanza).len();
        assert_eq!(format!("{:?}", Frame::stanza(&stanza)), format!("Frame({len} bytes)"));
    }

    proptest! {
        #[test]
        fn len_is_exact(
            from in any::<Option<String>>(),
            to in any::<Option<String>>(),
            other in any::<Option<Option<String>>>(),
            payload in prop_oneof![Just(""), Just("<a/>")],
            appended in prop_oneof![Just(""), Just("<b/>")],
            message in any::<bool>(),
        ) {
            let head = Head { from: from.as_deref(), to: to.as_deref(), ..Head::new(Kind::Message) };
            let stanza = Stanza::assemble(&head, payload.as_bytes());
            let mut frame = Frame::stanza(&stanza).append(appended.as_bytes());
            if let Some(to) = &other {
                frame = frame.to(to.as_deref());
            }
            if message {
                frame = frame.framing(Framing::Message);
            }
            let mut written = b"before".to_vec();
            frame.write_to(&mut written);
            prop_assert_eq!(written.len(), b"before".len() + frame.len());
            let shown = frame.to_string();
            prop_assert_eq!(&written[b"before".len()..], shown.as_bytes());
            // What is written with an override is what a stanza with that address would be.
            let readdressed = Head { to: other.as_ref().map_or(to.as_deref(), |to| to.as_deref()), ..head };
            let plain = Stanza::assemble(&readdressed, [payload, appended].concat().as_bytes());
            let framing = if message { Framing::Message } else { Framing::Stream };
            prop_assert_eq!(frame.to_string(), Frame::stanza(&plain).framing(framing).to_string());
        }
    }
}
