//! Why an authentication fails.

/// A SASL failure condition ([RFC 6120 §6.5](https://www.rfc-editor.org/rfc/rfc6120#section-6.5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SaslError {
    /// The client gave the exchange up (§6.5.1).
    #[error("the client aborted the exchange")]
    Aborted,
    /// The proof was right, and the account is disabled (§6.5.2).
    #[error("the account is disabled")]
    AccountDisabled,
    /// The proof was right, and is no longer valid (§6.5.3).
    #[error("the credentials have expired")]
    CredentialsExpired,
    /// The stream has to be secured first (§6.5.4).
    #[error("the stream is not secure")]
    EncryptionRequired,
    /// A payload is not base64 (§6.5.5).
    #[error("a payload is not base64")]
    IncorrectEncoding,
    /// The authorization identity is no bare JID, or not the authenticated identity's (§6.5.6).
    #[error("the authorization identity may not be used")]
    InvalidAuthzid,
    /// The mechanism is not offered on this stream (§6.5.7).
    #[error("the mechanism is not offered")]
    InvalidMechanism,
    /// The request breaks the rules of SASL or of the mechanism (§6.5.8).
    #[error("the request is malformed")]
    MalformedRequest,
    /// The identity was not proved, or does not exist (§6.5.10).
    #[error("the identity was not proved")]
    NotAuthorized,
    /// A fault of the server (§6.5.11).
    #[error("the server cannot check credentials at the moment")]
    TemporaryAuthFailure,
}

impl SaslError {
    /// The name of the condition's element in a `<failure/>`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::AccountDisabled => "account-disabled",
            Self::CredentialsExpired => "credentials-expired",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::NotAuthorized => "not-authorized",
            Self::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }

    /// Whether it uses up one of the client's attempts (SASL-7, SASL-9).
    pub(crate) const fn counts(self) -> bool {
        !matches!(self, Self::TemporaryAuthFailure)
    }
}
