//! Bytes into raw events of `rxml`, a slice at a time, and what its errors mean.

use minidom::rxml::error::EndOrError;
use minidom::rxml::{self, Options, Parse, RawEvent, RawParser, WithOptions};

use super::Refusal;
use crate::stanza::bounds::Excess;
use crate::stanza::scan;

/// Most bytes handed to `rxml` at once: it looks through all of them for each token it makes of
/// text, so that longer slices cost quadratic time.
const SLICE: usize = 4096;

/// Longest name or value, in bytes, that `rxml` makes room for at first: as much for every reference, too.
const TOKEN: usize = 8192;

/// Reads one XML document piece by piece and keeps the bytes it has read.
pub(crate) struct Feeder {
    parser: RawParser,
    bytes: Vec<u8>,
    limit: usize,
    /// Longest name or value, in bytes.
    token: usize,
    /// So many bytes follow without a carriage return.
    plain: usize,
    /// The last byte read was a carriage return: a line feed behind it belongs to it.
    returned: bool,
}

impl Feeder {
    pub(crate) fn new(limit: usize) -> Self {
        Self::with_tokens(limit, TOKEN.min(limit))
    }

    fn with_tokens(limit: usize, token: usize) -> Self {
        let options = Options { max_token_length: token, ..Options::default() };
        let parser = RawParser::with_options(options);
        Self { parser, bytes: Vec::new(), limit, token, plain: 0, returned: false }
    }

    /// One that takes names and values of any length within the limit, for what this one has read and
    /// could not. `None`: it is such a one.
    pub(super) fn lengthened(&self) -> Option<Self> {
        (self.token < self.limit).then(|| Self::with_tokens(self.limit, self.limit))
    }

    /// The bytes read so far. They end exactly where the last event ended, if that was the end of
    /// a tag.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the bytes away, at the end.
    pub(crate) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The next event, taking from `input` what it is made of. `None`: all of `input` was taken
    /// and more is needed.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<RawEvent>, Refusal> {
        loop {
            let room = self.limit.saturating_sub(self.bytes.len());
            let slice =
                input.get(..SLICE.min(room)).unwrap_or_else(|| input.get(..room).unwrap_or(input));
            if self.bytes.is_empty() {
                // Most elements arrive at once.
                self.bytes.reserve(slice.len());
            }
            let (result, length) = self.parse(slice);
            let (taken, rest) = input.split_at_checked(length).unwrap_or((input, &[]));
            self.bytes.extend_from_slice(taken);
            *input = rest;
            match result {
                Ok(Some(event)) => return Ok(Some(event)),
                Err(EndOrError::NeedMoreData) if self.bytes.len() >= self.limit => {
                    return Err(Refusal::Exceeded(Excess::Bytes));
                }
                Err(EndOrError::NeedMoreData) if input.is_empty() => return Ok(None),
                Err(EndOrError::NeedMoreData) if !taken.is_empty() => {}
                Err(EndOrError::Error(error)) => return Err(refusal(error, &self.bytes)),
                Ok(None) | Err(EndOrError::NeedMoreData) => return Err(Refusal::NotWellFormed),
            }
        }
    }

    /// What `rxml` makes of the beginning of a slice, and how much of it that takes.
    ///
    /// The end of a line is a line feed, however it is written
    /// ([XML 1.0 §2.11](https://www.w3.org/TR/2006/REC-xml-20060816/#sec-line-ends)). `rxml` refuses a
    /// carriage return alone in the value of an attribute, or loses it.
    fn parse(&mut self, slice: &[u8]) -> (Result<Option<RawEvent>, EndOrError>, usize) {
        let mut read = |mut bytes: &[u8]| {
            let length = bytes.len();
            let result = self.parser.parse(&mut bytes, false);
            (result, length - bytes.len())
        };
        if self.plain == 0 {
            if std::mem::take(&mut self.returned) && slice.starts_with(b"\n") {
                return (Err(EndOrError::NeedMoreData), 1);
            }
            if slice.starts_with(b"\r") {
                let (result, length) = read(b"\n");
                self.returned = length > 0;
                return (result, length);
            }
            self.plain = scan::before(slice, b'\r');
        }
        let (result, length) = read(slice.get(..self.plain).unwrap_or(slice));
        self.plain = self.plain.saturating_sub(length);
        (result, length)
    }
}

/// What an error means. `rxml` does not always tell, the bytes it stopped at do.
fn refusal(error: rxml::Error, read: &[u8]) -> Refusal {
    use rxml::Error as E;

    // A sequence cut short by the end of what was read is not wrong yet.
    if std::str::from_utf8(read).is_err_and(|error| error.error_len().is_some()) {
        return Refusal::UnsupportedEncoding;
    }
    match error {
        E::InvalidUtf8Byte(_) => Refusal::UnsupportedEncoding,
        // Character references that are too long end up here, too.
        E::UndeclaredEntity if !after_last(read, b'&').starts_with(b"#") => Refusal::RestrictedXml,
        E::RestrictedXml(_) => match after_last(read, b'<') {
            [b'?' | b'!', ..] => Refusal::RestrictedXml,
            _ => Refusal::Exceeded(Excess::Name),
        },
        // What starts with `<!` and is neither CDATA nor a comment belongs to a DTD.
        E::InvalidSyntax(_) if matches!(after_last(read, b'<'), [b'!', other] if *other != b'[') => {
            Refusal::RestrictedXml
        }
        _ => Refusal::NotWellFormed,
    }
}

fn after_last(bytes: &[u8], delimiter: u8) -> &[u8] {
    bytes.rsplit(|&byte| byte == delimiter).next().unwrap_or_default()
}
