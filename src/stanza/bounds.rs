//! How much one element may hold.

/// What one element may hold (LIMIT-2, LIMIT-4, LIMIT-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes from `<` to `>`.
    pub(crate) bytes: usize,
    /// Levels of elements, the outermost included.
    pub(crate) depth: usize,
    /// Attributes and namespace declarations of one element.
    pub(crate) attributes: usize,
    /// Elements, the outermost included.
    pub(crate) elements: usize,
}

impl Bounds {
    /// For input that is not a client's.
    pub(super) const GENEROUS: Self =
        Self { bytes: 16 << 20, depth: 128, attributes: 256, elements: 65_536 };

    /// Most bytes of a refused stanza that is still read to its end (LIMIT-4).
    pub(super) fn skipped(self) -> usize {
        self.bytes.saturating_mul(4)
    }

    /// Most bytes that may be rewritten from `received` bytes (LIMIT-40): escapes, and declarations of
    /// namespaces that were declared outside, add to them.
    pub(super) fn growth(self, received: usize) -> usize {
        received.saturating_mul(4).saturating_add(512).min(self.bytes.saturating_mul(2))
    }
}

/// Longest name or prefix, in bytes (LIMIT-5).
pub(super) const NAME: usize = 1024;

/// What was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    Bytes,
    Depth,
    Attributes,
    Elements,
    /// Bytes of a name.
    Name,
    /// Bytes when written anew.
    Growth,
}
