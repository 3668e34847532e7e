//! What a host, or a XEP, adds to the endpoint.
//!
//! An extension classifies and answers. It never stands inside the order of a stream: retention,
//! acknowledgement and resumption are primitives of the [session](crate::session), so that no
//! extension can break a promise of the crate. Every hook is called without a lock and from
//! whichever thread the cause came on.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use jid::BareJid;
use minidom::Element;

use crate::connection::Connection;
use crate::session::{Bound, Session, SessionHandle, SessionRegistry};
use crate::stanza::{Child, Stanza, StanzaError};
use crate::stream::Nonza;

/// One addition to the endpoint. Extensions are asked in the order in which the host added them;
/// each method has a default that does nothing.
pub trait Extension<C: Connection + Clone>: Send + Sync + 'static {
    /// Appends stream features (whole elements) for streams of this stage
    /// ([RFC 6120 §4.3.2](https://www.rfc-editor.org/rfc/rfc6120#section-4.3.2)).
    fn features(&self, stage: Stage, out: &mut Vec<u8>) {
        let _ = (stage, out);
    }

    /// The features that disco#info of such an entity lists (XEP-0030).
    fn disco_features(&self, target: Target) -> &[&'static str] {
        let _ = target;
        &[]
    }

    /// Takes a first-level element that is no stanza, on a bound stream. One that nobody takes
    /// closes the stream with `unsupported-stanza-type` (STREAM-16).
    fn nonza(&self, session: &mut Session<Bound, C>, element: &Nonza) -> Flow {
        let _ = (session, element);
        Flow::Next
    }

    /// Looks at a stanza that a client sent, after its `from` was set and before anything is done
    /// with it. [`Flow::Done`] = the extension has dealt with it.
    fn inbound(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Flow {
        let _ = (session, stanza);
        Flow::Next
    }

    /// Looks at a message, presence or iq of somebody that was accepted for a session.
    fn outbound(&self, session: &SessionHandle<C>, stanza: &Stanza) {
        let _ = (session, stanza);
    }

    /// Answers an iq get or set to the server or to an account, or leaves it to the next one.
    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        let _ = request;
        None
    }

    /// Adds to a write that is about to happen: what is appended to `out` or sent through the
    /// session travels in that write.
    fn pre_drain(&self, session: &SessionHandle<C>, out: &mut Vec<u8>) {
        let _ = (session, out);
    }
}

/// Whether later extensions, and the rules, get to see something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "says whether anybody else is to handle it"]
#[expect(clippy::exhaustive_enums, reason = "it was dealt with or it was not")]
pub enum Flow {
    /// On to the next.
    Next,
    /// Dealt with.
    Done,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Not authenticated, but secure.
    Secure,
    /// Authenticated; a resource is bound next (STREAM-F4).
    Authenticated,
}

/// Whom an iq is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The server itself: one of its domains.
    Domain,
    /// An account: its bare JID.
    Account,
}

/// An iq get or set that the server has to answer.
pub struct IqRequest<'a, C: Connection + Clone> {
    pub(crate) stanza: &'a Stanza,
    pub(crate) query: Child<'a>,
    pub(crate) to: &'a BareJid,
    pub(crate) target: Target,
    pub(crate) session: Option<&'a SessionHandle<C>>,
    pub(crate) registry: &'a SessionRegistry<C>,
    pub(crate) relation: Relation,
    pub(crate) advertised: &'a [&'static str],
}

/// What the sender of an iq is to the account that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// The account itself.
    Own,
    /// May see its presence: a subscriber, or a domain of ours.
    Subscriber,
    /// Was sent directed presence of a session.
    Directed,
    Stranger,
}

impl<'a, C: Connection + Clone> IqRequest<'a, C> {
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

    /// Whether the sender may know of the account's presence (SEC-4): to all others the account
    /// answers as if it did not exist (IQ-7).
    #[must_use]
    pub fn is_entitled(&self) -> bool {
        self.relation != Relation::Stranger
    }

    /// The sessions of the account that the sender may know of (SEC-4): the available ones for the
    /// account itself and its subscribers; for others that are entitled only those which they hold
    /// directed presence of (PRES-17). None for the domain.
    pub fn sessions(&self) -> impl Iterator<Item = SessionHandle<C>> {
        let from = self.stanza.from().unwrap_or_default();
        let sender = from.split('/').next().unwrap_or_default().to_owned();
        let relation = self.relation;
        self.registry.sessions(self.to).filter(move |session| match relation {
            Relation::Own | Relation::Subscriber => session.is_available(),
            Relation::Directed => session.has_directed_to(&sender),
            Relation::Stranger => false,
        })
    }

    /// All features that disco#info of the target lists.
    #[must_use]
    pub const fn disco_features(&self) -> &'a [&'static str] {
        self.advertised
    }
}

impl<C: Connection + Clone> fmt::Debug for IqRequest<'_, C> {
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
    /// To come. The stream waits for it (STREAM-23), 60 seconds at most (IQ-5).
    Later(Pin<Box<dyn Future<Output = IqResult> + Send>>),
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
        })
    }
}
