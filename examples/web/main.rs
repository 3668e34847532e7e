//! An XMPP server for browsers in one process: `--help` lists its options.
//!
//! At `/xmpp-websocket` is the WebSocket, at `/` a page to chat, at `/live` one to watch the server.
#![forbid(unsafe_code)]

mod discovery;
#[path = "../server/log.rs"]
mod log;
mod options;
mod pages;
#[path = "../server/settings.rs"]
mod settings;
#[path = "../server/setup.rs"]
mod setup;
mod socket;

use std::error::Error;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::middleware::map_response;
use axum::routing::get;
use options::{Command, Options};
use tokio::net::TcpListener;
use xmpp_session::host;
use xmpp_session::outbox::Outbox;
use xmpp_session::server::{Server, Shutdown};

type Failure = Box<dyn Error + Send + Sync>;

/// What the handlers of requests share.
struct Site {
    server: Server<Arc<Outbox>>,
    secure: bool,
    /// Whether what comes here has come over TLS to a proxy.
    proxied: bool,
    origins: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match options::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            println!("{}", options::help());
            Ok(())
        }
        Ok(Command::Serve(options)) => serve(options).await,
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

async fn serve(options: Options) -> Result<(), Failure> {
    let log = log::Log(options.settings.log);
    let (server, invented) = setup::server(&options.settings, options.allow_plaintext).await?;
    let server = server.listener(move |event| log.event(event)).build();
    tokio::spawn(host::tokio::background(server.clone()));

    let site = Arc::new(Site {
        server: server.clone(),
        secure: options.is_protected(),
        proxied: options.secure,
        origins: options.origins,
    });
    let routes = Router::new()
        .route("/xmpp-websocket", get(socket::upgrade))
        .route("/.well-known/host-meta", get(discovery::xml))
        .route("/.well-known/host-meta.json", get(discovery::json))
        .with_state(site)
        .merge(pages::router(pages::CHAT, options.files.as_ref()))
        .merge(pages::router(pages::LIVE, options.files.as_ref()))
        .layer(map_response(pages::harden));

    // Each client is an open file.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let failed = |error| format!("cannot listen on {}: {error}", options.listen);
    let socket = TcpListener::bind(options.listen).await.map_err(failed)?;
    let address = socket.local_addr()?;
    let mut text = String::new();
    for (jid, password) in &invented {
        writeln!(text, "account {jid}, password {password}")?;
    }
    writeln!(text, "listening on {address}")?;
    writeln!(text, "chat: http://{address}/")?;
    print!("{text}");
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    let served = async { axum::serve(socket, routes).await };
    tokio::select! {
        served = served => served?,
        () = setup::stop()? => {}
    }
    let _too_slow =
        tokio::time::timeout(Duration::from_secs(3), server.shutdown(Shutdown::new())).await;
    Ok(())
}

impl Site {
    /// Whether a page of this origin may use the WebSocket. What names none is no browser.
    fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        let own = || {
            let host = headers.get(HOST)?.to_str().ok()?;
            // By a name an attacker's page could point here: that of an IP address nobody can.
            let is_own = origin.split_once("://")?.1 == host && is_address(host);
            is_own.then_some(())
        };
        self.origins.iter().any(|known| known == origin) || own().is_some()
    }
}

/// Whether it is an IP address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let name =
        host.strip_prefix("localhost").filter(|rest| rest.is_empty() || rest.starts_with(':'));
    name.is_some()
        || host.parse::<SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}
