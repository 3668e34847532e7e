//! The typed session: what is not possible in a state does not compile in it.
//!
//! ```text
//!              header             SASL                    bind or resume
//! Unauthed ──── open ──▶ Unauthed ─ authenticate ─▶ Authed ──────────────▶ Bound
//!    ▲                      │                        │  ▲                     │
//!    └────── restart ───────┘                restart ┘  └ open                ├ available?
//!                                                                             └ interested?
//! ```

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use jid::{BareJid, DomainPart, DomainRef, FullJid, ResourceRef};

use super::handle::{INTERESTED, PROTECTED, SessionHandle, SessionId};
use super::input::{Detached, InputTicket, Owner};
use super::outbound::{Acknowledged, Epoch, Item, LastWords, NotSent, Reply};
use super::registry::{
    BindError, BindRequest, Misuse, Presence, Reason, ResumeError, Resumed, Retention, Run,
    SessionRegistry,
};
use crate::address;
use crate::connection::{Close, SendError, SharedConnection};
use crate::park;
use crate::rules::roster::Roster;
use crate::stanza::{Frame, Stanza, StreamError};

mod sealed {
    #[expect(unnameable_types, reason = "that is what seals")]
    pub trait Sealed {}
}

/// A state of a session. Sealed: the states are [`Unauthed`], [`Authed`] and [`Bound`].
pub trait State: sealed::Sealed {
    /// What a session carries before it is bound; of no value in [`Bound`].
    #[doc(hidden)]
    type Before: Send + Sync;
    /// Of one value in [`Bound`], of none before.
    #[doc(hidden)]
    type After: Send + Sync;
    #[doc(hidden)]
    const NAME: &'static str;
}

/// The client has proved nothing yet (`c2s_unauthed`).
///
/// # Examples
///
/// ```
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::jid::{BareJid, DomainPart};
/// use xmpp_session::session::{AuthenticateError, Session};
///
/// let session = Session::new(Recorder::new());
/// let juliet = BareJid::new("juliet@example.com")?;
/// // Too early: the session comes back with the reason.
/// let refused = session.authenticate(juliet.clone()).unwrap_err();
/// assert_eq!(refused.error(), &AuthenticateError::NotOpen);
///
/// let mut session = refused.into_session();
/// session.open(DomainPart::new("example.com")?.into_owned());
/// let session = session.authenticate(juliet)?; // `Session<Authed, _>`
/// assert_eq!(session.account().as_str(), "juliet@example.com");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a name for a state, never a value")]
pub enum Unauthed {}

/// The client has proved which account it is.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::jid::{BareJid, ResourcePart};
/// use xmpp_session::session::{Authed, BindRequest, Session, SessionRegistry};
///
/// fn bind(session: Session<Authed, Recorder>, registry: &SessionRegistry<Recorder>) {
///     let resource = ResourcePart::new("balcony").unwrap().into_owned();
///     match session.bind(registry, BindRequest::new().resource(resource)) {
///         Ok(bound) => println!("{} is connected", bound.jid()),
///         Err(refused) => println!("no session: {}", refused.error()),
///     }
/// }
/// # let registry = SessionRegistry::builder(Arc::new(Virtual::new(1))).build();
/// # let account = BareJid::new("juliet@example.com").unwrap();
/// # let mut session = Session::new(Recorder::new());
/// # session.open(account.domain().to_owned());
/// # bind(session.authenticate(account).unwrap(), &registry);
/// ```
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a name for a state, never a value")]
pub enum Authed {}

/// The session has a resource: it is a *connected resource*, and in the registry.
///
/// # Examples
///
/// ```
/// use xmpp_session::connection::SharedConnection;
/// use xmpp_session::session::{Bound, Session, SessionRegistry};
/// use xmpp_session::stanza::Stanza;
///
/// /// A message has come from the client, addressed by the host. `false`: stop reading.
/// async fn received<C: SharedConnection>(
///     session: &mut Session<Bound, C>,
///     registry: &SessionRegistry<C>,
///     message: &Stanza,
/// ) -> bool {
///     // No ticket once the session has ended, or is served by another transport.
///     let Ok(_ticket) = session.begin_input().await else { return false };
///     for recipient in registry.top(session.account()) {
///         let _too_much_waits_for_it = recipient.send(message);
///     }
///     true
/// }
/// ```
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a name for a state, never a value")]
pub enum Bound {}

impl sealed::Sealed for Unauthed {}
impl sealed::Sealed for Authed {}
impl sealed::Sealed for Bound {}

impl State for Unauthed {
    type Before = UnauthedData;
    type After = Infallible;
    const NAME: &'static str = "Session<Unauthed>";
}

impl State for Authed {
    type Before = AuthedData;
    type After = Infallible;
    const NAME: &'static str = "Session<Authed>";
}

impl State for Bound {
    type Before = Infallible;
    type After = ();
    const NAME: &'static str = "Session<Bound>";
}

/// What an unauthenticated session knows.
#[doc(hidden)]
#[derive(Default)]
#[expect(unnameable_types, missing_debug_implementations, reason = "carried by the sealed `State`")]
pub struct UnauthedData {
    domain: Option<DomainPart>,
    open: bool,
}

/// What an authenticated session knows.
#[doc(hidden)]
#[expect(unnameable_types, missing_debug_implementations, reason = "carried by the sealed `State`")]
pub struct AuthedData {
    account: BareJid,
    open: bool,
    protected: bool,
    holding: bool,
}

impl AuthedData {
    /// What was said of the stream goes on to hold for the session that is resumed on it.
    fn resumed<C: SharedConnection>(self, owner: Owner<C>, connection: C) -> Session<Bound, C> {
        owner.shared.set(PROTECTED, self.protected);
        let session = Session { stage: Stage::Bound(owner, ()), connection };
        if self.holding {
            session.handle().set_holding(true);
        }
        session
    }
}

/// One client-to-server session in state `S`, on a connection of type `C`.
///
/// A transition consumes the session; one that is refused gives it back with the reason
/// ([`TransitionError`]). A bound session is shared through its registry, and this value is the one right
/// to feed it input: dropping it is the loss of its transport ([DESTROY-14](crate::rules#destroy-14)).
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::connection::{Close, Recorder};
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::jid::{BareJid, ResourcePart};
/// use xmpp_session::session::{BindRequest, Presence, Reason, Session, SessionRegistry};
/// use xmpp_session::stanza::Stanza;
///
/// let registry = SessionRegistry::builder(Arc::new(Virtual::new(1))).build();
/// let (wire, account) = (Recorder::new(), BareJid::new("juliet@example.com")?);
///
/// let mut session = Session::new(wire.clone());           // Unauthed: a transport was accepted
/// session.open(account.domain().to_owned());              // its stream header has come
/// let session = session.authenticate(account)?;           // Authed: your login has said who it is
/// let resource = ResourcePart::new("balcony")?.into_owned();
/// let mut session = session.bind(&registry, BindRequest::new().resource(resource))?; // Bound
///
/// let presence = Stanza::presence().from(session.jid().as_str()).build();
/// session.set_presence(Presence::Available { stanza: &presence, priority: 0 });
/// assert!(session.is_available());
///
/// session.end(Reason::Closed);
/// assert_eq!(wire.closed(), Some(Close::Flush));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a session is the loss of its transport"]
pub struct Session<S: State, C: SharedConnection> {
    stage: Stage<S::Before, S::After, C>,
    connection: C,
}

/// What a session carries: one of these has no value, so that each state has the other for certain.
///
/// Not an associated type that names `C`: whether a future is `Send` is asked with its lifetimes
/// forgotten, and what holds of `Arc<dyn Connection>` cannot be proved then.
enum Stage<Before, After, C: SharedConnection> {
    Unbound(Before),
    Bound(Owner<C>, After),
}

/// A transition that was refused: nothing happened, and the session is still in its state.
#[derive(thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct TransitionError<S, E: std::error::Error + 'static> {
    session: S,
    #[source]
    error: E,
}

impl<S, E: std::error::Error> TransitionError<S, E> {
    /// Why.
    #[must_use]
    pub const fn error(&self) -> &E {
        &self.error
    }

    /// The session, to go on with.
    #[must_use]
    pub fn into_session(self) -> S {
        self.session
    }

    /// Both.
    #[must_use]
    pub fn into_parts(self) -> (S, E) {
        (self.session, self.error)
    }
}

impl<S, E: std::error::Error> fmt::Debug for TransitionError<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransitionError").field("error", &self.error).finish_non_exhaustive()
    }
}

/// Why an authentication was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticateError {
    /// No stream header has arrived, so the session has no domain.
    #[error("the stream is not open")]
    NotOpen,
    /// The account belongs to another domain than the stream.
    #[error("the account belongs to another domain than the stream")]
    OtherDomain,
    /// The account has no normal form: see [`crate::address`].
    #[error("the account's address is not in normal form")]
    InvalidAddress,
}

impl<S: State<After = Infallible>, C: SharedConnection> Session<S, C> {
    const fn data(&self) -> &S::Before {
        match &self.stage {
            Stage::Unbound(data) => data,
            Stage::Bound(_, never) => match *never {},
        }
    }

    const fn data_mut(&mut self) -> &mut S::Before {
        match &mut self.stage {
            Stage::Unbound(data) => data,
            Stage::Bound(_, never) => match *never {},
        }
    }

    fn into_parts(self) -> (S::Before, C) {
        match self.stage {
            Stage::Unbound(data) => (data, self.connection),
            Stage::Bound(_, never) => match never {},
        }
    }
}

impl<C: SharedConnection> Session<Unauthed, C> {
    /// A session whose transport has just been accepted.
    pub const fn new(connection: C) -> Self {
        Self { stage: Stage::Unbound(UnauthedData { domain: None, open: false }), connection }
    }

    /// The client's stream header has arrived and names `domain`.
    pub fn open(&mut self, domain: DomainPart) {
        let domain = address::domain(domain.as_str()).unwrap_or(domain);
        *self.data_mut() = UnauthedData { domain: Some(domain), open: true };
    }

    /// The stream starts anew (after TLS): not open, and what the client said is forgotten
    /// ([STREAM-8](crate::rules#stream-8), [RFC 6120 §5.4.3.3](https://www.rfc-editor.org/rfc/rfc6120#section-5.4.3.3)).
    pub fn restart(&mut self) {
        *self.data_mut() = UnauthedData::default();
    }

    /// Whether a stream header has arrived since the start or the last restart.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.data().open
    }

    /// The domain that the client wants to talk to; `None` until the stream is open.
    #[must_use]
    pub fn domain(&self) -> Option<&DomainRef> {
        self.data().domain.as_deref()
    }

    /// The client has proved to be `account`.
    ///
    /// # Errors
    ///
    /// [`AuthenticateError`], with the session as it was.
    pub fn authenticate(
        self,
        account: BareJid,
    ) -> Result<Session<Authed, C>, TransitionError<Self, AuthenticateError>> {
        let Some(domain) = self.data().domain.as_ref().filter(|_| self.data().open) else {
            return self.refuse(AuthenticateError::NotOpen);
        };
        let Ok(account) = address::account(&account) else {
            return self.refuse(AuthenticateError::InvalidAddress);
        };
        if account.domain() != &**domain {
            return self.refuse(AuthenticateError::OtherDomain);
        }
        let data = AuthedData { account, open: true, protected: false, holding: false };
        Ok(Session { stage: Stage::Unbound(data), connection: self.connection })
    }
}

impl<C: SharedConnection> Session<Authed, C> {
    /// The account.
    #[must_use]
    pub const fn account(&self) -> &BareJid {
        &self.data().account
    }

    /// The account's domain.
    #[must_use]
    pub fn domain(&self) -> &DomainRef {
        self.data().account.domain()
    }

    /// Says whether nobody can read or change what goes over the transport (TLS, or what the host
    /// takes for as good): some things are said on such streams only ([STREAM-30](crate::rules#stream-30)). At first it is
    /// not.
    pub const fn set_protected(&mut self, protected: bool) {
        self.data_mut().protected = protected;
    }

    /// The session is to [hold back](SessionHandle::set_holding) from its beginning on this stream.
    pub const fn set_holding(&mut self, holding: bool) {
        self.data_mut().holding = holding;
    }

    /// The stream starts anew (after SASL): not open until the next header.
    pub const fn restart(&mut self) {
        self.data_mut().open = false;
    }

    /// The client's new stream header has arrived.
    pub const fn open(&mut self) {
        self.data_mut().open = true;
    }

    /// Whether a stream header has arrived since the last restart.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.data().open
    }

    /// Binds a resource ([RFC 6120 §7](https://www.rfc-editor.org/rfc/rfc6120#section-7)): from the return on the
    /// session is *connected* and can be found. The test for conflicts and the registration are one step ([BIND-7](crate::rules#bind-7)).
    ///
    /// Where an earlier session of the resource is still ending, the new one is gated: it
    /// collects what is sent to it, but writes nothing and takes no input until that one is
    /// forgotten ([BIND-14](crate::rules#bind-14)). [`Session::ready`] waits for it.
    ///
    /// # Errors
    ///
    /// [`BindError`], with the session as it was; nothing was registered.
    pub fn bind(
        self,
        registry: &SessionRegistry<C>,
        mut request: BindRequest<'_>,
    ) -> Result<Session<Bound, C>, TransitionError<Self, BindError>> {
        if !self.data().open {
            return self.refuse(BindError::Misuse(Misuse::NotOpen));
        }
        request.is_protected = self.data().protected;
        if self.data().holding {
            request.holding();
        }
        match registry.inner().bind(&self.data().account, self.connection.clone(), request) {
            Ok(owner) => {
                Ok(Session { stage: Stage::Bound(owner, ()), connection: self.into_parts().1 })
            }
            Err(error) => self.refuse(error),
        }
    }

    /// Takes over a session of this account that has lost its transport, or still has an older
    /// one ([XEP-0198 §5](https://xmpp.org/extensions/xep-0198.html#resumption)). `token` is the id that
    /// [`retain`](Session::retain) gave, `handled` how many stanzas the client has handled. Everything is checked before anything changes; then the new transport is put in,
    /// `reply` makes the first bytes on it, and what was not acknowledged is written again
    /// ([SM-14](crate::rules#sm-14), [SM-15](crate::rules#sm-15)). Handles stay valid.
    ///
    /// # Errors
    ///
    /// [`ResumeError`], with the session as it was: it may go on to bind.
    pub fn resume(
        self,
        registry: &SessionRegistry<C>,
        token: &str,
        handled: u32,
        reply: &mut dyn FnMut(Resumed) -> Vec<u8>,
    ) -> Result<Session<Bound, C>, TransitionError<Self, ResumeError>> {
        if !self.data().open {
            return self.refuse(ResumeError::Misuse(Misuse::NotOpen));
        }
        let (account, connection) = (&self.data().account, self.connection.clone());
        match registry.inner().resume_with(account, token, handled, connection, reply) {
            Ok(owner) => {
                let (data, connection) = self.into_parts();
                Ok(data.resumed(owner, connection))
            }
            Err(refused) => self.refuse(ResumeError::Refused(refused)),
        }
    }

    /// As [`resume`](Self::resume), for an owner that has more to say first on the new transport: nothing is
    /// written there before it [greets](Session::greet) its client.
    ///
    /// # Errors
    ///
    /// [`ResumeError`], with the session as it was: it may go on to bind.
    pub fn take_over(
        self,
        registry: &SessionRegistry<C>,
        token: &str,
        handled: u32,
    ) -> Result<(Session<Bound, C>, Resumed), TransitionError<Self, ResumeError>> {
        if !self.data().open {
            return self.refuse(ResumeError::Misuse(Misuse::NotOpen));
        }
        let (account, connection) = (&self.data().account, self.connection.clone());
        match registry.inner().resume(account, token, handled, connection) {
            Ok((owner, resumed)) => {
                registry.inner().deliver_events();
                let (data, connection) = self.into_parts();
                Ok((data.resumed(owner, connection), resumed))
            }
            Err(refused) => self.refuse(ResumeError::Refused(refused)),
        }
    }
}

/// What is sent before bind goes straight to the connection: nobody else sends on it.
macro_rules! unshared {
    ($state:ty) => {
        impl<C: SharedConnection> Session<$state, C> {
            /// Sends a stanza to the client.
            ///
            /// # Errors
            ///
            /// [`SendError`]: the connection did not take it, the caller still has it.
            pub fn send(&self, stanza: &Stanza) -> Result<(), SendError> {
                self.send_frame(Frame::stanza(stanza))
            }

            /// Sends what is no stanza: a header, features, an element of SASL.
            ///
            /// # Errors
            ///
            /// [`SendError`]: the connection did not take it.
            pub fn send_frame(&self, frame: Frame<'_>) -> Result<(), SendError> {
                self.connection.send(frame.framing(self.connection.framing()))
            }

            /// Ends the transport. Such a session has left no trace anywhere ([DESTROY-11](crate::rules#destroy-11)).
            pub fn close(self, how: Close) {
                self.connection.close(how);
            }
        }
    };
}

unshared!(Unauthed);
unshared!(Authed);

impl<S: State, C: SharedConnection> Session<S, C> {
    /// The connection that this session began with.
    #[must_use]
    pub const fn connection(&self) -> &C {
        &self.connection
    }

    fn refuse<T, E: std::error::Error>(self, error: E) -> Result<T, TransitionError<Self, E>> {
        Err(TransitionError { session: self, error })
    }
}

impl<S: State, C: SharedConnection> fmt::Debug for Session<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(S::NAME).finish_non_exhaustive()
    }
}

impl<C: SharedConnection> Session<Bound, C> {
    /// One that has come from another registry, with its new transport.
    #[cfg(feature = "cluster")]
    pub(super) const fn arrived(owner: Owner<C>, connection: C) -> Self {
        Self { stage: Stage::Bound(owner, ()), connection }
    }

    const fn owner(&self) -> &Owner<C> {
        match &self.stage {
            Stage::Bound(owner, ()) => owner,
            Stage::Unbound(never) => match *never {},
        }
    }

    /// A handle for others to reach the session by.
    #[must_use]
    pub fn handle(&self) -> SessionHandle<C> {
        SessionHandle(Arc::clone(&self.owner().shared))
    }

    /// The full JID.
    #[must_use]
    pub fn jid(&self) -> &FullJid {
        &self.owner().shared.jid
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> &BareJid {
        &self.owner().shared.account.bare
    }

    /// The account's domain.
    #[must_use]
    pub fn domain(&self) -> &DomainRef {
        self.owner().shared.jid.domain()
    }

    /// The resource part of the JID.
    #[must_use]
    pub fn resource(&self) -> &ResourceRef {
        self.owner().shared.jid.resource()
    }

    /// The number of this session instance.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.owner().shared.id
    }

    /// The roster of the account as it is now; all its sessions share one.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        self.owner().shared.account.roster()
    }

    /// Whether the session has requested the roster.
    #[must_use]
    pub fn is_interested(&self) -> bool {
        self.owner().shared.is_interested()
    }

    /// Whether the session is available.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.owner().shared.is_available()
    }

    /// The epoch of the transport that this owner feeds.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.owner().epoch
    }

    /// Whether this owner may still feed input: the session is alive and has no newer transport.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.owner().is_current()
    }

    /// Counts one received stanza and gives the ticket for it. While it is out, no further one
    /// is given: input is handled one by one ([STREAM-23](crate::rules#stream-23)).
    ///
    /// # Errors
    ///
    /// [`Detached`]: the session is over or has a newer transport; the stanza must have no effect.
    pub async fn begin_input(&mut self) -> Result<InputTicket<C>, Detached> {
        poll_fn(|cx| self.poll_input(cx)).await
    }

    /// [`begin_input`](Self::begin_input) for hosts that poll.
    pub fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<InputTicket<C>, Detached>> {
        self.owner().poll_input(Some(cx))
    }

    /// [`begin_input`](Self::begin_input) at once: `None` where it would have to wait.
    pub fn try_input(&mut self) -> Option<Result<InputTicket<C>, Detached>> {
        match self.owner().poll_input(None) {
            Poll::Ready(ticket) => Some(ticket),
            Poll::Pending => None,
        }
    }

    /// Waits until input may be fed: earlier instances of the resource are gone, and no stanza is
    /// in work.
    ///
    /// # Errors
    ///
    /// [`Detached`]: it never will.
    pub async fn ready(&mut self) -> Result<(), Detached> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// [`ready`](Self::ready) for hosts that poll. The waker is kept and is also woken when the
    /// session ends.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Detached>> {
        self.owner().poll_ready(Some(cx))
    }

    /// [`ready`](Self::ready) for threads; `None` if it takes longer than `timeout`.
    pub fn ready_blocking(&mut self, timeout: Option<Duration>) -> Option<Result<(), Detached>> {
        park::block_for(timeout, |cx| self.poll_ready(cx))
    }

    /// [`begin_input`](Self::begin_input) for threads; `None` if it takes longer than `timeout`.
    pub fn begin_input_blocking(
        &mut self,
        timeout: Option<Duration>,
    ) -> Option<Result<InputTicket<C>, Detached>> {
        park::block_for(timeout, |cx| self.poll_input(cx))
    }

    /// Sends a stanza to the client: see [`SessionHandle::send`].
    ///
    /// # Errors
    ///
    /// [`NotSent`]: nothing was accepted and the caller still has the stanza.
    pub fn send(&self, stanza: &Stanza) -> Result<(), NotSent> {
        self.handle().send(stanza)
    }

    /// Sends an element that is no stanza: see [`Item::element`].
    ///
    /// # Errors
    ///
    /// [`NotSent`]: nothing was accepted.
    pub fn send_element(&self, xml: &[u8]) -> Result<(), NotSent> {
        self.handle().send_item(&Item::element(xml))
    }

    /// Gives the client what comes first on the session, where [that was to be
    /// later](BindRequest::greeted_later); what waits follows it. Without effect where the session has ended
    /// or has a newer transport.
    pub fn greet(&self, reply: impl Into<Reply>) {
        self.owner().shared.registry.greet(self.owner(), Some(reply.into()));
    }

    /// Sets broadcast presence: first recorded, then sent to subscribers, to own available
    /// sessions and, if it is initial, answered with theirs
    /// ([RFC 6121 §4.2](https://www.rfc-editor.org/rfc/rfc6121#section-4.2), [PRES-3](crate::rules#pres-3)…7).
    ///
    /// `true` = it was initial presence: stored requests and offline messages are due.
    pub fn set_presence(&mut self, presence: Presence<'_>) -> bool {
        let shared = &self.owner().shared;
        self.is_current() && shared.registry.set_presence(shared, presence)
    }

    /// The client has requested the roster: pushes go to it from now on ([ROSTER-2](crate::rules#roster-2)).
    pub fn set_interested(&mut self) {
        if self.is_current() {
            self.owner().shared.set(INTERESTED, true);
        }
    }

    /// Keeps stanzas from now on until the client acknowledges them, and the session itself for
    /// `window` after the loss of its transport, or for as long as the registry's limits allow
    /// ([LIMIT-11](crate::rules#limit-11), [LIMIT-12](crate::rules#limit-12)). `reply` makes the bytes written before the first of them.
    ///
    /// `None`, and no effect, where that is so already or the owner is detached.
    pub fn retain(
        &mut self,
        window: Duration,
        reply: impl FnOnce(&Retention) -> Vec<u8>,
    ) -> Option<Retention> {
        self.owner().shared.registry.retain(self.owner(), window, reply)
    }

    /// The client has acknowledged stanzas up to `handled` ([SM-6](crate::rules#sm-6)). `None` where nothing is retained.
    pub fn acknowledge(&mut self, handled: u32) -> Option<Acknowledged> {
        let mut out = self.owner().shared.out.lock();
        if out.epoch == self.owner().epoch { out.acknowledge(handled) } else { None }
    }

    /// Stanzas of the client handled since retention began: the `h` to tell it. `None` where
    /// nothing is retained.
    #[must_use]
    pub fn handled(&self) -> Option<u32> {
        self.owner().shared.out.lock().handled()
    }

    /// The same, for a client that asks. `Some(None)`: some of it is on its way to other nodes, and the client is told later
    /// ([`SessionHandle::has_arrived`]).
    #[cfg(feature = "server")]
    pub(crate) fn handled_when_asked(&self) -> Option<Option<u32>> {
        #[cfg(feature = "cluster")]
        return self.owner().shared.out.lock().handled_when_asked();
        #[cfg(not(feature = "cluster"))]
        self.handled().map(Some)
    }

    #[cfg(feature = "server")]
    pub(crate) fn poll_input_ready(
        &self,
        cx: Option<&mut Context<'_>>,
    ) -> Poll<Result<(), Detached>> {
        self.owner().poll_ready(cx)
    }

    /// [`SessionHandle::go_on`] for the owner's transport; while there is more to come, a number that
    /// changes as it comes.
    #[cfg(feature = "server")]
    pub(crate) fn go_on(&self) -> Option<u32> {
        self.owner().shared.go_on(self.owner().epoch)
    }

    /// Bytes that wait for the connection to take them.
    #[cfg(feature = "server")]
    pub(crate) fn unwritten(&self) -> usize {
        self.owner().shared.out.lock().queue.unwritten().bytes as usize
    }

    /// The client sends no more: as the loss of the transport, but what was accepted for it is
    /// written, and the end of the stream behind it if the session ends. The owner is kept, to see when.
    #[cfg(feature = "server")]
    pub(crate) fn lose_input(&self) {
        let (shared, epoch) = (&self.owner().shared, self.owner().epoch);
        shared.registry.lose(
            shared,
            epoch,
            Reason::TransportLost,
            Some(LastWords::Close),
            Run::Here,
        );
    }

    /// Ends the session. `false` where it was over already.
    pub fn end(self, reason: Reason) -> bool {
        self.end_now(reason, None)
    }

    /// Ends the session with this stream error instead of the one that belongs to the reason.
    pub fn end_with(self, reason: Reason, error: &StreamError) -> bool {
        self.end_now(reason, Some(LastWords::Error(error)))
    }

    /// The same for an owner that stays, to see when the last words are written.
    pub(crate) fn end_now(&self, reason: Reason, last_words: Option<LastWords<'_>>) -> bool {
        let shared = &self.owner().shared;
        // Asked under the lock of the decision: a resumption may be quicker.
        shared.registry.end_if(shared, reason, last_words, Run::Here, |_| self.is_current())
    }
}
