//! TLS over real sockets, on both hosts (rules TLS-1, TLS-2, SASL-11, STREAM-8, STREAM-F1, STREAM-F3).

#![cfg(all(feature = "threads", feature = "tokio"))]
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail by a panic"
)]

#[cfg(test)]
#[path = "common/login.rs"]
mod login;

#[cfg(test)]
#[cfg(feature = "certificates")]
#[path = "tls_certificates.rs"]
mod certificates;

#[cfg(test)]
#[path = "tls_ends.rs"]
mod ends;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use login::{Channel, login, login_having_seen};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use xmpp_session::environment::System;
use xmpp_session::host::{Host, TlsConfig, threads, tokio as tasks};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::outbox::Outbox;
use xmpp_session::server::{Server, Transport};
use xmpp_session::stanza::canonicalise;
use xmpp_session::store::{Credentials, MemoryAccounts, Stores};

const HEADER: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const USER: (&str, &str) = ("romeo", "secret");

/// Which of the two hosts serves.
#[derive(Clone, Copy, Debug)]
enum Way {
    Threads,
    Tasks,
}

struct Served {
    /// What was told of faults.
    told: Arc<std::sync::Mutex<Vec<String>>>,
    server: Server<Arc<Outbox>>,
    host: Arc<Host<Arc<Outbox>>>,
    socket: TcpStream,
    end: JoinHandle<io::Result<()>>,
    certificate: CertificateDer<'static>,
}

/// A server with one account, and one connection to it.
fn serve(way: Way, direct: bool) -> Served {
    serve_as(way, direct, Transport::new())
}

fn serve_as(way: Way, direct: bool, peer: Transport) -> Served {
    serve_under(way, direct, peer, |tls| tls)
}

/// A server whose TLS is changed so.
#[cfg(feature = "certificates")]
fn serve_with(way: Way, direct: bool, change: impl FnOnce(TlsConfig) -> TlsConfig) -> Served {
    serve_under(way, direct, Transport::new(), change)
}

fn serve_under(
    way: Way,
    direct: bool,
    peer: Transport,
    change: impl FnOnce(TlsConfig) -> TlsConfig,
) -> Served {
    let environment = Arc::new(System::new());
    let accounts = MemoryAccounts::new();
    let credentials =
        Credentials::from_password_with(USER.1, NonZeroU32::MIN, &*environment).unwrap();
    accounts.insert(BareJid::new("romeo@localhost").unwrap(), credentials);
    let mut stores = Stores::memory();
    stores.accounts = Arc::new(accounts);
    let told = Arc::<std::sync::Mutex<Vec<String>>>::default();
    let log = Arc::clone(&told);
    let server = Server::builder(environment, stores)
        .on_fault(move |fault| log.lock().unwrap().push(fault.to_string()))
        .domain(DomainPart::new("localhost").unwrap().into_owned())
        .extension(xmpp_session::xep::StreamManagement::new())
        .build();

    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let config = TlsConfig::new(vec![certificate.clone()], key.serialize_der().try_into().unwrap());
    let host = Arc::new(Host::new(server.clone()).tls(change(config.unwrap())));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::clone(&host);
    let end = std::thread::spawn(move || {
        let (host, (socket, _)) = (shared, listener.accept()?);
        match (way, direct) {
            (Way::Threads, false) => threads::serve(&host, socket, peer),
            (Way::Threads, true) => threads::serve_direct_tls(&host, socket, peer),
            (Way::Tasks, direct) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async move {
                    socket.set_nonblocking(true)?;
                    let socket = tokio::net::TcpStream::from_std(socket)?;
                    if direct {
                        tasks::serve_direct_tls(host, socket, peer).await
                    } else {
                        tasks::serve(host, socket, peer).await
                    }
                })
            }
        }
    });
    let socket = TcpStream::connect(address).unwrap();
    // So that a defect fails the test instead of hanging it.
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    Served { told, server, host, socket, end, certificate }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Served {
    /// The client's end of TLS on the connection.
    fn tls(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Tls {
        self.tls_for(versions, &[])
    }

    /// The same, with application protocols that the client offers.
    fn tls_for(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Tls {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(connection, self.socket.try_clone().unwrap())
    }

    fn end(self) -> io::Result<()> {
        drop(self.socket);
        self.end.join().unwrap()
    }
}

const VERSIONS: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

fn say(to: &mut impl Write, text: &str) {
    to.write_all(text.as_bytes()).unwrap();
    to.flush().unwrap();
}

/// Reads until what came ends with `end`.
fn until(from: &mut impl Read, end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(end.as_bytes()) {
        from.read_exact(&mut byte).unwrap_or_else(|error| {
            panic!("{error} before {end:?}: {:?}", String::from_utf8_lossy(&text))
        });
        text.extend_from_slice(&byte);
    }
    String::from_utf8(text).unwrap()
}

/// Plain text up to `<proceed/>`, with `behind` in the same write as `<starttls/>`.
fn starttls(served: &mut Served, behind: &str) {
    say(&mut served.socket, HEADER);
    let offered = until(&mut served.socket, "</stream:features>");
    let only = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>";
    assert!(offered.ends_with(only), "{offered}");
    say(&mut served.socket, &format!("{STARTTLS}{behind}"));
    assert_eq!(until(&mut served.socket, ">"), PROCEED);
}

/// From a secure channel to a bound session, then the close handshake.
fn log_in(tls: &mut Tls, mechanism: &str, channel: Channel) {
    say(tls, HEADER);
    let features = until(tls, "</stream:features>");
    assert!(features.contains(&format!("<mechanism>{mechanism}</mechanism>")), "{features}");
    assert!(!features.contains("<starttls"), "{features}");
    let version = match tls.conn.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "0304",
        _ => "0303",
    };
    // SASL-12
    let seen = Some((&*features, Some(version)));
    let last = login_having_seen(seen, USER, mechanism, channel, |xml| {
        say(tls, xml);
        let start = until(tls, ">");
        if start.ends_with("/>") { start } else { start + &until(tls, ">") }
    });
    assert!(last.starts_with("<success "), "{last}");
    say(tls, HEADER);
    until(tls, "</stream:features>");
    say(tls, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(until(tls, "</iq>").contains("<jid>romeo@localhost/"));
    say(tls, "</stream:stream>");
    assert_eq!(until(tls, ">"), "</stream:stream>");
}

fn exporter(tls: &Tls) -> Channel {
    let data = tls.conn.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b""));
    Channel("tls-exporter", data.unwrap())
}

/// SHA-256, which goes with the signature of the certificate.
fn end_point(certificate: &CertificateDer<'_>) -> Channel {
    let rustls::SupportedCipherSuite::Tls13(suite) =
        rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
    else {
        unreachable!("a suite of TLS 1.3");
    };
    let hash = suite.common.hash_provider.hash(certificate);
    Channel("tls-server-end-point", hash.as_ref().to_vec())
}

fn finish(tls: &mut Tls) {
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).unwrap();
    }
}

/// The same on both hosts.
fn both(test: fn(Way)) {
    test(Way::Threads);
    test(Way::Tasks);
}

#[test]
fn tls_2_what_is_behind_starttls_in_plain_text_is_discarded() {
    both(injection);
}

#[test]
fn sasl_11_binds_to_the_exporter_of_tls_1_3() {
    both(exporter_of_tls_1_3);
}

#[test]
fn sasl_11_binds_to_the_certificate() {
    both(certificate);
}

#[test]
fn sasl_11_binds_in_tls_1_2_too() {
    both(tls_1_2);
}

#[test]
fn sasl_11_another_channel_is_refused() {
    both(another_channel);
}

#[test]
fn stream_f3_direct_tls() {
    both(direct_tls);
}

#[test]
fn tls_5_direct_tls_is_for_xmpp_clients() {
    both(application_protocols);
}

#[test]
fn tls_1_a_failed_handshake_ends_without_a_word() {
    both(failed_handshake);
}

#[test]
fn fault_4_a_failed_handshake_is_told_with_its_peer() {
    both(told_of_handshakes);
}

#[test]
fn tls_1_a_second_starttls_fails() {
    both(second_starttls);
}

#[test]
fn records_are_short() {
    both(records);
}

#[test]
fn destroy_2_a_broken_connection_ends_the_session() {
    both(broken);
}

#[test]
fn destroy_19_a_kicked_client_is_told() {
    both(kicked);
}

fn injection(way: Way) {
    let mut served = serve(way, false);
    let behind = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AG1hbGxvcnkAbWFsbG9yeQ==</auth></stream:stream>";
    starttls(&mut served, behind);
    let mut tls = served.tls(VERSIONS);
    log_in(&mut tls, "PLAIN", Channel("", Vec::new()));
    drop(tls);
    served.end().unwrap();
}

fn exporter_of_tls_1_3(way: Way) {
    for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"] {
        let mut served = serve(way, false);
        starttls(&mut served, "");
        let mut tls = served.tls(VERSIONS);
        finish(&mut tls);
        let channel = exporter(&tls);
        log_in(&mut tls, mechanism, channel);
        drop(tls);
        served.end().unwrap();
    }
}

fn certificate(way: Way) {
    let mut served = serve(way, false);
    starttls(&mut served, "");
    let mut tls = served.tls(VERSIONS);
    let channel = end_point(&served.certificate);
    log_in(&mut tls, "SCRAM-SHA-256-PLUS", channel);
    drop(tls);
    served.end().unwrap();
}

fn tls_1_2(way: Way) {
    let mut served = serve(way, false);
    starttls(&mut served, "");
    let mut tls = served.tls(&[&rustls::version::TLS12]);
    let channel = end_point(&served.certificate);
    log_in(&mut tls, "SCRAM-SHA-256-PLUS", channel);
    drop(tls);
    served.end().unwrap();
}

fn another_channel(way: Way) {
    let mut served = serve(way, false);
    starttls(&mut served, "");
    let mut tls = served.tls(VERSIONS);
    say(&mut tls, HEADER);
    until(&mut tls, "</stream:features>");
    let channel = Channel("tls-exporter", vec![0; 32]);
    let last = login(USER, "SCRAM-SHA-256-PLUS", channel, |xml| {
        say(&mut tls, xml);
        let start = until(&mut tls, ">");
        let name = start.split([' ', '>']).next().unwrap().replace('<', "</");
        start + &until(&mut tls, &format!("{name}>"))
    });
    assert!(last.starts_with("<failure "), "{last}");
    drop(tls);
    let _lost = served.end();
}

fn direct_tls(way: Way) {
    let served = serve(way, true);
    let mut tls = served.tls(VERSIONS);
    let channel = end_point(&served.certificate);
    log_in(&mut tls, "SCRAM-SHA-1-PLUS", channel);
    drop(tls);
    served.end().unwrap();
}

fn application_protocols(way: Way) {
    const XMPP: &[u8] = b"xmpp-client";
    for &version in VERSIONS {
        for (offered, chosen) in [
            (&[][..], Some(None)),
            (&["xmpp-client"], Some(Some(XMPP))),
            (&["h2", "xmpp-client", "http/1.1"], Some(Some(XMPP))),
            (&["h2", "http/1.1"], None),
            (&["xmpp-server"], None),
            (&["XMPP-CLIENT"], None),
        ] {
            let served = serve(way, true);
            let mut tls = served.tls_for(&[version], offered);
            // Of TLS 1.3, the client's part is through before the server has answered.
            let answer = tls.write_all(HEADER.as_bytes()).and_then(|()| tls.read_exact(&mut [0]));
            let alert =
                rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
            match chosen {
                Some(name) => {
                    answer.unwrap();
                    assert_eq!(tls.conn.alpn_protocol(), name, "{offered:?}");
                }
                None => {
                    let error = answer.unwrap_err();
                    let told = error.get_ref().and_then(|error| error.downcast_ref());
                    assert_eq!(told, Some(&alert), "{way:?} {version:?} {offered:?}: {error}");
                }
            }
            drop(tls);
            let _error = served.end();
        }
    }
    // STARTTLS has said already what it is for.
    let mut served = serve(way, false);
    starttls(&mut served, "");
    let mut tls = served.tls_for(VERSIONS, &["h2"]);
    log_in(&mut tls, "PLAIN", Channel("", Vec::new()));
    drop(tls);
    served.end().unwrap();
}

fn failed_handshake(way: Way) {
    let mut served = serve(way, false);
    starttls(&mut served, "");
    say(&mut served.socket, "<stream:stream>plain text after all");
    let mut rest = Vec::new();
    let _reset = served.socket.read_to_end(&mut rest);
    assert!(rest.len() <= 7, "an alert at most: {:?}", String::from_utf8_lossy(&rest));
    let server = served.server.clone();
    assert!(served.end().is_err());
    assert_eq!(server.metrics().unauthenticated, 0);
}

fn told_of_handshakes(way: Way) {
    type Bytes = &'static [u8];
    let garbage: [(bool, Option<Bytes>); 5] = [
        // Direct TLS: plain text, random bytes, half a hello and nothing more.
        (true, Some(HEADER.as_bytes())),
        (true, Some(&[0x16, 3, 1, 0xff, 0xff, 1, 2, 3])),
        (true, Some(&[0x16, 3, 1, 2, 0, 1])),
        // Behind `<proceed/>`.
        (false, Some(b"GET / HTTP/1.1\r\n\r\n")),
        // Good TLS, and then a record that is none.
        (true, None),
    ];
    for (direct, bytes) in garbage {
        let mut served = serve_as(way, direct, Transport::new().source("203.0.113.5"));
        if !direct {
            starttls(&mut served, "");
        }
        match bytes {
            Some(bytes) => served.socket.write_all(bytes).unwrap(),
            None => {
                let mut tls = served.tls(VERSIONS);
                say(&mut tls, HEADER);
                until(&mut tls, "</stream:features>");
                served.socket.write_all(&[0x17, 3, 3, 0, 20]).unwrap();
                served.socket.write_all(&[7; 20]).unwrap();
            }
        }
        let told = Arc::clone(&served.told);
        assert!(served.end().is_err(), "{way:?} {bytes:?}");
        let told = told.lock().unwrap();
        let [fault] = &told[..] else { panic!("{way:?} {bytes:?}: {told:?}") };
        assert!(fault.starts_with("TLS failed: "), "{way:?} {bytes:?}: {fault}");
        assert!(fault.ends_with(", from 203.0.113.5"), "{way:?} {bytes:?}: {fault}");
    }
    // One that is right is told nothing of.
    let mut served = serve(way, false);
    drop(bound(&mut served));
    assert!(served.told.lock().unwrap().is_empty(), "{way:?}");
}

fn second_starttls(way: Way) {
    let mut served = serve(way, false);
    starttls(&mut served, "");
    let mut tls = served.tls(VERSIONS);
    say(&mut tls, HEADER);
    until(&mut tls, "</stream:features>");
    say(&mut tls, STARTTLS);
    let failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>";
    assert_eq!(until(&mut tls, "</stream:stream>"), failure);
    drop(tls);
    served.end().unwrap();
}

/// A secure channel with a bound session on it.
fn bound(served: &mut Served) -> Tls {
    starttls(served, "");
    let mut tls = served.tls(VERSIONS);
    say(&mut tls, HEADER);
    until(&mut tls, "</stream:features>");
    say(
        &mut tls,
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
    );
    until(&mut tls, "/>");
    say(&mut tls, HEADER);
    until(&mut tls, "</stream:features>");
    say(&mut tls, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    until(&mut tls, "</iq>");
    assert_eq!(served.server.registry().counts().sessions, 1);
    tls
}

/// Of what waits together, each record brings the client some, as whole characters.
fn records(way: Way) {
    let mut served = serve(way, false);
    let mut tls = bound(&mut served);
    let session = served.server.registry().iter().next().unwrap();
    let body = "ü".repeat(10_000);
    let message = format!("<message><body>x{body}</body></message>");
    session.send(&canonicalise(message.as_bytes()).unwrap()).unwrap();
    let (mut text, mut records) = (String::new(), 0);
    while !text.ends_with("</message>") {
        let mut record = vec![0; 5];
        tls.sock.read_exact(&mut record).unwrap();
        record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
        tls.sock.read_exact(&mut record[5..]).unwrap();
        let mut rest = &record[..];
        while !rest.is_empty() {
            tls.conn.read_tls(&mut rest).unwrap();
            tls.conn.process_new_packets().unwrap();
        }
        let mut bytes = Vec::new();
        let _more = tls.conn.reader().read_to_end(&mut bytes);
        assert!(bytes.len() <= 4096);
        text += std::str::from_utf8(&bytes).unwrap();
        records += 1;
    }
    assert!(records > 4 && text.contains(&body));
    drop(tls);
    let _lost = served.end();
}

fn broken(way: Way) {
    let mut served = serve(way, false);
    let tls = bound(&mut served);
    drop(tls);
    let server = served.server.clone();
    let _lost = served.end();
    assert_eq!(server.registry().counts().sessions, 0);
}

fn kicked(way: Way) {
    let mut served = serve(way, false);
    let mut tls = bound(&mut served);
    let sessions: Vec<_> = served.server.registry().iter().collect();
    let reason = xmpp_session::session::Reason::Kicked;
    assert!(served.server.registry().destroy_session(&sessions[0], reason));
    let words = until(&mut tls, "</stream:stream>");
    assert!(words.contains("<policy-violation "), "{words}");
    say(&mut tls, "</stream:stream>");
    let mut rest = Vec::new();
    let _end = tls.read_to_end(&mut rest);
    assert!(rest.is_empty());
    drop(tls);
    served.end().unwrap();
}
