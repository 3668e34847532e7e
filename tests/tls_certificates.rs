//! Client certificates over real sockets, on both hosts (rules EXTERNAL-1, EXTERNAL-2).

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    OtherNameValue, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{HEADER, Served, Tls, VERSIONS, Way, both, say, serve_with, starttls, until};

const XMPP_ADDRESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 8, 5];
const EXTERNAL: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";

/// An authority, and what it has issued.
struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Issued {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    fn issue(&self, addresses: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::default();
        let name = |text: &&str| OtherNameValue::Utf8String((*text).into());
        params.subject_alt_names = addresses
            .iter()
            .map(|text| SanType::OtherName((XMPP_ADDRESS.to_vec(), name(text))))
            .collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued {
            chain: vec![certificate.der().clone()],
            key: key.serialize_der().try_into().unwrap(),
        }
    }
}

/// The client's end of TLS, with its certificate.
fn tls(
    served: &Served,
    own: &Issued,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(served.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, served.socket.try_clone().unwrap())
}

/// Logs in by certificate, and says as whom.
fn log_in(tls: &mut Tls) -> String {
    say(tls, HEADER);
    let features = until(tls, "</stream:features>");
    assert!(features.contains("'><mechanism>EXTERNAL</mechanism>"), "{features}");
    say(tls, EXTERNAL);
    assert_eq!(until(tls, ">"), "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    say(tls, HEADER);
    until(tls, "</stream:features>");
    say(tls, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    until(tls, "</iq>").split(['>', '/']).find(|text| text.contains('@')).unwrap().to_owned()
}

#[test]
fn external_1_a_certificate_logs_in() {
    for versions in [&VERSIONS[..1], &VERSIONS[1..]] {
        for way in [Way::Threads, Way::Tasks] {
            for direct in [true, false] {
                let authority = Authority::new();
                let config = |tls: xmpp_session::host::TlsConfig| {
                    tls.client_certificates(authority.roots()).unwrap()
                };
                let mut served = serve_with(way, direct, config);
                if !direct {
                    starttls(&mut served, "");
                }
                let mut tls =
                    tls(&served, &authority.issue(&["romeo@localhost"], |_| ()), versions);
                assert_eq!(log_in(&mut tls), "romeo@localhost");
            }
        }
    }
}

#[test]
fn external_1_a_certificate_without_an_address_here_is_no_offer() {
    both(|way| {
        for addresses in [&[][..], &["nobody@localhost"], &["romeo@example.com"], &["localhost"]] {
            let authority = Authority::new();
            let served =
                serve_with(way, true, |tls| tls.client_certificates(authority.roots()).unwrap());
            let mut tls = tls(&served, &authority.issue(addresses, |_| ()), VERSIONS);
            say(&mut tls, HEADER);
            let features = until(&mut tls, "</stream:features>");
            assert!(!features.contains("EXTERNAL"), "{addresses:?}: {features}");
            assert!(features.contains("SCRAM-SHA-256-PLUS"), "{features}");
        }
    });
}

#[test]
fn external_1_only_the_own_certificate_counts() {
    both(|way| {
        // The authority's certificate is in the chain, and has an address.
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = OtherNameValue::Utf8String("romeo@localhost".into());
        params.subject_alt_names = vec![SanType::OtherName((XMPP_ADDRESS.to_vec(), name))];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority(issuer);
        let served =
            serve_with(way, true, |tls| tls.client_certificates(authority.roots()).unwrap());
        let mut own = authority.issue(&[], |_| ());
        own.chain.push(authority.0.der().clone());
        let mut tls = tls(&served, &own, VERSIONS);
        say(&mut tls, HEADER);
        let features = until(&mut tls, "</stream:features>");
        assert!(!features.contains("EXTERNAL"), "{features}");
    });
}

#[test]
fn external_1_strangers_and_expired_certificates_fail_in_the_handshake() {
    both(|way| {
        let authority = Authority::new();
        let stranger = Authority::new().issue(&["romeo@localhost"], |_| ());
        let expired = authority.issue(&["romeo@localhost"], |params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        });
        let of_a_server = authority.issue(&["romeo@localhost"], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        for own in [stranger, expired, of_a_server] {
            let served =
                serve_with(way, true, |tls| tls.client_certificates(authority.roots()).unwrap());
            let mut tls = tls(&served, &own, VERSIONS);
            use std::io::{Read as _, Write as _};
            let said = tls.write_all(HEADER.as_bytes()).and_then(|()| tls.flush());
            let read = said.and_then(|()| tls.read(&mut [0; 64]));
            assert!(!matches!(read, Ok(1..)), "{read:?}");
            assert!(served.end.join().unwrap().is_err());
        }
    });
}

#[test]
fn external_1_without_a_certificate_there_is_the_password() {
    both(|way| {
        let authority = Authority::new();
        let served =
            serve_with(way, true, |tls| tls.client_certificates(authority.roots()).unwrap());
        let mut tls = served.tls(VERSIONS);
        say(&mut tls, HEADER);
        let features = until(&mut tls, "</stream:features>");
        assert!(!features.contains("EXTERNAL"), "{features}");
        say(&mut tls, EXTERNAL);
        let answer = until(&mut tls, "</failure>");
        assert!(answer.contains("<invalid-mechanism/>"), "{answer}");
    });
}

#[test]
fn external_1_a_verifier_with_another_purpose_names_nobody() {
    both(|way| {
        let authority = Authority::new();
        let served = serve_with(way, true, |tls| {
            tls.client_certificates(authority.roots()).unwrap().knows_clients(false)
        });
        let mut tls = tls(&served, &authority.issue(&["romeo@localhost"], |_| ()), VERSIONS);
        say(&mut tls, HEADER);
        let features = until(&mut tls, "</stream:features>");
        assert!(!features.contains("EXTERNAL"), "{features}");
    });
}
