//! A complete server on tokio: two accounts, a certificate in PEM files, and a graceful end.
//!
//! `cargo run --features tokio --example small -- fullchain.pem privkey.pem`
//!
//! With accounts of your own, direct TLS and a file: `docs/cookbook/server.md`.
#![forbid(unsafe_code)]

use std::{env::args, error::Error, sync::Arc};

use tokio::{net::TcpListener, runtime::Handle, signal::ctrl_c};
use xmpp_session::environment::System;
use xmpp_session::host::{Host, TlsConfig, tokio::listen};
use xmpp_session::server::Server;
use xmpp_session::store::{Credentials, MemoryAccounts, Stores};
use xmpp_session::xep::{Carbons, Disco, Ping, StreamManagement};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let environment = Arc::new(System::new());
    let accounts = MemoryAccounts::new();
    for (account, password) in [("romeo@localhost", "montague"), ("juliet@localhost", "capulet")] {
        accounts.insert(account.parse()?, Credentials::from_password(password, &*environment)?);
    }
    let mut stores = Stores::memory();
    stores.accounts = Arc::new(accounts);
    let server = Server::builder(environment, stores)
        .domain("localhost".parse()?)
        .hashing(Handle::current())
        .extension(StreamManagement::new())
        .extension(Carbons::new())
        .extension(Ping)
        .extension(Disco::new())
        .build();
    let [certificate, key] = [1, 2].map(|n| args().nth(n).unwrap_or_default());
    let host = Host::new(server).tls(TlsConfig::from_pem_files(certificate, key)?);
    let socket = TcpListener::bind("127.0.0.1:5222").await?;
    listen(Arc::new(host), socket, async { ctrl_c().await.unwrap_or_default() }).await;
    Ok(())
}
