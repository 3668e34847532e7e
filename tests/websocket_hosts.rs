//! WebSockets over real sockets, on both hosts (rules WS-1, WS-2, WS-5, WS-9, WS-11 to WS-16): the handshake, and
//! what a client may do to the protocol below XMPP.

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::{HeaderMap, StatusCode};
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
        change: impl FnOnce(&mut HeaderMap),
    ) -> Result<WebSocket<TcpStream>, StatusCode> {
        let mut request =
            format!("ws://{}/xmpp-websocket", self.address).into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("Origin", PAGE.parse().unwrap());
        headers.insert("Sec-WebSocket-Protocol", "xmpp".parse().unwrap());
        change(headers);
        match tungstenite::client(request, self.socket()) {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "xmpp");
                Ok(socket)
            }
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                Err(answer.status())
            }
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
        for (text, end) in
            [(OPEN, "features>"), (AUTH, "sasl'/>"), (OPEN, "features>"), (BIND, "</iq>")]
        {
            raw.send(true, 1, text.as_bytes());
            raw.until(end);
        }
        raw
    }
}

const BIND: &str = "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
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
        assert!(
            ["<stream:features", "<success", "<iq"].iter().any(|it| last.starts_with(it)),
            "{last}"
        );
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
        while !self.until(">").contains("id='alive'") {}
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
fn ws_1_a_stream_over_a_real_websocket() {
    for &way in WAYS {
        let listening = listen(way);
        let mut socket = listening.log_in();
        let large = "x".repeat(70_000);
        for body in ["short", &large] {
            say(
                &mut socket,
                &format!(
                    "<message xmlns='jabber:client' to='me@localhost' type='chat'><body>{body}</body></message>"
                ),
            );
            say(&mut socket, "<presence xmlns='jabber:client'/>");
            while !hear(&mut socket).contains(body) {}
        }
        say(&mut socket, CLOSE);
        let (texts, status) = closing(&mut socket);
        assert_eq!(
            (texts.last().map(String::as_str), status),
            (Some(CLOSE), Some(1000)),
            "{way:?}"
        );
        listening.stop();
    }
}

fn condition(texts: &[String]) -> &str {
    let error = texts.iter().find(|text| text.starts_with("<stream:error")).expect("an error");
    error.split_once("'><").unwrap().1.split(' ').next().unwrap()
}

fn message(body: &str) -> String {
    format!(
        "<message xmlns='jabber:client' to='me@localhost/nobody' type='headline'><body>{body}</body></message>"
    )
}

#[test]
fn ws_12_a_handshake_that_is_none_is_told_why() {
    let without = |header: &str| {
        let lines: Vec<_> =
            REQUEST.split("\r\n").filter(|line| !line.starts_with(header)).collect();
        lines.join("\r\n")
    };
    let with = |from: &str, to: &str| REQUEST.replace(from, to);
    let long = with("Host: ", &format!("X: {}\r\nHost: ", "x".repeat(17_000)));
    let many = with("Host: ", &format!("{}Host: ", "x: y\r\n".repeat(200)));
    for &way in WAYS {
        let listening = listen(way);
        for (request, status) in [
            (REQUEST.to_owned(), 101),
            (with("protocol: xmpp", "protocol: chat, xmpp"), 101),
            (with("Protocol: xmpp", "Protocol: chat\r\nSec-WebSocket-Protocol: mqtt ,xmpp"), 101),
            (with("Version", "Extensions: permessage-deflate\r\nSec-WebSocket-Version"), 101),
            (with("\r\nUpgrade: websocket", "\r\nUpgrade: WebSocket"), 101),
            (with("/xmpp-websocket", "/anything?at=all"), 101),
            (without("Sec-WebSocket-Protocol"), 400),
            (with("Protocol: xmpp", "Protocol: xmpp2"), 400),
            (without("Sec-WebSocket-Key"), 400),
            (with("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
            (without("Sec-WebSocket-Version"), 426),
            (with("Version: 13", "Version: 8"), 426),
            (without("Upgrade"), 426),
            (without("Connection"), 426),
            (with("GET ", "POST "), 405),
            (with("HTTP/1.1", "HTTP/1.0"), 400),
            (with("HTTP/1.1", "HTTP/9.9"), 400),
            (with("Host: localhost", "no header"), 400),
            (without("Host"), 400),
            (with("Host: ", "Content-Length: 5\r\nHost: "), 400),
            (with("Host: ", "Transfer-Encoding: chunked\r\nHost: "), 400),
            (many.clone(), 431),
            (long.clone(), 431),
            ("<stream:stream to='localhost'>".to_owned(), 400),
            ("\x16\x03\x01\x02\x00\x01".to_owned(), 400),
        ] {
            let mut socket = listening.socket();
            socket.write_all(request.as_bytes()).unwrap();
            let head = expect(&mut socket, "\r\n\r\n");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{way:?} {request}\n{head}");
            assert!(!head.to_lowercase().contains("extensions"), "{head}");
            if status != 101 {
                let mut rest = String::new();
                socket.read_to_string(&mut rest).unwrap();
                assert!(rest.ends_with('\n') && !rest.contains('<'), "{rest:?}");
            }
        }
        listening.stop();
    }
}

#[test]
fn ws_12_a_handshake_may_come_in_any_pieces() {
    for &way in WAYS {
        let listening = listen(way);
        let mut socket = listening.socket();
        socket.set_nodelay(true).unwrap();
        for byte in REQUEST.as_bytes().chunks(1) {
            socket.write_all(byte).unwrap();
        }
        assert!(expect(&mut socket, "\r\n\r\n").starts_with("HTTP/1.1 101 "));
        let mut raw = Raw(listening.socket());
        let first = [REQUEST.as_bytes(), &frame(0x81, OPEN.as_bytes())].concat();
        raw.0.write_all(&first).unwrap();
        expect(&mut raw.0, "\r\n\r\n");
        raw.until("features>");
        listening.stop();
    }
}

#[test]
fn ws_12_a_handshake_that_never_ends_is_cut() {
    for &way in WAYS {
        let mut limits = Limits::default();
        limits.negotiation = Duration::from_millis(300);
        let listening = listen_as(way, hosted(limits), pages(), false);
        let mut socket = listening.socket();
        socket.write_all(&REQUEST.as_bytes()[..40]).unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{way:?}");
        // One that goes in the midst of it.
        let mut socket = listening.socket();
        socket.write_all(&REQUEST.as_bytes()[..40]).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{way:?}");
        listening.stop();
    }
}

#[test]
fn ws_1_the_subprotocol_is_xmpp() {
    for &way in WAYS {
        let listening = listen(way);
        for offered in [None, Some("mqtt"), Some("xmpp-client, XMPP")] {
            let refused = listening.try_connect(|headers| match offered {
                Some(offered) => {
                    _ = headers.insert("Sec-WebSocket-Protocol", offered.parse().unwrap())
                }
                None => _ = headers.remove("Sec-WebSocket-Protocol"),
            });
            assert_eq!(refused.err(), Some(StatusCode::BAD_REQUEST), "{offered:?}");
        }
        listening.connect();
        listening.stop();
    }
}

#[test]
fn ws_13_pages_of_other_origins_are_refused() {
    let listening = listen(WAYS[0]);
    let status = |listening: &Listening, origin: Option<&str>| {
        let answer = listening.try_connect(|headers| match origin {
            Some(origin) => drop(headers.insert("Origin", origin.parse().unwrap())),
            None => drop(headers.remove("Origin")),
        });
        answer.err().map_or(101, |status| status.as_u16())
    };
    for (origin, expected) in [
        (Some(PAGE), 101),
        (Some("https://chat.example.com:443"), 101),
        (Some("HTTPS://Chat.Example.com"), 101),
        (None, 101),
        (Some("http://chat.example.com"), 403),
        (Some("https://chat.example.com:8443"), 403),
        (Some("https://chat.example.com.evil.example"), 403),
        (Some("https://evil.example/https://chat.example.com"), 403),
        (Some("null"), 403),
        (Some(""), 403),
    ] {
        assert_eq!(status(&listening, origin), expected, "{origin:?}");
    }
    let two = listening.try_connect(|headers| {
        headers.append("Origin", "https://evil.example".parse().unwrap());
    });
    assert_eq!(two.err(), Some(StatusCode::FORBIDDEN));
    listening.stop();
    let open = WebSockets::from_any_page();
    let listening = listen_as(WAYS[0], hosted(Limits::default()), open, false);
    assert_eq!(status(&listening, Some("https://evil.example")), 101);
    listening.stop();
}

#[test]
fn ws_2_a_message_may_come_in_any_frames() {
    for &way in WAYS {
        let listening = listen(way);
        let mut raw = listening.raw_log_in();
        let ask = "<iq xmlns='jabber:client' type='get' id='f' to='localhost'><ping xmlns='urn:xmpp:ping'/><!-- \u{1F600} --></iq>".replace("<!-- \u{1F600} -->", "");
        for size in [1, 2, 7, ask.len() - 1] {
            let pieces: Vec<_> = ask.as_bytes().chunks(size).collect();
            for (n, piece) in pieces.iter().enumerate() {
                raw.send(false, if n == 0 { 1 } else { 0 }, piece);
                raw.send(true, 9, format!("ping {n}").as_bytes());
                raw.send(false, 0, b"");
                raw.send(true, 10, b"nobody asked");
            }
            raw.send(true, 0, b"");
            for n in 0..pieces.len() {
                assert_eq!(raw.read().unwrap(), (10, format!("ping {n}").into_bytes()));
            }
            assert!(raw.until("/>").contains("type='result'"), "{way:?} {size}");
        }
        // Bytes in any chunking.
        let bytes = [frame(0x89, &[b'p'; 125]), frame(0x81, ask.as_bytes())].concat();
        raw.0.set_nodelay(true).unwrap();
        for byte in bytes.chunks(1) {
            raw.0.write_all(byte).unwrap();
        }
        assert_eq!(raw.read().unwrap(), (10, vec![b'p'; 125]));
        assert!(raw.until("/>").contains("type='result'"));
        // A character of two frames.
        let text = message("\u{1F600}");
        let at = text.find('\u{1F600}').unwrap() + 2;
        raw.send(false, 1, &text.as_bytes()[..at]);
        raw.send(true, 0, &text.as_bytes()[at..]);
        raw.is_alive();
        listening.stop();
    }
}

/// What breaks the rules below XML: bytes, and what is said of them.
fn broken() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let text = message("x");
    let text = text.as_bytes();
    let mut unmasked = frame(0x81, b"<a/>");
    unmasked[1] &= 0x7f;
    let mut huge = frame(0x81, b"");
    huge[1] = 0xff;
    let claims = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let half = |rest: Vec<u8>| [frame(0x01, &text[..9]), rest].concat();
    let close = |payload: &[u8]| frame(0x88, payload);
    let mut table = vec![
        ("reserved bit 1", frame(0xc1, text), 1002, "bad-format"),
        ("reserved bit 2", frame(0xa1, text), 1002, "bad-format"),
        ("reserved bit 3", frame(0x91, text), 1002, "bad-format"),
        ("reserved bit of a ping", frame(0xc9, b""), 1002, "bad-format"),
        ("unmasked", unmasked, 1002, "bad-format"),
        ("long control frame", frame(0x89, &[0; 126]), 1002, "bad-format"),
        ("fragmented ping", frame(0x09, b""), 1002, "bad-format"),
        ("fragmented close", frame(0x08, &1000_u16.to_be_bytes()), 1002, "bad-format"),
        ("continues nothing", frame(0x80, text), 1002, "bad-format"),
        ("text in a message", half(frame(0x81, text)), 1002, "bad-format"),
        ("binary in a message", half(frame(0x82, text)), 1002, "bad-format"),
        ("binary", frame(0x82, text), 1003, "not-well-formed"),
        (
            "binary in two frames",
            [frame(0x02, &text[..9]), frame(0x80, &text[9..])].concat(),
            1003,
            "not-well-formed",
        ),
        ("claims 2^64", claims(u64::MAX), 1009, "policy-violation"),
        ("claims 2^63", claims(1 << 63), 1009, "policy-violation"),
        ("claims one byte too many", claims(262_145), 1009, "policy-violation"),
        (
            "continues with 2^62",
            half([&[0x80, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat()),
            1009,
            "policy-violation",
        ),
        (
            "no text",
            frame(0x81, b"<message xmlns='jabber:client'>\xff</message>"),
            1007,
            "unsupported-encoding",
        ),
        (
            "half a character",
            frame(0x81, b"<message xmlns='jabber:client'>\xf0\x9f\x98</message>"),
            1007,
            "unsupported-encoding",
        ),
        (
            "surrogate",
            frame(0x81, b"<message xmlns='jabber:client'>\xed\xa0\x80</message>"),
            1007,
            "unsupported-encoding",
        ),
        (
            "no character in two frames",
            [frame(0x01, b"<message xmlns='jabber:client'>\xf0\x9f"), frame(0x80, b"x")].concat(),
            1007,
            "unsupported-encoding",
        ),
        ("close of one byte", close(&[3]), 1002, "bad-format"),
        ("close without a text", close(&[3, 0xe8, 0xff]), 1007, "unsupported-encoding"),
    ];
    for opcode in (3..8).chain(11..16) {
        table.push(("reserved opcode", frame(0x80 | opcode, b""), 1002, "bad-format"));
    }
    table
}

#[test]
fn ws_15_a_close_with_a_status_that_none_may_send_is_answered_with_1002() {
    for &way in WAYS {
        let listening = listen(way);
        for status in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            let mut raw = listening.raw_log_in();
            raw.0.write_all(&frame(0x88, &status.to_be_bytes())).unwrap();
            let (texts, closed) = raw.end();
            assert_eq!(
                (&*texts, closed),
                (&[CLOSE.to_owned()][..], Some(1002)),
                "{way:?} {status}"
            );
        }
        listening.stop();
    }
}

#[test]
fn ws_17_what_is_no_websocket_ends_the_session() {
    for &way in WAYS {
        let listening = listen(way);
        let mut bystander = listening.raw_log_in();
        for (name, bytes, status, expected) in broken() {
            let mut raw = listening.raw_log_in();
            raw.send(true, 1, b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
            let enabled = raw.until("/>");
            let token = enabled.split("id='").nth(1).unwrap().split('\'').next().unwrap();
            raw.0.write_all(&bytes).unwrap();
            let (texts, closed) = raw.end();
            assert!(texts.len() > 1, "{way:?} {name} {texts:?} {closed:?}");
            assert_eq!(
                (condition(&texts), closed),
                (expected, Some(status)),
                "{way:?} {name} {texts:?}"
            );
            assert_eq!(texts.last().unwrap(), CLOSE, "{name}");
            // A client that resumed would send the same again.
            let mut again = listening.raw();
            for (text, end) in [(OPEN, "features>"), (AUTH, "sasl'/>"), (OPEN, "features>")] {
                again.send(true, 1, text.as_bytes());
                again.until(end);
            }
            again.send(
                true,
                1,
                format!("<resume xmlns='urn:xmpp:sm:3' previd='{token}' h='0'/>").as_bytes(),
            );
            assert!(again.until(">").starts_with("<failed"), "{name}");
            // Before any login.
            let mut stranger = listening.raw();
            stranger.0.write_all(&bytes).unwrap();
            let (texts, closed) = stranger.end();
            let stopped = texts.iter().filter(|text| text.starts_with("<stream:error")).count();
            assert!(
                stopped <= 1 && closed.is_some_and(|it| it == status || (1007..1010).contains(&it)),
                "{name} {closed:?} {texts:?}"
            );
        }
        bystander.is_alive();
        drop(bystander);
        listening.stop();
    }
}

#[test]
fn ws_11_too_much_in_fragments() {
    for &way in WAYS {
        let mut limits = Limits::default();
        limits.bytes = None;
        let listening = listen_as(way, hosted(limits), pages(), false);
        let begin =
            "<message xmlns='jabber:client' to='me@localhost/nobody' type='headline'><body>";
        let mut raw = listening.raw_log_in();
        raw.send(false, 1, begin.as_bytes());
        let mut other = raw.0.try_clone().unwrap();
        let writer =
            thread::spawn(move || while other.write_all(&frame(0x00, &[b'x'; 1000])).is_ok() {});
        let (texts, closed) = raw.end();
        assert_eq!((condition(&texts), closed), ("policy-violation", Some(1009)), "{way:?}");
        writer.join().unwrap();
        // Before a login less is read of a message, and in all.
        let mut stranger = listening.raw();
        stranger.send(true, 1, &[b"<open a='", [b'x'; 11_000].as_slice(), b"'/>"].concat());
        let (texts, closed) = stranger.end();
        assert_eq!((condition(&texts), closed), ("policy-violation", Some(1009)), "{way:?}");
        // What is allowed.
        let mut raw = listening.raw_log_in();
        let most = format!("{begin}{}</body></message>", "x".repeat(262_144 - begin.len() - 17));
        assert_eq!(most.len(), 262_144);
        raw.send(true, 1, most.as_bytes());
        raw.is_alive();
        listening.stop();
    }
}

#[test]
fn ws_15_a_close_is_answered() {
    for &way in WAYS {
        let listening = listen(way);
        for (payload, answer) in [
            (vec![], 0),
            (1000_u16.to_be_bytes().to_vec(), 1000),
            (1001_u16.to_be_bytes().to_vec(), 1001),
            ([&3000_u16.to_be_bytes()[..], "auf Wiedersehen \u{1F600}".as_bytes()].concat(), 3000),
            ([&4999_u16.to_be_bytes()[..], &[b'x'; 123]].concat(), 4999),
        ] {
            let mut raw = listening.raw_log_in();
            raw.send(true, 1, b"<iq xmlns='jabber:client' type='get' id='last' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
            raw.send(true, 8, &payload);
            // What follows is not looked at.
            raw.send(true, 1, message("late").as_bytes());
            let _garbage = raw.0.write_all(b"\xff\xff\xff");
            let (texts, closed) = raw.end();
            assert_eq!(closed, Some(answer), "{way:?} {payload:?}");
            assert!(texts[0].contains("id='last'") && texts.last().unwrap() == CLOSE, "{texts:?}");
        }
        // In the midst of a message.
        let mut raw = listening.raw_log_in();
        raw.send(false, 1, b"<message xmlns=");
        raw.send(true, 8, b"");
        assert_eq!(raw.end(), (vec![CLOSE.to_owned()], Some(0)), "{way:?}");
        listening.stop();
    }
}

#[test]
fn ws_15_a_peer_that_answers_no_close_does_not_hold_the_socket() {
    for &way in WAYS {
        let host = hosted(Limits::default()).close_timeout(Duration::from_millis(300));
        let listening = listen_as(way, host, pages(), false);
        let mut raw = listening.raw_log_in();
        raw.send(true, 1, CLOSE.as_bytes());
        assert_eq!(raw.read().unwrap().1, CLOSE.as_bytes());
        assert_eq!(raw.read().unwrap(), (8, 1000_u16.to_be_bytes().to_vec()));
        while listening.host.connections() > 0 {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(raw.read(), None, "{way:?}");
        listening.stop();
    }
}

#[test]
fn ws_15_a_shutdown_says_that_it_goes_away() {
    for &way in WAYS {
        let listening = listen(way);
        let (socket, mut opened) = (listening.log_in(), listening.connect());
        let mut silent = listening.socket();
        silent.write_all(&REQUEST.as_bytes()[..20]).unwrap();
        let watcher = thread::spawn(move || {
            let mut said = String::new();
            silent.read_to_string(&mut said).unwrap();
            said
        });
        while listening.host.connections() < 3 {
            thread::sleep(Duration::from_millis(5));
        }
        say(&mut opened, OPEN);
        let _header = (hear(&mut opened), hear(&mut opened));
        let clients = thread::spawn(move || {
            [socket, opened].map(|mut socket| {
                let mut texts = Vec::new();
                loop {
                    match socket.read().unwrap() {
                        Message::Text(text) if text == CLOSE => say(&mut socket, CLOSE),
                        Message::Text(text) => texts.push(text.to_string()),
                        Message::Close(frame) => {
                            return (texts, frame.map(|frame| frame.code.into()));
                        }
                        _ => {}
                    }
                }
            })
        });
        listening.stop();
        for (texts, status) in clients.join().unwrap() {
            assert_eq!((condition(&texts), status), ("system-shutdown", Some(1001)), "{way:?}");
        }
        let said = watcher.join().unwrap();
        assert!(said.starts_with("HTTP/1.1 503 "), "{way:?} {said:?}");
    }
}

/// A session that is kept, and its token.
fn resumable(listening: &Listening) -> (Raw, String) {
    let mut raw = listening.raw_log_in();
    raw.send(true, 1, b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let enabled = raw.until("/>");
    let token = enabled.split("id='").nth(1).unwrap().split('\'').next().unwrap();
    (raw, token.to_owned())
}

fn resume(listening: &Listening, token: &str) -> Raw {
    let mut raw = listening.raw();
    for (text, end) in [(OPEN, "features>"), (AUTH, "sasl'/>"), (OPEN, "features>")] {
        raw.send(true, 1, text.as_bytes());
        raw.until(end);
    }
    raw.send(true, 1, format!("<resume xmlns='urn:xmpp:sm:3' previd='{token}' h='0'/>").as_bytes());
    assert!(raw.until("/>").starts_with("<resumed"));
    raw
}

#[test]
fn ws_9_a_session_survives_its_websocket() {
    for &way in WAYS {
        let listening = listen(way);
        for how in ["cut", "reset", "closed", "half a message", "half closed"] {
            let (mut raw, token) = resumable(&listening);
            raw.send(true, 1, b"<presence xmlns='jabber:client'/>");
            raw.until("/>");
            match how {
                "closed" => raw.send(true, 8, &1001_u16.to_be_bytes()),
                "half a message" => raw.send(false, 1, b"<message xmlns='jabber:cl"),
                "half closed" => raw.0.shutdown(std::net::Shutdown::Write).unwrap(),
                _ => {}
            }
            if how == "half closed" || how == "closed" {
                let (texts, _) = raw.end();
                assert!(!texts.contains(&CLOSE.to_owned()), "{how}: {texts:?}");
            }
            drop(raw);
            let mut other = listening.raw_log_in();
            other.send(true, 1, b"<message xmlns='jabber:client' to='me@localhost' type='chat'><body>missed</body></message>");
            drop(other);
            let mut raw = resume(&listening, &token);
            raw.until("</message>");
            raw.is_alive();
            raw.send(true, 1, CLOSE.as_bytes());
            raw.end();
        }
        listening.stop();
    }
}

#[test]
fn ws_14_silent_peers_are_pinged_and_the_dead_given_up() {
    for &way in WAYS {
        let websockets = pages().ping_interval(Duration::from_secs(1));
        let listening = listen_as(way, hosted(Limits::default()), websockets, false);
        let (mut dead, token) = resumable(&listening);
        let mut living = listening.raw_log_in();
        for _ in 0..4 {
            assert_eq!(living.read().unwrap(), (9, vec![]), "{way:?}");
            living.send(true, 10, b"");
        }
        let mut pings = 0;
        while let Some((opcode, _)) = dead.read() {
            assert_eq!(opcode, 9);
            pings += 1;
        }
        assert!((2..=3).contains(&pings), "{way:?} {pings}");
        living.is_alive();
        resume(&listening, &token).is_alive();
        listening.stop();
    }
}

#[test]
fn ws_14_a_flood_of_pings_takes_no_room() {
    for &way in WAYS {
        let host = hosted(Limits::default()).marks(Marks::new(10_000, 20_000));
        let listening = listen_as(way, host, pages(), false);
        let mut raw = listening.raw_log_in();
        let mut bystander = listening.raw_log_in();
        let flood = frame(0x89, &[b'p'; 125]).repeat(100);
        raw.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        // Until its rate or its own buffers stop it.
        for _ in 0..2000 {
            if raw.0.write_all(&flood).is_err() {
                break;
            }
        }
        bystander.is_alive();
        drop(raw);
        listening.stop();
    }
}

#[test]
fn ws_16_under_tls_the_protocol_is_http() {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    for &way in WAYS {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let config = xmpp_session::host::TlsConfig::new(
            vec![certificate.clone()],
            key.serialize_der().try_into().unwrap(),
        );
        let host = hosted(Limits::default()).tls(config.unwrap());
        let listening = listen_as(way, host, pages(), true);
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let tls = StreamOwned::new(connection, listening.socket());
        let mut request = "wss://localhost/xmpp-websocket".into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "xmpp".parse().unwrap());
        let (mut socket, _) = tungstenite::client(request, tls).unwrap();
        log_in_on(&mut socket);
        assert_eq!(socket.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]), "{way:?}");
        say(&mut socket, CLOSE);
        assert_eq!(hear(&mut socket), CLOSE);
        assert!(matches!(socket.read().unwrap(), Message::Close(Some(_))));
        // With `close_notify` (TLS-4).
        let over = socket.read();
        assert!(matches!(over, Err(tungstenite::Error::ConnectionClosed)), "{over:?}");
        listening.stop();
    }
}

/// Behind an HTTP server of the program, which has answered.
#[test]
fn ws_16_a_stream_that_was_upgraded_elsewhere_is_as_secure_as_its_host_says() {
    for &way in WAYS {
        for secure in [true, false] {
            let host = Arc::new(hosted(Limits::default()));
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = Raw(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let (stream, _) = listener.accept().unwrap();
            let transport = Transport::new().secure(secure).source("192.0.2.1");
            let served = thread::spawn(move || match way {
                #[cfg(feature = "tokio")]
                Way::Tasks => {
                    let runtime = tokio::runtime::Builder::new_current_thread();
                    let runtime = { runtime }.enable_all().build().unwrap();
                    runtime.block_on(async {
                        stream.set_nonblocking(true).unwrap();
                        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                        use xmpp_session::host::tokio::websocket::serve_upgraded;
                        serve_upgraded(host, stream, transport, &pages()).await
                    })
                }
                #[cfg(feature = "threads")]
                Way::Threads => {
                    use xmpp_session::host::threads::websocket::serve_upgraded;
                    serve_upgraded(&host, stream, transport, &pages())
                }
            });
            client.send(true, 1, OPEN.as_bytes());
            if secure {
                let features = client.until("features>");
                assert!(features.contains(">PLAIN<"), "{way:?} {features}");
                assert!(!features.contains("channel-binding") && !features.contains("starttls"));
                client.send(true, 1, CLOSE.as_bytes());
                client.end();
            } else {
                // The domain requires TLS, and there is no STARTTLS.
                let (texts, closed) = client.end();
                assert_eq!((condition(&texts), closed), ("policy-violation", Some(1008)));
            }
            drop(client);
            served.join().unwrap().unwrap();
        }
    }
}
