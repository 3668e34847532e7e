//! The XML declaration before a header.

use super::StreamCondition;

/// Longest declaration that is read, in bytes.
const LONGEST: usize = 256;

/// Reads the declaration that `input`, which starts with `<?`, starts with. The number of its
/// bytes, or `None` while more are needed.
///
/// Not left to `rxml`, which refuses `standalone='no'` (STREAM-22).
pub(super) fn read(input: &[u8]) -> Result<Option<usize>, StreamCondition> {
    const START: &[u8] = b"<?xml";
    if let [name @ .., after] = input.get(..=START.len()).unwrap_or(input) {
        let is_declaration = match name.len() == START.len() {
            true => name == START && after.is_ascii_whitespace(),
            false => START.starts_with(input),
        };
        if !is_declaration {
            return Err(StreamCondition::RestrictedXml);
        }
    }
    let end = input.windows(2).take(LONGEST).position(|pair| pair == b"?>");
    let Some(end) = end else {
        return if input.len() > LONGEST { Err(StreamCondition::NotWellFormed) } else { Ok(None) };
    };
    let inside = input.get(START.len()..end).unwrap_or_default();
    check(inside)?;
    Ok(Some(end + 2))
}

/// Checks what is between `<?xml` and `?>`
/// ([XML 1.0 §2.8](https://www.w3.org/TR/xml/#sec-prolog-dtd)).
fn check(mut inside: &[u8]) -> Result<(), StreamCondition> {
    let mut expected = ["version", "encoding", "standalone"].into_iter();
    let mut versions = 0;
    while !inside.trim_ascii().is_empty() {
        let (name, value, rest) = attribute(inside).ok_or(StreamCondition::NotWellFormed)?;
        if !expected.any(|expected| name == expected.as_bytes()) {
            return Err(StreamCondition::NotWellFormed);
        }
        match name {
            b"version" if value == b"1.0" => versions += 1,
            b"encoding" if value.eq_ignore_ascii_case(b"utf-8") => {}
            // STREAM-21
            b"encoding" => return Err(StreamCondition::UnsupportedEncoding),
            // STREAM-22: either value is ignored.
            b"standalone" if matches!(value, b"yes" | b"no") => {}
            _ => return Err(StreamCondition::NotWellFormed),
        }
        inside = rest;
    }
    if versions == 1 { Ok(()) } else { Err(StreamCondition::NotWellFormed) }
}

/// Name and value of the attribute at the front, after white space, and what follows it.
fn attribute(input: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let trimmed = input.trim_ascii_start();
    if trimmed.len() == input.len() {
        return None;
    }
    let equals = trimmed.iter().position(|&byte| byte == b'=')?;
    let (name, rest) = trimmed.split_at_checked(equals)?;
    let (quote, rest) = rest.get(1..)?.trim_ascii_start().split_first()?;
    if !matches!(quote, b'\'' | b'"') {
        return None;
    }
    let end = rest.iter().position(|byte| byte == quote)?;
    Some((name.trim_ascii_end(), rest.get(..end)?, rest.get(end + 1..)?))
}
