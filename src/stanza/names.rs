//! Which names are written (STREAM-15). XML 1.0 allows more of them since its fifth edition, and
//! parsers of the fourth end a stream at these; ASCII is the same in both.

use super::runs::{URI_BYTE, is_uri_byte, run};

/// Whether a name or a prefix, which is known to be one, may be written.
pub(super) fn is_portable(name: &str) -> bool {
    name.is_ascii()
}

/// Whether a namespace may be declared: nothing in it that no URI holds
/// ([RFC 3986 §2](https://www.rfc-editor.org/rfc/rfc3986#section-2)). Parsers join a namespace and a
/// name with a character of that sort, and expat refuses a namespace in which it stands.
pub(super) fn is_namespace(name: &str) -> bool {
    // A look-up costs a fraction of the comparisons.
    let usual = run(name.as_bytes(), URI_BYTE);
    name.bytes().skip(usual).all(is_uri_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_15_a_namespace_is_made_of_what_uris_hold() {
        for byte in 0..=u8::MAX {
            let may_be = byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
            assert_eq!(is_uri_byte(byte), may_be, "{byte:#x}");
        }
        assert!(is_namespace("") && is_namespace("http://jabber.org/protocol/pubsub#event"));
        assert!(!is_namespace("urn:a b") && !is_namespace("urn:\u{e9}"));
    }
}
