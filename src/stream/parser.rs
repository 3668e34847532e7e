//! From bytes to events.

mod message;

pub use message::BrokenMessage;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::header::{self, HeaderReader, Opened};
use super::{
    CONTENT_NAMESPACE, Header, Limit, Limits, Nonza, RefusedStanza, StreamCondition, StreamError,
    declaration,
};
use crate::stanza::bounds::Bounds;
#[cfg(feature = "server")]
use crate::stanza::canonical::Opening;
use crate::stanza::canonical::{ElementReader, Parsed};
use crate::stanza::recognise::{Recognised, Recogniser};
use crate::stanza::{Framing, Received};

/// Something that is complete and may have an effect.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The client opened the stream.
    Header(Header),
    /// A stanza.
    Stanza(Received<'a>),
    /// A stanza that breaks a limit or cannot be passed on: its sender is told, and the stream goes
    /// on.
    Refused(RefusedStanza),
    /// Another first-level element.
    Nonza(Nonza),
    /// The client closed the stream. Nothing follows.
    End,
}

impl Event<'_> {
    /// The same, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> Event<'static> {
        match self {
            Self::Header(header) => Event::Header(header),
            Self::Stanza(stanza) => Event::Stanza(stanza.into_owned()),
            Self::Refused(refused) => Event::Refused(refused),
            Self::Nonza(nonza) => Event::Nonza(nonza),
            Self::End => Event::End,
        }
    }
}

/// Reads what one client sends, in pieces of any size.
///
/// [`feed`](Self::feed) it what arrived, then take one event after the other. It reads no further
/// than to the end of the event that it returns: what follows waits for the next call, so
/// that a stream is handled strictly in order (rule [STREAM-23](crate::rules#stream-23)) and may change its state in between.
///
/// Between two elements it owns no memory on the heap: what it needs to read an element is
/// freed with it.
///
/// # Examples
///
/// ```
/// use xmpp_session::stream::{Event, Limits, Parser};
///
/// let mut parser = Parser::new(&Limits::default());
/// parser.feed(b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
///     to='example.org' version='1.0'><presence/>");
/// let Some(Event::Header(header)) = parser.next()? else { panic!("no header") };
/// assert_eq!(header.to(), Some("example.org"));
/// assert!(matches!(parser.next()?, Some(Event::Stanza(_))));
/// assert!(parser.next()?.is_none());
/// # Ok::<(), xmpp_session::stream::StreamError>(())
/// ```
///
/// On a transport that has [messages](Framing::Message) each brings one element:
///
/// ```
/// use xmpp_session::stanza::Framing;
/// use xmpp_session::stream::{Event, Limits, Parser};
///
/// let mut parser = Parser::with_framing(&Limits::default(), Framing::Message);
/// parser.feed_message(b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0'/>", true);
/// assert!(matches!(parser.next()?, Some(Event::Header(_))));
/// parser.feed_message(b"<presence xmlns='jabber:client'", false);
/// parser.feed_message(b"/>", false);
/// assert!(parser.next()?.is_none(), "the message goes on");
/// parser.feed_message(b"", true);
/// assert!(matches!(parser.next()?, Some(Event::Stanza(_))));
/// # Ok::<(), xmpp_session::stream::StreamError>(())
/// ```
pub struct Parser {
    pub(super) unread: Vec<u8>,
    /// How many bytes of `unread` have been read.
    read: usize,
    state: State,
    pub(super) opened: Option<Arc<Opened>>,
    bounds: Bounds,
    /// Bytes that may still be read before authentication (LIMIT-3).
    before_auth: Option<u32>,
    /// Bytes of the message that is being read.
    message: u32,
    framing: Framing,
    /// A fragment has ended with a `<` that waits for what says what it begins.
    is_cut: bool,
}

enum State {
    /// Before the header, and before or after the XML declaration.
    Prolog {
        declared: bool,
    },
    Header(Box<HeaderReader>),
    Between,
    /// The same where no white space may stand.
    Strict,
    /// In an element that may well be a stanza in canonical form.
    Recognising(Box<Arrived>),
    /// In an element that has to be parsed.
    Element(Box<ElementReader>),
    /// In the first element, where each is a message.
    Opening(Box<ElementReader>),
    /// Before the end of the message that has brought this.
    Held(Box<Event<'static>>),
    /// In the close tag, after this many bytes of its name.
    Closing(usize),
    /// The header was that of an empty element.
    Empty,
    Ended,
}

/// The beginning of an element, and what is known of it.
struct Arrived {
    recogniser: Recogniser,
    bytes: Vec<u8>,
}

impl Arrived {
    /// Takes bytes off the front of `input`, none after the element. `None`: more is needed.
    /// What is not recognised leaves `input` as it was.
    fn advance(
        &mut self,
        input: &mut &[u8],
        bounds: &Bounds,
    ) -> Option<Result<Received<'static>, Unknown>> {
        let before = self.bytes.len();
        let (piece, rest) = input.split_at_checked(bounds.bytes).unwrap_or((input, &[]));
        self.bytes.extend_from_slice(piece);
        match self.recogniser.advance(&self.bytes, bounds) {
            Recognised::More => {
                *input = rest;
                None
            }
            Recognised::Unknown => {
                self.bytes.truncate(before);
                Some(Err(Unknown))
            }
            Recognised::Canonical(outline, text) => {
                *input = input.get(text.len().saturating_sub(before)..).unwrap_or_default();
                Some(Ok(Received::recognised(outline, text.to_owned())))
            }
        }
    }
}

/// The element has to be parsed.
struct Unknown;

impl Parser {
    /// A parser for a client that has not authenticated.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self::with_framing(limits, Framing::Stream)
    }

    /// The same for a transport that delimits elements in this way.
    #[must_use]
    pub fn with_framing(limits: &Limits, framing: Framing) -> Self {
        Self {
            unread: Vec::new(),
            read: 0,
            state: State::Prolog { declared: false },
            opened: None,
            bounds: limits.before,
            before_auth: Some(u32::try_from(limits.bytes_before_auth()).unwrap_or(u32::MAX)),
            message: 0,
            framing,
            is_cut: false,
        }
    }

    /// White space before the next element closes the stream, as during an exchange of SASL2
    /// ([SASL2-5](crate::rules#sasl2-5)), or no longer does. (Before a message there is none.)
    #[cfg(feature = "server")]
    pub(crate) fn set_strict(&mut self, is_strict: bool) {
        match self.state {
            State::Between if is_strict && self.framing == Framing::Stream => {
                self.state = State::Strict;
            }
            State::Strict if !is_strict => self.state = State::Between,
            _ => {}
        }
    }

    /// Takes one line end off the front of what was not read: it belongs to the element before it.
    #[cfg(feature = "server")]
    pub(crate) fn skip_line_end(&mut self, input: &mut &[u8]) {
        if self.framing == Framing::Message {
            return;
        }
        let unread = self.unread.get(self.read..).unwrap_or_default();
        let front = if unread.is_empty() { *input } else { unread };
        let length = match front {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return,
        };
        if unread.is_empty() {
            *input = input.get(length..).unwrap_or_default();
        } else {
            self.read = self.read.saturating_add(length);
        }
    }

    /// From here on the limits for authenticated clients apply.
    pub fn authenticated(&mut self, limits: &Limits) {
        self.bounds = limits.after;
        self.before_auth = None;
    }

    /// So many bytes came before the stream, and count with those before authentication (LIMIT-3).
    #[cfg(feature = "server")]
    pub(crate) fn spend(&mut self, bytes: usize) {
        if let Some(budget) = &mut self.before_auth {
            *budget = budget.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// Whether the limits are those of an authenticated client.
    #[cfg(feature = "websocket")]
    pub(crate) const fn is_authenticated(&self) -> bool {
        self.before_auth.is_none()
    }

    /// Takes bytes that arrived: where elements are messages, a whole one. Does not read them yet.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.framing == Framing::Message && !bytes.is_empty() {
            return self.feed_message(bytes, true);
        }
        self.feed_stream(bytes);
    }

    fn feed_stream(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Ended) {
            return;
        }
        self.unread.drain(..self.read.min(self.unread.len()));
        self.read = 0;
        self.unread.extend_from_slice(bytes);
    }

    /// Reads on to the next event. `None`: more bytes are needed, or the stream has ended.
    ///
    /// # Errors
    ///
    /// The error to close the stream with. Nothing is read afterwards.
    #[expect(
        clippy::should_implement_trait,
        reason = "`None` is not the end, as it is for iterators"
    )]
    pub fn next(&mut self) -> Result<Option<Event<'static>>, StreamError> {
        if self.framing == Framing::Message {
            return self.next_message();
        }
        let unread = std::mem::take(&mut self.unread);
        let mut input = unread.get(self.read..).unwrap_or_default();
        let result = self.advance(&mut input).map(|event| event.map(Event::into_owned));
        let left = input.len();
        if left == 0 || matches!(self.state, State::Ended) {
            self.read = 0;
        } else {
            self.read = unread.len() - left;
            self.unread = unread;
        }
        result
    }

    /// As [`feed`](Self::feed) and [`next`](Self::next) in one, without a copy where none is needed:
    /// takes bytes off the front of `input`, which follow those fed before. When there is no further
    /// event, feed what is left of `input`, or pass it again in front of what follows.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next).
    pub fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, StreamError> {
        if self.unread.is_empty() && self.framing == Framing::Stream {
            return self.advance(input);
        }
        if !input.is_empty() {
            self.feed(std::mem::take(input));
        }
        self.next()
    }

    fn advance<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, StreamError> {
        if self.before_auth.is_none() {
            let result = self.step(input);
            if matches!(result, Err(_) | Ok(Some(Event::End))) {
                self.state = State::Ended;
            }
            return result;
        }
        let all = *input;
        let budget = self.before_auth.map(|budget| budget as usize);
        let mut allowed = budget.and_then(|budget| all.get(..budget)).unwrap_or(all);
        let is_cut = allowed.len() < all.len();
        let most = allowed.len();
        let mut result = self.step(&mut allowed);
        let read = most - allowed.len();
        *input = all.get(read..).unwrap_or_default();
        if let Some(budget) = &mut self.before_auth {
            *budget = budget.saturating_sub(u32::try_from(read).unwrap_or(u32::MAX));
        }
        if is_cut && matches!(result, Ok(None)) {
            result = Err(StreamError::exceeded(Limit::BytesBeforeAuth));
        }
        if matches!(result, Err(_) | Ok(Some(Event::End))) {
            self.state = State::Ended;
        }
        result
    }

    /// Starts over with a new header, as it follows TLS and SASL. The bytes that were not read
    /// yet belong to the new stream, or else are dropped (rule [STREAM-28](crate::rules#stream-28)).
    pub fn restart(&mut self, keep_unread: bool) {
        if matches!(self.state, State::Ended) {
            return;
        }
        if !keep_unread {
            self.take_unread();
        }
        self.state = State::Prolog { declared: false };
    }

    /// How many bytes were not read yet.
    pub(crate) fn unread(&self) -> usize {
        self.unread.len().saturating_sub(self.read)
    }

    /// Whether all that was handed in is read, and no element or header of it goes on.
    #[cfg(feature = "server")]
    pub(crate) fn is_between(&self) -> bool {
        let is_between =
            matches!(self.state, State::Prolog { .. } | State::Between | State::Strict);
        is_between && self.unread() == 0
    }

    /// The first-level element that is being read, if its start tag is complete. `None` while the
    /// recogniser reads, which handles only stanzas.
    #[cfg(feature = "server")]
    pub(crate) fn opening(&self) -> Option<Opening<'_>> {
        match &self.state {
            State::Element(reader) => reader.opening(),
            _ => None,
        }
    }

    /// Takes away the bytes that were not read yet.
    pub fn take_unread(&mut self) -> Vec<u8> {
        let mut unread = std::mem::take(&mut self.unread);
        unread.drain(..std::mem::take(&mut self.read).min(unread.len()));
        unread
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, StreamError> {
        let bytes = self.element_limit();
        let refused = |refusal| StreamError::for_refusal(refusal, bytes);
        loop {
            match &mut self.state {
                State::Prolog { .. } | State::Opening(_) if self.framing == Framing::Message => {
                    return self.open(input);
                }
                State::Held(_) | State::Opening(_) => return Ok(None),
                State::Prolog { declared } => {
                    if !header_begins(declared, input)? {
                        return Ok(None);
                    }
                    self.state = State::Header(Box::new(HeaderReader::new(self.bounds)));
                }
                State::Header(reader) => {
                    let Some(header::Parsed { header, opened, is_empty }) =
                        reader.feed(input, bytes)?
                    else {
                        return Ok(None);
                    };
                    self.opened = Some(opened);
                    self.state = if is_empty { State::Empty } else { State::Between };
                    return Ok(Some(Event::Header(header)));
                }
                State::Strict => match input.first() {
                    None => return Ok(None),
                    Some(byte) if is_space(*byte) => {
                        return Err(StreamCondition::PolicyViolation.into());
                    }
                    Some(_) => self.state = State::Between,
                },
                State::Between => {
                    if let ControlFlow::Break(event) = self.between(input)? {
                        return Ok(event);
                    }
                }
                State::Recognising(arrived) => match arrived.advance(input, &self.bounds) {
                    None => return Ok(None),
                    Some(Ok(stanza)) => {
                        self.state = State::Between;
                        return Ok(Some(Event::Stanza(stanza)));
                    }
                    Some(Err(Unknown)) => {
                        let arrived = std::mem::take(&mut arrived.bytes);
                        let mut reader = self.reader();
                        // It is the beginning of a longer element.
                        reader.feed(&mut &arrived[..]).map_err(refused)?;
                        self.state = State::Element(reader);
                    }
                },
                State::Element(reader) => {
                    let parsed = reader.feed(input).map_err(refused)?;
                    let Some(parsed) = parsed else { return Ok(None) };
                    self.state = State::Between;
                    return Ok(Some(match parsed {
                        Parsed::Stanza(stanza) => Event::Stanza(stanza),
                        Parsed::Refused(stanza, flaw) => {
                            Event::Refused(RefusedStanza::new(stanza, flaw, bytes))
                        }
                        Parsed::Other(xml) => self.nonza(xml)?,
                    }));
                }
                State::Closing(matched) => {
                    let name = self.opened.as_ref().map_or("", |opened| &opened.name).as_bytes();
                    return Ok(close_tag_ends(matched, name, input)?.then_some(Event::End));
                }
                State::Empty => return Ok(Some(Event::End)),
                State::Ended => return Ok(None),
            }
        }
    }

    /// Between two first-level elements: goes on in the state of what begins here, or breaks off with
    /// the stanza that stands here as a whole, or with `None` where more bytes are needed.
    fn between<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<ControlFlow<Option<Event<'a>>>, StreamError> {
        // STREAM-17
        *input = skip_space(input);
        self.state = match **input {
            [] | [b'<'] | [b'<', b'!'] => return Ok(ControlFlow::Break(None)),
            [b'<', b'/', ..] => {
                *input = input.get(2..).unwrap_or_default();
                State::Closing(0)
            }
            // A CDATA section is text.
            [b'<', b'!', b'[', ..] => return Err(StreamCondition::BadFormat.into()),
            [b'<', b'?' | b'!', ..] => return Err(StreamCondition::RestrictedXml.into()),
            // No stanza is welcome yet: its start tag says so.
            [b'<', ..] if self.before_auth.is_some() => State::Element(self.reader()),
            [b'<', ..] => {
                let mut recogniser = Recogniser::new(self.is_in_content());
                match recogniser.advance(input, &self.bounds) {
                    Recognised::Canonical(outline, text) => {
                        *input = input.get(text.len()..).unwrap_or_default();
                        let stanza = Received::recognised(outline, text);
                        return Ok(ControlFlow::Break(Some(Event::Stanza(stanza))));
                    }
                    Recognised::Unknown => State::Element(self.reader()),
                    Recognised::More => {
                        let bytes = std::mem::take(input).to_vec();
                        self.state = State::Recognising(Box::new(Arrived { recogniser, bytes }));
                        return Ok(ControlFlow::Break(None));
                    }
                }
            }
            [other, ..] => return Err(stray(other, StreamCondition::BadFormat)),
        };
        Ok(ControlFlow::Continue(()))
    }

    /// The parser for one element.
    fn reader(&self) -> Box<ElementReader> {
        let outer = self.opened.as_ref().map(|opened| Arc::clone(&opened.declarations));
        Box::new(ElementReader::new(self.bounds, outer.unwrap_or_default()))
    }

    /// Whether elements are in the content namespace unless they declare another.
    fn is_in_content(&self) -> bool {
        let default = self.opened.as_ref().and_then(|opened| opened.declarations.get(None));
        default.is_some_and(|namespace| **namespace == *CONTENT_NAMESPACE)
    }
}

/// Reads up to the header, which may have an XML declaration before it. `false`: more is needed.
fn header_begins(declared: &mut bool, input: &mut &[u8]) -> Result<bool, StreamError> {
    loop {
        *input = skip_space(input);
        match **input {
            [] | [b'<'] => return Ok(false),
            [b'<', b'?', ..] if !*declared => {
                let Some(length) = declaration::read(input)? else { return Ok(false) };
                *input = input.get(length..).unwrap_or_default();
                *declared = true;
            }
            [b'<', b'?' | b'!', ..] => return Err(StreamCondition::RestrictedXml.into()),
            [b'<', ..] => return Ok(true),
            // STREAM-22: a byte order mark is text, too.
            [other, ..] => return Err(stray(other, StreamCondition::NotWellFormed)),
        }
    }
}

/// Reads the close tag of an element of this `name`, of which `matched` bytes were read. `false`: more
/// is needed.
fn close_tag_ends(
    matched: &mut usize,
    name: &[u8],
    input: &mut &[u8],
) -> Result<bool, StreamError> {
    while let Some((&byte, rest)) = input.split_first() {
        match name.get(*matched) {
            Some(&expected) if byte == expected => *matched += 1,
            None if byte == b'>' || is_space(byte) => {}
            _ => return Err(StreamCondition::NotWellFormed.into()),
        }
        let is_end = *matched == name.len() && byte == b'>';
        *input = rest;
        if is_end {
            return Ok(true);
        }
    }
    Ok(false)
}

/// White space as XML knows it, without the form feed that is white space in ASCII.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn skip_space(input: &[u8]) -> &[u8] {
    let length = input.iter().take_while(|&&byte| is_space(byte)).count();
    input.get(length..).unwrap_or_default()
}

/// The error for a byte that is neither white space nor markup, outside of all elements.
fn stray(byte: u8, text: StreamCondition) -> StreamError {
    match byte {
        // STREAM-19
        0x00..=0x1F => StreamCondition::NotWellFormed,
        // No character starts like this in UTF-8 (STREAM-21).
        0x80..=0xC1 | 0xF5.. => StreamCondition::UnsupportedEncoding,
        _ => text,
    }
    .into()
}

impl fmt::Debug for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Prolog { .. } => "prolog",
            State::Header(_) => "header",
            State::Between | State::Strict => "between",
            State::Recognising(_) | State::Element(_) | State::Held(_) => "element",
            State::Opening(_) => "header",
            State::Closing(_) | State::Empty => "closing",
            State::Ended => "ended",
        };
        f.debug_struct("Parser")
            .field("state", &state)
            .field("unread", &self.unread())
            .finish_non_exhaustive()
    }
}
