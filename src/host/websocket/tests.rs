use proptest::prelude::*;

use super::frames::{Broken, Piece, Reader};

/// What a reader made of frames: its messages, in one piece each, and what else came.
#[derive(Debug, Default, PartialEq)]
struct Read {
    messages: Vec<Vec<u8>>,
    begun: Vec<u8>,
    pings: Vec<Vec<u8>>,
    closed: Option<Option<u16>>,
    broken: Option<Broken>,
}

/// The bytes in chunks of these lengths, over and over.
fn read(bytes: &[u8], chunks: &[usize]) -> Read {
    let (mut reader, mut read) = (Reader::default(), Read::default());
    let (mut rest, mut lengths) = (bytes.to_vec(), chunks.iter().cycle());
    while !rest.is_empty() {
        let length = lengths.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
        let mut chunk: Vec<u8> = rest.drain(..length).collect();
        let result = reader.read(&mut chunk, 1_000, |piece| match piece {
            Piece::Text(bytes, is_last) => {
                read.begun.extend_from_slice(bytes);
                if is_last {
                    read.messages.push(std::mem::take(&mut read.begun));
                }
            }
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
        let messages = texts.into_iter().map(|(text, _)| text.into_bytes()).collect();
        let expected = Read { messages, pings, closed: Some(Some(1000)), ..Read::default() };
        prop_assert_eq!(read(&bytes, &chunks), expected);
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
