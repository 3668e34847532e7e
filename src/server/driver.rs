//! The machine of one transport: bytes in, effects out, and what it wants next.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::Core;
use super::builder::{Limits, Rate};
use super::negotiate::{Answer, Negotiating};
use super::oneshot::Receiver;
use crate::connection::{Close, Connection, PreDrain};
use crate::sasl::ChannelBindings;
use crate::session::{Authed, Bound, Reason, Session, SessionHandle, Unauthed};
use crate::stanza::Frame;
use crate::stream::{Event, Parser, StreamError, close};

/// What the driver wants of the host now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Want {
    /// Read, then [`Driver::receive`].
    Input,
    /// Flush what waits, do the TLS handshake as the server, then [`Driver::secured`]. A handshake
    /// that fails ends the transport, without another word (TLS-1).
    StartTls,
    /// Flush what waits, end the transport, drop the driver.
    Close,
}

/// What the host knows about a transport at its beginning.
#[derive(Clone, Default)]
#[must_use = "a peer says something to `accept` only"]
pub struct Peer {
    secure: bool,
    starttls: bool,
    source: Option<String>,
}

impl Peer {
    /// A plain transport that cannot be upgraded.
    pub const fn new() -> Self {
        Self { secure: false, starttls: false, source: None }
    }

    /// Declares the transport secure without TLS of ours: a loopback, a trusted proxy (TLS-3).
    pub const fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Whether the host can do a TLS handshake when asked to ([`Want::StartTls`]).
    pub const fn starttls(mut self, possible: bool) -> Self {
        self.starttls = possible;
        self
    }

    /// Where the transport comes from (an IP address, say), for LIMIT-25. Never shown to others
    /// (SEC-5).
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("secure", &self.secure)
            .field("starttls", &self.starttls)
            .finish_non_exhaustive()
    }
}

/// A TLS channel, as the host's TLS library tells.
#[derive(Clone, Debug, Default)]
#[must_use = "says something to `secured` only"]
pub struct Tls {
    bindings: ChannelBindings,
}

impl Tls {
    /// A channel that SASL cannot be bound to.
    pub fn new() -> Self {
        Self::default()
    }

    /// The channel's exported keying material for the label `EXPORTER-Channel-Binding`, 32 bytes
    /// ([RFC 9266](https://www.rfc-editor.org/rfc/rfc9266)).
    pub fn exporter(mut self, data: Vec<u8>) -> Self {
        self.bindings = self.bindings.exporter(data);
        self
    }

    /// The hash of the server's certificate
    /// ([RFC 5929 §4](https://www.rfc-editor.org/rfc/rfc5929#section-4)).
    pub fn server_end_point(mut self, hash: Vec<u8>) -> Self {
        self.bindings = self.bindings.server_end_point(hash);
        self
    }
}

/// How far a transport has come. The typed session moves from one to the next.
pub(super) enum Stage<C: Connection + Clone> {
    Unauthed(Session<Unauthed, C>),
    Authed(Session<Authed, C>),
    Bound(Session<Bound, C>),
    /// The session is with the job that binds it.
    Binding,
    /// Our close tag is on its way; the client's is waited for (STREAM-26).
    Closing(Option<Session<Bound, C>>),
    Over,
}

/// What the driver waits for before it goes on with its input (STREAM-23).
pub(super) enum Pending<C: Connection + Clone> {
    /// The answer of a store to SASL.
    Sasl(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Bind(super::negotiate::BindWait<C>),
    /// A stanza that waits for a store or a handler.
    Stanza(Receiver<()>),
}

/// One transport's way through the server: a machine without I/O.
///
/// Bytes go in with [`receive`](Self::receive), in any chunking; what they cause goes out through
/// the [`Connection`] that the server was given; what the driver wants next is a value,
/// [`Want`]. It is safe to drop at any time, which is the loss of the transport: a stanza that was
/// accepted is finished all the same.
#[must_use = "dropping a driver is the loss of its transport"]
pub struct Driver<C: Connection + Clone> {
    pub(super) core: Arc<Core<C>>,
    pub(super) connection: C,
    pub(super) parser: Parser,
    pub(super) stage: Stage<C>,
    pub(super) pending: Option<Pending<C>>,
    pub(super) want: Want,
    /// What only a stream under negotiation needs.
    pub(super) negotiating: Option<Box<Negotiating>>,
    /// The language of the client's header (STREAM-11).
    pub(super) lang: Option<Box<str>>,
    pub(super) hook: Arc<Hook<C>>,
    /// The end of the negotiation, of the close handshake, or of the client's silence.
    pub(super) deadline: Duration,
    /// The client was asked for a sign of life.
    asked: bool,
    pace: Pace,
}

impl<C: Connection + Clone> Driver<C> {
    pub(super) fn new(core: Arc<Core<C>>, connection: C, peer: Peer) -> Self {
        let hook = Arc::new(Hook { session: OnceLock::new(), core: Arc::downgrade(&core) });
        connection.on_drain(Arc::clone(&hook) as Arc<dyn PreDrain>);
        core.metrics.accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let admission = core.admissions.admit(peer.source);
        // LIMIT-25: no header has come, so nothing is written.
        let want = if admission.is_some() { Want::Input } else { Want::Close };
        if admission.is_none() {
            core.metrics.limit("LIMIT-25");
        }
        let negotiating = Negotiating::new(peer.secure, peer.starttls, admission);
        Self {
            stage: Stage::Unauthed(Session::new(connection.clone())),
            parser: Parser::new(&core.limits.stream),
            pending: None,
            want,
            negotiating: Some(Box::new(negotiating)),
            lang: None,
            hook,
            deadline: core.environment.now().saturating_add(core.limits.negotiation),
            asked: false,
            pace: Pace::default(),
            connection,
            core,
        }
    }

    /// Takes bytes of the client, in any chunking. Never blocks and never fails: what is wrong
    /// with the input becomes a stream error and, in the end, [`Want::Close`].
    pub fn receive(&mut self, bytes: &[u8]) {
        use std::sync::atomic::Ordering;
        self.core.metrics.bytes_received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let now = self.core.environment.now();
        if matches!(self.stage, Stage::Bound(_)) {
            self.asked = false;
            self.deadline = now.saturating_add(self.core.limits.silence);
            self.pace.bytes(bytes.len(), now, &self.core.limits);
        }
        if self.want != Want::Close {
            self.parser.feed(bytes);
            while self.poll_blocked(None).is_ready() && self.step() {}
        }
    }

    /// What the driver wants now; `Pending` while a store works, or while a limit pauses reading.
    ///
    /// The waker is kept: it is also woken when somebody else ends the session. A host that waits
    /// for its socket polls this beside it.
    pub fn poll_want(&mut self, cx: &mut Context<'_>) -> Poll<Want> {
        loop {
            if self.poll_blocked(Some(cx)).is_pending() {
                return Poll::Pending;
            }
            if !self.step() {
                return Poll::Ready(self.want);
            }
        }
    }

    /// [`poll_want`](Self::poll_want) as a future. Safe to drop at any time.
    pub async fn want(&mut self) -> Want {
        poll_fn(|cx| self.poll_want(cx)).await
    }

    /// [`poll_want`](Self::poll_want) for threads; `None` after `timeout`.
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
            match timeout {
                None => std::thread::park(),
                Some(timeout) => match timeout.checked_sub(start.elapsed()) {
                    Some(left) if !left.is_zero() => std::thread::park_timeout(left),
                    _ => return None,
                },
            }
        }
    }

    /// The TLS handshake after [`Want::StartTls`] is through; what the client said before it is
    /// forgotten (STREAM-8). For a transport that is TLS from its beginning (direct TLS) it is
    /// called before the first byte. At any other time it has no effect.
    pub fn secured(&mut self, tls: Tls) {
        let Stage::Unauthed(session) = &mut self.stage else { return };
        if self.want != Want::StartTls && session.is_open() {
            return;
        }
        session.restart();
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.secured(tls.bindings);
        }
        self.parser.restart(false);
        self.lang = None;
        self.want = Want::Input;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, on the clock of
    /// [`Server::now`](super::Server::now).
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.want {
            Want::Close => None,
            _ => Some(self.pace.resume.map_or(self.deadline, |at| at.min(self.deadline))),
        }
    }

    /// Acts on the time that has passed.
    pub fn handle_timeout(&mut self) {
        let now = self.core.environment.now();
        if self.pace.resume.is_some_and(|at| at <= now) {
            self.pace.resume = None;
        }
        if now < self.deadline || self.want == Want::Close {
            return;
        }
        match &self.stage {
            Stage::Closing(_) | Stage::Over => self.finish(Close::Flush),
            Stage::Bound(_) => self.is_silent(now),
            Stage::Unauthed(_) | Stage::Authed(_) | Stage::Binding => {
                self.core.metrics.limit("LIMIT-1");
                let silent = self.negotiating.as_ref().is_none_or(|n| !n.answered);
                if silent {
                    self.stage = Stage::Over;
                    self.finish(Close::Abort);
                } else {
                    self.fail(crate::stream::StreamCondition::PolicyViolation.into());
                }
            }
        }
    }

    /// The handle of the session, once it is bound.
    #[must_use]
    pub fn session(&self) -> Option<&SessionHandle<C>> {
        self.hook.session.get()
    }

    /// STREAM-29: a silent client is asked first, and given up without a word if it does not
    /// answer.
    fn is_silent(&mut self, now: Duration) {
        if std::mem::replace(&mut self.asked, true) {
            self.core.metrics.limit("LIMIT-22");
            self.stage = Stage::Over;
            self.finish(Close::Abort);
            return;
        }
        if let Stage::Bound(session) = &self.stage {
            self.core.ask_for_life(&session.handle());
        }
        self.deadline = now.saturating_add(self.core.limits.answer);
    }

    /// Waits for what stands before the next event. Without a context nobody is woken.
    fn poll_blocked(&mut self, mut cx: Option<&mut Context<'_>>) -> Poll<()> {
        if self.want == Want::Close {
            return Poll::Ready(());
        }
        while let Some(pending) = &mut self.pending {
            let mut nobody = Context::from_waker(Waker::noop());
            let cx = cx.as_deref_mut().unwrap_or(&mut nobody);
            match pending {
                Pending::Sasl(answer) => match answer.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(answer) => {
                        self.pending = None;
                        self.sasl_answer(answer);
                    }
                },
                Pending::Bind(wait) => match Pin::new(&mut wait.done).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(outcome) => {
                        let id = std::mem::take(&mut wait.id);
                        self.pending = None;
                        self.bound(outcome, &id);
                    }
                },
                Pending::Stanza(done) => match Pin::new(done).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(_) => self.pending = None,
                },
            }
        }
        if let Stage::Bound(session) | Stage::Closing(Some(session)) = &mut self.stage {
            match session.poll_input_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.detached(),
            }
        }
        let paused = matches!(self.stage, Stage::Bound(_))
            && (self.pace.resume.is_some()
                || self.connection.waiting() > self.core.limits.soft_mark);
        if paused { Poll::Pending } else { Poll::Ready(()) }
    }

    /// The session was ended by somebody else, or has a newer transport.
    fn detached(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Bound(session) if session.handle().is_ended() => self.wait_for_close(None),
            Stage::Closing(_) => self.stage = Stage::Closing(None),
            _ => self.finish(Close::Flush),
        }
    }

    /// Handles one event; `false` where there is none to be had now.
    fn step(&mut self) -> bool {
        if self.want != Want::Input || self.pending.is_some() {
            return false;
        }
        let event = match self.parser.next() {
            Ok(Some(event)) => event,
            Ok(None) => return false,
            Err(error) => {
                self.fail(error);
                return true;
            }
        };
        match (&self.stage, event) {
            // SERR: nothing that arrives after an error has an effect (STREAM-24).
            (Stage::Closing(_) | Stage::Over, Event::End) => self.finish(Close::Flush),
            (Stage::Closing(_) | Stage::Over, _) => {}
            (_, Event::End) => self.end_of_stream(),
            (_, Event::Header(header)) => self.header(&header),
            (Stage::Bound(_), Event::Stanza(stanza)) => self.stanza(&stanza),
            (Stage::Bound(_), Event::Nonza(nonza)) => self.nonza(&nonza),
            (_, Event::Stanza(stanza)) => self.early_stanza(&stanza),
            (_, Event::Nonza(nonza)) => self.early_nonza(&nonza),
        }
        true
    }

    /// STREAM-27: what came before is handled; the answer is our close tag, behind all that is
    /// queued.
    fn end_of_stream(&mut self) {
        self.end_session(Reason::Closed, b"</stream:stream>");
        self.finish(Close::Flush);
    }

    /// Closes with a stream error: written once, with the header before it if that was not sent
    /// yet, and nothing after it (STREAM-24, STREAM-25).
    pub(super) fn fail(&mut self, error: StreamError) {
        if matches!(self.stage, Stage::Closing(_) | Stage::Over) {
            return self.finish(Close::Flush);
        }
        self.core.metrics.stream_error(error.condition(), error.limit());
        let mut words = self.header_if_due();
        close(&mut words, None, Some(&error));
        let session = self.end_session(Reason::StreamError, &words);
        self.wait_for_close(session);
    }

    /// Ends the session of this transport with these last words, whatever state it is in. A bound
    /// one is given back as long as they are not written.
    pub(super) fn end_session(
        &mut self,
        reason: Reason,
        last_words: &[u8],
    ) -> Option<Session<Bound, C>> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Bound(session) => {
                session.end_now(reason, last_words);
                Some(session)
            }
            Stage::Closing(_) | Stage::Over => None,
            Stage::Unauthed(_) | Stage::Authed(_) | Stage::Binding => {
                let _broken = self.connection.send(Frame::raw(last_words));
                None
            }
        }
    }

    fn wait_for_close(&mut self, session: Option<Session<Bound, C>>) {
        self.stage = Stage::Closing(session);
        self.pending = None;
        self.negotiating = None;
        self.pace = Pace::default();
        self.deadline = self.core.environment.now().saturating_add(self.core.limits.close);
    }

    pub(super) fn finish(&mut self, how: Close) {
        self.stage = Stage::Over;
        self.pending = None;
        self.negotiating = None;
        self.want = Want::Close;
        self.connection.close(how);
    }

    /// One more stanza was handled: LIMIT-19 and LIMIT-20 may pause reading.
    pub(super) fn count_stanza(&mut self, is_broadcast: bool) {
        let now = self.core.environment.now();
        self.pace.stanza(is_broadcast, now, &self.core.limits);
    }
}

impl<C: Connection + Clone> fmt::Debug for Driver<C> {
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

/// How a connection's pre-drain call reaches the extensions.
pub(super) struct Hook<C: Connection + Clone> {
    pub(super) session: OnceLock<SessionHandle<C>>,
    core: Weak<Core<C>>,
}

impl<C: Connection + Clone> PreDrain for Hook<C> {
    fn pre_drain(&self, out: &mut Vec<u8>) {
        let session = self.session.get().filter(|session| !session.is_ended());
        if let (Some(session), Some(core)) = (session, self.core.upgrade()) {
            for extension in &core.extensions {
                extension.pre_drain(session, out);
            }
        }
    }
}

/// When the allowance of a rate would be full again: further ahead than the burst, and reading
/// pauses until it is not.
#[derive(Default)]
struct Pace {
    stanzas: Duration,
    bytes: Duration,
    presence: Duration,
    resume: Option<Duration>,
}

impl Pace {
    fn bytes(&mut self, bytes: usize, now: Duration, limits: &Limits) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self::spend(&mut self.bytes, &mut self.resume, limits.bytes, bytes, now);
    }

    fn stanza(&mut self, is_broadcast: bool, now: Duration, limits: &Limits) {
        Self::spend(&mut self.stanzas, &mut self.resume, limits.stanzas, 1, now);
        if is_broadcast {
            Self::spend(&mut self.presence, &mut self.resume, limits.presence, 1, now);
        }
    }

    fn spend(
        full: &mut Duration,
        resume: &mut Option<Duration>,
        rate: Option<Rate>,
        amount: u32,
        now: Duration,
    ) {
        let Some(rate) = rate else { return };
        let cost = |amount: u32| rate.period.saturating_mul(amount) / rate.amount.max(1);
        *full = (*full).max(now).saturating_add(cost(amount));
        let pause = full.saturating_sub(cost(rate.burst));
        if pause > now {
            *resume = Some(resume.map_or(pause, |at| at.max(pause)));
        }
    }
}

/// Who may be in the server without being authenticated (LIMIT-25).
pub(super) struct Admissions {
    most: usize,
    most_per_source: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    all: usize,
    sources: HashMap<String, usize>,
}

impl Admissions {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            most: limits.unauthenticated,
            most_per_source: limits.unauthenticated_per_source,
            inside: Mutex::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.inside.lock().all
    }

    fn admit(self: &Arc<Self>, source: Option<String>) -> Option<Admission> {
        let mut inside = self.inside.lock();
        if inside.all >= self.most {
            return None;
        }
        if let Some(source) = &source {
            let here = inside.sources.entry(source.clone()).or_default();
            if *here >= self.most_per_source {
                return None;
            }
            *here += 1;
        }
        inside.all += 1;
        Some(Admission { admissions: Arc::clone(self), source })
    }
}

/// One place among the unauthenticated, given up on drop.
pub(super) struct Admission {
    admissions: Arc<Admissions>,
    source: Option<String>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut inside = self.admissions.inside.lock();
        inside.all -= 1;
        let Some(source) = &self.source else { return };
        if let Some(here) = inside.sources.get_mut(source) {
            *here -= 1;
            if *here == 0 {
                inside.sources.remove(source);
            }
        }
    }
}
