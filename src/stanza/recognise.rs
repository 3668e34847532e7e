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
use super::runs::{HIGH, NAME_BYTE, URI_BYTE, VALUE_BYTE, run, text_run};
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
    From,
    To,
    Id,
    Type,
    Lang,
    /// `xmlns`
    Namespace,
    /// Any other in the payload.
    Other,
}

const _: () = assert!(
    Role::From as u8 == Attribute::From as u8 && Role::Lang as u8 == Attribute::Lang as u8,
    "as `Values` has them"
);

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
                State::Apostrophes => self.value_on(bytes, rest, b'\''),
                State::Quotes => self.value_on(bytes, rest, b'"'),
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
                    Ok(text) => Recognised::Canonical(self.outline(), text),
                    Err(_) => Recognised::Unknown,
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

    fn markup<'a>(&mut self, bytes: &'a [u8], rest: &'a [u8], bounds: &Bounds) -> Step {
        let [b'<', inside @ ..] = rest else { return Err(missing(rest)) };
        self.tag = self.at;
        match inside {
            [] => Err(Stop::More),
            [b'/', name @ ..] if self.depth > 0 => self.end_tag(bytes, name),
            _ => self.start_tag(bytes, inside, bounds),
        }
    }

    #[inline]
    fn start_tag<'a>(&mut self, bytes: &'a [u8], inside: &'a [u8], bounds: &Bounds) -> Step {
        if usize::from(self.depth) >= bounds.depth || usize::from(self.elements) >= bounds.elements
        {
            return Err(Stop::Unknown);
        }
        let name = match self.depth.checked_sub(1) {
            None => {
                self.kind = kind(inside)?;
                self.kind.as_str().len()
            }
            Some(level) => {
                let name = name(inside)?.len();
                let level = usize::from(level);
                let (Some(open), Some(open_length)) =
                    (self.open.get_mut(level), self.open_length.get_mut(level))
                else {
                    return Err(Stop::Unknown);
                };
                *open = self.at + 1;
                *open_length = u8::try_from(name).map_err(|_| Stop::Unknown)?;
                name
            }
        };
        self.elements = self.elements.checked_add(1).ok_or(Stop::Unknown)?;
        self.depth += 1;
        self.attribute_count = 0;
        self.at += 1 + length(name);
        self.place = State::Tag;
        self.tag(bytes, inside.get(name..).unwrap_or_default(), bounds)
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

    #[inline]
    fn text<'a>(&mut self, bytes: &'a [u8], rest: &'a [u8], bounds: &Bounds) -> Step {
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
            [HIGH, character @ ..] => self.high(character),
            _ => Err(Stop::Unknown),
        }
    }

    /// To the end of a start tag, from behind its name or an attribute.
    #[inline(always)]
    fn tag<'a>(&mut self, bytes: &'a [u8], rest: &'a [u8], bounds: &Bounds) -> Step {
        match self.depth {
            1 => self.tag_of::<true>(bytes, rest, bounds),
            _ => self.tag_of::<false>(bytes, rest, bounds),
        }
    }

    /// The same, of the stanza itself or in its payload.
    fn tag_of<'a, const STANZA: bool>(
        &mut self,
        bytes: &'a [u8],
        mut rest: &'a [u8],
        bounds: &Bounds,
    ) -> Step {
        loop {
            let space = rest.iter().take_while(|&&byte| is_space(byte)).count();
            self.at += length(space);
            rest = match rest.get(space..).unwrap_or_default() {
                [] | [b'/'] => return Err(Stop::More),
                [b'>', ..] => {
                    self.at += 1;
                    self.place = State::Text;
                    return self.end_of_header::<STANZA>();
                }
                [b'/', b'>', ..] => {
                    self.at += 2;
                    self.place = State::Text;
                    self.end_of_header::<STANZA>()?;
                    self.depth -= 1;
                    return if STANZA { Err(Stop::End) } else { Ok(()) };
                }
                // White space may have been looked at before.
                rest if space > 0 || before(bytes, self.at).is_some_and(is_space) => {
                    self.attribute::<STANZA>(bytes, rest, bounds)?
                }
                _ => return Err(Stop::Unknown),
            };
        }
    }

    /// The start tag of the stanza itself ends here, if it is that one.
    #[inline]
    fn end_of_header<const STANZA: bool>(&mut self) -> Step {
        if STANZA {
            self.payload = u16::try_from(self.at).map_err(|_| Stop::Unknown)?;
            // STREAM-13
            if self.flags & IN_CONTENT == 0 {
                return Err(Stop::Unknown);
            }
        }
        Ok(())
    }

    /// An attribute, and what is behind it.
    #[inline(always)]
    fn attribute<'a, const STANZA: bool>(
        &mut self,
        bytes: &'a [u8],
        rest: &'a [u8],
        bounds: &Bounds,
    ) -> Result<&'a [u8], Stop> {
        let (role, name) = if STANZA { header_attribute(rest)? } else { attribute(rest)? };
        let (with_equals, value) = rest.split_at_checked(name).ok_or(Stop::More)?;
        let (place, quote, value) = match value {
            [b'\'', value @ ..] => (State::Apostrophes, b'\'', value),
            [b'"', value @ ..] => (State::Quotes, b'"', value),
            _ => return Err(missing(value)),
        };
        self.attribute = role;
        self.remember::<STANZA>(bytes, with_equals, bounds)?;
        self.at += length(name) + 1;
        self.value = self.at;
        self.place = place;
        self.value::<STANZA>(bytes, value, quote)
    }

    /// Notes an attribute of this tag, unless it is there already.
    #[inline(always)]
    fn remember<const STANZA: bool>(&mut self, bytes: &[u8], name: &[u8], bounds: &Bounds) -> Step {
        let count = usize::from(self.attribute_count);
        if STANZA {
            // Of these each has a bit.
            let bit = FIRST << self.attribute as u8;
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

    /// To the end of a value, and what is behind it.
    #[inline(always)]
    fn value<'a, const STANZA: bool>(
        &mut self,
        bytes: &'a [u8],
        mut rest: &'a [u8],
        quote: u8,
    ) -> Result<&'a [u8], Stop> {
        // What no URI holds is left to the parser.
        let is_namespace = self.attribute == Role::Namespace;
        loop {
            let plain = run(rest, if is_namespace { URI_BYTE } else { VALUE_BYTE });
            self.at += length(plain);
            rest = match rest.get(plain..).unwrap_or_default() {
                [] => return Err(Stop::More),
                [byte, after @ ..] if *byte == quote => {
                    self.end_of_value::<STANZA>(bytes)?;
                    return Ok(after);
                }
                // In the header, nothing that would be escaped.
                [b'\'' | b'"' | b'>' | b'&', ..] if STANZA || is_namespace => {
                    return Err(Stop::Unknown);
                }
                [b'\'' | b'"' | b'>', after @ ..] => {
                    self.at += 1;
                    after
                }
                [b'&', reference @ ..] => {
                    self.reference(reference, &VALUE_REFERENCES)?;
                    bytes.get(self.at as usize..).unwrap_or_default()
                }
                [HIGH, character @ ..] => {
                    self.high(character)?;
                    bytes.get(self.at as usize..).unwrap_or_default()
                }
                _ => return Err(Stop::Unknown),
            };
        }
    }

    #[cold]
    fn value_on<'a>(&mut self, bytes: &'a [u8], rest: &'a [u8], quote: u8) -> Step {
        match self.depth {
            1 => self.value::<true>(bytes, rest, quote).map(|_| ()),
            _ => self.value::<false>(bytes, rest, quote).map(|_| ()),
        }
    }

    #[inline(always)]
    fn end_of_value<const STANZA: bool>(&mut self, bytes: &[u8]) -> Step {
        if self.attribute == Role::Namespace {
            let namespace = bytes.get(self.value as usize..self.at as usize).unwrap_or_default();
            // STREAM-13; inside, where it may be in force already, the parser decides; and what no
            // default namespace can be (Namespaces in XML 1.0 §3).
            let in_content = namespace == CONTENT_NAMESPACE.as_bytes();
            if in_content != STANZA || RESERVED.contains(&namespace) {
                return Err(Stop::Unknown);
            }
            if in_content {
                self.flags |= IN_CONTENT;
            } else if self.depth == 2 && claims::is_in(namespace) {
                self.flags |= CLAIMS;
            }
        } else if STANZA {
            let place = self.values.get_mut(self.attribute as usize).ok_or(Stop::Unknown)?;
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

    /// A character that may be U+FFFE or U+FFFF, which XML excludes. The control characters that it excludes too
    /// are not in the language anyway.
    fn high(&mut self, rest: &[u8]) -> Step {
        match rest {
            [0xBF, 0xBE | 0xBF, ..] => Err(Stop::Unknown),
            [_, _, ..] => {
                // What is no character is not UTF-8.
                self.at += 3;
                Ok(())
            }
            _ => Err(Stop::More),
        }
    }
}

const RESERVED: [&[u8]; 2] = [XML_NAMESPACE.as_bytes(), XMLNS_NAMESPACE.as_bytes()];

/// Stop at what is not there yet, or at what is not in the language.
fn missing(rest: &[u8]) -> Stop {
    if rest.is_empty() { Stop::More } else { Stop::Unknown }
}

/// What stanza begins here, if it is known.
#[inline]
fn kind(name: &[u8]) -> Result<Kind, Stop> {
    // What is behind the name, the rest of a tag decides.
    match name {
        [b'm', b'e', b's', b's', b'a', b'g', b'e', ..] => Ok(Kind::Message),
        [b'p', b'r', b'e', b's', b'e', b'n', b'c', b'e', ..] => Ok(Kind::Presence),
        [b'i', b'q', ..] => Ok(Kind::Iq),
        _ => Err(begins(name, &[b"message", b"presence", b"iq"])),
    }
}

/// What an attribute in the start tag of a stanza is for, and the length of its name with the `=`.
#[inline]
fn header_attribute(name: &[u8]) -> Result<(Role, usize), Stop> {
    match name {
        [b't', b'o', b'=', ..] => Ok((Role::To, 3)),
        [b'i', b'd', b'=', ..] => Ok((Role::Id, 3)),
        [b't', b'y', b'p', b'e', b'=', ..] => Ok((Role::Type, 5)),
        [b'f', b'r', b'o', b'm', b'=', ..] => Ok((Role::From, 5)),
        [b'x', b'm', b'l', b'n', b's', b'=', ..] => Ok((Role::Namespace, 6)),
        [b'x', b'm', b'l', b':', b'l', b'a', b'n', b'g', b'=', ..] => Ok((Role::Lang, 9)),
        _ => Err(begins(name, &[b"to=", b"id=", b"type=", b"from=", b"xmlns=", b"xml:lang="])),
    }
}

/// The same in the payload.
#[inline]
fn attribute(bytes: &[u8]) -> Result<(Role, usize), Stop> {
    if let [b'x', b'm', b'l', b'n', b's', b'=', ..] = bytes {
        return Ok((Role::Namespace, 6));
    }
    // The only prefix in the language.
    let prefix = if bytes.starts_with(b"xml:") { 4 } else { 0 };
    let local = name(bytes.get(prefix..).unwrap_or_default())?;
    let end = prefix + local.len();
    match bytes.get(end) {
        None => Err(Stop::More),
        Some(b'=') if prefix == 0 || local == b"lang" => Ok((Role::Other, end + 1)),
        Some(_) => Err(Stop::Unknown),
    }
}

/// Why `bytes` are none of these names: they end too soon, or there is no such.
#[cold]
fn begins(bytes: &[u8], names: &[&[u8]]) -> Stop {
    let may_come = names.iter().any(|name| name.starts_with(bytes));
    if may_come { Stop::More } else { Stop::Unknown }
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
