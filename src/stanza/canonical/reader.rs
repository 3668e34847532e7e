//! One first-level element, from its first byte to its last.

use std::sync::{Arc, LazyLock};

use minidom::rxml::{RawEvent, XMLNS_XML};

use super::feeder::Feeder;
use super::scope::{Binding, Declaration, Declarations, Scope};
use super::skip::Skipper;
use super::tag::{ParsedAttribute, Tag, TagBuilder};
use super::writer::Writer;
use super::{Flaw, Refusal, form};
use crate::stanza::bounds::{Bounds, Excess};
use crate::stanza::{CONTENT_NAMESPACE, Kind, Received, claims, names, write};

/// Reads one element in pieces of any size; lives only as long as that element.
pub(crate) struct ElementReader {
    feeder: Feeder,
    bounds: Bounds,
    tag: TagBuilder,
    scope: Scope,
    elements: usize,
    root: Root,
}

/// What is known of the element itself.
enum Root {
    Unknown,
    Stanza {
        head: ParsedHead,
        payload: Payload,
    },
    Refused(Rest),
    Other {
        #[cfg_attr(not(feature = "stream"), expect(dead_code, reason = "only streams ask"))]
        name: (Box<str>, Arc<str>),
        writer: Writer,
    },
}

/// The payload is rewritten while it is read, in case it cannot be kept as received. That costs
/// little compared with parsing, and whether it can be kept is known only at its end.
struct Payload {
    start: usize,
    /// Bytes of the start tag when written, or an upper bound where that is enough.
    head: usize,
    names_are_canonical: bool,
    /// An element is in a namespace of [claims].
    claims: bool,
    writer: Writer,
}

/// What is read of a stanza after its flaw.
struct Rest {
    /// Given away at its end.
    refused: Option<(ParsedHead, Flaw)>,
    skipper: Skipper,
    /// Bytes of the stanza that may still come.
    left: usize,
}

/// The start tag of a stanza.
pub(in crate::stanza) struct ParsedHead {
    pub(in crate::stanza) kind: Kind,
    /// As [`Attribute`](crate::stanza::head::Attribute) orders them.
    pub(in crate::stanza) values: [Option<String>; 5],
    pub(in crate::stanza) other: Vec<u8>,
}

impl ParsedHead {
    /// Bytes of its values when they are written, by the bytes of each. The server writes `from`.
    fn written(&self, length: impl Fn(&str) -> usize) -> usize {
        let [_, values @ ..] = &self.values;
        let values: usize = values.iter().flatten().map(|value| length(value)).sum();
        values.saturating_add(self.other.len())
    }
}

/// An element that is complete.
pub(crate) enum Parsed {
    /// A stanza.
    Stanza(Received<'static>),
    /// A stanza, without its payload, that is not passed on for this reason.
    Refused(
        #[cfg_attr(
            not(any(feature = "stream", test)),
            expect(dead_code, reason = "only streams answer")
        )]
        Received<'static>,
        Flaw,
    ),
    /// Anything else, as canonical bytes that stand alone.
    #[cfg_attr(
        not(any(feature = "stream", test)),
        expect(dead_code, reason = "only streams hold anything else")
    )]
    Other(Vec<u8>),
}

/// An element of which more has to come.
#[cfg(feature = "stream")]
pub(crate) enum Opening<'a> {
    /// Its kind, unless it is refused already.
    Stanza(Option<Kind>),
    /// The local name and the namespace of anything else.
    Other(&'a str, &'a str),
}

impl ElementReader {
    /// `outer` is declared around the element: the declarations of the stream header.
    pub(crate) fn new(bounds: Bounds, outer: Arc<Declarations>) -> Self {
        Self::with_feeder(Feeder::new(bounds.bytes), bounds, outer)
    }

    fn with_feeder(feeder: Feeder, bounds: Bounds, outer: Arc<Declarations>) -> Self {
        Self {
            feeder,
            bounds,
            tag: TagBuilder::new(bounds.attributes),
            scope: Scope::new(outer),
            elements: 0,
            root: Root::Unknown,
        }
    }

    /// What is being read, if its start tag is complete.
    #[cfg(feature = "stream")]
    pub(crate) fn opening(&self) -> Option<Opening<'_>> {
        match &self.root {
            Root::Unknown => None,
            Root::Stanza { head, .. } => Some(Opening::Stanza(Some(head.kind))),
            Root::Refused(_) => Some(Opening::Stanza(None)),
            Root::Other { name: (name, namespace), .. } => Some(Opening::Other(name, namespace)),
        }
    }

    /// Takes bytes off the front of `input`, none after the element. `None`: more is needed.
    pub(crate) fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Parsed>, Refusal> {
        loop {
            if let Root::Refused(rest) = &mut self.root {
                return rest.feed(input);
            }
            let flaw = match self.feeder.next(input) {
                Ok(None) => return Ok(None),
                Ok(Some(event)) => match self.event(event)? {
                    Step::On => continue,
                    Step::End => return self.finish().map(Some),
                    Step::Flaw(flaw) => flaw,
                },
                Err(Refusal::Exceeded(Excess::Bytes)) => Flaw::Exceeded(Excess::Bytes),
                Err(Refusal::Exceeded(Excess::Name)) => match self.feeder.lengthened() {
                    Some(feeder) => {
                        let read = self.feeder.take_bytes();
                        *self = Self::with_feeder(feeder, self.bounds, self.scope.outer());
                        // It is the beginning of a longer element.
                        self.feed(&mut &read[..])?;
                        continue;
                    }
                    None => Flaw::Exceeded(Excess::Name),
                },
                Err(refusal) => return Err(refusal),
            };
            if let Some(ended) = self.refuse(flaw)? {
                return Ok(Some(ended));
            }
        }
    }

    fn event(&mut self, event: RawEvent) -> Result<Step, Refusal> {
        match event {
            // Both are refused before the first byte is fed; the text of a document is inside
            // of its element.
            RawEvent::XmlDeclaration(..) => return Err(Refusal::RestrictedXml),
            RawEvent::ElementHeadOpen(_, name) => {
                self.elements += 1;
                if self.scope.depth() >= self.bounds.depth {
                    return Ok(Step::Flaw(Flaw::Exceeded(Excess::Depth)));
                }
                if self.elements > self.bounds.elements {
                    return Ok(Step::Flaw(Flaw::Exceeded(Excess::Elements)));
                }
                self.tag.open(name);
                return Ok(Step::On);
            }
            RawEvent::Attribute(_, name, value) => {
                self.tag.attribute(name, value)?;
                return Ok(Step::On);
            }
            RawEvent::ElementHeadClose(_) => {
                // What is left out may have declared what the tag needs.
                if let (Root::Stanza { .. }, Some(flaw)) = (&self.root, self.tag.flaw()) {
                    return Ok(Step::Flaw(flaw));
                }
                let (tag, flaw) = self.tag.finish(&mut self.scope)?;
                let flaw = self.start(tag)?.or(flaw);
                if let Some(flaw) = flaw {
                    return Ok(Step::Flaw(flaw));
                }
            }
            RawEvent::Text(_, text) => {
                if let Some(writer) = self.root.writer() {
                    writer.text(&text);
                }
            }
            RawEvent::ElementFoot(_) => {
                if let Some(writer) = self.root.writer() {
                    writer.end();
                }
                self.scope.close();
                if self.scope.depth() == 0 {
                    return Ok(Step::End);
                }
            }
        }
        Ok(match self.discard_overgrown() {
            true => Step::Flaw(Flaw::Exceeded(Excess::Growth)),
            false => Step::On,
        })
    }

    /// Discards what was rewritten if it has grown too much (LIMIT-40). Says whether to refuse the
    /// element for it: a payload that may be kept as received does not grow.
    fn discard_overgrown(&mut self) -> bool {
        let most = self.bounds.growth(self.feeder.bytes().len());
        match &mut self.root {
            Root::Unknown | Root::Refused(_) => false,
            Root::Other { writer, .. } => writer.discard_beyond(most),
            Root::Stanza { head, payload } => {
                let Payload { head: written, writer, .. } = payload;
                if writer.would_be_beyond(most.saturating_sub(*written)) {
                    *written = head.written(write::attribute_value_len);
                }
                let is_full = writer.discard_beyond(most.saturating_sub(*written));
                is_full && !payload.names_are_canonical
            }
        }
    }

    fn start(&mut self, tag: Tag) -> Result<Option<Flaw>, Refusal> {
        match &mut self.root {
            Root::Unknown => return self.open(tag),
            Root::Stanza { payload, .. } => {
                if !is_portable(&tag) {
                    return Ok(Some(Flaw::Names));
                }
                payload.names_are_canonical &=
                    is_canonical(&tag) && !payload.writer.repeats_content_namespace(&tag);
                payload.claims |= claims::is_in(tag.namespace().as_bytes());
                payload.writer.start(&tag);
            }
            Root::Other { writer, .. } => writer.start(&tag),
            Root::Refused(_) => {}
        }
        Ok(None)
    }

    fn open(&mut self, tag: Tag) -> Result<Option<Flaw>, Refusal> {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| tag.local == *kind.as_str()) else {
            let name = (tag.local.as_str().into(), Arc::clone(tag.namespace()));
            let mut writer = Writer::new(Arc::clone(&NOTHING));
            writer.start(&tag);
            self.root = Root::Other { name, writer };
            return Ok(None);
        };
        // STREAM-13: a stanza of another content namespace is no stanza of this stream.
        if **tag.namespace() != *CONTENT_NAMESPACE {
            return Err(Refusal::InvalidNamespace);
        }
        let start = self.feeder.bytes().len();
        let is_portable = tag.attributes.iter().all(is_portable_attribute);
        let head = head(kind, tag);
        let most = self.bounds.growth(start);
        // Its exact length takes a look at each byte.
        let mut written = head.written(|value| value.len() * write::LONGEST_ESCAPE);
        if written > most {
            written = head.written(write::attribute_value_len);
        }
        let flaw = match written > most {
            _ if !is_portable => Some(Flaw::Names),
            true => Some(Flaw::Exceeded(Excess::Growth)),
            false => None,
        };
        let writer = Writer::new(Arc::clone(&CONTENT));
        let payload =
            Payload { start, head: written, names_are_canonical: true, claims: false, writer };
        self.root = Root::Stanza { head, payload };
        Ok(flaw)
    }

    /// A stanza is refused, and the rest of it skipped. It may have ended already. Anything but a stanza
    /// cannot be answered, and ends the stream.
    fn refuse(&mut self, flaw: Flaw) -> Result<Option<Parsed>, Refusal> {
        let Root::Stanza { head, .. } = std::mem::replace(&mut self.root, Root::Unknown) else {
            return Err(match flaw {
                Flaw::Exceeded(bound) => Refusal::Exceeded(bound),
                Flaw::Names => Refusal::NotWellFormed,
            });
        };
        let read = self.feeder.take_bytes();
        let left = self.bounds.skipped();
        let mut rest = Rest { refused: Some((head, flaw)), skipper: Skipper::new(), left };
        let parsed = rest.feed(&mut &read[..])?;
        self.root = Root::Refused(rest);
        Ok(parsed)
    }

    fn finish(&mut self) -> Result<Parsed, Refusal> {
        match std::mem::replace(&mut self.root, Root::Unknown) {
            Root::Unknown | Root::Refused(_) => Err(Refusal::NotWellFormed),
            Root::Other { writer, .. } => Ok(Parsed::Other(writer.into_bytes())),
            Root::Stanza { head, payload } => {
                let Payload { start, names_are_canonical, claims, writer, .. } = payload;
                let bytes = self.feeder.take_bytes();
                let received = bytes.len();
                // The last `<` is that of the end tag, unless the stanza is an empty element.
                let end_tag = bytes.iter().rposition(|&byte| byte == b'<').unwrap_or_default();
                let range = start..end_tag.max(start);
                let keep =
                    names_are_canonical && bytes.get(range.clone()).is_some_and(form::is_canonical);
                if keep {
                    return Ok(Parsed::Stanza(Received::parsed(
                        head, bytes, range, received, claims,
                    )));
                }
                if writer.is_full() {
                    let received = Received::parsed(head, Vec::new(), 0..0, received, claims);
                    return Ok(Parsed::Refused(received, Flaw::Exceeded(Excess::Growth)));
                }
                let written = writer.into_bytes();
                let range = 0..written.len();
                Ok(Parsed::Stanza(Received::parsed(head, written, range, received, claims)))
            }
        }
    }
}

/// What an event leads to.
enum Step {
    On,
    /// The element has ended.
    End,
    /// It is refused if it is a stanza.
    Flaw(Flaw),
}

impl Root {
    fn writer(&mut self) -> Option<&mut Writer> {
        match self {
            Self::Unknown | Self::Refused(_) => None,
            Self::Stanza { payload: Payload { writer, .. }, .. } | Self::Other { writer, .. } => {
                Some(writer)
            }
        }
    }
}

impl Rest {
    /// As [`ElementReader::feed`].
    fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Parsed>, Refusal> {
        let all = *input;
        let mut piece = all.get(..self.left).unwrap_or(all);
        let most = piece.len();
        let ended = self.skipper.feed(&mut piece)?;
        let read = most - piece.len();
        self.left -= read;
        *input = all.get(read..).unwrap_or_default();
        if !ended {
            return match self.left {
                0 => Err(Refusal::Exceeded(Excess::Bytes)),
                _ => Ok(None),
            };
        }
        let (head, flaw) = self.refused.take().ok_or(Refusal::NotWellFormed)?;
        Ok(Some(Parsed::Refused(Received::parsed(head, Vec::new(), 0..0, 0, false), flaw)))
    }
}

/// Whether the names in a tag of a payload are those of the canonical form (STREAM-15), looking
/// at prefixes only: the content namespace has none, and each other namespace is declared within
/// the payload, thus below the stanza's own start tag.
fn is_canonical(tag: &Tag) -> bool {
    let inside = |binding: &Binding| binding.level > 1 || *binding.namespace == *XMLNS_XML;
    let element = match **tag.namespace() == *CONTENT_NAMESPACE {
        true => tag.prefix.is_none(),
        false => inside(&tag.binding),
    };
    let attribute = |attribute: &ParsedAttribute| attribute.binding.as_ref().is_none_or(inside);
    element
        && tag.attributes.iter().all(attribute)
        && tag.declarations.iter().all(|(prefix, _)| prefix.as_deref() != Some("xml"))
}

/// Whether all that would be written of a tag may be (STREAM-15).
fn is_portable(tag: &Tag) -> bool {
    let declaration = |(prefix, namespace): &Declaration| {
        prefix.as_deref().is_none_or(names::is_portable) && names::is_namespace(namespace)
    };
    tag.prefix.as_ref().is_none_or(|prefix| names::is_portable(prefix.as_str()))
        && names::is_portable(tag.local.as_str())
        && is_in_namespace(&tag.binding)
        && tag.attributes.iter().all(is_portable_attribute)
        && tag.declarations.iter().all(declaration)
}

fn is_portable_attribute(attribute: &ParsedAttribute) -> bool {
    attribute.prefix().is_none_or(names::is_portable)
        && names::is_portable(attribute.name.1.as_str())
        && attribute.binding.as_ref().is_none_or(is_in_namespace)
}

/// Whether a namespace may be declared. What is declared inside of the stanza was looked at there.
fn is_in_namespace(Binding { namespace, level }: &Binding) -> bool {
    *level > 1 || **namespace == *CONTENT_NAMESPACE || names::is_namespace(namespace)
}

/// What our own start tag of a stanza declares.
pub(super) static CONTENT: LazyLock<Arc<Declarations>> =
    LazyLock::new(|| Arc::new(Declarations(vec![(None, Arc::from(CONTENT_NAMESPACE))])));

/// What is declared around an element that stands alone.
static NOTHING: LazyLock<Arc<Declarations>> = LazyLock::new(Arc::default);

fn head(kind: Kind, tag: Tag) -> ParsedHead {
    let mut values = [const { None }; 5];
    let [from, to, id, type_, lang] = &mut values;
    let mut others = Vec::new();
    for attribute in tag.attributes {
        let place = match (attribute.prefix(), attribute.name.1.as_str()) {
            (None, "from") => &mut *from,
            (None, "to") => &mut *to,
            (None, "id") => &mut *id,
            (None, "type") => &mut *type_,
            (Some("xml"), "lang") => &mut *lang,
            _ => {
                others.push(attribute);
                continue;
            }
        };
        *place = Some(attribute.value);
    }
    let others =
        others.iter().map(|item| (item.namespace(), item.name.1.as_str(), item.value.as_str()));
    let mut other = Vec::new();
    write::attributes(&mut other, others);
    ParsedHead { kind, values, other }
}
