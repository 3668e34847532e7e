//! Child elements, seen in the canonical bytes.

use std::borrow::Cow;
use std::fmt;

use minidom::Element;

use super::element;
use super::escape::unescape;
use super::scan::{Scope, Tag, Token, Tokens, split_name, utf8};

/// One child element of a stanza, seen without building a tree.
///
/// It borrows the stanza's bytes; each method reads in them what it needs.
///
/// # Examples
///
/// ```
/// use xmpp_session::minidom::Element;
/// use xmpp_session::stanza::Stanza;
///
/// let element: Element = "<iq xmlns='jabber:client' type='get' id='1'>\
///     <query xmlns='urn:example:books' shelf='3'><title lang='it'>Novelle</title></query></iq>".parse()?;
/// let iq = Stanza::from_element(&element)?;
///
/// let query = iq.child().ok_or("an iq has one")?;
/// assert!(query.is("query", "urn:example:books"));
/// assert_eq!(query.attribute("shelf").as_deref(), Some("3"));
/// let title = query.children().find(|child| child.name() == "title").ok_or("no title")?;
/// assert_eq!((title.text(), title.attribute("lang")), ("Novelle".into(), Some("it".into())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Child<'a> {
    /// From the `<` of the element to the end of its parent's content, or further.
    bytes: &'a [u8],
    tag: Tag<'a>,
    /// What follows the start tag.
    rest: Tokens<'a>,
    /// The element is one tag.
    is_empty: bool,
    scope: Scope<'a>,
}

impl<'a> Child<'a> {
    /// The local name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.tag.name().1
    }

    /// The namespace; `jabber:client` for content-namespace children.
    #[must_use]
    pub fn namespace(&self) -> Cow<'a, str> {
        unescape(self.scope.of_element(self.tag))
    }

    /// Whether it has this local name in this namespace.
    #[must_use]
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.tag.is_named(name) && self.namespace() == namespace
    }

    /// Value of an attribute without a prefix, or of one with the prefix `xml`, named with it
    /// (`xml:lang`).
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        if !matches!(split_name(name), ("" | "xml", local) if local != "xmlns") {
            return None;
        }
        let (_, value) = self.tag.attributes().find(|&(other, _)| other == name)?;
        Some(unescape(value))
    }

    /// The text directly inside, references resolved (text inside nested elements not included).
    #[must_use]
    pub fn text(&self) -> Cow<'a, str> {
        let mut text = Cow::Borrowed("");
        let Some(mut content) = self.content() else { return text };
        loop {
            match content.next() {
                Some(Token::Text(raw)) if text.is_empty() => text = unescape(utf8(raw)),
                Some(Token::Text(raw)) => text.to_mut().push_str(&unescape(utf8(raw))),
                Some(Token::Start(_)) => content.skip_content(),
                Some(Token::Empty(_)) => {}
                Some(Token::End) | None => return text,
            }
        }
    }

    /// Its own child elements.
    pub fn children(&self) -> impl Iterator<Item = Self> + use<'a> {
        let content = self.content();
        content
            .map(|content| Children::new(content.rest(), self.scope.inside(self.tag)))
            .into_iter()
            .flatten()
    }

    /// The canonical bytes from `<` to `>`.
    ///
    /// They stand alone as a child of a stanza, except that those of a nested child
    /// ([`children`](Self::children)) may rely on declarations further outside.
    #[must_use]
    pub fn xml(&self) -> &'a [u8] {
        let mut rest = self.rest;
        if !self.is_empty {
            rest.skip_content();
        }
        let length = self.bytes.len().saturating_sub(rest.rest().len());
        self.bytes.get(..length).unwrap_or_default()
    }

    /// Builds a tree of it, to look deeper.
    #[must_use]
    pub fn to_element(&self) -> Element {
        let root = element::start(self.tag, &self.scope);
        match self.content() {
            Some(content) => element::fill(root, content, self.scope.inside(self.tag)),
            None => root,
        }
    }

    /// How many bytes there are from its `<` to the end of its parent's content.
    #[cfg(feature = "server")]
    pub(super) const fn to_end(&self) -> usize {
        self.bytes.len()
    }

    fn content(&self) -> Option<Tokens<'a>> {
        (!self.is_empty).then_some(self.rest)
    }
}

impl fmt::Debug for Child<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Child({} bytes)", self.xml().len())
    }
}

/// The elements directly in a piece of content, which ends with the bytes or an end tag.
pub(super) struct Children<'a> {
    content: Tokens<'a>,
    scope: Scope<'a>,
    /// Whether `content` still stands inside of the child that was given out last.
    in_last: bool,
}

impl<'a> Children<'a> {
    pub(super) const fn new(content: &'a [u8], scope: Scope<'a>) -> Self {
        Self { content: Tokens::new(content), scope, in_last: false }
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Child<'a>;

    fn next(&mut self) -> Option<Child<'a>> {
        if std::mem::take(&mut self.in_last) {
            self.content.skip_content();
        }
        loop {
            let bytes = self.content.rest();
            let (tag, is_empty) = match self.content.next()? {
                Token::Text(_) => continue,
                Token::Start(tag) => (tag, false),
                Token::Empty(tag) => (tag, true),
                Token::End => {
                    self.content = Tokens::new(&[]);
                    return None;
                }
            };
            self.in_last = !is_empty;
            return Some(Child {
                bytes,
                tag,
                rest: self.content,
                is_empty,
                scope: self.scope.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::Head;
    use super::super::write::XML_NAMESPACE;
    use super::super::{Kind, Stanza};
    use super::*;

    fn message(payload: &str) -> Stanza {
        Stanza::assemble(&Head::new(Kind::Message), payload.as_bytes())
    }

    #[test]
    fn children_are_found_in_order() {
        let stanza =
            message(" <body>a<b/></body>text<x xmlns='jabber:x:oob'><url>u</url></x><thread/> ");
        let names: Vec<_> =
            stanza.children().map(|child| (child.name(), child.namespace().into_owned())).collect();
        assert_eq!(
            names,
            [("body", "jabber:client"), ("x", "jabber:x:oob"), ("thread", "jabber:client")]
                .map(|(name, namespace)| (name, namespace.to_owned()))
        );
        assert_eq!(stanza.child().map(|child| child.name()), Some("body"));
        assert!(message("only text").child().is_none());
        assert!(message("").child().is_none());
    }

    #[test]
    fn a_child_knows_its_own_bytes() {
        let stanza = message("<a><a/></a><b c='>'/>tail");
        let xml: Vec<_> = stanza.children().map(|child| child.xml()).collect();
        assert_eq!(xml, [b"<a><a/></a>".as_slice(), b"<b c='>'/>"]);
        assert_eq!(format!("{:?}", stanza.child().unwrap()), "Child(11 bytes)");
    }

    #[test]
    fn namespaces_are_inherited_overridden_and_prefixed() {
        let stanza = message(
            "<a xmlns='one' xmlns:p='two'><b/><p:c><d xmlns=''><e/></d><f/><p:g xmlns:p='three'/></p:c>\
             <xml:h/><p:i/></a><p:j xmlns:p='four&amp;'/>",
        );
        let outer = stanza.child().unwrap();
        assert!(outer.is("a", "one"));
        let inner: Vec<_> = outer.children().collect();
        assert!(inner[0].is("b", "one"));
        assert!(inner[1].is("c", "two"));
        assert!(inner[2].is("h", XML_NAMESPACE));
        assert!(inner[3].is("i", "two"));
        assert_eq!(inner.len(), 4);
        let innermost: Vec<_> = inner[1].children().collect();
        assert!(innermost[0].is("d", ""));
        assert!(innermost[0].children().next().unwrap().is("e", ""));
        assert!(innermost[1].is("f", "one"));
        assert!(innermost[2].is("g", "three"));
        let second = stanza.children().nth(1).unwrap();
        assert!(second.is("j", "four&"));
        assert!(!second.is("j", "four&amp;"));
    }

    #[test]
    fn attributes_are_unescaped_and_prefixed_ones_are_others() {
        let stanza = message("<a xmlns='n' xmlns:p='m' p:b='1' b='&lt;&#x9;' xml:lang=\"de\"/>");
        let child = stanza.child().unwrap();
        assert_eq!(child.attribute("b").as_deref(), Some("<\t"));
        assert_eq!(child.attribute("xml:lang").as_deref(), Some("de"));
        for absent in ["c", "p:b", "xmlns", "xmlns:p", ""] {
            assert_eq!(child.attribute(absent), None, "{absent}");
        }
    }

    #[test]
    fn text_is_what_is_directly_inside() {
        let stanza = message(
            "<body>a&amp;<b>not<c/> this</b>b<d/>c</body><body>plain</body><body/><body></body>",
        );
        let texts: Vec<_> = stanza.children().map(|child| child.text()).collect();
        assert_eq!(texts, ["a&bc", "plain", "", ""]);
        assert!(matches!(texts[1], Cow::Borrowed(_)));
    }

    #[test]
    fn ten_thousand_levels_need_no_stack() {
        let depth = 10_000;
        let stanza = message(&["<a>".repeat(depth), "</a>".repeat(depth)].concat());
        let child = stanza.child().unwrap();
        assert_eq!(child.xml().len(), stanza.payload().len());
        assert_eq!(child.text(), "");
        let mut levels = 0;
        let mut level = Some(child);
        while let Some(child) = level {
            levels += 1;
            level = child.children().next();
        }
        assert_eq!(levels, depth);
    }
}
