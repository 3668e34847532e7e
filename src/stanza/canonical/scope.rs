//! Namespace declarations and what they are in force for.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A declaration: the prefix (`None` is the default namespace) and the namespace name, which is
/// empty where the default namespace is undeclared.
pub(crate) type Declaration = (Option<Box<str>>, Arc<str>);

/// The declarations of a stream header, in force for all elements of that stream (STREAM-15).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Declarations(pub(crate) Vec<Declaration>);

impl Declarations {
    pub(crate) fn get(&self, prefix: Option<&str>) -> Option<&Arc<str>> {
        self.0
            .iter()
            .find(|(declared, _)| declared.as_deref() == prefix)
            .map(|(_, namespace)| namespace)
    }
}

/// What a prefix stands for, and the level of the element that says so: 0 is outside of the first
/// element, 1 that element itself.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) namespace: Arc<str>,
    pub(super) level: usize,
}

/// The declarations in force, while elements open and close.
///
/// Looking up a prefix must not depend on how many elements are open: input could be chosen such
/// that time grows with the square of its length.
pub(super) struct Scope {
    outer: Arc<Declarations>,
    prefixes: BTreeMap<Box<str>, Vec<Binding>>,
    levels: Vec<Level>,
}

struct Level {
    default: Binding,
    declared: Vec<Box<str>>,
}

impl Scope {
    pub(super) fn new(outer: Arc<Declarations>) -> Self {
        Self { outer, prefixes: BTreeMap::new(), levels: Vec::new() }
    }

    /// What is declared around the first element.
    pub(super) fn outer(&self) -> Arc<Declarations> {
        Arc::clone(&self.outer)
    }

    /// How many elements are open.
    pub(super) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Enters an element with these declarations, which name each prefix at most once.
    pub(super) fn open(&mut self, declarations: impl IntoIterator<Item = Declaration>) {
        let level = self.depth() + 1;
        let mut default = self.default();
        let mut declared = Vec::new();
        for (prefix, namespace) in declarations {
            let binding = Binding { namespace, level };
            match prefix {
                None => default = binding,
                Some(prefix) => {
                    self.prefixes.entry(prefix.clone()).or_default().push(binding);
                    declared.push(prefix);
                }
            }
        }
        self.levels.push(Level { default, declared });
    }

    /// Leaves the innermost element.
    pub(super) fn close(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        for prefix in level.declared {
            if let Some(bindings) = self.prefixes.get_mut(&prefix) {
                bindings.pop();
                if bindings.is_empty() {
                    self.prefixes.remove(&prefix);
                }
            }
        }
    }

    /// The default namespace; its name is empty if there is none.
    pub(super) fn default(&self) -> Binding {
        match self.levels.last() {
            Some(level) => level.default.clone(),
            None => {
                let namespace = self.outer.get(None).map_or_else(|| Arc::from(""), Arc::clone);
                Binding { namespace, level: 0 }
            }
        }
    }

    /// What a prefix stands for, if it is declared.
    pub(super) fn prefix(&self, prefix: &str) -> Option<Binding> {
        match self.prefixes.get(prefix).and_then(|bindings| bindings.last()) {
            Some(binding) => Some(binding.clone()),
            None => self
                .outer
                .get(Some(prefix))
                .map(|namespace| Binding { namespace: Arc::clone(namespace), level: 0 }),
        }
    }
}
