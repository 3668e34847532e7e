//! Data of the TLS channel that a login can be bound to.

use std::fmt;

use super::mechanism::Mechanism;
use crate::store::ClientCertificate;

/// What the host knows of one TLS connection that a login needs: channel binding data, the version, the client's
/// certificate.
///
/// The `-PLUS` mechanisms are offered where [`server_end_point`](Self::server_end_point) is known:
/// a server that offers them must support that type ([SASL-11](crate::rules#sasl-11), [XEP-0440
/// §3](https://xmpp.org/extensions/xep-0440.html)). An exporter alone offers nothing.
///
/// ```
/// use xmpp_session::sasl::ChannelBindings;
///
/// let hash_of_certificate = vec![0; 32];
/// let exported = vec![1; 32];
/// let bindings = ChannelBindings::new().server_end_point(hash_of_certificate).exporter(exported);
/// ```
#[derive(Clone, Default)]
#[must_use = "bindings do nothing until a stream is given them"]
pub struct ChannelBindings {
    exporter: Option<Vec<u8>>,
    server_end_point: Option<Vec<u8>>,
    unique: Option<Vec<u8>>,
    tls_version: Option<u16>,
    client_certificate: Option<ClientCertificate>,
}

impl ChannelBindings {
    /// No data: no `-PLUS` mechanism is offered.
    pub const fn new() -> Self {
        Self {
            exporter: None,
            server_end_point: None,
            unique: None,
            tls_version: None,
            client_certificate: None,
        }
    }

    /// `tls-exporter` ([RFC 9266 §4](https://www.rfc-editor.org/rfc/rfc9266#section-4)): 32 bytes
    /// that TLS exports for the label `EXPORTER-Channel-Binding` and an empty context. Only of TLS
    /// 1.3, or of TLS 1.2 with extended master secrets and without renegotiation.
    pub fn exporter(mut self, data: Vec<u8>) -> Self {
        self.exporter = some(data);
        self
    }

    /// `tls-server-end-point` ([RFC 5929 §4](https://www.rfc-editor.org/rfc/rfc5929#section-4)):
    /// the hash of the certificate that the server has shown, in DER, with the hash function of the
    /// certificate's signature (SHA-256 where that is MD5 or SHA-1).
    pub fn server_end_point(mut self, data: Vec<u8>) -> Self {
        self.server_end_point = some(data);
        self
    }

    /// `tls-unique` ([RFC 5929 §3](https://www.rfc-editor.org/rfc/rfc5929#section-3)), for tokens alone: the first Finished
    /// message of a handshake of TLS 1.2 with extended master secrets. TLS 1.3 has none.
    pub fn unique(mut self, data: Vec<u8>) -> Self {
        self.unique = some(data);
        self
    }

    /// What a mechanism for tokens binds to; `None` where the channel does not have it.
    pub(super) fn of_token(&self, mechanism: Mechanism) -> Option<&[u8]> {
        match mechanism {
            Mechanism::HtSha256Expr => self.exporter.as_deref(),
            Mechanism::HtSha256Uniq => self.unique.as_deref(),
            Mechanism::HtSha256Endp => self.server_end_point.as_deref(),
            Mechanism::HtSha256None => Some(&[]),
            _ => None,
        }
    }

    /// The version of TLS as it is on the wire: `0x0304` for TLS 1.3, `0x0303` for TLS 1.2. SCRAM tells it to the
    /// client ([SASL-12](crate::rules#sasl-12)): leave it out where TLS ends at a proxy.
    pub const fn version(mut self, version: u16) -> Self {
        self.tls_version = Some(version);
        self
    }

    /// The certificate by which the client has proved who it is, for SASL EXTERNAL
    /// ([EXTERNAL-1](crate::rules#external-1)). The host's TLS must have verified its chain up to an authority that is
    /// trusted to say who has which account.
    pub fn client_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.client_certificate = Some(certificate);
        self
    }

    pub(crate) const fn certificate(&self) -> Option<&ClientCertificate> {
        self.client_certificate.as_ref()
    }

    pub(crate) const fn tls_version(&self) -> Option<u16> {
        self.tls_version
    }

    pub(crate) const fn any(&self) -> bool {
        self.server_end_point.is_some()
    }

    /// The types to be announced, the preferred one first.
    pub(crate) fn types(&self) -> impl Iterator<Item = &'static str> + '_ {
        [EXPORTER, SERVER_END_POINT].into_iter().filter(|name| self.data(name).is_some())
    }

    pub(crate) fn data(&self, name: &str) -> Option<&[u8]> {
        match name {
            EXPORTER => self.exporter.as_deref(),
            SERVER_END_POINT => self.server_end_point.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Debug for ChannelBindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBindings")
            .field("exporter", &self.exporter.is_some())
            .field("server_end_point", &self.server_end_point.is_some())
            .field("unique", &self.unique.is_some())
            .finish()
    }
}

/// Empty data binds to nothing, so it counts as none.
fn some(data: Vec<u8>) -> Option<Vec<u8>> {
    Some(data).filter(|data| !data.is_empty())
}

const EXPORTER: &str = "tls-exporter";
const SERVER_END_POINT: &str = "tls-server-end-point";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sasl_11_an_exporter_alone_or_empty_data_offer_nothing() {
        assert!(!ChannelBindings::new().exporter(vec![1]).any());
        assert!(!ChannelBindings::new().server_end_point(Vec::new()).any());
        let both = ChannelBindings::new().exporter(vec![1]).server_end_point(vec![2]);
        assert!(both.any());
        assert_eq!(both.types().collect::<Vec<_>>(), ["tls-exporter", "tls-server-end-point"]);
    }

    #[test]
    fn sec_6_debug_shows_no_data() {
        let bindings = ChannelBindings::new().server_end_point(vec![7]);
        assert_eq!(
            format!("{bindings:?}"),
            "ChannelBindings { exporter: false, server_end_point: true, unique: false }"
        );
    }
}
