//! The limits that an error may name.

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
}

impl Limit {
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
        }
    }
}
