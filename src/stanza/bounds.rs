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
    /// For what is no client's input.
    pub(super) const GENEROUS: Self =
        Self { bytes: 16 << 20, depth: 128, attributes: 256, elements: 65_536 };

    /// Most bytes of a stanza that is refused and read to its end nevertheless (LIMIT-4).
    pub(super) fn skipped(self) -> usize {
        self.bytes.saturating_mul(4)
    }

    /// Most bytes that are written anew for so many received (LIMIT-40): escapes, and declarations
    /// where a namespace is used that was declared outside, make more of them.
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
