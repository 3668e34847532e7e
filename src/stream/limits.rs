//! What a client may send.

use std::fmt;

use crate::named::named;
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
}

named! {
    /// A limit of section 13 of the rules, as errors and metrics name it: on one stream as it is read, or on
    /// what a server does for its clients.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Limit {
        /// Bytes of a first-level element before authentication.
        ElementBytesBeforeAuth = "LIMIT-2",
        /// All bytes before authentication.
        BytesBeforeAuth = "LIMIT-3",
        /// Bytes of a first-level element after authentication.
        ElementBytes = "LIMIT-4",
        /// Levels of elements.
        Depth = "LIMIT-5",
        /// Attributes and namespace declarations of one element.
        Attributes = "LIMIT-5",
        /// Elements within one first-level element.
        Elements = "LIMIT-5",
        /// Bytes of one name or prefix: 1024.
        Name = "LIMIT-5",
        /// Bytes of a rewritten stanza: four times those received and 512, and
        /// never more than twice the limit on the bytes of an element.
        Growth = "LIMIT-40",
        /// Bytes of the prefixes and namespaces that a stream header declares: 1024.
        Declarations = "LIMIT-41",
        /// The time from accept to bound.
        Negotiation = "LIMIT-1",
        /// Attempts at SASL or at binding a resource.
        Retries = "LIMIT-7",
        /// Sessions of one account.
        Sessions = "LIMIT-8",
        /// How far a client may fall behind with reading.
        SlowReader = "LIMIT-13",
        /// Targets of directed presence.
        DirectedPresence = "LIMIT-17",
        /// The rate of presence broadcasts.
        Broadcasts = "LIMIT-19",
        /// The rate of stanzas and bytes.
        Rate = "LIMIT-20",
        /// Other entities that a session addresses in a period.
        Recipients = "LIMIT-21",
        /// How long a client may be silent.
        Silence = "LIMIT-22",
        /// Transports that are not authenticated.
        Unauthenticated = "LIMIT-25",
        /// Authenticated streams of one account without a session.
        Unbound = "LIMIT-26",
        /// Failed logins of one source.
        FailedLogins = "LIMIT-29",
        /// What waits for a session.
        Waiting = "LIMIT-10",
        /// Sessions that wait to be resumed, by number and by what is kept for them (LIMIT-11).
        Hibernating = "LIMIT-9",
        /// A roster: its items, and how long they are.
        Roster = "LIMIT-15",
        /// Subscription requests that wait for one account.
        Requests = "LIMIT-16",
        /// A block list: its items, and how long they are.
        BlockList = "LIMIT-18",
    }
    /// The id of the rule, such as `LIMIT-4`.
    pub const fn id;
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
