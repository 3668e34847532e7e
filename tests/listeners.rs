//! What comes to a host by other ways than a TCP socket that it accepts itself: listeners of both hosts, and
//! what their connections are made of; proxies in front of them (PROXY-1…3).

use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
#[cfg(feature = "tokio")]
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
#[cfg(feature = "tokio")]
use std::task::Poll;
use std::thread::{self, JoinHandle};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use xmpp_session::environment::Virtual;
use xmpp_session::host::{Listener, TlsConfig};

use super::*;

/// Which of the two hosts listens.
#[derive(Clone, Copy, Debug)]
enum Way {
    #[cfg(feature = "tokio")]
    Tasks,
    #[cfg(feature = "threads")]
    Threads,
}

const WAYS: &[Way] = &[
    #[cfg(feature = "tokio")]
    Way::Tasks,
    #[cfg(feature = "threads")]
    Way::Threads,
];

/// What a listener is to do.
#[derive(Clone, Default)]
struct Terms {
    direct_tls: bool,
    /// From where proxies may come.
    proxied: Option<IpAddr>,
    /// Told when a hook is called that panics.
    mistakes: Option<Sender<()>>,
}

/// A listener on a thread of its own.
struct Listening {
    address: SocketAddr,
    host: Hosted,
    errors: Receiver<(Option<IpAddr>, std::io::ErrorKind)>,
    stop: Sender<()>,
    end: JoinHandle<()>,
}

impl Terms {
    fn apply<L>(
        self,
        listener: Listener<L>,
        errors: Sender<(Option<IpAddr>, std::io::ErrorKind)>,
    ) -> Listener<L> {
        let errors = std::sync::Mutex::new(errors);
        let mut listener = listener.secure().on_error(move |client, error| {
            let _nobody_looks = errors.lock().unwrap().send((client, error.kind()));
        });
        if self.direct_tls {
            listener = listener.direct_tls();
        }
        if let Some(mistakes) = self.mistakes {
            let mistakes = std::sync::Mutex::new(mistakes);
            return listener.on_error(|_, _| panic!("a mistake")).proxied(move |_| {
                mistakes.lock().unwrap().send(()).unwrap();
                panic!("another one")
            });
        }
        match self.proxied {
            Some(proxy) => listener.proxied(move |address| address == proxy),
            None => listener,
        }
    }
}

fn listen(way: Way, host: Host<Arc<Outbox>>, terms: Terms) -> Listening {
    let host = Arc::new(host);
    let (report, errors) = channel();
    let (stop, stopped) = channel::<()>();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let shared = Arc::clone(&host);
    let end = thread::spawn(move || match way {
        #[cfg(feature = "tokio")]
        Way::Tasks => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                socket.set_nonblocking(true).unwrap();
                let socket = tokio::net::TcpListener::from_std(socket).unwrap();
                let stop = tokio::task::spawn_blocking(move || stopped.recv());
                let listener = terms.apply(Listener::from(socket), report);
                let stop = async { drop(stop.await) };
                xmpp_session::host::tokio::listen(shared, listener, stop).await;
            });
        }
        #[cfg(feature = "threads")]
        Way::Threads => {
            let listener = terms.apply(Listener::from(socket), report);
            let stop = || _ = stopped.recv();
            xmpp_session::host::threads::listen(shared, listener, stop).unwrap();
        }
    });
    Listening { address, host, errors, stop, end }
}

impl Listening {
    fn stop(self) {
        drop(self.stop);
        self.end.join().unwrap();
    }

    /// A connection that begins with this.
    fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(self.address).unwrap();
        // So that a defect fails the test instead of hanging it.
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.write_all(bytes).unwrap();
        client
    }

    fn error(&self) -> (Option<IpAddr>, std::io::ErrorKind) {
        self.errors.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

fn patient() -> Host<Arc<Outbox>> {
    host_on(Stores::memory()).1.shutdown_timeout(HOUR)
}

#[test]
fn destroy_16_a_listener_that_is_stopped_ends_gracefully() {
    for way in WAYS {
        let listening = listen(*way, patient(), Terms::default());
        let (address, host) = (listening.address, Arc::clone(&listening.host));
        play(address, &host, || listening.stop());
        assert!(TcpStream::connect(address).is_err(), "{way:?}: nothing more is accepted");
    }
}

#[test]
fn destroy_16_a_listener_does_not_wait_longer_than_it_may() {
    for way in WAYS {
        // A client that takes nothing of what ends its stream holds the host up.
        let host = host_on(Stores::memory()).1.shutdown_timeout(Duration::ZERO);
        let listening = listen(*way, host, Terms::default());
        let _client = log_in(listening.address);
        listening.stop();
    }
}

fn certificate() -> (TlsConfig, Arc<ClientConfig>) {
    let (_, server, client) = configs();
    (server, client)
}

/// What rustls is given on either side, and what we are.
fn configs() -> (Arc<ServerConfig>, TlsConfig, Arc<ClientConfig>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.serialize_der().try_into().unwrap());
    let server = Arc::new(server.unwrap());
    let ours = TlsConfig::from(Arc::clone(&server)).certificate(&certificate);
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, ours, Arc::new(client))
}

fn tls<S: Read + Write>(config: Arc<ClientConfig>, socket: S) -> StreamOwned<ClientConnection, S> {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), socket)
}

/// Serves one end of a Unix socket, and gives the other.
fn serve_unix(way: Way, host: Host<Arc<Outbox>>, direct_tls: bool) -> UnixStream {
    let (client, server) = UnixStream::pair().unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let host = Arc::new(host);
    thread::spawn(move || match way {
        #[cfg(feature = "tokio")]
        Way::Tasks => {
            use xmpp_session::host::tokio::{serve, serve_direct_tls};
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                server.set_nonblocking(true).unwrap();
                let server = tokio::net::UnixStream::from_std(server).unwrap();
                match direct_tls {
                    true => serve_direct_tls(host, server, Transport::new()).await,
                    false => serve(host, server, Transport::new()).await,
                }
            })
        }
        #[cfg(feature = "threads")]
        Way::Threads => {
            use xmpp_session::host::threads::{serve, serve_direct_tls};
            match direct_tls {
                true => serve_direct_tls(&host, server, Transport::new()),
                false => serve(&host, server, Transport::new()),
            }
        }
    });
    client
}

#[test]
fn tls_on_unix_sockets() {
    for way in WAYS {
        let (server, client) = certificate();
        let mut socket = serve_unix(*way, patient().tls(server), false);
        open(&mut socket);
        socket.write_all(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").unwrap();
        expect(&mut socket, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        let mut socket = tls(client, socket);
        open(&mut socket);
        bind(&mut socket);

        let (server, client) = certificate();
        let socket = serve_unix(*way, patient().tls(server), true);
        let mut socket = tls(client, socket);
        open(&mut socket);
        bind(&mut socket);
        socket.write_all(b"</stream:stream>").unwrap();
        expect(&mut socket, "</stream:stream>");
    }
}

#[test]
fn tls_5_a_listener_for_direct_tls() {
    for way in WAYS {
        let (server, client) = certificate();
        let terms = Terms { direct_tls: true, ..Terms::default() };
        let listening = listen(*way, patient().tls(server), terms);
        let mut socket = tls(client, listening.connect(b""));
        open(&mut socket);
        bind(&mut socket);
        let plain = listening.connect(b"<stream:stream>");
        let (client, kind) = listening.error();
        assert_eq!(
            (client, kind),
            (Some(Ipv4Addr::LOCALHOST.into()), std::io::ErrorKind::InvalidData)
        );
        drop((socket, plain));
        listening.stop();
    }
}

#[test]
fn unix_listeners() {
    for way in WAYS {
        let file = format!("xmpp-session-{}-{way:?}.sock", std::process::id());
        let path = std::env::temp_dir().join(file);
        let _left_over = std::fs::remove_file(&path);
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (stop, stopped) = channel::<()>();
        let host = Arc::new(patient());
        let end = thread::spawn(move || match way {
            #[cfg(feature = "tokio")]
            Way::Tasks => {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    socket.set_nonblocking(true).unwrap();
                    let socket = tokio::net::UnixListener::from_std(socket).unwrap();
                    let stop = tokio::task::spawn_blocking(move || stopped.recv());
                    let listener = Listener::from(socket).secure();
                    let stop = async { drop(stop.await) };
                    xmpp_session::host::tokio::listen(host, listener, stop).await;
                });
            }
            #[cfg(feature = "threads")]
            Way::Threads => {
                let stop = || _ = stopped.recv();
                let listener = Listener::from(socket).secure();
                xmpp_session::host::threads::listen(host, listener, stop).unwrap();
            }
        });
        let mut client = UnixStream::connect(&path).unwrap();
        open(&mut client);
        bind(&mut client);
        drop(stop);
        let words = expect(&mut client, "</stream:stream>");
        assert!(words.contains("system-shutdown"), "{words}");
        drop(client);
        end.join().unwrap();
        assert!(UnixStream::connect(&path).is_err(), "{way:?}: nothing more is accepted");
        std::fs::remove_file(&path).unwrap();
    }
}

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn proxied() -> Terms {
    Terms { proxied: Some(PROXY), ..Terms::default() }
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.9 51234 5222\r\n").into_bytes()
}

fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, payload].concat()
}

/// A host where a source has one place.
fn narrow() -> Host<Arc<Outbox>> {
    let mut stores = Stores::memory();
    stores.accounts = Arc::new(AnyAccount::new("pw").unwrap());
    let mut limits = Limits::default();
    limits.unauthenticated_per_source = 1;
    let server = Server::builder(Arc::new(System::new()), stores)
        .domain("localhost".parse().unwrap())
        .limits(limits)
        .build();
    Host::new(server).shutdown_timeout(Duration::ZERO)
}

#[test]
fn proxy_1_limits_count_the_clients_of_a_proxy() {
    for way in WAYS {
        let listening = listen(*way, narrow(), proxied());
        let six = [&[0x20, 1, 0xd, 0xb8], [0; 28].as_slice(), &[1, 2, 3, 4]].concat();
        let clients = [
            v1("192.0.2.1"),
            v2(0x21, 0x11, &[192, 0, 2, 2, 192, 0, 2, 9, 1, 2, 3, 4]),
            v2(0x21, 0x21, &six),
            // Those are the proxy's own, as far as anybody knows.
            b"PROXY UNKNOWN\r\n".to_vec(),
        ];
        let mut clients: Vec<_> = clients.map(|header| listening.connect(&header)).into();
        clients.iter_mut().for_each(open);
        for header in [v1("192.0.2.1"), v2(0x20, 0, b""), b"PROXY UNKNOWN\r\n".to_vec()] {
            let mut another = listening.connect(&header);
            another.write_all(b"<stream:stream ").unwrap();
            another.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            assert!(another.read(&mut [0]).is_err(), "{way:?}: it waits for a place");
        }
        listening.stop();
    }
}

#[test]
fn proxy_1_only_proxies_that_are_trusted_are_believed() {
    for way in WAYS {
        let terms = Terms { proxied: Some(Ipv4Addr::new(192, 0, 2, 7).into()), ..Terms::default() };
        let listening = listen(*way, patient(), terms);
        let mut client = listening.connect(&v1("192.0.2.1"));
        assert!(!matches!(client.read(&mut [0]), Ok(1..)), "{way:?}");
        assert_eq!(listening.error(), (Some(PROXY), std::io::ErrorKind::PermissionDenied));
        listening.stop();
    }
}

#[test]
fn proxy_2_the_header_comes_first_in_whatever_pieces() {
    for way in WAYS {
        let listening = listen(*way, patient(), proxied());
        for header in [v1("192.0.2.1"), v2(0x21, 0x11, &[192, 0, 2, 2, 192, 0, 2, 9, 1, 2, 3, 4])] {
            let (first, last) = header.split_at(header.len() - 1);
            let mut client = listening.connect(first);
            thread::sleep(Duration::from_millis(20));
            client.write_all(last).unwrap();
            open(&mut client);
            bind(&mut client);
        }
        let mut client = listening.connect(b"<stream:stream to='localhost'>");
        assert!(!matches!(client.read(&mut [0]), Ok(1..)), "{way:?}: nothing is said");
        assert_eq!(listening.error(), (Some(PROXY), std::io::ErrorKind::InvalidData));
        let client = listening.connect(b"PROXY TCP4");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(listening.error(), (Some(PROXY), std::io::ErrorKind::UnexpectedEof));
        listening.stop();
    }
}

/// The client's first bytes may come along with the header.
#[test]
fn proxy_2_tls_begins_behind_the_header() {
    struct Behind(Option<Vec<u8>>, TcpStream);

    impl Read for Behind {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1.read(buffer)
        }
    }

    impl Write for Behind {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let header = self.0.take().unwrap_or_default();
            self.1.write_all(&[&header, bytes].concat())?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    for way in WAYS {
        let (server, client) = certificate();
        let terms = Terms { direct_tls: true, ..proxied() };
        let listening = listen(*way, patient().tls(server), terms);
        let socket = Behind(Some(v1("192.0.2.1")), listening.connect(b""));
        let mut socket = tls(client, socket);
        open(&mut socket);
        bind(&mut socket);
        drop(socket);
        listening.stop();
    }
}

#[test]
fn proxy_3_the_header_counts_among_what_may_come_before_a_login() {
    for way in WAYS {
        let listening = listen(*way, patient(), proxied());
        let header = v2(0x21, 0, &vec![0; 65_000]);
        let mut client = listening.connect(&header);
        open(&mut client);
        // Well below LIMIT-3, but for the header.
        client.write_all(&[b' '; 500]).unwrap();
        let words = expect(&mut client, "</stream:stream>");
        assert!(words.contains("policy-violation"), "{way:?}: {words}");
        let _client = listening.connect(&v2(0x21, 0, &[0; 65_535]));
        assert_eq!(listening.error(), (Some(PROXY), std::io::ErrorKind::InvalidData));
        drop(client);
        listening.stop();
    }
}

#[test]
fn proxy_3_a_header_has_the_time_of_a_login() {
    let mut limits = Limits::default();
    limits.negotiation = Duration::from_millis(300);
    for way in WAYS {
        let server = Server::builder(Arc::new(System::new()), Stores::memory())
            .domain("localhost".parse().unwrap())
            .limits(limits.clone())
            .build();
        let listening = listen(*way, Host::new(server).shutdown_timeout(HOUR), proxied());
        let client = listening.connect(b"PROXY");
        assert_eq!(listening.error(), (Some(PROXY), std::io::ErrorKind::TimedOut));
        drop(client);
        listening.stop();
    }
    // What it has taken is gone.
    let clock = Arc::new(Virtual::new(1));
    let server = Server::<Arc<Outbox>>::builder(Arc::clone(&clock) as _, Stores::memory()).build();
    let accepted = server.now();
    clock.advance(Duration::from_secs(50));
    let (outbox, _drain) = Outbox::new(Marks::default());
    let driver = server.accept(outbox, Transport::new().preamble(accepted, 100));
    assert_eq!(driver.next_timeout(), Some(accepted + Duration::from_secs(60)));
}

/// Headers that never come take no more places than other silent transports.
#[test]
fn proxy_3_a_connection_without_its_header_is_a_silent_one() {
    let mut limits = Limits::default();
    limits.unauthenticated = 2;
    for way in WAYS {
        let server = Server::builder(Arc::new(System::new()), Stores::memory())
            .domain("localhost".parse().unwrap())
            .limits(limits.clone())
            .build();
        let listening = listen(*way, Host::new(server).shutdown_timeout(HOUR), proxied());
        let clients = [(); 3].map(|()| listening.connect(b"PROXY"));
        assert_eq!(listening.error(), (Some(PROXY), std::io::ErrorKind::ConnectionAborted));
        drop(clients);
        listening.stop();
    }
}

/// A host's own code may panic: the listener goes on (decision 3).
#[test]
fn hooks_that_panic() {
    for way in WAYS {
        let (mistakes, calls) = channel();
        let terms = Terms { mistakes: Some(mistakes), ..Terms::default() };
        let listening = listen(*way, patient(), terms);
        for _ in 0..2 {
            let mut client = listening.connect(b"");
            assert!(!matches!(client.read(&mut [0]), Ok(1..)), "nobody is trusted by mistake");
            calls.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        listening.stop();
    }
}

/// A pipe that takes one buffer at a time.
#[cfg(feature = "tokio")]
struct Pipe(tokio::io::DuplexStream);

#[cfg(feature = "tokio")]
impl tokio::io::AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

#[cfg(feature = "tokio")]
impl tokio::io::AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A pipe in memory is a transport as a socket is: whatever TLS says goes through it.
#[cfg(feature = "tokio")]
#[tokio::test]
async fn tls_5_pipes_in_memory() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use xmpp_session::host::tokio::serve_direct_tls;

    let (server, client) = certificate();
    let host = Arc::new(patient().tls(server));
    let connect = async |client: ClientConfig| {
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(serve_direct_tls(Arc::clone(&host), Pipe(far), Transport::new()));
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        connector.connect(ServerName::try_from("localhost").unwrap(), near).await
    };
    let mut stream = connect((*client).clone()).await.unwrap();
    stream
        .write_all(
            b"<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams'>",
        )
        .await
        .unwrap();
    assert!(stream.read_u8().await.is_ok());

    let mut other = (*client).clone();
    other.alpn_protocols = vec![b"h2".to_vec()];
    let error = connect(other).await.unwrap_err();
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
    let told = error.get_ref().and_then(|error| error.downcast_ref());
    assert_eq!(told, Some(&alert), "{error}");
}

/// TLS that the host has done: what it says of it is offered, and no TLS on top of it.
#[cfg(feature = "tokio")]
#[test]
fn sasl_11_a_stream_whose_tls_the_host_has_done() {
    let (theirs, config, client) = configs();
    let server = Server::builder(Arc::new(System::new()), Stores::memory());
    let host = Host::new(server.domain("localhost".parse().unwrap()).build()).tls(config.clone());
    let (socket, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let (exported, bound) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let far = tokio::net::UnixStream::from_std(far).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(theirs);
            let stream = acceptor.accept(far).await.unwrap();
            let bindings = config.bindings(stream.get_ref().1);
            exported.send(format!("{bindings:?}")).unwrap();
            let transport = Transport::new().secured(bindings);
            xmpp_session::host::tokio::serve(Arc::new(host), stream, transport).await
        })
    });
    let mut socket = tls(client, socket);
    let header = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                  xmlns:stream='http://etherx.jabber.org/streams'>";
    socket.write_all(header.as_bytes()).unwrap();
    let features = expect(&mut socket, "</stream:features>");
    assert!(features.contains("<mechanism>SCRAM-SHA-256-PLUS</mechanism>"), "{features}");
    assert!(features.contains("tls-exporter") && !features.contains("starttls"), "{features}");
    let bound = bound.recv().unwrap();
    assert!(
        bound.contains("exporter: true") && bound.contains("server_end_point: true"),
        "{bound}"
    );
}
