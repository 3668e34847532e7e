//! One spelling for each address ([RFC 7622](https://www.rfc-editor.org/rfc/rfc7622), rules [JID-1](crate::rules#jid-1)…6).
//!
//! Every text that becomes an address passes through here, from a peer, a host, a store or a command
//! line. The result is in normal form, which a second pass leaves unchanged; everything else is
//! refused. No part of a result is empty.
//!
//! The types are those of [`jid`], whose own constructors promise less: 132 code points come out in
//! a form that a second pass would change, some are mapped to nothing, and a domain has as many
//! spellings as it has A-labels and final dots. How `jid`, PRECIS and IDNA share the work is in
//! `docs/decisions/0010-addresses.md`. Without the feature `server` only `jid` is used, and A-labels
//! stay as they are.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use jid::{BareJid, DomainPart, FullJid, NodePart, ResourcePart};

/// The text is not an address, or not one with a stable form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid JID")]
#[non_exhaustive]
pub struct InvalidAddress;

/// The most bytes that a part may have (RFC 7622 §3.2–§3.4), and, so that what it costs to look at one
/// is bounded, that may be written for it (LIMIT-24).
const PART: usize = 1023;

const fn short_enough(text: &str) -> Result<&str, InvalidAddress> {
    if text.len() <= PART { Ok(text) } else { Err(InvalidAddress) }
}

/// A JID without resource.
///
/// # Errors
///
/// [`InvalidAddress`] if a part of it is refused.
///
/// # Examples
///
/// ```
/// use xmpp_session::address;
///
/// assert_eq!(address::bare("Juliet@Example.COM.")?.as_str(), "juliet@example.com");
/// assert!(address::bare("juliet@example.com/balcony").is_err());
/// # Ok::<(), address::InvalidAddress>(())
/// ```
pub fn bare(text: &str) -> Result<BareJid, InvalidAddress> {
    if is_plain(text) {
        return BareJid::new(text).map_err(|_| InvalidAddress);
    }
    match text.split_once('@') {
        Some((node, name)) => Ok(BareJid::from_parts(Some(&local(node)?), &domain(name)?)),
        None => Ok(domain(text)?.into()),
    }
}

/// The bare part of a JID's text, in normal form or not: what stands before the first slash.
#[inline]
pub(crate) fn bare_of(jid: &str) -> &str {
    parts(jid).0
}

/// The bare part and the resource of a JID's text, if it has one.
#[inline]
pub(crate) fn parts(jid: &str) -> (&str, Option<&str>) {
    // A search for text takes longer in so few bytes.
    let slash = jid.bytes().position(|byte| byte == b'/');
    let split = slash.and_then(|at| jid.get(..at).zip(jid.get(at + 1..)));
    split.map_or((jid, None), |(bare, resource)| (bare, Some(resource)))
}

/// The bare part of a full JID, whose parts are known: nothing is searched.
pub(crate) fn bare_of_full(jid: &FullJid) -> &str {
    let (text, resource) = (jid.as_str(), jid.resource().as_str().len() + 1);
    text.len().checked_sub(resource).and_then(|end| text.get(..end)).unwrap_or(text)
}

/// A localpart.
///
/// # Errors
///
/// [`InvalidAddress`] if it has no stable form, or the profile UsernameCaseMapped
/// ([RFC 8265 §3.3](https://www.rfc-editor.org/rfc/rfc8265#section-3.3)) refuses it.
pub fn local(text: &str) -> Result<NodePart, InvalidAddress> {
    let part = NodePart::new(short_enough(text)?).map_err(|_| InvalidAddress)?.into_owned();
    if text.is_ascii() {
        return Ok(part);
    }
    // JID-2, JID-5: both the text, which may only look like another, and what becomes of it, which
    // comes again.
    let stable = NodePart::new(&part).is_ok_and(|again| again.as_str() == part.as_str());
    let same = part.as_str() == text;
    if stable && unicode::is_username(text) && (same || unicode::is_username(&part)) {
        Ok(part)
    } else {
        Err(InvalidAddress)
    }
}

/// A domain: U-labels in place of A-labels, without a final dot.
///
/// A name that `jid` cannot hold in U-labels (a script of after Unicode 3.2, `ß`, joiners) keeps its
/// A-labels, in whichever form it comes.
///
/// # Errors
///
/// [`InvalidAddress`] if it is no domain name and no IP address, or has a label that IDNA refuses.
pub fn domain(text: &str) -> Result<DomainPart, InvalidAddress> {
    if is_plain(text) {
        return DomainPart::new(text).map(Cow::into_owned).map_err(|_| InvalidAddress);
    }
    if let Some(literal) = ip_literal(text.strip_suffix('.').unwrap_or(text)) {
        return DomainPart::new(&literal).map(Cow::into_owned).map_err(|_| InvalidAddress);
    }
    let mapped = unicode::to_u_labels(short_enough(text)?)?;
    // JID-3, JID-4, RFC 7622 §3.2. `jid` keeps a second one.
    let name = mapped.strip_suffix('.').unwrap_or(&mapped);
    if name.ends_with('.') {
        return Err(InvalidAddress);
    }
    as_it_is(name).or_else(|_| as_it_is(&unicode::to_a_labels(name)?))
}

/// The resource of an account here.
///
/// # Errors
///
/// [`InvalidAddress`] if it has no stable form.
pub fn resource(text: &str) -> Result<ResourcePart, InvalidAddress> {
    let part = ResourcePart::new(short_enough(text)?).map_err(|_| InvalidAddress)?.into_owned();
    let stable = text.is_ascii()
        || ResourcePart::new(&part).is_ok_and(|again| again.as_str() == part.as_str());
    if stable { Ok(part) } else { Err(InvalidAddress) }
}

/// The A-labels of a domain: what certificates, TLS and DNS call it
/// ([RFC 7622 §3.2.1](https://www.rfc-editor.org/rfc/rfc7622#section-3.2.1)).
///
/// # Errors
///
/// [`InvalidAddress`] for a text that [`domain`] refuses.
#[cfg(feature = "server")]
pub fn a_labels(text: &str) -> Result<String, InvalidAddress> {
    let name = domain(text)?;
    match ip_literal(&name) {
        Some(literal) => Ok(literal),
        None => unicode::to_a_labels(&name).map(Cow::into_owned),
    }
}

/// The resource of an address elsewhere is for that domain to judge: it stays as it was written.
#[cfg(feature = "server")]
pub(crate) fn foreign_resource(text: &str) -> Result<&str, InvalidAddress> {
    if text.is_empty() { Err(InvalidAddress) } else { short_enough(text) }
}

/// The address that a text names, to be compared with others: a resource that we would not give out
/// equals only itself.
#[cfg(feature = "server")]
pub(crate) fn comparable(text: &str) -> Result<String, InvalidAddress> {
    let (account, wanted) = parts(text);
    let account = bare(account)?;
    Ok(match wanted {
        None => account.as_str().to_owned(),
        Some(text) => match resource(text) {
            Ok(part) => format!("{account}/{part}"),
            Err(_) => format!("{account}/{}", foreign_resource(text)?),
        },
    })
}

/// The account of a JID that was made elsewhere. The domain gets its normal form; a localpart that
/// would not come out of here is refused, since its normal form may be somebody else's.
pub(crate) fn account(jid: &BareJid) -> Result<BareJid, InvalidAddress> {
    let normal = bare(jid.as_str())?;
    let same = normal.node().map(|node| node.as_str()) == jid.node().map(|node| node.as_str());
    if same { Ok(normal) } else { Err(InvalidAddress) }
}

/// Whether a JID that was made elsewhere is as it would be made here.
#[cfg(feature = "server")]
pub(crate) fn is_normal(jid: &BareJid) -> bool {
    is_plain(jid.as_str()) || bare(jid.as_str()).is_ok_and(|normal| normal == *jid)
}

/// Whether this is a bare JID as it is, if it is one at all: nothing here changes these bytes.
fn is_plain(text: &str) -> bool {
    let plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'@' | b'.' | b'-' | b'_');
    text.bytes().all(plain) && !text.ends_with('.') && !text.contains("xn--")
}

/// The one way to write an IP address.
fn ip_literal(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(address.to_string());
    }
    let address = text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
    Some(format!("[{address}]"))
}

/// The domain, if `jid` leaves it alone.
fn as_it_is(name: &str) -> Result<DomainPart, InvalidAddress> {
    let part = DomainPart::new(name).map_err(|_| InvalidAddress)?;
    if part.as_str() == name { Ok(part.into_owned()) } else { Err(InvalidAddress) }
}

/// What Unicode says of names, with the tables of `idna` and `precis-profiles`.
#[cfg(feature = "server")]
mod unicode {
    use std::borrow::Cow;

    use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
    use precis_profiles::UsernameCaseMapped;
    use precis_profiles::precis_core::profile::Profile as _;
    use precis_profiles::precis_core::{DerivedPropertyValue, IdentifierClass, StringClass as _};

    use super::InvalidAddress;

    pub(super) fn is_username(text: &str) -> bool {
        UsernameCaseMapped::new().enforce(text).is_ok()
    }

    pub(super) fn to_u_labels(name: &str) -> Result<Cow<'_, str>, InvalidAddress> {
        let (name, valid) =
            Uts46::new().to_unicode(name.as_bytes(), AsciiDenyList::URL, Hyphens::Check);
        match valid {
            Ok(()) if name.chars().all(is_in_labels) => Ok(name),
            _ => Err(InvalidAddress),
        }
    }

    pub(super) fn to_a_labels(name: &str) -> Result<Cow<'_, str>, InvalidAddress> {
        let name = name.as_bytes();
        let labels =
            Uts46::new().to_ascii(name, AsciiDenyList::URL, Hyphens::Check, DnsLength::Verify);
        labels.map_err(|_| InvalidAddress)
    }

    /// UTS 46 lets symbols and punctuation pass, IDNA does not (RFC 5892 §2, whose categories are
    /// those of RFC 8264 §9). Of what the tables of PRECIS do not know yet UTS 46 is believed.
    fn is_in_labels(c: char) -> bool {
        use DerivedPropertyValue::{ContextJ, ContextO, PValid, Unassigned};
        let property = || IdentifierClass::default().get_value_from_char(c);
        c.is_ascii() || matches!(property(), PValid | ContextJ | ContextO | Unassigned)
    }
}

#[cfg(not(feature = "server"))]
mod unicode {
    use std::borrow::Cow;

    use super::InvalidAddress;

    pub(super) const fn is_username(_: &str) -> bool {
        true
    }

    /// Only what `jid` makes of it.
    pub(super) fn to_u_labels(name: &str) -> Result<Cow<'_, str>, InvalidAddress> {
        let part = jid::DomainPart::new(name).map_err(|_| InvalidAddress)?;
        Ok(part.as_str().to_owned().into())
    }

    pub(super) const fn to_a_labels(_: &str) -> Result<Cow<'_, str>, InvalidAddress> {
        Err(InvalidAddress)
    }
}

#[cfg(test)]
mod tests;
