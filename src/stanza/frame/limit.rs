//! The limits that an error may name.

use std::fmt;

use crate::named::named;

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
        /// Guests of a domain, and how many come from one source.
        Guests = "LIMIT-32",
        /// Requests of clients that have not authenticated.
        Strangers = "LIMIT-33",
        /// What waits for a session.
        Waiting = "LIMIT-10",
        /// Sessions that wait to be resumed, by number and by what is kept for them ([LIMIT-11](crate::rules#limit-11)).
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
            Self::Guests => "guests",
            Self::Strangers => "strangers",
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
