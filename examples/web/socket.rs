//! The WebSocket of XMPP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::ORIGIN;
use axum::http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use xmpp_session::host::{Host, tokio::websocket};
use xmpp_session::outbox::Outbox;
use xmpp_session::server::Transport;

use crate::log::Log;
use crate::site::Site;

/// What serves WebSockets.
pub(crate) struct Socket {
    pub(crate) site: Arc<Site>,
    pub(crate) host: Arc<Host<Arc<Outbox>>>,
    /// Nobody can read what its clients send.
    pub(crate) is_protected: bool,
    pub(crate) log: Log,
}

pub(crate) async fn upgrade(
    State(socket): State<Arc<Socket>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response<Body> {
    let log = socket.log;
    let source = socket.site.source(peer, request.headers());
    let websockets = socket.site.allows(request.headers());
    let answer = websockets.answer(&request);
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (upgraded, source) = (hyper::upgrade::on(&mut request), source.clone());
        tokio::spawn(async move {
            let transport = Transport::new().secure(socket.is_protected).source(&*source);
            let served = async {
                let stream = TokioIo::new(upgraded.await.map_err(std::io::Error::other)?);
                websocket::serve_upgraded(Arc::clone(&socket.host), stream, transport, &websockets)
                    .await
            };
            if let Err(error) = served.await {
                log.debug(&format!("a WebSocket from {source} broke: {error}"));
            }
        });
    }
    if answer.status() == StatusCode::FORBIDDEN {
        let origin = request.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok());
        let origin = origin.unwrap_or("an origin that is no text");
        log.info(&format!("{origin} may not open a WebSocket, from {source}: see --origin"));
    }
    answer.map(Body::from)
}
