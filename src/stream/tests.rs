//! Wire transcripts: what a client sends, and what a server makes of it.

mod elements;
mod header;
mod limits;
mod messages;
mod output;

use super::*;
use crate::stanza::Frame;

const OPEN: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org' version='1.0'>";

/// One event as a line.
fn line(event: &Event<'_>) -> String {
    match event {
        Event::Header(header) => {
            let version = header.version().map(|version| version.to_string());
            let shown = [
                ("to", header.to()),
                ("from", header.from()),
                ("lang", header.lang()),
                ("version", version.as_deref()),
            ];
            let shown =
                shown.into_iter().filter_map(|(name, value)| Some(format!(" {name}={}", value?)));
            format!("header{}", shown.collect::<String>())
        }
        Event::Stanza(stanza) => Frame::stanza(&stanza.stamp(stanza.from(), None)).to_string(),
        Event::Refused(refused) => {
            let stanza = refused.stanza().stamp(None, None);
            let limit = refused.limit().map_or("names", |limit| limit.id());
            format!("{} ({limit}) {}", refused.error(), Frame::stanza(&stanza))
        }
        Event::Nonza(nonza) => String::from_utf8(nonza.xml().to_vec()).expect("text"),
        Event::End => "end".to_owned(),
    }
}

/// All events that are there, and then the error, if it comes to one.
fn drain(parser: &mut Parser, lines: &mut Vec<String>) {
    loop {
        match parser.next() {
            Ok(Some(event)) => lines.push(line(&event)),
            Ok(None) => return,
            Err(error) => {
                lines.push(format!("error {error}"));
                assert!(matches!(parser.next(), Ok(None)), "nothing follows an error");
                return;
            }
        }
    }
}

/// As [`in_pieces`], without a copy where none is needed.
fn borrowed(mut parser: Parser, input: &[u8], size: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for mut piece in input.chunks(size) {
        loop {
            match parser.read(&mut piece) {
                Ok(Some(event)) => lines.push(line(&event)),
                Ok(None) => break,
                Err(error) => {
                    lines.push(format!("error {error}"));
                    return lines;
                }
            }
        }
        parser.feed(piece);
    }
    lines
}

fn in_pieces(mut parser: Parser, input: &[u8], size: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for piece in input.chunks(size) {
        parser.feed(piece);
        drain(&mut parser, &mut lines);
    }
    lines
}

/// What a new parser makes of the input, however it is cut.
fn read(input: impl AsRef<[u8]>) -> Vec<String> {
    read_with(|| Parser::new(&Limits::default()), input.as_ref())
}

/// The same for a client that has authenticated.
fn read_authenticated(input: impl AsRef<[u8]>) -> Vec<String> {
    let parser = || {
        let mut parser = Parser::new(&Limits::default());
        parser.authenticated(&Limits::default());
        parser
    };
    read_with(parser, input.as_ref())
}

fn read_with(parser: impl Fn() -> Parser, input: &[u8]) -> Vec<String> {
    let lines = in_pieces(parser(), input, input.len().max(1));
    for size in [1, 2, 3, 7, usize::MAX] {
        assert_eq!(borrowed(parser(), input, size), lines, "borrowed, in pieces of {size}");
        assert_eq!(
            in_pieces(parser(), input, size),
            lines,
            "in pieces of {size}: {:?}",
            String::from_utf8_lossy(input)
        );
    }
    lines
}

/// The last line.
fn outcome(input: impl AsRef<[u8]>) -> String {
    read(input).pop().unwrap_or_default()
}

/// What becomes of an element behind a header.
fn within(xml: impl AsRef<[u8]>) -> String {
    let mut lines = read([OPEN.as_bytes(), xml.as_ref()].concat());
    lines.drain(..1);
    lines.join("\n")
}
