//! The machine of one transport: bytes in, effects out, and what it wants next.

pub(super) mod admission;
pub(super) mod bind;
pub(super) mod close;
pub(super) mod drain;
pub(super) mod failures;
pub(super) mod hashing;
pub(super) mod input;
pub(super) mod negotiate;
pub(super) mod peer;
pub(super) mod rate;
pub(super) mod recipients;
pub(super) mod trace;
pub(super) mod unbound;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::connection::{Close, PreDrain, SharedConnection};
use crate::environment::Nanos;
use crate::extension::{Flow, Liveness};
use crate::sasl::ChannelBindings;
use crate::server::Core;
use crate::server::driver::admission::{Place, Source, Standing};
use crate::server::driver::bind::BindWait;
use crate::server::driver::close::Closing;
use crate::server::driver::drain::Hook;
use crate::server::driver::input::Late;
use crate::server::driver::negotiate::{Answer, Negotiating};
use crate::server::driver::peer::{Peer, Want};
use crate::server::driver::rate::{Pace, Spent};
use crate::server::driver::recipients::Recipients;
use crate::server::driver::trace::Trace;
use crate::server::work::oneshot::Receiver;
use crate::session::{Authed, Bound, Session, SessionHandle, Unauthed};
use crate::stream::{Event, Limit, Parser, StreamCondition, StreamError};

/// How far a transport has come. The typed session moves from one to the next.
enum Stage<C: SharedConnection> {
    Unauthed(Session<Unauthed, C>),
    Authed(Session<Authed, C>),
    Bound(Session<Bound, C>),
    /// The session is with the job that binds it.
    Binding,
    /// Our close tag is on its way, and the client's is waited for (STREAM-26).
    Closing(Closing<C>),
    Over,
}

/// What the driver waits for before it goes on with its input (STREAM-23).
enum Pending<C: SharedConnection> {
    /// The answer of a store to SASL.
    Sasl(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Bind(BindWait<C>),
    /// A stanza that waits for a store or a handler.
    Stanza(Receiver<()>),
}

/// One transport's way through the server: a machine without I/O.
///
/// Bytes go in with [`receive`](Self::receive), in any chunking; what they cause goes out through
/// the [`Connection`](crate::connection::Connection) that the server was given; what the driver wants next is a value,
/// [`Want`]; time passes with [`handle_timeout`](Self::handle_timeout). Dropping a driver, at any time,
/// is the loss of its transport: work on an accepted stanza goes on.
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
/// use xmpp_session::server::{Peer, Server, Want};
/// use xmpp_session::store::{AnyAccount, Stores};
///
/// let clock = Arc::new(Virtual::new(1));
/// let mut stores = Stores::memory();
/// stores.accounts = Arc::new(AnyAccount::new("secret")?);
/// let server = Server::builder(clock.clone(), stores).domain("example.com".parse()?).build();
///
/// // A socket was accepted. `secure`: TLS ends in front of this host.
/// let connection = Recorder::new();
/// let mut driver = server.accept(connection.clone(), Peer::new().secure(true));
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
    stage: Stage<C>,
    pending: Option<Pending<C>>,
    want: Want,
    /// What only a stream under negotiation needs.
    negotiating: Option<Box<Negotiating>>,
    /// The language of the client's header (STREAM-11).
    lang: Option<Box<str>>,
    hook: Arc<Hook<C>>,
    /// The end of the negotiation, of the close handshake, or of the client's silence.
    deadline: Nanos,
    /// The client was asked for a sign of life.
    asked: bool,
    /// The client reads too slowly: when to look again.
    congested: Option<Nanos>,
    /// It was not read from for that: until when an answer may still stand behind what it said meanwhile.
    unheard: Nanos,
    /// More waits for the client than its connection takes: when to look again.
    behind: Option<Nanos>,
    /// How far the client had come with what waits for it, and since when no further.
    taken: Option<((u64, u32), Nanos)>,
    /// Its stanzas may have made what waits for it longer.
    has_asked: bool,
    pace: Pace,
    /// Whose allowance it is: the source's, later the account's.
    spends: u64,
    source: Source,
    /// Where the transport is counted while it serves no session.
    place: Option<Place>,
    /// Broadcast presence that came too soon (LIMIT-19).
    late: Option<Box<Late>>,
    /// Where there is a limit of them.
    recipients: Option<Box<Recipients>>,
    /// What the host's log is told.
    trace: Trace,
}

/// How often it is looked whether a client that reads slowly has caught up. Most hosts' write loops
/// tell sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long what a client has said while it was not read from may take to be read.
const UNHEARD: Duration = Duration::from_secs(10);

impl<C: SharedConnection> Driver<C> {
    pub(super) fn new(core: Arc<Core<C>>, connection: C, peer: Peer) -> Self {
        let hook = Arc::new(Hook {
            session: OnceLock::new(),
            core: Arc::downgrade(&core),
            paused: Mutex::new(None),
        });
        connection.on_drain(Arc::clone(&hook) as Arc<dyn PreDrain>);
        let stream = core.metrics.accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let source = core.ledger.source(peer.source.as_deref());
        let place = core.ledger.enter(source);
        let negotiating = Negotiating::new(peer.secure, peer.starttls, core.early.enter());
        let spends = source.key();
        let Spent { pace, recipients } = core.allowances.take(spends, core.environment.now());
        Self {
            stage: Stage::Unauthed(Session::new(connection.clone())),
            parser: Parser::new(&core.limits.stream),
            pending: None,
            want: if peer.direct_tls { Want::StartTls } else { Want::Input },
            negotiating: Some(Box::new(negotiating)),
            lang: None,
            hook,
            deadline: core.environment.now().saturating_add(core.limits.negotiation).into(),
            asked: false,
            congested: None,
            unheard: Nanos::default(),
            behind: None,
            taken: None,
            has_asked: false,
            pace,
            spends,
            source,
            place: Some(place),
            late: None,
            recipients,
            trace: Trace::new(stream, core.log_addresses),
            connection,
            core,
        }
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
        if place.standing() == Standing::Silent && place.heard() == Standing::Waiting {
            negotiating.standing = Standing::Waiting;
            self.core.metrics.limit("LIMIT-25");
            self.give_time(self.core.limits.admission);
        }
    }

    fn give_time(&mut self, time: Duration) {
        self.deadline = self.core.environment.now().saturating_add(time).into();
    }

    /// The transport's place among those that serve no session; of one that serves a session a place
    /// among those that are being closed.
    ///
    /// For hosts that drop the driver before the socket is closed: a clone of this, kept until then,
    /// sees to it that the socket is counted (LIMIT-27).
    pub fn place(&mut self) -> Place {
        let (ledger, source) = (&self.core.ledger, self.source);
        self.place.get_or_insert_with(|| ledger.closing(source)).clone()
    }

    /// Takes bytes of the client, in any chunking. Never blocks and never fails: what is wrong
    /// with the input becomes a stream error and, in the end, [`Want::Close`].
    ///
    /// While the driver wants something else, or is [pending](Self::poll_want), hosts do not read:
    /// what is handed in nevertheless is kept if it may be, and counts against the limits.
    pub fn receive(&mut self, bytes: &[u8]) {
        use std::sync::atomic::Ordering;
        let _span = self.trace.entered();
        self.core.metrics.bytes_received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let now = self.core.environment.now();
        if self.negotiating.is_some() {
            self.heard();
        }
        if matches!(self.stage, Stage::Bound(_)) {
            self.asked = false;
            self.deadline = now.saturating_add(self.core.limits.silence).into();
        }
        self.count_bytes(bytes.len());
        // TLS-2: what is behind `<starttls/>` in plain text is never read.
        if self.want == Want::Input {
            let is_blocked = self.poll_blocked(None).is_pending();
            if is_blocked {
                self.parser.feed(bytes);
                return self.limit_unread();
            }
            let mut input = bytes;
            while self.step(&mut input) && self.poll_blocked(None).is_ready() {}
            self.parser.feed(input);
        }
    }

    /// A host that reads on while the driver waits must not make it grow: limits count what arrived.
    fn limit_unread(&mut self) {
        let limits = &self.core.limits.stream;
        let (limit, most) = match self.stage {
            Stage::Unauthed(_) => (Limit::BytesBeforeAuth, limits.bytes_before_auth()),
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
        let mut at = None;
        if let Stage::Bound(session) = &self.stage {
            let later = || self.core.environment.now().saturating_add(LOOK_AGAIN).into();
            at = session.go_on();
            self.behind = at.map(|_| self.behind.unwrap_or_else(later));
        }
        self.watch_progress(at);
        loop {
            if self.poll_blocked(Some(cx)).is_pending() {
                return Poll::Pending;
            }
            if !self.step(&mut &[][..]) {
                return Poll::Ready(self.want);
            }
        }
    }

    /// [`poll_want`](Self::poll_want) as a future. Safe to drop at any time.
    pub async fn want(&mut self) -> Want {
        poll_fn(|cx| self.poll_want(cx)).await
    }

    /// [`poll_want`](Self::poll_want) for threads; `None` after `timeout`, and when
    /// [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn want_blocking(&mut self, timeout: Option<Duration>) -> Option<Want> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let start = std::time::Instant::now();
        loop {
            if let Poll::Ready(want) = self.poll_want(&mut Context::from_waker(&waker)) {
                return Some(want);
            }
            // Now, since the work may have set a new time-out.
            let due = self.next_timeout().map(|at| at.saturating_sub(self.core.environment.now()));
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            match due.into_iter().chain(left).min() {
                None => std::thread::park(),
                Some(Duration::ZERO) => return None,
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }

    /// The TLS handshake after [`Want::StartTls`] has succeeded: what the client said before it is
    /// forgotten (STREAM-8). `bindings` is what SASL may bind a login to. At any other time it has no
    /// effect.
    pub fn secured(&mut self, bindings: ChannelBindings) {
        let Stage::Unauthed(session) = &mut self.stage else { return };
        if self.want == Want::Close || (self.want == Want::Input && session.is_open()) {
            return;
        }
        session.restart();
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.secured(bindings);
        }
        self.parser.restart(false);
        self.lang = None;
        self.want = Want::Input;
        self.heard();
        self.spoke(false);
    }

    /// The client has come a step further: it is not asked to yield as soon (LIMIT-25).
    fn spoke(&self, is_login: bool) {
        if let Some(place) = &self.place {
            place.spoke(is_login);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, on the clock of
    /// [`Server::now`](crate::server::Server::now).
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.want {
            Want::Close => None,
            _ => {
                let stuck = self.stuck_at();
                let late = self.pace.broadcast().filter(|_| self.late.is_some());
                let looks = [self.congested, self.behind, Some(self.deadline)];
                let pauses = [self.pace.resume(), late];
                let session = [self.extensions_at(), stuck];
                let waits = self.place.as_ref().filter(|_| self.waits());
                let early = [waits.and_then(Place::press_at), self.not_before()];
                let looks = looks.map(|at| at.map(Duration::from));
                pauses.into_iter().chain(session).chain(early).chain(looks).flatten().min()
            }
        }
    }

    /// When an extension has something to do for the session. Not while its input waits for us: an
    /// answer may stand in it.
    fn extensions_at(&self) -> Option<Duration> {
        let Stage::Bound(session) = &self.stage else { return None };
        if self.pending.is_some() || self.pace.resume().is_some() || self.congested.is_some() {
            return None;
        }
        let handle = session.handle();
        let extensions = self.core.extensions.iter();
        let soonest = || extensions.filter_map(|extension| extension.next_timeout(&handle)).min();
        crate::server::shielded(soonest).flatten().map(|at| at.max(self.unheard.into()))
    }

    /// Whether what the client has said may still be unread.
    fn is_deaf(&self, now: Duration) -> bool {
        let waits = self.pending.is_some() || self.congested.is_some();
        waits || self.pace.resume().is_some() || self.unheard > now.into()
    }

    /// The client is read from again, after what made it wait.
    fn listen(&mut self, now: Duration) {
        self.congested = None;
        self.unheard = now.saturating_add(UNHEARD).into();
    }

    /// Acts on the time that has passed.
    pub fn handle_timeout(&mut self) {
        let _span = self.trace.entered();
        let now = self.core.environment.now();
        if self.pace.resume().is_some_and(|at| at <= now) {
            self.listen(now);
        }
        self.pace.go_on(now);
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.not_before = negotiating.not_before.filter(|at| *at > now);
        }
        if self.congested.is_some_and(|at| Duration::from(at) <= now) {
            self.listen(now);
        }
        self.behind = self.behind.filter(|at| Duration::from(*at) > now);
        if self.want == Want::Close {
            return;
        }
        if let Some(place) = self.place.as_ref().filter(|_| self.waits()) {
            place.press();
        }
        let at = if let Stage::Bound(session) = &self.stage { session.go_on() } else { None };
        self.watch_progress(at);
        if self.stuck_at().is_some_and(|at| at <= now) {
            return self.give_up("LIMIT-13");
        }
        if self.extensions_at().is_some_and(|at| at <= now) && self.is_lost(now) {
            return self.give_up("LIMIT-22");
        }
        if self.deadline > now.into() {
            return;
        }
        match &self.stage {
            Stage::Closing(_) | Stage::Over => self.finish(Close::Flush),
            Stage::Bound(_) => self.is_silent(now),
            Stage::Unauthed(_) if self.waits() => {
                if let Some(place) = &self.place {
                    place.refuse();
                }
            }
            Stage::Unauthed(_) if self.is_refused() => self.finish(Close::Abort),
            Stage::Unauthed(_) | Stage::Authed(_) | Stage::Binding => {
                self.core.metrics.limit("LIMIT-1");
                self.dismiss(StreamCondition::PolicyViolation);
            }
        }
    }

    /// The handle of the session, once it is bound.
    #[must_use]
    pub fn session(&self) -> Option<&SessionHandle<C>> {
        self.hook.session.get().map(|(session, _)| session)
    }

    fn is_lost(&self, now: Duration) -> bool {
        let Stage::Bound(session) = &self.stage else { return false };
        let handle = session.handle();
        self.core.extensions.iter().any(|extension| {
            crate::server::shielded(|| extension.handle_timeout(&handle, now))
                == Some(Liveness::Lost)
        })
    }

    /// A dead transport is dropped without a word (STREAM-29).
    fn give_up(&mut self, limit: &'static str) {
        self.core.metrics.limit(limit);
        self.finish(Close::Abort);
    }

    /// STREAM-29: a silent client is asked first, and given up without a word if it does not
    /// answer.
    fn is_silent(&mut self, now: Duration) {
        // It is we who do not listen; or it takes what waits, and is watched by that (LIMIT-13).
        if self.is_deaf(now) || self.taken.is_some() {
            self.deadline = now.saturating_add(self.core.limits.answer).into();
            return;
        }
        if std::mem::replace(&mut self.asked, true) {
            return self.give_up("LIMIT-22");
        }
        if let Stage::Bound(session) = &self.stage {
            let handle = session.handle();
            let is_asked = self.core.extensions.iter().any(|extension| {
                let flow = crate::server::shielded(|| extension.ask_for_life(&handle));
                flow.is_some_and(|flow| flow != Flow::Next)
            });
            if !is_asked {
                self.core.ask_for_life(&handle);
            }
        }
        self.deadline = now.saturating_add(self.core.limits.answer).into();
    }

    /// When the login under way may be looked at, if that is later (LIMIT-29).
    fn not_before(&self) -> Option<Duration> {
        self.negotiating.as_ref().and_then(|negotiating| negotiating.not_before)
    }

    fn waits(&self) -> bool {
        self.negotiating.as_ref().is_some_and(|n| n.standing == Standing::Waiting)
    }

    fn is_refused(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_refused)
    }

    /// LIMIT-25…27: waits for a place; or the transport has to give up the one it has.
    fn poll_place(&mut self, cx: Option<&Context<'_>>) -> Poll<()> {
        let Some(place) = &self.place else { return Poll::Ready(()) };
        let (standing, is_cut) = place.poll(cx);
        if is_cut {
            self.yield_place();
            return Poll::Ready(());
        }
        let Some(negotiating) = &mut self.negotiating else { return Poll::Ready(()) };
        let before = std::mem::replace(&mut negotiating.standing, standing);
        match (before, standing) {
            (_, Standing::Waiting) => return Poll::Pending,
            // Its time begins now.
            (Standing::Waiting, Standing::Inside) => self.give_time(self.core.limits.negotiation),
            (Standing::Refused, _) => {}
            (_, Standing::Refused) => {
                self.core.metrics.limit("LIMIT-25");
                match self.want {
                    // No header can come before the handshake, and there is none.
                    Want::StartTls => self.finish(Close::Abort),
                    // One that has come, or comes soon, is told so.
                    _ => self.give_time(self.core.limits.close),
                }
            }
            _ => {}
        }
        Poll::Ready(())
    }

    fn yield_place(&mut self) {
        let limit = match &self.stage {
            Stage::Closing(_) | Stage::Over => return self.finish(Close::Flush),
            Stage::Bound(_) => return,
            Stage::Unauthed(_) => "LIMIT-25",
            Stage::Authed(_) | Stage::Binding => "LIMIT-26",
        };
        self.core.metrics.limit(limit);
        self.dismiss(StreamCondition::ResourceConstraint);
    }

    /// Closes a stream that has no session; with a word if its client has ever said a header, be it
    /// before TLS or SASL.
    fn dismiss(&mut self, condition: StreamCondition) {
        let has_begun = self.negotiating.as_ref().is_some_and(|n| n.has_begun);
        // TLS-2: no plain text behind `<proceed/>`.
        if has_begun && self.want != Want::StartTls {
            self.fail(condition.into());
        } else {
            self.finish(Close::Abort);
        }
    }

    /// Waits for what stands before the next event. Without a context nobody is woken.
    fn poll_blocked(&mut self, mut cx: Option<&mut Context<'_>>) -> Poll<()> {
        if self.want == Want::Close {
            return Poll::Ready(());
        }
        self.poll_dismissed(cx.as_deref());
        if self.poll_place(cx.as_deref()).is_pending() {
            return Poll::Pending;
        }
        if self.not_before().is_some() {
            return Poll::Pending;
        }
        while let Some(pending) = &mut self.pending {
            let mut nobody = Context::from_waker(Waker::noop());
            let context = cx.as_deref_mut().unwrap_or(&mut nobody);
            match pending {
                Pending::Sasl(answer) => match answer.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(answer) => {
                        self.pending = None;
                        self.sasl_answer(answer);
                    }
                },
                Pending::Bind(wait) => match Pin::new(&mut wait.done).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(outcome) => {
                        let id = std::mem::take(&mut wait.id);
                        self.pending = None;
                        self.bound(outcome, &id);
                    }
                },
                Pending::Stanza(done) => match Pin::new(done).poll(context) {
                    Poll::Ready(_) => {
                        self.pending = None;
                        self.listen(self.core.environment.now());
                    }
                    // The stanza goes on by itself if the session ends meanwhile.
                    Poll::Pending if self.poll_session(cx.as_deref_mut()).is_pending() => {
                        return Poll::Pending;
                    }
                    Poll::Pending if matches!(self.stage, Stage::Bound(_)) => return Poll::Pending,
                    Poll::Pending => self.pending = None,
                },
            }
        }
        if self.poll_session(cx.as_deref_mut()).is_pending() {
            return Poll::Pending;
        }
        if matches!(self.stage, Stage::Bound(_)) && self.poll_congested(cx).is_pending() {
            return Poll::Pending;
        }
        // What ends does so within LIMIT-23, and nothing that it says is worked on.
        let is_ending = matches!(self.stage, Stage::Closing(_) | Stage::Over);
        if self.pace.resume().is_some() && !is_ending { Poll::Pending } else { Poll::Ready(()) }
    }

    /// The server may close a stream that has no session yet. One that is just being registered is
    /// reached as a session, or refused.
    fn poll_dismissed(&mut self, cx: Option<&Context<'_>>) {
        let negotiating = self.negotiating.as_ref();
        let Some(error) = negotiating.and_then(|negotiating| negotiating.poll_dismissed(cx)) else {
            return;
        };
        match self.want {
            // TLS-2: there is no stream that could be told.
            Want::StartTls => self.finish(Close::Abort),
            _ => self.fail(error),
        }
    }

    /// Waits until the session takes input, or has said its last words.
    fn poll_session(&mut self, cx: Option<&mut Context<'_>>) -> Poll<()> {
        if let Stage::Bound(session) | Stage::Closing(Closing { session: Some(session), .. }) =
            &mut self.stage
        {
            match session.poll_input_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.detached(),
            }
        }
        Poll::Ready(())
    }

    /// LIMIT-13: notes since when a client takes nothing, while something waits for it: in its
    /// connection, or in front of that, where it is `at` this place.
    fn watch_progress(&mut self, at: Option<u32>) {
        let waiting = at.is_some() || self.connection.waiting() > 0;
        let waits = waiting && matches!(self.stage, Stage::Bound(_));
        let now = (self.connection.written(), at.unwrap_or_default());
        self.taken = match self.taken.filter(|_| waits) {
            Some((taken, since)) if taken == now => Some((taken, since)),
            _ => waits.then(|| (now, self.core.environment.now().into())),
        };
    }

    /// When a client that goes on taking nothing is given up.
    fn stuck_at(&self) -> Option<Duration> {
        let (_, since) = self.taken?;
        Some(Duration::from(since).saturating_add(self.core.limits.stuck))
    }

    /// LIMIT-13: a client that has asked for something is not read from as long as it does not read.
    /// One that only acknowledges is, since that makes nothing longer.
    fn poll_congested(&mut self, cx: Option<&mut Context<'_>>) -> Poll<()> {
        let is_congested = || {
            let waiting = self.connection.waiting();
            let Stage::Bound(session) = &self.stage else { return false };
            let mark = self.core.limits.soft_mark;
            waiting > mark || (waiting > 0 && waiting.saturating_add(session.unwritten()) > mark)
        };
        if !self.has_asked || !is_congested() {
            self.has_asked = false;
            if self.congested.is_some() {
                self.listen(self.core.environment.now());
            }
            return Poll::Ready(());
        }
        if let Some(cx) = cx {
            self.hook.wake_on_write(cx.waker());
            // What was written meanwhile woke nobody.
            if !is_congested() {
                return Poll::Ready(());
            }
        }
        if self.congested.is_none() {
            self.core.metrics.limit("LIMIT-13");
        }
        self.congested = Some(self.core.environment.now().saturating_add(LOOK_AGAIN).into());
        Poll::Pending
    }

    /// Handles one event, of what waits in the parser or of `input`; `false` where there is none to
    /// be had now.
    fn step(&mut self, input: &mut &[u8]) -> bool {
        if self.want != Want::Input || self.pending.is_some() {
            return false;
        }
        if self.late.is_some() && self.catch_up() {
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
        match (&self.stage, event) {
            // SERR: nothing that arrives after an error has an effect (STREAM-24).
            (Stage::Closing(_) | Stage::Over, Event::End) => self.closed_by_client(),
            (Stage::Closing(_) | Stage::Over, _) => {}
            (_, Event::End) => {
                self.last_presence(false);
                self.end_of_stream();
            }
            (_, Event::Header(header)) => self.header(&header),
            (Stage::Bound(_), Event::Stanza(stanza)) => self.stanza(&stanza),
            (Stage::Bound(_), Event::Nonza(nonza)) => self.nonza(&nonza),
            (Stage::Bound(_), Event::Refused(refused)) => self.refused(&refused),
            (stage, event) => {
                let is_counted = matches!(stage, Stage::Authed(_));
                match event {
                    Event::Refused(refused) => self.early_refused(&refused),
                    Event::Stanza(stanza) => self.early_stanza(&stanza, None),
                    Event::Nonza(nonza) => self.early_nonza(&nonza),
                    Event::End | Event::Header(_) => {}
                }
                if is_counted && matches!(self.stage, Stage::Authed(_)) {
                    self.count_stanza(false);
                }
            }
        }
        true
    }

    /// So many bytes were received, or made of what was: LIMIT-20 may pause reading.
    fn count_bytes(&mut self, bytes: usize) {
        let now = self.core.environment.now();
        if self.pace.bytes(bytes, now, &self.core.limits) {
            self.core.metrics.limit("LIMIT-20");
        }
    }

    /// One more stanza was handled: LIMIT-20 may pause reading, LIMIT-19 the next broadcast.
    fn count_stanza(&mut self, is_broadcast: bool) {
        let now = self.core.environment.now();
        self.has_asked = true;
        if let Some(limit) = self.pace.stanza(is_broadcast, now, &self.core.limits) {
            self.core.metrics.limit(limit);
        }
        // LIMIT-13
        if crate::shield::take_behind() {
            self.pace.slow_down(now);
        }
    }
}

impl<C: SharedConnection> Drop for Driver<C> {
    fn drop(&mut self) {
        self.last_presence(true);
        let spent = Spent { pace: self.pace, recipients: self.recipients.take() };
        let now = self.core.environment.now();
        self.core.allowances.give_back(self.spends, spent, now, &self.core.limits);
    }
}

impl<C: SharedConnection> fmt::Debug for Driver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Unauthed(_) => "unauthed",
            Stage::Authed(_) => "authed",
            Stage::Binding => "binding",
            Stage::Bound(_) => "bound",
            Stage::Closing(_) => "closing",
            Stage::Over => "over",
        };
        f.debug_struct("Driver")
            .field("stage", &stage)
            .field("want", &self.want)
            .finish_non_exhaustive()
    }
}
