//! The machine of one transport: bytes in, effects out, and what it wants next.

pub(super) mod admission;
mod blocked;
mod close;
mod congestion;
mod drain;
#[cfg(feature = "cluster")]
pub(super) mod export;
mod input;
pub(super) mod negotiate;
pub(super) mod rate;
mod recipients;
mod terms;
mod timeouts;
mod transport;

pub use admission::Place;
pub use negotiate::hashing::Offload;
pub use transport::{Transport, Want};

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;

use super::faults::PeerAddress;
use super::trace::Trace;
use super::{Core, FaultKind, LoginStep};
use crate::connection::{PreDrain, SharedConnection};
use crate::environment::Nanos;
use crate::park;
use crate::sasl::ChannelBindings;
use crate::session::{Authed, Bound, HostCode, Reason, Session, SessionHandle, Unauthed};
use crate::shield::shielded_or;
use crate::stanza::Framing;
#[cfg(feature = "cluster")]
use crate::stream::Heard;
use crate::stream::{BrokenMessage, Event, Limit, Parser, StreamCondition, StreamError};
use admission::PlaceStanding;
use blocked::Pending;
use close::Closing;
use congestion::Stall;
use drain::DrainHook;
pub(super) use drain::Drains;
use input::Deferred;
use negotiate::{EarlyData, Negotiating};
use rate::Spent;
use terms::Terms;

/// How far a transport has come. The typed session moves from one state to the next.
enum State<C: SharedConnection> {
    Unauthed(Session<Unauthed, C>),
    Authed(Session<Authed, C>),
    Bound(Session<Bound, C>),
    /// The session is with the job that binds it, or at another node.
    Binding,
    /// Our close tag is on its way, and the client's is still to come (STREAM-26).
    Closing(Closing<C>),
    Over,
}

/// One transport's way through the server: a machine without I/O.
///
/// Bytes go in with [`receive`](Self::receive), in any chunking; what they cause goes out through
/// the [`Connection`](crate::connection::Connection) that the server was given; what the driver wants next is a value,
/// [`Want`]; time passes with [`handle_timeout`](Self::handle_timeout). Dropping a driver, at any time,
/// is the loss of its transport: work on an accepted stanza goes on.
///
/// Beside its drivers a host runs [`Server::background`](super::Server::background) once, and calls
/// [`Server::handle_timeout`](super::Server::handle_timeout) once a second.
///
/// # Examples
///
/// The loop that every host runs around a driver, here in memory: a client logs in, binds a resource
/// and falls silent until the server gives its transport up.
///
/// ```
/// use std::sync::Arc;
/// use std::task::{Context, Poll, Waker};
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::sasl::ChannelBindings;
/// use xmpp_session::server::{Transport, Server, Want};
/// use xmpp_session::store::{AnyAccount, Stores};
///
/// let clock = Arc::new(Virtual::new(1));
/// let mut stores = Stores::memory();
/// stores.accounts = Arc::new(AnyAccount::new("secret")?);
/// let server = Server::builder(clock.clone(), stores).domain("example.com".parse()?).build();
///
/// // A socket was accepted. `secure`: TLS ends in front of this host.
/// let connection = Recorder::new();
/// let mut driver = server.accept(connection.clone(), Transport::new().secure(true));
/// let open = "<stream:stream xmlns='jabber:client' version='1.0' to='example.com' \
///             xmlns:stream='http://etherx.jabber.org/streams'>";
/// let mut socket = [
///     open,
///     "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGp1bGlldABzZWNyZXQ=</auth>",
///     open,
///     "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>",
///     "<resource>balcony</resource></bind></iq>",
/// ]
/// .into_iter();
///
/// let mut cx = Context::from_waker(Waker::noop()); // yours wakes the loop
/// let mut sent = String::new();
/// loop {
///     // What the driver wants; `Pending` while a store works or a limit pauses reading.
///     let arrived = match driver.poll_want(&mut cx) {
///         Poll::Ready(Want::Input) => socket.next(),
///         Poll::Ready(Want::StartTls) => {
///             driver.secured(ChannelBindings::new()); // after the handshake
///             continue;
///         }
///         Poll::Pending => None,
///         _ => break, // `Want::Close`
///     };
///     match arrived {
///         // Bytes in.
///         Some(bytes) => driver.receive(bytes.as_bytes()),
///         // Time: a host sleeps until the time-out, bytes or its waker, whichever comes first.
///         None => {
///             let due = driver.next_timeout().unwrap_or_default();
///             clock.advance(due.saturating_sub(server.now()));
///             driver.handle_timeout();
///         }
///     }
///     // Effects out: a host writes what its connections hold.
///     sent.extend(connection.take());
/// }
/// assert!(sent.contains("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"));
/// assert!(sent.contains("<jid>juliet@example.com/balcony</jid>"));
/// assert!(sent.contains("urn:xmpp:ping"), "asked for a sign of life");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a driver is the loss of its transport"]
pub struct Driver<C: SharedConnection> {
    core: Arc<Core<C>>,
    connection: C,
    parser: Parser,
    state: State<C>,
    pending: Option<Pending<C>>,
    want: Want,
    /// What only a stream under negotiation needs.
    negotiating: Option<Box<Negotiating>>,
    /// The language of the client's header (STREAM-11).
    lang: Option<Box<str>>,
    drain_hook: Arc<DrainHook<C>>,
    /// The end of the negotiation, of the close handshake, or of the client's silence.
    deadline: Nanos,
    /// The client was asked for a sign of life, and has said nothing since.
    was_asked: bool,
    /// The client reads too slowly, and is not read from: when to check again.
    congested: Option<Nanos>,
    /// Until when input may be unread that came during a pause.
    input_lags_until: Nanos,
    /// More waits for the client than its connection takes: when to check again.
    backlog_check: Option<Nanos>,
    /// While something waits for the client.
    stall: Option<Stall>,
    /// Its stanzas may have made what waits for it longer.
    output_grew: bool,
    spent: Spent,
    /// Whose allowance that is: the key of the source, later of the account.
    spends_as: u64,
    peer: PeerAddress,
    /// Where the transport is counted while it serves no session.
    place: Option<Place>,
    trace: Trace,
    /// The client is a program of this process: it is there as long as the driver is (BOT-3).
    is_local: bool,
    /// The host asks again behind each write, so that nobody has to be woken for one.
    is_asked_behind_writes: bool,
    /// What few drivers have.
    rare: Option<Box<Rare>>,
}

/// What few drivers have.
#[derive(Default)]
struct Rare {
    /// Broadcast presence that came too soon (LIMIT-19).
    deferred: Option<Box<Deferred>>,
    /// What limits the login.
    terms: Terms,
    /// The socket is at an edge (NODE-12).
    #[cfg(feature = "cluster")]
    is_leg: bool,
    /// What is not read of a stream that may move (NODE-14).
    #[cfg(feature = "cluster")]
    heard: Option<Box<Heard>>,
    /// The client has asked for what it cannot have, and is told so by its edge.
    #[cfg(feature = "cluster")]
    is_refused: bool,
}

#[cfg(any(feature = "tokio", feature = "threads"))]
impl<C: SharedConnection> super::Server<C> {
    /// The place of a transport until its source is known and it gets a driver.
    pub(crate) fn unnamed_place(&self) -> Place {
        self.0.ledger.enter(&PeerAddress::UNKNOWN)
    }

    pub(crate) fn limits(&self) -> &super::Limits {
        &self.0.limits
    }
}

impl<C: SharedConnection> Driver<C> {
    pub(super) fn new(core: Arc<Core<C>>, connection: C, transport: Transport) -> Self {
        let peer = PeerAddress::new(transport.source.as_deref());
        let place = core.ledger.enter(&peer);
        Self::placed(core, connection, transport, peer, place)
    }

    fn placed(
        core: Arc<Core<C>>,
        connection: C,
        transport: Transport,
        peer: PeerAddress,
        place: Place,
    ) -> Self {
        let drain_hook = Arc::new(DrainHook {
            session: OnceLock::new(),
            drains: Arc::clone(&core.drains),
            waker: Mutex::new(None),
        });
        connection.on_drain(Arc::clone(&drain_hook) as Arc<dyn PreDrain>);
        let stream = core.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        let framing = connection.framing();
        // WS-8
        let starttls = transport.starttls && framing == Framing::Stream;
        let spends_as = core.ledger.source(&peer).key();
        let now = core.environment.now();
        let mut negotiating = Negotiating::new(transport.secure, starttls, now);
        if let Some(bindings) = transport.bindings {
            negotiating.secured(bindings);
        }
        let mut driver = Self {
            state: State::Unauthed(Session::new(connection.clone())),
            parser: Parser::with_framing(&core.limits.stream, framing),
            pending: None,
            want: if transport.direct_tls { Want::StartTls } else { Want::Input },
            negotiating: Some(Box::new(negotiating)),
            lang: None,
            drain_hook,
            deadline: now.saturating_add(core.limits.negotiation).into(),
            was_asked: false,
            congested: None,
            input_lags_until: Nanos::default(),
            backlog_check: None,
            stall: None,
            output_grew: false,
            spent: core.allowances.take(spends_as, now),
            spends_as,
            place: Some(place),
            trace: Trace::new(stream, &peer),
            peer,
            is_local: false,
            is_asked_behind_writes: false,
            rare: None,
            connection,
            core,
        };
        if let Some((accepted, bytes)) = transport.preamble {
            let end = accepted.saturating_add(driver.core.limits.negotiation);
            driver.deadline = end.into();
            driver.parser.spend(bytes);
            driver.count_bytes(bytes, now);
        }
        driver
    }

    /// The client has begun to speak: from now on its transport takes one of the places of its
    /// source, or waits for one ([`poll_want`](Self::poll_want) is pending then).
    ///
    /// [`receive`](Self::receive) knows that by itself. A host calls it for a transport that begins
    /// with a TLS handshake, before that: when the first bytes are there to be read.
    pub fn heard(&mut self) {
        let Some((place, negotiating)) = self.place.as_ref().zip(self.negotiating.as_mut()) else {
            return;
        };
        if place.heard() {
            negotiating.standing = PlaceStanding::Waiting;
            self.limit(Limit::Unauthenticated);
            self.set_deadline(self.core.limits.admission);
        }
    }

    /// The transport's place among those that serve no session; if it serves one, a place among those
    /// that are being closed.
    ///
    /// For hosts that drop the driver before the socket is closed: a clone of this, kept until then,
    /// keeps the socket counted ([LIMIT-27](crate::rules#limit-27)).
    pub fn place(&mut self) -> Place {
        let (ledger, peer) = (&self.core.ledger, &self.peer);
        #[cfg(feature = "cluster")]
        if self.rare.as_ref().is_some_and(|rare| rare.is_leg) {
            return self.place.get_or_insert_with(|| ledger.elsewhere()).clone();
        }
        self.place.get_or_insert_with(|| ledger.closing(peer)).clone()
    }

    /// Takes bytes of the client, in any chunking; where elements are messages, a whole message. Never
    /// blocks and never fails: what is wrong with the input becomes a stream error and, in the end,
    /// [`Want::Close`].
    ///
    /// While the driver wants something else, or is [pending](Self::poll_want), hosts do not read:
    /// what is handed in nevertheless is kept if it may be, and counts against the limits.
    pub fn receive(&mut self, bytes: &[u8]) {
        let _span = self.trace.entered();
        let now = self.core.environment.now();
        self.arrived(bytes.len(), now);
        // TLS-2: what is behind `<starttls/>` in plain text is never read.
        if self.want == Want::Input {
            if self.poll_blocked(None).is_pending() {
                self.parser.feed(bytes);
                return self.limit_unread();
            }
            let mut input = bytes;
            while self.step(&mut input, Some(now)) {
                // What comes next, whoever asks for it waits for.
                if input.is_empty() && self.has_read_all() {
                    return;
                }
                if self.poll_blocked(None).is_pending() {
                    break;
                }
            }
            self.parser.feed(input);
        }
    }

    /// Takes a message of the client (RFC 7395), or a piece of one, in order: each piece is counted and read
    /// as it comes. As [`receive`](Self::receive) otherwise.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use xmpp_session::connection::Recorder;
    /// use xmpp_session::environment::Virtual;
    /// use xmpp_session::server::{Server, Transport};
    /// use xmpp_session::stanza::Framing;
    /// use xmpp_session::store::Stores;
    ///
    /// let clock = Arc::new(Virtual::new(1));
    /// let server = Server::builder(clock, Stores::memory()).domain("example.com".parse()?).build();
    /// let connection = Recorder::with_framing(Framing::Message);
    /// let mut driver = server.accept(connection.clone(), Transport::new().secure(true));
    /// let open = b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0' to='example.com'/>";
    /// driver.receive_message(&open[..20], false);
    /// driver.receive_message(&open[20..], true);
    /// let sent = connection.take();
    /// assert!(sent[0].starts_with("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' from='example.com'"));
    /// assert!(sent[1].starts_with("<stream:features xmlns:stream="));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn receive_message(&mut self, bytes: &[u8], is_last: bool) {
        let _span = self.trace.entered();
        self.arrived(bytes.len(), self.core.environment.now());
        if self.want == Want::Input {
            self.parser.feed_message(bytes, is_last);
            self.read_on();
        }
    }

    /// So many bytes of its framing have arrived: they are a sign of life, and count with those of the client.
    #[cfg(feature = "websocket")]
    pub(crate) fn overhead(&mut self, bytes: usize) {
        let _span = self.trace.entered();
        self.arrived(bytes, self.core.environment.now());
        self.parser.spend(bytes);
        #[cfg(feature = "cluster")]
        self.forward_overhead(bytes);
    }

    /// Bytes of a message that may be read at the moment (LIMIT-2, LIMIT-4).
    #[cfg(feature = "websocket")]
    pub(crate) fn longest_message(&self) -> usize {
        let limits = &self.core.limits.stream;
        match self.parser.is_authenticated() {
            true => limits.element_bytes(),
            false => limits.element_bytes_before_auth(),
        }
    }

    /// A message arrived that cannot be read: the stream, and with it the session, ends with the error for
    /// that. A host must not just drop its transport instead, for a client that resumes its session may
    /// send the same again.
    pub fn broken_message(&mut self, what: BrokenMessage) {
        let _span = self.trace.entered();
        self.arrived(0, self.core.environment.now());
        if self.want == Want::Input {
            self.parser.feed_broken(what);
            self.read_on();
        }
    }

    /// Whether another step would find nothing to do.
    fn has_read_all(&self) -> bool {
        matches!(self.state, State::Bound(_)) && self.parser.is_between() && !self.has_deferred()
    }

    /// Reads what the parser holds.
    fn read_on(&mut self) {
        if self.poll_blocked(None).is_pending() {
            return self.limit_unread();
        }
        while self.step(&mut &[][..], None) && self.poll_blocked(None).is_ready() {}
    }

    /// So many bytes of the client have arrived.
    #[inline]
    fn arrived(&mut self, bytes: usize, now: Duration) {
        self.core.metrics.bytes_received(bytes);
        self.alive(bytes, now);
    }

    /// So many bytes of the client are to be read.
    #[inline]
    fn alive(&mut self, bytes: usize, now: Duration) {
        if self.negotiating.is_some() {
            self.heard();
        }
        if matches!(self.state, State::Bound(_)) {
            self.was_asked = false;
            self.deadline = now.saturating_add(self.core.limits.silence).into();
        }
        self.count_bytes(bytes, now);
    }

    /// A host that reads on while the driver waits must not make it grow: limits count what arrived.
    fn limit_unread(&mut self) {
        #[cfg(feature = "cluster")]
        if self.forward() {
            return;
        }
        // SASL2-5
        if self.pending.is_some() && self.parser.unread() > 0 && self.is_exclusive() {
            return self.fail(StreamCondition::PolicyViolation.into());
        }
        let limits = &self.core.limits.stream;
        let (limit, most) = match self.state {
            State::Unauthed(_) => (Limit::BytesBeforeAuth, limits.bytes_before_auth()),
            _ => (Limit::ElementBytes, limits.element_bytes()),
        };
        if self.parser.unread() > most {
            self.parser.restart(false);
            self.fail(StreamError::exceeded(limit));
        }
    }

    /// What the driver wants now; `Pending` while a store works, or while a limit pauses reading.
    ///
    /// The waker is kept: it is also woken when somebody else ends the session. A host that waits
    /// for its socket polls this beside it.
    pub fn poll_want(&mut self, cx: &mut Context<'_>) -> Poll<Want> {
        self.drain_backlog();
        loop {
            if self.poll_blocked(Some(cx)).is_pending() {
                #[cfg(feature = "cluster")]
                return self.want_away();
                #[cfg(not(feature = "cluster"))]
                return Poll::Pending;
            }
            if !self.step(&mut &[][..], None) {
                return Poll::Ready(self.want);
            }
        }
    }

    /// The host asks for [`poll_want`](Self::poll_want) behind each write while it is pending, or
    /// [`follows_writes`](Self::follows_writes). A task that wakes itself costs the waking of a thread.
    #[cfg(feature = "tokio")]
    pub(crate) const fn asked_behind_writes(&mut self) {
        self.is_asked_behind_writes = true;
    }

    /// Whether it has something to do behind each write, though it wants input.
    #[cfg(feature = "tokio")]
    pub(crate) fn follows_writes(&self) -> bool {
        #[cfg(feature = "cluster")]
        if self.is_away() {
            return true;
        }
        self.congested.is_some()
    }

    /// Wakes whoever polls when the client has taken something, unless it asks again by itself.
    fn wake_on_write(&self, cx: &Context<'_>) {
        if !self.is_asked_behind_writes {
            self.drain_hook.wake_on_write(cx.waker());
        }
    }

    /// [`poll_want`](Self::poll_want) as a future. Safe to drop at any time.
    pub async fn want(&mut self) -> Want {
        poll_fn(|cx| self.poll_want(cx)).await
    }

    /// [`poll_want`](Self::poll_want) for threads; `None` after `timeout`, and when
    /// [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn want_blocking(&mut self, timeout: Option<Duration>) -> Option<Want> {
        let waker = park::waker();
        let start = std::time::Instant::now();
        loop {
            if let Poll::Ready(want) = self.poll_want(&mut Context::from_waker(&waker)) {
                return Some(want);
            }
            // Read here, since the work may have set a new time-out.
            let due = self.next_timeout().map(|at| at.saturating_sub(self.core.environment.now()));
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            match due.into_iter().chain(left).min() {
                None => std::thread::park(),
                Some(Duration::ZERO) => return None,
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }

    /// The TLS handshake after [`Want::StartTls`] is complete; what the client said before it is
    /// forgotten ([STREAM-8](crate::rules#stream-8)). At any other time this has no effect.
    pub fn secured(&mut self, bindings: ChannelBindings) {
        let State::Unauthed(session) = &mut self.state else { return };
        if self.want == Want::Close || (self.want == Want::Input && session.is_open()) {
            return;
        }
        session.restart();
        if let Some(negotiating) = &mut self.negotiating {
            let time = self.core.environment.now().saturating_sub(negotiating.tls_since());
            self.core.metrics.login_step(LoginStep::Tls, time);
            negotiating.secured(bindings);
        }
        self.parser.restart(false);
        self.lang = None;
        self.want = Want::Input;
        self.heard();
        self.progressed(false);
    }

    /// Whether what is handed in from now on came in the early data of TLS 1.3 (0-RTT), which somebody else can send
    /// again. Authentication in it is refused ([SASL2-11](crate::rules#sasl2-11)), but with a token and where
    /// [`FastPolicy::early_data`](crate::sasl::FastPolicy::early_data) allows that ([FAST-6](crate::rules#fast-6)).
    ///
    /// For hosts of your own whose TLS takes early data; those of this crate take none. To be called with `true` after
    /// [`secured`](Self::secured), and with `false` when the handshake is complete.
    pub fn early_data(&mut self, is_early: bool) {
        let is_read = self.parser.is_between();
        let Some(negotiating) = &mut self.negotiating else { return };
        negotiating.early = match (is_early, negotiating.early) {
            (true, _) => EarlyData::Yes,
            (false, EarlyData::Yes | EarlyData::Unread) if !is_read => EarlyData::Unread,
            (false, _) => EarlyData::No,
        };
    }

    /// The handle of the session, once it is bound.
    #[must_use]
    pub fn session(&self) -> Option<&SessionHandle<C>> {
        self.drain_hook.session.get().map(|(session, _)| session)
    }

    pub(super) const fn is_bound(&self) -> bool {
        matches!(self.state, State::Bound(_))
    }

    /// NODE-2: what the client says is neither handled nor acknowledged.
    #[cfg(feature = "cluster")]
    #[cold]
    fn stop(&mut self) -> bool {
        if !matches!(self.state, State::Over) {
            self.finish(crate::connection::Close::Abort);
        }
        false
    }

    /// Whether it serves a session, here or elsewhere.
    #[cfg(feature = "threads")]
    pub(crate) fn has_session(&self) -> bool {
        #[cfg(feature = "cluster")]
        if self.is_bound_away() {
            return true;
        }
        self.session().is_some()
    }

    /// Handles one event from what the parser holds or from `input`, which has come `now`; `false` if there is none
    /// now.
    fn step(&mut self, input: &mut &[u8], now: Option<Duration>) -> bool {
        #[cfg(feature = "cluster")]
        if !self.core.may_act() {
            return self.stop();
        }
        if self.want != Want::Input || self.pending.is_some() {
            return false;
        }
        if input.is_empty() && self.has_read_all() {
            return false;
        }
        if self.has_deferred() && self.carry_out_deferred() {
            return true;
        }
        let event = match self.parser.read(input) {
            Ok(Some(event)) => event,
            Ok(None) => return self.refuse_opening(),
            Err(error) => {
                self.fail(error);
                return true;
            }
        };
        match (&self.state, event) {
            // SERR: nothing that arrives after an error has an effect (STREAM-24).
            (State::Closing(_) | State::Over, Event::End) => self.closed_by_client(),
            (State::Closing(_) | State::Over, _) => {}
            (_, Event::End) => {
                self.carry_out_last_presence(false);
                // STREAM-27: our close tag answers, behind all that is queued.
                self.close_after_client(Reason::Closed);
            }
            (_, Event::Header(header)) => self.header(&header),
            (State::Bound(_), Event::Stanza(stanza)) => {
                self.stanza(&stanza, now.unwrap_or_else(|| self.core.environment.now()));
            }
            (State::Bound(_), Event::Nonza(nonza)) => self.nonza(&nonza),
            (State::Bound(_), Event::Refused(refused)) => self.refused(&refused),
            (_, event) => {
                if matches!(event, Event::Nonza(_)) {
                    self.parser.skip_line_end(input);
                }
                let is_followed = !input.is_empty() || self.parser.unread() > 0;
                self.unbound_event(event, is_followed);
            }
        }
        true
    }

    /// The TLS handshake that the driver wanted has failed, or TLS after it. For hosts, before they drop the
    /// driver: it is told as a fault ([FAULT-4](crate::rules#fault-4)), and has no other effect.
    pub fn tls_failed(&mut self, error: &dyn fmt::Display) {
        let error = error.to_string();
        self.tell(FaultKind::Tls { error });
    }

    /// A limit was hit.
    #[cold]
    fn limit(&self, limit: Limit) {
        self.core.metrics.limit(limit);
        self.tell(FaultKind::Limit(limit));
    }

    /// Something went wrong here.
    #[cold]
    fn tell(&self, kind: FaultKind) {
        let _span = self.trace.entered();
        let session = self.session().map(SessionHandle::account);
        let account = match (&self.state, session) {
            (_, Some(account)) => Some(&account.bare),
            (State::Authed(session), None) => Some(session.account()),
            _ => None,
        };
        self.core.faults.tell(kind, &self.peer, account);
    }

    /// Runs an extension, which fails alone.
    #[inline]
    fn shielded<T>(&self, host: impl FnOnce() -> T) -> Option<T> {
        self.shielded_as(HostCode::Extension, host)
    }

    #[inline]
    fn shielded_as<T>(&self, code: HostCode, host: impl FnOnce() -> T) -> Option<T> {
        shielded_or(host, |message| self.tell(FaultKind::Panic { code, message }))
    }

    /// So many bytes were received, or made of what was: LIMIT-20 may pause reading.
    fn count_bytes(&mut self, bytes: usize, now: Duration) {
        if self.spent.rates.spend_bytes(bytes, now, &self.core.limits) {
            self.over_rate();
        }
    }

    #[cold]
    fn over_rate(&self) {
        // Where the account lives that is counted, and acted on.
        #[cfg(feature = "cluster")]
        if self.is_away() {
            return;
        }
        self.limit(Limit::Rate);
    }

    /// One more stanza was handled: LIMIT-20 may pause reading, LIMIT-19 the next broadcast.
    fn count_stanza(&mut self, is_broadcast: bool, now: Duration) {
        self.output_grew = true;
        if let Some(limit) = self.spent.rates.spend_stanza(is_broadcast, now, &self.core.limits) {
            self.limit(limit);
        }
        // LIMIT-13
        if crate::shield::take_behind() {
            self.spent.rates.slow_down(now);
        }
    }
}

impl<C: SharedConnection> Drop for Driver<C> {
    fn drop(&mut self) {
        self.carry_out_last_presence(true);
        self.leave();
        let spent = std::mem::take(&mut self.spent);
        let now = self.core.environment.now();
        self.core.allowances.give_back(self.spends_as, spent, now, &self.core.limits);
    }
}

impl<C: SharedConnection> fmt::Debug for Driver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Unauthed(_) => "unauthed",
            State::Authed(_) => "authed",
            State::Binding => "binding",
            State::Bound(_) => "bound",
            State::Closing(_) => "closing",
            State::Over => "over",
        };
        f.debug_struct("Driver")
            .field("state", &state)
            .field("want", &self.want)
            .finish_non_exhaustive()
    }
}
