//! A server on tokio with the archive and the push trigger of `docs/cookbook`:
//! `cargo run --features tokio --example archive -- ADDRESS DOMAIN ACCOUNTS CERTIFICATE KEY`, where ACCOUNTS is a
//! file with a JID, a space and the password on each line, and the certificate and its key are PEM files.
#![forbid(unsafe_code)]

#[path = "../../docs/cookbook/archive.rs"]
#[expect(unreachable_pub, reason = "it is a page of the cookbook")]
mod archive;
#[path = "../../docs/cookbook/push.rs"]
#[expect(unreachable_pub, reason = "it is a page of the cookbook")]
mod push;

use std::{env::args, error::Error, fs, sync::Arc};

use archive::Archive;
use push::Push;
use tokio::{net::TcpListener, runtime::Handle, signal::ctrl_c};
use xmpp_session::environment::System;
use xmpp_session::host::{Host, TlsConfig, tokio::listen};
use xmpp_session::server::Server;
use xmpp_session::store::{Credentials, Stores};
use xmpp_session::xep::{Carbons, Disco, StreamManagement};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = args().skip(1).collect();
    let [address, domain, accounts, certificate, key] = &args[..] else {
        return Err("ADDRESS DOMAIN ACCOUNTS CERTIFICATE KEY".into());
    };
    let (environment, stores) = (Arc::new(System::new()), Stores::memory());
    for line in fs::read_to_string(accounts)?.lines() {
        let (jid, password) = line.split_once(' ').ok_or("a JID and a password")?;
        let credentials = Credentials::from_password(password, &*environment)?;
        stores.accounts.set_credentials(&jid.parse()?, credentials).await?;
    }
    let server = Server::builder(Arc::clone(&environment) as _, stores)
        .domain(domain.parse()?)
        .hashing(Handle::current())
        .extension(Carbons::new())
        .extension(StreamManagement::new())
        .extension(Archive::new(environment))
        .extension(Push::new(domain))
        .extension(Disco::new())
        .build();
    let host = Host::new(server).tls(TlsConfig::from_pem_files(certificate, key)?);
    let socket = TcpListener::bind(address.as_str()).await?;
    println!("listening on {}", socket.local_addr()?);
    listen(Arc::new(host), socket, async { ctrl_c().await.unwrap_or_default() }).await;
    Ok(())
}
