//! What the recogniser hands on of a stanza.

use crate::stanza::head::{Attribute, Value};
use crate::stanza::{Kind, Stanza};

/// Where the parts are of a stanza whose text is in canonical form. The values of attributes hold
/// nothing that would be escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) kind: Kind,
    pub(super) values: Values,
    pub(super) payload: (u32, u32),
    /// A child is in a namespace of [claims](crate::stanza::claims).
    pub(crate) claims: bool,
}

impl Outline {
    /// Makes the stanza of the same bytes, as [`Received::stamp`](crate::stanza::Received::stamp) does.
    pub(in crate::stanza) fn stamp(
        &self,
        text: &str,
        from: Option<&str>,
        lang: Option<&str>,
    ) -> Stanza {
        let value = |attribute: Attribute| {
            let (start, end) = self.place(attribute)?;
            text.as_bytes().get(start..end).map(Value::Plain)
        };
        let values = [
            from.map(Value::new),
            value(Attribute::To),
            value(Attribute::Id),
            value(Attribute::Type),
            value(Attribute::Lang).or_else(|| lang.map(Value::new)),
        ];
        Stanza::join(self.kind, values, &[], self.payload(text))
    }

    pub(crate) fn payload<'a>(&self, text: &'a str) -> &'a [u8] {
        text.as_bytes().get(self.payload.0 as usize..self.payload.1 as usize).unwrap_or_default()
    }

    pub(in crate::stanza) fn value<'a>(
        &self,
        attribute: Attribute,
        text: &'a str,
    ) -> Option<&'a str> {
        let (start, end) = self.place(attribute)?;
        text.get(start..end)
    }

    #[inline]
    fn place(&self, attribute: Attribute) -> Option<(usize, usize)> {
        let &(start, end) = self.values.get(attribute as usize).filter(|(_, end)| *end != 0)?;
        Some((start.into(), end.into()))
    }
}

/// Where the values of a header stand; an end of 0 means that there is none.
pub(super) type Values = [(u16, u16); 5];
