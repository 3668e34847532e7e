//! A whole server over sockets, on both hosts: its background work, and its end.
#![cfg(all(feature = "system", any(feature = "tokio", feature = "threads")))]
#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]

#[cfg(unix)]
#[cfg(test)]
#[path = "listeners.rs"]
mod listeners;

#[cfg(feature = "tokio")]
#[cfg(test)]
#[path = "wakes.rs"]
mod wakes;

#[cfg(feature = "websocket")]
#[cfg(test)]
#[path = "websocket_hosts.rs"]
mod websockets;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use xmpp_session::environment::System;
use xmpp_session::host::Host;
use xmpp_session::jid::BareJid;
use xmpp_session::outbox::{Marks, Outbox};
use xmpp_session::sasl::{Mechanism, Policy};
use xmpp_session::server::{DomainPolicy, Limits, Offload, Server, Transport};
use xmpp_session::store::{AnyAccount, Credentials, MemoryAccounts, OfflineMessage, Stores};

type Hosted = Arc<Host<Arc<Outbox>>>;

fn host() -> (Server<Arc<Outbox>>, Hosted) {
    let (server, host) = host_on(Stores::memory());
    (server, Arc::new(host))
}

fn host_on(mut stores: Stores) -> (Server<Arc<Outbox>>, Host<Arc<Outbox>>) {
    let environment = Arc::new(System::new());
    let any_account = Arc::new(AnyAccount::new("pw").unwrap());
    let mut policy = DomainPolicy::default();
    policy.sasl = Some(Policy::new(&*environment).mechanisms(&[Mechanism::Plain]));
    policy.authenticator = Some(Arc::clone(&any_account) as _);
    stores.accounts = any_account;
    let server = Server::builder(environment, stores)
        .domain_with("localhost".parse().unwrap(), policy)
        .build();
    (server.clone(), Host::new(server))
}

fn peer() -> Transport {
    Transport::new().secure(true).source("127.0.0.1")
}

fn expect(client: &mut impl Read, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        text.push(byte[0] as char);
    }
    text
}

/// A client without a session.
fn connect(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    open(&mut client);
    client
}

fn open(client: &mut (impl Read + Write)) {
    client
        .write_all(
            b"<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
              xmlns:stream='http://etherx.jabber.org/streams'>",
        )
        .unwrap();
    expect(client, "</stream:features>");
}

/// A client with a session.
fn log_in(address: SocketAddr) -> TcpStream {
    let mut client = connect(address);
    bind(&mut client);
    client
}

/// A session for a client that has none.
fn bind(client: &mut (impl Read + Write)) {
    // "\0me\0pw"
    client
        .write_all(
            b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AG1lAHB3</auth>",
        )
        .unwrap();
    expect(client, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    open(client);
    client
        .write_all(b"<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
        .unwrap();
    expect(client, "</iq>");
}

/// A client whose stored messages are 20 times what its connection takes at once gets all of them.
fn fetch(listen: impl FnOnce(Server<Arc<Outbox>>, Hosted) -> SocketAddr) {
    const MESSAGES: usize = 40;
    let stores = Stores::memory();
    let account = BareJid::new("me@localhost").unwrap();
    for n in 0..MESSAGES {
        let body = "x".repeat(50_000);
        let xml = format!("<message to='me@localhost'><body>{body}</body><n>{n}</n></message>");
        let message = OfflineMessage::new(xml.into_bytes(), SystemTime::now());
        let mut push = stores.offline.as_ref().unwrap().push(&account, message);
        assert!(push.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
    let (server, host) = host_on(stores);
    let host = Arc::new(host.marks(Marks::new(60_000, 100_000)));
    let mut client = log_in(listen(server, host));
    client.write_all(b"<presence/>").unwrap();
    for n in 0..MESSAGES {
        let message = expect(&mut client, "</message>");
        assert!(message.contains(&format!("<n>{n}</n>")), "message {n}");
    }
}

/// A client asks for more than its connection takes at once, closes its stream behind that, and reads.
fn ask(listen: impl FnOnce(Server<Arc<Outbox>>, Hosted) -> SocketAddr) {
    const ASKED: usize = 500;
    let (server, host) = host_on(Stores::memory());
    let host = Arc::new(host.marks(Marks::new(2_000, 1_000_000)));
    let mut client = log_in(listen(server, host));
    let ping = "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>";
    client.write_all(format!("{}</stream:stream>", ping.repeat(ASKED)).as_bytes()).unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("<iq ").count(), ASKED);
    assert!(answers.ends_with("</iq></stream:stream>"));
}

/// Two clients with sessions and one without, before the end and after it. One answers, and keeps
/// its end open.
fn play(address: SocketAddr, host: &Hosted, shut_down: impl FnOnce()) {
    let mut clients = [log_in(address), log_in(address), connect(address)];
    assert_eq!(host.connections(), 3);
    let readers = clients.each_mut().map(|client| {
        let mut client = client.try_clone().unwrap();
        std::thread::spawn(move || {
            let words = expect(&mut client, "</stream:stream>");
            client.write_all(b"</stream:stream>").unwrap();
            (words, client.read(&mut [0]).unwrap())
        })
    });
    shut_down();
    for reader in readers {
        let (words, more) = reader.join().unwrap();
        assert_eq!(
            words,
            "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>\
             </stream:stream>"
        );
        assert_eq!(more, 0);
    }
    assert_eq!(host.connections(), 0);
    drop(clients);
}

/// A host with three places for a source, that hashes passwords elsewhere, and never gives a socket
/// up by itself.
fn crowded(hashing: impl Offload) -> (Server<Arc<Outbox>>, Hosted) {
    let environment = Arc::new(System::new());
    let accounts = MemoryAccounts::new();
    let account = BareJid::new("me@localhost").unwrap();
    let keys = Credentials::from_password_with("pw", NonZeroU32::MIN, &*environment).unwrap();
    accounts.insert(account, keys);
    let mut stores = Stores::memory();
    stores.accounts = Arc::new(accounts);
    let mut limits = Limits::default();
    limits.unauthenticated_per_source = 3;
    let server = Server::builder(environment, stores)
        .domain("localhost".parse().unwrap())
        .limits(limits)
        .hashing(hashing)
        .build();
    (server.clone(), Arc::new(Host::new(server).close_timeout(HOUR)))
}

/// More clients at once than there are places all log in, and of those that are being closed no more
/// than that keep their sockets.
fn crowd(address: SocketAddr, host: &Hosted) {
    let _silent: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    let clients: Vec<_> = (0..15).map(|_| std::thread::spawn(move || log_in(address))).collect();
    let mut clients: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"</stream:stream>").unwrap());
    clients.extend((0..10).map(|_| {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"x").unwrap();
        client
    }));
    // They have been told all, but keep their ends: a socket that is gone resets the connection.
    while host.connections() > 10 || clients.len() > 3 {
        std::thread::sleep(Duration::from_millis(5));
        clients.retain_mut(|client| client.write_all(b" ").is_ok());
    }
    assert_eq!(clients.len(), 3, "nobody is cut without need");
}

const HOUR: Duration = Duration::from_secs(3600);

#[cfg(feature = "tokio")]
mod on_tokio {
    use tokio::runtime::{Builder, Runtime};
    use xmpp_session::host::tokio::{accept, background, serve, shutdown};

    use super::*;

    fn listen(runtime: &Runtime, server: Server<Arc<Outbox>>, host: Hosted) -> SocketAddr {
        runtime.spawn(background(server));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            loop {
                let (socket, _) = accept(&listener, |_| {}).await;
                tokio::spawn(serve(Arc::clone(&host), socket, peer()));
            }
        });
        address
    }

    fn runtime() -> Runtime {
        Builder::new_multi_thread().enable_all().build().unwrap()
    }

    #[test]
    fn destroy_16_shutdown() {
        let (runtime, (server, host)) = (runtime(), host());
        let address = listen(&runtime, server, Arc::clone(&host));
        play(address, &host, || runtime.block_on(shutdown(&host, HOUR)));
    }

    #[test]
    fn limit_25_27_28_crowds() {
        let runtime = runtime();
        let (server, host) = crowded(runtime.handle().clone());
        crowd(listen(&runtime, server, Arc::clone(&host)), &host);
    }

    #[test]
    fn off_3_all_that_is_stored_arrives() {
        let runtime = runtime();
        fetch(|server, host| listen(&runtime, server, host));
    }

    #[test]
    fn stream_27_what_was_asked_before_the_end_is_answered() {
        let runtime = runtime();
        ask(|server, host| listen(&runtime, server, host));
    }
}

#[cfg(feature = "threads")]
mod on_threads {
    use std::thread;

    use xmpp_session::host::threads::{Workers, accept, background, serve, shutdown};

    use super::*;

    fn listen(server: Server<Arc<Outbox>>, host: Hosted) -> SocketAddr {
        thread::spawn(move || background(&server));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            loop {
                let (socket, _) = accept(&listener, |_| {});
                let host = Arc::clone(&host);
                thread::spawn(move || serve(&host, socket, peer()));
            }
        });
        address
    }

    #[test]
    fn destroy_16_shutdown() {
        let (server, host) = host();
        let address = listen(server, Arc::clone(&host));
        play(address, &host, || shutdown(&host, HOUR));
    }

    #[test]
    fn limit_25_27_28_crowds() {
        let (server, host) = crowded(Workers::new(2).unwrap());
        crowd(listen(server, Arc::clone(&host)), &host);
    }

    #[test]
    fn off_3_all_that_is_stored_arrives() {
        fetch(listen);
    }

    #[test]
    fn stream_27_what_was_asked_before_the_end_is_answered() {
        ask(listen);
    }
}
