//! How canonical bytes look (STREAM-15), apart from their namespaces.

use crate::stanza::escape::{TEXT_REFERENCES, VALUE_REFERENCES};

/// Whether the bytes of an accepted payload, whose names are ASCII, may be passed on as they came: no CDATA,
/// only the references that are needed, and no white space that parsers change.
///
/// The payload is known to be well-formed and to hold no comments and no processing
/// instructions, so that quotes and angle brackets say where in the markup a byte stands.
pub(super) fn is_canonical(payload: &[u8]) -> bool {
    let mut place = State::Text;
    let mut rest = payload;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        place = match (place, byte) {
            (_, b'\r') => return false,
            (State::Text, b'<') if after.starts_with(b"!") => return false,
            (State::Text, b'<') => State::Tag,
            (State::Tag, b'>') => State::Text,
            (State::Tag, b'\'' | b'"') => State::Value(byte),
            (State::Value(quote), _) if quote == byte => State::Tag,
            (State::Value(_), b'\t' | b'\n') => return false,
            (State::Text | State::Value(_), b'&') => {
                let known: &[&[u8]] =
                    if place == State::Text { &TEXT_REFERENCES } else { &VALUE_REFERENCES };
                match known.iter().find_map(|reference| after.strip_prefix(*reference)) {
                    Some(after) => rest = after,
                    None => return false,
                }
                place
            }
            _ => place,
        };
    }
    true
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    Tag,
    Value(u8),
}
