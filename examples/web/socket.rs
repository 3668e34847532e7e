//! The WebSocket of XMPP.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Sink, SinkExt as _, Stream as _, StreamExt as _};
use xmpp_session::outbox::{Drain, Marks, Outbox};
use xmpp_session::server::{Server, Transport, Want};
use xmpp_session::stanza::Framing;
use xmpp_session::stream::BrokenMessage;

use crate::log::Log;
use crate::site::Site;

/// What serves WebSockets.
pub(crate) struct Socket {
    pub(crate) site: Arc<Site>,
    pub(crate) server: Server<Arc<Outbox>>,
    /// Nobody can read what its clients send.
    pub(crate) is_protected: bool,
    pub(crate) log: Log,
}

pub(crate) async fn upgrade(
    ws: WebSocketUpgrade,
    State(socket): State<Arc<Socket>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !socket.site.allows(&headers) {
        let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or("?");
        socket
            .log
            .info(&format!("{}: {origin} may not use the WebSocket: see --origin", peer.ip()));
        return (StatusCode::FORBIDDEN, "this origin may not: see --origin").into_response();
    }
    let source = socket.site.source(peer, &headers);
    ws.protocols(["xmpp"])
        .max_message_size(300_000)
        .on_upgrade(move |stream| serve(stream, socket.server.clone(), source, socket.is_protected))
}

async fn write(
    mut drain: Drain,
    mut tx: impl Sink<Message, Error = axum::Error> + Unpin,
) -> Result<(), axum::Error> {
    while drain.fill().await.is_some() {
        let mut taken = 0;
        for message in drain.messages() {
            taken += message.len();
            let text = String::from_utf8_lossy(message).into_owned();
            tx.feed(Message::text(text)).await?;
        }
        tx.flush().await?;
        drain.consume(taken);
    }
    tx.send(Message::Close(None)).await
}

enum Next {
    Got(Option<Result<Message, axum::Error>>),
    Close,
}

async fn serve(socket: WebSocket, server: Server<Arc<Outbox>>, source: String, secure: bool) {
    let (outbox, drain) = Outbox::with_framing(Marks::default(), Framing::Message);
    let (tx, mut rx) = socket.split();
    let mut writer = tokio::spawn(write(drain, tx));
    let transport = Transport::new().secure(secure).source(source);
    let mut driver = server.accept(outbox, transport);
    loop {
        let due = driver.next_timeout().map(|due| due.saturating_sub(server.now()));
        let next = poll_fn(|cx| match driver.poll_want(cx) {
            Poll::Ready(Want::Input) => Pin::new(&mut rx).poll_next(cx).map(Next::Got),
            Poll::Ready(_) => Poll::Ready(Next::Close),
            Poll::Pending => Poll::Pending,
        });
        match tokio::time::timeout(due.unwrap_or(Duration::from_secs(1)), next).await {
            Err(_) => driver.handle_timeout(),
            Ok(Next::Got(Some(Ok(Message::Text(text))))) => {
                driver.receive_message(text.as_bytes(), true);
            }
            Ok(Next::Got(Some(Ok(Message::Binary(_))))) => {
                driver.broken_message(BrokenMessage::Binary);
            }
            Ok(Next::Got(Some(Ok(Message::Ping(_) | Message::Pong(_))))) => {}
            Ok(Next::Got(Some(Err(error)))) if error.to_string().contains("too long") => {
                driver.broken_message(BrokenMessage::TooLong);
            }
            Ok(Next::Got(Some(Ok(Message::Close(_))) | None)) => driver.end_of_input(),
            Ok(Next::Close | Next::Got(Some(Err(_)))) => break,
        }
    }
    drop(driver);
    if tokio::time::timeout(Duration::from_secs(5), &mut writer).await.is_err() {
        writer.abort();
    }
}
