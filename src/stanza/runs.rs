//! Bytes by class, and how far a run of one class goes.

/// How many bytes at the beginning are of a class.
#[expect(clippy::indexing_slicing, reason = "a byte is an index into 256 entries")]
#[inline]
pub(super) fn run(bytes: &[u8], class: u8) -> usize {
    count(bytes, |byte| CLASSES[usize::from(byte)] & class != 0)
}

/// How many bytes there are before the first of that value.
#[inline]
pub(super) fn before(bytes: &[u8], end: u8) -> usize {
    count(bytes, |byte| byte != end)
}

/// How many bytes at the beginning are so. Of eight together the end of all is looked for once.
#[inline]
fn count(bytes: &[u8], are: impl Fn(u8) -> bool) -> usize {
    let (pieces, rest) = bytes.as_chunks::<8>();
    let mut count = 0;
    for piece in pieces {
        for (at, &byte) in piece.iter().enumerate() {
            if !are(byte) {
                return count + at;
            }
        }
        count += piece.len();
    }
    count + rest.iter().position(|&byte| !are(byte)).unwrap_or(rest.len())
}

/// The same for text, which may be long: several bytes at a time while none of them is special,
/// then byte by byte. Out of line: within the loop of its caller it costs that loop registers.
#[inline(never)]
pub(super) fn text_run(bytes: &[u8]) -> usize {
    let (pieces, _) = bytes.as_chunks::<AT_ONCE>();
    let is_plain = |piece: &&[u8; AT_ONCE]| {
        // In two, since the compiler makes less of more at once.
        let first = any(piece, |byte| (byte < b' ') | (byte == b'<') | (byte == b'>'));
        first | any(piece, |byte| (byte == b'&') | (byte == HIGH)) == 0
    };
    let plain = AT_ONCE * pieces.iter().take_while(is_plain).count();
    plain + run(bytes.get(plain..).unwrap_or_default(), TEXT)
}

/// Whether all bytes are of [`PLAIN_BYTE`].
#[inline]
pub(super) fn is_all_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<AT_ONCE>() else {
        return run(bytes, PLAIN_BYTE) == bytes.len();
    };
    let is_plain = |piece: &[u8; AT_ONCE]| {
        let first = any(piece, |byte| (byte < b' ') | (byte == b'<') | (byte == b'>'));
        first | any(piece, |byte| (byte == b'&') | (byte == b'\'') | (byte == HIGH)) == 0
    };
    let (pieces, _) = bytes.as_chunks::<AT_ONCE>();
    // The last piece may overlap with the one before.
    is_plain(last) && pieces.iter().all(is_plain)
}

/// Bytes that are looked at together.
const AT_ONCE: usize = 16;

/// Whether any byte is so: not 0. Without an early exit and without branches, this becomes a few vector instructions.
#[inline]
fn any(piece: &[u8; AT_ONCE], is_special: impl Fn(u8) -> bool) -> u8 {
    piece.iter().fold(0, |any, &byte| any | u8::from(is_special(byte)))
}

/// The byte that starts U+FFFE and U+FFFF, which XML excludes, and others.
pub(super) const HIGH: u8 = 0xEF;

pub(super) const NAME_BYTE: u8 = 1;
/// In text, where nothing begins or ends.
const TEXT: u8 = 2;
/// In values of either quotes, likewise.
pub(super) const VALUE_BYTE: u8 = 4;
/// In values of either quotes that are namespaces.
pub(in crate::stanza) const URI_BYTE: u8 = 8;
/// At which no character starts that is written otherwise.
pub(in crate::stanza) const PLAIN_BYTE: u8 = 16;
/// In a tag, at which neither it ends nor a value begins.
pub(super) const TAG_BYTE: u8 = 32;
/// Of a name in a tag, prefix and all.
pub(super) const WORD_BYTE: u8 = 64;

/// Bytes at which a character may start that is not written as it is.
const fn may_need_escape(byte: u8) -> bool {
    matches!(byte, 0..=0x1F | b'&' | b'<' | b'>' | b'\'' | HIGH)
}

pub(super) const fn is_uri_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~')
}

#[expect(clippy::indexing_slicing, reason = "a byte is an index into 256 entries")]
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        let mut class = 0;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            class |= NAME_BYTE;
        }
        if byte >= b' ' && !matches!(byte, b'<' | b'>' | b'&' | HIGH) {
            class |= TEXT;
            if !matches!(byte, b'\'' | b'"') {
                class |= VALUE_BYTE;
            }
        }
        if is_uri_byte(byte) && !matches!(byte, b'&' | b'\'') {
            class |= URI_BYTE;
        }
        if !may_need_escape(byte) {
            class |= PLAIN_BYTE;
        }
        if !matches!(byte, b'>' | b'\'' | b'"') {
            class |= TAG_BYTE;
        }
        if !byte.is_ascii_whitespace() {
            class |= WORD_BYTE;
        }
        if matches!(byte, b'\t' | b'\n') {
            class |= TEXT;
        }
        classes[byte as usize] = class;
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};
