//! Recognises most stanzas, in one pass over their bytes, as being in canonical form already.
//!
//! A parser finds out what a stanza means; to pass one on it is enough to know that it may be passed
//! on as received, and where its addresses are. The [`Recogniser`] knows a small language, in which
//! clients write nearly everything they send. It refuses nothing: on anything else
//! [`ElementReader`](super::canonical::ElementReader) decides.
//!
//! The law it obeys: it says yes only where the parser accepts within the same bounds, with the same
//! header, and with the payload byte for byte as it came (STREAM-15).
//!
//! The language: a message, presence or iq whose start tag has no attributes but `from`, `to`, `id`,
//! `type`, `xml:lang` and `xmlns='jabber:client'`, each without anything that would be escaped;
//! inside, elements without prefixes, ASCII names, either kind of quotes, the references that the
//! canonical form knows, and no carriage return, CDATA, comment or instruction. So what a stream
//! header declares means nothing in it, but for the default namespace.

#[cfg(any(test, fuzzing))]
pub(crate) mod law;
mod outline;
#[cfg(test)]
mod tests;

pub(crate) use outline::Outline;

use super::bounds::Bounds;
use super::escape::{TEXT_REFERENCES, VALUE_REFERENCES};
use super::head::Attribute;
use super::runs::{NAME_BYTE, URI_BYTE, VALUE_BYTE, run, text_run};
use super::write::{XML_NAMESPACE, XMLNS_NAMESPACE};
use super::{CONTENT_NAMESPACE, Kind, claims};
use outline::Values;

/// Looks through one element as it arrives, whatever the pieces. It keeps offsets, no bytes: each
/// call gets all that has arrived of the element.
#[derive(Clone, Debug)]
pub(crate) struct Recogniser {
    place: State,
    /// Bytes read so far.
    at: u32,
    /// Bytes known to be UTF-8.
    characters: u32,
    /// Where the tag begins that is being read, and the value in it.
    tag: u32,
    value: u32,
    /// Names of the open elements in the payload.
    open: [u32; LEVELS],
    open_length: [u8; LEVELS],
    /// Levels of open elements, the stanza included.
    depth: u8,
    elements: u16,
    /// Where the names of this tag's attributes stand, counted from its beginning.
    attributes: [u16; ATTRIBUTES],
    attribute_count: u8,
    /// The attribute whose value is being read.
    attribute: Role,
    kind: Kind,
    /// [`IN_CONTENT`], [`CLAIMS`], and from [`FIRST`] on what the header has
    flags: u8,
    values: Values,
    payload: u16,
}

const _: () = assert!(size_of::<Recogniser>() < 100, "one may wait for each slow client");

/// The default namespace of the stanza is the content namespace.
const IN_CONTENT: u8 = 1;
/// A child is in a namespace of [claims].
const CLAIMS: u8 = 2;
/// The first attribute of the header is there, the others follow; and the declaration of its namespace.
const FIRST: u8 = 4;
const NAMESPACE: u8 = 128;
/// Levels inside of a stanza that are followed.
const LEVELS: usize = 6;
/// Attributes of one tag that are followed, declarations included.
const ATTRIBUTES: usize = 10;
/// Longest name that is followed, in bytes.
const NAME_FOLLOWED: usize = 255;

/// Where in the markup the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a `<`.
    Markup,
    Text,
    /// In a start tag, after its name or an attribute.
    Tag,
    /// In an attribute's value, after the quote.
    Apostrophes,
    Quotes,
}

/// What an attribute is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// One of the stanza's start tag.
    Header(Attribute),
    /// `xmlns`
    Namespace,
    /// Any other in the payload.
    Other,
}

/// What is known of an element so far.
pub(crate) enum Recognised<'a> {
    /// Nothing yet.
    More,
    /// Nothing: ask the parser.
    Unknown,
    /// It is a stanza in canonical form: where things stand in it, and its text.
    Canonical(Outline, &'a str),
}

/// Why there is no next step.
enum Stop {
    More,
    Unknown,
    End,
}

type Step = Result<(), Stop>;

impl Recogniser {
    /// `in_content`: the default namespace around the element is the content namespace.
    pub(crate) const fn new(in_content: bool) -> Self {
        Self {
            place: State::Markup,
            at: 0,
            characters: 0,
            tag: 0,
            value: 0,
            open: [0; LEVELS],
            open_length: [0; LEVELS],
            depth: 0,
            elements: 0,
            attributes: [0; ATTRIBUTES],
            attribute_count: 0,
            attribute: Role::Other,
            kind: Kind::Message,
            flags: if in_content { IN_CONTENT } else { 0 },
            values: [(0, 0); 5],
            payload: 0,
        }
    }

    /// Looks at what has arrived since the last call. `bytes` is all that has arrived of the element,
    /// and maybe more after it.
    pub(crate) fn advance<'a>(&mut self, bytes: &'a [u8], bounds: &Bounds) -> Recognised<'a> {
        let most = bounds.bytes.min(u32::MAX as usize);
        let bytes = bytes.get(..most).unwrap_or(bytes);
        let stop = loop {
            let rest = bytes.get(self.at as usize..).unwrap_or_default();
            let step = match self.place {
                State::Markup => self.markup(bytes, rest, bounds),
                State::Text => self.text(bytes, rest, bounds),
                State::Tag => self.tag(bytes, rest, bounds),
                State::Apostrophes => self.value(bytes, rest, b'\''),
                State::Quotes => self.value(bytes, rest, b'"'),
            };
            if let Err(stop) = step {
                break stop;
            }
        };
        match stop {
            Stop::More if bytes.len() < most && self.check_text(bytes) => Recognised::More,
            Stop::End => {
                let element = bytes.get(..self.at as usize).unwrap_or_default();
                match std::str::from_utf8(element) {
                    Ok(text) if !holds_noncharacter(text) => {
                        Recognised::Canonical(self.outline(), text)
                    }
                    _ => Recognised::Unknown,
                }
            }
            Stop::More | Stop::Unknown => Recognised::Unknown,
        }
    }

    fn outline(&self) -> Outline {
        // An empty element has no end tag.
        let end = if self.depth == 0 { u32::from(self.payload) } else { self.tag };
        let payload = (u32::from(self.payload), end);
        Outline { kind: self.kind, values: self.values, payload, claims: self.flags & CLAIMS != 0 }
    }

    /// Whether the new bytes are UTF-8, so that others are refused at once.
    fn check_text(&mut self, bytes: &[u8]) -> bool {
        let new = bytes.get(self.characters as usize..).unwrap_or_default();
        match std::str::from_utf8(new) {
            Ok(text) => self.characters += length(text.len()),
            Err(error) if error.error_len().is_none() => {
                self.characters += length(error.valid_up_to());
            }
            Err(_) => return false,
        }
        true
    }

    fn markup(&mut self, bytes: &[u8], rest: &[u8], bounds: &Bounds) -> Step {
        let [b'<', inside @ ..] = rest else { return Err(missing(rest)) };
        self.tag = self.at;
        match inside {
            [b'/', name @ ..] if self.depth > 0 => self.end_tag(bytes, name),
            _ => self.start_tag(inside, bounds),
        }
    }

    fn start_tag(&mut self, inside: &[u8], bounds: &Bounds) -> Step {
        let name = name(inside)?;
        if usize::from(self.depth) >= bounds.depth || usize::from(self.elements) >= bounds.elements
        {
            return Err(Stop::Unknown);
        }
        match self.depth.checked_sub(1) {
            None => {
                self.kind = match name {
                    b"message" => Kind::Message,
                    b"presence" => Kind::Presence,
                    b"iq" => Kind::Iq,
                    _ => return Err(Stop::Unknown),
                };
            }
            Some(level) => {
                let level = usize::from(level);
                let (Some(open), Some(open_length)) =
                    (self.open.get_mut(level), self.open_length.get_mut(level))
                else {
                    return Err(Stop::Unknown);
                };
                *open = self.at + 1;
                *open_length = u8::try_from(name.len()).map_err(|_| Stop::Unknown)?;
            }
        }
        self.elements = self.elements.checked_add(1).ok_or(Stop::Unknown)?;
        self.depth += 1;
        self.attribute_count = 0;
        self.at += 1 + length(name.len());
        self.place = State::Tag;
        Ok(())
    }

    fn end_tag(&mut self, bytes: &[u8], name: &[u8]) -> Step {
        let is_last = self.depth == 1;
        let expected = if is_last {
            self.kind.as_str().as_bytes()
        } else {
            let level = usize::from(self.depth.saturating_sub(2));
            let (Some(&open), Some(&open_length)) =
                (self.open.get(level), self.open_length.get(level))
            else {
                return Err(Stop::Unknown);
            };
            let start = open as usize;
            bytes.get(start..start + usize::from(open_length)).unwrap_or_default()
        };
        match name.split_at_checked(expected.len()) {
            Some((name, [b'>', ..])) if name == expected => {}
            Some((name, [])) if name == expected => return Err(Stop::More),
            None if expected.starts_with(name) => return Err(Stop::More),
            _ => return Err(Stop::Unknown),
        }
        self.at += length(expected.len()) + 3;
        if is_last {
            return Err(Stop::End);
        }
        self.depth -= 1;
        self.place = State::Text;
        Ok(())
    }

    fn text(&mut self, bytes: &[u8], rest: &[u8], bounds: &Bounds) -> Step {
        // Between tags there is often none.
        let plain = if rest.first() == Some(&b'<') { 0 } else { text_run(rest) };
        self.at += length(plain);
        match rest.get(plain..).unwrap_or_default() {
            [] => Err(Stop::More),
            rest @ [b'<', ..] => {
                self.place = State::Markup;
                self.markup(bytes, rest, bounds)
            }
            // Maybe the end of `]]>`, which no text holds.
            [b'>', ..] if before(bytes, self.at) != Some(b']') => {
                self.at += 1;
                Ok(())
            }
            [b'&', reference @ ..] => self.reference(reference, &TEXT_REFERENCES),
            _ => Err(Stop::Unknown),
        }
    }

    fn tag(&mut self, bytes: &[u8], rest: &[u8], bounds: &Bounds) -> Step {
        let space = rest.iter().take_while(|&&byte| is_space(byte)).count();
        self.at += length(space);
        match rest.get(space..).unwrap_or_default() {
            [] | [b'/'] => Err(Stop::More),
            [b'>', ..] => {
                self.at += 1;
                self.place = State::Text;
                self.end_of_header()
            }
            [b'/', b'>', ..] => {
                self.at += 2;
                self.place = State::Text;
                self.end_of_header()?;
                self.depth -= 1;
                if self.depth == 0 { Err(Stop::End) } else { Ok(()) }
            }
            // White space may have been looked at before.
            rest if space > 0 || before(bytes, self.at).is_some_and(is_space) => {
                self.attribute(bytes, rest, bounds)
            }
            _ => Err(Stop::Unknown),
        }
    }

    /// The start tag of the stanza itself ends here, if it is that one.
    fn end_of_header(&mut self) -> Step {
        if self.depth == 1 {
            self.payload = u16::try_from(self.at).map_err(|_| Stop::Unknown)?;
            // STREAM-13
            if self.flags & IN_CONTENT == 0 {
                return Err(Stop::Unknown);
            }
        }
        Ok(())
    }

    fn attribute(&mut self, bytes: &[u8], rest: &[u8], bounds: &Bounds) -> Step {
        // The only prefix in the language.
        let prefix: &[u8] = if rest.starts_with(b"xml:") { b"xml:" } else { b"" };
        let local = name(rest.get(prefix.len()..).unwrap_or_default())?;
        let end = prefix.len() + local.len();
        let (place, quote, value) = match rest.get(end..).unwrap_or_default() {
            [] | [b'='] => return Err(Stop::More),
            [b'=', b'\'', value @ ..] => (State::Apostrophes, b'\'', value),
            [b'=', b'"', value @ ..] => (State::Quotes, b'"', value),
            _ => return Err(Stop::Unknown),
        };
        let with_equals = rest.get(..=end).unwrap_or_default();
        self.attribute = match (self.depth, local) {
            (_, b"xmlns") if prefix.is_empty() => Role::Namespace,
            (1, b"lang") if !prefix.is_empty() => Role::Header(Attribute::Lang),
            (2.., b"lang") => Role::Other,
            _ if !prefix.is_empty() => return Err(Stop::Unknown),
            (1, b"from") => Role::Header(Attribute::From),
            (1, b"to") => Role::Header(Attribute::To),
            (1, b"id") => Role::Header(Attribute::Id),
            (1, b"type") => Role::Header(Attribute::Type),
            (1, _) => return Err(Stop::Unknown),
            _ => Role::Other,
        };
        self.remember(bytes, with_equals, bounds)?;
        self.at += length(end) + 2;
        self.value = self.at;
        self.place = place;
        self.value(bytes, value, quote)
    }

    /// Notes an attribute of this tag, unless it is there already.
    fn remember(&mut self, bytes: &[u8], name: &[u8], bounds: &Bounds) -> Step {
        let count = usize::from(self.attribute_count);
        if self.depth == 1 {
            // Of these each has a bit.
            let bit = match self.attribute {
                Role::Header(attribute) => FIRST << attribute as u8,
                Role::Namespace => NAMESPACE,
                Role::Other => return Err(Stop::Unknown),
            };
            if count >= bounds.attributes || self.flags & bit != 0 {
                return Err(Stop::Unknown);
            }
            self.flags |= bit;
            self.attribute_count += 1;
            return Ok(());
        }
        let tag = bytes.get(self.tag as usize..).unwrap_or_default();
        let known = self.attributes.get(..count).unwrap_or_default();
        let is_same =
            // Most differ at once.
            |&start: &u16| match tag.get(usize::from(start)..) {
                Some(tag) => tag.first() == name.first() && tag.starts_with(name),
                None => false,
            };
        if count >= bounds.attributes || known.iter().any(is_same) {
            return Err(Stop::Unknown);
        }
        let place = self.attributes.get_mut(count).ok_or(Stop::Unknown)?;
        *place = u16::try_from(self.at - self.tag).map_err(|_| Stop::Unknown)?;
        self.attribute_count += 1;
        Ok(())
    }

    fn value(&mut self, bytes: &[u8], rest: &[u8], quote: u8) -> Step {
        // What no URI holds is left to the parser.
        let is_namespace = self.attribute == Role::Namespace;
        let plain = run(rest, if is_namespace { URI_BYTE } else { VALUE_BYTE });
        self.at += length(plain);
        match rest.get(plain..).unwrap_or_default() {
            [] => Err(Stop::More),
            [byte, ..] if *byte == quote => self.end_of_value(bytes),
            // In the header, nothing that would be escaped.
            [b'\'' | b'"' | b'>' | b'&', ..] if self.depth == 1 || is_namespace => {
                Err(Stop::Unknown)
            }
            [b'\'' | b'"' | b'>', ..] => {
                self.at += 1;
                Ok(())
            }
            [b'&', reference @ ..] => self.reference(reference, &VALUE_REFERENCES),
            _ => Err(Stop::Unknown),
        }
    }

    fn end_of_value(&mut self, bytes: &[u8]) -> Step {
        if self.attribute == Role::Namespace {
            let namespace = bytes.get(self.value as usize..self.at as usize).unwrap_or_default();
            // STREAM-13; inside, where it may be in force already, the parser decides; and what no
            // default namespace can be (Namespaces in XML 1.0 §3).
            let in_content = namespace == CONTENT_NAMESPACE.as_bytes();
            if in_content != (self.depth == 1) || RESERVED.contains(&namespace) {
                return Err(Stop::Unknown);
            }
            if in_content {
                self.flags |= IN_CONTENT;
            } else if self.depth == 2 && claims::is_in(namespace) {
                self.flags |= CLAIMS;
            }
        } else if let Role::Header(attribute) = self.attribute {
            let place = self.values.get_mut(attribute as usize).ok_or(Stop::Unknown)?;
            let (start, end) = (u16::try_from(self.value), u16::try_from(self.at));
            let (Ok(start), Ok(end)) = (start, end) else { return Err(Stop::Unknown) };
            *place = (start, end);
        }
        self.at += 1;
        self.place = State::Tag;
        Ok(())
    }

    fn reference(&mut self, rest: &[u8], known: &[&[u8]]) -> Step {
        if let Some(reference) = known.iter().find(|reference| rest.starts_with(reference)) {
            self.at += 1 + length(reference.len());
            return Ok(());
        }
        let may_come = known.iter().any(|reference| reference.starts_with(rest));
        Err(if may_come { Stop::More } else { Stop::Unknown })
    }
}

const RESERVED: [&[u8]; 2] = [XML_NAMESPACE.as_bytes(), XMLNS_NAMESPACE.as_bytes()];

/// Whether there is a U+FFFE or U+FFFF, which XML excludes. The control characters that it excludes
/// too are not in the language anyway.
fn holds_noncharacter(text: &str) -> bool {
    !text.is_ascii() && text.contains(['\u{FFFE}', '\u{FFFF}'])
}

/// Stop at what is not there yet, or at what is not in the language.
fn missing(rest: &[u8]) -> Stop {
    if rest.is_empty() { Stop::More } else { Stop::Unknown }
}

/// The name that `bytes` begin with, if it is known where it ends.
fn name(bytes: &[u8]) -> Result<&[u8], Stop> {
    let length = run(bytes, NAME_BYTE);
    let Some((name, rest)) = bytes.split_at_checked(length) else { return Err(Stop::Unknown) };
    match name {
        _ if length > NAME_FOLLOWED => Err(Stop::Unknown),
        _ if rest.is_empty() => Err(Stop::More),
        [b'-' | b'.' | b'0'..=b'9', ..] | [] => Err(Stop::Unknown),
        _ => Ok(name),
    }
}

/// White space in a tag. A carriage return is not in the language.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n')
}

fn before(bytes: &[u8], at: u32) -> Option<u8> {
    bytes.get((at as usize).checked_sub(1)?).copied()
}

/// What is shorter than 4 GiB, as all is that [`Recogniser::advance`] looks at.
#[expect(clippy::cast_possible_truncation, reason = "no offset is larger")]
const fn length(bytes: usize) -> u32 {
    bytes as u32
}
