//! WebSockets ([RFC 7395](https://www.rfc-editor.org/rfc/rfc7395)), of a listener
//! ([`Listener::websocket`](crate::host::Listener::websocket)) or of a program's own HTTP server.

use std::io;

use super::{Stream, run};
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
    host: &Host<C>,
    stream: S,
    transport: Transport,
    websockets: &WebSockets,
) -> io::Result<()>
where
    C: SharedConnection,
    S: Stream,
{
    let transport = transport.direct_tls(false);
    let (machine, outbox, drain) = Web::new(host, transport, websockets, false);
    run(machine, outbox, drain, stream, Ahead::default(), false)
}

/// Serves one connection that is a WebSocket by now. `transport` says whether it is
/// [secure](Transport::secure), as behind a proxy that does TLS: nobody else knows. Otherwise as [`serve`](super::serve).
///
/// # Errors
///
/// As [`serve`](super::serve).
pub fn serve_upgraded<C, S>(
    host: &Host<C>,
    stream: S,
    transport: Transport,
    websockets: &WebSockets,
) -> io::Result<()>
where
    C: SharedConnection,
    S: Stream,
{
    let transport = transport.direct_tls(false);
    let (machine, outbox, drain) = Web::new(host, transport, websockets, true);
    run(machine, outbox, drain, stream, Ahead::default(), false)
}
