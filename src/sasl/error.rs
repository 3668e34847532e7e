//! Why an authentication fails.

use crate::named::named;

named! {
    /// A SASL failure condition ([RFC 6120 §6.5](https://www.rfc-editor.org/rfc/rfc6120#section-6.5)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
    #[non_exhaustive]
    pub enum SaslError {
        /// The client gave the exchange up (§6.5.1).
        #[error("the client aborted the exchange")]
        Aborted = "aborted",
        /// The proof was right, and the account is disabled (§6.5.2).
        #[error("the account is disabled")]
        AccountDisabled = "account-disabled",
        /// The proof was right, and is no longer valid (§6.5.3).
        #[error("the credentials have expired")]
        CredentialsExpired = "credentials-expired",
        /// The stream has to be secured first (§6.5.4).
        #[error("the stream is not secure")]
        EncryptionRequired = "encryption-required",
        /// A payload is not base64 (§6.5.5).
        #[error("a payload is not base64")]
        IncorrectEncoding = "incorrect-encoding",
        /// The authorization identity is no bare JID, or not the authenticated identity's (§6.5.6).
        #[error("the authorization identity may not be used")]
        InvalidAuthzid = "invalid-authzid",
        /// The mechanism is not offered on this stream (§6.5.7).
        #[error("the mechanism is not offered")]
        InvalidMechanism = "invalid-mechanism",
        /// The request breaks the rules of SASL or of the mechanism (§6.5.8).
        #[error("the request is malformed")]
        MalformedRequest = "malformed-request",
        /// The identity was not proved, or does not exist (§6.5.10).
        #[error("the identity was not proved")]
        NotAuthorized = "not-authorized",
        /// A fault of the server (§6.5.11).
        #[error("the server cannot check credentials at the moment")]
        TemporaryAuthFailure = "temporary-auth-failure",
    }
    /// The name of the condition's element in a `<failure/>`.
    pub const fn as_str;
}

impl SaslError {
    /// Whether it uses up one of the client's attempts (SASL-7, SASL-9).
    pub(crate) const fn counts(self) -> bool {
        !matches!(self, Self::TemporaryAuthFailure)
    }
}
