//! One task per connection, on tokio.
//!
//! An idle connection holds no read buffer: bytes are read into the stack of the poll that finds them.
//!
//! ```no_run
//! # async fn listen(host: std::sync::Arc<xmpp_session::host::Host<std::sync::Arc<xmpp_session::outbox::Outbox>>>) -> std::io::Result<()> {
//! use std::sync::Arc;
//! use xmpp_session::{host, server::Transport};
//!
//! let listener = tokio::net::TcpListener::bind("[::]:5222").await?;
//! loop {
//!     let (socket, address) = host::tokio::accept(&listener, |error| eprintln!("{error}")).await;
//!     let transport = Transport::new().source(address.ip().to_string());
//!     tokio::spawn(host::tokio::serve(Arc::clone(&host), socket, transport));
//! }
//! # }
//! ```

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::{TcpListener, TcpStream};
use ::tokio::runtime::Handle;
use ::tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::record;
use super::{ACCEPT_PAUSE, Host, Machine, SHUTDOWN_PAUSE, Settings, TICK, cut};
use super::{is_of_the_connection, is_of_tls};
use crate::connection::{Close, Connection, SharedConnection};
use crate::outbox::Drain;
use crate::server::{Offload, Place, Server, Transport, Want};

/// Does a server's work that belongs to no connection: what outlives one, and time-outs. Run it
/// once, beside the connections; it never ends.
pub async fn background<C: SharedConnection>(server: Server<C>) {
    loop {
        // Neither ends. The first may be dropped and begun again.
        let _time_is_up = timeout(TICK, server.background()).await;
        server.handle_timeout();
    }
}

/// Hashes on the runtime's threads for blocking work.
impl Offload for Handle {
    fn run(&self, hash: Box<dyn FnOnce() + Send>) {
        drop(self.spawn_blocking(hash));
    }
}

/// Accepts the next connection.
///
/// Errors go to `failed`. That of a connection which was gone before it was accepted does no harm;
/// without file descriptors this waits for a moment, rather than end the server or keep it busy.
pub async fn accept(
    listener: &TcpListener,
    mut failed: impl FnMut(&io::Error),
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                failed(&error);
                if !is_of_the_connection(&error) {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Ends every stream with `system-shutdown` (DESTROY-16), bound or not, and returns once all
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

/// Serves one connection to its end, with STARTTLS if the host has a certificate.
///
/// Dropping the future is the loss of the transport.
///
/// # Errors
///
/// When the transport broke, the handshake failed, or the flush at the end took too long. There is
/// nothing left to do but to log it.
pub async fn serve<C>(host: Arc<Host<C>>, socket: TcpStream, transport: Transport) -> io::Result<()>
where
    C: SharedConnection,
{
    let (machine, _, drain) = host.accept(transport.direct_tls(false));
    run(&host.settings, Box::new(machine), drain, socket, false).await
}

/// Serves one connection that begins with a TLS handshake
/// ([XEP-0368](https://xmpp.org/extensions/xep-0368.html)), for clients whose application protocol
/// is `xmpp-client` if they name any (TLS-5).
///
/// # Errors
///
/// As [`serve`], and at once if the host has no certificate.
pub async fn serve_direct_tls<C>(
    host: Arc<Host<C>>,
    socket: TcpStream,
    transport: Transport,
) -> io::Result<()>
where
    C: SharedConnection,
{
    let (machine, _, drain) = host.accept(transport.direct_tls(true));
    run(&host.settings, Box::new(machine), drain, socket, true).await
}

/// The machine and the rare stages are boxed: a future has room for every stage, and for each place its
/// values move through, as long as it lives.
pub(super) async fn run<M: Machine>(
    settings: &Settings,
    machine: Box<M>,
    drain: Drain,
    socket: TcpStream,
    direct_tls: bool,
) -> io::Result<()> {
    // The outbox gathers what belongs together: waiting for more helps nobody.
    socket.set_nodelay(true)?;
    let mut line = Line {
        machine,
        drain,
        socket: Socket::Plain(socket),
        open: true,
        direct_tls,
        plain: u32::MAX,
    };
    let mut timer = pin!(sleep_until(far()));
    if direct_tls {
        let heard = poll_fn(|cx| line.poll_heard(timer.as_mut(), cx));
        Box::pin(timeout(settings.handshake, heard)).await??;
    }
    loop {
        match poll_fn(|cx| line.poll_next(timer.as_mut(), cx)).await? {
            Next::Secure => line = Box::pin(secure(settings, line)).await?,
            Next::Close => return Box::pin(finish(settings, line)).await,
        }
    }
}

/// A machine and what it speaks through.
struct Line<M> {
    machine: Box<M>,
    drain: Drain,
    socket: Socket,
    /// The peer has not said that it sends no more.
    open: bool,
    direct_tls: bool,
    /// Where the plain text ends, from [`Want::StartTls`] on. No more than this comes before it.
    plain: u32,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn io(&mut self) -> Pin<&mut dyn ReadWrite> {
        Pin::new(match self {
            Self::Plain(socket) => socket,
            Self::Tls(socket) => &mut **socket,
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(socket) => Pin::new(&mut **socket).poll_write(cx, record(bytes)),
        }
    }
}

trait ReadWrite: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ReadWrite for T {}

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

impl<M: Machine> Line<M> {
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
        if let (Want::StartTls, Socket::Plain(socket)) = (ready!(want), socket) {
            match ready!(socket.poll_peek(cx, &mut ReadBuf::new(&mut [0])))? {
                0 => machine.end_of_input(),
                _ => machine.heard(),
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
        let Self { machine, drain, socket, open, plain, .. } = self;
        loop {
            if machine.due_in() == Some(Duration::ZERO) {
                machine.handle_timeout();
            }
            let want = machine.poll_want(cx);
            // Now, since its work may have set another.
            set_timer(&**machine, timer.as_mut(), cx);
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
            if want.is_pending() && progress {
                // LIMIT-13: the machine may have waited for its peer to read.
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
fn write(
    drain: &mut Drain,
    socket: &mut Socket,
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
        // TLS has a buffer of its own.
        let flushed = socket.io().poll_flush(cx)?.is_ready();
        return Ok((if flushed { end } else { Written::Blocked }, progress));
    }
}

/// Reads once. The buffer lives on the stack, and only for the call.
fn read(
    socket: &mut Socket,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    let mut buffer = [const { MaybeUninit::uninit() }; 8192];
    let mut buffer = ReadBuf::uninit(&mut buffer);
    match ready!(socket.io().poll_read(cx, &mut buffer)) {
        // Without a `close_notify`. What stands in whole elements was meant, whatever is missing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        read => read?,
    }
    let bytes = buffer.filled();
    take(bytes);
    Poll::Ready(Ok(bytes.len()))
}

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
async fn secure<M: Machine>(settings: &Settings, mut line: Line<M>) -> io::Result<Line<M>> {
    let (Socket::Plain(socket), Some(tls)) = (line.socket, &settings.tls) else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "no TLS to start"));
    };
    let acceptor = TlsAcceptor::from(tls.config(line.direct_tls));
    let mut accept = pin!(acceptor.accept(socket).into_fallible());
    let secured = poll_fn(|cx| match line.machine.poll_want(cx) {
        Poll::Ready(Want::Close) => {
            Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionAborted)))
        }
        _ => accept.as_mut().poll(cx).map(Ok),
    });
    let Ok(secured) = timeout(settings.handshake, secured).await else {
        let error = io::Error::from(io::ErrorKind::TimedOut);
        line.machine.tls_failed(&error);
        return Err(error);
    };
    match secured? {
        Ok(secured) => {
            line.machine.secured(tls.bindings(secured.get_ref().1));
            Ok(Line { socket: Socket::Tls(Box::new(secured)), plain: u32::MAX, ..line })
        }
        Err((error, socket)) => {
            line.machine.tls_failed(&error);
            // The alert has been written.
            part(&mut Socket::Plain(socket)).await;
            Err(error)
        }
    }
}

/// Writes what waits, then closes, and waits for the peer to do the same: closing a socket with
/// unread bytes resets the connection, which can destroy the last bytes on their way.
async fn finish<M: Machine>(settings: &Settings, line: Line<M>) -> io::Result<()> {
    let Line { mut machine, mut drain, mut socket, plain, .. } = line;
    // The machine goes before the socket does.
    let place = machine.place();
    let end = async move {
        if poll_fn(|cx| flush(&mut drain, &mut socket, plain, cx)).await? == Close::Abort {
            part(&mut socket).await;
            return Ok(());
        }
        // Behind the last byte, since a shutdown waits for it.
        linger(&mut socket, || drop((machine, drain))).await
    };
    unless_cut(place, async { timeout(settings.close, end).await? }).await
}

/// The same without waiting: TLS-4 where there is room for it, and of the peer what has arrived.
async fn part(socket: &mut Socket) {
    let mut lingering = pin!(linger(socket, || ()));
    let _whatever_came_of_it = poll_fn(|cx| Poll::Ready(lingering.as_mut().poll(cx))).await;
}

async fn linger(socket: &mut Socket, closed: impl FnOnce()) -> io::Result<()> {
    poll_fn(|cx| socket.io().poll_shutdown(cx)).await?;
    closed();
    while let Ok(1..) = poll_fn(|cx| read(socket, cx, |_| {})).await {}
    Ok(())
}

fn flush(
    drain: &mut Drain,
    socket: &mut Socket,
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
