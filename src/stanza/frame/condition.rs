//! The defined conditions of stream errors.

/// What went wrong with a stream
/// ([RFC 6120 §4.9.3](https://www.rfc-editor.org/rfc/rfc6120#section-4.9.3), rule SERR-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamCondition {
    /// XML that cannot be processed.
    BadFormat,
    /// A namespace prefix that is not the expected one; never sent by this crate.
    BadNamespacePrefix,
    /// Another stream replaced this one.
    Conflict,
    /// The peer is believed to be gone; never sent by this crate.
    ConnectionTimeout,
    /// The domain is no longer served.
    HostGone,
    /// The domain is not served.
    HostUnknown,
    /// An address is missing between servers; never sent by this crate.
    ImproperAddressing,
    /// The server cannot go on.
    InternalServerError,
    /// The header's `from` is not the account that authenticated.
    InvalidFrom,
    /// A namespace of the stream or its content is not supported.
    InvalidNamespace,
    /// XML that does not follow its schema.
    InvalidXml,
    /// Sent before it was allowed.
    NotAuthorized,
    /// XML or a use of namespaces that is not well-formed.
    NotWellFormed,
    /// A local policy, such as a limit, was violated.
    PolicyViolation,
    /// Another entity could not be reached; never sent by this crate.
    RemoteConnectionFailed,
    /// The stream must be opened anew.
    Reset,
    /// The server lacks resources.
    ResourceConstraint,
    /// XML that XMPP does not allow.
    RestrictedXml,
    /// Another host serves the domain now.
    SeeOtherHost,
    /// The server is being shut down.
    SystemShutdown,
    /// None of the others: an application's own condition says more.
    UndefinedCondition,
    /// Not encoded as UTF-8.
    UnsupportedEncoding,
    /// A required feature is not supported; never sent by this crate.
    UnsupportedFeature,
    /// An element that is not understood.
    UnsupportedStanzaType,
    /// A version of XMPP that is not supported.
    UnsupportedVersion,
}

impl StreamCondition {
    /// All of them, in the order of RFC 6120.
    pub const ALL: [Self; 25] = [
        Self::BadFormat,
        Self::BadNamespacePrefix,
        Self::Conflict,
        Self::ConnectionTimeout,
        Self::HostGone,
        Self::HostUnknown,
        Self::ImproperAddressing,
        Self::InternalServerError,
        Self::InvalidFrom,
        Self::InvalidNamespace,
        Self::InvalidXml,
        Self::NotAuthorized,
        Self::NotWellFormed,
        Self::PolicyViolation,
        Self::RemoteConnectionFailed,
        Self::Reset,
        Self::ResourceConstraint,
        Self::RestrictedXml,
        Self::SeeOtherHost,
        Self::SystemShutdown,
        Self::UndefinedCondition,
        Self::UnsupportedEncoding,
        Self::UnsupportedFeature,
        Self::UnsupportedStanzaType,
        Self::UnsupportedVersion,
    ];

    /// The name of the condition's element.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadFormat => "bad-format",
            Self::BadNamespacePrefix => "bad-namespace-prefix",
            Self::Conflict => "conflict",
            Self::ConnectionTimeout => "connection-timeout",
            Self::HostGone => "host-gone",
            Self::HostUnknown => "host-unknown",
            Self::ImproperAddressing => "improper-addressing",
            Self::InternalServerError => "internal-server-error",
            Self::InvalidFrom => "invalid-from",
            Self::InvalidNamespace => "invalid-namespace",
            Self::InvalidXml => "invalid-xml",
            Self::NotAuthorized => "not-authorized",
            Self::NotWellFormed => "not-well-formed",
            Self::PolicyViolation => "policy-violation",
            Self::RemoteConnectionFailed => "remote-connection-failed",
            Self::Reset => "reset",
            Self::ResourceConstraint => "resource-constraint",
            Self::RestrictedXml => "restricted-xml",
            Self::SeeOtherHost => "see-other-host",
            Self::SystemShutdown => "system-shutdown",
            Self::UndefinedCondition => "undefined-condition",
            Self::UnsupportedEncoding => "unsupported-encoding",
            Self::UnsupportedFeature => "unsupported-feature",
            Self::UnsupportedStanzaType => "unsupported-stanza-type",
            Self::UnsupportedVersion => "unsupported-version",
        }
    }
}
