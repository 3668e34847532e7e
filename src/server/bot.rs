//! Sessions of accounts whose client is code of the host.
//!
//! A bot is a client of this process: a driver that begins behind authentication, an outbox, and the stream
//! between them. Whatever holds for a client's stanzas holds for its stanzas too.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use jid::FullJid;
use parking_lot::Mutex;

use super::Server;
use super::driver::negotiate::local::ENABLED;
use super::driver::{Driver, Want};
use crate::address;
use crate::connection::SharedConnection;
use crate::outbox::{Drain, FromOutbox, Marks, Outbox};
use crate::park::block_on;
use crate::session::SessionHandle;
use crate::stanza::{Frame, Stanza, StanzaError, write};
use crate::store::StoreError;
use crate::stream::{self, Event, Nonza, Parser, STREAM_NAMESPACE, StreamCondition};

/// One stanza at a time: what the bot has not taken waits in its session, which knows what to do with it.
const MARKS: Marks = Marks::new(0, 2 << 20);

/// A session of an account whose client is a program of the host.
///
/// It is bound as a client's session is: stores are loaded, extensions asked, limits kept, and another session
/// of its resource gets out of its way ([BOT-1](crate::rules#bot-1)). To the server it is a client that says nothing yet: it becomes
/// available with `<presence/>`, and gets offline messages then; it is interested once it has asked for the
/// roster; it enables carbons if it wants them.
///
/// Dropping it ends the session. What the bot has not taken by then goes where it would go without it: to other
/// sessions, to the offline store, or back ([BOT-4](crate::rules#bot-4)).
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::connection::Connection;
/// use xmpp_session::environment::System;
/// use xmpp_session::server::{BotError, Server};
/// use xmpp_session::stanza::{Kind, Stanza};
/// # use xmpp_session::store::{AnyAccount, Stores};
///
/// /// Answers every message with itself.
/// async fn parrot(server: Server<Arc<dyn Connection>>) -> Result<(), BotError> {
///     let mut bot = server.bot(&"polly@example.com/cage".parse().unwrap()).await?;
///     bot.send(&Stanza::presence().build()).await?;
///     while let Some(stanza) = bot.recv().await {
///         if stanza.kind() == Kind::Message {
///             bot.send(&stanza.readdressed(None, stanza.from().as_deref())).await?;
/// #           break;
///         }
///     }
///     Ok(())
/// }
/// # let mut stores = Stores::memory();
/// # stores.accounts = Arc::new(AnyAccount::new("secret")?);
/// # let server: Server<Arc<dyn Connection>> =
/// #     Server::builder(Arc::new(System::new()), stores).domain("example.com".parse()?).build();
/// # use std::{future::Future, pin::pin, task::{Context, Poll, Waker}};
/// # let mut polly = pin!(parrot(server.clone()));
/// # let mut cx = Context::from_waker(Waker::noop());
/// # assert!(polly.as_mut().poll(&mut cx).is_pending());
/// # let hello = Stanza::message().from("jo@example.net").to("polly@example.com").type_("chat").build();
/// # server.send(hello);
/// # assert!(matches!(polly.poll(&mut cx), Poll::Ready(Ok(()))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a bot ends its session"]
pub struct Bot<C: SharedConnection> {
    line: Arc<Line<C>>,
    reader: Reader,
    session: SessionHandle<C>,
    /// Stanzas taken since they are counted.
    taken: u32,
    is_counted: bool,
}

/// A way to send as a bot, beside the [`Bot`] itself: cheap to clone.
pub struct BotSender<C: SharedConnection>(Weak<Line<C>>);

/// Why there is no bot, or none any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BotError {
    /// There is no such account.
    #[error("there is no such account")]
    NoAccount,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// The resource was not bound: too many sessions, or the account's data could not be loaded.
    #[error("the resource cannot be bound: {}", .0.condition().as_str())]
    Refused(StanzaError),
    /// The stream was closed: with this condition, if it was an error.
    #[error("the session is over")]
    Ended(Option<StreamCondition>),
}

impl<C: FromOutbox> Server<C> {
    /// Binds a session of an account of this server for a program of the host.
    ///
    /// # Errors
    ///
    /// [`BotError`]: no session is left.
    pub async fn bot(&self, jid: &FullJid) -> Result<Bot<C>, BotError> {
        let core = &self.0;
        let account = address::account(&jid.to_bare()).map_err(|_| BotError::NoAccount)?;
        if !core.registry.is_local(account.as_str()) {
            return Err(BotError::NoAccount);
        }
        match core.exists(&account).await {
            Ok(true) => {}
            Ok(false) => return Err(BotError::NoAccount),
            Err(error) => return Err(BotError::Store(error)),
        }
        let (outbox, drain) = Outbox::new(MARKS);
        let mut reader = Reader::new(drain);
        let driver = Driver::of_account(Arc::clone(core), C::from_outbox(outbox), account);
        let line = core.bots.enter(driver);
        let mut opening = opening(jid).into_iter();
        let session = {
            let mut place = Waiting::new(&line.bell);
            poll_fn(|cx| line.poll_bound(cx, &mut place, &mut reader, &mut opening)).await
        };
        let Some(session) = session else { return Err(reader.refusal()) };
        let bot = Bot { line, reader, session, taken: 0, is_counted: false };
        Ok(bot)
    }

    /// [`bot`](Self::bot) for threads. [`background`](Self::background) runs on another one.
    ///
    /// # Errors
    ///
    /// [`BotError`], as there.
    pub fn bot_blocking(&self, jid: &FullJid) -> Result<Bot<C>, BotError> {
        block_on(self.bot(jid))
    }
}

/// What a client sends up to its bind: each part once the one before it is answered.
fn opening(jid: &FullJid) -> [Vec<u8>; 2] {
    let mut header = b"<stream:stream xmlns='jabber:client' version='1.0' \
        xmlns:stream='http://etherx.jabber.org/streams' to='"
        .to_vec();
    write::attribute_value(&mut header, jid.domain().as_str());
    header.extend_from_slice(b"'>");
    let mut bind = b"<iq type='set' id='bind'>\
        <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>"
        .to_vec();
    write::text(&mut bind, jid.resource().as_str());
    bind.extend_from_slice(b"</resource></bind></iq>");
    [header, bind]
}

impl<C: SharedConnection> Bot<C> {
    /// The full JID that was bound. Its resource may be another than was asked for ([BIND-5](crate::rules#bind-5)).
    #[must_use]
    pub fn jid(&self) -> &FullJid {
        self.session.jid()
    }

    /// The session, as others see it.
    #[must_use]
    pub const fn session(&self) -> &SessionHandle<C> {
        &self.session
    }

    /// The next stanza for the bot; `None` once its session is over. A stanza that is taken is the bot's: it
    /// goes nowhere else. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Stanza> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`recv`](Self::recv) for programs that poll.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Stanza>> {
        loop {
            match ready!(self.reader.poll_next(cx)) {
                None => return Poll::Ready(None),
                // The answer to our bind is nobody's business: it comes before the session counts, from nobody.
                Some(Element::Stanza(stanza))
                    if !self.is_counted && stanza.raw_from().is_none() => {}
                Some(Element::Stanza(stanza)) if !self.is_counted => {
                    return Poll::Ready(Some(stanza));
                }
                Some(Element::Stanza(stanza)) => {
                    self.taken = self.taken.wrapping_add(1);
                    // Of a session that has ended, what was not taken has gone elsewhere.
                    if self.session.take(self.taken) {
                        return Poll::Ready(Some(stanza));
                    }
                }
                Some(Element::Counted) => self.is_counted = true,
            }
        }
    }

    /// [`recv`](Self::recv) for threads.
    pub fn recv_blocking(&mut self) -> Option<Stanza> {
        block_on(self.recv())
    }

    /// Sends a stanza as the account's client would: its `from` is the bot's, whatever it says. Waits while
    /// an earlier stanza is in work, while a limit pauses a client ([LIMIT-20](crate::rules#limit-20)), and a little for recipients that
    /// are far behind ([LIMIT-13](crate::rules#limit-13)); never for the bot to take what comes. To take it meanwhile, send from another
    /// task ([`sender`](Self::sender)). A future that is dropped before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// [`BotError::Ended`]: the session is over, and the stanza has no effect.
    pub async fn send(&self, stanza: &Stanza) -> Result<(), BotError> {
        self.line.send(stanza).await.map_err(|Over| self.ended())
    }

    /// [`send`](Self::send) for threads. Not from code that a stanza of this very bot has called (an extension,
    /// `on_fault`): that would wait for itself.
    ///
    /// # Errors
    ///
    /// [`BotError::Ended`].
    pub fn send_blocking(&self, stanza: &Stanza) -> Result<(), BotError> {
        block_on(self.send(stanza))
    }

    /// A way to send from elsewhere, as long as the bot lives.
    #[must_use]
    pub fn sender(&self) -> BotSender<C> {
        BotSender(Arc::downgrade(&self.line))
    }

    /// The error that closed the session, once [`recv`](Self::recv) has come to the end.
    #[must_use]
    pub const fn condition(&self) -> Option<StreamCondition> {
        self.reader.condition
    }

    fn ended(&self) -> BotError {
        BotError::Ended(self.reader.condition)
    }
}

impl<C: SharedConnection> BotSender<C> {
    /// As [`Bot::send`].
    ///
    /// # Errors
    ///
    /// [`BotError::Ended`].
    pub async fn send(&self, stanza: &Stanza) -> Result<(), BotError> {
        let ended = || BotError::Ended(None);
        let line = self.0.upgrade().ok_or_else(ended)?;
        line.send(stanza).await.map_err(|Over| ended())
    }

    /// As [`Bot::send_blocking`].
    ///
    /// # Errors
    ///
    /// [`BotError::Ended`].
    pub fn send_blocking(&self, stanza: &Stanza) -> Result<(), BotError> {
        block_on(self.send(stanza))
    }
}

impl<C: SharedConnection> Clone for BotSender<C> {
    fn clone(&self) -> Self {
        Self(Weak::clone(&self.0))
    }
}

impl<C: SharedConnection> Drop for Bot<C> {
    fn drop(&mut self) {
        self.line.leave();
    }
}

impl<C: SharedConnection> fmt::Debug for Bot<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bot").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl<C: SharedConnection> fmt::Debug for BotSender<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BotSender").finish_non_exhaustive()
    }
}

/// Something for a bot.
enum Element {
    Stanza(Stanza),
    /// From here on stanzas are counted.
    Counted,
}

/// What the server writes for a bot, read again.
struct Reader {
    drain: Drain,
    parser: Parser,
    condition: Option<StreamCondition>,
    is_over: bool,
}

impl Reader {
    fn new(drain: Drain) -> Self {
        // What the server writes was let in already, and a roster may be large.
        let most = 1 << 28;
        let limits = stream::Limits::default().with_element_bytes(most);
        let limits =
            limits.with_elements(64, most).with_depth(8, 1 << 10).with_attributes(16, most);
        let mut parser = Parser::new(&limits);
        parser.authenticated(&limits);
        Self { drain, parser, condition: None, is_over: false }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Element>> {
        while !self.is_over {
            match self.parser.next() {
                Ok(Some(Event::Stanza(received))) => {
                    let stanza = received.stamp(received.from(), None);
                    return Poll::Ready(Some(Element::Stanza(stanza)));
                }
                Ok(Some(Event::Nonza(nonza))) if nonza.is("enabled", ENABLED) => {
                    return Poll::Ready(Some(Element::Counted));
                }
                Ok(Some(Event::Nonza(nonza))) => self.note(&nonza),
                Ok(Some(Event::Header(_) | Event::Refused(_))) => {}
                Ok(Some(Event::End)) | Err(_) => self.is_over = true,
                Ok(None) => {
                    let Some(bytes) = ready!(self.drain.poll_fill(cx)) else { break };
                    self.parser.feed(bytes);
                    let taken = bytes.len();
                    self.drain.consume(taken);
                }
            }
        }
        self.is_over = true;
        Poll::Ready(None)
    }

    fn note(&mut self, nonza: &Nonza) {
        if nonza.is("error", STREAM_NAMESPACE) {
            let mut children = nonza.children();
            let known = |name: &str| StreamCondition::ALL.into_iter().find(|c| c.as_str() == name);
            self.condition = children.find_map(|child| known(child.name()));
        }
    }

    /// Takes what stands before an answer, which needs its room.
    fn skip(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(_)) = self.poll_next(&mut nobody) {}
    }

    /// Why there is no session, where none was bound.
    fn refusal(&mut self) -> BotError {
        let mut nobody = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(element)) = self.poll_next(&mut nobody) {
            if let Element::Stanza(answer) = element
                && let Some(error) = StanzaError::from_stanza(&answer)
            {
                return BotError::Refused(error);
            }
        }
        BotError::Ended(self.condition)
    }
}

/// The session is over.
struct Over;

/// A bot's driver, and who waits for it.
pub(super) struct Line<C: SharedConnection> {
    driver: Mutex<Driver<C>>,
    bell: Arc<Bell>,
    /// Somebody found the driver at work.
    was_missed: AtomicBool,
    /// The bot is gone.
    is_left: AtomicBool,
}

impl<C: SharedConnection> Line<C> {
    /// Acts on the driver; `None` while it is at work for somebody else, after whom the bell rings. Nobody
    /// waits for it as a thread: what it does may be what the caller's code was called from.
    fn with<T>(&self, act: impl FnOnce(&mut Driver<C>) -> T) -> Option<T> {
        let found = self.driver.try_lock().or_else(|| {
            self.was_missed.store(true, Ordering::SeqCst);
            self.driver.try_lock()
        });
        let mut driver = found?;
        let result = act(&mut driver);
        if self.is_left.load(Ordering::SeqCst) {
            driver.hang_up();
        }
        drop(driver);
        if self.was_missed.swap(false, Ordering::SeqCst) {
            // The bot may have left in between.
            if self.is_left.load(Ordering::SeqCst) {
                self.leave();
            }
            self.bell.ring();
        }
        Some(result)
    }

    async fn send(&self, stanza: &Stanza) -> Result<(), Over> {
        let frame = Frame::stanza(stanza);
        let mut bytes = Vec::with_capacity(frame.len());
        frame.write_to(&mut bytes);
        let mut place = Waiting::new(&self.bell);
        poll_fn(|cx| self.poll_send(cx, &mut place, &bytes)).await
    }

    fn poll_send(
        &self,
        cx: &Context<'_>,
        place: &mut Waiting<'_>,
        bytes: &[u8],
    ) -> Poll<Result<(), Over>> {
        place.wait(cx.waker());
        let waker = Waker::from(Arc::clone(&self.bell));
        let sent = self.with(|driver| match driver.poll_want(&mut Context::from_waker(&waker)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Want::Input) if driver.is_bound() => {
                driver.receive(bytes);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => {
                driver.hang_up();
                Poll::Ready(Err(Over))
            }
        });
        sent.unwrap_or(Poll::Pending)
    }

    /// Sends what a client opens with, and waits for its bind. `None`: there is no session.
    fn poll_bound(
        &self,
        cx: &Context<'_>,
        place: &mut Waiting<'_>,
        reader: &mut Reader,
        opening: &mut impl Iterator<Item = Vec<u8>>,
    ) -> Poll<Option<SessionHandle<C>>> {
        place.wait(cx.waker());
        let waker = Waker::from(Arc::clone(&self.bell));
        let bound = self.with(|driver| {
            loop {
                let want = driver.poll_want(&mut Context::from_waker(&waker));
                if let Some(session) = driver.session() {
                    return Poll::Ready(Some(session.clone()));
                }
                match want {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Want::Input) => match opening.next() {
                        Some(opening) => {
                            reader.skip();
                            driver.receive(&opening);
                        }
                        None => return Poll::Ready(None),
                    },
                    Poll::Ready(_) => return Poll::Ready(None),
                }
            }
        });
        bound.unwrap_or(Poll::Pending)
    }

    /// The bot is gone: its session ends now, or as soon as its driver is free.
    fn leave(&self) {
        self.is_left.store(true, Ordering::SeqCst);
        let _others_do = self.with(|_| ());
        self.bell.ring();
    }

    fn next_timeout(&self) -> Option<Duration> {
        self.with(|driver| driver.next_timeout()).flatten()
    }

    fn handle_timeout(&self, now: Duration) {
        let waker = Waker::from(Arc::clone(&self.bell));
        let was_due = self.with(|driver| {
            let is_due = driver.next_timeout().is_some_and(|at| at <= now);
            if is_due {
                driver.handle_timeout();
                let _want = driver.poll_want(&mut Context::from_waker(&waker));
            }
            is_due
        });
        if was_due == Some(true) {
            self.bell.ring();
        }
    }
}

/// The drivers of all bots, for what time does to them.
pub(super) struct Bots<C: SharedConnection>(Mutex<Vec<Weak<Line<C>>>>);

impl<C: SharedConnection> Default for Bots<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: SharedConnection> Bots<C> {
    fn enter(&self, driver: Driver<C>) -> Arc<Line<C>> {
        let line = Arc::new(Line {
            driver: Mutex::new(driver),
            bell: Arc::default(),
            was_missed: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
        });
        let mut lines = self.0.lock();
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&line));
        line
    }

    fn lines(&self) -> Vec<Arc<Line<C>>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.lines().iter().filter_map(|line| line.next_timeout()).min()
    }

    pub(super) fn handle_timeout(&self, now: Duration) {
        self.lines().iter().for_each(|line| line.handle_timeout(now));
    }
}

/// Wakes everybody who waits for one driver, which knows a single waker.
#[derive(Default)]
struct Bell(Mutex<Waiters>);

#[derive(Default)]
struct Waiters {
    next: u64,
    wakers: Vec<(u64, Waker)>,
}

impl Bell {
    fn ring(&self) {
        let wakers = std::mem::take(&mut self.0.lock().wakers);
        // Host code: without the lock.
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// One that waits for the bell, until it is dropped.
struct Waiting<'a> {
    bell: &'a Bell,
    number: Option<u64>,
}

impl<'a> Waiting<'a> {
    const fn new(bell: &'a Bell) -> Self {
        Self { bell, number: None }
    }

    fn wait(&mut self, waker: &Waker) {
        let waker = waker.clone();
        let mut waiters = self.bell.0.lock();
        let number = match self.number {
            Some(number) => number,
            None => {
                waiters.next += 1;
                waiters.next
            }
        };
        self.number = Some(number);
        let known = waiters.wakers.iter_mut().find(|(known, _)| *known == number);
        let old = match known {
            Some((_, place)) => Some(std::mem::replace(place, waker)),
            None => {
                waiters.wakers.push((number, waker));
                None
            }
        };
        drop(waiters);
        drop(old);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut waiters = self.bell.0.lock();
        let at = waiters.wakers.iter().position(|(known, _)| *known == number);
        let gone = at.map(|at| waiters.wakers.swap_remove(at));
        drop(waiters);
        drop(gone);
    }
}
