use proptest::prelude::*;

use super::frames::{Broken, Piece, Reader};

/// What a reader made of frames: its messages, and what else came.
#[derive(Debug, Default, PartialEq)]
struct Read {
    messages: Vec<String>,
    pings: Vec<Vec<u8>>,
    /// All bytes that were counted.
    counted: usize,
    closed: Option<Option<u16>>,
    broken: Option<Broken>,
}

const LONGEST: usize = 1_000;

/// The bytes in chunks of these lengths, over and over.
fn read(bytes: &[u8], chunks: &[usize]) -> Read {
    let (mut reader, mut read) = (Reader::default(), Read::default());
    let (mut rest, mut lengths) = (bytes.to_vec(), chunks.iter().cycle());
    while !rest.is_empty() {
        let length = lengths.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
        let chunk: Vec<u8> = rest.drain(..length).collect();
        let result = reader.read(&chunk, LONGEST, |piece| match piece {
            Piece::Text(text) => {
                read.counted += text.len();
                read.messages.push(text.as_str().to_owned());
            }
            Piece::Overhead(bytes) => read.counted += bytes,
            Piece::Ping(payload) => read.pings.push(payload.to_vec()),
            Piece::Close(status) => read.closed = Some(status),
        });
        if let Err(broken) = result {
            assert_eq!(read.broken, None, "once");
            read.broken = Some(broken);
        }
    }
    read
}

fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ ..=125 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

proptest! {
    /// Messages in any fragments, with pings between them, in any chunks.
    #[test]
    fn ws_17_messages_are_the_same_in_any_chunks(
        texts in prop::collection::vec((".{0,60}", prop::collection::vec(0..9usize, 1..5)), 0..4),
        mask in any::<[u8; 4]>(),
        chunks in prop::collection::vec(1..40usize, 1..5),
    ) {
        let (mut bytes, mut pings) = (Vec::new(), Vec::new());
        for (text, lengths) in &texts {
            let (mut rest, mut first) = (text.as_bytes(), 0x01);
            for length in lengths {
                let (now, later) = rest.split_at((*length).min(rest.len()));
                bytes.extend(frame(first, mask, now));
                bytes.extend(frame(0x89, mask, now));
                pings.push(now.to_vec());
                (rest, first) = (later, 0x00);
            }
            bytes.extend(frame(0x80, mask, rest));
        }
        bytes.extend(frame(0x88, mask, &1000_u16.to_be_bytes()));
        bytes.extend(frame(0x81, mask, b"behind the end"));
        let messages: Vec<_> = texts.into_iter().map(|(text, _)| text).collect();
        let read = read(&bytes, &chunks);
        prop_assert_eq!((&read.messages, &read.pings), (&messages, &pings));
        prop_assert_eq!((read.closed, read.broken), (Some(Some(1000)), None));
    }

    /// Bytes that are none of that.
    #[test]
    fn ws_17_whatever_comes_is_read_the_same_in_any_chunks(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        begins in any::<bool>(),
        chunks in prop::collection::vec(1..40usize, 1..5),
    ) {
        if begins {
            bytes.splice(0..0, frame(0x01, [7; 4], b"<message"));
        }
        let (whole, parts) = (read(&bytes, &[usize::MAX]), read(&bytes, &chunks));
        prop_assert_eq!((&whole.messages, &whole.pings), (&parts.messages, &parts.pings));
        prop_assert_eq!((whole.closed, whole.broken), (parts.closed, parts.broken));
    }
}

#[test]
fn ws_11_whatever_arrives_is_counted() {
    // What is no part of a message at once, or once it is more than a message may be.
    let mut reader = Reader::default();
    let (empty, ping) = (frame(0x00, [0; 4], b""), frame(0x89, [0; 4], b"ping"));
    let mut counted = 0;
    let mut count = |bytes: &[u8], reader: &mut Reader| {
        let read = reader.read(bytes, LONGEST, |piece| {
            counted += match piece {
                Piece::Text(text) => text.len(),
                Piece::Overhead(bytes) => bytes,
                Piece::Ping(_) | Piece::Close(_) => 0,
            }
        });
        read.unwrap();
        counted
    };
    assert_eq!(count(&ping, &mut reader), ping.len());
    let mut sent = ping.len();
    for bytes in [frame(0x01, [0; 4], b"text")].iter().chain(vec![&empty; 500]) {
        sent += bytes.len();
        assert!(sent - count(bytes, &mut reader) <= LONGEST);
    }
    sent += ping.len();
    assert!(sent - count(&ping, &mut reader) <= LONGEST);
}

#[test]
fn ws_17_nothing_is_kept_between_messages() {
    let mut reader = Reader::default();
    let message = frame(0x81, [1, 2, 3, 4], &[b'x'; 900]);
    let mut texts = 0;
    for chunk in [&message[..10], &message[10..], &[&message[..], &message].concat()] {
        let count = |piece| texts += usize::from(matches!(piece, Piece::Text(_)));
        reader.read(chunk, LONGEST, count).unwrap();
        assert_eq!(reader.is_idle(), texts > 0);
    }
    assert_eq!(texts, 3);
}
