//! Client certificates, and whose they are.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use jid::{BareJid, DomainRef};

use super::StoreFuture;

/// A client's own certificate, whose chain the host's TLS has verified: SASL EXTERNAL
/// ([XEP-0178 §2](https://xmpp.org/extensions/xep-0178.html)).
///
/// Only ever made of a certificate that a trusted authority has issued, and whose key the client has proved to hold.
/// Cheap to clone.
#[derive(Clone)]
pub struct ClientCertificate(Arc<Contents>);

struct Contents {
    der: Vec<u8>,
    addresses: Vec<BareJid>,
    not_after: Option<SystemTime>,
}

impl ClientCertificate {
    /// A certificate in DER and the addresses in it, if any, which the host has read itself. `from_der` (feature
    /// `certificates`) reads them.
    pub fn new(der: impl Into<Vec<u8>>, addresses: impl IntoIterator<Item = BareJid>) -> Self {
        let addresses = addresses.into_iter().collect();
        Self(Arc::new(Contents { der: der.into(), addresses, not_after: None }))
    }

    /// A certificate in DER, with what it says: its addresses are the names of the kind `id-on-xmppAddr`
    /// ([RFC 6120 §13.7.1.4](https://www.rfc-editor.org/rfc/rfc6120#section-13.7.1.4)) that are bare JIDs. A session of
    /// TLS that is resumed later shows it again: it counts for nothing once it has expired.
    ///
    /// # Errors
    ///
    /// If it is no certificate.
    #[cfg(feature = "certificates")]
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        reader::read(der).map(|contents| Self(Arc::new(contents)))
    }

    /// The certificate.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The addresses in it, in their order.
    #[must_use]
    pub fn addresses(&self) -> &[BareJid] {
        &self.0.addresses
    }

    /// Until when it is good, if that is known.
    pub(crate) fn not_after(&self) -> Option<SystemTime> {
        self.0.not_after
    }

    pub(crate) fn is_expired(&self, now: SystemTime) -> bool {
        self.0.not_after.is_some_and(|end| end < now)
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("bytes", &self.0.der.len())
            .field("addresses", &self.0.addresses.len())
            .finish_non_exhaustive()
    }
}

/// Says which accounts a client certificate is for, in place of the addresses in it: by its subject, by its serial
/// number in a directory.
///
/// For hosts to implement, and to set as [`DomainPolicy::certificates`](crate::server::DomainPolicy::certificates).
///
/// # Examples
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Arc;
/// use xmpp_session::jid::{BareJid, DomainRef};
/// use xmpp_session::server::DomainPolicy;
/// use xmpp_session::store::{CertificateMapper, ClientCertificate, StoreFuture};
///
/// /// The certificates that were handed out, in DER.
/// struct HandedOut(HashMap<Vec<u8>, BareJid>);
///
/// impl CertificateMapper for HandedOut {
///     fn accounts(&self, certificate: &ClientCertificate, _: &DomainRef) -> StoreFuture<Vec<BareJid>> {
///         let owner = self.0.get(certificate.der()).cloned();
///         Box::pin(async { Ok(owner.into_iter().collect()) })
///     }
/// }
///
/// let mut policy = DomainPolicy::default();
/// policy.certificates = Some(Arc::new(HandedOut(HashMap::new())));
/// ```
pub trait CertificateMapper: Send + Sync + 'static {
    /// The accounts of `domain` that whoever holds `certificate` may log in to. Those of other domains, and those that
    /// do not exist, are left out ([EXTERNAL-1](crate::rules#external-1)).
    ///
    /// # Errors
    ///
    /// A fault of the host: EXTERNAL is not offered.
    fn accounts(
        &self,
        certificate: &ClientCertificate,
        domain: &DomainRef,
    ) -> StoreFuture<Vec<BareJid>>;
}

/// The bytes are no certificate.
#[cfg(feature = "certificates")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate")]
#[non_exhaustive]
pub struct CertificateError;

#[cfg(feature = "certificates")]
mod reader {
    use std::time::{Duration, SystemTime};

    use jid::BareJid;
    use x509_parser::der_parser::asn1_rs::{Any, Class, FromDer as _, Tag};
    use x509_parser::prelude::{GeneralName, X509Certificate};

    use super::{CertificateError, Contents};
    use crate::address;

    /// `id-on-xmppAddr`
    const XMPP_ADDRESS: &str = "1.3.6.1.5.5.7.8.5";

    pub(super) fn read(der: &[u8]) -> Result<Contents, CertificateError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError)?;
        // Two extensions of one kind make it none (RFC 5280 §4.2).
        let names = certificate.subject_alternative_name().map_err(|_| CertificateError)?;
        if !rest.is_empty() {
            return Err(CertificateError);
        }
        let names = names.map(|names| &*names.value.general_names).unwrap_or_default();
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Contents {
            der: der.to_vec(),
            addresses: names.iter().filter_map(xmpp_address).collect(),
            not_after: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
        })
    }

    fn xmpp_address(name: &GeneralName<'_>) -> Option<BareJid> {
        let GeneralName::OtherName(kind, value) = name else { return None };
        if kind.to_id_string() != XMPP_ADDRESS {
            return None;
        }
        // [0] EXPLICIT UTF8String
        let (rest, outer) = Any::from_der(value).ok()?;
        let (inner_rest, text) = Any::from_der(outer.data).ok()?;
        let is_explicit = outer.class() == Class::ContextSpecific
            && outer.tag() == Tag(0)
            && rest.is_empty()
            && inner_rest.is_empty();
        if !is_explicit || text.tag() != Tag::Utf8String {
            return None;
        }
        address::bare(std::str::from_utf8(text.data).ok()?).ok()
    }
}

#[cfg(test)]
#[cfg(feature = "certificates")]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair, OtherNameValue, SanType};

    use super::*;

    const XMPP_ADDRESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 8, 5];

    fn other_name(kind: &[u64], text: &str) -> SanType {
        SanType::OtherName((kind.to_vec(), OtherNameValue::Utf8String(text.into())))
    }

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn addresses(names: Vec<SanType>) -> Vec<String> {
        let der = made(|params| params.subject_alt_names = names);
        let certificate = ClientCertificate::from_der(&der).unwrap();
        certificate.addresses().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn external_1_addresses_are_the_bare_jids_of_their_kind_of_name() {
        assert_eq!(addresses(vec![]), [""; 0]);
        let several = vec![
            SanType::DnsName("example.com".try_into().unwrap()),
            SanType::Rfc822Name("mail@example.com".try_into().unwrap()),
            other_name(XMPP_ADDRESS, "Juliet@Example.COM"),
            other_name(&[1, 3, 6, 1, 5, 5, 7, 8, 7], "romeo@example.com"),
            other_name(XMPP_ADDRESS, "juliet@example.com/balcony"),
            other_name(XMPP_ADDRESS, "@example.com"),
            other_name(XMPP_ADDRESS, "juliet@example.com\0.example.net"),
            other_name(XMPP_ADDRESS, ""),
            other_name(XMPP_ADDRESS, "nurse@example.net"),
        ];
        assert_eq!(addresses(several), ["juliet@example.com", "nurse@example.net"]);
    }

    #[test]
    fn external_1_only_a_utf8_string_is_an_address() {
        // SubjectAltName with one otherName, whose value is as given.
        let with = |value: &[u8]| {
            let tlv = |tag: u8, value: &[u8]| [&[tag, value.len() as u8], value].concat();
            let kind = tlv(6, &[0x2b, 6, 1, 5, 5, 7, 8, 5]);
            let names = tlv(0x30, &tlv(0xa0, &[&kind[..], value].concat()));
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
            let der = made(|params| params.custom_extensions = vec![extension]);
            ClientCertificate::from_der(&der).map(|found| found.addresses().len())
        };
        assert_eq!(with(b"\xa0\x05\x0c\x03a@b"), Ok(1));
        for other in [
            &b"\xa0\x05\x16\x03a@b"[..],
            b"\x0c\x03a@b",
            b"\xa1\x05\x0c\x03a@b",
            b"\xa0\x07\x0c\x03a@b\x05\x00",
            b"\xa0\x05\x0c\x03a@b\x05\x00",
            b"\xa0\x05\x0c\x03a@\xff",
            b"\xa0\x02\x0c\x00",
            b"\xa0\x00",
            b"",
        ] {
            assert!(!matches!(with(other), Ok(1..)), "{other:?}");
        }
    }

    #[test]
    fn sec_7_bytes_that_are_no_certificate_are_refused() {
        let der = made(|params| {
            params.subject_alt_names = vec![other_name(XMPP_ADDRESS, "a@b")];
        });
        for end in 0..der.len() {
            assert!(ClientCertificate::from_der(&der[..end]).is_err(), "{end}");
        }
        assert!(ClientCertificate::from_der(&[&der[..], &[0]].concat()).is_err());
        for place in 0..der.len() {
            let mut changed = der.clone();
            changed[place] ^= 0x80;
            let _whatever = ClientCertificate::from_der(&changed);
        }
    }

    #[test]
    fn external_1_an_expired_certificate_counts_for_nothing() {
        let der = made(|params| params.not_after = rcgen::date_time_ymd(2030, 1, 1));
        let certificate = ClientCertificate::from_der(&der).unwrap();
        let end = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_893_456_000);
        assert!(!certificate.is_expired(end));
        assert!(certificate.is_expired(end + std::time::Duration::from_secs(1)));
        assert!(!ClientCertificate::new(der, []).is_expired(end));
    }

    #[test]
    fn sec_6_debug_shows_no_address() {
        let juliet = BareJid::new("juliet@example.com").unwrap();
        let certificate = ClientCertificate::new(vec![1, 2], [juliet]);
        assert_eq!(format!("{certificate:?}"), "ClientCertificate { bytes: 2, addresses: 1, .. }");
    }
}
