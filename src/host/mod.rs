//! What every host would copy: the loops between a socket and a driver, and the TLS hand-over.
//!
//! A [`Host`] holds what its connections share. With feature `tokio`, [`tokio::serve`] is one task per
//! connection; with feature `threads`, [`threads::serve`] is two threads. What is left to write is the
//! listening socket:
//!
//! ```no_run
//! # #[cfg(feature = "threads")]
//! # fn listen(server: xmpp_session::server::Server<std::sync::Arc<xmpp_session::outbox::Outbox>>) -> std::io::Result<()> {
//! use std::sync::Arc;
//! use xmpp_session::host::{Host, threads};
//! use xmpp_session::server::Transport;
//!
//! let host = Arc::new(Host::new(server));
//! let listener = std::net::TcpListener::bind("[::]:5222")?;
//! loop {
//!     let (socket, address) = threads::accept(&listener, |error| eprintln!("{error}"));
//!     let host = Arc::clone(&host);
//!     let transport = Transport::new().source(address.ip().to_string());
//!     let thread = std::thread::Builder::new().name("xmpp reader".into());
//!     // Not `thread::spawn`, which panics when there can be no more threads: that connection ends,
//!     // and the next ones are accepted.
//!     if let Err(error) = thread.spawn(move || threads::serve(&host, socket, transport)) {
//!         eprintln!("no thread for {address}: {error}");
//!     }
//! }
//! # }
//! ```
//!
//! Both keep these promises:
//!
//! - While the driver waits (a store works, a limit pauses reading) nothing is read; writing goes on.
//! - `<proceed/>` is flushed before the handshake, and nothing is written until its end (TLS-2).
//! - When the transport is lost, the driver is dropped at once. When either side closes, or the peer
//!   sends no more (STREAM-36), what waits is flushed; a peer that does not read cannot hold the
//!   socket longer than [`Host::close_timeout`] allows (LIMIT-23).
//! - Under TLS the last that is written is `close_notify` (TLS-4).

#[cfg(feature = "threads")]
pub mod threads;
mod tls;
#[cfg(feature = "tokio")]
pub mod tokio;

#[cfg(test)]
mod tests;

pub use tls::TlsConfig;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(feature = "tokio")]
use std::task::{Context, Poll};
use std::time::Duration;

use crate::connection::SharedConnection;
use crate::outbox::{Drain, Marks, Outbox};
use crate::sasl::ChannelBindings;
use crate::server::{Driver, Place, Server, Transport, Want};

/// What the connections of a host share: the server, the TLS configuration, the time-outs.
///
/// `C` is what the server knows its connections as: `Arc<Outbox>`, or `Arc<dyn Connection>` if other
/// transports feed the same server ([`with`](Self::with)).
pub struct Host<C: SharedConnection> {
    server: Server<C>,
    wrap: fn(Arc<Outbox>) -> C,
    marks: Marks,
    settings: Settings,
    connections: AtomicUsize,
}

/// One connection that is counted.
struct Served<'a>(&'a AtomicUsize);

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the loops need of a [`Host`].
struct Settings {
    tls: Option<TlsConfig>,
    handshake: Duration,
    close: Duration,
}

impl Host<Arc<Outbox>> {
    /// A host without TLS, with the default [`Marks`].
    #[must_use]
    pub fn new(server: Server<Arc<Outbox>>) -> Self {
        Self::with(server, |outbox| outbox)
    }
}

impl<C: SharedConnection> Host<C> {
    /// A host whose server knows connections as something other than an outbox:
    /// `Host::with(server, |outbox| outbox as Arc<dyn Connection>)`.
    #[must_use]
    pub fn with(server: Server<C>, wrap: fn(Arc<Outbox>) -> C) -> Self {
        let settings = Settings {
            tls: None,
            handshake: Duration::from_secs(30),
            close: Duration::from_secs(5),
        };
        let connections = AtomicUsize::new(0);
        Self { server, wrap, marks: Marks::default(), settings, connections }
    }

    /// Sets the certificate for STARTTLS and direct TLS.
    #[must_use]
    pub fn tls(mut self, config: TlsConfig) -> Self {
        self.settings.tls = Some(config);
        self
    }

    /// Sets how much a transport's outbox holds; its session keeps the rest of what waits for a slow
    /// reader (LIMIT-13).
    #[must_use]
    pub fn marks(mut self, marks: Marks) -> Self {
        self.marks = marks;
        self
    }

    /// Sets how long a TLS handshake may take, including the flush before it; 30 seconds.
    #[must_use]
    pub fn handshake_timeout(mut self, time: Duration) -> Self {
        self.settings.handshake = time;
        self
    }

    /// Sets how long the end of a connection may take once its session has closed: writing what
    /// waits, and waiting for the peer to close as well; 5 seconds (LIMIT-23). With `threads` it is
    /// also how long a stuck writer may take to notice that the connection was closed.
    #[must_use]
    pub fn close_timeout(mut self, time: Duration) -> Self {
        self.settings.close = time;
        self
    }

    /// Connections that are being served, until their last byte is written: a peer that has everything
    /// and keeps its end open is not counted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Ends all streams; true once nothing of them is left to wait for. To be called again until
    /// then: a stream whose bind was under way has a session afterwards.
    fn end_all(&self) -> bool {
        self.server.end_all() && self.connections() == 0
    }

    fn accept(&self, transport: Transport) -> (Live<'_, C>, Arc<Outbox>, Drain) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let served = Served(&self.connections);
        let (outbox, drain) = Outbox::new(self.marks);
        let transport = transport.starttls(self.settings.tls.is_some());
        let driver = self.server.accept((self.wrap)(Arc::clone(&outbox)), transport);
        (Live { server: self.server.clone(), driver, _served: served }, outbox, drain)
    }
}

impl<C: SharedConnection> fmt::Debug for Host<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("tls", &self.settings.tls.is_some())
            .field("marks", &self.marks)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// What the loops drive: a [`Live`] driver, and in their tests a machine that echoes lines.
trait Machine {
    fn receive(&mut self, bytes: &[u8]);
    #[cfg(feature = "tokio")]
    fn poll_want(&mut self, cx: &mut Context<'_>) -> Poll<Want>;
    #[cfg(feature = "threads")]
    /// `None` when `handle_timeout` wants to be called.
    fn want_blocking(&mut self) -> Option<Want>;
    fn secured(&mut self, bindings: ChannelBindings);
    /// The handshake, or TLS after it, has failed.
    fn tls_failed(&mut self, _: &io::Error) {}
    /// The peer sends no more.
    fn end_of_input(&mut self);
    /// Time until `handle_timeout` wants to be called.
    fn due_in(&self) -> Option<Duration>;
    fn handle_timeout(&mut self);
    /// Its place among the transports without a session: kept until the socket is closed (LIMIT-27).
    fn place(&mut self) -> Option<Place>;
    /// The first bytes are there to be read.
    fn heard(&mut self);
    #[cfg(feature = "threads")]
    /// Whether it has no session yet: others may need its place.
    fn is_unbound(&self) -> bool;
}

/// A driver, and the server whose clock its time-outs refer to.
struct Live<'a, C: SharedConnection> {
    server: Server<C>,
    driver: Driver<C>,
    _served: Served<'a>,
}

impl<C: SharedConnection> Machine for Live<'_, C> {
    fn receive(&mut self, bytes: &[u8]) {
        self.driver.receive(bytes);
    }

    #[cfg(feature = "tokio")]
    fn poll_want(&mut self, cx: &mut Context<'_>) -> Poll<Want> {
        self.driver.poll_want(cx)
    }

    #[cfg(feature = "threads")]
    fn want_blocking(&mut self) -> Option<Want> {
        self.driver.want_blocking(None)
    }

    fn secured(&mut self, bindings: ChannelBindings) {
        self.driver.secured(bindings);
    }

    fn tls_failed(&mut self, error: &io::Error) {
        self.driver.tls_failed(error);
    }

    fn end_of_input(&mut self) {
        self.driver.end_of_input();
    }

    fn due_in(&self) -> Option<Duration> {
        self.driver.next_timeout().map(|at| at.saturating_sub(self.server.now()))
    }

    fn handle_timeout(&mut self) {
        self.driver.handle_timeout();
    }

    fn place(&mut self) -> Option<Place> {
        Some(self.driver.place())
    }

    fn heard(&mut self) {
        self.driver.heard();
    }

    #[cfg(feature = "threads")]
    fn is_unbound(&self) -> bool {
        self.driver.session().is_none()
    }
}

/// The transport had to give up its place.
fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "others need the place")
}

/// Whether accepting failed because of the connection that was to be accepted, as `accept` reports
/// errors of the network, and not for want of file descriptors or memory.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

/// Whether what a peer sent was no TLS.
fn is_of_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// How often to check the time-outs of a server, which are of seconds.
const TICK: Duration = Duration::from_secs(1);

/// After `accept` failed for want of resources: until connections have ended.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often to check whether all sessions have ended.
const SHUTDOWN_PAUSE: Duration = Duration::from_millis(20);
