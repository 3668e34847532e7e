//! `minidom` in and out.

use minidom::rxml::{Namespace, NcName};
use minidom::{Element, Node};

use super::escape::unescape;
use super::scan::{Scope, Tag, Token, Tokens, declared_prefix, split_name, utf8};
use super::write::{self, XML_NAMESPACE};
use super::{CONTENT_NAMESPACE, Head, Kind, Stanza};

/// An element with these attributes, of texts: minidom asks for a name of its own type.
///
/// A name that is none in XML is left out.
///
/// # Examples
///
/// ```
/// use xmpp_session::stanza::{Stanza, element};
///
/// let weather = element("weather", "urn:example:weather", &[("city", "Verona"), ("sky", "fair")]);
/// assert_eq!(weather.attr("sky"), Some("fair"));
/// let iq = Stanza::iq("result").id("1").child(&weather).build();
/// assert_eq!(iq.child().and_then(|child| child.attribute("city")).as_deref(), Some("Verona"));
/// ```
#[must_use]
pub fn element(name: &str, namespace: &str, attributes: &[(&str, &str)]) -> Element {
    let mut element = Element::bare(name, namespace);
    for &(name, value) in attributes {
        if let Ok(name) = NcName::try_from(name) {
            element.set_attr(Namespace::NONE, name, value);
        }
    }
    element
}

/// Why an element is no stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAStanza {
    /// The element is in another namespace than `jabber:client`.
    #[error("the element is not in the namespace jabber:client")]
    Namespace,
    /// The element is neither `<message/>` nor `<presence/>` nor `<iq/>`.
    #[error("the element is neither message nor presence nor iq")]
    Name,
}

impl Stanza {
    /// Writes an element in canonical form (rule [STREAM-15](crate::rules#stream-15)).
    ///
    /// What that form cannot hold, and an element made in code can, is replaced: characters by U+FFFD,
    /// characters of an element's name or namespace by `_`. An attribute whose name is not ASCII is
    /// left out. Addresses are taken as they stand.
    ///
    /// # Errors
    ///
    /// [`NotAStanza`] if the element's name or namespace is not that of a stanza.
    pub fn from_element(element: &Element) -> Result<Self, NotAStanza> {
        if !element.has_ns(CONTENT_NAMESPACE) {
            return Err(NotAStanza::Namespace);
        }
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == element.name());
        let kind = kind.ok_or(NotAStanza::Name)?;
        let mut other = Vec::new();
        let attributes = element
            .attrs()
            .iter()
            .map(|((namespace, name), value)| (namespace.as_str(), name.as_str(), value.as_str()));
        write::attributes(
            &mut other,
            attributes.filter(|&(namespace, name, _)| {
                !matches!(
                    (namespace, name),
                    ("", "from" | "to" | "id" | "type") | (XML_NAMESPACE, "lang")
                )
            }),
        );
        let mut payload = Vec::new();
        for node in element.nodes() {
            match node {
                Node::Element(child) => write::element(&mut payload, child),
                Node::Text(text) => write::text(&mut payload, text),
            }
        }
        let head = Head {
            kind,
            from: element.attr("from"),
            to: element.attr("to"),
            id: element.attr("id"),
            type_: element.attr("type"),
            lang: element.attr_ns(XML_NAMESPACE, "lang"),
            other: &other,
        };
        Ok(Self::assemble(&head, &payload))
    }

    /// Builds a tree of the stanza, to look inside or to change it.
    ///
    /// The tree holds no prefixes: they say nothing about its meaning, and `minidom`'s own writer
    /// fails on some of them.
    #[must_use]
    pub fn to_element(&self) -> Element {
        let mut root = Element::bare(self.kind().as_str(), CONTENT_NAMESPACE);
        let scope = Scope::stanza();
        set_attributes(&mut root, Tag(self.head()), &scope);
        fill(root, Tokens::new(self.payload()), scope)
    }
}

/// The element that `tag` starts, still empty. `scope` is what is declared around it.
pub(super) fn start<'a>(tag: Tag<'a>, scope: &Scope<'a>) -> Element {
    let (_, name) = tag.name();
    let mut element = Element::bare(name, unescape(scope.of_element(tag)));
    set_attributes(&mut element, tag, scope);
    element
}

/// Puts content into `root`, up to its end tag or the end of the bytes. `scope` is what is
/// declared inside `root`.
pub(super) fn fill<'a>(root: Element, content: Tokens<'a>, mut scope: Scope<'a>) -> Element {
    let mut current = root;
    let mut outer: Vec<Outer<'a>> = Vec::new();
    for token in content {
        match token {
            Token::Text(raw) => current.append_text(unescape(utf8(raw))),
            Token::Empty(tag) => {
                current.append_child(start(tag, &scope));
            }
            Token::Start(tag) => {
                let element = std::mem::replace(&mut current, start(tag, &scope));
                outer.push(Outer {
                    element,
                    default: scope.default,
                    declaring: scope.declaring.len(),
                });
                scope.enter(tag);
            }
            Token::End => {
                let Some(parent) = outer.pop() else { return current };
                scope.default = parent.default;
                scope.declaring.truncate(parent.declaring);
                current = parent.close(current);
            }
        }
    }
    while let Some(parent) = outer.pop() {
        current = parent.close(current);
    }
    current
}

/// An element around the one being filled, and what is declared inside it.
struct Outer<'a> {
    element: Element,
    default: &'a str,
    declaring: usize,
}

impl Outer<'_> {
    fn close(mut self, child: Element) -> Element {
        self.element.append_child(child);
        self.element
    }
}

fn set_attributes<'a>(element: &mut Element, tag: Tag<'a>, scope: &Scope<'a>) {
    for (name, value) in tag.attributes() {
        if declared_prefix(name).is_some() {
            continue;
        }
        let (prefix, local) = split_name(name);
        let Ok(local) = NcName::try_from(local) else { continue };
        let namespace = match prefix {
            "" => Namespace::NONE,
            prefix => Namespace::from(unescape(scope.of_prefix(tag, prefix)).into_owned()),
        };
        element.set_attr(namespace, local, unescape(value).into_owned());
    }
}
