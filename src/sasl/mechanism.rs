//! The names of the mechanisms.

use std::fmt;
use std::str::FromStr;

use crate::named::named;
use crate::store::ScramHash;

named! {
    /// A SASL mechanism that this crate can offer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Mechanism {
        /// `EXTERNAL` ([RFC 4422 §A](https://www.rfc-editor.org/rfc/rfc4422#appendix-A)): the client certificate of TLS.
        External = "EXTERNAL",
        /// `SCRAM-SHA-512-PLUS`: with channel binding.
        ScramSha512Plus = "SCRAM-SHA-512-PLUS",
        /// `SCRAM-SHA-256-PLUS`: with channel binding.
        ScramSha256Plus = "SCRAM-SHA-256-PLUS",
        /// `SCRAM-SHA-1-PLUS`: with channel binding.
        ScramSha1Plus = "SCRAM-SHA-1-PLUS",
        /// `SCRAM-SHA-512` ([draft-melnikov-scram-sha-512](https://datatracker.ietf.org/doc/draft-melnikov-scram-sha-512/)).
        ScramSha512 = "SCRAM-SHA-512",
        /// `SCRAM-SHA-256` ([RFC 7677](https://www.rfc-editor.org/rfc/rfc7677)).
        ScramSha256 = "SCRAM-SHA-256",
        /// `SCRAM-SHA-1` ([RFC 5802](https://www.rfc-editor.org/rfc/rfc5802)).
        ScramSha1 = "SCRAM-SHA-1",
        /// `OAUTHBEARER` ([RFC 7628](https://www.rfc-editor.org/rfc/rfc7628)): a token, where the host checks such.
        OauthBearer = "OAUTHBEARER",
        /// `X-OAUTH2`: a token in the form of PLAIN, as some clients send it.
        XOauth2 = "X-OAUTH2",
        /// `PLAIN` ([RFC 4616](https://www.rfc-editor.org/rfc/rfc4616)): the password itself.
        Plain = "PLAIN",
        /// `ANONYMOUS` ([RFC 4505](https://www.rfc-editor.org/rfc/rfc4505)): a guest, where the host lets them in.
        Anonymous = "ANONYMOUS",
        /// `HT-SHA-256-EXPR`: a token ([XEP-0484](https://xmpp.org/extensions/xep-0484.html)), bound to a key that TLS exports.
        HtSha256Expr = "HT-SHA-256-EXPR",
        /// `HT-SHA-256-UNIQ`: a token, bound to the handshake of TLS 1.2.
        HtSha256Uniq = "HT-SHA-256-UNIQ",
        /// `HT-SHA-256-ENDP`: a token, bound to the server's certificate.
        HtSha256Endp = "HT-SHA-256-ENDP",
        /// `HT-SHA-256-NONE`: a token.
        HtSha256None = "HT-SHA-256-NONE",
    }
    /// All of them, the preferred one first: the order in which they are offered
    /// ([RFC 6120 §6.3.3](https://www.rfc-editor.org/rfc/rfc6120#section-6.3.3)).
    pub const ALL;
    /// The registered name.
    pub const fn as_str;
}

impl Mechanism {
    /// Whether it binds the login to the TLS channel.
    #[must_use]
    pub const fn binds_channel(self) -> bool {
        matches!(self, Self::ScramSha1Plus | Self::ScramSha256Plus | Self::ScramSha512Plus)
    }

    /// Whether it is one for tokens, and so for fast logins only ([FAST-1](crate::rules#fast-1)).
    #[must_use]
    pub const fn is_for_tokens(self) -> bool {
        matches!(
            self,
            Self::HtSha256Expr | Self::HtSha256Uniq | Self::HtSha256Endp | Self::HtSha256None
        )
    }

    /// The hash function of a SCRAM mechanism.
    pub(crate) const fn hash(self) -> Option<ScramHash> {
        match self {
            Self::Plain
            | Self::External
            | Self::OauthBearer
            | Self::XOauth2
            | Self::Anonymous
            | Self::HtSha256Expr
            | Self::HtSha256Uniq
            | Self::HtSha256Endp
            | Self::HtSha256None => None,
            Self::ScramSha1 | Self::ScramSha1Plus => Some(ScramHash::Sha1),
            Self::ScramSha256 | Self::ScramSha256Plus => Some(ScramHash::Sha256),
            Self::ScramSha512 | Self::ScramSha512Plus => Some(ScramHash::Sha512),
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    /// Reads the registered name, in upper case as it is registered (RFC 4422 §3.1).
    fn from_str(name: &str) -> Result<Self, UnknownMechanism> {
        Self::ALL.into_iter().find(|mechanism| mechanism.as_str() == name).ok_or(UnknownMechanism)
    }
}

/// The name is not that of a [`Mechanism`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown SASL mechanism")]
#[non_exhaustive]
pub struct UnknownMechanism;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sasl_1_names_are_read_back() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.to_string().parse(), Ok(mechanism));
        }
        for other in ["", "plain", "PLAIN ", "SCRAM-SHA-384", "UPGR-SCRAM-SHA-512"] {
            assert_eq!(other.parse::<Mechanism>(), Err(UnknownMechanism));
        }
    }
}
