//! One first-level element, from its first byte to its last.

use std::sync::{Arc, LazyLock};

use minidom::rxml::{RawEvent, XMLNS_XML};

use super::feeder::Feeder;
use super::scope::{Binding, Declarations, Scope};
use super::tag::{Attribute, Tag, TagBuilder};
use super::writer::Writer;
use super::{Bound, Bounds, Refusal, form};
use crate::stanza::{CONTENT_NAMESPACE, Kind, Received, claims, write};

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
    Stanza { head: Head, payload: Payload },
    Other(Writer),
}

/// The payload is written anew while it is read, in case it cannot be kept as it came. That costs
/// little beside the parsing, and what it takes to keep it is known only at its end.
struct Payload {
    start: usize,
    names_are_canonical: bool,
    /// An element is in a namespace of [claims].
    claims: bool,
    writer: Writer,
}

/// The start tag of a stanza.
pub(in crate::stanza) struct Head {
    pub(in crate::stanza) kind: Kind,
    pub(in crate::stanza) from: Option<String>,
    pub(in crate::stanza) to: Option<String>,
    pub(in crate::stanza) id: Option<String>,
    pub(in crate::stanza) type_: Option<String>,
    pub(in crate::stanza) lang: Option<String>,
    pub(in crate::stanza) other: Vec<u8>,
}

/// An element that is complete.
pub(crate) enum Parsed {
    /// A stanza.
    Stanza(Received<'static>),
    /// Anything else, as canonical bytes that stand alone.
    #[cfg_attr(
        not(any(feature = "stream", test)),
        expect(dead_code, reason = "only streams hold anything else")
    )]
    Other(Vec<u8>),
}

impl ElementReader {
    /// `outer` is declared around the element: the declarations of the stream header.
    pub(crate) fn new(bounds: Bounds, outer: Arc<Declarations>) -> Self {
        Self {
            feeder: Feeder::new(bounds.bytes),
            bounds,
            tag: TagBuilder::new(bounds.attributes),
            scope: Scope::new(outer),
            elements: 0,
            root: Root::Unknown,
        }
    }

    /// Takes bytes off the front of `input`, none behind the element. `None`: more is needed.
    pub(crate) fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Parsed>, Refusal> {
        while let Some(event) = self.feeder.next(input)? {
            match event {
                // Both are refused before the first byte is fed; the text of a document is inside
                // of its element.
                RawEvent::XmlDeclaration(..) => return Err(Refusal::RestrictedXml),
                RawEvent::ElementHeadOpen(_, name) => {
                    self.elements += 1;
                    if self.scope.depth() >= self.bounds.depth {
                        return Err(Refusal::Exceeded(Bound::Depth));
                    }
                    if self.elements > self.bounds.elements {
                        return Err(Refusal::Exceeded(Bound::Elements));
                    }
                    self.tag.open(name);
                }
                RawEvent::Attribute(metrics, name, value) => {
                    let raw = self.feeder.bytes();
                    let raw = raw.get(raw.len().saturating_sub(metrics.len())..).unwrap_or(raw);
                    refuse_lone_carriage_return(raw)?;
                    self.tag.attribute(name, value)?;
                }
                RawEvent::ElementHeadClose(_) => {
                    let tag = self.tag.finish(&mut self.scope)?;
                    self.start(tag)?;
                }
                RawEvent::Text(_, text) => match &mut self.root {
                    Root::Unknown => {}
                    Root::Stanza { payload: Payload { writer, .. }, .. } | Root::Other(writer) => {
                        writer.text(&text)?
                    }
                },
                RawEvent::ElementFoot(_) => {
                    match &mut self.root {
                        Root::Unknown => {}
                        Root::Stanza { payload: Payload { writer, .. }, .. }
                        | Root::Other(writer) => writer.end()?,
                    }
                    self.scope.close();
                    if self.scope.depth() == 0 {
                        return self.finish().map(Some);
                    }
                }
            }
        }
        Ok(None)
    }

    fn start(&mut self, tag: Tag) -> Result<(), Refusal> {
        match &mut self.root {
            Root::Unknown => self.root = self.root(tag)?,
            Root::Stanza { payload, .. } => {
                payload.names_are_canonical &=
                    is_canonical(&tag) && !payload.writer.repeats_content_namespace(&tag);
                payload.claims |= claims::is_in(tag.namespace().as_bytes());
                payload.writer.start(&tag)?;
            }
            Root::Other(writer) => writer.start(&tag)?,
        }
        Ok(())
    }

    fn root(&self, tag: Tag) -> Result<Root, Refusal> {
        let kinds = [Kind::Message, Kind::Presence, Kind::Iq];
        let Some(kind) = kinds.into_iter().find(|kind| tag.local == *kind.name()) else {
            let mut writer = Writer::new(Arc::clone(&NOTHING), self.bounds.written());
            writer.start(&tag)?;
            return Ok(Root::Other(writer));
        };
        // STREAM-13: a stanza of another content namespace is no stanza of this stream.
        if **tag.namespace() != *CONTENT_NAMESPACE {
            return Err(Refusal::InvalidNamespace);
        }
        let payload = Payload {
            start: self.feeder.bytes().len(),
            names_are_canonical: true,
            claims: false,
            writer: Writer::new(Arc::clone(&CONTENT), self.bounds.written()),
        };
        Ok(Root::Stanza { head: head(kind, tag), payload })
    }

    fn finish(&mut self) -> Result<Parsed, Refusal> {
        match std::mem::replace(&mut self.root, Root::Unknown) {
            Root::Unknown => Err(Refusal::NotWellFormed),
            Root::Other(writer) => Ok(Parsed::Other(writer.into_bytes())),
            Root::Stanza { head, payload } => {
                let Payload { start, names_are_canonical, claims, writer } = payload;
                let bytes = self.feeder.take_bytes();
                // The last `<` is that of the end tag, unless the stanza is an empty element.
                let end_tag = bytes.iter().rposition(|&byte| byte == b'<').unwrap_or_default();
                let range = start..end_tag.max(start);
                let keep =
                    names_are_canonical && bytes.get(range.clone()).is_some_and(form::is_canonical);
                if keep {
                    return Ok(Parsed::Stanza(Received::parsed(head, bytes, range, claims)));
                }
                let written = writer.into_bytes();
                let range = 0..written.len();
                Ok(Parsed::Stanza(Received::parsed(head, written, range, claims)))
            }
        }
    }
}

/// XML reads a lone carriage return in a value as a space. `rxml` refuses it in most places but
/// loses it in the last one; what reads differently must not pass, so it is refused everywhere.
fn refuse_lone_carriage_return(attribute: &[u8]) -> Result<(), Refusal> {
    let value = attribute.iter().position(|byte| matches!(byte, b'\'' | b'"'));
    let value = value.and_then(|start| attribute.get(start..)).unwrap_or_default();
    let mut behind_each = value.split(|&byte| byte == b'\r').skip(1);
    if behind_each.any(|behind| !behind.starts_with(b"\n")) {
        return Err(Refusal::NotWellFormed);
    }
    Ok(())
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
    let attribute = |attribute: &Attribute| attribute.binding.as_ref().is_none_or(inside);
    element
        && tag.attributes.iter().all(attribute)
        && tag.declarations.iter().all(|(prefix, _)| prefix.as_deref() != Some("xml"))
}

/// What our own start tag of a stanza declares.
pub(super) static CONTENT: LazyLock<Arc<Declarations>> =
    LazyLock::new(|| Arc::new(Declarations(vec![(None, Arc::from(CONTENT_NAMESPACE))])));

/// What is declared around an element that stands alone.
static NOTHING: LazyLock<Arc<Declarations>> = LazyLock::new(Arc::default);

fn head(kind: Kind, tag: Tag) -> Head {
    let mut head =
        Head { kind, from: None, to: None, id: None, type_: None, lang: None, other: Vec::new() };
    let mut other = Vec::new();
    for attribute in tag.attributes {
        let place = match (attribute.prefix(), attribute.name.1.as_str()) {
            (None, "from") => &mut head.from,
            (None, "to") => &mut head.to,
            (None, "id") => &mut head.id,
            (None, "type") => &mut head.type_,
            (Some("xml"), "lang") => &mut head.lang,
            _ => {
                other.push(attribute);
                continue;
            }
        };
        *place = Some(attribute.value);
    }
    let other =
        other.iter().map(|item| (item.namespace(), item.name.1.as_str(), item.value.as_str()));
    write::attributes(&mut head.other, other);
    head
}
