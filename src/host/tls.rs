mod exporter;
#[cfg(all(any(test, fuzzing), feature = "ring"))]
pub(crate) mod law;
mod machine;

pub(super) use machine::Tls;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

#[cfg(feature = "ring")]
use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::HashAlgorithm;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{NoServerSessionStorage, ServerConnection, WebPkiClientVerifier};
use rustls::{CommonState, ProtocolVersion, RootCertStore, ServerConfig, SupportedCipherSuite};

use crate::sasl::ChannelBindings;
use crate::store::ClientCertificate;

/// A TLS configuration, and what channel bindings need to know of its certificate.
///
/// The cryptography is that of `rustls`'s process-wide provider if the host has installed one, else that of
/// the feature `ring`; or that of a [`ServerConfig`] which the host has made. Cheap to clone.
///
/// ```no_run
/// use xmpp_session::host::TlsConfig;
///
/// let tls = TlsConfig::from_pem_files("/etc/ssl/example.com.pem", "/etc/ssl/private/example.com.key")?;
/// # Ok::<(), xmpp_session::host::PemError>(())
/// ```
#[derive(Clone)]
pub struct TlsConfig {
    config: Arc<ServerConfig>,
    pub(super) end_point: Option<Arc<[u8]>>,
    /// Certificates of clients say who they are (EXTERNAL-1).
    knows_clients: bool,
}

/// Why no TLS configuration could be made of two files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// A file cannot be read.
    #[error("{} cannot be read: {error}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file is damaged.
    #[error("{} is not in PEM form: {error}", file.display())]
    Malformed {
        /// Which.
        file: PathBuf,
        /// How.
        #[source]
        error: pem::Error,
    },
    /// The first file has no certificate.
    #[error("{} has no certificate in it", .0.display())]
    NoCertificate(PathBuf),
    /// The second file has no private key.
    #[error("{} has no private key in it", .0.display())]
    NoKey(PathBuf),
    /// The private key is encrypted.
    #[error("the private key in {} is protected by a password: decrypt it first", .0.display())]
    ProtectedKey(PathBuf),
    /// The key belongs to another certificate, or to one that is not the first in its file.
    #[error("the private key in {} does not belong to the first certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate or its key is of no use to the provider.
    #[error("{} and {} are of no use for TLS: {error}", certificate.display(), key.display())]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        #[source]
        error: rustls::Error,
    },
    /// A certificate cannot vouch for others.
    #[error("{} is of no use for verifying clients: {error}", file.display())]
    UnusableAuthority {
        /// Its file.
        file: PathBuf,
        /// Why.
        #[source]
        error: rustls::Error,
    },
}

impl TlsConfig {
    /// [`new`](Self::new) with the certificate and the private key that these files hold in PEM form: the
    /// server's own certificate first, those that vouch for it behind it, as certificate authorities hand
    /// them out (`fullchain.pem`, `privkey.pem`). It may be one file.
    ///
    /// # Errors
    ///
    /// [`PemError`], which says what is wrong with which file.
    pub fn from_pem_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, PemError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let chain = certificates(certificate)?;
        let secret = read(key)?;
        // As PKCS #8 says it, and as OpenSSL said it before.
        let marks: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
        let has = |mark: &[u8]| secret.windows(mark.len()).any(|window| window == mark);
        if marks.into_iter().any(has) {
            return Err(PemError::ProtectedKey(key.into()));
        }
        let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|error| match error {
            pem::Error::NoItemsFound => PemError::NoKey(key.into()),
            error => PemError::Malformed { file: key.into(), error },
        })?;
        Self::new(chain, secret).map_err(|error| {
            let (certificate, key) = (certificate.into(), key.into());
            match error {
                rustls::Error::InconsistentKeys(_) => PemError::Mismatch { certificate, key },
                error => PemError::Unusable { certificate, key, error },
            }
        })
    }

    /// TLS 1.2 and 1.3 with this certificate, the peer's own first, and no client certificates (see
    /// [`client_certificates`](Self::client_certificates)). Suites and tickets: [TLS-6](crate::rules#tls-6).
    ///
    /// # Errors
    ///
    /// If the key does not fit the certificate, or is of a kind that is not supported; and without a provider.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let certificate = chain.first().cloned();
        let (provider, is_ours) = provider()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.ignore_client_order = is_ours && computes_aes();
        one_ticket(&mut config, is_ours)?;
        let this = Self::from(Arc::new(config));
        Ok(match certificate {
            Some(certificate) => this.certificate(&certificate),
            None => this,
        })
    }

    /// Offers the channel binding `tls-server-end-point` for this certificate, which must be the one
    /// that every client is shown. A configuration that chooses among several leaves it out: its
    /// clients bind with `tls-exporter`.
    ///
    /// No binding is offered for a certificate whose signature algorithm is none of RSA PKCS #1 and
    /// ECDSA with MD5, SHA-1, SHA-256 or SHA-384
    /// ([RFC 5929 §4.1](https://www.rfc-editor.org/rfc/rfc5929#section-4.1)).
    #[must_use]
    pub fn certificate(mut self, certificate: &CertificateDer<'_>) -> Self {
        self.end_point = end_point(&self.config, certificate).map(Arc::from);
        self
    }

    /// Asks clients for a certificate that one of `roots` has issued, for SASL EXTERNAL
    /// ([EXTERNAL-1](crate::rules#external-1)): these authorities say who has which account. A client may do without; one
    /// that shows another certificate, or one that has expired, fails in the handshake.
    ///
    /// For a configuration of [`new`](Self::new) or [`from_pem_files`](Self::from_pem_files). One that the host has made
    /// has a verifier of its own, and [`knows_clients`](Self::knows_clients). The addresses are read with the feature
    /// `certificates`; without it only the host's [`CertificateMapper`](crate::store::CertificateMapper) knows whose a
    /// certificate is.
    ///
    /// # Errors
    ///
    /// If there are no roots.
    pub fn client_certificates(self, roots: RootCertStore) -> Result<Self, rustls::Error> {
        let provider = Arc::clone(self.config.crypto_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.config.cert_resolver));
        config.ignore_client_order = self.config.ignore_client_order;
        // A certificate is looked at each time.
        one_ticket(&mut config, false)?;
        let end_point = self.end_point;
        Ok(Self { end_point, ..Self::from(Arc::new(config)) }.knows_clients(true))
    }

    /// [`client_certificates`](Self::client_certificates) with the authorities whose certificates this file holds in PEM
    /// form.
    ///
    /// # Errors
    ///
    /// [`PemError`], which says what is wrong with the file.
    pub fn clients_from_pem_file(self, authorities: impl AsRef<Path>) -> Result<Self, PemError> {
        let file = authorities.as_ref();
        let unusable = |error| PemError::UnusableAuthority { file: file.into(), error };
        let mut roots = RootCertStore::empty();
        for authority in certificates(file)? {
            roots.add(authority).map_err(unusable)?;
        }
        self.client_certificates(roots).map_err(unusable)
    }

    /// Whether the certificates that the configuration's own verifier has accepted say who has which account, for SASL
    /// EXTERNAL. Default: no, since a verifier may ask for certificates for another reason.
    #[must_use]
    pub const fn knows_clients(mut self, knows: bool) -> Self {
        self.knows_clients = knows;
        self
    }

    /// TLS of a new connection. With direct TLS its application protocol is `alpn`, or else `xmpp-client`.
    pub(super) fn begin(&self, direct: bool, alpn: Option<&[u8]>) -> Result<Tls, rustls::Error> {
        let mut config = ServerConfig::clone(&self.config);
        // One that is offered nothing goes on without, as clients may (XEP-0368).
        if let Some(protocol) = alpn.or_else(|| direct.then_some(XMPP)) {
            config.alpn_protocols = vec![protocol.to_vec()];
        }
        Tls::new(config)
    }

    /// The bindings of one whose handshake is complete. Can be had once.
    pub(super) fn bindings_of(&self, tls: &mut Tls) -> ChannelBindings {
        let exporter = tls.export(EXPORTER);
        self.bindings_with(tls.state(), exporter)
    }

    /// What SASL may bind to on a connection whose handshake is complete, for hosts that do it themselves:
    /// [`Transport::secured`](crate::server::Transport::secured).
    pub fn bindings(&self, connection: &ServerConnection) -> ChannelBindings {
        let exporter = connection.export_keying_material(vec![0; 32], EXPORTER, Some(b""));
        self.bindings_with(connection, exporter.ok())
    }

    fn bindings_with(
        &self,
        connection: &CommonState,
        exporter: Option<Vec<u8>>,
    ) -> ChannelBindings {
        // RFC 9266 §4.2: before TLS 1.3 only with the extended master secret, and rustls tells of it
        // only what it insists on.
        let unique = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            || self.config.require_ems;
        // Empty data counts as none.
        let bindings = ChannelBindings::new()
            .exporter(exporter.filter(|_| unique).unwrap_or_default())
            .server_end_point(self.end_point.as_deref().map(Vec::from).unwrap_or_default());
        let bindings = match connection.protocol_version() {
            Some(version) => bindings.version(version.into()),
            None => bindings,
        };
        let chain = connection.peer_certificates().filter(|_| self.knows_clients);
        match chain.and_then(|chain| chain.first()).and_then(|own| client(own)) {
            Some(certificate) => bindings.client_certificate(certificate),
            None => bindings,
        }
    }
}

impl From<Arc<ServerConfig>> for TlsConfig {
    /// Any configuration, with whatever provider it has. See [`certificate`](Self::certificate) for `tls-server-end-point`.
    ///
    /// It stays as it is, but for early data ([TLS-6](crate::rules#tls-6)).
    ///
    /// Its application protocols are those of STARTTLS, which needs none. With direct TLS it is
    /// `xmpp-client` alone, whatever the configuration says ([TLS-5](crate::rules#tls-5)).
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { config, end_point: None, knows_clients: false }
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("end_point", &self.end_point.is_some())
            .field("knows_clients", &self.knows_clients)
            .finish_non_exhaustive()
    }
}

/// The cryptography that the host has chosen, else ours, and whether it is ours.
fn provider() -> Result<(Arc<CryptoProvider>, bool), rustls::Error> {
    if let Some(provider) = CryptoProvider::get_default() {
        return Ok((Arc::clone(provider), false));
    }
    #[cfg(feature = "ring")]
    {
        let mut provider = rustls::crypto::ring::default_provider();
        if computes_aes() {
            provider.cipher_suites.sort_by_key(|suite| !is_fastest(suite.suite()));
        }
        Ok((Arc::new(provider), true))
    }
    #[cfg(not(feature = "ring"))]
    Err(rustls::Error::General("no provider: install one, or take the feature `ring`".into()))
}

/// With instructions for AES, and with SHA-256 rather than SHA-384.
#[cfg(feature = "ring")]
fn is_fastest(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// Whether the processor has instructions for AES.
fn computes_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// TLS-6: a ticket that its client can come back with, however many others were here since: what it says is in the ticket. Or
/// none: a memory of a few hundred sessions would have forgotten it.
fn one_ticket(config: &mut ServerConfig, has_tickets: bool) -> Result<(), rustls::Error> {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = usize::from(has_tickets);
    #[cfg(feature = "ring")]
    if has_tickets {
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    }
    Ok(())
}

/// A client's own certificate; none where its names cannot be read.
fn client(certificate: &CertificateDer<'_>) -> Option<ClientCertificate> {
    #[cfg(feature = "certificates")]
    return ClientCertificate::from_der(certificate).ok();
    #[cfg(not(feature = "certificates"))]
    Some(ClientCertificate::new(certificate.to_vec(), []))
}

/// At least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let malformed = |error| PemError::Malformed { file: file.into(), error };
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<_, _>>()
        .map_err(malformed)?;
    if found.is_empty() { Err(PemError::NoCertificate(file.into())) } else { Ok(found) }
}

fn read(file: &Path) -> Result<Vec<u8>, PemError> {
    fs::read(file).map_err(|error| PemError::Unreadable { file: file.into(), error })
}

/// The bytes for the next TLS record.
///
/// A peer can read nothing of a record before its end, and a client on a bad network may never get
/// all of 16 KiB, the longest that TLS allows. So records are shorter; and they end between two
/// characters, for clients that decode record by record (xmpp.js).
fn record(bytes: &[u8]) -> &[u8] {
    let is_character = |at: &usize| bytes.get(*at).is_some_and(|byte| byte & 0xc0 != 0x80);
    if bytes.len() <= RECORD {
        return bytes;
    }
    let end = (1..=RECORD).rev().find(is_character);
    end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

const RECORD: usize = 4096;

/// The application protocol (XEP-0368).
const XMPP: &[u8] = b"xmpp-client";

/// RFC 9266 §3.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

fn end_point(config: &ServerConfig, certificate: &[u8]) -> Option<Vec<u8>> {
    let wanted = signature_hash(certificate)?;
    let hash = config.crypto_provider().cipher_suites.iter().find_map(|suite| {
        let hash = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
            SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
        };
        (hash.algorithm() == wanted).then_some(hash)
    })?;
    Some(hash.hash(certificate).as_ref().to_vec())
}

/// The hash of RFC 5929 §4.1: that of the signature algorithm, SHA-256 in place of MD5 and SHA-1.
fn signature_hash(certificate: &[u8]) -> Option<HashAlgorithm> {
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, .. }, .. }
    let (certificate, _) = der(0x30, certificate)?;
    let (_, after) = der(0x30, certificate)?;
    let (algorithm, _) = der(0x30, after)?;
    let (oid, _) = der(0x06, algorithm)?;
    match oid {
        // 1.2.840.113549.1.1: 4 MD5, 5 SHA-1, 11 SHA-256, 12 SHA-384
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11] => Some(HashAlgorithm::SHA256),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] => Some(HashAlgorithm::SHA384),
        // 1.2.840.10045.4: 1 SHA-1, 3.2 SHA-256, 3.3 SHA-384
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => {
            Some(HashAlgorithm::SHA256)
        }
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => Some(HashAlgorithm::SHA384),
        _ => None,
    }
}

/// The contents of the DER value at the start of `bytes` if it has this tag, and what follows it.
fn der(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, bytes) = bytes.split_first()?;
    let (&length, bytes) = bytes.split_first()?;
    let (length, bytes) = if length < 0x80 {
        (usize::from(length), bytes)
    } else {
        let (length, bytes) = bytes.split_at_checked(usize::from(length & 0x7f))?;
        if length.is_empty() || length.len() > 4 {
            return None;
        }
        (length.iter().fold(0, |sum, &byte| (sum << 8) | usize::from(byte)), bytes)
    };
    if first != tag {
        return None;
    }
    bytes.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> (TlsConfig, Vec<u8>) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        let config = TlsConfig::new(vec![der.clone()], key.serialize_der().try_into().unwrap());
        (config.unwrap(), der.to_vec())
    }

    #[test]
    fn tls_server_end_point_follows_the_signature_algorithm() {
        let (config, der) = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(signature_hash(&der), Some(HashAlgorithm::SHA256));
        assert_eq!(config.end_point.map(|hash| hash.len()), Some(32));

        let (config, der) = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(signature_hash(&der), Some(HashAlgorithm::SHA384));
        assert_eq!(config.end_point.map(|hash| hash.len()), Some(48));

        let (config, _) = certificate(&rcgen::PKCS_ED25519);
        assert!(config.end_point.is_none(), "no hash function: undefined by RFC 5929");
    }

    fn pem(label: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    #[test]
    fn pem_files_and_what_may_be_wrong_with_them() {
        let folder = std::env::temp_dir().join(format!("xmpp-session-pem-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let made = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.into()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()))
        };
        let ((certificate, key), (other, other_key)) = (made("localhost"), made("example.com"));
        let protected = key.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE");
        let protected = protected.replace("END PRIVATE", "END ENCRYPTED PRIVATE");
        // A legacy one has headers, which a parser may not like.
        let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                      DEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
        let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let chain = [certificate.as_str(), &other].concat();
        let reversed = [other.as_str(), &certificate].concat();
        let all = ["some words\r\n", &key, &chain].concat();
        let broken = certificate.replace("MII", "M?I");
        let load = |certificate: &str, key: &str| {
            let (c, k) = (folder.join("chain.pem"), folder.join("key.pem"));
            fs::write(&c, certificate).unwrap();
            fs::write(&k, key).unwrap();
            TlsConfig::from_pem_files(&c, &k)
        };
        let clients = |file: &str, text: &str| {
            let file = folder.join(file);
            fs::write(&file, text).unwrap();
            load(&certificate, &key).unwrap().clients_from_pem_file(file)
        };
        assert!(clients("authorities.pem", &chain).is_ok());
        for (text, what) in
            [("", "no certificate"), (&*broken, "not in PEM form"), (garbage, "no certificate")]
        {
            let error = clients("authorities.pem", text).unwrap_err().to_string();
            assert!(error.contains("authorities.pem") && error.contains(what), "{error}");
        }
        let nothing = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let error = clients("authorities.pem", nothing).unwrap_err().to_string();
        assert!(error.contains("authorities.pem is of no use"), "{error}");
        for (certificate, key) in [(&certificate, &key), (&chain, &key), (&all, &all)] {
            assert!(load(certificate, key).unwrap().end_point.is_some());
        }
        for (certificate, key, wrong) in [
            (
                certificate.as_str(),
                other_key.as_str(),
                "key.pem does not belong to the first certificate in",
            ),
            (&reversed, &key, "key.pem does not belong to the first certificate in"),
            ("", &key, "chain.pem has no certificate in it"),
            (&key, &certificate, "chain.pem has no certificate in it"),
            (&certificate, &certificate, "key.pem has no private key in it"),
            (&certificate, &protected, "key.pem is protected by a password"),
            (&certificate, legacy, "key.pem is protected by a password"),
            (&broken, &key, "chain.pem is not in PEM form"),
            (&certificate, "-----BEGIN PRIVATE KEY-----\nAAAA", "key.pem is not in PEM form"),
            (&certificate, garbage, "key.pem are of no use for TLS"),
        ] {
            let said = load(certificate, key).unwrap_err().to_string();
            assert!(said.contains(wrong), "{said}");
        }
        let error = TlsConfig::from_pem_files(folder.join("none.pem"), folder.join("key.pem"));
        assert!(error.unwrap_err().to_string().contains("none.pem cannot be read"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn records_are_short_and_end_between_characters() {
        let text = "x".to_owned() + &"ü".repeat(RECORD);
        assert_eq!(record(text.as_bytes()).len(), RECORD - 1);
        assert_eq!(record(&text.as_bytes()[1..]).len(), RECORD);
        assert_eq!(record(&text.as_bytes()[..RECORD]).len(), RECORD, "it fits");
        assert_eq!(record(b""), b"");
        assert!(!record(&[0x80; 2 * RECORD]).is_empty(), "what is no text is written all the same");
    }

    #[test]
    fn cut_certificates_have_no_hash_and_do_no_harm() {
        let (_, der) = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for end in 0..der.len() {
            assert_eq!(signature_hash(&der[..end]), None);
        }
        assert_eq!(signature_hash(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30]), None);
        assert_eq!(signature_hash(&[0x30, 0xff]), None);
    }
}
