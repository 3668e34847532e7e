//! Hosts that check by themselves what a client proves.

use std::fmt;
use std::time::SystemTime;

use jid::{BareJid, DomainPart, DomainRef};

use super::StoreFuture;
use crate::client::UserAgent;
use crate::named::named;

/// Checks passwords in the host's own way: against a directory, a web service, a signed token.
///
/// For hosts to implement: [`check_password`](Self::check_password), or
/// [`check_login`](Self::check_login) where it matters who asks. One that implements neither lets nobody in.
/// It is asked only for the mechanism PLAIN, on a secure stream, instead
/// of the keys of an [`AccountStore`](super::AccountStore). SCRAM, which needs keys, is not offered in a domain
/// that has an authenticator.
///
/// The server's account store is still asked whether an account
/// [exists](super::AccountStore::exists), for stanzas that are addressed to one: it need not have credentials.
///
/// A login with stored keys costs a whole key derivation (about a millisecond); a host for which
/// that is too much, and which has a cheaper proof, implements this.
///
/// # Time
///
/// An answer may take its time: only this stream waits for it. But it is up to the host to do the same
/// work for an unknown account as for a wrong password, and to compare in constant time
/// ([SASL-7](crate::rules#sasl-7), [SEC-1](crate::rules#sec-1)): no delay of the server's hides the difference.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::jid::BareJid;
/// use xmpp_session::server::DomainPolicy;
/// use xmpp_session::store::{Authenticator, StoreError, StoreFuture, Verdict};
///
/// /// The users of a web application.
/// struct Users;
///
/// # impl Users {
/// #     async fn verify(_name: String, password: String) -> Result<bool, std::io::Error> {
/// #         Ok(password == "r0m30myr0m30")
/// #     }
/// # }
/// impl Authenticator for Users {
///     fn check_password(&self, account: &BareJid, password: &str) -> StoreFuture<Verdict> {
///         let name = account.node().map(ToString::to_string).unwrap_or_default();
///         let password = password.to_owned();
///         Box::pin(async move {
///             match Users::verify(name, password).await {
///                 Ok(true) => Ok(Verdict::Accepted),
///                 Ok(false) => Ok(Verdict::Refused),
///                 Err(error) => Err(StoreError::failed(error)), // the client may try again
///             }
///         })
///     }
/// }
///
/// // For `ServerBuilder::domain_with`.
/// let mut policy = DomainPolicy::default();
/// policy.authenticator = Some(Arc::new(Users));
/// ```
pub trait Authenticator: Send + Sync + 'static {
    /// Whether `password` proves the identity of `account`.
    ///
    /// `account` is normalised, and may not exist. `password` went through SASLprep
    /// ([RFC 4013](https://www.rfc-editor.org/rfc/rfc4013)), which leaves printable ASCII alone.
    ///
    /// # Errors
    ///
    /// A fault of the host: the client is told `temporary-auth-failure`, and may try again.
    fn check_password(&self, account: &BareJid, password: &str) -> StoreFuture<Verdict> {
        let _ = (account, password);
        Box::pin(std::future::ready(Ok(Verdict::Refused)))
    }

    /// The same, with what is known of who asks ([TOKEN-1](crate::rules#token-1)). By default asks
    /// [`check_password`](Self::check_password).
    ///
    /// ```
    /// use xmpp_session::jid::BareJid;
    /// use xmpp_session::store::{Authenticator, LoginRequest, StoreFuture, Verdict};
    ///
    /// /// Lets in from the office only.
    /// struct Office;
    ///
    /// impl Authenticator for Office {
    ///     fn check_login(
    ///         &self,
    ///         account: &BareJid,
    ///         password: &str,
    ///         login: &LoginRequest,
    ///     ) -> StoreFuture<Verdict> {
    ///         let is_right = account.as_str() == "juliet@example.com" && password == "r0m30";
    ///         let is_near = login.source().is_some_and(|source| source.starts_with("192.0.2."));
    ///         if let Some(device) = login.user_agent().and_then(|agent| agent.device.as_deref()) {
    ///             println!("from {device}, it says");
    ///         }
    ///         let verdict = if is_right & is_near { Verdict::Accepted } else { Verdict::Refused };
    ///         Box::pin(async move { Ok(verdict) })
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`check_password`](Self::check_password).
    fn check_login(
        &self,
        account: &BareJid,
        password: &str,
        login: &LoginRequest,
    ) -> StoreFuture<Verdict> {
        let _ = login;
        self.check_password(account, password)
    }

    /// Whether the account may log in, where its client has proved who it is without its password: by a token that the
    /// server had given it ([FAST-10](crate::rules#fast-10)), by a certificate ([EXTERNAL-3](crate::rules#external-3)), by
    /// a bearer token ([TOKEN-5](crate::rules#token-5)). By default [`Verdict::Accepted`]: then the tokens of an account that may no longer log in
    /// have to be ended ([`password_changed`](crate::server::Server::password_changed)).
    ///
    /// # Errors
    ///
    /// As [`check_password`](Self::check_password).
    fn check_account(&self, account: &BareJid, login: &LoginRequest) -> StoreFuture<Verdict> {
        let _ = (account, login);
        Box::pin(std::future::ready(Ok(Verdict::Accepted)))
    }
}

/// What an [`Authenticator`] found.
///
/// All but [`Refused`](Self::Refused) and [`Temporary`](Self::Temporary) say that the account exists, hence
/// only after the proof was right ([SASL-7](crate::rules#sasl-7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a verdict that nobody reads lets nobody in"]
#[non_exhaustive]
pub enum Verdict {
    /// The identity is proved.
    Accepted,
    /// The identity is proved, for so long: then the stream is closed with `reset`, and its session ends
    /// ([TOKEN-6](crate::rules#token-6)).
    AcceptedUntil(SystemTime),
    /// Unknown account or wrong password: `not-authorized`.
    Refused,
    /// Right, but the account is disabled: `account-disabled`.
    Disabled,
    /// Right, but nobody may log in to the account before then: `account-disabled`, and the client is told the
    /// time.
    LockedUntil(SystemTime),
    /// Right, but no longer valid: `credentials-expired`.
    Expired,
    /// Right, but the user has to set another password first, elsewhere: `credentials-expired`, and the client is
    /// told why.
    MustChange,
    /// It cannot be checked now: `temporary-auth-failure`, which does not count as a failed attempt. As an error of
    /// the host, but not told as a fault.
    Temporary,
}

/// What is known of a login, beside what proves it.
#[derive(Clone)]
#[non_exhaustive]
pub struct LoginRequest {
    pub(crate) domain: DomainPart,
    pub(crate) mechanism: &'static str,
    pub(crate) source: Option<Box<str>>,
    pub(crate) user_agent: Option<UserAgent>,
}

impl LoginRequest {
    /// The domain that the client wants to log in to.
    #[must_use]
    pub fn domain(&self) -> &DomainRef {
        &self.domain
    }

    /// The SASL mechanism, by its registered name.
    #[must_use]
    pub const fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// Where the transport comes from: [`Transport::source`](crate::server::Transport::source), an IP address
    /// without its port.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// What the client claims to be ([XEP-0388 §2.3](https://xmpp.org/extensions/xep-0388.html#initiation)).
    /// Nothing of it is proved.
    #[must_use]
    pub const fn user_agent(&self) -> Option<&UserAgent> {
        self.user_agent.as_ref()
    }
}

impl fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// Checks bearer tokens: OAUTHBEARER ([RFC 7628](https://www.rfc-editor.org/rfc/rfc7628)) and X-OAUTH2 (rules
/// [TOKEN-2](crate::rules#token-2)…6).
///
/// For hosts to implement. Both mechanisms are offered, on secure streams, where a domain has one
/// ([`DomainPolicy::tokens`](crate::server::DomainPolicy::tokens)), beside those for passwords.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, SystemTime};
/// use xmpp_session::server::DomainPolicy;
/// use xmpp_session::store::{
///     LoginRequest, StoreFuture, TokenAuthenticator, TokenError, TokenGrant, TokenVerdict,
/// };
///
/// struct Identity;
///
/// impl TokenAuthenticator for Identity {
///     fn check_token(&self, token: &str, _: &LoginRequest) -> StoreFuture<TokenVerdict> {
///         let token = token.to_owned();
///         Box::pin(async move {
///             // Ask your identity provider, or verify the signature of the token.
///             Ok(match &*token {
///                 "vF9dft4qmT" => {
///                     let hour = SystemTime::now() + Duration::from_secs(3600);
///                     let juliet = "juliet@example.com".parse().unwrap();
///                     TokenVerdict::Accepted(TokenGrant::new(juliet).expires(hour))
///                 }
///                 _ => TokenVerdict::Refused(Identity.discovery()),
///             })
///         })
///     }
///
///     fn discovery(&self) -> TokenError {
///         let url = "https://login.example.com/.well-known/openid-configuration";
///         TokenError::new().scope("xmpp").openid_configuration(url)
///     }
/// }
///
/// let mut policy = DomainPolicy::default();
/// policy.tokens = Some(Arc::new(Identity));
/// ```
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// Whose token this is, and for how long. It is what the client has sent, and may be anything, up to ten
    /// thousand bytes.
    ///
    /// # Errors
    ///
    /// A fault of the host: the client is told `temporary-auth-failure`, and may try again.
    fn check_token(&self, token: &str, login: &LoginRequest) -> StoreFuture<TokenVerdict>;

    /// What a client is told that has sent no token, to learn where it gets one. By default only that it needs one.
    fn discovery(&self) -> TokenError {
        TokenError::new()
    }
}

/// What a [`TokenAuthenticator`] found.
#[derive(Clone)]
#[must_use = "a verdict that nobody reads lets nobody in"]
#[non_exhaustive]
pub enum TokenVerdict {
    /// The token is good.
    Accepted(TokenGrant),
    /// It is unknown, or not for this service: `not-authorized`, behind the error that OAUTHBEARER has for it.
    Refused(TokenError),
    /// It was good, and has expired: the same with `credentials-expired`.
    Expired(TokenError),
    /// It is good, and the account is disabled: `account-disabled`.
    Disabled,
    /// It cannot be checked now: `temporary-auth-failure`, which does not count as a failed attempt.
    Temporary,
}

impl fmt::Debug for TokenVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted(_) => "Accepted",
            Self::Refused(_) => "Refused",
            Self::Expired(_) => "Expired",
            Self::Disabled => "Disabled",
            Self::Temporary => "Temporary",
        })
    }
}

/// What a token is good for.
#[derive(Clone)]
#[non_exhaustive]
pub struct TokenGrant {
    pub(crate) account: BareJid,
    pub(crate) expires: Option<SystemTime>,
}

impl TokenGrant {
    /// The token is of this account, one of the domain that was asked for.
    #[must_use]
    pub const fn new(account: BareJid) -> Self {
        Self { account, expires: None }
    }

    /// The stream is closed with `reset` then, and its session ends ([TOKEN-6](crate::rules#token-6)). Without this a session
    /// outlives its token.
    #[must_use]
    pub const fn expires(mut self, at: SystemTime) -> Self {
        self.expires = Some(at);
        self
    }
}

impl fmt::Debug for TokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenGrant").field("expires", &self.expires).finish_non_exhaustive()
    }
}

named! {
    /// Why a token is refused, in the words of [RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum TokenStatus {
        /// The token has expired, was revoked, or is none.
        InvalidToken = "invalid_token",
        /// It is not good for this service.
        InsufficientScope = "insufficient_scope",
    }
    /// As the client reads it.
    pub const fn as_str;
}

/// What a client is told of a refused token ([RFC 7628 §3.2.2](https://www.rfc-editor.org/rfc/rfc7628#section-3.2.2)).
#[derive(Clone)]
#[non_exhaustive]
pub struct TokenError {
    pub(crate) status: TokenStatus,
    pub(crate) scope: Option<String>,
    pub(crate) openid_configuration: Option<String>,
}

impl TokenError {
    /// The token is invalid: nothing more.
    #[must_use]
    pub const fn new() -> Self {
        Self { status: TokenStatus::InvalidToken, scope: None, openid_configuration: None }
    }

    /// Why.
    #[must_use]
    pub const fn status(mut self, status: TokenStatus) -> Self {
        self.status = status;
        self
    }

    /// The scopes that a token needs, separated by spaces.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// The address of the discovery document of who issues tokens.
    #[must_use]
    pub fn openid_configuration(mut self, url: impl Into<String>) -> Self {
        self.openid_configuration = Some(url.into());
        self
    }
}

impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Default for TokenError {
    fn default() -> Self {
        Self::new()
    }
}
