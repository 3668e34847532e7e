//! What goes out: a frame that knows its exact length, shows its parts, and writes itself as its transport
//! delimits elements. No other room writes a tag of the stream.

mod condition;
mod error;
mod header;
mod limit;

pub use condition::StreamCondition;
pub use error::StreamError;
pub use header::{ResponseHeader, Version};
pub use limit::Limit;

use std::borrow::Cow;
use std::fmt;

use smallvec::{SmallVec, smallvec};

use super::child::{Child, Children};
use super::escape::{Context, Escaped, is_plain, unescape};
use super::head::{Attribute, TO};
use super::scan::Scope;
use super::{CONTENT_NAMESPACE, Kind, Stanza, write};

/// The namespace of the stream itself (RFC 6120 §4.8.1).
pub const STREAM_NAMESPACE: &str = "http://etherx.jabber.org/streams";

/// The namespace of `<open/>` and `<close/>` (RFC 7395 §3.3.2).
pub(crate) const FRAMING_NAMESPACE: &str = "urn:ietf:params:xml:ns:xmpp-framing";

/// How a transport delimits elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Framing {
    /// One long document: TCP and TLS (RFC 6120).
    #[default]
    Stream,
    /// One document per message: WebSocket
    /// ([RFC 7395 §3.3.3](https://www.rfc-editor.org/rfc/rfc7395#section-3.3.3)). Each frame is a
    /// message, and declares its namespaces itself (rule [WS-4](crate::rules#ws-4)).
    Message,
}

/// One first-level element to be sent: knows its exact length and writes itself.
///
/// A frame borrows what it writes, so making and writing one of a stanza allocates nothing: one stanza
/// goes to a hundred recipients as a hundred frames over the same bytes.
///
/// A host whose wire is not XML looks at its [parts](Self::parts).
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    parts: FrameParts<'a>,
    framing: Framing,
    at_once: bool,
}

/// What a [`Frame`] says.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum FrameParts<'a> {
    /// Our stream is open.
    Open(&'a ResponseHeader<'a>),
    /// What the stream offers: elements in canonical form.
    Features(&'a [u8]),
    /// What is wrong with the stream, which is closed next.
    Error(&'a StreamError),
    /// Our stream is closed. Nothing follows.
    Close,
    /// The same, and the client is sent to this URI.
    Moved(&'a str),
    /// Any other element that is no stanza, complete and in canonical form: an answer of SASL or of an
    /// extension.
    Element(&'a [u8]),
    /// A stanza.
    Stanza(Addressed<'a>),
}

/// A stanza, as one recipient gets it.
#[derive(Clone, Copy)]
pub struct Addressed<'a> {
    stanza: &'a Stanza,
    to: Override<'a>,
    appended: &'a [u8],
}

#[derive(Clone, Copy)]
enum Override<'a> {
    Keep,
    Replace(Option<&'a str>),
}

impl<'a> Addressed<'a> {
    /// The stanza that all recipients share.
    #[must_use]
    pub const fn stanza(&self) -> &'a Stanza {
        self.stanza
    }

    /// Who sends it.
    #[must_use]
    pub fn from(&self) -> Option<Cow<'a, str>> {
        self.stanza.raw_from().map(unescape)
    }

    /// The `to` that this recipient gets.
    #[must_use]
    pub fn to(&self) -> Option<Cow<'a, str>> {
        match self.to {
            Override::Keep => self.stanza.raw_to().map(unescape),
            Override::Replace(to) => to.map(Cow::Borrowed),
        }
    }

    /// The children that this recipient gets: those of the stanza, and what is appended for it.
    pub fn children(&self) -> impl Iterator<Item = Child<'a>> {
        let children = |xml| Children::new(xml, Scope::stanza());
        children(self.stanza.payload()).chain(children(self.appended))
    }
}

impl<'a> Frame<'a> {
    /// Our stream header.
    #[must_use]
    pub const fn open(header: &'a ResponseHeader<'a>) -> Self {
        Self::new(FrameParts::Open(header))
    }

    /// What the stream offers: elements in canonical form.
    #[must_use]
    pub const fn features(content: &'a [u8]) -> Self {
        Self::new(FrameParts::Features(content))
    }

    /// A stream error. The end of the stream has to follow.
    #[must_use]
    pub const fn error(error: &'a StreamError) -> Self {
        Self::new(FrameParts::Error(error))
    }

    /// The end of the stream.
    #[must_use]
    pub const fn close() -> Self {
        Self::new(FrameParts::Close)
    }

    /// How a stream ends: with an error, if there is one, then with its end. A client whose transport has a
    /// URI is sent to no host, but to a URI (WS-10).
    pub(crate) fn ending(error: Option<&'a StreamError>, framing: Framing) -> SmallVec<[Self; 2]> {
        let error = match error {
            Some(error) if error.condition() == StreamCondition::SeeOtherHost => {
                match (framing, error.other_host(), error.other_uri()) {
                    (Framing::Message, _, Some(uri)) => {
                        return smallvec![Self::new(FrameParts::Moved(uri)).framing(framing)];
                    }
                    (Framing::Stream, Some(_), _) => Some(error),
                    _ => Some(&SYSTEM_SHUTDOWN),
                }
            }
            error => error,
        };
        let frames = error.map(Self::error).into_iter().chain([Self::close()]);
        frames.map(|frame| frame.framing(framing)).collect()
    }

    /// The end of a stream whose client is sent to this URI.
    #[cfg(feature = "cluster")]
    pub(crate) const fn moved(uri: &'a str) -> Self {
        Self::new(FrameParts::Moved(uri))
    }

    /// One element, complete and in canonical form, that is none of the others.
    #[must_use]
    pub const fn element(xml: &'a [u8]) -> Self {
        Self::new(FrameParts::Element(xml))
    }

    /// A stanza as it is.
    #[must_use]
    pub const fn stanza(stanza: &'a Stanza) -> Self {
        let to = Override::Keep;
        Self::new(FrameParts::Stanza(Addressed { stanza, to, appended: &[] }))
    }

    const fn new(parts: FrameParts<'a>) -> Self {
        Self { parts, framing: Framing::Stream, at_once: false }
    }

    /// Writes `to` (plain text, not escaped) in place of the stanza's own `to`; `None` writes no
    /// `to` at all. Changes nothing in what is no stanza.
    ///
    /// For copies that the server makes for several recipients: `to` of a stanza made by somebody
    /// else stays as it is (rule [STZ-2](crate::rules#stz-2),
    /// [RFC 6120 §8.1.1.1](https://www.rfc-editor.org/rfc/rfc6120#section-8.1.1.1)).
    #[must_use]
    pub const fn to(mut self, to: Option<&'a str>) -> Self {
        if let FrameParts::Stanza(Addressed { to: place, .. }) = &mut self.parts {
            *place = Override::Replace(to);
        }
        self
    }

    /// Writes `xml` (canonical form, such as a `<delay/>`) after the payload of a stanza. A second
    /// call replaces what the first one set.
    #[must_use]
    pub const fn append(mut self, xml: &'a [u8]) -> Self {
        if let FrameParts::Stanza(Addressed { appended, .. }) = &mut self.parts {
            *appended = xml;
        }
        self
    }

    /// Frames it for a transport; without, it is framed for a stream.
    #[must_use]
    pub const fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// A stanza that no session keeps meanwhile: an answer before the bind, or its result. Buffers take it
    /// like what is no stanza.
    #[must_use]
    pub(crate) const fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// Whether its session keeps it where a buffer is full: true of stanzas, but for those of the bind.
    #[must_use]
    pub const fn may_wait(&self) -> bool {
        self.is_stanza() && !self.at_once
    }

    /// What it says, for hosts whose wire is not XML.
    #[must_use]
    pub const fn parts(&self) -> FrameParts<'a> {
        self.parts
    }

    /// Exact number of bytes that [`write_to`](Self::write_to) appends.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut len = 0;
        self.pieces(|piece| len += piece.len());
        len
    }

    /// Whether it is a stanza.
    #[must_use]
    pub const fn is_stanza(&self) -> bool {
        matches!(self.parts, FrameParts::Stanza(_))
    }

    /// Whether nothing would be written: true only for an element of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.parts, FrameParts::Element([]))
    }

    /// Appends the frame's bytes to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self.parts {
            // What grows by doubling would keep as much again for a client that does not read.
            FrameParts::Stanza(it) if it.stanza.len() > LARGE => out.reserve_exact(self.len()),
            // About as much as it takes: the first one would let it grow piece by piece.
            FrameParts::Stanza(it) if out.capacity() == 0 => {
                out.reserve(it.stanza.len() + it.appended.len() + AROUND);
            }
            _ => {}
        }
        self.pieces(|piece| out.extend_from_slice(piece));
    }

    fn pieces(&self, mut put: impl FnMut(&[u8])) {
        let Addressed { stanza, to, appended } = match &self.parts {
            FrameParts::Stanza(stanza) => *stanza,
            FrameParts::Element(xml) => return put(xml),
            parts => return put(&tags(parts, self.framing)),
        };
        put(opening(stanza.kind()));
        if self.framing == Framing::Message {
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
        if !appended.is_empty() {
            put(appended);
        }
        put(closing(stanza.kind()));
    }
}

/// What delimits a stream, and what only a stream holds (RFC 6120 §4, RFC 7395 §3.3).
#[cold]
fn tags(parts: &FrameParts<'_>, framing: Framing) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let prefix = match framing {
        Framing::Stream => String::new(),
        // WS-4
        Framing::Message => format!(" xmlns:stream='{STREAM_NAMESPACE}'"),
    };
    let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
    match (parts, framing) {
        (FrameParts::Open(header), Framing::Stream) => {
            put("<?xml version='1.0'?><stream:stream");
            header.write_attributes(&mut out);
            let namespaces =
                format!(" xmlns='{CONTENT_NAMESPACE}' xmlns:stream='{STREAM_NAMESPACE}'>");
            out.extend_from_slice(namespaces.as_bytes());
        }
        (FrameParts::Open(header), Framing::Message) => {
            put(&format!("<open xmlns='{FRAMING_NAMESPACE}'"));
            header.write_attributes(&mut out);
            out.extend_from_slice(b"/>");
        }
        (FrameParts::Features(content), _) => {
            put(&format!("<stream:features{prefix}>"));
            out.extend_from_slice(content);
            out.extend_from_slice(b"</stream:features>");
        }
        (FrameParts::Error(error), _) => {
            put(&format!("<stream:error{prefix}>"));
            error.write(&mut out);
            out.extend_from_slice(b"</stream:error>");
        }
        (FrameParts::Close | FrameParts::Moved(_), Framing::Stream) => put("</stream:stream>"),
        (FrameParts::Moved(uri), Framing::Message) => {
            let attributes = [("xmlns", FRAMING_NAMESPACE), ("see-other-uri", *uri)];
            write::leaf(&mut out, "close", &attributes, None);
        }
        (FrameParts::Close, Framing::Message) => {
            put(&format!("<close xmlns='{FRAMING_NAMESPACE}'/>"))
        }
        (FrameParts::Element(_) | FrameParts::Stanza(_), _) => {}
    }
    out
}

static SYSTEM_SHUTDOWN: StreamError = StreamError::new(StreamCondition::SystemShutdown);

/// What a stanza begins with, in one piece.
const fn opening(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Message => b"<message",
        Kind::Presence => b"<presence",
        Kind::Iq => b"<iq",
    }
}

/// What it ends with, unless it is empty.
const fn closing(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Message => b"</message>",
        Kind::Presence => b"</presence>",
        Kind::Iq => b"</iq>",
    }
}

/// Bytes of what is written around a stanza, and of another recipient's address.
const AROUND: usize = 64;

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

impl fmt::Debug for FrameParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open(_) => "Open",
            Self::Features(_) => "Features",
            Self::Error(_) => "Error",
            Self::Close => "Close",
            Self::Moved(_) => "Moved",
            Self::Element(_) => "Element",
            Self::Stanza(_) => "Stanza",
        })
    }
}

impl fmt::Debug for Addressed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addressed").field("stanza", &self.stanza).finish_non_exhaustive()
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
        assert_eq!(Frame::element(b"<a/>").framing(Framing::Message).to_string(), "<a/>");
    }

    #[test]
    fn ws_4_whatever_is_sent_stands_alone() {
        let header = ResponseHeader::new("example.org", "i'd");
        let error = StreamError::new(StreamCondition::Conflict);
        let frames = [
            (Frame::open(&header), "open", FRAMING_NAMESPACE),
            (Frame::features(b"<x xmlns='urn:x'/>"), "features", STREAM_NAMESPACE),
            (Frame::error(&error), "error", STREAM_NAMESPACE),
            (Frame::close(), "close", FRAMING_NAMESPACE),
        ];
        for (frame, name, namespace) in frames {
            let xml = frame.framing(Framing::Message).to_string();
            let element: minidom::Element = xml.parse().expect("a document");
            assert!(element.is(name, namespace), "{xml}");
            assert_eq!(frame.framing(Framing::Message).len(), xml.len());
        }
        let open = Frame::open(&header).framing(Framing::Message).to_string();
        assert_eq!(
            open,
            "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' from='example.org' id='i&apos;d' \
             version='1.0' xml:lang='en'/>"
        );
    }

    #[test]
    fn the_parts_of_a_stanza_are_those_of_one_recipient() {
        let stanza = presence();
        let frame =
            Frame::stanza(&stanza).to(Some("c@example.com/<")).append(b"<x xmlns='urn:x'/>");
        let FrameParts::Stanza(parts) = frame.parts() else { panic!("no stanza") };
        assert_eq!(parts.from().as_deref(), Some("a@example.com/x"));
        assert_eq!(parts.to().as_deref(), Some("c@example.com/<"));
        assert_eq!(parts.stanza().id().as_deref(), Some("1"));
        let names: Vec<_> = parts.children().map(|child| child.name().to_owned()).collect();
        assert_eq!(names, ["show", "x"]);
        let FrameParts::Stanza(kept) = Frame::stanza(&stanza).parts() else { panic!("no stanza") };
        assert_eq!(kept.to(), stanza.to());
        let FrameParts::Stanza(none) = Frame::stanza(&stanza).to(None).parts() else { panic!() };
        assert_eq!(none.to(), None);
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
        assert_eq!(Frame::element(b"a\xFFb").to_string(), "a\u{FFFD}b");
        assert!(Frame::element(b"").is_empty());
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
