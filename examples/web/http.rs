//! Accepts connections and serves HTTP on each, with time-outs.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use xmpp_session::host;

use crate::log::Log;

/// How long a client may take to say what it wants, also on a connection that has served it before.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections at once, without those that have become WebSockets.
const MOST: usize = 1000;

/// Never ends.
pub(crate) async fn serve(socket: TcpListener, routes: Router, log: Log) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let failed = |error: &_| log.error(&format!("cannot accept a connection: {error}"));
        let (stream, peer) = host::tokio::accept(&socket, failed).await;
        let routes = routes.clone().layer(Extension(ConnectInfo(peer)));
        tokio::spawn(async move {
            // What waits for an answer is small, and each answer is written at once.
            let _unset = stream.set_nodelay(true);
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
                .with_upgrades()
                .await;
            if let Err(error) = served {
                log.debug(&format!("a connection from {peer} broke: {error}"));
            }
            drop(place);
        });
    }
}
