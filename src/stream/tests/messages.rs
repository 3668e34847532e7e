//! RFC 7395: each element is a message.

use super::*;
use crate::stanza::Framing;

const OPEN: &str =
    "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.org' version='1.0'/>";
const CLOSE: &str = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
const HEADER: &str = "header to=example.org version=1.0";

/// Feeds a message in pieces of this size.
fn feed(parser: &mut Parser, message: &[u8], size: usize, is_open_ended: bool) {
    let pieces: Vec<&[u8]> = message.chunks(size).collect();
    for (at, piece) in pieces.iter().enumerate() {
        parser.feed_message(piece, !is_open_ended && at + 1 == pieces.len());
    }
    if is_open_ended || pieces.is_empty() {
        parser.feed_message(b"", true);
    }
}

fn parser(is_authenticated: bool) -> Parser {
    let mut parser = Parser::with_framing(&Limits::default(), Framing::Message);
    if is_authenticated {
        parser.authenticated(&Limits::default());
    }
    parser
}

/// What a new parser makes of these messages, however they are fragmented, and whether they are
/// read as they come or later.
fn read_messages(is_authenticated: bool, messages: &[&[u8]]) -> Vec<String> {
    let read = |size, is_open_ended, later: bool| {
        let mut parser = parser(is_authenticated);
        let mut lines = Vec::new();
        for message in messages {
            feed(&mut parser, message, size, is_open_ended);
            if !later {
                drain(&mut parser, &mut lines);
            }
        }
        drain(&mut parser, &mut lines);
        lines
    };
    let lines = read(usize::MAX, false, false);
    for size in [1, 2, 3, 7, usize::MAX] {
        for (is_open_ended, later) in [(false, false), (true, false), (false, true), (true, true)] {
            let shown: Vec<_> = messages.iter().map(|one| String::from_utf8_lossy(one)).collect();
            assert_eq!(read(size, is_open_ended, later), lines, "in pieces of {size}: {shown:?}");
        }
    }
    lines
}

/// What becomes of a message behind `<open/>`, before authentication and after it.
fn within(message: impl AsRef<[u8]>) -> String {
    let [before, after] = [false, true].map(|is_authenticated| {
        let mut lines = read_messages(is_authenticated, &[OPEN.as_bytes(), message.as_ref()]);
        assert_eq!(lines.remove(0), HEADER);
        lines.join("\n")
    });
    assert_eq!(before, after, "authenticated or not");
    after
}

/// What becomes of the first message.
fn first(message: impl AsRef<[u8]>) -> String {
    read_messages(false, &[message.as_ref()]).join("\n")
}

#[test]
fn ws_2_a_message_is_one_element() {
    let lines = read_messages(
        true,
        &[
            OPEN.as_bytes(),
            b"<message xmlns='jabber:client' to='a'><body>1</body></message>",
            b"<x:message xmlns:x='jabber:client'><x:body>2</x:body></x:message>",
            b"<r xmlns='urn:xmpp:sm:3'/>",
            b"<presence xmlns=\"jabber:client\"/>",
            CLOSE.as_bytes(),
            b"<late/>",
        ],
    );
    assert_eq!(
        lines,
        [
            HEADER,
            "<message to='a'><body>1</body></message>",
            "<message><body>2</body></message>",
            "<r xmlns='urn:xmpp:sm:3'/>",
            "<presence/>",
            "end",
        ]
    );
}

#[test]
fn ws_2_what_is_not_one_element() {
    const STANZA: &str = "<presence xmlns='jabber:client'/>";
    for (message, condition) in [
        (" ", "bad-format"),
        ("\n<presence xmlns='jabber:client'/>", "bad-format"),
        ("", "not-well-formed"),
        ("text", "not-well-formed"),
        ("\u{FEFF}<presence xmlns='jabber:client'/>", "not-well-formed"),
        ("<", "not-well-formed"),
        ("<presence", "not-well-formed"),
        ("<presence xmlns='jabber:client'>", "not-well-formed"),
        ("<x xmlns='urn:x'><y>", "not-well-formed"),
        ("</presence>", "not-well-formed"),
        ("</stream:stream>", "not-well-formed"),
        ("<![CDATA[x]]>", "restricted-xml"),
        ("<?xml version='1.0'?><presence xmlns='jabber:client'/>", "restricted-xml"),
        ("<?x y?><presence xmlns='jabber:client'/>", "restricted-xml"),
        ("<!-- x --><presence xmlns='jabber:client'/>", "restricted-xml"),
        ("<!DOCTYPE x><presence xmlns='jabber:client'/>", "restricted-xml"),
    ] {
        assert_eq!(within(message), format!("error {condition}"), "{message:?}");
    }
    for (more, condition) in [
        (STANZA, "not-well-formed"),
        (CLOSE, "not-well-formed"),
        ("text", "not-well-formed"),
        ("</presence>", "not-well-formed"),
        ("<![CDATA[x]]>", "restricted-xml"),
        ("<!-- x -->", "restricted-xml"),
        ("<?x y?>", "restricted-xml"),
    ] {
        // Nothing of such a message has an effect.
        for space in ["", " \n"] {
            let message = format!("{STANZA}{space}{more}");
            assert_eq!(within(&message), format!("error {condition}"), "{message}");
        }
    }
    assert_eq!(within(format!("{STANZA} \r\n\t")), "<presence/>");
}

#[test]
fn ws_2_bytes_that_are_no_text() {
    assert_eq!(
        within(b"<presence xmlns='jabber:client'>\xFF</presence>"),
        "error unsupported-encoding"
    );
    assert_eq!(within(b"\xFF"), "error unsupported-encoding");
    assert_eq!(within(b"\0"), "error not-well-formed");
    for (what, condition) in [
        (BrokenMessage::Binary, "not-well-formed"),
        (BrokenMessage::NotUtf8, "unsupported-encoding"),
        (BrokenMessage::TooLong, "policy-violation (LIMIT-4)"),
    ] {
        let (mut parser, mut lines) = (parser(true), Vec::new());
        feed(&mut parser, OPEN.as_bytes(), usize::MAX, false);
        parser.feed_message(b"<presence xmlns=", false);
        parser.feed_broken(what);
        parser.feed_message(b"<presence xmlns='jabber:client'/>", true);
        drain(&mut parser, &mut lines);
        drain(&mut parser, &mut lines);
        assert_eq!(lines, [HEADER.to_owned(), format!("error {condition}")]);
    }
}

#[test]
fn ws_3_a_stream_begins_with_open() {
    let named = OPEN.replace(" to=", " xml:lang='de' id='x' from='a&amp;b@c' to=");
    assert_eq!(first(&named), "header to=example.org from=a&b@c lang=de version=1.0");
    assert_eq!(first(OPEN.replace("/>", "></open>")), HEADER);
    assert_eq!(first("<f:open xmlns:f='urn:ietf:params:xml:ns:xmpp-framing'/>"), "header");
    let long = format!(" xml:lang='{}' to=", "x".repeat(36));
    assert_eq!(first(OPEN.replace(" to=", &long)), HEADER);
    for (message, condition) in [
        ("<open/>", "invalid-namespace"),
        ("<open xmlns='jabber:client' version='1.0'/>", "invalid-namespace"),
        ("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' ", "not-well-formed"),
        ("<flow xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>", "bad-format"),
        ("<presence xmlns='jabber:client'/>", "invalid-namespace"),
        ("<presence/>", "invalid-namespace"),
        (super::OPEN, "invalid-namespace"),
        ("<?xml version='1.0'?><stream:stream", "restricted-xml"),
        ("GET / HTTP/1.1", "not-well-formed"),
    ] {
        assert_eq!(first(message), format!("error {condition}"), "{message}");
    }
}

#[test]
fn ws_3_tags_of_a_stream_in_other_namespaces() {
    for message in [
        "<open/>",
        "<open xmlns='jabber:client'/>",
        "<close/>",
        "<close xmlns='jabber:client'/>",
        super::OPEN,
        "<stream xmlns='http://etherx.jabber.org/streams'/>",
    ] {
        assert_eq!(within(message), "error invalid-namespace", "{message}");
    }
    // Whoever reads elements closes for this one (STREAM-16).
    assert_eq!(within(OPEN), OPEN);
}

#[test]
fn ws_4_nothing_is_inherited() {
    let open = OPEN.replace("<open ", "<open xmlns:x='urn:x' ");
    for message in ["<presence/>", "<message><body/></message>"] {
        let lines = read_messages(true, &[open.as_bytes(), message.as_bytes()]);
        assert_eq!(lines[1], "error invalid-namespace", "{message}");
    }
    let prefixed = b"<presence xmlns='jabber:client'><x:y/></presence>";
    assert_eq!(read_messages(true, &[open.as_bytes(), prefixed])[1], "error not-well-formed");
}

#[test]
fn ws_5_close_ends_whatever_is_open() {
    assert_eq!(first(CLOSE), "end");
    assert_eq!(within(CLOSE), "end");
    let elsewhere =
        "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing' see-other-uri='wss://example.org/'/>";
    assert_eq!(within(elsewhere), "end");
}

#[test]
fn ws_6_a_restart_expects_open_again() {
    for size in [1, usize::MAX] {
        let (mut parser, mut lines) = (parser(false), Vec::new());
        for message in [OPEN, "<auth xmlns='urn:x'/>", OPEN, "<presence xmlns='jabber:client'/>"] {
            feed(&mut parser, message.as_bytes(), size, false);
        }
        for _ in 0..2 {
            lines.push(line(&parser.next().unwrap().unwrap()));
        }
        parser.authenticated(&Limits::default());
        parser.restart(true);
        drain(&mut parser, &mut lines);
        assert_eq!(lines, [HEADER, "<auth xmlns='urn:x'/>", HEADER, "<presence/>"]);
    }
}

#[test]
fn ws_11_a_message_is_counted_as_it_arrives() {
    let message = |bytes: usize| {
        let empty = "<message xmlns='jabber:client'></message>".len();
        format!("<message xmlns='jabber:client'>{}</message>", "x".repeat(bytes - empty))
    };
    for (is_authenticated, most, limit) in [(false, 10_000, "LIMIT-2"), (true, 262_144, "LIMIT-4")]
    {
        let read = |message: &str, size| {
            let (mut parser, mut lines) = (parser(is_authenticated), Vec::new());
            feed(&mut parser, OPEN.as_bytes(), usize::MAX, false);
            feed(&mut parser, message.as_bytes(), size, false);
            drain(&mut parser, &mut lines);
            lines.pop().unwrap()
        };
        let error = format!("error policy-violation ({limit})");
        for size in [1000, usize::MAX] {
            assert!(read(&message(most), size).starts_with("<message>xx"));
            assert_eq!(read(&message(most + 1), size), error);
            let spaces = " ".repeat(most);
            assert_eq!(read(&format!("<presence xmlns='jabber:client'/>{spaces}"), size), error);
        }
        // Before its end has come, and whatever it is.
        let (mut parser, mut lines) = (parser(is_authenticated), Vec::new());
        feed(&mut parser, OPEN.as_bytes(), usize::MAX, false);
        for _ in 0..=most / 1000 {
            parser.feed_message(&[b'<'; 1000][..1], false);
            drain(&mut parser, &mut lines);
            parser.feed_message(&[b'a'; 999], false);
            if lines.len() > 1 {
                break;
            }
        }
        assert!(lines[1].starts_with("error "), "{lines:?}");
    }
    let deep = format!(
        "<message xmlns='jabber:client'>{}{}</message>",
        "<a>".repeat(64),
        "</a>".repeat(64)
    );
    let lines = read_messages(true, &[OPEN.as_bytes(), deep.as_bytes(), b"<r xmlns='urn:r'/>"]);
    assert_eq!(
        lines[1..],
        ["policy-violation (modify) (LIMIT-5) <message/>", "<r xmlns='urn:r'/>"]
    );
    let budget = Limits::default().with_bytes_before_auth(OPEN.len() + 10);
    let (mut parser, mut lines) = (Parser::with_framing(&budget, Framing::Message), Vec::new());
    feed(&mut parser, OPEN.as_bytes(), usize::MAX, false);
    feed(&mut parser, b"<starttls xmlns='urn:x'/>", usize::MAX, false);
    drain(&mut parser, &mut lines);
    assert_eq!(lines[1], "error policy-violation (LIMIT-3)");
}
