//! WebSockets over real sockets, on both hosts (rules WS-1, WS-2, WS-5, WS-9, WS-11 to WS-16): the handshake, and
//! what a client may do to the protocol below XMPP.

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::StatusCode;
use tungstenite::{Message, WebSocket};
use xmpp_session::host::{Listener, WebSockets};
use xmpp_session::xep::{Carbons, Ping, StreamManagement};

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

const OPEN: &str =
    "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";
const CLOSE: &str = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
const AUTH: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AG1lAHB3</auth>";
const PAGE: &str = "https://chat.example.com";

/// A listener on a thread of its own.
struct Listening {
    address: SocketAddr,
    host: Hosted,
    stop: Sender<()>,
    end: JoinHandle<()>,
}

fn hosted(limits: Limits) -> Host<Arc<Outbox>> {
    let environment = Arc::new(System::new());
    let any_account = Arc::new(AnyAccount::new("pw").unwrap());
    let mut policy = DomainPolicy::default();
    policy.sasl = Some(Policy::new(&*environment).mechanisms(&[Mechanism::Plain]));
    policy.authenticator = Some(Arc::clone(&any_account) as _);
    let mut stores = Stores::memory();
    stores.accounts = any_account;
    let server = Server::builder(environment, stores)
        .domain_with("localhost".parse().unwrap(), policy)
        .limits(limits)
        .extension(StreamManagement::new())
        .extension(Carbons::new())
        .extension(Ping)
        .build();
    Host::new(server)
}

fn pages() -> WebSockets {
    WebSockets::from_pages([PAGE])
}

/// A listener of this host.
fn listen_as(way: Way, host: Host<Arc<Outbox>>, websockets: WebSockets, tls: bool) -> Listening {
    let host = Arc::new(host);
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
                let stop = async { drop(stop.await) };
                let listener = terms(Listener::from(socket), websockets, tls);
                xmpp_session::host::tokio::listen(shared, listener, stop).await;
            });
        }
        #[cfg(feature = "threads")]
        Way::Threads => {
            let stop = || _ = stopped.recv();
            let listener = terms(Listener::from(socket), websockets, tls);
            xmpp_session::host::threads::listen(shared, listener, stop).unwrap();
        }
    });
    Listening { address, host, stop, end }
}

fn terms<L>(listener: Listener<L>, websockets: WebSockets, tls: bool) -> Listener<L> {
    let listener = listener.websocket(websockets);
    if tls { listener.direct_tls() } else { listener.secure() }
}

fn listen(way: Way) -> Listening {
    listen_as(way, hosted(Limits::default()), pages(), false)
}

impl Listening {
    fn stop(self) {
        drop(self.stop);
        self.end.join().unwrap();
    }

    fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        // So that a defect fails the test instead of hanging it.
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    }

    /// A WebSocket of a library.
    fn connect(&self) -> WebSocket<TcpStream> {
        self.try_connect(|_| {}).unwrap()
    }

    fn try_connect(
        &self,
        change: impl FnOnce(&mut tungstenite::http::HeaderMap),
    ) -> Result<WebSocket<TcpStream>, StatusCode> {
        let mut request = format!("ws://{}/xmpp-websocket", self.address).into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("Origin", PAGE.parse().unwrap());
        headers.insert("Sec-WebSocket-Protocol", "xmpp".parse().unwrap());
        change(headers);
        match tungstenite::client(request, self.socket()) {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "xmpp");
                Ok(socket)
            }
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => Err(answer.status()),
            Err(error) => panic!("{error}"),
        }
    }

    fn log_in(&self) -> WebSocket<TcpStream> {
        let mut socket = self.connect();
        log_in_on(&mut socket);
        socket
    }

    /// One that may break every rule.
    fn raw(&self) -> Raw {
        let mut raw = Raw(self.socket());
        raw.0.write_all(REQUEST.as_bytes()).unwrap();
        assert!(expect(&mut raw.0, "\r\n\r\n").starts_with("HTTP/1.1 101 "));
        raw
    }

    fn raw_log_in(&self) -> Raw {
        let mut raw = self.raw();
        for (text, end) in [(OPEN, "features>"), (AUTH, "sasl'/>"), (OPEN, "features>"), (BIND, "</iq>")] {
            raw.send(true, 1, text.as_bytes());
            raw.until(end);
        }
        raw
    }
}

const BIND: &str =
    "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
const REQUEST: &str = "GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: xmpp\r\n\r\n";

fn say<S: Read + Write>(socket: &mut WebSocket<S>, text: &str) {
    socket.send(Message::text(text)).unwrap();
}

fn hear<S: Read + Write>(socket: &mut WebSocket<S>) -> String {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The status with which the WebSocket is closed, behind these messages.
fn closing<S: Read + Write>(socket: &mut WebSocket<S>) -> (Vec<String>, Option<u16>) {
    let mut texts = Vec::new();
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => texts.push(text.to_string()),
            Message::Close(frame) => {
                let over = socket.read();
                assert!(matches!(over, Err(tungstenite::Error::ConnectionClosed)), "{over:?}");
                return (texts, frame.map(|frame| frame.code.into()));
            }
            _ => {}
        }
    }
}

fn log_in_on<S: Read + Write>(socket: &mut WebSocket<S>) {
    for (text, answers) in [(OPEN, 2), (AUTH, 1), (OPEN, 2), (BIND, 1)] {
        say(socket, text);
        let last = (0..answers).map(|_| hear(socket)).last().unwrap();
        assert!(["<stream:features", "<success", "<iq"].iter().any(|it| last.starts_with(it)), "{last}");
    }
}

/// A client that makes its frames itself.
struct Raw(TcpStream);

impl Raw {
    fn send(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        self.0.write_all(&frame(u8::from(fin) << 7 | opcode, payload)).unwrap();
    }

    fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        assert!(head[0] & 0xf0 == 0x80 && head[1] < 128, "{head:?}");
        let mut long = [0; 8];
        let length = match head[1] {
            126 => {
                self.0.read_exact(&mut long[6..]).unwrap();
                u64::from_be_bytes(long)
            }
            127 => {
                self.0.read_exact(&mut long).unwrap();
                u64::from_be_bytes(long)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).unwrap();
        Some((head[0] & 15, payload))
    }

    /// The next text that ends like this.
    fn until(&mut self, end: &str) -> String {
        loop {
            let (opcode, payload) = self.read().expect("a frame");
            let text = String::from_utf8(payload).unwrap();
            assert!(matches!(opcode, 1 | 9 | 10), "{opcode} {text:?}");
            if text.ends_with(end) {
                return text;
            }
        }
    }

    /// What comes until the end of the transport: texts, and with what the WebSocket was closed.
    fn end(&mut self) -> (Vec<String>, Option<u16>) {
        let (mut texts, mut status) = (Vec::new(), None);
        while let Some((opcode, payload)) = self.read() {
            assert_eq!(status, None, "nothing follows");
            match opcode {
                1 => texts.push(String::from_utf8(payload).unwrap()),
                8 => {
                    status = Some(payload.first_chunk().map_or(0, |it| u16::from_be_bytes(*it)));
                    if self.0.write_all(&frame(0x88, &payload)).is_err() {
                        break;
                    }
                }
                _ => {}
            }
        }
        (texts, status)
    }

    fn is_alive(&mut self) {
        self.send(true, 1, b"<iq xmlns='jabber:client' type='get' id='alive' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
        assert!(self.until("/>").contains("id='alive'"));
    }
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 0xf4];
    let mut bytes = vec![first];
    match payload.len() {
        len @ ..=125 => bytes.push(0x80 | len as u8),
        len @ ..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

#[test]
fn ws_1_a_stream_over_a_websocket() {
    for &way in WAYS {
        let listening = listen(way);
        let mut socket = listening.log_in();
        let large = "x".repeat(70_000);
        for body in ["short", &large] {
            say(&mut socket, &format!("<message xmlns='jabber:client' to='me@localhost' type='chat'><body>{body}</body></message>"));
            say(&mut socket, "<presence xmlns='jabber:client'/>");
            while !hear(&mut socket).contains(body) {}
        }
        say(&mut socket, CLOSE);
        let (texts, status) = closing(&mut socket);
        assert_eq!((texts.last().map(String::as_str), status), (Some(CLOSE), Some(1000)), "{way:?}");
        listening.stop();
    }
}
