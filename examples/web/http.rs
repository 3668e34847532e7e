//! Accepts connections and serves HTTP on each, with time-outs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use xmpp_session::host;

use crate::log::Log;

/// How long a client may take to say what it wants, also on a connection that has served it before.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection may serve requests, whatever it does; browsers make another.
const LIFE: Duration = Duration::from_secs(60);
/// Connections at once, without those that have become WebSockets: all, and of one address unless it is a proxy.
const MOST: usize = 1000;
const MOST_OF_ONE: usize = 50;

/// Connections of each address.
#[derive(Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

struct Place(Arc<Sources>, IpAddr);

impl Sources {
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place(Arc::clone(self), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sources = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.1);
            }
        }
    }
}

/// Never ends. `is_proxied`: all connections are those of a proxy, which has limits of its own.
pub(crate) async fn serve(socket: TcpListener, routes: Router, is_proxied: bool, log: Log) {
    let (places, sources) = (Arc::new(Semaphore::new(MOST)), Arc::<Sources>::default());
    let most = if is_proxied { MOST } else { MOST_OF_ONE };
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let failed = |error: &_| log.error(&format!("cannot accept a connection: {error}"));
        let (stream, peer) = host::tokio::accept(&socket, failed).await;
        let Some(of_source) = sources.enter(peer.ip().to_canonical(), most) else { continue };
        let routes = routes.clone().layer(Extension(ConnectInfo(peer)));
        tokio::spawn(async move {
            // What waits for an answer is small, and each answer is written at once.
            let _unset = stream.set_nodelay(true);
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
                .with_upgrades();
            let mut served = pin!(served);
            let mut ended = timeout(LIFE, served.as_mut()).await;
            if ended.is_err() {
                // What is under way is still answered.
                served.as_mut().graceful_shutdown();
                ended = timeout(PATIENCE, served).await;
            }
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log.debug(&format!("a connection from {peer} broke: {error}")),
                Err(_) => log.debug(&format!("a connection from {peer} took too long")),
            }
            drop((place, of_source));
        });
    }
}
