//! Reading on elsewhere: what a parser has not finished reading, as it came.

use super::{Event, OpenedStream, Parser, State};
use crate::packed::{Reader, Writer};
use crate::stanza::Framing;
use crate::stream::Limits;

/// What a client has sent that may still be in the middle of something: a parser keeps no bytes as they came.
pub(crate) struct Heard {
    /// As unread bytes are kept.
    bytes: Vec<u8>,
    /// They begin in front of a header.
    before_header: bool,
    /// Up to so much, looking for the end of what is read is not worth it.
    look_at: usize,
}

/// See [`Heard::look_at`].
const LOOK_AT: usize = 4096;

impl Heard {
    pub(crate) fn new(parser: &Parser) -> Self {
        let bytes = parser.unread.get(parser.read..).unwrap_or_default().to_vec();
        let before_header = matches!(parser.state, State::Prolog { .. });
        Self { bytes, before_header, look_at: LOOK_AT }
    }

    /// The same bytes are about to be fed, unread as they are.
    pub(crate) fn add(&mut self, unread: &[u8]) {
        self.bytes.extend_from_slice(unread);
    }

    /// Forgets what is read, now and then. The limits are those of the parser.
    pub(crate) fn tidy(&mut self, parser: &Parser) {
        if parser.is_between() && !parser.is_cut {
            (self.bytes, self.look_at) = (Vec::new(), LOOK_AT);
            self.before_header = matches!(parser.state, State::Prolog { .. });
        } else if self.bytes.len() > self.look_at {
            self.forget_read(parser);
            self.look_at = self.bytes.len().saturating_mul(2).max(LOOK_AT);
        }
    }

    /// Leaves what begins behind the last event that the parser has given out.
    fn forget_read(&mut self, parser: &Parser) {
        let read = self.bytes.len().saturating_sub(parser.unread());
        let read = self.bytes.get(..read).unwrap_or_default();
        let mut again = Parser { unread: read.to_vec(), ..parser.anew(!self.before_header) };
        let mut behind = 0;
        // It was read without an error.
        while let Ok(Some(event)) = again.next() {
            behind = read.len().saturating_sub(again.unread());
            self.before_header &= !matches!(event, Event::Header(_));
        }
        self.bytes.drain(..behind);
    }
}

impl Parser {
    /// One that has read nothing, behind or in front of the header.
    fn anew(&self, is_open: bool) -> Self {
        Self {
            unread: Vec::new(),
            read: 0,
            state: if is_open { State::Between } else { State::Prolog { declared: false } },
            opened: self.opened.clone(),
            bounds: self.bounds,
            before_auth: None,
            message: 0,
            framing: self.framing,
            is_cut: false,
        }
    }

    /// What of a stream is not read, of which all is `heard` that may not be, as unread bytes are kept; and whether it
    /// begins in front of a header. `None`: the stream has ended.
    pub(crate) fn not_read<'a>(&self, heard: &'a mut Heard) -> Option<(&'a [u8], bool)> {
        heard.forget_read(self);
        let is_open = !matches!(self.state, State::Ended);
        is_open.then_some((&heard.bytes, heard.before_header))
    }

    /// What it takes to read on elsewhere, on a stream that is open, and of which all is `heard` that is not read.
    /// `None`: it has ended.
    pub(crate) fn export(&self, heard: &mut Heard, out: &mut Writer) -> Option<()> {
        let (unread, before_header) = self.not_read(heard)?;
        if before_header {
            return None;
        }
        out.flag(self.framing == Framing::Message);
        out.option(self.opened(), |out, opened| {
            out.text(&opened.name);
            out.count(opened.declarations.len());
            for (prefix, namespace) in &opened.declarations {
                out.option(prefix.as_deref(), Writer::text);
                out.text(namespace);
            }
        });
        out.bytes(unread);
        Some(())
    }

    pub(crate) fn import(limits: &Limits, input: &mut Reader<'_>) -> Option<Self> {
        let framing = if input.flag()? { Framing::Message } else { Framing::Stream };
        let opened = input.option(|input| {
            let name = input.text()?.into();
            let declarations = input.list(|input| {
                let prefix = input.option(Reader::text)?.map(Into::into);
                Some((prefix, input.text()?.into()))
            })?;
            Some(OpenedStream { name, declarations })
        })?;
        let mut parser = Self::with_framing(limits, framing);
        parser.authenticated(limits);
        parser.go_on(opened);
        parser.unread = input.bytes()?.to_vec();
        Some(parser)
    }
}
