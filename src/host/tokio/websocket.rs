//! WebSockets ([RFC 7395](https://www.rfc-editor.org/rfc/rfc7395)), of a listener or of a program's own HTTP server.
//!
//! Where XMPP has a socket to itself, the handshake is done here, with TLS in front of it or behind a proxy that does it:
//!
//! ```no_run
//! # async fn run(host: std::sync::Arc<xmpp_session::host::Host<std::sync::Arc<xmpp_session::outbox::Outbox>>>) -> std::io::Result<()> {
//! use xmpp_session::host::{Listener, WebSockets, tokio::listen};
//!
//! let socket = tokio::net::TcpListener::bind("[::]:5281").await?;
//! let pages = WebSockets::from_pages(["https://chat.example.com"]);
//! listen(host, Listener::from(socket).websocket(pages).direct_tls(), std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! An HTTP server gives the answer of [`WebSockets::answer`], then what it has upgraded to [`serve_upgraded`].

use std::io;
use std::sync::Arc;

use ::tokio::io::{AsyncRead, AsyncWrite};

use super::stream::Stream;
use super::{Line, run};
use crate::connection::SharedConnection;
use crate::host::ahead::Ahead;
use crate::host::websocket::Web;
use crate::host::{Host, WebSockets};
use crate::server::Transport;

/// Serves one connection that begins with the handshake over HTTP. Otherwise as [`serve`](super::serve).
///
/// # Errors
///
/// As [`serve`](super::serve). A handshake that is refused is none.
pub fn serve<C, S>(
    host: Arc<Host<C>>,
    stream: S,
    transport: Transport,
    websockets: &WebSockets,
) -> impl Future<Output = io::Result<()>> + Send + use<C, S>
where
    C: SharedConnection,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Stream { io: stream, ahead: Ahead::default() };
    run(Line::websocket(host, stream, transport, false, websockets, false), |end| end)
}

/// Serves one connection that is a WebSocket by now. `transport` says whether it is
/// [secure](Transport::secure), as behind a proxy that does TLS: nobody else knows. Otherwise as [`serve`](super::serve).
///
/// # Errors
///
/// As [`serve`](super::serve).
pub fn serve_upgraded<C, S>(
    host: Arc<Host<C>>,
    stream: S,
    transport: Transport,
    websockets: &WebSockets,
) -> impl Future<Output = io::Result<()>> + Send + use<C, S>
where
    C: SharedConnection,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Stream { io: stream, ahead: Ahead::default() };
    run(Line::websocket(host, stream, transport, false, websockets, true), |end| end)
}

impl<C: SharedConnection, S> Line<Web<Arc<Host<C>>, C>, S> {
    pub(super) fn websocket(
        host: Arc<Host<C>>,
        stream: Stream<S>,
        transport: Transport,
        direct_tls: bool,
        websockets: &WebSockets,
        is_open: bool,
    ) -> Self {
        let transport = transport.direct_tls(direct_tls);
        let (machine, _, drain) = Web::new(host, transport, websockets, is_open);
        Self::of(Box::new(machine), drain, stream, direct_tls)
    }
}
