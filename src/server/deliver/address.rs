//! The `to` of a stanza, read (RFC 7622, STZ-5, LIMIT-24).

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use jid::BareJid;

use crate::address::{InvalidAddress, bare, foreign_resource, parts, resource};
use crate::session::{Account, AccountKey, Hash};

/// Where a stanza is addressed to.
///
/// The resource of a JID at another domain is kept as it was written: that domain says which are valid.
#[derive(Clone)]
pub(crate) struct Address<'a> {
    pub(crate) bare: Bare,
    /// Of the bare JID; computed once for a stanza.
    hash: Hash,
    pub(crate) resource: Option<Cow<'a, str>>,
}

/// The bare JID of an address. An account that has sessions has it already, and is found by it.
#[derive(Clone)]
pub(crate) enum Bare {
    Known(Arc<Account>),
    Jid(BareJid),
}

impl Deref for Bare {
    type Target = BareJid;

    fn deref(&self) -> &BareJid {
        match self {
            Self::Known(account) => &account.bare,
            Self::Jid(jid) => jid,
        }
    }
}

impl<'a> Address<'a> {
    /// `hash` is that of the text of a bare JID, and `known` finds an account that has sessions by both.
    ///
    /// Most addresses are those of such accounts, written as they are: these are only looked up. An
    /// account is in normal form, which nothing changes: a text that finds it is its normal form.
    pub(crate) fn parse(
        text: &'a str,
        hash: impl Fn(&str) -> Hash,
        known: impl Fn(AccountKey<'_>) -> Option<Arc<Account>>,
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<Self, InvalidAddress> {
        let (written, wanted) = parts(text);
        let written = AccountKey { bare: written, hash: hash(written) };
        if wanted.is_none_or(is_plain)
            && let Some(account) = known(written)
        {
            let (bare, resource) = (Bare::Known(account), wanted.map(Cow::Borrowed));
            return Ok(Self { bare, hash: written.hash, resource });
        }
        let bare = bare(written.bare)?;
        let as_written = bare.as_str() == written.bare;
        let hash = if as_written { written.hash } else { hash(bare.as_str()) };
        let resource = match wanted {
            None => None,
            Some(text) if is_plain(text) => Some(text.into()),
            Some(text) if is_ours(bare.as_str()) => Some(resource(text)?.into_inner().into()),
            Some(text) => Some(foreign_resource(text)?.into()),
        };
        Ok(Self { bare: Bare::Jid(bare), hash, resource })
    }

    /// The bare JID of an account, and its hash.
    pub(crate) const fn of(account: BareJid, hash: Hash) -> Address<'static> {
        Address { bare: Bare::Jid(account), hash, resource: None }
    }

    /// The bare JID, to be looked up.
    pub(crate) fn key(&self) -> AccountKey<'_> {
        AccountKey { bare: self.bare.as_str(), hash: self.hash }
    }

    /// The same, for work that outlives the stanza.
    pub(crate) fn to_static(&self) -> Address<'static> {
        let resource = self.resource.as_deref().map(|resource| resource.to_owned().into());
        Address { bare: self.bare.clone(), hash: self.hash, resource }
    }

    /// The normalised text.
    pub(crate) fn to_text(&self) -> String {
        match &self.resource {
            None => self.bare.as_str().to_owned(),
            Some(resource) => format!("{}/{resource}", *self.bare),
        }
    }

    /// Whether it names an account, not a domain.
    pub(crate) fn is_account(&self) -> bool {
        self.bare.node().is_some()
    }
}

/// Whether a resource is in normal form already: normalising leaves these bytes alone.
fn is_plain(resource: &str) -> bool {
    foreign_resource(resource).is_ok() && resource.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::roster::Roster;
    use crate::session::Values;

    fn hash(bare: &str) -> Hash {
        Hash::new(
            bare.bytes().fold(0, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(byte.into())),
        )
    }

    fn parse(text: &str) -> Option<String> {
        let is_ours = |bare: &str| bare.ends_with("example.com");
        Address::parse(text, hash, |_| None, is_ours).ok().map(|a| a.to_text())
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

    fn found(account: AccountKey<'_>) -> Option<Arc<Account>> {
        let jid = BareJid::new("juliet@example.com").ok()?;
        (account.bare == jid.as_str())
            .then(|| Arc::new(Account::new(jid, Roster::new(), Values::default())))
    }

    #[test]
    fn the_hash_is_that_of_the_normalised_text() {
        for text in [
            "juliet@example.com/x",
            "Juliet@example.com/x",
            "romeo@example.com.",
            "Romeo@x.example",
        ] {
            let address = Address::parse(text, hash, found, |_| true).unwrap();
            assert_eq!(address.key().hash, hash(address.bare.as_str()), "{text}");
            assert_eq!(address.to_static().key().hash, address.key().hash);
        }
    }

    #[test]
    fn an_account_that_has_sessions_is_looked_up_by_what_is_written() {
        for (text, known) in [
            ("juliet@example.com", true),
            ("juliet@example.com/Balcony@2/x", true),
            ("Juliet@example.com", false),
            ("juliet@example.com./x", false),
            ("juliet@example.com/with space", false),
            ("romeo@example.com", false),
        ] {
            let address = Address::parse(text, hash, found, |_| true).unwrap();
            assert_eq!(matches!(address.bare, Bare::Known(_)), known, "{text}");
        }
        assert!(Address::parse("juliet@example.com/", hash, found, |_| true).is_err());
    }

    proptest! {
        /// The look-up is a short cut with the same result as the parser of JIDs.
        #[test]
        fn stz_5_what_is_looked_up_is_what_would_be_parsed(
            text in "(juliet|Juliet|a)@example\\.com(/[ -~]{0,5}|/\\PC{0,3})?",
        ) {
            let looked_up = Address::parse(&text, hash, found, |_| true).ok().map(|a| a.to_text());
            let parsed = Address::parse(&text, hash, |_| None, |_| true).ok().map(|a| a.to_text());
            prop_assert_eq!(looked_up, parsed);
        }
    }
}
