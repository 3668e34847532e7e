//! What a host, or a XEP, adds to the endpoint.
//!
//! An extension classifies and answers. It never stands inside the order of a stream: retention,
//! acknowledgement and resumption are primitives of the [session](crate::session), so that no
//! extension can break a promise of the crate. Every method is called without a lock, on the thread
//! of whatever caused the call.
//!
//! # The way of a stanza
//!
//! ```text
//! client ──▶ inbound ─▶ review (sent) ─▶ admit ─▶ review (received) ─▶ sessions, store ─▶ outbound (each)
//! others ────────────────┘                                                         └─▶ delivered (messages)
//! ```
//!
//! Only messages are reviewed, and only where an extension [wants](Extension::wants) to.
//!
//! # What an extension keeps
//!
//! For a session, by [`SessionHandle::set_extension`]: across resumptions, until the session ends.
//! For an account, by [`AccountState::set_extension`]: as long as it has a session; what has to be
//! there before its first session is [loaded](Extension::load). Values are told apart by their type;
//! where nothing is kept, the cost is one pointer. Where several nodes are one server, values go along with what they are
//! kept for as far as they can be [written down](Extension::export).

mod account;
mod delivery;
mod handle;
mod iq;
mod login;
mod review;
mod stranger;

pub use account::AccountError;
pub use delivery::{Delivery, Outcome};
pub(crate) use handle::{Reach, Work};
pub use handle::{RequestError, ServerHandle};
pub use iq::{IqDone, IqReply, IqRequest, IqResult, Target};
pub(crate) use login::Entering;
pub use login::{LoggingIn, NewSession};
pub use review::{Passage, Passing, Review, Wants, Way};
pub use stranger::UnauthenticatedIq;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;
use minidom::Element;

use crate::connection::SharedConnection;
use crate::session::{
    AccountState, Authed, Bound, Epoch, Event, Hold, Keeper, Kept, Session, SessionHandle,
    SessionRegistry,
};
use crate::stanza::{Frame, Stanza, StanzaError};
use crate::store::StoreFuture;
use crate::stream::{Nonza, StreamError};

/// One addition to the endpoint. Extensions are asked in the order in which the host added them;
/// each method has a default that does nothing.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, mpsc};
/// use xmpp_session::connection::{Recorder, SharedConnection};
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::extension::{Extension, IqReply, IqRequest};
/// use xmpp_session::minidom::Element;
/// use xmpp_session::server::{RouteError, Router, Server};
/// use xmpp_session::stanza::{Condition, Stanza};
/// use xmpp_session::store::Stores;
///
/// /// Answers `<weather xmlns='urn:example:weather' city='Verona'/>`.
/// struct Weather;
///
/// impl<C: SharedConnection> Extension<C> for Weather {
///     fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
///         if !request.is("weather", "urn:example:weather") {
///             return None;
///         }
///         let Some(city) = request.query().attribute("city") else {
///             return Some(IqReply::error(Condition::BadRequest));
///         };
///         let answer = Element::builder("weather", "urn:example:weather")
///             .append(format!("fair in {city}"));
///         Some(IqReply::result(answer.build()))
///     }
/// }
/// # struct Out(mpsc::SyncSender<Stanza>);
/// # impl Router for Out {
/// #     fn route(&self, stanza: &Stanza) -> Result<(), RouteError> {
/// #         self.0.try_send(stanza.clone()).map_err(|_| RouteError::Timeout)
/// #     }
/// # }
/// # let (queue, answers) = mpsc::sync_channel(9);
///
/// let server: Server<Recorder> = Server::builder(Arc::new(Virtual::new(1)), Stores::memory())
///     .domain("example.com".parse()?)
///     .extension(Weather)
/// #   .router(Out(queue))
///     .build();
/// # let ask: Element = "<weather xmlns='urn:example:weather' city='Verona'/>".parse()?;
/// # server.send(Stanza::iq("get").from("romeo@example.net/a").to("example.com").id("1").child(&ask).build());
/// # let answer = answers.try_recv()?;
/// # assert_eq!(answer.child().ok_or("a payload")?.text(), "fair in Verona");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Extension<C: SharedConnection>: Send + Sync + 'static {
    /// What of the following the extension has to do with, always the same: what no extension wants when
    /// the server is built costs nothing.
    fn wants(&self) -> Wants {
        Wants::NOTHING
    }

    /// The server is built, and nothing has happened in it yet. The handle keeps nothing alive; other
    /// methods get it with what they are asked.
    fn started(&self, server: &ServerHandle<C>) {
        let _ = server;
    }

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

    /// Whether the extension may take a first-level element of this name, at any stage. Where none may,
    /// the stream is closed at the element's start tag, without waiting for the rest ([STREAM-16](crate::rules#stream-16)). By
    /// default it may take any: an extension that takes none, or few, should say so.
    fn takes(&self, name: &str, namespace: &str) -> bool {
        let _ = (name, namespace);
        true
    }

    /// Takes a first-level element that is no stanza, on a stream that is not authenticated. The
    /// answer is appended to `out`.
    fn unauthenticated(&self, element: &Nonza, out: &mut Vec<u8>) -> Flow {
        let _ = (element, out);
        Flow::Next
    }

    /// Answers an iq get or set of a client that has not authenticated, on a secure stream, or leaves it to the
    /// next one. Where none answers, the stream is closed ([STREAM-18](crate::rules#stream-18)). How often it is asked is
    /// limited ([LIMIT-33](crate::rules#limit-33)); the answer may take 60 seconds, and what it waits for goes on without the
    /// client. Unlike elsewhere [`IqReply::Job`] is on no account's chain.
    ///
    /// Asked only of extensions that [want](Self::wants) [`Wants::STRANGERS`].
    fn unauthenticated_iq(&self, request: &mut UnauthenticatedIq<'_, C>) -> Option<IqReply> {
        let _ = request;
        None
    }

    /// Takes a first-level element that is no stanza, between authentication and bind, and may turn
    /// the session into a bound one.
    fn authenticated(
        &self,
        session: Session<Authed, C>,
        registry: &SessionRegistry<C>,
        element: &Nonza,
    ) -> Negotiated<C> {
        let _ = (registry, element);
        Negotiated::Next(session)
    }

    /// Acts on a request that came together with an authentication in the SASL2 profile
    /// ([XEP-0388](https://xmpp.org/extensions/xep-0388.html)): asked for each that is there, in the client's
    /// order, when the client has proved who it is, and before a resource is bound. One that gives the client its
    /// session back ends the asking. What it answers goes out with the `<success/>`.
    ///
    /// What such requests are offered by is written at [`Stage::Inline`]. A panic loses this request alone.
    fn inline(&self, request: &Nonza, login: &mut LoggingIn<'_, C>) -> Flow {
        let _ = (request, login);
        Flow::Next
    }

    /// Acts on a request inside of a Bind 2 ([XEP-0386](https://xmpp.org/extensions/xep-0386.html)): says what the
    /// session is to have before it can be found. What it answers goes out in the `<bound/>`, if the bind succeeds.
    ///
    /// What such requests are offered by is written at [`Stage::InlineBind`]. A panic loses this request alone.
    fn inline_bind(&self, request: &Nonza, session: &mut NewSession<'_, C>) -> Flow {
        let _ = (request, session);
        Flow::Next
    }

    /// Says something in the `<bound/>` of a session that was just bound inline, such as the state of its archive
    /// ([BIND2-7](crate::rules#bind2-7)). The session can be found already and its client has got nothing: what
    /// comes for it from now on follows. So what the answer speaks of is neither missing nor twice, if what is
    /// archived from now on reaches the session too. A client that is told of an archive expects no offline
    /// messages: an extension may remove them here ([BIND2-6](crate::rules#bind2-6)).
    ///
    /// The login waits for the answer; one that fails or takes longer than
    /// [`Limits::load`](crate::server::Limits::load) is left out.
    fn bound(&self, session: &SessionHandle<C>) -> Option<StoreFuture<Option<Element>>> {
        let _ = session;
        None
    }

    /// Appends the stream features that a client gets with a session that was bound inline
    /// ([STREAM-F5](crate::rules#stream-f5)): by default those of [`Stage::Authenticated`].
    fn bound_features(&self, session: &SessionHandle<C>, out: &mut Vec<u8>) {
        let _ = session;
        self.features(Stage::Authenticated, out);
    }

    /// Takes a first-level element that is no stanza, on a bound stream. An element that no
    /// extension takes closes the stream with `unsupported-stanza-type` ([STREAM-16](crate::rules#stream-16)).
    fn nonza(&self, session: &mut Session<Bound, C>, element: &Nonza) -> Flow {
        let _ = (session, element);
        Flow::Next
    }

    /// Looks at a stanza that a client sent, after its `from` was set and before it has any effect. [`Flow::Done`] = the extension has dealt with it.
    fn inbound(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Flow {
        let _ = (session, stanza);
        Flow::Next
    }

    /// Loads what the extension keeps for an account, together with the account's roster: before
    /// a session is bound (a load that fails or takes too long fails the bind, [BIND-7](crate::rules#bind-7)), and where a
    /// stanza arrives for an account without sessions. `None`, or a load that yields `None` (an
    /// empty list, say), costs nothing afterwards.
    ///
    /// The value is found by its type with [`AccountState::extension`].
    fn load(&self, account: &BareJid) -> Option<StoreFuture<Option<Arc<dyn Any + Send + Sync>>>> {
        let _ = account;
        None
    }

    /// Whether a stanza that arrives for a local account gets in: a message, a presence of any
    /// type, an iq. Asked before it is stored, copied or delivered, and never about what the
    /// account's own sessions send to it. The first extension that does not
    /// [accept](Admission::Accept) decides.
    ///
    /// An account without sessions is asked about where the stanza would have an effect: it would
    /// be stored, change the roster or be answered.
    fn admit(&self, account: &AccountState, stanza: &Stanza) -> Admission {
        let _ = (account, stanza);
        Admission::Accept
    }

    /// Reviews a message before it is stored, copied, routed or delivered, whoever has sent it: a client,
    /// another domain, the host. Asked once for each local account that has to do with it: first for the
    /// sender's ([`Way::Sent`]), then for the recipient's ([`Way::Received`]), if the message is admitted
    /// there and would be delivered or stored. For a message to the own account once, as sent. What one
    /// extension changes the next one sees; the first that does not let it go on decides ([HOOK-1](crate::rules#hook-1)). What the
    /// sender's review stops was never sent: no other session of the account has a copy of it, and
    /// [`delivered`](Self::delivered) is not told.
    ///
    /// Asked only of extensions that [want](Self::wants) [`Wants::MESSAGES`].
    fn review(&self, message: &Passing<'_, C>) -> Review {
        let _ = message;
        Review::Now(Passage::Pass)
    }

    /// Looks at what has happened to a session: it is bound, available, with another presence, absent,
    /// resumed, gone. One after the other, in the order of
    /// [the events](crate::server::ServerBuilder::listener), before the host's listener.
    ///
    /// Told only to extensions that [want](Self::wants) [`Wants::SESSIONS`].
    fn session(&self, event: &Event<C>, server: &ServerHandle<C>) {
        let _ = (event, server);
    }

    /// Whether presence between an account and a JID (bare or full, as normalised text) is left out
    /// of broadcasts, in either direction, without a word. Asked only about accounts for which
    /// something is kept.
    fn hides(&self, account: &AccountState, jid: &str) -> bool {
        let _ = (account, jid);
        false
    }

    /// The resources of a bare JID from which presence is [hidden](Self::hides), where it is not hidden from the bare
    /// JID: of a contact at another node nobody can ask about each session. Asked as that is.
    fn hidden_resources(&self, account: &AccountState, bare: &str) -> Vec<String> {
        let _ = (account, bare);
        Vec::new()
    }

    /// Looks at a message whose outcome is known, if a local account is its sender or its recipient.
    /// Called once for each message, and once more when a session gets it from the offline store
    /// ([`Outcome::Retrieved`]); not for copies that are sent from here by
    /// [`SessionHandle::send_item`]. What becomes of it later only extensions are told that
    /// [want](Self::wants) [`Wants::OUTCOMES`].
    fn delivered(&self, delivery: &Delivery<'_, C>) {
        let _ = delivery;
    }

    /// Looks at a message, iq or presence that was routed here and accepted for a session. Broadcasts of
    /// local sessions, which the registry sends, are not shown.
    fn outbound(&self, session: &SessionHandle<C>, stanza: &Stanza) {
        let _ = (session, stanza);
    }

    /// Whether a stanza is held back from a session whose client is inactive. Asked only about
    /// sessions that [hold](SessionHandle::set_holding), for each stanza before it is sent; the first
    /// extension that does not let it pass decides.
    fn hold(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Hold {
        let _ = (session, stanza);
        Hold::Pass
    }

    /// Answers an iq get or set to the server or to an account, or leaves it to the next one.
    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        let _ = request;
        None
    }

    /// Adds to a write that is about to happen on one transport of a session: what is handed to
    /// `out` or sent through the session travels in that write.
    fn pre_drain(&self, session: &SessionHandle<C>, epoch: Epoch, out: &mut dyn FnMut(Frame<'_>)) {
        let _ = (session, epoch, out);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do for a session, on the
    /// environment's monotonic clock. Called often: must be quick.
    fn next_timeout(&self, session: &SessionHandle<C>) -> Option<Duration> {
        let _ = session;
        None
    }

    /// Acts for a bound session on the time that has passed.
    fn handle_timeout(&self, session: &SessionHandle<C>, now: Duration) -> Liveness {
        let _ = (session, now);
        Liveness::Alive
    }

    /// Asks a silent client for a sign of life ([STREAM-29](crate::rules#stream-29)). [`Flow::Done`] = it was asked; where no
    /// extension asks, the server sends a ping.
    fn ask_for_life(&self, session: &SessionHandle<C>) -> Flow {
        let _ = session;
        Flow::Next
    }

    /// Writes down what the extension keeps for a session or an account that moves to another node
    /// ([NODE-9](crate::rules#node-9)), each value by a name of its own: there [`import`](Self::import) gets it. What is not
    /// written is not there after a move, as if it had never been kept, be it [loaded](Self::load) or not. The move may
    /// still be cancelled: nothing is to be changed.
    fn export(&self, of: &Keeper<'_, C>, kept: &mut Kept) {
        let _ = (of, kept);
    }

    /// Keeps again what was written down on another node, for a session or an account that comes from there: before
    /// anybody can find it. Its client is to notice nothing.
    fn import(&self, of: &Keeper<'_, C>, kept: &Kept) {
        let _ = (of, kept);
    }
}

/// What an element of the client makes of a session that is authenticated but not bound.
#[must_use = "the session is in it"]
#[expect(clippy::exhaustive_enums, reason = "the driver has to act on each")]
pub enum Negotiated<C: SharedConnection> {
    /// On to the next extension.
    Next(Session<Authed, C>),
    /// Dealt with; the session goes on as it was.
    Done(Session<Authed, C>),
    /// It is bound now.
    Bound(Session<Bound, C>),
    /// The stream closes with this error.
    Close(StreamError),
}

impl<C: SharedConnection> fmt::Debug for Negotiated<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Next(_) => "Next",
            Self::Done(_) => "Done",
            Self::Bound(_) => "Bound",
            Self::Close(_) => "Close",
        })
    }
}

/// Whether the transport of a session still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lost transport is to be given up"]
#[expect(clippy::exhaustive_enums, reason = "it is or it is not")]
pub enum Liveness {
    /// As far as is known.
    Alive,
    /// The client has not answered: its transport is dropped without a stream error.
    Lost,
}

/// Whether later extensions and the rules see a stanza or element.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "says whether later extensions see it"]
#[expect(clippy::exhaustive_enums, reason = "the driver has to act on each")]
pub enum Flow {
    /// On to the next.
    Next,
    /// Dealt with.
    Done,
    /// The stream closes with this error. From a method that has no stream to close it means
    /// [`Flow::Done`].
    Close(StreamError),
}

/// Whether a stanza gets in to an account.
#[derive(Clone, Debug)]
#[must_use = "says whether the stanza gets in"]
#[expect(clippy::exhaustive_enums, reason = "it gets in, its sender is told, or nobody is")]
pub enum Admission {
    /// This extension lets it in.
    Accept,
    /// It is kept out, and its sender gets this error where one is due: never in answer to an error
    /// ([STZ-7](crate::rules#stz-7)), and to a message only where an account that is away would answer ([BLOCK-5](crate::rules#block-5)).
    Refuse(StanzaError),
    /// It is kept out silently. Presence that cancels or grants a subscription still changes it
    /// ([BLOCK-9](crate::rules#block-9)).
    Drop,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Not authenticated, but secure.
    Secure,
    /// Inside of the `<inline/>` of SASL2: what can be asked for together with authentication.
    Inline,
    /// Inside of the `<inline/>` of Bind 2: a `<feature var='…'/>` for each request that the bind may hold.
    InlineBind,
    /// Authenticated; a resource is bound next ([STREAM-F4](crate::rules#stream-f4)).
    Authenticated,
}
