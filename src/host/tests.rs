//! A machine that echoes lines in place of a driver, over real sockets and real TLS.
//!
//! Both ways to serve pass the same tests, see `each!` at the end.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::task::Waker;
#[cfg(feature = "tokio")]
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::ahead::Ahead;
use super::{Machine, Settings, TlsConfig};
use crate::connection::{Close, Connection, SendError};
use crate::outbox::{Drain, Marks, Outbox};
use crate::sasl::ChannelBindings;
use crate::server::{Place, Want};
use crate::stanza::Frame;

/// Answers each line: `starttls`, `close` and `tick` as they say, `tick` a little later, and others with
/// an echo.
struct Echo {
    settings: Settings,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    line: Vec<u8>,
    want: Want,
    due: Option<Instant>,
}

/// What a test sees of the machine, and how it holds it up.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    paused: bool,
    waker: Option<Waker>,
    received: usize,
    bindings: Option<ChannelBindings>,
    dropped: bool,
    /// Waits as long as anything is to be written, and asks nobody to be woken.
    polite: bool,
}

impl Shared {
    fn pause(&self, paused: bool) {
        let mut state = self.state.lock();
        state.paused = paused;
        self.changed.notify_all();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn wait_dropped(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| !state.dropped);
    }
}

impl Echo {
    fn waits_for_peer(&self) -> bool {
        self.shared.state.lock().polite && self.outbox.waiting() > 0
    }

    fn say(&self, text: &str) {
        // Once it is closed, from outside as well, nobody is to hear it.
        let sent = self.outbox.send(Frame::element(format!("{text}\n").as_bytes()));
        assert!(sent.is_ok() || self.outbox.closed().is_some());
    }
}

impl Machine for Echo {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.shared.state.lock().received += bytes.len();
        for byte in bytes.iter().copied() {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            match String::from_utf8(std::mem::take(&mut self.line)).unwrap().as_str() {
                "starttls" => {
                    self.say("proceed");
                    self.want = Want::StartTls;
                    return;
                }
                "close" => {
                    self.say("bye");
                    self.want = Want::Close;
                }
                "tick" => self.due = Some(Instant::now() + Duration::from_millis(5)),
                other => self.say(&format!("echo {other}")),
            }
        }
    }

    #[cfg(feature = "tokio")]
    fn poll_want(&mut self, cx: &mut Context<'_>) -> Poll<Want> {
        if self.waits_for_peer() {
            return Poll::Pending;
        }
        let mut state = self.shared.state.lock();
        if state.paused {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(self.want)
    }

    #[cfg(feature = "threads")]
    fn want_blocking(&mut self) -> Option<Want> {
        while self.waits_for_peer() {
            thread::park();
        }
        let mut state = self.shared.state.lock();
        self.shared.changed.wait_while(&mut state, |state| state.paused);
        Some(self.want)
    }

    fn secured(&mut self, bindings: ChannelBindings) {
        self.want = Want::Input;
        self.shared.state.lock().bindings = Some(bindings);
        self.say("secured");
    }

    fn end_of_input(&mut self) {
        self.want = Want::Close;
    }

    fn due_in(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn handle_timeout(&mut self) {
        self.due = None;
        self.say("tock");
    }

    fn place(&mut self) -> Option<Place> {
        None
    }

    fn heard(&mut self) {}

    #[cfg(feature = "threads")]
    fn is_unbound(&self) -> bool {
        false
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.shared.state.lock().dropped = true;
        self.shared.changed.notify_all();
    }
}

#[derive(Clone, Copy)]
enum Way {
    #[cfg(feature = "tokio")]
    Tokio,
    #[cfg(feature = "threads")]
    Threads,
}

struct Served {
    peer: TcpStream,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    end: JoinHandle<io::Result<()>>,
}

impl Served {
    fn push(&self, text: &str) {
        self.outbox.send(Frame::element(text.as_bytes())).unwrap();
    }

    fn end(self) -> io::Result<()> {
        let end = self.end.join().unwrap();
        self.shared.wait_dropped();
        assert_eq!(self.outbox.send(Frame::element(b"late")), Err(SendError::Closed));
        end
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const BRIEF: Duration = Duration::from_millis(50);

const fn plain() -> Settings {
    Settings { tls: None, handshake: HOUR, close: HOUR, shutdown: HOUR }
}

fn serve(way: Way, settings: Settings) -> Served {
    serve_paused(way, settings, false, false)
}

fn serve_paused(way: Way, settings: Settings, direct_tls: bool, paused: bool) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket = listener.accept().unwrap().0;
    let (outbox, drain) = Outbox::new(Marks::new(0, 100_000_000));
    let shared = Arc::new(Shared::default());
    shared.pause(paused);
    let machine = Echo {
        settings,
        outbox: Arc::clone(&outbox),
        shared: Arc::clone(&shared),
        line: Vec::new(),
        want: if direct_tls { Want::StartTls } else { Want::Input },
        due: None,
    };
    let end = {
        let outbox = Arc::clone(&outbox);
        thread::spawn(move || run(way, machine, outbox, drain, socket, direct_tls))
    };
    Served { peer, outbox, shared, end }
}

fn run(
    way: Way,
    machine: Echo,
    outbox: Arc<Outbox>,
    drain: Drain,
    socket: TcpStream,
    direct_tls: bool,
) -> io::Result<()> {
    match way {
        #[cfg(feature = "tokio")]
        Way::Tokio => {
            drop(outbox);
            let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                socket.set_nonblocking(true)?;
                let socket = ::tokio::net::TcpStream::from_std(socket)?;
                let stream = super::tokio::Stream { io: socket, ahead: Ahead::default() };
                let line = super::tokio::Line::of(Box::new(machine), drain, stream, direct_tls);
                super::tokio::run(line, |end| end).await
            })
        }
        #[cfg(feature = "threads")]
        Way::Threads => {
            super::threads::run(machine, outbox, drain, socket, Ahead::default(), direct_tls)
        }
    }
}

/// Reads exactly the text, and no byte more.
fn expect(peer: &mut impl Read, text: &str) {
    let mut bytes = vec![0; text.len()];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
}

fn expect_end(peer: &mut impl Read) {
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

fn certificate() -> (TlsConfig, Arc<ClientConfig>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let server = TlsConfig::new(vec![certificate.clone()], key.serialize_der().try_into().unwrap());
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server.unwrap(), Arc::new(client))
}

fn client(config: Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap()
}

fn answers_pushes_and_a_half_closed_peer(way: Way) {
    let mut served = serve(way, plain());
    served.peer.write_all(b"one\ntwo\nth").unwrap();
    expect(&mut served.peer, "echo one\necho two\n");
    served.push("push\n");
    expect(&mut served.peer, "push\n");
    served.peer.write_all(b"ree\nfour\n").unwrap();
    served.peer.shutdown(Shutdown::Write).unwrap();
    expect(&mut served.peer, "echo three\necho four\n");
    expect_end(&mut served.peer);
    served.end().unwrap();
}

fn time_outs_are_handled(way: Way) {
    let mut served = serve(way, plain());
    for _ in 0..2 {
        served.peer.write_all(b"tick\n").unwrap();
        expect(&mut served.peer, "tock\n");
    }
    served.peer.shutdown(Shutdown::Write).unwrap();
    served.end().unwrap();
}

fn a_machine_that_waits_pauses_reading_but_not_writing(way: Way) {
    let mut served = serve_paused(way, plain(), false, true);
    served.peer.write_all(b"one\n").unwrap();
    for _ in 0..10 {
        served.push("push\n");
        expect(&mut served.peer, "push\n");
    }
    assert_eq!(served.shared.state.lock().received, 0);
    served.shared.pause(false);
    expect(&mut served.peer, "echo one\n");
    served.peer.shutdown(Shutdown::Write).unwrap();
    served.end().unwrap();
}

fn limit_13_a_machine_that_waits_for_its_peer_goes_on_once_that_has_read(way: Way) {
    let mut served = serve(way, plain());
    served.shared.state.lock().polite = true;
    // More than the socket takes at once.
    let huge = "x".repeat(20_000_000);
    served.push(&huge);
    served.peer.write_all(b"one\n").unwrap();
    expect(&mut served.peer, &format!("{huge}echo one\n"));
    served.peer.shutdown(Shutdown::Write).unwrap();
    served.end().unwrap();
}

fn tls_2_starttls_flushes_proceed_and_hands_over_the_bindings(way: Way) {
    let (server, config) = certificate();
    let end_point = server.end_point.as_deref().map(Vec::from);
    let mut served = serve(way, Settings { tls: Some(server), ..plain() });
    // More than the socket takes at once.
    let huge = "x".repeat(20_000_000);
    served.push(&huge);
    served.peer.write_all(b"one\nstarttls\n").unwrap();
    expect(&mut served.peer, &format!("{huge}echo one\nproceed\n"));
    // What others send now has to wait: as plaintext it would break the handshake.
    served.push("push\n");

    let mut tls = StreamOwned::new(client(config), served.peer.try_clone().unwrap());
    // In one flight with the end of the handshake.
    tls.conn.writer().write_all(b"early\n").unwrap();
    expect(&mut tls, "push\nsecured\necho early\n");
    let exporter =
        tls.conn.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b""));
    let bindings = served.shared.state.lock().bindings.take().unwrap();
    assert_eq!(bindings.data("tls-exporter"), Some(&*exporter.unwrap()));
    assert_eq!(bindings.data("tls-server-end-point"), end_point.as_deref());
    assert_eq!(end_point.map(|hash| hash.len()), Some(32));

    let long = "x".repeat(300_000);
    tls.write_all(format!("{long}\n").as_bytes()).unwrap();
    expect(&mut tls, &format!("echo {long}\n"));
    served.push(&huge);
    expect(&mut tls, &huge);
    tls.write_all(b"close\n").unwrap();
    expect(&mut tls, "bye\n");
    // A clean end: rustls reports a missing close_notify as an error.
    expect_end(&mut tls);
    drop(tls);
    served.peer.shutdown(Shutdown::Both).unwrap();
    served.end().unwrap();
}

fn tls_2_what_is_sent_behind_proceed_waits_for_the_handshake(way: Way) {
    let (server, config) = certificate();
    let mut served = serve(way, Settings { tls: Some(server), ..plain() });
    let huge = "x".repeat(20_000_000);
    served.push(&huge);
    served.peer.write_all(b"starttls\n").unwrap();
    let plain = format!("{huge}proceed\n");
    while served.outbox.accepted() < plain.len() as u64 {
        thread::yield_now();
    }
    // Until the host knows as well: its peer has not read, so nothing else can happen.
    thread::sleep(BRIEF);
    served.push("push\n");
    expect(&mut served.peer, &plain);
    let mut tls = StreamOwned::new(client(config), served.peer.try_clone().unwrap());
    tls.write_all(b"one\n").unwrap();
    expect(&mut tls, "push\nsecured\necho one\n");
    drop(tls);
    served.peer.shutdown(Shutdown::Both).unwrap();
    served.end().unwrap();
}

fn direct_tls(way: Way) {
    let (server, config) = certificate();
    let settings = Settings { tls: Some(server), ..plain() };
    let served = serve_paused(way, settings, true, false);
    let mut tls = StreamOwned::new(client(config), served.peer.try_clone().unwrap());
    tls.write_all(b"one\n").unwrap();
    expect(&mut tls, "secured\necho one\n");
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    expect_end(&mut tls);
    served.peer.shutdown(Shutdown::Both).unwrap();
    served.end().unwrap();
}

/// Each write brings one byte.
struct Dribble(TcpStream);

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes.get(..1).unwrap_or_default())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn tls_in_pieces_with_new_keys_and_a_half_close(way: Way) {
    let (server, config) = certificate();
    let settings = Settings { tls: Some(server), ..plain() };
    let served = serve_paused(way, settings, true, false);
    served.peer.set_nodelay(true).unwrap();
    let peer = Dribble(served.peer.try_clone().unwrap());
    let mut tls = StreamOwned::new(client(config), peer);
    tls.write_all(b"one\n").unwrap();
    expect(&mut tls, "secured\necho one\n");
    for _ in 0..3 {
        tls.conn.refresh_traffic_keys().unwrap();
        tls.write_all(b"two\nth").unwrap();
        expect(&mut tls, "echo two\n");
        tls.write_all(b"ree\n").unwrap();
        expect(&mut tls, "echo three\n");
    }
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    // Of a peer that has said its last, what follows does not count.
    served.peer.try_clone().unwrap().write_all(b"<plain/>").unwrap();
    expect_end(&mut tls);
    served.peer.shutdown(Shutdown::Both).unwrap();
    served.end().unwrap();
}

fn tls_what_is_no_record_is_answered_with_an_alert(way: Way) {
    let (server, config) = certificate();
    let settings = Settings { tls: Some(server), ..plain() };
    let served = serve_paused(way, settings, true, false);
    let mut tls = StreamOwned::new(client(config), served.peer.try_clone().unwrap());
    tls.write_all(b"one\n").unwrap();
    expect(&mut tls, "secured\necho one\n");
    tls.sock.write_all(&[0x17, 3, 3, 0, 20]).unwrap();
    tls.sock.write_all(&[7; 20]).unwrap();
    let error = tls.read(&mut [0]).unwrap_err();
    let told = error.get_ref().and_then(|error| error.downcast_ref());
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
    assert_eq!(told, Some(&alert), "{error}");
    assert_eq!(served.end().unwrap_err().kind(), io::ErrorKind::InvalidData);
}

fn tls_4_an_abort_is_a_clean_end_where_there_is_room(way: Way) {
    let (server, config) = certificate();
    let settings = Settings { tls: Some(server), ..plain() };
    let served = serve_paused(way, settings, true, false);
    let mut tls = StreamOwned::new(client(config), served.peer.try_clone().unwrap());
    tls.write_all(b"one\n").unwrap();
    expect(&mut tls, "secured\necho one\n");
    served.outbox.close(Close::Abort);
    expect_end(&mut tls);
    served.end().unwrap();
}

fn tls_1_a_failed_handshake_ends_without_a_word(way: Way) {
    let (server, _) = certificate();
    let mut served = serve(way, Settings { tls: Some(server), ..plain() });
    served.peer.write_all(b"starttls\n").unwrap();
    expect(&mut served.peer, "proceed\n");
    served.peer.write_all(b"<stream:stream>plaintext after all").unwrap();
    let mut rest = Vec::new();
    let _reset = served.peer.read_to_end(&mut rest);
    assert!(rest.len() <= 7, "an alert at most: {rest:?}");
    assert_eq!(served.end().unwrap_err().kind(), io::ErrorKind::InvalidData);
}

fn a_handshake_that_stalls_ends(way: Way) {
    let (server, _) = certificate();
    let settings = Settings { tls: Some(server), handshake: BRIEF, ..plain() };
    let served = serve_paused(way, settings, true, false);
    assert_eq!(served.end().unwrap_err().kind(), io::ErrorKind::TimedOut);
}

fn starttls_without_a_certificate_ends(way: Way) {
    let mut served = serve(way, plain());
    served.peer.write_all(b"starttls\n").unwrap();
    assert_eq!(served.end().unwrap_err().kind(), io::ErrorKind::Unsupported);
}

fn limit_23_a_peer_that_does_not_read_cannot_hold_the_socket(way: Way) {
    let mut served = serve(way, Settings { close: BRIEF, ..plain() });
    served.push(&"x".repeat(50_000_000));
    served.peer.write_all(b"close\n").unwrap();
    let peer = served.peer.try_clone().unwrap();
    assert_eq!(served.end().unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(peer);
}

fn limit_23_nor_after_a_flush_from_outside(way: Way) {
    let served = serve(way, Settings { close: BRIEF, ..plain() });
    served.push(&"x".repeat(50_000_000));
    // Some of it is on its way.
    while served.outbox.written() == 0 {
        thread::yield_now();
    }
    served.outbox.close(Close::Flush);
    let peer = served.peer.try_clone().unwrap();
    let _error = served.end();
    drop(peer);
}

fn an_abort_ends_a_write_that_is_stuck(way: Way) {
    // The threads look up this often; a task is woken.
    let close = match way {
        #[cfg(feature = "tokio")]
        Way::Tokio => HOUR,
        #[cfg(feature = "threads")]
        Way::Threads => BRIEF,
    };
    let served = serve(way, Settings { close, ..plain() });
    served.push(&"x".repeat(50_000_000));
    while served.outbox.written() == 0 {
        thread::yield_now();
    }
    served.outbox.close(Close::Abort);
    let peer = served.peer.try_clone().unwrap();
    let _error = served.end();
    drop(peer);
}

fn a_slow_reader_gets_everything_before_the_end(way: Way) {
    let mut served = serve(way, plain());
    served.push(&"x".repeat(20_000_000));
    served.peer.write_all(b"close\n").unwrap();
    let mut all = Vec::new();
    served.peer.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 20_000_000 + 4);
    assert!(all.ends_with(b"xbye\n"));
    served.peer.shutdown(Shutdown::Both).unwrap();
    served.end().unwrap();
}

fn unread_input_does_not_destroy_the_last_words(way: Way) {
    let mut served = serve(way, plain());
    served.peer.write_all(b"close\n").unwrap();
    for _ in 0..100 {
        served.peer.write_all(&[b'x'; 10_000]).unwrap();
    }
    expect(&mut served.peer, "bye\n");
    expect_end(&mut served.peer);
    for _ in 0..100 {
        served.peer.write_all(&[b'x'; 10_000]).unwrap();
    }
    served.peer.shutdown(Shutdown::Both).unwrap();
    served.end().unwrap();
}

fn closed_from_outside_while_the_peer_is_silent(way: Way) {
    let mut served = serve(way, plain());
    served.push("conflict\n");
    served.outbox.close(Close::Flush);
    expect(&mut served.peer, "conflict\n");
    expect_end(&mut served.peer);
    served.peer.shutdown(Shutdown::Both).unwrap();
    served.end().unwrap();
}

fn limit_23_an_end_from_outside_waits_for_the_peer_to_close(way: Way) {
    let mut served = serve(way, plain());
    served.push("conflict\n");
    served.outbox.close(Close::Flush);
    expect(&mut served.peer, "conflict\n");
    expect_end(&mut served.peer);
    // A socket that is gone resets the connection.
    for _ in 0..3 {
        served.peer.write_all(b"under way\n").unwrap();
        thread::sleep(BRIEF);
    }
    served.peer.shutdown(Shutdown::Both).unwrap();
    served.end().unwrap();
}

fn aborted_from_outside_while_the_peer_is_silent(way: Way) {
    let mut served = serve(way, plain());
    served.peer.write_all(b"one\n").unwrap();
    expect(&mut served.peer, "echo one\n");
    served.outbox.close(Close::Abort);
    expect_end(&mut served.peer);
    served.end().unwrap();
}

fn an_abrupt_disconnect_drops_the_machine(way: Way) {
    let served = serve(way, plain());
    served.push("unread\n");
    while served.outbox.waiting() > 0 {
        thread::yield_now();
    }
    let Served { peer, outbox, shared, end } = served;
    // Closing with unread bytes sends a reset.
    drop(peer);
    shared.wait_dropped();
    let _error = end.join().unwrap();
    assert_eq!(outbox.send(Frame::element(b"late")), Err(SendError::Closed));
}

/// A system call more for each read would be one too many.
#[cfg(feature = "threads")]
#[test]
fn threads_tell_a_socket_of_a_time_out_that_is_another() {
    struct Told(TcpStream, Arc<Mutex<Vec<Option<Duration>>>>);

    impl super::threads::Stream for Told {
        fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
            Read::read(&mut &self.0, buffer)
        }

        fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            Write::write(&mut &self.0, bytes)
        }

        fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
            self.1.lock().push(time);
            self.0.set_read_timeout(time)
        }

        fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
            self.0.set_write_timeout(time)
        }

        fn shutdown(&self, how: Shutdown) -> io::Result<()> {
            self.0.shutdown(how)
        }
    }

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let told = Arc::default();
    let socket = Told(listener.accept().unwrap().0, Arc::clone(&told));
    let (outbox, drain) = Outbox::new(Marks::default());
    let (shared, line, want) = (Arc::default(), Vec::new(), Want::Input);
    let machine = Echo { settings: plain(), outbox: outbox.clone(), shared, line, want, due: None };
    let end = thread::spawn(move || {
        super::threads::run(machine, outbox, drain, socket, Ahead::default(), false)
    });
    for _ in 0..20 {
        peer.write_all(b"a\n").unwrap();
        expect(&mut peer, "echo a\n");
    }
    assert_eq!(told.lock().len(), 1);
    peer.write_all(b"tick\n").unwrap();
    expect(&mut peer, "tock\n");
    peer.write_all(b"close\n").unwrap();
    expect(&mut peer, "bye\n");
    drop(peer);
    end.join().unwrap().unwrap();
    let told = told.lock();
    assert!(told.len() > 1 && told.windows(2).all(|two| two[0] != two[1]), "{told:?}");
}

/// The task of an idle connection is what a million of them cost.
#[cfg(feature = "tokio")]
#[test]
fn the_future_of_a_connection_is_small() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let size = runtime.block_on(async {
        let address = listener.local_addr().unwrap();
        let socket = ::tokio::net::TcpStream::connect(address).await.unwrap();
        let (outbox, drain) = Outbox::new(Marks::default());
        let settings = plain();
        let shared = Arc::default();
        let line = Vec::new();
        let machine = Echo { settings, outbox, shared, line, want: Want::Input, due: None };
        let stream = super::tokio::Stream { io: socket, ahead: Ahead::default() };
        let line = super::tokio::Line::of(Box::new(machine), drain, stream, false);
        size_of_val(&super::tokio::run(line, |end| end))
    });
    assert!(size <= 280, "{size} bytes");
}

macro_rules! each {
    ($($test:ident)*) => {
        #[cfg(feature = "tokio")]
        mod on_tokio {
            $(#[test] fn $test() { super::$test(super::Way::Tokio) })*
        }
        #[cfg(feature = "threads")]
        mod on_threads {
            $(#[test] fn $test() { super::$test(super::Way::Threads) })*
        }
    };
}

each! {
    answers_pushes_and_a_half_closed_peer
    time_outs_are_handled
    a_machine_that_waits_pauses_reading_but_not_writing
    limit_13_a_machine_that_waits_for_its_peer_goes_on_once_that_has_read
    tls_2_starttls_flushes_proceed_and_hands_over_the_bindings
    tls_2_what_is_sent_behind_proceed_waits_for_the_handshake
    direct_tls
    tls_in_pieces_with_new_keys_and_a_half_close
    tls_what_is_no_record_is_answered_with_an_alert
    tls_4_an_abort_is_a_clean_end_where_there_is_room
    tls_1_a_failed_handshake_ends_without_a_word
    a_handshake_that_stalls_ends
    starttls_without_a_certificate_ends
    limit_23_a_peer_that_does_not_read_cannot_hold_the_socket
    limit_23_nor_after_a_flush_from_outside
    an_abort_ends_a_write_that_is_stuck
    a_slow_reader_gets_everything_before_the_end
    unread_input_does_not_destroy_the_last_words
    closed_from_outside_while_the_peer_is_silent
    limit_23_an_end_from_outside_waits_for_the_peer_to_close
    aborted_from_outside_while_the_peer_is_silent
    an_abrupt_disconnect_drops_the_machine
}
