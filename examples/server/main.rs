//! A whole server for clients, on tokio: `--help` lists its options.
//!
//! What makes a server of the crate is [`serve`]; around it are options, accounts and certificates. Users of
//! your own, bots, components and more are in `docs/cookbook`.
#![forbid(unsafe_code)]

mod certificate;
mod log;
mod metrics;
mod options;
mod settings;
mod setup;

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use log::Log;
use options::{Command, Options};
use tokio::net::TcpListener;
use tokio::runtime;
use xmpp_session::environment::System;
#[cfg(feature = "websocket")]
use xmpp_session::host::WebSockets;
use xmpp_session::host::{Host, Listener, tokio::listen};

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
    let (server, invented) = setup::server(&options.settings, false).await?;
    let server = server.listener(move |event| log.event(event)).build();
    let host = Host::new(server.clone()).tls(tls).shutdown_timeout(Duration::from_secs(3));
    let host = Arc::new(host);

    // Each client is an open file.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let plain = options.listen.into_iter().map(|address| (address, Kind::Plain));
    let direct_tls = options.direct_tls.into_iter().map(|address| (address, Kind::DirectTls));
    let websocket = options.websocket.into_iter().map(|address| (address, Kind::WebSocket));
    let (mut text, mut listeners) = (String::new(), Vec::new());
    for (jid, password) in &invented {
        writeln!(text, "account {jid}, password {password}")?;
    }
    if !invented.is_empty() {
        text += "To try it out, log in with any XMPP client: give it one of these accounts and, as its \
                 server, an address from below; accept the certificate.\n";
    }
    for (address, kind) in plain.chain(direct_tls).chain(websocket) {
        let failed = |error: io::Error| format!("cannot listen on {address}: {error}");
        let socket = TcpListener::bind(address).await.map_err(failed)?;
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
        listeners.push((listener, setup::stop()?));
    }
    if let Some(address) = options.metrics {
        let failed = |error: io::Error| format!("cannot listen on {address}: {error}");
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        writeln!(text, "metrics on http://{}/metrics", listener.local_addr()?)?;
        tokio::spawn(metrics::serve(listener, server));
    }
    print!("{text}");
    let listen = |(listener, stop)| tokio::spawn(listen(Arc::clone(&host), listener, stop));
    for listening in listeners.into_iter().map(listen).collect::<Vec<_>>() {
        listening.await?;
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
