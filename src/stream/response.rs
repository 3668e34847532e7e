//! What a server writes to open and to close a stream.

use std::fmt;

use super::{CONTENT_NAMESPACE, STREAM_NAMESPACE, StreamError, Version};
use crate::stanza::write;

/// The header with which a server answers
/// ([RFC 6120 §4.7](https://www.rfc-editor.org/rfc/rfc6120#section-4.7), rule STREAM-9).
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseHeader<'a> {
    /// A domain that is served; may be empty if none is.
    pub from: &'a str,
    /// The bare JID of the client's `from`, if and only if it sent one.
    pub to: Option<&'a str>,
    /// The id of the stream: secret, never used before (rule STREAM-10).
    pub id: &'a str,
    /// The language of what the server writes itself.
    pub lang: &'a str,
    /// The version that both sides speak; `None` to a client that states none (rule STREAM-2).
    pub version: Option<Version>,
}

impl<'a> ResponseHeader<'a> {
    /// A header in version 1.0 and in English, to a client that did not say who it is.
    #[must_use]
    pub const fn new(from: &'a str, id: &'a str) -> Self {
        Self { from, to: None, id, lang: "en", version: Some(Version::ONE) }
    }

    /// Writes it, with the XML declaration.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<?xml version='1.0'?><stream:stream");
        let version = self.version.map(|version| version.to_string());
        let attributes = [
            ("from", Some(self.from)),
            ("to", self.to),
            ("id", Some(self.id)),
            ("version", version.as_deref()),
            ("xml:lang", Some(self.lang)),
            ("xmlns", Some(CONTENT_NAMESPACE)),
            ("xmlns:stream", Some(STREAM_NAMESPACE)),
        ];
        for (name, value) in attributes {
            if let Some(value) = value {
                write::attribute(out, name, value);
            }
        }
        out.push(b'>');
    }
}

impl fmt::Debug for ResponseHeader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHeader").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Writes in one piece what ends a stream: the header if it was not sent yet (rule STREAM-25), the
/// error if there is one, and the close tag (rule STREAM-24).
pub fn close(out: &mut Vec<u8>, header: Option<&ResponseHeader<'_>>, error: Option<&StreamError>) {
    if let Some(header) = header {
        header.write(out);
    }
    if let Some(error) = error {
        error.write(out);
    }
    out.extend_from_slice(b"</stream:stream>");
}
