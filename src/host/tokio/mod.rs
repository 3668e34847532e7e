//! One task per connection, on tokio.
//!
//! [`listen`] accepts and serves connections until it is told to stop; [`serve`] serves one, over anything that
//! reads and writes. An idle connection holds no read buffer: bytes are read into the stack of the poll that
//! finds them.

mod listen;
mod stream;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use listen::{Accept, accept, listen};
pub(super) use stream::Stream;

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::TcpStream;
use ::tokio::runtime::Handle;
use ::tokio::task::AbortHandle;
use ::tokio::time::{Instant, Sleep, sleep, sleep_until, timeout, timeout_at};
use parking_lot::Mutex;

use super::ahead::Ahead;
use super::tls::Tls;
use super::{Farewell, Host, Live, Machine, SHUTDOWN_PAUSE, cut, is_of_tls, of_tls, tick};
use crate::connection::{Close, Connection, SharedConnection};
use crate::outbox::Drain;
use crate::server::{Offload, Place, Server, Transport, Want};

/// Does a server's work that belongs to no connection: what outlives one, and time-outs. Run it
/// once, beside the connections; it never ends. [`listen`] does so by itself.
pub async fn background<C: SharedConnection>(server: Server<C>) {
    loop {
        // Neither ends. The first may be dropped and begun again.
        let _time_is_up = timeout(tick(&server), server.background()).await;
        server.handle_timeout();
    }
}

/// The task that does it for the listeners of a host.
#[derive(Default)]
pub(super) struct Background(Mutex<Option<AbortHandle>>);

impl Background {
    /// Begins it, unless it is there.
    fn begin<C: SharedConnection>(&self, server: &Server<C>) {
        let mut task = self.0.lock();
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(::tokio::spawn(background(server.clone())).abort_handle());
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(task) = self.0.get_mut() {
            task.abort();
        }
    }
}

/// Hashes on the runtime's threads for blocking work.
impl Offload for Handle {
    fn run(&self, hash: Box<dyn FnOnce() + Send>) {
        drop(self.spawn_blocking(hash));
    }
}

/// Ends every stream with `system-shutdown` ([DESTROY-16](crate::rules#destroy-16)), bound or not, and returns once all
/// connections are closed and what the sessions left is stored, or after `patience`. Handshakes are
/// broken off.
///
/// Call it once nothing more is accepted, while [`background`] still runs.
pub async fn shutdown<C: SharedConnection>(host: &Host<C>, patience: Duration) {
    let ended = async {
        while !host.end_all() {
            sleep(SHUTDOWN_PAUSE).await;
        }
    };
    let _too_slow = timeout(patience, ended).await;
}

/// Serves one connection to its end, with STARTTLS if the host has a certificate. The stream is anything that
/// reads and writes: a TCP or Unix socket, a pipe in memory, a stream of QUIC, or one of TLS that the host has
/// done itself, which `transport` then says ([`Transport::secured`]). `TCP_NODELAY` is set where the stream is a
/// [`TcpStream`], and is the host's business where it is something on top of one.
///
/// Dropping the future is the loss of the transport.
///
/// # Errors
///
/// When the transport broke, the handshake failed, or the flush at the end took too long. There is
/// nothing left to do but to log it.
pub fn serve<C, S>(
    host: Arc<Host<C>>,
    stream: S,
    transport: Transport,
) -> impl Future<Output = io::Result<()>> + Send
where
    C: SharedConnection,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Stream { io: stream, ahead: Ahead::default() };
    run(Line::new(host, stream, transport, false), |end| end)
}

/// Serves one connection that begins with a TLS handshake
/// ([XEP-0368](https://xmpp.org/extensions/xep-0368.html)), for clients whose application protocol
/// is `xmpp-client` if they name any ([TLS-5](crate::rules#tls-5)).
///
/// # Errors
///
/// As [`serve`], and at once if the host has no certificate.
pub fn serve_direct_tls<C, S>(
    host: Arc<Host<C>>,
    stream: S,
    transport: Transport,
) -> impl Future<Output = io::Result<()>> + Send
where
    C: SharedConnection,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Stream { io: stream, ahead: Ahead::default() };
    run(Line::new(host, stream, transport, true), |end| end)
}

/// Serves a line to its end, and says how it ended.
///
/// Idle connections are many, so that this future is to be small. It has room for every stage, and for each
/// place that its values move through: the rare stages are boxed, the line is made outside, and `done` needs
/// no future around this one.
#[expect(clippy::manual_async_fn, reason = "one with `async` keeps its arguments twice")]
pub(super) fn run<M, S, T>(
    mut line: Line<M, S>,
    done: impl FnOnce(io::Result<()>) -> T + Send,
) -> impl Future<Output = T> + Send
where
    M: Machine + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    async move {
        let mut timer = pin!(sleep_until(far()));
        let mut step = line.no_delay();
        if line.direct_tls && step.is_ok() {
            let time = line.machine.settings().handshake;
            let heard = poll_fn(|cx| line.poll_heard(timer.as_mut(), cx));
            step = Box::pin(timeout(time, heard)).await.unwrap_or_else(|late| Err(late.into()));
        }
        loop {
            let next = match step {
                Ok(()) => poll_fn(|cx| line.poll_next(timer.as_mut(), cx)).await,
                Err(error) => {
                    if is_of_tls(&error) {
                        Box::pin(part(&mut line.socket)).await;
                    }
                    return done(Err(error));
                }
            };
            step = match next {
                Ok(Next::Secure) => match Box::pin(secure(line)).await {
                    Ok(secured) => {
                        line = secured;
                        Ok(())
                    }
                    Err(error) => return done(Err(error)),
                },
                Ok(Next::Close) => return done(Box::pin(finish(line)).await),
                Err(error) => Err(error),
            };
        }
    }
}

/// A machine and what it speaks through.
pub(super) struct Line<M, S> {
    machine: Box<M>,
    drain: Drain,
    socket: Socket<S>,
    /// The peer has not said that it sends no more.
    open: bool,
    direct_tls: bool,
    /// Where the plain text ends, from [`Want::StartTls`] on. No more than this comes before it.
    plain: u32,
}

struct Socket<S> {
    stream: Stream<S>,
    /// From the handshake on.
    tls: Option<Box<Tls>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.tls.is_none() {
            return Pin::new(&mut self.stream.io).poll_write(cx, bytes);
        }
        // What TLS itself has to say is little, and goes along.
        if self.tls.as_ref().is_some_and(|tls| tls.outgoing().len() > LITTLE) {
            ready!(self.poll_records(cx))?;
        }
        let Some(tls) = &mut self.tls else { return Poll::Pending };
        let taken = tls.encrypt(bytes).map_err(of_tls)?;
        // It was taken, whether or not there is room.
        match self.poll_records(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    /// Writes the records that wait.
    fn poll_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(tls) = &mut self.tls
            && !tls.outgoing().is_empty()
        {
            match ready!(Pin::new(&mut self.stream.io).poll_write(cx, tls.outgoing()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => tls.written(n),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_records(cx))?;
        Pin::new(&mut self.stream.io).poll_flush(cx)
    }

    /// Reads once what nobody is to get, and says how much that was.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            tls.close();
        }
        ready!(self.poll_records(cx))?;
        match ready!(Pin::new(&mut self.stream.io).poll_shutdown(cx)) {
            // A peer that is gone.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            end => Poll::Ready(end),
        }
    }

    /// Something was decrypted that nobody has read.
    fn has_unread(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_plain())
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.has_unread() {
                ready!(self.poll_flush(cx))?;
            }
            if self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking()) {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Reads once what TLS is made of, and says how much that was.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let Some(tls) = &mut self.tls else { return Poll::Pending };
        let bytes = buffer.filled_mut();
        let taken = tls.receive(bytes).map_err(of_tls);
        if !self.has_unread() {
            // Its answer, be it the alert that says what is wrong. Where there is no room it waits for it; that the
            // peer is gone is told by what comes next.
            let _room = self.poll_flush(cx);
        }
        taken?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

/// What to do next.
enum Next {
    Secure,
    Close,
}

/// The output of `future`, unless the transport has to give up its place first. The place is kept
/// until then.
async fn unless_cut<T>(
    place: Option<Place>,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(end) => Poll::Ready(end),
        Poll::Pending => match &place {
            Some(place) => place.poll_cut(cx).map(|()| Err(cut())),
            None => Poll::Pending,
        },
    })
    .await
}

impl<C: SharedConnection, S> Line<Live<Arc<Host<C>>, C>, S> {
    fn new(host: Arc<Host<C>>, stream: Stream<S>, transport: Transport, direct_tls: bool) -> Self {
        let (mut machine, _, drain) = Host::accept(host, transport.direct_tls(direct_tls));
        machine.driver.asked_behind_writes();
        Self::of(Box::new(machine), drain, stream, direct_tls)
    }
}

impl<M, S> Line<M, S> {
    pub(super) fn of(machine: Box<M>, drain: Drain, stream: Stream<S>, direct_tls: bool) -> Self {
        let socket = Socket { stream, tls: None };
        Self { machine, drain, socket, open: true, direct_tls, plain: u32::MAX }
    }
}

impl<M: Machine, S: AsyncRead + AsyncWrite + Unpin + 'static> Line<M, S> {
    /// The outbox gathers what belongs together: waiting for more helps nobody.
    fn no_delay(&self) -> io::Result<()> {
        let tcp: Option<&TcpStream> = (&self.socket.stream.io as &dyn Any).downcast_ref();
        tcp.map_or(Ok(()), |tcp| tcp.set_nodelay(true))
    }

    /// LIMIT-25: no handshake before the peer begins it, and there is a place.
    fn poll_heard(
        &mut self,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { machine, socket, .. } = self;
        if machine.due_in() == Some(Duration::ZERO) {
            machine.handle_timeout();
        }
        let want = machine.poll_want(cx);
        set_timer(&**machine, timer.as_mut(), cx);
        let stream = &mut socket.stream;
        if ready!(want) == Want::StartTls {
            if stream.ahead.is_empty() {
                let mut first = [0];
                let mut first = ReadBuf::new(&mut first);
                ready!(Pin::new(&mut stream.io).poll_read(cx, &mut first))?;
                stream.ahead = Ahead::new(first.filled());
            }
            match stream.ahead.is_empty() {
                true => machine.end_of_input(),
                false => machine.heard(),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lets the machine work, writes, and reads, until nothing can go on; pending then.
    fn poll_next(
        &mut self,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Next>> {
        // The timer stands where it was due, or before.
        if timer.is_elapsed() && self.machine.due_in() == Some(Duration::ZERO) {
            self.machine.handle_timeout();
        }
        let next = self.poll_turn(cx);
        if next.is_pending() {
            // Behind its work, which may have set another.
            set_timer(&*self.machine, timer.as_mut(), cx);
        }
        next
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        let Self { machine, drain, socket, open, plain, .. } = self;
        loop {
            let want = machine.poll_want(cx);
            // Before reading on, so that one write carries the answers to one read, and none gets lost
            // when the read finds the end.
            if want == Poll::Ready(Want::StartTls) {
                // TLS-2: what is sent behind `<proceed/>` waits for the end of the handshake.
                *plain = (*plain).min(u32::try_from(drain.outbox().accepted()).unwrap_or(u32::MAX));
            }
            let (written, progress) = write(drain, socket, *plain, cx)?;
            let closed = match written {
                Written::All => false,
                Written::Ended => true,
                Written::Blocked => drain.poll_close(cx).is_ready(),
                Written::Enough => return Poll::Pending,
            };
            if closed {
                return Poll::Ready(Ok(Next::Close));
            }
            if progress && (want.is_pending() || machine.follows_writes()) {
                // LIMIT-13: the machine may have waited for its peer to read; an edge tells how much it has read.
                continue;
            }
            match ready!(want) {
                Want::Close => return Poll::Ready(Ok(Next::Close)),
                Want::StartTls if written == Written::All => return Poll::Ready(Ok(Next::Secure)),
                Want::StartTls => return Poll::Pending,
                Want::Input if *open => {
                    let read = ready!(read(socket, cx, |bytes| machine.receive(bytes)));
                    if let Err(error) = &read
                        && is_of_tls(error)
                    {
                        machine.tls_failed(error);
                    }
                    if read? == 0 {
                        // It may still read the last answers.
                        *open = false;
                        machine.end_of_input();
                    }
                }
                Want::Input => return Poll::Pending,
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Everything that waited is with the operating system.
    All,
    /// As `All`, and the outbox was closed.
    Ended,
    /// The socket takes no more now.
    Blocked,
    /// It would take more, but other tasks run first.
    Enough,
}

/// Bytes that are written before other tasks run: a client that resumes with much to be sent again
/// would keep them waiting.
const WRITE_BUDGET: usize = 64 * 1024;

/// Writes what waits, and says whether any of it got away.
fn write<S: AsyncRead + AsyncWrite + Unpin>(
    drain: &mut Drain,
    socket: &mut Socket<S>,
    plain: u32,
    cx: &mut Context<'_>,
) -> io::Result<(Written, bool)> {
    let (mut progress, mut total) = (false, 0);
    loop {
        if total > WRITE_BUDGET {
            cx.waker().wake_by_ref();
            return Ok((Written::Enough, progress));
        }
        let left = match plain {
            u32::MAX => usize::MAX,
            end => {
                let left = u64::from(end).saturating_sub(drain.outbox().written());
                usize::try_from(left).unwrap_or(usize::MAX)
            }
        };
        let end = match drain.poll_fill(cx) {
            Poll::Ready(Some(_)) if left == 0 => Written::All,
            Poll::Ready(Some(bytes)) => {
                match socket.poll_write(cx, bytes.get(..left).unwrap_or(bytes))? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(n) => {
                        drain.consume(n);
                        (progress, total) = (true, total.saturating_add(n));
                        continue;
                    }
                    Poll::Pending => return Ok((Written::Blocked, progress)),
                }
            }
            Poll::Ready(None) => Written::Ended,
            Poll::Pending => Written::All,
        };
        // Records may wait. What the handshake has left goes with the answer to what has come with its end.
        let waits = !progress && socket.has_unread();
        let flushed = waits || socket.poll_flush(cx)?.is_ready();
        return Ok((if flushed { end } else { Written::Blocked }, progress));
    }
}

/// Reads once. The buffer lives on the stack, and only for the call.
fn read<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    // Without a `close_notify`. What stands in whole elements was meant, whatever is missing.
    let is_end = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    while let Some(tls) = &mut socket.tls {
        let plain = tls.take_plain();
        if plain.is_empty() && !tls.has_ended() {
            match ready!(socket.poll_receive(cx)) {
                Ok(1..) => continue,
                Err(error) if !is_end(&error) => return Poll::Ready(Err(error)),
                Ok(_) | Err(_) => {}
            }
        }
        take(&plain);
        return Poll::Ready(Ok(plain.len()));
    }
    let mut buffer = [const { MaybeUninit::uninit() }; READ];
    let mut buffer = ReadBuf::uninit(&mut buffer);
    match ready!(Pin::new(&mut socket.stream).poll_read(cx, &mut buffer)) {
        Err(error) if is_end(&error) => {}
        read => read?,
    }
    let bytes = buffer.filled();
    take(bytes);
    Poll::Ready(Ok(bytes.len()))
}

/// Bytes of a read.
const READ: usize = 8192;

/// Bytes that may wait for those behind them: a ticket, an alert.
const LITTLE: usize = 1024;

/// Sees to it that the task is woken for the next time-out.
fn set_timer<M: Machine>(machine: &M, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) {
    let Some(due_in) = machine.due_in() else { return };
    // A machine whose clock stands still must not keep the task awake.
    let due_in = due_in.max(Duration::from_millis(1));
    let due = Instant::now().checked_add(due_in).unwrap_or_else(far);
    // One that fires too early is cheaper than moving it at each turn.
    if timer.is_elapsed() || timer.deadline() > due {
        timer.as_mut().reset(due);
    }
    while timer.as_mut().poll(cx).is_ready() {
        timer.as_mut().reset(due);
    }
}

/// The handshake. The machine may be told to end meanwhile, with nothing to say to a peer in the
/// midst of it.
async fn secure<M, S>(mut line: Line<M, S>) -> io::Result<Line<M, S>>
where
    M: Machine,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let settings = line.machine.settings();
    let (config, time) = (settings.tls.clone(), settings.handshake);
    let (None, Some(config)) = (&line.socket.tls, config) else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "no TLS to start"));
    };
    let tls = config.begin(line.direct_tls, line.machine.alpn()).map_err(io::Error::other)?;
    line.socket.tls = Some(Box::new(tls));
    let secured = poll_fn(|cx| match line.machine.poll_want(cx) {
        Poll::Ready(Want::Close) => {
            Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionAborted)))
        }
        _ => line.socket.poll_handshake(cx).map(Ok),
    });
    let Ok(secured) = timeout(time, secured).await else {
        let error = io::Error::from(io::ErrorKind::TimedOut);
        line.machine.tls_failed(&error);
        return Err(error);
    };
    if let Err(error) = secured? {
        line.machine.tls_failed(&error);
        part(&mut line.socket).await;
        return Err(error);
    }
    if let Some(tls) = &mut line.socket.tls {
        line.machine.secured(config.bindings_of(tls));
    }
    Ok(Line { plain: u32::MAX, ..line })
}

/// Writes what waits, then closes, and waits for the peer to do the same: closing a socket with
/// unread bytes resets the connection, which can destroy the last bytes on their way.
async fn finish<M, S>(line: Line<M, S>) -> io::Result<()>
where
    M: Machine,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Line { mut machine, mut drain, mut socket, plain, .. } = line;
    let time = machine.settings().close;
    // The machine goes before the socket does.
    let (place, farewell) = (machine.place(), machine.farewell());
    drain.outbox().close(Close::Flush);
    let deadline = Instant::now().checked_add(time).unwrap_or_else(far);
    let end = async move {
        let flushed = poll_fn(|cx| flush(&mut drain, &mut socket, plain, cx));
        if timeout_at(deadline, flushed).await?? == Close::Abort {
            part(&mut socket).await;
            return Ok(());
        }
        // Behind the last byte, since a shutdown waits for it. That a peer keeps its half open is nobody's fault.
        let lingered = linger(&mut socket, farewell, || drop((machine, drain)));
        timeout_at(deadline, lingered).await.unwrap_or(Ok(()))
    };
    unless_cut(place, end).await
}

/// The same without waiting: TLS-4 where there is room for it, and of the peer what has arrived.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) {
    let mut lingering = pin!(linger(socket, None, || ()));
    let _whatever_came_of_it = poll_fn(|cx| Poll::Ready(lingering.as_mut().poll(cx))).await;
}

async fn linger<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    farewell: Option<Farewell>,
    closed: impl FnOnce(),
) -> io::Result<()> {
    let mut closed = Some(closed);
    if let Some(mut farewell) = farewell
        && let Some(closed) = closed.take()
    {
        closed();
        while !farewell.is_over() {
            match poll_fn(|cx| read(socket, cx, |bytes| farewell.read(bytes))).await {
                Ok(1..) => {}
                _ => break,
            }
        }
    }
    poll_fn(|cx| socket.poll_shutdown(cx)).await?;
    if let Some(closed) = closed {
        closed();
    }
    // Also what comes behind its `close_notify`.
    while let Ok(1..) = poll_fn(|cx| socket.poll_discard(cx)).await {}
    Ok(())
}

fn flush<S: AsyncRead + AsyncWrite + Unpin>(
    drain: &mut Drain,
    socket: &mut Socket<S>,
    plain: u32,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Close>> {
    let (written, _) = write(drain, socket, plain, cx)?;
    match drain.poll_close(cx) {
        Poll::Ready(Close::Abort) => Poll::Ready(Ok(Close::Abort)),
        _ if matches!(written, Written::Blocked | Written::Enough) => Poll::Pending,
        _ => Poll::Ready(Ok(Close::Flush)),
    }
}

/// Later than any time-out. One that is too far away makes the timer panic.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(30 * 24 * 3600)
}
