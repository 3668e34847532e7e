//! The rest of a stanza that is refused: read to find its end, and for nothing else.

use super::Refusal;

/// Follows an element from its first byte to its last, in constant memory. It looks only at
/// brackets: XML that is not well-formed goes unnoticed where it does not hide the beginning or end
/// of an element, and has no effect.
pub(super) struct Skipper {
    place: State,
    /// Elements that are open.
    depth: usize,
}

#[derive(Clone, Copy)]
enum State {
    Text,
    /// After a `<`.
    Open,
    Tag,
    /// After a `/` in a start tag.
    Slash,
    Value(u8),
    EndTag,
    /// After `<!` and this much of `[CDATA[`.
    Section(usize),
    /// In a CDATA section, after this many brackets that may end it.
    Data(u8),
}

const SECTION: &[u8] = b"[CDATA[";

impl Skipper {
    pub(super) const fn new() -> Self {
        Self { place: State::Text, depth: 0 }
    }

    /// Takes bytes off the front of `input`, none after the element. Says whether that has ended.
    pub(super) fn feed(&mut self, input: &mut &[u8]) -> Result<bool, Refusal> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.place = self.step(byte)?;
            if self.depth == 0 && byte == b'>' && matches!(self.place, State::Text) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        Ok(match (self.place, byte) {
            // STREAM-19
            (_, 0x00..=0x08 | 0x0B | 0x0C | 0x0E..=0x1F) => return Err(Refusal::NotWellFormed),
            (State::Text, b'<') => State::Open,
            (State::Text, _) => State::Text,
            (State::Open, b'/') => State::EndTag,
            (State::Open, b'!') => State::Section(0),
            // STREAM-20
            (State::Open, b'?') => return Err(Refusal::RestrictedXml),
            (
                State::Open,
                b'<' | b'>' | b'&' | b'\'' | b'"' | b'=' | b' ' | b'\t' | b'\n' | b'\r',
            ) => {
                return Err(Refusal::NotWellFormed);
            }
            (State::Open, _) => {
                self.depth += 1;
                State::Tag
            }
            (State::Slash, b'>') => self.end()?,
            (State::Slash, _) | (State::Tag | State::Value(_) | State::EndTag, b'<') => {
                return Err(Refusal::NotWellFormed);
            }
            (State::Tag, b'>') => State::Text,
            (State::Tag, b'/') => State::Slash,
            (State::Tag, b'\'' | b'"') => State::Value(byte),
            (State::Tag, _) => State::Tag,
            (State::Value(quote), _) if quote == byte => State::Tag,
            (State::Value(quote), _) => State::Value(quote),
            (State::EndTag, b'>') => self.end()?,
            (State::EndTag, _) => State::EndTag,
            (State::Section(matched), _) if SECTION.get(matched) == Some(&byte) => {
                match matched + 1 {
                    whole if whole == SECTION.len() => State::Data(0),
                    matched => State::Section(matched),
                }
            }
            (State::Section(_), _) => return Err(Refusal::RestrictedXml),
            (State::Data(brackets), b']') => State::Data((brackets + 1).min(2)),
            (State::Data(2), b'>') => State::Text,
            (State::Data(_), _) => State::Data(0),
        })
    }

    fn end(&mut self) -> Result<State, Refusal> {
        self.depth = self.depth.checked_sub(1).ok_or(Refusal::NotWellFormed)?;
        Ok(State::Text)
    }
}
