use std::io::{Read as _, Write as _};
use std::sync::LazyLock;

use rustls::client::Resumption;
use rustls::crypto::cipher::{
    AeadKey, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundOpaqueMessage, OutboundPlainMessage, Tls12AeadAlgorithm, Tls13AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls::crypto::ring::{self, cipher_suite};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType,
    HandshakeKind, PeerMisbehaved, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion,
    Tls12CipherSuite, Tls13CipherSuite,
};

use super::super::law::{self, Link, SERVER};
use super::super::{EXPORTER, TlsConfig};
use super::*;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn server() -> &'static TlsConfig {
    SERVER.as_ref().unwrap()
}

fn begin() -> Tls {
    server().begin(false, None).unwrap()
}

/// Both ends, behind the handshake.
fn open(version: &'static SupportedProtocolVersion) -> Link {
    between(begin(), law::client(version).unwrap())
}

fn between(server: Tls, client: ClientConnection) -> Link {
    let mut link = Link::new(server, client);
    link.deliver(usize::MAX);
    assert!(!link.server.is_handshaking() && link.error.is_none());
    link
}

fn heard(link: &mut Link) -> String {
    String::from_utf8(mem::take(&mut link.heard)).unwrap()
}

#[test]
fn a_handshake_and_records_in_any_pieces() {
    for version in VERSIONS {
        for size in [1, 2, 5, 6, 100, 8192] {
            let mut link = Link::new(begin(), law::client(version).unwrap());
            // Along with the end of the handshake.
            link.say(b"first ");
            link.deliver(size);
            link.say(&[b'x'; 40_000]);
            link.send(&[b'y'; 40_000]);
            link.deliver(size);
            assert_eq!((link.heard == link.said, link.got == link.sent), (true, true));
            assert_eq!((link.heard.len(), link.got.len()), (40_006, 40_000));
            assert_eq!(link.server.kept(), 0, "{version:?} in pieces of {size}");
        }
    }
}

#[test]
fn records_of_one_byte() {
    for version in VERSIONS {
        let mut link = open(version);
        for byte in b"one at a time" {
            link.say(&[*byte]);
            link.collect();
        }
        link.deliver(usize::MAX);
        assert_eq!(heard(&mut link), "one at a time");
    }
}

#[test]
fn what_is_incomplete_is_all_that_is_kept() {
    for version in VERSIONS {
        let mut link = open(version);
        assert_eq!(link.server.kept(), 0, "idle");
        link.say(&[b'x'; 16_000]);
        link.say(b"next");
        link.collect();
        let next = link.under_way.split_off(link.under_way.len() - 7);
        link.deliver(1000);
        assert_eq!(link.heard.len(), 16_000);
        assert!(link.server.kept() <= 40, "{} bytes of a record", link.server.kept());
        link.under_way = next;
        link.deliver(1);
        assert_eq!((link.heard.len(), link.server.kept()), (16_004, 0));
    }
}

#[test]
fn records_are_not_longer_than_4_kib() {
    let mut link = open(&TLS13);
    let taken = link.server.encrypt(&[b'x'; 100_000]).unwrap();
    assert_eq!(taken, BATCH, "no more than that waits");
    let mut records = link.server.outgoing();
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        lengths.push(length);
        records = &rest[length..];
    }
    assert_eq!(lengths, [4096 + 17; 4]);
    link.server.written(10);
    assert_eq!(link.server.outgoing().len(), 4 * (4096 + 22) - 10);
    link.server.written(4 * (4096 + 22) - 10);
    assert_eq!(link.server.kept(), 0);
}

#[test]
fn sasl_11_the_exporter_is_that_of_the_client() {
    let mut provider = ring::default_provider();
    for suite in ring::default_provider().cipher_suites {
        provider.cipher_suites = vec![suite];
        let version = suite.version();
        let client = client_of(provider.clone(), version);
        let Ok(client) = client else { continue };
        // TLS 1.2 only where every session has the extended master secret.
        let mut config = ServerConfig::clone(&server().config);
        config.require_ems = true;
        let mut link = Link::new(Tls::new(config).unwrap(), client);
        link.deliver(1);
        if link.server.is_handshaking() {
            // For certificates with RSA.
            assert!(format!("{suite:?}").contains("RSA"), "{suite:?}");
            continue;
        }
        let theirs = link.client.export_keying_material(vec![0; 32], EXPORTER, Some(b""));
        assert_eq!(link.server.export(EXPORTER), theirs.ok(), "{suite:?}");
        assert_eq!(link.server.export(EXPORTER), None, "once");
    }
    let mut link = open(&TLS12);
    assert_eq!(link.server.export(EXPORTER), None, "nothing is known of its master secret");
}

fn client_of(
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
) -> Result<ClientConnection, Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(law::certificate().unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap())
}

#[test]
fn a_key_log_of_the_host_is_told_as_well() {
    #[derive(Debug, Default)]
    struct Log(parking_lot::Mutex<Vec<String>>);
    impl KeyLog for Log {
        fn log(&self, label: &str, _: &[u8], _: &[u8]) {
            self.0.lock().push(label.into());
        }
    }
    let log = Arc::new(Log::default());
    let mut config = ServerConfig::clone(&server().config);
    config.key_log = Arc::clone(&log) as _;
    between(Tls::new(config).unwrap(), law::client(&TLS13).unwrap());
    let labels = log.0.lock();
    for label in ["SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0", "EXPORTER_SECRET"] {
        assert!(labels.iter().any(|said| said == label), "{labels:?}");
    }
}

#[test]
fn key_updates_are_followed_and_answered() {
    let mut link = open(&TLS13);
    for round in 0..100 {
        link.client.refresh_traffic_keys().unwrap();
        link.say(b"new key ");
        link.deliver(1 + round);
        assert_eq!(heard(&mut link), "new key ");
        link.send(b"and ours");
        link.deliver(1 + round);
    }
    assert_eq!(link.got, b"and ours".repeat(100));
    assert_eq!(link.server.kept(), 0);
    // Without a word between them they are an attack.
    for _ in 0..=32 {
        link.client.refresh_traffic_keys().unwrap();
        link.deliver(usize::MAX);
    }
    assert_eq!(link.error, Some(PeerMisbehaved::TooManyKeyUpdateRequests.into()));
}

#[test]
fn tls_4_either_end_may_close_first() {
    for version in VERSIONS {
        let mut link = open(version);
        link.say(b"last");
        link.client.send_close_notify();
        link.collect();
        link.under_way.extend_from_slice(b"whatever follows");
        link.deliver(3);
        assert_eq!((heard(&mut link).as_str(), link.server.has_ended()), ("last", true));
        // Its half is open.
        link.send(b"answer");
        link.server.close();
        link.server.close();
        link.deliver(3);
        assert_eq!(link.got, b"answer");
        assert!(link.server.encrypt(b"more").is_err());
        assert!(link.client.process_new_packets().unwrap().peer_has_closed());

        let mut link = open(version);
        link.server.close();
        link.say(b"too late");
        let records = link.server.outgoing().len();
        assert!((20..60).contains(&records), "{records} bytes of close_notify");
        link.deliver(3);
        assert_eq!((heard(&mut link).as_str(), link.server.has_ended()), ("", false));
        assert!(link.client.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn nothing_is_heard_or_said_behind_an_error() {
    for version in VERSIONS {
        let mut link = open(version);
        link.say(b"good");
        link.collect();
        let mut bad = link.under_way.clone();
        *bad.last_mut().unwrap() ^= 1;
        let good = mem::replace(&mut link.under_way, bad);
        link.deliver(usize::MAX);
        assert_eq!(link.error, Some(Error::DecryptError));
        let alert = rustls::AlertDescription::BadRecordMac;
        let told = link.client.process_new_packets().unwrap_err();
        assert_eq!(told, Error::AlertReceived(alert), "the client is told why");
        // Its counter has not moved: that record would be good now.
        link.under_way = good;
        link.deliver(usize::MAX);
        assert_eq!(heard(&mut link), "");
        assert!(link.server.encrypt(b"more").is_err());
        link.server.close();
        assert!(link.server.outgoing().is_empty(), "nothing follows the alert");
    }
}

#[test]
fn what_is_no_handshake_is_answered_with_an_alert() {
    for (bytes, alert) in [
        (&b"<stream:stream>plain text after all"[..], true),
        (b"GET / HTTP/1.1\r\n\r\n", true),
        (b"\x16\x03\x01\xff\xff too long for a record", true),
        (b"\x16\x03\x01\x00\x04\x01\x00", false),
    ] {
        let mut tls = begin();
        let taken = tls.receive(&mut bytes.to_vec());
        assert_eq!((taken.is_err(), tls.outgoing().first()), (alert, alert.then_some(&0x15)));
        assert!(tls.outgoing().len() <= 7 && tls.is_handshaking());
        tls.close();
        assert!(tls.outgoing().len() <= 7, "there is nothing to close");
    }
}

#[test]
fn tls_6_early_data_is_refused() {
    // The host's own server has given out a ticket that allows it.
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&server().config.cert_resolver));
    config.max_early_data_size = 1 << 14;
    let host = TlsConfig::from(Arc::new(config));
    let mut config = ClientConfig::clone(&law::config(&TLS13).unwrap());
    config.enable_early_data = true;
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    let connect =
        || ClientConnection::new(Arc::clone(&config), "localhost".try_into().unwrap()).unwrap();
    let (mut client, mut theirs) =
        (connect(), rustls::ServerConnection::new(Arc::clone(&host.config)).unwrap());
    while client.is_handshaking() || theirs.wants_write() || client.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        theirs.read_tls(&mut &bytes[..]).unwrap();
        theirs.process_new_packets().unwrap();
        bytes.clear();
        while theirs.wants_write() {
            theirs.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    let mut link = Link::new(host.begin(false, None).unwrap(), connect());
    link.client.early_data().unwrap().write_all(b"again and again").unwrap();
    link.deliver(7);
    assert_eq!(link.client.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(!link.client.is_early_data_accepted() && link.heard.is_empty());
    link.say(b"once");
    link.deliver(7);
    assert_eq!(heard(&mut link), "once");
}

#[test]
fn tls_6_a_ticket_can_be_used_however_many_others_were_here() {
    for version in VERSIONS {
        let mut config = ClientConfig::clone(&law::config(version).unwrap());
        config.resumption = Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        let connect =
            || ClientConnection::new(Arc::clone(&config), "localhost".try_into().unwrap()).unwrap();
        let first = between(begin(), connect());
        assert_eq!(first.client.handshake_kind(), Some(HandshakeKind::Full));
        for _ in 0..300 {
            open(version);
        }
        let mut second = between(begin(), connect());
        assert_eq!(second.client.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        let tickets = second.client.tls13_tickets_received();
        assert_eq!(tickets, u32::from(version.version == TLS13.version), "and one for the next");
        second.say(b"back");
        second.deliver(1);
        assert_eq!(heard(&mut second), "back");
        if version.version == TLS13.version {
            let theirs =
                second.client.export_keying_material(vec![0; 32], EXPORTER, Some(b"")).unwrap();
            assert_eq!(second.server.export(EXPORTER), Some(theirs));
        }
    }
}

#[test]
fn tls_6_certificates_of_clients_are_looked_at_each_time() {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(law::certificate().unwrap()).unwrap();
    let host = server().clone().client_certificates(roots).unwrap();
    let link = between(host.begin(false, None).unwrap(), law::client(&TLS13).unwrap());
    assert_eq!(link.client.tls13_tickets_received(), 0);
}

#[test]
fn tls_6_the_fastest_suite_comes_first() {
    for (version, fastest) in VERSIONS.into_iter().zip([
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ]) {
        let link = open(version);
        let suite = link.client.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite == fastest, super::super::computes_aes(), "{suite:?}");
    }
    // The host's own configuration keeps its order, which is the client's.
    let mut own = ServerConfig::clone(&server().config);
    own.ignore_client_order = false;
    let link = between(Tls::new(own).unwrap(), law::client(&TLS13).unwrap());
    let suite = link.client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_256_GCM_SHA384);
}

/// A client that sends records of any type: application data that begins with `RAW` and a type has that.
struct Raw<A: ?Sized + 'static>(&'static A);

struct RawEncrypter(Box<dyn MessageEncrypter>);

const RAW: &[u8] = b"\0raw";

impl MessageEncrypter for RawEncrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let payload = message.payload.to_vec();
        match payload.strip_prefix(RAW) {
            Some([typ, rest @ ..]) => {
                let (typ, payload) = (ContentType::from(*typ), OutboundChunks::Single(rest));
                self.0.encrypt(OutboundPlainMessage { typ, payload, ..message }, seq)
            }
            _ => self.0.encrypt(message, seq),
        }
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}

impl Tls12AeadAlgorithm for Raw<dyn Tls12AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(RawEncrypter(self.0.encrypter(key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        _: AeadKey,
        _: &[u8],
        _: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

impl Tls13AeadAlgorithm for Raw<dyn Tls13AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(RawEncrypter(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(
        &self,
        _: AeadKey,
        _: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

static RAW_12: LazyLock<(Raw<dyn Tls12AeadAlgorithm>, Raw<dyn Tls13AeadAlgorithm>)> =
    LazyLock::new(|| {
        let SupportedCipherSuite::Tls12(old) =
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        else {
            unreachable!("of TLS 1.2");
        };
        let SupportedCipherSuite::Tls13(new) = cipher_suite::TLS13_AES_128_GCM_SHA256 else {
            unreachable!("of TLS 1.3");
        };
        (Raw(old.aead_alg), Raw(new.aead_alg))
    });

static RAW_SUITES: LazyLock<(Tls12CipherSuite, Tls13CipherSuite)> = LazyLock::new(|| {
    let SupportedCipherSuite::Tls12(old) = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    else {
        unreachable!("of TLS 1.2");
    };
    let SupportedCipherSuite::Tls13(new) = cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        unreachable!("of TLS 1.3");
    };
    let common = |common: &CipherSuiteCommon| CipherSuiteCommon { ..*common };
    (
        Tls12CipherSuite { common: common(&old.common), aead_alg: &RAW_12.0, ..*old },
        Tls13CipherSuite { common: common(&new.common), aead_alg: &RAW_12.1, quic: None, ..*new },
    )
});

fn open_raw(version: &'static SupportedProtocolVersion) -> Link {
    let provider = CryptoProvider {
        cipher_suites: vec![
            SupportedCipherSuite::Tls12(&RAW_SUITES.0),
            SupportedCipherSuite::Tls13(&RAW_SUITES.1),
        ],
        ..ring::default_provider()
    };
    between(begin(), client_of(provider, version).unwrap())
}

/// A record of this type goes to the server, of which the answer is not told to the client.
fn send_raw(link: &mut Link, typ: ContentType, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let bytes = [RAW, &[u8::from(typ)], payload].concat();
    link.client.writer().write_all(&bytes).unwrap();
    link.collect();
    let taken = link.server.receive(&mut mem::take(&mut link.under_way));
    link.heard.append(&mut link.server.take_plain());
    taken.map(|()| link.server.take_outgoing())
}

/// Without its header.
fn client_hello(version: &'static SupportedProtocolVersion) -> Vec<u8> {
    let mut client = law::client(version).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello.split_off(5)
}

#[test]
fn a_renegotiation_is_refused() {
    let mut link = open_raw(&TLS12);
    let answer = send_raw(&mut link, ContentType::Handshake, &client_hello(&TLS12)).unwrap();
    assert_eq!(answer.first(), Some(&0x15), "a warning: no_renegotiation");
    let mut rest = &answer[..];
    link.client.read_tls(&mut rest).unwrap();
    link.client.process_new_packets().unwrap();
    link.say(b"as before");
    link.deliver(1);
    assert_eq!(heard(&mut link), "as before");
    let again = send_raw(&mut link, ContentType::Handshake, &client_hello(&TLS12));
    assert_eq!(again.unwrap_err(), PeerMisbehaved::TooManyRenegotiationRequests.into());

    // TLS 1.3 has none.
    let mut link = open_raw(&TLS13);
    let again = send_raw(&mut link, ContentType::Handshake, &client_hello(&TLS13));
    assert!(again.is_err());
    assert_eq!(link.server.outgoing().first(), Some(&0x17), "an alert");
    assert!(link.server.encrypt(b"more").is_err());
}

#[test]
fn part_of_a_message_of_the_handshake_waits_and_does_no_harm() {
    // A key update in two records, with nothing else between them.
    let mut link = open_raw(&TLS13);
    send_raw(&mut link, ContentType::Handshake, &[24, 0]).unwrap();
    assert!(link.server.kept() > 0);
    link.send(b"meanwhile");
    assert_eq!(link.sent, b"meanwhile");
    link.deliver(1);
    assert_eq!(link.got, b"meanwhile");
    let interleaved = send_raw(&mut link, ContentType::ApplicationData, b"x");
    let wrong = PeerMisbehaved::MessageInterleavedWithHandshakeMessage;
    assert_eq!(interleaved.unwrap_err(), wrong.into());
    assert_eq!(link.server.kept(), link.server.outgoing.capacity());
    assert_eq!(heard(&mut link), "");
}

#[test]
fn empty_records_and_warnings_have_an_end() {
    for version in VERSIONS {
        let mut link = open_raw(version);
        let mut empty = 0;
        while send_raw(&mut link, ContentType::ApplicationData, b"").is_ok() {
            empty += 1;
            assert!(empty <= 32);
        }
        assert_eq!((empty, heard(&mut link).as_str()), (32, ""));
    }
    let mut link = open_raw(&TLS12);
    let mut warnings = 0;
    while send_raw(&mut link, ContentType::Alert, &[1, 90]).is_ok() {
        warnings += 1;
        assert!(warnings <= 4);
    }
    assert_eq!(warnings, 4);
    // Neither may change the keys as they like, nor is there a type 99.
    for typ in [ContentType::ChangeCipherSpec, ContentType::Unknown(99)] {
        for version in VERSIONS {
            assert!(send_raw(&mut open_raw(version), typ, &[1]).is_err(), "{typ:?} {version:?}");
        }
    }
    assert_eq!(TLS13.version, ProtocolVersion::TLSv1_3);
}

#[test]
fn a_fatal_alert_of_the_peer_is_an_error() {
    for version in VERSIONS {
        let mut link = open_raw(version);
        let alert = send_raw(&mut link, ContentType::Alert, &[2, 80]);
        let internal = rustls::AlertDescription::InternalError;
        assert_eq!(alert.unwrap_err(), Error::AlertReceived(internal));
        assert!(link.server.outgoing().is_empty() && link.server.encrypt(b"x").is_err());
        let mut rest = Vec::new();
        assert!(link.client.reader().read_to_end(&mut rest).is_err() && rest.is_empty());
    }
}
