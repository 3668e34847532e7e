//! The rest of a stanza that is refused: read to find its end, and for nothing else.

use super::Refusal;

/// Follows an element from its first byte to its last, in constant memory whatever it holds. It
/// goes by the brackets: what is not well-formed and does not blur where elements begin and end is
/// not noticed, and of what is left none has an effect.
pub(super) struct Skipper {
    place: Place,
    /// Elements that are open.
    depth: usize,
}

#[derive(Clone, Copy)]
enum Place {
    Text,
    /// Behind a `<`.
    Open,
    Tag,
    /// Behind a `/` in a start tag.
    Slash,
    Value(u8),
    EndTag,
    /// Behind `<!` and that much of `[CDATA[`.
    Section(usize),
    /// In a CDATA section, behind that many brackets that may end it.
    Data(u8),
}

const SECTION: &[u8] = b"[CDATA[";

impl Skipper {
    pub(super) const fn new() -> Self {
        Self { place: Place::Text, depth: 0 }
    }

    /// Takes bytes off the front of `input`, none behind the element. Whether that has ended.
    pub(super) fn feed(&mut self, input: &mut &[u8]) -> Result<bool, Refusal> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.place = self.step(byte)?;
            if self.depth == 0 && byte == b'>' && matches!(self.place, Place::Text) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn step(&mut self, byte: u8) -> Result<Place, Refusal> {
        Ok(match (self.place, byte) {
            // STREAM-19
            (_, 0x00..=0x08 | 0x0B | 0x0C | 0x0E..=0x1F) => return Err(Refusal::NotWellFormed),
            (Place::Text, b'<') => Place::Open,
            (Place::Text, _) => Place::Text,
            (Place::Open, b'/') => Place::EndTag,
            (Place::Open, b'!') => Place::Section(0),
            // STREAM-20
            (Place::Open, b'?') => return Err(Refusal::RestrictedXml),
            (
                Place::Open,
                b'<' | b'>' | b'&' | b'\'' | b'"' | b'=' | b' ' | b'\t' | b'\n' | b'\r',
            ) => {
                return Err(Refusal::NotWellFormed);
            }
            (Place::Open, _) => {
                self.depth += 1;
                Place::Tag
            }
            (Place::Slash, b'>') => self.end()?,
            (Place::Slash, _) | (Place::Tag | Place::Value(_) | Place::EndTag, b'<') => {
                return Err(Refusal::NotWellFormed);
            }
            (Place::Tag, b'>') => Place::Text,
            (Place::Tag, b'/') => Place::Slash,
            (Place::Tag, b'\'' | b'"') => Place::Value(byte),
            (Place::Tag, _) => Place::Tag,
            (Place::Value(quote), _) if quote == byte => Place::Tag,
            (Place::Value(quote), _) => Place::Value(quote),
            (Place::EndTag, b'>') => self.end()?,
            (Place::EndTag, _) => Place::EndTag,
            (Place::Section(matched), _) if SECTION.get(matched) == Some(&byte) => {
                match matched + 1 {
                    whole if whole == SECTION.len() => Place::Data(0),
                    matched => Place::Section(matched),
                }
            }
            (Place::Section(_), _) => return Err(Refusal::RestrictedXml),
            (Place::Data(brackets), b']') => Place::Data((brackets + 1).min(2)),
            (Place::Data(2), b'>') => Place::Text,
            (Place::Data(_), _) => Place::Data(0),
        })
    }

    fn end(&mut self) -> Result<Place, Refusal> {
        self.depth = self.depth.checked_sub(1).ok_or(Refusal::NotWellFormed)?;
        Ok(Place::Text)
    }
}
