//! A bot's driver, shared by whoever sends as the bot, and by time.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::bell::{Bell, Waiting};
use super::reader::Reader;
use super::{BotError, Client};
use crate::connection::SharedConnection;
use crate::server::driver::{Driver, Want};
use crate::stanza::{Frame, Stanza};

/// The session is over.
pub(super) struct Over;

/// A bot's driver, and who waits for it.
pub(super) struct Line<C: SharedConnection> {
    driver: Mutex<Driver<C>>,
    pub(super) bell: Arc<Bell>,
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

    pub(super) async fn send(&self, stanza: &Stanza) -> Result<(), Over> {
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
            Poll::Ready(Want::Input) if serves(driver) => {
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

    /// Sends what a client opens with, and waits for its bind.
    pub(super) fn poll_bound(
        &self,
        cx: &mut Context<'_>,
        place: &mut Waiting<'_>,
        reader: &mut Reader,
        opening: &mut impl Iterator<Item = Vec<u8>>,
    ) -> Poll<Result<Client<C>, BotError>> {
        place.wait(cx.waker());
        let waker = Waker::from(Arc::clone(&self.bell));
        let bound = self.with(|driver| {
            loop {
                let want = driver.poll_want(&mut Context::from_waker(&waker));
                if let Some(session) = driver.session() {
                    return Poll::Ready(Ok(Client::Here(session.clone())));
                }
                #[cfg(feature = "cluster")]
                if let Some(line) = driver.line() {
                    if let Poll::Ready(jid) = reader.poll_jid(cx) {
                        return Poll::Ready(jid.map(|jid| Client::Away(jid, line)));
                    }
                    match opening.next().filter(|_| want == Poll::Ready(Want::Input)) {
                        Some(opening) => driver.receive(&opening),
                        None => return Poll::Pending,
                    }
                    continue;
                }
                match want {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Want::Input) => match opening.next() {
                        Some(opening) => {
                            reader.skip();
                            driver.receive(&opening);
                        }
                        None => return Poll::Ready(Err(reader.refusal())),
                    },
                    Poll::Ready(_) => return Poll::Ready(Err(reader.refusal())),
                }
            }
        });
        bound.unwrap_or(Poll::Pending)
    }

    /// Does what there is to do for a client whose session is at another node, and who takes what comes.
    #[cfg(feature = "cluster")]
    pub(super) fn tend(&self, cx: &Context<'_>) {
        self.bell.reader_waits(cx.waker());
        let waker = Waker::from(Arc::clone(&self.bell));
        self.with(|driver| {
            let _want = driver.poll_want(&mut Context::from_waker(&waker));
        });
    }

    /// The bot is gone: its session ends now, or as soon as its driver is free.
    pub(super) fn leave(&self) {
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

/// Whether it has a session, wherever that is.
fn serves<C: SharedConnection>(driver: &Driver<C>) -> bool {
    #[cfg(feature = "cluster")]
    if let Some(line) = driver.line() {
        return driver.is_bound_away() && !line.is_ended();
    }
    driver.is_bound()
}

/// The drivers of all bots, for what time does to them.
pub(in crate::server) struct Bots<C: SharedConnection>(Mutex<Vec<Weak<Line<C>>>>);

impl<C: SharedConnection> Default for Bots<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: SharedConnection> Bots<C> {
    pub(super) fn enter(&self, driver: Driver<C>) -> Arc<Line<C>> {
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

    pub(in crate::server) fn next_timeout(&self) -> Option<Duration> {
        self.lines().iter().filter_map(|line| line.next_timeout()).min()
    }

    pub(in crate::server) fn handle_timeout(&self, now: Duration) {
        self.lines().iter().for_each(|line| line.handle_timeout(now));
    }
}
