//! An XMPP server for browsers in one process: `--help` lists its options.
//!
//! At `/xmpp-websocket` is the WebSocket, at `/` a page to chat, at `/live` one to watch the server.
#![forbid(unsafe_code)]

mod discovery;
mod http;
mod live;
#[path = "../server/log.rs"]
mod log;
mod operator;
mod options;
mod pages;
#[path = "../server/settings.rs"]
mod settings;
#[path = "../server/setup.rs"]
mod setup;
mod site;
mod socket;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{get, post};
use live::{Ends, Live};
use operator::Guard;
use options::Options;
use site::Site;
use socket::Socket;
use tokio::net::TcpListener;
use xmpp_session::host::{Host, tokio as tokio_host};
use xmpp_session::outbox::Outbox;
use xmpp_session::server::Server;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match options::parse(std::env::args().skip(1)) {
        Ok(None) => {
            println!("{}", options::help());
            Ok(())
        }
        Ok(Some(options)) => serve(options).await,
        Err(problem) => {
            log::say(&problem);
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            log::say(&problem.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Runs a server until it is told to stop.
async fn serve(options: Options) -> Result<(), Failure> {
    let log = log::Log(options.settings.log);
    let ends = Arc::<Ends>::default();
    let (server, invented) = setup::server(&options.settings, options.allow_plaintext).await?;
    let server = server.listener({
        let ends = Arc::clone(&ends);
        move |event| {
            log.event(event);
            ends.event(event);
        }
    });
    let server: Server<Arc<Outbox>> = server.build();
    tokio::spawn(tokio_host::background(server.clone()));
    let host = Arc::new(Host::new(server.clone()));

    // Each client is an open file.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let failed = |error| format!("cannot listen on {}: {error}", options.listen);
    let socket = TcpListener::bind(options.listen).await.map_err(failed)?;
    let address = socket.local_addr()?;
    for (jid, password) in &invented {
        println!("account {jid}, password {password}");
    }
    println!("listening on {address}");
    println!("chat: http://{address}/");
    println!("live view: http://{address}/live ({})", options.operator());
    let stop = setup::stop()?;
    tokio::select! {
        () = http::serve(socket, routes(options, server, Arc::clone(&host), ends, log), log) => {}
        () = stop => {}
    }
    tokio_host::shutdown(&host, Duration::from_secs(3)).await;
    Ok(())
}

/// What is answered where.
fn routes(
    options: Options,
    server: Server<Arc<Outbox>>,
    host: Arc<Host<Arc<Outbox>>>,
    ends: Arc<Ends>,
    log: log::Log,
) -> Router {
    let is_protected = options.is_protected();
    let site = Arc::new(Site { proxied: options.secure, origins: options.origins });
    let files = options.files.as_ref();
    let guard = Arc::new(Guard::new(Arc::clone(&site), options.operator_token, log));
    let live = pages::router(pages::LIVE, files)
        .merge(Live::new(server, ends, log).router())
        .layer(from_fn_with_state(Arc::clone(&guard), operator::guard))
        .merge(Router::new().route("/live/login", post(operator::log_in)).with_state(guard))
        .merge(pages::router(pages::LOGIN, files));
    let socket = Arc::new(Socket { site: Arc::clone(&site), host, is_protected, log });
    Router::new()
        .route("/xmpp-websocket", get(socket::upgrade))
        .with_state(socket)
        .route("/.well-known/host-meta", get(discovery::xml))
        .route("/.well-known/host-meta.json", get(discovery::json))
        .with_state(site)
        .merge(pages::router(pages::CHAT, files))
        .merge(live)
        .layer(map_response(pages::harden))
}
