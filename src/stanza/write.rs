//! Writes the canonical form of STREAM-15: single quotes, no prefixes on elements, each foreign
//! namespace declared where it begins.
//!
//! No recursion, and no panic on anything that a [`minidom::Element`] can hold. What canonical XML
//! cannot hold is replaced: characters by U+FFFD, characters of names and namespaces by `_`.

use std::rc::Rc;

use minidom::element::Nodes;
use minidom::rxml::strings::validate_ncname;
use minidom::{Element, Node};

use super::escape::{Context, Escaped};
use super::runs::is_uri_byte;
use super::{CONTENT_NAMESPACE, names};

/// The namespace of the predeclared prefix `xml`.
pub(super) const XML_NAMESPACE: &str = "http://www.w3.org/XML/1998/namespace";

/// The namespace of `xmlns` attributes: no element and no further attribute may be in it
/// ([Namespaces in XML §3](https://www.w3.org/TR/xml-names/#ns-decl)).
pub(super) const XMLNS_NAMESPACE: &str = "http://www.w3.org/2000/xmlns/";

/// Appends character data.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    Escaped::new(text, Context::Text).for_each(|piece| out.extend_from_slice(piece.as_bytes()));
}

/// Appends an attribute's value, without the quotes around it.
pub(crate) fn attribute_value(out: &mut Vec<u8>, value: &str) {
    Escaped::new(value, Context::Attribute)
        .for_each(|piece| out.extend_from_slice(piece.as_bytes()));
}

/// Appends an attribute whose name needs no care, with a leading space.
pub(crate) fn attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    quoted(out, name, value);
}

/// Appends an element that holds at most text. Its names need no care.
pub(crate) fn leaf(
    out: &mut Vec<u8>,
    name: &str,
    attributes: &[(&str, &str)],
    content: Option<&str>,
) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    attributes.iter().for_each(|(name, value)| attribute(out, name, value));
    let Some(content) = content else { return out.extend_from_slice(b"/>") };
    out.push(b'>');
    text(out, content);
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

/// Most bytes that [`attribute_value`] appends for one: `&apos;`.
pub(crate) const LONGEST_ESCAPE: usize = 6;

/// Bytes that [`attribute_value`] appends.
pub(crate) fn attribute_value_len(value: &str) -> usize {
    Escaped::new(value, Context::Attribute).len()
}

/// Appends attributes, each with a leading space, given as (namespace, local name, value).
///
/// One in a namespace gets a prefix that is declared beside it. No element bears a prefix, so the
/// same prefix may well be declared again further inside. An attribute named `xmlns`, or in a
/// namespace that cannot be declared, is left out: it would change the names around it. So is one
/// whose name is not ASCII.
pub(crate) fn attributes<'a>(
    out: &mut Vec<u8>,
    attributes: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
) {
    let mut declared: Option<&str> = None;
    let mut prefix = String::new();
    let mut prefixes = 0_usize;
    for (namespace, local, value) in attributes {
        match namespace {
            _ if !names::is_portable(local) => continue,
            "" if local == "xmlns" => continue,
            XMLNS_NAMESPACE => continue,
            "" => out.push(b' '),
            XML_NAMESPACE => out.extend_from_slice(b" xml:"),
            _ if !names::is_namespace(namespace) => continue,
            _ => {
                if declared != Some(namespace) {
                    declared = Some(namespace);
                    prefix = format!("ns{prefixes}");
                    prefixes += 1;
                    out.extend_from_slice(b" xmlns:");
                    quoted(out, &prefix, namespace);
                }
                out.push(b' ');
                out.extend_from_slice(prefix.as_bytes());
                out.push(b':');
            }
        }
        quoted(out, local, value);
    }
}

/// A child element of a stanza, with all that is inside.
pub(crate) fn to_vec(child: &Element) -> Vec<u8> {
    let mut out = Vec::new();
    element(&mut out, child);
    out
}

/// Appends a child element of a stanza, with all that is inside.
pub(crate) fn element(out: &mut Vec<u8>, element: &Element) {
    let content: Rc<str> = Rc::from(CONTENT_NAMESPACE);
    let mut open: Vec<Open<'_>> = Vec::new();
    open.extend(open_tag(out, element, &content));
    while let Some(innermost) = open.last_mut() {
        match innermost.nodes.next() {
            Some(Node::Text(data)) => text(out, data),
            Some(Node::Element(child)) => {
                let default = Rc::clone(&innermost.default);
                open.extend(open_tag(out, child, &default));
            }
            None => {
                out.extend_from_slice(b"</");
                name(out, innermost.element);
                out.push(b'>');
                open.pop();
            }
        }
    }
}

/// An element whose end tag is not written yet.
struct Open<'a> {
    element: &'a Element,
    nodes: Nodes<'a>,
    default: Rc<str>,
}

/// Writes a start tag where `outer` is the default namespace. `None` if it is the end tag too.
fn open_tag<'a>(out: &mut Vec<u8>, element: &'a Element, outer: &Rc<str>) -> Option<Open<'a>> {
    out.push(b'<');
    name(out, element);
    let mut default = Rc::clone(outer);
    if !element.has_ns(&**outer) && !element.has_ns(XML_NAMESPACE) {
        let namespace = element.ns();
        // Nothing can be in the namespace of declarations: such an element ends up in none.
        let namespace = match namespace.as_str() {
            XMLNS_NAMESPACE => String::new(),
            name => name.replace(|c: char| !c.is_ascii() || !is_uri_byte(c as u8), "_"),
        };
        if *namespace != *default {
            default = Rc::from(&*namespace);
            attribute(out, "xmlns", &namespace);
        }
    }
    attributes(
        out,
        element
            .attrs()
            .iter()
            .map(|((namespace, name), value)| (namespace.as_str(), name.as_str(), value.as_str())),
    );
    let nodes = element.nodes();
    if nodes.as_slice().is_empty() {
        out.extend_from_slice(b"/>");
        return None;
    }
    out.push(b'>');
    Some(Open { element, nodes, default })
}

fn quoted(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    attribute_value(out, value);
    out.push(b'\'');
}

fn name(out: &mut Vec<u8>, element: &Element) {
    if element.has_ns(XML_NAMESPACE) {
        // This namespace must not be declared as the default one.
        out.extend_from_slice(b"xml:");
    }
    let name = element.name();
    if validate_ncname(name).is_ok() && names::is_portable(name) {
        out.extend_from_slice(name.as_bytes());
        return;
    }
    out.push(b'_');
    out.extend(name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte } else { b'_' }));
}
