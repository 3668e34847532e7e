//! The same server on blocking threads, without a runtime: two threads for each connection.
//!
//! `cargo run --release --features threads --example threads` listens on 127.0.0.1:5222, with TLS
//! required and a certificate made at the start. The `server` example has all the options, and
//! `docs/cookbook` whole pieces of a host.
#![forbid(unsafe_code)]

use std::error::Error;
use std::future::Future;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use xmpp_session::environment::System;
use xmpp_session::host::{Host, Listener, TlsConfig, threads};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::outbox::Outbox;
use xmpp_session::server::Server;
use xmpp_session::store::{Credentials, Stores};
use xmpp_session::xep;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let environment = Arc::new(System::new());
    let stores = Stores::memory();
    for (jid, password) in [("romeo@localhost", "montague"), ("juliet@localhost", "capulet")] {
        let credentials = Credentials::from_password(password, &*environment)?;
        let stored = pin!(stores.accounts.set_credentials(&BareJid::new(jid)?, credentials));
        // A store in memory has nothing to wait for.
        if let Poll::Ready(stored) = stored.poll(&mut Context::from_waker(Waker::noop())) {
            stored?;
        }
        println!("account {jid}, password {password}");
    }
    let server: Server<Arc<Outbox>> = Server::builder(environment, stores)
        .domain(DomainPart::new("localhost")?.into_owned())
        .hashing(threads::Workers::new(1)?)
        .extension(xep::Ping)
        .extension(xep::Disco::new().offline_messages())
        .build();
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = certificate.signing_key.serialize_der().try_into()?;
    let tls = TlsConfig::new(vec![certificate.cert.der().clone()], key)?;
    let host = Arc::new(Host::new(server).tls(tls));
    let listener = TcpListener::bind("127.0.0.1:5222")?;
    println!("listening on {}", listener.local_addr()?);
    println!("press Enter to stop");
    let stop = || drop(std::io::stdin().read_line(&mut String::new()));
    let listener =
        Listener::from(listener).on_error(|client, error| eprintln!("{client:?}: {error}"));
    threads::listen(host, listener, stop)?;
    Ok(())
}
