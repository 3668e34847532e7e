//! How canonical bytes look (STREAM-15), apart from their namespaces.

/// Whether the bytes of an accepted payload, whose names are ASCII, may be passed on as they came: no CDATA, only the references that are needed, and no white space that parsers change.
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
                let only_in_values: &[&[u8]] =
                    if place == State::Text { &[] } else { &VALUE_REFERENCES };
                let Some(after) = REFERENCES
                    .iter()
                    .chain(only_in_values)
                    .find_map(|reference| after.strip_prefix(*reference))
                else {
                    return false;
                };
                rest = after;
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

const REFERENCES: [&[u8]; 6] = [b"amp;", b"lt;", b"gt;", b"apos;", b"quot;", b"#xD;"];
const VALUE_REFERENCES: [&[u8]; 2] = [b"#x9;", b"#xA;"];
