//! The loop that accepts connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{
    EARLY_CHECK_INTERVAL, SHORT, Stream, after, begin_background, is_timeout, run, shutdown,
};
use crate::connection::SharedConnection;
use crate::host::ahead::Ahead;
use crate::host::listener::{Listener, Terms};
#[cfg(feature = "websocket")]
use crate::host::websocket::Web;
use crate::host::{ACCEPT_PAUSE, Host, cut, is_of_the_connection, proxy};

/// Accepts connections and serves each on threads of its own, until `stop` returns, which waits for the end in
/// whatever way it likes. Then nothing more is accepted, every stream ends as with [`shutdown`], and so does
/// this, once all are gone or after [`Host::shutdown_timeout`].
///
/// The server's [`background`](super::background) work is done beside it, on a thread that lasts as long as the host. Several
/// listeners of one host, such as one for direct TLS, each take this call.
///
/// ```no_run
/// # fn run(server: xmpp_session::server::Server<std::sync::Arc<xmpp_session::outbox::Outbox>>) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use xmpp_session::host::{Host, TlsConfig, threads};
///
/// let tls = TlsConfig::from_pem_files("fullchain.pem", "privkey.pem")?;
/// let host = Arc::new(Host::new(server).tls(tls));
/// let socket = std::net::TcpListener::bind("[::]:5222")?;
/// // Until the operator presses Enter.
/// let stop = || drop(std::io::stdin().read_line(&mut String::new()));
/// threads::listen(host, socket, stop)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// When there can be no thread to accept on.
pub fn listen<C, L>(
    host: Arc<Host<C>>,
    listener: impl Into<Listener<L>>,
    stop: impl FnOnce(),
) -> io::Result<()>
where
    C: SharedConnection,
    L: Accept,
{
    let host = &host;
    begin_background(host)?;
    let Listener { socket, terms } = listener.into();
    let open = Arc::new((socket, AtomicBool::new(true)));
    let acceptor = {
        let (host, open) = (Arc::clone(host), Arc::clone(&open));
        let thread = thread::Builder::new().name("xmpp listener".into());
        thread.spawn(move || accept_loop(&host, &terms, &open.0, &open.1))?
    };
    // Whatever becomes of `stop`.
    let acceptor = Acceptor { open, thread: Some(acceptor) };
    stop();
    drop(acceptor);
    shutdown(host, host.settings.shutdown);
    Ok(())
}

/// The thread that accepts, until this is dropped.
struct Acceptor<L: Accept> {
    open: Arc<(L, AtomicBool)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl<L: Accept> Drop for Acceptor<L> {
    fn drop(&mut self) {
        self.open.1.store(false, Ordering::SeqCst);
        if let (Ok(()), Some(thread)) = (self.open.0.interrupt(), self.thread.take()) {
            let _whatever_it_died_of = thread.join();
        }
    }
}

/// What [`listen`] accepts connections from: a socket of the standard library, or something of the host's own.
pub trait Accept: Send + Sync + 'static {
    /// One connection.
    type Stream: Stream;

    /// Waits for the next connection, and says from where if it comes from an address.
    ///
    /// # Errors
    ///
    /// They are reported, and accepting goes on; after a moment, if the error is not of the kind that only
    /// concerns the connection (it was reset before it was accepted, say).
    fn accept(&self) -> io::Result<(Self::Stream, Option<IpAddr>)>;

    /// Makes an `accept` that waits on another thread return, with whatever.
    ///
    /// # Errors
    ///
    /// If that cannot be done: it then waits on, and what it returns is dropped.
    fn interrupt(&self) -> io::Result<()>;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    fn accept(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        let (stream, peer) = Self::accept(self)?;
        Ok((stream, Some(peer.ip())))
    }

    fn interrupt(&self) -> io::Result<()> {
        let mut address = self.local_addr()?;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop)
    }
}

#[cfg(unix)]
impl Accept for UnixListener {
    type Stream = UnixStream;

    fn accept(&self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        let (stream, _) = Self::accept(self)?;
        Ok((stream, None))
    }

    fn interrupt(&self) -> io::Result<()> {
        UnixStream::connect_addr(&self.local_addr()?).map(drop)
    }
}

fn accept_loop<C, L>(host: &Arc<Host<C>>, terms: &Terms, socket: &L, open: &AtomicBool)
where
    C: SharedConnection,
    L: Accept,
{
    loop {
        let accepted = socket.accept();
        if !open.load(Ordering::SeqCst) {
            return;
        }
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                terms.failed(None, &error);
                if !is_of_the_connection(&error) {
                    thread::sleep(ACCEPT_PAUSE);
                }
                continue;
            }
        };
        let thread = thread::Builder::new().name("xmpp reader".into());
        let connection = {
            let (host, terms) = (Arc::clone(host), terms.clone());
            move || {
                let mut source = peer;
                if let Err(error) = accepted_from(&host, &terms, stream, &mut source) {
                    terms.failed(source, &error);
                }
            }
        };
        // Not `thread::spawn`, which panics when there can be no more threads: that connection ends, and
        // the next ones are accepted.
        if let Err(error) = thread.spawn(connection) {
            terms.failed(peer, &error);
        }
    }
}

/// Serves a connection that was accepted.
fn accepted_from<C, S>(
    host: &Host<C>,
    terms: &Terms,
    stream: S,
    source: &mut Option<IpAddr>,
) -> io::Result<()>
where
    C: SharedConnection,
    S: Stream,
{
    let (mut ahead, mut preamble) = (Ahead::default(), None);
    if terms.is_proxied(*source)? {
        let accepted = host.server.now();
        let (client, used, unread) = header(host, &stream)?;
        *source = client.or(*source);
        (ahead, preamble) = (unread, Some((accepted, used)));
    }
    let mut transport = terms.transport(*source).direct_tls(terms.direct_tls);
    if let Some((accepted, used)) = preamble {
        transport = transport.preamble(accepted, used);
    }
    #[cfg(feature = "websocket")]
    if let Some(websockets) = &terms.websockets {
        let (machine, outbox, drain) = Web::new(host, transport, websockets, false);
        return run(machine, outbox, drain, stream, ahead, terms.direct_tls);
    }
    let (machine, outbox, drain) = Host::accept(host, transport);
    run(machine, outbox, drain, stream, ahead, terms.direct_tls)
}

/// Reads the header of a proxy: the client's address if it has one, the header's length, and what was read
/// behind it (PROXY-3).
fn header<C: SharedConnection>(
    host: &Host<C>,
    stream: &impl Stream,
) -> io::Result<(Option<IpAddr>, usize, Ahead)> {
    let limits = host.server.limits();
    // Counted as a silent transport, whose source is not known yet.
    let place = host.server.unnamed_place();
    let deadline = after(limits.negotiation);
    let (mut bytes, mut chunk) = (Vec::new(), [0; 1024]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if place.is_unwanted(None) {
            return Err(cut());
        } else if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left.clamp(SHORT, EARLY_CHECK_INTERVAL)))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        }
        if let Some(header) = proxy::read(&bytes, limits.stream.bytes_before_auth())? {
            let unread = bytes.get(header.length..).unwrap_or_default();
            return Ok((header.client, header.length, Ahead::new(unread)));
        }
    }
}

/// Accepts the next connection.
///
/// Errors go to `failed`. That of a connection which was gone before it was accepted does no harm;
/// without file descriptors this waits for a moment, rather than end the server or keep it busy.
pub fn accept(
    listener: &TcpListener,
    mut failed: impl FnMut(&io::Error),
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept() {
            Ok(accepted) => return accepted,
            Err(error) => {
                failed(&error);
                if !is_of_the_connection(&error) {
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }
}
