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

use std::error::Error;
use std::sync::Arc;

use archive::Archive;
use push::Push;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use xmpp_session::environment::System;
use xmpp_session::host::{self, Host, TlsConfig};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::outbox::Outbox;
use xmpp_session::server::{Server, Transport};
use xmpp_session::store::{Credentials, Stores};
use xmpp_session::xep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, domain, accounts, certificate, key] = &args[..] else {
        return Err("ADDRESS DOMAIN ACCOUNTS CERTIFICATE KEY".into());
    };
    let (environment, stores) = (Arc::new(System::new()), Stores::memory());
    for line in std::fs::read_to_string(accounts)?.lines() {
        let (jid, password) = line.split_once(' ').ok_or("a JID and a password")?;
        let credentials = Credentials::from_password(password, &*environment)?;
        stores.accounts.set_credentials(&BareJid::new(jid)?, credentials).await?;
    }
    let server: Server<Arc<Outbox>> = Server::builder(Arc::clone(&environment) as _, stores)
        .domain(DomainPart::new(domain)?.into_owned())
        .extension(xep::Carbons::new())
        .extension(xep::StreamManagement::new())
        .extension(Archive::new(environment))
        .extension(Push::new(domain))
        .extension(xep::Disco::new())
        .build();
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let tls = TlsConfig::new(chain, PrivateKeyDer::from_pem_file(key)?)?;
    let host = Arc::new(Host::new(server.clone()).tls(tls));
    tokio::spawn(host::tokio::background(server));
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let failed = |error: &std::io::Error| eprintln!("cannot accept a connection: {error}");
        let (socket, peer) = host::tokio::accept(&listener, failed).await;
        let transport = Transport::new().source(peer.ip().to_string());
        tokio::spawn(host::tokio::serve(Arc::clone(&host), socket, transport));
    }
}
