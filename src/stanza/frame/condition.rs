//! The defined conditions of stream errors.

use crate::named::named;

named! {
    /// What went wrong with a stream
    /// ([RFC 6120 §4.9.3](https://www.rfc-editor.org/rfc/rfc6120#section-4.9.3), rule [SERR-1](crate::rules#serr-1)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum StreamCondition {
        /// XML that cannot be processed.
        BadFormat = "bad-format",
        /// A namespace prefix that is not the expected one; never sent by this crate.
        BadNamespacePrefix = "bad-namespace-prefix",
        /// Another stream replaced this one.
        Conflict = "conflict",
        /// The peer is believed to be gone; never sent by this crate.
        ConnectionTimeout = "connection-timeout",
        /// The domain is no longer served.
        HostGone = "host-gone",
        /// The domain is not served.
        HostUnknown = "host-unknown",
        /// An address is missing between servers; never sent by this crate.
        ImproperAddressing = "improper-addressing",
        /// The server cannot go on.
        InternalServerError = "internal-server-error",
        /// The header's `from` is not the account that authenticated.
        InvalidFrom = "invalid-from",
        /// A namespace of the stream or its content is not supported.
        InvalidNamespace = "invalid-namespace",
        /// XML that does not follow its schema.
        InvalidXml = "invalid-xml",
        /// Sent before it was allowed.
        NotAuthorized = "not-authorized",
        /// XML or a use of namespaces that is not well-formed.
        NotWellFormed = "not-well-formed",
        /// A local policy, such as a limit, was violated.
        PolicyViolation = "policy-violation",
        /// Another entity could not be reached; never sent by this crate.
        RemoteConnectionFailed = "remote-connection-failed",
        /// The stream must be opened anew.
        Reset = "reset",
        /// The server lacks resources.
        ResourceConstraint = "resource-constraint",
        /// XML that XMPP does not allow.
        RestrictedXml = "restricted-xml",
        /// Another host serves the domain now.
        SeeOtherHost = "see-other-host",
        /// The server is being shut down.
        SystemShutdown = "system-shutdown",
        /// None of the others: an application's own condition says more.
        UndefinedCondition = "undefined-condition",
        /// Not encoded as UTF-8.
        UnsupportedEncoding = "unsupported-encoding",
        /// A required feature is not supported; never sent by this crate.
        UnsupportedFeature = "unsupported-feature",
        /// An element that is not understood.
        UnsupportedStanzaType = "unsupported-stanza-type",
        /// A version of XMPP that is not supported.
        UnsupportedVersion = "unsupported-version",
    }
    /// All of them, in the order of RFC 6120.
    pub const ALL;
    /// The name of the condition's element.
    pub const fn as_str;
}
