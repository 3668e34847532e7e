//! The loop that accepts connections.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(unix)]
use ::tokio::net::UnixListener;
use ::tokio::net::{TcpListener, TcpStream};
use ::tokio::time::{Instant, sleep, timeout};

use super::stream::Stream;
use super::{Line, run, shutdown};
use crate::connection::SharedConnection;
use crate::host::ahead::Ahead;
use crate::host::listener::{Listener, Terms};
use crate::host::{ACCEPT_PAUSE, Host, Machine, cut, is_of_the_connection, proxy};
use crate::server::Transport;

/// Accepts connections and serves each in a task of its own, until `stop` is ready. Then nothing more is
/// accepted, every stream ends as with [`shutdown`], and so does this, once all are gone or after
/// [`Host::shutdown_timeout`].
///
/// The server's [`background`](super::background) work is done beside it, as long as there is the host. Several listeners of one
/// host, such as one for direct TLS, each take this call, and a `stop` that is ready for all of them.
/// Dropping the future only stops accepting.
///
/// ```no_run
/// # async fn run(server: xmpp_session::server::Server<std::sync::Arc<xmpp_session::outbox::Outbox>>) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use xmpp_session::host::{Host, TlsConfig, tokio::listen};
///
/// let tls = TlsConfig::from_pem_files("fullchain.pem", "privkey.pem")?;
/// let host = Arc::new(Host::new(server).tls(tls));
/// let socket = tokio::net::TcpListener::bind("[::]:5222").await?;
/// listen(host, socket, async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await;
/// # Ok(())
/// # }
/// ```
pub async fn listen<C, L>(
    host: Arc<Host<C>>,
    listener: impl Into<Listener<L>>,
    stop: impl Future<Output = ()>,
) where
    C: SharedConnection,
    L: Accept,
{
    let Listener { mut socket, terms } = listener.into();
    let terms = Arc::new(terms);
    host.background.begin(&host.server);
    let mut stop = pin!(stop);
    let mut pause = pin!(sleep(Duration::ZERO));
    poll_fn(|cx| {
        loop {
            if stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            ready!(pause.as_mut().poll(cx));
            match ready!(socket.poll_accept(cx)) {
                Ok((stream, peer)) => begin(&host, &terms, stream, peer),
                Err(error) => {
                    terms.failed(None, &error);
                    if !is_of_the_connection(&error) {
                        pause.as_mut().reset(Instant::now() + ACCEPT_PAUSE);
                    }
                }
            }
        }
    })
    .await;
    drop(socket);
    shutdown(&host, host.settings.shutdown).await;
}

/// What [`listen`] accepts connections from: a socket of tokio, or something of the host's own.
pub trait Accept {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Accepts the next connection, and says from where if it comes from an address.
    ///
    /// # Errors
    ///
    /// They are reported, and accepting goes on; after a moment, if the error is not of the kind that only
    /// concerns the connection (it was reset before it was accepted, say).
    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Self::Stream, Option<IpAddr>)>>;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, Option<IpAddr>)>> {
        let (stream, peer) = ready!(Self::poll_accept(self, cx))?;
        Poll::Ready(Ok((stream, Some(peer.ip()))))
    }
}

#[cfg(unix)]
impl Accept for UnixListener {
    type Stream = ::tokio::net::UnixStream;

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Self::Stream, Option<IpAddr>)>> {
        let (stream, _) = ready!(Self::poll_accept(self, cx))?;
        Poll::Ready(Ok((stream, None)))
    }
}

/// A task for a connection that was accepted.
fn begin<C, S>(host: &Arc<Host<C>>, terms: &Arc<Terms>, stream: S, peer: Option<IpAddr>)
where
    C: SharedConnection,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (host, terms) = (Arc::clone(host), Arc::clone(terms));
    match terms.is_proxied(peer) {
        Ok(false) => {
            let transport = terms.transport(peer);
            begin_as(host, terms, Stream { io: stream, ahead: Ahead::default() }, peer, transport);
        }
        Ok(true) => {
            drop(::tokio::spawn(async move {
                match header(&host, stream).await {
                    Ok((stream, client, used)) => {
                        let source = client.or(peer);
                        let transport = terms.transport(source).preamble(used.0, used.1);
                        // In a task of its own, which is smaller.
                        begin_as(host, terms, stream, source, transport);
                    }
                    Err(error) => terms.failed(peer, &error),
                }
            }));
        }
        Err(error) => terms.failed(peer, &error),
    }
}

fn begin_as<C, S>(
    host: Arc<Host<C>>,
    terms: Arc<Terms>,
    stream: Stream<S>,
    source: Option<IpAddr>,
    transport: Transport,
) where
    C: SharedConnection,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let direct_tls = terms.direct_tls;
    #[cfg(feature = "websocket")]
    if let Some(websockets) = &terms.websockets {
        let line = Line::websocket(host, stream, transport, direct_tls, websockets, false);
        return spawn(line, terms, source);
    }
    spawn(Line::new(host, stream, transport, direct_tls), terms, source);
}

fn spawn<M, S>(line: Line<M, S>, terms: Arc<Terms>, source: Option<IpAddr>)
where
    M: Machine + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    drop(::tokio::spawn(run(line, move |end| {
        if let Err(error) = end {
            terms.failed(source, &error);
        }
    })));
}

/// Reads the header of a proxy, and no byte of a client before it: the stream behind it, the client's
/// address if it has one, and what was used up of the limits that hold before a login (PROXY-3).
async fn header<C, S>(
    host: &Host<C>,
    mut io: S,
) -> io::Result<(Stream<S>, Option<IpAddr>, (Duration, usize))>
where
    C: SharedConnection,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let server = &host.server;
    let (accepted, limits) = (server.now(), server.limits());
    // Counted as a silent transport, whose source is not known yet.
    let place = server.unnamed_place();
    let mut bytes = Vec::new();
    let read = poll_fn(|cx| {
        if place.is_unwanted(Some(cx)) {
            return Poll::Ready(Err(cut()));
        }
        loop {
            let mut chunk = [const { MaybeUninit::uninit() }; 1024];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            ready!(Pin::new(&mut io).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            bytes.extend_from_slice(chunk.filled());
            if let Some(header) = proxy::read(&bytes, limits.stream.bytes_before_auth())? {
                return Poll::Ready(Ok(header));
            }
        }
    });
    let header = timeout(limits.negotiation, read).await??;
    let ahead = Ahead::new(bytes.get(header.length..).unwrap_or_default());
    Ok((Stream { io, ahead }, header.client, (accepted, header.length)))
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
