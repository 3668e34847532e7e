//! The WebSocket of XMPP.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Sink, SinkExt as _, Stream as _, StreamExt as _};
use xmpp_session::outbox::{Drain, Marks, Outbox};
use xmpp_session::server::{Server, Transport, Want};
use xmpp_session::stanza::Framing;
use xmpp_session::stream::BrokenMessage;

use crate::Site;

pub(crate) async fn upgrade(
    ws: WebSocketUpgrade,
    State(site): State<Arc<Site>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !site.allows(&headers) {
        return (StatusCode::FORBIDDEN, "this origin may not: see --origin").into_response();
    }
    ws.protocols(["xmpp"])
        .max_message_size(300_000)
        .on_upgrade(move |socket| serve(socket, site.server.clone(), peer, site.secure))
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

async fn serve(socket: WebSocket, server: Server<Arc<Outbox>>, peer: SocketAddr, secure: bool) {
    let (outbox, drain) = Outbox::with_framing(Marks::default(), Framing::Message);
    let (tx, mut rx) = socket.split();
    let mut writer = tokio::spawn(write(drain, tx));
    let transport = Transport::new().secure(secure).source(peer.ip().to_string());
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
