//! What a client may send.

use super::{Limit, StreamCondition, StreamError};
use crate::stanza::bounds::{Bounds, Excess};
use crate::stanza::canonical::Refusal;

/// How much a client may send before and after it has authenticated (rules [LIMIT-2](crate::rules#limit-2) to [LIMIT-5](crate::rules#limit-5)).
///
/// # Examples
///
/// ```
/// use xmpp_session::stream::Limits;
///
/// let limits = Limits::default().with_element_bytes(65_536);
/// assert_eq!(limits.element_bytes(), 65_536);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(super) before: Bounds,
    pub(super) after: Bounds,
    bytes_before_auth: usize,
}

/// No limit on the bytes of an element may be lower
/// ([RFC 6120 §13.12](https://www.rfc-editor.org/rfc/rfc6120#section-13.12) (4)).
const LEAST_ELEMENT_BYTES: usize = 10_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            before: Bounds { bytes: 10_000, depth: 8, attributes: 16, elements: 64 },
            after: Bounds { bytes: 262_144, depth: 64, attributes: 64, elements: 4096 },
            bytes_before_auth: 65_536,
        }
    }
}

impl Limits {
    /// Bytes of one first-level element before authentication; at least 10 000, which is the
    /// default ([LIMIT-2](crate::rules#limit-2)).
    #[must_use]
    pub fn with_element_bytes_before_auth(mut self, bytes: usize) -> Self {
        self.before.bytes = bytes.max(LEAST_ELEMENT_BYTES);
        self
    }

    /// All bytes before authentication, headers included; 65 536 by default ([LIMIT-3](crate::rules#limit-3)).
    #[must_use]
    pub fn with_bytes_before_auth(mut self, bytes: usize) -> Self {
        self.bytes_before_auth = bytes;
        self
    }

    /// Bytes of one first-level element after authentication; at least 10 000, by default 262 144
    /// ([LIMIT-4](crate::rules#limit-4)).
    #[must_use]
    pub fn with_element_bytes(mut self, bytes: usize) -> Self {
        self.after.bytes = bytes.max(LEAST_ELEMENT_BYTES);
        self
    }

    /// Levels of elements, the first-level element being the first; by default 8 before
    /// authentication and 64 after ([LIMIT-5](crate::rules#limit-5)).
    #[must_use]
    pub fn with_depth(mut self, before_auth: usize, after_auth: usize) -> Self {
        (self.before.depth, self.after.depth) = (before_auth, after_auth);
        self
    }

    /// Attributes and namespace declarations of one element; by default 16 before authentication
    /// and 64 after ([LIMIT-5](crate::rules#limit-5)).
    #[must_use]
    pub fn with_attributes(mut self, before_auth: usize, after_auth: usize) -> Self {
        (self.before.attributes, self.after.attributes) = (before_auth, after_auth);
        self
    }

    /// Elements within one first-level element, itself included; by default 64 before
    /// authentication and 4096 after ([LIMIT-5](crate::rules#limit-5)).
    #[must_use]
    pub fn with_elements(mut self, before_auth: usize, after_auth: usize) -> Self {
        (self.before.elements, self.after.elements) = (before_auth, after_auth);
        self
    }

    /// Bytes of one first-level element before authentication.
    #[must_use]
    pub fn element_bytes_before_auth(&self) -> usize {
        self.before.bytes
    }

    /// All bytes before authentication.
    #[must_use]
    pub fn bytes_before_auth(&self) -> usize {
        self.bytes_before_auth
    }

    /// Bytes of one first-level element after authentication.
    #[must_use]
    pub fn element_bytes(&self) -> usize {
        self.after.bytes
    }
}

/// The limit that an element has broken; `bytes` is the one in force on its length.
pub(super) const fn broken(bound: Excess, bytes: Limit) -> Limit {
    match bound {
        Excess::Bytes => bytes,
        Excess::Depth => Limit::Depth,
        Excess::Attributes => Limit::Attributes,
        Excess::Elements => Limit::Elements,
        Excess::Name => Limit::Name,
        Excess::Growth => Limit::Growth,
    }
}

impl StreamError {
    /// The error for an element that was refused; `bytes` is the limit in force on its length.
    pub(super) fn for_refusal(refusal: Refusal, bytes: Limit) -> Self {
        match refusal {
            Refusal::NotWellFormed => Self::new(StreamCondition::NotWellFormed),
            Refusal::RestrictedXml => Self::new(StreamCondition::RestrictedXml),
            Refusal::UnsupportedEncoding => Self::new(StreamCondition::UnsupportedEncoding),
            Refusal::InvalidNamespace => Self::new(StreamCondition::InvalidNamespace),
            Refusal::Exceeded(bound) => Self::exceeded(broken(bound, bytes)),
        }
    }
}
