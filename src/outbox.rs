//! A ready-made write buffer: many senders, one writer.
//!
//! An [`Outbox`] is the [`Connection`] that sessions send to, its [`Drain`] is what the host's write
//! loop empties. Senders append and return at once; the writer takes everything that waits in one
//! piece, so that everything sent during a write shares the next one.
//!
//! ```text
//! send() ─┐
//! send() ─┼─▶ Outbox ──(pre-drain hook)──▶ Drain::fill ─▶ write ─▶ Drain::consume
//! send() ─┘   bytes count as waiting ────────────────────────────▶ until here
//! ```
//!
//! Just before a piece is handed out the hook of [`Connection::on_drain`] runs, without any lock, and
//! what it sends or appends is part of that piece: an acknowledgement request travels in the
//! same write as the stanzas it asks about. It runs only when bytes are about to be written, once for
//! each piece, and never after [`Connection::close`]: nothing may follow a close tag. When all bytes
//! are written, its [`drained`](PreDrain::drained) is called.

#[cfg(feature = "cluster")]
mod leg;
#[cfg(feature = "websocket")]
mod websocket;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::connection::{Close, Connection, PreDrain, SendError, SharedConnection};
use crate::stanza::{Frame, Framing};

/// A write buffer for one transport, shared by everyone who sends to it.
///
/// ```
/// use xmpp_session::connection::{Close, Connection};
/// use xmpp_session::outbox::{Marks, Outbox};
/// use xmpp_session::stanza::Frame;
///
/// let (outbox, mut drain) = Outbox::new(Marks::default());
/// let writer = std::thread::spawn(move || {
///     let mut socket = Vec::new();
///     while let std::task::Poll::Ready(Some(bytes)) = drain.fill_blocking(None) {
///         let written = bytes.len();
///         socket.extend_from_slice(bytes);
///         drain.consume(written);
///     }
///     socket
/// });
/// outbox.send(Frame::element(b"<presence/>"))?;
/// outbox.close(Close::Flush);
/// assert_eq!(writer.join().unwrap(), b"<presence/>");
/// # Ok::<(), xmpp_session::connection::SendError>(())
/// ```
pub struct Outbox {
    state: Mutex<State>,
    /// For a writer that blocks; one that polls leaves its waker in the state.
    changed: Condvar,
    /// [`Marks`], each in four bytes.
    soft: u32,
    hard: u32,
    edges: Edges,
    /// The error among what was sent to a leg, and none yet.
    #[cfg(feature = "cluster")]
    ending: std::sync::atomic::AtomicU16,
}

/// How a frame is told from the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edges {
    /// It ends as XML ends.
    Xml,
    /// Each is behind its length, and is handed out alone.
    Length,
    /// As [`Xml`](Self::Xml), for a client whose transport is at another node.
    #[cfg(feature = "cluster")]
    Leg,
    /// As [`Length`](Self::Length), for such a client.
    #[cfg(feature = "cluster")]
    LegLength,
    /// Each is a frame of a WebSocket, and the bytes are those of the wire.
    #[cfg(feature = "websocket")]
    WebSocket,
}

impl Edges {
    const fn framing(self) -> Framing {
        match self {
            Self::Xml => Framing::Stream,
            Self::Length => Framing::Message,
            #[cfg(feature = "cluster")]
            Self::Leg => Framing::Stream,
            #[cfg(feature = "cluster")]
            Self::LegLength => Framing::Message,
            #[cfg(feature = "websocket")]
            Self::WebSocket => Framing::Message,
        }
    }

    /// Whether each frame is behind its length.
    const fn are_lengths(self) -> bool {
        match self {
            Self::Length => true,
            #[cfg(feature = "cluster")]
            Self::LegLength => true,
            _ => false,
        }
    }
}

#[derive(Default)]
struct State {
    /// Accepted and not yet handed to the drain: always whole frames, with what stands at their [`Edges`].
    buffer: Vec<u8>,
    /// Bytes of the drain's piece that are not consumed yet.
    handed_out: usize,
    written: u64,
    closed: Option<Close>,
    waker: Option<Waker>,
    /// The waker's task cannot write now: only a close is news to it.
    blocked: bool,
    hook: Option<Arc<dyn PreDrain>>,
    #[cfg(feature = "websocket")]
    websocket: websocket::State,
}

impl Outbox {
    /// The two halves of a new buffer. It owns no memory for bytes until something is sent.
    #[must_use = "dropping the drain closes the outbox"]
    pub fn new(marks: Marks) -> (Arc<Self>, Drain) {
        Self::with_framing(marks, Framing::Stream)
    }

    /// The same for a transport that delimits elements in this way.
    #[must_use = "dropping the drain closes the outbox"]
    pub fn with_framing(marks: Marks, framing: Framing) -> (Arc<Self>, Drain) {
        Self::with_edges(
            marks,
            match framing {
                Framing::Stream => Edges::Xml,
                Framing::Message => Edges::Length,
            },
        )
    }

    fn with_edges(marks: Marks, edges: Edges) -> (Arc<Self>, Drain) {
        let small = |mark: usize| u32::try_from(mark).unwrap_or(u32::MAX);
        let (soft, hard) = (small(marks.soft), small(marks.hard));
        let (state, changed) = (Mutex::default(), Condvar::new());
        let outbox = Arc::new(Self {
            state,
            changed,
            soft,
            hard,
            edges,
            #[cfg(feature = "cluster")]
            ending: std::sync::atomic::AtomicU16::default(),
        });
        (Arc::clone(&outbox), Drain { outbox, piece: Vec::new(), at: 0 })
    }

    /// How it was closed, or `None` while it is open.
    #[must_use]
    pub fn closed(&self) -> Option<Close> {
        self.state.lock().closed
    }

    /// Bytes that were ever accepted.
    #[cfg(any(feature = "tokio", feature = "threads"))]
    pub(crate) fn accepted(&self) -> u64 {
        let state = self.state.lock();
        state.written.saturating_add(u64::try_from(state.waiting()).unwrap_or(u64::MAX))
    }

    /// Whether there is room for so many bytes.
    #[inline]
    fn admit(
        &self,
        state: &State,
        may_wait: bool,
        len: impl FnOnce() -> usize,
    ) -> Result<(), SendError> {
        if state.closed.is_some() {
            return Err(SendError::Closed);
        }
        let waiting = state.waiting();
        if waiting > 0 {
            let whole = waiting.saturating_add(len());
            if whole > self.soft as usize && (whole > self.hard as usize || may_wait) {
                return Err(SendError::Full);
            }
        }
        Ok(())
    }

    #[inline]
    fn append(&self, buffer: &mut Vec<u8>, frame: Frame<'_>) {
        match self.edges {
            Edges::Xml => frame.write_to(buffer),
            Edges::Length => message::append(buffer, frame),
            #[cfg(feature = "cluster")]
            Edges::Leg | Edges::LegLength => self.append_to_leg(buffer, frame),
            #[cfg(feature = "websocket")]
            Edges::WebSocket => websocket::append(buffer, frame),
        }
    }

    /// Wakes the writer. Consumes the guard since a waker is foreign code: it runs without the lock.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Connection for Outbox {
    /// Appends the frame.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when something waits and the total would exceed [`Marks::soft`] (for anything
    /// but a stanza [`Marks::hard`]), [`SendError::Closed`] after [`close`](Connection::close) and once the [`Drain`] is gone.
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let mut state = self.state.lock();
        self.admit(&state, frame.may_wait(), || frame.len())?;
        #[cfg(feature = "websocket")]
        if self.edges == Edges::WebSocket && !state.websocket.takes(&frame) {
            drop(state);
            self.not_open(&[frame]);
            return Ok(());
        }
        self.append(&mut state.buffer, frame);
        if !state.blocked {
            self.wake(state);
        }
        Ok(())
    }

    /// Appends all or none of them, in one piece.
    fn send_all(&self, frames: &[Frame<'_>]) -> Result<(), SendError> {
        let mut state = self.state.lock();
        let len = || frames.iter().map(Frame::len).sum();
        self.admit(&state, frames.iter().any(Frame::may_wait), len)?;
        #[cfg(feature = "websocket")]
        if self.edges == Edges::WebSocket
            && frames.iter().any(|frame| !state.websocket.takes(frame))
        {
            drop(state);
            self.not_open(frames);
            return Ok(());
        }
        frames.iter().for_each(|frame| self.append(&mut state.buffer, *frame));
        if !state.blocked {
            self.wake(state);
        }
        Ok(())
    }

    fn close(&self, how: Close) {
        let mut state = self.state.lock();
        #[cfg(feature = "websocket")]
        if self.edges == Edges::WebSocket && state.closed.is_none() {
            state.say_goodbye();
        }
        if state.closed != Some(Close::Abort) {
            state.closed = Some(how);
        }
        if how == Close::Abort {
            state.buffer = Vec::new();
            state.handed_out = 0;
        }
        // No hook runs from now on, and it may own the session that owns this outbox.
        let hook = state.hook.take();
        self.wake(state);
        drop(hook);
    }

    fn waiting(&self) -> usize {
        self.state.lock().waiting()
    }

    fn written(&self) -> u64 {
        self.state.lock().written
    }

    fn framing(&self) -> Framing {
        self.edges.framing()
    }

    fn on_drain(&self, hook: Arc<dyn PreDrain>) {
        let mut state = self.state.lock();
        let unused = if state.closed.is_some() { Some(hook) } else { state.hook.replace(hook) };
        drop(state);
        drop(unused);
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.buffer.len().saturating_add(self.handed_out)
    }

    /// Keeps the waker, and gives back the one before it, to be dropped without the lock.
    fn register(&mut self, waker: &Waker, blocked: bool) -> Option<Waker> {
        self.blocked = blocked;
        if self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return None;
        }
        self.waker.replace(waker.clone())
    }

    /// Swaps the buffer for `piece`, which is empty.
    fn hand_out(&mut self, piece: &mut Vec<u8>) {
        std::mem::swap(&mut self.buffer, piece);
        self.handed_out += piece.len();
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Outbox")
            .field("waiting", &state.waiting())
            .field("written", &state.written)
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

/// A connection that an [`Outbox`] can stand for: what a server with bots knows its connections as. A
/// host's own type implements it beside [`Connection`]; such a connection has the framing of a stream.
pub trait FromOutbox: SharedConnection {
    /// A connection that sends to this outbox.
    fn from_outbox(outbox: Arc<Outbox>) -> Self;
}

impl FromOutbox for Arc<Outbox> {
    fn from_outbox(outbox: Arc<Outbox>) -> Self {
        outbox
    }
}

impl FromOutbox for Arc<dyn Connection> {
    fn from_outbox(outbox: Arc<Outbox>) -> Self {
        outbox
    }
}

/// How many bytes may wait for a slow reader ([LIMIT-13](crate::rules#limit-13)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marks {
    /// Bytes above which no more stanzas are accepted: they wait in their session until everything here
    /// is written. A peer that has taken everything may be sent a stanza of any size (a long roster).
    pub soft: usize,
    /// Bytes above which nothing else is accepted either: a header, features, a stream error. What the
    /// pre-drain hook appends is always accepted.
    pub hard: usize,
}

impl Marks {
    /// Marks at `soft` and `hard` bytes.
    #[must_use]
    pub const fn new(soft: usize, hard: usize) -> Self {
        Self { soft, hard }
    }
}

impl Default for Marks {
    /// 64 KiB and 2 MiB.
    fn default() -> Self {
        Self::new(64 * 1024, 2 * 1024 * 1024)
    }
}

/// The writer's half of an [`Outbox`]: one per transport, not `Clone`, so that two writers cannot
/// interleave.
///
/// Fill, write, [`consume`](Self::consume) what the transport took, fill again. Bytes that were
/// handed out and not consumed come again. Dropping it ends the transport: the outbox then
/// refuses every frame.
#[must_use = "dropping the drain closes the outbox"]
pub struct Drain {
    outbox: Arc<Outbox>,
    /// The piece that is being written, consumed up to `at`.
    piece: Vec<u8>,
    at: usize,
}

impl Drain {
    /// The bytes to write next, never empty, or `None` at the end: closed, and flushed unless
    /// aborted. Pending while there is nothing to write; the waker of the latest call is woken.
    ///
    /// Where each frame is a message, these are the bytes of one message, and the others that wait
    /// are handed out one after the other, before anything new: see also [`messages`](Self::messages).
    ///
    /// If the pre-drain hook panics, no byte is lost and that hook is not called again.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Option<&[u8]>> {
        let mut old = None;
        let filled = self.advance(|_, state| old = state.register(cx.waker(), false));
        // It may hold the last reference to a task that owns the outbox.
        drop(old);
        filled.map(|more| more.then(|| self.rest()))
    }

    /// How the outbox was closed, once it is: for a write loop that cannot write now, and so does not
    /// fill. Until the next fill the waker is woken by [`Connection::close`] alone, also by an abort
    /// that follows a flush.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        let mut state = self.outbox.state.lock();
        let closed = state.closed;
        let old = state.register(cx.waker(), true);
        drop(state);
        drop(old);
        closed.map_or(Poll::Pending, Poll::Ready)
    }

    /// [`poll_fill`](Self::poll_fill) as a future. Dropping it at any time loses nothing.
    pub async fn fill(&mut self) -> Option<&[u8]> {
        let more = poll_fn(|cx| self.poll_fill(cx).map(|bytes| bytes.is_some())).await;
        more.then(|| self.rest())
    }

    /// [`poll_fill`](Self::poll_fill) for a thread: blocks until there is something to write or the
    /// end, without bound if `timeout` is `None`. Pending means that the time passed.
    pub fn fill_blocking(&mut self, timeout: Option<Duration>) -> Poll<Option<&[u8]>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut late = false;
        loop {
            let filled = self.advance(|changed, state| match deadline {
                Some(deadline) => late = changed.wait_until(state, deadline).timed_out(),
                None => changed.wait(state),
            });
            match filled {
                Poll::Ready(more) => return Poll::Ready(more.then(|| self.rest())),
                Poll::Pending if late => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    /// The messages that were handed out together and are not consumed, the one that is to be written
    /// next first: a host writes them all, flushes once, and then consumes the sum of their bytes. Of an
    /// outbox that does not hold messages it is the rest of the bytes.
    ///
    /// ```
    /// use std::task::Poll;
    /// use xmpp_session::connection::{Close, Connection};
    /// use xmpp_session::outbox::{Marks, Outbox};
    /// use xmpp_session::stanza::{Frame, Framing, Stanza};
    ///
    /// let (outbox, mut drain) = Outbox::with_framing(Marks::default(), Framing::Message);
    /// outbox.send(Frame::stanza(&Stanza::presence().build()))?;
    /// outbox.send_all(&[Frame::element(b"<r xmlns='urn:xmpp:sm:3'/>"), Frame::close()])?;
    /// outbox.close(Close::Flush);
    /// let mut websocket: Vec<Vec<u8>> = Vec::new();
    /// while let Poll::Ready(Some(_)) = drain.fill_blocking(None) {
    ///     let mut taken = 0;
    ///     for message in drain.messages() {
    ///         taken += message.len();
    ///         websocket.push(message.to_vec());
    ///     }
    ///     drain.consume(taken);
    /// }
    /// assert_eq!(websocket[0], b"<presence xmlns='jabber:client'/>");
    /// assert_eq!(websocket[2], b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>");
    /// # Ok::<(), xmpp_session::connection::SendError>(())
    /// ```
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let mut piece = self.piece.get(self.at..).unwrap_or_default();
        let are_lengths = self.outbox.edges.are_lengths();
        std::iter::from_fn(move || match are_lengths {
            _ if piece.is_empty() => None,
            true => message::take(&mut piece),
            false => Some(std::mem::take(&mut piece)),
        })
    }

    /// The transport took the first `n` of the bytes last handed out: only now do they stop
    /// counting as waiting. If nothing is left, this calls [`PreDrain::drained`].
    pub fn consume(&mut self, n: usize) {
        let n = match self.outbox.edges.are_lengths() {
            true => message::consumed(&mut self.piece, self.at, n),
            false => n.min(self.piece.len().saturating_sub(self.at)),
        };
        self.at = self.at.saturating_add(n);
        let mut state = self.outbox.state.lock();
        state.written = state.written.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
        state.handed_out = state.handed_out.saturating_sub(n);
        if self.at < self.piece.len() {
            return;
        }
        self.at = 0;
        self.piece.clear();
        // An idle connection owns no buffer; a busy one keeps two of ordinary size.
        if state.buffer.is_empty() {
            state.buffer = Vec::new();
            self.piece = Vec::new();
            let hook = state.hook.clone();
            drop(state);
            if let Some(hook) = hook {
                hook.drained();
            }
        } else if self.piece.capacity() > KEPT {
            self.piece = Vec::new();
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// How the outbox was closed, or `None` while it is open.
    #[must_use]
    pub fn closed(&self) -> Option<Close> {
        self.outbox.closed()
    }

    fn rest(&self) -> &[u8] {
        let mut rest = self.piece.get(self.at..).unwrap_or_default();
        match self.outbox.edges.are_lengths() {
            true => message::take(&mut rest).unwrap_or_default(),
            false => rest,
        }
    }

    /// Makes `rest` the bytes to write next, and says whether there are any. With nothing to write it
    /// calls `idle` under the same lock, so that no wake-up is lost in between.
    fn advance(&mut self, idle: impl FnOnce(&Condvar, &mut MutexGuard<'_, State>)) -> Poll<bool> {
        let mut state = self.outbox.state.lock();
        match state.closed {
            Some(Close::Abort) => {
                self.piece = Vec::new();
                self.at = 0;
                return Poll::Ready(false);
            }
            _ if self.at < self.piece.len() => return Poll::Ready(true),
            Some(Close::Flush) if state.buffer.is_empty() => return Poll::Ready(false),
            None if state.buffer.is_empty() => {
                idle(&self.outbox.changed, &mut state);
                return Poll::Pending;
            }
            _ => {}
        }
        // Taken out for the call, so that a hook that panics is not called again.
        let Some(hook) = state.hook.take() else {
            state.hand_out(&mut self.piece);
            return Poll::Ready(true);
        };
        let whole = state.buffer.len();
        drop(state);
        Poll::Ready(self.hand_out_with(hook, whole))
    }

    /// Hands out what waits with what the hook adds to it. The first `whole` bytes of the buffer were
    /// there before the hook was called. `false`: the outbox was aborted meanwhile.
    fn hand_out_with(&mut self, hook: Arc<dyn PreDrain>, whole: usize) -> bool {
        let mut trailing = Vec::new();
        let outbox = Arc::clone(&self.outbox);
        hook.pre_drain(&mut |frame| {
            outbox.append(&mut trailing, frame.framing(outbox.edges.framing()));
        });

        let mut state = self.outbox.state.lock();
        match state.closed {
            Some(Close::Abort) => return false,
            // The buffer may end with the close tag.
            Some(Close::Flush) => drop(state.buffer.splice(whole..whole, trailing)),
            None => {
                state.buffer.append(&mut trailing);
                // A hook that was set meanwhile is the newer one. The older is dropped after the lock.
                if state.hook.is_none() {
                    state.hook = Some(hook);
                }
            }
        }
        state.hand_out(&mut self.piece);
        true
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.outbox.close(Close::Abort);
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("unconsumed", &self.rest().len())
            .field("outbox", &self.outbox)
            .finish()
    }
}

/// Bytes of capacity up to which a busy outbox uses its buffers again.
const KEPT: usize = 64 * 1024;

/// Messages in a buffer, each behind its length.
pub(crate) mod message {
    use crate::stanza::{Frame, Framing};

    const LENGTH: usize = size_of::<u32>();

    pub(super) fn append(buffer: &mut Vec<u8>, frame: Frame<'_>) {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; LENGTH]);
        frame.framing(Framing::Message).write_to(buffer);
        let len = buffer.len().saturating_sub(start).saturating_sub(LENGTH);
        set_len(buffer, start, len);
    }

    /// Takes the first message off the front.
    pub(crate) fn take<'a>(piece: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (len, rest) = piece.split_first_chunk()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let (message, rest) = rest.split_at_checked(len)?;
        *piece = rest;
        Some(message)
    }

    /// How far to go on in `piece` from `at`, where a message begins, if `n` bytes of messages were
    /// consumed. What is left of one of them becomes a message.
    pub(super) fn consumed(piece: &mut [u8], at: usize, mut n: usize) -> usize {
        let mut rest = piece.get(at..).unwrap_or_default();
        let all = rest.len();
        loop {
            let left = rest;
            match take(&mut rest) {
                Some(message) if message.len() <= n => n -= message.len(),
                Some(message) if n > 0 => {
                    let (step, len) = (all - left.len() + n, message.len() - n);
                    set_len(piece, at + step, len);
                    return step;
                }
                _ => return all - left.len(),
            }
        }
    }

    fn set_len(buffer: &mut [u8], at: usize, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if let Some(place) = buffer.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = len.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests;
