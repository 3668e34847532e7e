//! One element for each message (RFC 7395 §3.3.3): what arrives is kept with its edges, and an event comes
//! with the end of its message.

use super::{Event, Parser, State, skip_space, stray};
use crate::stanza::canonical::{Opening, Parsed};
use crate::stanza::{FRAMING_NAMESPACE, Framing};
use crate::stream::{
    CONTENT_NAMESPACE, Header, Limit, Nonza, STREAM_NAMESPACE, StreamCondition, StreamError,
};

/// What makes a message unfit to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokenMessage {
    /// It is binary: `not-well-formed` (rule [WS-2](crate::rules#ws-2)).
    Binary,
    /// It is not UTF-8: `unsupported-encoding` (rule [STREAM-21](crate::rules#stream-21)).
    NotUtf8,
    /// It breaks the rules of the WebSocket protocol (RFC 6455): `bad-format` (rule [WS-17](crate::rules#ws-17)).
    BadFrame,
    /// It is longer than the host reads: `policy-violation` (rule [WS-11](crate::rules#ws-11)).
    TooLong,
}

/// What is before the bytes of a fragment: their number, or what broke the message.
const LENGTH: usize = size_of::<u32>();
const LAST: u32 = 1 << 31;
const BROKEN: u32 = 1 << 30;
const MOST: u32 = BROKEN - 1;

/// What stands in the unread bytes.
enum Fragment<'a> {
    Bytes(&'a [u8], bool),
    Broken(BrokenMessage),
}

impl<'a> Fragment<'a> {
    fn take(unread: &mut &'a [u8]) -> Option<Self> {
        let (word, rest) = unread.split_first_chunk::<LENGTH>()?;
        let word = u32::from_le_bytes(*word);
        *unread = rest;
        if word & BROKEN != 0 {
            return Some(Self::Broken(match word & MOST {
                0 => BrokenMessage::Binary,
                1 => BrokenMessage::NotUtf8,
                2 => BrokenMessage::TooLong,
                _ => BrokenMessage::BadFrame,
            }));
        }
        let (bytes, rest) = rest.split_at_checked((word & MOST) as usize)?;
        *unread = rest;
        Some(Self::Bytes(bytes, word & LAST != 0))
    }
}

impl Parser {
    /// Takes a message that arrived, or a piece of one. Does not read it yet.
    ///
    /// Only for a parser [of messages](Self::with_framing); to any other it is as [`feed`](Self::feed).
    pub fn feed_message(&mut self, bytes: &[u8], is_last: bool) {
        if self.framing != Framing::Message {
            return self.feed_stream(bytes);
        }
        if matches!(self.state, State::Ended) {
            return;
        }
        // Nothing is as long: no limit allows it.
        let bytes = bytes.get(..MOST as usize).unwrap_or(bytes);
        let length = u32::try_from(bytes.len()).unwrap_or(MOST);
        self.unread.reserve(bytes.len().saturating_add(LENGTH));
        self.feed_stream(&(length | if is_last { LAST } else { 0 }).to_le_bytes());
        self.unread.extend_from_slice(bytes);
    }

    /// A message arrived that cannot be read: the error comes when what arrived before is read.
    pub fn feed_broken(&mut self, what: BrokenMessage) {
        let number = match what {
            BrokenMessage::Binary => 0,
            BrokenMessage::NotUtf8 => 1,
            BrokenMessage::TooLong => 2,
            BrokenMessage::BadFrame => 3,
        };
        if self.framing == Framing::Message {
            self.feed_stream(&(BROKEN | number).to_le_bytes());
        }
    }

    /// Reads on to the end of a message.
    #[cold]
    pub(super) fn next_message(&mut self) -> Result<Option<Event<'static>>, StreamError> {
        let unread = std::mem::take(&mut self.unread);
        let mut rest = unread.get(self.read..).unwrap_or_default();
        let mut result = Ok(None);
        while !matches!(self.state, State::Ended) && matches!(result, Ok(None)) {
            result = match Fragment::take(&mut rest) {
                None => break,
                Some(Fragment::Bytes(bytes, is_last)) => self.fragment(bytes, is_last),
                Some(Fragment::Broken(what)) => Err(self.broken(what)),
            };
        }
        if result.is_err() {
            self.state = State::Ended;
        }
        if rest.is_empty() || matches!(self.state, State::Ended) {
            self.read = 0;
        } else {
            self.read = unread.len().saturating_sub(rest.len());
            self.unread = unread;
        }
        result
    }

    fn broken(&self, what: BrokenMessage) -> StreamError {
        match what {
            BrokenMessage::Binary => StreamCondition::NotWellFormed.into(),
            BrokenMessage::BadFrame => StreamCondition::BadFormat.into(),
            BrokenMessage::NotUtf8 => StreamCondition::UnsupportedEncoding.into(),
            BrokenMessage::TooLong => StreamError::exceeded(self.element_limit()),
        }
    }

    fn fragment(
        &mut self,
        bytes: &[u8],
        is_last: bool,
    ) -> Result<Option<Event<'static>>, StreamError> {
        self.message = self.message.saturating_add(u32::try_from(bytes.len()).unwrap_or(MOST));
        // WS-11
        if self.message as usize > self.bounds.bytes {
            return Err(StreamError::exceeded(self.element_limit()));
        }
        let joined = if self.is_cut { [b"<", bytes].concat() } else { Vec::new() };
        let bytes = if std::mem::take(&mut self.is_cut) { &joined } else { bytes };
        let mut input = bytes;
        let event = match std::mem::replace(&mut self.state, State::Between) {
            State::Held(event) => Some(*event),
            state => {
                let is_first = matches!(state, State::Prolog { .. } | State::Between);
                self.state = state;
                if is_first {
                    self.is_cut = !is_last && bytes == b"<";
                    if self.is_cut {
                        return Ok(None);
                    }
                    begins(bytes)?;
                }
                self.advance(&mut input)?.map(Event::into_owned)
            }
        };
        let Some(event) = event else {
            self.refuse_stream_tag()?;
            return if is_last { Err(StreamCondition::NotWellFormed.into()) } else { Ok(None) };
        };
        if matches!(event, Event::End) {
            return Ok(Some(event));
        }
        self.is_cut = !is_last && skip_space(input) == b"<";
        if !self.is_cut {
            ends(input)?;
        }
        if is_last {
            self.message = 0;
            return Ok(Some(event));
        }
        self.state = State::Held(Box::new(event));
        Ok(None)
    }

    /// WS-3: a header of the other framing never ends.
    fn refuse_stream_tag(&self) -> Result<(), StreamError> {
        match &self.state {
            State::Element(reader) => match reader.opening() {
                Some(Opening::Other("stream", STREAM_NAMESPACE)) => {
                    Err(StreamCondition::InvalidNamespace.into())
                }
                _ => Ok(()),
            },
            State::Opening(reader) => match reader.opening() {
                None | Some(Opening::Other(_, FRAMING_NAMESPACE)) => Ok(()),
                Some(_) => Err(StreamCondition::InvalidNamespace.into()),
            },
            _ => Ok(()),
        }
    }

    /// Reads the first element of a stream.
    #[cold]
    pub(super) fn open<'a>(&mut self, input: &mut &[u8]) -> Result<Option<Event<'a>>, StreamError> {
        if input.is_empty() {
            return Ok(None);
        }
        let limit = self.element_limit();
        if !matches!(self.state, State::Opening(_)) {
            self.state = State::Opening(self.reader());
        }
        let State::Opening(reader) = &mut self.state else { return Ok(None) };
        let parsed = reader.feed(input);
        let xml = match parsed.map_err(|refusal| StreamError::for_refusal(refusal, limit))? {
            None => return Ok(None),
            Some(Parsed::Other(xml)) => xml,
            Some(Parsed::Stanza(_) | Parsed::Refused(..)) => {
                return Err(StreamCondition::InvalidNamespace.into());
            }
        };
        let nonza = Nonza::new(xml);
        if nonza.namespace() != FRAMING_NAMESPACE {
            return Err(StreamCondition::InvalidNamespace.into());
        }
        self.state = State::Between;
        match nonza.name() {
            "open" => Ok(Some(Event::Header(Header::of_open(&nonza)))),
            "close" => Ok(Some(Event::End)),
            _ => Err(StreamCondition::BadFormat.into()),
        }
    }

    /// An element that is no stanza.
    #[cold]
    pub(super) fn nonza(&self, xml: Vec<u8>) -> Result<Event<'static>, StreamError> {
        let nonza = Nonza::new(xml);
        if self.framing == Framing::Stream {
            return Ok(Event::Nonza(nonza));
        }
        match (nonza.name(), &*nonza.namespace()) {
            ("close", FRAMING_NAMESPACE) => Ok(Event::End),
            // RFC 7395 §3.3.2
            ("open" | "close", "" | CONTENT_NAMESPACE) | ("stream", STREAM_NAMESPACE) => {
                Err(StreamCondition::InvalidNamespace.into())
            }
            _ => Ok(Event::Nonza(nonza)),
        }
    }

    /// The limit in force on the bytes of an element.
    pub(super) const fn element_limit(&self) -> Limit {
        match self.before_auth {
            Some(_) => Limit::ElementBytesBeforeAuth,
            None => Limit::ElementBytes,
        }
    }
}

/// Whether a message may begin like this (WS-2).
fn begins(bytes: &[u8]) -> Result<(), StreamError> {
    match bytes {
        [b'<', b'?' | b'!' | b'/', ..] => ends(bytes),
        [] | [b'<', ..] => Ok(()),
        [b' ' | b'\t' | b'\r' | b'\n', ..] => Err(StreamCondition::BadFormat.into()),
        [other, ..] => Err(stray(*other, StreamCondition::NotWellFormed)),
    }
}

/// Whether a document may end like this.
fn ends(rest: &[u8]) -> Result<(), StreamError> {
    Err(match skip_space(rest) {
        [] => return Ok(()),
        // STREAM-20
        [b'<', b'?' | b'!', ..] => StreamCondition::RestrictedXml.into(),
        [b'<', ..] => StreamCondition::NotWellFormed.into(),
        [other, ..] => stray(*other, StreamCondition::NotWellFormed),
    })
}
