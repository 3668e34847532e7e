//! A certificate of its own issuer, in files.

use std::fs;
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};

/// For "localhost", and no address.
pub(super) struct Certificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Certificate {
    pub(super) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.der(), made.signing_key.serialize_der());
        Self { certificate: pem("CERTIFICATE", certificate), key: pem("PRIVATE KEY", &key) }
    }

    /// Where they are, in this folder: the certificate, and its key.
    pub(super) fn write(&self, folder: &std::path::Path) -> [PathBuf; 2] {
        let file = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::write(&file, text).unwrap();
            file
        };
        [file("server.crt", &self.certificate), file("server.key", &self.key)]
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
