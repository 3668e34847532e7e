use super::Stanza;
use std::fmt;

/// How a transport delimits elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Framing {
    /// One long document: TCP and TLS (RFC 6120).
    #[default]
    Stream,
    /// One document per message: WebSocket (RFC 7395 §3.3.3).
    Message,
}

/// One first-level element on its way out: knows its exact length and writes itself.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    raw: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Bytes as they are (a stream header, features, a nonza).
    pub const fn raw(bytes: &'a [u8]) -> Self {
        Self { raw: bytes }
    }
    pub fn stanza(stanza: &'a Stanza) -> Self {
        todo!()
    }
    /// Writes `to` in place of the stanza's own `to`.
    #[must_use]
    pub fn to(self, to: Option<&'a str>) -> Self {
        todo!()
    }
    /// Canonical XML appended to the payload (a `<delay/>`).
    #[must_use]
    pub fn append(self, xml: &'a [u8]) -> Self {
        todo!()
    }
    #[must_use]
    pub fn framing(self, framing: Framing) -> Self {
        todo!()
    }
    /// Exact number of bytes that `write_to` appends.
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn write_to(&self, out: &mut Vec<u8>) {
        todo!()
    }
    // also: Display
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}
