//! A whole server for clients, on tokio: `--help` lists its options.
//!
//! What makes a server of the crate is [`serve`]; around it are options, accounts and certificates. Users of
//! your own, bots, components and more are in `docs/cookbook`.
#![forbid(unsafe_code)]

mod certificate;
#[cfg(all(feature = "redis", feature = "postgres"))]
mod cluster;
mod log;
mod metrics;
mod options;
mod settings;
mod setup;

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use log::Log;
use options::{Command, Options};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime;
use xmpp_session::environment::System;
#[cfg(feature = "websocket")]
use xmpp_session::host::WebSockets;
use xmpp_session::host::{Host, Listener, tokio::listen};
use xmpp_session::outbox::Outbox;
use xmpp_session::server::Server;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let command = match options::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            log::say(&problem);
            return ExitCode::from(2);
        }
    };
    // One core needs no threads, and no moving of tasks between them.
    let mut runtime = match available_parallelism() {
        Ok(cores) if cores.get() > 1 => runtime::Builder::new_multi_thread(),
        _ => runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build().map_err(Failure::from);
    match runtime.and_then(|runtime| runtime.block_on(run(command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            log::say(&problem.to_string());
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Help => println!("{}", options::help()),
        Command::AddUser(data, account) => {
            setup::add(&setup::open(&data).await?, &System::new(), &[account]).await?;
        }
        Command::Serve(options) => serve(*options).await?,
    }
    Ok(())
}

/// Runs a server until it is told to stop.
async fn serve(options: Options) -> Result<(), Failure> {
    let log = Log(options.settings.log);
    let mut tls = certificate::tls(options.certificate.as_ref(), &options.settings.domains)?;
    if let Some(authorities) = &options.clients_from {
        tls = tls.clients_from_pem_file(authorities)?;
    }
    #[cfg(all(feature = "redis", feature = "postgres"))]
    if let Some(cluster) = &options.cluster {
        return cluster::serve(cluster, &options, tls).await;
    }
    let stores = setup::stores(&options.settings).await?;
    let (server, invented) = setup::server(&options.settings, false, stores).await?;
    let server = server.listener(move |event| log.event(event)).build();
    let host = Host::new(server.clone()).tls(tls).shutdown_timeout(Duration::from_secs(3));
    let host = Arc::new(host);

    let mut text = String::new();
    for (jid, password) in &invented {
        writeln!(text, "account {jid}, password {password}")?;
    }
    if !invented.is_empty() {
        text += "To try it out, log in with any XMPP client: give it one of these accounts and, as its \
                 server, an address from below; accept the certificate.\n";
    }
    let mut listening = Vec::new();
    for listener in sockets(&options)?.listen(&options, log, &mut text)? {
        listening.push((listener, setup::stop()?));
    }
    serve_metrics(&options, server, &mut text).await?;
    print!("{text}");
    let listen = |(listener, stop)| tokio::spawn(listen(Arc::clone(&host), listener, stop));
    for listening in listening.into_iter().map(listen).collect::<Vec<_>>() {
        listening.await?;
    }
    Ok(())
}

/// Where clients are accepted: the addresses are taken, and nobody is let in yet.
struct Sockets(Vec<(TcpSocket, SocketAddr, Kind)>);

fn sockets(options: &Options) -> Result<Sockets, Failure> {
    // Each client is an open file.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let plain = options.listen.iter().map(|address| (*address, Kind::Plain));
    let direct_tls = options.direct_tls.iter().map(|address| (*address, Kind::DirectTls));
    let websocket = options.websocket.iter().map(|address| (*address, Kind::WebSocket));
    let mut sockets = Vec::new();
    for (address, kind) in plain.chain(direct_tls).chain(websocket) {
        let bind = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            #[cfg(not(windows))]
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        sockets.push((bind().map_err(|error| cannot_listen(address, &error))?, address, kind));
    }
    Ok(Sockets(sockets))
}

impl Sockets {
    /// Clients can connect; `text` gets the addresses.
    fn listen(
        self,
        options: &Options,
        log: Log,
        text: &mut String,
    ) -> Result<Vec<Listener<TcpListener>>, Failure> {
        let mut listeners = Vec::new();
        for (socket, address, kind) in self.0 {
            let socket = socket.listen(1024).map_err(|error| cannot_listen(address, &error))?;
            writeln!(text, "listening on {}", socket.local_addr()?)?;
            let mut listener = Listener::from(socket).on_error(move |client, error| match client {
                Some(client) => log.debug(&format!("a connection from {client} broke: {error}")),
                None => log.error(&format!("cannot accept a connection: {error}")),
            });
            listener = match (kind, options.allow_plaintext) {
                (Kind::Plain | Kind::WebSocket, true) => listener.secure(),
                (Kind::Plain, false) => listener,
                (Kind::DirectTls | Kind::WebSocket, _) => listener.direct_tls(),
            };
            #[cfg(feature = "websocket")]
            if kind == Kind::WebSocket {
                listener = listener.websocket(WebSockets::from_any_page());
            }
            if !options.proxies.is_empty() {
                let proxies = options.proxies.clone();
                listener = listener.proxied(move |address| proxies.contains(&address));
            }
            listeners.push(listener);
        }
        Ok(listeners)
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Failure {
    format!("cannot listen on {address}: {error}").into()
}

/// Answers Prometheus, if it is to.
async fn serve_metrics(
    options: &Options,
    server: Server<Arc<Outbox>>,
    text: &mut String,
) -> Result<(), Failure> {
    if let Some(address) = options.metrics {
        let socket = TcpListener::bind(address).await;
        let listener = socket.map_err(|error| cannot_listen(address, &error))?;
        writeln!(text, "metrics on http://{}/metrics", listener.local_addr()?)?;
        tokio::spawn(metrics::serve(listener, server));
    }
    Ok(())
}

/// How the connections of a listener begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    DirectTls,
    WebSocket,
}
