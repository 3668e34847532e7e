//! An XMPP server for browsers in one process: `--help` lists its options.
//!
//! At `/xmpp-websocket` is the WebSocket, at `/` a page to chat, at `/live` one to watch the server.
#![forbid(unsafe_code)]

mod app;
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
use std::time::Duration;

use app::App;
use options::Options;
use tokio::net::TcpListener;
use xmpp_session::host;

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
    let (log, listen, operator) =
        (log::Log(options.settings.log), options.listen, options.operator());
    let is_proxied = options.secure;
    let App { host, server, routes, invented } = App::new(options).await?;
    tokio::spawn(host::tokio::background(server));

    // Each client is an open file.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let failed = |error| format!("cannot listen on {listen}: {error}");
    let socket = TcpListener::bind(listen).await.map_err(failed)?;
    let address = socket.local_addr()?;
    for (jid, password) in &invented {
        println!("account {jid}, password {password}");
    }
    println!("listening on {address}");
    println!("chat: http://{address}/");
    println!("live view: http://{address}/live ({operator})");
    let stop = setup::stop()?;
    tokio::select! {
        () = http::serve(socket, routes, is_proxied, log) => {}
        () = stop => {}
    }
    host::tokio::shutdown(&host, Duration::from_secs(3)).await;
    Ok(())
}
