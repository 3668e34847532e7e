//! PLAIN ([RFC 4616](https://www.rfc-editor.org/rfc/rfc4616)).

use super::error::SaslError;

/// The one message of PLAIN: `[authzid] NUL authcid NUL passwd`.
pub(super) struct Message<'a> {
    pub(super) authzid: &'a str,
    pub(super) authcid: &'a str,
    pub(super) password: &'a str,
}

impl<'a> Message<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, SaslError> {
        let text = std::str::from_utf8(data).map_err(|_| SaslError::MalformedRequest)?;
        let mut parts = text.split('\0');
        let (Some(authzid), Some(authcid), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SaslError::MalformedRequest);
        };
        Ok(Self { authzid, authcid, password })
    }
}
