//! Start tags: raw events into names with their namespaces.

use std::sync::Arc;

use minidom::rxml::parser::RawQName;
use minidom::rxml::{NcName, XMLNS_XML, XMLNS_XMLNS};

use super::scope::{Binding, Declaration, Scope};
use super::{Bound, Refusal};

/// A start tag that is complete and whose prefixes are known.
pub(crate) struct Tag {
    pub(crate) prefix: Option<NcName>,
    pub(crate) local: NcName,
    pub(super) binding: Binding,
    pub(crate) declarations: Vec<Declaration>,
    pub(crate) attributes: Vec<Attribute>,
}

/// An attribute that declares no namespace. Without prefix it is in no namespace.
pub(crate) struct Attribute {
    pub(crate) name: RawQName,
    pub(super) binding: Option<Binding>,
    pub(crate) value: String,
}

impl Tag {
    pub(crate) fn namespace(&self) -> &Arc<str> {
        &self.binding.namespace
    }
}

impl Attribute {
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
}

impl TagBuilder {
    /// At most `limit` attributes and namespace declarations in one tag (LIMIT-5).
    pub(crate) fn new(limit: usize) -> Self {
        Self { name: None, declarations: Vec::new(), attributes: Vec::new(), limit }
    }

    pub(crate) fn open(&mut self, name: RawQName) {
        self.name = Some(name);
    }

    pub(crate) fn attribute(&mut self, name: RawQName, value: String) -> Result<(), Refusal> {
        if self.declarations.len() + self.attributes.len() >= self.limit {
            return Err(Refusal::Exceeded(Bound::Attributes));
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

    /// The tag is complete, and nothing is declared around it.
    #[cfg(feature = "stream")]
    pub(crate) fn finish_outermost(&mut self) -> Result<Tag, Refusal> {
        self.finish(&mut Scope::new(Arc::default()))
    }

    /// The tag is complete: enters it in `scope`.
    pub(super) fn finish(&mut self, scope: &mut Scope) -> Result<Tag, Refusal> {
        let (prefix, local) = self.name.take().ok_or(Refusal::NotWellFormed)?;
        let declarations = std::mem::take(&mut self.declarations);
        scope.open(declarations.iter().cloned());
        let binding = match &prefix {
            None => scope.default(),
            Some(prefix) => resolve(scope, prefix.as_str())?,
        };
        let mut attributes: Vec<Attribute> = Vec::with_capacity(self.attributes.len());
        for (name, value) in self.attributes.drain(..) {
            let binding =
                name.0.as_ref().map(|prefix| resolve(scope, prefix.as_str())).transpose()?;
            let attribute = Attribute { name, binding, value };
            // Also where two prefixes stand for one namespace (Namespaces in XML 1.0 §6.3).
            let same = |other: &Attribute| {
                other.name.1 == attribute.name.1 && other.namespace() == attribute.namespace()
            };
            if attributes.iter().any(same) {
                return Err(Refusal::NotWellFormed);
            }
            attributes.push(attribute);
        }
        Ok(Tag { prefix, local, binding, declarations, attributes })
    }
}

fn resolve(scope: &Scope, prefix: &str) -> Result<Binding, Refusal> {
    if prefix == "xml" {
        return Ok(Binding { namespace: Arc::from(XMLNS_XML), level: 0 });
    }
    scope.prefix(prefix).ok_or(Refusal::NotWellFormed)
}
