//! Character data of the canonical form (STREAM-15): escaping, and resolving references.

use std::borrow::Cow;

use super::runs::{PLAIN_BYTE, is_all_plain, run};

/// Where a piece of character data stands: white space is kept as it is in text only, since
/// parsers turn it into spaces in attribute values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Attribute,
    Text,
}

/// The escaped form of a string, as a sequence of pieces: nothing is copied or allocated.
///
/// Characters that XML 1.0 cannot hold at all become U+FFFD.
#[derive(Clone, Debug)]
pub(super) struct Escaped<'a> {
    rest: &'a str,
    pending: Option<&'static str>,
    place: Context,
}

impl<'a> Escaped<'a> {
    pub(super) const fn new(raw: &'a str, place: Context) -> Self {
        Self { rest: raw, pending: None, place }
    }

    /// Bytes of all pieces together.
    pub(super) fn len(self) -> usize {
        self.map(str::len).sum()
    }
}

impl<'a> Iterator for Escaped<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if let Some(replacement) = self.pending.take() {
            return Some(replacement);
        }
        let mut seen = 0;
        loop {
            let unseen = self.rest.as_bytes().get(seen..).unwrap_or_default();
            let at = seen + run(unseen, PLAIN_BYTE);
            let tail = self.rest.get(at..)?;
            if tail.is_empty() {
                let plain = std::mem::take(&mut self.rest);
                return (!plain.is_empty()).then_some(plain);
            }
            let Some((replaced, replacement)) = replacement(tail, self.place) else {
                seen = at + 1;
                continue;
            };
            let plain = self.rest.get(..at)?;
            self.rest = tail.get(replaced..)?;
            if plain.is_empty() {
                return Some(replacement);
            }
            self.pending = Some(replacement);
            return Some(plain);
        }
    }
}

/// Whether nothing in the text is escaped, wherever it stands.
#[inline(always)]
pub(super) fn is_plain(text: &str) -> bool {
    is_all_plain(text.as_bytes())
}

/// How the first character of `tail` is written if not as it is, and its length in bytes.
fn replacement(tail: &str, place: Context) -> Option<(usize, &'static str)> {
    let first = tail.chars().next()?;
    let written = match first {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '\r' => "&#xD;",
        '\t' | '\n' | '\'' if place == Context::Text => return None,
        // Values stand between apostrophes.
        '\'' => "&apos;",
        '\t' => "&#x9;",
        '\n' => "&#xA;",
        '\0'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}' => "\u{FFFD}",
        _ => return None,
    };
    Some((first.len_utf8(), written))
}

/// The references of the canonical form, without their `&`.
pub(super) const TEXT_REFERENCES: [&[u8]; 6] =
    [b"amp;", b"lt;", b"gt;", b"apos;", b"quot;", b"#xD;"];
pub(super) const VALUE_REFERENCES: [&[u8]; 8] =
    [b"amp;", b"lt;", b"gt;", b"apos;", b"quot;", b"#xD;", b"#x9;", b"#xA;"];

/// Resolves the references in canonical character data. What is no reference stays as it is.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    let Some((plain, mut rest)) = raw.split_once('&') else {
        return Cow::Borrowed(raw);
    };
    let mut text = String::with_capacity(raw.len());
    text.push_str(plain);
    loop {
        match rest.split_once(';').and_then(|(name, after)| Some((resolve(name)?, after))) {
            Some((character, after)) => {
                text.push(character);
                rest = after;
            }
            None => text.push('&'),
        }
        let Some((plain, after)) = rest.split_once('&') else {
            text.push_str(rest);
            return Cow::Owned(text);
        };
        text.push_str(plain);
        rest = after;
    }
}

fn resolve(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            code.ok().and_then(char::from_u32)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escape(raw: &str, place: Context) -> String {
        let written: String = Escaped::new(raw, place).collect();
        assert_eq!(Escaped::new(raw, place).len(), written.len());
        written
    }

    #[test]
    fn stream_15_text_and_attribute_values_are_escaped() {
        let raw = "a&b<c>d'e\"f\tg\nh\ri";
        assert_eq!(escape(raw, Context::Text), "a&amp;b&lt;c&gt;d'e\"f\tg\nh&#xD;i");
        assert_eq!(
            escape(raw, Context::Attribute),
            "a&amp;b&lt;c&gt;d&apos;e\"f&#x9;g&#xA;h&#xD;i"
        );
        assert_eq!(escape("", Context::Text), "");
        assert_eq!(escape("&&", Context::Text), "&amp;&amp;");
    }

    #[test]
    fn stream_15_characters_outside_xml_are_replaced() {
        assert_eq!(
            escape("a\u{0}b\u{1F}\u{FFFE}\u{FFFF}c", Context::Text),
            "a\u{FFFD}b\u{FFFD}\u{FFFD}\u{FFFD}c"
        );
        let others = "\u{FFFD}\u{FF21}\u{7F}\u{10FFFF}é";
        assert_eq!(escape(others, Context::Attribute), others);
    }

    #[test]
    fn what_is_no_reference_stays() {
        for text in ["&", "&;", "&nbsp;", "a & b; c", "&#xD800;", "&#x110000;", "&amp"] {
            assert_eq!(unescape(text), text);
        }
        assert_eq!(unescape("&#x41;&#66;&lt;&&gt;"), "AB<&>");
        assert!(matches!(unescape("plain"), Cow::Borrowed("plain")));
    }

    proptest! {
        #[test]
        fn stream_15_escaping_loses_nothing(raw in "[^\u{0}-\u{8}\u{B}\u{C}\u{E}-\u{1F}\u{FFFE}\u{FFFF}]*") {
            for place in [Context::Text, Context::Attribute] {
                let written = escape(&raw, place);
                prop_assert_eq!(unescape(&written), raw.as_str());
            }
        }

        #[test]
        fn stream_15_no_string_breaks_out(raw in any::<String>()) {
            let written = escape(&raw, Context::Attribute);
            prop_assert!(!written.contains(['<', '>', '\'', '\t', '\r', '\n']));
        }
    }
}
