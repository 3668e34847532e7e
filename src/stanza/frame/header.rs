//! The header with which a server opens its stream.

use std::fmt;

use crate::stanza::write;

/// The header with which a server answers
/// ([RFC 6120 §4.7](https://www.rfc-editor.org/rfc/rfc6120#section-4.7), rule [STREAM-9](crate::rules#stream-9)).
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseHeader<'a> {
    /// A domain that is served; may be empty if none is.
    pub from: &'a str,
    /// The bare JID of the client's `from`, if and only if it sent one.
    pub to: Option<&'a str>,
    /// The id of the stream: secret, never used before (rule [STREAM-10](crate::rules#stream-10)).
    pub id: &'a str,
    /// The language of what the server writes itself.
    pub lang: &'a str,
    /// The version that both sides speak; `None` to a client that states none (rule [STREAM-2](crate::rules#stream-2)).
    pub version: Option<Version>,
}

impl<'a> ResponseHeader<'a> {
    /// A header in version 1.0 and in English, to a client that did not say who it is.
    #[must_use]
    pub const fn new(from: &'a str, id: &'a str) -> Self {
        Self { from, to: None, id, lang: "en", version: Some(Version::ONE) }
    }

    /// Writes its attributes, each with a space before it.
    pub(super) fn write_attributes(&self, out: &mut Vec<u8>) {
        let version = self.version.map(|version| version.to_string());
        let attributes = [
            ("from", Some(self.from)),
            ("to", self.to),
            ("id", Some(self.id)),
            ("version", version.as_deref()),
            ("xml:lang", Some(self.lang)),
        ];
        for (name, value) in attributes {
            if let Some(value) = value {
                write::attribute(out, name, value);
            }
        }
    }
}

impl fmt::Debug for ResponseHeader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHeader").field("version", &self.version).finish_non_exhaustive()
    }
}

/// A version of XMPP. Both parts are compared as numbers (rule [STREAM-3](crate::rules#stream-3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "RFC 6120 §4.7.5 knows two parts")]
pub struct Version {
    /// Changes where versions cannot understand each other.
    pub major: u32,
    /// Tells what else is possible.
    pub minor: u32,
}

impl Version {
    /// The version of RFC 6120.
    pub const ONE: Self = Self { major: 1, minor: 0 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
