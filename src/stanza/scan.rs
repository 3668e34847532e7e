//! A scanner of canonical bytes (STREAM-15): what the parser has accepted is read here without a
//! tree, without recursion and without copying.
//!
//! It is no parser: it relies on what was checked before. Bytes that are no XML make it stop.

use smallvec::SmallVec;

use super::CONTENT_NAMESPACE;
use super::runs::{self, TAG_BYTE, WORD_BYTE, run};
use super::write::XML_NAMESPACE;

/// One piece of an element's content.
#[derive(Clone, Copy)]
pub(super) enum Token<'a> {
    Start(Tag<'a>),
    Empty(Tag<'a>),
    End,
    Text(&'a [u8]),
}

/// The pieces of a payload, in order.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads on to just after the end tag of the element that is open here. Out of line, as `text_run`.
    #[inline(never)]
    pub(super) fn skip_content(&mut self) {
        let mut depth = 1_usize;
        for token in self.by_ref() {
            match token {
                Token::Start(_) => depth += 1,
                Token::End if depth == 1 => return,
                Token::End => depth -= 1,
                Token::Empty(_) | Token::Text(_) => {}
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let Some(markup) = self.rest.strip_prefix(b"<") else {
            let (text, rest) = self.rest.split_at_checked(before(self.rest, b'<'))?;
            self.rest = rest;
            return (!text.is_empty()).then_some(Token::Text(text));
        };
        let (tag, rest) = split_tag(markup)?;
        self.rest = rest;
        Some(match (tag, tag.strip_suffix(b"/")) {
            ([b'/', ..], _) => Token::End,
            (_, Some(tag)) => Token::Empty(Tag(tag)),
            (tag, None) => Token::Start(Tag(tag)),
        })
    }
}

/// How many bytes there are before the first of that value. They may be many, so several are looked at
/// at once.
pub(super) fn before(bytes: &[u8], end: u8) -> usize {
    const AT_ONCE: usize = 32;
    let (pieces, _) = bytes.as_chunks::<AT_ONCE>();
    // Without an early exit and without branches, this becomes a few vector instructions.
    let is_before = |piece: &&[u8; AT_ONCE]| {
        piece.iter().fold(0, |any, &byte| any | u8::from(byte == end)) == 0
    };
    let seen = AT_ONCE * pieces.iter().take_while(is_before).count();
    let rest = bytes.get(seen..).unwrap_or_default();
    seen + runs::before(rest, end)
}

/// Splits after a `<` at the `>` that ends the tag. A `>` inside quotes ends nothing.
fn split_tag(markup: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        at += run(markup.get(at..)?, TAG_BYTE);
        let (tag, after) = markup.split_at_checked(at)?;
        match after.split_first()? {
            (b'>', rest) => return Some((tag, rest)),
            (quote, value) => at += runs::before(value, *quote) + 2,
        }
    }
}

/// A start tag, without what delimits it.
#[derive(Clone, Copy)]
pub(super) struct Tag<'a>(pub(super) &'a [u8]);

impl<'a> Tag<'a> {
    /// The prefix, or nothing, and the local name.
    pub(super) fn name(&self) -> (&'a str, &'a str) {
        split_name(utf8(self.whole_name()))
    }

    fn whole_name(&self) -> &'a [u8] {
        self.0.get(..run(self.0, WORD_BYTE)).unwrap_or_default()
    }

    /// Whether this is its local name.
    pub(super) fn is_named(&self, local: &str) -> bool {
        let name = self.whole_name();
        let has_prefix = |name: &[u8]| name.get(..runs::before(name, b':')) != Some(name);
        match name.strip_suffix(local.as_bytes()) {
            Some([]) => !has_prefix(name),
            Some([prefix @ .., b':']) => !has_prefix(prefix),
            _ => false,
        }
    }

    /// The attributes as (whole name, escaped value), declarations of namespaces among them.
    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.0.get(run(self.0, WORD_BYTE)..).unwrap_or_default() }
    }

    /// The escaped namespace that this tag declares for a prefix (or for none).
    pub(super) fn declared(&self, prefix: &str) -> Option<&'a str> {
        self.attributes()
            .find_map(|(name, value)| (declared_prefix(name)? == prefix).then_some(value))
    }

    /// Whether this tag declares a prefix.
    pub(super) fn declares_prefix(&self) -> bool {
        self.attributes().any(|(name, _)| name.starts_with("xmlns:"))
    }
}

/// See [`Tag::attributes`].
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = split_at_byte(self.rest, b'=')?;
        let (&quote, rest) = rest.trim_ascii_start().split_first()?;
        let (value, rest) = split_at_byte(rest, quote)?;
        self.rest = rest;
        Some((utf8(name.trim_ascii()), utf8(value)))
    }
}

/// The namespaces declared around an element. Namespaces are kept escaped.
pub(super) struct Scope<'a> {
    pub(super) default: &'a str,
    /// The tags around that declare prefixes, outermost first: none, in most stanzas.
    pub(super) declaring: SmallVec<[Tag<'a>; 1]>,
}

impl Clone for Scope<'_> {
    fn clone(&self) -> Self {
        let is_plain = self.declaring.is_empty();
        let declaring = if is_plain { SmallVec::new() } else { self.declaring.clone() };
        Self { default: self.default, declaring }
    }
}

impl<'a> Scope<'a> {
    /// The scope of a stanza's own children.
    pub(super) fn stanza() -> Self {
        Self { default: CONTENT_NAMESPACE, declaring: SmallVec::new() }
    }

    /// The scope of what is inside `tag`.
    pub(super) fn inside(&self, tag: Tag<'a>) -> Self {
        let mut scope = self.clone();
        scope.enter(tag);
        scope
    }

    /// Takes in what `tag` declares.
    pub(super) fn enter(&mut self, tag: Tag<'a>) {
        self.default = tag.declared("").unwrap_or(self.default);
        if tag.declares_prefix() {
            self.declaring.push(tag);
        }
    }

    /// The escaped namespace of the element that `tag` starts.
    pub(super) fn of_element(&self, tag: Tag<'a>) -> &'a str {
        match tag.name() {
            ("", _) => tag.declared("").unwrap_or(self.default),
            (prefix, _) => self.of_prefix(tag, prefix),
        }
    }

    /// The escaped namespace of a prefix used in `tag`; empty if it is declared nowhere.
    pub(super) fn of_prefix(&self, tag: Tag<'a>, prefix: &str) -> &'a str {
        if prefix == "xml" {
            return XML_NAMESPACE;
        }
        let around = || self.declaring.iter().rev().find_map(|tag| tag.declared(prefix));
        tag.declared(prefix).or_else(around).unwrap_or_default()
    }
}

/// The prefix (or nothing) whose namespace an attribute of this name declares.
pub(super) fn declared_prefix(attribute: &str) -> Option<&str> {
    match attribute.strip_prefix("xmlns")? {
        "" => Some(""),
        more => more.strip_prefix(':'),
    }
}

/// Prefix, or nothing, and local name.
pub(super) fn split_name(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or(("", name))
}

fn split_at_byte(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = bytes.split_at_checked(runs::before(bytes, byte))?;
    Some((before, after.get(1..)?))
}

pub(super) fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tag_ends_outside_quotes() {
        let mut tokens = Tokens::new(br#"<a b='>"/' c = ">'"  d=''/>rest"#);
        let Some(Token::Empty(tag)) = tokens.next() else { panic!("an empty tag") };
        assert_eq!(tag.name(), ("", "a"));
        let attributes: Vec<_> = tag.attributes().collect();
        assert_eq!(attributes, [("b", ">\"/"), ("c", ">'"), ("d", "")]);
        assert_eq!(tokens.rest(), b"rest");
    }

    #[test]
    fn declarations_are_found() {
        let tag = Tag(b"x:a xmlns='one' xmlns:x='two'\nxmlnsy='three'");
        assert_eq!(tag.name(), ("x", "a"));
        assert_eq!(tag.declared(""), Some("one"));
        assert_eq!(tag.declared("x"), Some("two"));
        assert_eq!(tag.declared("y"), None);
        assert!(tag.declares_prefix());
        assert!(!Tag(b"a xmlns='one'").declares_prefix());
    }

    #[test]
    fn an_element_is_skipped_with_all_inside() {
        let mut tokens = Tokens::new(b"<b><c/></b>text<b></b></a><next/>");
        tokens.skip_content();
        assert_eq!(tokens.rest(), b"<next/>");
    }

    #[test]
    fn text_of_any_length_ends_at_the_next_tag() {
        for length in 1..100 {
            let bytes = ["a".repeat(length), "<b/>".repeat(2)].concat();
            for bytes in [bytes.as_bytes(), &bytes.as_bytes()[..length]] {
                let Some(Token::Text(text)) = Tokens::new(bytes).next() else { panic!("text") };
                assert_eq!(text.len(), length);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned_to_an_end(bytes in "[<>/a=' \"x:&;]*") {
            for token in Tokens::new(bytes.as_bytes()) {
                if let Token::Start(tag) | Token::Empty(tag) = token {
                    tag.name();
                    tag.attributes().count();
                }
            }
            Tokens::new(bytes.as_bytes()).skip_content();
        }
    }
}
