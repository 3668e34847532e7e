//! Start tags: raw events into names with their namespaces.

use std::sync::Arc;

use minidom::rxml::parser::RawQName;
use minidom::rxml::{NcName, XMLNS_XML, XMLNS_XMLNS};

use super::scope::{Binding, Declaration, Scope};
use super::{Flaw, Refusal};
use crate::stanza::bounds::{Excess, NAME};

/// A start tag that is complete and whose prefixes are known.
pub(crate) struct Tag {
    pub(crate) prefix: Option<NcName>,
    pub(crate) local: NcName,
    pub(super) binding: Binding,
    pub(crate) declarations: Vec<Declaration>,
    pub(crate) attributes: Vec<ParsedAttribute>,
}

/// An attribute that declares no namespace. Without prefix it is in no namespace.
pub(crate) struct ParsedAttribute {
    pub(crate) name: RawQName,
    pub(super) binding: Option<Binding>,
    pub(crate) value: String,
}

impl Tag {
    pub(crate) fn namespace(&self) -> &Arc<str> {
        &self.binding.namespace
    }
}

impl ParsedAttribute {
    pub(crate) fn namespace(&self) -> &str {
        self.binding.as_ref().map_or("", |binding| &binding.namespace)
    }

    pub(crate) fn prefix(&self) -> Option<&str> {
        self.name.0.as_ref().map(|prefix| prefix.as_str())
    }
}

/// Collects a start tag and makes the checks that `rxml`'s raw parser leaves to its user.
pub(crate) struct TagBuilder {
    name: Option<RawQName>,
    declarations: Vec<Declaration>,
    attributes: Vec<(RawQName, String)>,
    limit: usize,
    flaw: Option<Flaw>,
}

impl TagBuilder {
    /// At most `limit` attributes and namespace declarations in one tag (LIMIT-5).
    pub(crate) fn new(limit: usize) -> Self {
        Self { name: None, declarations: Vec::new(), attributes: Vec::new(), limit, flaw: None }
    }

    pub(crate) fn open(&mut self, name: RawQName) {
        self.check_length(&name);
        self.name = Some(name);
    }

    pub(crate) fn attribute(&mut self, name: RawQName, value: String) -> Result<(), Refusal> {
        self.check_length(&name);
        if self.declarations.len() + self.attributes.len() >= self.limit {
            self.flaw = Some(Flaw::Exceeded(Excess::Attributes));
            // Of a stanza that is refused for it, this much is needed for the answer.
            let is_address = name.0.is_none() && ADDRESSES.contains(&name.1.as_str());
            if !is_address || self.attributes.iter().any(|(other, _)| *other == name) {
                return Ok(());
            }
        }
        let declared = match &name {
            (None, local) if *local == "xmlns" => None,
            (Some(prefix), local) if *prefix == "xmlns" => Some(Box::from(local.as_str())),
            _ => {
                self.attributes.push((name, value));
                return Ok(());
            }
        };
        // Namespaces in XML 1.0 §3: this name must not be declared.
        if value == XMLNS_XMLNS || self.declarations.iter().any(|(other, _)| *other == declared) {
            return Err(Refusal::NotWellFormed);
        }
        self.declarations.push((declared, value.into()));
        Ok(())
    }

    fn check_length(&mut self, (prefix, local): &RawQName) {
        let prefix = prefix.as_ref().map_or(0, |prefix| prefix.len());
        if prefix.max(local.len()) > NAME {
            self.flaw = Some(Flaw::Exceeded(Excess::Name));
        }
    }

    pub(super) const fn flaw(&self) -> Option<Flaw> {
        self.flaw
    }

    /// The tag is complete, and nothing is declared around it.
    #[cfg(feature = "stream")]
    pub(crate) fn finish_outermost(&mut self) -> Result<Tag, Refusal> {
        match self.finish(&mut Scope::new(Arc::default()))? {
            (_, Some(Flaw::Exceeded(bound))) => Err(Refusal::Exceeded(bound)),
            (tag, _) => Ok(tag),
        }
    }

    /// The tag is complete: enters it in `scope`. With a flaw, it is not all there.
    pub(super) fn finish(&mut self, scope: &mut Scope) -> Result<(Tag, Option<Flaw>), Refusal> {
        let (prefix, local) = self.name.take().ok_or(Refusal::NotWellFormed)?;
        let flaw = self.flaw.take();
        // A prefix may have been declared by what is left out.
        let unknown = match flaw {
            Some(Flaw::Exceeded(bound)) => Refusal::Exceeded(bound),
            _ => Refusal::NotWellFormed,
        };
        let declarations = std::mem::take(&mut self.declarations);
        scope.open(declarations.iter().cloned());
        let binding = match &prefix {
            None => scope.default(),
            Some(prefix) => resolve(scope, prefix.as_str()).ok_or(unknown)?,
        };
        let mut attributes: Vec<ParsedAttribute> = Vec::with_capacity(self.attributes.len());
        for (name, value) in self.attributes.drain(..) {
            let resolved =
                name.0.as_ref().map(|prefix| resolve(scope, prefix.as_str()).ok_or(unknown));
            let attribute = ParsedAttribute { name, binding: resolved.transpose()?, value };
            // Also where two prefixes stand for one namespace (Namespaces in XML 1.0 §6.3).
            let same = |other: &ParsedAttribute| {
                other.name.1 == attribute.name.1 && other.namespace() == attribute.namespace()
            };
            if attributes.iter().any(same) {
                return Err(Refusal::NotWellFormed);
            }
            attributes.push(attribute);
        }
        Ok((Tag { prefix, local, binding, declarations, attributes }, flaw))
    }
}

/// Attributes of a stanza that an answer to it is made of.
const ADDRESSES: [&str; 4] = ["from", "to", "id", "type"];

fn resolve(scope: &Scope, prefix: &str) -> Option<Binding> {
    if prefix == "xml" {
        return Some(Binding { namespace: Arc::from(XMLNS_XML), level: 0 });
    }
    scope.prefix(prefix)
}
