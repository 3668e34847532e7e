//! What every host would copy: accepting connections, the loops between a stream and a driver, the TLS
//! hand-over, the end of it all.
//!
//! A [`Host`] holds what its connections share. With feature `tokio`, [`tokio::listen`] takes it and a listening
//! socket, and serves each connection in a task; with feature `threads`, [`threads::listen`] does so with two
//! threads for each. A [`Listener`] says more of a socket: direct TLS, proxies in front of it. Hosts that
//! accept connections by themselves give each to [`tokio::serve`] or [`threads::serve`], be it a socket or
//! anything else that reads and writes, and run `background` beside them.
//!
//! With feature `websocket` as well, both speak to browsers: [`Listener::websocket`], or
//! [`tokio::websocket`] and [`threads::websocket`] behind an HTTP server of the program.
//!
//! ```no_run
//! # #[cfg(all(feature = "tokio", feature = "system"))]
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use xmpp_session::environment::System;
//! use xmpp_session::host::{Host, TlsConfig, tokio::listen};
//! use xmpp_session::server::Server;
//! use xmpp_session::store::Stores;
//!
//! let server = Server::builder(Arc::new(System::new()), Stores::memory())
//!     .domain("example.com".parse()?)
//!     .build();
//! let tls = TlsConfig::from_pem_files("fullchain.pem", "privkey.pem")?;
//! let host = Arc::new(Host::new(server).tls(tls));
//! let socket = tokio::net::TcpListener::bind("[::]:5222").await?;
//! listen(host, socket, async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await;
//! # Ok(())
//! # }
//! ```
//!
//! Both keep these promises:
//!
//! - While the driver waits (a store works, a limit pauses reading) nothing is read; writing goes on.
//! - `<proceed/>` is flushed before the handshake, and nothing is written until its end ([TLS-2](crate::rules#tls-2)).
//! - When the transport is lost, the driver is dropped at once. When either side closes, or the peer
//!   sends no more ([STREAM-36](crate::rules#stream-36)), what waits is flushed; a peer that does not read cannot hold the
//!   socket longer than [`Host::close_timeout`] allows ([LIMIT-23](crate::rules#limit-23)).
//! - Of a WebSocket each message is a frame, what is sent together is written together, and the last is the frame
//!   that closes it ([WS-15](crate::rules#ws-15)).
//! - Under TLS the last that is written is `close_notify` ([TLS-4](crate::rules#tls-4)).

mod ahead;
mod listener;
mod proxy;
#[cfg(feature = "threads")]
pub mod threads;
mod tls;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "websocket")]
mod websocket;

#[cfg(test)]
mod tests;

pub use listener::Listener;
#[cfg(all(any(test, fuzzing), feature = "ring"))]
pub(crate) use tls::law;
pub use tls::{PemError, TlsConfig};
#[cfg(feature = "websocket")]
pub use websocket::WebSockets;

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
#[cfg(feature = "threads")]
use std::sync::atomic::AtomicBool;
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
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use xmpp_session::connection::Connection;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::host::Host;
/// use xmpp_session::server::Server;
/// use xmpp_session::store::Stores;
///
/// // `Arc<dyn Connection>`: other transports may feed the same server.
/// let server = Server::<Arc<dyn Connection>>::builder(Arc::new(Virtual::new(1)), Stores::memory())
///     .domain("example.com".parse()?)
///     .build();
/// let host = Host::with(server, |outbox| outbox)
///     .handshake_timeout(Duration::from_secs(10))
///     .shutdown_timeout(Duration::from_secs(20));
/// // Next: `.tls(TlsConfig::from_pem_files(..)?)`, and `host::tokio::listen` or `host::threads::listen`.
/// assert_eq!(host.connections(), 0);
/// # Ok::<(), xmpp_session::jid::Error>(())
/// ```
pub struct Host<C: SharedConnection> {
    server: Server<C>,
    wrap: fn(Arc<Outbox>) -> C,
    marks: Marks,
    settings: Settings,
    connections: AtomicUsize,
    #[cfg(feature = "tokio")]
    background: tokio::Background,
    /// Whether it has begun.
    #[cfg(feature = "threads")]
    background_thread: AtomicBool,
}

/// One connection that is counted.
struct Served<H: Deref<Target = Host<C>>, C: SharedConnection>(H);

impl<H: Deref<Target = Host<C>>, C: SharedConnection> Drop for Served<H, C> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the loops need of a [`Host`].
struct Settings {
    tls: Option<TlsConfig>,
    handshake: Duration,
    close: Duration,
    shutdown: Duration,
}

impl Host<Arc<Outbox>> {
    /// A host without TLS, with the default [`Marks`]. Until it has [`tls`](Self::tls), or its listeners are
    /// [`secure`](Listener::secure), nobody gets in to a domain that requires TLS: each client is closed with `policy-violation`.
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
            shutdown: Duration::from_secs(10),
        };
        Self {
            server,
            wrap,
            marks: Marks::default(),
            settings,
            connections: AtomicUsize::new(0),
            #[cfg(feature = "tokio")]
            background: tokio::Background::default(),
            #[cfg(feature = "threads")]
            background_thread: AtomicBool::new(false),
        }
    }

    /// Sets the certificate for STARTTLS and direct TLS.
    #[must_use]
    pub fn tls(mut self, config: TlsConfig) -> Self {
        self.settings.tls = Some(config);
        self
    }

    /// Sets how much a transport's outbox holds; its session keeps the rest of what waits for a slow
    /// reader ([LIMIT-13](crate::rules#limit-13)).
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
    /// waits, and waiting for the peer to close as well; 5 seconds ([LIMIT-23](crate::rules#limit-23)). With `threads` it is
    /// also how long a stuck writer may take to notice that the connection was closed.
    #[must_use]
    pub fn close_timeout(mut self, time: Duration) -> Self {
        self.settings.close = time;
        self
    }

    /// Sets how long a listener that is stopped waits for its clients to go and for the stores to keep what
    /// they leave; 10 seconds.
    #[must_use]
    pub fn shutdown_timeout(mut self, time: Duration) -> Self {
        self.settings.shutdown = time;
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

    fn accept<H: Deref<Target = Self>>(
        this: H,
        transport: Transport,
    ) -> (Live<H, C>, Arc<Outbox>, Drain) {
        let (outbox, drain) = Outbox::new(this.marks);
        (Self::accept_on(this, transport, &outbox), outbox, drain)
    }

    fn accept_on<H>(this: H, transport: Transport, outbox: &Arc<Outbox>) -> Live<H, C>
    where
        H: Deref<Target = Self>,
    {
        this.connections.fetch_add(1, Ordering::SeqCst);
        let served = Served(this);
        let host = &*served.0;
        let transport = transport.starttls(host.settings.tls.is_some());
        let driver = host.server.accept((host.wrap)(Arc::clone(outbox)), transport);
        Live { driver, served }
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
    fn settings(&self) -> &Settings;
    fn receive(&mut self, bytes: &[u8]);
    #[cfg(feature = "tokio")]
    fn poll_want(&mut self, cx: &mut Context<'_>) -> Poll<Want>;
    /// Whether it is to be polled again behind each write, though it wants input.
    #[cfg(feature = "tokio")]
    fn follows_writes(&self) -> bool {
        false
    }
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
    /// The application protocol that TLS is for, if it is not XMPP.
    fn alpn(&self) -> Option<&'static [u8]> {
        None
    }
    #[cfg(feature = "threads")]
    /// Whether its peers have a [`farewell`](Self::farewell).
    fn has_farewell(&self) -> bool {
        false
    }
    /// What the peer still has to say before its transport may be closed.
    fn farewell(&mut self) -> Option<Farewell> {
        None
    }
}

#[cfg(feature = "websocket")]
use websocket::Farewell;

/// There is none.
#[cfg(not(feature = "websocket"))]
enum Farewell {}

#[cfg(not(feature = "websocket"))]
impl Farewell {
    fn read(&mut self, _: &[u8]) {
        match *self {}
    }

    fn is_over(&self) -> bool {
        match *self {}
    }
}

/// A driver, and the host whose server's clock its time-outs refer to.
struct Live<H: Deref<Target = Host<C>>, C: SharedConnection> {
    driver: Driver<C>,
    /// Goes last.
    served: Served<H, C>,
}

impl<H: Deref<Target = Host<C>>, C: SharedConnection> Machine for Live<H, C> {
    fn settings(&self) -> &Settings {
        &self.served.0.settings
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.driver.receive(bytes);
    }

    #[cfg(feature = "tokio")]
    fn poll_want(&mut self, cx: &mut Context<'_>) -> Poll<Want> {
        self.driver.poll_want(cx)
    }

    #[cfg(feature = "tokio")]
    fn follows_writes(&self) -> bool {
        self.driver.follows_writes()
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
        self.driver.next_timeout().map(|at| at.saturating_sub(self.served.0.server.now()))
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
        !self.driver.has_session()
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

fn of_tls(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// How often to check the time-outs of a server, which are of seconds.
const TICK: Duration = Duration::from_secs(1);

/// The same of one of several nodes, whose leases and links wait for less.
#[cfg(feature = "cluster")]
const NODE_TICK: Duration = Duration::from_millis(50);

#[cfg(any(feature = "tokio", feature = "threads"))]
fn tick<C: SharedConnection>(server: &Server<C>) -> Duration {
    #[cfg(feature = "cluster")]
    if server.node().is_some() {
        return NODE_TICK;
    }
    let _one = server;
    TICK
}

/// After `accept` failed for want of resources: until connections have ended.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often to check whether all sessions have ended.
const SHUTDOWN_PAUSE: Duration = Duration::from_millis(20);
