//! The last bytes of a stream: on each transport and host, in each state, for each cause of its end
//! (rules DESTROY-16, STREAM-24, STREAM-25, STREAM-27, STREAM-36, TLS-4).

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use xmpp_session::host::threads::{background, shutdown};
use xmpp_session::server;

use super::{HEADER, STARTTLS, Served, Tls, Way, finish, say, serve, serve_as, starttls, until};

#[derive(Clone, Copy, Debug)]
enum Transport {
    Plain,
    StartTls(&'static rustls::SupportedProtocolVersion),
    Direct(&'static rustls::SupportedProtocolVersion),
}

use Transport::{Direct, Plain, StartTls};
use rustls::version::{TLS12, TLS13};

const TRANSPORTS: [Transport; 5] =
    [Plain, StartTls(&TLS12), StartTls(&TLS13), Direct(&TLS12), Direct(&TLS13)];

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Nothing was said yet, or nothing behind the handshake.
    Silent,
    Open,
    /// Behind SASL, and the next stream is not opened yet.
    Success,
    Authed,
    Bound,
    Resumable,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    Shutdown,
    CloseTag,
    /// `close_notify`, or on plain TCP the end of the client's half.
    HalfClose,
    /// The end of the client's half of TCP without `close_notify`.
    Cut,
    /// `close_notify`, and still more behind it.
    TalksOn,
    Wrong,
}

const TAG: &str = "</stream:stream>";
const ASK: &str = "<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>";
const ANSWER: &str = "(answer)";

/// What the client reads, and nothing behind it; `None`: there is no such case.
fn expected(state: State, cause: Cause) -> Option<String> {
    let error = |condition| {
        format!(
            "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>{TAG}"
        )
    };
    let is_open = !matches!(state, State::Silent | State::Success);
    let is_bound = matches!(state, State::Bound | State::Resumable);
    // A header of ours that was still due.
    let header = if is_open { "" } else { "(header)" };
    let answer = if is_bound && cause != Cause::Shutdown { ANSWER } else { "" };
    let words = match cause {
        Cause::Shutdown => error("system-shutdown"),
        Cause::Wrong if is_open => error("unsupported-stanza-type"),
        Cause::Wrong => error("invalid-namespace"),
        Cause::CloseTag if is_open => return Some(format!("{answer}{TAG}")),
        Cause::CloseTag => return None,
        // A stream that is to be resumed is not closed.
        Cause::HalfClose | Cause::Cut | Cause::TalksOn if is_open && state != State::Resumable => {
            return Some(format!("{answer}{TAG}"));
        }
        Cause::HalfClose | Cause::Cut | Cause::TalksOn => return Some(answer.to_owned()),
    };
    Some(format!("{header}{answer}{words}"))
}

/// The client's end.
enum Line {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

fn connect(way: Way, transport: Transport) -> (Served, Line) {
    match transport {
        Plain => {
            let served = serve_as(way, false, server::Transport::new().secure(true));
            let socket = served.socket.try_clone().unwrap();
            (served, Line::Plain(socket))
        }
        StartTls(version) | Direct(version) => {
            let is_direct = matches!(transport, Direct(_));
            let mut served = serve(way, is_direct);
            if !is_direct {
                starttls(&mut served, "");
            }
            let mut tls = served.tls(&[version]);
            finish(&mut tls);
            if *version == TLS13 {
                // The server's last of the handshake, a ticket: the client's own was sent before.
                tls.conn.read_tls(&mut tls.sock).unwrap();
                tls.conn.process_new_packets().unwrap();
            }
            (served, Line::Tls(Box::new(tls)))
        }
    }
}

fn bring_to(line: &mut Line, state: State) {
    if state == State::Silent {
        return;
    }
    say(line, HEADER);
    until(line, "</stream:features>");
    if state == State::Open {
        return;
    }
    say(
        line,
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
    );
    until(line, "/>");
    if state == State::Success {
        return;
    }
    say(line, HEADER);
    until(line, "</stream:features>");
    if state == State::Authed {
        return;
    }
    say(line, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    until(line, "</iq>");
    if state == State::Resumable {
        say(line, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        until(line, "/>");
    }
}

/// What is not the same each time has a name instead.
fn plain(text: &str) -> String {
    let mut text = text.replace("<r xmlns='urn:xmpp:sm:3'/>", "");
    for (start, end, name) in [("<?xml", "/streams'>", "(header)"), ("<iq", "</iq>", ANSWER)] {
        if let Some((before, rest)) = text.split_once(start) {
            let behind = rest.split_once(end).map_or(rest, |(_, behind)| behind);
            text = format!("{before}{name}{behind}");
        }
    }
    text
}

fn play(way: Way, transport: Transport, state: State, cause: Cause) {
    let Some(expected) = expected(state, cause) else { return };
    let case = format!("{way:?}, {transport:?}, {state:?}, {cause:?}");
    let (served, mut line) = connect(way, transport);
    bring_to(&mut line, state);
    let asks = matches!(state, State::Bound | State::Resumable);
    let ask = if asks { ASK } else { "" };
    let mut closing = None;
    match cause {
        Cause::Shutdown => {
            let host = std::sync::Arc::clone(&served.host);
            let server = served.server.clone();
            std::thread::spawn(move || background(&server));
            closing = Some(std::thread::spawn(move || shutdown(&host, Duration::from_secs(3600))));
        }
        Cause::CloseTag => say(&mut line, &format!("{ask}{TAG}")),
        Cause::Wrong => say(&mut line, &format!("{ask}<x xmlns='urn:x'/>")),
        Cause::HalfClose | Cause::Cut | Cause::TalksOn => {
            // At once with what it ends.
            match &mut line {
                Line::Plain(socket) => say(socket, ask),
                Line::Tls(tls) => {
                    tls.conn.writer().write_all(ask.as_bytes()).unwrap();
                    if cause != Cause::Cut {
                        tls.conn.send_close_notify();
                    }
                    while tls.conn.wants_write() {
                        tls.conn.write_tls(&mut tls.sock).unwrap();
                    }
                    if cause == Cause::TalksOn {
                        // More than a read of the server.
                        tls.sock.write_all(&[b'x'; 64 * 1024]).unwrap();
                    }
                }
            }
            if cause == Cause::Cut || matches!(line, Line::Plain(_)) {
                served.socket.shutdown(Shutdown::Write).unwrap();
            }
        }
    }
    let mut text = String::new();
    if matches!(cause, Cause::Shutdown | Cause::Wrong) {
        text = until(&mut line, TAG);
        say(&mut line, TAG);
    }
    // A `close_notify` that is missing is an error.
    let end = line.read_to_string(&mut text);
    assert!(end.is_ok(), "{case}: {end:?} behind {text}");
    assert_eq!(plain(&text), expected, "{case}");
    if let Line::Tls(tls) = &mut line
        && cause == Cause::TalksOn
    {
        // A reset would destroy what is still under way to the client.
        std::thread::sleep(Duration::from_millis(50));
        let reset = tls.sock.take_error().unwrap();
        assert!(reset.is_none(), "{case}: {reset:?}");
    }
    let server = served.server.clone();
    drop(line);
    let end = served.end();
    assert!(end.is_ok(), "{case}: {end:?}");
    if let Some(closing) = closing {
        closing.join().unwrap();
    }
    let hibernates = state == State::Resumable
        && matches!(cause, Cause::HalfClose | Cause::Cut | Cause::TalksOn);
    let counts = server.registry().counts();
    assert_eq!(
        (counts.sessions, counts.hibernating),
        (hibernates.into(), hibernates.into()),
        "{case}"
    );
}

fn all(way: Way, cause: Cause) {
    std::thread::scope(|scope| {
        for transport in TRANSPORTS {
            if matches!((transport, cause), (Plain, Cause::TalksOn)) {
                continue;
            }
            scope.spawn(move || {
                for state in [
                    State::Silent,
                    State::Open,
                    State::Success,
                    State::Authed,
                    State::Bound,
                    State::Resumable,
                ] {
                    play(way, transport, state, cause);
                }
            });
        }
    });
}

#[test]
fn destroy_16_every_stream_is_told_of_the_shutdown() {
    super::both(|way| all(way, Cause::Shutdown));
}

#[test]
fn stream_27_every_close_tag_is_answered() {
    super::both(|way| all(way, Cause::CloseTag));
}

#[test]
fn stream_24_every_error_is_followed_by_the_close_tag() {
    super::both(|way| all(way, Cause::Wrong));
}

#[test]
fn stream_36_a_client_that_sends_no_more_gets_its_answers() {
    super::both(|way| all(way, Cause::HalfClose));
}

#[test]
fn tls_4_also_where_the_client_has_not_sent_its_own() {
    super::both(|way| all(way, Cause::Cut));
}

#[test]
fn tls_4_what_comes_behind_close_notify_resets_nothing() {
    super::both(|way| all(way, Cause::TalksOn));
}

/// With STARTTLS or without, with some of the client's first message or none of it.
#[test]
fn destroy_16_handshakes_are_broken_off() {
    super::both(|way| {
        for (direct, hello) in
            [(false, ""), (false, "\x16\x03\x01"), (true, ""), (true, "\x16\x03")]
        {
            let mut served = serve(way, direct);
            if direct {
                // The host may still have to take the connection.
                while served.host.connections() == 0 {
                    std::thread::yield_now();
                }
            } else {
                say(&mut served.socket, HEADER);
                until(&mut served.socket, "</stream:features>");
                say(&mut served.socket, STARTTLS);
                until(&mut served.socket, ">");
            }
            say(&mut served.socket, hello);
            shutdown(&served.host, Duration::from_secs(30));
            assert_eq!(served.host.connections(), 0);
            let mut rest = Vec::new();
            let _reset = served.socket.read_to_end(&mut rest);
            assert!(rest.is_empty(), "{rest:?}");
            let _aborted = served.end();
        }
    });
}
