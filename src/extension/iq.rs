//! Requests that extensions answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use jid::BareJid;
use minidom::Element;

use super::ServerHandle;
use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::rules::delivery::Relation;
use crate::session::{SessionHandle, SessionRegistry};
use crate::stanza::{Child, Stanza, StanzaError};

/// The kind of entity that an iq is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The server itself: one of its domains.
    Domain,
    /// An account: its bare JID.
    Account,
}

/// An iq get or set that the server has to answer.
pub struct IqRequest<'a, C: SharedConnection> {
    pub(crate) stanza: &'a Stanza,
    pub(crate) query: Child<'a>,
    pub(crate) to: &'a BareJid,
    pub(crate) target: Target,
    pub(crate) session: Option<&'a SessionHandle<C>>,
    pub(crate) registry: &'a SessionRegistry<C>,
    pub(crate) server: &'a ServerHandle<C>,
    pub(crate) relation: Relation,
    pub(crate) advertised: &'a [&'static str],
    pub(crate) components: &'a [&'a str],
}

impl<'a, C: SharedConnection> IqRequest<'a, C> {
    /// The iq, with its true `from`.
    #[must_use]
    pub const fn stanza(&self) -> &'a Stanza {
        self.stanza
    }

    /// Its one child.
    #[must_use]
    pub const fn query(&self) -> &Child<'a> {
        &self.query
    }

    /// Whether it is of type set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.stanza.type_().as_deref() == Some("set")
    }

    /// Whether its one child has this name and namespace.
    #[must_use]
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.query.is(name, namespace)
    }

    /// The domain or the account that is asked.
    #[must_use]
    pub const fn to(&self) -> &'a BareJid {
        self.to
    }

    /// Which of the two it is.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// The session that asks; `None` where the iq came from another domain or from the host.
    #[must_use]
    pub const fn session(&self) -> Option<&'a SessionHandle<C>> {
        self.session
    }

    /// Whether the account that is asked is the sender's own.
    #[must_use]
    pub fn is_own_account(&self) -> bool {
        self.relation == Relation::Own
    }

    /// Whether the sender may know of the account's presence ([SEC-4](crate::rules#sec-4)): to all others the account
    /// answers as if it did not exist ([IQ-7](crate::rules#iq-7)).
    #[must_use]
    pub fn is_entitled(&self) -> bool {
        self.relation.is_entitled()
    }

    /// The sessions of the account that the sender may know of ([SEC-4](crate::rules#sec-4)): the available ones for the
    /// account itself and its subscribers; for others that are entitled only those which they hold
    /// directed presence of ([PRES-17](crate::rules#pres-17)). None for the domain.
    pub fn sessions(&self) -> impl Iterator<Item = SessionHandle<C>> {
        let from = self.stanza.from().unwrap_or_default();
        let sender = bare_of(&from).to_owned();
        let relation = self.relation;
        self.registry.sessions(self.to).filter(move |session| match relation {
            Relation::Own | Relation::Subscriber => session.is_available(),
            Relation::Directed => session.has_directed_to(&sender),
            Relation::Stranger => false,
        })
    }

    /// All sessions.
    #[must_use]
    pub const fn registry(&self) -> &'a SessionRegistry<C> {
        self.registry
    }

    /// The server.
    #[must_use]
    pub const fn server(&self) -> &'a ServerHandle<C> {
        self.server
    }

    /// All features that disco#info of the target lists.
    #[must_use]
    pub const fn disco_features(&self) -> &'a [&'static str] {
        self.advertised
    }
}

impl<C: SharedConnection> fmt::Debug for IqRequest<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IqRequest")
            .field("target", &self.target)
            .field("relation", &self.relation)
            .finish_non_exhaustive()
    }
}

/// The payload of a result, or the error; `None` is an empty result.
pub type IqResult = Result<Option<Element>, StanzaError>;

/// An answer to an iq. The server makes it a stanza with the right addresses and id.
#[must_use = "an iq that is not answered breaks RFC 6120 §8.2.3"]
#[expect(clippy::exhaustive_enums, reason = "an answer is there or it is not")]
pub enum IqReply {
    /// At hand.
    Now(IqResult),
    /// Still to come. The stream waits for it ([STREAM-23](crate::rules#stream-23)), at most 60 seconds ([IQ-5](crate::rules#iq-5)).
    Later(Pin<Box<dyn Future<Output = IqResult> + Send>>),
    /// Still to come, from work that changes what is kept for the account: it runs one after the other
    /// with everything else that changes the account or binds a session of it, and is never cancelled.
    Job(Pin<Box<dyn Future<Output = IqDone> + Send>>),
}

/// The result of work on an account.
#[must_use = "the answer of an iq"]
pub struct IqDone {
    pub(crate) result: IqResult,
    pub(crate) then: Option<Box<dyn FnOnce() + Send>>,
}

impl IqDone {
    /// The answer.
    pub fn new(result: IqResult) -> Self {
        Self { result, then: None }
    }

    /// Runs `then` once the answer is sent: pushes come after results ([ROSTER-10](crate::rules#roster-10), [BLOCK-3](crate::rules#block-3)).
    pub fn then(mut self, then: impl FnOnce() + Send + 'static) -> Self {
        self.then = Some(Box::new(then));
        self
    }
}

impl fmt::Debug for IqDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IqDone").field("ok", &self.result.is_ok()).finish_non_exhaustive()
    }
}

impl IqReply {
    /// A result with this payload.
    pub const fn result(payload: Element) -> Self {
        Self::Now(Ok(Some(payload)))
    }

    /// An empty result.
    pub const fn empty() -> Self {
        Self::Now(Ok(None))
    }

    /// An error.
    pub fn error(error: impl Into<StanzaError>) -> Self {
        Self::Now(Err(error.into()))
    }
}

impl fmt::Debug for IqReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(Ok(_)) => "Now(result)",
            Self::Now(Err(_)) => "Now(error)",
            Self::Later(_) => "Later",
            Self::Job(_) => "Job",
        })
    }
}
