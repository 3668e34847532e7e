//! What stands between a store and its server, and does not always let things through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Database, PostgresConfig};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Open,
    /// Every COMMIT stays here while this lasts, and the connection open.
    HoldCommit,
    /// Ends the connection in place of a COMMIT.
    CutBeforeCommit,
    /// Ends the connection when a COMMIT has been answered, in place of the answer.
    CutBehindCommit,
    /// Lets nothing through.
    Stopped,
    /// Takes no connections, and has none.
    Closed,
}

pub(super) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    pub(super) cuts: Arc<AtomicUsize>,
}

impl Proxy {
    pub(super) fn new(database: &Database, mode: Mode) -> Self {
        Self::with_tls(database, mode, None)
    }

    pub(super) fn with_tls(
        database: &Database,
        mode: Mode,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let (mode, cuts) = (watch::Sender::new(mode), Arc::new(AtomicUsize::new(0)));
        let url: tokio_postgres::Config = database.url().parse().unwrap();
        let [tokio_postgres::config::Host::Tcp(host)] = url.get_hosts() else {
            panic!("these tests reach their server by TCP")
        };
        let target = (host.clone(), url.get_ports()[0]);
        let listener = database.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (modes, counted) = (mode.clone(), Arc::clone(&cuts));
        database.runtime.spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (mode, cuts) = (modes.subscribe(), Arc::clone(&counted));
                let (target, tls) = (target.clone(), tls.clone());
                tokio::spawn(async move {
                    let mut client = client;
                    if *mode.borrow() == Mode::Closed {
                        return;
                    }
                    let server = TcpStream::connect(target).await.unwrap();
                    if let Some(tls) = tls {
                        // The question for TLS, and a yes.
                        client.read_exact(&mut [0; 8]).await.unwrap();
                        client.write_all(b"S").await.unwrap();
                        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
                        let Ok(client) = acceptor.accept(client).await else { return };
                        carry(client, server, mode, cuts).await;
                    } else {
                        carry(client, server, mode, cuts).await;
                    }
                });
            }
        });
        Self { port, mode, cuts }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(super) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }

    pub(super) fn url(&self, database: &Database, host: &str, query: &str) -> String {
        let url = database.url();
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, rest) = rest.split_once('/').unwrap();
        let name = rest.split('?').next().unwrap();
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        format!("{scheme}://{user}@{host}:{}/{name}?{query}", self.port)
    }

    pub(super) fn config(&self, database: &Database) -> PostgresConfig {
        PostgresConfig::new(&self.url(database, "127.0.0.1", "sslmode=disable")).unwrap()
    }
}

async fn carry(
    client: impl AsyncRead + AsyncWrite + Unpin,
    server: TcpStream,
    mode: watch::Receiver<Mode>,
    cuts: Arc<AtomicUsize>,
) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.into_split();
    let committed = AtomicBool::new(false);
    let current = || *mode.borrow();
    let passes = |now: Mode| !matches!(now, Mode::Stopped);
    let there = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok(length @ 1..) = from_client.read(&mut buffer).await else { return };
            let bytes = &buffer[..length];
            let is_commit = bytes.windows(7).any(|part| part == b"COMMIT\0");
            wait(&mode, passes).await;
            match current() {
                Mode::HoldCommit if is_commit => wait(&mode, |now| now != Mode::HoldCommit).await,
                Mode::CutBeforeCommit if is_commit => {
                    cuts.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Mode::CutBehindCommit if is_commit => committed.store(true, Ordering::Relaxed),
                _ => {}
            }
            if to_server.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok(length @ 1..) = from_server.read(&mut buffer).await else { return };
            wait(&mode, passes).await;
            if committed.load(Ordering::Relaxed) {
                cuts.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if to_client.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
        () = wait(&mode, |now| now == Mode::Closed) => {}
    }
}

async fn wait(mode: &watch::Receiver<Mode>, until: impl Fn(Mode) -> bool) {
    let mut mode = mode.clone();
    // A proxy that is gone holds nobody.
    let _gone = mode.wait_for(|now| until(*now)).await;
}

/// Time for what is sent to arrive.
pub(super) const A_WHILE: Duration = Duration::from_millis(200);
