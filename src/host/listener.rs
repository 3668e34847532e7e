//! What becomes of the connections that a host accepts.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

#[cfg(feature = "websocket")]
use super::WebSockets;
use crate::server::Transport;
use crate::shield::shielded;

/// A socket that clients connect to, and what is true of the connections that it accepts.
///
/// ```no_run
/// # #[cfg(feature = "tokio")]
/// # async fn listen(host: std::sync::Arc<xmpp_session::host::Host<std::sync::Arc<xmpp_session::outbox::Outbox>>>) -> std::io::Result<()> {
/// use xmpp_session::host::{Listener, tokio::listen};
///
/// let socket = tokio::net::TcpListener::bind("[::]:5223").await?;
/// let listener = Listener::from(socket)
///     .direct_tls()
///     .proxied(|proxy| proxy.is_loopback())
///     .on_error(|client, error| eprintln!("{client:?}: {error}"));
/// listen(host, listener, std::future::pending()).await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a listener does nothing until it is listened on"]
pub struct Listener<L> {
    pub(super) socket: L,
    pub(super) terms: Terms,
}

/// What is true of each connection.
#[derive(Clone, Default)]
pub(super) struct Terms {
    pub(super) direct_tls: bool,
    secure: bool,
    #[cfg(feature = "websocket")]
    pub(super) websockets: Option<WebSockets>,
    trusted: Option<Arc<Trust>>,
    on_error: Option<Arc<OnError>>,
}

type Trust = dyn Fn(IpAddr) -> bool + Send + Sync;
type OnError = dyn Fn(Option<IpAddr>, &io::Error) + Send + Sync;

macro_rules! from {
    ($(#[$when:meta] $socket:ty,)*) => {$(
        #[$when]
        impl From<$socket> for Listener<$socket> {
            fn from(socket: $socket) -> Self {
                Self::new(socket)
            }
        }
    )*};
}

from! {
    #[cfg(feature = "threads")] std::net::TcpListener,
    #[cfg(all(feature = "threads", unix))] std::os::unix::net::UnixListener,
    #[cfg(feature = "tokio")] ::tokio::net::TcpListener,
    #[cfg(all(feature = "tokio", unix))] ::tokio::net::UnixListener,
}

impl<L> Listener<L> {
    /// A listener whose connections begin without TLS, and which is open to all: what `listen` makes of a
    /// socket alone.
    pub fn new(socket: L) -> Self {
        Self { socket, terms: Terms::default() }
    }

    /// Its connections begin with a TLS handshake
    /// ([XEP-0368](https://xmpp.org/extensions/xep-0368.html)).
    pub fn direct_tls(mut self) -> Self {
        self.terms.direct_tls = true;
        self
    }

    /// Its connections are WebSockets, and begin with the handshake of those, whatever path their clients ask for.
    #[cfg(feature = "websocket")]
    pub fn websocket(mut self, websockets: WebSockets) -> Self {
        self.terms.websockets = Some(websockets);
        self
    }

    /// Its connections are secure without TLS, since nobody else can read along: a loopback address, a
    /// Unix socket, a proxy that does TLS in front of this host ([TLS-3](crate::rules#tls-3)). Passwords are taken on them.
    pub fn secure(mut self) -> Self {
        self.terms.secure = true;
        self
    }

    /// Its connections come through proxies, which begin each with a header of the PROXY protocol, of
    /// version 1 or 2. What limits count as the source is the client then, and not the proxy ([PROXY-1](crate::rules#proxy-1)).
    ///
    /// `is_trusted` says of which addresses proxies are. Connections from others are closed, since
    /// anybody could say to be anybody. Over a Unix socket, whoever may connect is trusted.
    pub fn proxied(mut self, is_trusted: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.terms.trusted = Some(Arc::new(is_trusted));
        self
    }

    /// Called with what goes wrong: with a connection, by its source where that has an address, or with
    /// accepting one. It is for the log only, as the listener goes on.
    pub fn on_error(
        mut self,
        hook: impl Fn(Option<IpAddr>, &io::Error) + Send + Sync + 'static,
    ) -> Self {
        self.terms.on_error = Some(Arc::new(hook));
        self
    }
}

impl<L> fmt::Debug for Listener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("proxied", &self.terms.trusted.is_some())
            .finish_non_exhaustive()
    }
}

impl Terms {
    /// Whether a header of a proxy comes first.
    ///
    /// # Errors
    ///
    /// If nobody may speak for others from there.
    pub(super) fn is_proxied(&self, peer: Option<IpAddr>) -> io::Result<bool> {
        match (&self.trusted, peer) {
            (None, _) => Ok(false),
            (Some(is_trusted), Some(peer))
                if shielded(|| is_trusted(peer.to_canonical())) != Some(true) =>
            {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a trusted proxy"))
            }
            (Some(_), _) => Ok(true),
        }
    }

    pub(super) fn transport(&self, source: Option<IpAddr>) -> Transport {
        let transport = Transport::new().secure(self.secure);
        match source {
            Some(source) => transport.source(source.to_string()),
            None => transport,
        }
    }

    pub(super) fn failed(&self, source: Option<IpAddr>, error: &io::Error) {
        if let Some(hook) = &self.on_error {
            shielded(|| hook(source, error));
        }
    }
}
