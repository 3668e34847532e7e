//! A stanza as it was received, before it is known who sent it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::canonical::ParsedHead;
use super::head::{Attribute, Value};
use super::recognise::Outline;
use super::{Kind, Stanza};

/// A stanza as received: its attributes as text, and its payload in canonical form.
///
/// It becomes a [`Stanza`] once its sender is known: see [`stamp`](Self::stamp). If nothing
/// had to be changed, it borrows the bytes that arrived.
pub struct Received<'a>(Source<'a>);

enum Source<'a> {
    /// What the parser made of it.
    Parsed {
        head: Box<ParsedHead>,
        bytes: Vec<u8>,
        payload: Range<usize>,
        received: usize,
        claims: bool,
    },
    /// What arrived, which is in canonical form.
    Recognised { outline: Outline, text: Cow<'a, str> },
}

impl<'a> Received<'a> {
    /// `received`: bytes of it as it came; `claims`: whether an element is in a namespace of
    /// [claims](super::claims).
    pub(super) fn parsed(
        head: ParsedHead,
        bytes: Vec<u8>,
        payload: Range<usize>,
        received: usize,
        claims: bool,
    ) -> Self {
        Self(Source::Parsed { head: Box::new(head), bytes, payload, received, claims })
    }

    pub(crate) fn recognised(outline: Outline, text: impl Into<Cow<'a, str>>) -> Self {
        Self(Source::Recognised { outline, text: text.into() })
    }

    /// Message, presence or iq.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.0 {
            Source::Parsed { head, .. } => head.kind,
            Source::Recognised { outline, .. } => outline.kind,
        }
    }

    /// The sender that it names, true or not.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        self.value(Attribute::From)
    }

    /// The recipient.
    #[must_use]
    pub fn to(&self) -> Option<&str> {
        self.value(Attribute::To)
    }

    /// The id, to tell answers by.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.value(Attribute::Id)
    }

    /// The `type` attribute.
    #[must_use]
    pub fn type_(&self) -> Option<&str> {
        self.value(Attribute::Type)
    }

    /// The language, `xml:lang`.
    #[must_use]
    pub fn lang(&self) -> Option<&str> {
        self.value(Attribute::Lang)
    }

    #[inline]
    pub(super) fn value(&self, attribute: Attribute) -> Option<&str> {
        match &self.0 {
            Source::Parsed { head, .. } => head.values.get(attribute as usize)?.as_deref(),
            Source::Recognised { outline, text } => outline.value(attribute, text),
        }
    }

    /// Bytes as it came, from `<` to `>`.
    #[cfg(feature = "server")]
    pub(crate) fn bytes_received(&self) -> usize {
        match &self.0 {
            Source::Parsed { received, .. } => *received,
            Source::Recognised { text, .. } => text.len(),
        }
    }

    /// The canonical bytes between start tag and end tag.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match &self.0 {
            Source::Parsed { bytes, payload, .. } => bytes.get(payload.clone()).unwrap_or_default(),
            Source::Recognised { outline, text } => outline.payload(text),
        }
    }

    /// Makes the stanza that is passed on: `from` replaces what the sender wrote (rule [STZ-1](crate::rules#stz-1)), and
    /// `lang`, the language of its stream, is added if the stanza has none (rule [STREAM-11](crate::rules#stream-11)).
    #[must_use]
    pub fn stamp(&self, from: Option<&str>, lang: Option<&str>) -> Stanza {
        match &self.0 {
            Source::Parsed { head, .. } => {
                let values = [from, self.to(), self.id(), self.type_(), self.lang().or(lang)];
                let values = values.map(|value| value.map(Value::new));
                Stanza::join(head.kind, values, &head.other, self.payload())
            }
            Source::Recognised { outline, text } => outline.stamp(text, from, lang),
        }
    }

    /// Whether a child may say something in somebody's name (STZ-14).
    #[cfg(feature = "server")]
    pub(crate) const fn may_claim(&self) -> bool {
        match &self.0 {
            Source::Parsed { claims, .. } => *claims,
            Source::Recognised { outline, .. } => outline.claims,
        }
    }

    /// The same, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> Received<'static> {
        Received(match self.0 {
            Source::Parsed { head, bytes, payload, received, claims } => {
                Source::Parsed { head, bytes, payload, received, claims }
            }
            Source::Recognised { outline, text } => {
                Source::Recognised { outline, text: Cow::Owned(text.into_owned()) }
            }
        })
    }
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("kind", &self.kind())
            .field("payload", &self.payload().len())
            .finish_non_exhaustive()
    }
}
