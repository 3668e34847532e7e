//! The start tag of a stanza: always written here, its attributes in one fixed order, so that
//! their lengths alone say where each one is.

use std::ops::Range;
use std::sync::Arc;

use super::escape::{Context, Escaped, is_plain};
use super::{Kind, Stanza};

/// What goes into a start tag, as plain text (not escaped).
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) kind: Kind,
    pub(crate) from: Option<&'a str>,
    pub(crate) to: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    pub(crate) type_: Option<&'a str>,
    pub(crate) lang: Option<&'a str>,
    /// Further attributes, in canonical form, each with a leading space.
    pub(crate) other: &'a [u8],
}

#[cfg(test)]
impl Head<'_> {
    /// A start tag without attributes.
    pub(crate) const fn new(kind: Kind) -> Self {
        Self { kind, from: None, to: None, id: None, type_: None, lang: None, other: &[] }
    }
}

/// The attributes that have a place of their own, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    From,
    To,
    Id,
    Type,
    Lang,
}

/// What stands before each attribute's value, in written order.
const OPENINGS: [&str; 5] = [" from='", " to='", " id='", " type='", " xml:lang='"];

/// The opening of `to`, for a frame that writes its own.
pub(super) const TO: &str = " to='";

/// Lengths of the escaped values, in bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout([u32; 5]);

/// Marks an attribute that is not there.
const ABSENT: u32 = u32::MAX;

impl Layout {
    /// Where the escaped value stands, if the attribute is there.
    #[inline]
    pub(super) fn value(&self, attribute: Attribute) -> Option<Range<usize>> {
        let whole = self.whole(attribute);
        let opening = OPENINGS.get(attribute as usize)?;
        (!whole.is_empty()).then_some(whole.start + opening.len()..whole.end.saturating_sub(1))
    }

    /// Where the whole attribute stands, with leading space and quotes. Empty if it is not there.
    #[inline]
    pub(super) fn whole(&self, attribute: Attribute) -> Range<usize> {
        let mut start = 0;
        for (index, (&length, opening)) in self.0.iter().zip(OPENINGS).enumerate() {
            let end =
                if length == ABSENT { start } else { start + opening.len() + length as usize + 1 };
            if index == attribute as usize {
                return start..end;
            }
            start = end;
        }
        start..start
    }
}

/// An attribute's value on its way into a stanza.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// As it is written.
    Plain(&'a [u8]),
    /// To be escaped, and its bytes then.
    Raw(&'a str, usize),
}

impl<'a> Value<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        if is_plain(text) {
            return Self::plain(text);
        }
        Self::Raw(text, Escaped::new(text, Context::Attribute).len())
    }

    /// One that is escaped already, or known to need no escaping.
    pub(super) const fn plain(text: &'a str) -> Self {
        Self::Plain(text.as_bytes())
    }

    #[inline]
    const fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Raw(_, length) => *length,
        }
    }
}

impl Stanza {
    /// Makes a stanza of a head and a payload that is in canonical form already.
    ///
    /// The shared bytes are allocated once, in their final size. An attribute value past 4 GiB is
    /// left out.
    pub(crate) fn assemble(head: &Head<'_>, payload: &[u8]) -> Self {
        let values = [head.from, head.to, head.id, head.type_, head.lang];
        Self::join(head.kind, values.map(|value| value.map(Value::new)), head.other, payload)
    }

    /// Makes a stanza of its values, from `from` to `xml:lang`, further attributes in canonical
    /// form, and a payload.
    pub(super) fn join(
        kind: Kind,
        mut values: [Option<Value<'_>>; 5],
        other: &[u8],
        payload: &[u8],
    ) -> Self {
        let mut lengths = [ABSENT; 5];
        let mut payload_start = other.len();
        for ((place, length), opening) in values.iter_mut().zip(&mut lengths).zip(OPENINGS) {
            let Some(value) = place else { continue };
            match u32::try_from(value.len()) {
                Ok(escaped) if escaped != ABSENT => *length = escaped,
                _ => {
                    *place = None;
                    continue;
                }
            }
            payload_start += opening.len() + value.len() + 1;
        }

        let bytes = concat(payload_start + payload.len(), |room| {
            let [from, to, id, type_, lang] = values;
            let [before_from, before_to, before_id, before_type, before_lang] = OPENINGS;
            room.attribute(before_from, from);
            room.attribute(before_to, to);
            room.attribute(before_id, id);
            room.attribute(before_type, type_);
            room.attribute(before_lang, lang);
            room.put(other);
            room.put(payload);
        });
        Self { bytes, payload_start, layout: Layout(lengths), kind }
    }

    /// The attributes of the start tag as they are written, each with a leading space.
    pub(super) fn head(&self) -> &[u8] {
        self.bytes.get(..self.payload_start).unwrap_or_default()
    }

    /// Further attributes as they are written, each with a leading space.
    pub(super) fn other_attributes(&self) -> &[u8] {
        self.head().get(self.layout.whole(Attribute::Lang).end..).unwrap_or_default()
    }

    /// An attribute's value as it is written.
    pub(super) fn escaped(&self, attribute: Attribute) -> Option<&str> {
        let value = self.head().get(self.layout.value(attribute)?)?;
        std::str::from_utf8(value).ok()
    }
}

/// Joins pieces of `length` bytes in all. The shared bytes are allocated once.
pub(super) fn concat(length: usize, write: impl FnOnce(&mut Room<'_>)) -> Arc<[u8]> {
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
    if let Some(buffer) = Arc::get_mut(&mut bytes) {
        write(&mut Room(buffer));
    }
    bytes
}

/// What is left of the bytes to be written.
pub(super) struct Room<'a>(&'a mut [u8]);

impl Room<'_> {
    #[inline]
    pub(super) fn put(&mut self, piece: &[u8]) {
        if let Some((place, after)) = std::mem::take(&mut self.0).split_at_mut_checked(piece.len())
        {
            place.copy_from_slice(piece);
            self.0 = after;
        }
    }

    #[inline]
    fn attribute(&mut self, opening: &str, value: Option<Value<'_>>) {
        let Some(value) = value else { return };
        self.put(opening.as_bytes());
        match value {
            Value::Plain(bytes) => self.put(bytes),
            Value::Raw(text, _) => {
                let pieces = Escaped::new(text, Context::Attribute);
                pieces.for_each(|piece| self.put(piece.as_bytes()));
            }
        }
        self.put(b"'");
    }
}
