//! A whole server for clients, on tokio: `--help` lists its options.
//!
//! What makes a server of the crate is [`serve`] and [`listen`]; around them are options, accounts
//! and certificates.
#![forbid(unsafe_code)]

mod log;
mod metrics;
mod options;
mod setup;

use std::error::Error;
use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use log::Log;
use options::{Command, Options};
use tokio::net::TcpListener;
use tokio::runtime::{self, Handle};
use tokio::task::JoinHandle;
use xmpp_session::environment::System;
use xmpp_session::host;
use xmpp_session::outbox::Outbox;
use xmpp_session::server::{Limits, Server, Transport};
use xmpp_session::xep;

type Host = host::Host<Arc<Outbox>>;
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
    let (stores, policy) = setup::accounts(&mut options, &environment).await?;
    let mut limits = Limits::default();
    if options.no_limits {
        limits = Limits::unlimited();
        (limits.retention.live_stanzas, limits.retention.bytes) = (usize::MAX, usize::MAX);
    }
    let blocks = Arc::clone(&stores.blocks);
    let mut server = Server::builder(Arc::clone(&environment) as _, stores)
        .extension(xep::Blocking::new(blocks))
        .extension(xep::Carbons::new())
        .extension(xep::StreamManagement::new())
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
    let host = Arc::new(Host::new(server.clone()).tls(tls));
    let background = tokio::spawn(host::tokio::background(server.clone()));

    // Each client is an open file.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let stop = pin!(setup::stop()?);
    let mut listening = Vec::new();
    let plain = options.listen.into_iter().map(|address| (address, false));
    for (address, direct_tls) in plain.chain(options.direct_tls.into_iter().map(|a| (a, true))) {
        let failed = |error: io::Error| format!("cannot listen on {address}: {error}");
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        println!("listening on {}", listener.local_addr()?);
        let secure = options.allow_plaintext && !direct_tls;
        let transport = Transport::new().secure(secure);
        listening.push(tokio::spawn(listen(
            Arc::clone(&host),
            listener,
            transport,
            direct_tls,
            log,
        )));
    }
    if let Some(address) = options.metrics {
        let failed = |error: io::Error| format!("cannot listen on {address}: {error}");
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        println!("metrics on http://{}/metrics", listener.local_addr()?);
        listening.push(tokio::spawn(metrics::serve(listener, server)));
    }
    stop.await;
    listening.iter().for_each(JoinHandle::abort);
    host::tokio::shutdown(&host, Duration::from_secs(3)).await;
    background.abort();
    Ok(())
}

/// The host's loop: one task for each connection.
async fn listen(
    host: Arc<Host>,
    listener: TcpListener,
    transport: Transport,
    direct_tls: bool,
    log: Log,
) {
    loop {
        let failed = |error: &io::Error| log.error(&format!("cannot accept a connection: {error}"));
        let (socket, address) = host::tokio::accept(&listener, failed).await;
        let (host, transport) =
            (Arc::clone(&host), transport.clone().source(address.ip().to_string()));
        tokio::spawn(async move {
            let served = match direct_tls {
                true => host::tokio::serve_direct_tls(host, socket, transport).await,
                false => host::tokio::serve(host, socket, transport).await,
            };
            if let Err(error) = served {
                log.debug(&format!("a connection from {} broke: {error}", address.ip()));
            }
        });
    }
}
