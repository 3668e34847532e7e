//! Texts as PostgreSQL can keep them: it has no U+0000, and an index has no long keys.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Stands before what `text` writes otherwise. XML has no such character, so that ordinary texts look like themselves.
const MARK: char = '\u{1a}';

/// How long a key may be. Two of them fit into an entry of an index, which may have 2704 bytes.
const LONGEST: usize = 1000;

/// A text with U+0000 written otherwise.
pub(super) fn text(text: &str) -> String {
    if !text.contains(['\0', MARK]) {
        return text.to_owned();
    }
    let mut written = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => written.extend([MARK, '0']),
            MARK => written.extend([MARK, MARK]),
            c => written.push(c),
        }
    }
    written
}

/// What `text` was given.
pub(super) fn read(written: String) -> String {
    if !written.contains(MARK) {
        return written;
    }
    let mut text = String::with_capacity(written.len());
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            MARK => match chars.next() {
                Some('0') => '\0',
                other => other.unwrap_or(MARK),
            },
            c => c,
        });
    }
    text
}

/// A text as a key.
pub(super) struct Key {
    /// The text, or its beginning and a digest.
    pub(super) key: String,
    /// The text, where the key is not.
    pub(super) whole: Option<String>,
}

impl Key {
    pub(super) fn new(of: &str) -> Self {
        let whole = text(of);
        if whole.len() <= LONGEST {
            return Self { key: whole, whole: None };
        }
        let end = (0..=LONGEST - 100).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
        let mut key = whole.get(..end).unwrap_or_default().to_owned();
        // No other text is written like this: behind a mark comes another one, or 0.
        key.extend([MARK, '#']);
        for byte in Sha256::digest(&whole) {
            let _infallible = write!(key, "{byte:02x}");
        }
        Self { key, whole: Some(whole) }
    }
}

pub(super) fn key(of: &str) -> String {
    Key::new(of).key
}

/// A number for what may be changed by one only: the same for every server.
pub(super) fn number(kind: &str, name: &str) -> i64 {
    let digest = Sha256::new().chain_update(kind).chain_update(b"\0").chain_update(name).finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jid_6_texts_come_back_as_they_were() {
        for one in ["", "a", "\0", "\u{1a}", "\u{1a}0", "a\0\u{1a}\u{1a}#0b", "☃\0"] {
            let written = text(one);
            assert!(!written.contains('\0'));
            assert_eq!(read(written), one);
        }
    }

    #[test]
    fn jid_6_long_texts_have_short_keys_of_their_own() {
        for c in ["x", "☃", "\0"] {
            let [one, other] = ["1", "2"].map(|end| Key::new(&(c.repeat(1100) + end)));
            assert!(one.key.len() <= LONGEST && one.key != other.key);
            assert_eq!(read(one.whole.unwrap()), c.repeat(1100) + "1");
        }
        let short = Key::new(&"x".repeat(LONGEST));
        assert!(short.whole.is_none() && short.key.len() == LONGEST);
    }
}
