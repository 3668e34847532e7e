//! What a client may send.

use std::fmt;

use crate::stanza::bounds::{Bounds, Excess};

/// How much a client may send before and after it has authenticated (rules LIMIT-2 to LIMIT-5).
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
    before: Bounds,
    after: Bounds,
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
    /// default (LIMIT-2).
    #[must_use]
    pub fn with_element_bytes_before_auth(mut self, bytes: usize) -> Self {
        self.before.bytes = bytes.max(LEAST_ELEMENT_BYTES);
        self
    }

    /// All bytes before authentication, headers included; 65 536 by default (LIMIT-3).
    #[must_use]
    pub fn with_bytes_before_auth(mut self, bytes: usize) -> Self {
        self.bytes_before_auth = bytes;
        self
    }

    /// Bytes of one first-level element after authentication; at least 10 000, by default 262 144
    /// (LIMIT-4).
    #[must_use]
    pub fn with_element_bytes(mut self, bytes: usize) -> Self {
        self.after.bytes = bytes.max(LEAST_ELEMENT_BYTES);
        self
    }

    /// Levels of elements, the first-level element being the first; by default 8 before
    /// authentication and 64 after (LIMIT-5).
    #[must_use]
    pub fn with_depth(mut self, before_auth: usize, after_auth: usize) -> Self {
        (self.before.depth, self.after.depth) = (before_auth, after_auth);
        self
    }

    /// Attributes and namespace declarations of one element; by default 16 before authentication
    /// and 64 after (LIMIT-5).
    #[must_use]
    pub fn with_attributes(mut self, before_auth: usize, after_auth: usize) -> Self {
        (self.before.attributes, self.after.attributes) = (before_auth, after_auth);
        self
    }

    /// Elements within one first-level element, itself included; by default 64 before
    /// authentication and 4096 after (LIMIT-5).
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

    pub(super) fn before(&self) -> Bounds {
        self.before
    }

    pub(super) fn after(&self) -> Bounds {
        self.after
    }
}

/// A limit of section 13 of the rules, as errors and metrics name it: on one stream as it is read, or on
/// what a server does for its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// Bytes of a first-level element before authentication.
    ElementBytesBeforeAuth,
    /// All bytes before authentication.
    BytesBeforeAuth,
    /// Bytes of a first-level element after authentication.
    ElementBytes,
    /// Levels of elements.
    Depth,
    /// Attributes and namespace declarations of one element.
    Attributes,
    /// Elements within one first-level element.
    Elements,
    /// Bytes of one name or prefix: 1024.
    Name,
    /// Bytes of a rewritten stanza: four times those received and 512, and
    /// never more than twice the limit on the bytes of an element.
    Growth,
    /// Bytes of the prefixes and namespaces that a stream header declares: 1024.
    Declarations,
    /// The time from accept to bound.
    Negotiation,
    /// Attempts at SASL or at binding a resource.
    Retries,
    /// Sessions of one account.
    Sessions,
    /// How far a client may fall behind with reading.
    SlowReader,
    /// Targets of directed presence.
    DirectedPresence,
    /// The rate of presence broadcasts.
    Broadcasts,
    /// The rate of stanzas and bytes.
    Rate,
    /// Other entities that a session addresses in a period.
    Recipients,
    /// How long a client may be silent.
    Silence,
    /// Transports that are not authenticated.
    Unauthenticated,
    /// Authenticated streams of one account without a session.
    Unbound,
    /// Failed logins of one source.
    FailedLogins,
    /// What waits for a session.
    Waiting,
    /// Sessions that wait to be resumed, by number and by what is kept for them (LIMIT-11).
    Hibernating,
    /// A roster: its items, and how long they are.
    Roster,
    /// Subscription requests that wait for one account.
    Requests,
    /// A block list: its items, and how long they are.
    BlockList,
}

impl Limit {
    /// `bytes` is the limit in force on the length of an element.
    pub(super) const fn of(bound: Excess, bytes: Self) -> Self {
        match bound {
            Excess::Bytes => bytes,
            Excess::Depth => Self::Depth,
            Excess::Attributes => Self::Attributes,
            Excess::Elements => Self::Elements,
            Excess::Name => Self::Name,
            Excess::Growth => Self::Growth,
        }
    }

    /// The id of the rule, such as `LIMIT-4`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Negotiation => "LIMIT-1",
            Self::ElementBytesBeforeAuth => "LIMIT-2",
            Self::BytesBeforeAuth => "LIMIT-3",
            Self::ElementBytes => "LIMIT-4",
            Self::Depth | Self::Attributes | Self::Elements | Self::Name => "LIMIT-5",
            Self::Retries => "LIMIT-7",
            Self::Sessions => "LIMIT-8",
            Self::SlowReader => "LIMIT-13",
            Self::DirectedPresence => "LIMIT-17",
            Self::Broadcasts => "LIMIT-19",
            Self::Rate => "LIMIT-20",
            Self::Recipients => "LIMIT-21",
            Self::Silence => "LIMIT-22",
            Self::Unauthenticated => "LIMIT-25",
            Self::Unbound => "LIMIT-26",
            Self::FailedLogins => "LIMIT-29",
            Self::Growth => "LIMIT-40",
            Self::Declarations => "LIMIT-41",
            Self::Hibernating => "LIMIT-9",
            Self::Waiting => "LIMIT-10",
            Self::Roster => "LIMIT-15",
            Self::Requests => "LIMIT-16",
            Self::BlockList => "LIMIT-18",
        }
    }

    /// Its name, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ElementBytesBeforeAuth => "element-bytes-before-auth",
            Self::BytesBeforeAuth => "bytes-before-auth",
            Self::ElementBytes => "element-bytes",
            Self::Depth => "depth",
            Self::Attributes => "attributes",
            Self::Elements => "elements",
            Self::Name => "name",
            Self::Growth => "growth",
            Self::Declarations => "declarations",
            Self::Negotiation => "negotiation",
            Self::Retries => "retries",
            Self::Sessions => "sessions",
            Self::SlowReader => "slow-reader",
            Self::DirectedPresence => "directed-presence",
            Self::Broadcasts => "broadcasts",
            Self::Rate => "rate",
            Self::Recipients => "recipients",
            Self::Silence => "silence",
            Self::Unauthenticated => "unauthenticated",
            Self::Unbound => "unbound",
            Self::FailedLogins => "failed-logins",
            Self::Waiting => "waiting",
            Self::Hibernating => "hibernating",
            Self::Roster => "roster",
            Self::Requests => "requests",
            Self::BlockList => "block-list",
        }
    }
}

/// Its name and the id of its rule: `rate (LIMIT-20)`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.as_str(), self.id())
    }
}

/// The cause of an error, where a limit is ([`StanzaError::with_cause`](crate::stanza::StanzaError::with_cause)).
impl std::error::Error for Limit {}
