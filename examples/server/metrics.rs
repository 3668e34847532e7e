//! The server's metrics over HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use xmpp_session::connection::SharedConnection;
use xmpp_session::host;
use xmpp_session::server::{Metrics, Server};

/// Bytes of a request.
const REQUEST: usize = 8192;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests at once.
const MOST: usize = 16;

/// Answers every request for `/metrics`, one on each connection.
pub(crate) async fn serve<C: SharedConnection>(listener: TcpListener, server: Server<C>) {
    let slots = Arc::new(());
    loop {
        let (socket, _) = host::tokio::accept(&listener, |_| {}).await;
        if Arc::strong_count(&slots) > MOST {
            continue;
        }
        let (server, slot) = (server.clone(), Arc::clone(&slots));
        tokio::spawn(async move {
            let _whatever_came_of_it = timeout(PATIENCE, answer(socket, &server)).await;
            drop(slot);
        });
    }
}

async fn answer<C: SharedConnection>(mut socket: TcpStream, server: &Server<C>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > REQUEST || socket.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    let path = request.strip_prefix("get ").and_then(|rest| rest.split([' ', '?']).next());
    let (mut body, mut kind, status) = (String::new(), "text/plain", "200 OK");
    let status = match path {
        Some("/metrics") if request.contains("application/openmetrics-text") => {
            server.metrics().write_openmetrics(&mut body);
            kind = Metrics::OPENMETRICS;
            status
        }
        Some("/metrics") => {
            server.metrics().write_prometheus(&mut body);
            kind = Metrics::PROMETHEUS;
            status
        }
        _ => "404 Not Found",
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await?;
    socket.shutdown().await
}
