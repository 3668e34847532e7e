//! A whole server for clients, on tokio: `--help` lists its options.
//!
//! What makes a server of the crate is [`serve`]; around it are options, accounts and certificates. Users of
//! your own, bots, components and more are in `docs/cookbook`.
#![forbid(unsafe_code)]

mod log;
mod metrics;
mod options;
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
use tokio::runtime::{self, Handle};
use xmpp_session::environment::System;
#[cfg(feature = "websocket")]
use xmpp_session::host::WebSockets;
use xmpp_session::host::{Host, Listener, tokio::listen};
use xmpp_session::server::{Limits, Server};
use xmpp_session::xep;

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
        Command::Help => println!("{}", options::HELP),
        Command::AddUser(data, account) => {
            setup::add(&setup::open(&data)?, &System::new(), &[account]).await?;
        }
        Command::Serve(options) => serve(options).await?,
    }
    Ok(())
}

/// Runs a server until it is told to stop.
async fn serve(mut options: Options) -> Result<(), Failure> {
    let log = Log(options.log);
    let tls = setup::tls(&options)?;
    let environment = Arc::new(System::new());
    let (stores, policy, greeting) = setup::accounts(&mut options, &environment).await?;
    let mut limits = Limits::default();
    if options.no_limits {
        limits = Limits::unlimited();
        (limits.retention.live_stanzas, limits.retention.bytes) = (usize::MAX, usize::MAX);
    }
    let registration = match options.register {
        true => xep::Registration::open(),
        false => xep::Registration::closed(),
    };
    let blocks = Arc::clone(&stores.blocks);
    let mut server = Server::builder(Arc::clone(&environment) as _, stores)
        .extension(xep::Blocking::new(blocks))
        .extension(xep::Carbons::new())
        .extension(xep::StreamManagement::new())
        .extension(registration)
        .extension(xep::ClientState)
        .extension(xep::Ping)
        .extension(xep::SoftwareVersion::new("xmpp-session example", env!("CARGO_PKG_VERSION")))
        .extension(xep::LastActivity::new(environment))
        .extension(xep::Disco::new().name("xmpp-session example").offline_messages())
        .conflict(options.conflict)
        .hashing(Handle::current())
        .limits(limits)
        .on_fault(move |fault| log.fault(fault))
        .on_login(move |login| log.login(login))
        .listener(move |event| log.event(event));
    for domain in options.domains {
        server = server.domain_with(domain, policy.clone());
    }
    let server = server.build();
    let host = Host::new(server.clone()).tls(tls).shutdown_timeout(Duration::from_secs(3));
    let host = Arc::new(host);

    // Each client is an open file.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let plain = options.listen.into_iter().map(|address| (address, Kind::Plain));
    let direct_tls = options.direct_tls.into_iter().map(|address| (address, Kind::DirectTls));
    let websocket = options.websocket.into_iter().map(|address| (address, Kind::WebSocket));
    let (mut text, mut listeners) = (greeting, Vec::new());
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
