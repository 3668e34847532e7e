//! Keying material for channel bindings ([RFC 8446 §7.5](https://www.rfc-editor.org/rfc/rfc8446#section-7.5)), which
//! rustls exports from its buffered connections only.
//!
//! rustls tells a [`KeyLog`] the secret of the exporter, from which no key of the connection can be had. Of TLS 1.2 it
//! tells the master secret, which is looked at only where the exporter may be used at all: with the extended master
//! secret (RFC 9266 §4.2). Either is wiped as soon as the handshake is over.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::crypto::tls13::{HkdfExpander, OkmBlock};
use rustls::{CommonState, KeyLog, SupportedCipherSuite};

/// The key log of one handshake.
pub(super) struct Exporter {
    /// What the configuration has.
    next: Arc<dyn KeyLog>,
    /// Whether every session of TLS 1.2 has the extended master secret.
    is_extended: bool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Of the exporter, or the master secret. The block wipes itself.
    secret: Option<OkmBlock>,
    client_random: Vec<u8>,
    /// From the first that the server has sent.
    server_random: Option<Vec<u8>>,
}

const EXPORTER: &str = "EXPORTER_SECRET";
const MASTER: &str = "CLIENT_RANDOM";

impl Exporter {
    pub(super) fn new(next: Arc<dyn KeyLog>, is_extended: bool) -> Self {
        Self { next, is_extended, known: Mutex::default() }
    }

    fn is_wanted(&self, label: &str) -> bool {
        label == EXPORTER || (label == MASTER && self.is_extended)
    }

    /// The server has sent this record.
    pub(super) fn sent(&self, record: &[u8]) {
        if !self.is_extended {
            return;
        }
        // The header of the record, of the message (2: ServerHello) with three bytes of length, the version.
        if let [0x16, _, _, _, _, 2, _, _, _, _, _, hello @ ..] = record {
            let random = hello.get(..32).map(<[u8]>::to_vec);
            let mut known = self.known.lock();
            if known.server_random.is_none() {
                known.server_random = random;
            }
        }
    }

    /// As `rustls::ConnectionCommon::export_keying_material` with an empty context, 32 bytes.
    pub(super) fn export(&self, connection: &CommonState, label: &[u8]) -> Option<Vec<u8>> {
        let known = std::mem::take(&mut *self.known.lock());
        let secret = known.secret?;
        let mut out = vec![0; 32];
        match connection.negotiated_cipher_suite()? {
            SupportedCipherSuite::Tls13(suite) => {
                let empty = suite.common.hash_provider.hash(&[]);
                let expander = suite.hkdf_provider.expander_for_okm(&secret);
                let mut derived = vec![0; expander.hash_len()];
                expand(&*expander, label, empty.as_ref(), &mut derived)?;
                let derived = OkmBlock::new(&derived);
                let expander = suite.hkdf_provider.expander_for_okm(&derived);
                expand(&*expander, b"exporter", empty.as_ref(), &mut out)?;
            }
            SupportedCipherSuite::Tls12(suite) => {
                let server_random = known.server_random?;
                // The length of the context, RFC 5705 §4.
                let seed = [&*known.client_random, &*server_random, &[0, 0]].concat();
                suite.prf_provider.for_secret(&mut out, secret.as_ref(), label, &seed);
            }
        }
        Some(out)
    }
}

/// HKDF-Expand-Label.
fn expand(expander: &dyn HkdfExpander, label: &[u8], context: &[u8], out: &mut [u8]) -> Option<()> {
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let info = [&length[..], &label_length, PREFIX, label, &context_length, context];
    expander.expand_slice(&info, out).ok()
}

impl KeyLog for Exporter {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if self.is_wanted(label) && secret.len() <= OkmBlock::MAX_LEN {
            let mut known = self.known.lock();
            known.secret = Some(OkmBlock::new(secret));
            known.client_random = client_random.to_vec();
        }
        if self.next.will_log(label) {
            self.next.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        self.is_wanted(label) || self.next.will_log(label)
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last record of the handshake begins as the first does, and goes on with anything.
    #[test]
    fn sasl_11_what_is_encrypted_is_no_hello() {
        let exporter = Exporter::new(Arc::new(rustls::NoKeyLog), true);
        let record = |random| [&[0x16, 3, 3, 0, 50, 2, 0, 0, 40, 3, 3][..], &[random; 40]].concat();
        exporter.sent(&record(1));
        exporter.sent(&record(9));
        assert_eq!(exporter.known.lock().server_random, Some(vec![1; 32]));
    }
}
