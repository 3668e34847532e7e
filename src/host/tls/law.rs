//! The law of TLS without input and output, as a check that any bytes can be put to.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::{Tls, TlsConfig};

/// For `localhost`, until the year 4096. Whoever is certified by it is known to everybody.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBXzCCAQSgAwIBAgIUB4eYswDI3D6ZCGW+bo5+hlgTTEQwCgYIKoZIzj0EAwIw
ITEfMB0GA1UEAwwWcmNnZW4gc2VsZiBzaWduZWQgY2VydDAgFw03NTAxMDEwMDAw
MDBaGA80MDk2MDEwMTAwMDAwMFowITEfMB0GA1UEAwwWcmNnZW4gc2VsZiBzaWdu
ZWQgY2VydDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAUhHr6TjbjT9KvTdbRO
YeFTNdb9LepX49w6iINe2N670Ut63d62wWIpr57BA2S+FTgKVTCfG3rpTjQmEgGO
bsKjGDAWMBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAKBggqhkjOPQQDAgNJADBGAiEA
6t85GZvECKO36s5w0pyEeW7e4HbhnBMlpRDnfK/pTakCIQDTwdigoQwzJYTpZsKv
GUmWXevyYSZ54IcT+Ez5mV86wQ==
-----END CERTIFICATE-----";
const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgJThalc4uBkJlhL30
/eGtsUICR/syxvuRHw4jFqO06VqhRANCAAQFIR6+k4240/Sr03W0TmHhUzXW/S3q
V+PcOoiDXtjeu9FLet3etsFiKa+ewQNkvhU4ClUwnxt66U40JhIBjm7C
-----END PRIVATE KEY-----";

pub(super) fn certificate() -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(CERTIFICATE).ok()
}

pub(super) static SERVER: LazyLock<Option<TlsConfig>> = LazyLock::new(|| {
    TlsConfig::new(vec![certificate()?], PrivateKeyDer::from_pem_slice(KEY).ok()?).ok()
});

/// A client with this version, whose sessions are its own.
pub(super) fn client(version: &'static SupportedProtocolVersion) -> Option<ClientConnection> {
    static CONFIGS: LazyLock<Option<[Arc<ClientConfig>; 2]>> =
        LazyLock::new(|| Some([config(&TLS12)?, config(&TLS13)?]));
    let [old, new] = (*CONFIGS).as_ref()?;
    let config = if version.version == TLS12.version { old } else { new };
    ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").ok()?).ok()
}

pub(super) fn config(version: &'static SupportedProtocolVersion) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate()?).ok()?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(Arc::new(config))
}

/// Both ends of a connection, and the bytes between them.
pub(super) struct Link {
    pub(super) server: Tls,
    pub(super) client: ClientConnection,
    /// On the way to the server.
    pub(super) under_way: Vec<u8>,
    /// What the client has said, and what the server has heard of it.
    pub(super) said: Vec<u8>,
    pub(super) heard: Vec<u8>,
    /// What the server has said, and what the client has heard of it.
    pub(super) sent: Vec<u8>,
    pub(super) got: Vec<u8>,
    /// Whoever is to blame.
    pub(super) error: Option<rustls::Error>,
}

impl Link {
    pub(super) fn new(server: Tls, client: ClientConnection) -> Self {
        Self {
            server,
            client,
            under_way: Vec::new(),
            said: Vec::new(),
            heard: Vec::new(),
            sent: Vec::new(),
            got: Vec::new(),
            error: None,
        }
    }

    pub(super) fn say(&mut self, bytes: &[u8]) {
        let n = self.client.writer().write(bytes).unwrap_or_default();
        self.said.extend_from_slice(bytes.get(..n).unwrap_or_default());
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(n) = self.server.encrypt(rest) else { return };
            let (now, then) = rest.split_at(n);
            self.sent.extend_from_slice(now);
            rest = then;
        }
    }

    /// Takes the client's records.
    pub(super) fn collect(&mut self) {
        while self.client.wants_write() {
            let _always = self.client.write_tls(&mut self.under_way);
        }
    }

    /// Brings everything to where it is to go, to the server in pieces of `size`.
    pub(super) fn deliver(&mut self, size: usize) {
        loop {
            self.collect();
            for piece in std::mem::take(&mut self.under_way).chunks_mut(size) {
                if let Err(error) = self.server.receive(piece) {
                    self.error.get_or_insert(error);
                }
                self.heard.append(&mut self.server.take_plain());
            }
            let records = self.server.take_outgoing();
            let mut rest = &*records;
            while let Ok(1..) = self.client.read_tls(&mut rest) {
                if self.client.process_new_packets().is_err() {
                    break;
                }
                let _until_later = self.client.reader().read_to_end(&mut self.got);
            }
            if records.is_empty() && !self.client.wants_write() {
                return;
            }
        }
    }
}

/// What is decrypted is what the peer has said, up to where somebody has meddled with it, in whatever pieces it comes;
/// the peer hears what the server says; nothing is kept that is not incomplete. The first byte chooses what
/// the rest is: bytes from nobody, or what two ends do; the second the pieces.
pub(crate) fn check(data: &[u8]) {
    let Some((&[kind, size], script)) = data.split_first_chunk() else { return };
    let Some(server) = &*SERVER else { return };
    let Ok(mut tls) = server.begin(kind & 2 == 2, None) else { return };
    let size = usize::from(size).max(1);
    if kind & 1 == 1 {
        let mut error = false;
        for piece in script.to_vec().chunks_mut(size) {
            error |= tls.receive(piece).is_err();
            assert!(tls.take_plain().is_empty() && tls.is_handshaking(), "nobody is there");
            drop(tls.take_outgoing());
            assert!(tls.kept() <= 2 * (0xffff + size), "it has an end");
        }
        assert!(!error || tls.kept() == 0, "nothing is waited for behind an error");
        assert!(tls.encrypt(b"x").is_err(), "nothing is said in plain text");
        return;
    }
    let Some(client) = client(if kind & 4 == 4 { &TLS12 } else { &TLS13 }) else { return };
    let mut link = Link::new(tls, client);
    if kind & 8 == 8 {
        link.deliver(size);
        assert!(!link.server.is_handshaking(), "the handshake succeeds in pieces of {size}");
    }
    play(&mut link, size, script);
}

fn play(link: &mut Link, size: usize, script: &[u8]) {
    let pattern: Vec<u8> = (0..=250).cycle().take(50_000).collect();
    let some = |bytes: usize| pattern.get(..bytes).unwrap_or(&pattern);
    let (mut is_clean, mut is_open, mut is_closed, mut updates) = (true, true, false, 0);
    for step in script.chunks(2) {
        let &[what, much] = step else { continue };
        let much = usize::from(much);
        match what % 8 {
            0 | 1 if is_open => link.say(some(1 + much * 80)),
            2 if !link.server.is_handshaking() => link.send(some(1 + much * 160)),
            // More than 32 are an attack.
            3 if is_open && updates < 30 && !link.client.is_handshaking() => {
                updates += usize::from(link.client.refresh_traffic_keys().is_ok());
            }
            4 => {
                link.server.close();
                is_closed = true;
            }
            5 if is_open && !link.client.is_handshaking() => {
                link.client.send_close_notify();
                is_open = false;
            }
            6 => {
                link.collect();
                let at = much % link.under_way.len().max(1);
                if let Some(byte) = link.under_way.get_mut(at) {
                    *byte ^= 1 << (what >> 5);
                    is_clean = false;
                }
            }
            7 => {
                link.collect();
                link.under_way.extend_from_slice(some(1 + much % 64));
                is_clean = false;
            }
            _ => {}
        }
        if what & 8 == 0 {
            link.deliver(size);
            assert!(link.said.starts_with(&link.heard), "nothing else is heard");
            assert!(link.sent.starts_with(&link.got), "nothing else is said");
        }
    }
    link.deliver(size);
    assert!(link.said.starts_with(&link.heard), "nothing else is heard");
    if is_clean {
        assert!(link.error.is_none(), "{:?}", link.error);
        assert!(is_closed || link.heard.len() == link.said.len(), "all of it is heard");
        assert!(link.got == link.sent, "all of it is said");
        assert!(is_open || is_closed || link.server.has_ended(), "the end is seen");
        assert!(link.server.kept() == 0, "nothing is kept: {}", link.server.kept());
    } else if link.error.is_some() {
        assert!(link.server.kept() == 0, "nothing is kept behind an error");
        assert!(link.server.encrypt(b"x").is_err(), "and nothing is said");
    }
}
