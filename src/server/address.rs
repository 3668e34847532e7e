//! The `to` of a stanza, read (RFC 7622, STZ-5, LIMIT-24).

use jid::{BareJid, ResourcePart};

/// Where a stanza is addressed to.
///
/// The resource of a JID at another domain is kept as it was written: what is a valid one is for
/// that domain to say.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) bare: BareJid,
    pub(crate) resource: Option<Box<str>>,
}

/// The text is not a JID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The most bytes that a part of a JID may have (RFC 7622 §3.2–§3.4).
const PART: usize = 1023;

impl Address {
    pub(crate) fn parse(text: &str, is_local: impl Fn(&str) -> bool) -> Result<Self, Malformed> {
        let (bare, resource) = match text.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (text, None),
        };
        // One trailing dot belongs to no domain part (RFC 7622 §3.2), and `jid` would mis-split it.
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        let bare = BareJid::new(bare).map_err(|_| Malformed)?;
        let resource = match resource {
            None => None,
            Some("") => return Err(Malformed),
            Some(text) if is_local(bare.as_str()) => {
                Some(ResourcePart::new(text).map_err(|_| Malformed)?.as_str().into())
            }
            Some(text) if text.len() <= PART => Some(text.into()),
            Some(_) => return Err(Malformed),
        };
        Ok(Self { bare, resource })
    }

    /// The normalised text.
    pub(crate) fn to_text(&self) -> String {
        match &self.resource {
            None => self.bare.as_str().to_owned(),
            Some(resource) => format!("{}/{resource}", self.bare),
        }
    }

    /// Whether it names an account, not a domain.
    pub(crate) fn is_account(&self) -> bool {
        self.bare.node().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<String> {
        Address::parse(text, |bare| bare.ends_with("example.com")).ok().map(|a| a.to_text())
    }

    #[test]
    fn stz_5_what_is_no_jid_is_malformed() {
        for text in
            ["", "@example.com", "a@", "a@example.com/", "a b@example.com", "a@b@example.com", "/r"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn stz_5_addresses_are_normalised() {
        assert_eq!(
            parse("Juliet@Example.COM/Balcony").as_deref(),
            Some("juliet@example.com/Balcony")
        );
        assert_eq!(parse("user@example.com./res").as_deref(), Some("user@example.com/res"));
        assert_eq!(parse("example.com").as_deref(), Some("example.com"));
    }

    #[test]
    fn limit_24_parts_have_1023_bytes() {
        let fits = format!("a@example.com/{}", "r".repeat(1023));
        assert_eq!(parse(&fits).as_deref(), Some(&*fits));
        assert_eq!(parse(&format!("a@example.com/{}", "r".repeat(1024))), None);
        assert_eq!(parse(&format!("a@remote.example/{}", "r".repeat(1024))), None);
        assert_eq!(parse(&format!("{}@example.com", "n".repeat(1024))), None);
    }

    #[test]
    fn a_remote_resource_stays_as_it_was_written() {
        assert_eq!(parse("room@remote.example/🦊").as_deref(), Some("room@remote.example/🦊"));
        assert_eq!(parse("a@example.com/🦊"), None);
    }
}
