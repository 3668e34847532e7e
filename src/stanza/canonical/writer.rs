//! Writes what was read in canonical form (STREAM-15). Iterative: depth costs no stack.

use std::sync::Arc;

use minidom::rxml::NcName;
use minidom::rxml::parser::RawQName;

use super::scope::{Binding, Declaration, Declarations, Scope};
use super::tag::{ParsedAttribute, Tag};
use crate::stanza::{CONTENT_NAMESPACE, write};

/// Elements and text into bytes.
///
/// Prefixes and declarations stay as they came, because text may refer to them. What is in the
/// content namespace loses its prefix, and what was declared outside is declared where it is used.
pub(super) struct Writer {
    out: Vec<u8>,
    scope: Scope,
    open: Vec<RawQName>,
    /// The last start tag still lacks its `>`: it may turn out to be empty.
    unfinished: bool,
    /// More was written than is allowed, and is thrown away.
    full: bool,
}

/// More bytes than most elements have.
const USUAL: usize = 512;

impl Writer {
    /// `outer` is declared around what is written.
    pub(super) fn new(outer: Arc<Declarations>) -> Self {
        Self {
            out: Vec::with_capacity(USUAL),
            scope: Scope::new(outer),
            open: Vec::new(),
            unfinished: false,
            full: false,
        }
    }

    pub(super) fn start(&mut self, tag: &Tag) {
        self.finish_tag();
        let prefix = tag.prefix.clone().filter(|_| **tag.namespace() != *CONTENT_NAMESPACE);
        let declarations = self.declarations(tag, prefix.as_ref());
        self.out.push(b'<');
        let name = (prefix, tag.local.clone());
        qualified(&mut self.out, &name);
        for (prefix, namespace) in &declarations {
            declaration(&mut self.out, prefix.as_deref(), namespace);
        }
        for ParsedAttribute { name, value, .. } in &tag.attributes {
            self.out.push(b' ');
            qualified(&mut self.out, name);
            quoted(&mut self.out, value);
        }
        self.scope.open(declarations);
        self.open.push(name);
        self.unfinished = true;
    }

    /// Whether `tag`, which comes next, declares the content namespace where it is in force. Kept,
    /// that would tie the element to `jabber:client` in a stream of `jabber:server` (STZ-11).
    pub(super) fn repeats_content_namespace(&self, tag: &Tag) -> bool {
        let declares = |(prefix, namespace): &Declaration| {
            prefix.is_none() && **namespace == *CONTENT_NAMESPACE
        };
        tag.declarations.iter().any(declares)
            && *self.scope.default().namespace == *CONTENT_NAMESPACE
    }

    pub(super) fn text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.finish_tag();
        write::text(&mut self.out, text);
    }

    pub(super) fn end(&mut self) {
        self.scope.close();
        let Some(name) = self.open.pop() else { return };
        if std::mem::take(&mut self.unfinished) {
            self.out.extend_from_slice(b"/>");
        } else {
            self.out.extend_from_slice(b"</");
            qualified(&mut self.out, &name);
            self.out.push(b'>');
        }
    }

    /// Discards what was written if it is more than `most` bytes, now and from then on, and says so:
    /// a prefix declared once and used often can make them many times the input.
    pub(super) fn discard_beyond(&mut self, most: usize) -> bool {
        self.full |= self.out.len() > most;
        if self.full {
            self.out.clear();
        }
        self.full
    }

    /// Whether [`discard_beyond`](Self::discard_beyond) would say so for the first time.
    pub(super) const fn would_be_beyond(&self, most: usize) -> bool {
        !self.full && self.out.len() > most
    }

    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// The declarations that an element needs or had.
    fn declarations(&self, tag: &Tag, prefix: Option<&NcName>) -> Vec<Declaration> {
        let mut declarations: Vec<Declaration> = Vec::new();
        let default = match prefix {
            None => Some(tag.namespace()),
            Some(_) => tag
                .declarations
                .iter()
                .find(|(prefix, _)| prefix.is_none())
                .map(|(_, namespace)| namespace),
        };
        if let Some(default) = default.filter(|default| **default != self.scope.default().namespace)
        {
            declarations.push((None, Arc::clone(default)));
        }
        let prefixed =
            |(prefix, _): &&Declaration| prefix.as_deref().is_some_and(|prefix| prefix != "xml");
        declarations.extend(tag.declarations.iter().filter(prefixed).cloned());

        let element = prefix.map(|prefix| (prefix.as_str(), &tag.binding));
        let attributes = tag
            .attributes
            .iter()
            .filter_map(|attribute| Some((attribute.prefix()?, attribute.binding.as_ref()?)));
        for (prefix, Binding { namespace, .. }) in element.into_iter().chain(attributes) {
            let here = declarations.iter().any(|(declared, _)| declared.as_deref() == Some(prefix));
            let above =
                || self.scope.prefix(prefix).is_some_and(|binding| binding.namespace == *namespace);
            if prefix != "xml" && !here && !above() {
                declarations.push((Some(prefix.into()), Arc::clone(namespace)));
            }
        }
        declarations
    }

    fn finish_tag(&mut self) {
        if std::mem::take(&mut self.unfinished) {
            self.out.push(b'>');
        }
    }
}

fn declaration(out: &mut Vec<u8>, prefix: Option<&str>, namespace: &str) {
    out.extend_from_slice(b" xmlns");
    if let Some(prefix) = prefix {
        out.push(b':');
        out.extend_from_slice(prefix.as_bytes());
    }
    quoted(out, namespace);
}

fn quoted(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(b"='");
    write::attribute_value(out, value);
    out.push(b'\'');
}

fn qualified(out: &mut Vec<u8>, (prefix, local): &RawQName) {
    if let Some(prefix) = prefix {
        out.extend_from_slice(prefix.as_bytes());
        out.push(b':');
    }
    out.extend_from_slice(local.as_bytes());
}
